//! What is known of the database, and of each vault.

use serde::{Deserialize, Serialize};

use super::FORMAT;
use crate::bounds::{DESCRIPTION_BYTES_MAX, TAG_BYTES_MAX, TAGS_MAX};
use crate::error::{Error, Result};

/// Ids begin at 1.
const fn first() -> u32 {
    1
}

/// What is known of the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    /// Format of the data layer.
    pub(crate) format: u32,
    /// Names the database: 16 random bytes in hexadecimal.
    #[serde(default)]
    pub(crate) database: String,
    /// The id of the next vault.
    pub(crate) next_vault: u32,
    /// The id of the next tenant.
    #[serde(default = "first")]
    pub(crate) next_tenant: u32,
}

impl Default for Header {
    fn default() -> Self {
        Self {
            format: FORMAT,
            database: String::new(),
            next_vault: first(),
            next_tenant: first(),
        }
    }
}

/// What is known of a vault, beside how much is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Names the vault's keyspace, and its entries in the catalog.
    pub(crate) id: u32,
    /// When it was created, in milliseconds since 1970.
    pub(crate) created: u64,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<String>,
    /// What it is found by.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "super::list"
    )]
    pub(crate) tags: Vec<String>,
}

impl Record {
    /// Refuses what is longer than it may be: it is all held in memory, and counts towards nobody's quota.
    pub(crate) fn check(&self) -> Result<()> {
        let check = |what, unit, len: usize, max: usize| match len > max {
            true => Err(Error::MetadataTooLong {
                what,
                len,
                unit,
                max,
            }),
            false => Ok(()),
        };
        let bytes_of = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let description = bytes_of(&self.description);
        check("a description", "bytes", description, DESCRIPTION_BYTES_MAX)?;
        check("an owner", "bytes", bytes_of(&self.owner), TAG_BYTES_MAX)?;
        check("a list", "tags", self.tags.len(), TAGS_MAX)?;
        let mut tags = self.tags.iter();
        tags.try_for_each(|tag| check("a tag", "bytes", tag.len(), TAG_BYTES_MAX))
    }
}
