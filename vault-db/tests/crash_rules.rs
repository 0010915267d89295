//! Loss of power at every file operation of a workload of tenants, principals, roles, tokens and the audit log: what is opened
//! afterwards is what some prefix of the steps made, with everything acknowledged; the audit log proves itself; and nothing is
//! left of what was dropped.
//!
//! With debug assertions a slice of the operations is visited, else all.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::sync::Arc;
use std::time::Duration;

use vault_core::clock::{Clock, ManualClock};
use vault_core::random::SeededRandom;
use vault_core::vfs::{CrashPolicy, MemoryFileSystem};
use vault_db::encryption::{Kdf, SecretBytes};
use vault_db::engine::{BackgroundWork, KeyRange, Settings};
use vault_db::{
    AuditPrune, Database, Durability, Grant, Permission, PrincipalInfo, Quota, Result, TenantInfo,
    Timestamp,
};

fn open(fs: &MemoryFileSystem) -> Result<Database> {
    let settings = Settings {
        durability: Durability::Sync,
        background: BackgroundWork::Manual,
        memory_bytes: 16 << 20,
        log_segment_bytes: Some(64 << 10),
        ..Settings::default()
    };
    let fs = Arc::new(fs.clone());
    let clock = Arc::new(ManualClock::new(Timestamp(1_000_000)));
    Database::builder()
        .settings(settings)
        .clock(clock as Arc<dyn Clock>)
        .engine_options(|options| {
            options
                .file_system(fs)
                .random(Arc::new(SeededRandom::new(1)))
        })
        .open("/store")
}

fn secret(text: &str) -> SecretBytes {
    SecretBytes::from_string(text.to_owned()).unwrap()
}

type Step = fn(&Database) -> Result<()>;

const STEPS: [Step; 18] = [
    |db| db.create_tenant("a", Quota::NONE).map(drop),
    |db| {
        let vault = db.tenant("a")?.vault("v")?;
        vault.update((0..20).map(|n| (n, n)))
    },
    |db| {
        db.access_control()?
            .set_role("reader", [Grant::new("*", [Permission::Read])])
    },
    |db| {
        let control = db.access_control()?;
        control.create_principal(
            "p",
            &secret("correct horse"),
            ["reader"],
            Kdf::danger_weak(),
        )
    },
    |db| {
        let quota = Quota {
            keys_max: 50,
            ..Quota::NONE
        };
        db.set_quota("a", quota)
    },
    |db| {
        let minute = Duration::from_secs(60);
        db.access_control()?.issue_token("p", minute).map(drop)
    },
    |db| {
        let vault = db.tenant("a")?.vault("w")?;
        vault.put_for("expires", &1, Duration::from_secs(60))
    },
    |db| db.access_control()?.set_roles("p", Vec::<String>::new()),
    |db| db.create_tenant("b", Quota::NONE).map(drop),
    |db| {
        db.access_control()?
            .prune_audit("me", AuditPrune::AllBut(2))
            .map(drop)
    },
    |db| {
        let a = db.tenant("a")?;
        a.write(|tx| {
            let moved: Option<i64> = tx.vault("v")?.pop(1)?;
            tx.vault("w")?.put(1, &moved)
        })
    },
    |db| db.drop_tenant("a").map(drop),
    |db| db.access_control()?.set_enabled("p", false),
    |db| db.create_tenant("a", Quota::NONE).map(drop),
    |db| db.tenant("a")?.vault("v")?.put(1, &1),
    |db| db.access_control()?.remove_principal("p").map(drop),
    |db| db.access_control()?.remove_role("reader").map(drop),
    |db| {
        db.access_control()?
            .prune_audit("me", AuditPrune::AllBut(0))
            .map(drop)
    },
];

/// Everything that can be seen of the rules and the tenants; a vault that is empty counts as one that is not there, because
/// asking for it and filling it are two commits.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    tenants: Vec<TenantInfo>,
    principals: Vec<PrincipalInfo>,
    roles: Vec<(String, Vec<Grant>)>,
    tokens: usize,
    /// How many entries were ever written to the audit log, and how many are kept.
    audit: (u64, u64),
}

