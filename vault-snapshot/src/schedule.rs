//! When the next snapshot is due, decided purely.
//!
//! A [`Schedule`] says what is wanted; a [`Scheduler`] is fed with the time and with how much has changed, and answers whether a
//! snapshot is due and why. It starts nothing itself: whoever gets [`Decision::Due`] makes the snapshot and tells how it ended.
//!
//! # What never happens
//! - Two at a time: until the end of one was told, none is due.
//! - A storm: timers that were missed, while the process did not run or the last one took long, are caught up with once. What fails is
//!   tried again after a minute, then after two, four, ... up to an hour.
//! - A standstill: where the clock goes back, the next one is due at most one interval from then.

use std::collections::BTreeSet;
use std::time::Duration;

use vault_core::{Error, Result, Timestamp};

use crate::archive::Trigger;

/// Shortest interval.
pub const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// How long after a failure it is tried again; twice as long after each further one.
pub const RETRY_MIN: Duration = Duration::from_secs(60);
/// The longest that is waited after failures.
pub const RETRY_MAX: Duration = Duration::from_secs(3600);

/// What makes a snapshot due. Nothing set: only what the host asks for.
///
/// As data it has the fields that are set, the interval as text from hours down: `24h`, `1h 30m`, `PT90S`.
///
/// ```
/// use std::time::Duration;
/// use vault_snapshot::schedule::Schedule;
/// let nightly: Schedule = serde_json::from_str(r#"{"interval": "24h", "changed_entries": 1000000}"#)?;
/// assert_eq!(nightly.interval, Some(Duration::from_secs(24 * 3600)));
/// assert_eq!(serde_json::to_string(&nightly)?, r#"{"interval":"24h","changed_entries":1000000}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    /// So long after the last one was due.
    #[serde(with = "duration_text", skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// When so many entries have changed since the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_entries: Option<u64>,
    /// When so many bytes have changed since the last one. An engine counts bytes from its opening on: what was changed before counts only
    /// in `changed_entries`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_bytes: Option<u64>,
    /// Events of the host that make one due.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub events: BTreeSet<String>,
}

/// How much has ever changed, counted by the store: never less than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changes {
    /// Entries that were written or deleted.
    pub entries: u64,
    /// Bytes of these.
    pub bytes: u64,
}

/// Whether a snapshot is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Make one now, and tell when it has [ended](Scheduler::ended).
    Due(Trigger),
    /// Not yet. Ask again at this moment, or when something has changed.
    NotDue {
        /// When a timer makes one due, if nothing else does before.
        next: Option<Timestamp>,
    },
}

/// Decides when snapshots are due.
///
/// ```
/// use std::time::Duration;
/// use vault_core::Timestamp;
/// use vault_snapshot::archive::Trigger;
/// use vault_snapshot::schedule::{Changes, Decision, Schedule, Scheduler};
///
/// let hourly = Schedule { interval: Some(Duration::from_secs(3600)), ..Schedule::default() };
/// let mut scheduler = Scheduler::new(hourly, None, Timestamp(0)).unwrap();
/// let nothing = Changes::default();
/// let next = Some(Timestamp(3_600_000));
/// assert_eq!(scheduler.decide(Timestamp(1), nothing), Decision::NotDue { next });
/// let due = scheduler.decide(Timestamp(3_600_000), nothing);
/// assert_eq!(due, Decision::Due(Trigger::Interval));
/// scheduler.ended(Timestamp(3_605_000), true);
/// ```
#[derive(Debug)]
pub struct Scheduler {
    schedule: Schedule,
    /// When the timer is next due.
    timer: Option<Timestamp>,
    /// The latest moment that was seen, to notice a clock that goes back.
    seen: Timestamp,
    /// What had changed at the last snapshot that was made.
    baseline: Changes,
    /// What had changed when the one that is being made began.
    running: Option<Running>,
    events: BTreeSet<String>,
    failures: u32,
    not_before: Option<Timestamp>,
}

#[derive(Debug)]
struct Running {
    changes: Changes,
    trigger: Trigger,
}

impl Scheduler {
    /// Begins, with the time of the last snapshot there is. Changes count from here on.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] for an interval below [`INTERVAL_MIN`], or a change of nothing.
    pub fn new(schedule: Schedule, last: Option<Timestamp>, now: Timestamp) -> Result<Self> {
        let invalid = |setting, problem: String| Err(Error::InvalidSetting { setting, problem });
        if let Some(interval) = schedule.interval.filter(|i| *i < INTERVAL_MIN) {
            let problem = format!("{interval:?}, at least {INTERVAL_MIN:?} is accepted");
            return invalid("interval", problem);
        }
        for (setting, amount) in [
            ("changed_entries", schedule.changed_entries),
            ("changed_bytes", schedule.changed_bytes),
        ] {
            if amount == Some(0) {
                return invalid(setting, "0, at least 1 is accepted".into());
            }
        }
        let mut scheduler = Self {
            schedule,
            timer: None,
            seen: now,
            baseline: Changes::default(),
            running: None,
            events: BTreeSet::new(),
            failures: 0,
            not_before: None,
        };
        // One that lies ahead of the clock says nothing about when the next is due.
        let last = last.filter(|last| *last <= now).unwrap_or(now);
        scheduler.timer = scheduler.after(last);
        Ok(scheduler)
    }

