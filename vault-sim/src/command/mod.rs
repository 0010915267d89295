//! The subcommands.

pub(crate) mod soak;
