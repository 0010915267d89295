//! What can go wrong in a benchmark.

use std::path::PathBuf;

/// The result of a benchmark step.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in a benchmark.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The engine under test failed.
    #[error("{engine}: {message}")]
    Engine {
        /// The engine's name.
        engine: String,
        /// Its own words.
        message: String,
    },
    /// A read gave something else than what was written.
    #[error(
        "{workload}: {wrong} wrong and {missing} missing of {operations} operations; the figures of this run mean nothing"
    )]
    WrongAnswers {
        /// The workload that read.
        workload: String,
        /// Reads that gave what was never written, or in the wrong order.
        wrong: u64,
        /// Reads that found nothing where something had been written.
        missing: u64,
        /// All operations of the workload.
        operations: u64,
    },
    /// The file system that is to hold the stores has too little room.
    #[error(
        "{} has {free_mib} MiB free, and this run needs about {needed_mib} MiB; free some, lower --n, or choose another --dir",
        dir.display()
    )]
    DiskTooSmall {
        /// The directory that was to hold the stores.
        dir: PathBuf,
        /// Free space there, in MiB.
        free_mib: u64,
        /// Estimated need, in MiB.
        needed_mib: u64,
    },
    /// Another run uses the same directory.
    #[error("{} is in use by another run; choose another --dir", dir.display())]
    DirectoryBusy {
        /// The directory.
        dir: PathBuf,
    },
    /// A file or directory could not be used.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which path.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// Memory cannot be limited here.
    #[error(
        "this system does not let memory be limited ({why}); run as root, or leave out --memory-limit"
    )]
    NoMemoryLimit {
        /// What was tried, and how each try ended.
        why: String,
    },
    /// A rival's worker could not be built.
    #[error("{rival} cannot be built ({why}) and is left out; building it takes {takes}")]
    RivalNotBuilt {
        /// The rival.
        rival: &'static str,
        /// How it went wrong.
        why: String,
        /// What it takes.
        takes: &'static str,
    },
    /// A worker process ended otherwise than it should.
    #[error("the worker for {engine} failed: {message}")]
    Worker {
        /// The engine it ran.
        engine: String,
        /// What it said, or how it ended.
        message: String,
    },
    /// A line between runner and worker, or of a results file, cannot be read.
    #[error("cannot read {what}: {source}")]
    Json {
        /// What was being read.
        what: &'static str,
        /// Why not.
        source: serde_json::Error,
    },
    /// A line of a results file that was written whole cannot be read.
    #[error(
        "{}, line {line}: {source}; it is no file of results, or was edited: mend or remove that line", path.display()
    )]
    Results {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Why not.
        source: serde_json::Error,
    },
    /// Whoever started the run has ended, or ended it.
    #[error("interrupted; what was measured is kept")]
    Interrupted,
    /// Another revision could not be built.
    #[error("revision `{revision}` cannot be built for the comparison: {why}")]
    RevisionNotBuilt {
        /// What was asked for.
        revision: String,
        /// How it went wrong.
        why: String,
    },
    /// A name that stands for nothing.
    #[error("unknown {kind} `{name}`; there are: {known}")]
    Unknown {
        /// `workload` or `engine`.
        kind: &'static str,
        /// The name that was given.
        name: String,
        /// Every name there is.
        known: String,
    },
    /// A setting that makes no sense.
    #[error("{0}")]
    Setting(String),
}

impl Error {
    /// Says what was done to which path.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
        source: std::io::Error,
    ) -> Self {
        Self::Io {
            action,
            path: path.into(),
            source,
        }
    }

    /// Wraps an engine's own error.
    pub fn engine(engine: &str, source: &dyn std::fmt::Display) -> Self {
        Self::Engine {
            engine: engine.to_owned(),
            message: source.to_string(),
        }
    }
}
