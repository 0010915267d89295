//! Entries that end: never visible, counted or given after their time, also where the clock jumps.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::sync::Arc;
use std::time::Duration;

use vault_core::clock::{Clock, ManualClock};
use vault_db::engine;
use vault_db::{
    Bounds, Database, Durability, Error, ImportMode, ImportOptions, Key, Quota, Tenant, Timestamp,
    Vault,
};

const SECOND: Duration = Duration::from_secs(1);

fn with_clock() -> (Arc<ManualClock>, Vault) {
    let (clock, _, vault) = database_with_clock();
    (clock, vault)
}

fn database_with_clock() -> (Arc<ManualClock>, Database, Vault) {
    let clock = Arc::new(ManualClock::new(Timestamp(1_000_000)));
    let db = Database::builder()
        .durability(Durability::Os)
        .clock(Arc::clone(&clock) as Arc<dyn Clock>)
        .temp()
        .unwrap();
    let vault = db.vault("v").unwrap();
    (clock, db, vault)
}

fn counted(vault: &Vault) -> (u64, usize, u64) {
    (
        vault.len().unwrap(),
        vault.keys::<Key>().unwrap().count(),
        vault.info().unwrap().expiring,
    )
}

#[test]
fn an_expired_entry_is_gone_everywhere() {
    let (clock, vault) = with_clock();
    vault.put("stays", &1).unwrap();
    vault.put_for("goes", &2, SECOND).unwrap();
    assert_eq!(counted(&vault), (2, 2, 1));
    clock.advance(Duration::from_millis(999));
    assert_eq!(vault.get::<i64>("goes").unwrap(), Some(2));
    assert_eq!(
        vault.time_to_live("goes").unwrap(),
        Some(Some(Duration::from_millis(1)))
    );
    clock.advance(Duration::from_millis(1));
    assert_eq!(vault.get::<i64>("goes").unwrap(), None);
    assert!(!vault.contains("goes").unwrap());
    assert_eq!(vault.time_to_live("goes").unwrap(), None);
    assert_eq!(vault.pop::<i64>("goes").unwrap(), None);
    assert!(!vault.remove("goes").unwrap());
    assert!(!vault.expire("goes", Some(SECOND)).unwrap());
    assert_eq!(counted(&vault), (1, 1, 1));
    assert_eq!(vault.cleanup_expired().unwrap(), 1);
    assert_eq!(vault.cleanup_expired().unwrap(), 0);
    assert_eq!(counted(&vault), (1, 1, 0));
}

#[test]
fn what_comes_after_an_expired_entry_is_new() {
    let (clock, vault) = with_clock();
    for round in 0..3 {
        vault.put_for("k", &round, SECOND).unwrap();
        clock.advance(SECOND);
        assert_eq!(counted(&vault).0, 0);
        // Without a cleanup in between.
        assert_eq!(vault.increment("k", 5).unwrap(), 5);
        assert_eq!(vault.time_to_live("k").unwrap(), Some(None));
        assert_eq!(counted(&vault).0, 1);
        vault.remove("k").unwrap();
    }
    assert_eq!(counted(&vault), (0, 0, 3));
    assert_eq!(vault.cleanup_expired().unwrap(), 3);
    assert_eq!(counted(&vault), (0, 0, 0));
    assert_eq!(vault.info().unwrap().bytes, 0);
}

#[test]
fn an_expiry_can_be_changed_and_taken_away() {
    let (clock, vault) = with_clock();
    vault.put_for("k", &1, SECOND).unwrap();
    assert!(vault.expire("k", Some(SECOND * 10)).unwrap());
    clock.advance(SECOND * 5);
    assert_eq!(vault.get::<i64>("k").unwrap(), Some(1));
    assert_eq!(vault.increment("k", 1).unwrap(), 2);
    assert_eq!(
        vault.time_to_live("k").unwrap(),
        Some(Some(SECOND * 5)),
        "adding leaves it as it is"
    );
    assert!(vault.expire("k", None).unwrap());
    clock.advance(SECOND * 100);
    assert_eq!(counted(&vault), (1, 1, 0));
    vault.put_for("k", &3, SECOND).unwrap();
    vault.put("k", &4).unwrap();
    clock.advance(SECOND);
    assert_eq!(counted(&vault), (1, 1, 0));
}

