//! The command. See `man selvedge`.

use std::process::ExitCode;

use clap::Parser;
use control::cli::{Cli, run};

fn main() -> ExitCode {
    run(Cli::parse())
}
