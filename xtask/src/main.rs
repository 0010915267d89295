//! The developer's commands: `cargo xtask help` lists them.
//!
//! Each command is a module that decides on plain data and is tested on synthetic trees; only this file
//! and [`ci`] touch processes. Exit codes: 0 all is well, 1 a check failed, 2 the command line is wrong.

#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a developer's tool: it prints, and works on the real files of the repository"
)]

mod bench;
mod bench_report;
mod ci;
mod fuzz;
mod golden;
mod instructions;
mod json;
mod layers;
mod memory;
mod models;
mod mutants;
mod sanitize;
mod sim;
mod source;
mod supply;
mod tidy;
mod workspace;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const COMMANDS: &str = "\
cargo xtask <command>

  ci       everything that must hold before a change lands, with a table at the end
  tidy     what the compiler does not see: module docs, dead files, banned idioms, links, decisions
  layers   who may depend on whom, what dependencies may cost, their licences and versions
  golden   make NAME|all: stores of the format as it is now, for the tests of later versions
  fuzz     the fuzz targets: list, run, all, smoke, repro, cmin, seeds
  models   what threads share, on every schedule: [--seed N] [--schedules N] for the random ones
  sanitize the parts with unsafe under a sanitizer: [address|thread|miri|all]
  bench    the workload runner with the repository's settings; arguments are passed on
  bench-report  Vault and its rivals in turn, with a report: --quick, --rivals a,b, --compare REV, ... (--help tells all)
  instructions  what each part executes, against the table of it: [--write] [PART...]
  mutants  breaks the engine on purpose and shows that the tests notice; --list tells how
  sim      simulations: --seed N [--trace], --seeds N [--from N], --minutes M, --jobs J, --shrink, --encrypted yes|no|either
  memory   2 GiB under memory budgets of 64, 128 and 512 MiB: the peak of each phase
  soak     many threads on a real disk: --minutes M, --threads N, --dir PATH, --seed N, --encrypted
  help     this list";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next();
    let rest: Vec<String> = arguments.collect();
    let root = repository_root();
    match (command.as_deref(), rest.as_slice()) {
        (Some("ci"), []) => ci::run(&root),
        (Some("tidy"), []) => finish("tidy", tidy::run(&root)),
        (Some("layers"), []) => finish("layers", layers::run(&root)),
        (Some("golden"), [verb, name]) if verb == "make" => golden::make(&root, name),
        (Some("fuzz"), rest) => fuzz::run(&root, rest),
        (Some("models"), rest) => models::run(&root, rest),
        (Some("sanitize"), rest) => sanitize::run(&root, rest),
        (Some("bench"), rest) => bench::run(&root, rest),
        (Some("bench-report"), rest) => bench_report::run(&root, rest),
        (Some("instructions"), rest) => instructions::run(&root, rest),
        (Some("mutants"), rest) => mutants::run(&root, rest),
        (Some("sim"), rest) => sim::run(&root, "run", rest),
        (Some("memory"), []) => memory::run(&root),
        (Some("soak"), rest) => sim::run(&root, "soak", rest),
        (Some("help" | "--help" | "-h"), _) => {
            println!("{COMMANDS}");
            ExitCode::SUCCESS
        }
        (None, _) => {
            eprintln!("which command?\n\n{COMMANDS}");
            ExitCode::from(2)
        }
        (Some(command @ ("ci" | "tidy" | "layers" | "memory")), _) => {
            eprintln!("`{command}` takes no arguments\n\n{COMMANDS}");
            ExitCode::from(2)
        }
        (Some("golden"), _) => {
            eprintln!("`golden` is called as `cargo xtask golden make NAME|all`");
            ExitCode::from(2)
        }
        (Some(unknown), _) => {
            eprintln!("unknown command `{unknown}`\n\n{COMMANDS}");
            ExitCode::from(2)
        }
    }
}

/// What a check found: lines to show in any case, and problems that make it fail.
#[derive(Debug, Default)]
struct Findings {
    notes: Vec<String>,
    problems: Vec<String>,
}

impl Findings {
    fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    fn problem(&mut self, problem: impl Into<String>) {
        self.problems.push(problem.into());
    }

    fn merge(&mut self, other: Self) {
        self.notes.extend(other.notes);
        self.problems.extend(other.problems);
    }
}

fn finish(check: &str, outcome: Result<Findings, String>) -> ExitCode {
    let findings = match outcome {
        Ok(findings) => findings,
        Err(problem) => {
            eprintln!("{check} could not run: {problem}");
            return ExitCode::FAILURE;
        }
    };
    for note in &findings.notes {
        println!("{note}");
    }
    for problem in &findings.problems {
        println!("error: {problem}");
    }
    match findings.problems.len() {
        0 => {
            println!("{check}: nothing to complain about");
            ExitCode::SUCCESS
        }
        n => {
            println!("{check}: {n} to mend");
            ExitCode::FAILURE
        }
    }
}

/// The repository this tool was built from.
fn repository_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the repository's root")
        .to_path_buf()
}
