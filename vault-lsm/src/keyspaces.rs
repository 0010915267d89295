//! Creating, altering and dropping keyspaces.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vault_core::limits::{KEYSPACES_MAX, check_keyspace_name};
use vault_core::{Error, Event, KeyspaceId, KeyspaceOptions, Result};

use crate::flush::{flush_and_wait, log_floor, remove_logs_below};
use crate::keyspace::{Keyspace, KeyspaceView, WriteBuffer};
use crate::manifest::Edit;
use crate::recover::find_operator;
use crate::store::{Commit, Store, lock, unknown_keyspace};
use crate::version::Version;

/// Creates a keyspace, or opens it and takes over the options that may change.
pub(crate) fn create(
    store: &Arc<Store>,
    name: &str,
    options: &KeyspaceOptions,
) -> Result<KeyspaceId> {
    create_or_alter(store, name, options).map_err(|error| store.env.discreet(error))
}

fn create_or_alter(
    store: &Arc<Store>,
    name: &str,
    options: &KeyspaceOptions,
) -> Result<KeyspaceId> {
    check_keyspace_name(name)?;
    options.check()?;
    store.check_open()?;
    let operator = find_operator(&store.operators, name, options.merge_operator.as_deref())?;
    {
        // Most calls open what is there, unchanged.
        let pinned = store.views.pin();
        if let Some(view) = pinned
            .keyspaces
            .iter()
            .find(|view| view.keyspace.name == name)
        {
            check_compatible(name, &view.options, options)?;
            if *view.options == *options || store.is_read_only() {
                return Ok(view.keyspace.id);
            }
        }
    }
    // Not while a checkpoint takes stock of an earlier moment.
    let _turn = lock(&store.checkpoint_turn);
    let mut manifest = store.manifest()?;
    let pinned = store.views.pin();
    if let Some(view) = pinned
        .keyspaces
        .iter()
        .find(|view| view.keyspace.name == name)
    {
        check_compatible(name, &view.options, options)?;
        let id = view.keyspace.id;
        let edit = Edit::AlterKeyspace {
            id: id.0,
            options: options.clone(),
        };
        manifest
            .commit(&store.env, std::slice::from_ref(&edit))
            .map_err(|error| store.poison_if_unknown(error))?;
        store.shipping.changed(store, &manifest, edit);
        store.update_keyspace(id, |current| {
            let mut next = KeyspaceView::clone(current);
            next.options = Arc::new(options.clone());
            next.planner = Arc::from(vault_snapshot::policy::planner(&options.policy));
            next
        });
        std::mem::drop(manifest);
        crate::compact::shape_changed(store, id);
        return Ok(id);
    }
    if pinned.keyspaces.len() >= KEYSPACES_MAX {
        let problem = format!("a store holds at most {KEYSPACES_MAX} keyspaces; drop one first");
        return Err(Error::InvalidSetting {
            setting: "keyspaces",
            problem,
        });
    }
    let id = KeyspaceId(manifest.state().next_keyspace);
    if let Some(keys) = store.env.transform.keys() {
        // Before anything is sealed for it. Should this opening end here, the next one destroys the key again.
        keys.add_domain(id.0)
            .map_err(|error| store.poison_if_unknown(error))?;
    }
    let edit = Edit::CreateKeyspace {
        id: id.0,
        name: name.to_owned(),
        options: options.clone(),
    };
    manifest
        .commit(&store.env, std::slice::from_ref(&edit))
        .map_err(|error| store.poison_if_unknown(error))?;
    store.shipping.changed(store, &manifest, edit);
    let view = KeyspaceView {
        keyspace: Arc::new(Keyspace::new(
            id,
            name.to_owned(),
            operator,
            store.env.is_confidential(),
        )),
        options: Arc::new(options.clone()),
        planner: Arc::from(vault_snapshot::policy::planner(&options.policy)),
        active: Arc::new(WriteBuffer::new(&store.memory)),
        sealed: Vec::new(),
        version: Arc::new(Version::default()),
    };
    store.views.update(|current| Some(current.replacing(view)));
    std::mem::drop(manifest);
    store.env.emit(&Event::KeyspaceCreated {
        id,
        name: store.env.show_name(name),
    });
    Ok(id)
}

