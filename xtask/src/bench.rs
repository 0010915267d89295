//! Passes arguments on to the workload runner, and fills in the repository's settings where they are
//! not given: the same entries, rounds and rivals each time, so that figures can be compared.

use std::path::Path;
use std::process::{Command, ExitCode};

use crate::workspace::Workspace;

/// What a run is made of unless the arguments say otherwise.
const STANDARD: [(&str, &str); 5] = [
    ("--engine", "vault,fjall"),
    (
        "--workload",
        "fillrandom,fillbatch,overwrite,fillsync16,readrandom,readmissing,seek10,scan,reopen",
    ),
    ("--n", "5000000"),
    ("--rounds", "3"),
    ("--out", "target/bench/results.jsonl"),
];

/// Runs the workload runner.
pub(crate) fn run(root: &Path, arguments: &[String]) -> ExitCode {
    let arguments = complete(arguments);
    if let Err(error) = std::fs::create_dir_all(root.join("target/bench")) {
        eprintln!("cannot make target/bench: {error}");
        return ExitCode::FAILURE;
    }
    let workspace = match Workspace::load(root) {
        Ok(workspace) => workspace,
        Err(problem) => {
            eprintln!("bench could not run: {problem}");
            return ExitCode::FAILURE;
        }
    };
    println!("vault-bench {}", arguments.join(" "));
    match command(root, &workspace).args(&arguments).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => {
            eprintln!("the workload runner failed: {status}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("cannot start cargo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The runner, without its arguments; with the engine built in where that is a feature of its own.
pub(crate) fn command(root: &Path, workspace: &Workspace) -> Command {
    command_with(root, workspace, &["vault"])
}

/// The same, with these features as far as it has them.
pub(crate) fn command_with(root: &Path, workspace: &Workspace, features: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root);
    command.args(["run", "--quiet", "--release", "--package", "vault-bench"]);
    let runner = workspace.member("vault-bench");
    for feature in features {
        if runner.is_some_and(|runner| runner.features.iter().any(|known| known == feature)) {
            command.args(["--features", feature]);
        }
    }
    command.arg("--");
    command
}

/// Fills in what a `run` leaves open. Other commands of the runner are passed on as they are.
fn complete(arguments: &[String]) -> Vec<String> {
    let options = match arguments {
        [command, options @ ..] if command == "run" => options,
        [first, ..] if !first.starts_with("--") || first == "--help" => return arguments.to_vec(),
        options => options,
    };
    let mut complete = vec!["run".to_owned()];
    for (option, value) in STANDARD {
        let assigned = format!("{option}=");
        let given = |argument: &String| argument == option || argument.starts_with(&assigned);
        if !options.iter().any(given) {
            complete.extend([option.to_owned(), value.to_owned()]);
        }
    }
    complete.extend_from_slice(options);
    complete
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(arguments: &str) -> String {
        let arguments: Vec<_> = arguments.split_whitespace().map(str::to_owned).collect();
        complete(&arguments).join(" ")
    }

    #[test]
    fn what_is_given_stays_and_the_rest_is_standard() {
        let all = completed("");
        assert!(
            all.starts_with("run --engine vault,fjall --workload ") && all.contains("--n 5000000")
        );
        assert_eq!(completed("run"), all);
        let some = completed("run --n 10 --engine=vault");
        assert!(
            some.ends_with("--n 10 --engine=vault") && !some.contains("5000000"),
            "{some}"
        );
        assert!(!some.contains("fjall") && some.contains("--rounds 3"));
    }

    #[test]
    fn other_commands_are_passed_on() {
        assert_eq!(completed("report results.jsonl"), "report results.jsonl");
        assert_eq!(completed("--help"), "--help");
    }
}
