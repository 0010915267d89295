//! `cargo xtask bench-report`: measures Vault and its rivals, and draws a report of it.
//!
//! The work is `vault-bench`'s, whose library reads the figures; this gives it its arguments, with the tuned ciphers built
//! in where encryption is to be measured. It also holds what README.md shows against what is committed in docs/bench.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::ExitCode;

use crate::Findings;
use crate::bench;
use crate::source::Tree;
use crate::workspace::Workspace;

/// Where the measurement that the README shows is committed.
const PUBLISHED: &str = "docs/bench/report.md";
const BLOCK_BEGIN: &str = "<!-- bench-report: begin";
const BLOCK_END: &str = "<!-- bench-report: end -->";

/// Becomes the workload runner, so that signals reach it and nobody in between.
pub(crate) fn run(root: &Path, arguments: &[String]) -> ExitCode {
    let workspace = match Workspace::load(root) {
        Ok(workspace) => workspace,
        Err(problem) => {
            eprintln!("bench-report could not run: {problem}");
            return ExitCode::FAILURE;
        }
    };
    let mut features = vec!["vault"];
    // A run that is gone on with may be of encrypted engines, which then need the same ciphers.
    let encrypted = ["--encrypted", "--resume"];
    if arguments
        .iter()
        .any(|argument| encrypted.contains(&argument.as_str()))
    {
        features.push("ring");
    }
    let mut command = bench::command_with(root, &workspace, &features);
    let error = command.arg("bench-report").args(arguments).exec();
    eprintln!("cannot start cargo: {error}");
    ExitCode::FAILURE
}

/// Holds the block of figures in README.md against the one in the committed report.
pub(crate) fn check(tree: &Tree) -> Findings {
    let mut findings = Findings::default();
    let shown = tree.text("README.md").map(block);
    let measured = tree.text(PUBLISHED).map(block);
    let mend =
        "write both with `cargo xtask bench-report --from docs/bench/results.jsonl --publish`";
    match (shown.flatten(), measured) {
        (None, None) => {}
        (Some(_), None) => findings.problem(format!(
            "README.md: shows figures, and there is no {PUBLISHED}; {mend}"
        )),
        (None, Some(_)) => findings.problem(format!(
            "README.md: does not show the figures of {PUBLISHED}; {mend}"
        )),
        (Some(shown), Some(measured)) => {
            if measured != Some(shown) {
                findings.problem(format!(
                    "README.md: shows other figures than {PUBLISHED}; {mend}"
                ));
            }
        }
    }
    findings
}

/// What stands between the marks of a document.
fn block(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once(BLOCK_BEGIN)?;
    Some(rest.split_once(BLOCK_END)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(figures: &str) -> String {
        format!("# A\n\n{BLOCK_BEGIN}; by a tool -->\n{figures}\n{BLOCK_END}\n\nmore\n")
    }

    fn problems(readme: Option<&str>, report: Option<&str>) -> String {
        let text = |figures: Option<&str>| figures.map_or_else(|| "# A\n".to_owned(), document);
        let mut tree = Tree::default().with("README.md", &text(readme));
        if report.is_some() {
            tree = tree.with(PUBLISHED, &text(report));
        }
        check(&tree).problems.join("\n")
    }

    #[test]
    fn figures_in_the_readme_are_those_of_the_report() {
        assert_eq!(problems(None, None), "");
        assert_eq!(problems(Some("3 ×"), Some("3 ×")), "");
        assert!(problems(Some("4 ×"), Some("3 ×")).contains("other figures"));
        assert!(problems(None, Some("3 ×")).contains("does not show"));
        assert!(problems(Some("3 ×"), None).contains("there is no"));
    }

    #[test]
    fn a_report_without_its_marks_is_another_one() {
        let tree = Tree::default()
            .with("README.md", &document("3 ×"))
            .with(PUBLISHED, "# A\n");
        assert_eq!(check(&tree).problems.len(), 1);
    }
}
