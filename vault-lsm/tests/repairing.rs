//! Repair: a damaged store opens again, what is lost lies within what the plan named, everything else is exactly as
//! it was, a copy of what was dropped is kept, and a dry run changes nothing.
//!
//! By default every 97th byte is damaged. `VAULT_SWEEP=full cargo test --test repairing` damages all.
#![expect(clippy::print_stdout, reason = "a sweep says how much it has covered")]

mod sweep;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use vault_core::vfs::{CrashPolicy, FileSystem, MemoryFileSystem};
use vault_core::{Engine, Error, WriteOptions};
use vault_lsm::check::{
    Loss, RepairPermission, RepairReport, RepairVerdict, Severity, VerifyOptions, VerifyReport,
    repair, verify,
};

use sweep::run::{Account, exercise, run};
use sweep::{DIRECTORY, Model, contents, keyspace_options, noise, open, options, workload};

const ROUNDS: u64 = 44;

fn stride() -> usize {
    let full = std::env::var_os("VAULT_SWEEP").is_some_and(|value| value == "full");
    if full { 1 } else { 97 }
}

fn check(fs: &MemoryFileSystem) -> VerifyReport {
    let all = VerifyOptions::default();
    verify(DIRECTORY, &options(fs), &all, &mut |_| {
        ControlFlow::Continue(())
    })
    .expect("it can be read")
}

fn mend(fs: &MemoryFileSystem, dry_run: bool) -> Result<RepairReport, Error> {
    let permission = if dry_run {
        RepairPermission::Plan
    } else {
        RepairPermission::AcceptLoss
    };
    repair(DIRECTORY, &options(fs), permission, &mut |_| {
        ControlFlow::Continue(())
    })
}

fn image(fs: &MemoryFileSystem) -> BTreeMap<PathBuf, Vec<u8>> {
    let read = |(path, _)| {
        let bytes = fs.read_file(&path).expect("it was just listed");
        (path, bytes)
    };
    fs.list().into_iter().map(read).collect()
}

/// A store to damage, and what it holds.
struct Subject {
    fs: MemoryFileSystem,
    model: Model,
    files: Vec<PathBuf>,
    account: Account,
}

impl Subject {
    fn new(closed: bool) -> Self {
        let fs = MemoryFileSystem::new();
        let (mut account, error) = run(&fs, &workload(ROUNDS));
        assert!(error.is_none(), "{error:?}");
        let store = account.store.take().expect("it ran to the end");
        if closed {
            store.close().expect("a clean close");
        }
        let fs = fs.kill();
        let model = account.state().clone();
        let paths = fs.list().into_iter().map(|(path, _)| path);
        let files = paths.filter(|path| path.starts_with(DIRECTORY) && !path.ends_with("LOCK"));
        Self {
            files: files.collect(),
            fs,
            model,
            account,
        }
    }

    fn used(&self, path: &Path) -> usize {
        let bytes = self.fs.read_file(path).expect("it is there");
        let used = bytes.iter().rposition(|&byte| byte != 0).unwrap_or(0);
        (used + 40).min(bytes.len())
    }

    /// Repairs a damaged store and holds the outcome against the plan.
    fn mended(&self, damaged: &MemoryFileSystem, context: &str) -> Outcome {
        let report = check(damaged);
        let before = image(damaged);
        let dry = mend(damaged, true).expect("a plan can be made");
        assert!(!dry.done && dry.lost.is_none());
        assert!(
            image(damaged) == before,
            "{context}: a dry run wrote something"
        );
        let done = mend(damaged, false).unwrap_or_else(|error| panic!("{context}: {error}"));
        assert_eq!(
            dry.plan, done.plan,
            "{context}: it did something else than it said"
        );
        match &done.plan.verdict {
            RepairVerdict::Sound => {
                assert!(report.is_clean(), "{context}: {:#?}", report.findings);
                assert!(!done.done);
                self.no_worse_than_torn(damaged, context)
            }
            RepairVerdict::NeedsSalvage { reasons } => {
                assert!(
                    !done.done && !reasons.is_empty() && !report.is_clean(),
                    "{context}"
                );
                let mut after = image(damaged);
                after.retain(|path, _| !path.ends_with("LOCK"));
                let mut before = before;
                before.retain(|path, _| !path.ends_with("LOCK"));
                assert!(after == before, "{context}: it wrote without repairing");
                Outcome::NeedsSalvage
            }
            RepairVerdict::Repairable => {
                assert!(done.done, "{context}");
                self.copies_are_kept(damaged, &before, &done, context);
                let report = check(damaged);
                assert!(report.is_clean(), "{context}: {:#?}", report.findings);
                self.agrees_with(damaged, &done.plan.losses, context)
            }
        }
    }

