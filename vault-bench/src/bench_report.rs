//! The command behind `cargo xtask bench-report`: measures, keeps, draws, compares, publishes.
//!
//! 1. What is asked for is put together and checked: settings, disk, what `--resume` finds kept.
//! 2. What is to be compared with is built, then the rivals; one that cannot be built is told, and the rest goes on.
//! 3. The turns are taken ([`crate::runner`]); after each the report is drawn anew, so that it is there whenever the run
//!    ends, however it ends ([`crate::interrupt`]).
//! 4. The comparison is judged, where there is one.
//!
//! `results.jsonl` in the report's directory is what everything is drawn from. An earlier one is kept under another name.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use vault_core::clock::SystemClock;

use crate::engines;
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::measure::{self, Machine};
use crate::results::{Results, RunNote, Writer};
use crate::runner::{self, Keeper, Other, Request};
use crate::settings::Settings;
use crate::stats::Verdict;
use crate::workload::Workload;
use crate::{builds, report};

/// The exit code of a comparison that has found a regression.
const EXIT_REGRESSION: u8 = 3;
/// The exit code of an interrupted run, as shells have it for `SIGINT`.
const EXIT_INTERRUPTED: u8 = 130;
const ROUNDS: u32 = 3;
/// A comparison needs more: with three rounds its intervals reach from half to twice.
const ROUNDS_OF_COMPARISON: u32 = 5;
const RESULTS: &str = "results.jsonl";
/// Where published results stand.
const PUBLISHED: &str = "docs/bench";
/// The heading below which a README without a block gets one.
const README_HEADING: &str = "## Speed\n";

const WORKLOADS: &[Workload] = &[
    Workload::FillSync1,
    Workload::FillSync16,
    Workload::FillSeq,
    Workload::FillBatch,
    Workload::FillRandom,
    Workload::Overwrite,
    Workload::ReadRandom,
    Workload::ReadRandom1,
    Workload::ReadMissing,
    Workload::Seek10,
    Workload::Seek100,
    Workload::SeekRev10,
    Workload::Scan,
    Workload::ScanRev,
    Workload::YcsbA,
    Workload::YcsbB,
    Workload::YcsbC,
    Workload::YcsbF,
    Workload::YcsbD,
    Workload::YcsbE,
    Workload::Reopen,
];

const WORKLOADS_QUICK: &[Workload] = &[
    Workload::FillSync16,
    Workload::FillBatch,
    Workload::FillRandom,
    Workload::Overwrite,
    Workload::ReadRandom,
    Workload::ReadMissing,
    Workload::Seek10,
    Workload::Scan,
    Workload::YcsbA,
    Workload::YcsbE,
    Workload::Reopen,
];

/// A tenth of the entries, and of the memory with them, so that as large a part of them is in tables; and no workload
/// goes on for long where a disk is slow.
fn quick_settings() -> Settings {
    Settings {
        n: 500_000,
        cache_mib: 26,
        write_buffer_mib: 7,
        duration_max_s: 10,
        ..Settings::default()
    }
}

/// What `bench-report` is asked for.
#[derive(Debug, Clone, Args)]
pub struct ReportArgs {
    /// Few entries and the main workloads: with fjall alone under five minutes.
    #[arg(long)]
    quick: bool,
    /// Rivals, separated by commas, or `all`, or `none`; by default fjall and rocksdb, and none with --compare.
    #[arg(long, value_delimiter = ',', value_parser = known_rival)]
    rivals: Option<Vec<String>>,
    /// How often each engine has its turn: 3 times by default, 5 with --compare.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Another revision of this repository to measure in turn with this one.
    #[arg(long, value_name = "REV")]
    compare: Option<String>,
    /// Ends with code 3 where a workload is slower than in the other revision beyond doubt and the margin.
    #[arg(long, requires = "compare")]
    fail_on_regression: bool,
    /// Also the engine encrypted with AES-256-GCM.
    #[arg(long)]
    encrypted: bool,
    /// Workloads, separated by commas, run in this order on one store.
    #[arg(long, value_delimiter = ',')]
    workloads: Option<Vec<Workload>>,
    /// Entries of a full store.
    #[arg(long)]
    n: Option<u64>,
    /// Bytes of a value.
    #[arg(long)]
    value_bytes: Option<usize>,
    /// Client threads.
    #[arg(long)]
    threads: Option<usize>,
    /// Block cache, in MiB.
    #[arg(long)]
    cache_mib: Option<u64>,
    /// Memtable size, in MiB.
    #[arg(long)]
    write_buffer_mib: Option<u64>,
    /// Threads for an engine's own work; 0: the engine's default.
    #[arg(long)]
    background_threads: Option<usize>,
    /// What every random choice follows from.
    #[arg(long)]
    seed: Option<u64>,
    /// Seconds after which a workload is cut short; 0: never.
    #[arg(long)]
    duration_max: Option<u64>,
    /// Where the stores go. Not a file system in memory.
    #[arg(long, default_value = "target/vault-bench")]
    dir: PathBuf,
    /// Where the report goes: report.html, report.md, results.jsonl.
    #[arg(long, default_value = "target/bench-report")]
    out: PathBuf,
    /// A directory with rivals' workers that are built already, named as the rivals.
    #[arg(long, value_name = "DIR")]
    rivals_built: Option<PathBuf>,
    /// Goes on with the run whose results are in --out, with its settings; more --rounds may be asked for.
    #[arg(long, conflicts_with_all = ["quick", "rivals", "compare", "encrypted", "workloads", "n", "value_bytes", "threads",
        "cache_mib", "write_buffer_mib", "background_threads", "seed", "duration_max", "from"])]
    resume: bool,
    /// Measures nothing and draws the report of a kept results.jsonl.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Puts the results --from names into docs/bench, and the table made of them into README.md.
    #[arg(long, requires = "from")]
    publish: bool,
    /// Whether this process is the one that outlives an interrupt.
    #[arg(long, hide = true)]
    pub outliving: bool,
}

