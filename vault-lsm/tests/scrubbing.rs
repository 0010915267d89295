//! Verification without keys: what happens to the bytes of an encrypted store is found by whoever cannot read them, a sound
//! store is never called damaged, and what cannot be known is never claimed.

mod keyed;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use vault_core::transform::Assurance;
use vault_core::vfs::{
    CrashPolicy, Fault, FaultKind, FileSystem, MemoryFileSystem, OperationClass,
};
use vault_core::{Engine, Error, WriteOptions};
use vault_lsm::Lsm;
use vault_lsm::check::{FindingKind, ScrubReport, Severity, VerifyProgress, scrub};

use keyed::{
    DIRECTORY, encrypted, fill, image, key, name, options, plain_options, scrubbed, sealed_files,
    value, verified, worst,
};

const HEADER: usize = 128;

fn go_on(_: &VerifyProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// A copy of the file system in which one file has other bytes.
fn with(fs: &MemoryFileSystem, path: &Path, bytes: &[u8]) -> MemoryFileSystem {
    let changed = fs.kill();
    changed.write_file(path, bytes).expect("nothing fails here");
    changed
}

/// Where the records of a framed file begin, and where the last one ends.
fn boundaries(bytes: &[u8]) -> Vec<usize> {
    let mut at = HEADER;
    let mut found = vec![at];
    while let Some(len) = bytes.get(at..at + 4) {
        let len = u32::from_le_bytes(len.try_into().expect("four bytes")) as usize;
        if len == 0 {
            break;
        }
        at += 12 + len;
        found.push(at);
    }
    found
}

fn is_framed(path: &Path) -> bool {
    let name = name(path);
    name.ends_with(".log") || name.ends_with(".man") || name.ends_with(".blob")
}

#[test]
fn a_sound_store_gives_no_finding_closed_or_killed() {
    for closed in [true, false] {
        let fs = encrypted(closed);
        let before = image(&fs);
        let report = scrubbed(&fs);
        assert!(report.findings.is_empty(), "{:#?}", report.findings);
        assert!(report.encrypted);
        assert_eq!(report.assurance, Assurance::Structure);
        assert_eq!(report.checked.files, sealed_files(&fs).len() as u64);
        let bytes: usize = sealed_files(&fs).iter().map(|(_, bytes)| bytes.len()).sum();
        assert_eq!(report.checked.bytes, bytes as u64);
        assert!(report.checked.records > 10 && report.checked.pieces >= 3);
        assert!(image(&fs) == before, "a scrub wrote something");

        let with_keys = verified(&fs);
        assert!(with_keys.findings.is_empty(), "{:#?}", with_keys.findings);
        assert_eq!(with_keys.assurance, Assurance::Authenticity);
        assert_eq!(with_keys.checked.files, report.checked.files);
    }
}

/// Every byte of every file: each is found, in its file. In what a killed store leaves there are bytes that mean nothing: the
/// unused ends of segments. A change there is told all the same, but not as damage.
#[test]
fn every_flipped_byte_is_found() {
    for closed in [true, false] {
        let sound = encrypted(closed);
        let (mut damage, mut doubt, mut notes) = (0, 0, 0);
        let mut in_records = 0;
        for (path, bytes) in sealed_files(&sound) {
            let file = name(&path);
            let used = if is_framed(&path) {
                *boundaries(&bytes).last().expect("the header at least")
            } else {
                bytes.len()
            };
            // What is not used is all alike: every byte right behind what is, and some further on.
            let unused = (used..bytes.len()).filter(|at| at - used < 64 || at % 509 == 0);
            for at in (0..used).chain(unused) {
                let mut changed = bytes.clone();
                changed[at] ^= 0x40;
                let report = scrubbed(&with(&sound, &path, &changed));
                let context = format!("{file}, byte {at}: {:#?}", report.findings);
                assert!(report.findings.iter().all(|f| f.file == file), "{context}");
                match worst(&report, &file) {
                    Some(Severity::Damage) => damage += 1,
                    Some(Severity::Unchecked) => {
                        doubt += 1;
                        in_records += usize::from(at < used);
                    }
                    Some(Severity::Note) => {
                        assert!(at >= used, "{context}");
                        notes += 1;
                    }
                    None => panic!("went unnoticed: {context}"),
                }
            }
        }
        println!(
            "closed: {closed}. Flipped and found: {damage} bytes as damage; {doubt} as doubt, of these {in_records} in records \
             that end in a zero; {notes} as torn tails. All that is no record lies in unused ends of segments"
        );
        assert!(damage > 10_000 && in_records * 50 < damage);
        // A clean close leaves no unused ends.
        assert!(!closed || (notes == 0 && doubt == in_records));
    }
}

/// Every length that a file can be cut to: each is found but one kind that nobody can know without keys, a log or a
/// manifest that ends with a whole record.
#[test]
fn every_truncation_is_found_but_at_the_ends_of_records() {
    let sound = encrypted(true);
    let (mut damage, mut doubt) = (0, 0);
    let mut unknowable = BTreeMap::<String, usize>::new();
    for (path, bytes) in sealed_files(&sound) {
        let file = name(&path);
        let ends = if is_framed(&path) {
            boundaries(&bytes)
        } else {
            Vec::new()
        };
        for len in 0..bytes.len() {
            let report = scrubbed(&with(&sound, &path, &bytes[..len]));
            let context = format!("{file} cut to {len}: {:#?}", report.findings);
            match worst(&report, &file) {
                Some(Severity::Damage) => damage += 1,
                Some(Severity::Unchecked) => doubt += 1,
                Some(Severity::Note) => panic!("taken for a note: {context}"),
                None => {
                    assert!(ends.contains(&len), "{context}");
                    *unknowable.entry(file.clone()).or_default() += 1;
                }
            }
            // With keys nothing is unknowable: a log is known by where it was durable, a manifest by the pointer.
        }
    }
    println!(
        "cut and found: {damage} as damage, {doubt} as doubt; not to be known: {unknowable:?}"
    );
    assert!(damage > 500 && doubt > 5000);
    for (path, bytes) in sealed_files(&sound) {
        for len in unknowable
            .contains_key(&name(&path))
            .then(|| boundaries(&bytes))
            .into_iter()
            .flatten()
        {
            if len < bytes.len() {
                let report = verified(&with(&sound, &path, &bytes[..len]));
                assert!(!report.is_clean(), "{} cut to {len}", name(&path));
            }
        }
    }
}

fn swap(fs: &MemoryFileSystem, a: &Path, b: &Path) -> ScrubReport {
    let read = |path| fs.read_file(path).expect("nothing fails here");
    let (bytes_a, bytes_b) = (read(a), read(b));
    let changed = with(fs, a, &bytes_b);
    changed.write_file(b, &bytes_a).expect("nothing fails here");
    scrubbed(&changed)
}

#[test]
fn files_that_changed_places_are_found() {
    let sound = encrypted(true);
    let files: Vec<PathBuf> = sealed_files(&sound)
        .into_iter()
        .map(|(path, _)| path)
        .collect();
    for a in &files {
        for b in files.iter().filter(|b| *b > a) {
            let report = swap(&sound, a, b);
            let (a, b) = (name(a), name(b));
            // The two files of the keyring have the same bytes.
            if a == "KEYRING" && b == "KEYRING.copy" {
                assert!(report.findings.is_empty(), "{:#?}", report.findings);
                continue;
            }
            for file in [a, b] {
                assert_eq!(
                    worst(&report, &file),
                    Some(Severity::Damage),
                    "{:#?}",
                    report.findings
                );
            }
        }
    }
}

/// A file of another store, with the same name: sealed under the same secret, and sound in itself.
#[test]
fn files_of_another_store_are_found() {
    let sound = encrypted(true);
    let other = MemoryFileSystem::new();
    fill(|| options(&other, 8)).unwrap().close().unwrap();
    let mut swapped = 0;
    for (path, _) in sealed_files(&sound) {
        let Ok(bytes) = other.read_file(&path) else {
            continue;
        };
        let report = scrubbed(&with(&sound, &path, &bytes));
        assert_eq!(
            report.damaged_files(),
            [name(&path)],
            "{:#?}",
            report.findings
        );
        swapped += 1;
    }
    assert!(swapped > 6);
    // A plain one among encrypted ones, and the other way round.
    let plain = MemoryFileSystem::new();
    fill(|| plain_options(&plain, 9)).unwrap().close().unwrap();
    for (path, bytes) in sealed_files(&plain) {
        let report = scrubbed(&with(&sound, &path, &bytes));
        assert_eq!(
            worst(&report, &name(&path)),
            Some(Severity::Damage),
            "{path:?}"
        );
        let encrypted = sound.read_file(&path).unwrap();
        let report = scrubbed(&with(&plain, &path, &encrypted));
        assert!(!report.encrypted);
        assert!(!report.is_clean(), "{path:?}");
    }
}

/// Without the pointer, the manifest or a keyring there is no store, and that shows. Which tables and segments there must be
/// is sealed: only keys tell.
#[test]
fn missing_files_are_found_where_that_can_be_known() {
    let sound = encrypted(true);
    for (path, _) in sealed_files(&sound) {
        let fs = sound.kill();
        fs.remove(&path).unwrap();
        let (file, report) = (name(&path), scrubbed(&fs));
        let known = [".tab", ".blob", ".log"];
        let known = !known.iter().any(|ending| file.ends_with(ending));
        assert_eq!(!report.is_clean(), known, "{file}: {:#?}", report.findings);
        let report = verified(&fs);
        // The segment that was made ready and never used is of no consequence.
        assert!(!report.is_clean(), "{file}");
    }
}

#[test]
fn an_older_keyring_is_told_from_a_copy_that_is_behind() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, options(&fs, 7)).unwrap();
    let (main, copy) = (
        Path::new(DIRECTORY).join("KEYRING"),
        Path::new(DIRECTORY).join("KEYRING.copy"),
    );
    let older = fs.read_file(&main).unwrap();
    store
        .create_keyspace("canary-space", &Default::default())
        .unwrap();
    store.close().unwrap();
    assert!(scrubbed(&fs).findings.is_empty());
    // A crash between the two leaves the copy behind; nothing else leaves the first one so.
    let behind = scrubbed(&with(&fs, &copy, &older));
    assert!(behind.is_clean(), "{:#?}", behind.findings);
    assert_eq!(behind.findings[0].kind, FindingKind::Keyring);
    let report = scrubbed(&with(&fs, &main, &older));
    assert_eq!(
        report.damaged_files(),
        ["KEYRING"],
        "{:#?}",
        report.findings
    );
    // Both: the whole keyring is an older one. The pointer knows, and only keys open it.
    let both = with(&with(&fs, &copy, &older), &main, &older);
    assert!(scrubbed(&both).is_clean());
    let report = verified(&both);
    assert_eq!(
        report.damaged_files(),
        ["KEYRING"],
        "{:#?}",
        report.findings
    );
}

