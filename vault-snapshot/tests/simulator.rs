//! The policies against a simulated store: tables of real entries, merged by the real rule, under a
//! stream of flushes, with merges that end later than they begin. After each step the promises of the
//! shape hold, every key reads as a model says, and once the stream ends, everything comes to rest.

use std::collections::{BTreeMap, BTreeSet};

use vault_core::{CompactionPolicy, KeyRange, Timestamp};
use vault_snapshot::policy::LEVELS;
use vault_snapshot::{
    Choice, Compaction, Decision, Fate, LevelShape, Placement, Planner, Rules, RunShape, Shape,
    TableShape, Version, VersionKind, planner,
};

const ENTRY_BYTES: u64 = 100;
const TABLE_BYTES: u64 = 100 * ENTRY_BYTES;
const FLUSH_ENTRIES: usize = 100;

#[derive(Debug, Clone, Copy)]
struct Entry {
    key: u64,
    version: Version,
}

#[derive(Debug)]
struct Table {
    number: u64,
    entries: Vec<Entry>,
    ends: [[u8; 8]; 2],
    busy: bool,
    /// Counted once; without keys and busyness.
    counts: TableShape<'static>,
}

impl Table {
    fn new(number: u64, entries: Vec<Entry>) -> Self {
        let end = |entry: Option<&Entry>| entry.expect("a table has entries").key.to_be_bytes();
        Self {
            number,
            ends: [end(entries.first()), end(entries.last())],
            busy: false,
            counts: count(number, &entries),
            entries,
        }
    }

    fn shape(&self) -> TableShape<'_> {
        TableShape {
            smallest: &self.ends[0],
            largest: &self.ends[1],
            busy: self.busy,
            ..self.counts
        }
    }
}

fn count(number: u64, entries: &[Entry]) -> TableShape<'static> {
    let sequences = || entries.iter().map(|entry| entry.version.sequence);
    let deletes = entries
        .iter()
        .filter(|entry| entry.version.kind == VersionKind::Delete);
    let mut expiries: Vec<_> = entries
        .iter()
        .filter_map(|entry| entry.version.expiry)
        .collect();
    expiries.sort_unstable();
    TableShape {
        number,
        bytes: entries.len() as u64 * ENTRY_BYTES,
        apart_bytes: 0,
        entries: entries.len() as u64,
        tombstones: deletes.count() as u64,
        range_tombstones: 0,
        smallest: &[],
        largest: &[],
        largest_exclusive: false,
        sequence_min: sequences().min().unwrap_or(0),
        sequence_max: sequences().max().unwrap_or(0),
        expiry_max: expiries
            .last()
            .copied()
            .filter(|_| expiries.len() == entries.len()),
        expiring: expiries.len() as u64,
        expiry_median_hint: expiries.get(expiries.len() / 2).copied(),
        busy: false,
        hidden: false,
        shadowed: 0,
    }
}

struct Simulator {
    planner: Box<dyn Planner>,
    levels: Vec<Vec<Vec<Table>>>,
    running: Vec<Compaction>,
    number: u64,
    sequence: u64,
    now: u64,
    random: u64,
    flushed: u64,
    written: u64,
    model: BTreeMap<u64, Version>,
    forgets: bool,
    at_rest: bool,
}

