//! Turns: commits become visible in the order in which they got their places in the log.
//!
//! Under the commit lock a commit gets its place in the log, takes the next turn and goes into the memtables. Then the
//! lock is let go of, and the commit writes its record beside others that do the same: sealing it can be most of the work
//! of a write to an encrypted store. When the record is there, and those of all commits before it, it is published. So
//! whatever is visible, durable or acknowledged has the whole log before it.
//!
//! Whoever has written its record says so before it waits, and whoever waits publishes for those before it that have said
//! so: a thread that was taken off its processor holds the others up only in the midst of copying its record.
//!
//! Everybody else who takes the commit lock finds all turns over ([`Turns::wait_for_all`]), and need not know of any
//! of this.
//!
//! A turn that ends without its record leaves a hole in the log, and what lies behind a hole is not read back. All turns
//! after it fail, and the store is poisoned: by whoever could not write, or where a thread has panicked by the next that
//! waits.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::sync::atomic::AtomicU64;
use crate::sync::{self, hint, thread};
use crate::write::sleepers::Sleepers;

/// Turns that are taken and not over: whoever wants one more waits for the oldest.
const PLACES: usize = if sync::MODELLED { 2 } else { 64 };

/// Whose turn it is.
pub(crate) struct Turns {
    /// Turns that are over.
    over: AtomicU64,
    /// The first that failed; `u64::MAX`: none has.
    failed: AtomicU64,
    /// Those that have waited for long. Beside what changes with every turn anyway.
    sleepers: Sleepers,
    /// What those that have their records in the log leave for others to publish, by their numbers.
    places: [Place; PLACES],
}

/// What there is to publish: where the log reaches, and what can be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Publication {
    pub(crate) log_end: u64,
    pub(crate) sequence: u64,
}

/// Something to publish, for whoever comes by. Of a line of its own, because neighbours are written by others.
#[derive(Default)]
#[repr(align(64))]
struct Place {
    /// One more than the number of the turn it is of; 0: it is being changed.
    turn: AtomicU64,
    log_end: AtomicU64,
    sequence: AtomicU64,
}

/// How many turns were taken. The commit lock guards it.
#[derive(Default)]
pub(crate) struct TurnsTaken(u64);

/// A turn. Ending it in any way but [`Turn::end`] makes those that follow fail.
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    number: u64,
    ended: bool,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            over: AtomicU64::new(0),
            failed: AtomicU64::new(u64::MAX),
            places: std::array::from_fn(|_| Place::default()),
            sleepers: Sleepers::default(),
        }
    }
}

impl Turns {
    /// Takes the next turn.
    #[inline]
    pub(crate) fn take(&self, taken: &mut TurnsTaken, publish: impl Fn(Publication)) -> Turn<'_> {
        let number = taken.0;
        if number >= PLACES as u64 {
            self.wait_for(number + 1 - PLACES as u64, &publish);
        }
        taken.0 += 1;
        Turn {
            turns: self,
            number,
            ended: false,
        }
    }

    /// Waits until all turns that were taken are over. None is taken meanwhile: the caller holds the commit lock. Gives
    /// `false` where one has failed.
    #[inline]
    #[must_use]
    pub(crate) fn wait_for_all(&self, taken: &TurnsTaken, publish: impl Fn(Publication)) -> bool {
        self.wait_for(taken.0, &publish);
        self.failed.load(Relaxed) == u64::MAX
    }

    /// Whether all turns that were taken are over, and none has failed.
    #[inline]
    pub(crate) fn are_over(&self, taken: &TurnsTaken) -> bool {
        self.over.load(Acquire) == taken.0 && self.failed.load(Relaxed) == u64::MAX
    }

    /// Waits until this many turns are over, and publishes for those that can be. What is waited for is that some bytes are
    /// copied, unless a thread that is at it was taken off its processor: after a microsecond or so it is let in. Where that does
    /// not help, it waits for something itself, a page of the log that is being written out, say: then so does this, asleep.
    #[inline]
    fn wait_for(&self, turns: u64, publish: &impl Fn(Publication)) {
        const ATTEMPTS: usize = if sync::MODELLED { 0 } else { 32 };
        const PAUSES: usize = 4;
        const YIELDS: usize = if sync::MODELLED { 0 } else { 64 };
        let mut attempts = 0;
        loop {
            let over = self.over.load(Acquire);
            if over >= turns {
                return;
            }
            if self.publish_for(over, publish) {
                continue;
            }
            attempts += 1;
            if attempts <= ATTEMPTS {
                (0..PAUSES).for_each(|_| hint::spin_loop());
            } else if attempts <= ATTEMPTS + YIELDS {
                thread::yield_now();
            } else {
                let is_over =
                    || self.over.load(Acquire) != over || self.place(over).get(over).is_some();
                self.sleepers.sleep_until(is_over);
            }
        }
    }

    /// Publishes for the turn before which all are over, if its record is there.
    fn publish_for(&self, number: u64, publish: &impl Fn(Publication)) -> bool {
        let Some(publication) = self.place(number).get(number) else {
            return false;
        };
        // Others may do the same at the same time, and some may be late: nothing that is published goes backwards.
        if number < self.failed.load(Relaxed) {
            publish(publication);
        }
        // Whoever sees that the turn is over sees what it published.
        let ended = self
            .over
            .compare_exchange(number, number + 1, AcqRel, Relaxed);
        if ended.is_ok() {
            self.sleepers.wake();
        }
        true
    }

    const fn place(&self, number: u64) -> &Place {
        &self.places[number as usize % PLACES]
    }
}

