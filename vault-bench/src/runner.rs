//! Runs engines in turn, each in a process of its own, and keeps what their workers report.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use vault_core::clock::{Clock, SystemClock};

use crate::engines::{self, Rival};
use crate::error::{Error, Result};
use crate::measure::{self, Machine};
use crate::memory_group::MemoryGroup;
use crate::record::{Figures, Job, Message, Record};
use crate::settings::Settings;
use crate::workload::Workload;

/// What the directories of stores begin with.
const STORE_PREFIX: &str = "store-";

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Request {
    /// Engines, in the order in which they take turns.
    pub engines: Vec<String>,
    /// Workloads, in order.
    pub workloads: Vec<Workload>,
    /// How often each engine has its turn.
    pub rounds: u32,
    /// The settings.
    pub settings: Settings,
    /// Whether to settle between writing and reading.
    pub settle: bool,
    /// Where the stores go.
    pub dir: PathBuf,
    /// A file to add results to.
    pub out: Option<PathBuf>,
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// Everything that was measured.
    pub records: Vec<Record>,
    /// What went wrong; empty where nothing did.
    pub failures: Vec<Error>,
}

/// Runs everything that was asked for. What fails is kept beside what was measured.
///
/// # Errors
/// What makes the whole run impossible: a setting, too small a disk, a directory in use, a results
/// file that cannot be written.
pub fn run(request: &Request) -> Result<Report> {
    request.settings.check()?;
    let _lock = measure::claim_dir(&request.dir, STORE_PREFIX)?;
    measure::check_free_space(&request.dir, request.settings.disk_bytes_needed())?;
    // Whether memory can be limited here is found out before anything is built.
    drop(MemoryGroup::for_settings(&request.settings)?);
    let mut results = request
        .out
        .as_deref()
        .map(measure::open_results)
        .transpose()?;
    let mut report = Report::default();
    let workers = find_workers(request, &mut report)?;
    let machine = Machine::look(&request.dir);
    if machine.file_system == "tmpfs" {
        measure::say(
            "warning: the stores lie in memory (tmpfs): writes and syncs cost nothing here",
        );
    }
    let mut turn = Turn {
        request,
        machine,
        revision: revision(),
        clock: SystemClock::new(),
        results: results.as_mut(),
        report: &mut report,
    };
    for round in 1..=request.rounds {
        for (engine, binary) in &workers {
            measure::say(&format!("round {round} of {}: {engine}", request.rounds));
            if let Err(error) = turn.take(engine, binary, round) {
                measure::say(&format!("  {error}"));
                turn.report.failures.push(error);
            }
        }
    }
    Ok(report)
}

/// Finds the binary that runs each engine, and builds those of the rivals that are asked for. One that cannot be built is
/// reported and left out.
fn find_workers(request: &Request, report: &mut Report) -> Result<Vec<(String, PathBuf)>> {
    let own = std::env::current_exe().map_err(|e| Error::io("find", "this binary", e))?;
    let mut workers = Vec::new();
    for name in &request.engines {
        let binary = engines::rival(name).map_or_else(|| Ok(own.clone()), build);
        match binary {
            Ok(binary) => workers.push((name.clone(), binary)),
            Err(error) => {
                measure::say(&error.to_string());
                report.failures.push(error);
            }
        }
    }
    Ok(workers)
}

/// Builds a rival's worker, showing cargo's progress, and gives the path of its binary.
fn build(rival: &'static Rival) -> Result<PathBuf> {
    let Rival { name, takes, .. } = rival;
    let failed = |why: String| Error::RivalNotBuilt {
        rival: name,
        why,
        takes,
    };
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("rivals/Cargo.toml");
    measure::say(&format!(
        "building {name} (the first time it takes {takes})"
    ));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--release", "--locked", "--bin", name])
        .args(["--features", name])
        .args(["--message-format", "json-render-diagnostics"])
        .arg("--manifest-path")
        .arg(&manifest)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| failed(format!("cargo cannot be started: {e}")))?;
    if !output.status.success() {
        return Err(failed(format!("cargo ended with {}", output.status)));
    }
    // Cargo says where it put the binary: the target directory can be anywhere.
    let executable = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message.get("executable")?.as_str().map(PathBuf::from)
    };
    let messages = String::from_utf8_lossy(&output.stdout);
    let found = messages.lines().filter_map(executable).next_back();
    found.ok_or_else(|| failed("cargo names no binary".to_owned()))
}

/// The revision of the sources, where git can tell.
fn revision() -> Option<String> {
    let output = Command::new("git")
        .args([
            "-C",
            env!("CARGO_MANIFEST_DIR"),
            "describe",
            "--always",
            "--dirty",
            "--abbrev=12",
        ])
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

struct Turn<'a> {
    request: &'a Request,
    machine: Machine,
    revision: Option<String>,
    clock: SystemClock,
    results: Option<&'a mut File>,
    report: &'a mut Report,
}