fn check_compatible(
    name: &str,
    stored: &KeyspaceOptions,
    requested: &KeyspaceOptions,
) -> Result<()> {
    let conflict = |option, stored: &str, requested: &str| Error::OptionsConflict {
        subject: format!("keyspace {name:?}"),
        option,
        stored: stored.to_owned(),
        requested: requested.to_owned(),
    };
    if stored.policy.name() != requested.policy.name() {
        return Err(conflict(
            "policy",
            stored.policy.name(),
            requested.policy.name(),
        ));
    }
    if stored.merge_operator != requested.merge_operator {
        let name = |options: &KeyspaceOptions| {
            options
                .merge_operator
                .clone()
                .unwrap_or_else(|| "none".to_owned())
        };
        return Err(conflict("merge_operator", &name(stored), &name(requested)));
    }
    Ok(())
}

/// Drops a keyspace and gives its space back.
pub(crate) fn drop(store: &Arc<Store>, id: KeyspaceId) -> Result<()> {
    let _turn = lock(&store.checkpoint_turn);
    let dropped = begin_drop(store, id)?;
    finish_drop(store, dropped)
}

/// A keyspace that is no part of the store any more.
struct Dropped {
    view: Arc<KeyspaceView>,
    /// Whether the log goes on in another segment, if it must.
    switched: Result<()>,
}

/// Takes a keyspace out of the store, durably, and lets go of its files.
fn begin_drop(store: &Arc<Store>, id: KeyspaceId) -> Result<Dropped> {
    // Under the commit lock, so that no batch is between its check and its memtables.
    let mut commit = store.commit()?;
    store
        .views
        .pin()
        .keyspace(id)
        .ok_or_else(|| unknown_keyspace(id))?;
    // The drop is durable at once: the writes before it must be too, or what was copied out of the
    // keyspace could be lost together with it.
    let position = store.log_sync.position();
    store.sync_log(position)?;
    let segment = store.log_current.load(Ordering::Acquire);
    let mut manifest = store.manifest()?;
    let view = Arc::clone(
        store
            .views
            .pin()
            .keyspace(id)
            .ok_or_else(|| unknown_keyspace(id))?,
    );
    let mut edits = vec![
        Edit::LogSynced { segment, position },
        Edit::DropKeyspace { id: id.0 },
    ];
    let forgets = store.env.transform.keys().is_some() && segment != 0;
    if forgets {
        // The records that tell which numbers were given out go with the segments.
        edits.push(Edit::LastSequence(commit.last_sequence));
        edits.push(Edit::ForgetLogs(segment));
    }
    manifest
        .commit(&store.env, &edits)
        .map_err(|error| store.poison_if_unknown(error))?;
    let dropped = Edit::DropKeyspace { id: id.0 };
    store.shipping.changed(store, &manifest, dropped);
    view.keyspace.dropped.store(true, Ordering::Release);
    view.buffers().for_each(|buffer| buffer.memtable.leave());
    store.snapshots.keep_dropped(&view, || {
        store.views.update(|current| Some(current.without(id)));
    });
    // Still under the lock, and whatever comes now: nobody else lets go of them before the next opening.
    for (_, _, file) in view.version.tables() {
        file.make_obsolete();
    }
    for (blob, _) in view.version.blobs() {
        blob.make_obsolete();
    }
    std::mem::drop(manifest);
    // What is written from now on must not keep the segments with its writes.
    let switched = if forgets {
        leave_segments(store, &mut commit, segment)
    } else {
        Ok(())
    };
    Ok(Dropped { view, switched })
}

/// Gives back what a dropped keyspace took, and erases what is left of it. A failure changes nothing about its being gone.
fn finish_drop(store: &Arc<Store>, dropped: Dropped) -> Result<()> {
    let Dropped { view, switched } = dropped;
    let floored = raise_log_floor(store);
    let tables = view.version.tables();
    let bytes: u64 = tables.map(|(_, _, file)| file.meta().bytes).sum();
    let bytes = bytes + view.version.blob_bytes();
    let (id, name) = (view.keyspace.id, store.env.show_name(&view.keyspace.name));
    std::mem::drop(view);
    store.reclaim_files();
    store.background.wake();
    store.env.emit(&Event::KeyspaceDropped { id, name, bytes });
    let erased = switched.and(floored).and_then(|()| erase_dropped(store));
    // Where the keys are gone from memory, they are destroyed when they are there again.
    if let Err(Error::Locked) = erased {
        let due = &store.locking.erasing_is_due;
        due.store(true, Ordering::Release);
    }
    erased
}

