//! The subcommands that check and mend, as an operator runs them: real files, exit codes, text and JSON.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use vault_db::engine::{
    BackgroundWork, Engine, KeyspaceOptions, Lsm, LsmOptions, Reader, Settings, WriteOptions,
};

/// A small store: a table, and a log behind it.
fn store(directory: &Path) {
    let settings = Settings {
        background: BackgroundWork::Manual,
        log_segment_bytes: Some(64 << 10),
        ..Settings::default()
    };
    let store = Lsm::open(directory, LsmOptions::new(settings)).expect("nothing fails here");
    let options = KeyspaceOptions {
        block_bytes: 512,
        ..KeyspaceOptions::default()
    };
    let users = store
        .create_keyspace("users", &options)
        .expect("nothing fails here");
    for n in 0..200_u32 {
        let value = format!("user number {n}").repeat(3);
        store
            .put(users, &n.to_be_bytes(), value.as_bytes(), &WriteOptions::OS)
            .expect("nothing fails here");
    }
    store.flush(None).expect("nothing fails here");
    store
        .put(users, b"late", b"in the log", &WriteOptions::SYNC)
        .expect("nothing fails here");
    store.close().expect("nothing fails here");
}

fn vaultdb(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vaultdb"));
    command.args(arguments).output().expect("it was built")
}

fn text(path: &Path) -> &str {
    path.to_str()
        .expect("a temporary directory has a plain name")
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

#[track_caller]
fn ends(output: &Output, code: i32) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{}{errors}", said(output));
    said(output)
}

/// All that the store holds; who has it open is not of it.
fn image(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    use vault_core::vfs::{DiskFileSystem, EntryKind, FileSystem};
    let mut entries = DiskFileSystem
        .read_dir(directory)
        .expect("nothing fails here");
    entries.retain(|entry| entry.kind == EntryKind::File && entry.name != "LOCK");
    let read = |name: std::ffi::OsString| {
        let path = directory.join(name);
        let file = DiskFileSystem.open(&path).expect("nothing fails here");
        let mut bytes = vec![0; file.len().expect("nothing fails here") as usize];
        file.read_at(&mut bytes, 0).expect("nothing fails here");
        (path, bytes)
    };
    let mut image: Vec<_> = entries.into_iter().map(|entry| read(entry.name)).collect();
    image.sort();
    image
}

fn file(directory: &Path, ending: &str) -> PathBuf {
    let mut files = image(directory).into_iter().map(|(path, _)| path);
    files
        .find(|path| text(path).ends_with(ending))
        .expect("there is one")
}