fn known_rival(name: &str) -> Result<String> {
    if engines::is_rival(name) || ["all", "none"].contains(&name) {
        return Ok(name.to_owned());
    }
    let known: Vec<_> = engines::RIVALS
        .iter()
        .map(|rival| rival.name)
        .chain(["all", "none"])
        .collect();
    Err(Error::Unknown {
        kind: "rival",
        name: name.to_owned(),
        known: known.join(", "),
    })
}

/// Runs the command.
///
/// # Errors
/// What makes the whole run impossible. What fails within it stands in the report, and in the exit code.
pub fn run(args: &ReportArgs) -> Result<ExitCode> {
    if let Some(from) = &args.from {
        return draw_again(args, from);
    }
    if !args.outliving {
        return crate::interrupt::outlived(&["--outliving"]);
    }
    let interrupt = Interrupt::at_end_of(std::io::stdin());
    let clock = SystemClock::new();
    measure::create_dir(&args.out)?;
    let path = args.out.join(RESULTS);
    let mut kept = if args.resume {
        resumed(&path, &args.dir)?
    } else {
        Results::default()
    };
    let mut request = match kept.run() {
        Some(run) => request_of(run, args),
        None => new_request(args)?,
    };
    request.settings.check()?;
    measure::create_dir(&request.dir)?;
    // Before anything is built, which takes longer than being told.
    measure::check_free_space(&request.dir, request.settings.disk_bytes_needed())?;
    let asked = args
        .compare
        .clone()
        .or_else(|| Some(kept.run()?.compare.as_ref()?.commit.clone()));
    if let Some(asked) = &asked {
        let (mut compared, binary) =
            builds::revision(asked, &args.dir.join("compare"), &interrupt)?;
        // A resumed comparison goes on under the name it began with.
        if let Some(before) = kept.run().and_then(|run| run.compare.clone()) {
            compared = before;
        }
        request.other = Some(Other { compared, binary });
    }
    if !args.resume {
        set_aside(&path, &clock)?;
    }
    let file = Some(Writer::append(&path, &kept)?);
    // Cut off by now.
    kept.torn = None;
    let mut keeper = Keeper {
        results: kept,
        file,
    };
    let mut drawn = Ok(());
    let outcome = runner::run(&request, &mut keeper, &interrupt, &mut |results| {
        drawn = draw(results, &args.out);
    });
    drawn?;
    draw(&keeper.results, &args.out)?;
    measure::say(&format!(
        "the report: {}",
        args.out.join("report.html").display()
    ));
    let failures = match outcome {
        Err(Error::Interrupted) => {
            measure::say(
                "interrupted: the report holds what was measured until then; `--resume` goes on",
            );
            return Ok(ExitCode::from(EXIT_INTERRUPTED));
        }
        other => other?,
    };
    measure::print(&report::block(&keeper.results))?;
    for failure in &failures {
        measure::say(&format!("failed: {failure}"));
    }
    let judged = judge(args, &keeper.results);
    Ok(if judged == ExitCode::SUCCESS && !failures.is_empty() {
        ExitCode::FAILURE
    } else {
        judged
    })
}