fn look(db: &Database) -> Seen {
    let control = db.access_control().unwrap();
    let mut tenants = db.tenants();
    for info in &mut tenants {
        let tenant = db.tenant(&info.name).unwrap();
        let vaults = tenant.vaults();
        info.vaults = vaults.iter().filter(|vault| vault.keys > 0).count() as u64;
        let (keys, bytes) = (
            vaults.iter().map(|vault| vault.keys).sum::<u64>(),
            vaults.iter().map(|vault| vault.bytes).sum::<u64>(),
        );
        assert_eq!((info.keys, info.bytes), (keys, bytes));
        for vault in vaults {
            let scanned = tenant.vault(&vault.name).unwrap();
            let scanned = scanned.keys::<vault_db::Key>().unwrap().count();
            assert_eq!(vault.keys, scanned as u64);
        }
    }
    Seen {
        tenants,
        principals: control.principals(),
        roles: control.roles(),
        tokens: control.tokens().len(),
        audit: (control.audit_head().0, control.verify_audit().unwrap()),
    }
}

/// Takes the steps until one fails, and shows the database after each. Gives how many returned.
fn run(fs: &MemoryFileSystem, mut show: impl FnMut(&Database)) -> usize {
    let Ok(db) = open(fs) else {
        return 0;
    };
    for (number, step) in STEPS.iter().enumerate() {
        if step(&db).is_err() {
            return number;
        }
        show(&db);
    }
    STEPS.len()
}

/// Keyspaces and expiries of vaults that nobody knows.
fn check_nothing_is_left(db: &Database, context: &str) {
    let known: usize = db
        .tenants()
        .iter()
        .map(|tenant| tenant.vaults as usize)
        .sum();
    let keyspaces = db.engine().keyspaces().unwrap();
    let of_vaults = keyspaces
        .iter()
        .filter(|info| info.name.starts_with("vault.v"));
    assert_eq!(of_vaults.count(), known, "{context}");
    let expiry = db.engine().keyspace("vault.expiry").unwrap().unwrap();
    let expiring = db.engine().scan(expiry, KeyRange::all()).unwrap().count() as u64;
    let counted: u64 = db
        .tenants()
        .iter()
        .flat_map(|info| db.tenant(&info.name).unwrap().vaults())
        .map(|vault| vault.expiring)
        .sum();
    assert_eq!(expiring, counted, "{context}");
}

#[test]
fn power_is_lost_at_every_operation() {
    let whole = MemoryFileSystem::new();
    let nothing = Seen {
        tenants: Vec::new(),
        principals: Vec::new(),
        roles: Vec::new(),
        tokens: 0,
        audit: (0, 0),
    };
    let mut states = vec![nothing];
    assert_eq!(run(&whole, |db| states.push(look(db))), STEPS.len());
    assert_eq!(states.last().unwrap().audit.1, 1);
    let stride = if cfg!(debug_assertions) { 3 } else { 1 };
    for n in (0..=whole.operations()).step_by(stride) {
        let fs = MemoryFileSystem::new();
        fs.set_crash_point(Some(n));
        let done = run(&fs, |_| {});
        for policy in [
            CrashPolicy::DropUnsynced,
            CrashPolicy::KeepUnsynced,
            CrashPolicy::Random { percent: 50 },
        ] {
            let context = format!("{policy:?} at {n}, after {done} steps");
            let db = open(&fs.crash(n, policy)).unwrap();
            check_nothing_is_left(&db, &context);
            let found = look(&db);
            let allowed = &states[done..(done + 2).min(states.len())];
            assert!(
                allowed.contains(&found),
                "{context}: {found:#?}, of {allowed:#?}"
            );
            // It goes on.
            let control = db.access_control().unwrap();
            control.set_role("afterwards", []).unwrap();
            assert_eq!(control.verify_audit().unwrap(), found.audit.1 + 1);
        }
    }
}
