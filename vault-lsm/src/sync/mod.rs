//! Locks, atomics and threads: the standard library's, or those of a model.
//!
//! What threads of the engine share is built of what this module names. In any normal build that is the
//! standard library, re-exported: it costs nothing. When the crate's own tests are built with
//! `--cfg vault_model="loom"` or `"shuttle"` (`cargo xtask models` does), the same code runs on a
//! scheduler that tries out how threads may take turns, and with loom also what a processor may reorder:
//! see `models` and `docs/internals/concurrency.md`. With `--cfg vault_model="threads"` it runs on real
//! threads, and on locks that ThreadSanitizer understands.
//!
//! What only counts (`counters.rs`, hits and misses of the cache) stays with `std`: nothing is decided
//! by it, and every modelled access multiplies the schedules to try. `Arc` stays too, because neither
//! model can share trait objects by its own.

#[cfg(all(test, any(vault_model = "loom", vault_model = "shuttle")))]
mod broken;
#[cfg(all(test, vault_model = "loom"))]
mod loom;
#[cfg(any(not(all(test, vault_model)), vault_model = "threads"))]
mod plain;
#[cfg(all(test, vault_model = "shuttle"))]
mod shuttle;
#[cfg(not(all(test, vault_model)))]
mod standard;
#[cfg(all(test, vault_model = "threads"))]
mod threads;

#[cfg(all(test, any(vault_model = "loom", vault_model = "shuttle")))]
pub(crate) use self::broken::{Break, break_in};
#[cfg(all(test, vault_model = "loom"))]
pub(crate) use self::loom::*;
#[cfg(all(test, vault_model = "shuttle"))]
pub(crate) use self::shuttle::*;
#[cfg(not(all(test, vault_model)))]
pub(crate) use self::standard::*;
#[cfg(all(test, vault_model = "threads"))]
pub(crate) use self::threads::*;

/// Whether this is a model: small nodes and few copies then reach every path in a few steps.
pub(crate) const MODELLED: bool = cfg!(all(
    test,
    any(vault_model = "loom", vault_model = "shuttle")
));
