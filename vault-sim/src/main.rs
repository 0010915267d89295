//! The simulation's command line. `cargo xtask sim` and `cargo xtask soak` pass their arguments on to it.
//!
//! Exit codes: 0 all is well, 1 the engine did wrong, 2 the command line is wrong, 3 an operation of a soak
//! did not end.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a command line tells by printing")]

mod command;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Simulates the engine under crashes, faults and clocks that jump, and soaks it on a real disk.
#[derive(Debug, Parser)]
#[command(name = "vault-sim", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs simulations: one seed, many, or for a time.
    Run(command::run::Arguments),
    /// Runs many threads on a real file system for a long time.
    Soak(command::soak::Arguments),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(arguments) => command::run::run(&arguments),
        Command::Soak(arguments) => command::soak::run(&arguments),
    }
}
