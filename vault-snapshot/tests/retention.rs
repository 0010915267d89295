//! Which snapshots stay: rules on calendars with gaps, chains, tags and clocks that went back.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use vault_core::Timestamp;
use vault_snapshot::archive::{Form, Hex, Kind, Manifest, SnapshotName, Trigger};
use vault_snapshot::retention::{Reason, Retention, dependents, plan};

const LATER: Timestamp = Timestamp(4_000_000_000_000);

/// A manifest of nothing, with this name and parent.
fn snapshot(name: SnapshotName, parent: Option<&Manifest>) -> Manifest {
    Manifest {
        format_version: 1,
        store: Hex([1; 16]),
        instance: None,
        generation: 0,
        kind: parent.map_or(Kind::Full, |_| Kind::Incremental),
        form: Form::Physical,
        parent: parent.map(|parent| parent.name),
        chain_root: parent.map_or(name, |parent| parent.chain_root),
        name,
        time: name.timestamp(),
        clock_behind: None,
        content_of: None,
        sequence: 0,
        entries: Vec::new(),
        counts: BTreeMap::new(),
        trigger: Trigger::Manual,
        tags: Vec::new(),
        note: String::new(),
        created_by: String::new(),
    }
}

fn full(name: &str) -> Manifest {
    snapshot(name.parse().unwrap(), None)
}

fn names(manifests: &[&Manifest]) -> Vec<SnapshotName> {
    manifests.iter().map(|m| m.name).collect()
}

fn kept(snapshots: &[Manifest], retention: &Retention) -> Vec<String> {
    let plan = plan(snapshots, retention, LATER);
    plan.keep.iter().map(|(name, _)| name.to_string()).collect()
}

#[test]
fn each_rule_keeps_the_newest_of_its_time() {
    let all = [
        "2025-12-28T120000Z", // a Sunday: the last of week 52
        "2025-12-29T120000Z", // week 1 of 2026
        "2025-12-31T230000Z",
        "2026-01-01T000000Z",
        "2026-01-01T005959Z",
        "2026-01-01T010000Z",
        "2026-02-28T235959Z",
        "2026-03-01T000000Z",
    ]
    .map(full);
    let rule = |retention: Retention| kept(&all, &retention);
    let none = Retention::default;
    assert_eq!(rule(none()), ["2026-03-01T000000Z"], "always the newest");
    assert_eq!(
        rule(Retention { last: 2, ..none() }),
        ["2026-02-28T235959Z", "2026-03-01T000000Z"]
    );
    assert_eq!(
        rule(Retention {
            hourly: 4,
            ..none()
        }),
        [
            "2026-01-01T005959Z",
            "2026-01-01T010000Z",
            "2026-02-28T235959Z",
            "2026-03-01T000000Z"
        ]
    );
    assert_eq!(
        rule(Retention { daily: 4, ..none() }),
        [
            "2025-12-31T230000Z",
            "2026-01-01T010000Z",
            "2026-02-28T235959Z",
            "2026-03-01T000000Z"
        ]
    );
    // The last of February 2026 is a Saturday, the first of March a Sunday: one week.
    assert_eq!(
        rule(Retention {
            weekly: 3,
            ..none()
        }),
        [
            "2025-12-28T120000Z",
            "2026-01-01T010000Z",
            "2026-03-01T000000Z"
        ]
    );
    assert_eq!(
        rule(Retention {
            monthly: 10,
            ..none()
        }),
        [
            "2025-12-31T230000Z",
            "2026-01-01T010000Z",
            "2026-02-28T235959Z",
            "2026-03-01T000000Z"
        ]
    );
    assert_eq!(
        rule(Retention {
            last: u32::MAX,
            ..none()
        })
        .len(),
        all.len()
    );
    assert!(kept(&[], &none()).is_empty());
}

#[test]
fn reasons_add_up() {
    let mut all = ["2026-01-01T000000Z", "2026-01-02T000000Z"].map(full);
    all[0].tags = vec!["release".into(), "other".into()];
    let retention = Retention {
        last: 1,
        daily: 1,
        tags: ["release".to_owned()].into(),
        ..Retention::default()
    };
    let plan = plan(&all, &retention, LATER);
    let tag = Reason::Tag("release".into());
    assert_eq!(plan.keep[0], (all[0].name, vec![tag]));
    let newest = vec![Reason::Newest, Reason::Last, Reason::Daily];
    assert_eq!(plan.keep[1], (all[1].name, newest));
    assert!(plan.remove.is_empty());
}

#[test]
fn what_lies_ahead_of_the_clock_stays() {
    let all = [
        "2026-01-01T000000Z",
        "2026-01-02T000000Z",
        "2026-01-03T000000Z",
    ]
    .map(full);
    let now = all[0].name.timestamp();
    let plan = plan(&all, &Retention::default(), now);
    assert_eq!(plan.remove, [all[0].name]);
    assert_eq!(plan.keep[0].1, [Reason::AheadOfClock]);
}

/// A clock that was once far ahead and went back leaves names that only ascend by seconds: all of one hour, day and month. The time
/// that the clock said tells them apart.
#[test]
fn calendars_go_by_the_time_where_the_name_is_ahead_of_it() {
    let mut all = vec![full("2026-01-01T000000Z"), full("2099-05-05T120000Z")];
    for day in 2..=9 {
        let behind = all[all.len() - 1].name;
        let mut made = snapshot(behind.next().unwrap(), None);
        let said: SnapshotName = format!("2026-01-0{day}T000000Z").parse().unwrap();
        (made.time, made.clock_behind) = (said.timestamp(), Some(all[1].name));
        all.push(made);
    }
    let now = Timestamp(all[9].time.0 + 1000);
    let week = Retention {
        daily: 7,
        ..Retention::default()
    };
    let planned = plan(&all, &week, now);
    assert_eq!(planned.remove, names(&[&all[0], &all[2]]));
    // One that was consolidated counts as what it is a copy of.
    let mut merged = snapshot(all[9].name.next().unwrap(), None);
    (merged.time, merged.content_of) = (all[3].time, Some(all[3].name));
    all.push(merged);
    let planned = plan(&all, &week, now);
    assert_eq!(planned.remove, names(&[&all[0], &all[2], &all[3]]));
}

