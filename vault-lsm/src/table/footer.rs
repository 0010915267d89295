//! The last block of a table: where everything else is.

use vault_core::codec::Decoder;

use super::TABLE_VERSION;

/// Length of a footer before it is sealed.
pub(super) const FOOTER_BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"vlttable";

/// See `docs/format/table.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Footer {
    /// Stored length of the range tombstone block; 0: there is none.
    pub(super) tombstones_len: u64,
    /// Stored length of the top-level index.
    pub(super) top_index_len: u64,
    /// Stored length of the properties block.
    pub(super) properties_len: u64,
    /// Length of the file.
    pub(super) file_bytes: u64,
    /// Sealed blocks of the file, this one included.
    pub(super) blocks: u64,
    /// Entries of the table.
    pub(super) entries: u64,
}

impl Footer {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        for number in [
            self.tombstones_len,
            self.top_index_len,
            self.properties_len,
            self.file_bytes,
            self.blocks,
            self.entries,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&TABLE_VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 6]);
        out.extend_from_slice(&MAGIC);
        debug_assert_eq!(out.len() - start, FOOTER_BYTES);
    }

    /// `None` where the bytes are no footer of this version.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut d = Decoder::new(bytes);
        let footer = Self {
            tombstones_len: d.u64()?,
            top_index_len: d.u64()?,
            properties_len: d.u64()?,
            file_bytes: d.u64()?,
            blocks: d.u64()?,
            entries: d.u64()?,
        };
        let sound = d.u16()? == TABLE_VERSION && d.array()? == [0; 6] && d.array()? == MAGIC;
        (sound && d.is_empty()).then_some(footer)
    }
}
