//! Turns: what is published has everything before it written, in whichever order writers come by, and whoever publishes.
//!
//! Writers take their turns under a lock, write without it, and publish. A reader looks at what is published; there are
//! fewer places than turns, so that places are used again while late publishers still look at them.
#![expect(clippy::unwrap_used, reason = "a model fails by panicking")]

use std::sync::Arc;

use super::explore::{fails, holds, holds_within};
use crate::store::lock;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Break, Mutex, break_in, thread};
use crate::write::turns::{Publication, Turns, TurnsTaken};

#[derive(Default)]
struct Log {
    turns: Turns,
    taken: Mutex<(TurnsTaken, usize)>,
    /// Whether each record is there. No order of its own: the turns are to give it.
    written: [AtomicBool; 4],
    log_end: AtomicU64,
    visible: AtomicU64,
}

impl Log {
    fn publish(&self, publication: Publication) {
        self.log_end
            .fetch_max(publication.log_end, Ordering::AcqRel);
        self.visible
            .fetch_max(publication.sequence, Ordering::AcqRel);
    }

    /// Writes one record, or gives it up; gives whether it was published.
    fn write(&self, in_vain: bool) -> bool {
        let publish = |publication| self.publish(publication);
        let (number, turn) = {
            let mut taken = lock(&self.taken);
            let turn = self.turns.take(&mut taken.0, publish);
            taken.1 += 1;
            (taken.1 - 1, turn)
        };
        if in_vain {
            turn.fail(publish);
            return false;
        }
        self.written[number].store(true, Ordering::Relaxed);
        let sequence = number as u64 + 1;
        let publication = Publication {
            log_end: 10 * sequence,
            sequence,
        };
        let published = turn.end(publication, publish);
        let visible = self.read();
        assert_eq!(
            visible >= sequence,
            published,
            "wrong: {sequence} is acknowledged, visible is {visible}"
        );
        published
    }

    /// Looks at all that is published.
    fn read(&self) -> u64 {
        let visible = self.visible.load(Ordering::Acquire);
        let log_end = self.log_end.load(Ordering::Acquire);
        assert!(log_end >= 10 * visible, "wrong: visible before its log");
        let written = &self.written[..(log_end / 10) as usize];
        assert!(
            written.iter().all(|one| one.load(Ordering::Relaxed)),
            "wrong: published behind a hole"
        );
        visible
    }

    /// As whoever takes the lock and wants everything to be over.
    fn drain(&self) {
        let taken = lock(&self.taken);
        let publish = |publication| self.publish(publication);
        assert!(self.turns.wait_for_all(&taken.0, publish));
        assert_eq!(
            self.visible.load(Ordering::Acquire),
            taken.1 as u64,
            "wrong: not all is published"
        );
    }
}

/// What each thread does, the first in this one.
fn run<const N: usize>(threads: [fn(&Log); N]) -> Arc<Log> {
    let log = Arc::new(Log::default());
    let others: Vec<_> = threads[1..]
        .iter()
        .map(|&work| {
            let log = Arc::clone(&log);
            thread::spawn(move || work(&log))
        })
        .collect();
    threads[0](&log);
    for other in others {
        other.join().unwrap();
    }
    log
}

fn once(log: &Log) {
    assert!(log.write(false), "wrong: refused");
}

fn twice(log: &Log) {
    once(log);
    once(log);
}

fn read(log: &Log) {
    log.read();
}

#[test]
fn writers_beside_one_another() {
    holds("turns: two writers, two turns each", [()], |()| {
        assert_eq!(run([twice, twice]).read(), 4);
    });
    holds("turns: two writers and a reader", [()], |()| {
        assert_eq!(run([once, once, read]).read(), 2);
    });
    holds_within(1, "turns: three writers", [()], |()| {
        assert_eq!(run([once, once, once]).read(), 3);
    });
}

#[test]
fn everything_is_over_for_who_waits_for_it() {
    holds_within(
        1,
        "turns: two writers, and one who waits for both",
        [()],
        |()| {
            run([once, once, Log::drain]);
        },
    );
}

#[test]
fn a_turn_fails() {
    let in_vain = |log: &Log| assert!(!log.write(true));
    let perhaps = |log: &Log| {
        log.write(false);
    };
    let case = (in_vain as fn(&Log), perhaps as fn(&Log));
    holds(
        "turns: one fails beside another",
        [case],
        |(in_vain, perhaps)| {
            let log = run([perhaps, in_vain]);
            // Whoever came behind the hole was refused, and so is everybody after.
            assert!(log.read() <= 1);
            assert!(!log.write(false), "wrong: published behind a hole");
        },
    );
}

#[test]
fn a_place_without_release() {
    break_in("write/turns.rs", Break::RelaxStores);
    let name = "turns: broken, what is left for others is not released";
    fails(name, "wrong: ", [()], |()| {
        run([once, once, Log::drain]);
    });
}

#[test]
fn publications_without_release() {
    break_in("models/turns.rs", Break::RelaxStores);
    let name = "turns: broken, what is published is not released";
    fails(name, "wrong: ", [()], |()| {
        run([once, once, read]);
    });
}

#[test]
fn whoever_waits_for_long_is_not_woken() {
    break_in("write/sleepers.rs", Break::LoseAll);
    let name = "turns: broken, the end of a turn wakes nobody";
    fails(name, "deadlock", [()], |()| {
        run([once, once]);
    });
}

#[test]
fn sleepers_without_release() {
    break_in("write/sleepers.rs", Break::RelaxStores);
    let name = "turns: broken, whoever goes to sleep does not see what was done";
    fails(name, "deadlock", [()], |()| {
        run([once, once]);
    });
}
