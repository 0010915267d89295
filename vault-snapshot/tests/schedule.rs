//! When snapshots are due: by time, by change, by events; after failures, long pauses and jumps of the clock.

use std::time::Duration;

use vault_core::{Error, Timestamp};
use vault_snapshot::archive::Trigger;
use vault_snapshot::schedule::{Changes, Decision, Schedule, Scheduler};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const NOTHING: Changes = Changes {
    entries: 0,
    bytes: 0,
};

fn at(millis: u64) -> Timestamp {
    Timestamp(millis)
}

fn hourly() -> Schedule {
    Schedule {
        interval: Some(Duration::from_secs(3600)),
        ..Schedule::default()
    }
}

fn not_due(next: u64) -> Decision {
    Decision::NotDue {
        next: Some(at(next)),
    }
}

fn changed(entries: u64, bytes: u64) -> Changes {
    Changes { entries, bytes }
}

#[test]
fn an_interval_makes_one_due_each_time() {
    let mut scheduler = Scheduler::new(hourly(), None, at(0)).unwrap();
    for hour in 1..5 {
        assert_eq!(
            scheduler.decide(at(hour * HOUR - 1), NOTHING),
            not_due(hour * HOUR)
        );
        let due = scheduler.decide(at(hour * HOUR), NOTHING);
        assert_eq!(due, Decision::Due(Trigger::Interval));
        scheduler.ended(at(hour * HOUR + MINUTE), true);
    }
}

#[test]
fn missed_timers_are_caught_up_with_once() {
    // The last one was made long before the process began.
    let mut scheduler = Scheduler::new(hourly(), Some(at(HOUR / 2)), at(100 * HOUR)).unwrap();
    let now = at(100 * HOUR);
    assert_eq!(
        scheduler.decide(now, NOTHING),
        Decision::Due(Trigger::Interval)
    );
    scheduler.ended(now, true);
    // The next is on the grid again.
    assert_eq!(
        scheduler.decide(now, NOTHING),
        not_due(100 * HOUR + HOUR / 2)
    );
}

#[test]
fn never_two_at_a_time() {
    let mut schedule = hourly();
    schedule.changed_entries = Some(1);
    schedule.events = ["deploy".to_owned()].into();
    let mut scheduler = Scheduler::new(schedule, None, at(0)).unwrap();
    assert_eq!(
        scheduler.decide(at(HOUR), NOTHING),
        Decision::Due(Trigger::Interval)
    );
    scheduler.happened("deploy");
    for hour in 1..9 {
        let none = Decision::NotDue { next: None };
        assert_eq!(scheduler.decide(at(hour * HOUR), changed(hour, 0)), none);
    }
    scheduler.ended(at(9 * HOUR), true);
    // What happened meanwhile is due now, once.
    let due = scheduler.decide(at(9 * HOUR), changed(8, 0));
    assert_eq!(due, Decision::Due(Trigger::Event("deploy".into())));
    scheduler.ended(at(9 * HOUR), true);
    assert_eq!(
        scheduler.decide(at(9 * HOUR), changed(8, 0)),
        not_due(10 * HOUR)
    );
    // Nothing runs: an end that nobody waited for changes nothing.
    scheduler.ended(at(9 * HOUR), false);
    assert_eq!(
        scheduler.decide(at(9 * HOUR), changed(8, 0)),
        not_due(10 * HOUR)
    );
}

#[test]
fn change_makes_one_due_by_entries_or_bytes() {
    let schedule = Schedule {
        changed_entries: Some(100),
        changed_bytes: Some(1 << 20),
        ..Schedule::default()
    };
    let mut scheduler = Scheduler::new(schedule, None, at(0)).unwrap();
    scheduler.begin_at(changed(1000, 0));
    let none = Decision::NotDue { next: None };
    assert_eq!(scheduler.decide(at(1), changed(1099, 0)), none);
    let due = Decision::Due(Trigger::Change);
    assert_eq!(scheduler.decide(at(2), changed(1100, 0)), due);
    // What changes while it is made counts for the next one.
    scheduler.ended(at(3), true);
    assert_eq!(scheduler.decide(at(4), changed(1199, 0)), none);
    assert_eq!(scheduler.decide(at(5), changed(1199, 1 << 20)), due);
    scheduler.ended(at(6), true);
    assert_eq!(scheduler.decide(at(7), changed(1298, (2 << 20) - 1)), none);
    // A counter that begins anew makes nothing due.
    assert_eq!(scheduler.decide(at(8), NOTHING), none);
}

#[test]
fn only_events_that_are_named_count_and_once() {
    let schedule = Schedule {
        events: ["deploy".to_owned(), "night".to_owned()].into(),
        ..Schedule::default()
    };
    let mut scheduler = Scheduler::new(schedule, None, at(0)).unwrap();
    scheduler.happened("lunch");
    let none = Decision::NotDue { next: None };
    assert_eq!(scheduler.decide(at(1), NOTHING), none);
    for event in ["night", "deploy", "deploy"] {
        scheduler.happened(event);
    }
    let due = Decision::Due(Trigger::Event("deploy".into()));
    assert_eq!(scheduler.decide(at(2), NOTHING), due);
    scheduler.ended(at(3), true);
    assert_eq!(scheduler.decide(at(4), NOTHING), none);
}

