//! Walks over the entries of a table in both directions.

use std::ops::Range;
use std::sync::Arc;

use vault_core::transform::HEADER_BYTES;
use vault_core::{Result, Slice};

use super::Table;
use super::block::{Block, GROUP_ENTRIES, Group};
use super::fetch::{Direction, Handle, ReadAhead};
use super::index::IndexPartition;
use super::reader::Held;
use super::recycle;
use crate::cursor::InternalCursor;
use crate::internal_key::compare;
use crate::memory::Lease;

/// Blocks over this that a compaction's cursor stands on are let go of where memory is tight. A smaller one is
/// hardly more than its key, and would have to be read again.
const PARKED_BYTES_MIN: u64 = 32 << 10;
/// Blocks that are read one by one before a read cursor begins to read ahead.
const SINGLE_READS: u32 = 2;
/// First and greatest window of a read cursor.
const READ_WINDOW_BYTES: Range<usize> = 16 << 10..256 << 10;
/// First and greatest window of a compaction's cursor.
const SCAN_WINDOW_BYTES: Range<usize> = 256 << 10..1 << 20;

/// A position in a table. Holds the table, the index of one partition, and one block.
pub(crate) struct TableCursor {
    table: Arc<Table>,
    /// Leaves the cache alone, and reads far ahead from the start.
    scan: bool,
    index: Option<Arc<IndexPartition>>,
    /// Whether nobody else may be holding it: the table doesn't.
    index_is_own: bool,
    /// The partition that `index` is of, and the block within it that `block` is.
    partition: usize,
    number: usize,
    block: Option<Block>,
    /// The entry within the block; only while valid.
    entry: usize,
    valid: bool,
    /// The group that the entry is in. Its prefix begins `key`.
    group: Option<Group>,
    /// The key, and behind its `key_len` bytes rubbish that saves work.
    key: Vec<u8>,
    key_len: usize,
    ahead: ReadAhead,
    window_bytes: usize,
    /// What the cursors of one scan hold together, and what of it is this one's.
    lease: Option<Arc<Lease>>,
    charged: u64,
    /// The trailer of the entry, while its block is not there.
    parked_trailer: u64,
    /// Blocks read from the file one behind the other, and where the next one would begin or end.
    streak: u32,
    streak_direction: Direction,
}

impl TableCursor {
    pub(super) fn new(table: Arc<Table>, scan: bool) -> Self {
        Self {
            table,
            scan,
            index: None,
            index_is_own: false,
            partition: 0,
            number: 0,
            block: None,
            entry: 0,
            valid: false,
            group: None,
            key: Vec::new(),
            key_len: 0,
            ahead: ReadAhead::default(),
            window_bytes: 0,
            lease: None,
            charged: 0,
            parked_trailer: 0,
            streak: 0,
            streak_direction: Direction::Forward,
        }
    }

    /// This cursor, counting what it holds under a lease.
    pub(crate) fn leased(mut self, lease: &Arc<Lease>) -> Self {
        self.lease = Some(Arc::clone(lease));
        self
    }

    /// Tells the lease what the cursor holds now.
    fn charge(&mut self) {
        if let Some(lease) = &self.lease {
            let block = self.block.as_ref().map_or(0, Block::memory_bytes);
            let own = self.index.as_ref().filter(|_| self.index_is_own);
            let index = own.map_or(0, |index| index.memory_bytes());
            let held = block + index + self.ahead.memory_bytes() as u64;
            if held != self.charged {
                lease.change(self.charged, held);
                self.charged = held;
            }
        }
    }

    /// Brings the block back that was let go of.
    fn bring_back(&mut self) -> Result<()> {
        let entry = self.entry;
        let index = self.load_partition(self.partition)?;
        let (partition, number) = (self.partition, self.number);
        // The window over what comes next stays as it is.
        let block = if self.scan {
            let handle = self.table.data_handle(partition, &index, number);
            self.table.source.data_block(&handle)?
        } else {
            self.table.data_block(partition, &index, number)?.0
        };
        self.block = Some(block);
        self.charge();
        if entry < self.block().len() {
            self.stand_on(entry);
        }
        Ok(())
    }

    /// Brings in the index of a partition.
    fn load_partition(&mut self, partition: usize) -> Result<Arc<IndexPartition>> {
        if let Some(index) = &self.index
            && self.partition == partition
        {
            return Ok(Arc::clone(index));
        }
        self.index = None;
        self.block = None;
        let index = self.table.index(partition)?;
        self.index_is_own = matches!(index, Held::Shared(_));
        let index = index.into_arc();
        self.index = Some(Arc::clone(&index));
        self.partition = partition;
        Ok(index)
    }

