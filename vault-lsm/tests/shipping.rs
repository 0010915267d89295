//! Shipping the log: a restored capture, brought forward by what was shipped, holds exactly what the store held at the point that
//! was asked for; and what cannot bring it there is refused.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use support::modes::encrypted;
use support::shipped::{COPY, World, begin, open_copy, replay, restore};
use support::{
    DIRECTORY, assert_contents, assert_error, contents, expected, image, key, manual, put_all,
    roomy_keyspace, small_keyspace, threaded, value,
};
use vault_core::clock::{ManualClock, SystemClock};
use vault_core::vfs::{CrashPolicy, MemoryFileSystem};
use vault_core::{
    Clock, Engine, Error, KeyspaceId, SequenceNumber, Timestamp, WriteBatch, WriteOptions,
};
use vault_lsm::shipping::{ShipOptions, Shipment, Until, replay_shipped};
use vault_lsm::{Capture, Lsm, LsmOptions};

/// Replays on a fresh restore, and gives what a keyspace holds then.
fn content_at(
    base: &Capture,
    shipped: &[Shipment],
    until: Until,
    ks: KeyspaceId,
) -> std::collections::BTreeMap<Vec<u8>, Vec<u8>> {
    let fs = restore(base);
    let replayed = replay(&fs, shipped, until).unwrap();
    let copy = open_copy(&fs);
    assert_eq!(copy.latest_sequence(), replayed.sequence);
    contents(&copy, ks)
}

/// The error says this, and nothing of the copy was changed.
#[track_caller]
fn refused(fs: &MemoryFileSystem, shipped: &[Shipment], until: Until) -> Error {
    let before = image(fs, "/");
    let error = replay(fs, shipped, until).unwrap_err();
    assert_eq!(image(fs, "/"), before, "{error}");
    error
}

#[test]
fn a_copy_is_brought_forward_to_any_write() {
    let mut world = World::new();
    let (store, ks) = (&world.store, world.ks);
    let mut shipped = Vec::new();
    for round in 0..5 {
        put_all(store, ks, 300 + round * 10..310 + round * 10, 1);
        shipped.push(world.shipper.ship().unwrap());
    }
    let base = world.base.sequence;
    for point in base..=store.latest_sequence() {
        let found = content_at(&world.base, &shipped, Until::Sequence(point), ks);
        let wanted = (0..210).chain(300..300 + point - base);
        assert!(found == expected(wanted, 1), "at {point}");
    }
    let found = content_at(&world.base, &shipped, Until::End, ks);
    assert!(found == expected((0..210).chain(300..350), 1));
    assert_eq!(shipped.last().unwrap().next, world.shipper.position());
    let nothing = world.shipper.ship().unwrap();
    assert!(nothing.is_empty() && !shipped[0].is_empty());
    assert!(nothing.notes.len() < 300, "{}", nothing.notes.len());
}

/// Nothing is ever cut: neither a batch at the point, nor a record by the size of shipments.
#[test]
fn batches_are_whole_and_shipments_small() {
    let mut world = World::new();
    let store = &world.store;
    let other = store.create_keyspace("other", &small_keyspace()).unwrap();
    drop(world.shipper);
    world.shipper = store
        .ship_log(&ShipOptions {
            shipment_bytes_max: 300,
            ..ShipOptions::default()
        })
        .unwrap();
    world.base = store.capture().unwrap();
    for number in 0..50 {
        let mut batch = WriteBatch::new();
        batch.put(world.ks, &key(number), &value(number, 2));
        batch.put(other, &key(number), &value(number, 2));
        batch.delete(world.ks, &key(100 + number));
        store.write(&batch, &WriteOptions::default()).unwrap();
    }
    let mut shipped = vec![world.shipper.ship().unwrap()];
    while shipped.last().unwrap().more {
        shipped.push(world.shipper.ship().unwrap());
    }
    assert!(shipped.len() > 20, "{}", shipped.len());
    assert!(shipped.iter().all(|shipment| shipment.log_bytes() < 1000));
    let base = world.base.sequence;
    for point in [base, base + 1, base + 2, base + 3, base + 74, base + 150] {
        let fs = world.restored();
        let replayed = replay(&fs, &shipped, Until::Sequence(point)).unwrap();
        let batches = (point - base) / 3;
        assert_eq!(replayed.sequence, base + 3 * batches);
        assert_eq!(replayed.batches, batches);
        let copy = open_copy(&fs);
        assert_contents(&copy, other, &expected(0..batches, 2));
    }
}

