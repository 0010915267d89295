//! How vaults are used: counts, last access, 24 hours, top keys, the log, and metrics.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::Duration;

use vault_core::clock::{Clock, ManualClock};
use vault_db::encryption::{EncryptedProtection, Kdf, KdfBounds, Passphrase, SecretBytes};
use vault_db::engine::{KeyRange, OpenMode, WriteBatch, WriteOptions};
use vault_db::{
    AccessVerb, Database, Durability, Error, ImportMode, ImportOptions, Key, Quota, Timestamp,
    Vault,
};

fn with_clock() -> (Arc<ManualClock>, Database) {
    let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)));
    let db = Database::builder()
        .durability(Durability::Os)
        .clock(Arc::clone(&clock) as Arc<dyn Clock>)
        .temp()
        .unwrap();
    (clock, db)
}

#[test]
fn entries_count_as_writes_where_they_write() {
    let (_, db) = with_clock();
    let vault = db.vault("v").unwrap();
    let writes = || vault.stats().unwrap().writes;
    vault.entry("n").unwrap().or_insert(1).unwrap();
    assert_eq!(writes(), 1);
    vault.entry("n").unwrap().or_insert(2).unwrap();
    assert_eq!(writes(), 1, "it was there");
    let mut tries = 0;
    let changed = vault.entry("n").unwrap().and_modify(|n: &mut i32| {
        tries += 1;
        if tries == 1 {
            vault.put("n", &10).unwrap();
        }
        *n += 1;
    });
    assert_eq!((changed.unwrap(), tries), (Some(11), 2));
    assert_eq!(writes(), 3, "tried twice, written once");
}

#[test]
fn counts_are_exact_on_many_threads() {
    let (_, db) = with_clock();
    let vault = db.vault("v").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let vault = vault.clone();
            scope.spawn(move || {
                for n in 0..1000 {
                    vault.put((thread, n), &n).unwrap();
                    vault.get::<i32>((thread, n)).unwrap();
                    vault.get::<i32>("missing").unwrap();
                }
                vault.keys::<Key>().unwrap().count();
                vault.remove((thread, 0)).unwrap();
            });
        }
    });
    let stats = vault.stats().unwrap();
    assert_eq!(
        (stats.reads, stats.writes, stats.deletes, stats.scans),
        (8000, 4000, 4, 4)
    );
    assert_eq!(
        (stats.keys, stats.accesses_24h, stats.commits),
        (3996, 12_008, 4004)
    );
    assert!(stats.average_key_bytes > 3.0 && stats.average_value_bytes >= 2.0);
    assert!(
        stats.average_key_bytes * 3996.0 + stats.average_value_bytes * 3996.0 - stats.bytes as f64
            <= 1.0
    );
}

#[test]
fn last_access_and_the_last_day() {
    let (clock, db) = with_clock();
    let vault = db.vault("v").unwrap();
    assert_eq!(vault.stats().unwrap().last_access, None);
    vault.put("a", &1).unwrap();
    assert_eq!(vault.stats().unwrap().last_access, Some(clock.now()));
    clock.advance(Duration::from_secs(3600));
    vault.get::<i64>("a").unwrap();
    assert_eq!(vault.stats().unwrap().last_access, Some(clock.now()));
    clock.advance(Duration::from_secs(10 * 3600));
    assert_eq!(vault.stats().unwrap().accesses_24h, 2);
    vault.get::<i64>("a").unwrap();
    clock.advance(Duration::from_secs(14 * 3600));
    assert_eq!(vault.stats().unwrap().accesses_24h, 1);
    clock.advance(Duration::from_secs(24 * 3600));
    assert_eq!(vault.stats().unwrap().accesses_24h, 0);
    assert_eq!(vault.stats().unwrap().reads, 2);
}

#[test]
fn the_keys_that_are_accessed_most() {
    let (_, db) = with_clock();
    let vault = db.vault("v").unwrap();
    vault.update((0..1000).map(|n| (n, n))).unwrap();
    for n in 0..20_000 {
        let key = if n % 2 == 0 { 7 } else { n % 1000 };
        vault.get::<i64>(key).unwrap();
    }
    let top = &vault.stats().unwrap().top_keys;
    assert_eq!(top[0].key, Key::from(7));
    let estimate = top[0].accesses - top[0].error;
    assert!((5_000..=15_000).contains(&estimate), "{:?}", top[0]);
    assert!(top.len() <= 32);
}

