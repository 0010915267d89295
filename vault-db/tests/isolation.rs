//! The classic anomalies, each as a script of interleaved transactions, at both levels.
//!
//! The scripts follow Berenson et al. ("A critique of ANSI SQL isolation levels", 1995) and Adya ("Weak consistency",
//! 1999): dirty write, dirty read, intermediate and aborted reads, circular information flow, lost update, read skew, write
//! skew, phantoms. Snapshot isolation allows write skew, on items and on predicates, and nothing else of these.
//!
//! The same for names of vaults, which are read, too.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use vault_db::{
    Database, Error, ExportFormat, ImportOptions, Isolation, Quota, Result, Transaction,
    TransactionOptions, TransactionVault,
};

const LEVELS: [Isolation; 2] = [Isolation::Serializable, Isolation::Snapshot];

fn database() -> Database {
    let db = Database::temp().unwrap();
    db.vault("v")
        .unwrap()
        .update([("x", 10), ("y", 20)])
        .unwrap();
    db
}

fn begin(db: &Database, isolation: Isolation) -> Transaction {
    let options = TransactionOptions {
        isolation,
        ..TransactionOptions::default()
    };
    db.begin(options).unwrap()
}

fn vault(tx: &Transaction) -> TransactionVault<'_> {
    tx.vault("v").unwrap()
}

fn get(tx: &Transaction, key: &str) -> i64 {
    vault(tx).get(key).unwrap().unwrap()
}

fn put(tx: &Transaction, key: &str, value: i64) {
    vault(tx).put(key, &value).unwrap();
}

fn stored(db: &Database, key: &str) -> Option<i64> {
    db.vault("v").unwrap().get(key).unwrap()
}

fn conflicts(result: Result<()>) -> bool {
    match result {
        Ok(()) => false,
        Err(Error::Conflict { .. }) => true,
        Err(error) => panic!("{error}"),
    }
}

/// P0: two transactions write x and y; the outcome is that of one of them.
#[test]
fn dirty_write() {
    for level in LEVELS {
        let db = database();
        let (a, b) = (begin(&db, level), begin(&db, level));
        put(&a, "x", 11);
        put(&b, "x", 12);
        put(&b, "y", 22);
        put(&a, "y", 21);
        a.commit().unwrap();
        let lost = conflicts(b.commit());
        let found = (stored(&db, "x"), stored(&db, "y"));
        let expected = if lost { (11, 21) } else { (12, 22) };
        assert_eq!(found, (Some(expected.0), Some(expected.1)), "{level:?}");
    }
}

/// P1, G1a, G1b: what is not committed, given up, or not the last, is not seen.
#[test]
fn dirty_read() {
    for level in LEVELS {
        let db = database();
        let writer = begin(&db, level);
        put(&writer, "x", 101);
        let reader = begin(&db, level);
        assert_eq!(get(&reader, "x"), 10);
        assert_eq!(stored(&db, "x"), Some(10));
        put(&writer, "x", 102);
        writer.roll_back();
        assert_eq!(get(&reader, "x"), 10);
        assert_eq!(stored(&db, "x"), Some(10));
        let writer = begin(&db, level);
        put(&writer, "x", 103);
        put(&writer, "x", 104);
        writer.commit().unwrap();
        assert_eq!(get(&begin(&db, level), "x"), 104);
    }
}

/// G1c: of two that read what the other writes, neither sees it.
#[test]
fn circular_information_flow() {
    for level in LEVELS {
        let db = database();
        let (a, b) = (begin(&db, level), begin(&db, level));
        put(&a, "x", 11);
        put(&b, "y", 22);
        assert_eq!((get(&a, "y"), get(&b, "x")), (20, 10));
        a.commit().unwrap();
        // b read x, which a changed: in no order could neither see the other.
        let refused = conflicts(b.commit());
        assert_eq!(refused, level == Isolation::Serializable);
    }
}

/// P4: of two that add to the same value, one is refused.
#[test]
fn lost_update() {
    for level in LEVELS {
        let db = database();
        let (a, b) = (begin(&db, level), begin(&db, level));
        let (from_a, from_b) = (get(&a, "x"), get(&b, "x"));
        put(&a, "x", from_a + 1);
        put(&b, "x", from_b + 1);
        a.commit().unwrap();
        assert!(conflicts(b.commit()), "{level:?}");
        assert_eq!(stored(&db, "x"), Some(11));
    }
}