impl Simulator {
    fn new(policy: CompactionPolicy) -> Self {
        Self {
            planner: planner(&policy),
            levels: (0..LEVELS).map(|_| Vec::new()).collect(),
            running: Vec::new(),
            number: 0,
            sequence: 0,
            now: 1,
            random: 0x9e37_79b9_7f4a_7c15,
            flushed: 0,
            written: 0,
            model: BTreeMap::new(),
            forgets: matches!(policy, CompactionPolicy::Fifo { .. }),
            at_rest: false,
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn shape(&self) -> Shape<'_> {
        fn run(run: &[Table]) -> RunShape<'_> {
            RunShape {
                tables: run.iter().map(Table::shape).collect(),
            }
        }
        fn level(level: &[Vec<Table>]) -> LevelShape<'_> {
            LevelShape {
                runs: level.iter().map(|tables| run(tables)).collect(),
            }
        }
        Shape {
            levels: self.levels.iter().map(|runs| level(runs)).collect(),
            now: Timestamp(self.now),
            oldest_snapshot: self.sequence,
            table_bytes: TABLE_BYTES,
            at_rest: self.at_rest,
        }
    }

    fn tables(&mut self, mut entries: Vec<Entry>) -> Vec<Table> {
        entries.sort_by_key(|entry| entry.key);
        let chunks = entries.chunks((TABLE_BYTES / ENTRY_BYTES) as usize);
        chunks
            .map(|chunk| {
                self.number += 1;
                Table::new(self.number, chunk.to_vec())
            })
            .collect()
    }

    fn flush(&mut self, writes: impl IntoIterator<Item = (u64, VersionKind, Option<u64>)>) {
        let mut entries = BTreeMap::new();
        for (key, kind, expiry) in writes {
            self.sequence += 1;
            let version = Version {
                sequence: self.sequence,
                kind,
                expiry: expiry.map(Timestamp),
            };
            entries.insert(key, Entry { key, version });
            self.model.insert(key, version);
        }
        self.flushed += entries.len() as u64 * ENTRY_BYTES;
        let run = self.tables(entries.into_values().collect());
        self.levels[0].insert(0, run);
    }

    fn flush_random(&mut self, keys: u64) {
        let writes: Vec<_> = (0..FLUSH_ENTRIES)
            .map(|_| (self.random(keys), VersionKind::Put, None))
            .collect();
        self.flush(writes);
    }

    /// Begins a choice; moves and drops take effect at once. Returns false for nothing.
    fn begin(&mut self, choice: Choice) -> bool {
        match choice {
            Choice::Nothing => return false,
            Choice::Drop { tables, .. } => {
                for (level, number) in tables {
                    assert!(!self.take(level, number).busy);
                }
            }
            Choice::Move {
                level,
                table,
                to_level,
                ..
            } => {
                let table = self.take(level, table);
                assert!(!table.busy && to_level > level);
                self.join(to_level, vec![table]);
            }
            Choice::Merge(merge) => {
                for input in &merge.inputs {
                    for number in &input.tables {
                        let table = self.levels[input.level]
                            .iter_mut()
                            .flatten()
                            .find(|table| table.number == *number)
                            .expect("an input exists");
                        assert!(!table.busy, "a busy table was chosen");
                        table.busy = true;
                    }
                }
                self.running.push(merge);
            }
        }
        self.check();
        true
    }

    fn take(&mut self, level: usize, number: u64) -> Table {
        for run in &mut self.levels[level] {
            if let Some(index) = run.iter().position(|table| table.number == number) {
                let table = run.remove(index);
                self.levels[level].retain(|run| !run.is_empty());
                return table;
            }
        }
        panic!("table {number} is not in level {level}")
    }

    fn join(&mut self, level: usize, tables: Vec<Table>) {
        if self.levels[level].is_empty() {
            self.levels[level].push(Vec::new());
        }
        self.levels[level][0].extend(tables);
        self.levels[level][0].sort_by_key(|table| table.ends);
        self.levels[level].retain(|run| !run.is_empty());
    }

    /// Ends a running merge: replaces its inputs by what the rule of visibility leaves of them.
    fn finish(&mut self, index: usize) {
        let merge = self.running.remove(index);
        let place = self.levels[0].iter().position(|run| {
            run.iter()
                .any(|table| merge.inputs[0].tables.contains(&table.number))
        });
        let mut versions: BTreeMap<u64, Vec<Version>> = BTreeMap::new();
        for input in &merge.inputs {
            for &number in &input.tables {
                for entry in self.take(input.level, number).entries {
                    versions.entry(entry.key).or_default().push(entry.version);
                }
            }
        }
        let rules = Rules::new(vec![], merge.bottommost, Timestamp(self.now));
        let mut decision = Decision::default();
        let mut kept = Vec::new();
        for (key, versions) in versions {
            rules.decide(&versions, &[], &mut decision);
            for (version, fate) in versions.iter().zip(&decision.fates) {
                let version = match fate {
                    Fate::Keep => *version,
                    Fate::KeepAsTombstone => Version {
                        kind: VersionKind::Delete,
                        expiry: None,
                        ..*version
                    },
                    Fate::Drop(_) | Fate::Fold => continue,
                };
                kept.push(Entry { key, version });
            }
        }
        self.written += kept.len() as u64 * ENTRY_BYTES;
        let tables = self.tables(kept);
        match merge.placement {
            Placement::ReplaceRun => self.join(merge.output_level, tables),
            Placement::NewRun {} if tables.is_empty() => {}
            Placement::NewRun {} => {
                self.levels[0].insert(place.expect("inputs in level 0"), tables);
            }
        }
        self.check();
    }

    /// Works until nothing is left to do, `parallel` merges at a time, ending them in random order.
    fn settle(&mut self, parallel: usize, mut choose: impl FnMut(&Self) -> Choice) -> usize {
        for steps in 0..100_000 {
            let choice = if self.running.len() < parallel {
                choose(self)
            } else {
                Choice::Nothing
            };
            if !self.begin(choice) {
                if self.running.is_empty() {
                    return steps;
                }
                let index = self.random(self.running.len() as u64) as usize;
                self.finish(index);
            }
        }
        panic!("it does not come to rest")
    }

    fn work(&mut self) {
        self.settle(3, |it| it.planner.choose(&it.shape()));
        assert_eq!(self.planner.debt(&self.shape()).pressure, 0.0);
    }

    /// The promises of the shape.
    fn check(&self) {
        for (level, runs) in self.levels.iter().enumerate() {
            assert!(
                level == 0 || runs.len() <= 1,
                "level {level} is not one run"
            );
            for run in runs {
                assert!(
                    run.is_sorted_by(|a, b| a.ends[1] < b.ends[0]),
                    "overlap in level {level}"
                );
            }
        }
    }

    /// Every key reads as the model says, and no version lies above a newer one.
    fn verify(&self) {
        let mut found: BTreeMap<u64, Version> = BTreeMap::new();
        let mut newest = BTreeMap::new();
        for entry in self
            .levels
            .iter()
            .flatten()
            .flat_map(|run| run.iter().flat_map(|t| &t.entries))
        {
            let last = newest.insert(entry.key, entry.version.sequence);
            assert!(
                last.is_none_or(|last| last > entry.version.sequence),
                "age order is broken"
            );
            found.entry(entry.key).or_insert(entry.version);
        }
        let live = |version: &Version| {
            version.kind == VersionKind::Put && version.expiry.is_none_or(|e| e.0 > self.now)
        };
        for (key, expected) in &self.model {
            let visible = found.get(key).filter(|version| live(version));
            match visible {
                Some(visible) => assert_eq!(visible, expected, "key {key}"),
                None => assert!(self.forgets || !live(expected), "key {key} is lost"),
            }
        }
    }

    fn bytes(&self) -> u64 {
        self.shape().levels.iter().map(LevelShape::bytes).sum()
    }

    fn live_bytes(&self) -> u64 {
        self.model.len() as u64 * ENTRY_BYTES
    }

    fn amplification(&self) -> f64 {
        (self.flushed + self.written) as f64 / self.flushed as f64
    }

    /// Flushes with one step of work after each, so that merges run while new flushes come.
    fn stream(&mut self, flushes: usize, keys: u64) {
        for _ in 0..flushes {
            self.flush_random(keys);
            for _ in 0..4 {
                let choice = self.planner.choose(&self.shape());
                if self.running.len() >= 3 || !self.begin(choice) {
                    if self.running.is_empty() {
                        break;
                    }
                    let index = self.random(self.running.len() as u64) as usize;
                    self.finish(index);
                }
            }
        }
        self.work();
        self.verify();
    }
}

