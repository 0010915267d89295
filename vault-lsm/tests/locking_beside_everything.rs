//! A store that is locked and resumed over and over while everything else goes on.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::locking::{Keyed, assert_locked};
use support::{key, threaded, value};
use vault_core::clock::SystemClock;
use vault_core::{Clock, Engine, Error, KeyRange, Reader, WriteOptions};
use vault_lsm::Lsm;

/// Writers, readers, scans, ingests and compactions, while the store is locked and resumed over and over.
#[test]
fn nothing_acknowledged_is_lost_and_nothing_wrong_is_seen() {
    let keyed = Keyed::open(threaded);
    let began = AtomicBool::new(true);
    let done = || !began.load(Ordering::Acquire);
    let written: Vec<Mutex<BTreeMap<u64, u64>>> = (0..2).map(|_| Mutex::default()).collect();
    let version_of = |number: u64, found: &[u8]| -> u64 {
        let version = u64::from_le_bytes(found[..8].try_into().unwrap());
        assert_eq!(found[8..], value(number, version), "a value nobody wrote");
        version
    };
    let allowed = |error: Error| assert!(matches!(error, Error::Locked), "{error:?}");
    let (keyed, written) = (&keyed, &written);
    let cycles = std::thread::scope(|scope| {
        for (writer, own) in written.iter().enumerate() {
            scope.spawn(move || {
                let mut version = 0;
                while !done() {
                    version += 1;
                    let number = version * 7 % 500 * 2 + writer as u64;
                    let bytes = [&version.to_le_bytes()[..], &value(number, version)].concat();
                    let options = if version % 16 == 0 {
                        WriteOptions::SYNC
                    } else {
                        WriteOptions::OS
                    };
                    match keyed.store.put(keyed.ks, &key(number), &bytes, &options) {
                        Ok(_) => drop(own.lock().unwrap().insert(number, version)),
                        Err(error) => allowed(error),
                    }
                }
            });
        }
        scope.spawn(|| {
            while !done() {
                for number in 0..1000 {
                    let least = {
                        let own = written[number as usize % 2].lock().unwrap();
                        own.get(&number).copied()
                    };
                    match keyed.store.get(keyed.ks, &key(number)) {
                        Ok(Some(found)) => {
                            let version = version_of(number, &found);
                            assert!(version >= least.unwrap_or(0), "an old value");
                        }
                        Ok(None) => assert!(least.is_none(), "{number} is gone"),
                        Err(error) => allowed(error),
                    }
                }
            }
        });
        scope.spawn(|| {
            while !done() {
                let least: Vec<u64> = {
                    let all = written.iter().map(|own| own.lock().unwrap());
                    all.flat_map(|own| own.keys().copied().collect::<Vec<_>>())
                        .collect()
                };
                let Ok(scan) = keyed.store.scan(keyed.ks, KeyRange::all()) else {
                    continue;
                };
                let seen: Result<Vec<_>, Error> = scan.collect();
                match seen {
                    Ok(seen) => {
                        let keys: BTreeSet<_> = seen.iter().map(|(key, _)| key.to_vec()).collect();
                        let missing = least.iter().find(|&&n| !keys.contains(&key(n)));
                        assert_eq!(missing, None, "missing in a scan");
                    }
                    Err(error) => allowed(error),
                }
            }
        });
        scope.spawn(|| {
            while !done() {
                let range = KeyRange::new::<&[u8]>(..);
                let compacted =
                    (keyed.store).compact(keyed.ks, range, &mut |_| ControlFlow::Continue(()));
                compacted.map_or_else(allowed, drop);
                keyed.store.flush(None).unwrap_or_else(allowed);
                let pairs = (2000..2100_u64).map(|n| (key(n), value(n, 1)));
                keyed
                    .store
                    .ingest(keyed.ks, pairs)
                    .map_or_else(allowed, drop);
            }
        });
        let mut cycles = 0;
        let until = support::ends_in(Duration::from_secs(3));
        while !until() {
            SystemClock::new().sleep(Duration::from_millis(3 + cycles % 20));
            keyed.store.lock().unwrap();
            assert!(keyed.toy.keys().is_locked_now());
            assert_locked!(keyed.put(5000));
            keyed.unlock_and_resume();
            cycles += 1;
        }
        began.store(false, Ordering::Release);
        cycles
    });
    assert!(cycles > 10, "{cycles} cycles");
    keyed.store.settle().unwrap();
    let check = |store: &Lsm| {
        for (number, least) in written.iter().flat_map(|own| own.lock().unwrap().clone()) {
            let found = store.get(keyed.ks, &key(number)).unwrap();
            assert_eq!(version_of(number, &found.expect("acknowledged")), least);
        }
    };
    check(&keyed.store);
    keyed.store.close().unwrap();
    check(&keyed.reopened_in(&keyed.fs));
}