/// Tells how the comparison came out, and gives the exit code for it.
fn judge(args: &ReportArgs, results: &Results) -> ExitCode {
    let compared = report::compare::compare(results);
    for c in compared.iter().filter(|c| c.verdict != Verdict::Undecided) {
        let change = if c.verdict == Verdict::Slower {
            "slower"
        } else {
            "faster"
        };
        let interval = report::compare::interval(&c.ratio);
        measure::say(&format!(
            "{}: {change}, {:.2} times as fast ({interval})",
            c.label, c.ratio.ratio
        ));
    }
    let slower = report::compare::regressions(&compared).len();
    if args.compare.is_some() && slower == 0 {
        measure::say(&format!(
            "no workload of {} is slower beyond doubt",
            compared.len()
        ));
    }
    if args.fail_on_regression && slower > 0 {
        ExitCode::from(EXIT_REGRESSION)
    } else {
        ExitCode::SUCCESS
    }
}

fn new_request(args: &ReportArgs) -> Result<Request> {
    let mut settings = if args.quick {
        quick_settings()
    } else {
        Settings::default()
    };
    set(&mut settings.n, args.n);
    set(&mut settings.value_bytes, args.value_bytes);
    set(&mut settings.threads, args.threads);
    set(&mut settings.cache_mib, args.cache_mib);
    set(&mut settings.write_buffer_mib, args.write_buffer_mib);
    set(&mut settings.background_threads, args.background_threads);
    set(&mut settings.seed, args.seed);
    set(&mut settings.duration_max_s, args.duration_max);
    let comparing = args.compare.is_some();
    let rounds = args.rounds.unwrap_or(if comparing {
        ROUNDS_OF_COMPARISON
    } else {
        ROUNDS
    });
    if comparing && rounds < 2 {
        let problem = "--compare needs --rounds of at least 2: one pair of figures says nothing about how they scatter";
        return Err(Error::Setting(problem.to_owned()));
    }
    let standard = if args.quick {
        WORKLOADS_QUICK
    } else {
        WORKLOADS
    };
    let mut engines = vec!["vault".to_owned()];
    if args.encrypted {
        engines.push("vault-aes".to_owned());
    }
    engines.extend(rivals(args.rivals.as_deref(), args.quick, comparing));
    Ok(Request {
        engines,
        other: None,
        workloads: args.workloads.clone().unwrap_or_else(|| standard.to_vec()),
        rounds,
        settings,
        settle: true,
        dir: args.dir.clone(),
        rivals_built: args.rivals_built.clone(),
    })
}

fn set<T>(setting: &mut T, asked: Option<T>) {
    if let Some(asked) = asked {
        *setting = asked;
    }
}

fn rivals(asked: Option<&[String]>, quick: bool, comparing: bool) -> Vec<String> {
    let standard: &[&str] = match (comparing, quick) {
        (true, _) => &[],
        (false, true) => &["fjall"],
        (false, false) => &["fjall", "rocksdb"],
    };
    let Some(asked) = asked else {
        return standard.iter().map(ToString::to_string).collect();
    };
    let mut rivals: Vec<String> = Vec::new();
    for name in asked {
        let all = engines::RIVALS.iter().map(|rival| rival.name.to_owned());
        let meant: Vec<String> = match name.as_str() {
            "none" => Vec::new(),
            "all" => all.collect(),
            name => vec![name.to_owned()],
        };
        rivals.extend(
            meant
                .into_iter()
                .filter(|name| !rivals.contains(name))
                .collect::<Vec<_>>(),
        );
    }
    rivals
}

/// What a kept run still asks for.
fn request_of(run: &RunNote, args: &ReportArgs) -> Request {
    Request {
        engines: run.engines.clone(),
        other: None,
        workloads: run.workloads.clone(),
        rounds: args.rounds.unwrap_or(run.rounds),
        settings: run.settings.clone(),
        settle: run.settle,
        dir: args.dir.clone(),
        rivals_built: args.rivals_built.clone(),
    }
}

