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

use support::{TWO_THREADS, contents, small_keyspace, small_settings, value};
use vault_core::clock::SystemClock;
use vault_core::random::{Random, SeededRandom, SystemRandom};
use vault_core::{
    Clock as _, CompactionPolicy, Engine, KeyRange, KeyspaceId, Reader, WriteBatch, WriteOptions,
};
use vault_lsm::{Lsm, LsmOptions};

const DIRECTORY_VARIABLE: &str = "VAULT_TEST_KILLED_PROCESS";
const SEED_VARIABLE: &str = "VAULT_TEST_SEED";
const KILLS_VARIABLE: &str = "VAULT_TEST_KILLS";
const KILLS: u64 = 100;

/// Threads that write. Every other one asks for `Sync`.
const THREADS: u64 = 4;
/// Entries of a batch in each of the two keyspaces.
const PARTS: u64 = 3;
/// How many of a thread's last batches are kept; older ones are deleted by the batch that follows.
const KEPT: u64 = 40;
/// A kill comes at most so long after the process has said that it runs.
const LIFE_MAX: Duration = Duration::from_millis(300);

/// The last batch of each thread.
type Batches = [u64; THREADS as usize];

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
        let opened = if random(&dice) % 2 == 0 {
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
        let found = check(&store, &acknowledged, &context);
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

/// Checks that the store holds, of each thread, exactly the batches up to some number that is no lower
/// than the one acknowledged. Gives these numbers.
fn check(store: &Lsm, acknowledged: &Batches, context: &str) -> Batches {
    let Some((one, two)) = store
        .keyspace("one")
        .unwrap()
        .zip(store.keyspace("two").unwrap())
    else {
        assert_eq!(
            *acknowledged,
            Batches::default(),
            "{context}: the keyspaces are gone"
        );
        return Batches::default();
    };
    let last = |thread| {
        let found = store.get(two, &last_key(thread)).unwrap();
        found.map_or(0, |value| u64::from_be_bytes(value[..].try_into().unwrap()))
    };
    let found = std::array::from_fn(|thread| last(thread as u64));
    let mut expected = [BTreeMap::new(), BTreeMap::new()];
    for thread in 0..THREADS {
        let last = found[thread as usize];
        let promised = acknowledged[thread as usize];
        assert!(
            last >= promised,
            "{context}: thread {thread} was told that batch {promised} is safe, and {last} is there"
        );
        for batch in (last + 1).saturating_sub(KEPT).max(1)..=last {
            for part in 0..PARTS {
                let (key, value) = entry(thread, batch, part);
                expected[0].insert(key.clone(), value.clone());
                expected[1].insert(key, value);
            }
        }
        if last > 0 {
            expected[1].insert(last_key(thread), last.to_be_bytes().to_vec());
        }
    }
    for (id, expected) in [one, two].into_iter().zip(expected) {
        let contents = contents(store, id);
        let missing = expected.keys().find(|key| !contents.contains_key(*key));
        let surplus = contents.keys().find(|key| !expected.contains_key(*key));
        let text = |key: Option<&Vec<u8>>| key.map(|key| key.escape_ascii().to_string());
        assert!(
            contents == expected,
            "{context}: {found:?}: missing {:?}, too many {:?}",
            text(missing),
            text(surplus)
        );
    }
    found
}

/// Runs the process for a while, kills it, and gives what it had acknowledged.
fn run_and_kill(directory: &Path, life: Duration) -> Vec<(usize, u64)> {
    let mut child = Killed(
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "as_the_process_to_be_killed", "--nocapture"])
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
    LsmOptions::new(small_settings(TWO_THREADS))
}

fn entry(thread: u64, batch: u64, part: u64) -> (Vec<u8>, Vec<u8>) {
    let key = format!("{thread}/{batch:08}/{part}").into_bytes();
    (key, value(batch * PARTS + part, thread))
}

fn last_key(thread: u64) -> Vec<u8> {
    format!("{thread}/last").into_bytes()
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
        let tiered = small_keyspace().policy(CompactionPolicy::TIERED);
        let one = store.create_keyspace("one", &small_keyspace()).unwrap();
        let two = store.create_keyspace("two", &tiered).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (store, stop) = (&store, &stop);
                scope.spawn(move || write(store, one, two, thread, stop));
            }
            let busy = scope.spawn(|| keep_busy(&store, one, two, &stop));
            clock.sleep(Duration::from_millis(120).mul_f64(chance(&dice)));
            stop.store(true, Ordering::Release);
            busy.join().unwrap();
        });
        store.close().unwrap();
    }
}

/// Writes one batch after the other, each over both keyspaces: its entries, its number, and the deletion of
/// what is too old.
fn write(store: &Lsm, one: KeyspaceId, two: KeyspaceId, thread: u64, stop: &AtomicBool) {
    let found = store.get(two, &last_key(thread)).unwrap();
    let last = found.map_or(0, |value| u64::from_be_bytes(value[..].try_into().unwrap()));
    let durability = [WriteOptions::OS, WriteOptions::SYNC];
    for number in last + 1.. {
        if stop.load(Ordering::Acquire) {
            return;
        }
        let mut batch = WriteBatch::new();
        for part in 0..PARTS {
            let (key, value) = entry(thread, number, part);
            batch.put(one, &key, &value).put(two, &key, &value);
        }
        if let Some(old) = number.checked_sub(KEPT).filter(|&old| old > 0) {
            for part in 0..PARTS {
                batch.delete(one, &entry(thread, old, part).0);
            }
            batch.delete_prefix(two, format!("{thread}/{old:08}/").as_bytes());
        }
        batch.put(two, &last_key(thread), &number.to_be_bytes());
        store
            .write(&batch, &durability[thread as usize % 2])
            .unwrap();
        tell(thread as u8, number);
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
