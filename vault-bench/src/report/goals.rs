//! What is asked of the engine, beside what it reached: ratios to the better of RocksDB and fjall in the same run.

use super::book::Book;
use super::costs::{self, Cost};
use super::format::{in_bytes, in_operations, in_seconds, in_time};
use crate::record::{Figures, Record};
use crate::stats::{Spread, spread};

/// The engines that ratios are asked against, unless a goal names one alone.
const RIVALS: &[&str] = &["rocksdb", "fjall"];
/// What an encrypted store must keep of the plain one's throughput.
const ENCRYPTED_MIN: f64 = 0.85;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quantity {
    Throughput,
    /// Entries a second, the settling of what a fill leaves behind included.
    Settled,
    Seconds,
    /// A cost of a fill.
    Cost(Cost),
    /// The latency that 99.9 % did not exceed.
    P999,
}

struct Goal {
    label: &'static str,
    quantity: Quantity,
    /// At least this where more is better (throughput), at most this elsewhere.
    asked: f64,
    stretch: &'static str,
    against: &'static [&'static str],
}

const fn goal(label: &'static str, quantity: Quantity, asked: f64, stretch: &'static str) -> Goal {
    Goal {
        label,
        quantity,
        asked,
        stretch,
        against: RIVALS,
    }
}

const GOALS: &[Goal] = &[
    goal("fillseq", Quantity::Throughput, 3.0, "4 ×"),
    goal("fillrandom", Quantity::Throughput, 3.0, "4 ×"),
    goal("overwrite", Quantity::Throughput, 3.0, "4 ×"),
    goal("fillbatch", Quantity::Throughput, 2.5, "4 ×"),
    goal("fillsync1", Quantity::Throughput, 1.0, "1.15 ×"),
    goal("fillsync16", Quantity::Throughput, 2.5, "4 ×"),
    goal("readrandom", Quantity::Throughput, 2.0, "LMDB"),
    goal("readmissing", Quantity::Throughput, 1.3, "2 ×"),
    goal("seek10", Quantity::Throughput, 2.5, "half of LMDB"),
    goal("seek100", Quantity::Throughput, 2.5, "half of LMDB"),
    goal("seekrev10", Quantity::Throughput, 2.5, "half of LMDB"),
    goal("scan", Quantity::Throughput, 2.5, "LMDB"),
    goal("scanrev", Quantity::Throughput, 2.5, "LMDB"),
    goal("ycsb-a", Quantity::Throughput, 2.0, "3 ×"),
    goal("ycsb-b", Quantity::Throughput, 2.0, "3 ×"),
    goal("ycsb-f", Quantity::Throughput, 2.0, "3 ×"),
    goal("ycsb-e", Quantity::Throughput, 3.0, "3 ×"),
    goal("fillrandom", Quantity::Cost(Cost::Cpu), 0.4, ""),
    goal("fillrandom", Quantity::Cost(Cost::Written), 0.9, ""),
    Goal {
        against: &["rocksdb"],
        ..goal("fillrandom", Quantity::Cost(Cost::OnDisk), 1.0, "")
    },
    Goal {
        against: &["rocksdb"],
        ..goal("overwrite", Quantity::P999, 1.0, "")
    },
    goal("reopen", Quantity::Seconds, 0.2, "50 ms"),
];

/// One line of the comparison.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    /// What is compared, in words.
    pub(super) what: String,
    /// Our figure and theirs, as text.
    pub(super) ours: String,
    pub(super) theirs: String,
    /// The better of the rivals.
    pub(super) rival: String,
    /// Ours by theirs: of the medians, and of each round the lowest and the highest.
    pub(super) ratio: Spread,
    /// What is asked of the ratio.
    pub(super) asked: Option<f64>,
    pub(super) stretch: &'static str,
    /// Whether more is better.
    pub(super) more_is_better: bool,
}

impl Line {
    /// Whether the ratio is what was asked for; nothing where nothing was.
    pub(super) fn reached(&self) -> Option<bool> {
        let ratio = self.ratio.median;
        self.asked.map(|asked| {
            if self.more_is_better {
                ratio >= asked
            } else {
                ratio <= asked
            }
        })
    }

    /// Whether we are ahead at all.
    pub(super) fn ahead(&self) -> bool {
        if self.more_is_better {
            self.ratio.median >= 1.0
        } else {
            self.ratio.median <= 1.0
        }
    }

    /// How far the ratio is to the good of one: above it where ahead.
    pub(super) fn gain(&self) -> f64 {
        if self.more_is_better {
            self.ratio.median
        } else {
            1.0 / self.ratio.median
        }
    }

    /// What is asked, as text.
    pub(super) fn asked_in_words(&self) -> String {
        let sign = if self.more_is_better { "≥" } else { "≤" };
        self.asked
            .map_or_else(|| "–".to_owned(), |asked| format!("{sign} {asked} ×"))
    }
}

impl Quantity {
    const fn more_is_better(self) -> bool {
        matches!(self, Self::Throughput | Self::Settled)
    }
}

