//! What is bounded, by how much, and the checks that hold callers to it.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Longest key any engine accepts, in bytes. Part of the table format.
pub const KEY_BYTES_MAX: usize = 64 * 1024;
/// Longest end of a range delete, in bytes: one more than a key, so that a range can end behind the
/// greatest key there can be.
pub const RANGE_END_BYTES_MAX: usize = KEY_BYTES_MAX + 1;
/// Longest value any engine can be configured to accept, in bytes.
pub const VALUE_BYTES_CEILING: usize = 1 << 30;
/// Longest batch any engine can be configured to accept, in bytes.
pub const BATCH_BYTES_CEILING: usize = 2 << 30;
/// Longest name of a keyspace, in bytes.
pub const KEYSPACE_NAME_BYTES_MAX: usize = 128;
/// Most keyspaces in one store.
pub const KEYSPACES_MAX: usize = 65_536;

/// The limits that a store holds its callers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Longest key, in bytes; at most [`KEY_BYTES_MAX`].
    pub key_bytes_max: usize,
    /// Longest value, in bytes; at most [`VALUE_BYTES_CEILING`].
    pub value_bytes_max: usize,
    /// Longest encoded batch, in bytes; at most [`BATCH_BYTES_CEILING`].
    pub batch_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            key_bytes_max: KEY_BYTES_MAX,
            value_bytes_max: 32 << 20,
            batch_bytes_max: 64 << 20,
        }
    }
}

impl Limits {
    /// Checks that the limits themselves are within what the format can hold.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`].
    pub fn check(&self) -> Result<()> {
        let within = |setting, value: usize, ceiling: usize| {
            if value == 0 || value > ceiling {
                let problem = format!("{value} is not between 1 and {ceiling}");
                return Err(Error::InvalidSetting { setting, problem });
            }
            Ok(())
        };
        within("limits.key_bytes_max", self.key_bytes_max, KEY_BYTES_MAX)?;
        within(
            "limits.value_bytes_max",
            self.value_bytes_max,
            VALUE_BYTES_CEILING,
        )?;
        within(
            "limits.batch_bytes_max",
            self.batch_bytes_max,
            BATCH_BYTES_CEILING,
        )
    }

    /// Refuses a key over the limit.
    ///
    /// # Errors
    /// [`Error::KeyTooLong`].
    #[inline]
    pub fn check_key(&self, key: &[u8]) -> Result<()> {
        if key.len() > self.key_bytes_max {
            return Err(Error::KeyTooLong {
                len: key.len(),
                max: self.key_bytes_max,
            });
        }
        Ok(())
    }

    /// Refuses the end of a range delete over its limit, which does not depend on the configured one:
    /// the end need not be a key.
    ///
    /// # Errors
    /// [`Error::KeyTooLong`].
    #[inline]
    pub const fn check_range_end(&self, end: &[u8]) -> Result<()> {
        if end.len() > RANGE_END_BYTES_MAX {
            return Err(Error::KeyTooLong {
                len: end.len(),
                max: RANGE_END_BYTES_MAX,
            });
        }
        Ok(())
    }

    /// Refuses a value over the limit.
    ///
    /// # Errors
    /// [`Error::ValueTooLong`].
    #[inline]
    pub fn check_value(&self, value: &[u8]) -> Result<()> {
        if value.len() > self.value_bytes_max {
            return Err(Error::ValueTooLong {
                len: value.len(),
                max: self.value_bytes_max,
            });
        }
        Ok(())
    }
}

/// Refuses a name that cannot name a keyspace: 1 to 128 bytes of `A-Z a-z 0-9 _ - .`, not starting
/// with a dot.
///
/// # Errors
/// [`Error::InvalidKeyspaceName`].
pub fn check_keyspace_name(name: &str) -> Result<()> {
    let odd = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    let problem = if name.is_empty() {
        "it is empty"
    } else if name.len() > KEYSPACE_NAME_BYTES_MAX {
        "it is longer than 128 bytes"
    } else if name.starts_with('.') {
        "it starts with a dot"
    } else if name.contains(odd) {
        "it has other characters"
    } else {
        return Ok(());
    };
    Err(Error::InvalidKeyspaceName {
        name: name.chars().take(64).collect(),
        problem,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "users", "A-1_b.c", &"x".repeat(128)] {
            assert!(check_keyspace_name(good).is_ok(), "{good}");
        }
        for bad in ["", ".a", "a/b", "a b", "ä", "a\0", &"x".repeat(129)] {
            assert!(check_keyspace_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_out_of_bounds_are_refused() {
        let zero = Limits {
            key_bytes_max: 0,
            ..Limits::default()
        };
        assert!(matches!(zero.check(), Err(Error::InvalidSetting { .. })));
        let huge = Limits {
            batch_bytes_max: usize::MAX,
            ..Limits::default()
        };
        assert!(huge.check().is_err());
        assert!(Limits::default().check().is_ok());
    }
}
