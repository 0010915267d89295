//! A worker: one process that runs a list of workloads on one store of one engine.
//!
//! It reads a [`Job`] from its standard input, writes a [`Message`] a line to its standard output, and
//! tells about progress on its standard error output. It ends with 0 if everything was measured and
//! every read was right, with 1 otherwise.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use vault_core::clock::{Clock, SystemClock};

use crate::data::{self, Entry, KEY_BYTES, below, mix, random_at};
use crate::drive::{Drive, Hands, Outcome, drive};
use crate::error::{Error, Result};
use crate::latency::Latencies;
use crate::measure::{self, Cost};
use crate::permutation::Permutation;
use crate::plan::{Step, plan};
use crate::record::{Figures, Job, Message};
use crate::settings::{BATCH_OPERATIONS, Settings};
use crate::shapes::Shape;
use crate::target::{Direction, EngineKind, Target};
use crate::timeline::watch_memory;
use crate::workload::{Ground, Workload};
use crate::ycsb::{Inserts, Ycsb};

/// Lookups that check a store after it was opened again.
const REOPEN_CHECKS: u64 = 1000;

/// Runs the job on the standard input with one of these engines.
#[must_use]
pub fn main(engines: &[EngineKind]) -> ExitCode {
    let mut tell = |message: &Message| {
        let line = serde_json::to_string(message).map_err(|source| Error::Json {
            what: "a message",
            source,
        })?;
        measure::print(&(line + "\n"))
    };
    measure::end_with_parent();
    let job = std::io::read_to_string(std::io::stdin())
        .map_err(|e| Error::io("read", "the standard input", e))
        .and_then(|text| {
            let what = "the job";
            serde_json::from_str::<Job>(&text).map_err(|source| Error::Json { what, source })
        });
    let result = job.and_then(|job| run(engines, &job, &mut tell));
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    let why = error.to_string();
    if tell(&Message::Failed { why }).is_err() {
        measure::say(&error.to_string());
    }
    ExitCode::FAILURE
}

/// Runs a job, in this process.
///
/// # Errors
/// [`Error::Unknown`] where the engine isn't among `engines`; [`Error::WrongAnswers`] once a workload
/// has read anything wrong; else the engine's own, and those of `tell`.
pub fn run(
    engines: &[EngineKind],
    job: &Job,
    tell: &mut dyn FnMut(&Message) -> Result<()>,
) -> Result<()> {
    job.settings.check()?;
    let kind = engines.iter().find(|kind| kind.name == job.engine);
    let kind = kind.ok_or_else(|| Error::Unknown {
        kind: "engine",
        name: job.engine.clone(),
        known: engines
            .iter()
            .map(|kind| kind.name)
            .collect::<Vec<_>>()
            .join(", "),
    })?;
    tell(&Message::Started {
        version: kind.version.clone(),
        setup: kind.setup.to_owned(),
    })?;
    let mut worker = Worker::new(kind, job);
    for step in plan(&job.workloads, job.settle) {
        match step {
            Step::Load => worker.load()?,
            Step::Measure { workload, .. } if workload == Workload::Reopen && !kind.persists => {
                let why = format!("{} keeps nothing once it is closed", kind.name);
                tell(&Message::LeftOut { workload, why })?;
            }
            Step::Measure { workload, after } => {
                if let Some(why) = worker.lacks(workload)? {
                    tell(&Message::LeftOut { workload, why })?;
                    continue;
                }
                let mut figures = worker.measure(workload)?;
                figures.after = after.or(figures.after);
                let (wrong, missing) = (figures.wrong, figures.missing);
                let operations = figures.operations;
                tell(&Message::Measured(Box::new(figures)))?;
                if wrong + missing > 0 {
                    return Err(Error::WrongAnswers {
                        workload: workload.to_string(),
                        wrong,
                        missing,
                        operations,
                    });
                }
            }
        }
    }
    worker.close()
}

struct Worker<'a> {
    kind: &'a EngineKind,
    job: &'a Job,
    settings: &'a Settings,
    dir: PathBuf,
    clock: SystemClock,
    target: Option<Box<dyn Target>>,
    /// The main store of an engine that would lose it by closing, while another one is filled.
    aside: Option<Box<dyn Target>>,
    /// The order in which fills go through the key space.
    order: Permutation,
    /// How far in that order, or in ascending order, the store has been filled without a hole.
    filled: u64,
    /// Whether the last fill was one in ascending order.
    ascending: bool,
    /// Tells the values of an overwrite from those before it.
    generation: u64,
    inserts: Arc<Inserts>,
    /// What deleted half of the store, if anything did.
    gap: Option<Workload>,
    /// The mix that is to be run next, if it is one.
    mix: Option<Ycsb>,
}

