//! The file of results: what was measured, and what happened besides, a line of JSON each.
//!
//! A line is written as soon as what it tells has happened, so that an interrupted run has lost nothing but
//! the step it was at. Two kinds of lines stand in it: a [`Record`] for each measured step, and a [`Note`],
//! told apart by its member `note`. A turn (one engine in one round) counts as done once its `ended` note is
//! there. Where a turn was taken again, what it measured later replaces what it had measured before.
//!
//! The last line may be torn: whoever wrote it was killed. It is told and passed over, and cut off before
//! anything is added. A line that cannot be read anywhere else means that the file is not what it should be,
//! and is an error.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::measure;
use crate::record::Record;
use crate::settings::Settings;
use crate::workload::Workload;

/// Something that happened, beside what was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "note", rename_all = "snake_case")]
pub enum Note {
    /// A run began, or went on.
    Run(RunNote),
    /// A turn began.
    Started {
        /// The engine.
        engine: String,
        /// Its version.
        version: String,
        /// How it is set up.
        setup: String,
    },
    /// A turn is done.
    Ended {
        /// The engine.
        engine: String,
        /// Its round.
        round: u32,
        /// How long it took, with all that is not measured.
        seconds: f64,
    },
    /// A workload cannot be run on an engine.
    LeftOut {
        /// The engine.
        engine: String,
        /// The workload.
        workload: Workload,
        /// Why not.
        why: String,
    },
    /// Something went wrong: a rival that cannot be built, a worker that failed.
    Failed {
        /// The engine.
        engine: String,
        /// The round, where it was in one.
        round: Option<u32>,
        /// What went wrong.
        why: String,
    },
    /// The run was interrupted.
    Interrupted {
        /// When (UTC, RFC 3339).
        date: String,
    },
}

/// What a run was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunNote {
    /// When it began (UTC, RFC 3339).
    pub date: String,
    /// The engines, in the order of their turns.
    pub engines: Vec<String>,
    /// The workloads, in order.
    pub workloads: Vec<Workload>,
    /// How many rounds.
    pub rounds: u32,
    /// Whether it settles between writing and reading.
    pub settle: bool,
    /// The settings.
    pub settings: Settings,
    /// The compiler, as it names itself.
    #[serde(default)]
    pub compiler: String,
    /// How busy the machine was with other things: the load average when it began.
    #[serde(default)]
    pub load: Option<f64>,
    /// Which revision the engine is compared with, where that was asked for.
    #[serde(default)]
    pub compare: Option<Compared>,
}

/// The other revision of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// What was asked for.
    pub asked: String,
    /// The commit it stands for.
    pub commit: String,
}

/// All that a file of results holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Results {
    /// What was measured, later turns in the place of earlier ones. Steps that have read anything wrong are
    /// not among them.
    pub records: Vec<Record>,
    /// What happened besides, in order.
    pub notes: Vec<Note>,
    /// The torn end of the file, where it has one.
    pub torn: Option<String>,
    /// Bytes up to the end of the last whole line.
    whole_bytes: u64,
}

impl Results {
    /// Reads a file of results.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Results`] that names the line that cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(path, &measure::read_bytes(path)?)
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let mut results = Self::default();
        for (index, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
            let whole = line.ends_with(b"\n");
            match parse_line(line.trim_ascii_end()) {
                Ok(Line::Empty) => {}
                Ok(Line::Note(note)) => results.notes.push(*note),
                Ok(Line::Record(record)) => results.keep(*record),
                Err(_) if !whole => {
                    results.torn = Some(String::from_utf8_lossy(line).into_owned());
                    break;
                }
                Err(source) => {
                    return Err(Error::Results {
                        path: path.to_path_buf(),
                        line: index + 1,
                        source,
                    });
                }
            }
            // A last line that is whole but for its end stays: what is added begins a new line.
            results.whole_bytes += line.len() as u64;
        }
        Ok(results)
    }

    /// Adds a record; one of the same step, engine and round gives way to it.
    pub fn keep(&mut self, record: Record) {
        if record.figures.wrong + record.figures.missing > 0 {
            return;
        }
        let label = record.figures.label();
        let same = self.records.iter().position(|old| {
            old.engine == record.engine && old.round == record.round && old.figures.label() == label
        });
        match same {
            Some(at) => self.records[at] = record,
            None => self.records.push(record),
        }
    }

    /// Adds a note.
    pub fn note(&mut self, note: Note) {
        self.notes.push(note);
    }

    /// Whether a turn was taken to its end.
    #[must_use]
    pub fn has_turn(&self, engine: &str, round: u32) -> bool {
        let ended = |note: &Note| matches!(note, Note::Ended { engine: e, round: r, .. } if e == engine && *r == round);
        self.notes.iter().any(ended)
    }

    /// What the last run was asked for.
    #[must_use]
    pub fn run(&self) -> Option<&RunNote> {
        self.notes.iter().rev().find_map(|note| match note {
            Note::Run(run) => Some(run),
            _ => None,
        })
    }
}

enum Line {
    Empty,
    Note(Box<Note>),
    Record(Box<Record>),
}

fn parse_line(line: &[u8]) -> std::result::Result<Line, serde_json::Error> {
    if line.is_empty() {
        return Ok(Line::Empty);
    }
    let value: serde_json::Value = serde_json::from_slice(line)?;
    if value.get("note").is_some() {
        return serde_json::from_value(value).map(|note| Line::Note(Box::new(note)));
    }
    serde_json::from_value(value).map(|record| Line::Record(Box::new(record)))
}

