//! The catalog: which vaults there are, what is known of each, and how many entries they hold.
//!
//! It lives in two keyspaces of the engine, beside one keyspace for the entries of each vault. What belongs together
//! is written in one batch, so no crash comes between an entry and its count.
//!
//! # The bytes
//! ```text
//! keyspace vault.catalog
//!   0x00                          -> the header: format, next vault id
//!   0x01, tenant u32, name        -> what is known of a vault ([`Record`])
//!   0x02, vault id u32            -> how much is in it ([`Tally`])
//!   0x03, vault id u32            -> how it is used ([`Saved`](crate::access::Saved))
//!   0x04, name                    -> what is known of a tenant ([`TenantRecord`](crate::tenant::TenantRecord))
//!   0x05, name                    -> a principal of access control
//!   0x06, name                    -> what a role allows
//!   0x07, SHA-256 of the token    -> whose it is, and until when
//!   0x08                          -> the head of the audit log
//!   0x09, vault id u32            -> nothing: that vault is on its way in or out
//! keyspace vault.expiry
//!   vault id u32, expiry u64, key -> bytes of the value, u64
//! keyspace vault.v<id>
//!   key                           -> value
//! ```
//! Numbers in keys are big-endian, in values little-endian. The header and the records are MessagePack maps, so that
//! fields can be added. Vault ids are never used twice.
//!
//! # What always holds
//! - The tally of a vault counts each entry, and each expired entry for as long as `vault.expiry` names it.
//! - `vault.expiry` names each entry that has an expiry.
//! - A vault on its way in or out is marked before its keyspace is there, and until it is gone: opening removes what is marked
//!   and has no record. A keyspace `vault.v<id>` that neither a record nor a mark names has lost its record to damage, and stays.

mod record;
mod tally;

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use vault_core::limits::{KEY_BYTES_MAX, RANGE_END_BYTES_MAX};
use vault_core::{Engine, KeyspaceId, KeyspaceOptions, Timestamp, WriteBatch, merge};

pub(crate) use record::{Header, Record};
pub(crate) use tally::{Counts, Delta, Tally};

use crate::error::{Error, Result};

/// The newest format of the data layer that this build reads, and the one it writes.
pub(crate) const FORMAT: u32 = 1;

const CATALOG: &str = "vault.catalog";
const EXPIRY: &str = "vault.expiry";
const VAULT_PREFIX: &str = "vault.v";

const HEADER: u8 = 0x00;
const RECORD: u8 = 0x01;
const TALLY: u8 = 0x02;
const ACCESS: u8 = 0x03;
const TENANT: u8 = 0x04;
pub(crate) const PRINCIPAL: u8 = 0x05;
pub(crate) const ROLE: u8 = 0x06;
pub(crate) const TOKEN: u8 = 0x07;
const AUDIT: u8 = 0x08;
const STRAY: u8 = 0x09;

/// Bytes of the catalog's memtable: it is rewritten all the time, and small when flushed.
const CATALOG_BUFFER_BYTES: u64 = 32 << 20;

/// The keyspaces that the data layer keeps for itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keyspaces {
    pub(crate) catalog: KeyspaceId,
    pub(crate) expiry: KeyspaceId,
}

impl Keyspaces {
    /// Creates them, or finds them.
    pub(crate) fn create(engine: &dyn Engine) -> Result<Self> {
        let options = KeyspaceOptions {
            write_buffer_bytes: CATALOG_BUFFER_BYTES,
            large_value_bytes: None,
            ..KeyspaceOptions::default()
        };
        let counting = options.clone().merge(merge::TALLY);
        Ok(Self {
            catalog: engine.create_keyspace(CATALOG, &counting)?,
            expiry: engine.create_keyspace(EXPIRY, &options)?,
        })
    }

    /// Finds them, where the store can only be read.
    pub(crate) fn find(engine: &dyn Engine) -> Result<Option<Self>> {
        let (catalog, expiry) = (engine.keyspace(CATALOG)?, engine.keyspace(EXPIRY)?);
        Ok(catalog
            .zip(expiry)
            .map(|(catalog, expiry)| Self { catalog, expiry }))
    }
}

/// The name of a vault's keyspace. Says nothing of the vault.
pub(crate) fn keyspace_name(vault: u32) -> String {
    format!("{VAULT_PREFIX}{vault}")
}

/// The vault whose keyspace has this name.
pub(crate) fn vault_of_keyspace(name: &str) -> Option<u32> {
    let number = name.strip_prefix(VAULT_PREFIX)?;
    number
        .parse()
        .ok()
        .filter(|&vault| keyspace_name(vault) == name)
}

/// What a key of the catalog tells of, in the words of whoever looks at a database from outside; `None` where it is nothing that
/// anybody made.
pub(crate) fn what_stands_under(key: &[u8]) -> Option<&'static str> {
    match *key.first()? {
        RECORD => Some("vaults"),
        TENANT => Some("tenants"),
        PRINCIPAL | ROLE | TOKEN => Some("rules of access control"),
        AUDIT => Some("an audit log"),
        _ => None,
    }
}

pub(crate) const fn header_key() -> [u8; 1] {
    [HEADER]
}

/// The prefix of the records of a tenant's vaults.
pub(crate) fn records_prefix(tenant: u32) -> Vec<u8> {
    let mut key = vec![RECORD];
    key.extend_from_slice(&tenant.to_be_bytes());
    key
}

pub(crate) const fn all_records_prefix() -> [u8; 1] {
    [RECORD]
}

pub(crate) fn record_key(tenant: u32, name: &str) -> Vec<u8> {
    let mut key = records_prefix(tenant);
    key.extend_from_slice(name.as_bytes());
    key
}