    /// A store that needs no repair holds all, or what a torn tail leaves of it.
    fn no_worse_than_torn(&self, fs: &MemoryFileSystem, context: &str) -> Outcome {
        let found = contents(&open(fs).expect(context)).expect(context);
        if found == self.model {
            return Outcome::Harmless;
        }
        let earlier = self.account.states.contains(&found);
        assert!(earlier, "{context}: not a state that ever was");
        Outcome::TornTail
    }

    fn copies_are_kept(
        &self,
        fs: &MemoryFileSystem,
        before: &BTreeMap<PathBuf, Vec<u8>>,
        report: &RepairReport,
        context: &str,
    ) {
        let lost = report.lost.as_ref().expect("it was done");
        for name in &report.plan.set_aside {
            let kept = fs.read_file(lost.join(name)).expect(context);
            let old = &before[&Path::new(DIRECTORY).join(name)];
            assert!(kept == *old, "{context}: the copy of {name} differs");
        }
        let told = fs.read_file(lost.join("plan.txt")).expect(context);
        assert_eq!(told, report.plan.to_string().as_bytes());
        for path in before.keys().filter(|path| !path.ends_with("LOCK")) {
            let name = path.file_name().expect("a file").to_string_lossy();
            let kept = fs.kind(path).expect(context).is_some();
            assert!(
                kept || report.plan.set_aside.iter().any(|aside| *aside == name),
                "{context}: {name}"
            );
        }
    }