/// What is kept of a run that is to go on. Figures of another machine or revision cannot be gone on with.
fn resumed(path: &Path, dir: &Path) -> Result<Results> {
    if !measure::exists(path) {
        let problem = format!(
            "--resume: there is no {}; leave the option out to begin",
            path.display()
        );
        return Err(Error::Setting(problem));
    }
    let kept = read(path)?;
    if kept.run().is_none() {
        let problem = format!(
            "--resume: {} does not say what was asked for; begin anew without --resume",
            path.display()
        );
        return Err(Error::Setting(problem));
    }
    measure::create_dir(dir)?;
    let (machine, revision) = (Machine::look(dir), builds::own_revision());
    for record in &kept.records {
        let ours = !record.engine.contains('@') && !engines::is_rival(&record.engine);
        let told = |what: &str, then: &str, now: &str| {
            let problem = format!(
                "--resume: the results are of another {what} ({then}, and this is {now}); begin anew without --resume"
            );
            Err(Error::Setting(problem))
        };
        if record.machine != machine {
            return told(
                "machine",
                &format!("{:?}", record.machine),
                &format!("{machine:?}"),
            );
        }
        if ours && record.revision != revision {
            let name = |revision: &Option<String>| {
                revision.clone().unwrap_or_else(|| "unknown".to_owned())
            };
            return told("revision", &name(&record.revision), &name(&revision));
        }
    }
    Ok(kept)
}

fn read(path: &Path) -> Result<Results> {
    let results = Results::read(path)?;
    if let Some(torn) = &results.torn {
        measure::say(&format!(
            "{}: the last line is torn after {} bytes, and is passed over",
            path.display(),
            torn.len()
        ));
    }
    Ok(results)
}

/// Gives the results of an earlier run another name.
fn set_aside(path: &Path, clock: &SystemClock) -> Result<()> {
    if !measure::exists(path) {
        return Ok(());
    }
    let stamp: String = runner::date(clock)
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    let kept = path.with_file_name(format!("results-until-{stamp}.jsonl"));
    measure::say(&format!(
        "the results of an earlier run are kept as {}",
        kept.display()
    ));
    measure::rename(path, &kept)
}

/// Draws a report into a directory.
fn draw(results: &Results, out: &Path) -> Result<()> {
    measure::write_text(&out.join("report.html"), &report::html(results))?;
    measure::write_text(&out.join("report.md"), &report::markdown(results))
}

