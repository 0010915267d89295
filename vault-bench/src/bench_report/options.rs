//! The options of `bench-report`, and the run that they ask for.

use std::path::PathBuf;

use clap::Args;

use crate::engines;
use crate::error::{Error, Result};
use crate::results::RunNote;
use crate::runner::Request;
use crate::settings::Settings;
use crate::workload::Workload;

const ROUNDS: u32 = 3;
/// A comparison needs more: with three rounds its intervals reach from half to twice.
const ROUNDS_OF_COMPARISON: u32 = 5;
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

/// A seventeenth of the entries, and of the memory with them, so that as large a part of them is in tables; and no workload
/// goes on for long where a disk is slow.
fn quick_settings() -> Settings {
    Settings {
        n: 300_000,
        cache_mib: 15,
        write_buffer_mib: 4,
        duration_max_s: 5,
        ..Settings::default()
    }
}

/// What `bench-report` is asked for.
#[derive(Debug, Clone, Args)]
pub struct ReportArgs {
    /// Few entries and the main workloads: with fjall alone under five minutes.
    #[arg(long)]
    pub(super) quick: bool,
    /// Rivals, separated by commas, or `all`, or `none`; by default fjall and rocksdb, and none with --compare.
    #[arg(long, value_delimiter = ',', value_parser = known_rival)]
    pub(super) rivals: Option<Vec<String>>,
    /// How often each engine has its turn: 3 times by default, 5 with --compare.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) rounds: Option<u32>,
    /// Another revision of this repository to measure in turn with this one.
    #[arg(long, value_name = "REV")]
    pub(super) compare: Option<String>,
    /// Ends with code 3 where a workload is slower than in the other revision beyond doubt and the margin.
    #[arg(long, requires = "compare")]
    pub(super) fail_on_regression: bool,
    /// Also the engine encrypted with AES-256-GCM.
    #[arg(long)]
    pub(super) encrypted: bool,
    /// Workloads, separated by commas, run in this order on one store.
    #[arg(long, value_delimiter = ',')]
    pub(super) workloads: Option<Vec<Workload>>,
    /// Entries of a full store.
    #[arg(long)]
    pub(super) n: Option<u64>,
    /// Bytes of a value.
    #[arg(long)]
    pub(super) value_bytes: Option<usize>,
    /// Client threads.
    #[arg(long)]
    pub(super) threads: Option<usize>,
    /// Block cache, in MiB.
    #[arg(long)]
    pub(super) cache_mib: Option<u64>,
    /// Memtable size, in MiB.
    #[arg(long)]
    pub(super) write_buffer_mib: Option<u64>,
    /// Threads for an engine's own work; 0: the engine's default.
    #[arg(long)]
    pub(super) background_threads: Option<usize>,
    /// What every random choice follows from.
    #[arg(long)]
    pub(super) seed: Option<u64>,
    /// Seconds after which a workload is cut short; 0: never.
    #[arg(long)]
    pub(super) duration_max: Option<u64>,
    /// Where the stores go. Not a file system in memory.
    #[arg(long, default_value = "target/vault-bench")]
    pub(super) dir: PathBuf,
    /// Where the report goes: report.html, report.md, results.jsonl.
    #[arg(long, default_value = "target/bench-report")]
    pub(super) out: PathBuf,
    /// A directory with rivals' workers that are built already, named as the rivals.
    #[arg(long, value_name = "DIR")]
    pub(super) rivals_built: Option<PathBuf>,
    /// Goes on with the run whose results are in --out, with its settings; more --rounds may be asked for.
    #[arg(long, conflicts_with_all = ["quick", "rivals", "compare", "encrypted", "workloads", "n", "value_bytes", "threads",
        "cache_mib", "write_buffer_mib", "background_threads", "seed", "duration_max", "from"])]
    pub(super) resume: bool,
    /// Measures nothing and draws the report of a kept results.jsonl.
    #[arg(long, value_name = "FILE")]
    pub(super) from: Option<PathBuf>,
    /// Puts the results --from names into docs/bench, and the table made of them into README.md.
    #[arg(long, requires = "from")]
    pub(super) publish: bool,
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

/// What a new run is asked for.
///
/// # Errors
/// [`Error::Setting`].
pub(super) fn new_request(args: &ReportArgs) -> Result<Request> {
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
pub(super) fn request_of(run: &RunNote, args: &ReportArgs) -> Request {
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

#[cfg(test)]
pub(in crate::bench_report) mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: ReportArgs,
    }

    pub(in crate::bench_report) fn parsed(line: &str) -> ReportArgs {
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
        assert_eq!((quick.settings.n, quick.settings.threads), (300_000, 4));
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
}
