//! Accesses of the last 24 hours.

use serde::{Deserialize, Serialize};
use vault_core::Timestamp;

/// Hours that are looked back upon.
const HOURS: u64 = 24;

/// How many accesses there had been when each of the last hours began, as far as somebody looked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hours {
    /// The hour since 1970, and the accesses before its first sample. Ascending.
    begun: Vec<(u64, u64)>,
}

const fn hour_of(time: Timestamp) -> u64 {
    time.0 / (60 * 60 * 1000)
}

impl Hours {
    /// Takes note that there had been `before` accesses when one was made at `now`.
    pub(crate) fn note(&mut self, now: Timestamp, before: u64) {
        let hour = hour_of(now);
        // Should the clock have gone back, what lies ahead of it says nothing any more.
        self.begun
            .retain(|&(begun, _)| begun <= hour && begun + HOURS > hour);
        if self.begun.last().is_none_or(|&(last, _)| last < hour) {
            self.begun.push((hour, before));
        }
    }

    /// Of `total` accesses, those since the first hour that lies within the last 24.
    pub(crate) fn recent(&self, now: Timestamp, total: u64) -> u64 {
        let hour = hour_of(now);
        let mut within = self
            .begun
            .iter()
            .filter(|&&(begun, _)| begun + HOURS > hour);
        within
            .next()
            .map_or(0, |&(_, before)| total.saturating_sub(before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(hour: u64) -> Timestamp {
        Timestamp(hour * 60 * 60 * 1000 + 5)
    }

    #[test]
    fn what_is_older_than_a_day_does_not_count() {
        let mut hours = Hours::default();
        assert_eq!(hours.recent(at(100), 0), 0);
        hours.note(at(100), 0);
        hours.note(at(100), 7);
        hours.note(at(110), 10);
        assert_eq!(hours.recent(at(110), 15), 15);
        assert_eq!(hours.recent(at(123), 15), 15);
        assert_eq!(hours.recent(at(124), 15), 5);
        hours.note(at(133), 15);
        assert_eq!(hours.recent(at(134), 18), 3);
        assert_eq!(hours.recent(at(157), 18), 0);
        for hour in 200..400 {
            hours.note(at(hour), hour);
        }
        assert_eq!(hours.begun.len(), 24);
    }

    #[test]
    fn a_clock_that_goes_back_forgets_what_lies_ahead() {
        let mut hours = Hours::default();
        hours.note(at(1_000_000), 3);
        hours.note(at(50), 4);
        assert_eq!(hours.recent(at(50), 6), 2);
    }
}
