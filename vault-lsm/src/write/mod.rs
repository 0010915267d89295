//! The write path.
//!
//! A batch is checked whole ([`validate`]), let in or held up ([`admission`]), and then, under the commit lock,
//! given a place in the log and inserted into the memtables ([`commit`]). Where writing its record takes time, that is done
//! after the lock was let go of, and it is made visible in its turn ([`turns`]). A write that must be durable waits for the log last.

pub(crate) mod admission;
pub(crate) mod cas;
pub(crate) mod commit;
mod sleepers;
pub(crate) mod turns;
pub(crate) mod validate;
