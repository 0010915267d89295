//! The subcommands, each with its arguments.

pub(crate) mod soak;