/// A file of results that is being written.
#[derive(Debug)]
pub struct Writer {
    file: File,
}

impl Writer {
    /// Opens a file to add to, behind what was read from it. A torn end is cut off.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn append(path: &Path, read: &Results) -> Result<Self> {
        let file = measure::open_results(path)?;
        if read.torn.is_some() {
            let cut = file.set_len(read.whole_bytes);
            cut.map_err(|e| Error::io("cut the torn end of", path, e))?;
        }
        let mut writer = Self { file };
        // A last line that lacks nothing but its end.
        if read.torn.is_none() && measure::lacks_line_end(path)? {
            writer.write("\n")?;
        }
        Ok(writer)
    }

    /// Writes a record.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Json`].
    pub fn record(&mut self, record: &Record) -> Result<()> {
        self.line(record, "a record")
    }

    /// Writes a note.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Json`].
    pub fn note(&mut self, note: &Note) -> Result<()> {
        self.line(note, "a note")
    }

    fn line(&mut self, line: &impl Serialize, what: &'static str) -> Result<()> {
        let text = serde_json::to_string(line).map_err(|source| Error::Json { what, source })?;
        self.write(&(text + "\n"))
    }

    fn write(&mut self, text: &str) -> Result<()> {
        let written = self
            .file
            .write_all(text.as_bytes())
            .and_then(|()| self.file.flush());
        written.map_err(|e| Error::io("write to", "the results file", e))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::drive::Outcome;
    use crate::measure::{Cost, Machine};
    use crate::record::Figures;

    pub(crate) fn record(
        engine: &str,
        round: u32,
        workload: Workload,
        operations: u64,
        seconds: u64,
    ) -> Record {
        let outcome = Outcome {
            operations,
            elapsed: Duration::from_secs(seconds),
            ..Outcome::default()
        };
        Record {
            engine: engine.to_owned(),
            engine_version: "1.2".to_owned(),
            round,
            date: "2026-01-01T00:00:00Z".to_owned(),
            revision: None,
            figures: Figures::new(workload, 2, &outcome, Cost::default()),
            settings: Settings::default(),
            machine: Machine::default(),
        }
    }

    fn ended(engine: &str, round: u32) -> Note {
        let engine = engine.to_owned();
        Note::Ended {
            engine,
            round,
            seconds: 1.0,
        }
    }

    #[test]
    fn what_is_written_is_read_and_a_torn_end_is_told_and_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("results.jsonl");
        let mut writer = Writer::append(&path, &Results::default()).unwrap();
        writer
            .record(&record("vault", 1, Workload::Scan, 5, 1))
            .unwrap();
        writer.note(&ended("vault", 1)).unwrap();
        writer
            .file
            .write_all(b"{\"engine\":\"vault\",\"rou")
            .unwrap();
        let read = Results::read(&path).unwrap();
        assert_eq!((read.records.len(), read.notes.len()), (1, 1));
        assert!(
            read.torn
                .as_ref()
                .is_some_and(|torn| torn.starts_with("{\"engine"))
        );
        assert!(
            read.has_turn("vault", 1) && !read.has_turn("vault", 2) && !read.has_turn("fjall", 1)
        );

        let mut writer = Writer::append(&path, &read).unwrap();
        writer.note(&ended("vault", 2)).unwrap();
        let again = Results::read(&path).unwrap();
        assert!(again.torn.is_none() && again.has_turn("vault", 2));
        assert_eq!(again.records, read.records);
    }

    #[test]
    fn a_last_line_that_lacks_only_its_end_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("results.jsonl");
        let mut writer = Writer::append(&path, &Results::default()).unwrap();
        let line = serde_json::to_string(&ended("vault", 1)).unwrap();
        writer.file.write_all(line.as_bytes()).unwrap();
        let read = Results::read(&path).unwrap();
        assert!(read.torn.is_none() && read.has_turn("vault", 1));
        Writer::append(&path, &read)
            .unwrap()
            .note(&ended("vault", 2))
            .unwrap();
        assert_eq!(Results::read(&path).unwrap().notes.len(), 2);
    }

    #[test]
    fn a_line_that_cannot_be_read_in_the_middle_is_an_error_with_its_number() {
        let good = serde_json::to_string(&ended("vault", 1)).unwrap();
        for bad in ["{\"engine\":", "[]", "{\"note\":\"dreamt\"}", "\u{fffd}"] {
            let text = format!("{good}\n{bad}\n{good}\n");
            let error = Results::parse(Path::new("some.jsonl"), text.as_bytes()).unwrap_err();
            let told = error.to_string();
            assert!(
                told.contains("some.jsonl") && told.contains("line 2"),
                "{told}"
            );
        }
    }

    #[test]
    fn a_turn_taken_again_replaces_what_it_had_measured() {
        let mut results = Results::default();
        results.keep(record("vault", 1, Workload::Scan, 5, 1));
        results.keep(record("vault", 2, Workload::Scan, 6, 1));
        results.keep(record("vault", 1, Workload::Scan, 7, 1));
        let operations: Vec<_> = results
            .records
            .iter()
            .map(|r| r.figures.operations)
            .collect();
        assert_eq!(operations, [7, 6]);
        let mut wrong = record("vault", 3, Workload::Scan, 5, 1);
        wrong.figures.wrong = 1;
        results.keep(wrong);
        assert_eq!(results.records.len(), 2);
    }
}