    /// Brings in a block of the current partition. `step` says that it is the neighbour, that way, of
    /// the one before.
    fn load_block(
        &mut self,
        index: &IndexPartition,
        number: usize,
        step: Option<Direction>,
    ) -> Result<()> {
        self.group = None;
        if self.block.is_some() && self.number == number {
            return Ok(());
        }
        if let Some(block) = self.block.take() {
            // Out of the cache it is not this cursor's alone, and stays there.
            recycle::give(block.into_buffer());
        }
        let handle = self.table.data_handle(self.partition, index, number);
        if let Some(lease) = &self.lease {
            lease.check_room(u64::from(handle.plain_len))?;
        }
        self.block = Some(self.fetch(&handle, step)?);
        self.number = number;
        self.charge();
        Ok(())
    }

    fn fetch(&mut self, handle: &Handle, step: Option<Direction>) -> Result<Block> {
        match step {
            Some(direction) if direction == self.streak_direction => {}
            _ => self.break_streak(step),
        }
        if !self.scan
            && let Some(block) = self.table.cached_data_block(handle.ordinal)
        {
            return Ok(block);
        }
        self.streak += 1;
        let ahead = self.scan || self.streak > SINGLE_READS;
        let window = match &self.lease {
            Some(lease) if ahead => lease.window(self.window_bytes),
            _ if ahead => self.window_bytes,
            _ => 0,
        };
        // A window of a block or less gains nothing.
        let block = if window > self.table.source.sealed_len(handle) {
            self.fetch_ahead(handle, window)?
        } else {
            if window == 0 {
                self.ahead.release();
            }
            self.table.source.data_block(handle)?
        };
        if !self.scan {
            self.table.keep_data_block(handle.ordinal, &block);
        }
        Ok(block)
    }

    fn fetch_ahead(&mut self, handle: &Handle, window: usize) -> Result<Block> {
        let limits = HEADER_BYTES as u64..self.table.top.end;
        let (sealed, moved) = self.ahead.sealed(
            &self.table.source,
            handle,
            self.streak_direction,
            window,
            &limits,
        )?;
        if moved {
            let most = if self.scan {
                SCAN_WINDOW_BYTES
            } else {
                READ_WINDOW_BYTES
            }
            .end;
            self.window_bytes = (self.window_bytes * 2).min(most);
        }
        self.table.source.open_data_block(handle, sealed)
    }

    fn break_streak(&mut self, step: Option<Direction>) {
        self.streak = 0;
        self.streak_direction = step.unwrap_or(Direction::Forward);
        self.ahead.clear();
        self.window_bytes = if self.scan {
            SCAN_WINDOW_BYTES
        } else {
            READ_WINDOW_BYTES
        }
        .start;
    }

    /// Stands on an entry of the current block.
    fn stand_on(&mut self, entry: usize) {
        let Some(block) = &self.block else {
            self.valid = false;
            return;
        };
        let group = block.group(entry / GROUP_ENTRIES);
        self.key.clear();
        self.key.extend_from_slice(block.prefix(&group));
        self.key_len = block.put_suffix(&group, entry % GROUP_ENTRIES, &mut self.key);
        self.group = Some(group);
        self.entry = entry;
        self.valid = true;
    }

    /// Stands on another entry of the group that the cursor is in.
    #[inline]
    fn stand_within_group(&mut self, entry: usize) {
        if let (Some(block), Some(group)) = (&self.block, &self.group) {
            self.key_len = block.put_suffix(group, entry % GROUP_ENTRIES, &mut self.key);
            self.entry = entry;
        }
    }

    /// Stands on the first entry of the next block, if there is one.
    fn next_block(&mut self) -> Result<()> {
        let index = self.load_partition(self.partition)?;
        if self.number + 1 < index.blocks().len() {
            self.load_block(&index, self.number + 1, Some(Direction::Forward))?;
        } else if self.partition + 1 < self.table.top.partitions.len() {
            let index = self.load_partition(self.partition + 1)?;
            self.load_block(&index, 0, Some(Direction::Forward))?;
        } else {
            return Ok(());
        }
        self.stand_on(0);
        Ok(())
    }

    /// Stands on the last entry of the block before, if there is one.
    fn prev_block(&mut self) -> Result<()> {
        let mut index = self.load_partition(self.partition)?;
        let number = if self.number > 0 {
            self.number - 1
        } else if self.partition > 0 {
            index = self.load_partition(self.partition - 1)?;
            index.blocks().len() - 1
        } else {
            return Ok(());
        };
        self.load_block(&index, number, Some(Direction::Backward))?;
        self.stand_on(self.block().len() - 1);
        Ok(())
    }

