//! Everything that must hold before a change lands, beside `cargo test --workspace`.
//!
//! Each step runs whether or not the one before passed, so that one round shows everything that is to
//! be mended. A step that cannot run here (no nightly compiler, a crate that is not there yet) is
//! reported as skipped with the reason, never as passed.

mod command;
mod steps;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::workspace::Workspace;
use Outcome::{Failed, Passed, Skipped};

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Passed,
    Skipped(String),
    Failed(String),
}

type Step = (&'static str, fn(&Context<'_>) -> Outcome);

/// What steps work on.
struct Context<'a> {
    root: &'a Path,
    workspace: Workspace,
}

/// Runs every step and prints a table of how they ended.
pub(crate) fn run(root: &Path) -> ExitCode {
    let workspace = match Workspace::load(root) {
        Ok(workspace) => workspace,
        Err(problem) => {
            eprintln!("ci could not run: {problem}");
            return ExitCode::FAILURE;
        }
    };
    let context = Context { root, workspace };
    let begin = Instant::now();
    let mut ended = Vec::new();
    for (name, step) in steps::STEPS {
        println!("\n==== {name} ====");
        let step_begin = Instant::now();
        let outcome = step(&context);
        let elapsed = step_begin.elapsed();
        println!(
            "---- {name}: {} ({})",
            described(&outcome),
            seconds(elapsed)
        );
        ended.push((name, outcome, elapsed));
    }
    print!("\n{}", table(&ended, begin.elapsed()));
    if ended
        .iter()
        .any(|(_, outcome, _)| matches!(outcome, Failed(_)))
    {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn described(outcome: &Outcome) -> String {
    match outcome {
        Passed => "passed".to_owned(),
        Skipped(reason) => format!("skipped: {reason}"),
        Failed(reason) => format!("FAILED: {reason}"),
    }
}

fn seconds(elapsed: Duration) -> String {
    format!("{:.1} s", elapsed.as_secs_f64())
}

fn table(ended: &[(&str, Outcome, Duration)], total: Duration) -> String {
    let mut out = String::new();
    for (name, outcome, elapsed) in ended {
        out += &format!(
            "{name:<14} {:>9}  {}\n",
            seconds(*elapsed),
            described(outcome)
        );
    }
    let failed = ended
        .iter()
        .filter(|(_, o, _)| matches!(o, Failed(_)))
        .count();
    let skipped = ended
        .iter()
        .filter(|(_, o, _)| matches!(o, Skipped(_)))
        .count();
    let passed = ended.len() - failed - skipped;
    let counts = format!("{passed} passed, {skipped} skipped, {failed} failed");
    out + &format!("{:<14} {:>9}  {counts}\n", "together", seconds(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_tells_skipped_from_passed() {
        let ended = [
            ("one", Passed, Duration::from_secs(1)),
            ("two", Skipped("no compiler".to_owned()), Duration::ZERO),
            ("three", Failed("exit status: 1".to_owned()), Duration::ZERO),
        ];
        let table = table(&ended, Duration::from_secs(1));
        assert!(table.contains("skipped: no compiler") && table.contains("FAILED: exit status: 1"));
        assert!(table.contains("1 passed, 1 skipped, 1 failed"), "{table}");
    }
}
