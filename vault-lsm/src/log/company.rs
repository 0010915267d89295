//! For how many others a writer waits before it syncs for all of them.
//!
//! Writers who sync every write come in a circle: a sync ends, they wake up one after another, each writes its next record, and
//! the first of them would sync without the rest. There are two ways to go around:
//!
//! - **together**: the sync waits until all have come. Then they all sleep while it runs: a turn takes the time to sync and the
//!   time to gather.
//! - **in halves**: the sync begins as soon as half of them have come. While it runs, the other half writes, and has the next one.
//!   A turn takes two syncs, in which nobody is waited for.
//!
//! Halves are faster where a sync takes less time than it takes the processors to wake everybody up (fast disks, many
//! writers), and slower by up to a half where it takes more. Both times are measured as the log goes along: from time to time all
//! are waited for again, to learn how many they are and how long they take to come.

use std::time::Duration;

/// Fewer writers always go together.
const HALVED_MIN: usize = 4;
/// In so many rounds all writers are waited for twice: once to bring them together, once to see how long it takes.
const PROBE_EVERY: u32 = 64;
/// What a measurement counts for beside those before it: 1 / 4.
const WEIGHT: u32 = 4;

/// What is known of those who sync.
#[derive(Debug, Default)]
pub(super) struct Company {
    /// Writers of the last sync that all were waited for.
    writers: usize,
    rounds: u32,
    /// How long it takes until all have come.
    gathering: Duration,
    /// How long a sync takes.
    syncing: Duration,
}

impl Company {
    /// How many writers the next sync should be for.
    pub(super) fn expected(&self) -> usize {
        if self.together() {
            self.writers
        } else {
            self.writers.div_ceil(2)
        }
    }

    /// Longest that it is worth waiting for them: they would have come by then, or another sync is over.
    pub(super) fn patience(&self) -> Duration {
        self.syncing.min(self.gathering * 2)
    }

    /// A sync begins, for so many writers, after waiting for them.
    pub(super) fn gathered(&mut self, writers: usize, waited: Duration) {
        if self.together() {
            // In the first of two rounds some had come already; and who did not come says nothing of those who do.
            let all_came = writers >= self.writers;
            if all_came && (!self.halves_pay() || self.rounds % PROBE_EVERY == 1) {
                average(&mut self.gathering, waited);
            }
            self.writers = writers;
        }
        self.rounds = self.rounds.wrapping_add(1);
    }

    /// A sync took so long.
    pub(super) fn synced(&mut self, took: Duration) {
        average(&mut self.syncing, took);
    }

    fn together(&self) -> bool {
        !self.halves_pay() || self.rounds % PROBE_EVERY < 2
    }

    fn halves_pay(&self) -> bool {
        self.writers >= HALVED_MIN && self.syncing < self.gathering
    }
}

fn average(known: &mut Duration, measured: Duration) {
    *known = (*known * (WEIGHT - 1) + measured) / WEIGHT;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets rounds go by in which a sync takes `sync` and all of `writers` take `gather` to come; gives how many of the last
    /// 640 rounds were for all of them.
    fn rounds_together(company: &mut Company, writers: usize, sync: u64, gather: u64) -> usize {
        let mut together = 0;
        for round in 0..1280 {
            let expected = company.expected();
            let come = expected.clamp(1, writers);
            // The first has nobody to wait for.
            let come = if company.writers == 0 { writers } else { come };
            let share = gather * come as u64 / writers as u64;
            company.gathered(come, Duration::from_micros(share));
            company.synced(Duration::from_micros(sync));
            together += usize::from(round >= 640 && come == writers);
        }
        together
    }

    #[test]
    fn halves_where_syncs_are_faster_than_waking_everybody() {
        let mut company = Company::default();
        let probes = 640 / PROBE_EVERY as usize * 2;
        assert_eq!(rounds_together(&mut company, 16, 100, 200), probes);
        // Behind the two rounds that would be next.
        let between_probes = Company {
            rounds: company.rounds + 2,
            ..company
        };
        assert_eq!(between_probes.expected(), 8);
        let mut company = between_probes;
        // The disk is another one: together again, and back.
        assert_eq!(rounds_together(&mut company, 16, 5_000, 200), 640);
        assert_eq!(rounds_together(&mut company, 16, 100, 200), probes);
    }

    #[test]
    fn few_writers_go_together_and_those_who_left_are_not_waited_for() {
        let mut company = Company::default();
        assert_eq!(rounds_together(&mut company, 3, 100, 200), 640);
        let _ = rounds_together(&mut company, 16, 100, 200);
        assert_eq!(rounds_together(&mut company, 1, 100, 0), 640);
        assert_eq!(company.expected(), 1);
    }
}
