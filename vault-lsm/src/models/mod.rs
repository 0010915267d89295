//! Models of what threads share: the real code, run on every schedule (loom) or on many (shuttle).
//!
//! `cargo xtask models` builds this crate's tests twice, with `--cfg vault_model="loom"` and with
//! `--cfg vault_model="shuttle"`, each time with `--cfg vault_model` as well. `crate::sync` then gives
//! the engine the model's locks, atomics and threads. What each model proves, and what none covers, is
//! listed in `docs/internals/concurrency.md`.
//!
//! A model that cannot fail proves nothing. So beside the models stand the same ones broken on purpose:
//! the orderings of a source file weakened, notifications lost ([`crate::sync::Break`]), or a step left
//! out; `fails` demands that these fail, and with the right words.

#[cfg(any(vault_model = "shuttle", vault_model = "threads"))]
mod bank;
#[cfg(vault_model = "loom")]
mod commit;
#[cfg(vault_model = "shuttle")]
mod engine;
#[cfg(vault_model = "loom")]
mod explore;
#[cfg(vault_model = "shuttle")]
mod locking;
#[cfg(vault_model = "loom")]
mod log;
#[cfg(vault_model = "loom")]
mod memtable;
#[cfg(vault_model = "loom")]
mod snapshots;
#[cfg(vault_model = "loom")]
mod tables;
#[cfg(any(vault_model = "loom", vault_model = "shuttle"))]
mod tally;
#[cfg(vault_model = "threads")]
mod threads;
#[cfg(vault_model = "loom")]
mod turns;
