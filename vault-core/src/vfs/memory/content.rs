//! The bytes of one file: what is there now, and what a loss of power could leave of it.
//!
//! Both are kept as sparse pages that share what they have in common, so that a large allocation, a
//! sync and a copy of the whole cost little. A page that is absent is zeros.
//!
//! # Invariants
//! - A sector that is neither `dirty` nor `lost` has the same bytes now and on the medium.
//! - No page holds bytes other than zero beyond the present length.
//! - `pages_used` counts the pages below `pages_reserved` and the present ones above.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::CrashChoice;

/// What the medium writes whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;
/// What space is given out in.
pub(super) const PAGE_BYTES: usize = 4096;
const SECTORS_PER_PAGE: usize = PAGE_BYTES / SECTOR_BYTES;
// A page's sectors have to fit the bits of the masks below.
const _: () = assert!(SECTORS_PER_PAGE == u8::BITS as usize);

type Page = [u8; PAGE_BYTES];
type Pages = BTreeMap<u64, Arc<Page>>;

/// The bytes of one file.
#[derive(Debug, Default, Clone)]
pub(super) struct Content {
    now: Pages,
    len: u64,
    durable: Pages,
    durable_len: u64,
    /// By page: which of its sectors may differ from the medium.
    unsynced: BTreeMap<u64, Unsynced>,
    /// The lengths that the file had since the last sync, oldest first.
    lengths: Vec<u64>,
    /// How many of these a failed sync has given up on.
    lengths_lost: usize,
    pages_reserved: u64,
    pages_used: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Unsynced {
    /// Written since the last sync: the next one makes them durable.
    dirty: u8,
    /// Written before a sync that failed: later syncs pass over them.
    lost: u8,
}

impl Content {
    /// A file whose bytes are durable.
    pub(super) fn durable_from(bytes: &[u8]) -> Self {
        let mut content = Self::default();
        content.write(0, bytes, u64::MAX);
        content.sync();
        content
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes of space that the file takes.
    pub(super) fn pages_used(&self) -> u64 {
        self.pages_used
    }

    /// Reads up to the end of the file; gives the number of bytes read.
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let wanted = self.len.saturating_sub(offset).min(buffer.len() as u64) as usize;
        for (page, within, piece) in pieces(offset, wanted) {
            let target = &mut buffer[piece];
            match self.now.get(&page) {
                Some(bytes) => target.copy_from_slice(&bytes[within..within + target.len()]),
                None => target.fill(0),
            }
        }
        wanted
    }

    /// Writes as far as `pages_free` more pages of space reach; gives the number of bytes written.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8], mut pages_free: u64) -> usize {
        let mut written = 0;
        for (page, within, piece) in pieces(offset, bytes.len()) {
            if page >= self.pages_reserved && !self.now.contains_key(&page) {
                if pages_free == 0 {
                    break;
                }
                pages_free -= 1;
                self.pages_used += 1;
            }
            let source = &bytes[piece];
            let target = self
                .now
                .entry(page)
                .or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            Arc::make_mut(target)[within..within + source.len()].copy_from_slice(source);
            self.mark_dirty(page, sectors(within, within + source.len()));
            written += source.len();
        }
        let end = offset + written as u64;
        // Where a failed sync has lost the length, a write beyond what is durable brings it up again.
        let length_lost = self.lengths_lost > 0 && self.lengths_lost == self.lengths.len();
        if written > 0 && (end > self.len || (length_lost && end > self.durable_len)) {
            self.change_len(self.len.max(end));
        }
        written
    }

    /// How many pages of space are missing below `len`.
    pub(super) fn pages_to_reserve(&self, len: u64) -> u64 {
        let target = pages_of(len);
        if target <= self.pages_reserved {
            return 0;
        }
        let present = self.now.range(self.pages_reserved..target).count() as u64;
        target - self.pages_reserved - present
    }

    /// Reserves space up to `len`, and extends the file to there.
    pub(super) fn reserve(&mut self, len: u64) {
        self.pages_used += self.pages_to_reserve(len);
        self.pages_reserved = self.pages_reserved.max(pages_of(len));
        if len > self.len {
            self.change_len(len);
        }
    }

    /// Cuts or extends the file.
    pub(super) fn set_len(&mut self, len: u64) {
        if len == self.len {
            return;
        }
        if len < self.len {
            self.cut(len);
        }
        self.change_len(len);
    }

