//! What `unzip`, `python3` and `jq` make of an archive, as `docs/operations/snapshots.md` has it. Where a program is missing, the test says
//! so and goes on.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test that calls other programs, and says which are missing"
)]

mod support;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use vault_core::vfs::DiskFileSystem;
use vault_snapshot::archive::{Form, Manifest};
use vault_snapshot::destination::Directory;
use vault_snapshot::repository::{CreateOptions, Parent, Repository, RepositoryOptions, Source};

use support::*;

/// Runs a line of shell; `None` where one of the programs it needs is missing.
fn shell(directory: &Path, needs: &[&str], line: &str) -> Option<String> {
    for program in needs {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {program}")])
            .output();
        if !found.unwrap().status.success() {
            println!("SKIPPED, there is no {program} here: {line}");
            return None;
        }
    }
    let ran = Command::new("sh")
        .args(["-ec", line])
        .current_dir(directory)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    let complained = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{line}\n{said}\n{complained}");
    Some(said)
}

fn repository(root: &Path) -> Repository {
    let directory = Directory::new(Arc::new(DiskFileSystem::new()), root);
    Repository::open(Arc::new(directory), RepositoryOptions::default()).unwrap()
}

fn read_all(directory: &Path) -> Files {
    let entries = std::fs::read_dir(directory).unwrap();
    let files = entries.map(|entry| entry.unwrap().path());
    files
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read(&path).unwrap())
        })
        .collect()
}

/// The lines of the operator's guide, in the directory of a snapshot.
fn checked_by_hand(directory: &Path, made: &Manifest) {
    shell(directory, &["unzip"], "unzip -tq snapshot.zip");
    shell(
        directory,
        &["unzip"],
        "unzip -p snapshot.zip manifest.json | cmp - manifest.json",
    );
    let Some(()) = shell(
        directory,
        &["unzip"],
        "mkdir check && unzip -q snapshot.zip -d check",
    )
    .map(drop) else {
        return;
    };
    let hashes = r#"jq -r '.name as $n | .entries[] | select(.holder == $n) | "\(.sha256)  check/\(.path)"' manifest.json | sha256sum -c --quiet"#;
    shell(directory, &["jq", "sha256sum"], hashes);
    let there = shell(
        directory,
        &["find"],
        "find check -type f ! -name manifest.json | wc -l",
    );
    let there: usize = there.unwrap().trim().parse().unwrap();
    assert_eq!(there, made.own_entries().count());
    let wanted = "jq '[.name as $n | .entries[] | select(.holder == $n)] | length' manifest.json";
    if let Some(wanted) = shell(directory, &["jq"], wanted) {
        assert_eq!(wanted.trim().parse(), Ok(there));
    }
    let python = "import zipfile; z = zipfile.ZipFile('snapshot.zip'); assert z.testzip() is None; print(len(z.namelist()))";
    if let Some(said) = shell(directory, &["python3"], &format!("python3 -c \"{python}\"")) {
        assert_eq!(said.trim().parse(), Ok(there + 1));
    }
    std::fs::remove_dir_all(directory.join("check")).unwrap();
}

#[test]
fn a_chain_is_checked_and_restored_by_hand() {
    let scratch = tempfile::tempdir().unwrap();
    let repository = repository(scratch.path());
    let options = CreateOptions {
        parent: Parent::Newest,
        ..CreateOptions::default()
    };
    let mut files = some_files(1);
    files.insert("000011.table".into(), vec![7; 3 << 20]);
    let full = repository.create(source_of(&files), &options, &()).unwrap();
    let first = files.clone();
    files.insert("000012.table".into(), vec![8; 100]);
    let next = repository.create(source_of(&files), &options, &()).unwrap();
    for made in [&full, &next] {
        checked_by_hand(&scratch.path().join(made.name.to_string()), made);
    }
    let unpack = format!("unzip -q {}/snapshot.zip 'store/*' -d one", full.name);
    if shell(scratch.path(), &["unzip"], &unpack).is_some() {
        assert_eq!(read_all(&scratch.path().join("one/store")), first);
    }
    let name = next.name;
    let unpack = format!(
        r#"jq -r '.entries[] | "\(.holder) \(.path)"' {name}/manifest.json |
           while read -r holder path; do unzip -q "$holder/snapshot.zip" "$path" -d two; done"#
    );
    if shell(scratch.path(), &["unzip", "jq"], &unpack).is_some() {
        assert_eq!(read_all(&scratch.path().join("two/store")), files);
    }
}

/// Documents have the fields of Zip64, however short they are.
#[test]
fn documents_are_checked_by_hand() {
    let scratch = tempfile::tempdir().unwrap();
    let repository = repository(scratch.path());
    let mut source = Source::new(STORE, Form::Logical);
    for (name, lines) in [("users", 50_000), ("über/alles", 3), ("CON", 0)] {
        source.documents.push(document(name, lines));
    }
    let made = repository
        .create(source, &CreateOptions::default(), &())
        .unwrap();
    checked_by_hand(&scratch.path().join(made.name.to_string()), &made);
}
