//! Transactions: what they see of themselves, how they end, what they refuse.

use std::sync::Arc;
use std::time::Duration;

use vault_core::clock::{Clock, ManualClock};
use vault_db::{
    Bounds, Database, Error, ErrorKind, Isolation, Key, Quota, Result, Timestamp,
    TransactionOptions, Value,
};

fn options() -> TransactionOptions {
    TransactionOptions::default()
}

#[test]
fn it_sees_its_own_changes_over_its_moment() {
    let db = Database::temp().unwrap();
    let vault = db.vault("v").unwrap();
    vault.update((0..6).map(|n| (n, n * 10))).unwrap();
    // At the level that does not mind what others do meanwhile.
    let tx = db.begin(TransactionOptions {
        isolation: Isolation::Snapshot,
        ..options()
    });
    let tx = tx.unwrap();
    let inside = tx.of(&vault).unwrap();
    vault.put(100, &1000).unwrap();
    inside.remove(1).unwrap();
    inside.put(3, &33).unwrap();
    inside.put(9, &99).unwrap();
    inside.put(-1, &-10).unwrap();
    let expected = [
        (-1, -10),
        (0, 0),
        (2, 20),
        (3, 33),
        (4, 40),
        (5, 50),
        (9, 99),
    ];
    let forward: Vec<(i64, i64)> = inside.items().unwrap().map(|item| item.unwrap()).collect();
    assert_eq!(forward, expected);
    let mut backward: Vec<(i64, i64)> = inside
        .items()
        .unwrap()
        .rev()
        .map(|item| item.unwrap())
        .collect();
    backward.reverse();
    assert_eq!(backward, expected);
    let mut both = inside.items::<i64, i64>().unwrap();
    let (mut front, mut back) = (Vec::new(), Vec::new());
    while let Some(item) = both.next() {
        front.push(item.unwrap());
        if let Some(item) = both.next_back() {
            back.push(item.unwrap());
        }
    }
    back.reverse();
    assert_eq!([front, back].concat(), expected);
    assert_eq!(inside.len().unwrap(), 7);
    assert_eq!(inside.range::<i64, i64>(2..=3).unwrap().count(), 2);
    assert_eq!(inside.pop::<i64>(9).unwrap(), Some(99));
    assert!(!inside.contains(9).unwrap());
    tx.commit().unwrap();
    let after: Vec<(i64, i64)> = vault.items().unwrap().map(|item| item.unwrap()).collect();
    assert_eq!(
        after,
        [
            (-1, -10),
            (0, 0),
            (2, 20),
            (3, 33),
            (4, 40),
            (5, 50),
            (100, 1000)
        ]
    );
    assert_eq!(vault.len().unwrap(), 7);
}

#[test]
fn an_error_of_the_closure_leaves_nothing() {
    let db = Database::temp().unwrap();
    let result: Result<()> = db.write(|tx| {
        tx.vault("v")?.put("a", &1)?;
        Err(tx.abort("not today"))
    });
    assert!(matches!(&result, Err(Error::Aborted { reason }) if reason == "not today"));
    assert_eq!(db.vault("v").unwrap().len().unwrap(), 0);
    let result: std::result::Result<(), Box<dyn std::error::Error>> =
        db.write_with(options(), |_| Err("any error".into()));
    assert_eq!(result.unwrap_err().to_string(), "any error");
}

#[test]
fn savepoints_stand_in_one_another() {
    let db = Database::temp().unwrap();
    db.write(|tx| {
        let (a, b) = (tx.vault("a")?, tx.vault("b")?);
        a.put("k", &1)?;
        let first = tx.savepoint()?;
        a.put("k", &2)?;
        b.put("k", &2)?;
        let second = tx.savepoint()?;
        a.remove("k")?;
        b.put("l", &3)?;
        tx.roll_back_to(&second)?;
        assert_eq!(a.get::<i64>("k")?, Some(2));
        assert_eq!(b.get::<i64>("l")?, None);
        a.put("k", &4)?;
        tx.roll_back_to(&second)?;
        assert_eq!(a.get::<i64>("k")?, Some(2));
        tx.roll_back_to(&first)?;
        assert_eq!((a.get::<i64>("k")?, b.get::<i64>("k")?), (Some(1), None));
        let gone = tx.roll_back_to(&second);
        assert!(matches!(gone, Err(Error::NoSuchSavepoint)));
        a.put("after", &1)
    })
    .unwrap();
    assert_eq!(db.vault("a").unwrap().len().unwrap(), 2);
    assert_eq!(db.vault("b").unwrap().len().unwrap(), 0);
    let (one, other) = (db.begin(options()).unwrap(), db.begin(options()).unwrap());
    let of_one = one.savepoint().unwrap();
    other.savepoint().unwrap();
    assert!(matches!(
        other.roll_back_to(&of_one),
        Err(Error::NoSuchSavepoint)
    ));
}

