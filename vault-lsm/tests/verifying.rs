//! Verification: a sound store has no findings, each kind of damage is found in the file that it is in, and
//! nothing is ever written.
//!
//! By default every 31st byte is damaged. `VAULT_SWEEP=full cargo test --test verifying` damages all.

mod sweep;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use vault_core::transform::Assurance;
use vault_core::vfs::{Fault, FaultKind, MemoryFileSystem, OperationClass};
use vault_core::{Engine, Error, WriteOptions};
use vault_lsm::check::{
    FindingKind, Severity, VerifyOptions, VerifyProgress, VerifyReport, verify,
};
use vault_lsm::{BackgroundWork, Lsm};

use sweep::run::run;
use sweep::{DIRECTORY, contents, keyspace_options, noise, open, options, workload};

const ROUNDS: u64 = 44;
const DENIED: FaultKind = FaultKind::Error(std::io::ErrorKind::PermissionDenied);

fn stride() -> usize {
    let full = std::env::var_os("VAULT_SWEEP").is_some_and(|value| value == "full");
    if full { 1 } else { 31 }
}

/// A store with tables on several levels, range deletes, merges, expiries, ingested tables, and a log.
fn store(closed: bool) -> MemoryFileSystem {
    let fs = MemoryFileSystem::new();
    let (mut account, error) = run(&fs, &workload(ROUNDS));
    assert!(error.is_none(), "{error:?}");
    let store = account.store.take().expect("it ran to the end");
    if closed {
        store.close().expect("a clean close");
    }
    fs.kill()
}

fn check(fs: &MemoryFileSystem, what: &VerifyOptions) -> VerifyReport {
    let mut go_on = |_: &VerifyProgress| ControlFlow::Continue(());
    verify(DIRECTORY, &options(fs), what, &mut go_on).expect("it can be read")
}

fn check_all(fs: &MemoryFileSystem) -> VerifyReport {
    check(fs, &VerifyOptions::default())
}

fn files(fs: &MemoryFileSystem, ending: &str) -> Vec<PathBuf> {
    let paths = fs.list().into_iter().map(|(path, _)| path);
    paths
        .filter(|path| path.starts_with(DIRECTORY) && path.to_string_lossy().ends_with(ending))
        .collect()
}

fn image(fs: &MemoryFileSystem) -> Vec<(PathBuf, Vec<u8>)> {
    let read = |(path, _)| {
        let bytes = fs.read_file(&path).expect("it was just listed");
        (path, bytes)
    };
    fs.list().into_iter().map(read).collect()
}

fn name(path: &Path) -> String {
    path.file_name()
        .expect("nothing fails here")
        .to_string_lossy()
        .into_owned()
}

fn flip(fs: &MemoryFileSystem, path: &Path, at: usize) {
    let mut bytes = fs.read_file(path).expect("nothing fails here");
    bytes[at] ^= 0x40;
    fs.write_file(path, &bytes).expect("nothing fails here");
}

#[test]
fn a_sound_store_has_no_findings_and_everything_was_looked_at() {
    for closed in [true, false] {
        let fs = store(closed);
        let before = image(&fs);
        let report = check_all(&fs);
        assert!(report.is_clean(), "{:#?}", report.findings);
        assert_eq!(report.assurance, Assurance::Structure);
        let checked = report.checked;
        assert!(checked.blocks > 40 && checked.entries > 40, "{checked:?}");
        assert!(checked.filter_probes > 40 && checked.manifest_records > 1);
        assert!(checked.log_batches > 0 && checked.log_operations > checked.log_batches);
        let kinds = [".tab", ".blob", ".log"];
        let needed = kinds
            .map(|ending| files(&fs, ending).len())
            .iter()
            .sum::<usize>()
            + 2;
        assert!(checked.values > 0 && !files(&fs, ".blob").is_empty());
        assert_eq!(checked.files, needed as u64);
        assert!(image(&fs) == before, "verification wrote something");
    }
}

