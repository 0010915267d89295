//! Compare-and-set: each of its outcomes, and that nothing comes between comparison and change.

use std::sync::Arc;

use super::harness::{Fixture, Harness, assert_refused, got, keys};
use crate::batch::WriteBatch;
use crate::engine::{CasOutcome, Engine, KeyspaceId};
use crate::error::Error;
use crate::limits::Limits;
use crate::merge::MergeOperator;
use crate::options::WriteOptions;

/// Absent and present, on both sides, matching and not.
pub fn compare_and_set_outcomes<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.merging("k", crate::merge::APPEND);
    let cas = |expected: Option<&[u8]>, new: Option<&[u8]>| {
        let before = f.latest_sequence();
        let outcome = f
            .compare_and_set(ks, b"k", expected, new, &WriteOptions::default())
            .unwrap();
        match &outcome {
            CasOutcome::Swapped(sequence) => {
                assert_eq!(*sequence, before + 1);
                assert_eq!(got(&*f, ks, b"k").as_deref(), new);
            }
            CasOutcome::Mismatch(found) => {
                assert_eq!(f.latest_sequence(), before, "nothing may be written");
                assert_eq!(got(&*f, ks, b"k").as_deref(), found.as_deref());
            }
        }
        f.settle();
        match outcome {
            CasOutcome::Swapped(_) => Ok(()),
            CasOutcome::Mismatch(found) => Err(found.map(|value| value.to_vec())),
        }
    };
    assert_eq!(cas(Some(b""), Some(b"1")), Err(None), "absent is not empty");
    assert_eq!(cas(None, None), Ok(()), "absent and to stay so");
    assert_eq!(cas(None, Some(b"1")), Ok(()));
    assert_eq!(cas(None, Some(b"2")), Err(Some(b"1".to_vec())));
    assert_eq!(cas(Some(b"2"), Some(b"3")), Err(Some(b"1".to_vec())));
    assert_eq!(cas(Some(b"1"), Some(b"1")), Ok(()), "the same again");
    assert_eq!(cas(Some(b"1"), Some(b"")), Ok(()));
    assert_eq!(
        cas(None, Some(b"4")),
        Err(Some(Vec::new())),
        "empty is not absent"
    );
    assert_eq!(cas(Some(b"x"), None), Err(Some(Vec::new())));
    assert_eq!(cas(Some(b""), None), Ok(()));
    assert!(keys(&*f, ks).is_empty());
    f.batch(|b| {
        b.merge(ks, b"k", b"a").merge(ks, b"k", b"b");
    });
    assert_eq!(cas(Some(b"a"), Some(b"c")), Err(Some(b"ab".to_vec())));
    assert_eq!(
        cas(Some(b"ab"), Some(b"c")),
        Ok(()),
        "operands count folded"
    );
    f.batch(|b| {
        b.delete_range(ks, b"", b"z");
    });
    assert_eq!(cas(Some(b"c"), Some(b"d")), Err(None));
    assert_eq!(cas(None, Some(b"d")), Ok(()));
    let nowhere = KeyspaceId(u32::MAX);
    let refused = f.compare_and_set(nowhere, b"k", None, None, &WriteOptions::default());
    assert_refused!(refused, Error::UnknownKeyspace { .. });
}

/// A snapshot taken before a swap doesn't see it.
pub fn compare_and_set_and_snapshots<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.plain("k");
    f.set(ks, b"k", b"1");
    let snapshot = f.snapshot().unwrap();
    let swapped = f.compare_and_set(ks, b"k", Some(b"1"), None, &WriteOptions::SYNC);
    assert!(matches!(swapped.unwrap(), CasOutcome::Swapped(_)));
    assert_eq!(got(&*snapshot, ks, b"k").unwrap(), b"1");
    assert_eq!(got(&*f, ks, b"k"), None);
}

/// An operator that lets other threads go first whenever it is asked to fold: it holds the door open
/// between a comparison and the change that follows.
#[derive(Debug, Clone, Copy)]
struct Hesitant;

impl MergeOperator for Hesitant {
    fn name(&self) -> &str {
        "conformance.hesitant"
    }

    fn merge(&self, _: &[u8], base: Option<&[u8]>, _: &[&[u8]]) -> Result<Vec<u8>, String> {
        for _ in 0..20 {
            std::thread::yield_now();
        }
        Ok(base.unwrap_or_default().to_vec())
    }
}

/// Threads that count by comparing and setting lose no step, while plain writes go on beside them.
pub fn counting_threads_lose_nothing<H: Harness>(harness: &H) {
    const THREADS: u64 = 4;
    const STEPS: u64 = 200;
    let f = Fixture::with(harness, vec![Arc::new(Hesitant)], Limits::default());
    let ks = f.merging("k", Hesitant.name());
    f.set(ks, b"n", &0_u64.to_be_bytes());
    let engine: &dyn Engine = &*f;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for step in 0..STEPS {
                    let key = [&b"other"[..], &thread.to_be_bytes(), &step.to_be_bytes()].concat();
                    let mut batch = WriteBatch::new();
                    // The operand changes nothing, but must be folded by whoever compares next.
                    batch.merge(ks, b"n", b"").put(ks, &key, &[1; 60]);
                    engine.write(&batch, &WriteOptions::default()).unwrap();
                    count_up(engine, ks);
                }
            });
        }
    });
    let found = got(&*f, ks, b"n").unwrap();
    assert_eq!(found, (THREADS * STEPS).to_be_bytes());
    assert_eq!(keys(&*f, ks).len() as u64, THREADS * STEPS + 1);
}

fn count_up(engine: &dyn Engine, ks: KeyspaceId) {
    let mut known = got(engine, ks, b"n").unwrap();
    loop {
        let next = u64::from_be_bytes(known[..].try_into().unwrap()) + 1;
        let outcome = engine
            .compare_and_set(
                ks,
                b"n",
                Some(&known),
                Some(&next.to_be_bytes()),
                &WriteOptions::default(),
            )
            .unwrap();
        match outcome {
            CasOutcome::Swapped(_) => return,
            CasOutcome::Mismatch(found) => known = found.unwrap().to_vec(),
        }
    }
}