#[test]
fn many_expire_at_once() {
    let (clock, vault) = with_clock();
    for n in 0..3000 {
        vault
            .put_for(n, &n, SECOND + Duration::from_millis(n % 7))
            .unwrap();
    }
    vault.put(-1, &1).unwrap();
    assert_eq!(counted(&vault), (3001, 3001, 3000));
    clock.advance(SECOND * 2);
    assert_eq!(vault.keys::<Key>().unwrap().count(), 1);
    assert_eq!(vault.cleanup_expired().unwrap(), 3000);
    assert_eq!(counted(&vault), (1, 1, 0));
}

/// A long list of what has expired is not walked over at each count, while nobody can write: it is taken away by the first.
#[test]
fn counting_takes_a_long_list_away() {
    let (clock, vault) = with_clock();
    vault.put("stays", &1).unwrap();
    (0..512).for_each(|n| vault.put_for(n, &n, SECOND).unwrap());
    clock.advance(SECOND);
    assert_eq!(counted(&vault), (1, 1, 512), "few");
    vault.put_for(600, &1, SECOND).unwrap();
    clock.advance(SECOND);
    assert_eq!(counted(&vault), (1, 1, 0));
}

#[test]
fn clearing_and_deleting_take_them_along() {
    let (clock, vault) = with_clock();
    vault.put_for("a", &1, SECOND).unwrap();
    vault.put_for("b", &1, SECOND * 10).unwrap();
    clock.advance(SECOND);
    assert_eq!(vault.clear().unwrap(), 1);
    assert_eq!(counted(&vault), (0, 0, 0));
    assert_eq!(vault.cleanup_expired().unwrap(), 0);
    vault.put_for("a", &1, SECOND).unwrap();
    clock.advance(SECOND);
    vault.put("b", &1).unwrap();
    assert_eq!(vault.delete().unwrap(), 1);
}

/// The clock goes back behind the expiry of an entry that was counted as expired, cleaned up or written over.
#[test]
fn the_clock_jumps_back() {
    let (clock, vault) = with_clock();
    let before = clock.now();
    vault.put_for("a", &1, SECOND).unwrap();
    vault.put_for("b", &2, SECOND).unwrap();
    vault.put_for("c", &3, SECOND).unwrap();
    clock.advance(SECOND * 2);
    assert_eq!(counted(&vault).0, 0);
    vault.put("b", &20).unwrap();
    clock.set(before);
    // What is still on the disk is there again until its time comes anew; what was written since stays.
    assert_eq!(vault.get::<i64>("b").unwrap(), Some(20));
    let visible = vault.keys::<Key>().unwrap().count() as u64;
    assert_eq!(vault.get::<i64>("a").unwrap(), Some(1));
    assert_eq!(visible, 3);
    // Written again with the same expiry as the one that is still in the list.
    vault.put_for("a", &11, SECOND).unwrap();
    clock.advance(SECOND * 2);
    assert_eq!(vault.keys::<Key>().unwrap().count(), 1);
    assert_eq!(vault.cleanup_expired().unwrap(), 3);
    assert_eq!(counted(&vault), (1, 1, 0));
    clock.set(before);
    // What was cleaned up does not come back.
    assert_eq!(counted(&vault), (1, 1, 0));
}

/// The list of what expires may hold an entry that nobody sees any more under the very time of a new one.
#[test]
fn counts_are_right_where_the_clock_goes_back_before_an_expiry_that_is_set_again() {
    let (clock, vault) = with_clock();
    let before = clock.now();
    let midnight = Timestamp(before.0 + 1000);
    vault.put_until("k", &1, midnight).unwrap();
    clock.advance(SECOND * 2);
    vault
        .put_until("k", &2, Timestamp(before.0 + 10_000))
        .unwrap();
    clock.set(before);
    vault.put_until("k", &3, midnight).unwrap();
    assert_eq!(counted(&vault), (1, 1, 1));
    clock.advance(SECOND * 20);
    assert_eq!(vault.cleanup_expired().unwrap(), 1);
    assert_eq!(counted(&vault), (0, 0, 0));
}

