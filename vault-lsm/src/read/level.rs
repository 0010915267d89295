//! A cursor over one sorted run: the cursors of its tables, one after the other.

use std::ops::Range;
use std::sync::Arc;

use vault_core::{Result, SequenceNumber, Slice};

use crate::cursor::InternalCursor;
use crate::internal_key::compare;
use crate::memory::Lease;
use crate::table::TableCursor;
use crate::version::{Run, TableFile};

/// What a cursor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A reader: blocks go through the cache.
    Read,
    /// A compaction: reads ahead and leaves the cache alone.
    Compaction,
}

/// A cursor over tables that don't overlap, ascending.
pub(crate) struct RunCursor {
    run: Arc<Run>,
    /// The tables of the run that the cursor goes over.
    span: Range<usize>,
    /// The table that `current` is over: its place in the span.
    at: usize,
    current: Option<TableCursor>,
    purpose: Purpose,
    lease: Option<Arc<Lease>>,
}

impl RunCursor {
    /// A cursor over the tables of a run that stand in `span`.
    pub(crate) fn new(run: Arc<Run>, span: Range<usize>, purpose: Purpose) -> Self {
        Self {
            run,
            span,
            at: 0,
            current: None,
            purpose,
            lease: None,
        }
    }

    /// This cursor, counting what it holds under a lease.
    pub(crate) fn leased(mut self, lease: &Arc<Lease>) -> Self {
        self.lease = Some(Arc::clone(lease));
        self
    }

    /// A cursor over all tables of a run.
    pub(crate) fn over_all(run: Arc<Run>, purpose: Purpose) -> Self {
        let span = 0..run.tables.len();
        Self::new(run, span, purpose)
    }

    fn tables(&self) -> &[Arc<TableFile>] {
        &self.run.tables[self.span.clone()]
    }

    /// Opens the cursor of table `at`, unless it is open.
    fn open(&mut self, at: usize) -> Option<&mut TableCursor> {
        let file = self.run.tables[self.span.clone()].get(at)?;
        if self.current.is_none() || self.at != at {
            self.at = at;
            let table = &file.table;
            let cursor = match self.purpose {
                Purpose::Read => table.cursor(),
                Purpose::Compaction => table.scan_cursor(),
            };
            // The one before goes first: together they would be more than is needed.
            self.current = None;
            self.current = Some(match &self.lease {
                Some(lease) => cursor.leased(lease),
                None => cursor,
            });
        }
        self.current.as_mut()
    }

    /// While the current table is at its end, goes on to the first entry of the next.
    fn skip_forward(&mut self) -> Result<()> {
        while self.current.as_ref().is_some_and(|cursor| !cursor.valid()) {
            match self.open(self.at + 1) {
                Some(cursor) => cursor.first()?,
                None => self.current = None,
            }
        }
        Ok(())
    }

    fn skip_backward(&mut self) -> Result<()> {
        while self.current.as_ref().is_some_and(|cursor| !cursor.valid()) {
            let before = self.at.checked_sub(1);
            match before.and_then(|at| self.open(at)) {
                Some(cursor) => cursor.last()?,
                None => self.current = None,
            }
        }
        Ok(())
    }

    fn standing(&self) -> &TableCursor {
        self.current.as_ref().expect("callers check `valid` first")
    }
}

impl InternalCursor for RunCursor {
    fn valid(&self) -> bool {
        self.current.is_some()
    }

    fn first(&mut self) -> Result<()> {
        if let Some(cursor) = self.open(0) {
            cursor.first()?;
        }
        self.skip_forward()
    }

    fn last(&mut self) -> Result<()> {
        let last = self.tables().len().checked_sub(1);
        if let Some(cursor) = last.and_then(|at| self.open(at)) {
            cursor.last()?;
        }
        self.skip_backward()
    }

    fn seek(&mut self, key: &[u8], trailer: u64) -> Result<()> {
        // The first table that may reach as far as the key.
        let at = self
            .tables()
            .partition_point(|table| table.meta().largest.as_slice() < key);
        match self.open(at) {
            Some(cursor) => cursor.seek(key, trailer)?,
            None => self.current = None,
        }
        self.skip_forward()
    }

    fn seek_back(&mut self, key: &[u8], trailer: u64) -> Result<()> {
        let behind = self
            .tables()
            .partition_point(|table| table.meta().smallest.as_slice() <= key);
        match behind.checked_sub(1).and_then(|at| self.open(at)) {
            Some(cursor) => cursor.seek_back(key, trailer)?,
            None => self.current = None,
        }
        self.skip_backward()
    }

    fn next(&mut self) -> Result<()> {
        if let Some(cursor) = &mut self.current {
            cursor.next()?;
            if !cursor.valid() {
                return self.skip_forward();
            }
        }
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        if let Some(cursor) = &mut self.current {
            cursor.prev()?;
            if !cursor.valid() {
                return self.skip_backward();
            }
        }
        Ok(())
    }

    fn key(&self) -> &[u8] {
        self.standing().key()
    }

    fn trailer(&self) -> u64 {
        self.standing().trailer()
    }

    fn value(&self) -> &[u8] {
        self.standing().value()
    }

    fn value_slice(&self) -> Slice {
        self.standing().value_slice()
    }

    fn pass_forward(&mut self, sequence: SequenceNumber, end: &[u8]) -> Result<bool> {
        if !self.valid() || self.key() >= end {
            return Ok(false);
        }
        let is_newer = |table: &&Arc<TableFile>| table.meta().sequence_max > sequence;
        let within = |table: &&Arc<TableFile>| table.meta().smallest.as_slice() < end;
        let tables = self.tables()[self.at..].iter().take_while(within);
        let newer = tables.enumerate().find(|(_, table)| is_newer(table));
        match newer.map(|(ahead, _)| ahead) {
            None => self.seek(end, u64::MAX)?,
            // The one it is in has something newer: it has to be walked through.
            Some(0) => return Ok(false),
            Some(ahead) => {
                if let Some(cursor) = self.open(self.at + ahead) {
                    cursor.first()?;
                }
                self.skip_forward()?;
            }
        }
        Ok(true)
    }

    fn pass_backward(&mut self, sequence: SequenceNumber, start: &[u8]) -> Result<bool> {
        if !self.valid() || self.key() < start {
            return Ok(false);
        }
        let is_newer = |table: &&Arc<TableFile>| table.meta().sequence_max > sequence;
        let within = |table: &&Arc<TableFile>| table.meta().largest.as_slice() >= start;
        let tables = self.tables()[..=self.at].iter().rev().take_while(within);
        let newer = tables.enumerate().find(|(_, table)| is_newer(table));
        match newer.map(|(back, _)| back) {
            None => self.seek_back(start, u64::MAX)?,
            Some(0) => return Ok(false),
            Some(back) => {
                if let Some(cursor) = self.open(self.at - back) {
                    cursor.last()?;
                }
                self.skip_backward()?;
            }
        }
        Ok(true)
    }

    fn park(&mut self) {
        if let Some(cursor) = &mut self.current {
            cursor.park();
        }
    }

    fn unpark(&mut self) -> Result<()> {
        self.current.as_mut().map_or(Ok(()), TableCursor::unpark)
    }

    fn forget(&mut self) {
        self.current = None;
    }
}

/// Compares the entries that two cursors stand on.
#[inline]
pub(crate) fn compare_cursors(
    a: &impl InternalCursor,
    b: &impl InternalCursor,
) -> std::cmp::Ordering {
    compare((a.key(), a.trailer()), (b.key(), b.trailer()))
}
