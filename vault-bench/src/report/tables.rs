//! Tables of many records as Markdown: medians over the rounds, with the spread, and ratios between engines.

use std::fmt::Write;

use super::book::Book;
use super::format::{in_operations, in_seconds, in_time, with_spread};
use crate::record::Record;

/// A cell where an engine has no figure.
const NONE: &str = "–";

/// Renders all tables as Markdown. Ratios are those of `vault`, or of the first engine where it is not
/// among them, to each other one.
#[must_use]
pub fn render(records: &[Record]) -> String {
    let table = Table(Book::new(records));
    let mut out = String::new();
    table.heading(&mut out);
    table.throughput(&mut out);
    table.latency(&mut out);
    table.cost(&mut out);
    out
}

struct Table<'a>(Book<'a>);

impl<'a> std::ops::Deref for Table<'a> {
    type Target = Book<'a>;

    fn deref(&self) -> &Book<'a> {
        &self.0
    }
}

impl Table<'_> {
    fn heading(&self, out: &mut String) {
        let Some(first) = self.records.first() else {
            out.push_str("Nothing was measured.\n");
            return;
        };
        let (s, m) = (&first.settings, &first.machine);
        let rounds = self.records.iter().map(|r| r.round).max().unwrap_or(1);
        let versions: Vec<String> = self
            .engines
            .iter()
            .map(|&engine| {
                let record = self.records.iter().find(|r| r.engine == engine);
                format!("{engine} {}", record.map_or("", |r| &*r.engine_version))
            })
            .collect();
        // Writing to a string cannot fail; the same below.
        let _ = writeln!(
            out,
            "{}; {} rounds, median (lowest – highest). {} entries, keys of 16 and values of {} bytes, {} threads, \
             cache {} MiB, write buffer {} MiB, seed {}.\n{}, {} cores, {} MiB, {}, {}. Revision {}, {}.\n",
            versions.join(", "),
            rounds,
            s.n,
            s.value_bytes,
            s.threads,
            s.cache_mib,
            s.write_buffer_mib,
            s.seed,
            m.cpu,
            m.cores,
            m.memory_mib,
            m.kernel,
            m.file_system,
            first.revision.as_deref().unwrap_or("unknown"),
            first.date,
        );
    }

    fn throughput(&self, out: &mut String) {
        let Some(base) = self.base else { return };
        out.push_str("| workload |");
        for engine in &self.engines {
            let _ = write!(out, " {engine} |");
        }
        for other in self.others() {
            let _ = write!(out, " {base} / {other} |");
        }
        rule(out, 1 + self.engines.len() + self.others().count());
        for label in &self.labels {
            let seconds = self.is_told_by_seconds(label);
            let figure = |engine: &str| {
                self.of(label, engine, |r| {
                    if seconds {
                        r.figures.seconds
                    } else {
                        r.figures.operations_per_second
                    }
                })
            };
            let _ = write!(out, "| {label} |");
            for engine in &self.engines {
                let show = if seconds { in_seconds } else { in_operations };
                let _ = write!(
                    out,
                    " {} |",
                    figure(engine).map_or_else(|| NONE.to_owned(), |s| with_spread(s, show))
                );
            }
            for other in self.others() {
                let ratio = figure(base)
                    .zip(figure(other))
                    .map(|(mine, theirs)| mine.median / theirs.median);
                let note = if seconds { " of the time" } else { "" };
                let _ = write!(
                    out,
                    " {} |",
                    ratio.map_or_else(|| NONE.to_owned(), |x| format!("{x:.2} ×{note}"))
                );
            }
            out.push('\n');
        }
        out.push('\n');
    }

    fn latency(&self, out: &mut String) {
        if self.records.is_empty() {
            return;
        }
        out.push_str(
            "Latency (medians of the rounds):\n\n| workload | engine | p50 | p99 | p99.9 | max |",
        );
        rule(out, 6);
        for label in self
            .labels
            .iter()
            .filter(|label| !self.is_told_by_seconds(label))
        {
            for engine in &self.engines {
                let figures = [
                    self.of(label, engine, |r| r.figures.p50_ns as f64),
                    self.of(label, engine, |r| r.figures.p99_ns as f64),
                    self.of(label, engine, |r| r.figures.p999_ns as f64),
                    self.of(label, engine, |r| r.figures.max_ns as f64),
                ];
                row(
                    out,
                    label,
                    engine,
                    figures.map(|f| f.map(|s| in_time(s.median))),
                );
            }
        }
        out.push('\n');
    }

    fn cost(&self, out: &mut String) {
        if self.records.is_empty() {
            return;
        }
        out.push_str(
            "Cost (medians of the rounds; disk after the step, memory at its peak):\n\n\
             | workload | engine | CPU s | MiB written | MiB on disk | MiB files' length | MiB memory |",
        );
        rule(out, 7);
        for label in &self.labels {
            for engine in &self.engines {
                let mib = |bytes: fn(&Record) -> u64| {
                    let found = self.of(label, engine, |r| bytes(r) as f64 / f64::from(1 << 20));
                    found.map(|s| format!("{:.0}", s.median))
                };
                let cells = [
                    self.of(label, engine, |r| r.figures.cpu_seconds)
                        .map(|s| format!("{:.2}", s.median)),
                    mib(|r| r.figures.write_bytes),
                    mib(|r| r.figures.disk_allocated_bytes),
                    mib(|r| r.figures.disk_apparent_bytes),
                    mib(|r| r.figures.peak_memory_bytes),
                ];
                row(out, label, engine, cells);
            }
        }
        out.push('\n');
    }
}

