//! `vault-sim soak`: many threads on a real file system for a long time.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use vault_core::Clock as _;
use vault_core::clock::SystemClock;
use vault_sim::soak::{self, Settings};

/// A soak.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Goes on for so many minutes; parts of one are possible.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Threads, 4 to 64.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(4..=64))]
    threads: u16,
    /// An empty directory, or one that is not there yet; by default one of its own for temporary files.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Decides what the threads do; by default it follows from the time.
    #[arg(long)]
    seed: Option<u64>,
    /// Encrypts the store; its keys are rotated, its secret is changed, and it is locked and unlocked.
    #[arg(long)]
    encrypted: bool,
    /// Measures every so many seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    sample_seconds: u64,
    /// Closes the store and opens it again every so many seconds.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    reopen_seconds: u64,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    if !(arguments.minutes > 0.0 && arguments.minutes < 100_000.0) {
        println!("--minutes must be more than 0 and less than 100000");
        return ExitCode::from(2);
    }
    let directory = arguments
        .dir
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(format!("vault-soak-{}", std::process::id())));
    let seed = arguments.seed.unwrap_or_else(|| SystemClock::new().now().0);
    let settings = Settings {
        threads: usize::from(arguments.threads),
        encrypted: arguments.encrypted,
        sample_every: Duration::from_secs(arguments.sample_seconds),
        reopen_every: Duration::from_secs(arguments.reopen_seconds),
        ..Settings::new(
            Duration::from_secs_f64(arguments.minutes * 60.0),
            directory.clone(),
            seed,
        )
    };
    match soak::run(&settings, &mut std::io::stdout()) {
        Ok(outcome) if outcome.problems.is_empty() => {
            if let Err(error) = soak::remove_tree(&directory) {
                println!("{} is left behind: {error}", directory.display());
            }
            ExitCode::SUCCESS
        }
        Ok(_) => {
            println!("what was found lies in {}", directory.display());
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("cannot write: {error}");
            ExitCode::FAILURE
        }
    }
}
