//! The `p2psync` command.

fn main() {}