impl Place {
    fn put(&self, number: u64, publication: Publication) {
        // Whoever sees either of the next two sees this too, and that what it looked for is gone.
        self.turn.store(0, Relaxed);
        self.log_end.store(publication.log_end, Release);
        self.sequence.store(publication.sequence, Release);
        self.turn.store(number + 1, Release);
    }

    /// What was put there by the turn of this number; `None` where that was not yet, or where the turn is over.
    fn get(&self, number: u64) -> Option<Publication> {
        if self.turn.load(Acquire) != number + 1 {
            return None;
        }
        let publication = Publication {
            log_end: self.log_end.load(Acquire),
            sequence: self.sequence.load(Acquire),
        };
        (self.turn.load(Relaxed) == number + 1).then_some(publication)
    }
}

impl Turn<'_> {
    /// Publishes as soon as all before have been published. `publish` may be called by several threads at once, and late:
    /// it never goes backwards. Gives `false`, and publishes nothing, where one before it has failed.
    #[inline]
    #[must_use]
    pub(crate) fn end(mut self, publication: Publication, publish: impl Fn(Publication)) -> bool {
        self.ended = true;
        let Self { turns, number, .. } = self;
        if turns.over.load(Acquire) == number {
            // Nobody else knows what there is to publish.
            let is_sound = number < turns.failed.load(Relaxed);
            if is_sound {
                publish(publication);
            }
            turns.over.store(number + 1, Release);
            turns.sleepers.wake();
            return is_sound;
        }
        turns.place(number).put(number, publication);
        turns.sleepers.wake();
        turns.wait_for(number + 1, &publish);
        number < turns.failed.load(Relaxed)
    }

    /// Ends the turn without a record, once those before it are over.
    pub(crate) fn fail(mut self, publish: impl Fn(Publication)) {
        self.ended = true;
        self.turns.wait_for(self.number, &publish);
        self.give_up();
    }

    /// Those before it are over.
    fn give_up(&self) {
        // Those that follow see it with the end of this turn.
        self.turns.failed.fetch_min(self.number, Relaxed);
        self.turns.over.store(self.number + 1, Release);
        self.turns.sleepers.wake();
    }
}

impl Drop for Turn<'_> {
    /// Only where the thread panics: those before it publish for themselves then.
    fn drop(&mut self) {
        if !self.ended {
            while self.turns.over.load(Acquire) < self.number {
                thread::yield_now();
            }
            self.give_up();
        }
    }
}

#[cfg(all(test, not(vault_model)))]
mod tests {
    use super::*;
    use crate::sync::Mutex;
    use crate::sync::atomic::AtomicBool;

    const NOTHING: Publication = Publication {
        log_end: 0,
        sequence: 0,
    };

    const fn publication(n: u64) -> Publication {
        Publication {
            log_end: 10 * n,
            sequence: n,
        }
    }