#[test]
fn one_that_has_ended_is_refused() {
    let db = Database::temp().unwrap();
    let tx = db.begin(options()).unwrap();
    let vault = tx.vault("v").unwrap();
    vault.put("a", &1).unwrap();
    tx.commit().unwrap();
    let refused = |result: Result<()>| matches!(result, Err(Error::TransactionEnded { .. }));
    assert!(refused(tx.commit()));
    assert!(refused(vault.put("a", &2)));
    assert!(refused(vault.get::<i64>("a").map(drop)));
    assert!(refused(vault.items::<Key, Value>().map(drop)));
    assert!(refused(vault.len().map(drop)));
    assert!(refused(tx.vault("v").map(drop)));
    assert!(refused(tx.savepoint().map(drop)));
    let tx = db.begin(options()).unwrap();
    tx.roll_back();
    assert!(refused(tx.commit()));
    assert_eq!(db.vault("v").unwrap().get::<i64>("a").unwrap(), Some(1));
}

#[test]
fn one_in_another_by_mistake_is_refused() {
    let db = Database::temp().unwrap();
    let other = Database::temp().unwrap();
    db.write(|_| {
        let nested = db.write(|tx| tx.vault("v")?.put("a", &1));
        assert!(matches!(nested, Err(Error::NestedTransaction)));
        assert!(matches!(db.read(|_| Ok(())), Err(Error::NestedTransaction)));
        let begun = db.begin(TransactionOptions::default());
        assert!(matches!(begun, Err(Error::NestedTransaction)));
        // Another database is another matter.
        other.write(|tx| tx.vault("v")?.put("a", &1))
    })
    .unwrap();
    // Afterwards, and after a panic, it is over.
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        db.write(|_| -> Result<()> { panic!("in the closure") })
    }));
    assert!(panicked.is_err());
    db.write(|tx| tx.vault("v")?.put("a", &1)).unwrap();
}

#[test]
fn one_that_is_open_for_too_long_is_rolled_back() {
    let clock = Arc::new(ManualClock::new(Timestamp(1_000_000)));
    let db = Database::builder()
        .clock(Arc::clone(&clock) as Arc<dyn Clock>)
        .temp()
        .unwrap();
    let tx = db.begin(options()).unwrap();
    let vault = tx.vault("v").unwrap();
    vault.put("a", &1).unwrap();
    clock.advance(Duration::from_secs(61));
    let Err(Error::TransactionTooLong { max }) = vault.put("b", &1) else {
        panic!()
    };
    assert_eq!(max, Duration::from_secs(60));
    assert!(matches!(tx.commit(), Err(Error::TransactionEnded { .. })));
    assert_eq!(db.vault("v").unwrap().len().unwrap(), 0);
}

#[test]
fn one_that_is_too_large_is_refused() {
    let db = Database::temp().unwrap();
    let small = TransactionOptions {
        bytes_max: 10_000,
        ..options()
    };
    let result = db.write_with(small, |tx| {
        let vault = tx.vault("v")?;
        (0..1000).try_for_each(|n| vault.put(n, "ten bytes.."))
    });
    let Err(Error::TransactionTooLarge { bytes, max }) = result else {
        panic!("{result:?}")
    };
    assert!(bytes > max && max == 10_000);
    assert_eq!(db.vault("v").unwrap().len().unwrap(), 0);
    // Writing the same keys again and again takes no more room.
    db.write_with(small, |tx| {
        let vault = tx.vault("v")?;
        (0..1000).try_for_each(|n| vault.put(n % 10, "ten bytes.."))
    })
    .unwrap();
    assert_eq!(db.vault("v").unwrap().len().unwrap(), 10);
    // What takes the place of something takes its room as well.
    let large = "x".repeat(6_000);
    db.write_with(small, |tx| {
        let vault = tx.vault("v")?;
        (0..3).try_for_each(|_| vault.put("large", &large))
    })
    .unwrap();
}