fn draw_again(args: &ReportArgs, from: &Path) -> Result<ExitCode> {
    let results = read(from)?;
    if !args.publish {
        measure::create_dir(&args.out)?;
        draw(&results, &args.out)?;
        measure::say(&format!(
            "the report: {}",
            args.out.join("report.html").display()
        ));
        return Ok(judge(args, &results));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or_else(|| Path::new("."));
    let (readme, published) = (root.join("README.md"), root.join(PUBLISHED));
    let text = measure::read_text(&readme)?;
    let Some(new) = published_readme(&text, &report::block(&results)) else {
        let problem = format!(
            "README.md has neither `{}` nor a heading `## Speed` to put the table under",
            report::BLOCK_BEGIN
        );
        return Err(Error::Setting(problem));
    };
    measure::create_dir(&published)?;
    let target = published.join(RESULTS);
    if std::path::absolute(from).ok() != std::path::absolute(&target).ok() {
        measure::copy(from, &target)?;
    }
    draw(&results, &published)?;
    measure::write_text(&readme, &new)?;
    measure::say("docs/bench and README.md hold these results now");
    Ok(ExitCode::SUCCESS)
}

/// The README with this block: in the place of the one it has, or below its heading.
fn published_readme(readme: &str, block: &str) -> Option<String> {
    report::with_block(readme, block).or_else(|| {
        let (before, after) = readme.split_once(README_HEADING)?;
        let (begin, end) = (report::BLOCK_BEGIN, report::BLOCK_END);
        Some(format!(
            "{before}{README_HEADING}\n{begin}\n{block}{end}\n{after}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::results::{Note, tests::record};

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: ReportArgs,
    }

    fn parsed(line: &str) -> ReportArgs {
        Cli::parse_from(["bench-report"].into_iter().chain(line.split_whitespace())).args
    }

    fn refused(line: &str) -> String {
        let words = ["bench-report"].into_iter().chain(line.split_whitespace());
        let error = Cli::try_parse_from(words).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        error.to_string()
    }

    #[test]
    fn unknown_names_and_options_are_refused_with_what_there_is() {
        let told = refused("--rivals fjall,leveldb");
        assert!(
            told.contains("`leveldb`")
                && told.contains("fjall, lmdb, redb, rocksdb, sqlite, all, none"),
            "{told}"
        );
        let told = refused("--workloads scan,fil");
        assert!(
            told.contains("`fil`") && told.contains("fillseq, fillrandom"),
            "{told}"
        );
        assert!(refused("--fail-on-regression").contains("--compare"));
        assert!(refused("--resume --n 7").contains("cannot be used with"));
        assert!(refused("--publish").contains("--from"));
        refused("--rounds 0");
        let error = new_request(&parsed("--compare main --rounds 1")).unwrap_err();
        assert!(error.to_string().contains("at least 2"), "{error}");
    }

    #[test]
    fn what_is_not_given_is_standard() {
        let request = new_request(&parsed("")).unwrap();
        assert_eq!(request.engines, ["vault", "fjall", "rocksdb"]);
        assert_eq!((request.rounds, request.settings), (3, Settings::default()));
        let quick = new_request(&parsed("--quick --encrypted --threads 4")).unwrap();
        assert_eq!(quick.engines, ["vault", "vault-aes", "fjall"]);
        assert_eq!((quick.settings.n, quick.settings.threads), (500_000, 4));
        assert_eq!(quick.workloads, WORKLOADS_QUICK);
        let compare = new_request(&parsed("--compare main")).unwrap();
        assert_eq!(
            (compare.engines, compare.rounds),
            (vec!["vault".to_owned()], 5)
        );
        let all = new_request(&parsed("--rivals fjall,all")).unwrap();
        assert_eq!(all.engines.len(), 1 + engines::RIVALS.len());
        assert_eq!(
            new_request(&parsed("--rivals none")).unwrap().engines,
            ["vault"]
        );
    }

    #[test]
    fn a_run_goes_on_with_what_it_was_asked_for_on_the_machine_it_began_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(RESULTS);
        let none = resumed(&path, dir.path()).unwrap_err().to_string();
        assert!(none.contains("there is no"), "{none}");
        let mut writer = Writer::append(&path, &Results::default()).unwrap();
        let silent = resumed(&path, dir.path()).unwrap_err().to_string();
        assert!(silent.contains("does not say"), "{silent}");
        let settings = Settings {
            n: 77,
            ..Settings::default()
        };
        writer
            .note(&Note::Run(RunNote {
                date: String::new(),
                engines: vec!["vault".to_owned()],
                workloads: vec![Workload::Scan],
                rounds: 4,
                settle: true,
                settings,
                compiler: String::new(),
                load: None,
                compare: None,
            }))
            .unwrap();
        let kept = resumed(&path, dir.path()).unwrap();
        let request = request_of(kept.run().unwrap(), &parsed("--resume --rounds 6"));
        assert_eq!(
            (request.settings.n, request.rounds, request.workloads),
            (77, 6, vec![Workload::Scan])
        );
        let mut other = record("vault", 1, Workload::Scan, 1, 1);
        other.machine.cpu = "of another kind".to_owned();
        writer.record(&other).unwrap();
        let told = resumed(&path, dir.path()).unwrap_err().to_string();
        assert!(
            told.contains("another machine") && told.contains("of another kind"),
            "{told}"
        );
        other.machine = Machine::look(dir.path());
        other.revision = Some("0123".to_owned());
        writer.record(&other).unwrap();
        let told = resumed(&path, dir.path()).unwrap_err().to_string();
        assert!(
            told.contains("another revision") && told.contains("0123"),
            "{told}"
        );
    }

    #[test]
    fn earlier_results_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(RESULTS);
        set_aside(&path, &SystemClock::new()).unwrap();
        measure::write_text(&path, "{}\n").unwrap();
        set_aside(&path, &SystemClock::new()).unwrap();
        assert!(!measure::exists(&path));
        let (bytes, _) = measure::disk_usage(dir.path()).unwrap();
        assert_eq!(bytes, 3);
    }

    #[test]
    fn a_readme_gets_its_block_once() {
        let first = published_readme("# V\n\n## Speed\n\nwords\n", "table\n").unwrap();
        assert!(
            first.contains("## Speed\n\n<!-- bench-report: begin")
                && first.ends_with("\n\nwords\n"),
            "{first}"
        );
        let second = published_readme(&first, "other\n").unwrap();
        assert!(
            second.contains("other\n")
                && !second.contains("table")
                && second.matches("begin").count() == 1
        );
        assert_eq!(published_readme("# V\n", "table\n"), None);
    }

    /// What is published is what its results say: nobody has edited a figure.
    #[test]
    fn published_reports_are_drawn_from_their_results() {
        let published = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(PUBLISHED);
        let path = published.join(RESULTS);
        if !measure::exists(&path) {
            assert!(
                !measure::exists(&published.join("report.md")),
                "a report without its results"
            );
            return;
        }
        let results = Results::read(&path).unwrap();
        assert!(results.torn.is_none());
        let published = measure::read_text(&published.join("report.md")).unwrap();
        assert_eq!(
            published,
            report::markdown(&results),
            "draw it again with --from docs/bench/results.jsonl --publish"
        );
    }
}