#[test]
fn a_time_is_reached_by_what_was_shipped_until_then() {
    let fs = MemoryFileSystem::new();
    let clock = Arc::new(ManualClock::new(Timestamp(1_000_000)));
    let options = |fs: &MemoryFileSystem| manual(fs).clock(Arc::clone(&clock) as Arc<dyn Clock>);
    let store = Lsm::open(DIRECTORY, options(&fs)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    let mut shipper = begin(&store);
    let mut shipped = vec![shipper.ship().unwrap()];
    let base = store.capture().unwrap();
    for second in 0..10 {
        store
            .put(
                ks,
                &key(second),
                &value(second, 1),
                &WriteOptions::default(),
            )
            .unwrap();
        // Expired long since when it is replayed.
        let mut batch = WriteBatch::new();
        let until = Timestamp(clock.now().0 + 500);
        batch.put_until(ks, b"short", b"lived", until);
        store.write(&batch, &WriteOptions::default()).unwrap();
        clock.advance(Duration::from_secs(1));
        shipped.push(shipper.ship().unwrap());
    }
    let at = |time: u64| {
        let fs = restore(&base);
        let shipments = shipped.iter().cloned().map(Ok);
        replay_shipped(COPY, &options(&fs), shipments, Until::Time(Timestamp(time)))?;
        let copy = Lsm::open(COPY, options(&fs)).unwrap();
        Ok(contents(&copy, ks).len())
    };
    for seconds in 0..10 {
        assert_eq!(at(1_000_000 + seconds * 1000).unwrap(), seconds as usize);
        assert_eq!(at(1_000_999 + seconds * 1000).unwrap(), seconds as usize);
    }
    assert_eq!(at(9_000_000).unwrap(), 10);
    assert_error!(
        at(999_999),
        Error::InvalidSetting {
            setting: "until",
            ..
        },
        Input
    );
}

#[test]
fn keyspaces_come_change_and_go() {
    let mut world = World::new();
    let (store, ks) = (&world.store, world.ks);
    let mut shipped = vec![world.shipper.ship().unwrap()];
    let first = store.create_keyspace("first", &small_keyspace()).unwrap();
    put_all(store, first, 0..20, 1);
    let with_first = store.latest_sequence();
    shipped.push(world.shipper.ship().unwrap());
    store.drop_keyspace(first).unwrap();
    // The same name, another keyspace, and both in one shipment.
    let second = store.create_keyspace("first", &roomy_keyspace()).unwrap();
    put_all(store, second, 0..10, 2);
    let altered = small_keyspace().large_values_from(Some(64));
    store.create_keyspace("k", &altered).unwrap();
    put_all(store, ks, 500..520, 1);
    shipped.push(world.shipper.ship().unwrap());

    let fs = world.restored();
    replay(&fs, &shipped, Until::Sequence(with_first)).unwrap();
    let copy = open_copy(&fs);
    assert_eq!(copy.keyspace("first").unwrap(), Some(first));
    assert_contents(&copy, first, &expected(0..20, 1));

    let fs = world.restored();
    replay(&fs, &shipped, Until::End).unwrap();
    let copy = open_copy(&fs);
    assert_eq!(copy.keyspaces().unwrap(), store.keyspaces().unwrap());
    assert_contents(&copy, second, &expected(0..10, 2));
    assert_contents(&copy, ks, &expected((0..210).chain(500..520), 1));
    // The next one has a number that no keyspace ever had.
    let third = copy.create_keyspace("third", &small_keyspace()).unwrap();
    assert!(third.0 > second.0);
    // One that goes when nothing is written afterwards.
    assert!(!world.shipper.is_behind());
    store.drop_keyspace(second).unwrap();
    assert!(world.shipper.is_behind());
    shipped.push(world.shipper.ship().unwrap());
    assert!(!world.shipper.is_behind());
    let fs = world.restored();
    let last = store.latest_sequence();
    replay(&fs, &shipped, Until::Sequence(last)).unwrap();
    assert_eq!(open_copy(&fs).keyspace("first").unwrap(), Some(second));
    let fs = world.restored();
    replay(&fs, &shipped, Until::End).unwrap();
    assert_eq!(open_copy(&fs).keyspace("first").unwrap(), None);
}

#[test]
fn a_shipment_that_is_missing_is_a_gap() {
    let mut world = World::new();
    let mut shipped = Vec::new();
    for round in 0..4 {
        put_all(&world.store, world.ks, 300 + round..301 + round, 1);
        shipped.push(world.shipper.ship().unwrap());
    }
    let base = world.base.sequence;
    // The first: nothing is written.
    let error = refused(&world.restored(), &shipped[1..], Until::End);
    let gap = |error: &Error| match error {
        Error::LogGap { behind, .. } => *behind,
        error => panic!("{error:?}"),
    };
    assert_eq!(gap(&error), base);
    // One in between: what comes before it is there.
    let fs = world.restored();
    let some = [shipped[0].clone(), shipped[1].clone(), shipped[3].clone()];
    assert_eq!(gap(&replay(&fs, &some, Until::End).unwrap_err()), base + 2);
    let reading = Lsm::open_read_only(COPY, &manual(&fs)).unwrap();
    assert_contents(&reading, world.ks, &expected((0..210).chain(300..302), 1));
    drop(reading);
    // It goes on with what was missing.
    let replayed = replay(&fs, &shipped, Until::End).unwrap();
    assert_eq!((replayed.sequence, replayed.batches), (base + 4, 2));
    // A piece of a shipment.
    shipped[0].pieces.clear();
    let error = refused(&world.restored(), &shipped, Until::End);
    assert!(matches!(error, Error::Corruption { .. }), "{error:?}");
    // Out of order, twice, and none at all.
    let twice = [shipped[2].clone(), shipped[2].clone()];
    refused(&world.restored(), &twice, Until::End);
    let error = refused(&world.restored(), &[], Until::End);
    assert!(matches!(
        error,
        Error::InvalidSetting {
            setting: "shipments",
            ..
        }
    ));
}

#[test]
fn what_was_ingested_is_not_in_the_log() {
    let mut world = World::new();
    let (store, ks) = (&world.store, world.ks);
    put_all(store, ks, 300..310, 1);
    let before = store.latest_sequence();
    store.ingest(ks, [(b"zz", b"ingested")]).unwrap();
    let at_the_end = world.shipper.ship().unwrap();
    put_all(store, ks, 310..320, 1);
    let shipped = [at_the_end, world.shipper.ship().unwrap()];
    for shipped in [&shipped[..1], &shipped[..]] {
        let fs = world.restored();
        let error = assert_error!(
            replay(&fs, shipped, Until::End),
            Error::LogGap { .. },
            Input
        );
        assert!(error.to_string().contains("ingested"), "{error}");
        assert_eq!(open_copy(&fs).latest_sequence(), before);
    }
    // Up to there it can be had.
    let found = content_at(&world.base, &shipped, Until::Sequence(before), ks);
    assert!(found == expected((0..210).chain(300..310), 1));
    // And behind it from a newer base.
    let newer = store.capture().unwrap();
    let found = content_at(&newer, &shipped, Until::End, ks);
    assert_eq!(found.len(), 231);
}

#[test]
fn a_point_before_the_base_is_refused() {
    let mut world = World::new();
    put_all(&world.store, world.ks, 300..310, 1);
    let shipped = [world.shipper.ship().unwrap()];
    let fs = world.restored();
    let until = Until::Sequence(world.base.sequence - 1);
    let error = refused(&fs, &shipped, until);
    assert!(
        matches!(
            error,
            Error::InvalidSetting {
                setting: "until",
                ..
            }
        ),
        "{error}"
    );
    let error = refused(&fs, &shipped, Until::Time(Timestamp(0)));
    assert!(
        matches!(
            error,
            Error::InvalidSetting {
                setting: "until",
                ..
            }
        ),
        "{error}"
    );
    // Nothing is to be done for the base itself.
    let replayed = replay(&fs, &shipped, Until::Sequence(world.base.sequence)).unwrap();
    assert_eq!(replayed.batches, 0);
}

/// Every byte of a shipment changed, and its pieces cut at every length: it is refused, and what was written before it is right.
#[test]
fn what_was_altered_or_cut_on_the_way_is_refused() {
    let mut world = World::new();
    put_all(&world.store, world.ks, 300..302, 1);
    world
        .store
        .create_keyspace("new", &small_keyspace())
        .unwrap();
    let whole = world.shipper.ship().unwrap();
    let (piece, notes) = (&whole.pieces[0], &whole.notes);
    let (header, bytes) = (piece.header.len(), piece.bytes.len());
    let fs = world.restored();
    for at in (0..header + bytes + notes.len()).step_by(3) {
        let mut altered = whole.clone();
        let piece = &mut altered.pieces[0];
        if at < header {
            piece.header[at] ^= 1;
        } else if at < header + bytes {
            piece.bytes[at - header] ^= 1;
        } else {
            altered.notes[at - header - bytes] ^= 1;
        }
        let error = refused(&fs, &[altered], Until::End);
        let told = matches!(
            error,
            Error::Corruption { .. } | Error::UnfitLog { .. } | Error::NewerFormat { .. }
        );
        assert!(told, "byte {at}: {error:?}");
    }
    for len in (0..bytes).step_by(5) {
        let mut cut = whole.clone();
        cut.pieces[0].bytes.truncate(len);
        let error = refused(&fs, &[cut.clone()], Until::End);
        assert!(matches!(error, Error::Corruption { .. }), "{error:?}");
        // Also by who knows how to add it up.
        let piece = &mut cut.pieces[0];
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&piece.header);
        hasher.update(&piece.bytes);
        piece.checksum = hasher.finalize();
        let error = refused(&fs, &[cut], Until::End);
        assert!(matches!(error, Error::Corruption { .. }), "{error:?}");
    }
    // What is told of it beside its pieces is sealed, too.
    let edits: [fn(&mut Shipment); 6] = [
        |s| s.next.sequence -= 1,
        |s| s.next.keyspaces ^= 1,
        |s| s.time = Timestamp(1),
        |s| s.more = true,
        |s| s.pieces[0].offset += 1,
        |s| s.keyrings.clear(),
    ];
    for edit in &edits[..5 + usize::from(encrypted())] {
        let mut altered = whole.clone();
        edit(&mut altered);
        refused(&fs, &[altered], Until::End);
    }
}