/// One that could not be committed says so, and is counted.
#[test]
fn a_commit_that_is_refused_is_no_commit() {
    let db = Database::temp().unwrap();
    let quota = Quota {
        keys_max: 1,
        ..Quota::NONE
    };
    let tenant = db.create_tenant("acme", quota).unwrap();
    let given_up = || {
        let text = db.metrics().unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("vault_transactions_total{outcome=\"given up\"} "));
        line.unwrap().parse::<u64>().unwrap()
    };
    let before = given_up();
    let tx = tenant.begin(options()).unwrap();
    let vault = tx.vault("v").unwrap();
    vault.put("a", &1).unwrap();
    vault.put("b", &1).unwrap();
    assert!(matches!(tx.commit(), Err(Error::OverQuota { .. })));
    let Err(Error::TransactionEnded { how }) = tx.commit() else {
        panic!()
    };
    assert_eq!(how, "by a commit that failed");
    drop(tx);
    assert_eq!(given_up(), before + 1);
}

#[test]
fn one_that_only_reads_cannot_write() {
    let db = Database::temp().unwrap();
    db.vault("v").unwrap().put("a", &1).unwrap();
    db.read(|tx| {
        let vault = tx.vault("v")?;
        assert!(matches!(
            vault.put("a", &2),
            Err(Error::ReadOnlyTransaction)
        ));
        assert!(matches!(vault.remove("a"), Err(Error::ReadOnlyTransaction)));
        assert!(matches!(
            tx.vault("missing"),
            Err(Error::NoSuchVault { .. })
        ));
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_vault_of_another_database_is_refused() {
    let (db, other) = (Database::temp().unwrap(), Database::temp().unwrap());
    let foreign = other.vault("v").unwrap();
    let result = db.write(|tx| tx.of(&foreign)?.put("a", &1));
    assert!(matches!(result, Err(Error::ForeignVault { .. })));
}

#[test]
fn a_vault_that_was_deleted_meanwhile_is_refused() {
    let db = Database::temp().unwrap();
    let vault = db.vault("v").unwrap();
    vault.put("a", &1).unwrap();
    let tx = db.begin(options()).unwrap();
    let inside = tx.of(&vault).unwrap();
    vault.delete().unwrap();
    // It goes on reading its moment, and cannot commit.
    assert_eq!(inside.get::<i64>("a").unwrap(), Some(1));
    inside.put("b", &1).unwrap();
    assert!(matches!(tx.commit(), Err(Error::VaultDeleted { .. })));
}

#[test]
fn bounds_hold_inside() {
    let bounds = Bounds {
        keys_per_vault_max: 3,
        value_bytes_max: 64,
        scan_results_max: 2,
        ..Bounds::default()
    };
    let db = Database::builder().bounds(bounds).temp().unwrap();
    let result = db.write(|tx| (0..4).try_for_each(|n| tx.vault("v")?.put(n, &n)));
    assert!(matches!(result, Err(Error::VaultFull { max: 3, .. })));
    let result = db.write(|tx| tx.vault("v")?.put(1, "x".repeat(100).as_str()));
    assert!(matches!(result, Err(Error::ValueTooLong { max: 64, .. })));
    db.write(|tx| (0..3).try_for_each(|n| tx.vault("v")?.put(n, &n)))
        .unwrap();
    db.read(|tx| {
        let mut items = tx.vault("v")?.items::<i64, i64>()?;
        assert!(items.by_ref().take(2).all(|item| item.is_ok()));
        assert!(matches!(
            items.next(),
            Some(Err(Error::ScanTooLong { max: 2 }))
        ));
        assert!(items.next().is_none());
        Ok(())
    })
    .unwrap();
}

#[test]
fn collisions_are_run_again_until_all_is_added() {
    let db = Database::temp().unwrap();
    let threads = 4;
    let each = 50;
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..each {
                    db.write(|tx| {
                        let vault = tx.vault("v")?;
                        let n: i64 = vault.get("n")?.unwrap_or(0);
                        vault.put("n", &(n + 1))?;
                        vault.put(("log", n), &n)
                    })
                    .unwrap();
                }
            });
        }
    });
    let vault = db.vault("v").unwrap();
    assert_eq!(vault.get::<i64>("n").unwrap(), Some(threads * each));
    assert_eq!(vault.len().unwrap(), (threads * each + 1) as u64);
}

