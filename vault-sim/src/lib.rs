//! Deterministic simulation of the engine, and soaks of it on a real disk.
//!
//! One seed makes a [`Plan`]: settings, keyspaces and a list of operations, in which processes end, the power goes,
//! files fail and clocks jump. [`run_plan`] carries it out on one thread, on a file system in memory, and
//! holds every answer of the engine, and everything that is left after each end, against an
//! [oracle] that shares no code with it. The same plan gives the same run, to the byte: its [`Report`]
//! carries a digest of all that was done and seen.
//!
//! ```
//! use vault_sim::{Plan, run_plan};
//! let plan = Plan::from_seed(7);
//! let report = run_plan(&plan).expect("the engine does as it should");
//! assert_eq!(report, run_plan(&plan).expect("it does so again"));
//! ```
//!
//! `cargo xtask sim --seed 7 --trace` shows each operation with what came of it.

#![forbid(unsafe_code)]

mod digest;
mod guard;
mod journal;
pub mod oracle;
pub mod plan;
mod report;
mod run;
mod shrink;
pub mod soak;
pub mod sweep;

pub use digest::Digest;
pub use guard::{remember_panics, run_guarded};
pub use journal::Journal;
pub use plan::{Operation, Plan};
pub use report::{Counts, Failure, Report};
pub use run::{run_plan, run_plan_traced};
pub use shrink::shrink;
