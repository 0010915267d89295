//! How much is in a vault.

use std::sync::atomic::{AtomicU64, Ordering};

use vault_core::{Timestamp, merge};

/// How much is in a vault, exactly. See the [module](super) for what is counted. Stored as the operator
/// [`merge::Tally`] has it, so that writers add to it without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    /// Entries.
    pub(crate) entries: u64,
    /// Bytes of their encoded keys.
    pub(crate) key_bytes: u64,
    /// Bytes of their encoded values.
    pub(crate) value_bytes: u64,
    /// How many of the entries have an expiry.
    pub(crate) expiring: u64,
    /// How many commits have changed the vault.
    pub(crate) commits: u64,
    /// When the last of them did.
    pub(crate) updated: Timestamp,
}

impl Tally {
    /// A tally of nothing, as of now.
    pub(crate) fn empty(now: Timestamp) -> Self {
        Self {
            updated: now,
            ..Self::default()
        }
    }

    /// Bytes of keys and values.
    pub(crate) const fn bytes(&self) -> u64 {
        self.key_bytes.saturating_add(self.value_bytes)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let sums = [
            self.entries,
            self.key_bytes,
            self.value_bytes,
            self.expiring,
            self.commits,
        ];
        merge::Tally::encode(sums.map(|sum| sum as i64), self.updated.0)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (sums, updated) = merge::Tally::decode(bytes)?;
        let [entries, key_bytes, value_bytes, expiring, commits] = sums.map(|sum| sum as u64);
        Some(Self {
            entries,
            key_bytes,
            value_bytes,
            expiring,
            commits,
            updated: Timestamp(updated),
        })
    }
}

/// The tally of a vault as of the last commit that returned, for all threads.
pub(crate) struct Counts {
    entries: AtomicU64,
    key_bytes: AtomicU64,
    value_bytes: AtomicU64,
    expiring: AtomicU64,
    commits: AtomicU64,
    updated: AtomicU64,
    /// Entries that commits under way are about to add, where there is a bound.
    taken: AtomicU64,
}

impl Counts {
    pub(crate) const fn new(tally: &Tally) -> Self {
        Self {
            entries: AtomicU64::new(tally.entries),
            key_bytes: AtomicU64::new(tally.key_bytes),
            value_bytes: AtomicU64::new(tally.value_bytes),
            expiring: AtomicU64::new(tally.expiring),
            commits: AtomicU64::new(tally.commits),
            updated: AtomicU64::new(tally.updated.0),
            taken: AtomicU64::new(0),
        }
    }

    pub(crate) fn tally(&self) -> Tally {
        let load = |count: &AtomicU64| count.load(Ordering::Acquire);
        Tally {
            entries: load(&self.entries),
            key_bytes: load(&self.key_bytes),
            value_bytes: load(&self.value_bytes),
            expiring: load(&self.expiring),
            commits: load(&self.commits),
            updated: Timestamp(load(&self.updated)),
        }
    }

    #[inline]
    pub(crate) fn entries(&self) -> u64 {
        self.entries.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn expiring(&self) -> u64 {
        self.expiring.load(Ordering::Acquire)
    }

    /// Moves the counts by what a commit has changed. Additions wrap around, as those of the operator do.
    pub(crate) fn add(&self, delta: &Delta) {
        let parts = [
            (&self.entries, delta.entries),
            (&self.key_bytes, delta.key_bytes),
            (&self.value_bytes, delta.value_bytes),
            (&self.expiring, delta.expiring),
        ];
        for (count, by) in parts {
            if by != 0 {
                count.fetch_add(by as u64, Ordering::AcqRel);
            }
        }
        self.commits.fetch_add(1, Ordering::AcqRel);
        if delta.updated.0 > self.updated.load(Ordering::Relaxed) {
            self.updated.fetch_max(delta.updated.0, Ordering::AcqRel);
        }
    }

    /// Sets the counts, while nobody commits.
    pub(crate) fn set(&self, tally: &Tally) {
        let store = |count: &AtomicU64, to: u64| count.store(to, Ordering::Release);
        store(&self.entries, tally.entries);
        store(&self.key_bytes, tally.key_bytes);
        store(&self.value_bytes, tally.value_bytes);
        store(&self.expiring, tally.expiring);
        store(&self.commits, tally.commits);
        store(&self.updated, tally.updated.0);
    }

    /// Takes room for entries that a commit is about to add, up to `max`; gives whether there was room.
    pub(crate) fn take_room(&self, entries: u64, max: u64) -> bool {
        let taken = self.taken.fetch_add(entries, Ordering::SeqCst);
        // What others have taken counts until it is in `entries`, or given back; for a moment it may count twice.
        let there = self.entries.load(Ordering::SeqCst);
        let has_room = there.saturating_add(taken).saturating_add(entries) <= max;
        if !has_room {
            self.give_back(entries);
        }
        has_room
    }

    /// Gives back room that was not used, or whose entries have been counted.
    pub(crate) fn give_back(&self, entries: u64) {
        self.taken.fetch_sub(entries, Ordering::SeqCst);
    }
}

/// By how much a commit moves a tally.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Delta {
    pub(crate) entries: i64,
    pub(crate) key_bytes: i64,
    pub(crate) value_bytes: i64,
    pub(crate) expiring: i64,
    /// When; zero where the vault does not count as changed by anybody.
    pub(crate) updated: Timestamp,
}

