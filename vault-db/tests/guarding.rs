//! Access control: each permission on each verb, credentials that are no longer good, and the audit log.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that cannot go on ends here; and one looks at the bytes of files"
)]

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use vault_core::clock::{Clock, ManualClock};
use vault_db::encryption::{Kdf, SecretBytes};
use vault_db::engine::WriteOptions;
use vault_db::{
    AccessControl, AuditAction, Database, Durability, Error, ExportFormat, Grant, GuardedVault,
    ImportOptions, Key, Permission, Result, Timestamp, Value,
};

fn secret(text: &str) -> SecretBytes {
    SecretBytes::from_string(text.to_owned()).unwrap()
}

fn temp() -> Database {
    Database::builder()
        .durability(Durability::Os)
        .temp()
        .unwrap()
}

const ALL: [Permission; 5] = [
    Permission::Read,
    Permission::Write,
    Permission::Delete,
    Permission::Scan,
    Permission::Admin,
];

/// A principal with one role that allows these on vaults `app-*`.
fn principal(
    control: &AccessControl,
    name: &str,
    permissions: impl IntoIterator<Item = Permission>,
) {
    control
        .set_role(name, [Grant::new("app-*", permissions)])
        .unwrap();
    control
        .create_principal(name, &secret("correct horse"), [name], Kdf::danger_weak())
        .unwrap();
}

