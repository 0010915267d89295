//! Secrets from real files, variables and processes, and every way in which they cannot be had.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vault_core::clock::{Clock, SystemClock};
use vault_core::{Error, Result};
use vault_crypto::source::{Command, EnvironmentVariable, KeyFile, KeySource, Secret};

const DIGITS: &str = "0707070707070707070707070707070707070707070707070707070707070707";

fn key(source: &dyn KeySource) -> Result<[u8; 32]> {
    source.secret().map(|secret| match secret {
        Secret::Key(key) => *key.expose(),
        Secret::Passphrase(_) => panic!("{} gives a passphrase", source.name()),
    })
}

fn passphrase(source: &dyn KeySource) -> Result<Vec<u8>> {
    source.secret().map(|secret| match secret {
        Secret::Passphrase(passphrase) => passphrase.expose().to_vec(),
        Secret::Key(_) => panic!("{} gives a key", source.name()),
    })
}

/// The problem of a secret that cannot be had, whose error names the source.
fn unavailable<T>(outcome: Result<T>) -> String {
    match outcome.err() {
        Some(Error::KeyUnavailable {
            source_name,
            problem,
        }) => format!("{source_name}: {problem}"),
        other => panic!("{other:?}"),
    }
}

fn invalid<T>(outcome: Result<T>) -> String {
    match outcome.err() {
        Some(Error::InvalidKey { problem }) => problem,
        other => panic!("{other:?}"),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the key file is not of the store's file system"
)]
fn write(directory: &Path, content: &[u8], mode: u32) -> PathBuf {
    let path = directory.join(format!("key-{}-{mode:o}", content.len()));
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    path
}

#[test]
fn a_key_file_holds_bytes_or_digits() {
    let directory = tempfile::tempdir().unwrap();
    for (content, end) in [
        (&[7; 32][..], ""),
        (DIGITS.as_bytes(), ""),
        (DIGITS.as_bytes(), "\n"),
        (DIGITS.as_bytes(), "\r\n"),
    ] {
        let content = [content, end.as_bytes()].concat();
        for mode in [0o600, 0o400] {
            let path = write(directory.path(), &content, mode);
            assert_eq!(key(&KeyFile::new(path)).unwrap(), [7; 32]);
        }
    }
}

#[test]
fn a_key_file_that_holds_anything_else_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for content in [
        &b""[..],
        &[7; 31],
        &[7; 33],
        b"correct horse battery staple",
        &DIGITS.as_bytes()[1..],
        format!("{DIGITS}0").as_bytes(),
        format!("{DIGITS}\n\n").as_bytes(),
        format!(" {DIGITS}").as_bytes(),
        format!("{}x", &DIGITS[1..]).as_bytes(),
        &[b'0'; 5000],
        &[b'0'; 1 << 20],
    ] {
        let path = write(directory.path(), content, 0o600);
        let problem = invalid(key(&KeyFile::new(&path)));
        assert!(problem.contains(path.to_str().unwrap()), "{problem}");
        assert!(problem.contains("64 hexadecimal digits"), "{problem}");
        assert!(
            !problem.contains("horse") && !problem.contains("0707"),
            "{problem}"
        );
    }
}

#[test]
fn a_key_file_that_is_no_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("nowhere");
    let problem = unavailable(key(&KeyFile::new(&missing)));
    assert!(problem.contains("no such file"), "{problem}");
    assert!(problem.contains(missing.to_str().unwrap()), "{problem}");

    let problem = unavailable(key(&KeyFile::new(directory.path())));
    assert!(problem.contains("no regular file"), "{problem}");
    for device in ["/dev/null", "/dev/zero"] {
        let problem = unavailable(key(&KeyFile::new(device)));
        assert!(problem.contains("no regular file"), "{problem}");
    }
    let through = write(directory.path(), &[7; 32], 0o600).join("below");
    let problem = unavailable(key(&KeyFile::new(through)));
    assert!(problem.contains("cannot be opened"), "{problem}");
}

/// A pipe that nobody writes to is refused at once: opening it would wait for somebody.
#[test]
fn a_pipe_is_refused_without_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
    let problem = unavailable(key(&KeyFile::new(path)));
    assert!(problem.contains("no regular file"), "{problem}");
}

#[test]
fn a_key_file_that_others_may_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for mode in [0o644, 0o640, 0o604, 0o620, 0o601] {
        let path = write(directory.path(), &[7; 32], mode);
        let problem = unavailable(key(&KeyFile::new(&path)));
        assert!(problem.contains(&format!("{mode:03o}")), "{problem}");
        assert!(problem.contains("chmod"), "{problem}");
        let any = KeyFile::new(&path).danger_any_permissions();
        assert_eq!(key(&any).unwrap(), [7; 32]);
    }
}