#[test]
fn failures_are_retried_ever_later() {
    let mut schedule = hourly();
    schedule.events = ["deploy".to_owned()].into();
    let mut scheduler = Scheduler::new(schedule, None, at(0)).unwrap();
    scheduler.happened("deploy");
    let due = Decision::Due(Trigger::Event("deploy".into()));
    let mut now = 0;
    for wait in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
        assert_eq!(
            scheduler.decide(at(now), NOTHING),
            due,
            "the event is not forgotten"
        );
        scheduler.ended(at(now), false);
        let next = now + wait * MINUTE;
        assert_eq!(scheduler.decide(at(next - 1), NOTHING), not_due(next));
        now = next;
    }
    assert_eq!(scheduler.decide(at(now), NOTHING), due);
    scheduler.ended(at(now), true);
    // The timer was missed meanwhile, and the one that was made stands for it.
    let Decision::NotDue { next: Some(next) } = scheduler.decide(at(now), NOTHING) else {
        panic!("one has just been made");
    };
    assert!(next.0 > now && next.0 <= now + HOUR && next.0 % HOUR == 0);
    scheduler.happened("deploy");
    assert_eq!(scheduler.decide(at(now), NOTHING), due);
    scheduler.ended(at(now), false);
    assert_eq!(
        scheduler.decide(at(now), NOTHING),
        not_due(now + MINUTE),
        "from the beginning"
    );
}

#[test]
fn a_clock_that_goes_back_does_not_stop_the_timer() {
    let mut scheduler = Scheduler::new(hourly(), None, at(1000 * HOUR)).unwrap();
    assert_eq!(
        scheduler.decide(at(1000 * HOUR), NOTHING),
        not_due(1001 * HOUR)
    );
    assert_eq!(scheduler.decide(at(10 * HOUR), NOTHING), not_due(11 * HOUR));
    assert_eq!(
        scheduler.decide(at(11 * HOUR), NOTHING),
        Decision::Due(Trigger::Interval)
    );
    scheduler.ended(at(11 * HOUR), false);
    // Back again: what failed is not waited for longer than ever.
    assert_eq!(scheduler.decide(at(HOUR), NOTHING), not_due(2 * HOUR));
    // The last one is from the future: it says nothing.
    let mut scheduler = Scheduler::new(hourly(), Some(at(1000 * HOUR)), at(HOUR)).unwrap();
    assert_eq!(scheduler.decide(at(HOUR), NOTHING), not_due(2 * HOUR));
    // Far ahead, and at the end of time.
    let decided = scheduler.decide(Timestamp(u64::MAX), NOTHING);
    assert_eq!(decided, Decision::Due(Trigger::Interval));
    scheduler.ended(Timestamp(u64::MAX), true);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let new = |schedule| Scheduler::new(schedule, None, at(0));
    for bad in [
        Schedule {
            interval: Some(Duration::ZERO),
            ..Schedule::default()
        },
        Schedule {
            interval: Some(Duration::from_millis(999)),
            ..Schedule::default()
        },
        Schedule {
            changed_entries: Some(0),
            ..Schedule::default()
        },
        Schedule {
            changed_bytes: Some(0),
            ..Schedule::default()
        },
    ] {
        assert!(matches!(new(bad), Err(Error::InvalidSetting { .. })));
    }
    let mut idle = new(Schedule::default()).unwrap();
    assert_eq!(
        idle.decide(at(u64::MAX), changed(9, 9)),
        Decision::NotDue { next: None }
    );
}

#[test]
fn a_schedule_comes_back_from_text_as_it_was() {
    let everything = Schedule {
        interval: Some(Duration::from_millis(5_400_500)),
        changed_entries: Some(1_000),
        changed_bytes: Some(u64::MAX),
        events: ["patch merged".to_owned(), "deploy".to_owned()].into(),
    };
    for schedule in [Schedule::default(), hourly(), everything] {
        let text = serde_json::to_string(&schedule).unwrap();
        let back: Schedule = serde_json::from_str(&text).unwrap();
        assert_eq!(back, schedule, "{text}");
    }
    assert_eq!(serde_json::to_string(&Schedule::default()).unwrap(), "{}");
    assert_eq!(
        serde_json::to_string(&hourly()).unwrap(),
        r#"{"interval":"1h"}"#
    );
    for (text, seconds) in [
        ("1h 30m", 5_400),
        ("PT90S", 90),
        ("2 hours, 5 minutes", 7_500),
    ] {
        let read: Schedule = serde_json::from_str(&format!(r#"{{"interval":"{text}"}}"#)).unwrap();
        assert_eq!(read.interval, Some(Duration::from_secs(seconds)), "{text}");
    }
    let null: Schedule = serde_json::from_str(r#"{"interval":null}"#).unwrap();
    assert_eq!(null, Schedule::default());
}

#[test]
fn text_that_is_no_schedule_is_refused_with_what_would_be() {
    for (text, part) in [
        (r#"{"interval":"daily"}"#, "write it like"),
        (r#"{"interval":""}"#, "write it like"),
        (r#"{"interval":"-1h"}"#, "in the past"),
        (r#"{"interval":"1 fortnight"}"#, "write it like"),
        (r#"{"interval":3600}"#, "invalid type"),
        (r#"{"changed_entries":-1}"#, "invalid value"),
        (r#"{"intervall":"1h"}"#, "unknown field `intervall`"),
    ] {
        let error = serde_json::from_str::<Schedule>(text)
            .unwrap_err()
            .to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    // What can be read and makes no sense is the scheduler's to refuse.
    let short: Schedule = serde_json::from_str(r#"{"interval":"1ms"}"#).unwrap();
    assert!(Scheduler::new(short, None, at(0)).is_err());
}
