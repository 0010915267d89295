//! Runs the models of what threads share (`vault-lsm/src/models`), and shows a line for each.
//!
//! The engine's own tests are built twice, on loom and on shuttle, into a target directory apart: the
//! flags that choose the model would have everything else compiled anew each time.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// What the models run on, and what that is.
const BACKENDS: [(&str, &str); 2] = [
    ("loom", "every schedule, weak memory"),
    ("shuttle", "random schedules of the whole engine"),
];

/// What begins each line that a model prints.
const MARK: &str = "model: ";

/// Runs all models. Arguments: `--seed N` and `--schedules N` for the random ones.
pub(crate) fn run(root: &Path, arguments: &[String]) -> ExitCode {
    let variables = match variables(arguments) {
        Ok(variables) => variables,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(2);
        }
    };
    match check(root, &variables) {
        Ok(models) => {
            println!("models: {models} in all, as they must be");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            println!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Environment variables for the models.
type Variables = Vec<(&'static str, String)>;

fn variables(arguments: &[String]) -> Result<Variables, String> {
    let mut variables = Variables::new();
    for pair in arguments.chunks(2) {
        let (name, value) = match pair {
            [name, value] => (name.as_str(), value),
            _ => return Err("`models` takes `--seed N` and `--schedules N`".to_owned()),
        };
        let variable = match name {
            "--seed" => "VAULT_MODELS_SEED",
            "--schedules" => "VAULT_MODELS_SCHEDULES",
            other => return Err(format!("`models` does not know `{other}`")),
        };
        if value.parse::<u64>().is_err() {
            return Err(format!("`{name} {value}`: give a number"));
        }
        variables.push((variable, value.clone()));
    }
    Ok(variables)
}

/// Builds and runs the models of each kind. Gives how many there were.
pub(crate) fn check(root: &Path, variables: &[(&'static str, String)]) -> Result<usize, String> {
    let mut models = 0;
    for (backend, what) in BACKENDS {
        println!("{backend}: {what}");
        let built = command(root, backend).arg("--no-run").status();
        if !built.is_ok_and(|status| status.success()) {
            return Err(format!("the models for {backend} do not compile"));
        }
        let mut command = command(root, backend);
        command.args(["--", "models::", "--nocapture"]);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        let output = command
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("cargo: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let lines = lines(&text);
        lines.iter().for_each(|line| println!("  {line}"));
        if !output.status.success() {
            // What panicked, and the schedule that led there, is on the other channel.
            eprintln!("{text}\n{}", String::from_utf8_lossy(&output.stderr));
            return Err(format!("a model for {backend} failed"));
        }
        models += counted(backend, &lines)?;
    }
    Ok(models)
}

/// The tests of the engine, built for `backend`.
fn command(root: &Path, backend: &str) -> Command {
    let given = std::env::var("RUSTFLAGS").unwrap_or_default();
    let flags = format!("{given} --cfg vault_model --cfg vault_model=\"{backend}\"");
    let mut command = Command::new("cargo");
    command.current_dir(root);
    command.args(["test", "--quiet", "--package", "vault-lsm", "--lib"]);
    command.env("RUSTFLAGS", flags.trim());
    command.env("CARGO_TARGET_DIR", root.join("target/models").join(backend));
    command
}

/// The lines that models print, wherever the test runner has put them.
fn lines(text: &str) -> Vec<&str> {
    text.lines()
        .filter_map(|line| Some(line.split_once(MARK)?.1))
        .collect()
}

/// Counts models. There must be some that hold and some that are broken, else nothing was proved.
fn counted(backend: &str, lines: &[&str]) -> Result<usize, String> {
    let broken = lines
        .iter()
        .filter(|line| line.contains("fails, as it must"))
        .count();
    let hold = lines.iter().filter(|line| line.contains(", holds")).count();
    if broken == 0 || hold == 0 {
        return Err(format!(
            "{backend}: {hold} models that hold and {broken} broken ones ran; neither may be none"
        ));
    }
    Ok(lines.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_become_variables() {
        let of = |text: &str| {
            let arguments: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            variables(&arguments)
        };
        assert_eq!(of("").unwrap(), []);
        let both = of("--seed 7 --schedules 20").unwrap();
        let expected = [("VAULT_MODELS_SEED", "7"), ("VAULT_MODELS_SCHEDULES", "20")];
        assert_eq!(both, expected.map(|(name, value)| (name, value.to_owned())));
        for wrong in ["--seed", "--seed x", "--depth 3", "7"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lines_are_found_within_what_the_test_runner_prints() {
        let text = "running 2 tests\ntest a ... model: one: 3 executions, 0.1 s, holds\nok\n\
                    model: two: 1 executions, 0.1 s, fails, as it must\n";
        let found = lines(text);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(counted("loom", &found), Ok(2));
    }

    #[test]
    fn no_models_or_none_that_is_broken_is_a_failure() {
        assert!(counted("loom", &[]).is_err());
        assert!(counted("loom", &["one: 3 executions, 0.1 s, holds"]).is_err());
        assert!(counted("loom", &["one: 3 executions, 0.1 s, fails, as it must"]).is_err());
    }
}
