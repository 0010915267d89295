//! Counting accesses, and looking at some of them closely.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use vault_core::Timestamp;

use super::log::{AccessLog, AccessVerb, Kept};
use super::saved::Saved;
use super::{SAMPLE_ALL_UP_TO, SAMPLE_EVERY};
use crate::database::{Shared, lock};
use crate::error::Result;

/// Groups of threads that count apart from each other.
const GROUPS: usize = 8;
/// How often what is noted of a vault is written to the catalog, at most.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// The counts of a group of threads, in a cache line of their own.
#[derive(Default)]
#[repr(align(64))]
struct Group([AtomicU64; 4]);

/// What is noted of the accesses to one vault.
pub(crate) struct Access {
    vault: u32,
    /// The log of the tenant that the vault belongs to; without one, the database's.
    log: Option<Arc<AccessLog>>,
    groups: [Group; GROUPS],
    noted: Mutex<Noted>,
    /// Whether anything was noted since it was last saved.
    dirty: AtomicBool,
    /// Held while it is saved, and while the vault is removed: what was saved of it goes in the same batch as the vault, and
    /// nothing is saved behind that.
    saving: Mutex<Saving>,
}

/// Whether what is noted of a vault may be saved.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Saving {
    May,
    /// The vault is gone.
    Never,
}

struct Noted {
    /// Counts here are those of earlier processes.
    saved: Saved,
    saved_at: Duration,
}

thread_local! {
    static GROUP: Cell<usize> = const { Cell::new(usize::MAX) };
}

static NEXT_GROUP: AtomicUsize = AtomicUsize::new(0);

/// Whether an access is looked at closely: one in [`SAMPLE_EVERY`], scattered, so that no pattern of accesses keeps in step
/// with them. (The multiplications are the finalizer of `SplitMix64`, shortened.)
#[inline]
const fn is_sampled(number: u64) -> bool {
    let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (scattered ^ scattered >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93) < u64::MAX / SAMPLE_EVERY
}

/// The group that this thread counts in.
#[inline]
fn group() -> usize {
    GROUP.with(|group| {
        if group.get() == usize::MAX {
            group.set(NEXT_GROUP.fetch_add(1, Ordering::Relaxed) % GROUPS);
        }
        group.get()
    })
}

impl Access {
    pub(crate) fn new(vault: u32, log: Option<Arc<AccessLog>>, saved: Saved) -> Self {
        Self {
            vault,
            log,
            groups: std::array::from_fn(|_| Group::default()),
            noted: Mutex::new(Noted {
                saved,
                saved_at: Duration::ZERO,
            }),
            dirty: AtomicBool::new(false),
            saving: Mutex::new(Saving::May),
        }
    }

