//! Shipping the log: what is written is handed to a follower as bytes of the log, and replayed on a restored copy up to a point.
//!
//! A [capture](crate::Capture) is the base, of which a copy is restored. A [`LogShipper`] that was begun before it gives
//! [`Shipment`]s, each of which goes on where the one before it ended; the host keeps them wherever it keeps its
//! snapshots. [`replay_shipped`] brings the copy forward to a sequence number or to a time. What has not been shipped when the machine
//! is lost is lost: who ships every second loses a second.
//!
//! # Steps
//! - `kept` holds log segments open, with what is to be shipped beside them, from when they are begun until they are
//!   shipped, whatever the store lets go of. Without a shipper it holds nothing, and costs one look for each segment.
//! - `ship` makes the log durable, and takes the bytes between the last position and this one.
//! - `notes` seals what the log does not tell: keyspaces that come, change and go.
//! - `replay` opens the records of shipments, checks that they follow one another, and writes their batches again.
//!
//! # Invariants
//! - Only what is durable in the store is shipped, so that a store never goes on from before what it has shipped.
//! - Bytes of the log go as they are: encrypted ones stay encrypted.
//! - A replay applies whole batches, each under the sequence number that it had, all or none up to the point that was asked for.
//!   The store stays a copy until somebody opens it for writing, and only a copy is replayed on.
//!
//! Bytes: `docs/format/shipping.md`; reasons: `docs/adr/0043-shipping-the-log.md`.

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod kept;
mod notes;
mod replay;
mod ship;

use vault_core::transform::Salt;
use vault_core::{SequenceNumber, Timestamp};

pub(crate) use kept::Shipping;
pub use replay::{Replayed, Until, replay_shipped};
pub use ship::LogShipper;

/// What a [`LogShipper`] is begun with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShipOptions {
    /// Where the last shipment ended ([`Shipment::next`]), to go on there after the store was closed and opened again. `None` begins a
    /// new chain of shipments with what is written from now on: for captures that are made from now on.
    pub from: Option<ShipPosition>,
    /// Bytes of log segments that are kept for the shipper beyond what the store needs itself. Where it falls behind by more, it gets
    /// [`LogGap`](vault_core::Error::LogGap), and the disk stays free.
    pub retained_bytes_max: u64,
    /// Bytes of the log in one shipment, at most, but for a single record that is longer.
    pub shipment_bytes_max: u64,
}

impl Default for ShipOptions {
    fn default() -> Self {
        Self {
            from: None,
            retained_bytes_max: 256 << 20,
            shipment_bytes_max: 16 << 20,
        }
    }
}

/// A place between two shipments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ShipPosition {
    /// The instance of the store that ships.
    pub instance: [u8; 16],
    /// The chain of shipments: drawn when it is begun.
    pub chain: [u8; 16],
    /// How many shipments of the chain come before.
    pub shipment: u64,
    /// Everything up to this sequence number has been shipped.
    pub sequence: SequenceNumber,
    /// The log position: bytes of records in the log before it, since the store was created.
    pub log: u64,
    /// Tells whether there are still the same keyspaces: a checksum over their ids and options.
    pub keyspaces: u32,
}

/// What was written between two positions, and what is needed to write it again. Plain data: the host lays it out and keeps it as it
/// likes, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shipment {
    /// The id of the store, in the header of every piece.
    pub store: [u8; 16],
    /// Where it begins.
    pub position: ShipPosition,
    /// Where it ends, and the next one begins.
    pub next: ShipPosition,
    /// When it was made, by the clock of the store: all that is in it had been written by then, and where it is the
    /// last one made at a time ([`more`](Self::more) is not set) all that had been written is in it or in those before.
    pub time: Timestamp,
    /// Whether there was more than one shipment may hold: the next one can be made at once.
    pub more: bool,
    /// Records of the log, in their order.
    pub pieces: Vec<LogPiece>,
    /// What the log does not tell: what became of keyspaces, and what this shipment is made of, sealed.
    pub notes: Vec<u8>,
    /// The keyring, as a copy of the store would have it, in each state in which it was since the last shipment: with the secret
    /// of the store it opens what is sealed under keys that the base does not have. Empty in plain stores, and where nothing changed.
    pub keyrings: Vec<Vec<u8>>,
}

impl Shipment {
    /// Bytes of the log in it.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.pieces
            .iter()
            .map(|piece| piece.bytes.len() as u64)
            .sum()
    }

    /// Whether it tells nothing but that nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let (from, to) = (&self.position, &self.next);
        let same = from.sequence == to.sequence && from.keyspaces == to.keyspaces;
        same && self.pieces.is_empty() && self.keyrings.is_empty()
    }
}

/// Whole records of one log segment, as they stand in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPiece {
    /// The number of the segment.
    pub segment: u64,
    /// Its salt, which tells it from every other.
    pub salt: Salt,
    /// Its header, of which the key to the records comes.
    pub header: Vec<u8>,
    /// Where in the segment the first of the records stands, in bytes.
    pub offset: u64,
    /// The records.
    pub bytes: Vec<u8>,
    /// The CRC-32 of header and records.
    pub checksum: u32,
    /// No write before this is in it.
    pub first_sequence: SequenceNumber,
    /// No write after this is in it.
    pub last_sequence: SequenceNumber,
}