impl<'a> Worker<'a> {
    fn new(kind: &'a EngineKind, job: &'a Job) -> Self {
        let settings = &job.settings;
        Self {
            kind,
            job,
            settings,
            dir: job.dir.join("main"),
            clock: SystemClock::new(),
            target: None,
            aside: None,
            order: Permutation::new(settings.n, mix(settings.seed)),
            filled: 0,
            ascending: false,
            generation: 0,
            inserts: Arc::new(Inserts::new(settings.threads)),
            gap: None,
            mix: None,
        }
    }

    /// Fills an empty store without measuring it.
    fn load(&mut self) -> Result<()> {
        self.begin_empty()?;
        self.fill_rest("load")
    }

    /// Why a workload cannot be run on this engine, if it cannot.
    fn lacks(&mut self, workload: Workload) -> Result<Option<String>> {
        if workload.needs() == Ground::Gap && self.gap.is_none() {
            let why = "nothing was deleted that it could cross".to_owned();
            return Ok(Some(why));
        }
        let Some(verb) = workload.verb() else {
            return Ok(None);
        };
        if self.target.is_none() {
            self.begin_empty()?;
        }
        let offers = self.target()?.offers(verb);
        Ok((!offers).then(|| format!("{} has {}", self.kind.name, verb.missing())))
    }

    /// Measures one workload and everything it cost.
    fn measure(&mut self, workload: Workload) -> Result<Figures> {
        let dir = self.prepare(workload)?;
        // What the step before has left to the operating system is not this one's to pay for. A settle
        // goes on with the work of the step before it, and comes straight after.
        if workload != Workload::Settle {
            measure::sync_file_system(&dir)?;
        }
        let peak_memory_of_step = measure::reset_peak_memory();
        let before = Cost::now();
        let mut details = Vec::new();
        let shape = self.shape(workload, &dir);
        let (outcome, memory) = match workload {
            Workload::Settle => watch_memory(self.target.as_deref(), || self.settle()),
            // No store is open for a part of it that could be asked.
            Workload::Reopen => watch_memory(None, || self.reopen(&mut details)),
            _ => watch_memory(self.target.as_deref(), || match shape.run() {
                Some(shaped) => {
                    let shaped = shaped?;
                    let named = shaped.details.into_iter();
                    details.extend(named.map(|(name, value)| (name.to_owned(), value)));
                    Ok(shaped.outcome)
                }
                None => self.drive(workload),
            }),
        };
        let outcome = outcome?;
        if workload.fills() {
            // Threads that were cut short leave holes behind the first of them.
            let entries = match workload {
                Workload::FillBatch => BATCH_OPERATIONS as u64,
                _ => 1,
            };
            self.filled = outcome
                .done_below
                .saturating_mul(entries)
                .min(self.settings.n);
            self.ascending = workload == Workload::FillSeq;
        }
        let cost = Cost::now().since(before);
        let threads = workload.threads(self.settings);
        let mut figures = Figures::new(workload, threads, &outcome, cost);
        figures.peak_memory_bytes = measure::peak_memory_bytes();
        figures.peak_memory_of_step = peak_memory_of_step;
        figures.memory = memory;
        (figures.disk_apparent_bytes, figures.disk_allocated_bytes) = measure::disk_usage(&dir)?;
        figures.details = details.into_iter().collect();
        self.finish(workload, &mut figures)?;
        Ok(figures)
    }

    /// Brings the store into the state that a workload begins with. Gives the directory it works on.
    fn prepare(&mut self, workload: Workload) -> Result<PathBuf> {
        if workload.is_durable_fill() {
            if self.kind.persists {
                self.close()?;
            } else {
                self.aside = self.target.take();
            }
            let dir = self.job.dir.join("sync");
            self.target = Some(self.open_empty(&dir)?);
            return Ok(dir);
        }
        if workload.needs() == Ground::Nothing && workload != Workload::Settle {
            self.begin_empty()?;
        } else if self.target.is_none() {
            self.target = Some((self.kind.open)(&self.dir, self.settings)?);
        }
        // A fill that was cut short is completed before anything counts on it.
        if workload.needs() == Ground::Whole
            && workload != Workload::Settle
            && self.filled < self.settings.n
        {
            self.fill_rest("fill the rest")?;
            if self.job.settle {
                self.target()?.settle()?;
            }
        }
        match workload {
            Workload::Overwrite
            | Workload::DeleteMix
            | Workload::HeldSnapshot
            | Workload::Tails => self.generation += 1,
            Workload::Reopen => self.leave_a_log_to_replay()?,
            _ => {
                // Takes a while for many entries (a sum over all of them), and is no engine's fault.
                self.mix = Ycsb::new(workload, self.settings.n, self.settings.seed, &self.inserts);
            }
        }
        Ok(self.dir.clone())
    }

