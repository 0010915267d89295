//! Every workload at toy size, so that the benchmark can't rot: a worker on an engine that is nothing
//! but a sorted map, and on broken ones whose faults it must notice.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use vault_bench::data::Entry;
use vault_bench::record::{Figures, Job, Message};
use vault_bench::settings::Settings;
use vault_bench::target::{Direction, EngineKind, Held, Open, Target, Verb};
use vault_bench::workload::Workload;
use vault_bench::{Error, Result, worker};
use vault_core::Timestamp;
use vault_core::clock::{Clock, SystemClock};

const N: u64 = 2_000;

type Map = BTreeMap<Vec<u8>, (Vec<u8>, Timestamp)>;

/// A sorted map, kept beyond its closing under the name of its directory.
#[derive(Default)]
struct Sorted {
    map: Arc<Mutex<Map>>,
    fault: Fault,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum Fault {
    #[default]
    None,
    /// Every hundredth write is lost.
    LosesWrites,
    /// Values come back with their first byte changed.
    SpoilsValues,
    /// Scans leave the second entry out... and give the first one twice.
    RepeatsEntries,
    /// Absent keys are found.
    InventsEntries,
    /// Every hundredth delete does nothing.
    LosesDeletes,
    /// Nothing ever expires.
    KeepsExpired,
    /// What is held shows what is there now.
    ForgetsSnapshots,
    /// Single writes take 3 ms.
    IsSlow,
}

impl Sorted {
    fn insert(&self, key: &[u8], value: &[u8]) {
        let lost = self.fault == Fault::LosesWrites && key.ends_with(b"90");
        if !lost {
            let mut map = self.map.lock().expect("nothing panics while it is held");
            map.insert(key.to_vec(), (value.to_vec(), Timestamp::MAX));
        }
    }
}

impl Held for Sorted {
    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Target::get(self, key, read)
    }
}

impl Target for Sorted {
    fn put(&self, key: &[u8], value: &[u8], _: bool) -> Result<()> {
        if self.fault == Fault::IsSlow {
            SystemClock::new().sleep(Duration::from_millis(3));
        }
        self.insert(key, value);
        Ok(())
    }

    fn put_batch(&self, entries: &[Entry]) -> Result<()> {
        entries.iter().for_each(|e| self.insert(&e.key, &e.value));
        Ok(())
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        let lost = self.fault == Fault::LosesDeletes && key.ends_with(b"90");
        if !lost {
            let mut map = self.map.lock().expect("nothing panics while it is held");
            map.remove(key);
        }
        Ok(())
    }

    fn offers(&self, _: Verb) -> bool {
        true
    }

    fn transact(&self, entries: &[Entry]) -> Result<()> {
        for entry in entries {
            let found = Target::get(self, &entry.key, &mut |_| ())?;
            assert!(found, "a key is missing");
        }
        self.put_batch(entries)
    }

    fn delete_range(&self, from: &[u8], to: &[u8]) -> Result<()> {
        let mut map = self.map.lock().expect("nothing panics while it is held");
        let lost = |key: &[u8]| self.fault == Fault::LosesDeletes && key.ends_with(b"90");
        map.retain(|key, _| key.as_slice() < from || key.as_slice() >= to || lost(key));
        Ok(())
    }

    fn put_until(&self, key: &[u8], value: &[u8], expiry: Timestamp) -> Result<()> {
        let kept = self.fault == Fault::KeepsExpired;
        let expiry = if kept { Timestamp::MAX } else { expiry };
        let mut map = self.map.lock().expect("nothing panics while it is held");
        map.insert(key.to_vec(), (value.to_vec(), expiry));
        Ok(())
    }

