//! Rotation of keys: everything is sealed anew, nothing changes for those who read and write, and old keys go when nothing
//! needs them any more, and not before.

mod support;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, OnceLock};

use support::keyed::Toy;
use support::rotating::{Content, Keyed, all, epoch_of};
use support::{
    DIRECTORY, assert_contents, assert_error, contents, expected, files_in_memory, key, manual,
    put_all, small_keyspace, threaded, value, wait_until,
};
use vault_core::vfs::MemoryFileSystem;
use vault_core::{CompactionProgress, Engine, Error, Event, KeyRange, KeyspaceId, Reader};
use vault_lsm::Lsm;

#[test]
fn everything_is_sealed_anew_and_stays_the_same() {
    let kinds: [(fn(&_) -> _, _); 2] = [(manual, true), (threaded, false)];
    for (options, alone) in kinds {
        let keyed = Keyed::open(options);
        keyed.fill();
        let snapshot = keyed.store.snapshot().unwrap();
        let before = keyed.both();
        assert_eq!(before.0.len(), 634);
        assert_eq!(keyed.status().epoch, 1);
        assert_eq!(keyed.status().oldest_epoch_in_use, 1);

        assert_eq!(keyed.store.rotate_keys().unwrap(), 2);
        assert_eq!(keyed.both(), before);
        // Manifest, pointer and log have followed already.
        for (path, _) in files_in_memory(&keyed.fs, DIRECTORY, "") {
            if path
                .extension()
                .is_none_or(|kind| kind != "tab" && kind != "blob")
            {
                let epoch = epoch_of(&keyed.fs, &path);
                assert!(epoch.is_none_or(|epoch| epoch == 2), "{path:?}: {epoch:?}");
            }
        }
        put_all(&keyed.store, keyed.ks, 0..5, 9);
        let written = keyed.both();
        let mut looks = 0;
        let mut last = CompactionProgress::default();
        keyed
            .store
            .finish_rotation(|progress| {
                assert!(progress.bytes_done >= last.bytes_done);
                last = progress;
                looks += 1;
                if alone {
                    assert_eq!(keyed.both(), written);
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        if alone {
            assert!(looks > 3 && last.bytes_total > 0);
            assert_eq!(last.bytes_done, last.bytes_total);
        }
        wait_until("the old keys are gone", || keyed.epochs().len() == 1);
        keyed.assert_all_of(2);
        assert_eq!(keyed.both(), written);
        let as_before = contents(&*snapshot, keyed.ks);
        assert_eq!(as_before, before.0, "what the snapshot shows");

        let rotated = |event: &Event| matches!(event, Event::KeysRotated { epoch: 2 });
        let retired = |event: &Event| {
            let expected = (1, 2);
            matches!(event, Event::EpochsRetired { epochs, oldest } if (*epochs, *oldest) == expected)
        };
        assert_eq!(keyed.events.count(rotated), 1);
        wait_until("it was told", || keyed.events.count(retired) > 0);
        assert_eq!(keyed.events.count(retired), 1);
        drop(snapshot);
        keyed
            .store
            .compact(keyed.ks, all(), &mut |_| ControlFlow::Continue(()))
            .unwrap();
        assert_eq!(keyed.both(), written);
        let again = keyed.reopened(options);
        assert_eq!(again.both(), written);
        again.assert_all_of(2);
    }
}

#[test]
fn the_background_does_it_by_itself_also_after_reopening() {
    let keyed = Keyed::open(threaded);
    keyed.fill();
    let before = keyed.both();
    keyed.store.rotate_keys().unwrap();
    wait_until("the old keys are gone", || keyed.epochs().len() == 1);
    keyed.assert_all_of(2);
    assert_eq!(keyed.both(), before);

    let keyed = Keyed::open(manual);
    keyed.fill();
    keyed.store.rotate_keys().unwrap();
    let left = keyed.status();
    // What was in memory was flushed into new ones.
    assert!(left.tables_left > 3 && left.tables_total > left.tables_left);
    assert!(left.bytes_left > 0 && left.bytes_total > left.bytes_left);
    assert_eq!((left.epoch, left.oldest_epoch_in_use), (2, 1));
    // A few steps, then the end of the process; then another that is closed.
    let after = |keyed: &Keyed, tables: u64| {
        while keyed.status().tables_left > tables {
            assert!(keyed.store.background_step().unwrap());
        }
    };
    after(&keyed, left.tables_left - 1);
    let killed = Keyed::open_in(keyed.fs.kill(), manual);
    assert_eq!(killed.both(), before);
    after(&killed, left.tables_left - 2);
    let again = killed.reopened(threaded);
    wait_until("the old keys are gone", || again.epochs().len() == 1);
    again.assert_all_of(2);
    assert_eq!(again.both(), before);
}

#[test]
fn compactions_and_flushes_do_it_on_the_way() {
    let keyed = Keyed::open(manual);
    keyed.fill();
    let before = keyed.both();
    keyed.store.rotate_keys().unwrap();
    for ks in [keyed.ks, keyed.counts] {
        let compacted = keyed
            .store
            .compact(ks, all(), &mut |_| ControlFlow::Continue(()));
        compacted.unwrap();
    }
    assert_eq!(keyed.status().tables_left, 0);
    let reason = |event: &Event| matches!(event, Event::Compacted { reason, .. } if *reason == "sealed under an older key");
    assert_eq!(keyed.events.count(reason), 0);
    keyed.finish();
    keyed.assert_all_of(2);
    assert_eq!(keyed.both(), before);
}

#[test]
fn keys_are_kept_for_as_long_as_somebody_reads_what_they_seal() {
    for options in [manual, threaded] {
        let keyed = Keyed::open(options);
        keyed.fill();
        let before = keyed.both();
        let mut cursor = keyed.store.cursor(keyed.ks, KeyRange::all()).unwrap();
        cursor.first().unwrap();
        keyed.store.rotate_keys().unwrap();
        let status = keyed.finish();
        assert!(status.held_by_snapshots > 0 && status.tables_left == 0);
        assert_eq!(status.oldest_epoch_in_use, 1);
        assert_eq!(keyed.epochs(), BTreeSet::from([1, 2]));
        // It reads on in files that are gone for everybody else.
        let mut seen = Content::new();
        while let Some((key, value)) = cursor.entry() {
            seen.insert(key.to_vec(), value.to_vec());
            cursor.next().unwrap();
        }
        assert_eq!(seen, before.0);
        drop(cursor);
        assert_eq!(keyed.status().held_by_snapshots, 0);
        let status = keyed.finish();
        assert_eq!(status.oldest_epoch_in_use, 2);
        wait_until("the old keys are gone", || keyed.epochs().len() == 1);
        keyed.assert_all_of(2);
    }
}

/// The tables of an ingest were begun under a key that the rotation would have destroyed before they became part of the
/// store.
#[test]
fn tables_that_are_being_written_keep_their_keys() {
    for options in [manual, threaded] {
        let keyed = Keyed::open(options);
        let pairs = (0..500_u64).map(|number| {
            if number == 300 {
                keyed.store.rotate_keys().unwrap();
                for _ in 0..20 {
                    let _ = keyed.store.background_step();
                }
                assert_eq!(keyed.epochs(), BTreeSet::from([1, 2]));
                assert_eq!(keyed.status().oldest_epoch_in_use, 1);
            }
            (key(number), value(number, 1))
        });
        keyed.store.ingest(keyed.ks, pairs).unwrap();
        assert_contents(&keyed.store, keyed.ks, &expected(0..500, 1));
        let keyed = keyed.reopened(options);
        assert_contents(&keyed.store, keyed.ks, &expected(0..500, 1));
        keyed.finish();
        wait_until("the old keys are gone", || keyed.epochs().len() == 1);
        keyed.assert_all_of(2);
        assert_contents(&keyed.store, keyed.ks, &expected(0..500, 1));
    }
}

/// A checkpoint holds back the flush of what was written after its moment: an older log segment is needed for longer than
/// all tables.
#[test]
fn a_log_that_cannot_be_flushed_yet_keeps_its_keys() {
    let shared = Arc::new(OnceLock::<(Lsm, KeyspaceId)>::new());
    let (told, outcome) = (Arc::clone(&shared), Arc::new(Mutex::new(None)));
    let rotated = Arc::clone(&outcome);
    let listener = move |event: &Event| {
        let Some((store, ks)) = told
            .get()
            .filter(|_| matches!(event, Event::Flushed { .. }))
        else {
            return;
        };
        let mut outcome = rotated.lock().unwrap();
        if outcome.is_none() {
            put_all(store, *ks, 100..110, 1);
            let epoch = store.rotate_keys();
            let steps = (0..20).try_for_each(|_| store.background_step().map(drop));
            *outcome = Some((epoch, steps, store.key_rotation()));
        }
    };
    let (fs, toy) = (MemoryFileSystem::new(), Toy::new());
    let options = manual(&fs)
        .protection(Arc::clone(&toy) as _)
        .listener(Arc::new(listener));
    let store = Lsm::open(DIRECTORY, options).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    put_all(&store, ks, 0..100, 1);
    shared.set((store.clone(), ks)).ok().unwrap();
    store.checkpoint("/copy").unwrap();

    // A copy: what is flushed later must not begin another.
    let seen = outcome.lock().unwrap().clone();
    let (epoch, steps, status) = seen.expect("it was flushed");
    assert_eq!((epoch.unwrap(), steps.unwrap()), (2, ()));
    assert_eq!(status.unwrap().oldest_epoch_in_use, 1);
    assert_eq!(toy.keys().epochs(), BTreeSet::from([1, 2]));
    let killed = Keyed::open_in(fs.kill(), manual);
    assert_contents(&killed.store, ks, &expected(0..110, 1));
    store
        .finish_rotation(|_| ControlFlow::Continue(()))
        .unwrap();
    assert_eq!(toy.keys().epochs(), BTreeSet::from([2]));
    assert_contents(&store, ks, &expected(0..110, 1));
}

#[test]
fn what_is_cancelled_goes_on_where_it_ended() {
    let keyed = Keyed::open(manual);
    keyed.fill();
    let before = keyed.both();
    keyed.store.rotate_keys().unwrap();
    let tables = keyed.status().tables_left;
    let cancelled = keyed.store.finish_rotation(|progress| {
        if progress.tables_written == 2 {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    assert_error!(cancelled, Error::Cancelled, Cancelled);
    assert_eq!(keyed.status().tables_left, tables - 2);
    let at_once = keyed.store.finish_rotation(|_| ControlFlow::Break(()));
    assert_error!(at_once, Error::Cancelled, Cancelled);
    assert_eq!(keyed.both(), before);
    keyed.finish();
    keyed.assert_all_of(2);
    assert_eq!(keyed.both(), before);
}

#[test]
fn rotations_follow_each_other() {
    let keyed = Keyed::open(manual);
    keyed.fill();
    let before = keyed.both();
    for epoch in [2, 3] {
        assert_eq!(keyed.store.rotate_keys().unwrap(), epoch);
    }
    // Some tables follow the third key, not all: the fourth finds tables of two.
    let begun = keyed.status().tables_left;
    for _ in 0..2 {
        keyed.store.background_step().unwrap();
    }
    assert!((1..begun).contains(&keyed.status().tables_left));
    assert_eq!(keyed.store.rotate_keys().unwrap(), 4);
    let status = keyed.status();
    assert_eq!((status.epoch, status.oldest_epoch_in_use), (4, 1));
    keyed.finish();
    keyed.assert_all_of(4);
    assert_eq!(keyed.both(), before);
    // Nothing is left to do.
    keyed.store.settle().unwrap();
    let status = keyed.status();
    assert_eq!(keyed.finish(), status);
    assert!(!keyed.store.background_step().unwrap());
}

#[test]
fn a_checkpoint_that_is_made_meanwhile_opens_with_its_own_keys() {
    let keyed = Keyed::open(manual);
    keyed.fill();
    let before = keyed.both();
    keyed.store.rotate_keys().unwrap();
    let mut made = false;
    let finished = keyed.store.finish_rotation(|progress| {
        if progress.tables_written == 2 && !made {
            made = true;
            keyed.store.checkpoint("/copy").unwrap();
        }
        ControlFlow::Continue(())
    });
    assert!(made && finished.is_ok());
    keyed.assert_all_of(2);
    let copy = Keyed::try_open(keyed.fs.clone(), "/copy", manual).unwrap();
    assert_eq!(copy.both(), before);
    // The copied keyring has an epoch that the original has not, and the first opening begins another.
    assert_eq!(copy.status().epoch, 4);
    copy.finish();
    assert_eq!(copy.epochs(), BTreeSet::from([4]));
    assert_eq!(copy.both(), before);
    assert_eq!(keyed.both(), before);
}

#[test]
fn what_has_no_keys_or_is_locked_is_not_rotated() {
    let fs = MemoryFileSystem::new();
    let plain = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let go_on = |_| ControlFlow::Continue(());
    assert_error!(plain.rotate_keys(), Error::Unsupported { .. }, Input);
    assert_error!(plain.key_rotation(), Error::Unsupported { .. }, Input);
    assert_error!(
        plain.finish_rotation(go_on),
        Error::Unsupported { .. },
        Input
    );
    assert_eq!(plain.stats().unwrap().key_rotation, None);

    let keyed = Keyed::open(manual);
    keyed.fill();
    let before = keyed.both();
    let options = manual(&keyed.fs).protection(Toy::new());
    let reading = Lsm::open_read_only(DIRECTORY, &options).unwrap();
    assert_error!(reading.rotate_keys(), Error::ReadOnly, Input);
    keyed.store.lock().unwrap();
    assert_error!(keyed.store.rotate_keys(), Error::Locked, Unlock);
    assert_error!(keyed.store.key_rotation(), Error::Locked, Unlock);
    assert_error!(keyed.store.finish_rotation(go_on), Error::Locked, Unlock);
    keyed.toy.keys().unlock();
    keyed.store.resume().unwrap();
    assert_eq!(keyed.status().epoch, 1);

    // Locked in the midst of it: it goes on when the keys are there again.
    keyed.store.rotate_keys().unwrap();
    let tables = || files_in_memory(&keyed.fs, DIRECTORY, ".tab").len() as u64;
    let locked = keyed.store.finish_rotation(|progress| {
        if progress.tables_written == 2 {
            keyed.store.lock().unwrap();
        }
        ControlFlow::Continue(())
    });
    assert_error!(locked, Error::Locked, Unlock);
    keyed.toy.keys().unlock();
    keyed.store.resume().unwrap();
    keyed.store.background_step().unwrap();
    assert_eq!(tables(), keyed.status().tables_total);
    keyed.finish();
    keyed.assert_all_of(2);
    assert_eq!(keyed.both(), before);
}
