//! ringtoll: the one binary of the node.

fn main() {}