/// P4 with a verb of the vault, which is no transaction, in between.
#[test]
fn lost_update_to_a_plain_write() {
    for level in LEVELS {
        let db = database();
        let a = begin(&db, level);
        let from = get(&a, "x");
        db.vault("v").unwrap().increment("x", 5).unwrap();
        put(&a, "x", from + 1);
        assert!(conflicts(a.commit()), "{level:?}");
        assert_eq!(stored(&db, "x"), Some(15));
    }
}

/// G-single: a transaction that reads x before and y after another's commit sees both as they were.
#[test]
fn read_skew() {
    for level in LEVELS {
        let db = database();
        let reader = begin(&db, level);
        assert_eq!(get(&reader, "x"), 10);
        let writer = begin(&db, level);
        put(&writer, "x", 12);
        put(&writer, "y", 18);
        writer.commit().unwrap();
        assert_eq!(get(&reader, "y"), 20);
        reader.commit().unwrap();
    }
}

/// G2-item: two that read both and change one each. Snapshot isolation allows it.
#[test]
fn write_skew() {
    for level in LEVELS {
        let db = database();
        let (a, b) = (begin(&db, level), begin(&db, level));
        assert_eq!(get(&a, "x") + get(&a, "y"), 30);
        assert_eq!(get(&b, "x") + get(&b, "y"), 30);
        put(&a, "x", -20);
        put(&b, "y", -20);
        a.commit().unwrap();
        assert_eq!(conflicts(b.commit()), level == Isolation::Serializable);
    }
}

/// P3 within one transaction: a scan made twice gives the same twice.
#[test]
fn phantom_read() {
    for level in LEVELS {
        let db = database();
        let reader = begin(&db, level);
        let count = |tx: &Transaction| vault(tx).items::<String, i64>().unwrap().count();
        assert_eq!(count(&reader), 2);
        db.vault("v").unwrap().put("z", &30).unwrap();
        assert_eq!(count(&reader), 2);
    }
}

/// G2: two that scan a range and insert into it. Snapshot isolation allows it.
#[test]
fn phantom_write_skew() {
    for level in LEVELS {
        let db = database();
        let (a, b) = (begin(&db, level), begin(&db, level));
        let total = |tx: &Transaction| -> i64 {
            let items = vault(tx).range::<String, i64>("a".."zz").unwrap();
            items.map(|item| item.unwrap().1).sum()
        };
        let (sum_a, sum_b) = (total(&a), total(&b));
        put(&a, "sum a", sum_a);
        put(&b, "sum b", sum_b);
        a.commit().unwrap();
        assert_eq!(conflicts(b.commit()), level == Isolation::Serializable);
    }
}

/// A scan relies on what it gave, not on what it did not come to.
#[test]
fn a_scan_relies_on_what_it_has_seen() {
    let db = database();
    db.vault("v")
        .unwrap()
        .update((0..100).map(|n| (format!("k{n:02}"), n)))
        .unwrap();
    let seen = |changed: &str, from_the_back: bool| {
        let tx = begin(&db, Isolation::Serializable);
        let mut items = vault(&tx).range::<String, i64>("k10".."k90").unwrap();
        for _ in 0..5 {
            let item = if from_the_back {
                items.next_back()
            } else {
                items.next()
            };
            item.unwrap().unwrap();
        }
        drop(items);
        put(&tx, "outcome", 1);
        db.vault("v").unwrap().put(changed, &-1).unwrap();
        conflicts(tx.commit())
    };
    assert!(seen("k12", false) && seen("k125", false));
    assert!(!seen("k09", false) && !seen("k50", false) && !seen("k90", false));
    assert!(seen("k88", true) && seen("k8777", true));
    assert!(!seen("k50", true) && !seen("k95", true));
    // Come to its end, it relies on the whole range.
    let tx = begin(&db, Isolation::Serializable);
    assert_eq!(
        vault(&tx).range::<String, i64>("p".."q").unwrap().count(),
        0
    );
    put(&tx, "outcome", 1);
    db.vault("v").unwrap().put("pp", &1).unwrap();
    assert!(conflicts(tx.commit()));
}

/// Absence is relied on as presence is.
#[test]
fn a_key_that_was_not_there_is_relied_on() {
    let db = database();
    let tx = begin(&db, Isolation::Serializable);
    assert_eq!(vault(&tx).get::<i64>("absent").unwrap(), None);
    put(&tx, "x", 1);
    db.vault("v").unwrap().put("absent", &1).unwrap();
    assert!(conflicts(tx.commit()));
}

