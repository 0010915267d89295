//! The audit log stays as long as it is to be: its oldest entries are pruned, what is kept goes on proving itself, and nothing
//! is pruned in secret.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::sync::Arc;
use std::time::Duration;

use vault_core::clock::{Clock, ManualClock};
use vault_db::encryption::{Kdf, SecretBytes};
use vault_db::engine::{KeyspaceId, WriteOptions};
use vault_db::{
    AccessControl, AuditAction, AuditAnchor, AuditEntry, AuditPrune, Database, Durability, Error,
    Grant, Permission, Timestamp,
};

fn temp() -> Database {
    Database::builder()
        .durability(Durability::Os)
        .temp()
        .unwrap()
}

/// Writes so many entries.
fn fill(control: &AccessControl, entries: u64) {
    for n in 0..entries {
        control.set_role(&format!("role {n}"), []).unwrap();
    }
}

fn numbers(control: &AccessControl) -> Vec<u64> {
    let mut numbers: Vec<u64> = control
        .audit(1000)
        .unwrap()
        .iter()
        .map(|entry| entry.number)
        .collect();
    numbers.reverse();
    numbers
}

fn audit_log(db: &Database) -> KeyspaceId {
    db.engine().keyspace("vault.audit").unwrap().unwrap()
}

#[test]
fn the_latest_are_kept_and_the_chain_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let db = Database::open(directory.path()).unwrap();
    let control = db.access_control().unwrap();
    fill(&control, 10);
    let (entries, hash) = control.audit_head();
    assert_eq!(control.prune_audit("me", AuditPrune::AllBut(4)).unwrap(), 6);
    assert_eq!(numbers(&control), [6, 7, 8, 9, 10]);
    let told = &control.audit(1).unwrap()[0];
    assert_eq!(
        (told.action, told.principal.as_str(), told.detail.as_str()),
        (AuditAction::AuditPruned, "me", "6 entries, up to number 5")
    );
    let anchor = told.anchor.as_ref().unwrap();
    assert_eq!((anchor.pruned, anchor.first), (6, 6));
    assert_eq!(control.verify_audit().unwrap(), 5);
    assert!(control.audit_contains(entries, &hash).unwrap());
    // Again, over the anchor; and after closing.
    fill(&control, 3);
    assert_eq!(control.prune_audit("me", AuditPrune::AllBut(2)).unwrap(), 6);
    db.close().unwrap();
    let db = Database::open(directory.path()).unwrap();
    let control = db.access_control().unwrap();
    assert_eq!(numbers(&control), [12, 13, 14]);
    assert_eq!(control.verify_audit().unwrap(), 3);
    assert!(
        !control.audit_contains(entries, &hash).unwrap(),
        "it was pruned: nothing tells any more"
    );
    assert!(
        control
            .audit_contains(
                12,
                &control.audit(1).unwrap()[0].anchor.as_ref().unwrap().hash
            )
            .unwrap()
    );
    // All of it.
    assert_eq!(control.prune_audit("me", AuditPrune::AllBut(0)).unwrap(), 3);
    assert_eq!(numbers(&control), [15]);
    assert_eq!(control.verify_audit().unwrap(), 1);
}

#[test]
fn where_nothing_is_to_go_nothing_is_written() {
    let db = temp();
    let control = db.access_control().unwrap();
    assert_eq!(control.prune_audit("me", AuditPrune::AllBut(0)).unwrap(), 0);
    fill(&control, 3);
    for prune in [
        AuditPrune::AllBut(3),
        AuditPrune::AllBut(u64::MAX),
        AuditPrune::Before(Timestamp(0)),
    ] {
        assert_eq!(control.prune_audit("me", prune).unwrap(), 0);
    }
    assert_eq!(control.audit_head().0, 3);
    assert_eq!(control.verify_audit().unwrap(), 3);
}

#[test]
fn what_is_older_goes_up_to_the_first_that_is_not() {
    let clock = Arc::new(ManualClock::new(Timestamp(1_000)));
    let db = Database::builder()
        .clock(Arc::clone(&clock) as Arc<dyn Clock>)
        .temp()
        .unwrap();
    let control = db.access_control().unwrap();
    for n in 0..5 {
        control.set_role(&format!("role {n}"), []).unwrap();
        clock.advance(Duration::from_secs(1));
    }
    let before = |at| AuditPrune::Before(Timestamp(at));
    assert_eq!(control.prune_audit("me", before(1_000)).unwrap(), 0);
    assert_eq!(control.prune_audit("me", before(3_000)).unwrap(), 2);
    assert_eq!(numbers(&control), [2, 3, 4, 5]);
    assert_eq!(control.verify_audit().unwrap(), 4);
    assert_eq!(control.prune_audit("me", before(u64::MAX)).unwrap(), 4);
    assert_eq!(numbers(&control), [6]);
}