    /// Counts an access that begins, and decides whether it is looked at closely. `key` is empty where it is none or
    /// several.
    #[inline]
    pub(crate) fn begin<'a>(
        &'a self,
        shared: &'a Shared,
        verb: AccessVerb,
        key: &'a [u8],
    ) -> Begun<'a> {
        let before = self.groups[group()].0[verb as usize].fetch_add(1, Ordering::Relaxed);
        let weight = if before < SAMPLE_ALL_UP_TO {
            1
        } else if is_sampled(before) {
            SAMPLE_EVERY
        } else {
            return Begun(None);
        };
        Begun(Some(Sample {
            access: self,
            shared,
            verb,
            key,
            weight,
            began: shared.clock.monotonic(),
        }))
    }

    /// Reads, writes, deletes and scans of this process.
    pub(crate) fn counts_of_process(&self) -> [u64; 4] {
        let mut counts = [0; 4];
        self.add_own(&mut counts);
        counts
    }

    fn add_own(&self, counts: &mut [u64; 4]) {
        for group in &self.groups {
            for (count, own) in counts.iter_mut().zip(&group.0) {
                *count += own.load(Ordering::Relaxed);
            }
        }
    }

    /// What is noted, with the counts of now.
    pub(crate) fn snapshot(&self) -> Saved {
        let mut saved = lock(&self.noted).saved.clone();
        self.add_own(&mut saved.counts);
        saved
    }

    /// Has `write` save what is noted, if anything was since the last time, and the vault is not gone. Where somebody saves it or
    /// removes the vault just now, nothing is done: an access does not wait for that. Where `write` fails, it is left for
    /// another time.
    pub(crate) fn save(&self, write: impl FnOnce(&Saved) -> Result<()>) {
        let saving = match self.saving.try_lock() {
            Ok(saving) => saving,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if *saving == Saving::May
            && self.dirty.swap(false, Ordering::AcqRel)
            && write(&self.snapshot()).is_err()
        {
            self.dirty.store(true, Ordering::Release);
        }
    }

    /// Has nobody save while the vault is removed. Whoever removes it says so by [`Saving::Never`] once that is written.
    pub(crate) fn hold_saving(&self) -> MutexGuard<'_, Saving> {
        lock(&self.saving)
    }

    /// Takes up the keys that were saved before they were forgotten, unless there are others since.
    pub(crate) fn recall_keys(&self, before: Saved) {
        let mut noted = lock(&self.noted);
        if noted.saved.keys == Default::default() {
            noted.saved.keys = before.keys;
        }
    }

    /// Forgets the keys.
    pub(crate) fn forget_keys(&self) {
        lock(&self.noted).saved.keys = Default::default();
    }
}

/// An access that is under way.
#[must_use = "an access ends"]
pub(crate) struct Begun<'a>(Option<Sample<'a>>);

struct Sample<'a> {
    access: &'a Access,
    shared: &'a Shared,
    verb: AccessVerb,
    key: &'a [u8],
    weight: u64,
    began: Duration,
}

impl Begun<'_> {
    /// Notes that it has ended well.
    #[inline]
    pub(crate) fn end(self) {
        if let Some(sample) = self.0 {
            sample.note();
        }
    }
}

impl Sample<'_> {
    #[cold]
    fn note(self) {
        let (shared, access) = (self.shared, self.access);
        let monotonic = shared.clock.monotonic();
        let now = shared.now();
        let took = monotonic.saturating_sub(self.began);
        shared.latencies[self.verb as usize].record(took);
        let log = access.log.as_deref().unwrap_or(&shared.accesses);
        log.note(Kept {
            vault: access.vault,
            verb: self.verb,
            key: self.key.to_vec(),
            at: now,
            took,
        });
        let due = access.note(&self, now, monotonic);
        if due {
            shared.save_access(access);
        }
    }
}

impl Access {
    /// Takes note of a sample. Gives whether it is time to save.
    fn note(&self, sample: &Sample<'_>, now: Timestamp, monotonic: Duration) -> bool {
        let mut noted = lock(&self.noted);
        let mut counts = noted.saved.counts;
        self.add_own(&mut counts);
        // This one is counted already. Where it is the first of all, so are others that are under way.
        let before = match noted.saved.last {
            0 => 0,
            _ => counts.iter().sum::<u64>().saturating_sub(1),
        };
        noted.saved.hours.note(now, before);
        noted.saved.last = now.0;
        noted.saved.keys.note(sample.key, sample.weight);
        self.dirty.store(true, Ordering::Release);
        let due = monotonic.saturating_sub(noted.saved_at) >= SAVE_EVERY;
        if due {
            noted.saved_at = monotonic;
        }
        due
    }

    pub(crate) const fn vault(&self) -> u32 {
        self.vault
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_one_in_so_many_and_keep_in_step_with_nothing() {
        let numbers = 1_000_000;
        for step in [1_u64, 2, 3, 4, 7, 32, 64, 1000, 1024] {
            let sampled = (0..numbers).filter(|n| is_sampled(n * step)).count() as u64;
            let expected = numbers / SAMPLE_EVERY;
            assert!(
                sampled.abs_diff(expected) < expected / 10,
                "step {step}: {sampled}"
            );
        }
    }
}