/// The number of keys is relied on, and a vault that was cleared has changed everywhere.
#[test]
fn counts_and_clearing_are_relied_on() {
    let db = database();
    let tx = begin(&db, Isolation::Serializable);
    assert_eq!(vault(&tx).len().unwrap(), 2);
    put(&tx, "outcome", 2);
    assert_eq!(vault(&tx).len().unwrap(), 3);
    db.vault("v").unwrap().put("one more", &1).unwrap();
    assert!(conflicts(tx.commit()));

    let tx = begin(&db, Isolation::Serializable);
    assert_eq!(get(&tx, "x"), 10);
    put(&tx, "y", 1);
    db.vault("v").unwrap().clear().unwrap();
    assert!(conflicts(tx.commit()));
    assert_eq!(db.vault("v").unwrap().len().unwrap(), 0);
}

/// What it writes blindly it does not rely on: two that only write both commit.
#[test]
fn blind_writes_do_not_collide_when_serializable() {
    let db = database();
    let (a, b) = (
        begin(&db, Isolation::Serializable),
        begin(&db, Isolation::Serializable),
    );
    put(&a, "x", 1);
    put(&b, "x", 2);
    a.commit().unwrap();
    b.commit().unwrap();
    assert_eq!(stored(&db, "x"), Some(2));
    assert_eq!(db.vault("v").unwrap().len().unwrap(), 2);
}

/// A vault that is deleted and created again is the old one for who began before: names belong to the moment.
#[test]
fn a_name_means_what_it_meant() {
    let db = database();
    db.read(|tx| {
        db.vault("v")?.delete()?;
        db.vault("v")?.put("x", &99)?;
        assert_eq!((get(tx, "x"), get(tx, "y")), (10, 20));
        assert_eq!(vault(tx).len()?, 2);
        Ok(())
    })
    .unwrap();
    for level in LEVELS {
        let db = database();
        let (writes, reads) = (begin(&db, level), begin(&db, level));
        db.vault("v").unwrap().delete().unwrap();
        db.vault("v").unwrap().put("x", &99).unwrap();
        for tx in [&writes, &reads] {
            assert_eq!((get(tx, "x"), get(tx, "y")), (10, 20), "{level:?}");
        }
        // What it would write to is gone.
        put(&writes, "z", 30);
        assert!(conflicts(writes.commit()), "{level:?}");
        assert_eq!((stored(&db, "x"), stored(&db, "z")), (Some(99), None));
        // What it read is gone, which does not matter at the weaker level.
        reads.vault("sum").unwrap().put("x", &10).unwrap();
        let refused = conflicts(reads.commit());
        assert_eq!(refused, level == Isolation::Serializable);
    }
}

/// Two vaults change their names: who began before finds one of them under a name, and never the other.
#[test]
fn two_vaults_under_one_name() {
    let swap = |db: &Database| {
        db.vault("v").unwrap().rename("old").unwrap();
        db.vault("new").unwrap().rename("v").unwrap();
    };
    let swapped = || {
        let db = database();
        db.vault("new").unwrap().put("y", &-20).unwrap();
        db
    };
    let db = swapped();
    db.read(|tx| {
        assert_eq!(get(tx, "x"), 10);
        swap(&db);
        assert_eq!(get(tx, "y"), 20);
        assert_eq!(tx.vault("new")?.get::<i64>("y")?, Some(-20));
        assert!(matches!(tx.vault("old"), Err(Error::NoSuchVault { .. })));
        Ok(())
    })
    .unwrap();
    for level in LEVELS {
        let db = swapped();
        let (reads, writes, late) = (begin(&db, level), begin(&db, level), begin(&db, level));
        assert_eq!((get(&reads, "x"), get(&writes, "x")), (10, 10));
        swap(&db);
        assert_eq!((get(&reads, "y"), get(&late, "y")), (20, 20), "{level:?}");
        let sum = reads.vault("sum").unwrap();
        sum.put("xy", &(get(&reads, "x") + get(&reads, "y")))
            .unwrap();
        // Of one moment, and not of any order: the weaker level allows it.
        let refused = conflicts(reads.commit());
        assert_eq!(refused, level == Isolation::Serializable);
        for tx in [&writes, &late] {
            put(tx, "x", 11);
            assert!(conflicts(tx.commit()), "{level:?}");
        }
        // By a handle, the vault is the same under any name.
        let old = db.existing_vault("old").unwrap();
        assert_eq!(old.get::<i64>("x").unwrap(), Some(10));
        let tx = begin(&db, level);
        tx.of(&old).unwrap().put("x", &12).unwrap();
        old.rename("older").unwrap();
        tx.commit().unwrap();
        assert_eq!(old.get::<i64>("x").unwrap(), Some(12));
    }
}

