//! The tests of the parts with `unsafe`, and of what threads share, under the sanitizers of the nightly
//! compiler.
//!
//! - **address**: the memtable and the mapped files, for reads and writes outside of what is allocated.
//! - **thread**: the memtable beside its readers, and the whole engine on real threads, for races. The
//!   sanitizer knows only what was compiled for it, and the standard library cannot be where its sources are not
//!   installed. So the engine gets locks that are tried instead of waited for (`vault-lsm/src/sync/threads.rs`),
//!   which are compiled with it. What is left is in [`SUPPRESSIONS`], each entry with its reason.
//! - **miri**: the memtable, for undefined behaviour of any kind.
//!
//! What is missing is named and skipped, never called passed.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// What ThreadSanitizer is not to report, and why.
const SUPPRESSIONS: &str = "xtask/tsan-suppressions.txt";

/// How a sanitizer's run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It found nothing.
    Clean,
    /// It could not run: what is missing.
    Missing(String),
    /// It found something, or the tests failed.
    Found(String),
}

use Outcome::{Clean, Found, Missing};

/// A sanitizer: how to ask for it, and what runs under it.
struct Sanitizer {
    name: &'static str,
    /// Its runtime, as it lies among the compiler's libraries.
    runtime: Option<&'static str>,
    flags: &'static str,
    /// Packages, and the tests of each.
    tests: &'static [(&'static str, &'static [&'static str])],
}

const SANITIZERS: [Sanitizer; 3] = [
    Sanitizer {
        name: "address",
        runtime: Some("rt.asan.a"),
        flags: "-Zsanitizer=address -Cunsafe-allow-abi-mismatch=sanitizer",
        tests: &[
            ("vault-lsm", &["memtable::"]),
            ("vault-core", &["vfs::disk"]),
        ],
    },
    Sanitizer {
        name: "thread",
        runtime: Some("rt.tsan.a"),
        flags: "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer \
                --cfg vault_model --cfg vault_model=\"threads\"",
        tests: &[("vault-lsm", &["memtable::threads_tests", "models::threads"])],
    },
    Sanitizer {
        name: "miri",
        runtime: None,
        flags: "",
        tests: &[("vault-lsm", &["memtable::"])],
    },
];

/// Runs the sanitizers that the arguments name.
pub(crate) fn run(root: &Path, arguments: &[String]) -> ExitCode {
    let wanted = match arguments {
        [] => "all",
        [one] => one.as_str(),
        _ => "",
    };
    let names: Vec<_> = SANITIZERS.iter().map(|sanitizer| sanitizer.name).collect();
    if wanted != "all" && !names.contains(&wanted) {
        eprintln!("`sanitize` takes one of {}, all", names.join(", "));
        return ExitCode::from(2);
    }
    let mut found = false;
    for name in names
        .into_iter()
        .filter(|&name| wanted == "all" || wanted == name)
    {
        match check(root, name) {
            Clean => println!("{name}: clean"),
            Missing(what) => println!("{name}: skipped: {what}"),
            Found(what) => {
                println!("{name}: FAILED: {what}");
                found = true;
            }
        }
    }
    if found {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Runs one sanitizer, by its name.
pub(crate) fn check(root: &Path, name: &str) -> Outcome {
    let Some(sanitizer) = SANITIZERS.iter().find(|one| one.name == name) else {
        return Missing(format!("there is no sanitizer `{name}`"));
    };
    if let Some(missing) = missing(root, sanitizer) {
        return Missing(missing);
    }
    let Some(host) = host(root) else {
        return Missing("the nightly compiler does not say what it compiles for".to_owned());
    };
    for (package, tests) in sanitizer.tests {
        println!("{name}: {package}, {}", tests.join(", "));
        let mut command = nightly(root);
        if sanitizer.runtime.is_none() {
            command.args(["miri", "test"]);
            // Tests take the time and make files of their own.
            command.env("MIRIFLAGS", "-Zmiri-disable-isolation");
        } else {
            // With a target named, what runs while compiling is left alone.
            command.args(["test", "--target", &host]);
        }
        command
            .args(["--quiet", "--package", package, "--lib", "--"])
            .args(*tests);
        command.env("RUSTFLAGS", sanitizer.flags);
        command.env("CARGO_TARGET_DIR", root.join("target/sanitize").join(name));
        let suppressions = root.join(SUPPRESSIONS);
        command.env(
            "TSAN_OPTIONS",
            format!("halt_on_error=1 suppressions={}", suppressions.display()),
        );
        match command.status() {
            Ok(status) if status.success() => {}
            Ok(status) => return Found(format!("{package}: {status}")),
            Err(error) => return Found(format!("{package}: {error}")),
        }
    }
    Clean
}

/// What is not installed, in words that say what to do.
fn missing(root: &Path, sanitizer: &Sanitizer) -> Option<String> {
    if output(nightly(root).arg("--version")).is_none() {
        return Some(
            "there is no nightly toolchain: `rustup toolchain install nightly`".to_owned(),
        );
    }
    let Some(runtime) = sanitizer.runtime else {
        let there = output(nightly(root).args(["miri", "--version"])).is_some();
        let advice = "miri is not installed: `rustup +nightly component add miri rust-src`";
        return (!there).then(|| advice.to_owned());
    };
    let mut rustc = Command::new("rustc");
    let libraries = output(rustc.args(["+nightly", "--print", "target-libdir"]))?;
    let entries = std::fs::read_dir(libraries.trim()).ok()?;
    let there = entries
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().ends_with(runtime));
    (!there).then(|| format!("the compiler has no {runtime} for this system"))
}

/// The system that the nightly compiler runs on.
fn host(root: &Path) -> Option<String> {
    let mut rustc = Command::new("rustc");
    let version = output(rustc.current_dir(root).args(["+nightly", "-vV"]))?;
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))?;
    Some(host.to_owned())
}

fn nightly(root: &Path) -> Command {
    let mut command = Command::new("cargo");
    command
        .current_dir(root)
        .arg("+nightly")
        .stdin(Stdio::null());
    command
}

/// What a command prints, if it is there and succeeds.
fn output(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_sanitizer_is_refused_before_anything_runs() {
        let root = Path::new(".");
        assert_eq!(run(root, &["memory".to_owned()]), ExitCode::from(2));
        assert_eq!(
            run(root, &["address".to_owned(), "x".to_owned()]),
            ExitCode::from(2)
        );
        assert!(matches!(check(root, "memory"), Missing(_)));
    }

    #[test]
    fn every_suppression_has_its_reason_above_it() {
        let text = include_str!("../tsan-suppressions.txt");
        let mut explained = false;
        let mut entries = 0;
        for line in text.lines() {
            if line.starts_with('#') {
                explained = true;
            } else if line.is_empty() {
                explained = false;
            } else {
                assert!(explained, "`{line}` has no reason above it");
                entries += 1;
            }
        }
        assert!(entries > 0);
    }

    #[test]
    fn what_is_not_installed_is_said() {
        let made_up = Sanitizer {
            name: "made up",
            runtime: Some("rt.made-up.a"),
            flags: "",
            tests: &[],
        };
        let said = missing(Path::new("."), &made_up).expect("nobody has that");
        assert!(
            said.contains("nightly toolchain") || said.contains("rt.made-up.a"),
            "{said}"
        );
    }
}
