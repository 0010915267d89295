//! Builds and runs fuzzers, several at a time.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::report::{Ended, Progress};

/// How long a fuzzer may think about one input, in seconds: longer is a finding.
const INPUT_SECONDS_MAX: u32 = 20;
/// Most memory that a fuzzer may take, in MiB.
const MEMORY_MIB_MAX: u32 = 1024;
/// How long a finding is made smaller, in seconds.
const MINIMISE_SECONDS: u32 = 30;
/// How often a fuzzer's progress is shown.
const SHOW_EVERY: Duration = Duration::from_secs(20);
/// Lines that are shown of a fuzzer that found something.
const LAST_LINES: usize = 40;
/// Rust links the same symbol from several places without harm. What was freed is kept from being used again for
/// a while, and where it came from noted, both briefly: it makes long sequences of operations twice as fast, and
/// an input that breaks something is run again anyway.
const ADDRESS_SANITIZER: &str =
    "detect_odr_violation=0:quarantine_size_mb=16:malloc_context_size=4";
/// Longest input that goes into the corpus, in bytes: the repository carries it for good.
const KEPT_BYTES_MAX: u32 = 2 << 10;

/// A command of cargo. Not $CARGO: that one is the toolchain's own and doesn't understand `+nightly`.
pub(super) fn cargo(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command
        .current_dir(root)
        .stdin(Stdio::null())
        .args(arguments);
    command
}

/// Whether a command of cargo answers at all.
pub(super) fn quiet(root: &Path, arguments: &[&str]) -> bool {
    let mut command = cargo(root, arguments);
    let command = command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Fuzzers that have been built.
pub(super) struct Fuzzer<'a> {
    pub(super) root: &'a Path,
    binaries: PathBuf,
}

impl<'a> Fuzzer<'a> {
    /// Builds every target, with the address sanitizer.
    pub(super) fn build(root: &'a Path) -> Result<Self, String> {
        let host = host(root)?;
        let built = cargo(root, &["+nightly", "fuzz", "build", "--target", &host]).status();
        if !built.is_ok_and(|status| status.success()) {
            return Err("the targets don't build".to_owned());
        }
        let binaries = root.join("fuzz/target").join(host).join("release");
        Ok(Self { root, binaries })
    }

    /// Runs each task for `time`, `jobs` at once.
    pub(super) fn run_all(
        &self,
        tasks: &[String],
        time: Duration,
        jobs: usize,
    ) -> Result<Vec<Ended>, String> {
        let waiting = Mutex::new(tasks.iter().enumerate().collect::<VecDeque<_>>());
        let ended = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| {
                    loop {
                        let next = waiting.lock().map_or(None, |mut tasks| tasks.pop_front());
                        let Some((number, target)) = next else { break };
                        let outcome = self.run(target, time);
                        if let Ok(mut ended) = ended.lock() {
                            ended.push((number, outcome));
                        }
                    }
                });
            }
        });
        let mut ended = ended
            .into_inner()
            .map_err(|_| "a runner panicked".to_owned())?;
        ended.sort_by_key(|(number, _)| *number);
        if ended.len() < tasks.len() {
            return Err("not every target was run".to_owned());
        }
        ended.into_iter().map(|(_, outcome)| outcome).collect()
    }

    /// Runs one target. What reaches something new goes to `found`; the corpus is only read.
    fn run(&self, target: &str, time: Duration) -> Result<Ended, String> {
        let found = self.directory("found", target)?;
        let artifacts = self.directory("artifacts", target)?;
        let corpus = self.directory("corpus", target)?;
        let mut command = self.command(target);
        command
            .arg(format!("-max_total_time={}", time.as_secs().max(1)))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
            .arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"))
            .args(["-print_final_stats=1", "-reload=1"])
            .args([found, corpus]);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let begin = Instant::now();
        let mut child = command.spawn().map_err(|e| format!("{target}: {e}"))?;
        let output = child.stderr.take().ok_or("a fuzzer without output")?;
        let (mut progress, mut last) = (Progress::default(), VecDeque::new());
        let mut shown = Instant::now();
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if progress.read(&line) && shown.elapsed() >= SHOW_EVERY {
                shown = Instant::now();
                println!(
                    "{target:<12} {:>5} s  {progress}",
                    begin.elapsed().as_secs()
                );
            }
            if last.len() == LAST_LINES {
                last.pop_front();
            }
            last.push_back(line);
        }
        let status = child.wait().map_err(|e| format!("{target}: {e}"))?;
        if !status.success() {
            println!("{target}: {status}");
            last.iter().for_each(|line| println!("    {line}"));
            if progress.artifact.is_none() {
                return Err(format!("{target} ended with {status}"));
            }
        }
        Ok(Ended {
            target: target.to_owned(),
            artifact: progress.artifact.clone(),
            progress,
            elapsed: begin.elapsed(),
        })
    }

    /// Makes a finding smaller; gives the smallest that still is one. One that was only slow stays as it is: nothing fails by which
    /// a smaller one could be told, and it would be run again and again beyond every time limit.
    pub(super) fn minimise(&self, target: &str, artifact: &Path) -> PathBuf {
        let name = artifact.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("slow-unit-") {
            return artifact.to_path_buf();
        }
        let small = artifact.with_extension("small");
        let mut command = self.command(target);
        command
            .args(["-minimize_crash=1", "-runs=100000"])
            .arg(format!("-max_total_time={MINIMISE_SECONDS}"))
            .arg(format!("-exact_artifact_path={}", small.display()))
            .arg(artifact)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // It fails where nothing smaller is found: then the finding is as small as it gets.
        let _ = command.status();
        if small.exists() {
            small
        } else {
            artifact.to_path_buf()
        }
    }

    /// Copies into the corpus what reaches something that the corpus does not.
    pub(super) fn keep(&self, target: &str) -> Result<(), String> {
        let corpus = self.directory("corpus", target)?;
        let found = self.directory("found", target)?;
        let mut command = self.command(target);
        command
            .arg("-merge=1")
            .arg(format!("-max_len={KEPT_BYTES_MAX}"))
            .args([corpus, found])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        match command.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{target}: {status}")),
            Err(error) => Err(format!("{target}: {error}")),
        }
    }

    fn command(&self, target: &str) -> Command {
        let mut command = Command::new(self.binaries.join(target));
        command.env("ASAN_OPTIONS", ADDRESS_SANITIZER);
        command.current_dir(self.root).stdin(Stdio::null());
        command
    }

    fn directory(&self, kind: &str, target: &str) -> Result<PathBuf, String> {
        let directory = self.root.join("fuzz").join(kind).join(target);
        std::fs::create_dir_all(&directory).map_err(|e| format!("{}: {e}", directory.display()))?;
        Ok(directory)
    }
}

/// The platform that the nightly compiler builds for.
fn host(root: &Path) -> Result<String, String> {
    let mut command = Command::new("rustc");
    let output = command.current_dir(root).args(["+nightly", "-vV"]).output();
    let output = output.map_err(|e| format!("rustc: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .ok_or_else(|| "rustc does not say what it builds for".to_owned())
}