#[test]
fn they_survive_closing() {
    let directory = tempfile::tempdir().unwrap();
    let before = {
        let db = Database::open(directory.path()).unwrap();
        let vault = db.vault("v").unwrap();
        vault.put("a", &1).unwrap();
        for _ in 0..100 {
            vault.get::<i64>("a").unwrap();
        }
        let before = vault.stats().unwrap();
        db.close().unwrap();
        before
    };
    let db = Database::open(directory.path()).unwrap();
    let vault = db.vault("v").unwrap();
    assert_eq!(vault.stats().unwrap(), before);
    vault.get::<i64>("a").unwrap();
    assert_eq!(vault.stats().unwrap().reads, 101);
    // The last handle saves them as well.
    drop((db, vault));
    let db = Database::open(directory.path()).unwrap();
    assert_eq!(db.vault("v").unwrap().stats().unwrap().reads, 101);
}

#[test]
fn the_log_is_a_ring() {
    let (clock, db) = with_clock();
    let vault = db.vault("v").unwrap();
    vault.put("a", &1).unwrap();
    vault.remove("a").unwrap();
    let _ = vault.items::<Key, i64>().unwrap();
    let verbs: Vec<_> = db
        .recent_accesses()
        .iter()
        .map(|record| record.verb)
        .collect();
    assert_eq!(
        verbs,
        [AccessVerb::Scan, AccessVerb::Delete, AccessVerb::Write]
    );
    assert_eq!(db.recent_accesses()[2].at, clock.now());
    for n in 0..50_000 {
        vault.get::<i64>(n).unwrap();
    }
    assert!(db.recent_accesses().len() <= 1024);
    vault.put(&[7_u8; 1000][..], &1).unwrap();
    assert_eq!(db.recent_accesses()[0].key, None);
}

#[test]
fn locking_forgets_keys() {
    let directory = tempfile::tempdir().unwrap();
    let passphrase =
        || Passphrase::new(SecretBytes::from_string("correct horse".to_owned()).unwrap()).unwrap();
    let protection = EncryptedProtection::with_source(Arc::new(passphrase()))
        .kdf(Kdf::danger_weak())
        .kdf_bounds(KdfBounds::danger_weak());
    let db = Database::builder()
        .open_encrypted_with(directory.path(), protection)
        .unwrap();
    let vault = db.vault("v").unwrap();
    vault.put("a key", &1).unwrap();
    assert_eq!(vault.stats().unwrap().top_keys.len(), 1);
    // Locked by idle time, it still knows them; locked by somebody, it does not.
    db.store().lock().unwrap();
    assert_eq!(db.recent_accesses().len(), 1);
    assert_eq!(vault.stats().unwrap().top_keys.len(), 1);
    db.lock().unwrap();
    assert!(db.recent_accesses().is_empty());
    assert!(vault.stats().unwrap().top_keys.is_empty());
    assert_eq!(vault.stats().unwrap().writes, 1);
    db.unlock(&passphrase()).unwrap();
    assert_eq!(vault.get::<i64>("a key").unwrap(), Some(1));
}

/// Keys that are used most outlast a lock: they are saved before they are forgotten, and taken up again.
#[test]
fn unlocking_brings_the_most_used_keys_back() {
    let directory = tempfile::tempdir().unwrap();
    let passphrase =
        || Passphrase::new(SecretBytes::from_string("correct horse".to_owned()).unwrap()).unwrap();
    let protection = EncryptedProtection::with_source(Arc::new(passphrase()))
        .kdf(Kdf::danger_weak())
        .kdf_bounds(KdfBounds::danger_weak());
    let db = Database::builder()
        .open_encrypted_with(directory.path(), protection)
        .unwrap();
    let vault = db.vault("v").unwrap();
    (0..5).for_each(|n| vault.put("often", &n).unwrap());
    db.lock().unwrap();
    assert!(vault.stats().unwrap().top_keys.is_empty());
    db.unlock(&passphrase()).unwrap();
    let top = vault.stats().unwrap().top_keys;
    assert_eq!((top.len(), top[0].accesses), (1, 5), "{top:?}");
}

/// What is noted of accesses keeps nobody from the entries.
#[test]
fn notes_of_accesses_that_do_not_read_are_begun_anew() {
    let directory = tempfile::tempdir().unwrap();
    let db = Database::open(directory.path()).unwrap();
    db.vault("v").unwrap().put("a", &1).unwrap();
    db.close().unwrap();
    let db = Database::open(directory.path()).unwrap();
    let (catalog, key) = {
        let catalog = db.engine().keyspace("vault.catalog").unwrap().unwrap();
        let kept = kept_accesses(&db);
        assert_eq!(kept.len(), 1);
        (catalog, kept[0].clone())
    };
    db.engine()
        .put(catalog, &key, b"\xc1 of a later build", &WriteOptions::OS)
        .unwrap();
    db.close().unwrap();
    let db = Database::open(directory.path()).unwrap();
    let vault = db.vault("v").unwrap();
    assert_eq!(vault.stats().unwrap().writes, 0);
    assert_eq!(vault.get::<i64>("a").unwrap(), Some(1));
}

