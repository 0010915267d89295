//! The steps, in the order in which they run: what is quick and often wrong first.

use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Outcome::{self, Failed, Passed, Skipped};
use super::command::{answers, built_for_once, cargo, cargo_command, run_command, run_for};
use super::{Context, Step};
use crate::Findings;
use crate::workspace::Package;
use crate::{bench, fuzz, instructions, layers, models, sanitize, sim, tidy};

/// The quickstart ends well within this on any machine that can build it.
const QUICKSTART_SECONDS_MAX: u64 = 60;
/// Simulations that are the same each time, and others.
const SEEDS_FIXED: &[&str] = &["--seeds", "50", "--from", "1"];
const SEEDS_FRESH: &[&str] = &["--seeds", "200"];

pub(super) const STEPS: [Step; 20] = [
    ("format", format),
    ("clippy", clippy),
    ("documentation", documentation),
    ("features", features),
    ("providers", providers),
    ("stores of objects", object_stores),
    ("tidy", |context| report(tidy::run(context.root))),
    ("layers", |context| report(layers::run(context.root))),
    ("cargo deny", deny),
    ("quickstart", quickstart),
    ("examples", examples),
    ("sweeps", sweeps),
    ("secrecy", secrecy),
    ("models", models),
    ("sanitizers", sanitizers),
    ("simulations", simulations),
    ("fuzzing", fuzzing),
    ("benchmark", benchmark),
    ("criterion", criterion),
    ("instructions", instructions),
];

fn format(context: &Context<'_>) -> Outcome {
    cargo(context, &["fmt", "--all", "--check"])
}

fn clippy(context: &Context<'_>) -> Outcome {
    cargo(
        context,
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--",
            "-D",
            "warnings",
        ],
    )
}

fn documentation(context: &Context<'_>) -> Outcome {
    let mut command = cargo_command(context.root);
    command.args(["doc", "--workspace", "--no-deps", "--all-features"]);
    run_command(command.env("RUSTDOCFLAGS", "-D warnings"))
}

/// Checks each crate alone: without its default features, with each feature by itself, and with all.
/// Checked together, crates would lend each other the features of what they share.
fn features(context: &Context<'_>) -> Outcome {
    for package in context.workspace.ours() {
        for combination in combinations(package) {
            let mut arguments = vec!["check", "--quiet", "--package", &package.name];
            arguments.extend(combination.split(' '));
            println!("cargo {}", arguments.join(" "));
            let outcome = cargo(context, &arguments);
            if outcome != Passed {
                return Failed(format!("{} {combination}", package.name));
            }
        }
    }
    Passed
}

/// The tests of ciphers with the provider that needs a C compiler, which nothing else builds, and as what people run: what is
/// left on a stack depends on how well the compiler did.
fn providers(context: &Context<'_>) -> Outcome {
    let arguments = ["test", "--release", "--package", "vault-crypto"];
    cargo(context, &[&arguments[..], &["--features", "ring"]].concat())
}

/// Snapshots in stores of objects, one in memory and a server of S3 where there can be one: nothing else asks for that feature.
fn object_stores(context: &Context<'_>) -> Outcome {
    let arguments = [
        "test",
        "--package",
        "vault-snapshot",
        "--features",
        "object-store-tests",
    ];
    let tests = ["--test", "object_stores", "--test", "object_store_server"];
    cargo(context, &[&arguments[..], &tests[..]].concat())
}

fn combinations(package: &Package) -> Vec<String> {
    let mut combinations = vec!["--no-default-features".to_owned()];
    let features = package.features.iter().filter(|name| *name != "default");
    combinations.extend(features.map(|name| format!("--no-default-features --features {name}")));
    if package.features.len() > 1 {
        combinations.push("--all-features".to_owned());
    }
    combinations
}

fn report(findings: Result<Findings, String>) -> Outcome {
    let findings = match findings {
        Ok(findings) => findings,
        Err(problem) => return Failed(problem),
    };
    for note in &findings.notes {
        println!("{note}");
    }
    for problem in &findings.problems {
        println!("error: {problem}");
    }
    match findings.problems.len() {
        0 => Passed,
        n => Failed(format!("{n} to mend")),
    }
}

fn deny(context: &Context<'_>) -> Outcome {
    if !answers(context.root, &["deny", "--version"]) {
        return Skipped(
            "cargo-deny is not installed; `layers` checked deny.toml's lists".to_owned(),
        );
    }
    cargo(context, &["deny", "--all-features", "check"])
}

/// Builds the quickstart, then runs it against the clock: it must end, and pass its own checks.
fn quickstart(context: &Context<'_>) -> Outcome {
    // As the README has it, both times: with another choice of packages cargo would choose other features, and build again.
    const EXAMPLE: [&str; 3] = ["--release", "--example", "quickstart"];
    let built = cargo(context, &[&["build"], &EXAMPLE[..]].concat());
    if built != Passed {
        return built;
    }
    let mut command = cargo_command(context.root);
    command.args(["run", "--quiet"]).args(EXAMPLE);
    run_for(&mut command, Duration::from_secs(QUICKSTART_SECONDS_MAX))
}

