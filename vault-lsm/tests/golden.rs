//! Golden stores: what earlier versions wrote opens, holds what it held, and is sound; what this version writes is
//! what it always wrote; and what a later version wrote is refused with advice.
//!
//! A format that changes makes [`this_build_writes_the_same_bytes`] fail. Then the change is meant, and gets a
//! version, a section in `docs/format/`, a new [`FORMAT`] and new golden stores (`cargo xtask golden make all`); or
//! it is not, and has to go. From the first release on, golden stores are never changed or removed. Until then nobody
//! has data to keep: the format stays version 1, and its stores are made anew when it changes. `v1-without-instances` has two that
//! were written before manifests stated an instance.

mod golden_support;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use vault_core::transform::HEADER_BYTES;
use vault_core::vfs::{DiskFileSystem, EntryKind, FileSystem, MemoryFileSystem};
use vault_core::{Engine, Error, ErrorKind, WriteOptions};
use vault_lsm::Lsm;
use vault_lsm::check::{RepairPermission, VerifyOptions, verify};

use golden_support::{ALL, DIRECTORY, FORMAT, describe, make, options};

/// More than all golden stores of a format together may take in the repository.
const FORMAT_BYTES_MAX: usize = 256 << 10;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn read(path: &Path) -> Vec<u8> {
    let file = DiskFileSystem
        .open(path)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut bytes = vec![0; file.len().expect("nothing fails here") as usize];
    file.read_at(&mut bytes, 0).expect("nothing fails here");
    bytes
}

fn names(path: &Path, kind: EntryKind) -> Vec<String> {
    let entries = DiskFileSystem
        .read_dir(path)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let wanted = entries.into_iter().filter(|entry| entry.kind == kind);
    let mut names: Vec<String> = wanted
        .map(|entry| entry.name.into_string().expect("nothing fails here"))
        .collect();
    names.sort();
    names
}

/// A golden store as it is in the repository.
struct Kept {
    name: String,
    files: BTreeMap<String, Vec<u8>>,
    transcript: String,
}

fn kept(format: &str) -> Vec<Kept> {
    let directory = root().join(format);
    let load = |name: String| {
        let path = directory.join(&name);
        let files = names(&path, EntryKind::File).into_iter();
        let files = files.map(|file| (file.clone(), read(&path.join(file))));
        Kept {
            files: files.collect(),
            transcript: String::from_utf8(read(&directory.join(format!("{name}.txt"))))
                .expect("nothing fails here"),
            name,
        }
    };
    names(&directory, EntryKind::Directory)
        .into_iter()
        .map(load)
        .collect()
}

impl Kept {
    /// A copy in memory, with the zeros that were left out of log segments.
    fn copy(&self) -> MemoryFileSystem {
        let fs = MemoryFileSystem::new();
        fs.create_dir_all(DIRECTORY.as_ref())
            .expect("nothing fails here");
        for line in self
            .transcript
            .lines()
            .filter(|line| line.starts_with("file "))
        {
            let words: Vec<&str> = line.split(' ').collect();
            let mut bytes = self.files[words[1]].clone();
            bytes.resize(words[3].parse().expect("nothing fails here"), 0);
            fs.write_file(Path::new(DIRECTORY).join(words[1]), &bytes)
                .expect("nothing fails here");
        }
        fs
    }

    /// What the store held when it was made.
    fn content(&self) -> String {
        let lines = self
            .transcript
            .lines()
            .filter(|line| !line.starts_with("file "));
        lines.map(|line| format!("{line}\n")).collect()
    }
}

#[test]
fn stores_of_every_format_open_and_hold_what_they_held() {
    let formats = names(&root(), EntryKind::Directory);
    assert!(formats.contains(&FORMAT.to_owned()));
    for format in formats {
        for golden in kept(&format) {
            let context = format!("{format}/{}", golden.name);
            let fs = golden.copy();
            let all = VerifyOptions::default();
            let report = verify(DIRECTORY, &options(&fs), &all, &mut |_| {
                ControlFlow::Continue(())
            });
            let report = report.unwrap_or_else(|error| panic!("{context}: {error}"));
            assert!(report.is_clean(), "{context}: {:#?}", report.findings);

            let reading = Lsm::open_read_only(DIRECTORY, &options(&fs)).unwrap();
            assert_eq!(
                describe(&reading).unwrap(),
                golden.content(),
                "{context}, read-only"
            );
            let store = Lsm::open(DIRECTORY, options(&fs))
                .unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_eq!(describe(&store).unwrap(), golden.content(), "{context}");

            // It goes on with this version.
            let first = store.keyspaces().unwrap()[0].id;
            store
                .put(first, b"later", b"a later version", &WriteOptions::SYNC)
                .unwrap();
            store.flush(None).unwrap();
            let all = vault_core::KeyRange::new::<&[u8]>(..);
            store
                .compact(first, all, &mut |_| ControlFlow::Continue(()))
                .unwrap();
            store.close().unwrap();
            let store = Lsm::open(DIRECTORY, options(&fs)).unwrap();
            let fifo = context.ends_with("fifo");
            let later = describe(&store).unwrap();
            let without: String = later.replace("later = a later version\n", "");
            assert!(
                later != without && (fifo || without == golden.content()),
                "{context}"
            );
        }
    }
}

