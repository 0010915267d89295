//! A real process is killed at a hundred random moments, while it opens, recovers, writes with several threads,
//! flushes, compacts and closes. After each kill the store opens, and holds: every write that was acknowledged,
//! of each thread a prefix, each batch whole, and nothing else.
//!
//! The process is this test binary, started again with the directory in its environment. It tells of
//! each acknowledged write through a pipe. Half of the kills are looked at read-only, so that the next
//! process finds the store as the kill left it, and is killed while recovering it. `VAULT_TEST_SEED` repeats
//! the moments of a run (what the process was at just then, it cannot repeat), and `VAULT_TEST_KILLS` says
//! how many there are.
//!
//! A kill says nothing about loss of power: what was written outlives the process, synced or not. That is
//! simulated elsewhere.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::batches::{self, Batches, THREADS, Writers};
use support::modes::full_name;
use support::{TWO_THREADS, protected, small_settings};
use vault_core::clock::SystemClock;
use vault_core::random::{Random, SeededRandom, SystemRandom};
use vault_core::{Clock as _, Engine, KeyRange, KeyspaceId};
use vault_lsm::{Lsm, LsmOptions};

const DIRECTORY_VARIABLE: &str = "VAULT_TEST_KILLED_PROCESS";
const SEED_VARIABLE: &str = "VAULT_TEST_SEED";
const KILLS_VARIABLE: &str = "VAULT_TEST_KILLS";
const KILLS: u64 = 100;

/// A kill comes at most so long after the process has said that it runs.
const LIFE_MAX: Duration = Duration::from_millis(300);

/// What the process writes into the pipe: a thread and the number of a batch of it, acknowledged.
const MESSAGE_BYTES: usize = 9;
/// In the place of the thread: the process runs.
const RUNNING: u8 = u8::MAX;

#[test]
fn a_hundred_kills() {
    let number = |name| {
        std::env::var(name)
            .ok()
            .map(|text: String| text.parse().unwrap())
    };
    let seed = number(SEED_VARIABLE).unwrap_or_else(|| random(&SystemRandom) >> 32);
    let kills = number(KILLS_VARIABLE).unwrap_or(KILLS);
    println!("{SEED_VARIABLE}={seed} {KILLS_VARIABLE}={kills}");
    let dice = SeededRandom::new(seed);
    let mut tally = BTreeMap::new();
    let mut parent = tempfile::tempdir().unwrap();
    let mut acknowledged = Batches::default();
    for kill in 0..kills {
        if kill % 25 == 0 {
            // Also the creation of a store is interrupted.
            parent = tempfile::tempdir().unwrap();
            acknowledged = Batches::default();
        }
        let directory = parent.path().join("store");
        let life = LIFE_MAX.mul_f64(chance(&dice));
        for (thread, batch) in run_and_kill(&directory, life) {
            acknowledged[thread] = acknowledged[thread].max(batch);
        }
        let context = format!("{SEED_VARIABLE}={seed}, kill {kill} after {life:?}");
        let opened = if random(&dice).is_multiple_of(2) {
            Lsm::open(&directory, options())
        } else {
            Lsm::open_read_only(&directory, &options())
        };
        let store = match opened {
            Ok(store) => store,
            Err(vault_core::Error::NoSuchStore { .. }) if acknowledged == Batches::default() => {
                *tally.entry("before there was a store").or_insert(0) += 1;
                continue;
            }
            Err(error) => panic!("{context}: {error}"),
        };
        let found = batches::check(&store, &acknowledged, &context);
        let what = match found.iter().sum::<u64>() - acknowledged.iter().sum::<u64>() {
            0 => "nothing but what was acknowledged",
            _ => "more than what was acknowledged",
        };
        *tally.entry(what).or_insert(0) += 1;
        acknowledged = found;
        store
            .close()
            .unwrap_or_else(|error| panic!("{context}: {error}"));
    }
    println!("{kills} kills: {tally:?}; {acknowledged:?} batches in the last store");
    assert!(
        acknowledged.iter().sum::<u64>() > 0,
        "nothing was ever written"
    );
}

