//! The report as Markdown, and the block of it that the README shows.

use std::fmt::Write;

use super::book::Book;
use super::compare;
use super::format::{in_times, with_spread};
use super::goals::{self, Line};
use super::tables::render;
use crate::engines;
use crate::results::{Note, Results};

/// What stands before the block in a document.
pub const BLOCK_BEGIN: &str =
    "<!-- bench-report: begin; written by `cargo xtask bench-report`, not by hand -->";
/// What stands behind it.
pub const BLOCK_END: &str = "<!-- bench-report: end -->";

/// The whole report.
#[must_use]
pub fn markdown(results: &Results) -> String {
    let mut out = "# Benchmark report\n\n".to_owned();
    // Writing to a string cannot fail; the same below.
    let _ = writeln!(out, "{BLOCK_BEGIN}\n{}{BLOCK_END}\n", block(results));
    for trouble in troubles(results) {
        let _ = writeln!(out, "- **{trouble}**");
    }
    out += "\n";
    out += &compare::table(results);
    let book = Book::new(&results.records);
    let missing = goals::unmeasured(&book);
    if !missing.is_empty() {
        let _ = writeln!(
            out,
            "Asked for, and not measured in this run: {}.\n",
            missing.join(", ")
        );
    }
    out += "## Engines\n\n| engine | version | settings | durability of a write |\n| --- | --- | --- | --- |\n";
    for (engine, version, setup) in setups(results) {
        let _ = writeln!(
            out,
            "| {engine} | {version} | {setup} | {} |",
            engines::durability(engine)
        );
    }
    out += "\n## All figures\n\n";
    out + &render(&results.records)
}

/// What the README shows: when, where and on what, and each ratio asked for beside the one reached.
#[must_use]
pub fn block(results: &Results) -> String {
    let book = Book::new(&results.records);
    let Some(first) = results.records.first() else {
        return "Nothing was measured.\n".to_owned();
    };
    let (s, m) = (&first.settings, &first.machine);
    let versions: Vec<_> = book
        .engines
        .iter()
        .map(|engine| format!("{engine} {}", book.version(engine)))
        .collect();
    let mut out = format!(
        "{}; {}, {} cores, {} MiB, {}, {}. {} entries, keys of 16 and values of {} bytes, {} client threads, cache {} MiB, \
         memtables of {} MiB; {} {}, median (lowest – highest). Revision {}.\n\n",
        first.date.split('T').next().unwrap_or_default(),
        m.cpu,
        m.cores,
        m.memory_mib,
        m.kernel,
        m.file_system,
        s.n,
        s.value_bytes,
        s.threads,
        s.cache_mib,
        s.write_buffer_mib,
        book.rounds_max(),
        if book.rounds_max() == 1 {
            "round"
        } else {
            "rounds"
        },
        results
            .records
            .iter()
            .find_map(|r| r.revision.as_deref())
            .unwrap_or("unknown"),
    );
    let _ = writeln!(out, "{}.\n", versions.join("; "));
    let lines = goals::lines(&book);
    if lines.is_empty() {
        out += "Neither RocksDB nor fjall took part: there is nothing to compare with.\n";
        return out;
    }
    out += "| | vault | the better of RocksDB and fjall | ratio | asked | |\n| --- | --- | --- | --- | --- | --- |\n";
    for line in &lines {
        out += &row(line);
    }
    out
}

fn row(line: &Line) -> String {
    let ratio = with_spread(line.ratio, in_times);
    format!(
        "| {} | {} | {} ({}) | {ratio} | {} | {} |\n",
        line.what,
        line.ours,
        line.theirs,
        line.rival,
        line.asked_in_words(),
        outcome(line)
    )
}

/// How a line came out, in words.
pub(super) fn outcome(line: &Line) -> &'static str {
    match (line.reached(), line.ahead()) {
        (Some(true), _) => "reached",
        (Some(false), true) => "ahead, short of it",
        (Some(false), false) => "**behind**",
        (None, true) => "ahead",
        (None, false) => "**behind**",
    }
}

/// A document with this block in the place of the one it has; `None` where it has no such place.
#[must_use]
pub fn with_block(document: &str, block: &str) -> Option<String> {
    let (before, rest) = document.split_once(BLOCK_BEGIN)?;
    let (_, after) = rest.split_once(BLOCK_END)?;
    Some(format!("{before}{BLOCK_BEGIN}\n{block}{BLOCK_END}{after}"))
}