    fn while_held(&self, work: &mut dyn FnMut(&dyn Held) -> Result<()>) -> Result<()> {
        let now = self.map.lock().expect("nothing panics while it is held");
        let map = if self.fault == Fault::ForgetsSnapshots {
            Arc::clone(&self.map)
        } else {
            Arc::new(Mutex::new(now.clone()))
        };
        drop(now);
        let fault = Fault::None;
        work(&Self { map, fault })
    }

    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let mut value = self
            .map
            .lock()
            .expect("nothing panics while it is held")
            .get(key)
            .filter(|(_, expiry)| *expiry > SystemClock::new().now())
            .map(|(value, _)| value.clone());
        match self.fault {
            Fault::InventsEntries => value = value.or_else(|| Some(vec![0; 100])),
            Fault::SpoilsValues => value.iter_mut().for_each(|v| v[0] ^= 1),
            _ => {}
        }
        if let Some(value) = &value {
            read(value);
        }
        Ok(value.is_some())
    }

    fn scan(
        &self,
        from: Option<&[u8]>,
        direction: Direction,
        limit: u64,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<()> {
        let map = self.map.lock().expect("nothing panics while it is held");
        let bound = from.map_or(Bound::Unbounded, Bound::Included);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let now = SystemClock::new().now();
        let alive = |entry: &(&Vec<u8>, &(Vec<u8>, Timestamp))| entry.1.1 > now;
        let mut entries: Vec<_> = match direction {
            Direction::Forward => map
                .range::<[u8], _>((bound, Bound::Unbounded))
                .filter(alive)
                .take(limit)
                .collect(),
            Direction::Backward => map
                .range::<[u8], _>((Bound::Unbounded, bound))
                .rev()
                .filter(alive)
                .take(limit)
                .collect(),
        };
        if self.fault == Fault::RepeatsEntries && entries.len() > 1 {
            entries[1] = entries[0];
        }
        for (key, (value, _)) in entries {
            visit(key, value);
        }
        Ok(())
    }

    fn settle(&self) -> Result<Duration> {
        Ok(Duration::ZERO)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// The maps of this process, by directory. A directory that the worker has emptied has lost the file
/// that says that its map is there.
fn open_sorted(dir: &Path, fault: Fault) -> Result<Box<dyn Target>> {
    static MAPS: OnceLock<Mutex<BTreeMap<std::path::PathBuf, Arc<Mutex<Map>>>>> = OnceLock::new();
    let mut maps = MAPS
        .get_or_init(Mutex::default)
        .lock()
        .expect("nothing panics while it is held");
    let mark = dir.join("mark");
    let existed = std::os::unix::fs::symlink("kept", &mark).is_err();
    if !existed {
        maps.remove(dir);
    }
    let map = Arc::clone(maps.entry(dir.to_path_buf()).or_default());
    Ok(Box::new(Sorted { map, fault }))
}

fn kind(open: Open, persists: bool) -> EngineKind {
    EngineKind {
        name: "sorted",
        version: "1".to_owned(),
        persists,
        setup: "none",
        open,
    }
}

fn all() -> Vec<Workload> {
    Workload::ALL.iter().map(|row| row.0).collect()
}

fn run(
    kind: EngineKind,
    workloads: Vec<Workload>,
    change: impl Fn(&mut Settings),
) -> (Vec<Message>, Result<()>) {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let mut settings = Settings {
        n: N,
        cache_mib: 1,
        write_buffer_mib: 1,
        timed_ms: 60,
        shrink_wait_ms: 10,
        ..Settings::default()
    };
    change(&mut settings);
    let job = Job {
        engine: kind.name.to_owned(),
        dir: dir.path().to_path_buf(),
        workloads,
        settle: true,
        settings,
        verbose: false,
    };
    let mut messages = Vec::new();
    let result = worker::run(&[kind], &job, &mut |message| {
        messages.push(message.clone());
        Ok(())
    });
    (messages, result)
}

fn figures(messages: &[Message]) -> Vec<&Figures> {
    let mut all = Vec::new();
    for message in messages {
        if let Message::Measured(figures) = message {
            all.push(figures.as_ref());
        }
    }
    all
}

#[test]
fn every_workload_runs_and_reads_what_was_written() {
    let (messages, result) = run(
        kind(|dir, _| open_sorted(dir, Fault::None), true),
        all(),
        |_| (),
    );
    result.unwrap();
    let found = figures(&messages);
    for workload in all() {
        let figures = found.iter().find(|f| f.workload == workload);
        let figures = figures.unwrap_or_else(|| panic!("{workload} was not measured"));
        assert!(
            figures.operations > 0 && figures.seconds > 0.0,
            "{workload}"
        );
        assert!(
            figures.p50_ns > 0 && figures.p50_ns <= figures.p99_ns,
            "{workload}"
        );
        assert!(figures.p999_ns <= figures.max_ns, "{workload}");
    }
    let operations = |workload| {
        found
            .iter()
            .find(|f| f.workload == workload)
            .map(|f| f.operations)
    };
    assert_eq!(operations(Workload::FillBatch), Some(N));
    assert_eq!(operations(Workload::Scan), Some(N));
    assert_eq!(operations(Workload::FillSync16), Some(N));
    let settled = found
        .iter()
        .filter(|f| f.workload == Workload::Settle && f.after.is_some());
    assert!(settled.count() >= 4, "each fill and overwrite is settled");
    let reopen = found
        .iter()
        .find(|f| f.workload == Workload::Reopen)
        .unwrap();
    assert!(reopen.details.contains_key("open_seconds"));
}

#[test]
fn odd_sizes_run_too() {
    for (n, threads, value_bytes) in [(1, 1, 16), (2, 3, 17), (101, 5, 1000)] {
        let (_, result) = run(
            kind(|dir, _| open_sorted(dir, Fault::None), true),
            all(),
            |settings| {
                (settings.n, settings.threads, settings.value_bytes) = (n, threads, value_bytes);
            },
        );
        result.unwrap_or_else(|e| panic!("n {n}, {threads} threads, {value_bytes} bytes: {e}"));
    }
}

#[test]
fn an_engine_that_answers_wrongly_fails_the_run() {
    let cases: [(Open, Workload); 18] = [
        (
            |dir, _| open_sorted(dir, Fault::LosesDeletes),
            Workload::GapScan,
        ),
        (
            |dir, _| open_sorted(dir, Fault::LosesDeletes),
            Workload::GapSeekSettled,
        ),
        (
            |dir, _| open_sorted(dir, Fault::LosesDeletes),
            Workload::DeleteMix,
        ),
        (
            |dir, _| open_sorted(dir, Fault::LosesWrites),
            Workload::DeleteMix,
        ),
        (
            |dir, _| open_sorted(dir, Fault::LosesDeletes),
            Workload::Queue,
        ),
        (
            |dir, _| open_sorted(dir, Fault::LosesDeletes),
            Workload::Drain,
        ),
        (
            |dir, _| open_sorted(dir, Fault::LosesDeletes),
            Workload::DrainRange,
        ),
        (
            |dir, _| open_sorted(dir, Fault::KeepsExpired),
            Workload::DrainExpiry,
        ),
        (
            |dir, _| open_sorted(dir, Fault::KeepsExpired),
            Workload::Expiry,
        ),
        (
            |dir, _| open_sorted(dir, Fault::ForgetsSnapshots),
            Workload::HeldSnapshot,
        ),
        (
            |dir, _| open_sorted(dir, Fault::LosesWrites),
            Workload::ReadRandom,
        ),
        (
            |dir, _| open_sorted(dir, Fault::LosesWrites),
            Workload::Scan,
        ),
        (
            |dir, _| open_sorted(dir, Fault::LosesWrites),
            Workload::YcsbC,
        ),
        (
            |dir, _| open_sorted(dir, Fault::SpoilsValues),
            Workload::ReadRandom1,
        ),
        (
            |dir, _| open_sorted(dir, Fault::RepeatsEntries),
            Workload::Seek10,
        ),
        (
            |dir, _| open_sorted(dir, Fault::RepeatsEntries),
            Workload::SeekRev10,
        ),
        (
            |dir, _| open_sorted(dir, Fault::RepeatsEntries),
            Workload::YcsbE,
        ),
        (
            |dir, _| open_sorted(dir, Fault::InventsEntries),
            Workload::ReadMissing,
        ),
    ];
    for (open, workload) in cases {
        let (messages, result) = run(
            kind(open, true),
            vec![Workload::FillRandom, workload],
            |_| (),
        );
        let error = result.unwrap_err();
        assert!(
            matches!(error, Error::WrongAnswers { .. }),
            "{workload}: {error}"
        );
        assert!(error.to_string().contains(workload.name()));
        let last = *figures(&messages).last().unwrap();
        assert!(last.workload == workload && last.wrong + last.missing > 0);
    }
}

#[test]
fn shapes_tell_what_they_are_about() {
    let shapes = [
        (
            Workload::Queue,
            ["first_tenth_p99_ns", "last_tenth_p99_ns", "p99_ratio"],
        ),
        (
            Workload::Drain,
            ["bytes_before", "bytes_after", "left_percent"],
        ),
        (
            Workload::DrainRange,
            ["bytes_before", "bytes_after", "left_percent"],
        ),
        (
            Workload::DrainExpiry,
            ["bytes_before", "bytes_after", "left_percent"],
        ),
        (
            Workload::Expiry,
            [
                "live_bytes",
                "disk_peak_first_half",
                "disk_peak_second_half",
            ],
        ),
        (
            Workload::HeldSnapshot,
            ["bytes_before", "held_percent", "released_percent"],
        ),
        (
            Workload::Tails,
            [
                "peak_operations_per_second",
                "scheduled_operations_per_second",
                "writes_over_50_ms",
            ],
        ),
    ];
    let list = shapes.iter().map(|row| row.0).collect();
    let sorted = kind(|dir, _| open_sorted(dir, Fault::None), true);
    let (messages, result) = run(sorted, list, |_| ());
    result.unwrap();
    for (workload, names) in shapes {
        let all = figures(&messages);
        let found = all.iter().find(|f| f.workload == workload).unwrap();
        for name in names {
            assert!(found.details.contains_key(name), "{workload} lacks {name}");
        }
    }
    let all = figures(&messages);
    let tails = all.iter().find(|f| f.workload == Workload::Tails).unwrap();
    let (peak, scheduled) = (
        tails.details["peak_operations_per_second"],
        tails.details["scheduled_operations_per_second"],
    );
    assert!((0.69..0.71).contains(&(scheduled / peak)), "{tails:?}");
    let due = scheduled * 0.06;
    assert!(
        (tails.operations as f64) <= due + 2.0,
        "no write before it is due: {tails:?}"
    );
}

/// Threads that are cut short leave holes, wherever in the order of the fill that is.
#[test]
fn a_fill_that_was_cut_short_is_completed_before_it_is_read() {
    for fill in [Workload::FillSeq, Workload::FillRandom] {
        let slow = kind(|dir, _| open_sorted(dir, Fault::IsSlow), true);
        let list = vec![fill, Workload::ReadRandom, Workload::Scan];
        let (messages, result) = run(slow, list, |settings| {
            (settings.threads, settings.duration_max_s) = (3, 1);
        });
        result.unwrap();
        let all = figures(&messages);
        assert!(all[0].cut_short && all[0].operations < N, "{:?}", all[0]);
        let scan = all.iter().find(|f| f.workload == Workload::Scan).unwrap();
        assert_eq!(scan.operations, N);
    }
}

#[test]
fn tails_keep_to_the_rate_that_is_asked_for() {
    let (messages, result) = run(
        kind(|dir, _| open_sorted(dir, Fault::None), true),
        vec![Workload::FillRandom, Workload::Tails],
        |settings| settings.rate = 1000,
    );
    result.unwrap();
    let all = figures(&messages);
    let tails = all.iter().find(|f| f.workload == Workload::Tails).unwrap();
    let scheduled = tails.details["scheduled_operations_per_second"];
    assert_eq!((scheduled, tails.operations), (1000.0, 60), "{tails:?}");
}

#[test]
fn a_gap_is_crossed_after_each_kind_of_delete() {
    let list = "delete-half,gap-scan,gap-scan-settled,delete-half-range,gap-seek,gap-seek-settled";
    let list = list.split(',').map(|name| name.parse().unwrap()).collect();
    let sorted = kind(|dir, _| open_sorted(dir, Fault::None), true);
    let (messages, result) = run(sorted, list, |_| ());
    result.unwrap();
    let labels: Vec<String> = figures(&messages).iter().map(|f| f.label()).collect();
    for label in [
        "gap-scan (delete-half)",
        "gap-scan-settled (delete-half)",
        "gap-seek (delete-half-range)",
        "gap-seek-settled (delete-half-range)",
    ] {
        assert!(
            labels.iter().any(|found| found == label),
            "{label}: {labels:?}"
        );
    }
}

#[test]
fn what_an_engine_cannot_do_is_left_out() {
    struct Plain(Sorted);
    impl Target for Plain {
        fn put(&self, key: &[u8], value: &[u8], durable: bool) -> Result<()> {
            self.0.put(key, value, durable)
        }
        fn put_batch(&self, entries: &[Entry]) -> Result<()> {
            self.0.put_batch(entries)
        }
        fn delete(&self, key: &[u8]) -> Result<()> {
            self.0.delete(key)
        }
        fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
            Target::get(&self.0, key, read)
        }
        fn scan(
            &self,
            from: Option<&[u8]>,
            direction: Direction,
            limit: u64,
            visit: &mut dyn FnMut(&[u8], &[u8]),
        ) -> Result<()> {
            self.0.scan(from, direction, limit, visit)
        }
        fn settle(&self) -> Result<Duration> {
            Ok(Duration::ZERO)
        }
        fn close(self: Box<Self>) -> Result<()> {
            Ok(())
        }
    }
    let open = |_: &Path, _: &Settings| -> Result<Box<dyn Target>> {
        Ok(Box::new(Plain(Sorted::default())))
    };
    let list =
        "delete-half-range,gap-scan,drain-range,drain-expiry,expiry,snapshot-held,readrandom";
    let list = list.split(',').map(|name| name.parse().unwrap()).collect();
    let (messages, result) = run(kind(open, false), list, |_| ());
    result.unwrap();
    let left_out: Vec<String> = messages
        .iter()
        .filter_map(|message| match message {
            Message::LeftOut { workload, why } => Some(format!("{workload}: {why}")),
            _ => None,
        })
        .collect();
    for expected in [
        "delete-half-range: sorted has no range deletes",
        "gap-scan: nothing was deleted that it could cross",
        "drain-range: sorted has no range deletes",
        "drain-expiry: sorted has no entries that expire",
        "expiry: sorted has no entries that expire",
        "snapshot-held: sorted has no snapshots",
    ] {
        assert!(left_out.iter().any(|told| told == expected), "{left_out:?}");
    }
    assert!(
        figures(&messages)
            .iter()
            .any(|f| f.workload == Workload::ReadRandom)
    );
}

#[test]
fn an_engine_that_keeps_nothing_is_not_reopened() {
    let list = vec![Workload::FillSeq, Workload::Reopen, Workload::ReadRandom];
    let (messages, result) = run(
        kind(|dir, _| open_sorted(dir, Fault::None), false),
        list,
        |_| (),
    );
    result.unwrap();
    let left_out = |m: &Message| {
        matches!(
            m,
            Message::LeftOut {
                workload: Workload::Reopen,
                ..
            }
        )
    };
    assert!(messages.iter().any(left_out));
}

#[test]
fn an_unknown_engine_is_refused_with_those_there_are() {
    let mut other = kind(|dir, _| open_sorted(dir, Fault::None), true);
    let job = Job {
        engine: "unsorted".to_owned(),
        dir: "nowhere".into(),
        workloads: all(),
        settle: true,
        settings: Settings::default(),
        verbose: false,
    };
    other.name = "sorted";
    let error = worker::run(&[other], &job, &mut |_| Ok(()))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`unsorted`") && error.contains("there are: sorted"),
        "{error}"
    );
}

#[cfg(feature = "memory")]
#[test]
fn the_engine_in_memory_runs_everything_but_a_reopen() {
    let kind = vault_bench::engines::own()
        .into_iter()
        .find(|kind| kind.name == "memory");
    let (messages, result) = run(kind.unwrap(), all(), |_| ());
    result.unwrap();
    assert!(
        figures(&messages).len() >= all().len(),
        "settles come on top, and only a reopen is left out"
    );
}