/// Runs the process for a while, kills it, and gives what it had acknowledged.
fn run_and_kill(directory: &Path, life: Duration) -> Vec<(usize, u64)> {
    let mut child = Killed(
        Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                &full_name("as_the_process_to_be_killed"),
                "--nocapture",
            ])
            .env(DIRECTORY_VARIABLE, directory)
            // What it says goes where the harness's own words don't.
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut pipe = child.0.stderr.take().unwrap();
    let mut message = [0; MESSAGE_BYTES];
    let mut heard = Vec::new();
    pipe.read_exact(&mut message).unwrap();
    assert_eq!(message[0], RUNNING);
    let listener = std::thread::spawn(move || {
        while pipe.read_exact(&mut message).is_ok() {
            let batch = u64::from_be_bytes(message[1..].try_into().unwrap());
            if u64::from(message[0]) >= THREADS {
                // Not a message of ours: a panic, in words.
                let mut words = message.to_vec();
                pipe.read_to_end(&mut words).unwrap();
                return Err(String::from_utf8_lossy(&words).into_owned());
            }
            heard.push((usize::from(message[0]), batch));
        }
        Ok(heard)
    });
    SystemClock::new().sleep(life);
    drop(child);
    let heard = listener.join().unwrap();
    heard.unwrap_or_else(|words| panic!("the process failed by itself: {words}"))
}

/// Kills when dropped, so that a test that fails leaves nothing running.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn options() -> LsmOptions {
    protected(LsmOptions::new(small_settings(TWO_THREADS)))
}

fn random(source: &dyn Random) -> u64 {
    let mut bytes = [0; 8];
    source.fill(&mut bytes).unwrap();
    u64::from_be_bytes(bytes)
}

/// From 0 to 1.
fn chance(source: &dyn Random) -> f64 {
    (random(source) >> 11) as f64 / (1_u64 << 53) as f64
}

/// The process: opens, writes for a moment, closes, and again, until it is killed. Without a directory in
/// the environment this is no test of its own.
#[test]
fn as_the_process_to_be_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY_VARIABLE) else {
        return;
    };
    tell(RUNNING, 0);
    let (clock, dice) = (SystemClock::new(), SystemRandom);
    loop {
        let store = Lsm::open(Path::new(&directory), options()).unwrap();
        let writers = Writers::new(&store);
        let (one, two) = writers.keyspaces;
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (writers, store, stop) = (&writers, &store, &stop);
                scope.spawn(move || {
                    writers.write(store, thread, stop, |batch| tell(thread as u8, batch));
                });
            }
            let busy = scope.spawn(|| keep_busy(&store, one, two, &stop));
            clock.sleep(Duration::from_millis(120).mul_f64(chance(&dice)));
            stop.store(true, Ordering::Release);
            busy.join().unwrap();
        });
        store.close().unwrap();
    }
}

/// Flushes and compacts beside the writers.
fn keep_busy(store: &Lsm, one: KeyspaceId, two: KeyspaceId, stop: &AtomicBool) {
    let (clock, dice) = (SystemClock::new(), SystemRandom);
    while !stop.load(Ordering::Acquire) {
        match random(&dice) % 4 {
            0 => store.flush(Some(one)).unwrap(),
            1 => {
                let go_on = &mut |_| ControlFlow::Continue(());
                store.compact(two, KeyRange::all(), go_on).unwrap();
            }
            _ => clock.sleep(Duration::from_millis(5)),
        }
    }
}

/// Writes a message. A pipe takes one of this length whole or not at all.
fn tell(thread: u8, batch: u64) {
    let mut message = [thread; MESSAGE_BYTES];
    message[1..].copy_from_slice(&batch.to_be_bytes());
    std::io::stderr().write_all(&message).unwrap();
}