#[test]
fn a_flipped_byte_is_found_in_the_file_that_it_is_in() {
    let sound = store(true);
    let wrong = |path: &Path, at: usize| {
        let fs = sound.kill();
        flip(&fs, path, at);
        let report = check_all(&fs);
        let at_fault = report.damaged_files();
        assert_eq!(at_fault, [name(path)], "byte {at}: {:#?}", report.findings);
        report
    };
    for path in files(&sound, ".tab") {
        let bytes = sound.read_file(&path).unwrap().len();
        assert_eq!(wrong(&path, 20).findings[0].kind, FindingKind::Header);
        assert_eq!(wrong(&path, 140).findings[0].kind, FindingKind::Block);
        // The footer, and the properties before it.
        assert_eq!(
            wrong(&path, bytes - 10).findings[0].kind,
            FindingKind::Block
        );
        wrong(&path, bytes - 80);
    }
    for path in files(&sound, ".blob") {
        let bytes = sound.read_file(&path).unwrap().len();
        assert_eq!(wrong(&path, 20).findings[0].kind, FindingKind::Header);
        for at in [130, 150, bytes - 30, bytes - 1] {
            assert_eq!(wrong(&path, at).findings[0].kind, FindingKind::Value);
        }
    }
    // One of them was made ready and never begun.
    let mut logs = files(&sound, ".log");
    logs.retain(|path| sound.read_file(path).unwrap().len() > 200);
    assert!(!logs.is_empty());
    for path in logs {
        assert_eq!(wrong(&path, 150).findings[0].kind, FindingKind::Log);
    }
    for path in files(&sound, ".man") {
        assert_eq!(wrong(&path, 200).findings[0].kind, FindingKind::Manifest);
    }
    let pointer = Path::new(DIRECTORY).join("CURRENT");
    assert_eq!(wrong(&pointer, 130).findings[0].kind, FindingKind::Pointer);
}

#[test]
fn missing_and_cut_files_are_found() {
    let sound = store(true);
    for path in files(&sound, "") {
        let file = name(&path);
        if file == "LOCK" {
            continue;
        }
        let fs = sound.kill();
        vault_core::vfs::FileSystem::remove(&fs, &path).unwrap();
        let report = check_all(&fs);
        assert!(!report.is_clean(), "{file} is missing");
        let named = report.findings.iter().any(|finding| finding.file == file);
        assert!(named, "{file} is missing: {:#?}", report.findings);

        let fs = sound.kill();
        let bytes = sound.read_file(&path).unwrap();
        fs.write_file(&path, &bytes[..bytes.len() / 2]).unwrap();
        let report = check_all(&fs);
        let damaged = report.damaged_files();
        assert_eq!(damaged, [file], "{:#?}", report.findings);
    }
}

#[test]
fn a_longer_table_is_found_and_its_content_still_read() {
    let fs = store(true);
    let path = files(&fs, ".tab").remove(0);
    let mut bytes = fs.read_file(&path).unwrap();
    bytes.extend_from_slice(b"what somebody wrote behind it");
    fs.write_file(&path, &bytes).unwrap();
    let report = check_all(&fs);
    assert_eq!(report.findings.len(), 1, "{:#?}", report.findings);
    assert_eq!(report.findings[0].kind, FindingKind::Length);
}

#[test]
fn swapped_tables_are_found() {
    let fs = store(true);
    let tables = files(&fs, ".tab");
    let (a, b) = (&tables[0], &tables[1]);
    let (bytes_a, bytes_b) = (fs.read_file(a).unwrap(), fs.read_file(b).unwrap());
    fs.write_file(a, &bytes_b).unwrap();
    fs.write_file(b, &bytes_a).unwrap();
    assert_eq!(check_all(&fs).damaged_files(), [name(a), name(b)]);
}

/// Orphans, foreign files and an unfinished pointer are told of, and are no damage.
#[test]
fn what_does_not_belong_is_noted_and_left_alone() {
    let fs = store(true);
    for (file, kind) in [
        ("notes.txt", FindingKind::Foreign),
        ("900000.tab", FindingKind::Orphan),
        ("CURRENT.new", FindingKind::Orphan),
    ] {
        fs.write_file(Path::new(DIRECTORY).join(file), b"what is this")
            .unwrap();
        let report = check_all(&fs);
        assert!(report.is_clean(), "{:#?}", report.findings);
        let finding = report.findings.iter().find(|finding| finding.file == file);
        assert_eq!(finding.expect("it is noted").kind, kind);
        assert_eq!(finding.expect("it is noted").severity, Severity::Note);
    }
}

#[test]
fn findings_come_in_a_stable_order_damage_first() {
    let fs = store(true);
    fs.write_file(Path::new(DIRECTORY).join("a note"), b"")
        .unwrap();
    for path in files(&fs, ".tab") {
        flip(&fs, &path, 140);
        flip(&fs, &path, 20);
    }
    let (first, second) = (check_all(&fs), check_all(&fs));
    assert_eq!(first.findings, second.findings);
    assert!(first.findings.is_sorted());
    assert_eq!(first.findings.last().unwrap().severity, Severity::Note);
}