/// A checksum is no authority: whoever changes a file on purpose makes it anew. The scrub, which says that it proves structure
/// alone, finds nothing then; verification with keys does.
#[test]
fn what_was_changed_on_purpose_is_found_with_keys_alone() {
    let sound = encrypted(true);
    for (path, bytes) in sealed_files(&sound) {
        let mut forged = bytes.clone();
        if is_framed(&path) {
            let ends = boundaries(&bytes);
            if ends.len() < 2 {
                continue;
            }
            forged[ends[0] + 12] ^= 1;
            let sum_at = ends[1] - 4;
            let sum = crc32fast::hash(&forged[ends[0] + 12..sum_at]);
            forged[sum_at..ends[1]].copy_from_slice(&sum.to_le_bytes());
        } else if name(&path).ends_with(".tab") {
            forged[HEADER + 1] ^= 1;
            let covered = bytes.len() - 32;
            let sum = crc32fast::hash(&forged[..covered]);
            forged[covered..covered + 4].copy_from_slice(&sum.to_le_bytes());
            let sum = crc32fast::hash(&forged[covered..covered + 20]);
            forged[covered + 20..covered + 24].copy_from_slice(&sum.to_le_bytes());
        } else {
            continue;
        }
        let fs = with(&sound, &path, &forged);
        assert!(scrubbed(&fs).is_clean(), "{path:?}");
        let report = verified(&fs);
        assert!(
            report.damaged_files().contains(&&*name(&path)),
            "{:#?}",
            report.findings
        );
    }
}

