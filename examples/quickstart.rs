//! The main job of Vault, on real data: `cargo run --release --example quickstart`.
//!
//! Without arguments it loads the Unicode Character Database that the repository carries; with a JSON
//! Lines file as argument it loads that instead. It writes every record, reads it back, scans, takes a
//! snapshot, batches, deletes a range, lets entries expire, counts with merges, compares and sets,
//! closes the store, opens it again, and checks at every step that what the store says is what was
//! written. The first answer that is wrong ends it with a message and a non-zero exit code.
//!
//! ```text
//! quickstart [--path DIRECTORY] [FILE.jsonl [FIELD]]
//! ```
//!
//! `--path` keeps the store in a directory (new or empty) instead of a temporary one. `FIELD` names the
//! field of each line that is its key; without it the line number is.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example talks to the person who runs it"
)]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use vault_db::engine::{
    CasOutcome, Engine, KeyspaceId, KeyspaceOptions, Lsm, LsmOptions, Reader, Snapshot, WriteBatch,
    WriteOptions, merge,
};

use dataset::{Dataset, Record};
use report::{Report, grouped, print_stats};

#[path = "quickstart/dataset.rs"]
mod dataset;
#[path = "quickstart/report.rs"]
mod report;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Operations in each batch.
const BATCH_OPERATIONS: usize = 100;
/// Entries that the snapshot, expiry and multi-get steps touch.
const SAMPLE_RECORDS: usize = 1_000;
/// The first time to live that is tried; a machine too slow to read within it gets longer ones.
const TIME_TO_LIVE_MIN: Duration = Duration::from_millis(50);
const TIME_TO_LIVE_MAX: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    match Arguments::parse(std::env::args().skip(1)).and_then(|arguments| run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Opens the store. Everything behind this line knows only the engine trait.
fn open(path: &Path) -> vault_db::engine::Result<Box<dyn Engine>> {
    Ok(Box::new(Lsm::open(path, LsmOptions::default())?))
}

fn run(arguments: &Arguments) -> Outcome {
    let temporary = match arguments.store {
        Some(_) => None,
        None => Some(tempfile::tempdir()?),
    };
    let path = match (&arguments.store, &temporary) {
        (Some(path), _) => path.clone(),
        (None, Some(directory)) => directory.path().join("store"),
        (None, None) => unreachable!("one of the two was made above"),
    };
    let mut report = Report::new();
    let data = report.time("load the data set", || {
        let data = match &arguments.file {
            Some(file) => Dataset::json_lines(file, arguments.field.as_deref())?,
            None => Dataset::unicode()?,
        };
        let records = data.records.len();
        Ok((data, records))
    })?;
    println!("{}: {} records", data.title, grouped(data.records.len()));

    let engine = open(&path)?;
    check(engine.keyspaces()?.is_empty(), || {
        format!("{} is in use already; give a new directory", path.display())
    })?;
    let tour = Tour::begin(engine, &data)?;
    tour.write(&mut report)?;
    tour.read(&mut report)?;
    tour.scan(&mut report)?;
    tour.hold_a_snapshot(&mut report)?;
    tour.delete_a_range(&mut report)?;
    tour.let_entries_expire(&mut report)?;
    tour.count(&mut report)?;
    tour.compare_and_set(&mut report)?;
    report.time("flush to tables", || Ok((tour.engine.flush(None)?, 0)))?;
    let stats = tour.engine.stats()?;
    tour.close(&mut report)?;

    let engine = report.time("open again", || Ok((open(&path)?, 0)))?;
    let again = Tour::begin(engine, &data)?;
    again.verify(&mut report)?;
    again.engine.close()?;
    drop(again);

    report.print();
    print_stats(&stats);
    match temporary {
        Some(directory) => directory.close()?,
        None => println!("\nThe store is at {}.", path.display()),
    }
    println!(
        "\nEvery check passed: {} records, byte for byte.",
        grouped(data.records.len())
    );
    Ok(())
}

/// The store with its keyspaces, and the data it should hold.
struct Tour<'a> {
    engine: Box<dyn Engine>,
    data: &'a Dataset,
    /// Every record under its key.
    records: KeyspaceId,
    /// The key of each record under its label, so that records are found by name too.
    index: KeyspaceId,
    /// How many records there are in each group.
    counts: KeyspaceId,
    /// Entries that go by themselves.
    sessions: KeyspaceId,
}

impl<'a> Tour<'a> {
    fn begin(engine: Box<dyn Engine>, data: &'a Dataset) -> Outcome<Self> {
        let plain = KeyspaceOptions::default();
        let counter = KeyspaceOptions::default().merge(merge::COUNTER);
        Ok(Self {
            records: engine.create_keyspace("records", &plain)?,
            index: engine.create_keyspace("index", &plain)?,
            counts: engine.create_keyspace("counts", &counter)?,
            sessions: engine.create_keyspace("sessions", &plain)?,
            engine,
            data,
        })
    }

