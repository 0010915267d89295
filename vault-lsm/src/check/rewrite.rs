//! Writes entries that were rescued into new tables.
//!
//! Every version is kept, with its sequence number and its expiry; nothing is merged or dropped. A table is
//! cut only between keys, and range tombstones are cut there too.

use vault_core::transform::FileKind;
use vault_core::{KeyspaceId, Result, Timestamp};

use crate::internal_key::RangeTombstone;
use crate::layout::Env;
use crate::table::{TableEnv, TableMeta, TableOptions, TableWriter};
use crate::tombstones::Fragments;

/// Where new tables go, and what they are like.
pub(crate) struct Target<'a> {
    pub(crate) env: &'a Env,
    pub(crate) table_env: &'a TableEnv,
    pub(crate) keyspace: KeyspaceId,
    pub(crate) options: TableOptions,
    /// A table is ended behind so many bytes.
    pub(crate) table_bytes: u64,
    pub(crate) created: Timestamp,
}

/// Writes a run of tables.
pub(crate) struct Rewriter<'a> {
    target: Target<'a>,
    tombstones: Fragments,
    next_file: &'a mut u64,
    writer: Option<TableWriter>,
    /// The first key that the table being written may hold tombstones from; `None`: the beginning.
    from: Option<Vec<u8>>,
    last_key: Vec<u8>,
    made: Vec<TableMeta>,
}

impl<'a> Rewriter<'a> {
    pub(crate) fn new(
        target: Target<'a>,
        tombstones: Vec<RangeTombstone>,
        next_file: &'a mut u64,
    ) -> Self {
        Self {
            target,
            tombstones: Fragments::build(tombstones),
            next_file,
            writer: None,
            from: None,
            last_key: Vec::new(),
            made: Vec::new(),
        }
    }

    /// Adds an entry. They come in internal key order.
    pub(crate) fn add(&mut self, key: &[u8], trailer: u64, stored_value: &[u8]) -> Result<()> {
        let full = self
            .writer
            .as_ref()
            .is_some_and(|writer| writer.estimated_bytes() >= self.target.table_bytes);
        if full && self.last_key != key {
            self.cut(Some(key))?;
        }
        self.writer()?.add(key, trailer, stored_value)?;
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        Ok(())
    }

    /// Ends the last table; gives what was written, with the files synced and the directory not.
    pub(crate) fn finish(mut self) -> Result<Vec<TableMeta>> {
        self.cut(None)?;
        Ok(std::mem::take(&mut self.made))
    }

    fn cut(&mut self, before: Option<&[u8]>) -> Result<()> {
        let clipped = self.tombstones.clip(self.from.as_deref(), before);
        if self.writer.is_none() && clipped.is_empty() {
            return Ok(());
        }
        let writer = self.writer()?;
        clipped
            .iter()
            .for_each(|tombstone| writer.add_range_tombstone(tombstone));
        if let Some(writer) = self.writer.take() {
            self.made.push(writer.finish()?);
        }
        self.from = before.map(<[u8]>::to_vec);
        Ok(())
    }

    fn writer(&mut self) -> Result<&mut TableWriter> {
        match &mut self.writer {
            Some(writer) => Ok(writer),
            none => {
                let number = *self.next_file;
                *self.next_file += 1;
                let path = self.target.env.path(FileKind::Table, number);
                let writer = TableWriter::create(
                    self.target.table_env,
                    &path,
                    number,
                    self.target.keyspace,
                    &self.target.options,
                    self.target.created,
                )?;
                Ok(none.insert(writer))
            }
        }
    }
}

impl Drop for Rewriter<'_> {
    /// What was not finished leaves nothing behind.
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.abandon();
        }
    }
}