#[test]
fn an_expiry_that_is_moved_while_its_value_is_changed_stays_moved() {
    let (clock, vault) = with_clock();
    vault.put_for("session", &1, SECOND).unwrap();
    let changed = vault.entry::<i64>("session").unwrap().and_modify(|n| {
        vault.expire("session", Some(SECOND * 3600)).unwrap();
        clock.advance(SECOND * 2);
        *n += 1;
    });
    assert_eq!(changed.unwrap(), Some(2));
    assert_eq!(vault.get::<i64>("session").unwrap(), Some(2));
    let left = vault.time_to_live("session").unwrap().unwrap();
    assert_eq!(left, Some(SECOND * 3598));
    let changed = vault.entry("session").unwrap().modify_or_insert(
        |n: &mut i64| {
            vault.expire("session", None).unwrap();
            *n += 1;
        },
        || 0,
    );
    assert_eq!(changed.unwrap(), 3);
    assert_eq!(vault.time_to_live("session").unwrap(), Some(None));
}

#[test]
fn odd_times_are_refused() {
    let (clock, vault) = with_clock();
    let refused = |result: vault_db::Result<()>| {
        matches!(
            result,
            Err(Error::Engine(engine::Error::InvalidExpiry { .. }))
        )
    };
    assert!(refused(vault.put_for("k", &1, Duration::ZERO)));
    assert!(refused(vault.put_for("k", &1, Duration::from_micros(999))));
    assert!(refused(vault.put_for("k", &1, Duration::MAX)));
    assert!(refused(vault.put_until("k", &1, clock.now())));
    assert!(refused(vault.put_until("k", &1, Timestamp(0))));
    vault.put("k", &1).unwrap();
    assert!(refused(vault.expire("k", Some(Duration::ZERO)).map(drop)));
    assert_eq!(vault.time_to_live("k").unwrap(), Some(None));
    assert_eq!(vault.len().unwrap(), 1);
}

/// What has expired takes up no room, whether or not anybody has cleaned up.
#[test]
fn what_has_expired_makes_room() {
    let clock = Arc::new(ManualClock::new(Timestamp(1_000_000)));
    let bounds = Bounds {
        keys_per_vault_max: 3,
        ..Bounds::default()
    };
    let db = Database::builder()
        .durability(Durability::Os)
        .bounds(bounds)
        .clock(Arc::clone(&clock) as Arc<dyn Clock>)
        .temp()
        .unwrap();
    let quota = Quota {
        keys_max: 3,
        ..Quota::NONE
    };
    let tenant = db.create_tenant("t", quota).unwrap();
    type Verb = fn(&Database, &Vault) -> vault_db::Result<()>;
    let verbs: [(&str, Verb); 6] = [
        ("put", |_, vault| vault.put("new", &1)),
        ("increment", |_, vault| vault.increment("new", 1).map(drop)),
        ("set_default", |_, vault| {
            vault.set_default("new", &1).map(drop)
        }),
        ("update", |_, vault| vault.update([("new", 1)])),
        ("entry", |_, vault| {
            vault.entry("new")?.or_insert(1).map(drop)
        }),
        ("transaction", |db, vault| {
            db.write(|tx| tx.of(vault)?.put("new", &1))
        }),
    ];
    for vault in [db.vault("v").unwrap(), tenant.vault("v").unwrap()] {
        for (verb, run) in &verbs {
            vault.put("stays", &0).unwrap();
            vault.put_for("goes", &0, SECOND).unwrap();
            vault.put_for("goes too", &0, SECOND * 2).unwrap();
            let full = run(&db, &vault);
            assert!(
                matches!(full, Err(Error::VaultFull { .. } | Error::OverQuota { .. })),
                "{verb}: {full:?}"
            );
            assert_eq!(vault.len().unwrap(), 3);
            clock.advance(SECOND);
            run(&db, &vault).unwrap_or_else(|error| panic!("{verb}: {error}"));
            assert_eq!(vault.get::<i64>("new").unwrap(), Some(1), "{verb}");
            assert_eq!(vault.len().unwrap(), 3);
            clock.advance(SECOND);
            assert_eq!(vault.len().unwrap(), 2);
            vault.clear().unwrap();
        }
    }
}

