//! Is the net whole? The engine is broken on purpose, in one place after the other, and the tests that claim to
//! protect that place must fail.
//!
//! Each mutant is a few lines of the source and what is put there instead ([`list`]). They are applied to a copy
//! of the repository under `target/mutants`, never to the working tree. A mutant is *caught* when a net
//! fails, does not end, or no longer compiles into one that passes; it *survives* when all of its nets pass.
//! Before the first mutant, every net must pass on the copy as it is: a net that always fails catches nothing.
//!
//! ```text
//! cargo xtask mutants                     every mutant, each until the first net that catches it
//! cargo xtask mutants --every-net         every mutant against every net it names: a table of what sees what
//! cargo xtask mutants NAME...             these only
//! cargo xtask mutants --list              what there is
//! ```

mod list;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use list::{MUTANTS, NETS};

/// A net that has not ended by then has been caught hanging.
const NET_SECONDS_MAX: u64 = 600;

/// A way to break the engine.
struct Mutant {
    name: &'static str,
    /// What goes wrong, in the terms of who is promised otherwise.
    breaks: &'static str,
    file: &'static str,
    /// What stands there, once in the file.
    find: &'static str,
    replace: &'static str,
    /// Who should notice, the likeliest first.
    nets: &'static [&'static str],
}

/// How a net took a mutant.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Passed,
    /// With what failed, as far as the output says.
    Failed(String),
    Hung,
    DoesNotCompile,
}

/// What the command line asks for.
#[derive(Debug, Default)]
struct Request {
    names: Vec<String>,
    every_net: bool,
    list: bool,
}