    /// Whatever differs from the model was named as lost.
    fn agrees_with(&self, fs: &MemoryFileSystem, losses: &[Loss], context: &str) -> Outcome {
        let store = open(fs).unwrap_or_else(|error| panic!("{context}: {error}"));
        let found = contents(&store).unwrap_or_else(|error| panic!("{context}: {error}"));
        let names = |model: &Model| model.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(names(&found), names(&self.model), "{context}");
        let mut changed = 0;
        for (name, expected) in &self.model {
            let found = &found[name];
            let keys: BTreeSet<_> = found.keys().chain(expected.keys()).collect();
            for key in keys {
                if found.get(key) == expected.get(key) {
                    continue;
                }
                changed += 1;
                let mut named = losses.iter().filter(|loss| loss.name == name.as_str());
                assert!(
                    named.any(|loss| loss.keys.contains(key)),
                    "{context}: {name}/{} changed, and was not named in {losses:#?}",
                    key.escape_ascii()
                );
            }
        }
        exercise(store, fs, context);
        match (changed, losses.is_empty()) {
            (0, true) => Outcome::NothingLost,
            (0, false) => Outcome::LossUnseen,
            _ => Outcome::Lost,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// The store was not the worse for it.
    Harmless,
    /// The end of log or manifest, which nothing relied on, is cut.
    TornTail,
    NothingLost,
    /// Something was lost that newer versions hide.
    LossUnseen,
    Lost,
    NeedsSalvage,
}

#[derive(Default)]
struct Counts(BTreeMap<(String, Outcome), u64>);

impl Counts {
    fn note(&mut self, path: &Path, outcome: Outcome) {
        let kind = path
            .extension()
            .map_or("CURRENT".into(), |e| e.to_string_lossy());
        *self.0.entry((kind.into_owned(), outcome)).or_default() += 1;
    }

    fn print(&self, title: &str) {
        for ((kind, outcome), count) in &self.0 {
            println!("{title}, {kind}: {outcome:?} {count}");
        }
    }

    fn total(&self, wanted: Outcome) -> u64 {
        let all = self.0.iter().filter(|((_, outcome), _)| *outcome == wanted);
        all.map(|(_, count)| count).sum()
    }
}

fn damage_everywhere(closed: bool) -> Counts {
    let subject = Subject::new(closed);
    let mut counts = Counts::default();
    for path in &subject.files {
        let whole = subject.fs.read_file(path).expect("nothing fails here");
        let mut damage = |bytes: Option<Vec<u8>>, context: String| {
            let fs = subject.fs.kill();
            match bytes {
                Some(bytes) => fs.write_file(path, &bytes).expect("nothing fails here"),
                None => fs.remove(path).expect("nothing fails here"),
            }
            let context = format!("{}: {context}", path.display());
            counts.note(path, subject.mended(&fs, &context));
        };
        damage(None, "removed".to_owned());
        for at in (0..subject.used(path)).step_by(stride()) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            damage(Some(bytes), format!("byte {at} changed"));
            if at % 3 == 0 {
                damage(Some(whole[..at].to_vec()), format!("cut to {at}"));
            }
        }
    }
    counts.print(if closed {
        "closed store"
    } else {
        "killed store"
    });
    counts
}

#[test]
fn the_closed_store_is_repaired_as_planned() {
    let counts = damage_everywhere(true);
    assert!(counts.total(Outcome::Lost) > 0 && counts.total(Outcome::NothingLost) > 0);
    assert!(counts.total(Outcome::NeedsSalvage) > 0);
}

#[test]
fn the_killed_store_is_repaired_as_planned() {
    let counts = damage_everywhere(false);
    assert!(counts.total(Outcome::Lost) > 0 && counts.total(Outcome::NothingLost) > 0);
}

/// Several faults at once: a pointer that is gone, a block of a table, the middle of the log.
fn thrice_damaged(subject: &Subject) -> MemoryFileSystem {
    let fs = subject.fs.kill();
    fs.remove(&Path::new(DIRECTORY).join("CURRENT"))
        .expect("nothing fails here");
    let with = |ending: &str| {
        let mut paths = subject.files.iter();
        let large =
            |path: &&PathBuf| path.to_string_lossy().ends_with(ending) && subject.used(path) > 400;
        paths.rfind(large).expect("there is one").clone()
    };
    for (ending, at) in [(".tab", 150), (".log", 300)] {
        let path = with(ending);
        let mut bytes = fs.read_file(&path).expect("nothing fails here");
        bytes[at] ^= 1;
        fs.write_file(&path, &bytes).expect("nothing fails here");
    }
    fs
}

#[test]
fn several_faults_are_repaired_at_once() {
    let subject = Subject::new(true);
    let fs = thrice_damaged(&subject);
    assert_eq!(subject.mended(&fs, "three faults"), Outcome::Lost);
    // What was set aside is no part of the store, and a second repair has nothing to do.
    let again = mend(&fs, false).unwrap();
    assert_eq!(again.plan.verdict, RepairVerdict::Sound, "{}", again.plan);
}

/// A crash at every file operation of a repair leaves the old store, as damaged as it was, or the repaired one.
#[test]
fn a_crash_at_any_operation_leaves_the_old_store_or_the_repaired_one() {
    let subject = Subject::new(true);
    // All of it durable, as it is when somebody comes to repair it.
    let damaged = thrice_damaged(&subject).crash(0, CrashPolicy::KeepUnsynced);
    let files = |fs: &MemoryFileSystem| -> BTreeMap<PathBuf, Vec<u8>> {
        let mut image = image(fs);
        image.retain(|path, _| {
            path.parent() == Some(Path::new(DIRECTORY)) && !path.ends_with("LOCK")
        });
        image
    };
    let old = files(&damaged);
    let whole = damaged.kill();
    let losses = mend(&whole, false).unwrap().plan.losses;
    let operations = whole.operations();
    let (mut before, mut behind) = (0, 0);
    for n in (0..=operations).step_by(if stride() == 1 { 1 } else { 3 }) {
        for (policy, seed) in [
            (CrashPolicy::DropUnsynced, 0),
            (CrashPolicy::KeepUnsynced, 0),
            (CrashPolicy::Random { percent: 50 }, n),
        ] {
            let context = format!("crash at {n}, {policy:?}");
            let fs = damaged.kill();
            fs.set_crash_point(Some(n));
            let _ = mend(&fs, false);
            let after = fs.crash(seed, policy);
            let report = check(&after);
            if report.is_clean() {
                behind += 1;
            } else {
                before += 1;
                // All of the old store is still there.
                let left = files(&after);
                for (path, bytes) in &old {
                    assert!(
                        left.get(path) == Some(bytes),
                        "{context}: {}",
                        path.display()
                    );
                }
                let again =
                    mend(&after, false).unwrap_or_else(|error| panic!("{context}: {error}"));
                assert!(again.done, "{context}: {}", again.plan);
                assert!(check(&after).is_clean(), "{context}");
            }
            subject.agrees_with(&after, &losses, &context);
        }
    }
    println!(
        "{operations} operations: {before} times the old store, {behind} times the repaired one"
    );
    assert!(before > 30 && behind > 0, "{before} {behind}");
}

/// The plan that counts is the one made under the lock: a caller that had looked at an earlier one, without losses, would
/// otherwise have consented to what it never saw.
#[test]
fn what_loses_entries_is_not_done_unless_that_is_accepted() {
    let subject = Subject::new(true);
    let fs = thrice_damaged(&subject);
    let before = image(&fs);
    let mut go_on = |_: &_| ControlFlow::Continue(());
    let permission = RepairPermission::LoseNothing;
    let report = repair(DIRECTORY, &options(&fs), permission, &mut go_on).expect("a plan");
    assert!(!report.plan.losses.is_empty() && !report.done);
    let mut after = image(&fs);
    after.retain(|path, _| !path.ends_with("LOCK"));
    assert!(
        after
            .iter()
            .all(|(path, bytes)| before.get(path) == Some(bytes)),
        "something was changed"
    );
    assert!(mend(&fs, false).expect("a repair").done);
}

#[test]
fn a_store_that_is_open_is_not_repaired_but_planned_for() {
    let fs = MemoryFileSystem::new();
    let store = open(&fs).unwrap();
    store.create_keyspace("a", &keyspace_options("a")).unwrap();
    assert!(matches!(mend(&fs, false), Err(Error::AlreadyOpen { .. })));
    assert_eq!(mend(&fs, true).unwrap().plan.verdict, RepairVerdict::Sound);
    store.close().unwrap();
    assert_eq!(mend(&fs, false).unwrap().plan.verdict, RepairVerdict::Sound);
}

/// A delete and the value that it hid lie in two tables; the newer one goes. The plan says that the value comes
/// back, and where nothing older is below, it does not say so.
#[test]
fn what_may_come_back_is_said() {
    let build = || {
        let fs = MemoryFileSystem::new();
        let store = open(&fs).unwrap();
        let b = store.create_keyspace("b", &keyspace_options("b")).unwrap();
        store
            .put(b, b"key", &noise(1, 100), &WriteOptions::SYNC)
            .unwrap();
        store.flush(None).unwrap();
        store.delete(b, b"key", &WriteOptions::SYNC).unwrap();
        store.put(b, b"other", b"x", &WriteOptions::SYNC).unwrap();
        store.flush(None).unwrap();
        store.close().unwrap();
        let tables = fs.list().into_iter().map(|(path, _)| path);
        let ends = |path: &PathBuf| path.to_string_lossy().ends_with(".tab");
        let tables: Vec<PathBuf> = tables.filter(ends).collect();
        assert_eq!(tables.len(), 2);
        (fs, tables)
    };
    for (table, resurrects) in [(1, true), (0, false)] {
        let (fs, tables) = build();
        fs.remove(&tables[table]).unwrap();
        let report = mend(&fs, false).unwrap();
        let [loss] = &report.plan.losses[..] else {
            panic!("{}", report.plan);
        };
        assert_eq!(loss.resurrects, resurrects);
        assert!(loss.keys.contains(b"key"));
        assert_eq!(
            report.plan.to_string().contains("OLDER VERSIONS"),
            resurrects
        );
        let store = open(&fs).unwrap();
        let b = store.keyspace("b").unwrap().unwrap();
        let back = vault_core::Reader::get(&store, b, b"key")
            .unwrap()
            .is_some();
        assert_eq!(back, resurrects, "the plan said so");
    }
}

#[test]
fn orphans_are_put_aside_and_foreign_files_left_alone() {
    let subject = Subject::new(true);
    let fs = subject.fs.kill();
    let at = |name: &str| Path::new(DIRECTORY).join(name);
    fs.write_file(at("900000.tab"), b"left behind").unwrap();
    fs.write_file(at("notes.txt"), b"mine").unwrap();
    let report = mend(&fs, false).unwrap();
    assert!(
        report.done && report.plan.losses.is_empty(),
        "{}",
        report.plan
    );
    let lost = report.lost.unwrap();
    assert_eq!(
        fs.read_file(lost.join("900000.tab")).unwrap(),
        b"left behind"
    );
    assert!(fs.read_file(at("900000.tab")).is_err());
    assert_eq!(fs.read_file(at("notes.txt")).unwrap(), b"mine");
    let report = check(&fs);
    let notes = report
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Note);
    assert_eq!(notes.count(), 1, "{:#?}", report.findings);
    assert_eq!(
        subject.agrees_with(&fs, &[], "orphans"),
        Outcome::NothingLost
    );
}
