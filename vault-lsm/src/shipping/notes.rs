//! The notes of a shipment: what the log does not tell, as a file of one sealed block. Bytes: `docs/format/shipping.md`.
//!
//! They state the shipment itself, so that nobody without the keys can leave a part of it out, or put it elsewhere; and what became of
//! keyspaces, whose names are nobody's business without the keys.

use std::path::Path;

use vault_core::codec::{Decoder, put_bytes, put_varint};
use vault_core::transform::{FileHeader, FileKind, HEADER_BYTES, Transform};
use vault_core::{Error, Result, SequenceNumber};

use super::{ShipPosition, Shipment};
use crate::frame::record_identity;
use crate::layout::Env;
use crate::manifest::Edit;

/// Version of the format of notes.
const NOTES_VERSION: u16 = 1;

/// What became of a keyspace, behind which write.
pub(super) type Change = (SequenceNumber, Edit);

/// Seals the notes of a shipment, which has all its fields but these.
pub(super) fn seal(
    env: &Env,
    shipment: &Shipment,
    changes: impl Iterator<Item = Change>,
) -> Result<Vec<u8>> {
    let identity = env.identity(FileKind::Archive, shipment.position.shipment);
    let (header, blocks) =
        FileHeader::create(identity, NOTES_VERSION, &*env.transform, &*env.random)?;
    let mut bytes = header.encode().to_vec();
    put_bytes(&mut bytes, &statement(shipment));
    for (sequence, edit) in changes {
        put_varint(&mut bytes, sequence);
        edit.encode(&mut bytes);
    }
    blocks.seal(&record_identity(0), &mut bytes, HEADER_BYTES)?;
    Ok(bytes)
}

/// Opens the notes of a shipment, which has to be as they state; `None` where the keys are not those they were sealed under.
pub(super) fn open(
    path: &Path,
    shipment: &Shipment,
    transform: &dyn Transform,
) -> Result<Option<Vec<Change>>> {
    let damaged = |at: usize, problem: &str| Error::corruption(path, at as u64, problem);
    let header = FileHeader::decode(path, &shipment.notes, FileKind::Archive, NOTES_VERSION)?;
    let identity = header.identity;
    if identity.store != shipment.store || identity.number != shipment.position.shipment {
        return Err(damaged(16, "they are those of another shipment"));
    }
    let Ok(blocks) = header.open(path, transform) else {
        return Ok(None);
    };
    let mut sealed = shipment.notes[HEADER_BYTES..].to_vec();
    let Ok(payload) = blocks.open(&record_identity(0), &mut sealed) else {
        return Ok(None);
    };
    let mut decoder = Decoder::new(payload);
    if decoder.bytes() != Some(&statement(shipment)[..]) {
        let problem = "the shipment is not as it was made: parts of it are missing or were exchanged; get it once more";
        return Err(damaged(HEADER_BYTES, problem));
    }
    let mut changes = Vec::new();
    while !decoder.is_empty() {
        let change = (|| Some((decoder.varint()?, Edit::decode(&mut decoder)?)))();
        changes.push(change.ok_or_else(|| damaged(HEADER_BYTES, "a change that makes no sense"))?);
    }
    Ok(Some(changes))
}

/// All of a shipment but its notes, as far as it does not prove itself.
pub(super) fn statement(shipment: &Shipment) -> Vec<u8> {
    let mut out = Vec::new();
    let position = |out: &mut Vec<u8>, position: &ShipPosition| {
        out.extend_from_slice(&position.instance);
        out.extend_from_slice(&position.chain);
        for number in [position.shipment, position.sequence, position.log] {
            put_varint(out, number);
        }
        out.extend_from_slice(&position.keyspaces.to_le_bytes());
    };
    position(&mut out, &shipment.position);
    position(&mut out, &shipment.next);
    put_varint(&mut out, shipment.time.0);
    out.push(u8::from(shipment.more));
    put_varint(&mut out, shipment.pieces.len() as u64);
    for piece in &shipment.pieces {
        for number in [piece.segment, piece.offset, piece.bytes.len() as u64] {
            put_varint(&mut out, number);
        }
        out.extend_from_slice(&piece.checksum.to_le_bytes());
    }
    put_varint(&mut out, shipment.keyrings.len() as u64);
    for keyring in &shipment.keyrings {
        out.extend_from_slice(&crc32fast::hash(keyring).to_le_bytes());
    }
    out
}