#[test]
fn another_store_instance_or_chain_is_refused() {
    let mut world = World::new();
    put_all(&world.store, world.ks, 300..310, 1);
    let shipment = world.shipper.ship().unwrap();
    let is_unfit = |error: Error, says: &str| {
        assert!(matches!(error, Error::UnfitLog { .. }), "{error:?}");
        assert!(error.to_string().contains(says), "{error}");
    };
    // Another store.
    let mut other = World::new();
    put_all(&other.store, other.ks, 300..310, 1);
    let foreign = other.shipper.ship().unwrap();
    is_unfit(
        refused(&world.restored(), &[foreign], Until::End),
        "another store",
    );
    // A copy that went its own way.
    let fs = world.restored();
    let copy = open_copy(&fs);
    let mut of_copy = begin(&copy);
    put_all(&copy, world.ks, 400..410, 1);
    let diverged = of_copy.ship().unwrap();
    is_unfit(
        refused(&world.restored(), &[diverged], Until::End),
        "another instance",
    );
    drop(of_copy);
    copy.close().unwrap();
    // And that copy takes nothing any more.
    let shipped = [shipment.clone()];
    is_unfit(refused(&fs, &shipped, Until::End), "restore it anew");
    // Another chain of the same store.
    let fs = world.restored();
    drop(world.shipper);
    let mut second = begin(&world.store);
    let next = second.ship().unwrap();
    let error = replay(&fs, &[shipment, next], Until::End).unwrap_err();
    is_unfit(error, "another chain");
}