/// Every line of the metrics is one that a parser of the format takes, and each metric has its help and type.
#[test]
fn metrics_are_well_formed() {
    let (_, db) = with_clock();
    let vault = db.vault("v").unwrap();
    for n in 0..100 {
        vault.put(n, &n).unwrap();
        vault.get::<i64>(n).unwrap();
    }
    db.write(|tx| tx.vault("v")?.put(1, &1)).unwrap();
    let _ = db.write(|tx| -> vault_db::Result<()> { Err(tx.abort("no")) });
    let text = db.metrics().unwrap();
    let mut described = std::collections::BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            if let Some((kind, rest)) = rest.split_once(' ') {
                let (name, what) = rest.split_once(' ').unwrap();
                assert!(["HELP", "TYPE", "UNIT"].contains(&kind), "{line}");
                described
                    .entry(name.to_owned())
                    .or_insert_with(Vec::new)
                    .push((kind.to_owned(), what.to_owned()));
            } else {
                assert_eq!(rest, "EOF");
            }
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let name = sample.split('{').next().unwrap();
        let base = ["_total", "_sum", "_count", "_bucket", ""]
            .iter()
            .find_map(|suffix| {
                let base = name.strip_suffix(suffix)?;
                described.contains_key(base).then_some(base)
            });
        assert!(base.is_some(), "nothing describes {name}");
    }
    assert!(text.ends_with("# EOF\n"));
    for (name, told) in &described {
        assert!(
            told.iter()
                .any(|(kind, what)| kind == "HELP" && what.len() > 5),
            "{name}"
        );
        assert!(told.iter().any(|(kind, _)| kind == "TYPE"), "{name}");
    }
    for line in [
        "vault_vaults 1",
        "vault_keys 100",
        "vault_accesses_total{verb=\"read\"} 100",
        "vault_transactions_total{outcome=\"committed\"} 1",
        "vault_transactions_total{outcome=\"given up\"} 1",
    ] {
        assert!(text.contains(&format!("{line}\n")), "{line}\n{text}");
    }
    assert!(
        text.contains("vault_access_duration_seconds_bucket{le=\"+Inf\",verb=\"write\"}"),
        "{text}"
    );
    assert!(
        text.contains("# UNIT vault_logical_bytes bytes\n"),
        "{text}"
    );
}

/// A clock on which something happens when one thread asks it for the so-manieth time.
struct HookedClock {
    clock: ManualClock,
    hook: Mutex<Option<Hook>>,
}

struct Hook {
    thread: ThreadId,
    asks_left: u32,
    run: Box<dyn FnOnce() + Send>,
}

impl std::fmt::Debug for HookedClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HookedClock").finish_non_exhaustive()
    }
}

impl Clock for HookedClock {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn monotonic(&self) -> Duration {
        let mut hook = self.hook.lock().unwrap();
        let mine = hook.as_mut();
        if let Some(mine) = mine.filter(|hook| hook.thread == std::thread::current().id()) {
            mine.asks_left -= 1;
            if mine.asks_left == 0 {
                let run = hook.take().unwrap().run;
                drop(hook);
                run();
            }
        }
        self.clock.monotonic()
    }

    fn sleep(&self, duration: Duration) {
        self.clock.sleep(duration);
    }
}

/// Keys of the catalog under which is kept what is noted of accesses.
fn kept_accesses(db: &Database) -> Vec<Vec<u8>> {
    let catalog = db.engine().keyspace("vault.catalog").unwrap().unwrap();
    let kept = db.engine().scan(catalog, KeyRange::prefix(&[3])).unwrap();
    kept.map(|entry| entry.unwrap().0.to_vec()).collect()
}