/// Whole vaults come into a quota as single entries do, whichever of the tenant's vaults the room is in.
#[test]
fn what_has_expired_makes_room_for_whole_vaults() {
    fn import(tenant: &Tenant, name: &str, mode: ImportMode, text: &str) -> vault_db::Result<()> {
        let text = format!(r#"{{"format": "vault-json-v1", "entries": [{text}]}}"#);
        tenant
            .import(name, text.as_bytes(), &ImportOptions { mode })
            .map(drop)
    }
    // Each would add one key.
    type Verb = fn(&Tenant) -> vault_db::Result<()>;
    let verbs: [(&str, Verb); 5] = [
        ("copy", |tenant| {
            tenant.existing_vault("v")?.copy_to("new").map(drop)
        }),
        ("create", |tenant| {
            let one = r#"{"key": "new", "value": 1}"#;
            import(tenant, "new", ImportMode::Create, one)
        }),
        ("replace", |tenant| {
            let two = r#"{"key": "new", "value": 1}, {"key": "newer", "value": 1}"#;
            import(tenant, "v", ImportMode::Replace, two)
        }),
        ("merge", |tenant| {
            let one = r#"{"key": "new", "value": 1}"#;
            import(tenant, "v", ImportMode::Merge, one)
        }),
        ("large merge", |tenant| {
            // More than what is merged as one commit.
            let large = "x".repeat(9 << 20);
            let one = format!(r#"{{"key": "new", "value": "{large}"}}"#);
            import(tenant, "v", ImportMode::Merge, &one)
        }),
    ];
    for (verb, run) in verbs {
        let (clock, db, _) = database_with_clock();
        let quota = Quota {
            keys_max: 3,
            ..Quota::NONE
        };
        let tenant = db.create_tenant("t", quota).unwrap();
        tenant.vault("v").unwrap().put("stays", &0).unwrap();
        let other = tenant.vault("other").unwrap();
        other.put_for("goes", &0, SECOND).unwrap();
        other.put_for("goes too", &0, SECOND * 2).unwrap();
        let full = run(&tenant);
        assert!(
            matches!(full, Err(Error::OverQuota { what: "keys", .. })),
            "{verb}: {full:?}"
        );
        assert_eq!(tenant.vaults().len(), 2, "{verb}");
        clock.advance(SECOND);
        run(&tenant).unwrap_or_else(|error| panic!("{verb}: {error}"));
        assert_eq!(tenant.info().unwrap().keys, 3, "{verb}");
        assert_eq!(other.len().unwrap(), 1, "{verb}");
        assert!(
            matches!(other.put("more", &0), Err(Error::OverQuota { .. })),
            "{verb}"
        );
    }
}

/// An entry whose time comes before its transaction is committed is as good as never written.
#[test]
fn what_expires_before_its_commit_is_not_there() {
    let (clock, db, vault) = database_with_clock();
    vault.put("was there", &1).unwrap();
    db.write(|tx| {
        let v = tx.vault("v")?;
        v.put_for("short", &1, SECOND)?;
        v.put_for("was there", &2, SECOND)?;
        v.put("other", &3)?;
        clock.advance(SECOND);
        Ok::<_, Error>(())
    })
    .unwrap();
    let keys: Vec<String> = vault.keys().unwrap().map(|key| key.unwrap()).collect();
    assert_eq!(keys, ["other"]);
    assert_eq!(counted(&vault), (1, 1, 0));
}

#[test]
fn a_rename_counts_what_is_there() {
    let (clock, vault) = with_clock();
    vault.put("stays", &1).unwrap();
    vault.put_for("goes", &2, SECOND).unwrap();
    clock.advance(SECOND);
    assert_eq!(vault.rename("other").unwrap(), 1);
}