    /// The first half goes in one write a record, the second in batches; each batch puts records and
    /// their index entries, in two keyspaces, all or nothing.
    fn write(&self, report: &mut Report) -> Outcome {
        let (single, batched) = self.data.records.split_at(self.data.records.len() / 2);
        report.time("write, one record each", || {
            for record in single {
                self.engine
                    .put(self.records, &record.key, &record.value, &WriteOptions::OS)?;
            }
            Ok(((), single.len()))
        })?;
        report.time("write, in batches of two keyspaces", || {
            let mut batch = WriteBatch::new();
            for records in batched.chunks(BATCH_OPERATIONS / 2) {
                for record in records {
                    batch.put(self.records, &record.key, &record.value).put(
                        self.index,
                        &record.index_key(),
                        &record.key,
                    );
                }
                self.engine.write(&batch, &WriteOptions::OS)?;
                batch.clear();
            }
            Ok(((), 2 * batched.len()))
        })?;
        report.time("index the rest, in batches", || {
            let mut batch = WriteBatch::new();
            for records in single.chunks(BATCH_OPERATIONS) {
                for record in records {
                    batch.put(self.index, &record.index_key(), &record.key);
                }
                self.engine.write(&batch, &WriteOptions::OS)?;
                batch.clear();
            }
            Ok(((), single.len()))
        })?;
        report.time("make it durable", || Ok((self.engine.sync()?, 0)))
    }

    fn read(&self, report: &mut Report) -> Outcome {
        report.time("read every record", || self.check_records())?;
        report.time("read many at once, through the index", || {
            let sample = self.data.sample();
            let index_keys: Vec<_> = sample.iter().map(Record::index_key).collect();
            let index_keys: Vec<_> = index_keys.iter().map(Vec::as_slice).collect();
            let keys = self.engine.multi_get(self.index, &index_keys)?;
            for (record, key) in sample.iter().zip(&keys) {
                let found = key.as_deref() == Some(&record.key[..]);
                check(found, || {
                    format!("the index leads from {} to {key:?}", record.shown())
                })?;
            }
            Ok(((), sample.len()))
        })
    }

    fn scan(&self, report: &mut Report) -> Outcome {
        let prefix = &self.data.scan_prefix;
        let mut expected: Vec<_> = self.data.records.iter().collect();
        expected.retain(|record| record.key.starts_with(prefix));
        expected.sort_by(|a, b| a.key.cmp(&b.key));
        let agrees = |found: &[(vault_db::engine::Slice, vault_db::engine::Slice)]| {
            found.len() == expected.len()
                && found.iter().zip(&expected).all(|((key, value), record)| {
                    *key == record.key[..] && *value == record.value[..]
                })
        };
        let shown = prefix.escape_ascii().to_string();
        report.time(&format!("scan {shown}… forwards"), || {
            let found = self.engine.scan_prefix(self.records, prefix)?;
            let found = found.collect::<vault_db::engine::Result<Vec<_>>>()?;
            check(agrees(&found), || {
                format!("scanning {shown} forwards gave other records")
            })?;
            Ok(((), found.len()))
        })?;
        report.time(&format!("scan {shown}… backwards"), || {
            let found = self.engine.scan_prefix(self.records, prefix)?;
            let mut found = found.rev().collect::<vault_db::engine::Result<Vec<_>>>()?;
            found.reverse();
            check(agrees(&found), || {
                format!("scanning {shown} backwards gave other records")
            })?;
            Ok(((), found.len()))
        })
    }

    /// Takes a snapshot, overwrites and deletes under it, and reads both from another thread: the
    /// snapshot owns what it needs. Then puts everything back.
    fn hold_a_snapshot(&self, report: &mut Report) -> Outcome {
        report.time("snapshot, overwrite, compare", || {
            let sample = self.data.sample();
            let snapshot: Arc<dyn Snapshot> = self.engine.snapshot()?;
            let mut batch = WriteBatch::new();
            for (i, record) in sample.iter().enumerate() {
                if i % 2 == 0 {
                    batch.put(self.records, &record.key, b"overwritten");
                } else {
                    batch.delete(self.records, &record.key);
                }
            }
            self.engine.write(&batch, &WriteOptions::OS)?;
            let worker = std::thread::scope(|scope| {
                let held = scope.spawn(|| check_values(&*snapshot, self.records, sample));
                held.join()
            });
            let seen = worker.map_err(|_| "the thread that read the snapshot panicked")?;
            seen.map_err(|problem| format!("the snapshot moved: {problem}"))?;
            for (i, record) in sample.iter().enumerate() {
                let now = self.engine.get(self.records, &record.key)?;
                let expected = (i % 2 == 0).then_some(&b"overwritten"[..]);
                check(now.as_deref() == expected, || {
                    format!("{} reads {now:?} after it was changed", record.shown())
                })?;
            }
            drop(snapshot);
            batch.clear();
            for record in sample {
                batch.put(self.records, &record.key, &record.value);
            }
            self.engine.write(&batch, &WriteOptions::OS)?;
            Ok(((), 2 * sample.len()))
        })
    }

