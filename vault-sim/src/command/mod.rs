//! The subcommands.

pub(crate) mod run;