    /// Brings in the one block that can hold `(key, trailer)`; gives the first entry of it at or
    /// behind that. `None` where the table has no entries.
    fn locate(&mut self, key: &[u8], trailer: u64) -> Result<Option<usize>> {
        self.valid = false;
        if self.table.top.partitions.is_empty() {
            return Ok(None);
        }
        let trailer = self.table.stored_trailer(trailer);
        let index = self.load_partition(self.table.top.fences.find(key, trailer))?;
        self.load_block(&index, index.fences.find(key, trailer), None)?;
        Ok(Some(self.block().lower_bound(key, trailer)))
    }

    #[inline]
    fn block(&self) -> &Block {
        let block = self.block.as_ref();
        block.expect("a cursor that stands on an entry, or has just loaded a block, has one")
    }
}

impl InternalCursor for TableCursor {
    #[inline]
    fn valid(&self) -> bool {
        self.valid
    }

    fn first(&mut self) -> Result<()> {
        self.valid = false;
        if !self.table.top.partitions.is_empty() {
            let index = self.load_partition(0)?;
            self.load_block(&index, 0, None)?;
            self.stand_on(0);
        }
        Ok(())
    }

    fn last(&mut self) -> Result<()> {
        self.valid = false;
        if let Some(partition) = self.table.top.partitions.len().checked_sub(1) {
            let index = self.load_partition(partition)?;
            self.load_block(&index, index.blocks().len() - 1, None)?;
            self.stand_on(self.block().len() - 1);
        }
        Ok(())
    }

    fn seek(&mut self, key: &[u8], trailer: u64) -> Result<()> {
        match self.locate(key, trailer)? {
            Some(entry) if entry < self.block().len() => self.stand_on(entry),
            // Behind the block's last entry, and before the next block's fence.
            Some(_) => self.next_block()?,
            None => {}
        }
        Ok(())
    }

    fn seek_back(&mut self, key: &[u8], trailer: u64) -> Result<()> {
        let Some(entry) = self.locate(key, trailer)? else {
            return Ok(());
        };
        if entry < self.block().len() {
            self.stand_on(entry);
            if compare((self.key(), self.trailer()), (key, trailer)).is_eq() {
                return Ok(());
            }
            self.valid = false;
        }
        match entry.checked_sub(1) {
            Some(before) => self.stand_on(before),
            None => self.prev_block()?,
        }
        Ok(())
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        if !self.valid {
            return Ok(());
        }
        let entry = self.entry + 1;
        if self.block.is_none() {
            self.bring_back()?;
        }
        if entry == self.block().len() {
            self.valid = false;
            return self.next_block();
        }
        if entry.is_multiple_of(GROUP_ENTRIES) {
            self.stand_on(entry);
        } else {
            self.stand_within_group(entry);
        }
        Ok(())
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        if !self.valid {
            return Ok(());
        }
        if self.block.is_none() {
            self.bring_back()?;
        }
        let Some(entry) = self.entry.checked_sub(1) else {
            self.valid = false;
            return self.prev_block();
        };
        if self.entry.is_multiple_of(GROUP_ENTRIES) {
            self.stand_on(entry);
        } else {
            self.stand_within_group(entry);
        }
        Ok(())
    }

    #[inline]
    fn key(&self) -> &[u8] {
        &self.key[..self.key_len]
    }

    #[inline]
    fn trailer(&self) -> u64 {
        let stored = match &self.block {
            Some(block) => block.trailer(self.entry),
            None => self.parked_trailer,
        };
        self.table.shown_trailer(stored)
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.block().value(self.entry)
    }

    #[inline]
    fn value_slice(&self) -> Slice {
        self.block().value_slice(self.entry)
    }

    fn park(&mut self) {
        let Some(block) = self.block.as_ref().filter(|_| self.valid) else {
            return;
        };
        if self.scan && block.memory_bytes() < PARKED_BYTES_MIN {
            return;
        }
        self.parked_trailer = block.trailer(self.entry);
        (self.block, self.index, self.group) = (None, None, None);
        if !self.scan {
            self.ahead.release();
        }
        self.charge();
    }

    fn unpark(&mut self) -> Result<()> {
        if self.valid && self.block.is_none() {
            return self.bring_back();
        }
        Ok(())
    }
}

impl Drop for TableCursor {
    fn drop(&mut self) {
        if let Some(lease) = &self.lease {
            lease.change(self.charged, 0);
        }
    }
}

impl std::fmt::Debug for TableCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableCursor")
            .field("table", self.table.meta())
            .field("valid", &self.valid)
            .finish_non_exhaustive()
    }
}
