//! Encrypted stores keep every promise that plain ones do: the tests of plain stores once more, with ChaCha20-Poly1305.
//!
//! Each module is a test file of its own, taken in here; `support/modes.rs` notices, and encrypts. What is left out looks at
//! files in their plain form, has nothing to do with what is in them, or measures memory and time.

#![expect(
    clippy::duplicate_mod,
    reason = "each test file has its own copy of what it shares with others"
)]

#[path = "backpressure.rs"]
mod backpressure;
#[path = "captures.rs"]
mod captures;
#[path = "checkpoints.rs"]
mod checkpoints;
#[path = "clock_jumps.rs"]
mod clock_jumps;
#[path = "closing.rs"]
mod closing;
#[path = "compaction_by_hand.rs"]
mod compaction_by_hand;
#[path = "conformance.rs"]
mod conformance;
#[path = "copied_while_open.rs"]
mod copied_while_open;
#[path = "crash.rs"]
mod crash;
#[path = "damage.rs"]
mod damage;
#[path = "dropping.rs"]
mod dropping;
#[path = "durability.rs"]
mod durability;
#[path = "expiring.rs"]
mod expiring;
#[path = "failed_log_start.rs"]
mod failed_log_start;
#[path = "fault_sweep.rs"]
mod fault_sweep;
#[path = "faults.rs"]
mod faults;
#[path = "full_disk.rs"]
mod full_disk;
#[path = "ingesting.rs"]
mod ingesting;
#[path = "instances.rs"]
mod instances;
#[path = "interrupted_recovery.rs"]
mod interrupted_recovery;
#[path = "killed_process.rs"]
mod killed_process;
#[path = "limits_of_the_process.rs"]
mod limits_of_the_process;
#[path = "moved_while_open.rs"]
mod moved_while_open;
#[path = "policies.rs"]
mod policies;
#[path = "random_histories.rs"]
mod random_histories;
#[path = "read_only.rs"]
mod read_only;
#[path = "read_only_damage.rs"]
mod read_only_damage;
#[path = "read_only_medium.rs"]
mod read_only_medium;
#[path = "real_full_disk.rs"]
mod real_full_disk;
#[path = "shipping.rs"]
mod shipping;
#[path = "short_reads.rs"]
mod short_reads;
#[path = "stress.rs"]
mod stress;
