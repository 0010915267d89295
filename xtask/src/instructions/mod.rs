//! Counts the instructions of each part of the engine under callgrind, and holds them against a table.
//!
//! Times swing with the machine; how many instructions an operation takes repeats almost to the last one. Each part is
//! set up and run in a process of its own (`vault-bench/examples/instructions.rs`), of which callgrind counts one function
//! alone, so that set-up and warm-up cost nothing. What is expected stands in [`table::PATH`], together with the compiler,
//! C library, processor features and valgrind that it was counted with.

mod table;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::json::Json;
use crate::{Findings, finish};
use table::{Count, Counts};

/// The program that runs one part.
const PACKAGE: &str = "vault-bench";
const EXAMPLE: &str = "instructions";
/// The function of it that is counted, as callgrind shows it.
const COUNTED: &str = "*counted_operations*";
/// Where the parts have their files, from the root of the repository.
const DIRECTORY: &str = "target/instructions";

/// How a comparison ended.
pub(crate) enum Outcome {
    /// There was something to compare with.
    Compared(Findings),
    /// There was not: why.
    Incomparable(String),
}

/// What the command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Request {
    write: bool,
    /// Parts, or beginnings of their names; none: all.
    parts: Vec<String>,
}

/// `cargo xtask instructions [--write] [PART...]`
pub(crate) fn run(root: &Path, arguments: &[String]) -> ExitCode {
    let request = match Request::parse(arguments) {
        Ok(request) => request,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(2);
        }
    };
    let begin = Instant::now();
    let outcome = count(root, &request).and_then(|(counted, whole)| {
        if request.write {
            return write(root, &counted, whole);
        }
        compare(root, &counted, whole)
    });
    println!("counted in {:.1} s", begin.elapsed().as_secs_f64());
    finish(
        "instructions",
        outcome.and_then(|outcome| match outcome {
            Outcome::Compared(findings) => Ok(findings),
            Outcome::Incomparable(reason) => Err(reason),
        }),
    )
}

/// Counts all parts and compares them with the table.
pub(crate) fn check(root: &Path) -> Result<Outcome, String> {
    if valgrind().is_none() {
        let reason = "there is no valgrind to count with; `apt-get install valgrind` brings it";
        return Ok(Outcome::Incomparable(reason.to_owned()));
    }
    let (counted, whole) = count(root, &Request::default())?;
    compare(root, &counted, whole)
}

impl Request {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut request = Self::default();
        for argument in arguments {
            match argument.as_str() {
                "--write" => request.write = true,
                option if option.starts_with('-') => {
                    return Err(format!(
                        "there is no option `{option}`; call `cargo xtask instructions [--write] [PART...]`"
                    ));
                }
                part => request.parts.push(part.to_owned()),
            }
        }
        Ok(request)
    }

    /// Those of the parts that are asked for. A name is that of a part, or of a component with all of its parts.
    fn choose(&self, all: &[String]) -> Result<Vec<String>, String> {
        let asks = |asked: &str, name: &str| {
            let rest = name.strip_prefix(asked);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        for asked in &self.parts {
            if !all.iter().any(|name| asks(asked, name)) {
                return Err(format!(
                    "there is no part `{asked}`; there are: {}",
                    all.join(", ")
                ));
            }
        }
        let chosen = all.iter().filter(|name| {
            self.parts.is_empty() || self.parts.iter().any(|asked| asks(asked, name))
        });
        Ok(chosen.cloned().collect())
    }
}