fn leveled() -> CompactionPolicy {
    CompactionPolicy::Leveled {
        level0_runs: 4,
        base_bytes: 4 * TABLE_BYTES,
        fanout: 4,
    }
}

#[test]
fn leveled_keeps_sizes_and_amplification_bounded() {
    let mut it = Simulator::new(leveled());
    it.stream(1_500, 40_000);
    let shape = it.shape();
    let filled: Vec<u64> = shape.levels.iter().map(LevelShape::bytes).collect();
    let (last, above) = (
        filled[LEVELS - 1],
        filled[1..LEVELS - 1].iter().sum::<u64>(),
    );
    println!(
        "levels {filled:?}, write amplification {:.2}",
        it.amplification()
    );
    assert!(above * 2 < last, "{filled:?}");
    assert!(shape.levels[0].runs.len() < 4);
    let levels = filled[1..].iter().filter(|&&bytes| bytes > 0).count();
    assert!(
        levels >= 3,
        "the store is deep enough to say something: {filled:?}"
    );
    assert!(
        it.amplification() < (levels * 4) as f64 + 2.0,
        "{}",
        it.amplification()
    );
    assert!(
        it.bytes() * 2 < it.live_bytes() * 3,
        "{} of {}",
        it.bytes(),
        it.live_bytes()
    );
}

