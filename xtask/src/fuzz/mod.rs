//! Fuzzing: `cargo xtask fuzz` lists the targets, runs them, and looks into what they found.
//!
//! What runs on the stable compiler (`list`, `repro`, `seeds`) is the work of the crate in `fuzz/checks`; the
//! rest needs a nightly compiler and cargo-fuzz, which is installed where it is missing. Three directories are
//! told apart, each with a subdirectory for each target:
//!
//! - `fuzz/corpus`: inputs that the repository keeps: seeds, and what `cmin` chose to keep
//! - `fuzz/found`: what runs on this machine found to reach something new; not kept
//! - `fuzz/artifacts`: inputs that broke something; not kept, but for those that a test needs

mod report;
mod run;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use report::Ended;
use run::Fuzzer;

const USAGE: &str = "\
cargo xtask fuzz <command>

  list                                    the targets, what each covers, and the sizes of the corpora
  run TARGET [--minutes N] [--jobs J]     looks for something new in one target, with J processes
  all [--minutes N] [--jobs J]            the same in every target, J at a time, with a table at the end
  smoke                                   every target for a few seconds, two at a time: what CI runs
  repro [TARGET] FILE                     prints an input and runs the check on it, on the stable compiler
  cmin [TARGET]                           keeps those finds that reach what the corpus does not
  seeds                                   makes the seeds anew, out of a real store";

/// How long each target runs where nobody says.
const MINUTES: u64 = 10;
/// How long each target runs in a smoke test.
const SMOKE: Duration = Duration::from_secs(8);
const SMOKE_JOBS: usize = 2;

