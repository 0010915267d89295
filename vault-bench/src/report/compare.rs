//! This build beside another revision: which workloads have become faster or slower, as far as can be told.

use super::book::Book;
use super::format::in_times;
use crate::record::Record;
use crate::results::Results;
use crate::stats::{CONFIDENCE_PERCENT, Ratio, Verdict, judge, paired_ratio};

/// A difference in speed up to this is nobody's business: 3 %.
pub const MARGIN: f64 = 0.03;

/// A workload on both builds.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// The step.
    pub label: String,
    /// How many times as fast this build is.
    pub ratio: Ratio,
    /// What that means.
    pub verdict: Verdict,
}

/// Compares every step that both have run, except settles, whose time depends on where the step before left off.
#[must_use]
pub fn compare(results: &Results) -> Vec<Compared> {
    let book = Book::new(&results.records);
    let Some(other) = book
        .engines
        .iter()
        .find(|engine| engine.starts_with("vault@"))
    else {
        return Vec::new();
    };
    let steps = book
        .labels
        .iter()
        .filter(|label| !label.starts_with("settle"));
    let compared = steps.filter_map(|label| {
        let ratio = speed_ratio(&book, label, other)?;
        let verdict = judge(&ratio, MARGIN);
        Some(Compared {
            label: label.clone(),
            ratio,
            verdict,
        })
    });
    compared.collect()
}

/// The ratio of speeds: of rates, or of times the other way round.
fn speed_ratio(book: &Book<'_>, label: &str, other: &str) -> Option<Ratio> {
    let speed = |r: &Record| r.figures.operations as f64 / r.figures.seconds;
    book.ratio(label, ("vault", other), speed)
}

/// The geometric mean of all workloads, round by round.
#[must_use]
pub fn overall(results: &Results) -> Option<Ratio> {
    let compared = compare(results);
    let logs: f64 = compared.iter().map(|c| c.ratio.ratio.ln()).sum();
    let mean = (logs / compared.len().max(1) as f64).exp();
    (!compared.is_empty())
        .then(|| paired_ratio(&[(mean, 1.0)]))
        .flatten()
}

/// The steps that are certainly slower.
#[must_use]
pub fn regressions(compared: &[Compared]) -> Vec<&Compared> {
    compared
        .iter()
        .filter(|c| c.verdict == Verdict::Slower)
        .collect()
}

/// The comparison as a table of Markdown; empty where there is none.
pub(super) fn table(results: &Results) -> String {
    let compared = compare(results);
    let Some(first) = compared.first() else {
        return String::new();
    };
    let other = results.run().and_then(|run| run.compare.as_ref());
    let name = other.map_or_else(String::new, |other| {
        format!("`{}` ({})", other.asked, other.commit)
    });
    let mut out = format!(
        "## Beside revision {name}\n\nTimes as fast as that revision, paired by round ({} rounds); intervals of \
         {CONFIDENCE_PERCENT} % by Student's t on the logarithms of the ratios. Slower or faster is what the whole interval is \
         by more than {:.0} %.\n\n| workload | ratio | interval | |\n| --- | --- | --- | --- |\n",
        first.ratio.rounds,
        MARGIN * 100.0
    );
    for c in &compared {
        out += &format!(
            "| {} | {} | {} | {} |\n",
            c.label,
            in_times(c.ratio.ratio),
            interval(&c.ratio),
            in_words(c.verdict)
        );
    }
    if let Some(overall) = overall(results) {
        out += &format!(
            "| all, geometric mean | {} | | |\n",
            in_times(overall.ratio)
        );
    }
    out + "\n"
}

/// An interval as text.
#[must_use]
pub fn interval(ratio: &Ratio) -> String {
    if ratio.rounds < 2 {
        return "unknown: one round".to_owned();
    }
    format!("{} – {}", in_times(ratio.low), in_times(ratio.high))
}

pub(super) fn in_words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Slower => "slower",
        Verdict::Faster => "faster",
        Verdict::Undecided => "cannot be told",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::record;
    use crate::workload::Workload;

    #[test]
    fn a_slow_step_is_found_among_equal_ones() {
        let mut results = Results::default();
        for round in 1..=5 {
            let noise = u64::from(round) * 3;
            results.keep(record(
                "vault",
                round,
                Workload::FillRandom,
                1000 + noise,
                1,
            ));
            results.keep(record(
                "vault@main",
                round,
                Workload::FillRandom,
                1010 - noise,
                1,
            ));
            results.keep(record("vault", round, Workload::Scan, 700 + noise, 1));
            results.keep(record("vault@main", round, Workload::Scan, 1000 + noise, 1));
            results.keep(record("vault", round, Workload::Reopen, 1, 1));
            results.keep(record("vault@main", round, Workload::Reopen, 1, 3));
        }
        let compared = compare(&results);
        let slower: Vec<_> = regressions(&compared)
            .into_iter()
            .map(|c| c.label.as_str())
            .collect();
        assert_eq!(slower, ["scan"]);
        let reopen = compared.iter().find(|c| c.label == "reopen").unwrap();
        assert_eq!(reopen.verdict, Verdict::Faster);
        let text = table(&results);
        assert!(
            text.contains("| scan | 0.70 × |") && text.contains("slower"),
            "{text}"
        );
        assert!(
            text.contains("99 %") && text.contains("3 %") && text.contains("5 rounds"),
            "{text}"
        );
    }

    #[test]
    fn without_another_revision_nothing_is_compared() {
        let mut results = Results::default();
        results.keep(record("vault", 1, Workload::Scan, 1, 1));
        assert!(compare(&results).is_empty() && table(&results).is_empty());
    }
}
