//! The simulation's command line. `cargo xtask sim` and `cargo xtask soak` pass their arguments on to it.

#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};

/// Simulates the engine under crashes, faults and clocks that jump, and soaks it on a real disk.
#[derive(Debug, Parser)]
#[command(name = "vault-sim", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {}

fn main() {
    match Cli::parse().command {}
}
