//! What snapshots cost: beside `cp` of the same files, to whoever writes meanwhile, and to whoever reads while one is restored.
//!
//! `cargo bench -p vault-bench --bench snapshots` measures on 5 million entries; as a test it does the same on few, and holds
//! against each other what was written and what came back. With `-- --memory` it measures instead how much memory a snapshot of a store of
//! 10 GiB takes, and verifying and restoring that: it needs 35 GiB of disk.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "it prints what it measures, and ends where it cannot go on"
)]

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use vault_bench::measure::{memory_now_bytes, peak_memory_bytes, reset_peak_memory};
use vault_core::random::SeededRandom;
use vault_core::vfs::{DiskFileSystem, FileSystem};
use vault_core::{Clock, SystemClock};
use vault_db::snapshot::{Parent, Schedule, SnapshotOptions, Snapshots};
use vault_db::{Database, Durability, Scope};

/// How much is measured.
struct Plan {
    entries: u64,
    rounds: usize,
    /// How long writers write, without snapshots and with them.
    writing: Duration,
}

const MEASURED: Plan = Plan {
    entries: 5_000_000,
    rounds: 3,
    writing: Duration::from_secs(10),
};

const TRIED: Plan = Plan {
    entries: 2_000,
    rounds: 1,
    writing: Duration::from_millis(50),
};

const BATCH: u64 = 1_000;

fn main() {
    let plan = match std::env::args().any(|argument| argument == "--bench") {
        true => MEASURED,
        false => TRIED,
    };
    // On the disk that everything is built on: a temporary directory may be in memory.
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    if std::env::args().any(|argument| argument == "--memory") {
        return memory(place.path(), 10 << 30);
    }
    memory(place.path(), 8 << 20);
    let bench = Bench {
        plan,
        clock: SystemClock::new(),
        place: place.path(),
        random: SeededRandom::new(1),
    };
    let db = bench.fill();
    let snapshots = db.snapshots(place.path().join("snapshots")).unwrap();
    bench.beside_cp(&db, &snapshots);
    bench.incremental(&db, &snapshots);
    bench.restoring(&db, &snapshots);
    bench.hot_reload(&db, &snapshots);
    bench.writers(&db, &snapshots);
}

struct Bench<'a> {
    plan: Plan,
    clock: SystemClock,
    place: &'a Path,
    random: SeededRandom,
}

/// A key of 16 bytes.
fn key(n: u64) -> [u8; 16] {
    let mut key = [b'k'; 16];
    key[8..].copy_from_slice(&n.to_be_bytes());
    key
}

/// A value of 100 bytes, half of which compresses away.
fn value(n: u64, random: &SeededRandom) -> Vec<u8> {
    let mut value = vec![7; 100];
    for (place, eight) in value.chunks_exact_mut(8).take(6).enumerate() {
        let eight_new = random.below(u64::MAX) ^ n.rotate_left(place as u32);
        eight.copy_from_slice(&eight_new.to_le_bytes());
    }
    value
}