/// A replay that ended goes on later, as long as nobody has opened the copy for writing.
#[test]
fn a_copy_follows_until_it_is_opened() {
    let mut world = World::new();
    let fs = world.restored();
    let mut shipped = Vec::new();
    for round in 0..4 {
        put_all(&world.store, world.ks, 300 + round..301 + round, 1);
        shipped.push(world.shipper.ship().unwrap());
        let replayed = replay(&fs, &shipped[shipped.len() - 1..], Until::End);
        // The first one that ends before what is there has to be among them.
        if round > 0 {
            assert!(
                matches!(replayed, Err(Error::LogGap { .. })),
                "{replayed:?}"
            );
        }
        let replayed = replay(&fs, &shipped, Until::End).unwrap();
        assert_eq!(replayed.sequence, world.store.latest_sequence());
        let reading = Lsm::open_read_only(COPY, &manual(&fs)).unwrap();
        assert_eq!(reading.instance(), None);
    }
    let copy = open_copy(&fs);
    assert!(
        copy.instance()
            .is_some_and(|id| Some(id) != world.store.instance())
    );
    assert_contents(&copy, world.ks, &expected((0..210).chain(300..304), 1));
}

/// The machine ends at every operation of a replay; the next one goes on.
#[test]
fn power_is_lost_at_every_operation_of_a_replay() {
    let mut world = World::new();
    put_all(&world.store, world.ks, 300..305, 1);
    let new = world
        .store
        .create_keyspace("new", &small_keyspace())
        .unwrap();
    put_all(&world.store, new, 0..5, 1);
    let shipped = [world.shipper.ship().unwrap()];
    let restored = world.restored();
    for nth in 0.. {
        let fs = restored.crash(0, CrashPolicy::KeepUnsynced);
        fs.set_crash_point(Some(fs.operations() + nth));
        let outcome = replay(&fs, &shipped, Until::End);
        let policies = [
            CrashPolicy::KeepUnsynced,
            CrashPolicy::Random { percent: 50 },
            CrashPolicy::DropUnsynced,
        ];
        for policy in policies {
            let after = fs.crash(nth, policy);
            let replayed = replay(&after, &shipped, Until::End);
            let replayed = replayed.unwrap_or_else(|e| panic!("{nth}, {policy:?}: {e}"));
            assert_eq!(replayed.sequence, world.store.latest_sequence());
            let copy = open_copy(&after);
            assert_contents(&copy, world.ks, &expected((0..210).chain(300..305), 1));
            assert_contents(&copy, new, &expected(0..5, 1));
        }
        if outcome.is_ok() {
            return;
        }
        assert!(nth < 2_000, "it never ended");
    }
}