/// Who writes by name to a vault that is renamed meanwhile is run again, and finds what has the name then.
#[test]
fn a_name_that_moves_is_found_again() {
    for level in LEVELS {
        let db = database();
        let options = TransactionOptions {
            isolation: level,
            ..TransactionOptions::default()
        };
        let mut runs = 0;
        db.write_with(options, |tx| -> Result<()> {
            put(tx, "z", 30);
            runs += 1;
            if runs == 1 {
                db.vault("v")?.rename("old")?;
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(
            (runs, stored(&db, "z"), stored(&db, "x")),
            (2, Some(30), None)
        );
        let old = db.existing_vault("old").unwrap();
        assert_eq!(old.get::<i64>("z").unwrap(), None);
        // The name goes away and comes back with the same vault: nothing has changed.
        let tx = begin(&db, level);
        assert_eq!(get(&tx, "z"), 30);
        put(&tx, "z", 31);
        let v = db.vault("v").unwrap();
        v.rename("away").unwrap();
        v.rename("v").unwrap();
        tx.commit().unwrap();
        assert_eq!(stored(&db, "z"), Some(31));
    }
}

/// What was created after the moment is not there, however it came.
#[test]
fn a_name_that_is_younger_is_not_there() {
    let db = database();
    let mut text = Vec::new();
    let v = db.vault("v").unwrap();
    v.export(ExportFormat::Json, &mut text).unwrap();
    let appear = |db: &Database| {
        db.vault("empty").unwrap().put("x", &1).unwrap();
        db.vault("v").unwrap().copy_to("copy").unwrap();
        db.import("import", &text[..], &ImportOptions::default())
            .unwrap();
        db.vault("v").unwrap().rename("renamed").unwrap();
    };
    db.read(|tx| {
        appear(&db);
        for name in ["empty", "copy", "import", "renamed"] {
            let found = tx.vault(name);
            assert!(matches!(found, Err(Error::NoSuchVault { .. })), "{name}");
        }
        assert_eq!(get(tx, "x"), 10);
        Ok(())
    })
    .unwrap();
    for level in LEVELS {
        let db = database();
        let tx = begin(&db, level);
        appear(&db);
        // It would create them, and cannot: they are there, and not of its moment.
        for name in ["copy", "import", "renamed"] {
            assert!(conflicts(tx.vault(name).map(drop)), "{level:?} {name}");
        }
        let copy = db.existing_vault("copy").unwrap();
        assert!(conflicts(tx.of(&copy).map(drop)), "{level:?}");
        // This one it could have created; what came into it since it does not see.
        let empty = tx.vault("empty").unwrap();
        assert_eq!(empty.get::<i64>("x").unwrap(), None);
        empty.put("x", &2).unwrap();
        assert!(conflicts(tx.commit()), "{level:?}");
    }
}

/// A transaction of a tenant that is dropped goes on reading, and cannot commit.
#[test]
fn names_of_a_tenant_that_is_dropped() {
    for level in LEVELS {
        let db = database();
        let tenant = db.create_tenant("t", Quota::NONE).unwrap();
        tenant.vault("w").unwrap().put("x", &1).unwrap();
        tenant
            .read(|tx| {
                db.drop_tenant("t")?;
                assert_eq!(tx.vault("w")?.get::<i64>("x")?, Some(1));
                Ok(())
            })
            .unwrap();
        let tenant = db.create_tenant("t", Quota::NONE).unwrap();
        tenant.vault("w").unwrap().put("x", &2).unwrap();
        let options = TransactionOptions {
            isolation: level,
            ..TransactionOptions::default()
        };
        let mut runs = 0;
        let dropped = tenant.write_with(options, |tx| -> Result<()> {
            runs += 1;
            tx.vault("w")?.put("x", &3)?;
            if runs == 1 {
                db.drop_tenant("t")?;
            }
            Ok(())
        });
        assert!(
            matches!(dropped, Err(Error::NoSuchTenant { .. })),
            "{level:?}"
        );
        assert_eq!(runs, 2);
    }
}
