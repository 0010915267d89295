//! `vault-sim run`: one seed or many.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use vault_core::clock::{Clock, SystemClock};
use vault_sim::plan::Wanted;
use vault_sim::sweep::{self, FailedSeed, Progress, Sweep};
use vault_sim::{Failure, Plan, Report, remember_panics, run_guarded, shrink};

/// Seeds of a sweep that does not say how many.
const SEEDS: u64 = 1000;

/// Simulations.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Runs this seed.
    #[arg(long, conflicts_with_all = ["seeds", "from", "minutes", "jobs"])]
    seed: Option<u64>,
    /// Runs so many seeds (1000 where neither this nor `--minutes` is given).
    #[arg(long)]
    seeds: Option<u64>,
    /// Begins with this seed; by default with one that follows from the time.
    #[arg(long)]
    from: Option<u64>,
    /// Goes on for so long.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: Option<u64>,
    /// Runs so many seeds at once.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=256))]
    jobs: u64,
    /// Goes on when a seed fails, and lists all that did.
    #[arg(long, conflicts_with = "seed")]
    keep_going: bool,
    /// Prints each operation as it is carried out, with what came of it.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Whether stores are encrypted; by default that follows from the seed.
    #[arg(long, value_enum, default_value_t)]
    encrypted: Encrypted,
    /// Looks for a shorter list of operations that fails too.
    #[arg(long)]
    shrink: bool,
}

/// Whether stores are encrypted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Encrypted {
    Yes,
    No,
    #[default]
    Either,
}

impl Arguments {
    fn wanted(&self) -> Wanted {
        match self.encrypted {
            Encrypted::Yes => Wanted::Encrypted,
            Encrypted::No => Wanted::Plain,
            Encrypted::Either => Wanted::Either,
        }
    }

    /// The command that runs one seed as this one does.
    fn replay(&self, seed: &str) -> String {
        let encrypted = match self.encrypted {
            Encrypted::Yes => " --encrypted yes",
            Encrypted::No => " --encrypted no",
            Encrypted::Either => "",
        };
        format!("cargo xtask sim --seed {seed}{encrypted}")
    }
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    remember_panics();
    match arguments.seed {
        Some(seed) => one(seed, arguments),
        None => many(arguments),
    }
}

fn one(seed: u64, arguments: &Arguments) -> ExitCode {
    let plan = Plan::from_seed_wanting(seed, arguments.wanted());
    if arguments.trace {
        print!("{}", preface(&plan));
    }
    let outcome = run_guarded(&plan, &mut |line| {
        if arguments.trace {
            println!("{line}");
        }
    });
    match outcome {
        Ok(report) => {
            print!("{report}");
            println!("seed {seed} passed; digest {}", report.digest);
            ExitCode::SUCCESS
        }
        Err(failure) => explain(seed, &failure, arguments),
    }
}

/// The plan without its operations, which the trace shows.
fn preface(plan: &Plan) -> String {
    let mut without = plan.clone();
    without.operations.clear();
    format!("{without:?}")
}

fn many(arguments: &Arguments) -> ExitCode {
    let clock = SystemClock::new();
    let sweep = Sweep {
        from: arguments.from.unwrap_or_else(|| clock.now().0 * 1000),
        seeds: match (arguments.seeds, arguments.minutes) {
            (None, None) => Some(SEEDS),
            (seeds, _) => seeds,
        },
        time: arguments
            .minutes
            .map(|minutes| Duration::from_secs(minutes * 60)),
        jobs: usize::try_from(arguments.jobs).unwrap_or(1),
        keep_going: arguments.keep_going,
        wanted: arguments.wanted(),
    };
    let from = sweep.from;
    println!("seeds from {from}");
    let terminal = std::io::stdout().is_terminal();
    let mut told = Duration::ZERO;
    let outcome = sweep::run(sweep, &mut |progress| {
        let pause = Duration::from_secs(if terminal { 1 } else { 15 });
        if progress.elapsed >= told + pause {
            told = progress.elapsed;
            tell(progress, terminal);
        }
    });
    if terminal {
        println!();
    }
    match &outcome.failed[..] {
        [] => {
            summarise(&outcome.report, arguments, from, clock.monotonic());
            ExitCode::SUCCESS
        }
        [FailedSeed { seed, failure }] => explain(*seed, failure, arguments),
        many => {
            summarise(&outcome.report, arguments, from, clock.monotonic());
            for FailedSeed { seed, failure } in many {
                println!("seed {seed} failed {failure}");
            }
            println!("{} seeds failed", many.len());
            ExitCode::FAILURE
        }
    }
}

fn tell(progress: Progress, terminal: bool) {
    let seconds = progress.elapsed.as_secs_f64();
    let rate = progress.passed as f64 / seconds;
    let line = format!(
        "{} seeds passed, {seconds:.0} s, {rate:.1} a second",
        progress.passed
    );
    if terminal {
        print!("\r{line}   ");
        let _ = std::io::stdout().flush();
    } else {
        println!("{line}");
    }
}

fn summarise(report: &Report, arguments: &Arguments, from: u64, elapsed: Duration) {
    print!("{report}");
    println!(
        "{} seeds from {from} passed, {} of plain and {} of encrypted stores: {} operations, {} ends, {} faults injected ({} operations of the \
         file system hit), {} recoveries compared, {} file operations, in {:.1} s",
        report.seeds,
        report.seeds - report.encrypted,
        report.encrypted,
        report.operations.total(),
        report.crashes.total(),
        report.faults.total(),
        report.faults_hit,
        report.recoveries,
        report.file_operations,
        elapsed.as_secs_f64(),
    );
    println!("replay one: {}", arguments.replay("N"));
}

/// Tells of a failure with all that is needed to see it again.
fn explain(seed: u64, failure: &Failure, arguments: &Arguments) -> ExitCode {
    let shrinking = arguments.shrink;
    let mut plan = Plan::from_seed_wanting(seed, arguments.wanted());
    let mut failure = failure.clone();
    let whole = plan.operations.len();
    if shrinking {
        println!("seed {seed} failed {failure}");
        println!("looking for a shorter list …");
        plan = shrink(&plan, &mut |plan| match run_guarded(plan, &mut |_| {}) {
            Ok(_) => false,
            Err(found) => {
                failure = found;
                true
            }
        });
    }
    print!("{plan:?}");
    println!("seed {seed} failed {failure}");
    if shrinking {
        println!("{} of {whole} operations are left", plan.operations.len());
    }
    println!("replay: {} --trace", arguments.replay(&seed.to_string()));
    ExitCode::FAILURE
}
