//! Writing a vault as text.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value as Json, json};
use vault_core::{KeyRange, Snapshot};

use super::form::{base64, key_to_json, value_to_json};
use super::{BASE64_FORMAT, JSON_FORMAT, LINES_FORMAT};
use crate::catalog::Tally;
use crate::database::{Shared, VaultState};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::restore::Chosen;
use crate::value::{Content, Value, decode};
use crate::vault::{Entries, Vault, VaultInfo, codec};

/// Entries between two calls of `progress`.
const PROGRESS_EVERY: u64 = 1024;

/// How a vault is written as text. The forms are laid out in `docs/format/export.md`.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// use vault_db::ExportFormat;
/// let vault = db.vault("notes")?;
/// vault.put("a", &1)?;
/// let mut text = Vec::new();
/// vault.export(ExportFormat::JsonLines, &mut text)?;
/// assert!(String::from_utf8_lossy(&text).contains(r#"{"key":"a","value":1}"#));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ExportFormat {
    /// One JSON document, for people.
    #[default]
    Json,
    /// A line of JSON for each entry, for vaults of any size.
    JsonLines,
    /// Keys and values as they are stored, in Base64.
    Base64,
}

/// How far an export has come.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// use vault_db::ExportFormat;
/// let vault = db.vault("notes")?;
/// vault.put("a", &1)?;
/// vault.export_with(ExportFormat::Json, std::io::sink(), |progress| {
///     println!("{} of {}", progress.entries_done, progress.entries_total);
///     std::ops::ControlFlow::Continue(())
/// })?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExportProgress {
    /// Entries written.
    pub entries_done: u64,
    /// Entries in all, as far as it is known.
    pub entries_total: u64,
}

impl Vault {
    /// Writes the vault as text: what it held at this moment, with its description, owner and tags. Takes no more memory
    /// than an entry does, whatever the size. Gives how many entries it wrote.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// use vault_db::{ExportFormat, ImportOptions};
    /// let notes = db.vault("notes")?;
    /// notes.put("backup", "weekly")?;
    /// notes.put(7, &vec![1_u8, 2])?;
    /// let mut text = Vec::new();
    /// notes.export(ExportFormat::JsonLines, &mut text)?;
    /// assert!(String::from_utf8_lossy(&text).contains(r#"{"key":"backup","value":"weekly"}"#));
    /// let copy = db.import("copy of notes", &text[..], &ImportOptions::default())?;
    /// assert_eq!(copy.entries, 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Stream`] where `out` fails, and then what was written so far is no whole export;
    /// [`Error::Malformed`], [`Error::VaultDeleted`], [`Error::Engine`].
    pub fn export(&self, format: ExportFormat, out: impl Write) -> Result<u64> {
        self.export_with(format, out, |_| ControlFlow::Continue(()))
    }

