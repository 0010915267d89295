//! Vaults as text: for people to read, for other programs, and to move from one database to another.
//!
//! # The forms
//! - [`ExportFormat::Json`]: one document. `{"format": "vault-json-v1", "vault": …, "exported_at": …, …, "entries": [{"key": …,
//!   "value": …, "expires_at": …}, …]}`.
//! - [`ExportFormat::JsonLines`]: the same, a line for each entry, between a line that says what follows and one that says how
//!   many there were. For vaults of any size, and for tools that go line by line.
//! - [`ExportFormat::Base64`]: `{"format": "vaults-base64-v1", "data": {key: value, …}}` with keys and values as they are
//!   stored. Not for reading; nothing is lost.
//!
//! # What JSON has no form for
//! Is marked by a map with a single key that begins with `$`:
//!
//! | | |
//! | --- | --- |
//! | `{"$bytes": "AAE="}` | bytes, in Base64 (RFC 4648, with padding) |
//! | `{"$raw": "AAE="}` | a value that was stored as raw bytes |
//! | `{"$float": "NaN"}` | a float that is not a finite number: `NaN`, `inf`, `-inf` |
//! | `{"$map": [[key, value], …]}` | a map with keys that are no strings, or begin with `$` |
//! | `{"$integer": 5}`, `{"$bool": true}`, `{"$tuple": […]}` | keys of entries that are no strings |
//!
//! All else is plain JSON. Floats keep their point (`1.0`), integers have none, so that both come back as what they were.

mod export;
mod form;
mod import;
mod parse;
mod transcode;

pub use export::{ExportFormat, ExportProgress};
pub use import::{ImportMode, ImportOptions, ImportOutcome, ImportProgress};

/// Reads a text, and shows each entry as it is to be stored.
#[cfg(feature = "fuzzing")]
pub(crate) fn read_entries(
    text: &[u8],
    value_bytes_max: usize,
    show: &mut dyn FnMut(&[u8], &[u8]),
) -> crate::error::Result<()> {
    parse::read(text, value_bytes_max, &mut |_, entry| {
        show(&entry.key, &entry.stored);
        Ok(())
    })?;
    Ok(())
}

/// The forms that this build writes, and reads.
pub(crate) const JSON_FORMAT: &str = "vault-json-v1";
pub(crate) const LINES_FORMAT: &str = "vault-jsonl-v1";
pub(crate) const BASE64_FORMAT: &str = "vaults-base64-v1";
