//! What simulations came to: counts that show what was covered, or a failure.

use std::collections::BTreeMap;
use std::fmt;

use crate::digest::Digest;

/// What was counted, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<String, u64>);

impl Counts {
    /// Counts once more.
    pub fn add(&mut self, name: impl Into<String>) {
        self.add_many(name, 1);
    }

    /// Counts so many more.
    pub fn add_many(&mut self, name: impl Into<String>, times: u64) {
        *self.0.entry(name.into()).or_default() += times;
    }

    /// How often.
    #[must_use]
    pub fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// All names with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, count)| (&name[..], *count))
    }

    /// All together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Adds those of another run.
    pub fn merge(&mut self, other: &Self) {
        for (name, count) in other.iter() {
            self.add_many(name, count);
        }
    }
}

/// What one or many simulations came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Simulations.
    pub seeds: u64,
    /// Of them, those of encrypted stores.
    pub encrypted: u64,
    /// Blocks, records and keyrings that were sealed.
    pub seals: u64,
    /// Seals of a text that was sealed with the same key and nonce before.
    pub seals_repeated: u64,
    /// Seals that were not compared with the others: there were too many.
    pub seals_unnoted: u64,
    /// Keys that sealed something.
    pub keys: u64,
    /// Searches of all files for what must not be readable.
    pub searches: u64,
    /// Older copies of the directory that were put back and refused.
    pub rollbacks_refused: u64,
    /// Texts that were opened in search of what was dropped.
    pub texts_searched: u64,
    /// Operations that were carried out, by kind; those that had nothing to work on are not among them.
    pub operations: Counts,
    /// How processes and machines ended, and during what.
    pub crashes: Counts,
    /// What was injected, by kind.
    pub faults: Counts,
    /// Errors that the engine answered with, by kind.
    pub errors: Counts,
    /// What the engine told of its own work.
    pub events: Counts,
    /// Injected faults that hit an operation of the file system.
    pub faults_hit: u64,
    /// Openings after an end or a close that were compared with the oracle.
    pub recoveries: u64,
    /// File operations that were made.
    pub file_operations: u64,
    /// The digest of everything that was done and seen; of many simulations, of their digests.
    pub digest: Digest,
}

impl Report {
    /// Adds another run.
    pub fn merge(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.encrypted += other.encrypted;
        self.seals += other.seals;
        self.seals_repeated += other.seals_repeated;
        self.seals_unnoted += other.seals_unnoted;
        self.keys += other.keys;
        self.searches += other.searches;
        self.rollbacks_refused += other.rollbacks_refused;
        self.texts_searched += other.texts_searched;
        self.operations.merge(&other.operations);
        self.crashes.merge(&other.crashes);
        self.faults.merge(&other.faults);
        self.errors.merge(&other.errors);
        self.events.merge(&other.events);
        self.faults_hit += other.faults_hit;
        self.recoveries += other.recoveries;
        self.file_operations += other.file_operations;
        self.digest.add(other.digest.to_string().as_bytes());
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (title, counts) in [
            ("operations", &self.operations),
            ("ends", &self.crashes),
            ("faults", &self.faults),
            ("errors answered", &self.errors),
            ("events told", &self.events),
        ] {
            writeln!(f, "{title}: {}", counts.total())?;
            for (name, count) in counts.iter() {
                writeln!(f, "  {name:<34} {count:>9}")?;
            }
        }
        writeln!(f, "secrecy:")?;
        for (name, count) in [
            ("seals", self.seals),
            ("keys", self.keys),
            ("seals repeated, text and all", self.seals_repeated),
            ("seals not compared", self.seals_unnoted),
            ("searches of all files", self.searches),
            ("texts opened and searched", self.texts_searched),
            ("older copies refused", self.rollbacks_refused),
        ] {
            writeln!(f, "  {name:<34} {count:>9}")?;
        }
        Ok(())
    }
}

/// A simulation in which the engine did wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The operation of the plan at which it showed; as many as there are operations where it did at the
    /// end.
    pub operation: usize,
    /// What was expected and what was found.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at operation {}: {}", self.operation, self.message)
    }
}

impl std::error::Error for Failure {}