/// Counts what is asked for. Also says whether that is all there is.
fn count(root: &Path, request: &Request) -> Result<(Counts, bool), String> {
    let valgrind =
        valgrind().ok_or("there is no valgrind; `apt-get install valgrind` brings it")?;
    let program = build(root)?;
    let listed = output(Command::new(&program).arg("--list"))?;
    let all: Vec<String> = listed.lines().map(str::to_owned).collect();
    let chosen = request.choose(&all)?;
    let compiler = output(Command::new("rustc").current_dir(root).arg("--version"))?;
    let library = output(Command::new("getconf").arg("GNU_LIBC_VERSION"));
    let mut processor = String::new();
    let mut parts = Vec::new();
    for (name, counted) in chosen.iter().zip(count_each(root, &program, &chosen)) {
        let counted = counted.map_err(|problem| format!("{name}: {problem}"))?;
        parts.push((name.clone(), counted.count));
        processor = counted.processor;
    }
    let settings = [
        ("compiler", compiler.trim()),
        ("C library", library.as_deref().map_or("another", str::trim)),
        ("processor", &processor),
        ("valgrind", &valgrind),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let counts = Counts {
        settings: settings.to_vec(),
        parts,
    };
    Ok((counts, chosen.len() == all.len()))
}

fn compare(root: &Path, counted: &Counts, whole: bool) -> Result<Outcome, String> {
    let expected = Counts::parse(&read(&root.join(table::PATH))?)?;
    let differences = expected.differences(counted);
    if differences.is_empty() {
        return Ok(Outcome::Compared(expected.compare(counted, whole)));
    }
    // Shown all the same: whoever renews the table wants to know.
    for (name, count) in &counted.parts {
        println!("{name:<28} {count:>10}");
    }
    Ok(Outcome::Incomparable(format!(
        "what is counted here cannot be held against {}; {}",
        table::PATH,
        differences.join("; ")
    )))
}

/// Writes the table: anew where everything was counted, else only the lines of what was.
fn write(root: &Path, counted: &Counts, whole: bool) -> Result<Outcome, String> {
    let path = root.join(table::PATH);
    let counts = if whole {
        counted.clone()
    } else {
        let mut counts = Counts::parse(&read(&path)?)?;
        let differences = counts.differences(counted);
        if !differences.is_empty() {
            return Err(format!(
                "single lines cannot be renewed here ({}); write the whole table: `cargo xtask instructions --write`",
                differences.join("; ")
            ));
        }
        counts.renew(counted);
        counts
    };
    let directory = path.parent().expect("the table lies in a directory");
    std::fs::create_dir_all(directory)
        .and_then(|()| std::fs::write(&path, counts.render()))
        .map_err(|error| format!("cannot write {}: {error}", table::PATH))?;
    let mut findings = Findings::default();
    for (name, count) in &counted.parts {
        findings.note(format!("{name:<28} {count:>10}"));
    }
    findings.note(format!("written to {}", table::PATH));
    Ok(Outcome::Compared(findings))
}

/// The version of valgrind, if it is there.
fn valgrind() -> Option<String> {
    let version = output(Command::new("valgrind").arg("--version")).ok()?;
    Some(version.trim().to_owned())
}

/// Builds the program that runs the parts, as it is shipped, and gives its path.
fn build(root: &Path) -> Result<PathBuf, String> {
    let mut command = Command::new("cargo");
    command.current_dir(root).stderr(Stdio::inherit());
    command.args([
        "build",
        "--release",
        "--package",
        PACKAGE,
        "--example",
        EXAMPLE,
    ]);
    command.arg("--message-format=json-render-diagnostics");
    let messages = output(&mut command)?;
    executable(&messages).ok_or_else(|| format!("cargo did not say where `{EXAMPLE}` is"))
}

/// Where the example is, as cargo says it among other messages.
fn executable(messages: &str) -> Option<PathBuf> {
    messages.lines().find_map(|line| {
        let message = Json::parse(line).ok()?;
        let of_example = message.get("target").get("name").text() == Some(EXAMPLE);
        let executable = message.get("executable").text().filter(|_| of_example)?;
        Some(PathBuf::from(executable))
    })
}

/// What was counted of one part.
struct Counted {
    count: Count,
    processor: String,
}

/// Counts parts, as many at a time as there are processors.
fn count_each(root: &Path, program: &Path, names: &[String]) -> Vec<Result<Counted, String>> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let counted: Vec<_> = names.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(names.len()) {
            scope.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = count_part(root, program, name);
                    let at = names.iter().position(|n| n == name);
                    let place = &counted[at.expect("it is one of the names")];
                    *place.lock().expect("no other thread has this place") = Some(outcome);
                }
            });
        }
    });
    let done = counted.into_iter().map(|place| {
        let outcome = place.into_inner().expect("no thread panicked");
        outcome.expect("every part was counted")
    });
    done.collect()
}