/// Every goal that was measured, then fills with what they leave to be settled, then the other workloads that a rival was
/// measured in.
pub(super) fn lines(book: &Book<'_>) -> Vec<Line> {
    if !book.engines.contains(&"vault") {
        return Vec::new();
    }
    let mut lines: Vec<Line> = GOALS
        .iter()
        .filter_map(|goal| line(book, goal, Some(goal.asked)))
        .collect();
    let settled = costs::FILLS.iter().filter_map(|label| {
        let settled = goal("", Quantity::Settled, 1.0, "");
        line_of(book, label, &settled, None)
    });
    lines.extend(settled);
    for label in &book.labels {
        let has_goal = GOALS.iter().any(|goal| goal.label == label);
        if has_goal || label.starts_with("settle") {
            continue;
        }
        let seconds = book.is_told_by_seconds(label);
        let quantity = if seconds {
            Quantity::Seconds
        } else {
            Quantity::Throughput
        };
        // The label is looked up, never kept.
        let asked = Goal {
            label: "",
            ..goal("", quantity, 1.0, "")
        };
        lines.extend(line_of(book, label, &asked, None));
    }
    lines.extend(encrypted(book));
    lines.extend(memory(book));
    lines
}

/// Goals that nothing was measured for, by what they are about.
pub(super) fn unmeasured(book: &Book<'_>) -> Vec<String> {
    let missing = GOALS
        .iter()
        .filter(|goal| line(book, goal, Some(goal.asked)).is_none());
    missing
        .map(|goal| what(goal.label, goal.quantity))
        .collect()
}

fn line(book: &Book<'_>, goal: &Goal, asked: Option<f64>) -> Option<Line> {
    line_of(book, goal.label, goal, asked)
}

fn line_of(book: &Book<'_>, label: &str, goal: &Goal, asked: Option<f64>) -> Option<Line> {
    let more_is_better = goal.quantity.more_is_better();
    let ours = by_round(book, label, "vault", goal.quantity);
    let our_median = spread(ours.iter().map(|round| round.1).collect())?;
    let rivals = goal.against.iter().filter_map(|&rival| {
        let rounds = by_round(book, label, rival, goal.quantity);
        let median = spread(rounds.iter().map(|round| round.1).collect())?;
        Some((rival, rounds, median))
    });
    let (rival, theirs, their_median) = rivals.reduce(|best, next| {
        let better = if more_is_better {
            next.2.median > best.2.median
        } else {
            next.2.median < best.2.median
        };
        if better { next } else { best }
    })?;
    let paired = ours.iter().filter_map(|&(round, our)| {
        let their = theirs.iter().find(|their| their.0 == round)?.1;
        Some(our / their)
    });
    let each = spread(paired.collect());
    let median = our_median.median / their_median.median;
    if !median.is_finite() {
        return None;
    }
    let show = show(goal.quantity);
    Some(Line {
        what: what(label, goal.quantity),
        ours: show(our_median.median),
        theirs: show(their_median.median),
        rival: rival.to_owned(),
        ratio: Spread {
            median,
            min: each.map_or(median, |e| e.min),
            max: each.map_or(median, |e| e.max),
        },
        asked,
        stretch: goal.stretch,
        more_is_better,
    })
}

fn what(label: &str, quantity: Quantity) -> String {
    match quantity {
        Quantity::Throughput => label.to_owned(),
        Quantity::Settled => format!("{label} and settle"),
        Quantity::Seconds => format!("{label}: time"),
        Quantity::Cost(cost) => cost.of(label),
        Quantity::P999 => format!("{label}: p99.9"),
    }
}

fn show(quantity: Quantity) -> fn(f64) -> String {
    match quantity {
        Quantity::Throughput | Quantity::Settled => in_operations,
        Quantity::Seconds => in_seconds,
        Quantity::Cost(cost) => cost.show(),
        Quantity::P999 => in_time,
    }
}

fn by_round(book: &Book<'_>, label: &str, engine: &str, quantity: Quantity) -> Vec<(u32, f64)> {
    let figure: fn(&Figures) -> f64 = match quantity {
        Quantity::Cost(cost) => return costs::by_round(book, label, engine, cost),
        Quantity::Settled => return costs::settled_by_round(book, label, engine),
        Quantity::Throughput => |f| f.operations_per_second,
        Quantity::Seconds => |f| f.seconds,
        Quantity::P999 => |f| f.p999_ns as f64,
    };
    let rounds = book.rounds(label, engine);
    rounds
        .iter()
        .map(|record| (record.round, figure(&record.figures)))
        .collect()
}

/// The workload in which encryption costs most.
fn encrypted(book: &Book<'_>) -> Option<Line> {
    let throughput = |record: &Record| record.figures.operations_per_second;
    let engine = book
        .engines
        .iter()
        .find(|engine| ["vault-aes", "vault-chacha"].contains(engine))?;
    let worst = book
        .labels
        .iter()
        .filter(|label| !book.is_told_by_seconds(label))
        .filter_map(|label| {
            let ours = book.of(label, engine, throughput)?.median;
            let plain = book.of(label, "vault", throughput)?.median;
            Some((ours / plain, label, ours, plain))
        });
    let (ratio, label, ours, plain) = worst.min_by(|a, b| f64::total_cmp(&a.0, &b.0))?;
    Some(Line {
        what: format!("{engine}, its dearest workload: {label}"),
        ours: in_operations(ours),
        theirs: in_operations(plain),
        rival: "vault (plain)".to_owned(),
        ratio: Spread {
            median: ratio,
            min: ratio,
            max: ratio,
        },
        asked: Some(ENCRYPTED_MIN),
        stretch: "0.95 ×",
        more_is_better: true,
    })
}

