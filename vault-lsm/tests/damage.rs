//! Whatever becomes of the bytes on disk, a read gives the right value or a typed error.
//!
//! Two small stores with all there is in them: tables on several levels with range tombstones,
//! merges and expiries, ingested tables, and a log. One was closed cleanly, the other's process ended. Each byte of
//! each file is changed in three ways, each file is cut at each length, sectors and pages are zeroed,
//! tables change places, files go missing. Then the store is opened and read whole, both ways.
//!
//! What is allowed:
//! - for the store that was closed: the right content, or an error. Nothing else.
//! - for the other also a shorter one: the state after an earlier commit, as a loss of power would have left
//!   it, where the damage hit the end of the log or of the manifest. The last records of both
//!   can't be told from ones that were never whole: nothing behind them says that they were durable.
//!   Where a single byte changed, at least that is there which was durable before the last commit: its
//!   record says so. Damage in any other file is refused or does no harm.
//!
//! By default every 37th place is visited. `VAULT_SWEEP=full cargo test --test damage` visits all,
//! `0/4` to `3/4` every fourth one.

#![expect(clippy::print_stdout, reason = "a sweep says how much it has covered")]

mod sweep;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use vault_core::vfs::MemoryFileSystem;
use vault_core::{Engine, Error, Result, WriteOptions};
use vault_lsm::Lsm;
use vault_lsm::check::{FindingKind, Severity, VerifyOptions, verify};

use sweep::run::{Account, filled, run};
use sweep::{DIRECTORY, Model, contents, keyspace_options, open, options, part, thinned, workload};

const ROUNDS: u64 = 44;
/// How far apart the places are that are visited by default.
const STRIDE: usize = 37;

fn stride() -> usize {
    let full = std::env::var_os("VAULT_SWEEP").is_some_and(|value| value == "full");
    match part() {
        _ if full => 1,
        Some((_, step)) => step as usize,
        None => thinned(STRIDE as u64) as usize,
    }
}

/// The first place to visit.
fn first() -> usize {
    part().map_or(0, |(first, _)| first as usize)
}

/// A store to damage.
struct Subject {
    fs: MemoryFileSystem,
    account: Account,
    files: Vec<PathBuf>,
    closed: bool,
}

impl Subject {
    fn new(closed: bool) -> Self {
        Self::after_rounds(ROUNDS, closed)
    }

    fn after_rounds(rounds: u64, closed: bool) -> Self {
        let fs = MemoryFileSystem::new();
        let (mut account, error) = run(&fs, &workload(rounds));
        assert!(error.is_none(), "{error:?}");
        let store = account.store.take().expect("it ran to the end");
        let left = if closed {
            store.close().expect("a clean close");
            fs.kill()
        } else {
            fs.kill()
        };
        let files = left.list().into_iter().map(|(path, _)| path);
        let files = files.filter(|path| path.starts_with(DIRECTORY) && !path.ends_with("LOCK"));
        let files = files.collect();
        Self {
            fs: left,
            account,
            files,
            closed,
        }
    }

    /// Reads the store after `damage`.
    fn after(&self, damage: &[(&Path, Option<Vec<u8>>)]) -> Outcome {
        let fs = self.fs.kill();
        for (path, bytes) in damage {
            match bytes {
                Some(bytes) => fs.write_file(path, bytes).expect("room for it"),
                None => vault_core::vfs::FileSystem::remove(&fs, path).expect("it is there"),
            }
        }
        let read = || -> Result<Model> { contents(&open(&fs)?) };
        match read() {
            Ok(found) => self.judge(&found),
            Err(Error::Corruption { .. }) => Outcome::Corruption,
            Err(Error::NewerFormat { .. } | Error::NotAStore { .. }) => Outcome::OtherError,
            Err(error) => panic!("not an error for damage: {error:?}"),
        }
    }

    /// What the found state is. A keyspace comes into being, and goes, at once and durably: where the end of log or
    /// manifest is gone, an empty one may be there early, or late.
    fn judge(&self, found: &Model) -> Outcome {
        let last = self.account.acknowledged;
        if *found == self.account.states[last] {
            return Outcome::Right;
        }
        let found = filled(found);
        let earlier = (0..=last).find(|&back| filled(&self.account.states[last - back]) == found);
        earlier.map_or(Outcome::Wrong, Outcome::Shorter)
    }