/// Nobody but the superuser may open it; the superuser may, and is not refused.
#[test]
fn a_key_file_that_this_user_may_not_read_is_unavailable() {
    let directory = tempfile::tempdir().unwrap();
    let path = write(directory.path(), &[7; 32], 0o000);
    if rustix::process::geteuid().is_root() {
        assert_eq!(key(&KeyFile::new(path)).unwrap(), [7; 32]);
    } else {
        let problem = unavailable(key(&KeyFile::new(path)));
        assert!(problem.contains("may not read it"), "{problem}");
    }
}

/// Variables are set for a process of its own, which runs the test below this one.
#[test]
fn a_variable_gives_what_it_holds() {
    use std::os::unix::ffi::OsStringExt;
    for (value, expected) in [
        (
            b"open sesame".to_vec(),
            "passphrase: open sesame, key: InvalidKey",
        ),
        (
            DIGITS.as_bytes().to_vec(),
            &format!("passphrase: {DIGITS}, key: [7, 7,"),
        ),
        (b"".to_vec(), "passphrase: InvalidKey, key: InvalidKey"),
        (
            b"caf\xe9".to_vec(),
            "passphrase: InvalidKey, key: InvalidKey",
        ),
        (vec![b'x'; 1025], "passphrase: InvalidKey, key: InvalidKey"),
        (
            vec![b'x'; 100_000],
            "passphrase: InvalidKey, key: InvalidKey",
        ),
    ] {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "what_the_variable_holds", "--nocapture"])
            .env("VAULT_TEST_SECRET", std::ffi::OsString::from_vec(value))
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{printed}");
        assert!(printed.contains(expected), "{expected}: {printed}");
    }
}

#[test]
fn what_the_variable_holds() {
    let asked = [
        EnvironmentVariable::passphrase("VAULT_TEST_SECRET"),
        EnvironmentVariable::key("VAULT_TEST_SECRET"),
    ];
    if std::env::var_os("VAULT_TEST_SECRET").is_none() {
        for source in asked {
            let problem = unavailable(source.secret());
            assert!(
                problem.contains("VAULT_TEST_SECRET: it is not set"),
                "{problem}"
            );
        }
        return;
    }
    let kind = |error: Error| match error {
        Error::InvalidKey { problem } => {
            assert!(problem.contains("VAULT_TEST_SECRET"), "{problem}");
            assert!(
                !problem.contains("xxx") && !problem.contains("sesame"),
                "{problem}"
            );
            "InvalidKey".to_owned()
        }
        other => format!("{other:?}"),
    };
    let text = passphrase(&asked[0]).map_or_else(kind, |text| String::from_utf8(text).unwrap());
    let bytes = key(&asked[1]).map_or_else(kind, |key| format!("{key:?}"));
    println!("passphrase: {text}, key: {bytes}");
}

fn shell(script: &str) -> Command {
    Command::passphrase("sh", ["-c", script])
}

#[test]
fn a_command_gives_its_first_line() {
    for (script, expected) in [
        ("echo open sesame", "open sesame"),
        ("printf open", "open"),
        ("printf 'open\\r\\nsesame\\r\\n'", "open"),
        ("printf 'open\\nsesame\\n'", "open"),
        ("printf ' a b '", " a b "),
        ("printf op; printf en; echo warning >&2; echo", "open"),
        // More than a pipe holds, on both sides.
        (
            "echo open; head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2",
            "open",
        ),
        // A command that leaves an agent behind which holds its pipes.
        ("sleep 20 & echo open", "open"),
    ] {
        assert_eq!(passphrase(&shell(script)).unwrap(), expected.as_bytes());
    }
    assert_eq!(key(&Command::key("echo", [DIGITS])).unwrap(), [7; 32]);
}

#[test]
fn a_command_that_gives_no_secret_is_refused() {
    let problem = invalid(key(&Command::key("echo", ["0707"])));
    assert!(problem.contains("64 hexadecimal digits"), "{problem}");
    let problem = invalid(passphrase(&shell("printf 'caf\\351\\n'")));
    assert!(problem.contains("UTF-8"), "{problem}");
    for script in ["head -c 1025 /dev/zero", "head -c 1000000 /dev/zero"] {
        let problem = invalid(passphrase(&shell(script)));
        assert!(problem.contains("1024"), "{problem}");
    }
    for script in [
        "true",
        "echo",
        "echo; echo late",
        "echo 'no such entry' >&2",
    ] {
        let problem = unavailable(passphrase(&shell(script)));
        assert!(problem.contains("printed nothing"), "{problem}");
        assert_eq!(problem.contains("no such entry"), script.contains("entry"));
    }
}

