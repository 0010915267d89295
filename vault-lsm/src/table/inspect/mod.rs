//! Reads a table as far as it can be read, and says what of it is not as it should be.
//!
//! [`super::open`] and [`super::Table`] refuse at the first fault, as a reader must. This module goes on:
//! a block that does not open costs its own entries, the index of a partition that partition, and only
//! without header, footer or top-level index is nothing left. Every entry that can be read is handed to a
//! [`Visitor`]; what cannot be read is named by the fences around it.
//!
//! # What is compared
//! - each entry with the one before, with the fences of its block, and with the filter of its partition;
//! - what all entries add up to with the properties, the properties with what the manifest has;
//! - the length of the file with what footer, properties and manifest say;
//! - where the table has a trailer, and the visitor asks for it, the file with its checksums.

mod walk;

use std::path::Path;
use std::sync::Arc;

use vault_core::codec::Decoder;
use vault_core::transform::{FileHeader, FileIdentity, FileKind, HEADER_BYTES};
use vault_core::vfs::read_up_to;
use vault_core::{Error, KeyspaceId, Result};

use self::walk::Walk;
use super::fetch::{Handle, Source};
use super::footer::{FOOTER_BYTES, Footer};
use super::index::{ORDINAL_FIRST, TopIndex};
use super::trailer::{self, TrailerFault, has_trailer, sealed_end};
use super::{BlockType, Shown, TABLE_VERSION, TableEnv, TableMeta, tombstones};
use crate::blob::Pointer;
use crate::internal_key::RangeTombstone;

/// Which table is to be read, and what is known of it beforehand.
pub(crate) struct Request<'a> {
    pub(crate) path: &'a Path,
    pub(crate) number: u64,
    /// Its keyspace and what the manifest has of it, where there is a manifest.
    pub(crate) expected: Option<(KeyspaceId, &'a TableMeta)>,
}

/// Takes part in reading a table.
pub(crate) trait Visitor {
    /// Whether the next data block is to be read.
    fn wants_block(&mut self) -> bool {
        true
    }

    /// An entry, in the order of the file, with the trailer that readers see.
    fn entry(&mut self, _key: &[u8], _trailer: u64, _stored_value: &[u8]) -> Result<()> {
        Ok(())
    }

    /// Looks at a value that is kept apart. Gives what is wrong with it, if anything is: the entry is then lost.
    fn check_value(&mut self, _key: &[u8], _pointer: &Pointer) -> Result<Option<String>> {
        Ok(None)
    }

    /// Whether the file is to be held against its trailer.
    fn wants_trailer(&mut self) -> bool {
        false
    }

    /// So many bytes more have been dealt with. An error ends the reading.
    fn progress(&mut self, _bytes: u64) -> Result<()> {
        Ok(())
    }
}

/// What is wrong, by what it means for the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Missing,
    /// The operating system could not read it.
    Unreadable,
    Length,
    Header,
    /// A block does not open, or its content makes no sense.
    Block,
    Order,
    Fence,
    Filter,
    Properties,
    /// The value of an entry, which is kept apart, cannot be read.
    Value,
    /// The checksums at the end of a table that is sealed with keys are not those of its bytes.
    Trailer,
}

/// Something that is not as it should be.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) fault: Fault,
    pub(crate) offset: u64,
    pub(crate) expected: String,
    pub(crate) found: String,
    /// Where the value should be that is missing.
    pub(crate) value: Option<Pointer>,
}

/// Keys whose entries could not be read: from `start` on, up to `end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LostSpan {
    /// The first key that may have been there; `None`: any.
    pub(crate) start: Option<Vec<u8>>,
    /// The last key that may have been there; `None`: any.
    pub(crate) end: Option<Vec<u8>>,
    /// Whether `end` itself may have been there.
    pub(crate) end_included: bool,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// What a table holds, as far as it could be read.
#[derive(Debug, Default)]
pub(crate) struct Inspection {
    /// As the header says.
    pub(crate) keyspace: Option<u32>,
    /// As the file says.
    pub(crate) properties: Option<TableMeta>,
    /// What the entries that were read add up to; `None` where not all were.
    pub(crate) counted: Option<TableMeta>,
    pub(crate) tombstones: Vec<RangeTombstone>,
    pub(crate) tombstones_lost: bool,
    pub(crate) entries: u64,
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
    pub(crate) filter_probes: u64,
    pub(crate) problems: Vec<Problem>,
    pub(crate) lost: Vec<LostSpan>,
    /// Why nothing of it can be read.
    pub(crate) lost_whole: Option<String>,
    /// Whether entries came out of order.
    pub(crate) disorder: bool,
}