    /// As [`Vault::export`], with `progress` called from time to time, which can stop the work.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let vault = db.vault("v")?;
    /// use std::ops::ControlFlow;
    /// use vault_db::ExportFormat;
    /// let mut text = Vec::new();
    /// vault.export_with(ExportFormat::Json, &mut text, |progress| {
    ///     println!("{} of {}", progress.entries_done, progress.entries_total);
    ///     ControlFlow::Continue(())
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Vault::export`]; [`Error::Cancelled`].
    pub fn export_with(
        &self,
        format: ExportFormat,
        out: impl Write,
        progress: impl FnMut(ExportProgress) -> ControlFlow<()>,
    ) -> Result<u64> {
        let shared = self.shared();
        let (snapshot, state) = shared.snapshot_of(self.state())?;
        state.check()?;
        let tally = shared.tally_at(&*snapshot, state.id)?;
        shared.export_at(
            &*snapshot,
            &Chosen::of(Arc::clone(state)),
            &tally,
            format,
            out,
            progress,
        )
    }
}

impl Shared {
    /// Writes a vault as it is in a snapshot.
    pub(crate) fn export_at(
        &self,
        snapshot: &dyn Snapshot,
        chosen: &Chosen,
        tally: &Tally,
        format: ExportFormat,
        out: impl Write,
        progress: impl FnMut(ExportProgress) -> ControlFlow<()>,
    ) -> Result<u64> {
        let info = VaultInfo::new(&chosen.name, &chosen.record, tally);
        let entries = Entries::of(snapshot, u64::MAX, &chosen.vault, KeyRange::all())?;
        let mut about = Map::new();
        about.insert("vault".to_owned(), json!(info.name));
        about.insert("exported_at".to_owned(), json!(self.now().0));
        about.insert("created_at".to_owned(), json!(info.created.0));
        if let Some(description) = info.description {
            about.insert("description".to_owned(), json!(description));
        }
        if let Some(owner) = info.owner {
            about.insert("owner".to_owned(), json!(owner));
        }
        if !info.tags.is_empty() {
            about.insert("tags".to_owned(), json!(info.tags));
        }
        let export = Export {
            vault: &chosen.vault,
            out: io::BufWriter::with_capacity(1 << 16, out),
            done: ExportProgress {
                entries_done: 0,
                entries_total: info.keys,
            },
            progress,
        };
        match format {
            ExportFormat::Json => export.json(&about, entries),
            ExportFormat::JsonLines => export.lines(about, entries),
            ExportFormat::Base64 => export.base64(entries),
        }
    }
}

struct Export<'a, W: Write, P> {
    vault: &'a Arc<VaultState>,
    out: io::BufWriter<W>,
    done: ExportProgress,
    progress: P,
}

/// An entry, as it is written.
#[derive(Serialize)]
struct Written {
    key: Json,
    value: Json,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
}

fn failed(error: io::Error) -> Error {
    Error::Stream {
        doing: "writing an export",
        source: Arc::new(error),
    }
}

impl<W: Write, P: FnMut(ExportProgress) -> ControlFlow<()>> Export<'_, W, P> {
    fn json(mut self, about: &Map<String, Json>, entries: Entries) -> Result<u64> {
        self.text("{\n  \"format\": ")?;
        self.write(&JSON_FORMAT)?;
        for (name, value) in about {
            self.text(",\n  ")?;
            self.write(name)?;
            self.text(": ")?;
            self.write(value)?;
        }
        self.text(",\n  \"entries\": [")?;
        let mut separator = "\n    ";
        for entry in entries {
            let (key, stored) = entry?;
            self.text(separator)?;
            separator = ",\n    ";
            let written = self.entry(&key, &stored)?;
            self.write(&written)?;
            self.count()?;
        }
        self.text("\n  ]\n}\n")?;
        self.finish()
    }

    fn lines(mut self, about: Map<String, Json>, entries: Entries) -> Result<u64> {
        let mut first = Map::new();
        first.insert("format".to_owned(), json!(LINES_FORMAT));
        first.extend(about);
        self.line(&first)?;
        for entry in entries {
            let (key, stored) = entry?;
            let written = self.entry(&key, &stored)?;
            self.line(&written)?;
            self.count()?;
        }
        let entries = self.done.entries_done;
        self.line(&json!({ "entries": entries }))?;
        self.finish()
    }

    fn base64(mut self, entries: Entries) -> Result<u64> {
        self.text("{\n  \"format\": ")?;
        self.write(&BASE64_FORMAT)?;
        self.text(",\n  \"data\": {")?;
        let mut separator = "\n    ";
        for entry in entries {
            let (key, stored) = entry?;
            self.text(separator)?;
            separator = ",\n    ";
            self.write(&base64(&key))?;
            self.text(": ")?;
            self.write(&base64(&stored))?;
            self.count()?;
        }
        self.text("\n  }\n}\n")?;
        self.finish()
    }

    fn entry(&self, key: &[u8], stored: &[u8]) -> Result<Written> {
        let state = self.vault;
        let stored = codec::parse(state, key, stored)?;
        let value = match stored.content {
            Content::Raw(bytes) => json!({ "$raw": base64(bytes) }),
            Content::MessagePack(content) => {
                let value: Value =
                    decode(content).map_err(|mismatch| codec::mismatched(state, key, mismatch))?;
                value_to_json(&value)
            }
        };
        let key: Key = codec::decode_key(state, key)?;
        Ok(Written {
            key: key_to_json(&key),
            value,
            expires_at: stored.expiry.map(|expiry| expiry.0),
        })
    }

    fn text(&mut self, text: &str) -> Result<()> {
        self.out.write_all(text.as_bytes()).map_err(failed)
    }

    fn write(&mut self, value: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.out, value).map_err(|error| failed(error.into()))
    }

    fn line(&mut self, value: &impl Serialize) -> Result<()> {
        self.write(value)?;
        self.text("\n")
    }

    fn count(&mut self) -> Result<()> {
        self.done.entries_done += 1;
        if self.done.entries_done.is_multiple_of(PROGRESS_EVERY)
            && (self.progress)(self.done).is_break()
        {
            return Err(Error::Cancelled);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<u64> {
        self.out.flush().map_err(failed)?;
        Ok(self.done.entries_done)
    }
}