/// The tenant and the name of a record's key.
pub(crate) fn parse_record_key(key: &[u8]) -> Option<(u32, &str)> {
    let (tenant, name) = key.strip_prefix(&[RECORD])?.split_first_chunk()?;
    Some((u32::from_be_bytes(*tenant), std::str::from_utf8(name).ok()?))
}

pub(crate) const fn tally_key(vault: u32) -> [u8; 5] {
    numbered_key(TALLY, vault)
}

/// The vault whose tally stands under a key of the catalog.
pub(crate) fn tallied_vault(key: &[u8]) -> Option<u32> {
    numbered_vault(TALLY, key)
}

pub(crate) const fn access_key(vault: u32) -> [u8; 5] {
    numbered_key(ACCESS, vault)
}

/// The prefix of what is noted of the accesses to all vaults.
pub(crate) const fn accesses_prefix() -> [u8; 1] {
    [ACCESS]
}

/// The vault of whose accesses a key of the catalog tells.
pub(crate) fn accessed_vault(key: &[u8]) -> Option<u32> {
    numbered_vault(ACCESS, key)
}

pub(crate) const fn tenants_prefix() -> [u8; 1] {
    [TENANT]
}

pub(crate) fn tenant_key(name: &str) -> Vec<u8> {
    named_key(TENANT, name)
}

pub(crate) fn named_key(tag: u8, name: &str) -> Vec<u8> {
    let mut key = vec![tag];
    key.extend_from_slice(name.as_bytes());
    key
}

pub(crate) fn token_key(hash: &[u8; 32]) -> Vec<u8> {
    let mut key = vec![TOKEN];
    key.extend_from_slice(hash);
    key
}

pub(crate) const fn audit_key() -> [u8; 1] {
    [AUDIT]
}

/// Where a vault is marked that is on its way in or out.
pub(crate) const fn stray_key(vault: u32) -> [u8; 5] {
    numbered_key(STRAY, vault)
}

/// The prefix of all these marks.
pub(crate) const fn strays_prefix() -> [u8; 1] {
    [STRAY]
}

/// The vault that a key of the catalog marks.
pub(crate) fn marked_vault(key: &[u8]) -> Option<u32> {
    numbered_vault(STRAY, key)
}

const fn numbered_key(tag: u8, number: u32) -> [u8; 5] {
    let [a, b, c, d] = number.to_be_bytes();
    [tag, a, b, c, d]
}

fn numbered_vault(tag: u8, key: &[u8]) -> Option<u32> {
    let (vault, rest) = key.strip_prefix(&[tag])?.split_first_chunk()?;
    rest.is_empty().then_some(u32::from_be_bytes(*vault))
}

pub(crate) const fn expiry_prefix(vault: u32) -> [u8; 4] {
    vault.to_be_bytes()
}

pub(crate) fn expiry_key(vault: u32, expiry: Timestamp, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(12 + key.len());
    out.extend_from_slice(&vault.to_be_bytes());
    out.extend_from_slice(&expiry.0.to_be_bytes());
    out.extend_from_slice(key);
    out
}

/// The expiry and the vault's key of an entry of `vault.expiry`.
pub(crate) fn parse_expiry_key(key: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (expiry, key) = key.get(4..)?.split_first_chunk()?;
    Some((Timestamp(u64::from_be_bytes(*expiry)), key))
}

/// Adds to a batch that every entry of a keyspace goes.
pub(crate) fn delete_everything(batch: &mut WriteBatch, keyspace: KeyspaceId) {
    batch.delete_range(keyspace, b"", &[u8::MAX; RANGE_END_BYTES_MAX]);
}

const _: () = assert!(
    RANGE_END_BYTES_MAX > KEY_BYTES_MAX,
    "a range can end behind every key"
);

/// Encodes a record of the catalog.
pub(crate) fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>> {
    rmp_serde::to_vec_named(record).map_err(|error| Error::NotEncodable {
        type_name: std::any::type_name::<T>(),
        problem: error.to_string(),
    })
}

/// Decodes a record of the catalog.
pub(crate) fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T> {
    rmp_serde::from_slice(bytes).map_err(|error| Error::Malformed {
        what: format!("{what} in the catalog"),
        problem: error.to_string(),
    })
}

/// Reads a list, with room for what has been read and not for what it claims to hold.
pub(crate) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> std::result::Result<Vec<T>, D::Error> {
    struct Elements<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Elements<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(
            self,
            mut elements: A,
        ) -> std::result::Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(element) = elements.next_element()? {
                list.push(element);
            }
            Ok(list)
        }
    }
    deserializer.deserialize_seq(Elements(PhantomData))
}

/// A key or value of the catalog that makes no sense.
pub(crate) fn malformed(what: &str) -> Error {
    Error::Malformed {
        what: format!("{what} in the catalog"),
        problem: "it has another length or another tag than any this build writes".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_apart_as_they_were_put_together() {
        assert_eq!(
            parse_record_key(&record_key(7, "users")),
            Some((7, "users"))
        );
        assert_eq!(parse_record_key(b"\x02abc"), None);
        let key = expiry_key(3, Timestamp(9), b"k");
        assert_eq!(parse_expiry_key(&key), Some((Timestamp(9), &b"k"[..])));
        assert_eq!(parse_expiry_key(&key[..11]), None);
    }

    #[test]
    fn keyspaces_of_vaults_are_known_by_their_names() {
        assert_eq!(vault_of_keyspace(&keyspace_name(12)), Some(12));
        for other in [
            "vault.v",
            "vault.v012",
            "vault.vx",
            "vault.catalog",
            "users",
            "vault.v+1",
        ] {
            assert_eq!(vault_of_keyspace(other), None, "{other}");
        }
    }
}