/// Runs one part under callgrind, in a directory of its own.
fn count_part(root: &Path, program: &Path, name: &str) -> Result<Counted, String> {
    let place = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let directory = root.join(DIRECTORY).join(place);
    let files = directory.join("files");
    // What an earlier run left behind, if there was one.
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&files)
        .map_err(|error| format!("cannot make {}: {error}", files.display()))?;
    let out = directory.join("callgrind.out");
    let mut command = Command::new("valgrind");
    // The environment lies on the stack, and so decides where everything else does.
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.args(["--quiet", "--tool=callgrind"]);
    command.arg(format!("--toggle-collect={COUNTED}"));
    command.arg(format!("--callgrind-out-file={}", out.display()));
    let said = output(command.arg(program).arg(name).arg(&files))?;
    let profile = read(&out)?;
    let count = of_run(&said, &profile)?;
    std::fs::remove_dir_all(&directory)
        .map_err(|error| format!("cannot remove {}: {error}", directory.display()))?;
    let processor = field(&said, "processor ").unwrap_or("unknown");
    Ok(Counted {
        count,
        processor: processor.to_owned(),
    })
}

/// What a run comes to, from what the program printed and what callgrind wrote.
fn of_run(said: &str, profile: &str) -> Result<Count, String> {
    let operations = field(said, "operations ").and_then(|number| number.parse().ok());
    let instructions = field(profile, "totals: ").and_then(|number| number.parse().ok());
    let count = operations
        .zip(instructions)
        .and_then(|(operations, instructions)| Count::of(instructions, operations));
    match count {
        Some(Count(0)) => Err(format!(
            "callgrind counted nothing: is `{COUNTED}` inlined?"
        )),
        Some(count) => Ok(count),
        None => Err("neither the program nor callgrind said how much there was".to_owned()),
    }
}

/// The rest of the first line that begins so.
fn field<'a>(text: &'a str, begin: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(begin))
        .map(str::trim)
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// What a command prints; an error unless it ends well.
fn output(command: &mut Command) -> Result<String, String> {
    let shown = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("cannot start `{shown}`: {error}"))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(printed);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "`{shown}` failed: {}\n{printed}{errors}",
        output.status
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(arguments: &str) -> Result<Request, String> {
        let arguments: Vec<_> = arguments.split_whitespace().map(str::to_owned).collect();
        Request::parse(&arguments)
    }

    #[test]
    fn parts_are_chosen_by_name_or_component() {
        let all = ["log/append", "block/encode", "block/decode"].map(str::to_owned);
        let choose = |arguments| request(arguments).unwrap().choose(&all);
        assert_eq!(choose("").unwrap(), all);
        assert_eq!(choose("block").unwrap(), all[1..]);
        assert_eq!(
            choose("--write block/decode log").unwrap(),
            ["log/append", "block/decode"]
        );
        let problem = choose("blo").unwrap_err();
        assert!(problem.contains("`blo`") && problem.contains("log/append, block/encode"));
        assert!(request("--write").unwrap().write && !request("block").unwrap().write);
        assert!(
            request("--wirte")
                .unwrap_err()
                .contains("[--write] [PART...]")
        );
    }

    #[test]
    fn a_run_without_counts_is_an_error() {
        let said = "operations 1000\nprocessor x86_64 aes\n";
        let profile = "events: Ir\nsummary: 5\ntotals: 123450\n";
        assert_eq!(of_run(said, profile), Ok(Count(1235)));
        assert!(of_run(said, "totals: 0\n").unwrap_err().contains("nothing"));
        assert!(of_run(said, "events: Ir\n").is_err());
        assert!(of_run("", profile).is_err() && of_run("operations 0\n", profile).is_err());
    }

    #[test]
    fn the_program_is_where_cargo_says() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"vault_lsm"},"executable":null}
not json
{"reason":"compiler-artifact","target":{"name":"instructions"},"executable":"/x/instructions"}"#;
        assert_eq!(executable(messages), Some("/x/instructions".into()));
        assert_eq!(executable(""), None);
    }

    #[test]
    fn commands_that_fail_say_so() {
        assert!(
            output(&mut Command::new("no-such-program-here"))
                .unwrap_err()
                .contains("cannot start")
        );
        assert!(
            output(&mut Command::new("false"))
                .unwrap_err()
                .contains("`false` failed")
        );
    }
}
