//! What a Vault store keeps: which versions of a key stay, and which tables are merged when.
//!
//! Everything here is a pure function of its arguments: no files, no clock, no threads. The engine
//! describes itself ([`shape`]), asks what to do next ([`policy`]), does it, and while it merges asks
//! of every key which of its versions go into the output ([`visibility`]). Pure deciding makes both
//! halves testable apart: a policy is run against a simulated store within milliseconds, and the rule
//! of visibility against every reader that could exist.

#![forbid(unsafe_code)]

pub mod collection;
pub mod policy;
pub mod shape;
pub mod visibility;

pub use policy::{Choice, Compaction, Debt, InputRun, Placement, Planner, planner};
pub use shape::{LevelShape, RunShape, Shape, Span, TableShape};
pub use visibility::{Decision, DropReason, Fate, Fold, FoldBase, Rules, Version, VersionKind};
