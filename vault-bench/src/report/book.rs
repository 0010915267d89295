//! Many records, looked up by engine and step.

use crate::latency::Latencies;
use crate::record::Record;
use crate::stats::{Ratio, Spread, paired_ratio, spread};

/// The records of a report.
#[derive(Debug)]
pub(super) struct Book<'a> {
    pub(super) records: &'a [Record],
    /// In the order in which they first came.
    pub(super) engines: Vec<&'a str>,
    /// The steps, in the order in which they first came.
    pub(super) labels: Vec<String>,
    /// The engine that the others are compared with: `vault`, or the first where it is not among them.
    pub(super) base: Option<&'a str>,
}

impl<'a> Book<'a> {
    pub(super) fn new(records: &'a [Record]) -> Self {
        let mut engines: Vec<&str> = Vec::new();
        let mut labels: Vec<String> = Vec::new();
        for record in records {
            if !engines.contains(&record.engine.as_str()) {
                engines.push(&record.engine);
            }
            let label = record.figures.label();
            if !labels.contains(&label) {
                labels.push(label);
            }
        }
        let vault = engines.iter().find(|&&engine| engine == "vault");
        let base = vault.or_else(|| engines.first()).copied();
        Self {
            records,
            engines,
            labels,
            base,
        }
    }

    /// The records of a step on an engine, by round.
    pub(super) fn rounds(&self, label: &str, engine: &str) -> Vec<&'a Record> {
        let matches = |r: &&Record| r.engine == engine && r.figures.label() == label;
        let mut found: Vec<&Record> = self.records.iter().filter(matches).collect();
        found.sort_by_key(|record| record.round);
        found
    }

    pub(super) fn of(
        &self,
        label: &str,
        engine: &str,
        figure: impl Fn(&Record) -> f64,
    ) -> Option<Spread> {
        spread(self.rounds(label, engine).into_iter().map(figure).collect())
    }

    /// The ratio of two engines' figures, over the rounds that both have.
    pub(super) fn ratio(
        &self,
        label: &str,
        engines: (&str, &str),
        figure: impl Fn(&Record) -> f64,
    ) -> Option<Ratio> {
        let (ours, theirs) = (self.rounds(label, engines.0), self.rounds(label, engines.1));
        let pair = |our: &&Record| {
            let their = theirs.iter().find(|their| their.round == our.round)?;
            Some((figure(our), figure(their)))
        };
        paired_ratio(&ours.iter().filter_map(pair).collect::<Vec<_>>())
    }

    /// The record whose throughput is the median of its rounds (the lower of two).
    pub(super) fn typical(&self, label: &str, engine: &str) -> Option<&'a Record> {
        let mut rounds = self.rounds(label, engine);
        rounds.sort_by(|a, b| f64::total_cmp(&a.figures.seconds, &b.figures.seconds));
        rounds.get(rounds.len() / 2).copied()
    }

    /// The latencies of all rounds together.
    pub(super) fn latencies(&self, label: &str, engine: &str) -> Latencies {
        let mut all = Latencies::default();
        for record in self.rounds(label, engine) {
            all.merge(&Latencies::from_sparse(
                &record.figures.histogram,
                record.figures.max_ns,
            ));
        }
        all
    }

    pub(super) fn others(&self) -> impl Iterator<Item = &'a str> {
        let base = self.base;
        self.engines
            .iter()
            .copied()
            .filter(move |&engine| Some(engine) != base)
    }

    /// Whether the step is told by seconds.
    pub(super) fn is_told_by_seconds(&self, label: &str) -> bool {
        let mut all = self.records.iter();
        all.any(|r| r.figures.label() == label && r.figures.workload.is_told_by_seconds())
    }

    /// How many rounds there are.
    pub(super) fn rounds_max(&self) -> u32 {
        self.records.iter().map(|r| r.round).max().unwrap_or(0)
    }

    /// The version of an engine.
    pub(super) fn version(&self, engine: &str) -> &'a str {
        let record = self.records.iter().find(|r| r.engine == engine);
        record.map_or("", |r| &r.engine_version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::record;
    use crate::workload::Workload;

    #[test]
    fn ratios_pair_the_rounds_that_both_engines_have() {
        let rows = [
            ("vault", 1, 300),
            ("fjall", 1, 100),
            ("vault", 2, 600),
            ("fjall", 2, 200),
            ("vault", 3, 9),
        ];
        let records: Vec<_> = rows
            .map(|(engine, round, rate)| record(engine, round, Workload::Scan, rate, 1))
            .to_vec();
        let book = Book::new(&records);
        let ratio = book
            .ratio("scan", ("vault", "fjall"), |r| {
                r.figures.operations_per_second
            })
            .unwrap();
        assert_eq!(ratio.rounds, 2);
        assert!((ratio.ratio - 3.0).abs() < 1e-9 && (ratio.low - 3.0).abs() < 1e-6);
        assert!(book.ratio("scan", ("vault", "redb"), |_| 1.0).is_none());
    }

    #[test]
    fn the_typical_round_is_the_one_in_the_middle() {
        let seconds = [(1, 9), (2, 2), (3, 5)];
        let records: Vec<_> = seconds
            .map(|(round, s)| record("vault", round, Workload::Scan, 1, s))
            .to_vec();
        assert_eq!(
            Book::new(&records)
                .typical("scan", "vault")
                .map(|r| r.round),
            Some(3)
        );
    }
}
