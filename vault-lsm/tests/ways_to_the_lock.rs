//! The lock of a store holds between processes and within one, whatever leads to it, and ends with the handle that
//! took it: also where the process has started others meanwhile, which inherit nothing of it.
#![expect(clippy::disallowed_methods, reason = "links are the real disk's")]

mod support;

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use support::{
    TWO_THREADS, assert_contents, assert_error, expected, put_all, small_keyspace, small_settings,
};
use vault_core::{Engine, Error};
use vault_lsm::{Lsm, LsmOptions};

fn options() -> LsmOptions {
    LsmOptions::new(small_settings(TWO_THREADS))
}

/// Ends a process when dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Another process that was started while the store was open lives on. The store is closed, and opened
/// again, by whom ever.
#[test]
fn a_process_started_meanwhile_holds_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("store");
    let store = Lsm::open(&directory, options()).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    put_all(&store, ks, 0..500, 1);
    let child = Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = Ended(child.unwrap());
    // Once it answers, it has become what it was started for.
    child.0.stdin.as_mut().unwrap().write_all(b"?").unwrap();
    let mut answer = [0];
    child
        .0
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut answer)
        .unwrap();
    let open_there = format!("/proc/{}/fd", child.0.id());
    // What it has open of ours, where the system shows it.
    if let Ok(entries) = std::fs::read_dir(open_there) {
        for entry in entries {
            let target = std::fs::read_link(entry.unwrap().path()).unwrap();
            assert!(
                !target.starts_with(&directory),
                "{} was inherited",
                target.display()
            );
        }
    }
    store.close().unwrap();
    let store = Lsm::open(&directory, options()).unwrap();
    assert_contents(&store, ks, &expected(0..500, 1));
}

/// Processes are being started all the time while stores are opened and closed. Between its start and the
/// moment in which it runs its program, a process has everything open that its parent had.
///
/// A lock ended when its file was closed, in all processes: the next opening now and then found it held, by
/// its own process.
#[test]
fn processes_that_are_being_started() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("store");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| {
            let mut started = 0;
            while !done.load(Ordering::Acquire) {
                let status = Command::new("true").stdin(Stdio::null()).status();
                assert!(status.unwrap().success());
                started += 1;
            }
            started
        });
        // However this ends, nothing is started any more.
        let end = End(&done);
        for round in 0..60 {
            let store = Lsm::open(&directory, options())
                .unwrap_or_else(|error| panic!("round {round}: {error}"));
            store.close().unwrap();
        }
        drop(end);
        assert!(starting.join().unwrap() > 10, "that was no race");
    });
}

/// Hard links to the lock's file, and a second name for the directory, lead to the one lock.
#[test]
fn other_names_for_the_lock() {
    let parent = tempfile::tempdir().unwrap();
    let (directory, twin) = (parent.path().join("store"), parent.path().join("twin"));
    let store = Lsm::open(&directory, options()).unwrap();
    std::fs::create_dir(&twin).unwrap();
    std::fs::hard_link(directory.join("LOCK"), twin.join("LOCK")).unwrap();
    for other in [&directory, &twin] {
        let error = assert_error!(
            Lsm::open(other, options()),
            Error::AlreadyOpen { .. },
            Unavailable
        );
        assert!(
            error.to_string().contains(&std::process::id().to_string()),
            "{error}"
        );
    }
    store.close().unwrap();
    // Handles that are still there after closing hold nothing.
    let again = Lsm::open(&directory, options()).unwrap();
    assert_error!(store.keyspaces(), Error::Closed, Reopen);
    drop(store);
    assert_error!(
        Lsm::open(&directory, options()),
        Error::AlreadyOpen { .. },
        Unavailable
    );
    again.close().unwrap();
}