/// The most that the engine ever held, by its own account, of what it may hold.
fn memory(book: &Book<'_>) -> Option<Line> {
    let of_vault = book
        .records
        .iter()
        .filter(|record| record.engine == "vault");
    let held = of_vault.filter_map(|record| {
        let memory = &record.figures.memory;
        let budget = (memory.budget_kib > 0).then_some(memory.budget_kib)?;
        let most = *memory.accounted_kib.iter().max()?;
        Some((most.max(memory.accounted_peak_kib), budget))
    });
    let (held, budget) = held.max()?;
    let ratio = held as f64 / budget as f64;
    Some(Line {
        what: "memory by its own account, at its most".to_owned(),
        ours: in_bytes(held as f64 * 1024.0),
        theirs: in_bytes(budget as f64 * 1024.0),
        rival: "its budget".to_owned(),
        ratio: Spread {
            median: ratio,
            min: ratio,
            max: ratio,
        },
        asked: Some(1.0),
        stretch: "",
        more_is_better: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::record;
    use crate::workload::Workload;

    fn found(records: &[Record], what: &str) -> Line {
        let lines = lines(&Book::new(records));
        lines.into_iter().find(|line| line.what == what).unwrap()
    }

    #[test]
    fn the_better_rival_counts_and_losses_show() {
        let mut records = Vec::new();
        for (engine, rate) in [
            ("vault", 400),
            ("rocksdb", 100),
            ("fjall", 200),
            ("lmdb", 900),
        ] {
            records.push(record(engine, 1, Workload::FillRandom, rate, 1));
            records.push(record(engine, 1, Workload::Reopen, 1, rate));
        }
        let fill = found(&records, "fillrandom");
        assert_eq!((fill.rival.as_str(), fill.ratio.median), ("fjall", 2.0));
        assert_eq!(
            (fill.reached(), fill.ahead(), fill.gain()),
            (Some(false), true, 2.0)
        );
        assert_eq!(fill.asked_in_words(), "≥ 3 ×");
        let reopen = found(&records, "reopen: time");
        assert_eq!(
            (reopen.rival.as_str(), reopen.ratio.median),
            ("rocksdb", 4.0)
        );
        assert_eq!(
            (reopen.reached(), reopen.ahead(), reopen.gain()),
            (Some(false), false, 0.25)
        );
        assert!(unmeasured(&Book::new(&records)).contains(&"scan".to_owned()));
    }

    #[test]
    fn costs_of_a_fill_are_held_against_the_rivals() {
        let mut records = Vec::new();
        for (engine, bytes, settling) in [("vault", 100, 20), ("rocksdb", 100, 300)] {
            let mut fill = record(engine, 1, Workload::FillRandom, 1, 1);
            fill.figures.write_bytes = bytes;
            let mut settle = record(engine, 1, Workload::Settle, 1, 1);
            settle.figures.after = Some(Workload::FillRandom);
            settle.figures.write_bytes = settling;
            settle.figures.disk_allocated_bytes = bytes;
            records.extend([fill, settle]);
        }
        let written = found(
            &records,
            "fillrandom and settle: bytes written for each put in",
        );
        assert!((written.ratio.median - 0.3).abs() < 1e-9 && written.reached() == Some(true));
        assert_eq!(
            found(
                &records,
                "fillrandom, settled: bytes on disk for each of live data"
            )
            .ratio
            .median,
            1.0
        );
    }

    #[test]
    fn encryption_and_memory_are_held_against_plain_and_budget() {
        let mut records = vec![
            record("vault", 1, Workload::Scan, 100, 1),
            record("vault-aes", 1, Workload::Scan, 90, 1),
            record("vault", 1, Workload::YcsbA, 100, 1),
            record("vault-aes", 1, Workload::YcsbA, 50, 1),
        ];
        records[0].figures.memory.accounted_kib = vec![10, 1500, 700];
        records[0].figures.memory.budget_kib = 1000;
        let encrypted = found(&records, "vault-aes, its dearest workload: ycsb-a");
        assert_eq!(
            (encrypted.ratio.median, encrypted.reached()),
            (0.5, Some(false))
        );
        let memory = found(&records, "memory by its own account, at its most");
        assert_eq!((memory.ratio.median, memory.reached()), (1.5, Some(false)));
    }

    #[test]
    fn without_the_engine_or_a_rival_there_is_nothing_to_compare() {
        assert!(lines(&Book::new(&[record("fjall", 1, Workload::Scan, 1, 1)])).is_empty());
        assert!(lines(&Book::new(&[record("vault", 1, Workload::Scan, 1, 1)])).is_empty());
    }
}