#[test]
fn this_build_writes_the_same_bytes() {
    let kept = kept(FORMAT);
    let names: Vec<&str> = kept.iter().map(|golden| &*golden.name).collect();
    let mut expected = ALL.map(|(name, _)| name);
    expected.sort_unstable();
    assert_eq!(
        names, expected,
        "make the missing ones: cargo xtask golden make NAME"
    );
    let advice = "is this a change of format? Then give it a version, document it, raise FORMAT in \
        tests/golden_support/mod.rs and run `cargo xtask golden make all`; never change a golden store";
    for golden in kept {
        let (name, build) = ALL
            .into_iter()
            .find(|(name, _)| *name == golden.name)
            .unwrap();
        let made = make(build);
        assert_eq!(made.transcript, golden.transcript, "{name}: {advice}");
        for (file, bytes) in &made.files {
            let kept = &golden.files[file];
            let differs = bytes.iter().zip(kept).position(|(a, b)| a != b);
            let differs =
                differs.or((bytes.len() != kept.len()).then_some(bytes.len().min(kept.len())));
            assert_eq!(
                differs, None,
                "{name}/{file} differs at this byte: {advice}"
            );
        }
        assert_eq!(made.files.len(), golden.files.len(), "{name}: {advice}");
    }
}

/// Each byte of each file of each golden store changed, and each file cut at each length: the store holds what it
/// held, or is refused. `tests/damage.rs` does more to one store; here are the features it does without. By default
/// every 29th place is visited; `VAULT_SWEEP=full` visits all.
#[test]
fn damage_of_any_of_them_is_refused_or_harmless() {
    let full = std::env::var_os("VAULT_SWEEP").is_some_and(|value| value == "full");
    let stride = if full { 1 } else { 29 };
    // Where the writer was not closed, the end of its log may be gone.
    let closed = kept(FORMAT)
        .into_iter()
        .filter(|golden| golden.name != "unclean-end");
    let (mut right, mut refused) = (0, 0);
    for golden in closed {
        let content = golden.content();
        for (file, whole) in &golden.files {
            let changed = (0..whole.len()).step_by(stride).map(|at| {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << (at % 8);
                (format!("byte {at} changed"), bytes)
            });
            let cut = (0..whole.len()).step_by(stride);
            let cut = cut.map(|len| (format!("cut to {len}"), whole[..len].to_vec()));
            for (damage, bytes) in changed.chain(cut) {
                let fs = golden.copy();
                fs.write_file(Path::new(DIRECTORY).join(file), &bytes)
                    .unwrap();
                let opened = Lsm::open(DIRECTORY, options(&fs));
                let context = format!("{}/{file}, {damage}", golden.name);
                match opened.and_then(|store| describe(&store)) {
                    Ok(found) => {
                        assert_eq!(found, content, "{context}");
                        right += 1;
                    }
                    Err(
                        Error::Corruption { .. }
                        | Error::NewerFormat { .. }
                        | Error::NotAStore { .. }
                        | Error::Encrypted { .. }
                        | Error::NotEncrypted { .. }
                        | Error::UnacceptableKeyring { .. }
                        | Error::WrongKey { .. },
                    ) => refused += 1,
                    Err(error) => panic!("{context}: {error:?}"),
                }
            }
        }
    }
    println!("golden stores damaged: right {right}, refused {refused}");
    assert!(refused > 10 * right, "damage went unnoticed too often");
}

#[test]
fn golden_stores_are_small() {
    for format in names(&root(), EntryKind::Directory) {
        let of = |golden: &Kept| {
            golden.files.values().map(Vec::len).sum::<usize>() + golden.transcript.len()
        };
        let bytes: usize = kept(&format).iter().map(of).sum();
        assert!(bytes < FORMAT_BYTES_MAX, "{format}: {bytes} bytes");
    }
}

/// The same store with the version of one kind of file raised, header checksum and all.
#[test]
fn a_store_of_a_later_format_is_refused_with_advice() {
    let kept = kept(FORMAT);
    let golden = kept.iter().find(|golden| golden.name == "leveled").unwrap();
    let mut kinds = 0;
    for ending in ["CURRENT", ".man", ".tab", ".log"] {
        let fs = golden.copy();
        let Some(file) = golden.files.keys().find(|file| file.ends_with(ending)) else {
            panic!("no file {ending}");
        };
        let path = Path::new(DIRECTORY).join(file);
        let mut bytes = fs.read_file(&path).unwrap();
        bytes[8..10].copy_from_slice(&99_u16.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..HEADER_BYTES - 4]).to_le_bytes();
        bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&checksum);
        fs.write_file(&path, &bytes).unwrap();
        let before = fs.list();

        let all = VerifyOptions::default();
        let mut go_on = |_: &_| ControlFlow::Continue(());
        let refusals = [
            Lsm::open(DIRECTORY, options(&fs)).map(drop),
            verify(DIRECTORY, &options(&fs), &all, &mut go_on).map(drop),
            vault_lsm::check::repair(DIRECTORY, &options(&fs), RepairPermission::Plan, &mut go_on)
                .map(drop),
        ];
        for refusal in refusals {
            let error = refusal.expect_err("it is of a later format");
            assert!(
                matches!(error, Error::NewerFormat { found: 99, .. }),
                "{file}: {error}"
            );
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            let said = error.to_string();
            assert!(
                said.contains(file) && said.contains("open it with a newer Vault"),
                "{said}"
            );
        }
        let mut after = fs.list();
        after.retain(|(path, _)| !path.ends_with("LOCK"));
        assert_eq!(after, before, "something was written");
        kinds += 1;
    }
    assert_eq!(kinds, 4);
}