/// Runs the command.
pub(crate) fn run(root: &Path, arguments: &[String]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["list"] => stable(root, &["list", &root.to_string_lossy()]),
        ["seeds"] => stable(root, &["seeds", &root.to_string_lossy()]),
        ["repro", file] => match target_of(root, file) {
            Some(target) => repro(root, &target, file),
            None => Err(format!(
                "`{file}` does not lie in a target's directory; say `repro TARGET {file}`"
            )),
        },
        ["repro", target, file] => repro(root, target, file),
        ["run", target, rest @ ..] => Effort::parse(rest, 1).and_then(|effort| {
            let target = known(root, target)?;
            let tasks = vec![target; effort.jobs];
            fuzz(root, &tasks, &effort)
        }),
        ["all", rest @ ..] => {
            Effort::parse(rest, SMOKE_JOBS).and_then(|effort| fuzz(root, &targets(root)?, &effort))
        }
        ["smoke"] => smoke(root),
        ["cmin"] => targets(root).and_then(|targets| cmin(root, &targets)),
        ["cmin", target] => known(root, target).and_then(|target| cmin(root, &[target])),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("fuzz: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Whether fuzzing is possible here, or why not. Installs cargo-fuzz where only that is missing.
pub(crate) fn ready(root: &Path) -> Result<(), String> {
    let answers = |arguments: &[&str]| run::quiet(root, arguments);
    if !answers(&["+nightly", "--version"]) {
        return Err("no nightly toolchain; the corpora are replayed by `cargo test`".to_owned());
    }
    if answers(&["+nightly", "fuzz", "--version"]) {
        return Ok(());
    }
    println!("installing cargo-fuzz");
    let installed = run::cargo(root, &["install", "cargo-fuzz", "--locked"]).status();
    if installed.is_ok_and(|status| status.success()) && answers(&["+nightly", "fuzz", "--version"])
    {
        return Ok(());
    }
    Err(
        "cargo-fuzz is not there and cannot be installed; the corpora are replayed by `cargo test`"
            .to_owned(),
    )
}

/// Runs every target for a short time.
pub(crate) fn smoke(root: &Path) -> Result<(), String> {
    let effort = Effort {
        time: SMOKE,
        jobs: SMOKE_JOBS,
    };
    fuzz(root, &targets(root)?, &effort)
}

/// How much is to be done.
#[derive(Debug, PartialEq, Eq)]
struct Effort {
    time: Duration,
    jobs: usize,
}

impl Effort {
    fn parse(words: &[&str], jobs: usize) -> Result<Self, String> {
        let mut effort = Self {
            time: Duration::from_secs(60 * MINUTES),
            jobs,
        };
        let mut words = words.iter();
        while let Some(&option) = words.next() {
            let value = words
                .next()
                .ok_or_else(|| format!("`{option}` wants a number"))?;
            let number: f64 = value
                .parse()
                .map_err(|_| format!("`{value}` is no number"))?;
            match option {
                "--minutes" if number > 0.0 => effort.time = Duration::from_secs_f64(60.0 * number),
                "--jobs" if number >= 1.0 => effort.jobs = number as usize,
                _ => {
                    return Err(format!(
                        "`{option} {value}`: --minutes N, --jobs J\n\n{USAGE}"
                    ));
                }
            }
        }
        Ok(effort)
    }
}

/// Builds the targets, runs them, shows what came of it, and looks into what broke.
fn fuzz(root: &Path, tasks: &[String], effort: &Effort) -> Result<(), String> {
    ready(root)?;
    let fuzzer = Fuzzer::build(root)?;
    let ended = fuzzer.run_all(tasks, effort.time, effort.jobs)?;
    println!("\n{}", report::table(&ended));
    let mut broken = 0;
    for Ended {
        target, artifact, ..
    } in &ended
    {
        let Some(artifact) = artifact else { continue };
        broken += 1;
        explain(&fuzzer, target, artifact);
    }
    match broken {
        0 => Ok(()),
        n => Err(format!("{n} of {} runs found something", ended.len())),
    }
}

/// Makes what was found as small as it can be, prints it, and says what to do about it.
fn explain(fuzzer: &Fuzzer<'_>, target: &str, artifact: &Path) {
    println!(
        "\n==== {target} found something: {} ====",
        artifact.display()
    );
    let small = fuzzer.minimise(target, artifact);
    let file = small.to_string_lossy();
    if let Err(problem) = repro(fuzzer.root, target, &file) {
        println!("{problem}");
    }
    println!(
        "\nThe input is {file}. Mend the bug, then:\n\
         1. git add it as fuzz/corpus/{target}/<what-it-is>: every test run replays it from then on\n\
         2. add a test named after the bug to fuzz/checks/tests/found.rs, or beside the code that had\n\
            it, whose header tells what went wrong\n\
         3. cargo xtask fuzz repro fuzz/corpus/{target}/<what-it-is>"
    );
}

/// Adds to the corpora what `found` has and they don't reach.
fn cmin(root: &Path, targets: &[String]) -> Result<(), String> {
    ready(root)?;
    let fuzzer = Fuzzer::build(root)?;
    for target in targets {
        fuzzer.keep(target)?;
    }
    stable(root, &["list", &root.to_string_lossy()])
}

fn repro(root: &Path, target: &str, file: &str) -> Result<(), String> {
    let target = known(root, target)?;
    stable(root, &["repro", &target, file])
}

/// Runs what needs no fuzzer.
fn stable(root: &Path, arguments: &[&str]) -> Result<(), String> {
    let mut command: Command = run::cargo(
        root,
        &["run", "--quiet", "--package", "vault-fuzz-checks", "--"],
    );
    // Where the user stands, so that files are found as they are named.
    command.current_dir(std::env::current_dir().unwrap_or_else(|_| root.to_path_buf()));
    match command.args(arguments).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{}: {status}", arguments.join(" "))),
        Err(error) => Err(format!("cannot start cargo: {error}")),
    }
}

/// The targets: each has a file of its own.
fn targets(root: &Path) -> Result<Vec<String>, String> {
    let directory = root.join("fuzz/fuzz_targets");
    let entries =
        std::fs::read_dir(&directory).map_err(|e| format!("{}: {e}", directory.display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

fn known(root: &Path, target: &str) -> Result<String, String> {
    let targets = targets(root)?;
    if targets.iter().any(|name| name == target) {
        return Ok(target.to_owned());
    }
    Err(format!(
        "no target `{target}`; there are {}",
        targets.join(", ")
    ))
}

/// The target in whose directory a file lies.
fn target_of(root: &Path, file: &str) -> Option<String> {
    let directory = Path::new(file).parent()?.file_name()?.to_str()?;
    known(root, directory).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effort_is_read_and_nonsense_refused() {
        let parse = |text: &str| Effort::parse(&text.split_whitespace().collect::<Vec<_>>(), 2);
        let effort = |seconds, jobs| Effort {
            time: Duration::from_secs(seconds),
            jobs,
        };
        assert_eq!(parse(""), Ok(effort(600, 2)));
        assert_eq!(parse("--minutes 0.5 --jobs 3"), Ok(effort(30, 3)));
        for nonsense in [
            "--minutes",
            "--minutes x",
            "--minutes 0",
            "--jobs 0",
            "--hours 1",
        ] {
            assert!(parse(nonsense).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn a_file_tells_its_target_by_its_directory() {
        let root = crate::repository_root();
        let target = |file| target_of(&root, file);
        assert_eq!(target("fuzz/corpus/batch/put").as_deref(), Some("batch"));
        assert_eq!(target("/elsewhere/table/crash-1").as_deref(), Some("table"));
        assert_eq!(target("crash-1"), None);
        assert!(known(&root, "no-such-target").is_err());
    }
}