    #[test]
    fn publications_go_by_the_order_of_the_turns() {
        let turns = Turns::default();
        let mut taken = TurnsTaken::default();
        let seen = Mutex::new(Vec::new());
        let publish = |publication| seen.lock().unwrap().push(publication);
        let count = PLACES as u64;
        let all: Vec<_> = (0..count)
            .map(|n| (n, turns.take(&mut taken, publish)))
            .collect();
        thread::scope(|scope| {
            for (n, turn) in all.into_iter().rev() {
                scope.spawn(move || assert!(turn.end(publication(n), publish)));
            }
            assert!(turns.wait_for_all(&taken, publish));
        });
        let mut seen = seen.into_inner().unwrap();
        // Some may have been published for by several, at once or late.
        let mut highest = 0;
        seen.retain(|publication| {
            let is_new = publication.sequence >= highest;
            highest = highest.max(publication.sequence + 1);
            is_new
        });
        assert_eq!(seen, (0..count).map(publication).collect::<Vec<_>>());
    }

    #[test]
    fn a_turn_is_published_for_while_its_thread_is_away() {
        let turns = Turns::default();
        let mut taken = TurnsTaken::default();
        let published = AtomicU64::new(0);
        let publish = |publication: Publication| {
            published.fetch_max(publication.sequence, Relaxed);
        };
        let [first, mut second] = [(); 2].map(|()| turns.take(&mut taken, publish));
        // As `end` does, whose thread then does not come back for long.
        turns
            .place(second.number)
            .put(second.number, publication(2));
        second.ended = true;
        assert!(first.end(publication(1), publish));
        assert_eq!(published.load(Relaxed), 1);
        assert!(turns.take(&mut taken, publish).end(publication(3), publish));
        assert_eq!(published.load(Relaxed), 3);
        assert!(turns.wait_for_all(&taken, publish) && turns.are_over(&taken));
    }

    /// A thread that copies its record may be held up for as long as a page is written out. Those that waited for it gave up
    /// their processors over and over meanwhile, and so had them all the time.
    #[test]
    fn whoever_waits_for_long_sleeps() {
        const LOOKS_MAX: usize = 100_000_000;
        let turns = Turns::default();
        let mut taken = TurnsTaken::default();
        let publish = |_| {};
        let [first, second, third] = [(); 3].map(|()| turns.take(&mut taken, publish));
        thread::scope(|scope| {
            for (n, turn) in [(2, second), (3, third)] {
                scope.spawn(move || assert!(turn.end(publication(n), publish)));
            }
            let mut looks = 0..LOOKS_MAX;
            let asleep = looks.find(|_| {
                thread::yield_now();
                turns.sleepers.count() == 2
            });
            assert!(asleep.is_some(), "they do not sleep");
            assert!(first.end(publication(1), publish));
            // By the end of the scope both have been woken.
        });
        assert!(turns.are_over(&taken));
        assert_eq!(turns.sleepers.count(), 0);
    }

    #[test]
    fn a_place_that_is_used_again_is_not_taken_for_the_turn_before() {
        let place = Place::default();
        assert_eq!(place.get(0), None);
        place.put(0, publication(0));
        assert_eq!(place.get(0), Some(publication(0)));
        place.put(PLACES as u64, publication(1));
        assert_eq!(place.get(0), None);
        assert_eq!(place.get(PLACES as u64), Some(publication(1)));
    }

    #[test]
    fn a_turn_that_fails_makes_those_behind_it_fail_and_none_before() {
        for by_panic in [false, true] {
            let turns = Turns::default();
            let mut taken = TurnsTaken::default();
            let published = AtomicBool::new(false);
            let publish = |publication| {
                assert_eq!(publication, NOTHING, "behind a hole");
                published.store(true, Relaxed);
            };
            let [first, second, third] = [(); 3].map(|()| turns.take(&mut taken, publish));
            thread::scope(|scope| {
                scope.spawn(|| assert!(!third.end(publication(3), publish)));
                scope.spawn(|| {
                    if by_panic {
                        drop(second);
                    } else {
                        second.fail(publish);
                    }
                });
                assert!(first.end(NOTHING, publish));
            });
            assert!(published.load(Relaxed));
            assert!(!turns.wait_for_all(&taken, publish) && !turns.are_over(&taken));
            let next = turns.take(&mut taken, publish);
            assert!(!next.end(publication(4), publish));
        }
    }
}
