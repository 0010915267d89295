//! Reads the parts of a table that stay in memory, and checks them against each other and against
//! what the manifest knows.

use std::path::Path;
use std::sync::Arc;

use vault_core::codec::Decoder;
use vault_core::transform::{FileHeader, FileIdentity, FileKind, HEADER_BYTES};
use vault_core::vfs::read_up_to;
use vault_core::{Error, KeyspaceId, Result};

use super::fetch::{Handle, Source};
use super::footer::{FOOTER_BYTES, Footer};
use super::index::{ORDINAL_FIRST, TopIndex};
use super::trailer::sealed_end;
use super::{BlockType, TABLE_VERSION, TableEnv, TableMeta, tombstones};
use crate::internal_key::RangeTombstone;
use crate::layout::another_file;

/// What is read of the end of the file in one go: footer, properties and top-level index of all but
/// the largest tables.
const END_BYTES: u64 = 8 << 10;

/// What a table keeps in memory.
pub(super) struct Parts {
    pub(super) top: TopIndex,
    pub(super) tombstones: Box<[RangeTombstone]>,
}

/// Opens the file and checks its header and length. Gives also where what is sealed ends.
pub(super) fn open_source(
    env: &TableEnv,
    path: &Path,
    keyspace: KeyspaceId,
    meta: &TableMeta,
) -> Result<(Source, u64)> {
    let file = env.fs.open(path).map_err(|e| Error::io("open", path, e))?;
    let mut bytes = [0; HEADER_BYTES];
    let read = read_up_to(&*file, &mut bytes, 0).map_err(|e| Error::io("read", path, e))?;
    let header = FileHeader::decode(path, &bytes[..read], FileKind::Table, TABLE_VERSION)?;
    let expected = FileIdentity {
        store: env.store,
        kind: FileKind::Table,
        number: meta.number,
        domain: keyspace.0,
    };
    if header.identity != expected {
        let found = header.identity;
        let problem = format!("header of {expected:?} expected, {found:?} found");
        return Err(Error::corruption(path, 0, problem));
    }
    if header.salt != meta.salt {
        return Err(another_file(path));
    }
    let len = file.len().map_err(|e| Error::io("measure", path, e))?;
    if len != meta.bytes {
        let problem = format!("file of {} bytes expected, {len} found", meta.bytes);
        return Err(Error::corruption(path, len.min(meta.bytes), problem));
    }
    let Some(sealed_end) = sealed_end(header.transform, len) else {
        let problem = format!("no table that is sealed with keys has {len} bytes");
        return Err(Error::corruption(path, len, problem));
    };
    let source = Source {
        file,
        path: path.to_path_buf(),
        transform: header.open(path, &*env.transform)?,
        memory: Arc::clone(&env.memory),
    };
    Ok((source, sealed_end))
}

