//! The write path.
//!
//! A batch is checked whole ([`validate`]), let in or held up ([`admission`]), and then, under the commit lock,
//! appended to the log, inserted into the memtables and made visible ([`commit`]). A write that must be
//! durable waits for the log after it has let go of the lock.

pub(crate) mod admission;
pub(crate) mod cas;
pub(crate) mod commit;
pub(crate) mod validate;