/// The unflushed writes of a dropped keyspace no longer need the log.
fn raise_log_floor(store: &Store) -> Result<()> {
    let mut manifest = store.manifest()?;
    let floor = log_floor(store, None);
    match manifest.commit(&store.env, &[Edit::LogFloor(floor)]) {
        Ok(()) => remove_logs_below(store, floor),
        // The keyspace is gone all the same; what the failure means for the store is noted there.
        Err(error) => std::mem::drop(store.poison_if_unknown(error)),
    }
    Ok(())
}

/// Has the log go on behind segment `last`, so that this one can be let go of.
fn leave_segments(store: &Store, commit: &mut Commit, last: u64) -> Result<()> {
    let current = store.log_current.load(Ordering::Acquire);
    if current == 0 || current > last {
        return Ok(());
    }
    let segment = commit
        .log
        .switch(store)
        .map_err(|error| store.poison_if_unknown(error))?;
    store.log_current.store(segment, Ordering::Release);
    Ok(())
}

/// Erases what a lock has interrupted.
pub(crate) fn erase_if_due(store: &Arc<Store>) -> Result<()> {
    let due = &store.locking.erasing_is_due;
    if !due.swap(false, Ordering::AcqRel) {
        return Ok(());
    }
    erase_dropped(store).inspect_err(|_| due.store(true, Ordering::Release))
}

/// Erases what is left of dropped keyspaces in an encrypted store: their writes in the log, which the whole store's
/// key seals, what manifests said of them, and their keys. From then on nothing in the directory tells of them that
/// could be opened. Should it end midway, the next opening goes on with it.
pub(crate) fn erase_dropped(store: &Arc<Store>) -> Result<()> {
    let Some(keys) = store.env.transform.keys() else {
        return Ok(());
    };
    let last = store.manifest()?.state().forget_logs;
    if last != 0 {
        // A drop that found no room for another segment has left the log in this one.
        leave_segments(store, &mut *store.commit()?, last)?;
        flush_and_wait(store, None)?;
        let mut manifest = store.manifest()?;
        let floor = log_floor(store, None);
        manifest
            .commit(&store.env, &[Edit::LogFloor(floor)])
            .map_err(|error| store.poison_if_unknown(error))?;
        remove_logs_below(store, floor);
    }
    let mut manifest = store.manifest()?;
    let kept: Vec<u32> = manifest.state().keyspaces.keys().copied().collect();
    keys.keep_domains(&kept)
        .and_then(|()| manifest.restate(&store.env))
        .map_err(|error| store.poison_if_unknown(error))
}

#[cfg(all(test, not(vault_model)))]
mod tests {
    use std::path::Path;

    use vault_core::vfs::MemoryFileSystem;
    use vault_core::{Engine as _, WriteOptions};

    use super::*;
    use crate::{BackgroundWork, Lsm, LsmOptions};

    const DIRECTORY: &str = "/store";

    fn options(fs: &MemoryFileSystem) -> LsmOptions {
        let options = LsmOptions::default().background(BackgroundWork::Manual);
        options.file_system(Arc::new(fs.clone()))
    }

    /// The drop was in the manifest when the store was locked: the files stayed until the next opening, and nobody knew of what
    /// was still to be erased.
    #[test]
    fn a_drop_that_is_locked_out_midway_lets_go_of_its_files_and_is_finished_later() {
        let fs = MemoryFileSystem::new();
        let lsm = Lsm::open(DIRECTORY, options(&fs)).unwrap();
        let large = KeyspaceOptions::default().large_values_from(Some(64));
        let id = lsm.create_keyspace("gone", &large).unwrap();
        lsm.put(id, b"key", b"value", &WriteOptions::OS).unwrap();
        let value = [7; 1000];
        lsm.put(id, b"large", &value, &WriteOptions::OS).unwrap();
        lsm.flush(None).unwrap();
        lsm.close().unwrap();
        let files = || {
            let files = fs.list().into_iter();
            let ending = |path: &Path| path.extension().is_some_and(|e| e == "tab" || e == "blob");
            files.filter(|(path, _)| ending(path)).count()
        };
        assert_eq!(files(), 2);

        let store = crate::recover::open(Path::new(DIRECTORY), options(&fs)).unwrap();
        let dropped = begin_drop(&store, id).unwrap();
        store.refuse_as_locked(true);
        let outcome = finish_drop(&store, dropped);
        assert!(matches!(outcome, Err(Error::Locked)), "{outcome:?}");
        assert_eq!(files(), 0);
        let due = || store.locking.erasing_is_due.load(Ordering::Acquire);
        assert!(due());
        store.accept_again();
        erase_if_due(&store).unwrap();
        assert!(!due());
        crate::close::close(&store).unwrap();
    }
}