    /// Takes what had changed already when the scheduler began.
    pub fn begin_at(&mut self, changes: Changes) {
        self.baseline = changes;
    }

    /// Tells of an event of the host. It makes a snapshot due if the schedule names it, once for all that come before it begins.
    pub fn happened(&mut self, event: &str) {
        if self.schedule.events.contains(event) {
            self.events.insert(event.to_owned());
        }
    }

    /// Whether a snapshot is due now. After [`Decision::Due`] none is until [`ended`](Self::ended) is called.
    pub fn decide(&mut self, now: Timestamp, changes: Changes) -> Decision {
        self.notice(now);
        let next = self
            .timer
            .max(self.not_before.filter(|_| self.timer.is_some()));
        if self.running.is_some() {
            return Decision::NotDue { next: None };
        }
        if let Some(not_before) = self.not_before.filter(|moment| now < *moment) {
            return Decision::NotDue {
                next: Some(not_before),
            };
        }
        let Some(trigger) = self.trigger(now, changes) else {
            return Decision::NotDue { next };
        };
        self.running = Some(Running {
            changes,
            trigger: trigger.clone(),
        });
        Decision::Due(trigger)
    }

    /// Tells that the snapshot that was due has been made, or could not be. One that the host made of its own accord need not be
    /// told.
    pub fn ended(&mut self, now: Timestamp, made: bool) {
        self.notice(now);
        let Some(Running { changes, trigger }) = self.running.take() else {
            return;
        };
        if made {
            self.baseline = changes;
            self.failures = 0;
            self.not_before = None;
            // The grid of the timer stays; what was missed of it is past.
            if let (Some(timer), Some(interval)) = (self.timer, self.schedule.interval)
                && timer <= now
            {
                let interval = millis(interval);
                let behind = now.0 - timer.0;
                let steps = behind / interval + 1;
                self.timer = Some(Timestamp(
                    timer.0.saturating_add(steps.saturating_mul(interval)),
                ));
            }
            return;
        }
        if let Trigger::Event(event) = trigger {
            self.events.insert(event);
        }
        let wait = RETRY_MIN.saturating_mul(1 << self.failures.min(16));
        self.failures += 1;
        let wait = millis(wait.min(RETRY_MAX));
        self.not_before = Some(Timestamp(now.0.saturating_add(wait)));
    }

    /// What makes one due, the host's own wish first.
    fn trigger(&mut self, now: Timestamp, changes: Changes) -> Option<Trigger> {
        if let Some(event) = self.events.pop_first() {
            self.events.clear();
            return Some(Trigger::Event(event));
        }
        let reached = |amount: Option<u64>, now: u64, then: u64| {
            amount.is_some_and(|amount| now.saturating_sub(then) >= amount)
        };
        let Schedule {
            changed_entries,
            changed_bytes,
            ..
        } = self.schedule;
        if reached(changed_entries, changes.entries, self.baseline.entries)
            || reached(changed_bytes, changes.bytes, self.baseline.bytes)
        {
            return Some(Trigger::Change);
        }
        let timer = self.timer.is_some_and(|timer| timer <= now);
        timer.then_some(Trigger::Interval)
    }

    /// Takes note of the time. Where it went back, what was planned may lie far ahead.
    fn notice(&mut self, now: Timestamp) {
        if now < self.seen {
            let latest = self.after(now);
            self.timer = self.timer.min(latest);
            let retry = Timestamp(now.0.saturating_add(millis(RETRY_MAX)));
            self.not_before = self.not_before.map(|moment| moment.min(retry));
        }
        self.seen = now;
    }

    fn after(&self, moment: Timestamp) -> Option<Timestamp> {
        let interval = millis(self.schedule.interval?);
        Some(Timestamp(moment.0.saturating_add(interval)))
    }
}

/// Durations as people write them.
mod duration_text {
    use std::borrow::Cow;
    use std::time::Duration;

    use jiff::SignedDuration;
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let Some(duration) = duration else {
            return serializer.serialize_none();
        };
        let signed = SignedDuration::try_from(*duration).map_err(S::Error::custom)?;
        serializer.serialize_some(&format!("{signed:#}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let Some(text) = Option::<Cow<'_, str>>::deserialize(deserializer)? else {
            return Ok(None);
        };
        let wrong = |problem: String| {
            D::Error::custom(format!(
                "{text:?} is no interval: {problem}; write it like \"24h\", \"1h 30m\" or \"90s\""
            ))
        };
        let signed: SignedDuration = text
            .parse()
            .map_err(|error: jiff::Error| wrong(error.to_string()))?;
        let unsigned = Duration::try_from(signed);
        unsigned
            .map_err(|_| wrong("it lies in the past".to_owned()))
            .map(Some)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
