//! Files mapped into memory for writing, by several threads at once.
//!
//! Whoever writes first claims the place, in ascending order and each place once, and then fills it. Filling needs no
//! lock: no two claims of a map overlap, which [`Claims`] sees to.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A file mapped into memory for writing.
///
/// ```
/// use vault_core::vfs::{FileSystem, MemoryFileSystem};
///
/// let file_system = MemoryFileSystem::new();
/// let file = file_system.create("/log".as_ref())?;
/// file.allocate(4096)?;
/// let map = file.map(4096)?;
/// let (first, second) = (map.claim(0, 5)?, map.claim(5, 6)?);
/// // From whichever thread, in whichever order.
/// map.fill(second, b"second")?;
/// map.fill(first, b"first")?;
/// assert!(map.claim(3, 8).is_err(), "these places are taken");
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait WriteMap: Send + Sync + fmt::Debug {
    /// Length of the mapping in bytes.
    fn len(&self) -> usize;

    /// Whether nothing is mapped.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Claims a place, behind all that were claimed before.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] beyond the mapping's end or before that of an earlier claim; injected ones.
    fn claim(&self, offset: usize, len: usize) -> io::Result<Claim>;

    /// Copies bytes to the place that was claimed for them.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for the claim of another map or of another length, and nothing is written. What
    /// can go wrong on a real medium goes wrong when the place is claimed, but for a page that cannot be read back
    /// while [many syncs](Syncs::Many) are expected; injected short writes show here.
    fn fill(&self, claim: Claim, bytes: &[u8]) -> io::Result<()>;

    /// Claims a place and fills it.
    ///
    /// # Errors
    /// As [`WriteMap::claim`] and [`WriteMap::fill`].
    fn write(&self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        self.fill(self.claim(offset, bytes.len())?, bytes)
    }

    /// Says how often the file is going to be synced from here on: few times, unless something else is said. Nothing but
    /// speed depends on it: the bytes are in the same places, and as safe, either way.
    fn expect(&self, _syncs: Syncs) {}
}

/// How often a mapped file is synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syncs {
    /// After every few stores. Each sync takes away the right to store into the pages that it writes, from every processor,
    /// and the next store to each of them is a page fault: writing by a call costs less.
    Many,
    /// Seldom: copying into the mapping costs least.
    Few,
}

/// The right to fill a place of a [`WriteMap`], once.
#[derive(Debug, PartialEq, Eq)]
pub struct Claim {
    map: u64,
    range: Range<usize>,
}

/// Which places of a map have been claimed.
#[derive(Debug)]
pub struct Claims {
    map: u64,
    len: usize,
    /// Behind the last one.
    end: AtomicUsize,
}

impl Claims {
    /// For a map of this length.
    #[must_use]
    pub fn new(len: usize) -> Self {
        static MAPS: AtomicU64 = AtomicU64::new(0);
        Self {
            map: MAPS.fetch_add(1, Ordering::Relaxed),
            len,
            end: AtomicUsize::new(0),
        }
    }

    /// Length of the map in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether the map has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// As [`WriteMap::claim`].
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`].
    pub fn claim(&self, offset: usize, len: usize) -> io::Result<Claim> {
        let end = offset.checked_add(len).filter(|&end| end <= self.len);
        let end = end.ok_or_else(|| refused("the write would reach beyond the end of the map"))?;
        // Only that no two claims overlap depends on it, so the order of other memory does not matter.
        self.end
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                (taken <= offset).then_some(end)
            })
            .map_err(|_| refused("this place of the map was written before"))?;
        Ok(Claim {
            map: self.map,
            range: offset..end,
        })
    }

    /// Redeems a claim: gives the range that is to be filled with `bytes`.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] where it is another map's or does not have their length.
    pub fn redeem(&self, claim: Claim, bytes: &[u8]) -> io::Result<Range<usize>> {
        if claim.map == self.map && claim.range.len() == bytes.len() {
            Ok(claim.range)
        } else {
            Err(refused("the place was not claimed for these bytes"))
        }
    }
}

fn refused(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_claims_overlap() {
        let claims = Claims::new(100);
        let first = claims.claim(10, 20).unwrap();
        for (offset, len) in [
            (0, 5),
            (0, 11),
            (29, 1),
            (29, 100),
            (30, 71),
            (usize::MAX, 2),
        ] {
            let error = claims.claim(offset, len).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{offset}, {len}");
        }
        let rest = claims.claim(30, 70).unwrap();
        assert_eq!(claims.redeem(first, &[0; 20]).unwrap(), 10..30);
        assert!(claims.redeem(rest, &[0; 69]).is_err(), "too short");
        let other = Claims::new(100);
        let foreign = other.claim(0, 1).unwrap();
        assert!(claims.redeem(foreign, &[0]).is_err(), "of another map");
    }

    #[test]
    fn claims_of_many_threads_do_not_overlap() {
        let claims = Claims::new(4_000);
        let mut taken: Vec<Range<usize>> = std::thread::scope(|scope| {
            let claiming: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..4_000_usize)
                            .filter_map(|at| claims.claim(at, 1).ok())
                            .map(|claim| claim.range)
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            claiming
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        });
        taken.sort_by_key(|range| range.start);
        assert!(!taken.is_empty());
        assert!(taken.windows(2).all(|pair| pair[0].end <= pair[1].start));
    }
}