/// Closed, killed, and opened again: the chain goes on where it was, and what was written meanwhile is shipped.
#[test]
fn shipping_goes_on_after_the_store_was_closed_or_killed() {
    let mut world = World::new();
    let mut shipped = Vec::new();
    let mut fs = world.fs.clone();
    let mut store = world.store.clone();
    for round in 0..6_u64 {
        put_all(&store, world.ks, 300 + round * 10..305 + round * 10, 1);
        shipped.push(world.shipper.ship().unwrap());
        // Written, and not shipped any more.
        put_all(&store, world.ks, 305 + round * 10..310 + round * 10, 1);
        store.sync().unwrap();
        let from = Some(world.shipper.position());
        if round % 2 == 0 {
            store.close().unwrap();
        } else {
            fs = fs.crash(round, CrashPolicy::DropUnsynced);
        }
        store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
        world.shipper = store
            .ship_log(&ShipOptions {
                from,
                ..ShipOptions::default()
            })
            .unwrap();
    }
    shipped.push(world.shipper.ship().unwrap());
    let found = content_at(&world.base, &shipped, Until::End, world.ks);
    assert!(found == expected((0..210).chain(300..360), 1));
    assert_eq!(shipped.iter().map(|s| s.position.shipment).max(), Some(6));
}

/// What cannot be gone on from says so.
#[test]
fn a_chain_that_cannot_go_on_is_a_gap() {
    let mut world = World::new();
    put_all(&world.store, world.ks, 300..310, 1);
    let _ = world.shipper.ship().unwrap();
    let position = world.shipper.position();
    let again = |store: &Lsm, position| {
        let from = Some(position);
        let options = ShipOptions {
            from,
            ..ShipOptions::default()
        };
        store.ship_log(&options)
    };
    // Two at a time.
    assert_error!(
        world.store.ship_log(&ShipOptions::default()).map(drop),
        Error::InvalidSetting { .. },
        Input
    );
    drop(world.shipper);
    drop(again(&world.store, position).unwrap());
    // Another instance.
    let copy_fs = restore(&world.base);
    let copy = open_copy(&copy_fs);
    assert_error!(
        again(&copy, position).map(drop),
        Error::LogGap { .. },
        Input
    );
    // Written, flushed and let go of while nobody shipped.
    put_all(&world.store, world.ks, 1_000..3_000, 1);
    world.store.flush(None).unwrap();
    assert_error!(
        again(&world.store, position).map(drop),
        Error::LogGap { .. },
        Input
    );
    // A keyspace that came while nobody shipped.
    let position = begin(&world.store).position();
    world
        .store
        .create_keyspace("unseen", &small_keyspace())
        .unwrap();
    let error = assert_error!(
        again(&world.store, position).map(drop),
        Error::LogGap { .. },
        Input
    );
    assert!(error.to_string().contains("keyspaces"), "{error}");
    // A store that was put back.
    let old = world.fs.kill();
    let mut shipper = begin(&world.store);
    put_all(&world.store, world.ks, 0..10, 2);
    let _ = shipper.ship().unwrap();
    let older = Lsm::open(DIRECTORY, manual(&old)).unwrap();
    let error = assert_error!(
        again(&older, shipper.position()).map(drop),
        Error::LogGap { .. },
        Input
    );
    assert!(error.to_string().contains("put back"), "{error}");
}

