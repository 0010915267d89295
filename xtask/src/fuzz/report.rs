//! Reads what fuzzers print, and sums it up.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How far a fuzzer has come.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    /// Inputs that were run.
    pub(super) executions: u64,
    /// Places of the code that were reached.
    pub(super) coverage: u64,
    /// Inputs that reach all of it.
    pub(super) inputs: u64,
    /// Inputs that this run added.
    pub(super) added: u64,
    /// The input that broke something.
    pub(super) artifact: Option<PathBuf>,
}

impl Progress {
    /// Takes note of a line; says whether it is one that tells how things go.
    pub(super) fn read(&mut self, line: &str) -> bool {
        if let Some((_, path)) = line.split_once("Test unit written to ") {
            self.artifact = Some(path.trim().into());
        }
        if let Some(rest) = line.strip_prefix("stat::") {
            let (name, value) = rest.split_once(':').unwrap_or((rest, ""));
            let value = value.trim().parse().unwrap_or_default();
            match name {
                "number_of_executed_units" => self.executions = value,
                "new_units_added" => self.added = value,
                _ => {}
            }
            return false;
        }
        // "#1234<tab>NEW    cov: 56 ft: 78 corp: 9/10Kb ..."
        let Some(rest) = line.strip_prefix('#') else {
            return false;
        };
        let mut words = rest.split_whitespace();
        let Some(executions) = words.next().and_then(|word| word.parse().ok()) else {
            return false;
        };
        self.executions = executions;
        let words: Vec<&str> = words.collect();
        for pair in words.windows(2) {
            let number = pair[1]
                .split('/')
                .next()
                .and_then(|number| number.parse().ok());
            match (pair[0], number) {
                ("cov:", Some(number)) => self.coverage = number,
                ("corp:", Some(number)) => self.inputs = number,
                _ => {}
            }
        }
        true
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            executions,
            coverage,
            inputs,
            ..
        } = self;
        write!(
            f,
            "{executions:>10} executions, {coverage:>5} places, {inputs:>5} inputs"
        )
    }
}

/// A run that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) target: String,
    pub(super) progress: Progress,
    pub(super) artifact: Option<PathBuf>,
    pub(super) elapsed: Duration,
}

/// A line for each run and one for all.
pub(super) fn table(ended: &[Ended]) -> String {
    let mut out = format!(
        "{:<12} {:>8} {:>12} {:>10} {:>7} {:>7} {:>6}  {}\n",
        "target", "seconds", "executions", "a second", "places", "inputs", "added", "finding"
    );
    let (mut executions, mut findings) = (0, 0);
    for Ended {
        target,
        progress,
        artifact,
        elapsed,
    } in ended
    {
        executions += progress.executions;
        findings += usize::from(artifact.is_some());
        let rate = progress.executions as f64 / elapsed.as_secs_f64().max(1.0);
        let finding = artifact
            .as_ref()
            .map_or_else(|| "-".to_owned(), |path| path.display().to_string());
        out += &format!(
            "{target:<12} {:>8} {:>12} {rate:>10.0} {:>7} {:>7} {:>6}  {finding}\n",
            elapsed.as_secs(),
            progress.executions,
            progress.coverage,
            progress.inputs,
            progress.added,
        );
    }
    let runs = ended.len();
    out + &format!("together: {runs} runs, {executions} executions, {findings} findings\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fuzzers_print_is_read() {
        let mut progress = Progress::default();
        let status =
            "#4096\tpulse  cov: 321 ft: 1234 corp: 56/7890b lim: 4096 exec/s: 2048 rss: 60Mb";
        assert!(progress.read(status));
        assert_eq!(
            (progress.executions, progress.coverage, progress.inputs),
            (4096, 321, 56)
        );
        assert!(!progress.read("INFO: seed corpus: files: 12"));
        assert!(!progress.read("#no number"));
        assert!(!progress.read("stat::number_of_executed_units: 5000"));
        assert!(!progress.read("stat::new_units_added:          7"));
        assert_eq!((progress.executions, progress.added), (5000, 7));
        assert_eq!(progress.artifact, None);
        progress.read("artifact_prefix='a/'; Test unit written to fuzz/artifacts/log/crash-1");
        assert_eq!(progress.artifact, Some("fuzz/artifacts/log/crash-1".into()));
    }

    #[test]
    fn the_table_tells_findings() {
        let ended = |target: &str, artifact: Option<&str>| Ended {
            target: target.to_owned(),
            progress: Progress {
                executions: 600,
                ..Progress::default()
            },
            artifact: artifact.map(PathBuf::from),
            elapsed: Duration::from_secs(2),
        };
        let table = table(&[ended("log", None), ended("table", Some("crash-1"))]);
        assert!(table.contains("crash-1"), "{table}");
        assert!(
            table.ends_with("together: 2 runs, 1200 executions, 1 findings\n"),
            "{table}"
        );
    }
}