impl Bench<'_> {
    fn store(&self) -> std::path::PathBuf {
        self.place.join("store")
    }

    fn time(&self, run: impl FnOnce()) -> Duration {
        let begin = self.clock.monotonic();
        run();
        self.clock.monotonic() - begin
    }

    fn fill(&self) -> Database {
        let db = Database::builder()
            .durability(Durability::Os)
            .memory_bytes(512 << 20)
            .open(self.store())
            .unwrap();
        let vault = db.vault("v").unwrap();
        for first in (0..self.plan.entries).step_by(BATCH as usize) {
            db.write(|tx| {
                let vault = tx.of(&vault)?;
                for n in first..(first + BATCH).min(self.plan.entries) {
                    vault.put_raw(&key(n)[..], &value(n, &self.random))?;
                }
                Ok(())
            })
            .unwrap();
        }
        settle(&db);
        db
    }

    /// A full snapshot, in turns with `cp` of the store's files.
    fn beside_cp(&self, db: &Database, snapshots: &Snapshots) {
        let options = SnapshotOptions {
            parent: Parent::None,
            ..SnapshotOptions::default()
        };
        let (mut made, mut copied, mut synced) = (Vec::new(), Vec::new(), Vec::new());
        let mut bytes = 0;
        for _ in 0..self.plan.rounds {
            made.push(self.time(|| {
                bytes = snapshots.create_with(&options, &()).unwrap().bytes();
            }));
            settle(db);
            let copy = self.place.join("copy");
            let mut cp = Duration::ZERO;
            let with_sync = self.time(|| {
                cp = self.time(|| run(Command::new("cp").arg("-r").arg(self.store()).arg(&copy)));
                run(Command::new("sync").args(files_of(&copy)));
            });
            copied.push(cp);
            synced.push(with_sync);
            run(Command::new("rm").arg("-r").arg(&copy));
        }
        let (made, copied, synced) = (median(&mut made), median(&mut copied), median(&mut synced));
        println!(
            "full, {} MiB: {made:.0?}; cp {copied:.0?} ({:.2} ×), cp and sync {synced:.0?} ({:.2} ×)",
            bytes >> 20,
            ratio(made, copied),
            ratio(made, synced),
        );
    }

    /// What a snapshot takes after one entry of a hundred has changed.
    fn incremental(&self, db: &Database, snapshots: &Snapshots) {
        let options = SnapshotOptions {
            parent: Parent::None,
            ..SnapshotOptions::default()
        };
        let mut full = None;
        let full_took = self.time(|| full = Some(snapshots.create_with(&options, &()).unwrap()));
        let full = full.unwrap();
        for round in 0..self.plan.rounds {
            self.change(db, self.plan.entries / 100);
            let mut next = None;
            let took = self.time(|| next = Some(snapshots.create().unwrap()));
            let next = next.unwrap();
            assert_eq!(next.chain_root, full.name);
            println!(
                "incremental {round}, 1 % changed: {} KiB of {} ({:.1} %), {took:.0?} of {full_took:.0?} ({:.1} %)",
                next.own_bytes() >> 10,
                full.own_bytes() >> 10,
                100.0 * next.own_bytes() as f64 / full.own_bytes() as f64,
                100.0 * ratio(took, full_took),
            );
        }
    }

    /// Sets entries at random.
    fn change(&self, db: &Database, entries: u64) {
        let vault = db.vault("v").unwrap();
        for _ in 0..entries {
            let n = self.random.below(self.plan.entries);
            vault.put_raw(&key(n)[..], &value(n, &self.random)).unwrap();
        }
    }

    /// Into a new directory, which verifies everything before.
    fn restoring(&self, db: &Database, snapshots: &Snapshots) {
        let newest = snapshots.list().unwrap().pop().unwrap();
        let (mut verified, mut restored, mut copied) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.plan.rounds {
            let target = self.place.join("restored");
            verified.push(self.time(|| {
                snapshots.repository().verify(newest.name, &()).unwrap();
            }));
            restored.push(self.time(|| {
                snapshots
                    .restore_to(newest.name, &target, None, &())
                    .unwrap();
            }));
            let keys = Database::open(&target).unwrap();
            let expected = db.vault("v").unwrap().len().unwrap();
            assert_eq!(keys.vault("v").unwrap().len().unwrap(), expected);
            drop(keys);
            run(Command::new("rm").arg("-r").arg(&target));
            settle(db);
            let copy = self.place.join("copy");
            copied.push(self.time(|| {
                run(Command::new("cp").arg("-r").arg(self.store()).arg(&copy));
                run(Command::new("sync").args(files_of(&copy)));
            }));
            run(Command::new("rm").arg("-r").arg(&copy));
        }
        let (verified, restored, copied) = (
            median(&mut verified),
            median(&mut restored),
            median(&mut copied),
        );
        println!(
            "restored in {restored:.0?}, of which verifying takes {verified:.0?}; cp and sync {copied:.0?}: {:.2} × without verifying",
            ratio(restored.saturating_sub(verified), copied),
        );
    }

    /// In place, while one thread reads and another writes.
    fn hot_reload(&self, db: &Database, snapshots: &Snapshots) {
        let newest = snapshots.list().unwrap().pop().unwrap();
        let vault = db.vault("v").unwrap();
        let done = AtomicBool::new(false);
        let (took, outcome, mut reads, mut writes) = thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let random = SeededRandom::new(2);
                self.latencies(&done, || {
                    let n = random.below(self.plan.entries);
                    assert!(vault.get_raw(&key(n)[..]).unwrap().is_some());
                })
            });
            let writer = scope.spawn(|| {
                self.latencies(&done, || {
                    vault.put_raw("written meanwhile", b"x").unwrap();
                    self.clock.sleep(Duration::from_micros(100));
                })
            });
            let mut outcome = None;
            let took = self.time(|| {
                outcome = Some(snapshots.restore(newest.name, &Scope::Everything).unwrap());
            });
            done.store(true, Ordering::Relaxed);
            let (reads, writes) = (reader.join().unwrap(), writer.join().unwrap());
            (took, outcome.unwrap(), reads, writes)
        });
        reads.sort_unstable();
        writes.sort_unstable();
        println!(
            "in place: {} entries in {took:.0?}; writers were held up for {:.1?}; {} reads meanwhile, p99.9 {:.0?}, the longest {:.1?}; \
             the longest write {:.1?}",
            outcome.entries,
            outcome.writers_waited,
            reads.len(),
            percentile(&reads, 99.9),
            percentile(&reads, 100.0),
            percentile(&writes, 100.0),
        );
    }

    /// How long writes take without snapshots, and beside one after the other.
    fn writers(&self, db: &Database, snapshots: &Snapshots) {
        let vault = db.vault("v").unwrap();
        let options = SnapshotOptions {
            parent: Parent::None,
            ..SnapshotOptions::default()
        };
        let every_second = Schedule {
            interval: Some(Duration::from_secs(1)),
            ..Schedule::default()
        };
        let modes = [Beside::Nothing, Beside::Full, Beside::Runner];
        for how in modes.into_iter().cycle().take(2 * modes.len()) {
            let runner = (how == Beside::Runner).then(|| {
                let options = SnapshotOptions::default();
                snapshots
                    .clone()
                    .run(every_second.clone(), options, None)
                    .unwrap()
            });
            let done = AtomicBool::new(false);
            let mut made = 0;
            let began = self.clock.monotonic();
            let mut writes = thread::scope(|scope| {
                let writer = scope.spawn(|| {
                    let random = SeededRandom::new(3);
                    self.latencies(&done, || {
                        let n = random.below(self.plan.entries);
                        vault.put_raw(&key(n)[..], &value(n, &random)).unwrap();
                    })
                });
                let until = self.clock.monotonic() + self.plan.writing;
                while self.clock.monotonic() < until {
                    if how == Beside::Full {
                        snapshots.create_with(&options, &()).unwrap();
                        made += 1;
                    } else {
                        self.clock.sleep(Duration::from_millis(1));
                    }
                }
                done.store(true, Ordering::Relaxed);
                writer.join().unwrap()
            });
            let elapsed = self.clock.monotonic() - began;
            made += runner.map_or(0, |runner| runner.stop().made);
            writes.sort_unstable();
            println!(
                "writer beside {how:?} ({made} snapshots): {} writes/s, p50 {:.1?}, p99 {:.1?}, p99.9 {:.0?}",
                (writes.len() as f64 / elapsed.as_secs_f64()) as u64,
                percentile(&writes, 50.0),
                percentile(&writes, 99.0),
                percentile(&writes, 99.9),
            );
        }
    }

    /// How long each run takes, until it is done.
    fn latencies(&self, done: &AtomicBool, mut run: impl FnMut()) -> Vec<Duration> {
        let mut times = Vec::new();
        while !done.load(Ordering::Relaxed) {
            times.push(self.time(&mut run));
        }
        times
    }
}

