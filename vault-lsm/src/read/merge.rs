//! The merge of any number of cursors into one, in both directions.
//!
//! The sources that stand on an entry form a binary heap, the next entry on top. Moving on moves the top
//! source and lets it sink; with the entries of a source in runs, as they mostly are, that is one or two
//! comparisons.

use std::cmp::Ordering;
use std::sync::Arc;

use vault_core::{Result, SequenceNumber, Slice};

use crate::cursor::InternalCursor;
use crate::memory::Lease;
use crate::memtable::MemtableCursor;
use crate::read::level::{RunCursor, compare_cursors};

/// A cursor that can be merged. That over a memtable lies apart: it is twice as large, and sources are runs
/// mostly.
#[expect(
    clippy::large_enum_variant,
    reason = "a scan has a handful of runs, and an indirection would cost each of its steps"
)]
pub(crate) enum Source {
    Memtable(Box<MemtableCursor>),
    Run(RunCursor),
}

macro_rules! each {
    ($self:expr, $cursor:ident => $call:expr) => {
        match $self {
            Source::Memtable($cursor) => $call,
            Source::Run($cursor) => $call,
        }
    };
}

impl InternalCursor for Source {
    #[inline]
    fn valid(&self) -> bool {
        each!(self, c => c.valid())
    }
    fn first(&mut self) -> Result<()> {
        each!(self, c => c.first())
    }
    fn last(&mut self) -> Result<()> {
        each!(self, c => c.last())
    }
    fn seek(&mut self, key: &[u8], trailer: u64) -> Result<()> {
        each!(self, c => c.seek(key, trailer))
    }
    fn seek_back(&mut self, key: &[u8], trailer: u64) -> Result<()> {
        each!(self, c => c.seek_back(key, trailer))
    }
    #[inline]
    fn next(&mut self) -> Result<()> {
        each!(self, c => c.next())
    }
    #[inline]
    fn prev(&mut self) -> Result<()> {
        each!(self, c => c.prev())
    }
    #[inline]
    fn key(&self) -> &[u8] {
        each!(self, c => c.key())
    }
    #[inline]
    fn trailer(&self) -> u64 {
        each!(self, c => c.trailer())
    }
    #[inline]
    fn value(&self) -> &[u8] {
        each!(self, c => c.value())
    }
    fn value_slice(&self) -> Slice {
        each!(self, c => c.value_slice())
    }
    fn pass_forward(&mut self, sequence: SequenceNumber, end: &[u8]) -> Result<bool> {
        each!(self, c => c.pass_forward(sequence, end))
    }
    fn pass_backward(&mut self, sequence: SequenceNumber, start: &[u8]) -> Result<bool> {
        each!(self, c => c.pass_backward(sequence, start))
    }
    fn park(&mut self) {
        each!(self, c => c.park());
    }
    fn unpark(&mut self) -> Result<()> {
        each!(self, c => c.unpark())
    }
    fn forget(&mut self) {
        each!(self, c => c.forget());
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

/// Several cursors as one.
pub(crate) struct MergeCursor<S = Source> {
    sources: Vec<S>,
    /// Sources that stand on an entry; `heap[0]` on the next one in the current direction.
    heap: Vec<u32>,
    direction: Direction,
    /// What the sources hold together. While it is thrifty, only the one on top holds its block.
    lease: Option<Arc<Lease>>,
    /// Whether some source may have let go of its block, and whether all but that on top have.
    parked: bool,
    all_parked: bool,
}

impl<S: InternalCursor> MergeCursor<S> {
    pub(crate) fn new(sources: Vec<S>) -> Self {
        let heap = Vec::with_capacity(sources.len());
        Self {
            sources,
            heap,
            direction: Direction::Forward,
            lease: None,
            parked: false,
            all_parked: false,
        }
    }

    /// This cursor, with the lease under which its sources count what they hold.
    pub(crate) fn leased(mut self, lease: Arc<Lease>) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Lets go of everything that was read: the cursor is not valid until it is positioned anew.
    pub(crate) fn forget(&mut self) {
        self.heap.clear();
        self.sources.iter_mut().for_each(S::forget);
    }

    /// Moves sources on without regard to their order, then restores it. `pass` says whether it moved a source.
    fn pass(&mut self, mut pass: impl FnMut(&mut S) -> Result<bool>) -> Result<()> {
        let mut moved = false;
        for at in 0..self.heap.len() {
            moved |= pass(&mut self.sources[self.heap[at] as usize])?;
        }
        if moved {
            let sources = &self.sources;
            self.heap.retain(|&at| sources[at as usize].valid());
            for at in (0..self.heap.len() / 2).rev() {
                self.sink(at);
            }
            // Those that moved have their blocks.
            self.all_parked = false;
        }
        self.economise(None)
    }

    /// Takes every source forward to `end`, as far as it holds nothing newer than `sequence` until there: a range delete of that
    /// number hides all of it. The others stay where they are, and so may the cursor.
    pub(crate) fn pass_hidden_forward(
        &mut self,
        sequence: SequenceNumber,
        end: &[u8],
    ) -> Result<()> {
        debug_assert_eq!(self.direction, Direction::Forward);
        let outcome = self.pass(|source| source.pass_forward(sequence, end));
        self.unposition(outcome)
    }

    /// As [`MergeCursor::pass_hidden_forward`], backward to before `start`.
    pub(crate) fn pass_hidden_backward(
        &mut self,
        sequence: SequenceNumber,
        start: &[u8],
    ) -> Result<()> {
        debug_assert_eq!(self.direction, Direction::Backward);
        let outcome = self.pass(|source| source.pass_backward(sequence, start));
        self.unposition(outcome)
    }

    fn top(&self) -> &S {
        &self.sources[self.heap[0] as usize]
    }

    /// Positions every source anew and rebuilds the heap.
    fn position(
        &mut self,
        direction: Direction,
        mut place: impl FnMut(&mut S) -> Result<()>,
    ) -> Result<()> {
        self.direction = direction;
        self.heap.clear();
        for (i, source) in self.sources.iter_mut().enumerate() {
            place(source)?;
            if self.lease.as_ref().is_some_and(|lease| lease.is_thrifty()) {
                source.park();
                self.parked = true;
            }
            if source.valid() {
                self.heap.push(i as u32);
            }
        }
        for at in (0..self.heap.len() / 2).rev() {
            self.sink(at);
        }
        self.economise(None)
    }

    /// Sees to it that the source on top has its block, and that the others don't where memory is tight.
    /// `moved` is the only one that may have gained one since the last time.
    #[inline]
    fn economise(&mut self, moved: Option<u32>) -> Result<()> {
        match &self.lease {
            Some(lease) if self.parked || lease.is_thrifty() => self.park_all_but_top(moved),
            _ => Ok(()),
        }
    }

    #[cold]
    fn park_all_but_top(&mut self, moved: Option<u32>) -> Result<()> {
        let Some((&top, others)) = self.heap.split_first() else {
            return Ok(());
        };
        let thrifty = self.lease.as_ref().is_some_and(|lease| lease.is_thrifty());
        if thrifty {
            match moved.filter(|_| self.all_parked) {
                Some(moved) if moved != top => self.sources[moved as usize].park(),
                Some(_) => {}
                None => others
                    .iter()
                    .for_each(|&other| self.sources[other as usize].park()),
            }
            self.parked = true;
        }
        self.all_parked = thrifty;
        self.sources[top as usize].unpark()
    }

    /// Whether the entry of source `a` comes before that of `b` in the current direction. Sources
    /// never hold the same internal key, but damaged ones might: the first source wins then.
    #[inline]
    fn comes_first(&self, a: u32, b: u32) -> bool {
        let order = compare_cursors(&self.sources[a as usize], &self.sources[b as usize]);
        match (order, self.direction) {
            (Ordering::Equal, _) => a < b,
            (order, Direction::Forward) => order == Ordering::Less,
            (order, Direction::Backward) => order == Ordering::Greater,
        }
    }

    #[inline]
    fn sink(&mut self, mut at: usize) {
        let len = self.heap.len();
        loop {
            let left = 2 * at + 1;
            if left >= len {
                return;
            }
            let right = left + 1;
            let child = if right < len && self.comes_first(self.heap[right], self.heap[left]) {
                right
            } else {
                left
            };
            if !self.comes_first(self.heap[child], self.heap[at]) {
                return;
            }
            self.heap.swap(at, child);
            at = child;
        }
    }

    /// After the top source moved: takes it out if it is at its end, and restores the heap.
    #[inline]
    fn settle(&mut self) -> Result<()> {
        let moved = self.heap[0];
        if !self.top().valid() {
            self.heap.swap_remove(0);
        }
        self.sink(0);
        let outcome = self.economise(Some(moved));
        self.unposition(outcome)
    }

    /// A move of a source failed: nothing is known about where the sources stand.
    fn unposition<T>(&mut self, outcome: Result<T>) -> Result<T> {
        if outcome.is_err() {
            self.heap.clear();
        }
        outcome
    }
}

impl<S: InternalCursor> InternalCursor for MergeCursor<S> {
    #[inline]
    fn valid(&self) -> bool {
        !self.heap.is_empty()
    }

    fn first(&mut self) -> Result<()> {
        let outcome = self.position(Direction::Forward, S::first);
        self.unposition(outcome)
    }

    fn last(&mut self) -> Result<()> {
        let outcome = self.position(Direction::Backward, S::last);
        self.unposition(outcome)
    }

    fn seek(&mut self, key: &[u8], trailer: u64) -> Result<()> {
        let outcome = self.position(Direction::Forward, |source| source.seek(key, trailer));
        self.unposition(outcome)
    }

    fn seek_back(&mut self, key: &[u8], trailer: u64) -> Result<()> {
        let outcome = self.position(Direction::Backward, |source| source.seek_back(key, trailer));
        self.unposition(outcome)
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        if self.heap.is_empty() {
            return Ok(());
        }
        if self.direction == Direction::Backward {
            let (key, trailer) = (self.key().to_vec(), self.trailer());
            self.seek(&key, trailer)?;
        }
        if self.heap.is_empty() {
            return Ok(());
        }
        let top = self.heap[0] as usize;
        let outcome = self.sources[top].next();
        self.unposition(outcome)?;
        self.settle()
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        if self.heap.is_empty() {
            return Ok(());
        }
        if self.direction == Direction::Forward {
            let (key, trailer) = (self.key().to_vec(), self.trailer());
            self.seek_back(&key, trailer)?;
        }
        if self.heap.is_empty() {
            return Ok(());
        }
        let top = self.heap[0] as usize;
        let outcome = self.sources[top].prev();
        self.unposition(outcome)?;
        self.settle()
    }

    #[inline]
    fn key(&self) -> &[u8] {
        self.top().key()
    }

    #[inline]
    fn trailer(&self) -> u64 {
        self.top().trailer()
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.top().value()
    }

    fn value_slice(&self) -> Slice {
        self.top().value_slice()
    }
}