/// A follower that does nothing costs no more than what it was granted.
#[test]
fn who_falls_behind_gets_a_gap_and_the_disk_stays_free() {
    let mut world = World::new();
    drop(world.shipper);
    let options = |bytes| ShipOptions {
        retained_bytes_max: bytes,
        ..ShipOptions::default()
    };
    let mut patient = world.store.ship_log(&options(64 << 20)).unwrap();
    world.base = world.store.capture().unwrap();
    put_all(&world.store, world.ks, 0..8_000, 2);
    world.store.flush(None).unwrap();
    let mut shipped = vec![patient.ship().unwrap()];
    while shipped.last().unwrap().more {
        shipped.push(patient.ship().unwrap());
    }
    let found = content_at(&world.base, &shipped, Until::End, world.ks);
    assert!(found == expected(0..8_000, 2));
    drop(patient);
    let mut behind = world.store.ship_log(&options(100 << 10)).unwrap();
    put_all(&world.store, world.ks, 0..8_000, 3);
    world.store.flush(None).unwrap();
    let used = world.fs.kill().bytes_used();
    assert!(world.fs.bytes_used() < used + (600 << 10), "{used}");
    for _ in 0..2 {
        let error = assert_error!(behind.ship(), Error::LogGap { .. }, Input);
        assert!(error.to_string().contains("falls behind"), "{error}");
    }
    // The store itself goes on.
    assert_contents(&world.store, world.ks, &expected(0..8_000, 3));
}