/// Runs the command.
pub(crate) fn run(root: &Path, arguments: &[String]) -> ExitCode {
    let request = match parse(arguments) {
        Ok(request) => request,
        Err(problem) => {
            eprintln!("{problem}\n\ncargo xtask mutants [--list] [--every-net] [NAME...]");
            return ExitCode::from(2);
        }
    };
    if request.list {
        for mutant in &MUTANTS {
            println!("{:<34} {}", mutant.name, mutant.breaks);
        }
        return ExitCode::SUCCESS;
    }
    match hunt(root, &request) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(survivors) => {
            eprintln!("{survivors} survived: the net has a hole there");
            ExitCode::FAILURE
        }
        Err(problem) => {
            eprintln!("mutants could not run: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Result<Request, String> {
    let mut request = Request::default();
    for argument in arguments {
        match argument.as_str() {
            "--list" => request.list = true,
            "--every-net" => request.every_net = true,
            name if MUTANTS.iter().any(|mutant| mutant.name == name) => {
                request.names.push(name.to_owned());
            }
            unknown => return Err(format!("no mutant is called `{unknown}`")),
        }
    }
    Ok(request)
}

/// Tries the mutants; gives how many survived.
fn hunt(root: &Path, request: &Request) -> Result<usize, String> {
    let chosen: Vec<&Mutant> = MUTANTS
        .iter()
        .filter(|mutant| request.names.is_empty() || request.names.iter().any(|n| n == mutant.name))
        .collect();
    let ground = Ground::prepare(root)?;
    let begin = Instant::now();
    let mut whole = Vec::new();
    let mut survivors = 0;
    for mutant in chosen {
        let mut caught = false;
        for &net in mutant.nets {
            if !whole.contains(&net) {
                check_whole(&ground, net)?;
                whole.push(net);
            }
            let begin = Instant::now();
            let verdict = ground.with(mutant, || ground.cast(net))?;
            show(mutant.name, net, &verdict, begin.elapsed());
            if verdict == Verdict::DoesNotCompile {
                return Err(format!("`{}` does not compile", mutant.name));
            }
            caught |= verdict != Verdict::Passed;
            if caught && !request.every_net {
                break;
            }
        }
        if !caught {
            survivors += 1;
            println!("{:<34} SURVIVED: {}", mutant.name, mutant.breaks);
        }
    }
    println!("{survivors} survivors, {} s", begin.elapsed().as_secs());
    Ok(survivors)
}

/// Checks that a net passes while nothing is broken.
fn check_whole(ground: &Ground, net: &str) -> Result<(), String> {
    let begin = Instant::now();
    let verdict = ground.cast(net)?;
    show("(nothing broken)", net, &verdict, begin.elapsed());
    match verdict {
        Verdict::Passed => Ok(()),
        _ => Err(format!(
            "`{net}` fails without a mutant, so it would catch anything; its output is in {}",
            ground.output.display()
        )),
    }
}

fn show(mutant: &str, net: &str, verdict: &Verdict, elapsed: Duration) {
    let verdict = match verdict {
        Verdict::Passed => "passes".to_owned(),
        Verdict::Failed(what) => format!("caught: {what}"),
        Verdict::Hung => "caught: does not end".to_owned(),
        Verdict::DoesNotCompile => "does not compile".to_owned(),
    };
    println!(
        "{mutant:<34} {net:<12} {:>4} s  {verdict}",
        elapsed.as_secs()
    );
}

/// The copy of the repository that is broken and mended.
struct Ground {
    tree: PathBuf,
    target: PathBuf,
    /// What the last net printed.
    output: PathBuf,
}

impl Ground {
    /// Copies what git knows of, with what was changed and not committed.
    fn prepare(root: &Path) -> Result<Self, String> {
        let ground = root.join("target/mutants");
        let (tree, target) = (ground.join("tree"), ground.join("target"));
        let listed = Command::new("git")
            .current_dir(root)
            .args([
                "ls-files",
                "-z",
                "--cached",
                "--others",
                "--exclude-standard",
            ])
            .output()
            .map_err(|e| format!("git: {e}"))?;
        if !listed.status.success() {
            return Err("`git ls-files` failed: mutants need a checkout".to_owned());
        }
        // Removed files may not linger; what is unchanged keeps its time, so that little is compiled anew.
        let names: Vec<&str> = std::str::from_utf8(&listed.stdout)
            .map_err(|e| e.to_string())?
            .split('\0')
            .filter(|name| !name.is_empty() && root.join(name).is_file())
            .collect();
        remove_others(&tree, &tree, &names)?;
        for name in names {
            copy_if_changed(&root.join(name), &tree.join(name))?;
        }
        Ok(Self {
            tree,
            target,
            output: ground.join("output.txt"),
        })
    }

    /// Breaks the copy, runs `hunt`, and mends it again, whatever came of it.
    fn with<T>(
        &self,
        mutant: &Mutant,
        hunt: impl FnOnce() -> Result<T, String>,
    ) -> Result<T, String> {
        let path = self.tree.join(mutant.file);
        let sound = read(&path)?;
        write(&path, &broken(mutant, &sound)?)?;
        let outcome = hunt();
        write(&path, &sound)?;
        outcome
    }

    /// Compiles a net, then runs it.
    fn cast(&self, net: &str) -> Result<Verdict, String> {
        let (_, arguments) = NETS
            .iter()
            .find(|(name, _)| *name == net)
            .ok_or_else(|| format!("no net is called `{net}`"))?;
        let compiling: Option<Vec<&str>> = match arguments[0] {
            "test" => Some(arguments.iter().copied().chain(["--no-run"]).collect()),
            "run" => {
                let package = arguments.iter().copied().skip(1).take_while(|a| *a != "--");
                Some(std::iter::once("build").chain(package).collect())
            }
            _ => None,
        };
        if let Some(compiling) = compiling
            && self.cargo(&compiling)? != Verdict::Passed
        {
            return Ok(Verdict::DoesNotCompile);
        }
        self.cargo(arguments)
    }

    fn cargo(&self, arguments: &[&str]) -> Result<Verdict, String> {
        let problem = |e: std::io::Error| format!("cargo {}: {e}", arguments.join(" "));
        let output = std::fs::File::create(&self.output).map_err(problem)?;
        let mut command = Command::new("cargo");
        command
            .current_dir(&self.tree)
            .env("CARGO_TARGET_DIR", &self.target)
            // Whatever is broken on purpose need not please the lints.
            .env("RUSTFLAGS", "--cap-lints=allow")
            .env("RUST_BACKTRACE", "0")
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(output.try_clone().map_err(problem)?)
            .stdout(output);
        let ended = wait(command, Duration::from_secs(NET_SECONDS_MAX)).map_err(problem)?;
        Ok(match ended {
            Some(true) => Verdict::Passed,
            Some(false) => {
                let output = std::fs::read(&self.output).map_err(problem)?;
                Verdict::Failed(what_failed(&String::from_utf8_lossy(&output)))
            }
            None => Verdict::Hung,
        })
    }
}

/// Runs a command with whatever it starts; gives whether it succeeded, or nothing where it did not end in time.
fn wait(mut command: Command, at_most: Duration) -> std::io::Result<Option<bool>> {
    // A group of its own: a test that hangs is a child of cargo, and must end with it.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn()?;
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if begin.elapsed() >= at_most {
            let group = format!("-{}", child.id());
            let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The tests that a test run's output says have failed, or its last line.
fn what_failed(output: &str) -> String {
    let failed: Vec<&str> = output
        .lines()
        .filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"))
        .collect();
    if failed.is_empty() {
        let last = output.lines().rfind(|line| !line.trim().is_empty());
        return last.unwrap_or("it printed nothing").to_owned();
    }
    failed.join(", ")
}

/// The source with the mutant in it.
fn broken(mutant: &Mutant, source: &str) -> Result<String, String> {
    match source.matches(mutant.find).count() {
        1 => Ok(source.replacen(mutant.find, mutant.replace, 1)),
        n => Err(format!(
            "`{}`: what it replaces stands {n} times in {}; the source has moved on, and the list must follow",
            mutant.name, mutant.file
        )),
    }
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

fn copy_if_changed(from: &Path, to: &Path) -> Result<(), String> {
    let problem = |e: std::io::Error| format!("{}: {e}", to.display());
    let bytes = std::fs::read(from).map_err(|e| format!("{}: {e}", from.display()))?;
    if std::fs::read(to).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    if let Some(directory) = to.parent() {
        std::fs::create_dir_all(directory).map_err(problem)?;
    }
    std::fs::write(to, bytes).map_err(problem)
}

/// Removes the files below `directory` that are not in the list.
fn remove_others(tree: &Path, directory: &Path, names: &[&str]) -> Result<(), String> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            remove_others(tree, &path, names)?;
            continue;
        }
        let kept = path
            .strip_prefix(tree)
            .is_ok_and(|name| names.iter().any(|listed| Path::new(listed) == name));
        if !kept {
            std::fs::remove_file(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The list would rot silently otherwise: a mutant whose place is gone protects nothing.
    #[test]
    fn every_mutant_finds_its_place() {
        let root = crate::repository_root();
        for mutant in &MUTANTS {
            let source = read(&root.join(mutant.file)).unwrap();
            let broken = broken(mutant, &source).unwrap();
            assert_ne!(broken, source, "{}", mutant.name);
            assert!(!mutant.nets.is_empty(), "{}", mutant.name);
            for net in mutant.nets {
                assert!(NETS.iter().any(|(name, _)| name == net), "{net}");
            }
        }
    }

    #[test]
    fn names_are_checked() {
        let parse =
            |words: &[&str]| parse(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        assert!(
            parse(&["--every-net", "stale-view"]).is_ok_and(|r| r.every_net && r.names.len() == 1)
        );
        assert!(parse(&["nonsense"]).is_err());
    }

    #[test]
    fn what_hangs_is_ended_with_its_children() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & sleep 60"]);
        assert_eq!(wait(command, Duration::from_millis(100)).unwrap(), None);
        assert_eq!(
            wait(Command::new("true"), Duration::from_secs(60)).unwrap(),
            Some(true)
        );
        assert_eq!(
            wait(Command::new("false"), Duration::from_secs(60)).unwrap(),
            Some(false)
        );
    }

    #[test]
    fn failures_are_named() {
        let output =
            "test a ... ok\ntest b::c ... FAILED\ntest d ... FAILED\n\nerror: test failed\n";
        assert_eq!(what_failed(output), "b::c, d");
        assert_eq!(what_failed("seed 7 failed\n\n"), "seed 7 failed");
    }

    #[test]
    fn a_place_that_is_gone_or_doubtful_is_refused() {
        let mutant = &MUTANTS[0];
        assert!(broken(mutant, "").is_err());
        assert!(broken(mutant, &mutant.find.repeat(2)).is_err());
    }

    #[test]
    fn the_copy_follows_the_tree() {
        let directory = std::env::temp_dir().join(format!("vault-mutants-{}", std::process::id()));
        let (from, to) = (directory.join("from"), directory.join("tree/a/b"));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(&from, "text").unwrap();
        copy_if_changed(&from, &to).unwrap();
        copy_if_changed(&from, &directory.join("tree/old")).unwrap();
        let tree = directory.join("tree");
        remove_others(&tree, &tree, &["a/b"]).unwrap();
        assert_eq!(read(&to).unwrap(), "text");
        assert!(!tree.join("old").exists());
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
