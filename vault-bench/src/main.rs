//! The benchmark's command line. See the library for how it measures.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use vault_bench::bench_report::{self, ReportArgs};
use vault_bench::error::{Error, Result};
use vault_bench::interrupt::Interrupt;
use vault_bench::results::{Results, Writer};
use vault_bench::runner::{self, Keeper, Request};
use vault_bench::settings::{Settings, budget_within};
use vault_bench::workload::Workload;
use vault_bench::{engines, measure, memory_group, report, timeline, worker};

/// Measures Vault and its rivals under the same workloads.
#[derive(Debug, Parser)]
#[command(name = "vault-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs workloads on engines, in turn, each engine and round in a fresh process.
    Run(Box<RunArgs>),
    /// Lists workloads and engines.
    List,
    /// Renders the tables of a results file.
    Table {
        /// A file that `run --out` has written.
        results: PathBuf,
    },
    /// Measures, and draws a report of everything (`cargo xtask bench-report`).
    BenchReport(Box<ReportArgs>),
    /// Measures what an operation pays for being sampled.
    SamplingCost,
    /// Runs a job from the standard input (what `run` starts for each engine and round).
    #[command(hide = true)]
    Worker,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Engines, separated by commas; `list` names them.
    #[arg(long, value_delimiter = ',', default_value = "vault,fjall", value_parser = known_engine)]
    engine: Vec<String>,
    /// Workloads, separated by commas, run in this order on one store; `list` names them.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "fillrandom,fillbatch,overwrite,fillsync16,readrandom,readmissing,seek10,scan,reopen"
    )]
    workload: Vec<Workload>,
    /// Entries of a full store.
    #[arg(long, default_value_t = Settings::default().n)]
    n: u64,
    /// How often each engine has its turn.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Bytes of a value.
    #[arg(long, default_value_t = Settings::default().value_bytes)]
    value_bytes: usize,
    /// Client threads.
    #[arg(long, default_value_t = Settings::default().threads)]
    threads: usize,
    /// Block cache, in MiB; 256 unless memory is limited.
    #[arg(long)]
    cache_mib: Option<u64>,
    /// Memtable size, in MiB; 64 unless memory is limited.
    #[arg(long)]
    write_buffer_mib: Option<u64>,
    /// What each worker may have of memory, page cache included (1GiB, 128MiB): it runs in a memory cgroup of its own. Cache
    /// and memtables are made to fit (half of it for all together) unless they are set.
    #[arg(long, value_parser = memory_group::parse_mib)]
    memory_limit: Option<u64>,
    /// Seconds that `queue`, `expiry` and `tails` run for, each; 0: ten minutes, two minutes, an hour.
    #[arg(long, default_value_t = 0)]
    timed_seconds: u64,
    /// Writes a second that `tails` keeps to, so that engines can be held to the same; 0: 70 % of what each could reach just before.
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Seconds that a store is waited for that is to give space back unasked.
    #[arg(long, default_value_t = Settings::default().shrink_wait_ms / 1000)]
    shrink_wait: u64,
    /// Threads for an engine's own work; 0: the engine's default (where the engine lets one choose).
    #[arg(long, default_value_t = 0)]
    background_threads: usize,
    /// What every random choice follows from.
    #[arg(long, default_value_t = Settings::default().seed)]
    seed: u64,
    /// Seconds after which a workload is cut short; 0: never.
    #[arg(long, default_value_t = 0)]
    duration_max: u64,
    /// Reads straight after writes, without waiting for compactions.
    #[arg(long)]
    no_settle: bool,
    /// Where the stores go. Not a file system in memory.
    #[arg(long, default_value = "target/vault-bench")]
    dir: PathBuf,
    /// A file to add one line of JSON to for each step, as soon as it is done.
    #[arg(long)]
    out: Option<PathBuf>,
    /// A directory with rivals' workers that are built already, named as the rivals.
    #[arg(long, value_name = "DIR")]
    rivals_built: Option<PathBuf>,
}

fn main() -> ExitCode {
    // Unknown options, engines and workloads end here with code 2 and what there is.
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let options = options_instead(&error, std::env::args().nth(1).as_deref());
            // Help goes to the standard output and ends with 0. That nobody reads it is no reason to fail.
            let _ = error.print();
            options.iter().for_each(|options| measure::say(options));
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let result = match cli.command {
        Command::Run(args) => run(*args),
        Command::List => measure::print(&list()).map(|()| ExitCode::SUCCESS),
        Command::Table { results } => table(&results).map(|()| ExitCode::SUCCESS),
        Command::BenchReport(args) => bench_report::run(&args),
        Command::SamplingCost => sampling_cost().map(|()| ExitCode::SUCCESS),
        Command::Worker => return worker::main(&engines::own()),
    };
    result.unwrap_or_else(|error| {
        measure::say(&format!("error: {error}"));
        ExitCode::from(if matches!(error, Error::Setting(_)) {
            2
        } else {
            1
        })
    })
}

/// After an unknown option: the options that its command has.
fn options_instead(error: &clap::Error, command: Option<&str>) -> Option<String> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let cli = Cli::command();
    let command = cli.find_subcommand(command?)?;
    let shown = command
        .get_arguments()
        .filter(|option| !option.is_hide_set());
    let names: Vec<_> = shown
        .filter_map(|option| option.get_long().map(|long| format!("--{long}")))
        .collect();
    Some(format!(
        "options of `{}`: {}",
        command.get_name(),
        names.join(", ")
    ))
}