impl Inspection {
    /// Whether every entry and range tombstone could be read.
    pub(crate) const fn is_whole(&self) -> bool {
        self.lost.is_empty() && self.lost_whole.is_none() && !self.tombstones_lost
    }

    fn note(&mut self, fault: Fault, offset: u64, expected: impl Into<String>, found: &str) {
        self.problems.push(Problem {
            fault,
            offset,
            expected: expected.into(),
            found: found.to_owned(),
            value: None,
        });
    }

    /// Notes an error of reading as a problem.
    fn note_error(&mut self, fault: Fault, offset: u64, expected: &str, error: &Error) {
        let (fault, found) = describe(fault, error);
        self.note(fault, offset, expected, &found);
    }
}

fn describe(fault: Fault, error: &Error) -> (Fault, String) {
    match error {
        Error::Corruption { problem, .. } => (fault, problem.clone()),
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            (Fault::Missing, "no file".to_owned())
        }
        other => (Fault::Unreadable, other.to_string()),
    }
}

/// Reads the table.
///
/// # Errors
/// What the visitor says, and what makes it impossible to judge the file at all:
/// [`Error::NewerFormat`], [`Error::Encrypted`], [`Error::NotEncrypted`].
pub(crate) fn inspect(
    env: &TableEnv,
    request: &Request<'_>,
    visitor: &mut dyn Visitor,
) -> Result<Inspection> {
    let mut inspection = Inspection::default();
    let whole = match open(env, request, &mut inspection)? {
        Some(opened) => {
            if has_trailer(opened.transform) && visitor.wants_trailer() {
                check_trailer(&opened, &mut inspection, visitor)?;
            }
            read(&opened, request, &mut inspection, visitor)?
        }
        None => false,
    };
    if !whole && inspection.lost_whole.is_none() {
        let reason = inspection.problems.first();
        inspection.lost_whole = Some(reason.map_or_else(String::new, |p| p.found.clone()));
    }
    Ok(inspection)
}

/// A table whose header is the one that belongs there.
struct Opened {
    source: Source,
    /// As the header says.
    transform: u16,
    /// Length of the file; without what somebody appended to it.
    file_bytes: u64,
    /// Where what is sealed ends.
    sealed_end: u64,
    shown: Shown,
}

/// Opens the file and reads its header. `None` where nothing behind it can be opened.
fn open(
    env: &TableEnv,
    request: &Request<'_>,
    inspection: &mut Inspection,
) -> Result<Option<Opened>> {
    let path = request.path;
    let opened = env.fs.open(path).map_err(|e| Error::io("open", path, e));
    let read = opened.and_then(|file| {
        let mut bytes = [0; HEADER_BYTES];
        let read = read_up_to(&*file, &mut bytes, 0).map_err(|e| Error::io("read", path, e))?;
        let len = file.len().map_err(|e| Error::io("measure", path, e))?;
        inspection.bytes = len;
        let header = FileHeader::decode(path, &bytes[..read], FileKind::Table, TABLE_VERSION)?;
        Ok((file, len, header))
    });
    let (file, len, header) = match read {
        Ok(read) => read,
        Err(
            error @ (Error::NewerFormat { .. }
            | Error::TooManyOpenFiles { .. }
            | Error::Encrypted { .. }
            | Error::NotEncrypted { .. }),
        ) => {
            return Err(error);
        }
        Err(error) => {
            inspection.note_error(Fault::Header, 0, "a table with a sound header", &error);
            return Ok(None);
        }
    };
    let identity = header.identity;
    let expected = FileIdentity {
        store: env.store,
        kind: FileKind::Table,
        number: request.number,
        domain: request.expected.map_or(identity.domain, |(id, _)| id.0),
    };
    if identity != expected {
        let (expected, found) = (format!("header of {expected:?}"), format!("{identity:?}"));
        inspection.note(Fault::Header, 0, expected, &found);
        return Ok(None);
    }
    if let Some((_, meta)) = request.expected
        && header.salt != meta.salt
    {
        let expected = "the salt that the manifest has".to_owned();
        inspection.note(
            Fault::Header,
            40,
            expected,
            "that of another file with the same number",
        );
        return Ok(None);
    }
    inspection.keyspace = Some(identity.domain);
    let stated = request.expected.map_or(len, |(_, meta)| meta.bytes);
    if len != stated {
        let (expected, found) = (format!("{stated} bytes"), format!("{len} bytes"));
        inspection.note(Fault::Length, len.min(stated), expected, &found);
    }
    let transform = match header.open(path, &*env.transform) {
        Ok(transform) => transform,
        Err(error @ (Error::Locked | Error::NewerFormat { .. })) => return Err(error),
        // It is not sealed as the others are, or under a key that there is not (any more): a keyspace that was dropped
        // has taken its keys with it. The other tables are read all the same.
        Err(error) => {
            let (expected, found) = ("a table that the store's keys open", error.to_string());
            inspection.note(Fault::Header, 10, expected, &found);
            return Ok(None);
        }
    };
    // What was appended to a table does not hide its own end.
    let file_bytes = len.min(stated);
    let Some(sealed_end) = sealed_end(header.transform, file_bytes) else {
        let expected = "a file as long as a table that is sealed with keys can be";
        inspection.note(
            Fault::Block,
            file_bytes,
            expected,
            &format!("{file_bytes} bytes"),
        );
        return Ok(None);
    };
    Ok(Some(Opened {
        source: Source {
            file,
            path: path.to_path_buf(),
            transform,
            memory: Arc::clone(&env.memory),
        },
        transform: header.transform,
        file_bytes,
        sealed_end,
        shown: env.shown(),
    }))
}

