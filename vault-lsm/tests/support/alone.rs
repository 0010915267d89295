//! Tests that need a process of their own: for a small file system that nobody else sees, or for limits that
//! would hurt the other tests.
//!
//! The process is the test binary, started again for the one test. What it mounts, it mounts in a mount
//! namespace of its own, which ends with it however that ends: nothing is left behind. The superuser may do
//! so; others may where user namespaces are allowed. Where neither can be, the test says what is missing,
//! past the capturing of output, and ends.
#![allow(unused, reason = "each test binary uses a part of this")]

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::modes::full_name;

/// Names, in the environment of the other process, the test that it is there for.
const VARIABLE: &str = "VAULT_TEST_ALONE";
/// What runs a program in namespaces of its own; the first that works is used.
const UNSHARE: [&[&str]; 2] = [
    &["unshare", "--mount", "--propagation", "private"],
    &["unshare", "--user", "--map-root-user", "--mount"],
];
/// Runs a program with the signal ignored that a limit on the length of files sends. An ignored signal
/// stays ignored in the program, where the limit then shows as an error.
const IGNORE_XFSZ: [&str; 4] = ["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"];

/// Says, past the capturing of output, that something was not tested.
pub(crate) fn skip(test: &str, missing: &str) {
    // Where nobody listens to standard error, nobody can be told.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {missing}");
}

/// Runs `body` in a process of its own. `test` is the name of the calling test.
pub(crate) fn alone(test: &str, body: impl FnOnce()) {
    if is_the_one(test) {
        body();
    } else {
        check(test, &start_again(&[], test));
    }
}

/// As [`alone`], with the signal of an exceeded length of files ignored.
pub(crate) fn alone_ignoring_xfsz(test: &str, body: impl FnOnce()) {
    if is_the_one(test) {
        body();
    } else {
        check(test, &start_again(&IGNORE_XFSZ, test));
    }
}

/// As [`alone`], where the body may mount. Does nothing but say so where that is not possible.
pub(crate) fn alone_with_mounts(test: &str, body: impl FnOnce()) {
    if is_the_one(test) {
        body();
        return;
    }
    let works = |prefix: &&&[&str]| {
        let probe = Command::new(prefix[0])
            .args(&prefix[1..])
            .args(["sh", "-c", "mount -t tmpfs -o size=64k vault-probe /tmp"])
            .output();
        probe.is_ok_and(|output| output.status.success())
    };
    match UNSHARE.iter().find(works) {
        Some(prefix) => check(test, &start_again(prefix, test)),
        None => skip(
            test,
            "mounting needs the superuser, or user namespaces, and the programs `unshare` and `mount`",
        ),
    }
}

fn is_the_one(test: &str) -> bool {
    std::env::var_os(VARIABLE).as_deref() == Some(OsStr::new(&full_name(test)))
}

fn start_again(prefix: &[&str], test: &str) -> Output {
    let binary = std::env::current_exe().expect("a running program has a path");
    let mut command = match prefix.split_first() {
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments).arg(binary);
            command
        }
        None => Command::new(binary),
    };
    command
        .args([
            "--exact",
            &full_name(test),
            "--nocapture",
            "--test-threads=1",
        ])
        .env(VARIABLE, full_name(test))
        .output()
        .expect("a program that was just run runs again")
}

/// A signal (`SIGBUS` above all) ends the process without a word: the status says so.
fn check(test: &str, output: &Output) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    for line in err.lines().filter(|line| line.starts_with("SKIPPED")) {
        let _ = writeln!(std::io::stderr(), "{line}");
    }
    assert!(
        output.status.success() && out.contains("1 passed"),
        "{test}, in a process of its own: {}\n{out}\n{err}",
        output.status
    );
}

/// A file system that was mounted for a test.
pub(crate) struct Mounted {
    root: PathBuf,
    /// Holds the directory it is mounted on, and the image it is in.
    _directory: tempfile::TempDir,
}

impl Mounted {
    /// A file system in memory.
    pub(crate) fn tmpfs(options: &str) -> Self {
        let directory = tempfile::tempdir().expect("there is room for a directory");
        let root = directory.path().join("mounted");
        make_dir(&root);
        let what = ["-t", "tmpfs", "-o", options, "vault-test"].map(OsStr::new);
        let problem = mount(&what, &root);
        assert_eq!(problem, None, "a tmpfs was mounted a moment ago");
        Self {
            root,
            _directory: directory,
        }
    }

    /// A file system on a device, in a file of `bytes`. Gives what is missing where there is none.
    pub(crate) fn image(kind: &str, bytes: u64) -> Result<Self, String> {
        let directory = tempfile::tempdir().expect("there is room for a directory");
        let (root, image) = (
            directory.path().join("mounted"),
            directory.path().join("image"),
        );
        make_dir(&root);
        make_file(&image, bytes);
        let made = Command::new(format!("mkfs.{kind}"))
            .args(["-q", "-F"])
            .arg(&image)
            .output();
        match made {
            Ok(made) if made.status.success() => {}
            Ok(made) => return Err(String::from_utf8_lossy(&made.stderr).into_owned()),
            Err(error) => return Err(format!("`mkfs.{kind}` does not run: {error}")),
        }
        let arguments = ["-t", kind, "-o", "loop"].map(OsStr::new);
        let arguments = arguments.into_iter().chain([image.as_os_str()]);
        match mount(&arguments.collect::<Vec<_>>(), &root) {
            None => Ok(Self {
                root,
                _directory: directory,
            }),
            Some(problem) => Err(format!("no loop mount: {}", problem.trim())),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Makes it take no more writes, or take them again.
    pub(crate) fn set_read_only(&self, read_only: bool) {
        let how = if read_only {
            "remount,ro"
        } else {
            "remount,rw"
        };
        let problem = mount(&["-o", how].map(OsStr::new), &self.root);
        assert_eq!(
            problem, None,
            "it is mounted, and no file is open for writing"
        );
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // The namespace would do it too, when its last process ends; lazily, because a failed test may have
        // files open.
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(&self.root)
            .output();
    }
}

/// Gives what went wrong.
fn mount(arguments: &[&OsStr], target: &Path) -> Option<String> {
    let output = Command::new("mount").args(arguments).arg(target).output();
    match output {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Some(error.to_string()),
    }
}

#[expect(clippy::disallowed_methods, reason = "mounts are the real disk's")]
fn make_dir(path: &Path) {
    std::fs::create_dir(path).expect("its parent is new");
}

#[expect(clippy::disallowed_methods, reason = "mounts are the real disk's")]
fn make_file(path: &Path, bytes: u64) {
    let file = std::fs::File::create_new(path).expect("its parent is new");
    file.set_len(bytes).expect("a hole takes no space");
}
