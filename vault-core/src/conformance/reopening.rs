//! Closing a store and opening it again, for engines that persist; the others pass at once.

use std::sync::Arc;

use super::START;
use super::harness::{Fixture, Harness, assert_refused, backward, forward, got, keys};
use super::merge::Largest;
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::merge::{APPEND, MergeOperator};
use crate::range::KeyRange;

/// Everything acknowledged is back, the sequence goes on, and ids stay what they were.
pub fn reopening_brings_everything_back<H: Harness>(harness: &H) {
    let mut f = Fixture::new(harness);
    let (plain, append) = (f.plain("plain"), f.merging("append", APPEND));
    let dropped = f.plain("dropped");
    f.set(dropped, b"k", b"v");
    for i in 0..400_u16 {
        f.set(plain, &i.to_be_bytes(), &[i as u8; 80]);
        if i == 200 {
            f.settle();
        }
    }
    f.drop_keyspace(dropped).unwrap();
    f.set(append, b"k", b"0");
    let mut expected = b"0".to_vec();
    for round in 1..5_u8 {
        f.batch(|b| {
            b.merge(append, b"k", &[round])
                .merge(append, b"n", &[round]);
            b.delete_range(plain, &[0, round * 10], &[0, round * 10 + 5]);
            b.delete(plain, &[1, round]);
            b.put_until(plain, &[9, round], b"later", Timestamp(START.0 + 1_000));
        });
        expected.push(round);
        let (last, before) = (f.latest_sequence(), forward(&*f, plain, KeyRange::all()));
        let listed = f.keyspaces().unwrap();
        if !f.reopen() {
            return;
        }
        assert_eq!(
            f.latest_sequence(),
            last,
            "the sequence goes on where it was"
        );
        assert_eq!(f.keyspaces().unwrap(), listed);
        assert_eq!(f.keyspace("plain").unwrap(), Some(plain));
        assert_refused!(f.get(dropped, b"k"), Error::UnknownKeyspace { .. });
        let mut after = backward(&*f, plain, KeyRange::all());
        after.reverse();
        assert_eq!(after, before);
        assert_eq!(got(&*f, append, b"k"), Some(expected.clone()));
        assert_eq!(got(&*f, append, b"n").unwrap(), expected[1..]);
        assert_eq!(f.set(plain, b"x", b""), last + 1);
        if round == 2 {
            f.settle();
        }
    }
    f.advance_ms(1_000);
    assert!(
        keys(&*f, plain).iter().all(|key| key[0] != 9),
        "expiries are kept"
    );
    let new = f.plain("dropped");
    assert!(
        new > dropped,
        "ids are never reused, not even after reopening"
    );
}

/// An empty store opens again, and one that was closed twice.
pub fn reopening_an_empty_store<H: Harness>(harness: &H) {
    let mut f = Fixture::new(harness);
    for _ in 0..3 {
        f.close().unwrap();
        if !f.reopen() {
            return;
        }
        assert!(f.keyspaces().unwrap().is_empty());
        assert_eq!(f.latest_sequence(), 0);
    }
    let ks = f.plain("k");
    assert!(f.reopen());
    assert_eq!(f.keyspace("k").unwrap(), Some(ks));
    assert!(keys(&*f, ks).is_empty());
    assert_eq!(f.set(ks, b"k", b"v"), 1);
}

/// Opening without a merge operator that a keyspace was written with is refused, when opening the
/// store or the keyspace; nothing is lost by it.
pub fn reopening_without_the_merge_operator<H: Harness>(harness: &H) {
    let operators: Vec<Arc<dyn MergeOperator>> = vec![Arc::new(Largest)];
    let mut f = Fixture::with(harness, operators, Limits::default());
    let options = harness.options().merge(Largest::NAME);
    let ks = f.create("k", &options);
    f.batch(|b| {
        b.merge(ks, b"k", b"1")
            .merge(ks, b"k", b"3")
            .merge(ks, b"k", b"2");
    });
    let operators = std::mem::take(&mut f.setup.merge_operators);
    let opened: Result<_> = match f.try_reopen() {
        None => return,
        Some(opened) => opened.and_then(|()| f.create_keyspace("k", &options)),
    };
    assert_refused!(opened, Error::MissingMergeOperator { .. });
    f.setup.merge_operators = operators;
    assert!(f.reopen());
    assert_eq!(got(&*f, ks, b"k").unwrap(), b"3");
}