    /// Deletes every index entry of one prefix with a single operation.
    fn delete_a_range(&self, report: &mut Report) -> Outcome {
        let prefix = &self.data.doomed_prefix;
        let shown = prefix.escape_ascii().to_string();
        report.time(&format!("delete the range {shown}…"), || {
            let before = count_entries(&*self.engine, self.index, b"")?;
            let doomed = count_entries(&*self.engine, self.index, prefix)?;
            check(doomed > 0, || format!("no label begins with {shown}"))?;
            let mut batch = WriteBatch::new();
            batch.delete_prefix(self.index, prefix);
            self.engine.write(&batch, &WriteOptions::OS)?;
            self.check_index()?;
            let after = count_entries(&*self.engine, self.index, b"")?;
            check(after == before - doomed, || {
                format!("{before} index entries less {doomed} are not {after}")
            })?;
            Ok(((), doomed))
        })
    }

    /// Writes entries with a time to live and waits until they are gone.
    fn let_entries_expire(&self, report: &mut Report) -> Outcome {
        let mut time_to_live = TIME_TO_LIVE_MIN;
        loop {
            let label = format!("let entries expire after {time_to_live:?}");
            let seen = report.time(&label, || self.expire_once(time_to_live))?;
            if seen {
                return Ok(());
            }
            time_to_live *= 4;
            check(time_to_live <= TIME_TO_LIVE_MAX, || {
                "entries were gone before their time, or the machine is very slow".to_owned()
            })?;
        }
    }

    /// Says whether the entries could be seen while they lived: on a machine that was busy elsewhere
    /// for longer than the time to live, their absence proves nothing.
    fn expire_once(&self, time_to_live: Duration) -> Outcome<(bool, usize)> {
        let sample = self.data.sample();
        let mut batch = WriteBatch::new();
        let expiry = self.engine.now().after(time_to_live)?;
        for record in sample {
            batch.put_until(self.sessions, &record.key, b"here", expiry);
        }
        self.engine.write(&batch, &WriteOptions::OS)?;
        let alive = count_entries(&*self.engine, self.sessions, b"")?;
        let seen = alive == sample.len();
        check(seen || self.engine.now() >= expiry, || {
            format!("{alive} of {} entries before their expiry", sample.len())
        })?;
        while self.engine.now() <= expiry {
            wait(Duration::from_millis(1));
        }
        let left = count_entries(&*self.engine, self.sessions, b"")?;
        check(left == 0, || {
            format!("{left} entries outlived their expiry")
        })?;
        for record in sample {
            let value = self.engine.get(self.sessions, &record.key)?;
            check(value.is_none(), || {
                format!("{} outlived its expiry", record.shown())
            })?;
        }
        Ok((seen, sample.len()))
    }

    /// Counts the records of each group without reading what it adds to.
    fn count(&self, report: &mut Report) -> Outcome {
        report.time(
            &format!("count by {} with merges", self.data.group_name),
            || {
                let mut batch = WriteBatch::new();
                for records in self.data.records.chunks(BATCH_OPERATIONS) {
                    for record in records {
                        batch.merge(self.counts, &record.group, &1_i64.to_le_bytes());
                    }
                    self.engine.write(&batch, &WriteOptions::OS)?;
                    batch.clear();
                }
                self.check_counts()?;
                Ok(((), self.data.records.len()))
            },
        )
    }

    fn compare_and_set(&self, report: &mut Report) -> Outcome {
        let set = |expected: Option<&[u8]>, new: Option<&[u8]>| {
            let options = WriteOptions::SYNC;
            self.engine
                .compare_and_set(self.sessions, b"owner", expected, new, &options)
        };
        report.time("compare and set", || {
            let claimed = set(None, Some(b"first"))?;
            check(matches!(claimed, CasOutcome::Swapped(_)), || {
                format!("claiming an absent key gave {claimed:?}")
            })?;
            let refused = set(None, Some(b"second"))?;
            let owner = match &refused {
                CasOutcome::Mismatch(owner) => owner.as_deref(),
                CasOutcome::Swapped(_) => None,
            };
            check(owner == Some(b"first"), || {
                format!("claiming a taken key gave {refused:?}")
            })?;
            let released = set(Some(b"first"), None)?;
            check(matches!(released, CasOutcome::Swapped(_)), || {
                format!("releasing the key gave {released:?}")
            })?;
            Ok(((), 3))
        })
    }