/// With keys, the checksums are checked too: one that does not match is the only thing wrong with its table.
#[test]
fn verification_with_keys_checks_the_checksums_too() {
    let sound = encrypted(true);
    let mut tables = 0;
    for (path, bytes) in sealed_files(&sound) {
        if !name(&path).ends_with(".tab") {
            continue;
        }
        tables += 1;
        for at in bytes.len() - 32..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x40;
            let report = verified(&with(&sound, &path, &changed));
            assert_eq!(report.findings.len(), 1, "{:#?}", report.findings);
            assert_eq!(report.findings[0].kind, FindingKind::Trailer);
            assert_eq!(report.damaged_files(), [name(&path)]);
        }
    }
    assert!(tables >= 3);
    for file in ["KEYRING", "KEYRING.copy"] {
        let path = Path::new(DIRECTORY).join(file);
        let bytes = sound.read_file(&path).unwrap();
        for at in (0..bytes.len()).step_by(7) {
            let mut changed = bytes.clone();
            changed[at] ^= 0x40;
            let report = verified(&with(&sound, &path, &changed));
            assert_eq!(report.damaged_files(), [file], "{:#?}", report.findings);
        }
        let fs = sound.kill();
        fs.remove(&path).unwrap();
        assert_eq!(verified(&fs).damaged_files(), [file]);
    }
}