#[test]
fn tiered_writes_less_than_leveled_within_its_space() {
    let mut tiered = Simulator::new(CompactionPolicy::TIERED);
    tiered.stream(1_500, 40_000);
    let mut level = Simulator::new(leveled());
    level.stream(1_500, 40_000);
    println!(
        "{:.2} < {:.2}",
        tiered.amplification(),
        level.amplification()
    );
    assert!(tiered.amplification() < level.amplification());
    assert!(tiered.levels[0].len() <= 12);
    assert!(tiered.bytes() <= 3 * tiered.live_bytes() + TABLE_BYTES);
}

#[test]
fn ascending_keys_move_without_being_rewritten() {
    let mut it = Simulator::new(leveled());
    for flush in 0..300_u64 {
        it.flush((flush * 100..flush * 100 + 100).map(|key| (key, VersionKind::Put, None)));
        it.work();
    }
    it.verify();
    assert_eq!(it.written, 0, "bytes rewritten");
}

#[test]
fn deletes_give_their_space_back() {
    for policy in [leveled(), CompactionPolicy::TIERED] {
        let mut it = Simulator::new(policy);
        it.stream(200, 10_000);
        for begin in (0..10_000).step_by(FLUSH_ENTRIES) {
            it.flush((begin..begin + 100).map(|key| (key, VersionKind::Delete, None)));
            it.work();
        }
        it.verify();
        println!("{} left {} bytes", policy.name(), it.bytes());
        assert!(
            it.bytes() < 60 * TABLE_BYTES,
            "{} of {}",
            it.bytes(),
            policy.name()
        );
    }
}

/// What a pause in the writes is for, and what it may cost: the runs of level 0 go down, or become one, and never is more rewritten
/// than the stated multiple of what was written since the last pause.
#[test]
fn a_pause_leaves_reads_few_runs_and_costs_a_bounded_amount() {
    use vault_snapshot::policy::REST_RATIO;
    // Stores from a few tables to hundreds; level 0 from one run to three.
    for flushes in [5, 21, 62, 123, 403, 1002] {
        let mut it = Simulator::new(leveled());
        it.stream(flushes, 1_000_000);
        for _ in 0..5 {
            let bytes_of = |table: &Table| table.counts.bytes;
            let level0: u64 = it.levels[0].iter().flatten().map(bytes_of).sum();
            let mut rewritten = 0;
            it.at_rest = true;
            it.settle(1, |it| {
                let choice = it.planner.choose(&it.shape());
                if let Choice::Merge(merge) = &choice
                    && merge.reason == "nobody writes"
                {
                    let numbers = merge.inputs.iter().flat_map(|input| &input.tables);
                    let inputs: BTreeSet<u64> = numbers.copied().collect();
                    let tables = it.levels.iter().flatten().flatten();
                    let inputs = tables.filter(|table| inputs.contains(&table.number));
                    rewritten += inputs.map(bytes_of).sum::<u64>();
                }
                choice
            });
            it.verify();
            assert!(it.levels[0].len() <= 1, "{} runs stay", it.levels[0].len());
            assert!(
                rewritten <= level0 * (REST_RATIO + 1),
                "{rewritten} bytes for {level0}"
            );
            assert_eq!(it.planner.choose(&it.shape()), Choice::Nothing);
            it.at_rest = false;
            it.flush_random(1_000_000);
            it.work();
        }
    }
    // A small store becomes one run: nothing is left to merge while reading.
    let mut it = Simulator::new(leveled());
    it.stream(7, 1_000_000);
    it.at_rest = true;
    it.work();
    assert_eq!(it.levels.iter().flatten().count(), 1);
}

#[test]
fn expired_tables_go_whole_unless_older_data_lies_below() {
    for policy in [leveled(), CompactionPolicy::TIERED] {
        let mut it = Simulator::new(policy);
        it.flush((0..100).map(|key| (key, VersionKind::Put, None)));
        it.flush((50..150).map(|key| (key, VersionKind::Put, Some(100))));
        it.flush((200..300).map(|key| (key, VersionKind::Put, Some(100))));
        let before = it.planner.choose(&it.shape());
        assert!(!matches!(before, Choice::Drop { .. }), "{before:?}");
        it.now = 100;
        let numbers: BTreeSet<u64> = match it.planner.choose(&it.shape()) {
            Choice::Drop { tables, .. } => tables.into_iter().map(|(_, number)| number).collect(),
            other => panic!("{other:?}"),
        };
        assert_eq!(numbers, BTreeSet::from([3]), "{}", policy.name());
        it.work();
        it.verify();
    }
}