#[test]
fn giving_up_says_how_often_it_was_tried() {
    let db = Database::temp().unwrap();
    let vault = db.vault("v").unwrap();
    let three = TransactionOptions {
        attempts_max: 3,
        ..options()
    };
    let mut runs = 0;
    let result: Result<()> = db.write_with(three, |tx| {
        runs += 1;
        let inside = tx.of(&vault)?;
        let n: i64 = inside.get("n")?.unwrap_or(0);
        vault.increment("n", 1)?;
        inside.put("n", &n)
    });
    let error = result.unwrap_err();
    assert!(
        matches!(error, Error::Conflict { attempts: 3, .. }),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Retry);
    assert_eq!((runs, vault.get::<i64>("n").unwrap()), (3, Some(3)));
}

/// With more reads than are remembered one by one, it relies on the whole vault.
#[test]
fn many_reads_become_one() {
    let db = Database::temp().unwrap();
    let vault = db.vault("v").unwrap();
    vault.update((0..100).map(|n| (n, n))).unwrap();
    let few = TransactionOptions {
        reads_max: 10,
        ..options()
    };
    let tx = db.begin(few).unwrap();
    let inside = tx.of(&vault).unwrap();
    for n in 0..50 {
        inside.get::<i64>(n).unwrap();
    }
    inside.put(0, &-1).unwrap();
    vault.put(99, &-1).unwrap();
    assert!(matches!(tx.commit(), Err(Error::Conflict { .. })));
}

/// The verbs of a vault, each over what the transaction itself has changed, and committed with it.
#[test]
fn verbs_work_as_outside() {
    let db = Database::temp().unwrap();
    let vault = db.vault("v").unwrap();
    vault.update([("a", 1), ("b", 2), ("c", 3)]).unwrap();
    let hour = Duration::from_secs(3600);
    db.write(|tx| {
        let vault = tx.vault("v")?;
        assert_eq!(vault.pop_first::<String, i64>()?, Some(("a".to_owned(), 1)));
        assert_eq!(vault.pop_last::<String, i64>()?, Some(("c".to_owned(), 3)));
        assert!(matches!(
            vault.pop_first::<u64, i64>(),
            Err(Error::KeyMismatch { .. })
        ));
        assert!(matches!(
            vault.pop_last::<String, String>(),
            Err(Error::TypeMismatch { .. })
        ));
        vault.update([("d", 4), ("e", 5)])?;
        let keys: Vec<String> = vault.keys()?.rev().collect::<Result<_>>()?;
        assert_eq!(keys, ["e", "d", "b"]);
        assert_eq!(vault.values::<i64>()?.sum::<Result<i64>>()?, 11);
        assert_eq!((vault.get_or("a", 0)?, vault.get_or("b", 0)?), (0, 2));
        assert_eq!(vault.set_default("b", &9)?, 2);
        assert_eq!(vault.set_default("f", &9)?, 9);
        assert!(vault.expire("d", Some(hour))? && !vault.expire("a", Some(hour))?);
        assert!(vault.time_to_live("d")?.flatten().is_some());
        assert_eq!(vault.time_to_live("e")?, Some(None));
        assert_eq!(vault.time_to_live("a")?, None);
        // Its expiry is not compared, and the new value has none.
        assert!(vault.compare_and_set("d", Some(&4), Some(&40))?);
        assert!(!vault.compare_and_set("d", Some(&4), None)?);
        assert_eq!(vault.time_to_live("d")?, Some(None));
        assert!(vault.compare_and_set::<i64>("a", None, Some(&10))?);
        let past = vault.put_until("g", &1, Timestamp(1));
        assert!(matches!(past, Err(Error::Engine(_))), "{past:?}");
        vault.put_until("g", &1, Timestamp(4_102_444_800_000))
    })
    .unwrap();
    let left: Vec<(String, i64)> = vault.items().unwrap().collect::<Result<_>>().unwrap();
    let expected = [("a", 10), ("b", 2), ("d", 40), ("e", 5), ("f", 9), ("g", 1)];
    assert_eq!(left, expected.map(|(key, n)| (key.to_owned(), n)));
    assert_eq!(
        (vault.len().unwrap(), vault.info().unwrap().expiring),
        (6, 1)
    );
    // Whoever took the first relies on it.
    let tx = db.begin(options()).unwrap();
    tx.vault("v").unwrap().pop_first::<String, i64>().unwrap();
    vault.put("A", &0).unwrap();
    assert!(matches!(tx.commit(), Err(Error::Conflict { .. })));
}
