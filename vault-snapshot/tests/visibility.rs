//! The rule of visibility against every reader that could exist.
//!
//! A random history of one key is cut by age into what lies above a merge, in it and below it. After
//! the decision is applied, each snapshot, each reader to come, at each later moment must read what it
//! read before. A second merge of everything, with fewer snapshots and at a later time, follows.

use proptest::prelude::*;
use vault_core::Timestamp;
use vault_snapshot::visibility::{
    Decision, DropReason, Fate, FoldBase, Rules, Version, VersionKind,
};

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    version: Version,
    value: Vec<u8>,
}

/// What one run, or several together, hold about the key: entries newest first, tombstones descending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Run {
    entries: Vec<Entry>,
    tombstones: Vec<u64>,
}

impl Run {
    fn over(&self, older: &Self) -> Self {
        Self {
            entries: [self.entries.clone(), older.entries.clone()].concat(),
            tombstones: [self.tombstones.clone(), older.tombstones.clone()].concat(),
        }
    }

    /// The reference: what a reader at `sequence` sees at `time`, with an operator that appends.
    fn read(&self, sequence: u64, time: Timestamp) -> Option<Vec<u8>> {
        let mut operands: Vec<&[u8]> = Vec::new();
        let mut base: Option<&[u8]> = None;
        for Entry { version, value } in &self.entries {
            if version.sequence > sequence {
                continue;
            }
            let covered = |&t: &u64| t <= sequence && t > version.sequence;
            let expired = version.expiry.is_some_and(|expiry| expiry <= time);
            if self.tombstones.iter().any(covered) || version.kind == VersionKind::Delete || expired
            {
                break;
            }
            if version.kind == VersionKind::Put {
                base = Some(value);
                break;
            }
            operands.push(value);
        }
        if operands.is_empty() {
            return base.map(<[u8]>::to_vec);
        }
        let parts = base.into_iter().chain(operands.into_iter().rev());
        Some(parts.flatten().copied().collect())
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Write(VersionKind, Option<u64>),
    RangeDelete,
}

fn step() -> impl Strategy<Value = Step> {
    let expiry = || prop_oneof![2 => Just(None), 1 => (1_u64..12).prop_map(Some)];
    prop_oneof![
        3 => expiry().prop_map(|expiry| Step::Write(VersionKind::Put, expiry)),
        4 => expiry().prop_map(|expiry| Step::Write(VersionKind::Merge, expiry)),
        2 => Just(Step::Write(VersionKind::Delete, None)),
        1 => Just(Step::RangeDelete),
    ]
}

#[derive(Debug, Clone)]
struct Case {
    history: Vec<Step>,
    cut_low: u64,
    cut_high: u64,
    bottommost: bool,
    snapshots: Vec<u64>,
    released: Vec<u64>,
    now: u64,
    later: u64,
    combines: bool,
    fails: bool,
    zeroes: bool,
}

fn case() -> impl Strategy<Value = Case> {
    (
        (
            prop::collection::vec(step(), 1..11),
            any::<u64>(),
            any::<u64>(),
            any::<bool>(),
        ),
        (
            prop::collection::vec(0_u64..11, 0..4),
            prop::collection::vec(0_u64..11, 0..3),
        ),
        (0_u64..12, 0_u64..6),
        (any::<bool>(), prop::bool::weighted(0.1), any::<bool>()),
    )
        .prop_map(
            |((history, a, b, bottommost), (snapshots, released), (now, wait), flags)| {
                let count = history.len() as u64;
                let (a, b) = (a % (count + 1), b % (count + 1));
                Case {
                    cut_low: if bottommost { 0 } else { a.min(b) },
                    cut_high: a.max(b),
                    history,
                    bottommost,
                    snapshots,
                    released,
                    now,
                    later: now + wait,
                    combines: flags.0,
                    fails: flags.1,
                    zeroes: flags.2,
                }
            },
        )
}

impl Case {
    /// The part of the history with sequences in `low + 1 ..= high`.
    fn run(&self, low: u64, high: u64) -> Run {
        let mut run = Run::default();
        for sequence in (low + 1..=high).rev() {
            match self.history[sequence as usize - 1] {
                Step::RangeDelete => run.tombstones.push(sequence),
                Step::Write(kind, expiry) => run.entries.push(Entry {
                    version: Version {
                        sequence,
                        kind,
                        expiry: expiry.map(Timestamp),
                    },
                    value: vec![sequence as u8],
                }),
            }
        }
        run
    }