/// Puts, deletes and expiries in any order, time passing: nothing is lost, nothing comes back.
#[test]
fn mixed_histories_read_as_the_model_says() {
    let fanouts = [2, 4, 10].map(|fanout| CompactionPolicy::Leveled {
        level0_runs: 2,
        base_bytes: 2 * TABLE_BYTES,
        fanout,
    });
    for (seed, policy) in (1..).zip(fanouts.into_iter().chain([CompactionPolicy::TIERED])) {
        let mut it = Simulator::new(policy);
        it.random = seed;
        for _ in 0..300 {
            let begin = it.random(5_000);
            let expires = it.random(4) == 0;
            let writes: Vec<_> = (0..FLUSH_ENTRIES as u64)
                .map(|_| match it.random(10) {
                    0..3 => (begin + it.random(1_000), VersionKind::Delete, None),
                    _ => {
                        let expiry = expires.then(|| it.now + 1 + it.random(50));
                        (begin + it.random(1_000), VersionKind::Put, expiry)
                    }
                })
                .collect();
            it.flush(writes);
            it.now += it.random(3);
            for _ in 0..it.random(6) {
                let choice = it.planner.choose(&it.shape());
                if !it.begin(choice) && !it.running.is_empty() {
                    let index = it.random(it.running.len() as u64) as usize;
                    it.finish(index);
                }
            }
            it.verify();
        }
        it.work();
        it.now += 100;
        it.work();
        it.verify();
    }
}

#[test]
fn fifo_stays_within_its_bytes_and_bounds_its_files() {
    let bytes_max = 50 * TABLE_BYTES;
    let mut it = Simulator::new(CompactionPolicy::Fifo { bytes_max });
    for _ in 0..200 {
        it.flush_random(100_000);
        it.work();
        assert!(it.bytes() <= bytes_max);
    }
    it.verify();
    assert!(
        it.bytes() > bytes_max - 2 * TABLE_BYTES,
        "it keeps what it may"
    );
    for key in 0..3_000 {
        it.flush([(key, VersionKind::Put, None)]);
        it.work();
        // Sixteen small neighbours at most, and whatever was merged is an eighth of a table or more.
        let runs_max = 17 + 8 * it.bytes() / TABLE_BYTES;
        assert!(it.bytes() <= bytes_max && it.levels[0].len() as u64 <= runs_max);
    }
    assert!(
        it.levels[0].len() < 250,
        "{} runs of 3,000 flushes",
        it.levels[0].len()
    );
    it.verify();
}

#[test]
fn a_compaction_that_was_asked_for_ends_with_one_run() {
    let ranges = [
        KeyRange::all(),
        KeyRange::new(1_000_u64.to_be_bytes()..2_000_u64.to_be_bytes()),
    ];
    for policy in [
        leveled(),
        CompactionPolicy::TIERED,
        CompactionPolicy::Fifo { bytes_max: 1 << 40 },
    ] {
        for range in &ranges {
            let mut it = Simulator::new(policy);
            it.stream(300, 10_000);
            it.flush_random(10_000);
            let floor = it.number + 1;
            let mut flushes = 0;
            let steps = it.settle(1, |it| it.planner.choose_range(&it.shape(), range, floor));
            it.verify();
            let shape = it.shape();
            let runs = shape.levels.iter().flat_map(|level| &level.runs);
            assert_eq!(runs.filter(|run| !run.within(range).is_empty()).count(), 1);
            println!("{} in {steps} steps", policy.name());
            // What is flushed meanwhile is left alone, so that it ends.
            let again = it.settle(1, |it| it.planner.choose_range(&it.shape(), range, floor));
            assert_eq!(again, 0);
            while flushes < 3 {
                it.flush_random(10_000);
                flushes += 1;
            }
            let again = it.settle(1, |it| it.planner.choose_range(&it.shape(), range, floor));
            assert_eq!(again, 0, "{}", policy.name());
        }
    }
}

#[test]
fn pressure_grows_with_the_runs_of_level_0() {
    let mut it = Simulator::new(leveled());
    let mut last = 0.0;
    let mut at = Vec::new();
    for _ in 0..24 {
        it.flush_random(10_000);
        let debt = it.planner.debt(&it.shape());
        assert!(debt.pressure >= last && debt.pressure <= 2.0);
        last = debt.pressure;
        at.push(debt.pressure);
    }
    assert!(
        at[3] < 0.01 && at[6] < 1.0 && at[7] == 1.0 && at[18] < 2.0 && at[19] == 2.0,
        "{at:?}"
    );
}