/// However a process or the power ends: a store that opens is never called damaged.
#[test]
fn whatever_a_crash_leaves_is_never_called_damage() {
    let whole = {
        let fs = MemoryFileSystem::new();
        fill(|| options(&fs, 7)).unwrap().close().unwrap();
        fs.operations()
    };
    let (mut killed, mut clean, mut powerless) = (0, 0, 0);
    for point in (20..whole).step_by(3) {
        let fs = MemoryFileSystem::new();
        fs.set_crash_point(Some(point));
        // Only what closing does last may fail without an error.
        drop(fill(|| options(&fs, 7)).and_then(|store| store.close()));
        let mut left = vec![(fs.kill(), "killed")];
        for percent in [0, 50, 100] {
            let policy = CrashPolicy::Random { percent };
            left.push((fs.crash(point, policy), "without power"));
        }
        for (fs, how) in left {
            // An interrupted creation is no store yet.
            if Lsm::open(DIRECTORY, options(&fs.kill(), 3)).is_err()
                || fs.read_file(Path::new(DIRECTORY).join("CURRENT")).is_err()
            {
                continue;
            }
            let report = scrubbed(&fs);
            let mut findings = report.findings.iter();
            let damage = findings.find(|finding| finding.severity == Severity::Damage);
            assert_eq!(damage, None, "{how} at {point}: {:#?}", report.findings);
            killed += usize::from(how == "killed");
            powerless += usize::from(how != "killed");
            clean += usize::from(report.is_clean());
        }
    }
    println!(
        "{killed} killed and {powerless} without power: none called damaged, {clean} without a doubt"
    );
    assert!(killed > 50 && powerless > 150 && clean > killed);
}

#[test]
fn a_store_that_is_open_elsewhere_is_scrubbed_and_nothing_is_written() {
    let fs = MemoryFileSystem::new();
    let store = fill(|| options(&fs, 7)).unwrap();
    let space = store.keyspace("canary-space-a").unwrap().unwrap();
    for n in 0..20 {
        store
            .put(space, &key(n), &value(n), &WriteOptions::OS)
            .unwrap();
        let before = image(&fs);
        for class in [
            OperationClass::Create,
            OperationClass::Write,
            OperationClass::Sync,
        ] {
            let denied = FaultKind::Error(std::io::ErrorKind::ReadOnlyFilesystem);
            fs.inject(Fault::new(class, denied));
        }
        let report = scrubbed(&fs);
        fs.clear_faults();
        assert!(report.is_clean(), "{:#?}", report.findings);
        assert!(image(&fs) == before);
    }
    store.close().unwrap();
}