/// Keys are replaced, and the old ones destroyed, while nobody ships.
#[test]
fn keys_are_rotated_in_between() {
    if !encrypted() {
        return;
    }
    let mut world = World::new();
    let mut shipped = Vec::new();
    for round in 0..4_u64 {
        let (store, ks) = (&world.store, world.ks);
        put_all(store, ks, 300 + round * 10..305 + round * 10, 1);
        if round == 2 {
            store.create_keyspace("between", &small_keyspace()).unwrap();
        }
        for _ in 0..round {
            store.rotate_keys().unwrap();
            store
                .finish_rotation(|_| ControlFlow::Continue(()))
                .unwrap();
            assert_eq!(store.key_rotation().unwrap().tables_left, 0);
        }
        put_all(store, ks, 305 + round * 10..310 + round * 10, 1);
        shipped.push(world.shipper.ship().unwrap());
    }
    let found = content_at(&world.base, &shipped, Until::End, world.ks);
    assert!(found == expected((0..210).chain(300..340), 1));
    // Without what brought the keys there is nothing to be had of it.
    for number in 1..4 {
        let mut without = shipped.clone();
        assert!(!without[number].keyrings.is_empty());
        without[number].keyrings.clear();
        let fs = world.restored();
        let error = replay(&fs, &without, Until::End).unwrap_err();
        let told = matches!(error, Error::Corruption { .. } | Error::UnfitLog { .. });
        assert!(told, "{error:?}");
        let copy = open_copy(&fs);
        let written = (0..210).chain(300..300 + number as u64 * 10);
        assert_contents(&copy, world.ks, &expected(written, 1));
    }
}

/// Neither keys nor values nor names can be read in what is shipped of an encrypted store.
#[test]
fn nothing_can_be_read_in_a_shipment() {
    let mut world = World::new();
    let canary = b"canary-of-the-tests";
    let name = "canary-of-the-names";
    let store = &world.store;
    let ks = store.create_keyspace(name, &small_keyspace()).unwrap();
    store
        .put(ks, canary, canary, &WriteOptions::default())
        .unwrap();
    let shipment = world.shipper.ship().unwrap();
    let everything = format!("{:?}", shipment.position)
        .into_bytes()
        .into_iter()
        .chain(shipment.pieces.iter().flat_map(|p| p.bytes.clone()))
        .chain(shipment.notes.clone())
        .chain(shipment.keyrings.concat());
    let everything: Vec<u8> = everything.collect();
    let reads = |text: &[u8]| everything.windows(text.len()).any(|at| at == text);
    assert_eq!(reads(canary), !encrypted());
    assert_eq!(reads(name.as_bytes()), !encrypted());
}

/// A shipper outlives its store, and nothing more.
#[test]
fn a_closed_or_locked_store_ships_nothing() {
    let mut world = World::new();
    put_all(&world.store, world.ks, 300..310, 1);
    if encrypted() {
        world.store.lock().unwrap();
        assert_error!(world.shipper.ship(), Error::Locked, Unlock);
    }
    world.store.close().unwrap();
    assert_error!(world.shipper.ship(), Error::Closed, Reopen);
    let reading = Lsm::open_read_only(DIRECTORY, &manual(&world.fs)).unwrap();
    let begun = reading.ship_log(&ShipOptions::default());
    assert_error!(begun.map(drop), Error::ReadOnly, Input);
}