/// Runs the other examples, each against the clock.
fn examples(context: &Context<'_>) -> Outcome {
    const OTHERS: [&str; 8] = [
        "configuration",
        "sessions",
        "counters",
        "api_keys",
        "multi_tenant",
        "cache",
        "nightly_snapshots",
        "agent_memory",
    ];
    let built = cargo(
        context,
        &["build", "--release", "--package", "vault-db", "--examples"],
    );
    if built != Passed {
        return built;
    }
    for example in OTHERS {
        let mut command = cargo_command(context.root);
        command.args([
            "run",
            "--quiet",
            "--release",
            "--package",
            "vault-db",
            "--example",
            example,
        ]);
        let ran = run_for(&mut command, Duration::from_secs(QUICKSTART_SECONDS_MAX));
        if ran != Passed {
            return ran;
        }
    }
    Passed
}

/// The tests visit a slice of the operations at which power is lost, files fail and bytes are damaged; here it
/// is every fourth one, in release mode; which, by the clock.
fn sweeps(context: &Context<'_>) -> Outcome {
    let arguments = ["test", "--release", "--package", "vault-lsm"];
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let part = format!("{}/4", now.map_or(0, |now| now.as_secs() % 4));
    println!("VAULT_SWEEP={part}, and all of the faults and golden stores");
    for (tests, extent) in [
        (&["crash", "damage"][..], part.as_str()),
        (&["faults", "golden"], "full"),
    ] {
        let mut command = cargo_command(context.root);
        command.args(arguments);
        tests.iter().for_each(|test| {
            command.args(["--test", test]);
        });
        command.args(["--", "--nocapture"]);
        let swept = run_command(command.env("VAULT_SWEEP", extent));
        if swept != Passed {
            return swept;
        }
    }
    // The data layer's are short enough to visit everything.
    let of_data = [
        "--test",
        "crash",
        "--test",
        "migrating",
        "--test",
        "histories",
        "--test",
        "tenants",
    ];
    cargo(
        context,
        &[
            &["test", "--release", "--package", "vault-db"],
            &of_data[..],
        ]
        .concat(),
    )
}

/// In release mode, with every provider of the ciphers: attacks on the files of encrypted stores and the sweeps in
/// encrypted stores, a slice of each; memory looked through for keys, and files for what was written.
fn secrecy(context: &Context<'_>) -> Outcome {
    let attacks = ["test", "--release", "--package", "vault-lsm"];
    let tests = ["tampering", "rollback"].map(|test| ["--test", test]);
    let shown = [&attacks[..], &tests.concat(), &["--", "--nocapture"]].concat();
    let attacked = cargo(context, &shown);
    if attacked != Passed {
        return attacked;
    }
    let engine = ["encrypted", "encrypted_with_aes"].map(|test| ["--test", test]);
    let swept = cargo(context, &[&attacks[..], &engine.concat()].concat());
    if swept != Passed {
        return swept;
    }
    let surface = ["key_material", "canary"].map(|test| ["--test", test]);
    let with_ring = [
        "test",
        "--release",
        "--package",
        "vault-db",
        "--features",
        "ring",
    ];
    cargo(context, &[&with_ring[..], &surface.concat()].concat())
}

/// Loom and shuttle over what threads share.
fn models(context: &Context<'_>) -> Outcome {
    let checked = models::check(context.root, &[]);
    built_for_once(&context.root.join("target/models"));
    match checked {
        Ok(_) => Passed,
        Err(problem) => Failed(problem),
    }
}

/// One sanitizer of `cargo xtask sanitize`, the quickest: the tests of the parts with `unsafe`.
fn sanitizers(context: &Context<'_>) -> Outcome {
    let checked = sanitize::check(context.root, "address");
    built_for_once(&context.root.join("target/sanitize"));
    match checked {
        sanitize::Outcome::Clean => Passed,
        sanitize::Outcome::Missing(what) => Skipped(what),
        sanitize::Outcome::Found(what) => Failed(what),
    }
}

/// The tests of the simulations, in release mode for breadth, then seeds that never change and seeds that
/// are others each time.
fn simulations(context: &Context<'_>) -> Outcome {
    if context.workspace.member("vault-sim").is_none() {
        return Skipped("there is no vault-sim yet".to_owned());
    }
    let tested = cargo(context, &["test", "--release", "--package", "vault-sim"]);
    if tested != Passed {
        return tested;
    }
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    // Where the fresh ones begin follows from the time; it is printed, and so is the seed of a failure.
    for seeds in [SEEDS_FIXED, SEEDS_FRESH] {
        let mut command = sim::command(context.root, "run");
        command.args(seeds).args(["--jobs", &jobs.to_string()]);
        let outcome = run_command(&mut command);
        if outcome != Passed {
            return outcome;
        }
    }
    Passed
}

