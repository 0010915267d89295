//! What the tests of `vaultdb snapshot` have in common: a store, a repository, the process, and what they hold.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use vault_core::vfs::{DiskFileSystem, EntryKind, FileSystem};
use vault_db::snapshot::LogArchiver;
use vault_db::{Database, Quota};

/// What a database holds: by vault, with its tenant in front, each entry in order.
pub(crate) type Content = BTreeMap<String, Vec<(String, i64)>>;

pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `vaultdb snapshot`, in this place: paths are relative to it.
    pub(crate) fn snapshot(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vaultdb"));
        command.current_dir(self.0.path()).stdin(Stdio::null());
        command.arg("snapshot").args(arguments).output().unwrap()
    }

    /// Runs it, and gives what it said.
    #[track_caller]
    pub(crate) fn ends(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.snapshot(arguments);
        let said = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}{errors}");
        said + &errors
    }

    /// Runs it with `--json`, and gives the one document.
    #[track_caller]
    pub(crate) fn json(&self, code: i32, arguments: &[&str]) -> Value {
        let output = self.snapshot(&[arguments, &["--json"]].concat());
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{errors}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The file of a snapshot.
    pub(crate) fn archive(&self, name: &str) -> PathBuf {
        self.at("snapshots").join(name).join("snapshot.zip")
    }

    /// The manifest beside it: what a snapshot has last.
    pub(crate) fn manifest(&self, name: &str) -> PathBuf {
        self.at("snapshots").join(name).join("manifest.json")
    }

    pub(crate) fn is_there(&self, name: &str) -> bool {
        DiskFileSystem.read_dir(&self.at(name)).is_ok()
    }
}

/// Every file below a directory, but for those whose locks say who is at work.
pub(crate) fn image(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut image = BTreeMap::new();
    for entry in DiskFileSystem.read_dir(directory).unwrap() {
        let path = directory.join(&entry.name);
        if entry.kind == EntryKind::Directory {
            image.extend(self::image(&path));
        } else if entry.name != "LOCK" && entry.name != "repository.lock" {
            let file = DiskFileSystem.open(&path).unwrap();
            let mut bytes = vec![0; file.len().unwrap() as usize];
            file.read_at(&mut bytes, 0).unwrap();
            image.insert(path, bytes);
        }
    }
    image
}

pub(crate) fn flip(path: &Path, at: u64) {
    let file = DiskFileSystem.open_for_write(path).unwrap();
    let mut byte = [0];
    file.read_at(&mut byte, at).unwrap();
    file.write_at(&[byte[0] ^ 1], at).unwrap();
}

pub(crate) fn content(db: &Database) -> Content {
    let mut content = Content::new();
    let mut take = |name: String, vault: vault_db::Vault| {
        let items = vault.items::<String, i64>().unwrap();
        content.insert(name, items.map(Result::unwrap).collect());
    };
    for info in db.vaults() {
        take(info.name.clone(), db.existing_vault(&info.name).unwrap());
    }
    for tenant in db.tenants() {
        let tenant = db.tenant(&tenant.name).unwrap();
        for info in tenant.vaults() {
            let name = format!("{}/{}", tenant.name(), info.name);
            take(name, tenant.existing_vault(&info.name).unwrap());
        }
    }
    content
}

/// The name that a result has in a field.
pub(crate) fn name(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// A store with two vaults and a tenant's.
pub(crate) fn fill(place: &Place) -> Content {
    let db = Database::open(place.at("store")).unwrap();
    let users = db.vault("users").unwrap();
    for n in 0..300_i64 {
        users.put(format!("user {n:03}"), &n).unwrap();
    }
    db.vault("visits").unwrap().put("all", &7).unwrap();
    let tenant = db.create_tenant("acme", Quota::NONE).unwrap();
    tenant.vault("users").unwrap().put("wile", &1).unwrap();
    close(&db)
}

/// Changes an entry, removes one, adds one.
pub(crate) fn change(place: &Place) -> Content {
    let db = open(place);
    let users = db.vault("users").unwrap();
    users.put("user 000", &-1).unwrap();
    users.remove("user 001").unwrap();
    users.put("zoe", &26).unwrap();
    db.vault("late").unwrap().put("a", &1).unwrap();
    close(&db)
}

pub(crate) fn open(place: &Place) -> Database {
    Database::open(place.at("store")).unwrap()
}

pub(crate) fn close(db: &Database) -> Content {
    let content = content(db);
    db.close().unwrap();
    content
}

pub(crate) fn content_at(directory: &Path) -> Content {
    close(&Database::open(directory).unwrap())
}

/// A store, two snapshots, the second on the first; their names, and what was there then.
pub(crate) struct Two {
    pub(crate) place: Place,
    pub(crate) names: [String; 2],
    pub(crate) contents: [Content; 2],
}

pub(crate) fn two() -> Two {
    let place = Place::new();
    let first = fill(&place);
    let full = place.json(0, &["create", "store", "snapshots"]);
    let second = change(&place);
    let incremental = place.json(0, &["create", "store", "snapshots", "--tag", "weekly"]);
    let names = [&full, &incremental].map(|made| name(&made["name"]).to_owned());
    Two {
        place,
        names,
        contents: [first, second],
    }
}

/// Carries out what must change nothing anywhere in the place.
#[track_caller]
pub(crate) fn changes_nothing(place: &Place, code: i32, arguments: &[&str]) -> String {
    let before = image(&place.at("."));
    let said = place.ends(code, arguments);
    assert!(image(&place.at(".")) == before, "{said}");
    said
}

/// Ends an archiver when everything that was written is in the archive.
#[track_caller]
pub(crate) fn ship_all(db: &Database, archiver: LogArchiver) {
    let latest = db.engine().latest_sequence();
    for _ in 0..3_000 {
        if archiver.status().sequence >= latest {
            archiver.stop();
            return;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    panic!("{:?}", archiver.status());
}