    fn read(&self, path: &Path) -> Vec<u8> {
        self.fs.read_file(path).expect("it is there")
    }

    /// Bytes worth damaging: up to the last that is not zero, and a little beyond.
    fn used(&self, path: &Path) -> usize {
        let bytes = self.read(path);
        let used = bytes.iter().rposition(|&byte| byte != 0).unwrap_or(0);
        (used + 40).min(bytes.len())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Right,
    /// The state so many commits earlier.
    Shorter(usize),
    Corruption,
    OtherError,
    Wrong,
}

/// Counts outcomes by kind of file, and refuses those that are not allowed.
#[derive(Default)]
struct Counts(BTreeMap<(String, &'static str), u64>);

impl Counts {
    fn note(&mut self, subject: &Subject, path: &Path, outcome: Outcome, context: &str) {
        let kind = path
            .extension()
            .map_or("CURRENT".into(), |extension| extension.to_string_lossy());
        let name = match outcome {
            Outcome::Right => "right",
            Outcome::Shorter(_) => "shorter",
            Outcome::Corruption => "corruption",
            Outcome::OtherError => "other error",
            Outcome::Wrong => "WRONG",
        };
        *self.0.entry((kind.to_string(), name)).or_default() += 1;
        let shorter = !subject.closed && (kind == "log" || kind == "man");
        let allowed = match outcome {
            Outcome::Wrong => false,
            Outcome::Shorter(_) => shorter,
            _ => true,
        };
        assert!(allowed, "{context}, {}: {outcome:?}", path.display());
    }

    fn print(&self, title: &str, subject: &Subject) {
        let which = if subject.closed { "closed" } else { "killed" };
        for ((kind, outcome), count) in &self.0 {
            println!("{title}, {which} store, {kind}: {outcome} {count}");
        }
    }
}

fn flip_bytes(subject: &Subject, stride: usize) {
    let mut counts = Counts::default();
    for path in &subject.files {
        let whole = subject.read(path);
        for at in (first()..subject.used(path)).step_by(stride) {
            for pattern in [0x01, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= pattern;
                let outcome = subject.after(&[(path, Some(bytes))]);
                let context = format!("byte {at} ^ {pattern:#x}");
                counts.note(subject, path, outcome, &context);
                if let Outcome::Shorter(back) = outcome {
                    let left = subject.account.acknowledged - back;
                    let evident = subject.account.durable_before_last;
                    assert!(
                        left >= evident,
                        "{context}, {}: {outcome:?}",
                        path.display()
                    );
                }
            }
        }
    }
    counts.print("bytes changed", subject);
}

fn cut_files(subject: &Subject) {
    let mut counts = Counts::default();
    for path in &subject.files {
        let whole = subject.read(path);
        for len in (first()..subject.used(path)).step_by(stride()) {
            let outcome = subject.after(&[(path, Some(whole[..len].to_vec()))]);
            counts.note(subject, path, outcome, &format!("cut to {len}"));
        }
    }
    counts.print("files cut", subject);
}

fn zero_places(subject: &Subject) {
    let mut counts = Counts::default();
    for path in &subject.files {
        let whole = subject.read(path);
        for size in [512, 4096] {
            for from in (0..subject.used(path)).step_by(size) {
                let mut bytes = whole.clone();
                let to = (from + size).min(bytes.len());
                bytes[from..to].fill(0);
                let outcome = subject.after(&[(path, Some(bytes))]);
                counts.note(subject, path, outcome, &format!("{from}..{to} zeroed"));
            }
        }
    }
    counts.print("places zeroed", subject);
}

fn swap_and_remove_files(subject: &Subject) {
    let mut counts = Counts::default();
    for (i, path) in subject.files.iter().enumerate() {
        let outcome = subject.after(&[(path, None)]);
        counts.note(subject, path, outcome, "removed");
        for other in &subject.files[i + 1..] {
            let damage: [(&Path, _); 2] = [
                (path, Some(subject.read(other))),
                (other, Some(subject.read(path))),
            ];
            let context = format!("swapped with {}", other.display());
            counts.note(subject, path, subject.after(&damage), &context);
        }
    }
    counts.print("files swapped or removed", subject);
}

#[test]
fn the_closed_store_is_right_or_refused() {
    let subject = Subject::new(true);
    assert_eq!(subject.after(&[]), Outcome::Right);
    swap_and_remove_files(&subject);
    zero_places(&subject);
    cut_files(&subject);
    flip_bytes(&subject, stride());
}

#[test]
fn the_killed_store_is_right_or_refused_or_a_little_shorter() {
    let subject = Subject::new(false);
    assert_eq!(subject.after(&[]), Outcome::Right);
    swap_and_remove_files(&subject);
    zero_places(&subject);
    cut_files(&subject);
    flip_bytes(&subject, stride());
}

/// What is last in log and manifest, and what stands in one of them behind the last of the other, depends on where
/// the workload was when its process ended: here it ends after each of its rounds, or by default after some. The
/// places are as far apart as ever.
#[test]
fn a_store_killed_after_any_round_is_right_or_refused_or_a_little_shorter() {
    let step = if stride() <= 2 { 1 } else { 6 };
    for rounds in (2..ROUNDS).step_by(step) {
        let mut subject = Subject::after_rounds(rounds, false);
        subject.files.retain(|path| {
            let extension = path.extension().and_then(|extension| extension.to_str());
            matches!(extension, Some("log" | "man"))
        });
        println!("after {rounds} rounds");
        flip_bytes(&subject, thinned(STRIDE as u64) as usize);
    }
}

/// A store with a keyspace each for a durable write and one that is flushed.
fn two_writes() -> (MemoryFileSystem, PathBuf, PathBuf) {
    let fs = MemoryFileSystem::new();
    let store = open(&fs).expect("nothing fails here");
    let a = store
        .create_keyspace("a", &keyspace_options("a"))
        .expect("nothing fails here");
    let b = store
        .create_keyspace("b", &keyspace_options("b"))
        .expect("nothing fails here");
    store
        .put(a, b"key", b"x", &WriteOptions::SYNC)
        .expect("nothing fails here");
    let newest = |extension: &str| {
        let mut files = fs.list().into_iter().map(|(path, _)| path);
        files
            .rfind(|path| path.extension().is_some_and(|e| e == extension))
            .expect("nothing fails here")
    };
    let (log, manifest) = (newest("log"), newest("man"));
    let image = fs.kill();
    store
        .put(a, b"more", b"x", &WriteOptions::OS)
        .expect("nothing fails here");
    store
        .put(b, b"key", b"x", &WriteOptions::OS)
        .expect("nothing fails here");
    store.flush(Some(b)).expect("nothing fails here");
    // The log as it was before the other writes, beside the table that holds the last of them.
    let cut = fs.kill();
    cut.write_file(&log, &image.read_file(&log).expect("nothing fails here"))
        .expect("nothing fails here");
    assert!(matches!(
        open(&cut).map(drop),
        Err(Error::Corruption { .. })
    ));
    (image, log, manifest)
}

/// The log ended before writes that a table of another keyspace was newer than, which is no prefix, and
/// nothing noticed: only a later record could have said that the log had been durable further on.
#[test]
fn a_log_that_ends_before_what_tables_rely_on_is_refused() {
    let _ = two_writes();
}

/// The last record of the manifest did not open, and passed for one that was never whole. It had named a log
/// segment, which was removed as nobody's, with durable writes in it.
#[test]
fn a_log_segment_that_the_manifest_lost_is_not_removed() {
    let (fs, log, manifest) = two_writes();
    let mut bytes = fs.read_file(&manifest).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs.write_file(&manifest, &bytes).unwrap();
    assert!(matches!(open(&fs).map(drop), Err(Error::Corruption { .. })));
    assert!(fs.read_file(&log).is_ok());
}

/// Each byte of durable records, where no table and no manifest edit says how far the log was durable: only the
/// records behind do. Breaking that check on purpose went unnoticed by the sweep above, in whose
/// workload a flush always follows and says the same.
#[test]
fn a_durable_record_is_missed_where_only_the_log_knows_of_it() {
    let fs = MemoryFileSystem::new();
    let store = open(&fs).unwrap();
    let a = store.create_keyspace("a", &keyspace_options("a")).unwrap();
    let log = || {
        let mut files = fs.list().into_iter().map(|(path, _)| path);
        files.rfind(|path| path.extension().is_some_and(|e| e == "log"))
    };
    let used = |path: &PathBuf| {
        let bytes = fs.read_file(path).unwrap();
        bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1
    };
    for key in [b"1", b"2"] {
        store.put(a, key, b"durable", &WriteOptions::SYNC).unwrap();
    }
    let log = log().unwrap();
    let durable = used(&log);
    store.put(a, b"3", b"behind", &WriteOptions::OS).unwrap();

    let (mut refused, whole) = (0, fs.read_file(&log).unwrap());
    for at in 0..durable {
        let image = fs.kill();
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        image.write_file(&log, &bytes).unwrap();
        let opened = open(&image);
        assert!(matches!(opened, Err(Error::Corruption { .. })), "byte {at}");
        refused += 1;
    }
    println!("{refused} bytes of durable records changed, {refused} refused");
}

/// An ingest stands in no log, only in the manifest. Where its edit was the last, one changed byte took it for
/// one that was never whole, and the ingested table was removed as nobody's; durable writes from after it
/// stayed, though. No state of the store had ever been like that. The log tells: it goes on behind a sequence number
/// that nothing accounts for.
#[test]
fn an_ingest_that_the_manifest_lost_is_missed() {
    let fs = MemoryFileSystem::new();
    let store = open(&fs).unwrap();
    let a = store.create_keyspace("a", &keyspace_options("a")).unwrap();
    store.put(a, b"1", b"x", &WriteOptions::SYNC).unwrap();
    store.ingest(a, [(b"2", b"x")]).unwrap();
    store.put(a, b"3", b"x", &WriteOptions::SYNC).unwrap();

    let image = fs.kill();
    let mut files = image.list().into_iter().map(|(path, _)| path);
    let manifest = files
        .rfind(|path| path.extension().is_some_and(|e| e == "man"))
        .unwrap();
    let mut bytes = image.read_file(&manifest).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    image.write_file(&manifest, &bytes).unwrap();
    let before = image.list();
    assert!(matches!(
        open(&image).map(drop),
        Err(Error::Corruption { .. })
    ));
    let reader = Lsm::open_read_only(DIRECTORY, &options(&image));
    assert!(matches!(reader.map(drop), Err(Error::Corruption { .. })));
    assert_eq!(image.list(), before);
    let report = verify(
        DIRECTORY,
        &options(&image),
        &VerifyOptions::default(),
        &mut |_| ControlFlow::Continue(()),
    );
    let findings = report.unwrap().findings;
    assert!(
        findings
            .iter()
            .any(|found| found.kind == FindingKind::Log && found.severity == Severity::Damage),
        "{findings:?}"
    );
}

/// A store was closed cleanly and opened again, and its process ended before the first write. What had been there before
/// the close stood in the log alone, and the pointer of the opening no longer said where that ended: cut, it passed for one whose
/// end was never durable.
#[test]
fn the_end_of_a_log_that_an_opening_has_read_is_missed() {
    let fs = MemoryFileSystem::new();
    let store = open(&fs).unwrap();
    let a = store.create_keyspace("a", &keyspace_options("a")).unwrap();
    for key in [b"1", b"2"] {
        store.put(a, key, b"durable", &WriteOptions::SYNC).unwrap();
    }
    store.close().unwrap();
    let image = {
        let _store = open(&fs).unwrap();
        fs.kill()
    };
    let mut files = image.list().into_iter().map(|(path, _)| path);
    let log = files.rfind(|path| path.extension().is_some_and(|e| e == "log"));
    let log = log.unwrap();
    let whole = image.read_file(&log).unwrap();
    let used = whole.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    for len in 128..used {
        let cut = image.kill();
        let mut bytes = whole.clone();
        bytes[len..].fill(0);
        cut.write_file(&log, &bytes).unwrap();
        let opened = open(&cut);
        assert!(
            matches!(opened, Err(Error::Corruption { .. })),
            "cut to {len}"
        );
    }
}