#[test]
fn a_sample_reads_fewer_blocks_and_all_metadata() {
    let fs = store(true);
    let all = check_all(&fs).checked;
    let sampled = |seed| VerifyOptions {
        sample_percent: 10.0,
        seed,
        ..VerifyOptions::default()
    };
    let some = check(&fs, &sampled(1));
    assert!(some.is_clean(), "{:#?}", some.findings);
    assert!(some.checked.entries < all.entries / 2, "{:?}", some.checked);
    assert!(some.checked.blocks > 0 && some.checked.files == all.files);
    assert_eq!(some, check(&fs, &sampled(1)), "the seed decides");
    // What a small sample misses, another one finds.
    let path = files(&fs, ".tab").remove(0);
    flip(&fs, &path, 140);
    let found = (0..200).filter(|&seed| !check(&fs, &sampled(seed)).is_clean());
    let found = found.count();
    assert!((1..100).contains(&found), "found {found} times of 200");
    // Metadata is looked at whatever the sample.
    let fs = store(true);
    let path = files(&fs, ".tab").remove(0);
    let bytes = fs.read_file(&path).unwrap().len();
    flip(&fs, &path, bytes - 80);
    assert!(!check(&fs, &sampled(3)).is_clean());
    for sample_percent in [0.0, -1.0, 100.5, f64::NAN] {
        let what = VerifyOptions {
            sample_percent,
            ..VerifyOptions::default()
        };
        let mut go_on = |_: &VerifyProgress| ControlFlow::Continue(());
        let refused = verify(DIRECTORY, &options(&fs), &what, &mut go_on);
        assert!(
            matches!(refused, Err(Error::InvalidSetting { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn parts_can_be_left_out() {
    let fs = store(true);
    flip(&fs, &files(&fs, ".tab")[0], 140);
    let only_log = VerifyOptions {
        tables: false,
        ..VerifyOptions::default()
    };
    assert!(check(&fs, &only_log).is_clean());
    let fs = store(true);
    flip(&fs, &files(&fs, ".log")[0], 150);
    let only_tables = VerifyOptions {
        log: false,
        ..VerifyOptions::default()
    };
    assert!(check(&fs, &only_tables).is_clean());
}

#[test]
fn progress_grows_to_the_whole_and_can_cancel() {
    let fs = store(true);
    flip(&fs, &files(&fs, ".tab")[0], 20);
    let mut seen: Vec<VerifyProgress> = Vec::new();
    let mut note = |progress: &VerifyProgress| {
        seen.push(progress.clone());
        ControlFlow::Continue(())
    };
    let all = VerifyOptions::default();
    verify(DIRECTORY, &options(&fs), &all, &mut note).unwrap();
    assert!(seen.len() > 20, "{}", seen.len());
    assert!(seen.is_sorted_by_key(|progress| progress.bytes_done));
    let last = seen.last().unwrap();
    assert!(last.bytes_total > 0 && last.bytes_done == last.bytes_total);
    assert!(
        seen.iter()
            .all(|progress| progress.bytes_total == last.bytes_total)
    );

    let mut calls = 0;
    let mut stop = |_: &VerifyProgress| {
        calls += 1;
        if calls == 10 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let stopped = verify(DIRECTORY, &options(&fs), &all, &mut stop);
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    assert_eq!(calls, 10);
}

/// On a medium that refuses every write, and with every write counted.
#[test]
fn a_read_only_medium_is_enough() {
    let fs = store(false);
    for class in [
        OperationClass::Create,
        OperationClass::Write,
        OperationClass::Rename,
        OperationClass::Remove,
        OperationClass::Link,
        OperationClass::Sync,
        OperationClass::SyncDir,
        OperationClass::Lock,
    ] {
        fs.inject(Fault::new(class, DENIED).sticky());
    }
    assert!(check_all(&fs).is_clean());
}

/// What the operating system cannot read is told apart from what is wrong.
#[test]
fn an_unreadable_table_is_not_called_damaged() {
    let fs = store(true);
    let path = files(&fs, ".tab").remove(0);
    fs.inject(
        Fault::new(OperationClass::Read, DENIED)
            .sticky()
            .on_path(name(&path)),
    );
    let report = check_all(&fs);
    assert!(!report.is_clean());
    let found = &report.findings[0];
    assert_eq!(
        (found.severity, found.kind),
        (Severity::Unchecked, FindingKind::Unreadable)
    );
    assert_eq!(report.damaged_files(), [name(&path)]);
}

#[test]
fn what_is_no_store_is_refused() {
    let fs = MemoryFileSystem::new();
    let mut go_on = |_: &VerifyProgress| ControlFlow::Continue(());
    let all = VerifyOptions::default();
    let mut refused = |path: &str| verify(path, &options(&fs), &all, &mut go_on).unwrap_err();
    assert!(matches!(refused("/nowhere"), Error::NoSuchStore { .. }));
    vault_core::vfs::FileSystem::create_dir_all(&fs, Path::new("/empty")).unwrap();
    assert!(matches!(refused("/empty"), Error::NoSuchStore { .. }));
    fs.write_file("/empty/notes.txt", b"").unwrap();
    assert!(matches!(refused("/empty"), Error::NotAStore { .. }));
    assert!(matches!(
        refused("/empty/notes.txt"),
        Error::NotAStore { .. }
    ));
}

/// The manifest, the log and the tables change while they are looked at: none of that is damage.
#[test]
fn nothing_is_wrong_beside_a_busy_writer() {
    let fs = MemoryFileSystem::new();
    let busy = options(&fs).background(BackgroundWork::Threads { compaction: 1 });
    let store = Lsm::open(DIRECTORY, busy).unwrap();
    let a = store.create_keyspace("a", &keyspace_options("a")).unwrap();
    let b = store.create_keyspace("b", &keyspace_options("b")).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicU64::new(0));
    let (stop, count) = (Arc::clone(&done), Arc::clone(&written));
    let writer = std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            let n = count.fetch_add(1, Ordering::Relaxed);
            let keyspace = if n % 3 == 0 { b } else { a };
            let key = format!("k{:04}", n * 7 % 900);
            let durability = if n % 50 == 0 {
                WriteOptions::SYNC
            } else {
                WriteOptions::OS
            };
            store
                .put(keyspace, key.as_bytes(), &noise(n, 300), &durability)
                .unwrap();
            if n % 700 == 0 {
                let pairs = (0..20_u8).map(|i| (vec![b'i', i], noise(n, 50)));
                store.ingest(a, pairs).unwrap();
            }
        }
        store.close().unwrap();
    });
    let (mut entries, mut looks) = (0, 0);
    while looks < 40 || written.load(Ordering::Relaxed) < 3000 {
        let report = check_all(&fs);
        assert!(report.is_clean(), "{:#?}", report.findings);
        entries = entries.max(report.checked.entries);
        looks += 1;
    }
    done.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    assert!(entries > 100, "{entries} checked");
    assert!(check_all(&fs).is_clean());
    open(&fs).unwrap().close().unwrap();
    assert!(check_all(&fs).is_clean());
}

/// Each byte changed, one at a time: verification finds it, or it made no difference. (It may have hit the last
/// records of log or manifest, that nothing behind says to have been durable: then that is noted.)
#[test]
fn every_changed_byte_is_found_or_makes_no_difference() {
    for closed in [true, false] {
        let fs = MemoryFileSystem::new();
        let (mut account, error) = run(&fs, &workload(ROUNDS));
        assert!(error.is_none(), "{error:?}");
        let store = account.store.take().expect("it ran to the end");
        if closed {
            store.close().unwrap();
        }
        let sound = fs.kill();
        let mut counts: BTreeMap<(String, &str), u64> = BTreeMap::new();
        for path in files(&sound, "") {
            if path.ends_with("LOCK") {
                continue;
            }
            let whole = sound.read_file(&path).unwrap();
            for at in (0..whole.len()).step_by(stride()) {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << (at % 8);
                let fs = sound.kill();
                fs.write_file(&path, &bytes).unwrap();
                let report = check_all(&fs);
                let outcome = if report.is_clean() {
                    let found = contents(&open(&fs).expect("it was called sound")).unwrap();
                    let torn = report
                        .findings
                        .iter()
                        .any(|f| f.kind == FindingKind::TornTail);
                    if found == *account.state() {
                        "no difference"
                    } else {
                        let earlier = account.states.contains(&found);
                        assert!(torn && earlier && !closed, "{}: byte {at}", path.display());
                        "torn tail, noted"
                    }
                } else {
                    // The last record of a manifest may never have been whole: then that is noted, and the
                    // damage shows where the files do not agree with it.
                    let named = report.findings.iter().any(|f| f.file == name(&path));
                    assert!(named, "{}: byte {at}: {report:#?}", path.display());
                    "found"
                };
                let kind = path
                    .extension()
                    .map_or("CURRENT".into(), |e| e.to_string_lossy());
                *counts.entry((kind.into_owned(), outcome)).or_default() += 1;
            }
        }
        for ((kind, outcome), count) in &counts {
            println!("closed {closed}, {kind}: {outcome} {count}");
        }
        let found = counts
            .iter()
            .filter(|((_, outcome), _)| *outcome == "found");
        assert!(found.map(|(_, count)| count).sum::<u64>() > 200);
    }
}
