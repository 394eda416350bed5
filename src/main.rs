//! The command `rkexec`.

use std::process::ExitCode;

fn main() -> ExitCode {
    rkexec::cli::main()
}