fn flip(path: &Path, at: u64) {
    use vault_core::vfs::{DiskFileSystem, FileSystem};
    let file = DiskFileSystem
        .open_for_write(path)
        .expect("nothing fails here");
    let mut byte = [0];
    file.read_at(&mut byte, at).expect("nothing fails here");
    file.write_at(&[byte[0] ^ 1], at)
        .expect("nothing fails here");
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn a_sound_store_is_called_so() {
    let directory = tempfile::tempdir().unwrap();
    store(directory.path());
    let before = image(directory.path());
    let path = text(directory.path());
    let told = ends(&vaultdb(&["verify", path]), 0);
    assert!(
        told.contains("nothing is wrong") && told.contains("200 entries"),
        "{told}"
    );
    let verified = vaultdb(&["verify", path, "--json"]);
    ends(&verified, 0);
    let report = json(&verified);
    assert_eq!(report["checked"]["entries"], 200);
    assert_eq!(report["assurance"], "structure");
    assert_eq!(report["findings"].as_array().map(Vec::len), Some(0));
    assert!(verified.stderr.is_empty(), "progress is for terminals");
    let told = ends(
        &vaultdb(&["verify", path, "--sample", "10%", "--seed", "3"]),
        0,
    );
    assert!(told.contains("10% of the data blocks"), "{told}");
    ends(&vaultdb(&["verify", path, "--only", "log"]), 0);
    assert!(ends(&vaultdb(&["repair", path, "--dry-run"]), 0).contains("nothing to repair"));
    assert!(ends(&vaultdb(&["repair", path]), 0).contains("nothing to repair"));
    assert!(image(directory.path()).len() >= before.len());
    ends(&vaultdb(&["verify", path, "--quiet"]), 0);
}

#[test]
fn damage_is_found_planned_for_and_repaired_only_when_its_loss_is_accepted() {
    let directory = tempfile::tempdir().unwrap();
    store(directory.path());
    let path = text(directory.path());
    let table = file(directory.path(), ".tab");
    flip(&table, 140);
    let before = image(directory.path());
    let name = table.file_name().unwrap().to_str().unwrap();

    let told = ends(&vaultdb(&["verify", path]), 1);
    assert!(
        told.contains(&format!("damage: {name} at byte 128")),
        "{told}"
    );
    let verified = vaultdb(&["verify", path, "--json"]);
    ends(&verified, 1);
    assert_eq!(json(&verified)["findings"][0]["kind"], "block");
    assert_eq!(json(&verified)["findings"][0]["file"], name);

    let told = ends(&vaultdb(&["repair", path, "--dry-run"]), 1);
    assert!(
        told.contains("a dry run: nothing was changed") && told.contains("lost with"),
        "{told}"
    );
    let told = ends(&vaultdb(&["repair", path]), 1);
    assert!(told.contains("--accept-loss"), "{told}");
    assert!(image(directory.path()) == before, "something was written");

    let repaired = vaultdb(&["repair", path, "--accept-loss", "--json"]);
    ends(&repaired, 1);
    let report = json(&repaired);
    assert_eq!(report["done"], true);
    assert_eq!(report["plan"]["losses"][0]["name"], "users");
    let lost = PathBuf::from(report["lost"].as_str().unwrap());
    assert!(image(&lost).iter().any(|(path, _)| path.ends_with(name)));
    ends(&vaultdb(&["verify", path]), 0);

    let store = Lsm::open(directory.path(), LsmOptions::default()).unwrap();
    let users = store.keyspace("users").unwrap().unwrap();
    assert!(store.get(users, b"late").unwrap().is_some());
    let left = store.scan_prefix(users, b"").unwrap().count();
    assert!((100..200).contains(&left), "{left} entries");
}

#[test]
fn a_lost_pointer_costs_nothing() {
    let directory = tempfile::tempdir().unwrap();
    store(directory.path());
    let path = text(directory.path());
    let pointer = file(directory.path(), "CURRENT");
    vault_core::vfs::FileSystem::remove(&vault_core::vfs::DiskFileSystem, &pointer).unwrap();
    ends(&vaultdb(&["verify", path]), 1);
    let told = ends(&vaultdb(&["repair", path]), 0);
    assert!(
        told.contains("nothing would be lost") && told.contains("repaired"),
        "{told}"
    );
    ends(&vaultdb(&["verify", path]), 0);
}

#[test]
fn a_store_without_a_manifest_is_salvaged() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (directory.path().join("old"), directory.path().join("new"));
    store(&old);
    let manifest = file(&old, ".man");
    vault_core::vfs::FileSystem::remove(&vault_core::vfs::DiskFileSystem, &manifest).unwrap();
    let (old, new) = (text(&old), text(&new));
    ends(&vaultdb(&["verify", old]), 1);
    let told = ends(&vaultdb(&["repair", old]), 3);
    assert!(told.contains("salvage it into a new directory"), "{told}");
    let told = ends(&vaultdb(&["salvage", old, new, "--keyspace", "1=users"]), 1);
    assert!(told.contains(r#"keyspace 1, "users": "#), "{told}");
    assert!(told.contains("it cannot be known"), "{told}");
    ends(&vaultdb(&["verify", new]), 0);
    let store = Lsm::open(new, LsmOptions::default()).unwrap();
    let users = store.keyspace("users").unwrap().unwrap();
    assert_eq!(store.scan_prefix(users, b"").unwrap().count(), 201);
    drop(store);
    let refused = vaultdb(&["salvage", old, new, "--json"]);
    ends(&refused, 3);
    assert!(
        json(&refused)["error"]
            .as_str()
            .unwrap()
            .contains("already exists")
    );
}

#[test]
fn what_cannot_be_done_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let path = text(directory.path());
    let output = vaultdb(&["verify", path]);
    ends(&output, 3);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("there is no store at"), "{told}");
    store(directory.path());
    let open = Lsm::open(directory.path(), LsmOptions::default()).unwrap();
    let output = vaultdb(&["verify", path]);
    ends(&output, 0);
    flip(&file(directory.path(), ".tab"), 140);
    let output = vaultdb(&["repair", path, "--accept-loss"]);
    ends(&output, 3);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("is open for writing by process"), "{told}");
    drop(open);
}

#[test]
fn a_wrong_command_line_is_told_from_a_failure() {
    for wrong in [
        &["verify"][..],
        &["verify", "somewhere", "--sample", "0%"],
        &["mend", "somewhere"],
        &["salvage", "a", "b", "--keyspace", "users"],
        &[],
    ] {
        let output = vaultdb(wrong);
        ends(&output, 2);
        assert!(!output.stderr.is_empty());
    }
    let help = ends(&vaultdb(&["--help"]), 0);
    assert!(
        help.contains("Exit codes") && help.contains("salvage"),
        "{help}"
    );
}
