//! What transactions hold, and let go of.

use vault_core::Timestamp;
use vault_core::clock::{Clock, ManualClock};

use super::*;
use crate::commit::{STRIPES, VaultChanges};
use crate::{Database, Durability, Key, Value};

/// However much is read, of however many vaults: what is remembered of it is bounded, and nothing is forgotten.
#[test]
fn what_is_relied_on_is_bounded() -> Result<()> {
    let db = Database::temp()?;
    let (few, many) = (db.vault("few")?, db.vault("many")?);
    many.update((0..500).map(|n| (n, n)))?;
    few.update((0..20).map(|n| (n, n)))?;
    let options = TransactionOptions {
        reads_max: 10,
        attempts_max: 1,
        ..TransactionOptions::default()
    };
    for (written, conflicts) in [(few.clone(), true), (many, true), (db.vault("x")?, false)] {
        let tx = Transaction::begin(db.shared(), NO_TENANT, options, Mode::Write)?;
        for n in 0..10 {
            tx.vault("few")?.get::<i64>(n)?;
        }
        let of_many = tx.vault("many")?;
        let mut open: Vec<_> = (0..5)
            .map(|_| of_many.items::<Key, Value>())
            .collect::<Result<_>>()?;
        for n in 0..500 {
            of_many.get::<i64>(n)?;
            of_many.range::<i64, i64>(n..)?.next().transpose()?;
        }
        for scan in &mut open {
            scan.next().transpose()?;
        }
        {
            let state = tx.state.borrow();
            let parts = state.relied.values();
            let parts: usize = parts.map(|it| it.keys.len() + it.ranges.len()).sum();
            assert_eq!(parts, state.parts_relied);
            assert!(parts <= options.reads_max, "{parts}");
        }
        written.put(7, &1)?;
        tx.vault("other")?.put(1, &1)?;
        assert_eq!(
            matches!(tx.commit(), Err(Error::Conflict { .. })),
            conflicts
        );
    }
    Ok(())
}

/// A database whose time stands still, and a transaction that can commit if it is used in time.
fn begun() -> Result<(Database, Arc<ManualClock>, Transaction)> {
    let clock = Arc::new(ManualClock::new(Timestamp(1_000_000)));
    let db = Database::builder()
        .durability(Durability::Os)
        .clock(Arc::clone(&clock) as Arc<dyn Clock>)
        .temp()?;
    db.vault("v")?;
    let tx = db.begin(TransactionOptions::default())?;
    tx.vault("v")?.get::<i64>(0)?;
    tx.vault("v")?.put("own", &1)?;
    Ok((db, clock, tx))
}

/// One that is kept and not touched is no reason to remember anything once its time is over, and keeps no snapshot.
#[test]
fn one_that_is_forgotten_holds_nothing() -> Result<()> {
    let (db, clock, tx) = begun()?;
    let vault = db.vault("v")?;
    let remembering = || {
        let stripes = vault.state().stripes.lock_all();
        stripes.iter().filter(|stripe| !stripe.is_empty()).count()
    };
    vault.update((0..10_000).map(|n| (n, n)))?;
    clock.advance(Duration::from_secs(60));
    vault.put(0, &1)?;
    assert_eq!(remembering(), STRIPES);
    assert!(tx.moment.upgrade().is_some());
    clock.advance(Duration::from_nanos(1));
    vault.update((10_000..40_000).map(|n| (n, n)))?;
    assert_eq!(remembering(), 0);
    assert!(tx.moment.upgrade().is_none() && !db.shared().transactions.is_any());
    // The time of day may go back: it can never commit.
    clock.set(Timestamp(1));
    assert!(matches!(tx.commit(), Err(Error::TransactionTooLong { .. })));
    assert!(matches!(tx.commit(), Err(Error::TransactionEnded { .. })));
    drop(tx);
    assert!(!db.shared().transactions.is_any());
    assert!(!vault.contains("own")?);
    Ok(())
}

