//! The command behind `cargo xtask bench-report`: measures, keeps, draws, compares, publishes.
//!
//! 1. What is asked for is put together and checked: settings, disk, what `--resume` finds kept.
//! 2. What is to be compared with is built, then the rivals; one that cannot be built is told, and the rest goes on.
//! 3. The turns are taken ([`crate::runner`]); after each the report is drawn anew, so that it is there whenever the run
//!    ends, however it ends ([`crate::interrupt`]).
//! 4. The comparison is judged, where there is one.
//!
//! `results.jsonl` in the report's directory is what everything is drawn from. An earlier one is kept under another name.

mod options;

use std::path::Path;
use std::process::ExitCode;

use vault_core::clock::SystemClock;

use crate::engines;
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::measure::{self, Machine};
use crate::results::{Results, Writer};
use crate::runner::{self, Keeper, Other, Request};
use crate::stats::Verdict;
use crate::{builds, report};

pub use options::ReportArgs;
use options::{new_request, request_of};

/// The exit code of a comparison that has found a regression.
const EXIT_REGRESSION: u8 = 3;
/// The exit code of an interrupted run, as shells have it for `SIGINT`.
const EXIT_INTERRUPTED: u8 = 130;
const RESULTS: &str = "results.jsonl";
/// Where published results stand.
const PUBLISHED: &str = "docs/bench";
/// The heading below which a README without a block gets one.
const README_HEADING: &str = "## Speed\n";

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
    measure::create_dir(&args.out)?;
    let path = args.out.join(RESULTS);
    let mut kept = if args.resume {
        resumed(&path, &args.dir)?
    } else {
        Results::default()
    };
    let request = prepared(args, &kept, &interrupt)?;
    if !args.resume {
        set_aside(&path, &SystemClock::new())?;
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

/// What is to be run, checked, with what it is to be compared with.
fn prepared(args: &ReportArgs, kept: &Results, interrupt: &Interrupt) -> Result<Request> {
    let mut request = match kept.run() {
        Some(run) => request_of(run, args),
        None => new_request(args)?,
    };
    request.settings.check()?;
    measure::create_dir(&request.dir)?;
    // Before anything is built, which takes longer than being told. What an interrupted run has left is no lack of room.
    drop(measure::claim_dir(&request.dir, runner::STORE_PREFIX)?);
    measure::check_free_space(&request.dir, request.settings.disk_bytes_needed())?;
    // A resumed comparison goes on with the commit and under the name that it began with.
    let before = kept.run().and_then(|run| run.compare.clone());
    let commit = before.as_ref().map(|before| &before.commit);
    if let Some(asked) = args.compare.as_ref().or(commit) {
        let (compared, binary) = builds::revision(asked, &args.dir.join("compare"), interrupt)?;
        let compared = before.unwrap_or(compared);
        request.other = Some(Other { compared, binary });
    }
    Ok(request)
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
    use super::options::tests::parsed;
    use super::*;
    use crate::results::{Note, RunNote, tests::record};
    use crate::settings::Settings;
    use crate::workload::Workload;

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
