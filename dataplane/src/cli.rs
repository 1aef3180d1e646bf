//! The command line.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Config;
use crate::io::{self, CdrLine};

/// ringtoll: a SIP back-to-back user agent with carrier charging.
#[derive(Parser)]
#[command(name = "ringtoll", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node. Without a file the embedded defaults hold.
    Run {
        /// Configuration file.
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Check a configuration file, and whether this host has the cores and directories that it
    /// names: exit status 2 if something is wrong.
    Check {
        /// Configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Run the witness of a cluster: it votes and holds no calls.
    Witness {
        /// Configuration file; `[cluster] id` is the witness's.
        #[arg(long)]
        config: PathBuf,
    },
    /// Make the key file of a cluster, to be copied to every node.
    Key {
        /// The file to make.
        #[arg(long)]
        file: PathBuf,
    },
    /// Let a running node end in order: its calls go to the other members of its cluster, or end.
    Drain {
        /// The node's configuration file, for the address of its admin pages.
        #[arg(long)]
        config: Option<PathBuf>,
        /// That address, if there is no file.
        #[arg(long, value_name = "HOST:PORT", value_parser = resolve, conflicts_with = "config")]
        admin: Option<SocketAddr>,
    },
    /// Run the bundled charging data function by itself.
    Cdf {
        /// Address to listen on.
        #[arg(long, value_name = "HOST:PORT", value_parser = resolve)]
        listen: SocketAddr,
        /// SQLite file for records and CDRs.
        #[arg(long)]
        store: PathBuf,
        /// Acct-Interim-Interval put into answers, seconds; 0 puts none.
        #[arg(long, value_name = "SECONDS", default_value_t = 300)]
        interim_interval: u32,
    },
    /// Work with charging data records.
    Cdr {
        #[command(subcommand)]
        command: CdrCommand,
    },
    /// List the calls in the rings of a live or dead node, one JSON object a line.
    Calls {
        /// The node's state directory.
        #[arg(long)]
        state_dir: PathBuf,
    },
}

#[derive(Subcommand)]
enum CdrCommand {
    /// List the CDRs of a store.
    List {
        /// SQLite file of a CDF.
        #[arg(long)]
        store: PathBuf,
        /// One JSON object a line instead of a table.
        #[arg(long)]
        json: bool,
    },
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    crate::log::set_up();
    match Arguments::parse().command {
        Command::Run { config } => {
            let config = match config {
                Some(path) => match Config::load(&path) {
                    Ok(config) => config,
                    Err(error) => return refuse(&error),
                },
                None => Config::embedded(),
            };
            finish(io::run(config))
        }
        Command::Witness { config } => match Config::load(&config) {
            Ok(config) => finish(io::run_witness(&config)),
            Err(error) => refuse(&error),
        },
        Command::Drain { config, admin } => drain(config.as_deref(), admin),
        Command::Key { file } => finish(io::write_keys(&file)),
        Command::Check { config } => check(&config),
        Command::Cdf {
            listen,
            store,
            interim_interval,
        } => finish(io::serve_cdf(listen, &store, interim_interval)),
        Command::Cdr {
            command: CdrCommand::List { store, json },
        } => finish(list(&store, json)),
        Command::Calls { state_dir } => finish(io::list_calls(&state_dir)),
    }
}

fn check(path: &Path) -> ExitCode {
    let read = match Config::load(path).and_then(|read| read.check_host(path).map(|()| read)) {
        Ok(read) => read,
        Err(error) => return refuse(&error),
    };
    match io::check_rings(&read) {
        Ok(()) => {
            println!("{}: good", path.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

// An address, or a host name that stands for one.
fn resolve(text: &str) -> Result<SocketAddr, String> {
    let mut found = text.to_socket_addrs().map_err(|error| error.to_string())?;
    found.next().ok_or_else(|| "no address".to_owned())
}

fn drain(config: Option<&std::path::Path>, admin: Option<SocketAddr>) -> ExitCode {
    let config = match config.map(Config::load) {
        Some(Ok(config)) => config,
        Some(Err(error)) => return refuse(&error),
        None => Config::embedded(),
    };
    match admin.or(config.admin) {
        Some(admin) => finish(io::drain_node(admin)),
        None => {
            eprintln!("ringtoll: the node has no admin pages: send SIGTERM to its process instead");
            ExitCode::from(2)
        }
    }
}

fn refuse(error: &crate::config::ConfigError) -> ExitCode {
    eprintln!("{error}");
    ExitCode::from(2)
}

fn finish(result: Result<(), io::NodeError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringtoll: {error}");
            ExitCode::FAILURE
        }
    }
}

fn list(store: &std::path::Path, json: bool) -> Result<(), io::NodeError> {
    use std::io::Write;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    if !json {
        let _ = writeln!(
            out,
            "{:<10} {:<8} {:<10} {:>7} {:>11} {:>6}  {:<28} {:<28} SESSION-ID",
            "KIND", "METHOD", "STATUS", "RECORDS", "SECONDS", "CAUSE", "CALLING", "CALLED"
        );
    }
    io::list_cdrs(store, |cdr| {
        // A closed pipe ends the output, not the program's health.
        let _ = if json {
            write_json(&mut out, &cdr)
        } else {
            write_row(&mut out, &cdr)
        };
    })
}

fn write_json(out: &mut impl std::io::Write, cdr: &CdrLine) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, cdr)?;
    out.write_all(b"\n")
}

fn write_row(out: &mut impl std::io::Write, cdr: &CdrLine) -> std::io::Result<()> {
    let seconds = cdr.duration_ms.map_or(String::new(), |ms| {
        format!("{}.{:03}", ms / 1_000, ms % 1_000)
    });
    let cause = cdr
        .cause_code
        .map_or(String::new(), |code| code.to_string());
    writeln!(
        out,
        "{:<10} {:<8} {:<10} {:>7} {:>11} {:>6}  {:<28} {:<28} {}",
        cdr.kind,
        cdr.sip_method,
        cdr.status,
        cdr.records.len(),
        seconds,
        cause,
        cdr.calling_party,
        cdr.called_party,
        cdr.session_id
    )
}