/// Also where few keys are written, or none: whoever begins next looks, too.
#[test]
fn one_that_is_forgotten_is_found_by_the_next() -> Result<()> {
    let (db, clock, tx) = begun()?;
    let vault = db.vault("v")?;
    clock.advance(Duration::from_secs(61));
    for n in 0..5_000 {
        vault.put("again and again", &n)?;
    }
    assert!(tx.moment.upgrade().is_none() && !db.shared().transactions.is_any());
    let second = db.begin(TransactionOptions::default())?;
    clock.advance(Duration::from_secs(61));
    let third = db.begin(TransactionOptions::default())?;
    assert!(second.moment.upgrade().is_none() && third.moment.upgrade().is_some());
    drop((tx, second));
    // Those that went take nothing away from one that is open.
    assert!(db.shared().transactions.is_any());
    third.vault("v")?.get::<i64>("again and again")?;
    vault.put("again and again", &0)?;
    third.vault("v")?.put("own", &2)?;
    assert!(matches!(third.commit(), Err(Error::Conflict { .. })));
    Ok(())
}

/// What is remembered for a transaction is so until its time is over, and its commit looks at the time when all is held.
#[test]
fn time_that_passes_amid_a_commit_counts() -> Result<()> {
    let (db, clock, tx) = begun()?;
    let footprint = Footprint {
        moment: tx.sequence,
        deadline: Some(tx.deadline),
        ..Footprint::NOTHING
    };
    let vault = Arc::clone(db.vault("v")?.state());
    let changes = BTreeMap::from([(b"k".to_vec(), None)]);
    let changes = BTreeMap::from([(vault.id, VaultChanges { vault, changes })]);
    let shared = db.shared();
    let committed = shared.change_many(&changes, &footprint)?;
    assert_eq!(committed, Outcome::Committed);
    clock.advance(Duration::from_secs(61));
    let refused = shared.change_many(&changes, &footprint);
    assert!(matches!(refused, Err(Error::TransactionTooLong { .. })));
    Ok(())
}

#[test]
fn what_ends_lets_go_at_once() -> Result<()> {
    let (db, _, tx) = begun()?;
    tx.roll_back();
    assert!(tx.moment.upgrade().is_none() && !db.shared().transactions.is_any());
    let tx = db.begin(TransactionOptions::default())?;
    tx.vault("v")?.put("own", &1)?;
    tx.commit()?;
    assert!(tx.moment.upgrade().is_none() && !db.shared().transactions.is_any());
    db.read(|tx| {
        assert!(tx.moment.upgrade().is_some());
        tx.roll_back();
        assert!(tx.moment.upgrade().is_none());
        Ok(())
    })
}

/// What is left of a vault that was deleted stays for some time in the engine: nobody sees it, but for transactions from before.
#[test]
fn what_was_deleted_is_read_by_nobody() -> Result<()> {
    let db = Database::temp()?;
    let vault = db.vault("v")?;
    vault.put("a", &1)?;
    let before = Transaction::begin(
        db.shared(),
        NO_TENANT,
        TransactionOptions::default(),
        Mode::Read,
    )?;
    vault.put("b", &1)?;
    // As a deletion does it, whose engine then fails to drop the keyspace.
    let sequence = db.engine().snapshot()?.sequence();
    vault.state().set_deleted(sequence);
    let gone = |error: Error| assert!(matches!(error, Error::VaultDeleted { .. }), "{error}");
    gone(vault.get::<i64>("a").unwrap_err());
    gone(vault.contains("a").unwrap_err());
    gone(vault.time_to_live("a").unwrap_err());
    gone(vault.keys::<Key>().err().unwrap());
    gone(vault.len().unwrap_err());
    assert_eq!(before.of(&vault)?.get::<i64>("a")?, Some(1));
    for mode in [Mode::Read, Mode::Write] {
        let after =
            Transaction::begin(db.shared(), NO_TENANT, TransactionOptions::default(), mode)?;
        gone(after.of(&vault).err().unwrap());
    }
    Ok(())
}
