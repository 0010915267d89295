//! The subcommands on encrypted stores: where their keys may come from, what can be done without one, and that the output
//! says which it was and tells nothing of what the store holds.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use vault_core::vfs::{DiskFileSystem, EntryKind, FileSystem};
use vault_db::encryption::{EncryptedProtection, Kdf, KeyFile, Passphrase, SecretBytes};
use vault_db::engine::{
    BackgroundWork, EncryptedStore, Engine, KeyspaceOptions, Lsm, LsmOptions, Reader, Settings,
    WriteOptions,
};

const DIGITS: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

fn options() -> LsmOptions {
    LsmOptions::new(Settings {
        background: BackgroundWork::Manual,
        log_segment_bytes: Some(64 << 10),
        ..Settings::default()
    })
}

/// Fills a store under a key of which the file is given.
fn fill(directory: &Path, key_file: &Path) {
    let source = std::sync::Arc::new(KeyFile::new(key_file));
    let protection = EncryptedProtection::with_source(source);
    fill_with(directory, protection);
}

fn fill_with(directory: &Path, protection: EncryptedProtection) {
    let store = EncryptedStore::open_with(directory, options(), protection).expect("a new store");
    let shape = KeyspaceOptions {
        block_bytes: 512,
        ..KeyspaceOptions::default()
    };
    let users = store.create_keyspace("secret-users", &shape);
    let users = users.expect("nothing fails here");
    for n in 0..200_u32 {
        let (key, value) = (format!("secret-key-{n:03}"), "secret-value ".repeat(4));
        store
            .put(users, key.as_bytes(), value.as_bytes(), &WriteOptions::OS)
            .expect("nothing fails here");
    }
    store.flush(None).expect("nothing fails here");
    store
        .put(users, b"late", b"in the log", &WriteOptions::SYNC)
        .expect("nothing fails here");
    store.close().expect("nothing fails here");
}

#[expect(
    clippy::disallowed_methods,
    reason = "a key file is no file of a store, and its permissions matter"
)]
fn key_file(directory: &Path, digits: &str) -> PathBuf {
    use std::io::Write;
    let path = directory.join("key");
    let mut file = std::fs::OpenOptions::new();
    let file = file.write(true).create_new(true).mode(0o600).open(&path);
    let mut file = file.expect("a new file");
    file.write_all(digits.as_bytes()).expect("a few bytes");
    path
}

struct Bench {
    _directory: tempfile::TempDir,
    store: PathBuf,
    key: PathBuf,
    new: PathBuf,
}

fn bench() -> Bench {
    let directory = tempfile::tempdir().expect("a directory");
    let key = key_file(directory.path(), DIGITS);
    let store = directory.path().join("store");
    fill(&store, &key);
    Bench {
        store,
        key,
        new: directory.path().join("new"),
        _directory: directory,
    }
}

fn vaultdb(arguments: &[&str]) -> Output {
    vaultdb_with(arguments, &[])
}

fn vaultdb_with(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vaultdb"));
    command.stdin(Stdio::null()).args(arguments);
    command.envs(variables.iter().copied());
    command.output().expect("it was built")
}

fn text(path: &Path) -> &str {
    path.to_str()
        .expect("a temporary directory has a plain name")
}

#[track_caller]
fn ends(output: &Output, code: i32) -> String {
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{told}{errors}");
    for secret in ["secret-key", "secret-value", DIGITS] {
        assert!(
            !told.contains(secret) && !errors.contains(secret),
            "{told}{errors}"
        );
    }
    told + &errors
}

fn file(directory: &Path, ending: &str) -> PathBuf {
    let entries = DiskFileSystem.read_dir(directory).expect("it is there");
    let mut files = entries
        .into_iter()
        .filter(|entry| entry.kind == EntryKind::File);
    let found = files.find(|entry| entry.name.to_string_lossy().ends_with(ending));
    directory.join(found.expect("there is one").name)
}

