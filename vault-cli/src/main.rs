//! The `vaultdb` command.
//!
//! [`arguments`] is the command line, a file in [`commands`] is a subcommand, [`output`] is the only place
//! that prints, [`keys`] the only one that gets keys, [`interruption`] listens to Ctrl-C. A subcommand gives back how it ended, and never exits by itself.
//!
//! # Exit codes
//! - 0: all is well, or what was asked for is done and nothing was lost;
//! - 1: damage was found, or something was, or would be, lost: the output says what;
//! - 2: the command line is wrong;
//! - 3: it could not be done, or not to its end: the message says why;
//! - 4: it was done, and its result could not be written, or not to its end;
//! - 130: a second Ctrl-C ended it at once.

#![forbid(unsafe_code)]

mod arguments;
mod commands;
mod interruption;
mod keys;
mod output;

use std::process::ExitCode;

use clap::Parser;

use arguments::Arguments;
use output::Output;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut output = Output::new(arguments.json, arguments.quiet);
    match commands::run(&arguments.command, &mut output) {
        Ok(outcome) => output.ended(outcome).into(),
        Err(error) => {
            output.failure(&error);
            ExitCode::from(3)
        }
    }
}
