//! What fuzz targets reach of shipments. See [`crate::fuzzing`].

use vault_core::codec::{Decoder, put_bytes};
use vault_core::transform::HEADER_BYTES;

use super::replay::checksum;
use super::{Shipment, notes};
use crate::fuzzing::{Chained, SEAL_BYTES, Seals, mend_header};

/// Gives a shipment all checksums, and the statement, that it should have, for a reader that looks at no seals: replaying it reaches what
/// stands behind them.
pub fn mend_shipment(shipment: &mut Shipment) {
    for piece in &mut shipment.pieces {
        let header_bytes = piece.header.len();
        let segment = [&piece.header[..], &piece.bytes].concat();
        let mended = Seals::Mended.prepare(&segment, Some(Chained::No));
        let (header, records) = mended.split_at(header_bytes);
        piece.header = header.to_vec();
        piece.bytes = records.to_vec();
        piece.checksum = checksum(&piece.header, &piece.bytes);
    }
    let Some((header, sealed)) = shipment.notes.split_at_checked(HEADER_BYTES) else {
        return;
    };
    let Some((payload, seal)) = sealed.split_last_chunk::<SEAL_BYTES>() else {
        return;
    };
    let mut header = header.to_vec();
    mend_header(&mut header);
    let mut decoder = Decoder::new(payload);
    let changes = match decoder.bytes() {
        Some(_) => decoder.rest(),
        None => &[],
    };
    let mut notes = header;
    put_bytes(&mut notes, &notes::statement(shipment));
    notes.extend_from_slice(changes);
    notes.extend_from_slice(seal);
    shipment.notes = notes;
}
