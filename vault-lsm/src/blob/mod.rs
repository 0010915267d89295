//! Blob files: large values, kept apart from their keys.
//!
//! A table entry whose value is as long as its keyspace's `large_value_bytes` holds a [`Pointer`] in the value's place,
//! and the value stands in a blob file of the keyspace. So compactions carry pointers, not values, and a value is written
//! once when it is flushed, and again only when the file that holds it has gathered so much garbage that it is
//! collected ([`vault_snapshot::collection`]). The bytes are in `docs/format/blob.md`, why in `docs/internals/large-values.md`.
//!
//! # What holds
//! - A file is written front to back, synced, and never written to again. The manifest names it in the record that names the
//!   first table with a pointer into it, and lets go of it in the record that lets go of the last one: each table's meta
//!   counts its pointers into each file ([`BlobUse`]), so nothing else has to be kept account of.
//! - A version that holds a table holds the files that it points into ([`crate::version::Version::blob`]).
//! - A record is bound to its place by its seal, and to its key by holding it: a pointer that leads to another
//!   record, or to that of another key, is damage, and no value.

mod file;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
pub(crate) mod inspect;
mod meta;
mod output;
mod record;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use file::BlobFile;
pub(crate) use meta::{BlobMeta, BlobUse, Pointer, decode_uses, encode_uses, pointer_of};
pub(crate) use output::{Placing, ValueOutput};
pub(crate) use writer::BlobWriter;

/// Version of the format that is written, and the newest that is read.
pub(crate) const BLOB_VERSION: u16 = 1;
