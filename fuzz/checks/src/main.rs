//! The stable half of `cargo xtask fuzz`: what needs no fuzzer.
//!
//! `list` names the targets, `repro TARGET FILE` prints an input and runs the check on it, `seeds` writes the
//! seeds into the corpora.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a developer's tool: it prints, and works on the repository's own files"
)]

use std::path::Path;
use std::process::ExitCode;

use vault_fuzz_checks::{TARGETS, seeds, target};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["list", root] => list(Path::new(root)),
        ["repro", name, file] => repro(name, Path::new(file)),
        ["seeds", root] => write_seeds(Path::new(root)),
        _ => Err("list ROOT | repro TARGET FILE | seeds ROOT".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::from(2)
        }
    }
}

/// A line for each target: name, inputs, bytes, what it covers.
fn list(root: &Path) -> Result<(), String> {
    let mut together = (0, 0);
    for target in &TARGETS {
        let (mut inputs, mut bytes) = (0, 0);
        let corpus = seeds::corpus_of(root, target.name);
        for entry in std::fs::read_dir(&corpus).into_iter().flatten().flatten() {
            inputs += 1;
            bytes += entry.metadata().map_or(0, |file| file.len());
        }
        together = (together.0 + inputs, together.1 + bytes);
        println!(
            "{:<11} {inputs:>5} inputs {:>8}  {}",
            target.name,
            size(bytes),
            target.covers
        );
    }
    println!(
        "{:<11} {:>5} inputs {:>8}",
        "together",
        together.0,
        size(together.1)
    );
    Ok(())
}

fn size(bytes: u64) -> String {
    format!("{}.{} KiB", bytes >> 10, ((bytes & 1023) * 10) >> 10)
}

fn repro(name: &str, file: &Path) -> Result<(), String> {
    let target = target(name).ok_or_else(|| format!("there is no target `{name}`"))?;
    let input = std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
    println!("{name}: {} of {} bytes", file.display(), input.len());
    // Printing may meet the very bug: the check comes second, so that its panic is the last word.
    let described = std::panic::catch_unwind(|| (target.describe)(&input));
    println!(
        "{}",
        described
            .as_deref()
            .unwrap_or("(it cannot be printed: see the panic above)")
    );
    (target.check)(&input);
    println!("everything that must hold does");
    Ok(())
}

fn write_seeds(root: &Path) -> Result<(), String> {
    let made = seeds::all().map_err(|e| format!("the store of the seeds: {e}"))?;
    for (name, inputs) in made {
        let corpus = seeds::corpus_of(root, name);
        std::fs::create_dir_all(&corpus).map_err(|e| format!("{}: {e}", corpus.display()))?;
        let mut bytes = 0;
        let count = inputs.len();
        for (file, input) in inputs {
            bytes += input.len() as u64;
            let path = corpus.join(file);
            std::fs::write(&path, input).map_err(|e| format!("{}: {e}", path.display()))?;
        }
        println!("{name:<11} {count:>5} seeds {:>8}", size(bytes));
    }
    Ok(())
}