/// Holds the file against the checksums at its end.
fn check_trailer(
    opened: &Opened,
    inspection: &mut Inspection,
    visitor: &mut dyn Visitor,
) -> Result<()> {
    let file = &*opened.source.file;
    let faults = trailer::check(file, opened.file_bytes, &mut |_| visitor.progress(0))?;
    for fault in faults {
        let (fault, offset, expected, found) = match fault {
            TrailerFault::Absent => {
                let found = "something else".to_owned();
                (
                    Fault::Trailer,
                    opened.sealed_end,
                    "checksums of the file".to_owned(),
                    found,
                )
            }
            TrailerFault::Trailer { problem } => {
                let expected = "checksums of the file".to_owned();
                (Fault::Trailer, opened.sealed_end, expected, problem)
            }
            TrailerFault::Chunk {
                offset,
                bytes,
                stored,
                found,
            } => {
                let expected = format!("{bytes} bytes with the checksum {stored:08x}");
                (Fault::Trailer, offset, expected, format!("{found:08x}"))
            }
            TrailerFault::Unreadable { offset, problem } => (
                Fault::Unreadable,
                offset,
                "bytes of the table".to_owned(),
                problem,
            ),
        };
        inspection.note(fault, offset, expected, &found);
    }
    Ok(())
}

/// Where the parts behind the partitions are.
struct Layout {
    tombstones: Option<Handle>,
    top: Handle,
    properties: Handle,
    partitions_end: u64,
    ordinal_end: u64,
}

impl Layout {
    fn new(footer: &Footer, footer_offset: u64, overhead: u64) -> Option<Self> {
        let before = |end: u64, len: u64| end.checked_sub(len.checked_add(overhead)?);
        let handle = |block_type, offset, len, ordinal| {
            let len = u32::try_from(len).ok()?;
            (ordinal >= ORDINAL_FIRST).then(|| Handle::raw(block_type, offset, len, ordinal))
        };
        let ordinal = footer.blocks.checked_sub(1)?;
        let properties_at = before(footer_offset, footer.properties_len)?;
        let (len, at) = (footer.properties_len, properties_at);
        let properties = handle(BlockType::Properties, at, len, ordinal)?;
        let ordinal = ordinal.checked_sub(1)?;
        let top_at = before(properties_at, footer.top_index_len)?;
        let top = handle(BlockType::TopIndex, top_at, footer.top_index_len, ordinal)?;
        let mut layout = Self {
            tombstones: None,
            top,
            properties,
            partitions_end: top_at,
            ordinal_end: ordinal,
        };
        if footer.tombstones_len > 0 {
            let len = footer.tombstones_len;
            layout.partitions_end = before(top_at, len)?;
            layout.ordinal_end = ordinal.checked_sub(1)?;
            let (at, ordinal) = (layout.partitions_end, layout.ordinal_end);
            layout.tombstones = Some(handle(BlockType::RangeTombstones, at, len, ordinal)?);
        }
        Some(layout)
    }
}