/// A log that is filled and pruned for ever stays as long as it is to be, in the engine as well.
#[test]
fn a_log_that_is_pruned_is_bounded() {
    let db = temp();
    let control = db.access_control().unwrap();
    for _ in 0..50 {
        fill(&control, 20);
        control.prune_audit("job", AuditPrune::AllBut(10)).unwrap();
        let kept = db
            .engine()
            .scan(audit_log(&db), vault_db::engine::KeyRange::all())
            .unwrap();
        assert_eq!(kept.count(), 11);
    }
    assert_eq!(control.verify_audit().unwrap(), 11);
}

#[test]
fn pruning_needs_the_admin_of_the_log() {
    let db = temp();
    let control = db.access_control().unwrap();
    let secret = || SecretBytes::from_string("correct horse".to_owned()).unwrap();
    for (name, vaults, permissions) in [
        ("some", "app-*", vec![Permission::Admin]),
        ("reader", "*", vec![Permission::Read, Permission::Delete]),
        ("auditor", "vault.audit", vec![Permission::Admin]),
    ] {
        control
            .set_role(name, [Grant::new(vaults, permissions)])
            .unwrap();
        control
            .create_principal(name, &secret(), [name], Kdf::danger_weak())
            .unwrap();
    }
    for name in ["some", "reader"] {
        let guarded = control.log_in(name, &secret()).unwrap();
        let refused = guarded.prune_audit(AuditPrune::AllBut(0));
        assert!(matches!(refused, Err(Error::Denied { .. })), "{name}");
        let told = &control.audit(1).unwrap()[0];
        assert_eq!(
            (told.action, told.vault.as_deref()),
            (AuditAction::Denied, Some("vault.audit"))
        );
    }
    assert_eq!(numbers(&control)[0], 0, "nothing went");
    let auditor = control.log_in("auditor", &secret()).unwrap();
    let entries = control.audit_head().0;
    assert_eq!(
        auditor.prune_audit(AuditPrune::AllBut(1)).unwrap(),
        entries - 1
    );
    assert_eq!(control.audit(1).unwrap()[0].principal, "auditor");
    control.set_enabled("auditor", false).unwrap();
    assert!(matches!(
        auditor.prune_audit(AuditPrune::AllBut(0)),
        Err(Error::BadCredentials)
    ));
}

/// The name of a vault that nobody has is whatever was asked for: of it, no more is written than of others.
#[test]
fn whoever_is_refused_does_not_choose_how_much_is_written() {
    let db = temp();
    let control = db.access_control().unwrap();
    let secret = || SecretBytes::from_string("correct horse".to_owned()).unwrap();
    control
        .create_principal("p", &secret(), Vec::<String>::new(), Kdf::danger_weak())
        .unwrap();
    let guarded = control.log_in("p", &secret()).unwrap();
    let long = "ß".repeat(1 << 20);
    assert!(guarded.vault(&long).is_err());
    assert!(guarded.allow(Permission::Read, &long).is_err());
    let told = &control.audit(1).unwrap()[0];
    assert_eq!(told.vault.as_deref(), Some(&*"ß".repeat(128)));
}

/// As an entry lies in the keyspace.
fn stored(db: &Database, number: u64) -> Option<Vec<u8>> {
    let found = db.engine().get(audit_log(db), &number.to_be_bytes());
    found.unwrap().map(|stored| stored.to_vec())
}

fn put(db: &Database, number: u64, stored: &[u8]) {
    let key = number.to_be_bytes();
    db.engine()
        .put(audit_log(db), &key, stored, &WriteOptions::OS)
        .unwrap();
}

fn remove(db: &Database, number: u64) {
    let key = number.to_be_bytes();
    db.engine()
        .delete(audit_log(db), &key, &WriteOptions::OS)
        .unwrap();
}

/// The catalog's record of the log, as its format has it.
#[derive(serde::Serialize, serde::Deserialize)]
struct Head {
    entries: u64,
    hash: [u8; 32],
    first: u64,
    before: [u8; 32],
}

fn change_head(db: &Database, change: impl FnOnce(&mut Head)) {
    let catalog = db.engine().keyspace("vault.catalog").unwrap().unwrap();
    let stored = db.engine().get(catalog, &[8]).unwrap().unwrap();
    let mut head: Head = rmp_serde::from_slice(&stored).unwrap();
    change(&mut head);
    let stored = rmp_serde::to_vec_named(&head).unwrap();
    db.engine()
        .put(catalog, &[8], &stored, &WriteOptions::OS)
        .unwrap();
}