impl Delta {
    /// What is added to a stored tally.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let sums = [
            self.entries,
            self.key_bytes,
            self.value_bytes,
            self.expiring,
            1,
        ];
        merge::Tally::encode(sums, self.updated.0)
    }

    /// An entry that goes.
    pub(crate) fn remove(&mut self, key: &[u8], value_bytes: u64, expiring: bool) {
        self.entries -= 1;
        self.key_bytes -= key.len() as i64;
        self.value_bytes -= value_bytes as i64;
        self.expiring -= i64::from(expiring);
    }

    /// An entry that comes.
    pub(crate) fn insert(&mut self, key: &[u8], value_bytes: u64, expiring: bool) {
        self.entries += 1;
        self.key_bytes += key.len() as i64;
        self.value_bytes += value_bytes as i64;
        self.expiring += i64::from(expiring);
    }

    /// What another commit moves, on top of this one.
    pub(crate) const fn add(&mut self, other: &Self) {
        self.entries += other.entries;
        self.key_bytes += other.key_bytes;
        self.value_bytes += other.value_bytes;
        self.expiring += other.expiring;
    }

    /// All that a tally holds, coming.
    pub(crate) const fn of(tally: &Tally) -> Self {
        Self {
            entries: tally.entries as i64,
            key_bytes: tally.key_bytes as i64,
            value_bytes: tally.value_bytes as i64,
            expiring: tally.expiring as i64,
            updated: tally.updated,
        }
    }

    /// From one tally to another.
    pub(crate) const fn between(old: &Tally, new: &Tally) -> Self {
        let (old, new) = (Self::of(old), Self::of(new));
        Self {
            entries: new.entries - old.entries,
            key_bytes: new.key_bytes - old.key_bytes,
            value_bytes: new.value_bytes - old.value_bytes,
            expiring: new.expiring - old.expiring,
            updated: new.updated,
        }
    }

    /// Bytes of keys and values that come, less those that go.
    pub(crate) const fn bytes(&self) -> i64 {
        self.key_bytes + self.value_bytes
    }
}

#[cfg(test)]
mod tests {
    use vault_core::merge::MergeOperator;

    use super::*;

    #[test]
    fn what_comes_and_goes_leaves_nothing() {
        let mut one = Delta {
            updated: Timestamp(7),
            ..Delta::default()
        };
        one.insert(b"key", 5, true);
        let counts = Counts::new(&Tally::default());
        counts.add(&one);
        let tally = counts.tally();
        assert_eq!(
            (
                tally.entries,
                tally.bytes(),
                tally.expiring,
                tally.updated.0
            ),
            (1, 8, 1, 7)
        );
        assert_eq!(Tally::decode(&tally.encode()), Some(tally));
        assert_eq!(Tally::decode(&[0; 5]), None);
        assert_eq!(Tally::decode(&[0; 7]), None);
        let mut gone = Delta::default();
        gone.remove(b"key", 5, true);
        counts.add(&gone);
        let after = counts.tally();
        let nothing = Tally {
            commits: 2,
            ..Tally::empty(Timestamp(7))
        };
        assert_eq!(after, nothing);
        // The operator comes to the same.
        let folded = merge::Tally
            .merge(b"", None, &[&one.encode(), &gone.encode()])
            .unwrap();
        assert_eq!(Tally::decode(&folded), Some(after));
    }

    #[test]
    fn room_is_taken_up_to_the_bound() {
        let counts = Counts::new(&Tally::default());
        assert!(counts.take_room(2, 3) && !counts.take_room(2, 3) && counts.take_room(1, 3));
        counts.give_back(3);
        assert!(counts.take_room(3, 3));
        assert_eq!(counts.entries(), 0);
    }
}
