//! Two processes and one store: the second writer is refused and told who has it; readers may look on; and
//! when the writer is killed, what it acknowledged is there.
//!
//! The other process is this test binary, started again with the directory in its environment.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use support::{
    TWO_THREADS, assert_contents, assert_error, contents, expected, put_all, small_keyspace,
    small_settings,
};
use vault_core::{Engine, Error};
use vault_lsm::{Lsm, LsmOptions};

/// Where the other process finds its store.
const DIRECTORY_VARIABLE: &str = "VAULT_TEST_OTHER_PROCESS";
const ACKNOWLEDGED: &str = "acknowledged ";

fn options() -> LsmOptions {
    LsmOptions::new(small_settings(TWO_THREADS))
}

/// The other process: writes one entry after the other, and says so after each, until it is killed or
/// nobody listens any more. Without a directory in the environment this is no test of its own.
#[test]
fn as_the_other_process() {
    let Some(directory) = std::env::var_os(DIRECTORY_VARIABLE) else {
        return;
    };
    let store = Lsm::open(Path::new(&directory), options()).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    let mut out = std::io::stdout().lock();
    for number in 0.. {
        put_all(&store, ks, [number], 1);
        if writeln!(out, "{ACKNOWLEDGED}{number}")
            .and_then(|()| out.flush())
            .is_err()
        {
            break;
        }
    }
}

struct Other {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Other {
    fn start(directory: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "as_the_other_process", "--nocapture"])
            .env(DIRECTORY_VARIABLE, directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// Reads on until the other process has acknowledged this entry.
    fn wait_for(&mut self, number: u64) {
        let mut line = String::new();
        let wanted = format!("{ACKNOWLEDGED}{number}");
        while !line.trim_end().ends_with(&wanted) {
            line.clear();
            assert!(self.out.read_line(&mut line).unwrap() > 0, "it ended early");
        }
    }

    /// Kills it, and gives how many entries it had acknowledged; `read` of them have been read.
    fn kill(mut self, read: u64) -> u64 {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        // The last line may be cut off.
        let whole = rest.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let last = whole
            .lines()
            .filter_map(|line| line.strip_prefix(ACKNOWLEDGED))
            .next_back();
        last.and_then(|number| number.parse().ok())
            .map_or(read, |last: u64| last + 1)
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // A test that failed midway must not leave it running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_second_writer_is_refused_and_a_killed_one_loses_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("store");
    let mut other = Other::start(&directory);
    other.wait_for(1_500);
    for _ in 0..3 {
        let refused = Lsm::open(&directory, options());
        let error = assert_error!(refused, Error::AlreadyOpen { .. }, Unavailable);
        let Error::AlreadyOpen { path, holder } = error else {
            unreachable!("it was just checked")
        };
        assert_eq!(path, directory);
        let pid = format!("process {}", other.child.id());
        assert!(holder.contains(&pid), "{holder:?} names {pid}");
    }
    // The one that has it was not disturbed.
    other.wait_for(2_000);
    let acknowledged = other.kill(2_001);
    let store = Lsm::open(&directory, options()).unwrap();
    let ks = store.keyspace("k").unwrap().unwrap();
    let found = contents(&store, ks).len() as u64;
    // It may have been killed between writing and saying so.
    assert!(
        (acknowledged..=acknowledged + 1).contains(&found),
        "{found} {acknowledged}"
    );
    assert_contents(&store, ks, &expected(0..found, 1));
    put_all(&store, ks, found..found + 100, 1);
    store.close().unwrap();
}

/// Opening read-only beside the other process shows all that it had acknowledged, the log included.
#[test]
fn a_reader_beside_another_process() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("store");
    let mut other = Other::start(&directory);
    for step in 1..=5 {
        other.wait_for(step * 400);
        let reading = Lsm::open_read_only(&directory, &options()).unwrap();
        let ks = reading.keyspace("k").unwrap().unwrap();
        let seen = contents(&reading, ks);
        let count = seen.len() as u64;
        assert!(count > step * 400, "{count}");
        // A prefix of what was written, and it stays that, while the writer goes on and compacts.
        assert_contents(&reading, ks, &expected(0..count, 1));
        other.wait_for(step * 400 + 300);
        assert_contents(&reading, ks, &expected(0..count, 1));
    }
}