#[test]
fn chains_are_kept_whole() {
    let root = full("2026-01-01T000000Z");
    let middle = snapshot("2026-01-02T000000Z".parse().unwrap(), Some(&root));
    let tip = snapshot("2026-01-03T000000Z".parse().unwrap(), Some(&middle));
    let side = snapshot("2026-01-04T000000Z".parse().unwrap(), Some(&root));
    let last = full("2026-01-05T000000Z");
    let all = [root, middle, tip, side, last];
    let [root, middle, tip, side, last] = &all;
    assert_eq!(dependents(&all, root.name), names(&[middle, tip, side]));
    assert_eq!(dependents(&all, tip.name), []);
    let mut tagged = all.clone();
    tagged[2].tags = vec!["release".into()];
    let tags = Retention {
        tags: ["release".to_owned()].into(),
        ..Retention::default()
    };
    let planned = plan(&tagged, &tags, LATER);
    assert_eq!(planned.remove, [side.name]);
    let needed = vec![tip.name];
    assert_eq!(
        planned.kept_for,
        [(root.name, needed.clone()), (middle.name, needed)]
    );
    let planned = plan(&all, &Retention::default(), LATER);
    assert_eq!(planned.remove, names(&[root, middle, tip, side]));
    assert_eq!(planned.keep.len(), 1);
    assert_eq!(planned.keep[0].0, last.name);
}

#[test]
fn a_consolidated_one_takes_the_place_of_its_original() {
    let old = full("2026-01-01T000000Z");
    let newer = full("2026-01-02T000000Z");
    let mut merged = full("2026-01-03T000000Z");
    merged.content_of = Some(old.name);
    let all = [old, newer, merged];
    let two = Retention {
        last: 2,
        ..Retention::default()
    };
    let planned = plan(&all, &two, LATER);
    assert_eq!(
        planned.remove,
        [all[0].name],
        "two moments are kept, not three"
    );
    assert_eq!(
        planned.keep[0].1,
        [Reason::Newest, Reason::Last],
        "the newest moment is the other"
    );
}

/// Documents of one vault that are newer than the backups of everything.
#[test]
fn documents_do_not_stand_in_for_files() {
    let mut all = [
        "2026-01-01T000000Z",
        "2026-01-02T000000Z",
        "2026-01-03T000000Z",
        "2026-01-04T000000Z",
    ]
    .map(full);
    all[2].form = Form::Logical;
    all[3].form = Form::Logical;
    let rules = [
        Retention::default(),
        Retention {
            last: 1,
            ..Retention::default()
        },
        Retention {
            weekly: 1,
            monthly: 1,
            ..Retention::default()
        },
    ];
    for retention in rules {
        let planned = plan(&all, &retention, LATER);
        assert_eq!(planned.remove, names(&[&all[0], &all[2]]), "{retention:?}");
        assert_eq!(planned.keep[0].0, all[1].name);
        assert!(planned.keep[0].1.contains(&Reason::Newest));
        assert!(planned.keep[1].1.contains(&Reason::Newest));
    }
    let two = Retention {
        last: 2,
        ..Retention::default()
    };
    assert_eq!(plan(&all, &two, LATER).remove, [], "two of each form");
}

proptest! {
    /// Whatever there is and whatever the rules: each snapshot is in one list, none that is kept lacks what it builds on, the
    /// newest stays, and what was pruned once needs no second time.
    #[test]
    fn a_plan_is_sound(
        seconds in proptest::collection::btree_set(0u64..40_000_000, 1..40),
        parents in proptest::collection::vec(0usize..60, 40),
        counts in proptest::array::uniform5(0u32..6),
    ) {
        let mut all: Vec<Manifest> = Vec::new();
        for (at, second) in seconds.iter().enumerate() {
            let name = SnapshotName::at(Timestamp(1_700_000_000_000 + second * 1000)).unwrap();
            let parent = all.get(parents[at]).cloned();
            all.push(snapshot(name, parent.as_ref()));
        }
        let [last, hourly, daily, weekly, monthly] = counts;
        let retention = Retention { last, hourly, daily, weekly, monthly, ..Retention::default() };
        let planned = plan(&all, &retention, LATER);
        let mut listed: Vec<_> = planned.keep.iter().map(|(name, _)| *name).collect();
        let least = [last, hourly, daily, weekly, monthly].into_iter().max().unwrap_or(0).max(1);
        prop_assert!(listed.len() <= (last + hourly + daily + weekly + monthly + 1) as usize);
        prop_assert!(listed.len() >= (last.max(1) as usize).min(all.len()), "{least}");
        prop_assert!(listed.contains(&all[all.len() - 1].name));
        listed.extend(planned.kept_for.iter().map(|(name, _)| *name));
        let staying: Vec<_> = all.iter().filter(|m| listed.contains(&m.name)).cloned().collect();
        for manifest in &staying {
            prop_assert!(manifest.parent.is_none_or(|parent| listed.contains(&parent)));
        }
        listed.extend(&planned.remove);
        listed.sort_unstable();
        prop_assert_eq!(listed, all.iter().map(|m| m.name).collect::<Vec<_>>());
        let again = plan(&staying, &retention, LATER);
        prop_assert_eq!(again.remove, Vec::new());
    }
}