    fn apply(&self, rules: &Rules, run: &Run) -> Run {
        let versions: Vec<Version> = run.entries.iter().map(|entry| entry.version).collect();
        let mut decision = Decision::default();
        // Stale content must not shine through.
        decision.fates.push(Fate::KeepAsTombstone);
        rules.decide(&versions, &run.tombstones, &mut decision);
        assert_eq!(decision.fates.len(), versions.len());
        self.write(rules, run, &decision)
    }

    /// What an engine does with a decision.
    fn write(&self, rules: &Rules, run: &Run, decision: &Decision) -> Run {
        let mut out = Run::default();
        let mut folds = decision.folds.iter();
        let mut index = 0;
        while index < run.entries.len() {
            let entry = &run.entries[index];
            match decision.fates[index] {
                Fate::Keep => out.entries.push(entry.clone()),
                Fate::KeepAsTombstone => out.entries.push(Entry {
                    version: Version {
                        kind: VersionKind::Delete,
                        expiry: None,
                        ..entry.version
                    },
                    value: Vec::new(),
                }),
                Fate::Drop(_) => {}
                Fate::Fold => {
                    let fold = folds.next().expect("a fold for each group");
                    assert_eq!(fold.newest, index);
                    let members = &run.entries[fold.newest..=fold.oldest];
                    let refused = match fold.base {
                        FoldBase::Unknown => !self.combines,
                        FoldBase::Value | FoldBase::Nothing => self.fails,
                    };
                    if refused {
                        out.entries.extend_from_slice(members);
                    } else {
                        let operands = &run.entries[fold.newest..=fold.operand_oldest];
                        assert!(
                            operands
                                .iter()
                                .all(|operand| operand.version.kind == VersionKind::Merge)
                        );
                        let base = match fold.base {
                            FoldBase::Value => run.entries[fold.oldest].value.clone(),
                            FoldBase::Nothing | FoldBase::Unknown => Vec::new(),
                        };
                        let kind = match fold.base {
                            FoldBase::Unknown => VersionKind::Merge,
                            FoldBase::Value | FoldBase::Nothing => VersionKind::Put,
                        };
                        let parts = operands.iter().rev().flat_map(|entry| entry.value.clone());
                        out.entries.push(Entry {
                            version: Version {
                                kind,
                                expiry: None,
                                ..entry.version
                            },
                            value: base.into_iter().chain(parts).collect(),
                        });
                    }
                    index = fold.oldest;
                }
            }
            index += 1;
        }
        assert!(folds.next().is_none(), "a fold that no fate names");
        for entry in &mut out.entries {
            if self.zeroes && rules.can_zero_sequence(&entry.version) {
                entry.version.sequence = 0;
            }
        }
        out.tombstones = run.tombstones.clone();
        out.tombstones.retain(|&t| rules.range_tombstone_stays(t));
        let kept = out.tombstones.clone();
        out.tombstones.retain(|&t| {
            !kept
                .iter()
                .any(|&newer| newer > t && rules.range_tombstone_adds_nothing(t, newer))
        });
        out
    }

    fn rules(&self, cut: u64) -> Rules {
        let snapshots = self
            .snapshots
            .iter()
            .copied()
            .filter(|&s| s <= cut.max(self.last()));
        Rules::new(snapshots.collect(), self.bottommost, Timestamp(self.now))
    }

    fn last(&self) -> u64 {
        self.history.len() as u64
    }