#[test]
fn a_command_that_fails_says_why_and_never_what_it_printed() {
    let problem = unavailable(passphrase(&shell(
        "echo sesame; echo 'not logged in' >&2; exit 3",
    )));
    assert!(problem.starts_with("the command sh:"), "{problem}");
    assert!(problem.contains("exit status: 3"), "{problem}");
    assert!(problem.contains("not logged in"), "{problem}");
    assert!(!problem.contains("sesame"), "{problem}");

    let problem = unavailable(passphrase(&shell("kill -TERM $$")));
    assert!(problem.contains("signal: 15"), "{problem}");

    // What it says is cut, and cannot play with a terminal.
    let problem = unavailable(passphrase(&shell(
        "printf '\\033[2J' >&2; head -c 100000 /dev/zero | tr '\\000' y >&2; exit 1",
    )));
    assert!(problem.contains("\\u{1b}[2Jyyyy"), "{problem}");
    assert!(problem.len() < 400, "{} bytes", problem.len());

    // Nor does it bring the secret in by the back door.
    let problem = unavailable(passphrase(&shell("set -x; echo open-sesame; exit 1")));
    assert!(!problem.contains("sesame"), "{problem}");

    let problem = unavailable(passphrase(&Command::passphrase("./no-such-program", ["x"])));
    assert!(problem.contains("cannot be run"), "{problem}");
    assert!(problem.contains("no-such-program"), "{problem}");
}

#[test]
fn a_command_that_hangs_is_killed_with_its_children() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("processes");
    for rest in [
        "wait",
        // It prints what it should, and does not end; it ends, and the line does not; it never stops printing.
        "echo open; wait",
        "printf open; exit 0",
        "while :; do echo open; done",
        "trap '' TERM INT HUP; echo hanging >&2; wait",
    ] {
        let script = format!("sleep 1000 & echo $$ $! > {}; {rest}", file.display());
        let numbers = killed(&script, &file);
        assert_eq!(numbers.len(), 2, "{numbers:?}");
        for number in numbers {
            wait_for_the_end_of(number);
        }
    }
}

/// Runs a script that does not end, until the time is up. Gives the numbers of its processes, which it writes to a file first
/// of all: where the machine is so slow that it was killed before, it gets more time.
fn killed(script: &str, file: &Path) -> Vec<i32> {
    let clock = SystemClock::new();
    for limit_ms in [300, 3_000, 30_000] {
        let limit = Duration::from_millis(limit_ms);
        let begin = clock.monotonic();
        let problem = unavailable(passphrase(&shell(script).time_limit(limit)));
        assert!(clock.monotonic() - begin >= limit, "{problem}");
        assert!(
            problem.contains(&format!("{limit:?} and was killed")),
            "{problem}"
        );
        assert!(!problem.contains("open"), "{problem}");
        #[expect(clippy::disallowed_methods, reason = "written by the command")]
        let numbers = std::fs::read_to_string(file).unwrap_or_default();
        if numbers.ends_with('\n') {
            return numbers
                .split_whitespace()
                .map(|number| number.parse().unwrap())
                .collect();
        }
    }
    panic!("the command did not begin: {script}");
}

/// The child is not ours: somebody else reaps it once it was killed.
fn wait_for_the_end_of(number: i32) {
    let pid = rustix::process::Pid::from_raw(number).unwrap();
    let clock = SystemClock::new();
    let begin = clock.monotonic();
    while rustix::process::test_kill_process(pid).is_ok() && !is_zombie(number) {
        assert!(
            clock.monotonic() - begin < Duration::from_secs(60),
            "process {number} still runs"
        );
        std::thread::yield_now();
    }
}

fn is_zombie(number: i32) -> bool {
    #[expect(
        clippy::disallowed_methods,
        reason = "what the system knows of a process, which is no file"
    )]
    let status = std::fs::read_to_string(format!("/proc/{number}/stat"));
    status.is_ok_and(|status| status.contains(") Z "))
}

#[test]
fn the_longest_time_limit_is_accepted() {
    let source = Command::passphrase("echo", ["open"]).time_limit(Duration::MAX);
    assert_eq!(passphrase(&source).unwrap(), b"open");
    let problem = unavailable(passphrase(&source.time_limit(Duration::ZERO)));
    assert!(problem.contains("killed"), "{problem}");
}

/// Arguments are handed on as they are: no shell reads them.
#[test]
fn arguments_are_not_interpreted() {
    let source = Command::passphrase("printf", ["%s\\n", "$HOME `id` ; rm *"]);
    assert_eq!(passphrase(&source).unwrap(), b"$HOME `id` ; rm *");
    assert_eq!(source.name(), "the command printf");
}
