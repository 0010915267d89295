//! Runs engines in turn, each in a process of its own, and keeps what their workers report.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use vault_core::clock::{Clock, SystemClock};

use crate::builds;
use crate::engines;
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::measure::{self, Machine};
use crate::memory_group::MemoryGroup;
use crate::progress::{Progress, told};
use crate::record::{Job, Message, Record};
use crate::results::{Compared, Note, Results, RunNote, Writer};
use crate::settings::Settings;
use crate::workload::Workload;

/// What the directories of stores begin with.
pub(crate) const STORE_PREFIX: &str = "store-";

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Request {
    /// Engines, in the order in which they take turns.
    pub engines: Vec<String>,
    /// The engine `vault` of another revision, to take turns right behind this one's.
    pub other: Option<Other>,
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
    /// A directory of rivals' workers that are built already.
    pub rivals_built: Option<PathBuf>,
}

/// Another revision's benchmark.
#[derive(Debug, Clone)]
pub struct Other {
    /// The revision.
    pub compared: Compared,
    /// Its binary.
    pub binary: PathBuf,
}

impl Other {
    /// What its engine is called in results.
    #[must_use]
    pub fn name(&self) -> String {
        format!("vault@{}", self.compared.asked)
    }
}

/// Where a run keeps what it measures.
#[derive(Debug, Default)]
pub struct Keeper {
    /// All that is known, from earlier runs too where this one goes on with them.
    pub results: Results,
    /// The file, where there is one.
    pub file: Option<Writer>,
}

impl Keeper {
    /// Keeps a record, in the file first. One that has read anything wrong is written down, but is not among the results.
    fn record(&mut self, record: Record) -> Result<()> {
        if let Some(file) = &mut self.file {
            file.record(&record)?;
        }
        self.results.keep(record);
        Ok(())
    }

    /// Keeps a note, in the file first.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn note(&mut self, note: Note) -> Result<()> {
        if let Some(file) = &mut self.file {
            file.note(&note)?;
        }
        self.results.note(note);
        Ok(())
    }
}

/// One that takes turns.
struct Contender {
    /// What it is called in results.
    name: String,
    /// What its worker calls it.
    engine: String,
    binary: PathBuf,
    /// Its revision, where it is one of ours.
    revision: Option<String>,
}

/// Runs everything that was asked for and is not kept yet. Gives what failed: the rest was measured all the same.
/// `after_turn` is called whenever no worker is running.
///
/// # Errors
/// What makes the whole run impossible: a setting, too small a disk, a directory in use, a results file that cannot be
/// written. [`Error::Interrupted`].
pub fn run(
    request: &Request,
    keeper: &mut Keeper,
    interrupt: &Interrupt,
    after_turn: &mut dyn FnMut(&Results),
) -> Result<Vec<Error>> {
    request.settings.check()?;
    let _lock = measure::claim_dir(&request.dir, STORE_PREFIX)?;
    measure::check_free_space(&request.dir, request.settings.disk_bytes_needed())?;
    // Whether memory can be limited here is found out before anything is built.
    drop(MemoryGroup::for_settings(&request.settings)?);
    let clock = SystemClock::new();
    keeper.note(Note::Run(run_note(request, &clock)))?;
    let mut failures = Vec::new();
    let contenders = find_contenders(request, keeper, &mut failures, interrupt)?;
    let machine = Machine::look(&request.dir);
    if machine.file_system == "tmpfs" {
        measure::say(
            "warning: the stores lie in memory (tmpfs): writes and syncs cost nothing here",
        );
    }
    let names: Vec<&str> = contenders.iter().map(|c| c.name.as_str()).collect();
    let mut progress = Progress::new(request, &names, &keeper.results);
    let mut turn = Turn {
        request,
        machine,
        clock,
        keeper,
        interrupt,
    };
    for round in 1..=request.rounds {
        for contender in &contenders {
            if turn.keeper.results.has_turn(&contender.name, round) {
                measure::say(&format!(
                    "round {round}, {}: kept from before",
                    contender.name
                ));
                continue;
            }
            measure::say(&progress.begin(&contender.name, round));
            let begun = turn.clock.monotonic();
            let taken = turn.take(contender, round);
            let took = turn.clock.monotonic() - begun;
            if interrupt.happened() {
                let date = date(&turn.clock);
                turn.keeper.note(Note::Interrupted { date })?;
                return Err(Error::Interrupted);
            }
            turn.end(contender, round, took, taken, &mut failures)?;
            measure::say(&progress.end(&contender.name, took));
            after_turn(&turn.keeper.results);
        }
    }
    Ok(failures)
}

fn run_note(request: &Request, clock: &dyn Clock) -> RunNote {
    RunNote {
        date: date(clock),
        engines: request.engines.clone(),
        workloads: request.workloads.clone(),
        rounds: request.rounds,
        settle: request.settle,
        settings: request.settings.clone(),
        compiler: builds::compiler(),
        load: measure::load_average(),
        compare: request.other.as_ref().map(|other| other.compared.clone()),
    }
}