    fn cut(&mut self, len: u64) {
        let (first, within) = (len / PAGE_BYTES as u64, (len % PAGE_BYTES as u64) as usize);
        let mut touched: Vec<u64> = self.now.range(first..).map(|(page, _)| *page).collect();
        touched.extend(self.durable.range(first..).map(|(page, _)| *page));
        for page in touched {
            let from = if page == first { within } else { 0 };
            self.mark_dirty(page, sectors(from, PAGE_BYTES));
        }
        let kept = pages_of(len);
        self.now.split_off(&kept);
        if within > 0
            && let Some(page) = self.now.get_mut(&first)
        {
            Arc::make_mut(page)[within..].fill(0);
        }
        self.pages_reserved = self.pages_reserved.min(kept);
        self.count_pages();
    }

    fn count_pages(&mut self) {
        let above = self.now.range(self.pages_reserved..).count() as u64;
        self.pages_used = self.pages_reserved + above;
    }

    fn mark_dirty(&mut self, page: u64, mask: u8) {
        let sectors = self.unsynced.entry(page).or_default();
        sectors.dirty |= mask;
        sectors.lost &= !mask;
    }

    fn change_len(&mut self, len: u64) {
        self.len = len;
        self.lengths.push(len);
    }

    /// Makes durable what was written, other than what a failed sync has lost.
    pub(super) fn sync(&mut self) {
        let (now, durable) = (&self.now, &mut self.durable);
        self.unsynced.retain(|page, sectors| {
            take_sectors(durable, now, *page, sectors.dirty, sectors.lost);
            sectors.dirty = 0;
            sectors.lost != 0
        });
        if self.lengths.len() > self.lengths_lost {
            self.durable_len = self.len;
            self.lengths.clear();
            self.lengths_lost = 0;
        }
    }

    /// What a failed sync does: what was written stays readable, counts as clean, and need not be on
    /// the medium.
    pub(super) fn lose(&mut self) {
        for sectors in self.unsynced.values_mut() {
            sectors.lost |= sectors.dirty;
            sectors.dirty = 0;
        }
        self.lengths_lost = self.lengths.len();
    }

    /// The file as a loss of power could leave it.
    pub(super) fn crashed(&self, choice: &CrashChoice) -> Self {
        let mut pages = self.durable.clone();
        for (page, sectors) in &self.unsynced {
            let unsynced = sectors.dirty | sectors.lost;
            let mut kept = 0;
            for bit in 0..SECTORS_PER_PAGE {
                let mask = 1 << bit;
                if unsynced & mask != 0 && choice.keeps() {
                    kept |= mask;
                }
            }
            take_sectors(&mut pages, &self.now, *page, kept, unsynced & !kept);
        }
        // All changes of length, or those up to some point.
        let changes = choice.how_many(self.lengths.len());
        let len = match changes.checked_sub(1) {
            Some(last) => self.lengths[last],
            None => self.durable_len,
        };
        let mut content = Self {
            now: pages,
            len,
            pages_reserved: self.pages_reserved,
            ..Self::default()
        };
        content.cut(len);
        content.unsynced.clear();
        content.durable = content.now.clone();
        content.durable_len = len;
        content
    }
}

/// Copies the sectors in `mask` of a page from one file to another of which it is known that all
/// sectors in neither `mask` nor `differing` are the same in both.
fn take_sectors(to: &mut Pages, from: &Pages, page: u64, mask: u8, differing: u8) {
    if mask == 0 {
        return;
    }
    let source = from.get(&page);
    if differing == 0 {
        // The whole page: share it.
        match source {
            Some(bytes) => to.insert(page, Arc::clone(bytes)),
            None => to.remove(&page),
        };
        return;
    }
    let target = to.entry(page).or_insert_with(|| Arc::new([0; PAGE_BYTES]));
    let target = Arc::make_mut(target);
    for bit in (0..SECTORS_PER_PAGE).filter(|bit| mask & (1 << bit) != 0) {
        let range = bit * SECTOR_BYTES..(bit + 1) * SECTOR_BYTES;
        match source {
            Some(bytes) => target[range.clone()].copy_from_slice(&bytes[range]),
            None => target[range].fill(0),
        }
    }
}

/// Splits `len` bytes at `offset` at the bounds of pages: page, offset within it, range of the bytes.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let within = (at % PAGE_BYTES as u64) as usize;
        let step = (PAGE_BYTES - within).min(len - done);
        let piece = done..done + step;
        done += step;
        Some((at / PAGE_BYTES as u64, within, piece))
    })
}

/// The mask of the sectors that the bytes from `start` up to, not including, `end` of a page touch.
fn sectors(start: usize, end: usize) -> u8 {
    let mut mask = 0;
    for bit in start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
        mask |= 1 << bit;
    }
    mask
}

fn pages_of(len: u64) -> u64 {
    len.div_ceil(PAGE_BYTES as u64)
}