/// What a writer is at work on looks unfinished, or torn in the middle of a record, at one look and otherwise at the next.
#[test]
fn what_a_writer_is_at_work_on_is_no_damage() {
    let sound = encrypted(false);
    let by_ending = |ending: &str| {
        let files = sealed_files(&sound).into_iter();
        let mut files =
            files.filter(|(path, bytes)| name(path).ends_with(ending) && bytes.len() > 2000);
        files.next().expect("there is one")
    };
    // A table that grows all the time.
    let (table, bytes) = by_ending(".tab");
    let fs = with(&sound, &table, &bytes[..1000]);
    let mut len = 1000;
    let mut grow = |_: &VerifyProgress| {
        len += 1;
        fs.write_file(&table, &bytes[..len])
            .expect("nothing fails here");
        ControlFlow::Continue(())
    };
    let report = scrub(DIRECTORY, &plain_options(&fs, 1), &mut grow).unwrap();
    assert!(report.is_clean(), "{:#?}", report.findings);
    assert_eq!(report.findings.len(), 1, "{:#?}", report.findings);
    assert!(
        report.findings[0]
            .to_string()
            .contains("a writer is at work")
    );
    // One that stays as it is may be what a crash left, and is not called well.
    let fs = with(&sound, &table, &bytes[..1000]);
    let report = scrubbed(&fs);
    assert_eq!(worst(&report, &name(&table)), Some(Severity::Unchecked));
    // A record that is being copied into the log while it is read, and damage beside it, which stays.
    for damage in [None, Some(HEADER + 40)] {
        let (log, mut bytes) = by_ending(".log");
        let ends = boundaries(&bytes);
        if let Some(at) = damage {
            bytes[at] ^= 0x40;
        }
        let last = ends[ends.len() - 2];
        let mut copied = bytes.clone();
        copied[last + 20..ends[ends.len() - 1] - 2].fill(0);
        let fs = with(&sound, &log, &copied);
        let mut left = 18;
        let mut copy = |_: &VerifyProgress| {
            left -= 1;
            if left == 0 {
                fs.write_file(&log, &bytes).expect("nothing fails here");
            }
            ControlFlow::Continue(())
        };
        let report = scrub(DIRECTORY, &plain_options(&fs, 1), &mut copy).unwrap();
        assert!(left <= 0, "it was never copied whole");
        match damage {
            None => assert!(report.findings.is_empty(), "{:#?}", report.findings),
            Some(_) => assert_eq!(report.damaged_files(), [name(&log)]),
        }
        assert!(report.findings.len() <= 1, "{:#?}", report.findings);
    }
}

/// A plain store is verified as ever, and the report says which it was.
#[test]
fn a_plain_store_is_verified_with_all_that_it_says() {
    let fs = MemoryFileSystem::new();
    fill(|| plain_options(&fs, 7)).unwrap().close().unwrap();
    let report = scrubbed(&fs);
    assert!(
        report.findings.is_empty() && !report.encrypted,
        "{report:#?}"
    );
    assert_eq!(report.assurance, Assurance::Structure);
    assert!(report.checked.pieces > 10 && report.checked.records > 10);
    let mut flipped = 0;
    for (path, bytes) in sealed_files(&fs) {
        for at in (0..bytes.len()).step_by(13) {
            let mut changed = bytes.clone();
            changed[at] ^= 0x40;
            let report = scrubbed(&with(&fs, &path, &changed));
            assert_eq!(
                report.damaged_files(),
                [name(&path)],
                "byte {at}: {report:#?}"
            );
            flipped += 1;
        }
    }
    // Even what is missing is known: a plain manifest can be read.
    let table = sealed_files(&fs)
        .into_iter()
        .find(|(path, _)| name(path).ends_with(".tab"));
    fs.remove(&table.unwrap().0).unwrap();
    assert!(!scrubbed(&fs).is_clean());
    println!("plain: {flipped} flipped, all found");
}

#[test]
fn what_cannot_be_scrubbed_says_why() {
    let fs = MemoryFileSystem::new();
    let refused = |fs: &MemoryFileSystem| scrub(DIRECTORY, &plain_options(fs, 1), &mut go_on);
    assert!(matches!(refused(&fs), Err(Error::NoSuchStore { .. })));
    fs.create_dir_all(Path::new(DIRECTORY)).unwrap();
    fs.write_file(Path::new(DIRECTORY).join("notes.txt"), b"no store")
        .unwrap();
    assert!(matches!(refused(&fs), Err(Error::NotAStore { .. })));
    let fs = encrypted(true);
    let mut seen = Vec::new();
    let mut look = |progress: &VerifyProgress| {
        seen.push((progress.bytes_done, progress.bytes_total));
        ControlFlow::Continue(())
    };
    scrub(DIRECTORY, &plain_options(&fs, 1), &mut look).unwrap();
    assert!(
        seen.is_sorted()
            && seen
                .last()
                .is_some_and(|last| last.0 == last.1 && last.1 > 0)
    );
    let cancelled = scrub(DIRECTORY, &plain_options(&fs, 1), &mut |_| {
        ControlFlow::Break(())
    });
    assert!(matches!(cancelled, Err(Error::Cancelled)));
    // A newer Vault wrote it: nothing can be said of it.
    let table = sealed_files(&fs)
        .into_iter()
        .find(|(path, _)| name(path).ends_with(".tab"));
    let (path, mut bytes) = table.unwrap();
    bytes[8] = 9;
    let sum = crc32fast::hash(&bytes[..124]);
    bytes[124..128].copy_from_slice(&sum.to_le_bytes());
    let newer = with(&fs, &path, &bytes);
    assert!(matches!(refused(&newer), Err(Error::NewerFormat { .. })));
}