fn flip(path: &Path, at: u64) {
    let file = DiskFileSystem.open_for_write(path).expect("it is there");
    let mut byte = [0];
    file.read_at(&mut byte, at).expect("it can be read");
    file.write_at(&[byte[0] ^ 1], at)
        .expect("it can be written");
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn keys_come_from_where_the_options_say() {
    let bench = bench();
    let (store, key) = (text(&bench.store), text(&bench.key));
    let command = format!("cat '{key}'");
    for (arguments, variables) in [
        (vec!["--key-file", key], vec![]),
        (vec!["--key-env", "VAULT_KEY"], vec![("VAULT_KEY", DIGITS)]),
        (vec!["--key-command", &command], vec![]),
    ] {
        let arguments = [&["verify", store][..], &arguments].concat();
        let told = ends(&vaultdb_with(&arguments, &variables), 0);
        assert!(told.contains("verified with the store's keys"), "{told}");
        assert!(
            told.contains("nothing is wrong") && told.contains("200 entries"),
            "{told}"
        );
    }
    let verified = vaultdb(&["verify", store, "--key-file", key, "--json"]);
    ends(&verified, 0);
    assert_eq!(json(&verified)["assurance"], "authenticity");
}

#[test]
fn passphrases_come_from_variables_and_commands() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = directory.path().join("store");
    let secret = SecretBytes::from_string("open sesame".to_owned()).expect("short");
    let passphrase = Passphrase::new(secret).expect("not empty");
    // Accepted by whoever opens it, and as fast as that goes.
    let kdf = Kdf::Pbkdf2HmacSha256 {
        iterations: 100_000,
    };
    let protection = EncryptedProtection::with_source(std::sync::Arc::new(passphrase)).kdf(kdf);
    fill_with(&store, protection);
    let store = text(&store);
    let variable = [("PASSPHRASE", "open sesame")];
    let from_variable = ["verify", store, "--passphrase-env", "PASSPHRASE"];
    ends(&vaultdb_with(&from_variable, &variable), 0);
    let from_command = ["verify", store, "--passphrase-command", "echo open sesame"];
    ends(&vaultdb(&from_command), 0);
    let told = ends(
        &vaultdb_with(&from_variable, &[("PASSPHRASE", "open barley")]),
        3,
    );
    assert!(
        told.contains("does not open") && !told.contains("barley"),
        "{told}"
    );
    let told = ends(
        &vaultdb(&["verify", store, "--passphrase-command", "exit 7"]),
        3,
    );
    assert!(told.contains('7'), "{told}");
    let told = ends(
        &vaultdb(&["verify", store, "--passphrase-env", "UNSET_VARIABLE"]),
        3,
    );
    assert!(told.contains("UNSET_VARIABLE"), "{told}");
}

#[test]
fn without_a_key_the_options_are_named_and_nothing_is_done() {
    let bench = bench();
    let (store, new) = (text(&bench.store), text(&bench.new));
    for arguments in [
        &["verify", store][..],
        &["repair", store],
        &["salvage", store, new],
    ] {
        let told = ends(&vaultdb(arguments), 3);
        assert!(told.contains("is encrypted"), "{told}");
        for option in [
            "--key-file",
            "--key-env",
            "--passphrase-command",
            "--without-keys",
        ] {
            assert!(told.contains(option), "{told}");
        }
    }
    assert!(DiskFileSystem.kind(&bench.new).unwrap().is_none());
    let told = ends(
        &vaultdb(&["verify", store, "--key-file", "/no/such/key"]),
        3,
    );
    assert!(told.contains("/no/such/key"), "{told}");
    // Keys for a store that has none.
    let plain = bench.new.with_file_name("plain");
    Lsm::open(&plain, options()).unwrap().close().unwrap();
    let told = ends(
        &vaultdb(&["verify", text(&plain), "--key-file", text(&bench.key)]),
        3,
    );
    assert!(told.contains("is not encrypted"), "{told}");
    for wrong in [
        &["verify", store, "--without-keys", "--key-file", "key"][..],
        &["verify", store, "--without-keys", "--sample", "1%"],
        &["verify", store, "--key-file", "key", "--key-env", "KEY"],
    ] {
        ends(&vaultdb(wrong), 2);
    }
}