/// The vault goes while an access to it is noted, at each look at the clock on the way, in each way that a vault can go.
#[test]
fn a_vault_that_goes_leaves_nothing_that_was_noted() {
    type Removal = fn(&Database, &Vault);
    let removals: [(&str, Removal); 3] = [
        ("deleted", |_, vault| {
            vault.delete().unwrap();
        }),
        ("replaced", |db, _| {
            let options = ImportOptions {
                mode: ImportMode::Replace,
            };
            let text = r#"{"format": "vault-json-v1", "entries": []}"#;
            db.import("v", text.as_bytes(), &options).unwrap();
        }),
        ("dropped", |db, _| {
            db.drop_tenant("tenant").unwrap();
        }),
    ];
    for (how, remove) in removals {
        let mut went = 0;
        // No later one: the engine that is saving may look at the clock, too, and nobody removes anything from in there.
        for ask in 1..3 {
            let clock = Arc::new(HookedClock {
                clock: ManualClock::new(Timestamp(1_700_000_000_000)),
                hook: Mutex::default(),
            });
            let db = Database::builder()
                .durability(Durability::Os)
                .clock(Arc::clone(&clock) as Arc<dyn Clock>)
                .temp()
                .unwrap();
            let vault = if how == "dropped" {
                let tenant = db.create_tenant("tenant", Quota::default()).unwrap();
                tenant.vault("v").unwrap()
            } else {
                db.vault("v").unwrap()
            };
            vault.put("a", &1).unwrap();
            clock.clock.advance(Duration::from_secs(61));
            let (of_hook, to_remove) = (db.clone(), vault.clone());
            *clock.hook.lock().unwrap() = Some(Hook {
                thread: std::thread::current().id(),
                asks_left: ask,
                run: Box::new(move || remove(&of_hook, &to_remove)),
            });
            let read = vault.get::<i64>("a");
            // A handle goes on with what replaced its vault.
            assert!(matches!(
                read,
                Ok(Some(1) | None) | Err(Error::VaultDeleted { .. })
            ));
            went += u32::from(clock.hook.lock().unwrap().take().is_none());
            // Whoever has the handle still saves nothing either.
            clock.clock.advance(Duration::from_secs(61));
            let is_gone = !matches!(vault.get::<i64>("a"), Ok(Some(1)));
            let first = vec![3, 0, 0, 0, 1];
            assert!(
                !is_gone || !kept_accesses(&db).contains(&first),
                "{how} at {ask}"
            );
        }
        assert!(went >= 2, "{how}: begin and end both look at the clock");
    }
}

/// What copies that were not finished, and older builds, left of vaults that nobody knows is taken away by the next opening.
#[test]
fn opening_removes_what_is_left_of_vaults_that_are_not_there() {
    let directory = tempfile::tempdir().unwrap();
    let db = Database::open(directory.path()).unwrap();
    let vault = db.vault("v").unwrap();
    vault.put("a", &1).unwrap();
    vault.put_for("b", &2, Duration::from_secs(3600)).unwrap();
    let of_catalog = db.engine().keyspace("vault.catalog").unwrap().unwrap();
    let of_expiry = db.engine().keyspace("vault.expiry").unwrap().unwrap();
    let mut batch = WriteBatch::new();
    for stray in [0_u32, 7, 8, u32::MAX] {
        let id = stray.to_be_bytes();
        batch.put(of_catalog, &[&[3], &id[..]].concat(), b"\x80");
        for key in [&b"x"[..], b"y"] {
            let key = [&id[..], &9_999_999_999_999_u64.to_be_bytes(), key].concat();
            batch.put(of_expiry, &key, &8_u64.to_le_bytes());
        }
    }
    db.engine().write(&batch, &WriteOptions::SYNC).unwrap();
    db.close().unwrap();
    let db = Database::builder()
        .mode(OpenMode::MustExist)
        .open(directory.path())
        .unwrap();
    let left = db.engine().scan(of_expiry, KeyRange::all()).unwrap();
    assert_eq!(left.count(), 1, "what expires in the vault that is there");
    let vault = db.vault("v").unwrap();
    assert_eq!(kept_accesses(&db).len(), 1);
    assert_eq!(vault.stats().unwrap().writes, 2);
    assert_eq!(vault.info().unwrap().expiring, 1);
}

/// Counters of Prometheus never go down: a vault that goes takes nothing out of them. They begin anew with each process.
#[test]
fn counters_never_go_down() {
    let directory = tempfile::tempdir().unwrap();
    let db = Database::open(directory.path()).unwrap();
    let writes = |db: &Database| -> u64 {
        let text = db.metrics().unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("vault_accesses_total{verb=\"write\"} "));
        line.unwrap().parse().unwrap()
    };
    let tenant = db.create_tenant("t", Quota::NONE).unwrap();
    let fill = |vault: Vault| (0..10).for_each(|n| vault.put(n, &n).unwrap());
    fill(db.vault("deleted").unwrap());
    fill(db.vault("replaced").unwrap());
    fill(db.vault("stays").unwrap());
    fill(tenant.vault("dropped").unwrap());
    assert_eq!(writes(&db), 40);
    db.vault("deleted").unwrap().delete().unwrap();
    assert_eq!(writes(&db), 40);
    let options = ImportOptions {
        mode: ImportMode::Replace,
    };
    let text = br#"{"format": "vault-json-v1", "entries": []}"#;
    db.import("replaced", &text[..], &options).unwrap();
    assert_eq!(writes(&db), 40);
    db.drop_tenant("t").unwrap();
    assert_eq!(writes(&db), 40);
    fill(db.vault("deleted").unwrap());
    assert_eq!(writes(&db), 50);
    db.close().unwrap();
    drop((db, tenant));
    let db = Database::open(directory.path()).unwrap();
    assert_eq!(writes(&db), 0);
    assert_eq!(db.vault("stays").unwrap().stats().unwrap().writes, 10);
}