    /// The first reader, if any, that reads something else from `after` than from `before`.
    fn difference(&self, before: &Run, after: &Run, rules: &Rules, from: u64) -> Option<String> {
        let readers = rules
            .snapshots
            .iter()
            .copied()
            .chain(from..=self.last() + 1);
        for sequence in readers {
            for time in rules.now.0..14 {
                let expected = before.read(sequence, Timestamp(time));
                let found = after.read(sequence, Timestamp(time));
                if expected != found {
                    return Some(format!(
                        "at {sequence}, time {time}: {found:?} instead of {expected:?}; {after:?}"
                    ));
                }
            }
        }
        None
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 40_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn nobody_ever_reads_anything_else(case in case()) {
        let whole = case.run(0, case.last());
        let (above, below) = (case.run(case.cut_high, case.last()), case.run(0, case.cut_low));
        let middle = case.run(case.cut_low, case.cut_high);
        let rules = case.rules(case.cut_high);
        let merged = case.apply(&rules, &middle);
        let after = above.over(&merged).over(&below);
        let difference = case.difference(&whole, &after, &rules, case.cut_high);
        prop_assert!(difference.is_none(), "{difference:?}");

        // Merging the output again changes nothing but can only shrink it.
        let again = case.apply(&rules, &merged);
        prop_assert!(again.entries.len() <= merged.entries.len());
        let difference = case.difference(&whole, &above.over(&again).over(&below), &rules, case.cut_high);
        prop_assert!(difference.is_none(), "again: {difference:?}");

        // Later, with fewer snapshots, everything is merged to the bottom.
        let mut snapshots = rules.snapshots.clone();
        snapshots.retain(|s| !case.released.contains(s));
        let late = Rules::new(snapshots, true, Timestamp(case.later));
        let last = case.apply(&late, &after);
        let difference = case.difference(&whole, &last, &late, case.last());
        prop_assert!(difference.is_none(), "late: {difference:?}");
    }

    /// The rule keeps no more than the readers need, where that can be said simply.
    #[test]
    fn without_snapshots_and_merges_one_version_stays(case in case()) {
        let mut case = case;
        for step in &mut case.history {
            if let Step::Write(kind @ VersionKind::Merge, _) = step {
                *kind = VersionKind::Put;
            }
        }
        let run = case.run(0, case.last());
        let now = Timestamp(case.now);
        let bottom = case.apply(&Rules::new(vec![], true, now), &run);
        let visible = run.read(u64::MAX, now).is_some();
        prop_assert_eq!(bottom.entries.len(), usize::from(visible));
        prop_assert!(bottom.tombstones.is_empty());
        let above = case.apply(&Rules::new(vec![], false, now), &run);
        prop_assert!(above.entries.len() <= 1);
    }

    /// Without expiries nothing can hold operands apart: at the bottom a single put is left.
    #[test]
    fn without_snapshots_and_expiries_merges_fold_whole(case in case()) {
        let mut case = case;
        for step in &mut case.history {
            if let Step::Write(_, expiry) = step {
                *expiry = None;
            }
        }
        (case.fails, case.combines) = (false, true);
        let run = case.run(0, case.last());
        let now = Timestamp(case.now);
        let bottom = case.apply(&Rules::new(vec![], true, now), &run);
        let expected: Vec<Vec<u8>> = run.read(u64::MAX, now).into_iter().collect();
        let found: Vec<Vec<u8>> = bottom.entries.iter().map(|entry| entry.value.clone()).collect();
        prop_assert_eq!(found, expected);
        prop_assert!(bottom.entries.iter().all(|entry| entry.version.kind == VersionKind::Put));
        let above = case.apply(&Rules::new(vec![], false, now), &run);
        prop_assert!(above.entries.len() <= 1);
    }
}

/// The checks above have teeth: whoever drops one version more is found out, nearly always.
#[test]
fn dropping_one_version_more_is_noticed() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut tried, mut noticed) = (0_u32, 0_u32);
    for _ in 0..20_000 {
        let case = case().new_tree(&mut runner).unwrap().current();
        let whole = case.run(0, case.last());
        let (above, below) = (
            case.run(case.cut_high, case.last()),
            case.run(0, case.cut_low),
        );
        let middle = case.run(case.cut_low, case.cut_high);
        let rules = case.rules(case.cut_high);
        let merged = case.apply(&rules, &middle);
        for index in 0..merged.entries.len() {
            let mut short = merged.clone();
            let gone = short.entries.remove(index);
            if gone.version.kind == VersionKind::Delete && below.entries.is_empty() {
                continue; // What it hides happens not to be there in this case.
            }
            tried += 1;
            let after = above.over(&short).over(&below);
            let difference = case.difference(&whole, &after, &rules, case.cut_high);
            noticed += u32::from(difference.is_some());
        }
    }
    println!("{noticed} of {tried} noticed");
    assert!(
        tried > 10_000 && noticed * 10 > tried * 8,
        "{noticed} of {tried}"
    );
}

