//! What the program can be told to do: a module for each subcommand, with its arguments.

pub(crate) mod run;