/// What is done beside a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    /// One full snapshot after the other.
    Full,
    /// A runner that makes an incremental one every second.
    Runner,
}

/// How much memory it takes to make, verify and restore a full snapshot of a store of so many bytes.
fn memory(place: &Path, bytes: u64) {
    const VALUE_BYTES: usize = 64 << 10;
    let place = place.join("large");
    let random = SeededRandom::new(2);
    let builder = Database::builder().durability(Durability::Os);
    let builder = builder.memory_bytes(64 << 20);
    let db = builder.open(place.join("store")).unwrap();
    let vault = db.vault("v").unwrap();
    let mut value = vec![0; VALUE_BYTES];
    for n in 0..bytes / VALUE_BYTES as u64 {
        for eight in value.chunks_exact_mut(8) {
            eight.copy_from_slice(&random.below(u64::MAX).to_le_bytes());
        }
        vault.put_raw(&key(n)[..], &value).unwrap();
    }
    settle(&db);
    let snapshots = db.snapshots(place.join("snapshots")).unwrap();
    let taken = |what: &str, run: &mut dyn FnMut()| {
        let since_now = reset_peak_memory();
        let (before, clock) = (memory_now_bytes().0, SystemClock::new());
        let begin = clock.monotonic();
        run();
        let (took, peak) = (clock.monotonic() - begin, peak_memory_bytes());
        println!(
            "{what} of {} MiB in {took:.1?}: {} MiB of memory at most, {} before{}",
            bytes >> 20,
            peak >> 20,
            before >> 20,
            if since_now {
                ""
            } else {
                " (since the process began)"
            },
        );
    };
    let mut made = None;
    taken("snapshot", &mut || made = Some(snapshots.create().unwrap()));
    let made = made.unwrap();
    assert!(made.bytes() >= bytes);
    taken("verification", &mut || {
        snapshots.repository().verify(made.name, &()).unwrap();
    });
    let target = place.join("restored");
    taken("restore", &mut || {
        let restored = snapshots.restore_to(made.name, &target, None, &()).unwrap();
        assert_eq!(restored.bytes, made.bytes());
    });
    drop((vault, snapshots, db));
    run(Command::new("rm").arg("-r").arg(&place));
}

/// Waits until the background has nothing to do: `cp` of a store needs its files to stay where they are.
fn settle(db: &Database) {
    db.engine().flush(None).unwrap();
    db.lsm().unwrap().settle().unwrap();
}

/// Every file below a directory.
fn files_of(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = DiskFileSystem.read_dir(directory).unwrap().into_iter();
    entries.map(|entry| directory.join(entry.name)).collect()
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

fn ratio(of: Duration, to: Duration) -> f64 {
    of.as_secs_f64() / to.as_secs_f64()
}

/// Of sorted times.
fn percentile(times: &[Duration], percent: f64) -> Duration {
    let last = times.len().saturating_sub(1);
    let place = (last as f64 * percent / 100.0).round() as usize;
    times.get(place).copied().unwrap_or_default()
}

/// Sorts them; gives the one in the middle.
fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
