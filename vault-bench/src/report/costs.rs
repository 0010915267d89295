//! What fills cost, with the settling of what they leave behind: processor time, bytes written, bytes on disk.
//!
//! All of it by operation or byte, so that a fill that was cut short can be held against one that was not.

use super::book::Book;
use super::chart::Bar;
use super::format::{in_time, in_times, with_spread};
use crate::data::KEY_BYTES;
use crate::record::{Figures, Record};
use crate::stats::spread;
use crate::workload::Workload;

/// The workloads that leave work for a settle behind.
pub(super) const FILLS: [&str; 4] = ["fillseq", "fillrandom", "fillbatch", "overwrite"];

/// A cost of a fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cost {
    /// Nanoseconds of processor time an entry.
    Cpu,
    /// Bytes written for each byte put in: write amplification.
    Written,
    /// Bytes on disk for each byte of live data, once settled: space amplification.
    OnDisk,
}

impl Cost {
    pub(super) const ALL: [Self; 3] = [Self::Written, Self::OnDisk, Self::Cpu];

    /// What it is of a fill, in words.
    pub(super) fn of(self, label: &str) -> String {
        match self {
            Self::Cpu => format!("{label} and settle: CPU time an entry"),
            Self::Written => format!("{label} and settle: bytes written for each put in"),
            Self::OnDisk => format!("{label}, settled: bytes on disk for each of live data"),
        }
    }

    /// How its figures are shown.
    pub(super) fn show(self) -> fn(f64) -> String {
        if self == Self::Cpu { in_time } else { in_times }
    }
}

/// A cost of a fill by round. Bytes on disk are known only of rounds that were settled.
pub(super) fn by_round(book: &Book<'_>, label: &str, engine: &str, cost: Cost) -> Vec<(u32, f64)> {
    let settles = book.rounds(&format!("settle ({label})"), engine);
    let cost_of = |fill: &&Record| {
        let settle = settles.iter().find(|settle| settle.round == fill.round);
        let both = |figure: fn(&Figures) -> f64| {
            figure(&fill.figures) + settle.map_or(0.0, |settle| figure(&settle.figures))
        };
        let settings = &fill.settings;
        let entry_bytes = (KEY_BYTES + settings.value_bytes) as f64;
        let operations = fill.figures.operations as f64;
        let live = if fill.figures.workload == Workload::Overwrite {
            settings.user_bytes() as f64
        } else {
            operations * entry_bytes
        };
        let value = match cost {
            Cost::Cpu => both(|f| f.cpu_seconds) * 1e9 / operations,
            Cost::Written => both(|f| f.write_bytes as f64) / (operations * entry_bytes),
            Cost::OnDisk => settle?.figures.disk_allocated_bytes as f64 / live,
        };
        Some((fill.round, value))
    };
    book.rounds(label, engine)
        .iter()
        .filter_map(cost_of)
        .collect()
}

/// Entries a second of a fill and of the settling behind it, by round. Known only of rounds that were settled.
pub(super) fn settled_by_round(book: &Book<'_>, label: &str, engine: &str) -> Vec<(u32, f64)> {
    let settles = book.rounds(&format!("settle ({label})"), engine);
    let rate = |fill: &&Record| {
        let settle = settles.iter().find(|settle| settle.round == fill.round)?;
        let seconds = fill.figures.seconds + settle.figures.seconds;
        Some((fill.round, fill.figures.operations as f64 / seconds))
    };
    book.rounds(label, engine).iter().filter_map(rate).collect()
}

/// The bars of a cost, for each engine that it is known of.
pub(super) fn bars<'a>(book: &Book<'a>, label: &str, cost: Cost) -> Vec<Bar<'a>> {
    let bar = |engine: &'a str| {
        let rounds = by_round(book, label, engine, cost);
        let s = spread(rounds.iter().map(|round| round.1).collect())?;
        let (text, told) = ((cost.show())(s.median), with_spread(s, cost.show()));
        Some(Bar {
            engine,
            figure: (s.median, s.min, s.max),
            text,
            told: format!("{engine}: {told}"),
        })
    };
    book.engines.iter().copied().filter_map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::record;

    #[test]
    fn costs_are_by_entry_and_include_the_settling() {
        let mut fill = record("vault", 1, Workload::FillRandom, 1000, 1);
        (fill.figures.cpu_seconds, fill.figures.write_bytes) = (0.002, 116_000);
        let mut settle = record("vault", 1, Workload::Settle, 1, 1);
        settle.figures.after = Some(Workload::FillRandom);
        (settle.figures.cpu_seconds, settle.figures.write_bytes) = (0.001, 58_000);
        settle.figures.disk_allocated_bytes = 232_000;
        let records = [fill, settle];
        let book = Book::new(&records);
        let of = |cost| by_round(&book, "fillrandom", "vault", cost);
        assert!((of(Cost::Cpu)[0].1 - 3000.0).abs() < 1e-6);
        assert!((of(Cost::Written)[0].1 - 1.5).abs() < 1e-9);
        assert!(
            (of(Cost::OnDisk)[0].1 - 2.0).abs() < 1e-9,
            "of what was filled, not of n"
        );
        assert_eq!(bars(&book, "fillrandom", Cost::Written)[0].text, "1.50 ×");
        let both = records[0].figures.seconds + records[1].figures.seconds;
        let settled = settled_by_round(&book, "fillrandom", "vault");
        assert!((settled[0].1 - 1000.0 / both).abs() < 1e-6);
        let unsettled = Book::new(&records[..1]);
        assert!(settled_by_round(&unsettled, "fillrandom", "vault").is_empty());
        assert!(by_round(&unsettled, "fillrandom", "vault", Cost::OnDisk).is_empty());
    }
}