fn run(args: RunArgs) -> Result<ExitCode> {
    let limit = args.memory_limit.unwrap_or(0);
    let (cache_mib, write_buffer_mib) = match limit {
        0 => (
            Settings::default().cache_mib,
            Settings::default().write_buffer_mib,
        ),
        limit => budget_within(limit),
    };
    let request = Request {
        engines: args.engine,
        other: None,
        workloads: args.workload,
        rounds: args.rounds,
        settings: Settings {
            n: args.n,
            value_bytes: args.value_bytes,
            threads: args.threads,
            cache_mib: args.cache_mib.unwrap_or(cache_mib),
            write_buffer_mib: args.write_buffer_mib.unwrap_or(write_buffer_mib),
            background_threads: args.background_threads,
            seed: args.seed,
            duration_max_s: args.duration_max,
            timed_ms: args.timed_seconds.saturating_mul(1000),
            rate: args.rate,
            shrink_wait_ms: args.shrink_wait.saturating_mul(1000),
            memory_limit_mib: limit,
        },
        settle: !args.no_settle,
        dir: args.dir,
        rivals_built: args.rivals_built,
    };
    let mut keeper = Keeper::default();
    if let Some(out) = &args.out {
        let kept = if measure::exists(out) {
            Results::read(out)?
        } else {
            Results::default()
        };
        keeper.file = Some(Writer::append(out, &kept)?);
    }
    let failures = runner::run(&request, &mut keeper, &Interrupt::default(), &mut |_| ())?;
    measure::print(&report::render(&keeper.results.records))?;
    for failure in &failures {
        measure::say(&format!("failed: {failure}"));
    }
    Ok(ExitCode::from(u8::from(!failures.is_empty())))
}

fn table(results: &std::path::Path) -> Result<()> {
    let results = Results::read(results)?;
    if results.torn.is_some() {
        measure::say("the last line is torn, and is passed over");
    }
    measure::print(&report::render(&results.records))
}

fn sampling_cost() -> Result<()> {
    const OPERATIONS: u64 = 20_000_000;
    let mut ns: Vec<f64> = (0..7)
        .map(|_| timeline::cost_of_recording_ns(OPERATIONS))
        .collect();
    ns.sort_by(f64::total_cmp);
    let (low, median, high) = (ns[0], ns[3], ns[6]);
    measure::print(&format!(
        "{median:.2} ns an operation ({low:.2} – {high:.2}), beside 500 ns and more that it takes\n"
    ))
}

fn list() -> String {
    let workloads = Workload::ALL.iter();
    let mut lines = vec!["Workloads:".to_owned()];
    lines.extend(workloads.map(|(_, name, what)| format!("  {name:<17} {what}")));
    lines.push("\nEngines:".to_owned());
    let own = engines::own();
    lines.extend(
        own.iter()
            .map(|kind| format!("  {:<17} {}", kind.name, kind.setup)),
    );
    let rivals = engines::RIVALS.iter();
    lines.extend(rivals.map(|rival| {
        let (name, what, takes) = (rival.name, rival.what, rival.takes);
        format!("  {name:<17} {what} (built when first asked for: {takes})")
    }));
    lines.join("\n") + "\n"
}

fn known_engine(name: &str) -> Result<String> {
    let own = engines::own();
    let rivals = engines::RIVALS.iter().map(|rival| rival.name);
    let known: Vec<&str> = own.iter().map(|kind| kind.name).chain(rivals).collect();
    if known.contains(&name) {
        return Ok(name.to_owned());
    }
    Err(Error::Unknown {
        kind: "engine",
        name: name.to_owned(),
        known: known.join(", "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(args: &[&str]) -> (i32, String) {
        let error = Cli::try_parse_from(["vault-bench"].iter().chain(args)).unwrap_err();
        (error.exit_code(), error.to_string())
    }

    #[test]
    fn unknown_names_are_refused_with_what_there_is() {
        let (code, text) = refused(&["run", "--engine", "fjall,level"]);
        assert!(
            code == 2 && text.contains("`level`") && text.contains("fjall"),
            "{text}"
        );
        let (code, text) = refused(&["run", "--engine", "fjall", "--workload", "scan,fill"]);
        assert!(
            code == 2 && text.contains("`fill`") && text.contains("fillseq, "),
            "{text}"
        );
        let (code, text) = refused(&["run", "--engines", "fjall"]);
        assert!(code == 2 && text.contains("--engine"), "{text}");
        assert_eq!(refused(&["runn"]).0, 2);
        assert_eq!(refused(&["run", "--engine", "fjall", "--rounds", "0"]).0, 2);
    }

    #[test]
    fn an_unknown_option_is_refused_with_those_there_are() {
        let error =
            Cli::try_parse_from(["vault-bench", "bench-report", "--rival", "x"]).unwrap_err();
        let told = options_instead(&error, Some("bench-report")).unwrap();
        for option in [
            "--quick",
            "--rivals",
            "--rounds",
            "--compare",
            "--fail-on-regression",
            "--from",
        ] {
            assert!(told.contains(option), "{told}");
        }
        assert!(!told.contains("--outliving"), "{told}");
        assert_eq!(options_instead(&error, None), None);
    }

    #[test]
    fn the_list_names_everything() {
        let text = list();
        for (_, name, _) in Workload::ALL {
            assert!(text.contains(&format!("  {name} ")), "{name}");
        }
        assert!(text.contains("  fjall "));
    }
}