/// Replaying the corpora is a test on stable; here each target looks for something new.
fn fuzzing(context: &Context<'_>) -> Outcome {
    if let Err(reason) = fuzz::ready(context.root) {
        return Skipped(reason);
    }
    let looked = fuzz::smoke(context.root);
    built_for_once(&context.root.join("fuzz/target"));
    match looked {
        Ok(()) => Passed,
        Err(problem) => Failed(problem),
    }
}

/// A short run of the workloads, for their being there and not for their figures.
fn benchmark(context: &Context<'_>) -> Outcome {
    let is_binary = |package: &Package| package.targets.iter().any(|(kind, _)| kind == "bin");
    if !context
        .workspace
        .member("vault-bench")
        .is_some_and(is_binary)
    {
        return Skipped("vault-bench has no command line yet".to_owned());
    }
    let out = std::env::temp_dir().join(format!("vault-ci-{}.jsonl", std::process::id()));
    let mut command = bench::command(context.root, &context.workspace);
    command.args([
        "run",
        "--engine",
        "vault",
        "--workload",
        "fillrandom,readrandom",
    ]);
    command
        .args(["--n", "20000", "--rounds", "1", "--out"])
        .arg(&out);
    let outcome = run_command(&mut command);
    let written = std::fs::metadata(&out).is_ok_and(|file| file.len() > 0);
    let _ = std::fs::remove_file(&out);
    match outcome {
        Passed if !written => Failed("it wrote no results".to_owned()),
        Passed => report_of_a_few_entries(context),
        outcome => outcome,
    }
}

/// The report, of so few entries that it takes seconds, without rivals. It must be drawn, and be drawn again.
fn report_of_a_few_entries(context: &Context<'_>) -> Outcome {
    let out = std::env::temp_dir().join(format!("vault-ci-report-{}", std::process::id()));
    let report = |arguments: &[&str]| {
        let mut command = bench::command(context.root, &context.workspace);
        command
            .args(["bench-report", "--out"])
            .arg(&out)
            .args(arguments);
        run_command(command.stdin(Stdio::null()))
    };
    let (from, mut outcome) = (out.join("results.jsonl"), Passed);
    let small = [
        "--quick", "--rivals", "none", "--n", "20000", "--rounds", "2",
    ];
    for arguments in [&small[..], &["--from", &from.to_string_lossy()]] {
        let _ = std::fs::remove_file(out.join("report.html"));
        outcome = report(arguments);
        if outcome != Passed {
            break;
        }
        if !std::fs::read_to_string(out.join("report.html")).is_ok_and(|page| page.contains("<svg"))
        {
            outcome = Failed("it drew no report".to_owned());
            break;
        }
    }
    let _ = std::fs::remove_dir_all(&out);
    outcome
}

/// Runs each micro-benchmark once, as a test, so that they don't rot.
fn criterion(context: &Context<'_>) -> Outcome {
    let mut ran = false;
    for package in context.workspace.ours() {
        for (_, name) in package.targets.iter().filter(|(kind, _)| kind == "bench") {
            ran = true;
            let arguments = [
                "bench",
                "--package",
                &package.name,
                "--bench",
                name,
                "--",
                "--test",
            ];
            let outcome = cargo(context, &arguments);
            if outcome != Passed {
                return outcome;
            }
        }
    }
    if ran {
        return Passed;
    }
    Skipped("no crate has micro-benchmarks yet".to_owned())
}

/// Counts the instructions of each part, and holds them against the table of what they should be.
fn instructions(context: &Context<'_>) -> Outcome {
    match instructions::check(context.root) {
        Ok(instructions::Outcome::Compared(findings)) => report(Ok(findings)),
        Ok(instructions::Outcome::Incomparable(reason)) => Skipped(reason),
        Err(problem) => Failed(problem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feature_combinations_cover_none_each_and_all() {
        let mut package = Package::default();
        assert_eq!(combinations(&package), ["--no-default-features"]);
        package.features = ["default", "a"].map(str::to_owned).to_vec();
        assert_eq!(
            combinations(&package),
            [
                "--no-default-features",
                "--no-default-features --features a",
                "--all-features"
            ]
        );
    }

    #[test]
    fn findings_decide_the_outcome() {
        let mut findings = Findings::default();
        findings.note("noted");
        assert_eq!(report(Ok(findings)), Passed);
        let mut findings = Findings::default();
        findings.problem("wrong");
        assert_eq!(report(Ok(findings)), Failed("1 to mend".to_owned()));
        assert!(matches!(report(Err("broken".to_owned())), Failed(_)));
    }
}
