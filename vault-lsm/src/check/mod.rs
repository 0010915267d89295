//! Is the store sound, and what can be done where it is not.
//!
//! - [`verify`] reads everything and reports; it never writes.
//! - [`scrub`] does so without the keys of an encrypted store, as far as that goes.
//! - [`repair`] brings a damaged store back to where it opens, and says beforehand what that costs.
//! - [`salvage`] makes a new store of what is left of one whose manifest is gone.
//!
//! All four work on the files, without opening the store: `stock` takes down what the directory holds,
//! `survey` looks at all of it, `table/inspect` and `log` read beyond damage. What they do with it is
//! decided purely (`plan`) and then done. The decisions are in `docs/adr/0016-repair.md`, what an operator does
//! in `docs/operations/damage.md`.

mod blobs;
mod content;
mod contradictions;
mod hints;
mod log;
mod looking;
mod loss;
mod merge;
mod plan;
mod repair;
mod report;
mod rewrite;
mod salvage;
mod scrub;
mod stock;
mod survey;
mod verify;

pub use content::{KeyBytes, KeySpan, KeyspaceName};
pub use loss::{KnownKeyspace, SalvageOptions, SalvageReport, SalvagedFile, SalvagedKeyspace};
pub use plan::{RepairAction, RepairPlan, RepairVerdict};
pub use repair::{RepairPermission, RepairReport, repair};
pub use report::{Checked, Count, Finding, FindingKind, Loss, Severity, VerifyReport};
pub use salvage::salvage;
pub use scrub::{ScrubReport, Scrubbed, scrub};
pub use survey::Progress;
pub use vault_core::transform::Assurance;
pub use verify::{VerifyOptions, VerifyProgress, verify};
