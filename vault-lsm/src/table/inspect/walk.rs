//! Walks over the blocks of a table, and holds each entry against its neighbours, fences and filter.

use vault_core::transform::SALT_BYTES;
use vault_core::{Result, Timestamp};

use super::{Fault, Inspection, LostSpan, Opened, Problem, Request, Visitor};
use crate::blob::{Pointer, pointer_of};
use crate::internal_key::{compare, pack};
use crate::table::block::{Block, GROUP_ENTRIES};
use crate::table::fetch::{Handle, Source};
use crate::table::filter::Filter;
use crate::table::footer::Footer;
use crate::table::index::{IndexPartition, Partition, TopIndex};
use crate::table::totals::Totals;
use crate::table::{BlockType, Shown, key_hash};

/// Walks over the partitions of a table.
pub(super) struct Walk<'a> {
    source: &'a Source,
    top: &'a TopIndex,
    request: &'a Request<'a>,
    inspection: &'a mut Inspection,
    visitor: &'a mut dyn Visitor,
    totals: Totals,
    /// The entry before, where it was read.
    last: Option<(Vec<u8>, u64)>,
    /// The greatest key so far, whether or not the one before was read.
    last_key: Vec<u8>,
    complete: bool,
    key: Vec<u8>,
    shown: Shown,
}