fn denied<T>(result: Result<T>) -> bool {
    match result {
        Ok(_) => false,
        Err(Error::Denied { .. }) => true,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn every_verb_needs_its_permission() {
    const POP: &[Permission] = &[Permission::Read, Permission::Scan, Permission::Delete];
    type Verb = fn(&GuardedVault) -> Result<()>;
    let verbs: [(&str, &[Permission], Verb); 36] = [
        ("get", &[Permission::Read], |v| {
            v.get::<Value>("k").map(drop)
        }),
        ("get_raw", &[Permission::Read], |v| {
            v.get_raw("missing").map(drop)
        }),
        ("contains", &[Permission::Read], |v| {
            v.contains("k").map(drop)
        }),
        ("time_to_live", &[Permission::Read], |v| {
            v.time_to_live("k").map(drop)
        }),
        ("len", &[Permission::Read], |v| v.len().map(drop)),
        ("is_empty", &[Permission::Read], |v| v.is_empty().map(drop)),
        ("info", &[Permission::Read], |v| v.info().map(drop)),
        ("stats", &[Permission::Read, Permission::Scan], |v| {
            v.stats().map(drop)
        }),
        ("keys", &[Permission::Scan], |v| v.keys::<Key>().map(drop)),
        ("items", &[Permission::Read, Permission::Scan], |v| {
            v.items::<Key, Value>().map(drop)
        }),
        ("range", &[Permission::Read, Permission::Scan], |v| {
            v.range::<Key, Value>("a"..).map(drop)
        }),
        ("prefix", &[Permission::Read, Permission::Scan], |v| {
            v.prefix::<Key, Value>("a").map(drop)
        }),
        ("put", &[Permission::Write], |v| v.put("k", &1)),
        ("put_raw", &[Permission::Write], |v| v.put_raw("raw", b"1")),
        ("put_for", &[Permission::Write], |v| {
            v.put_for("k", &1, Duration::from_secs(9))
        }),
        ("increment", &[Permission::Read, Permission::Write], |v| {
            v.increment("n", 1).map(drop)
        }),
        (
            "compare_and_set",
            &[Permission::Read, Permission::Write],
            |v| v.compare_and_set("c", None, Some(&1)).map(drop),
        ),
        (
            "compare_and_remove",
            &[Permission::Read, Permission::Delete],
            |v| v.compare_and_set("c", Some(&1), None).map(drop),
        ),
        ("remove", &[Permission::Delete], |v| v.remove("k").map(drop)),
        ("pop", &[Permission::Read, Permission::Delete], |v| {
            v.pop::<Value>("k").map(drop)
        }),
        ("range_raw", &[Permission::Read, Permission::Scan], |v| {
            v.range_raw::<Key>("a"..).map(drop)
        }),
        ("set_default", &[Permission::Read, Permission::Write], |v| {
            v.set_default("d", &1).map(drop)
        }),
        ("update", &[Permission::Write], |v| v.update([("u", 1)])),
        ("expire", &[Permission::Write], |v| {
            v.expire("k", None).map(drop)
        }),
        ("pop_first", POP, |v| v.pop_first::<Key, Value>().map(drop)),
        ("pop_last", POP, |v| v.pop_last::<Key, Value>().map(drop)),
        ("cleanup_expired", &[Permission::Delete], |v| {
            v.cleanup_expired().map(drop)
        }),
        ("set_owner", &[Permission::Admin], |v| {
            v.set_owner(Some("x"))
        }),
        ("set_tags", &[Permission::Admin], |v| v.set_tags(["x"])),
        ("clear", &[Permission::Delete], |v| v.clear().map(drop)),
        ("describe", &[Permission::Admin], |v| v.describe(Some("x"))),
        (
            "export",
            &[Permission::Read, Permission::Scan, Permission::Admin],
            |v| v.export(ExportFormat::Json, io::sink()).map(drop),
        ),
        ("rename", &[Permission::Admin], |v| {
            v.rename("app-renamed")?;
            v.rename("app-vault").map(drop)
        }),
        (
            "copy_to",
            &[Permission::Read, Permission::Scan, Permission::Admin],
            |v| v.copy_to("app-copy")?.delete().map(drop),
        ),
        (
            "put_for and len",
            &[Permission::Read, Permission::Write],
            |v| {
                v.put_for("short", &1, Duration::from_secs(9))?;
                v.len().map(drop)
            },
        ),
        ("the last: delete", &[Permission::Admin], |v| {
            v.delete().map(drop)
        }),
    ];
    let db = temp();
    db.vault("app-vault").unwrap().put("k", &1).unwrap();
    let control = db.access_control().unwrap();
    // Each subset of the permissions.
    for subset in 1..32_u32 {
        let allowed: Vec<Permission> = (0..5)
            .filter(|n| subset >> n & 1 == 1)
            .map(|n| ALL[n])
            .collect();
        // One that was deleted by those who may.
        db.vault("app-vault").unwrap().put("k", &1).unwrap();
        let name = format!("p{subset}");
        principal(&control, &name, allowed.iter().copied());
        let guarded = control.log_in(&name, &secret("correct horse")).unwrap();
        let vault = guarded.vault("app-vault").unwrap();
        for (verb, needed, run) in &verbs {
            let expected = needed.iter().all(|needed| allowed.contains(needed));
            assert_eq!(!denied(run(&vault)), expected, "{verb} with {allowed:?}");
        }
    }
    assert_eq!(control.verify_audit().unwrap(), control.audit_head().0);
}

/// An import that is stopped on its way leaves no vault and no keyspace; whoever may not import is not asked how far it may go.
#[test]
fn an_import_is_stopped_by_its_progress() {
    let db = temp();
    let control = db.access_control().unwrap();
    principal(&control, "importer", [Permission::Admin, Permission::Write]);
    let guarded = control
        .log_in("importer", &secret("correct horse"))
        .unwrap();
    let before = db.engine().keyspaces().unwrap();
    let entries: Vec<_> = (0..5_000)
        .map(|n| format!(r#"{{"key": "k{n}", "value": {n}}}"#))
        .collect();
    let entries = entries.join(",");
    let text = format!(r#"{{"format": "vault-json-v1", "entries": [{entries}]}}"#);
    let mut calls = 0;
    let mut import = |name| {
        guarded.import_with(name, text.as_bytes(), &ImportOptions::default(), |_| {
            calls += 1;
            ControlFlow::Break(())
        })
    };
    assert!(matches!(import("app-v"), Err(Error::Cancelled)));
    assert!(denied(import("payroll")));
    assert_eq!(calls, 1);
    assert!(!db.contains_vault("app-v") && !db.contains_vault("payroll"));
    assert_eq!(db.engine().keyspaces().unwrap(), before);
}

#[test]
fn vaults_out_of_reach_are_out_of_sight() {
    let db = temp();
    for name in ["app-a", "app-b", "payroll"] {
        db.vault(name).unwrap().put("k", name).unwrap();
    }
    let control = db.access_control().unwrap();
    principal(&control, "reader", [Permission::Read]);
    let guarded = control.log_in("reader", &secret("correct horse")).unwrap();
    let names: Vec<_> = guarded
        .vaults()
        .unwrap()
        .into_iter()
        .map(|info| info.name)
        .collect();
    assert_eq!(names, ["app-a", "app-b"]);
    // How much there is shows to whoever may read; that there is something, to whoever may do anything with it.
    principal(&control, "courier", [Permission::Write]);
    let courier = control.log_in("courier", &secret("correct horse")).unwrap();
    assert!(courier.vaults().unwrap().is_empty());
    assert_eq!(courier.vault_names().unwrap(), ["app-a", "app-b"]);
    assert!(denied(guarded.vault("payroll")));
    assert!(denied(guarded.vault("app-new")), "creating needs admin");
    assert!(denied(guarded.import(
        "app-new",
        "".as_bytes(),
        &ImportOptions::default()
    )));
    principal(&control, "admin", [Permission::Admin]);
    let admin = control.log_in("admin", &secret("correct horse")).unwrap();
    let vault = admin.vault("app-new").unwrap();
    let text = br#"{"format": "vault-json-v1", "entries": []}"#;
    let import = || admin.import("app-new", &text[..], &ImportOptions::default());
    assert!(denied(import()), "importing needs write as well");
    control
        .set_role(
            "admin",
            [Grant::new("app-*", [Permission::Admin, Permission::Write])],
        )
        .unwrap();
    import().unwrap();
    let vault_of_import = admin.vault("app-new").unwrap();
    assert!(
        denied(vault_of_import.get::<i64>("k")),
        "an admin who may not read"
    );
    assert!(denied(vault.rename("payroll-2")), "out of its own reach");
    control
        .set_role(
            "admin",
            [
                Grant::new("*", [Permission::Admin]),
                Grant::new("mine-*", [Permission::Admin, Permission::Read]),
            ],
        )
        .unwrap();
    let payroll = admin.vault("payroll").unwrap();
    assert!(denied(payroll.rename("mine-2")), "into what it may read");
    assert_eq!(payroll.name(), "payroll");
    payroll.rename("payroll-2").unwrap();
    payroll.rename("payroll").unwrap();
    // A rename takes the vault to other rules.
    db.vault("app-a").unwrap().rename("secret").unwrap();
    let reader = guarded.vault("app-b").unwrap();
    db.vault("app-b").unwrap().rename("also secret").unwrap();
    assert!(denied(reader.get::<String>("k")));
}

#[test]
fn changes_take_effect_with_the_next_call() {
    let clock = Arc::new(ManualClock::new(Timestamp(1_000_000)));
    let db = Database::builder()
        .clock(Arc::clone(&clock) as Arc<dyn Clock>)
        .temp()
        .unwrap();
    db.vault("app-a").unwrap().put("k", &1).unwrap();
    let control = db.access_control().unwrap();
    principal(&control, "p", ALL);
    let by_secret = control.log_in("p", &secret("correct horse")).unwrap();
    let vault = by_secret.vault("app-a").unwrap();
    let token = control.issue_token("p", Duration::from_secs(60)).unwrap();
    let by_token = control.with_token(token.expose()).unwrap();
    let works = || (vault.get::<i64>("k").is_ok(), by_token.check().is_ok());
    assert_eq!(works(), (true, true));
    control
        .set_role("p", [Grant::new("app-*", [Permission::Write])])
        .unwrap();
    assert!(denied(vault.get::<i64>("k")));
    control.set_role("p", [Grant::new("*", ALL)]).unwrap();
    assert_eq!(works(), (true, true));
    control.set_roles("p", Vec::<String>::new()).unwrap();
    assert!(denied(vault.get::<i64>("k")));
    control.set_roles("p", ["p"]).unwrap();
    control.set_enabled("p", false).unwrap();
    assert_eq!(works(), (false, false));
    control.set_enabled("p", true).unwrap();
    assert_eq!(works(), (true, true));
    control
        .set_secret("p", &secret("another horse"), Kdf::danger_weak())
        .unwrap();
    assert_eq!(
        works(),
        (false, true),
        "who came in with the old secret is out"
    );
    clock.advance(Duration::from_secs(60));
    assert!(matches!(
        by_token.check(),
        Err(Error::InvalidToken {
            problem: "it has expired"
        })
    ));
    let token = control.issue_token("p", Duration::from_secs(60)).unwrap();
    let by_token = control.with_token(token.expose()).unwrap();
    assert_eq!(control.tokens().len(), 1, "the one that ended is gone");
    assert!(control.revoke_token(token.expose()).unwrap());
    assert!(!control.revoke_token(token.expose()).unwrap());
    assert!(matches!(
        by_token.check(),
        Err(Error::InvalidToken {
            problem: "it was revoked"
        })
    ));
    let another = control.issue_token("p", Duration::from_secs(60)).unwrap();
    assert!(control.remove_role("p").unwrap() && !control.remove_role("p").unwrap());
    assert!(control.remove_principal("p").unwrap() && !control.remove_principal("p").unwrap());
    assert!(matches!(
        control.with_token(another.expose()),
        Err(Error::InvalidToken { .. })
    ));
}

#[test]
fn what_lets_nobody_in() {
    let db = temp();
    let control = db.access_control().unwrap();
    principal(&control, "p", ALL);
    assert!(matches!(
        control.log_in("p", &secret("wrong horse")),
        Err(Error::BadCredentials)
    ));
    assert!(matches!(
        control.log_in("nobody", &secret("correct horse")),
        Err(Error::BadCredentials)
    ));
    let token = control.issue_token("p", Duration::from_secs(60)).unwrap();
    let forged = token.expose().replace(|c: char| c.is_ascii_digit(), "f");
    for forged in ["", "vault-token-", &forged, "x"] {
        assert!(
            matches!(control.with_token(forged), Err(Error::InvalidToken { .. })),
            "{forged}"
        );
    }
    assert_eq!(format!("{token:?}"), "Token(…)");
    assert!(matches!(
        control.issue_token("nobody", Duration::from_secs(1)),
        Err(Error::NoSuchPrincipal { .. })
    ));
    assert!(control.issue_token("p", Duration::ZERO).is_err());
    let exists = control.create_principal("p", &secret("x correct"), ["p"], Kdf::danger_weak());
    assert!(matches!(exists, Err(Error::PrincipalExists { .. })));
    let unknown =
        control.create_principal("q", &secret("x correct"), ["nothing"], Kdf::danger_weak());
    assert!(matches!(unknown, Err(Error::NoSuchRole { .. })));
    assert!(matches!(
        control.set_roles("nobody", ["p"]),
        Err(Error::NoSuchPrincipal { .. })
    ));
    assert!(matches!(
        control.set_role("r", [Grant::new("", [Permission::Read])]),
        Err(Error::InvalidPattern { .. })
    ));
    assert!(matches!(
        control.set_role("", []),
        Err(Error::InvalidVaultName { .. })
    ));
    assert_eq!(control.principals().len(), 1);
}

/// A principal that was removed does not come back with another of the same name, whose secret it does not know.
#[test]
fn whoever_was_removed_stays_out() {
    let db = temp();
    db.vault("app-a").unwrap().put("k", &1).unwrap();
    let control = db.access_control().unwrap();
    principal(&control, "p", ALL);
    let old = control.log_in("p", &secret("correct horse")).unwrap();
    let vault = old.vault("app-a").unwrap();
    let token = control.issue_token("p", Duration::from_secs(60)).unwrap();
    let by_token = control.with_token(token.expose()).unwrap();
    assert!(control.remove_principal("p").unwrap());
    control
        .create_principal("p", &secret("another horse"), ["p"], Kdf::danger_weak())
        .unwrap();
    assert!(matches!(vault.get::<i64>("k"), Err(Error::BadCredentials)));
    assert!(matches!(old.check(), Err(Error::BadCredentials)));
    assert!(matches!(by_token.check(), Err(Error::InvalidToken { .. })));
    assert!(control.log_in("p", &secret("correct horse")).is_err());
    assert!(control.log_in("p", &secret("another horse")).is_ok());
}

/// What is refused is the same, to the word, for a vault that is there and one that is not.
#[test]
fn a_refusal_does_not_tell_whether_there_is_such_a_vault() {
    let db = temp();
    db.vault("payroll").unwrap();
    let control = db.access_control().unwrap();
    principal(&control, "p", ALL);
    let guarded = control.log_in("p", &secret("correct horse")).unwrap();
    let refused = |name: &str| {
        let error = guarded.vault(name).unwrap_err();
        error.to_string().replace(name, "NAME")
    };
    assert_eq!(refused("payroll"), refused("nothing"));
    let logged: Vec<_> = control
        .audit(2)
        .unwrap()
        .into_iter()
        .map(|entry| entry.detail)
        .collect();
    assert_eq!(logged, ["read", "read"]);
}

#[test]
fn rules_survive_closing_and_no_secret_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let token = {
        let db = Database::open(directory.path()).unwrap();
        db.vault("app-a").unwrap().put("k", &1).unwrap();
        let control = db.access_control().unwrap();
        principal(&control, "p", [Permission::Read]);
        let token = control.issue_token("p", Duration::from_secs(3600)).unwrap();
        db.engine().flush(None).unwrap();
        db.close().unwrap();
        token
    };
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        all.extend(std::fs::read(entry.unwrap().path()).unwrap());
    }
    let contains = |needle: &[u8]| all.windows(needle.len()).any(|window| window == needle);
    assert!(!contains(b"correct horse") && !contains(token.expose().as_bytes()));
    let db = Database::open(directory.path()).unwrap();
    let control = db.access_control().unwrap();
    let guarded = control.log_in("p", &secret("correct horse")).unwrap();
    assert!(guarded.vault("app-a").unwrap().get::<i64>("k").is_ok());
    assert!(control.with_token(token.expose()).is_ok());
    assert_eq!(
        control.roles()[0].1,
        [Grant::new("app-*", [Permission::Read])]
    );
}

#[test]
fn the_audit_log_tells_who_was_refused() {
    let db = temp();
    db.vault("app-a").unwrap();
    let control = db.access_control().unwrap();
    principal(&control, "p", [Permission::Read]);
    let guarded = control.log_in("p", &secret("correct horse")).unwrap();
    let vault = guarded.vault("app-a").unwrap();
    assert!(denied(vault.put("k", &1)));
    assert!(control.log_in("mallory", &secret("guess 1234")).is_err());
    let entries = control.audit(100).unwrap();
    let told: Vec<_> = entries
        .iter()
        .map(|entry| (entry.action, entry.principal.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (AuditAction::LogInRefused, "mallory"),
            (AuditAction::Denied, "p"),
            (AuditAction::LogIn, "p"),
            (AuditAction::PrincipalChanged, "p"),
            (AuditAction::RoleChanged, ""),
        ]
    );
    assert_eq!(
        (entries[1].vault.as_deref(), entries[1].detail.as_str()),
        (Some("app-a"), "write")
    );
    assert!(entries.iter().rev().map(|entry| entry.number).eq(0..5));
    assert_eq!(control.verify_audit().unwrap(), 5);
}

/// Each way to doctor the log: an entry taken out in the middle, at the end, changed, or swapped with another.
#[test]
fn a_doctored_audit_log_shows() {
    type Doctor = fn(&Database, vault_db::engine::KeyspaceId);
    let doctors: [(&str, Doctor); 5] = [
        ("taken out", |db, audit| {
            db.engine()
                .delete(audit, &3_u64.to_be_bytes(), &WriteOptions::OS)
                .unwrap();
        }),
        ("the first taken out", |db, audit| {
            db.engine()
                .delete(audit, &0_u64.to_be_bytes(), &WriteOptions::OS)
                .unwrap();
        }),
        ("the last taken out", |db, audit| {
            db.engine()
                .delete(audit, &9_u64.to_be_bytes(), &WriteOptions::OS)
                .unwrap();
        }),
        ("changed", |db, audit| {
            let key = 3_u64.to_be_bytes();
            let mut entry = db.engine().get(audit, &key).unwrap().unwrap().to_vec();
            *entry.last_mut().unwrap() ^= 1;
            db.engine()
                .put(audit, &key, &entry, &WriteOptions::OS)
                .unwrap();
        }),
        ("swapped", |db, audit| {
            let (a, b) = (3_u64.to_be_bytes(), 4_u64.to_be_bytes());
            let of = |key: &[u8]| db.engine().get(audit, key).unwrap().unwrap();
            let (at_a, at_b) = (of(&a), of(&b));
            db.engine()
                .put(audit, &a, &at_b, &WriteOptions::OS)
                .unwrap();
            db.engine()
                .put(audit, &b, &at_a, &WriteOptions::OS)
                .unwrap();
        }),
    ];
    for (how, doctor) in doctors {
        let db = temp();
        let control = db.access_control().unwrap();
        for n in 0..10 {
            control.set_role(&format!("role {n}"), []).unwrap();
        }
        assert_eq!(control.verify_audit().unwrap(), 10);
        let audit = db.engine().keyspace("vault.audit").unwrap().unwrap();
        doctor(&db, audit);
        assert!(
            matches!(control.verify_audit(), Err(Error::Malformed { .. })),
            "{how}"
        );
    }
}

/// Whoever was let in and is not any more is written down with what they want.
#[test]
fn those_who_come_back_are_noted() {
    let db = temp();
    db.vault("app-a").unwrap().put("k", &1).unwrap();
    let control = db.access_control().unwrap();
    principal(&control, "p", ALL);
    let token = control.issue_token("p", Duration::from_secs(60)).unwrap();
    let by_token = control.with_token(token.expose()).unwrap();
    let by_secret = control.log_in("p", &secret("correct horse")).unwrap();
    let vaults = [&by_token, &by_secret].map(|guarded| guarded.vault("app-a").unwrap());
    assert_eq!(vaults[0].get::<i64>("k").unwrap(), Some(1));
    assert!(control.revoke_token(token.expose()).unwrap());
    assert!(matches!(
        vaults[0].get::<i64>("k"),
        Err(Error::InvalidToken {
            problem: "it was revoked"
        })
    ));
    let noted = &control.audit(1).unwrap()[0];
    assert_eq!(
        (
            noted.action,
            noted.principal.as_str(),
            noted.vault.as_deref()
        ),
        (AuditAction::Denied, "p", Some("app-a"))
    );
    assert!(noted.detail.starts_with("read, token "), "{}", noted.detail);
    control.set_enabled("p", false).unwrap();
    let before = control.audit_head().0;
    assert!(matches!(vaults[1].remove("k"), Err(Error::BadCredentials)));
    assert!(matches!(by_secret.vaults(), Err(Error::BadCredentials)));
    assert!(matches!(
        by_secret.vault("app-a"),
        Err(Error::BadCredentials)
    ));
    assert_eq!(control.audit_head().0, before + 3);
    assert_eq!(control.verify_audit().unwrap(), before + 3);
}

/// A role that is removed is gone from whoever had it: another one of its name is not meant for them.
#[test]
fn a_role_that_is_removed_does_not_come_back() {
    let directory = tempfile::tempdir().unwrap();
    for reopened in [false, true] {
        let mut db = Database::open(directory.path().join(reopened.to_string())).unwrap();
        let control = db.access_control().unwrap();
        principal(&control, "ops", [Permission::Read]);
        assert!(control.remove_role("ops").unwrap());
        assert!(control.principals()[0].roles.is_empty());
        let unknown = control.set_roles("ops", ["ops"]);
        assert!(matches!(unknown, Err(Error::NoSuchRole { .. })));
        drop(control);
        if reopened {
            db.close().unwrap();
            db = Database::open(directory.path().join(reopened.to_string())).unwrap();
        }
        let control = db.access_control().unwrap();
        control.set_role("ops", [Grant::new("*", ALL)]).unwrap();
        let guarded = control.log_in("ops", &secret("correct horse")).unwrap();
        assert!(denied(guarded.vault("app-a")), "reopened: {reopened}");
    }
}