    fn shape<'b>(&'b self, workload: Workload, dir: &'b Path) -> Shape<'b> {
        Shape {
            workload,
            target: self.target.as_deref().expect("prepared for every workload"),
            dir,
            settings: self.settings,
            order: &self.order,
            generation: self.generation,
            verbose: self.job.verbose,
        }
    }

    /// Does what belongs to a workload but not to its figures.
    fn finish(&mut self, workload: Workload, figures: &mut Figures) -> Result<()> {
        if matches!(workload, Workload::DeleteHalf | Workload::DeleteHalfRange) {
            self.gap = Some(workload);
        }
        if workload.needs() == Ground::Gap {
            figures.after = self.gap;
        }
        if workload == Workload::HeldSnapshot {
            self.generation += crate::shapes::held::TIMES;
        }
        if workload.is_durable_fill() {
            self.close()?;
            measure::remove_dir(&self.job.dir.join("sync"))?;
            self.target = self.aside.take();
        }
        if workload == Workload::Reopen {
            let mut how = self.how("check", workload);
            how.operations = REOPEN_CHECKS.min(self.settings.n);
            let found = self.run(Workload::ReadRandom, &how)?;
            (figures.wrong, figures.missing) = (found.wrong, found.missing);
        }
        Ok(())
    }

    fn drive(&self, workload: Workload) -> Result<Outcome> {
        self.run(workload, &self.how(workload.name(), workload))
    }

