//! Builds what a run needs: the rivals' workers, and the benchmark of another revision.
//!
//! Both are cargo's work, with its messages shown. A rival has a binary of its own in the rivals' package. Another
//! revision is checked out into a temporary worktree, always at the same path and with a target directory that stays, so
//! that only what differs is compiled the next time.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::engines::Rival;
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::measure;
use crate::results::Compared;

/// Builds a rival's worker, showing cargo's progress, and gives the path of its binary. With a directory of binaries that
/// are there already, looks it up instead.
///
/// It is built for this very processor: RocksDB chooses its checksums and filters when it is compiled, and without being
/// told takes those that any processor has.
///
/// # Errors
/// [`Error::RivalNotBuilt`].
pub fn rival(
    rival: &'static Rival,
    built: Option<&Path>,
    interrupt: &Interrupt,
) -> Result<PathBuf> {
    let Rival { name, takes, .. } = rival;
    let failed = |why: String| Error::RivalNotBuilt {
        rival: name,
        why,
        takes,
    };
    if let Some(built) = built {
        let binary = built.join(name);
        if measure::exists(&binary) {
            return Ok(binary);
        }
        return Err(failed(format!("there is no {}", binary.display())));
    }
    measure::say(&format!(
        "building {name} (the first time it takes {takes})"
    ));
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("rivals/Cargo.toml");
    let mut command = cargo();
    command
        .args([
            "build",
            "--release",
            "--locked",
            "--bin",
            name,
            "--features",
            name,
        ])
        .arg("--manifest-path")
        .arg(&manifest)
        .env("RUSTFLAGS", "-Ctarget-cpu=native");
    build(command, interrupt).map_err(|error| match error {
        Problem::Interrupted => Error::Interrupted,
        Problem::Failed(why) => failed(why),
    })
}

/// Builds the benchmark of another revision in `dir`, and gives what was asked for and the path of its binary. Of
/// the features, those of this build are turned on.
///
/// # Errors
/// [`Error::RevisionNotBuilt`], [`Error::Io`].
pub fn revision(asked: &str, dir: &Path, interrupt: &Interrupt) -> Result<(Compared, PathBuf)> {
    let failed = |why: String| Error::RevisionNotBuilt {
        revision: asked.to_owned(),
        why,
    };
    let commit = git(&[
        "rev-parse",
        "--verify",
        "--quiet",
        &format!("{asked}^{{commit}}"),
    ])
    .map_err(|why| {
        failed(format!(
            "it names no commit{why}; `git log --oneline` lists those there are"
        ))
    })?;
    let compared = Compared {
        asked: asked.to_owned(),
        commit: commit.chars().take(12).collect(),
    };
    let kept = dir.join(format!("vault-bench-{}", compared.commit));
    // The same commit gives the same binary.
    if measure::exists(&kept) {
        return Ok((compared, kept));
    }
    measure::create_dir(dir)?;
    let source = std::path::absolute(dir.join("source")).map_err(|e| Error::io("find", dir, e))?;
    let place = source.to_string_lossy().into_owned();
    // What an interrupted run has left there.
    let _ = git(&["worktree", "remove", "--force", &place]);
    measure::remove_dir(&source)?;
    let _ = git(&["worktree", "prune"]);
    git(&["worktree", "add", "--detach", "--force", &place, &commit])
        .map_err(|why| failed(format!("git makes no worktree{why}")))?;
    measure::say(&format!("building revision {asked} ({})", compared.commit));
    let mut command = cargo();
    command
        .args([
            "build",
            "--release",
            "--package",
            "vault-bench",
            "--bin",
            "vault-bench",
        ])
        .current_dir(&source)
        .env("CARGO_TARGET_DIR", source.with_file_name("target"));
    if cfg!(feature = "ring") {
        command.args(["--features", "ring"]);
    }
    let built = build(command, interrupt).map_err(|problem| match problem {
        Problem::Interrupted => Error::Interrupted,
        Problem::Failed(why) => failed(why),
    });
    let kept = built.and_then(|binary| measure::copy(&binary, &kept).map(|()| kept));
    let _ = git(&["worktree", "remove", "--force", &place]);
    Ok((compared, kept?))
}

/// The revision of the sources, where git can tell.
#[must_use]
pub fn own_revision() -> Option<String> {
    let text = git(&["describe", "--always", "--dirty", "--abbrev=12"]).ok()?;
    (!text.is_empty()).then_some(text)
}

/// How the compiler names itself.
#[must_use]
pub fn compiler() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output();
    output.map_or_else(
        |_| "unknown compiler".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// What git answers, or what it complains of.
fn git(arguments: &[&str]) -> std::result::Result<String, String> {
    let output = Command::new("git")
        .args(["-C", env!("CARGO_MANIFEST_DIR")])
        .args(arguments)
        .output()
        .map_err(|e| format!(": git cannot be started: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(if told.is_empty() {
        told
    } else {
        format!(": {told}")
    })
}

enum Problem {
    Interrupted,
    Failed(String),
}

/// Runs a build and gives the last binary that cargo names: the target directory can be anywhere.
fn build(mut command: Command, interrupt: &Interrupt) -> std::result::Result<PathBuf, Problem> {
    let mut child = command
        .args(["--message-format", "json-render-diagnostics"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|e| Problem::Failed(format!("cargo cannot be started: {e}")))?;
    interrupt.watch(&child);
    let messages = child
        .stdout
        .take()
        .map_or_else(|| Ok(String::new()), std::io::read_to_string);
    interrupt.unwatch();
    let status = child.wait();
    if interrupt.happened() {
        return Err(Problem::Interrupted);
    }
    let failed = |e: std::io::Error| Problem::Failed(e.to_string());
    let (messages, status) = (messages.map_err(failed)?, status.map_err(failed)?);
    if !status.success() {
        return Err(Problem::Failed(format!(
            "cargo ended with {status}; its messages stand above"
        )));
    }
    let executable = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message.get("executable")?.as_str().map(PathBuf::from)
    };
    let found = messages.lines().filter_map(executable).next_back();
    found.ok_or_else(|| Problem::Failed("cargo names no binary".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::RIVALS;

    #[test]
    fn a_revision_that_is_none_is_told_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let error = revision("no-such-branch", dir.path(), &Interrupt::default()).unwrap_err();
        let told = error.to_string();
        assert!(matches!(error, Error::RevisionNotBuilt { .. }), "{told}");
        assert!(
            told.contains("`no-such-branch`") && told.contains("git log"),
            "{told}"
        );
    }

    #[test]
    fn a_rival_that_is_not_among_the_built_ones_is_told_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let error = rival(&RIVALS[0], Some(dir.path()), &Interrupt::default()).unwrap_err();
        let told = error.to_string();
        assert!(
            told.contains("fjall") && told.contains(&*dir.path().to_string_lossy()),
            "{told}"
        );
    }

    #[test]
    fn a_build_that_fails_says_how() {
        let failed = |command: Command| match build(command, &Interrupt::default()) {
            Err(Problem::Failed(why)) => why,
            _ => String::new(),
        };
        assert!(failed(Command::new("false")).contains("exit status: 1"));
        assert!(failed(Command::new("true")).contains("no binary"));
        assert!(failed(Command::new("no-such-program")).contains("cannot be started"));
    }
}
