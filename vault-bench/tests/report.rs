//! `bench-report` as people run it: a report of very few entries, and everything that can get in its way.

#![expect(
    clippy::disallowed_methods,
    reason = "the report is made of real files, by a real process"
)]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use vault_bench::measure::read_text;
use vault_bench::results::{Note, Results};

/// Small enough for a second, large enough for a table or two.
const SMALL: &[&str] = &[
    "--n",
    "3000",
    "--cache-mib",
    "1",
    "--write-buffer-mib",
    "1",
    "--workloads",
    "fillrandom,readrandom,reopen",
];

/// What a turn of it measures: the workloads, and the settling of the fill.
const STEPS: usize = 4;

struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a temporary directory can be made"),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vault-bench"));
        command
            .arg("bench-report")
            .args(["--dir", &self.path("stores"), "--out", &self.path("out")])
            .args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let Output {
            status,
            stdout,
            stderr,
        } = self
            .command(arguments)
            .output()
            .expect("the benchmark can be started");
        let told = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (status.code().unwrap_or(-1), told.concat())
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_string_lossy().into_owned()
    }

    fn text(&self, name: &str) -> String {
        read_text(Path::new(&self.path(name))).expect("the file is there")
    }

    fn results(&self) -> Results {
        Results::read(Path::new(&self.path("out/results.jsonl"))).expect("the results can be read")
    }
}

#[test]
fn a_report_is_measured_kept_drawn_and_drawn_again() {
    let place = Place::new();
    let (code, told) = place.run(&[SMALL, &["--rivals", "none", "--rounds", "2"]].concat());
    assert_eq!(code, 0, "{told}");
    for part in [
        "turn 1 of 2: round 1, vault",
        "2 of 2 turns done",
        "about",
        "report.html",
    ] {
        assert!(told.contains(part), "no `{part}` in {told}");
    }
    let results = place.results();
    assert_eq!(
        results.records.len(),
        2 * STEPS,
        "three workloads, and a settle after the fill"
    );
    for record in &results.records {
        let figures = &record.figures;
        assert!(!figures.memory.at_ms.is_empty(), "{}", figures.label());
        assert!(figures.histogram.iter().any(|bucket| bucket.1 > 0));
        if figures.workload.fills() {
            assert_eq!(figures.course.operations.iter().sum::<u64>(), 3000);
            assert!(!figures.memory.accounted_kib.is_empty() && figures.memory.budget_kib > 0);
        }
    }
    let page = place.text("out/report.html");
    for part in ["<svg", "fillrandom", "Memory over time", "Latency"] {
        assert!(page.contains(part), "{part}");
    }
    let markdown = place.text("out/report.md");
    let (code, _) = place.run(&["--from", &place.path("out/results.jsonl")]);
    assert_eq!(
        (
            code,
            place.text("out/report.html"),
            place.text("out/report.md")
        ),
        (0, page, markdown)
    );
}

#[test]
fn a_rival_that_cannot_be_built_is_told_and_the_rest_goes_on() {
    let place = Place::new();
    let none = place.path("none");
    let (code, told) = place.run(
        &[
            SMALL,
            &["--rivals", "redb", "--rounds", "1", "--rivals-built", &none],
        ]
        .concat(),
    );
    assert_eq!(code, 1, "{told}");
    assert!(
        told.contains("redb cannot be built") && told.contains("left out"),
        "{told}"
    );
    let results = place.results();
    assert!(
        results.has_turn("vault", 1)
            && results
                .notes
                .iter()
                .any(|note| matches!(note, Note::Failed { .. }))
    );
    assert!(
        place
            .text("out/report.html")
            .contains("redb cannot be built")
    );
    assert!(place.text("out/report.md").contains("redb cannot be built"));
}

#[test]
fn too_small_a_disk_is_told_before_anything_begins() {
    let place = Place::new();
    let (code, told) = place.run(&["--n", "1000000000000", "--rivals", "fjall"]);
    assert_eq!(code, 1, "{told}");
    assert!(
        told.contains("MiB free") && told.contains("needs about") && told.contains("--n"),
        "{told}"
    );
    assert!(
        !told.contains("building") && !Path::new(&place.path("out/results.jsonl")).exists(),
        "{told}"
    );
}

#[test]
fn an_unknown_option_ends_with_those_there_are() {
    let (code, told) = Place::new().run(&["--quik"]);
    assert!(code == 2 && told.contains("--quick, --rivals"), "{told}");
}

/// Reads lines until one holds this.
fn heard(lines: &mut impl BufRead, part: &str) -> String {
    let mut all = String::new();
    loop {
        let begin = all.len();
        assert!(
            lines.read_line(&mut all).expect("it can be heard") > 0,
            "it ended without `{part}`: {all}"
        );
        if all[begin..].contains(part) {
            return all;
        }
    }
}

