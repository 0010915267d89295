//! What is noted of the accesses to vaults: how many, when, to which keys, and how long they took.
//!
//! # What is exact, and what is sampled
//! - How often a vault was read, written, deleted from and scanned is counted exactly, by threads apart from each other so
//!   that they share no cache line. What counts is that somebody tried: a write that is refused is one, too.
//! - The rest is noted of a *sample*: of the first accesses of each kind all, later one in [`SAMPLE_EVERY`], which stands for
//!   as many. That is when the last access was, which keys are accessed most, how long accesses take, and the log.
//! - Accesses of the last 24 hours are the exact counts since the hour in which the first sample of that time fell.
//!
//! # What it costs
//! An access that is not sampled pays one addition. Memory is bounded: for each vault 24 hours of counts and
//! [`sketch::KEYS_MAX`] keys, for the database a log of [`RECORDS_MAX`] accesses, and for each tenant one of
//! [`TENANT_RECORDS_MAX`].
//!
//! Counts, hours and keys are written to the catalog once a minute and on closing, so that they survive the process. After
//! a crash, what came since is missing from them. A vault that is removed takes what was saved of it along, and nothing is
//! saved of it behind that ([`Saving`]).

mod hours;
mod log;
mod recorder;
mod saved;
mod sketch;

pub(crate) use log::{AccessLog, RECORDS_MAX, TENANT_RECORDS_MAX};
pub use log::{AccessRecord, AccessVerb};
pub(crate) use recorder::{Access, Begun, Saving};
pub(crate) use saved::Saved;
pub use sketch::KeyAccesses;

/// Of many accesses one in so many is looked at closely.
pub(crate) const SAMPLE_EVERY: u64 = 32;
/// The first accesses of each kind and thread group are all looked at closely.
pub(crate) const SAMPLE_ALL_UP_TO: u64 = 32;
