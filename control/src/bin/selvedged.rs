//! The daemon. See `man selvedged`.

use std::process::ExitCode;

use clap::Parser;
use control::cli::DaemonArgs;
use control::daemon;

fn main() -> ExitCode {
    let args = DaemonArgs::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("selvedged: threads could not be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(Box::pin(daemon::run(args.into()))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in error.to_string().lines() {
                eprintln!("selvedged: {line}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}
