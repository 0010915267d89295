//! What a Vault store keeps: which versions of a key stay, and which tables are merged when.
//!
//! Everything here is a pure function of its arguments: no files, no clock, no threads. The engine
//! describes itself ([`shape`]), asks what to do next ([`policy`]), does it, and while it merges asks
//! of every key which of its versions go into the output ([`visibility`]). Pure deciding makes both
//! halves testable apart: a policy is run against a simulated store within milliseconds, and the rule
//! of visibility against every reader that could exist.

//!
//! With the feature `archive` it also holds what is kept of a store elsewhere: snapshots as zip archives (see [Archives](#archives)),
//! the repositories they lie in, which of them stay, and when the next is due.
//!
//! # Archives
//! The modules `archive`, `destination`, `repository`, `retention` and `schedule` exist with the feature `archive`. They act, but
//! know files only through `vault_core::vfs`, and nothing of what a store's files mean. Begin at `repository::Repository`.

#![forbid(unsafe_code)]

#[cfg(feature = "archive")]
pub mod archive;
pub mod collection;
#[cfg(feature = "archive")]
pub mod destination;
pub mod policy;
#[cfg(feature = "archive")]
pub mod repository;
#[cfg(feature = "archive")]
pub mod retention;
#[cfg(feature = "archive")]
pub mod schedule;
pub mod shape;
#[cfg(feature = "archive")]
mod syncer;
pub mod visibility;

pub use policy::{Choice, Compaction, Debt, InputRun, Placement, Planner, planner};
pub use shape::{LevelShape, RunShape, Shape, Span, TableShape};
pub use visibility::{Decision, DropReason, Fate, Fold, FoldBase, Rules, Version, VersionKind};