    fn how<'b>(&self, title: &'b str, workload: Workload) -> Drive<'b> {
        Drive {
            title,
            threads: workload.threads(self.settings),
            operations: workload.operations(self.settings),
            value_bytes: self.settings.value_bytes,
            duration_max: Duration::from_secs(self.settings.duration_max_s),
            verbose: self.job.verbose,
        }
    }

    /// Runs the operations of a workload that is nothing but operations.
    fn run(&self, workload: Workload, how: &Drive<'_>) -> Result<Outcome> {
        let target = self.target()?;
        let n = self.settings.n;
        let stream = mix(self.settings.seed ^ mix(workload as u64));
        let index = |i| below(random_at(stream, i), n);
        let write = |hands: &mut Hands, index: u64, durable: bool| {
            hands.entry.fill(data::loaded(index), self.generation);
            target.put(&hands.entry.key, &hands.entry.value, durable)?;
            Ok(1)
        };
        let seek = |i: u64, hands: &mut Hands, direction: Direction, limit: u64| {
            let index = index(i);
            let there = match direction {
                Direction::Forward => n - index,
                Direction::Backward => index + 1,
            };
            let from = Some(data::loaded(index));
            hands.scan(target, from, direction, limit, limit.min(there))?;
            Ok(1)
        };
        match workload {
            Workload::FillSeq => drive(how, |hands, i| write(hands, i, false)),
            Workload::FillRandom => drive(how, |hands, i| write(hands, self.order.at(i), false)),
            Workload::FillBatch => drive(how, |hands, i| {
                let start = i * BATCH_OPERATIONS as u64;
                self.write_batch(target, hands, start, n)
            }),
            Workload::Overwrite => {
                let order = Permutation::new(n, mix(self.settings.seed ^ mix(self.generation)));
                drive(how, |hands, i| write(hands, order.at(i), false))
            }
            Workload::Transactions => drive(how, |hands, i| {
                let (one, other) = (index(2 * i), index(2 * i + 1));
                let bytes = self.settings.value_bytes;
                let both = if one == other {
                    vec![one]
                } else {
                    vec![one, other]
                };
                hands
                    .batch
                    .resize_with(both.len(), || Entry::with_value_bytes(bytes));
                for (entry, index) in hands.batch.iter_mut().zip(both) {
                    entry.fill(data::loaded(index), self.generation);
                }
                target.transact(&hands.batch)?;
                Ok(1)
            }),
            Workload::FillSync1 | Workload::FillSync16 => {
                drive(how, |hands, i| write(hands, self.order.at(i), true))
            }
            Workload::ReadRandom | Workload::ReadRandom1 => drive(how, |hands, i| {
                hands.get_present(target, data::loaded(index(i)))?;
                Ok(1)
            }),
            Workload::ReadMissing => drive(how, |hands, i| {
                hands.get_absent(target, data::absent(index(i)))?;
                Ok(1)
            }),
            Workload::Seek10 => drive(how, |hands, i| seek(i, hands, Direction::Forward, 10)),
            Workload::Seek100 => drive(how, |hands, i| seek(i, hands, Direction::Forward, 100)),
            Workload::SeekRev10 => drive(how, |hands, i| seek(i, hands, Direction::Backward, 10)),
            Workload::Scan => drive(how, |hands, _| {
                hands.scan(target, None, Direction::Forward, u64::MAX, n)
            }),
            Workload::ScanRev => drive(how, |hands, _| {
                hands.scan(target, None, Direction::Backward, u64::MAX, n)
            }),
            Workload::YcsbA
            | Workload::YcsbB
            | Workload::YcsbC
            | Workload::YcsbD
            | Workload::YcsbE
            | Workload::YcsbF => {
                let mix = self
                    .mix
                    .as_ref()
                    .expect("prepared for every one of the mixes");
                drive(how, |hands, i| mix.run(target, hands, i))
            }
            // These are no streams of operations.
            _ => Ok(Outcome::default()),
        }
    }

    /// Writes the entries from position `start` of the order, up to a batch of them, ending before `end`.
    fn write_batch(
        &self,
        target: &dyn Target,
        hands: &mut Hands,
        start: u64,
        end: u64,
    ) -> Result<u64> {
        let count = (end - start).min(BATCH_OPERATIONS as u64);
        let bytes = self.settings.value_bytes;
        hands
            .batch
            .resize_with(count as usize, || Entry::with_value_bytes(bytes));
        for (entry, position) in hands.batch.iter_mut().zip(start..) {
            let number = if self.ascending {
                position
            } else {
                self.order.at(position)
            };
            entry.fill(data::loaded(number), self.generation);
        }
        target.put_batch(&hands.batch)?;
        Ok(count)
    }

    fn settle(&self) -> Result<Outcome> {
        let begun = self.clock.monotonic();
        let idle = self.target()?.settle()?;
        let elapsed = (self.clock.monotonic() - begun).saturating_sub(idle);
        Ok(once(elapsed))
    }

    /// Closes the store and opens it again.
    fn reopen(&mut self, details: &mut Vec<(String, f64)>) -> Result<Outcome> {
        let begun = self.clock.monotonic();
        self.close()?;
        let closed = self.clock.monotonic();
        self.target = Some((self.kind.open)(&self.dir, self.settings)?);
        let opened = self.clock.monotonic();
        details.extend([
            ("close_seconds".to_owned(), (closed - begun).as_secs_f64()),
            ("open_seconds".to_owned(), (opened - closed).as_secs_f64()),
        ]);
        Ok(once(opened - begun))
    }

    /// Overwrites about half a write buffer, so that opening finds a log as it would in life.
    fn leave_a_log_to_replay(&mut self) -> Result<()> {
        let entry_bytes = (KEY_BYTES + self.settings.value_bytes) as u64;
        let count =
            (self.settings.write_buffer_bytes() / 2 / entry_bytes).clamp(1, self.settings.n);
        self.generation += 1;
        let mut how = self.how("write a log", Workload::Overwrite);
        how.operations = count;
        how.duration_max = Duration::ZERO;
        self.run(Workload::Overwrite, &how)?;
        Ok(())
    }

    /// Writes what a fill has not reached, in batches.
    fn fill_rest(&mut self, title: &str) -> Result<()> {
        let (start, n) = (self.filled, self.settings.n);
        let target = self.target()?;
        let mut how = self.how(title, Workload::FillBatch);
        how.operations = (n - start).div_ceil(BATCH_OPERATIONS as u64);
        how.duration_max = Duration::ZERO;
        drive(&how, |hands, i| {
            self.write_batch(target, hands, start + i * BATCH_OPERATIONS as u64, n)
        })?;
        self.filled = n;
        Ok(())
    }

    fn begin_empty(&mut self) -> Result<()> {
        self.close()?;
        self.target = Some(self.open_empty(&self.dir)?);
        (self.filled, self.ascending) = (0, false);
        self.gap = None;
        self.generation = 0;
        self.inserts = Arc::new(Inserts::new(self.settings.threads));
        Ok(())
    }

    fn open_empty(&self, dir: &Path) -> Result<Box<dyn Target>> {
        measure::remove_dir(dir)?;
        measure::create_dir(dir)?;
        (self.kind.open)(dir, self.settings)
    }

    fn target(&self) -> Result<&dyn Target> {
        let open = self.target.as_deref();
        open.ok_or_else(|| Error::engine(self.kind.name, &"no store is open"))
    }

    fn close(&mut self) -> Result<()> {
        self.target.take().map_or(Ok(()), Target::close)
    }
}

/// What came of something that is done once.
fn once(elapsed: Duration) -> Outcome {
    let mut latencies = Latencies::default();
    latencies.record(elapsed.as_nanos() as u64);
    Outcome {
        operations: 1,
        elapsed,
        latencies,
        ..Outcome::default()
    }
}
