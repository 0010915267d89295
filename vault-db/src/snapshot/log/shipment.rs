//! A shipment of the log as a file.
//!
//! # The bytes
//! ```text
//! "VAULTSHP"  version u16 = 1  SHA-256 of the rest  MessagePack: the fields of the shipment
//! ```
//! Numbers are little-endian. The hash tells damage; what must be authentic is sealed within.

use rmp_serde::{from_slice, to_vec};
use serde::{Deserialize, Serialize};
use vault_core::Timestamp;
use vault_crypto::sha256;
use vault_lsm::shipping::{LogPiece, ShipPosition, Shipment};

const MAGIC: &[u8; 8] = b"VAULTSHP";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 8 + 2 + 32;

#[derive(Serialize, Deserialize)]
struct Stored {
    store: [u8; 16],
    position: Position,
    next: Position,
    time: u64,
    more: bool,
    pieces: Vec<Piece>,
    #[serde(with = "bytes")]
    notes: Vec<u8>,
    keyrings: Vec<Bytes>,
}

#[derive(Serialize, Deserialize)]
struct Position {
    instance: [u8; 16],
    chain: [u8; 16],
    shipment: u64,
    sequence: u64,
    log: u64,
    keyspaces: u32,
}

#[derive(Serialize, Deserialize)]
struct Piece {
    segment: u64,
    salt: [u8; 24],
    #[serde(with = "bytes")]
    header: Vec<u8>,
    offset: u64,
    #[serde(with = "bytes")]
    bytes: Vec<u8>,
    checksum: u32,
    first_sequence: u64,
    last_sequence: u64,
}

#[derive(Serialize, Deserialize)]
struct Bytes(#[serde(with = "bytes")] Vec<u8>);

/// Bytes as bytes: serde takes a vector of them for a list of numbers.
mod bytes {
    use std::fmt;

    use serde::de::{SeqAccess, Visitor};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        struct Whole;
        impl<'de> Visitor<'de> for Whole {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u8>, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                }
                Ok(bytes)
            }
        }
        d.deserialize_bytes(Whole)
    }
}

impl From<ShipPosition> for Position {
    fn from(position: ShipPosition) -> Self {
        Self {
            instance: position.instance,
            chain: position.chain,
            shipment: position.shipment,
            sequence: position.sequence,
            log: position.log,
            keyspaces: position.keyspaces,
        }
    }
}

impl From<Position> for ShipPosition {
    fn from(position: Position) -> Self {
        Self {
            instance: position.instance,
            chain: position.chain,
            shipment: position.shipment,
            sequence: position.sequence,
            log: position.log,
            keyspaces: position.keyspaces,
        }
    }
}

/// The file of a shipment.
pub(crate) fn encode(shipment: &Shipment) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    let pieces = shipment.pieces.iter().map(|piece| Piece {
        segment: piece.segment,
        salt: piece.salt,
        header: piece.header.clone(),
        offset: piece.offset,
        bytes: piece.bytes.clone(),
        checksum: piece.checksum,
        first_sequence: piece.first_sequence,
        last_sequence: piece.last_sequence,
    });
    let stored = Stored {
        store: shipment.store,
        position: shipment.position.into(),
        next: shipment.next.into(),
        time: shipment.time.0,
        more: shipment.more,
        pieces: pieces.collect(),
        notes: shipment.notes.clone(),
        keyrings: shipment.keyrings.iter().cloned().map(Bytes).collect(),
    };
    Ok(sealed(&to_vec(&stored)?))
}

/// Puts the header before what stands behind it.
pub(crate) fn sealed(body: &[u8]) -> Vec<u8> {
    let mut file = Vec::with_capacity(HEADER_BYTES + body.len());
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&VERSION.to_le_bytes());
    file.extend_from_slice(&sha256(&[body]));
    file.extend_from_slice(body);
    file
}

/// The shipment of a file, or what is wrong with it.
pub(crate) fn decode(file: &[u8]) -> Result<Shipment, String> {
    let Some((header, body)) = file.split_at_checked(HEADER_BYTES) else {
        return Err(format!("it ends after {} bytes", file.len()));
    };
    let (magic, rest) = header.split_at(MAGIC.len());
    let (version, hash) = rest.split_at(2);
    if magic != MAGIC {
        return Err("it does not begin like a shipment".to_owned());
    }
    if version != VERSION.to_le_bytes() {
        return Err("it is of another version than this build reads".to_owned());
    }
    if sha256(&[body]) != hash {
        return Err("its hash says that it was damaged; take another copy of it".to_owned());
    }
    let stored: Stored = from_slice(body).map_err(|error| error.to_string())?;
    let pieces = stored.pieces.into_iter().map(|piece| LogPiece {
        segment: piece.segment,
        salt: piece.salt,
        header: piece.header,
        offset: piece.offset,
        bytes: piece.bytes,
        checksum: piece.checksum,
        first_sequence: piece.first_sequence,
        last_sequence: piece.last_sequence,
    });
    Ok(Shipment {
        store: stored.store,
        position: stored.position.into(),
        next: stored.next.into(),
        time: Timestamp(stored.time),
        more: stored.more,
        pieces: pieces.collect(),
        notes: stored.notes,
        keyrings: stored.keyrings.into_iter().map(|ring| ring.0).collect(),
    })
}