/// Puts an entry behind a hash as only somebody can who computes hashes.
fn forge(db: &Database, number: u64, before: &[u8], entry: &AuditEntry) -> [u8; 32] {
    let encoded = rmp_serde::to_vec_named(entry).unwrap();
    let hash = vault_crypto::sha256(&[before, &number.to_be_bytes(), &encoded]);
    put(db, number, &[&hash[..], &encoded].concat());
    hash
}

/// Each way to doctor a log that was pruned: of its entries 0 to 9, 0 to 4 went, and 10 is the anchor.
#[test]
fn a_pruned_log_that_was_doctored_shows() {
    let array = |stored: &[u8]| <[u8; 32]>::try_from(&stored[..32]).unwrap();
    type Doctor<'a> = &'a dyn Fn(&Database, &AuditEntry, [u8; 32]);
    let doctors: [(&str, Doctor<'_>); 9] = [
        ("the first that was kept is taken out", &|db, _, _| {
            remove(db, 5);
        }),
        ("more is taken out, and the head says so", &|db, _, _| {
            let before = array(&stored(db, 5).unwrap());
            remove(db, 5);
            change_head(db, |head| (head.first, head.before) = (6, before));
        }),
        ("the anchor is taken out", &|db, _, _| remove(db, 10)),
        (
            "the anchor is taken out, and the head says so",
            &|db, _, _| {
                let hash = array(&stored(db, 9).unwrap());
                remove(db, 10);
                change_head(db, |head| (head.entries, head.hash) = (10, hash));
            },
        ),
        ("one that was pruned is put back", &|db, _, pruned| {
            put(db, 4, &[&pruned[..], b"x"].concat());
        }),
        ("the anchor is changed", &|db, _, _| {
            let mut anchor = stored(db, 10).unwrap();
            *anchor.last_mut().unwrap() ^= 1;
            put(db, 10, &anchor);
        }),
        ("the anchor is forged: fewer went", &|db, anchor, _| {
            let mut forged = anchor.clone();
            forged.anchor = Some(AuditAnchor {
                first: 4,
                ..forged.anchor.unwrap()
            });
            let before = array(&stored(db, 9).unwrap());
            let hash = forge(db, 10, &before, &forged);
            change_head(db, |head| head.hash = hash);
        }),
        (
            "the anchor is forged: over another hash",
            &|db, anchor, _| {
                let mut forged = anchor.clone();
                forged.anchor = Some(AuditAnchor {
                    hash: "0".repeat(64),
                    ..forged.anchor.unwrap()
                });
                let before = array(&stored(db, 9).unwrap());
                let hash = forge(db, 10, &before, &forged);
                change_head(db, |head| (head.hash, head.before) = (hash, [0; 32]));
            },
        ),
        ("the anchor is none", &|db, anchor, _| {
            let mut forged = anchor.clone();
            forged.anchor = None;
            let before = array(&stored(db, 9).unwrap());
            let hash = forge(db, 10, &before, &forged);
            change_head(db, |head| head.hash = hash);
        }),
    ];
    for (how, doctor) in doctors {
        let directory = tempfile::tempdir().unwrap();
        let db = Database::open(directory.path()).unwrap();
        let control = db.access_control().unwrap();
        fill(&control, 10);
        let pruned = array(&stored(&db, 4).unwrap());
        control.prune_audit("me", AuditPrune::AllBut(5)).unwrap();
        assert_eq!(control.verify_audit().unwrap(), 6);
        let anchor = control.audit(1).unwrap().remove(0);
        doctor(&db, &anchor, pruned);
        db.close().unwrap();
        let db = Database::open(directory.path()).unwrap();
        let control = db.access_control().unwrap();
        let refused = control.verify_audit();
        assert!(matches!(refused, Err(Error::Malformed { .. })), "{how}");
        // Pruning would hide it, and is refused.
        let left = stored(&db, 6);
        let refused = control.prune_audit("mallory", AuditPrune::AllBut(0));
        assert!(matches!(refused, Err(Error::Malformed { .. })), "{how}");
        assert_eq!(stored(&db, 6), left);
    }
}

/// Whoever makes a log that fits in itself is found by a head that was kept elsewhere.
#[test]
fn a_log_made_anew_does_not_contain_the_head_that_was_kept() {
    let (one, other) = (temp(), temp());
    let control = one.access_control().unwrap();
    fill(&control, 5);
    let (entries, hash) = control.audit_head();
    let anew = other.access_control().unwrap();
    anew.set_role("another", []).unwrap();
    fill(&anew, 9);
    assert_eq!(anew.verify_audit().unwrap(), 10);
    assert!(!anew.audit_contains(entries, &hash).unwrap());
    assert!(control.audit_contains(entries, &hash).unwrap());
    assert!(!control.audit_contains(entries + 1, &hash).unwrap());
    assert!(!control.audit_contains(u64::MAX, &hash).unwrap());
}
