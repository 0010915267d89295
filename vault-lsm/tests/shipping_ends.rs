//! Replays that end where the log does not tell all: amid a group of shipments, and at writes that went past the log.

mod support;

use support::shipped::{World, begin, open_copy, replay, restore};
use support::{assert_contents, assert_error, expected, put_all, small_keyspace};
use vault_core::{Engine, Error};
use vault_lsm::shipping::{ShipOptions, Until};

/// The first shipment of a group tells of keyspaces up to the end of the group. Where the others are lost, what became of keyspaces behind
/// the last write that is there did not happen yet.
#[test]
fn a_group_without_its_end_drops_no_keyspace_too_early() {
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
    put_all(store, other, 0..20, 1);
    store.drop_keyspace(other).unwrap();
    put_all(store, world.ks, 300..310, 1);
    let first = world.shipper.ship().unwrap();
    assert!(first.more);
    let time = first.time;
    for until in [Until::End, Until::Time(time)] {
        let fs = world.restored();
        let replayed = replay(&fs, std::slice::from_ref(&first), until).unwrap();
        let written = replayed.sequence - world.base.sequence;
        assert!(written > 0 && written < 20, "{written}");
        let copy = open_copy(&fs);
        let kept = copy.keyspaces().unwrap();
        assert!(kept.iter().any(|info| info.id == other), "{until:?}");
        assert_contents(&copy, other, &expected(0..written, 1));
    }
    // With the rest it goes.
    let mut shipped = vec![first];
    while shipped.last().unwrap().more {
        shipped.push(world.shipper.ship().unwrap());
    }
    let fs = world.restored();
    replay(&fs, &shipped, Until::End).unwrap();
    let copy = open_copy(&fs);
    let kept = copy.keyspaces().unwrap();
    assert!(kept.iter().all(|info| info.id != other));
    assert_contents(&copy, world.ks, &expected((0..210).chain(300..310), 1));
}

/// A write that is in no log was passed over where the point is that write itself, and the copy taken for what was asked for.
#[test]
fn a_point_that_was_ingested_is_not_taken_for_the_one_before_it() {
    let mut world = World::new();
    let (store, ks) = (&world.store, world.ks);
    put_all(store, ks, 300..310, 1);
    let before = store.latest_sequence();
    store.ingest(ks, [(b"zy", b"ingested")]).unwrap();
    store.ingest(ks, [(b"zz", b"ingested")]).unwrap();
    let shipped = [world.shipper.ship().unwrap()];
    for point in [before + 1, before + 2] {
        let fs = world.restored();
        let error = assert_error!(
            replay(&fs, &shipped, Until::Sequence(point)),
            Error::LogGap { .. },
            Input
        );
        assert!(error.to_string().contains("ingested"), "{error}");
    }
    let fs = world.restored();
    replay(&fs, &shipped, Until::Sequence(before)).unwrap();
    let wanted = expected((0..210).chain(300..310), 1);
    assert_contents(&open_copy(&fs), ks, &wanted);
    drop(world.shipper);

    // A batch lies behind it in the same shipment.
    let shipper = &mut begin(store);
    let base = store.capture().unwrap();
    let before = store.latest_sequence();
    store.ingest(ks, [(b"zx", b"ingested")]).unwrap();
    put_all(store, ks, 310..320, 1);
    let shipped = [shipper.ship().unwrap()];
    let until = Until::Sequence(before + 1);
    let error = assert_error!(
        replay(&restore(&base), &shipped, until),
        Error::LogGap { .. },
        Input
    );
    assert!(error.to_string().contains("ingested"), "{error}");
    let at_base = replay(&restore(&base), &shipped, Until::Sequence(before)).unwrap();
    assert_eq!(at_base.sequence, before);
}