fn version(sequence: u64, kind: VersionKind, expiry: Option<u64>) -> Version {
    Version {
        sequence,
        kind,
        expiry: expiry.map(Timestamp),
    }
}

fn fates(rules: &Rules, versions: &[Version], covering: &[u64]) -> Decision {
    let mut decision = Decision::default();
    rules.decide(versions, covering, &mut decision);
    decision
}

#[test]
fn an_expired_put_hides_what_lies_below_until_the_bottom() {
    let versions = [version(9, VersionKind::Put, Some(50))];
    let mut rules = Rules::new(vec![], false, Timestamp(50));
    assert_eq!(fates(&rules, &versions, &[]).fates, [Fate::KeepAsTombstone]);
    rules.bottommost = true;
    let gone = [Fate::Drop(DropReason::Expired)];
    assert_eq!(fates(&rules, &versions, &[]).fates, gone);
    rules.now = Timestamp(49);
    assert_eq!(fates(&rules, &versions, &[]).fates, [Fate::Keep]);
}

#[test]
fn a_snapshot_keeps_its_version_and_the_delete_above_it() {
    let versions = [
        version(9, VersionKind::Delete, None),
        version(5, VersionKind::Put, None),
        version(4, VersionKind::Put, None),
    ];
    let obsolete = Fate::Drop(DropReason::Obsolete);
    let rules = Rules::new(vec![6], true, Timestamp(0));
    let expected = [Fate::Keep, Fate::Keep, obsolete];
    assert_eq!(fates(&rules, &versions, &[]).fates, expected);
    let rules = Rules::new(vec![], true, Timestamp(0));
    let expected = [Fate::Drop(DropReason::Tombstone), obsolete, obsolete];
    assert_eq!(fates(&rules, &versions, &[]).fates, expected);
}

#[test]
fn a_live_expiry_is_never_folded() {
    let versions = [
        version(9, VersionKind::Merge, None),
        version(8, VersionKind::Merge, None),
        version(7, VersionKind::Merge, Some(100)),
        version(6, VersionKind::Merge, None),
        version(5, VersionKind::Put, None),
    ];
    let rules = Rules::new(vec![], true, Timestamp(0));
    let decision = fates(&rules, &versions, &[]);
    let fold = Fate::Fold;
    assert_eq!(decision.fates, [fold, fold, Fate::Keep, fold, fold]);
    let bases: Vec<_> = decision
        .folds
        .iter()
        .map(|f| (f.newest, f.oldest, f.base))
        .collect();
    assert_eq!(bases, [(0, 1, FoldBase::Unknown), (3, 4, FoldBase::Value)]);
}

#[test]
fn a_delete_below_operands_is_swallowed_even_above_the_bottom() {
    let versions = [
        version(9, VersionKind::Merge, None),
        version(8, VersionKind::Delete, None),
    ];
    let decision = fates(&Rules::new(vec![], false, Timestamp(0)), &versions, &[]);
    assert_eq!(decision.fates, [Fate::Fold, Fate::Fold]);
    assert_eq!(decision.folds[0].base, FoldBase::Nothing);
    assert_eq!(decision.folds[0].operand_oldest, 0);
    // Where a snapshot lies between the two, the delete stays, and serves as nothing all the same.
    let decision = fates(&Rules::new(vec![8], false, Timestamp(0)), &versions, &[]);
    assert_eq!(decision.fates, [Fate::Fold, Fate::Keep]);
    assert_eq!(decision.folds[0].base, FoldBase::Nothing);
}

#[test]
fn a_range_tombstone_hides_within_its_stripe_only() {
    let versions = [version(5, VersionKind::Put, None)];
    let rules = Rules::new(vec![], true, Timestamp(0));
    let gone = [Fate::Drop(DropReason::RangeDeleted)];
    assert_eq!(fates(&rules, &versions, &[7]).fates, gone);
    assert!(!rules.range_tombstone_stays(7));
    let rules = Rules::new(vec![5], true, Timestamp(0));
    assert_eq!(fates(&rules, &versions, &[7]).fates, [Fate::Keep]);
    assert!(rules.range_tombstone_stays(7));
}
