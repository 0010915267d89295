//! Compaction: merging tables so that reads stay cheap and space comes back.
//!
//! The keyspace's policy looks at the shape of its levels and chooses ([`vault_snapshot::policy`]); this
//! module carries the choice out. [`output`] writes the merged entries, [`job`] runs one choice from
//! inputs to the manifest, [`manual`] compacts what a caller asked for, [`rewrite`] copies a table for the sake
//! of its key ([`crate::rotation`]), or of the garbage in the blob files that it points into ([`crate::blob`]).

pub(crate) mod job;
pub(crate) mod manual;
pub(crate) mod output;
mod rewrite;
pub(crate) mod written;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};

use vault_core::{Error, KeyspaceId, Result};
use vault_snapshot::policy::Choice;
use vault_snapshot::shape::Shape;

use crate::keyspace::KeyspaceView;
use crate::options::BackgroundWork;
use crate::rest;
use crate::store::Store;

/// Carries out the next choice of the first keyspace whose policy wants something. Gives whether there
/// was one. A keyspace whose compaction fails is left alone for a while, longer each time, and does not
/// keep the others from theirs.
pub(crate) fn compact_next(store: &Arc<Store>) -> Result<bool> {
    let Some(_place) = store.memory.begin_compaction() else {
        return Ok(false);
    };
    store.memory.rebalance();
    store.memory.look_at_cache();
    // Not the view: compacting takes long, and it would keep memtables that are flushed meanwhile.
    let keyspaces: Vec<_> = {
        let pinned = store.views.pin();
        let keyspaces = pinned.keyspaces.iter().map(|view| &view.keyspace);
        keyspaces.cloned().collect()
    };
    let now = store.env.clock.monotonic();
    let mut failure = None;
    for keyspace in &keyspaces {
        // While a caller compacts, its steps are the only ones. (Looked at again where tables are claimed.)
        // (Where callers drive the work, it is for them to wait.)
        let waits =
            store.settings.background != BackgroundWork::Manual && !keyspace.backoff.is_over(now);
        if keyspace.is_compacted_by_hand() || waits {
            continue;
        }
        // Taken back first: a change that comes meanwhile is not lost.
        if !keyspace.shape_changed.swap(false, AcqRel) {
            continue;
        }
        let claim = job::claim_in_background(store, keyspace.id);
        let (claim, collects) = match claim {
            Some(claim) => (claim, false),
            None => match job::claim_for_collection(store, keyspace.id) {
                Some(claim) => (claim, true),
                None => continue,
            },
        };
        // There may be more to do beside what was just claimed.
        keyspace.shape_changed.store(true, Release);
        store.background.wake();
        let outcome = if collects {
            claim.collect(store)
        } else {
            let mut go_on = |_| std::ops::ControlFlow::Continue(());
            claim.run(store, &mut go_on).map(|_| ())
        };
        // The tables are given back before anybody is told to look again.
        drop(claim);
        shape_changed(store, keyspace.id);
        match outcome {
            Ok(()) => {
                keyspace.backoff.succeeded();
                return Ok(true);
            }
            Err(error @ (Error::Closed | Error::Locked | Error::Poisoned { .. })) => {
                return Err(error);
            }
            Err(error) => {
                keyspace.backoff.failed(now);
                failure.get_or_insert(error);
            }
        }
    }
    failure.map_or(Ok(false), Err)
}

/// The shape of a keyspace changed: measures the pressure anew, and has the policy look at it.
pub(crate) fn shape_changed(store: &Store, id: KeyspaceId) {
    let pinned = store.views.pin();
    if let Some(view) = pinned.keyspace(id) {
        view.keyspace.shape_changed.store(true, Release);
    }
    update_pressure(store);
    store.background.wake();
}

/// Measures how far compactions are behind, and holds writers to it.
pub(crate) fn update_pressure(store: &Store) {
    let pinned = store.views.pin();
    let (mut highest, mut most_behind) = (0.0, None);
    for view in &pinned.keyspaces {
        let pressure = with_shape(store, view, |shape| view.planner.debt(shape).pressure);
        let garbage = view
            .version
            .blob_shape(&BTreeSet::new(), view.options.table_bytes)
            .pressure();
        let pressure = pressure.max(garbage);
        if pressure > highest {
            (highest, most_behind) = (pressure, Some(view.keyspace.id));
        }
    }
    store.background.set_most_behind(most_behind);
    store.pacer.set_pressure(highest);
}

/// Shows the policy the keyspace's shape.
fn with_shape<T>(store: &Store, view: &KeyspaceView, look: impl FnOnce(&Shape<'_>) -> T) -> T {
    let busy = view.keyspace.busy();
    look(&shape_of(store, view, &busy))
}

/// The keyspace's shape, with the tables in `busy` marked.
fn shape_of<'a>(store: &Store, view: &'a KeyspaceView, busy: &BTreeSet<u64>) -> Shape<'a> {
    let visible = store.visible.load(Acquire);
    let oldest_snapshot = store
        .snapshots
        .sequences()
        .first()
        .copied()
        .unwrap_or(visible);
    let (now, at_rest) = (store.env.clock.now(), rest::is_at_rest(store));
    let table_bytes = view.options.table_bytes;
    view.version
        .shape(busy, now, oldest_snapshot, table_bytes, at_rest)
}

/// Whether a choice has nothing to carry out.
const fn is_nothing(choice: &Choice) -> bool {
    matches!(choice, Choice::Nothing)
}