/// Internal keys between which the entries of a block lie.
struct Between {
    lower: Option<(Vec<u8>, u64)>,
    upper: Option<(Vec<u8>, u64)>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        opened: &'a Opened,
        top: &'a TopIndex,
        request: &'a Request<'a>,
        inspection: &'a mut Inspection,
        visitor: &'a mut dyn Visitor,
    ) -> Self {
        let known = inspection.properties.as_ref();
        let created = known.map_or(Timestamp(0), |properties| properties.created);
        // What the header says was compared with what the manifest has.
        let salt = known.map_or([0; SALT_BYTES], |properties| properties.salt);
        Self {
            totals: Totals::new(request.number, salt, created),
            complete: !inspection.tombstones_lost,
            source: &opened.source,
            shown: opened.shown,
            top,
            request,
            inspection,
            visitor,
            last: None,
            last_key: Vec::new(),
            key: Vec::new(),
        }
    }

    pub(super) fn partition(&mut self, number: usize) -> Result<()> {
        let partition = &self.top.partitions[number];
        let overhead = self.source.overhead();
        let between = Between {
            lower: self.top.fences.before(number),
            upper: self.top.fences.before(number + 1),
        };
        let filter = self.filter(number);
        let handle = Handle::raw(
            BlockType::Index,
            partition.index_offset(overhead),
            partition.index_len,
            partition.index_ordinal(),
        );
        let decode = |bytes: &[u8]| IndexPartition::decode(bytes, partition, overhead);
        let index = match self.source.decode(&handle, decode) {
            Ok(index) => index,
            Err(error) => {
                let offset = handle.offset;
                let what = "the index of a partition";
                self.inspection
                    .note_error(Fault::Block, offset, what, &error);
                self.lose(&between, partition.offset, partition.data_bytes);
                return self.visitor.progress(partition_bytes(partition, overhead));
            }
        };
        self.inspection.blocks += 1;
        let data = partition.data_bytes;
        self.visitor
            .progress(partition_bytes(partition, overhead) - data)?;
        for block in 0..index.blocks().len() {
            self.block(number, &index, block, &between, filter.as_ref())?;
        }
        Ok(())
    }

    fn filter(&mut self, number: usize) -> Option<Filter> {
        let partition = &self.top.partitions[number];
        if partition.filter_len == 0 {
            return None;
        }
        let (offset, len) = (partition.filter_offset(), partition.filter_len);
        let handle = Handle::raw(BlockType::Filter, offset, len, partition.filter_ordinal());
        match self.source.decode(&handle, Filter::decode) {
            Ok(filter) => {
                self.inspection.blocks += 1;
                Some(filter)
            }
            Err(error) => {
                self.inspection
                    .note_error(Fault::Filter, offset, "a filter", &error);
                None
            }
        }
    }

    fn block(
        &mut self,
        partition: usize,
        index: &IndexPartition,
        number: usize,
        around: &Between,
        filter: Option<&Filter>,
    ) -> Result<()> {
        let (place, data) = (&self.top.partitions[partition], &index.blocks()[number]);
        let handle = Handle {
            offset: place.offset + u64::from(data.offset),
            stored_len: data.stored_len,
            plain_len: data.plain_len,
            ordinal: place.ordinal + number as u64,
            block_type: BlockType::Data,
            codec: data.codec,
        };
        let fence = |at: usize, outer: &Option<(Vec<u8>, u64)>| {
            index.fences.before(at).or_else(|| outer.clone())
        };
        let between = Between {
            lower: fence(number, &around.lower),
            upper: fence(number + 1, &around.upper),
        };
        let bytes = self.source.sealed_len(&handle) as u64;
        if !self.visitor.wants_block() {
            self.complete = false;
            self.last = None;
            return self.visitor.progress(bytes);
        }
        match self.source.data_block(&handle) {
            Ok(block) => {
                self.inspection.blocks += 1;
                self.entries(&block, handle.offset, &between, filter)?;
            }
            Err(error) => {
                let offset = handle.offset;
                self.inspection
                    .note_error(Fault::Block, offset, "a data block", &error);
                self.lose(&between, offset, bytes);
            }
        }
        self.visitor.progress(bytes)
    }

    fn entries(
        &mut self,
        block: &Block,
        offset: u64,
        between: &Between,
        filter: Option<&Filter>,
    ) -> Result<()> {
        // One problem of each kind a block says enough.
        let (mut unordered, mut outside, mut unfiltered) = (None, None, None);
        // Where the values of entries that follow each other are lost.
        let mut run = None;
        let shown = self.shown;
        let ingested = self
            .request
            .expected
            .map_or(0, |(_, meta)| meta.ingest_sequence);
        for entry in 0..block.len() {
            let group = block.group(entry / GROUP_ENTRIES);
            self.key.clear();
            self.key.extend_from_slice(block.prefix(&group));
            self.key
                .extend_from_slice(block.suffix(&group, entry % GROUP_ENTRIES));
            let (key, trailer, value) = (&self.key[..], block.trailer(entry), block.value(entry));
            let own = (key, trailer);
            let after = |last: &(Vec<u8>, u64)| compare((&last.0, last.1), own).is_lt();
            if !self.last.as_ref().is_none_or(after) {
                unordered.get_or_insert_with(|| shown(key));
            }
            let above = |fence: &(Vec<u8>, u64)| compare((&fence.0, fence.1), own).is_le();
            if !between.lower.as_ref().is_none_or(above)
                || between.upper.as_ref().is_some_and(above)
            {
                outside.get_or_insert_with(|| shown(key));
            }
            let new_key = self.last.as_ref().is_none_or(|last| last.0 != key);
            if let (Some(filter), true) = (filter, new_key) {
                self.inspection.filter_probes += 1;
                if !filter.may_contain(key_hash(key)) {
                    unfiltered.get_or_insert_with(|| shown(key));
                }
            }
            if self.totals.add(key, trailer, value).is_none() {
                let found = format!("trailer {trailer:#x} at key {}", shown(key));
                self.inspection
                    .note(Fault::Block, offset, "entries of a known kind", &found);
                self.complete = false;
                continue;
            }
            let apart = pointer_of(trailer, value).flatten();
            let missing = match apart {
                Some(pointer) => self.visitor.check_value(key, &pointer)?,
                None => None,
            };
            if let Some(problem) = missing {
                let lost = (shown(key), problem, apart);
                lose_value(self.inspection, key, offset, lost, &mut run);
                let last = self.last.get_or_insert_default();
                last.0.clone_from(&self.key);
                last.1 = trailer;
                continue;
            }
            run = None;
            self.inspection.entries += 1;
            let shown = if ingested == 0 {
                trailer
            } else {
                pack(ingested, trailer as u8)
            };
            self.visitor.entry(key, shown, value)?;
            let last = self.last.get_or_insert_default();
            last.0.clear();
            last.0.extend_from_slice(&self.key);
            last.1 = trailer;
        }
        if let Some(last) = &self.last {
            self.last_key.clone_from(&last.0);
        }
        self.inspection.disorder |= unordered.is_some();
        let notes = [
            (Fault::Order, "keys that ascend", unordered),
            (Fault::Fence, "keys between the block's fences", outside),
            (Fault::Filter, "a filter that admits every key", unfiltered),
        ];
        for (fault, expected, found) in notes {
            if let Some(key) = found {
                let found = format!("key {key}");
                self.inspection.note(fault, offset, expected, &found);
            }
        }
        Ok(())
    }

    /// Notes entries that cannot be read.
    fn lose(&mut self, between: &Between, offset: u64, bytes: u64) {
        self.complete = false;
        self.last = None;
        let (end, end_included) = match &between.upper {
            // A fence without a trailer stands before all versions of its key.
            Some((key, trailer)) => (Some(key.clone()), *trailer != u64::MAX),
            None => (None, true),
        };
        self.inspection.lost.push(LostSpan {
            start: between.lower.as_ref().map(|(key, _)| key.clone()),
            end,
            end_included,
            offset,
            bytes,
        });
    }

    /// Compares what was read with what the properties say of it.
    pub(super) fn finish(mut self, footer: &Footer, offset: u64) {
        if !self.complete {
            return;
        }
        for tombstone in &self.inspection.tombstones {
            self.totals.saw_sequence(tombstone.sequence);
        }
        if self.totals.is_empty() && self.inspection.tombstones.is_empty() {
            self.inspection
                .note(Fault::Properties, offset, "at least one entry", "none");
            return;
        }
        let mut counted = self
            .totals
            .meta(&self.last_key, &self.inspection.tombstones);
        counted.bytes = footer.file_bytes;
        if let Some(properties) = &self.inspection.properties
            && *properties != counted
        {
            let (expected, found) = (
                properties.describe(self.shown),
                counted.describe(self.shown),
            );
            self.inspection
                .note(Fault::Properties, offset, expected, &found);
        } else if footer.entries != counted.entries {
            let (expected, found) = (
                format!("{} entries", footer.entries),
                counted.entries.to_string(),
            );
            self.inspection
                .note(Fault::Properties, offset, expected, &found);
        }
        self.inspection.counted = Some(counted);
    }
}

/// Notes that the value of an entry cannot be read. Entries that follow each other, and all beyond so many, are told of
/// together.
fn lose_value(
    inspection: &mut Inspection,
    key: &[u8],
    offset: u64,
    (shown, found, value): (String, String, Option<Pointer>),
    run: &mut Option<usize>,
) {
    const SPANS_MAX: usize = 256;
    let spans = inspection.lost.len();
    if run.is_none() && spans >= SPANS_MAX {
        *run = Some(spans - 1);
    }
    if let Some(lost) = run.and_then(|at| inspection.lost.get_mut(at)) {
        lost.end = Some(key.to_vec());
        lost.end_included = true;
        return;
    }
    inspection.problems.push(Problem {
        fault: Fault::Value,
        offset,
        expected: format!("the value of key {shown}"),
        found,
        value,
    });
    *run = Some(spans);
    inspection.lost.push(LostSpan {
        start: Some(key.to_vec()),
        end: Some(key.to_vec()),
        end_included: true,
        offset,
        bytes: 0,
    });
}

/// Bytes of a partition in the file.
const fn partition_bytes(partition: &Partition, overhead: u64) -> u64 {
    partition.index_offset(overhead) - partition.offset + partition.index_len as u64 + overhead
}