/// Reads footer, properties, range tombstones and top-level index.
pub(super) fn read_parts(source: &Source, sealed_end: u64, meta: &TableMeta) -> Result<Parts> {
    let mut end = End::read(source, sealed_end)?;
    let overhead = source.overhead();
    let footer_offset = end.check(sealed_end.checked_sub(FOOTER_BYTES as u64 + overhead))?;
    let footer_handle = Handle::raw(BlockType::Footer, footer_offset, FOOTER_BYTES as u32, 0);
    let footer = end.decode(&footer_handle, Footer::decode)?;
    let agrees = footer.file_bytes == meta.bytes && footer.entries == meta.entries;
    if !agrees || (footer.tombstones_len > 0) != (meta.range_tombstones > 0) {
        let problem = format!(
            "{} bytes, {} entries and {} range tombstones expected, the footer says otherwise: {footer:?}",
            meta.bytes, meta.entries, meta.range_tombstones
        );
        return Err(Error::corruption(&source.path, footer_offset, problem));
    }

    // From the footer backwards: each block ends where the one behind it begins.
    let before = |end: u64, len: u64| end.checked_sub(len.checked_add(overhead)?);
    let properties_offset = end.check(before(footer_offset, footer.properties_len))?;
    let top_offset = end.check(before(properties_offset, footer.top_index_len))?;
    let partitions_end = match footer.tombstones_len {
        0 => top_offset,
        len => end.check(before(top_offset, len))?,
    };
    let has_tombstones = u64::from(footer.tombstones_len > 0);
    // Behind the partitions come the tombstones, if any, then these two; the footer has no running number.
    let ordinal = |behind: u64| {
        (footer.blocks)
            .checked_sub(1 + behind)
            .filter(|&o| o >= ORDINAL_FIRST)
    };
    let properties_ordinal = end.check(ordinal(0))?;
    let top_ordinal = end.check(ordinal(1))?;
    let partitions_ordinal_end = end.check(ordinal(1 + has_tombstones))?;

    let handle = |block_type, offset, len: u64, ordinal| {
        let len = u32::try_from(len).ok();
        len.map(|len| Handle::raw(block_type, offset, len, ordinal))
    };
    let properties = handle(
        BlockType::Properties,
        properties_offset,
        footer.properties_len,
        properties_ordinal,
    );
    check_properties(&mut end, &properties, meta)?;
    let top = handle(
        BlockType::TopIndex,
        top_offset,
        footer.top_index_len,
        top_ordinal,
    );
    let top = end.check(top)?;
    let top = end.decode(&top, |bytes| {
        let top = TopIndex::decode(bytes, partitions_end, overhead)?;
        let sound = top.ordinal_end == partitions_ordinal_end
            && top.partitions.is_empty() == (meta.entries == 0);
        sound.then_some(top)
    })?;
    let tombstones = if footer.tombstones_len == 0 {
        Vec::new()
    } else {
        let (len, ordinal) = (footer.tombstones_len, partitions_ordinal_end);
        let handle = handle(BlockType::RangeTombstones, partitions_end, len, ordinal);
        let handle = end.check(handle)?;
        end.decode(&handle, |bytes| {
            tombstones::decode(bytes).filter(|t| t.len() as u64 == meta.range_tombstones)
        })?
    };
    Ok(Parts {
        top,
        tombstones: tombstones.into(),
    })
}

fn check_properties(end: &mut End<'_>, handle: &Option<Handle>, meta: &TableMeta) -> Result<()> {
    let handle = end.check(*handle)?;
    let properties = end.decode(&handle, |bytes| {
        let mut d = Decoder::new(bytes);
        let properties = TableMeta::decode(&mut d)?;
        d.is_empty().then_some(properties)
    })?;
    if properties != meta.as_written() {
        let problem = "the properties are not those that the manifest has";
        return Err(Error::corruption(&end.source.path, handle.offset, problem));
    }
    Ok(())
}

/// The end of what is sealed, read at once.
struct End<'a> {
    source: &'a Source,
    bytes: Vec<u8>,
    offset: u64,
    sealed_end: u64,
}

impl<'a> End<'a> {
    fn read(source: &'a Source, sealed_end: u64) -> Result<Self> {
        let mut bytes = vec![0; sealed_end.min(END_BYTES) as usize];
        let offset = sealed_end - bytes.len() as u64;
        source.read(&mut bytes, offset)?;
        Ok(Self {
            source,
            bytes,
            offset,
            sealed_end,
        })
    }

    /// Takes a number that could only be computed if the footer makes sense.
    fn check<T>(&self, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| {
            let problem = "the footer's lengths don't fit into the file";
            Error::corruption(&self.source.path, self.sealed_end, problem)
        })
    }

    fn decode<T>(&mut self, handle: &Handle, decode: impl FnOnce(&[u8]) -> Option<T>) -> Result<T> {
        let sealed = handle.offset.checked_sub(self.offset).and_then(|start| {
            let start = start as usize;
            self.bytes
                .get_mut(start..start + self.source.sealed_len(handle))
        });
        match sealed {
            Some(sealed) => self.source.decode_sealed(handle, sealed, decode),
            None => self.source.decode(handle, decode),
        }
    }
}