/// Finds the binary that runs each engine, and builds those of the rivals that are asked for. One that cannot be built is
/// kept as a failure and left out.
fn find_contenders(
    request: &Request,
    keeper: &mut Keeper,
    failures: &mut Vec<Error>,
    interrupt: &Interrupt,
) -> Result<Vec<Contender>> {
    let own = std::env::current_exe().map_err(|e| Error::io("find", "this binary", e))?;
    let revision = builds::own_revision();
    let mut contenders = Vec::new();
    for name in &request.engines {
        let rival = engines::rival(name);
        let binary = rival.map_or_else(
            || Ok(own.clone()),
            |rival| builds::rival(rival, request.rivals_built.as_deref(), interrupt),
        );
        match binary {
            Ok(binary) => contenders.push(Contender {
                name: name.clone(),
                engine: name.clone(),
                binary,
                revision: if rival.is_some() {
                    None
                } else {
                    revision.clone()
                },
            }),
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(error) => {
                measure::say(&error.to_string());
                let (engine, why) = (name.clone(), error.to_string());
                keeper.note(Note::Failed {
                    engine,
                    round: None,
                    why,
                })?;
                failures.push(error);
            }
        }
        if let (true, Some(other)) = (name == "vault", &request.other) {
            contenders.push(Contender {
                name: other.name(),
                engine: name.clone(),
                binary: other.binary.clone(),
                revision: Some(other.compared.commit.clone()),
            });
        }
    }
    Ok(contenders)
}

struct Turn<'a> {
    request: &'a Request,
    machine: Machine,
    clock: SystemClock,
    keeper: &'a mut Keeper,
    interrupt: &'a Interrupt,
}

impl Turn<'_> {
    /// One engine, one round, one process.
    fn take(&mut self, contender: &Contender, round: u32) -> Result<()> {
        let name = contender.name.replace(['/', '@'], "-");
        let dir = self
            .request
            .dir
            .join(format!("{STORE_PREFIX}{name}-{round}"));
        // Other processes fill disks too: look again before each turn.
        measure::check_free_space(&self.request.dir, self.request.settings.disk_bytes_needed())?;
        let job = Job {
            engine: contender.engine.clone(),
            dir: dir.clone(),
            workloads: self.request.workloads.clone(),
            settle: self.request.settle,
            settings: self.request.settings.clone(),
            verbose: true,
        };
        let result = self.run_worker(&job, contender, round);
        let removed = measure::remove_dir(&dir);
        result.and(removed)
    }

    /// Keeps how a turn ended.
    fn end(
        &mut self,
        contender: &Contender,
        round: u32,
        took: Duration,
        taken: Result<()>,
        failures: &mut Vec<Error>,
    ) -> Result<()> {
        let (engine, seconds) = (contender.name.clone(), took.as_secs_f64());
        let Err(error) = taken else {
            return self.keeper.note(Note::Ended {
                engine,
                round,
                seconds,
            });
        };
        measure::say(&format!("  {error}"));
        let (why, round) = (error.to_string(), Some(round));
        failures.push(error);
        self.keeper.note(Note::Failed { engine, round, why })
    }

    fn run_worker(&mut self, job: &Job, contender: &Contender, round: u32) -> Result<()> {
        let failed = |message: String| Error::Worker {
            engine: contender.name.clone(),
            message,
        };
        let what = "the job";
        let text = serde_json::to_string(job).map_err(|source| Error::Json { what, source })?;
        let group = MemoryGroup::for_settings(&job.settings)?;
        let mut child = Command::new(&contender.binary)
            .arg("worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| Error::io("start", &contender.binary, e))?;
        self.interrupt.watch(&child);
        // It has no job yet, and so nothing of its memory is counted elsewhere.
        let limited = group.as_ref().map_or(Ok(()), |group| group.add(child.id()));
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let heard = match (input, output) {
            _ if limited.is_err() => limited,
            (Some(mut input), Some(output)) => {
                let sent = input.write_all(text.as_bytes());
                drop(input);
                sent.map_err(|e| failed(format!("it takes no job: {e}")))
                    .and_then(|()| self.hear(job, contender, round, BufReader::new(output)))
            }
            _ => Err(failed("it has no pipes".to_owned())),
        };
        self.interrupt.unwatch();
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
    fn hear(
        &mut self,
        job: &Job,
        contender: &Contender,
        round: u32,
        output: impl BufRead,
    ) -> Result<()> {
        let mut engine_version = String::new();
        for line in output.lines() {
            let line = line.map_err(|e| Error::io("read from", "the worker", e))?;
            let what = "a worker's message";
            let message =
                serde_json::from_str(&line).map_err(|source| Error::Json { what, source })?;
            let engine = contender.name.clone();
            match message {
                Message::Started { version, setup } => {
                    measure::say(&format!("  {engine} {version}: {setup}"));
                    engine_version.clone_from(&version);
                    self.keeper.note(Note::Started {
                        engine,
                        version,
                        setup,
                    })?;
                }
                Message::LeftOut { workload, why } => {
                    measure::say(&format!("  {workload} left out: {why}"));
                    self.keeper.note(Note::LeftOut {
                        engine,
                        workload,
                        why,
                    })?;
                }
                Message::Measured(figures) => {
                    measure::say(&told(&figures));
                    self.keeper.record(Record {
                        engine,
                        engine_version: engine_version.clone(),
                        round,
                        date: date(&self.clock),
                        revision: contender.revision.clone(),
                        figures: *figures,
                        settings: job.settings.clone(),
                        machine: self.machine.clone(),
                    })?;
                }
                Message::Failed { why } => {
                    return Err(Error::Worker {
                        engine,
                        message: why,
                    });
                }
            }
        }
        Ok(())
    }
}

/// The time as it is kept (UTC, RFC 3339, in seconds).
#[must_use]
pub fn date(clock: &dyn Clock) -> String {
    let seconds = i64::try_from(clock.now().0 / 1000).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| String::new(), |t| t.to_string())
}