/// Reads everything behind the header. Gives whether the table could be walked.
fn read(
    opened: &Opened,
    request: &Request<'_>,
    inspection: &mut Inspection,
    visitor: &mut dyn Visitor,
) -> Result<bool> {
    let (source, file_bytes) = (&opened.source, opened.file_bytes);
    let overhead = source.overhead();
    let Some((footer, layout)) = read_footer(opened, inspection) else {
        return Ok(false);
    };
    inspection.blocks += 1;
    read_properties(opened, &layout, request, inspection);
    if let Some(handle) = &layout.tombstones {
        match source.decode(handle, tombstones::decode) {
            Ok(found) => {
                inspection.tombstones = found;
                inspection.blocks += 1;
            }
            Err(error) => {
                inspection.tombstones_lost = true;
                let offset = handle.offset;
                inspection.note_error(Fault::Block, offset, "range tombstones", &error);
            }
        }
    }
    let decode = |bytes: &[u8]| TopIndex::decode(bytes, layout.partitions_end, overhead);
    let top = match source.decode(&layout.top, decode) {
        Ok(top) => top,
        Err(error) => {
            inspection.note_error(Fault::Block, layout.top.offset, "the top index", &error);
            return Ok(false);
        }
    };
    inspection.blocks += 1;
    if top.ordinal_end != layout.ordinal_end || (footer.entries == 0) != top.partitions.is_empty() {
        let expected = format!("{} blocks, {} entries", layout.ordinal_end, footer.entries);
        let found = format!(
            "{} blocks in {} partitions",
            top.ordinal_end,
            top.partitions.len()
        );
        inspection.note(Fault::Properties, layout.top.offset, expected, &found);
    }
    visitor.progress(file_bytes - top.end + HEADER_BYTES as u64)?;
    let mut walk = Walk::new(opened, &top, request, inspection, visitor);
    for partition in 0..top.partitions.len() {
        walk.partition(partition)?;
    }
    walk.finish(&footer, layout.properties.offset);
    Ok(true)
}

fn read_footer(opened: &Opened, inspection: &mut Inspection) -> Option<(Footer, Layout)> {
    let (source, file_bytes) = (&opened.source, opened.file_bytes);
    let overhead = source.overhead();
    let footer_bytes = FOOTER_BYTES as u64 + overhead;
    let Some(offset) = opened.sealed_end.checked_sub(footer_bytes) else {
        let found = format!("a file of {file_bytes} bytes");
        inspection.note(Fault::Block, file_bytes, "a footer", &found);
        return None;
    };
    let handle = Handle::raw(BlockType::Footer, offset, FOOTER_BYTES as u32, 0);
    let footer = match source.decode(&handle, Footer::decode) {
        Ok(footer) => footer,
        Err(error) => {
            inspection.note_error(Fault::Block, offset, "the footer", &error);
            return None;
        }
    };
    let layout = Layout::new(&footer, offset, overhead);
    if layout.is_none() || footer.file_bytes != file_bytes {
        let expected = format!("a footer for {file_bytes} bytes");
        inspection.note(Fault::Block, offset, expected, &format!("{footer:?}"));
    }
    layout.map(|layout| (footer, layout))
}

fn read_properties(
    opened: &Opened,
    layout: &Layout,
    request: &Request<'_>,
    inspection: &mut Inspection,
) {
    let offset = layout.properties.offset;
    let decoded = opened.source.decode(&layout.properties, |bytes| {
        let mut decoder = Decoder::new(bytes);
        let meta = TableMeta::decode(&mut decoder)?;
        decoder.is_empty().then_some(meta)
    });
    match decoded {
        Ok(properties) => {
            inspection.blocks += 1;
            let expected = request.expected.map(|(_, meta)| meta.as_written());
            if let Some(expected) = expected
                && expected != properties
            {
                let shown = opened.shown;
                let (expected, found) = (expected.describe(shown), properties.describe(shown));
                inspection.note(Fault::Properties, offset, expected, &found);
            }
            inspection.properties = Some(properties);
        }
        Err(error) => inspection.note_error(Fault::Block, offset, "the properties", &error),
    }
}