/// What did not go as it should, a sentence each.
pub(super) fn troubles(results: &Results) -> Vec<String> {
    let mut troubles = Vec::new();
    for note in &results.notes {
        match note {
            Note::Failed { engine, round, why } => {
                let round = round.map_or_else(String::new, |round| format!(", round {round}"));
                troubles.push(format!("{engine}{round}: {why}"));
            }
            Note::LeftOut {
                engine,
                workload,
                why,
            } => {
                troubles.push(format!("{engine}: {workload} left out: {why}"));
            }
            Note::Interrupted { date } => {
                troubles.push(format!(
                    "interrupted at {date}: what follows is what there is"
                ));
            }
            Note::Run(_) | Note::Started { .. } | Note::Ended { .. } => {}
        }
    }
    if results.torn.is_some() {
        troubles.push("the last line of the results is torn, and was passed over".to_owned());
    }
    troubles.extend(cut_short(results));
    let mut seen = std::collections::BTreeSet::new();
    troubles.retain(|trouble| seen.insert(trouble.clone()));
    troubles
}

/// What was cut short, a sentence for each engine.
fn cut_short(results: &Results) -> Vec<String> {
    let cut = results.records.iter().filter(|r| r.figures.cut_short);
    let mut by_engine: Vec<(&str, Vec<String>)> = Vec::new();
    for record in cut {
        let label = record.figures.label();
        match by_engine
            .iter_mut()
            .find(|(engine, _)| *engine == record.engine)
        {
            Some((_, labels)) if labels.contains(&label) => {}
            Some((_, labels)) => labels.push(label),
            None => by_engine.push((&record.engine, vec![label])),
        }
    }
    let told = |(engine, labels): (&str, Vec<String>)| {
        format!(
            "{engine}: cut short when the time of --duration-max was up: {}",
            labels.join(", ")
        )
    };
    by_engine.into_iter().map(told).collect()
}

/// Name, version and settings of each engine that has begun, once.
pub(super) fn setups(results: &Results) -> Vec<(&str, &str, &str)> {
    let mut setups: Vec<(&str, &str, &str)> = Vec::new();
    for note in &results.notes {
        if let Note::Started {
            engine,
            version,
            setup,
        } = note
            && !setups.iter().any(|(known, ..)| known == engine)
        {
            setups.push((engine, version, setup));
        }
    }
    setups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::record;
    use crate::workload::Workload;

    fn results() -> Results {
        let mut results = Results::default();
        for (engine, rate) in [("vault", 100), ("fjall", 200)] {
            results.keep(record(engine, 1, Workload::FillRandom, rate, 1));
            results.keep(record(engine, 1, Workload::YcsbC, 300 - rate, 1));
        }
        let engine = "rocksdb".to_owned();
        results.note(Note::Failed {
            engine,
            round: None,
            why: "no compiler".to_owned(),
        });
        results
    }

    #[test]
    fn losses_stand_as_plainly_as_wins_and_troubles_are_told() {
        let text = markdown(&results());
        for line in [
            "| fillrandom | 100/s | 200/s (fjall) | 0.50 × | ≥ 3 × | **behind** |",
            "| ycsb-c | 200/s | 100/s (fjall) | 2.00 × | – | ahead |",
            "- **rocksdb: no compiler**",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "no {line} in\n{text}"
            );
        }
        assert!(
            text.contains("not measured in this run: fillseq, overwrite"),
            "{text}"
        );
        assert!(text.contains("5000000 entries"));
    }

    #[test]
    fn a_block_replaces_the_one_before_and_nothing_else() {
        let block = block(&results());
        let document = format!("# A\n\n{BLOCK_BEGIN}\nold\n{BLOCK_END}\n\nmore\n");
        let new = with_block(&document, &block).unwrap();
        assert_eq!(
            new,
            format!("# A\n\n{BLOCK_BEGIN}\n{block}{BLOCK_END}\n\nmore\n")
        );
        assert_eq!(with_block(&new, &block), Some(new.clone()));
        assert_eq!(with_block("# A\n", &block), None);
        // The report holds the block as the README does.
        assert!(markdown(&results()).contains(&format!("{BLOCK_BEGIN}\n{block}{BLOCK_END}")));
    }

    #[test]
    fn what_was_cut_short_is_told_once_for_each_engine() {
        let mut results = Results::default();
        for (engine, workload) in [
            ("vault", Workload::Scan),
            ("vault", Workload::YcsbA),
            ("fjall", Workload::Scan),
        ] {
            for round in 1..=2 {
                let mut record = record(engine, round, workload, 1, 1);
                record.figures.cut_short = true;
                results.keep(record);
            }
        }
        let told = troubles(&results);
        assert!(
            told.len() == 2 && told[0].ends_with("scan, ycsb-a"),
            "{told:?}"
        );
    }

    #[test]
    fn nothing_is_no_reason_to_panic() {
        assert!(markdown(&Results::default()).contains("Nothing was measured"));
    }
}