/// Ends a header and draws the line below it.
fn rule(out: &mut String, columns: usize) {
    out.push_str("\n|");
    out.push_str(&" --- |".repeat(columns));
    out.push('\n');
}

/// One row of a workload and an engine, left out where the engine has no figures for it.
fn row<const N: usize>(out: &mut String, label: &str, engine: &str, cells: [Option<String>; N]) {
    if cells.iter().all(Option::is_none) {
        return;
    }
    let _ = write!(out, "| {label} | {engine} |");
    for cell in cells {
        let _ = write!(out, " {} |", cell.as_deref().unwrap_or(NONE));
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::record;
    use crate::workload::Workload;

    #[test]
    fn tables_hold_medians_spreads_and_ratios() {
        let mut records = Vec::new();
        for (round, rate) in [(1, 300), (2, 100), (3, 200)] {
            records.push(record("fjall", round, Workload::FillRandom, rate * 1000, 1));
            records.push(record("vault", round, Workload::FillRandom, 600_000, 1));
        }
        records.push(record("vault", 1, Workload::Reopen, 1, 2));
        records.push(record("fjall", 1, Workload::Reopen, 1, 8));
        records.push(record("fjall", 1, Workload::Scan, 5_000_000, 1));
        let mut settle = record("vault", 1, Workload::Settle, 1, 3);
        settle.figures.after = Some(Workload::FillRandom);
        records.push(settle);
        let text = render(&records);
        for line in [
            "| workload | fjall | vault | vault / fjall |",
            "| fillrandom | 200 k/s (100 k/s – 300 k/s) | 600 k/s | 3.00 × |",
            "| reopen | 8.00 s | 2.00 s | 0.25 × of the time |",
            "| scan | 5.00 M/s | – | – |",
            "| settle (fillrandom) | – | 3.00 s | – |",
            "| scan | fjall | 0.00 | 0 | 0 | 0 | 0 |",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "no {line} in\n{text}"
            );
        }
        assert!(text.starts_with("fjall 1.2, vault 1.2; 3 rounds"), "{text}");
        // Every row of a table has as many cells as its header.
        let bars = |line: &str| line.matches('|').count();
        for table in text.split("\n\n").filter(|part| part.starts_with('|')) {
            let widths: Vec<usize> = table.lines().map(bars).collect();
            assert!(widths.iter().all(|&w| w == widths[0]), "{table}");
        }
        assert_eq!(render(&[]), "Nothing was measured.\n");
    }

    #[test]
    fn a_record_survives_its_line_of_json() {
        let record = record("vault", 2, Workload::YcsbA, 10, 3);
        let line = serde_json::to_string(&record).unwrap();
        assert!(
            line.contains("\"workload\":\"ycsb-a\"") && !line.contains('\n'),
            "{line}"
        );
        assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record);
    }
}