impl Turn<'_> {
    /// One engine, one round, one process.
    fn take(&mut self, engine: &str, binary: &Path, round: u32) -> Result<()> {
        let dir = self
            .request
            .dir
            .join(format!("{STORE_PREFIX}{engine}-{round}"));
        // Other processes fill disks too: look again before each turn.
        measure::check_free_space(&self.request.dir, self.request.settings.disk_bytes_needed())?;
        let job = Job {
            engine: engine.to_owned(),
            dir: dir.clone(),
            workloads: self.request.workloads.clone(),
            settle: self.request.settle,
            settings: self.request.settings.clone(),
            verbose: true,
        };
        let result = self.run_worker(&job, binary, round);
        let removed = measure::remove_dir(&dir);
        result.and(removed)
    }

    fn run_worker(&mut self, job: &Job, binary: &Path, round: u32) -> Result<()> {
        let failed = |message: String| Error::Worker {
            engine: job.engine.clone(),
            message,
        };
        let text = serde_json::to_string(job).map_err(|source| Error::Json {
            what: "the job",
            source,
        })?;
        let group = MemoryGroup::for_settings(&job.settings)?;
        let mut child = Command::new(binary)
            .arg("worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| Error::io("start", binary, e))?;
        // It has no job yet, and so nothing of its memory is counted elsewhere.
        let limited = group.as_ref().map_or(Ok(()), |group| group.add(child.id()));
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let heard = match (input, output) {
            _ if limited.is_err() => limited,
            (Some(mut input), Some(output)) => {
                let sent = input.write_all(text.as_bytes());
                drop(input);
                sent.map_err(|e| failed(format!("it takes no job: {e}")))
                    .and_then(|()| self.hear(job, round, BufReader::new(output)))
            }
            _ => Err(failed("it has no pipes".to_owned())),
        };
        if heard.is_err() {
            // Whatever it does now, nobody listens.
            let _ = child.kill();
        }
        let status = child.wait().map_err(|e| failed(e.to_string()))?;
        heard?;
        if status.success() {
            return Ok(());
        }
        Err(failed(format!("it ended with {status}")))
    }

    /// Keeps what the worker says until it ends.
    fn hear(&mut self, job: &Job, round: u32, output: impl BufRead) -> Result<()> {
        let mut engine_version = String::new();
        for line in output.lines() {
            let line = line.map_err(|e| Error::io("read from", "the worker", e))?;
            let what = "a worker's message";
            let message =
                serde_json::from_str(&line).map_err(|source| Error::Json { what, source })?;
            match message {
                Message::Started { version, setup } => {
                    measure::say(&format!("  {} {version}: {setup}", job.engine));
                    engine_version = version;
                }
                Message::LeftOut { workload, why } => {
                    measure::say(&format!("  {workload} left out: {why}"));
                }
                Message::Measured(figures) => {
                    measure::say(&told(&figures));
                    self.keep(Record {
                        engine: job.engine.clone(),
                        engine_version: engine_version.clone(),
                        round,
                        date: date(&self.clock),
                        revision: self.revision.clone(),
                        figures: *figures,
                        settings: job.settings.clone(),
                        machine: self.machine.clone(),
                    })?;
                }
                Message::Failed { why } => {
                    let engine = job.engine.clone();
                    return Err(Error::Worker {
                        engine,
                        message: why,
                    });
                }
            }
        }
        Ok(())
    }

    /// Keeps a record, in the results file first. One that has read anything wrong is written down, but
    /// doesn't go into the tables.
    fn keep(&mut self, record: Record) -> Result<()> {
        if let Some(file) = &mut self.results {
            let what = "a record";
            let line =
                serde_json::to_string(&record).map_err(|source| Error::Json { what, source })?;
            let written = file
                .write_all((line + "\n").as_bytes())
                .and_then(|()| file.flush());
            written.map_err(|e| Error::io("write to", "the results file", e))?;
        }
        if record.figures.wrong + record.figures.missing == 0 {
            self.report.records.push(record);
        }
        Ok(())
    }
}

/// One line of progress about a finished step.
fn told(figures: &Figures) -> String {
    let label = figures.label();
    if figures.workload.is_told_by_seconds() {
        return format!("  {label:<22} {:>9.3} s", figures.seconds);
    }
    let short = if figures.cut_short {
        "  (cut short)"
    } else {
        ""
    };
    format!(
        "  {label:<22} {:>9.0} operations/s  p99 {:.1} µs{short}",
        figures.operations_per_second,
        figures.p99_ns as f64 / 1e3
    )
}

fn date(clock: &dyn Clock) -> String {
    let millis = i64::try_from(clock.now().0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(millis).map_or_else(|_| String::new(), |t| t.to_string())
}