/// Threads write, flush, compact, create, drop and rotate keys while a follower ships; at the end the copy is the store.
#[test]
fn a_follower_beside_writers() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, threaded(&fs)).unwrap();
    let keyspaces: Vec<KeyspaceId> = (0..3)
        .map(|n| {
            store
                .create_keyspace(&format!("k{n}"), &small_keyspace())
                .unwrap()
        })
        .collect();
    let mut shipper = begin(&store);
    let base = store.capture().unwrap();
    let done = AtomicBool::new(false);
    let mut shipped = Vec::new();
    std::thread::scope(|scope| {
        let writers: Vec<_> = keyspaces
            .iter()
            .map(|&ks| {
                let store = &store;
                scope.spawn(move || {
                    for version in 1..4 {
                        put_all(store, ks, 0..1_000, version);
                        let name = format!("of-{}", ks.0);
                        let more = store.create_keyspace(&name, &small_keyspace()).unwrap();
                        put_all(store, more, 0..50, version);
                        if version < 3 {
                            store.drop_keyspace(more).unwrap();
                        }
                    }
                })
            })
            .collect();
        if encrypted() {
            scope.spawn(|| {
                for _ in 0..20 {
                    store.rotate_keys().unwrap();
                    let go_on = |_| ControlFlow::Continue(());
                    store.finish_rotation(go_on).unwrap();
                }
            });
        }
        let follower = scope.spawn(|| {
            let mut shipped = Vec::new();
            loop {
                let last = done.load(Ordering::Acquire);
                let shipment = shipper.ship().unwrap();
                let more = shipment.more;
                shipped.push(shipment);
                if last && !more {
                    return shipped;
                }
                std::thread::yield_now();
            }
        });
        let outcomes: Vec<_> = writers.into_iter().map(ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Release);
        shipped = follower.join().unwrap();
        outcomes.into_iter().for_each(|outcome| outcome.unwrap());
    });
    let copy_fs = restore(&base);
    let options: LsmOptions = threaded(&copy_fs);
    let replayed = replay_shipped(COPY, &options, shipped.iter().cloned().map(Ok), Until::End);
    assert_eq!(replayed.unwrap().sequence, store.latest_sequence());
    let copy = open_copy(&copy_fs);
    let infos = store.keyspaces().unwrap();
    assert_eq!(copy.keyspaces().unwrap(), infos);
    assert_eq!(infos.len(), 6);
    for info in infos {
        assert!(contents(&copy, info.id) == contents(&store, info.id));
    }
}

/// What is lost with the machine, if it is lost at any moment: less than a second, on a real disk, beside a writer of some
/// 50,000 entries a second that asks for no durability. The follower ships ten times a second. Where others keep the disk
/// busy, it is measured again.
#[test]
fn the_recovery_point_is_below_a_second() {
    let mut worst = Duration::MAX;
    for attempt in 0..5 {
        worst = recovery_point();
        println!("attempt {attempt}: what is older than {worst:?} was shipped at any moment");
        if worst < Duration::from_secs(1) {
            return;
        }
    }
    panic!("{worst:?}");
}

/// How old what was not shipped yet was at most, in two seconds.
fn recovery_point() -> Duration {
    let directory = tempfile::tempdir().unwrap();
    let options = support::protected(LsmOptions::default());
    let store = Lsm::open(directory.path(), options).unwrap();
    let ks = store.create_keyspace("k", &roomy_keyspace()).unwrap();
    let mut shipper = begin(&store);
    let clock = SystemClock::new();
    let done = AtomicBool::new(false);
    let mut reached: Vec<(SequenceNumber, Duration)> = Vec::new();
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut written = Vec::new();
            for burst in 0.. {
                if done.load(Ordering::Acquire) {
                    break;
                }
                put_all(&store, ks, burst * 50..burst * 50 + 50, 1);
                written.push((store.latest_sequence(), clock.monotonic()));
                clock.sleep(Duration::from_millis(1));
            }
            written
        });
        for _ in 0..20 {
            clock.sleep(Duration::from_millis(100));
            let mut shipment = shipper.ship().unwrap();
            while shipment.more {
                shipment = shipper.ship().unwrap();
            }
            reached.push((shipment.next.sequence, clock.monotonic()));
        }
        done.store(true, Ordering::Release);
        writer.join().unwrap()
    });
    let (last, _) = *reached.last().unwrap();
    assert!(last > 1_000);
    let lags = written.iter().filter(|(sequence, _)| *sequence <= last);
    let lags = lags.map(|(sequence, at)| {
        let shipped = reached.iter().find(|(upto, _)| upto >= sequence).unwrap();
        shipped.1.saturating_sub(*at)
    });
    lags.max().unwrap()
}
