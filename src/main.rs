//! The command `rkexec`.

fn main() {}
