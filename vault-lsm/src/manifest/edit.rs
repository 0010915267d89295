//! The edits of a manifest.

use std::sync::Arc;

use vault_core::codec::{Decoder, put_bytes, put_varint};
use vault_core::transform::Salt;
use vault_core::{KeyspaceOptions, SequenceNumber};

use super::{Instance, options};
use crate::blob::BlobMeta;
use crate::table::TableMeta;

/// A change to what makes up the store.
#[derive(Debug, Clone)]
pub(crate) enum Edit {
    /// At least this many file numbers have been given out.
    NextFile(u64),
    /// A keyspace comes into being.
    CreateKeyspace {
        id: u32,
        name: String,
        options: KeyspaceOptions,
    },
    /// A keyspace takes on other options.
    AlterKeyspace { id: u32, options: KeyspaceOptions },
    /// A keyspace goes, with its tables.
    DropKeyspace { id: u32 },
    /// A table joins a run.
    AddTable {
        keyspace: u32,
        level: u32,
        run: u64,
        meta: Arc<TableMeta>,
    },
    /// A table leaves.
    RemoveTable {
        keyspace: u32,
        level: u32,
        number: u64,
    },
    /// A blob file joins a keyspace, for tables that follow in the same record.
    AddBlob { keyspace: u32, meta: Arc<BlobMeta> },
    /// A blob file leaves: no table points into it any more.
    RemoveBlob { keyspace: u32, number: u64 },
    /// Everything of the keyspace up to this sequence number is in tables.
    FlushedThrough {
        keyspace: u32,
        sequence: SequenceNumber,
    },
    /// A log segment exists.
    AddLog { number: u64, salt: Salt },
    /// Log segments below are not needed.
    LogFloor(u64),
    /// The log is durable up to this position, which lies in this segment; later writes in tables rely
    /// on that.
    LogSynced { segment: u64, position: u64 },
    /// At least this sequence number was given out.
    LastSequence(SequenceNumber),
    /// Log segments up to this one hold writes to a keyspace that was dropped, and must not stay.
    ForgetLogs(u64),
    /// At least this many keyspace ids have been given out.
    NextKeyspace(u32),
    /// Which instance of the store this is.
    Instance(Instance),
}

impl Edit {
    /// Appends the edit's bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let numbers = |out: &mut Vec<u8>, tag: u8, numbers: &[u64]| {
            out.push(tag);
            numbers.iter().for_each(|&number| put_varint(out, number));
        };
        match self {
            Self::NextFile(number) => numbers(out, 1, &[*number]),
            Self::CreateKeyspace { id, name, options } => {
                numbers(out, 2, &[u64::from(*id)]);
                put_bytes(out, name.as_bytes());
                put_bytes(out, &options::encode(options));
            }
            Self::AlterKeyspace { id, options } => {
                numbers(out, 3, &[u64::from(*id)]);
                put_bytes(out, &options::encode(options));
            }
            Self::DropKeyspace { id } => numbers(out, 4, &[u64::from(*id)]),
            Self::AddTable {
                keyspace,
                level,
                run,
                meta,
            } => {
                numbers(out, 5, &[u64::from(*keyspace), u64::from(*level), *run]);
                let mut encoded = Vec::new();
                meta.encode(&mut encoded);
                put_bytes(out, &encoded);
            }
            Self::RemoveTable {
                keyspace,
                level,
                number,
            } => {
                numbers(out, 6, &[u64::from(*keyspace), u64::from(*level), *number]);
            }
            Self::AddBlob { keyspace, meta } => {
                numbers(out, 14, &[u64::from(*keyspace)]);
                meta.encode(out);
            }
            Self::RemoveBlob { keyspace, number } => {
                numbers(out, 15, &[u64::from(*keyspace), *number]);
            }
            Self::FlushedThrough { keyspace, sequence } => {
                numbers(out, 7, &[u64::from(*keyspace), *sequence]);
            }
            Self::AddLog { number, salt } => {
                numbers(out, 8, &[*number]);
                out.extend_from_slice(salt);
            }
            Self::LogFloor(number) => numbers(out, 9, &[*number]),
            Self::LastSequence(sequence) => numbers(out, 10, &[*sequence]),
            Self::NextKeyspace(id) => numbers(out, 11, &[u64::from(*id)]),
            Self::Instance(instance) => {
                let (kind, id) = match instance {
                    Instance::Unknown => (0, [0; 16]),
                    Instance::Own(id) => (1, *id),
                    Instance::CopyOf(id) => (2, *id),
                };
                out.extend_from_slice(&[16, kind]);
                out.extend_from_slice(&id);
            }
            Self::ForgetLogs(number) => numbers(out, 13, &[*number]),
            Self::LogSynced { segment, position } => numbers(out, 12, &[*segment, *position]),
        }
    }

    /// Decodes the edit at the front.
    pub(crate) fn decode(decoder: &mut Decoder<'_>) -> Option<Self> {
        let small = |decoder: &mut Decoder<'_>| u32::try_from(decoder.varint()?).ok();
        Some(match decoder.u8()? {
            1 => Self::NextFile(decoder.varint()?),
            2 => Self::CreateKeyspace {
                id: small(decoder)?,
                name: String::from_utf8(decoder.bytes()?.to_vec()).ok()?,
                options: options::decode(decoder.bytes()?)?,
            },
            3 => Self::AlterKeyspace {
                id: small(decoder)?,
                options: options::decode(decoder.bytes()?)?,
            },
            4 => Self::DropKeyspace {
                id: small(decoder)?,
            },
            5 => {
                let (keyspace, level) = (small(decoder)?, small(decoder)?);
                let run = decoder.varint()?;
                let mut encoded = Decoder::new(decoder.bytes()?);
                let meta = Arc::new(TableMeta::decode(&mut encoded)?);
                if !encoded.is_empty() {
                    return None;
                }
                Self::AddTable {
                    keyspace,
                    level,
                    run,
                    meta,
                }
            }
            6 => Self::RemoveTable {
                keyspace: small(decoder)?,
                level: small(decoder)?,
                number: decoder.varint()?,
            },
            7 => Self::FlushedThrough {
                keyspace: small(decoder)?,
                sequence: decoder.varint()?,
            },
            8 => Self::AddLog {
                number: decoder.varint()?,
                salt: decoder.array()?,
            },
            9 => Self::LogFloor(decoder.varint()?),
            10 => Self::LastSequence(decoder.varint()?),
            11 => Self::NextKeyspace(small(decoder)?),
            12 => Self::LogSynced {
                segment: decoder.varint()?,
                position: decoder.varint()?,
            },
            13 => Self::ForgetLogs(decoder.varint()?),
            14 => Self::AddBlob {
                keyspace: small(decoder)?,
                meta: Arc::new(BlobMeta::decode(decoder)?),
            },
            15 => Self::RemoveBlob {
                keyspace: small(decoder)?,
                number: decoder.varint()?,
            },
            16 => match (decoder.u8()?, decoder.array()?) {
                (1, id) => Self::Instance(Instance::Own(id)),
                (2, id) => Self::Instance(Instance::CopyOf(id)),
                _ => return None,
            },
            _ => return None,
        })
    }
}