#[test]
fn an_interrupted_run_is_drawn_and_goes_on() {
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        if is_ignored(signal) {
            eprintln!("{signal:?} is ignored here, by this process and so by those that it starts");
            continue;
        }
        let place = Place::new();
        let mut run = place
            .command(&[SMALL, &["--rivals", "none", "--rounds", "900"]].concat())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(run.stderr.take().unwrap());
        heard(&mut lines, "1 of 900 turns done");
        kill_process(Pid::from_child(&run), signal).unwrap();
        assert_eq!(run.wait().unwrap().code(), None, "it ends by the signal");
        // Whoever outlived it holds the pipe until all is kept and drawn.
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("--resume"), "{rest}");
        let results = place.results();
        assert!(
            results.torn.is_none()
                && results.has_turn("vault", 1)
                && !results.has_turn("vault", 900)
        );
        assert!(place.text("out/report.html").contains("interrupted at"));

        // Two more turns than were taken, whatever their number was.
        let taken = (1..=900)
            .take_while(|&round| results.has_turn("vault", round))
            .count();
        let rounds = (taken + 2).to_string();
        let (code, told) = place.run(&["--resume", "--rounds", &rounds]);
        assert_eq!(code, 0, "{told}");
        assert!(told.contains("round 1, vault: kept from before"), "{told}");
        let results = place.results();
        assert!(results.has_turn("vault", taken as u32 + 2));
        assert_eq!(
            results.records.len(),
            STEPS * (taken + 2),
            "what the torn turn had measured was replaced"
        );
        assert_eq!(results.run().map(|run| run.settings.n), Some(3000));
    }
}

/// Whether a signal is ignored: what a shell starts in the background does not hear the interrupt.
fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| (mask >> (signal.as_raw() - 1)) & 1 == 1)
}

#[test]
fn a_torn_last_line_is_told_and_passed_over_and_a_spoilt_one_is_not() {
    let place = Place::new();
    let (code, _) = place.run(&[SMALL, &["--rivals", "none", "--rounds", "1"]].concat());
    assert_eq!(code, 0);
    let path = place.path("out/results.jsonl");
    let whole = place.text("out/results.jsonl");
    let torn = &whole[..whole.len() - 20];
    std::fs::write(&path, torn).unwrap();
    let (code, told) = place.run(&["--from", &path]);
    assert!(code == 0 && told.contains("torn"), "{told}");
    assert!(place.text("out/report.html").contains("torn"));
    // Its turn counts as not taken, and is taken again.
    let (code, told) = place.run(&["--resume"]);
    assert!(code == 0 && told.contains("torn"), "{told}");
    assert!(place.results().torn.is_none() && place.results().has_turn("vault", 1));

    std::fs::write(&path, format!("{{\"half\n{whole}")).unwrap();
    let (code, told) = place.run(&["--from", &path]);
    assert!(
        code == 1 && told.contains("line 1") && told.contains("mend or remove"),
        "{told}"
    );
    let (code, told) = place.run(&["--from", &place.path("nowhere.jsonl")]);
    assert!(code == 1 && told.contains("nowhere.jsonl"), "{told}");
}

/// The other revision's binary is this one, so that nothing is built and nothing can differ.
#[test]
fn a_revision_compared_with_itself_is_not_slower() {
    let place = Place::new();
    let commit = Command::new("git").args(["rev-parse", "HEAD"]).output();
    let Some(commit) = commit.ok().filter(|output| output.status.success()) else {
        // An export without its history has no revision to compare with; the error for that has its own test.
        return;
    };
    let commit = String::from_utf8(commit.stdout).unwrap();
    let compare = Path::new(&place.path("stores")).join("compare");
    std::fs::create_dir_all(&compare).unwrap();
    std::fs::copy(
        env!("CARGO_BIN_EXE_vault-bench"),
        compare.join(format!("vault-bench-{}", &commit[..12])),
    )
    .unwrap();
    let (code, told) = place.run(&[SMALL, &["--compare", "HEAD", "--rounds", "2"]].concat());
    assert_eq!(code, 0, "{told}");
    let order: Vec<_> = told
        .lines()
        .filter(|line| line.starts_with("turn "))
        .collect();
    assert!(
        order[0].contains("vault")
            && order[1].contains("vault@HEAD")
            && order[2].contains("round 2, vault,"),
        "{told}"
    );
    let markdown = place.text("out/report.md");
    assert!(
        markdown.contains("## Beside revision `HEAD`") && markdown.contains("| fillrandom |"),
        "{markdown}"
    );
    let (code, told) = place.run(&["--compare", "no-such-revision"]);
    assert!(code == 1 && told.contains("no-such-revision"), "{told}");
}