#[test]
fn whoever_has_no_key_still_finds_what_happened_to_the_files() {
    let bench = bench();
    let store = text(&bench.store);
    let told = ends(&vaultdb(&["verify", store, "--without-keys"]), 0);
    assert!(
        told.contains("verified without keys") && told.contains("nothing is wrong"),
        "{told}"
    );
    let scrubbed = vaultdb(&["verify", store, "--without-keys", "--json"]);
    ends(&scrubbed, 0);
    assert_eq!(json(&scrubbed)["assurance"], "structure");
    assert_eq!(json(&scrubbed)["encrypted"], true);
    flip(&file(&bench.store, ".tab"), 300);
    let told = ends(&vaultdb(&["verify", store, "--without-keys"]), 1);
    assert!(
        told.contains(".tab") && told.contains("with the checksum"),
        "{told}"
    );
    let told = ends(&vaultdb(&["verify", store, "--without-keys", "--quiet"]), 1);
    assert!(
        !told.contains("verified without keys") && told.contains(".tab"),
        "{told}"
    );
    // A plain one too, with all that there is to know of it.
    let plain = bench.new.with_file_name("plain");
    Lsm::open(&plain, options()).unwrap().close().unwrap();
    let scrubbed = vaultdb(&["verify", text(&plain), "--without-keys", "--json"]);
    ends(&scrubbed, 0);
    assert_eq!(json(&scrubbed)["encrypted"], false);
    let told = ends(&vaultdb(&["verify", text(&plain)]), 0);
    assert!(told.contains("verified by checksums"), "{told}");
}

#[test]
fn damage_is_repaired_and_salvaged_with_the_key() {
    let bench = bench();
    let (store, key, new) = (text(&bench.store), text(&bench.key), text(&bench.new));
    flip(&file(&bench.store, ".tab"), 300);
    let told = ends(&vaultdb(&["salvage", store, new, "--key-file", key]), 1);
    assert!(
        told.contains("keyspace 1") && !told.contains("secret-users"),
        "{told}"
    );
    ends(&vaultdb(&["verify", new, "--key-file", key]), 0);
    ends(&vaultdb(&["verify", new, "--without-keys"]), 0);

    let told = ends(
        &vaultdb(&["repair", store, "--key-file", key, "--dry-run"]),
        1,
    );
    assert!(
        told.contains("withheld") && !told.contains("secret-users"),
        "{told}"
    );
    let shown = [
        "repair",
        store,
        "--key-file",
        key,
        "--dry-run",
        "--show-names",
    ];
    assert!(ends(&vaultdb(&shown), 1).contains("secret-users"));
    let repaired = vaultdb(&[
        "repair",
        store,
        "--key-file",
        key,
        "--accept-loss",
        "--json",
    ]);
    ends(&repaired, 1);
    let plan = PathBuf::from(json(&repaired)["lost"].as_str().unwrap()).join("plan.txt");
    let plan = DiskFileSystem.open(&plan).unwrap();
    let mut bytes = vec![0; plan.len().unwrap() as usize];
    plan.read_at(&mut bytes, 0).unwrap();
    let plan = String::from_utf8(bytes).unwrap();
    assert!(
        plan.contains("withheld") && !plan.contains("secret"),
        "{plan}"
    );
    ends(&vaultdb(&["verify", store, "--key-file", key]), 0);

    let protection =
        EncryptedProtection::with_source(std::sync::Arc::new(KeyFile::new(&bench.key)));
    let opened = EncryptedStore::open_with(&bench.store, options(), protection).unwrap();
    let users = opened.keyspace("secret-users").unwrap().unwrap();
    assert!(opened.get(users, b"late").unwrap().is_some());
    assert!((100..=200).contains(&opened.scan_prefix(users, b"").unwrap().count()));
}