    fn close(self, report: &mut Report) -> Outcome {
        report.time("close", || Ok((self.engine.close()?, 0)))?;
        let answer = self.engine.get(self.records, b"");
        check(
            matches!(answer, Err(vault_db::engine::Error::Closed)),
            || format!("reading a closed store gave {answer:?}"),
        )
    }

    /// Everything that should have outlived the close.
    fn verify(&self, report: &mut Report) -> Outcome {
        report.time("verify every record", || self.check_records())?;
        report.time("verify the index", || Ok(((), self.check_index()?)))?;
        report.time("verify the counts", || Ok(((), self.check_counts()?)))?;
        let left = count_entries(&*self.engine, self.sessions, b"")?;
        check(left == 0, || {
            format!("{left} expired entries came back on reopening")
        })
    }

    /// Reads each record by its key, and counts them so that nothing is there in excess.
    fn check_records(&self) -> Outcome<((), usize)> {
        check_values(&*self.engine, self.records, &self.data.records)?;
        let entries = count_entries(&*self.engine, self.records, b"")?;
        check(entries == self.data.records.len(), || {
            format!(
                "{entries} records, {} were written",
                self.data.records.len()
            )
        })?;
        Ok(((), entries))
    }

    /// Compares the index with what it should hold once the doomed range is gone.
    fn check_index(&self) -> Outcome<usize> {
        let mut expected = BTreeMap::new();
        for record in &self.data.records {
            if !record.label.starts_with(&self.data.doomed_prefix) {
                expected.insert(record.index_key(), &record.key);
            }
        }
        let mut expected = expected.into_iter();
        let mut entries = 0;
        for entry in self
            .engine
            .scan(self.index, vault_db::engine::KeyRange::all())?
        {
            let (label, key) = entry?;
            let agrees = expected
                .next()
                .is_some_and(|(want, of)| label == want[..] && key == of[..]);
            check(agrees, || format!("the index has {label:?} → {key:?}"))?;
            entries += 1;
        }
        check(expected.next().is_none(), || {
            format!("the index ends after {entries} entries")
        })?;
        Ok(entries)
    }

    fn check_counts(&self) -> Outcome<usize> {
        let mut expected = BTreeMap::<&[u8], i64>::new();
        for record in &self.data.records {
            *expected.entry(&record.group).or_default() += 1;
        }
        for (group, count) in &expected {
            let stored = self.engine.get(self.counts, group)?;
            check(stored.as_deref() == Some(&count.to_le_bytes()), || {
                format!(
                    "group {} counts {stored:?}, not {count}",
                    group.escape_ascii()
                )
            })?;
        }
        Ok(expected.len())
    }
}

/// Compares the value of each record with what a reader gives.
///
/// The error is a plain string so that it can cross threads.
fn check_values(
    reader: &(impl Reader + ?Sized),
    keyspace: KeyspaceId,
    records: &[Record],
) -> Result<(), String> {
    for record in records {
        let value = reader
            .get(keyspace, &record.key)
            .map_err(|error| error.to_string())?;
        if value.as_deref() != Some(&record.value[..]) {
            return Err(format!("{} reads {value:?}", record.shown()));
        }
    }
    Ok(())
}

fn count_entries(
    reader: &(impl Reader + ?Sized),
    keyspace: KeyspaceId,
    prefix: &[u8],
) -> Outcome<usize> {
    let mut entries = 0;
    for entry in reader.scan_prefix(keyspace, prefix)? {
        entry?;
        entries += 1;
    }
    Ok(entries)
}

fn check(holds: bool, problem: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(problem().into()) }
}

struct Arguments {
    store: Option<PathBuf>,
    file: Option<PathBuf>,
    field: Option<String>,
}

impl Arguments {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Outcome<Self> {
        let usage = "usage: quickstart [--path DIRECTORY] [FILE.jsonl [FIELD]]";
        let (mut store, mut positional) = (None, Vec::new());
        while let Some(argument) = arguments.next() {
            if argument == "--path" {
                let directory = arguments.next().ok_or(usage)?;
                store = Some(PathBuf::from(directory));
            } else if argument.starts_with('-') || positional.len() == 2 {
                return Err(format!("unexpected argument {argument:?}\n{usage}").into());
            } else {
                positional.push(argument);
            }
        }
        let mut positional = positional.into_iter();
        Ok(Self {
            store,
            file: positional.next().map(PathBuf::from),
            field: positional.next(),
        })
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "an example waits in real time for entries to expire"
)]
fn wait(duration: Duration) {
    std::thread::sleep(duration);
}
