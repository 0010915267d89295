//! What the fuzz targets reach of this crate. Not part of its interface.

use vault_core::KeyRange;
use vault_lsm::shipping::Shipment;

use crate::catalog;
use crate::error::Result;
use crate::key::{DecodeKey, EncodeKey, Key};
use crate::snapshot::log;
use crate::value::{self, Content, Stored, Value};

/// Decodes a key, and encodes it again.
#[must_use]
pub fn key(bytes: &[u8]) -> Option<(Key, Vec<u8>)> {
    let key = Key::decode_key(bytes).ok()?;
    let mut encoded = Vec::new();
    key.encode_key(&mut encoded).ok()?;
    Some((key, encoded))
}

/// The range of the keys that begin with a key.
#[must_use]
pub fn prefix(key: &Key) -> Option<KeyRange> {
    crate::key::prefix_range(key).ok()
}

/// Decodes a stored value, whatever it holds, and encodes it again.
#[must_use]
pub fn stored(bytes: &[u8]) -> Option<(Value, Vec<u8>)> {
    let stored = Stored::parse(bytes)?;
    match stored.content {
        Content::Raw(raw) => {
            let encoded = value::encode_raw(raw, stored.expiry);
            Some((Value::Bytes(raw.to_vec()), encoded))
        }
        Content::MessagePack(_) => {
            let value: Value = stored.read().ok()?;
            let encoded = value::encode(&value, stored.expiry).ok()?;
            Some((value, encoded))
        }
    }
}

/// Reads a text as an import does. Gives the entries, encoded.
///
/// # Errors
/// What the import would say.
pub fn text(bytes: &[u8], value_bytes_max: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut entries = Vec::new();
    crate::portable::read_entries(bytes, value_bytes_max, &mut |key, stored| {
        entries.push((key.to_vec(), stored.to_vec()));
    })?;
    Ok(entries)
}

/// Decodes the file of a shipment.
///
/// # Errors
/// What is wrong with it.
pub fn shipment(file: &[u8]) -> Result<Shipment, String> {
    log::decode(file)
}

/// The file of a shipment; empty where it cannot be laid out.
#[must_use]
pub fn shipment_file(shipment: &Shipment) -> Vec<u8> {
    log::encode(shipment).unwrap_or_default()
}

/// The file of a shipment that holds these bytes behind its header, with the hash that it should have.
#[must_use]
pub fn sealed_shipment(body: &[u8]) -> Vec<u8> {
    log::sealed(body)
}

/// Decodes whatever a record of the catalog can be.
pub fn records(bytes: &[u8]) {
    let _ = catalog::decode::<catalog::Header>("a header", bytes);
    let _ = catalog::decode::<catalog::Record>("a record", bytes);
    let _ = catalog::decode::<crate::access::Saved>("accesses", bytes);
    let _ = catalog::decode::<crate::tenant::TenantRecord>("a tenant", bytes);
    let _ = catalog::decode::<crate::Grant>("a grant", bytes);
    let _ = catalog::Tally::decode(bytes);
    let _ = catalog::parse_record_key(bytes);
    let _ = catalog::parse_expiry_key(bytes);
}
