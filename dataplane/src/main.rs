//! ringtoll: the one binary of the node.

fn main() -> std::process::ExitCode {
    dataplane::cli::main()
}
