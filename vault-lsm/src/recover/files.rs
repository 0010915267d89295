//! What opening a store demands of its directory, and what it clears away there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use vault_core::transform::{FileKind, HEADER_BYTES};
use vault_core::vfs::{EntryKind, read_up_to};
use vault_core::{Error, Event, Result};

use super::Opening;
use crate::directory::is_ours;
use crate::layout::{NameMeaning, meaning_of};
use crate::manifest::State;

impl Opening {
    /// Checks that what the manifest names is there, and as long as it says.
    pub(super) fn check_directory(&self, state: &State) -> Result<()> {
        for (kind, number) in state.files() {
            let path = self.env.path(kind, number);
            let there = self
                .env
                .fs
                .kind(&path)
                .map_err(|e| Error::io("look at", &path, e))?;
            if there.is_none() {
                let problem = format!("this {} is needed and is missing", kind.name());
                return Err(Error::corruption(&path, 0, problem));
            }
        }
        Ok(())
    }

    /// Checks that no log segment holds records that the manifest knows nothing of: its number is
    /// durable there before its first record, so the manifest would have lost its end.
    pub(super) fn check_unknown_logs(&self, state: &State) -> Result<()> {
        for (name, kind) in self.list()? {
            let NameMeaning::Numbered(FileKind::Log, number) = meaning_of(&name) else {
                continue;
            };
            // Numbers below were given out before the last edit: such a segment was let go of.
            if number < state.next_file || state.logs.contains_key(&number) {
                continue;
            }
            let path = self.env.path(FileKind::Log, number);
            if kind != EntryKind::File || !self.wrote(&path, Some(number)) {
                continue;
            }
            let mut start = [0; 512];
            let read = self
                .env
                .fs
                .open(&path)
                .and_then(|file| read_up_to(&*file, &mut start, HEADER_BYTES as u64))
                .map_err(|e| Error::io("read", &path, e))?;
            if start[..read].iter().any(|&byte| byte != 0) {
                let problem = "the manifest does not know this segment, which holds records: \
                    the manifest has lost its end";
                return Err(Error::corruption(&path, HEADER_BYTES as u64, problem));
            }
        }
        Ok(())
    }

    /// Removes files that carry Vault's names and that nothing refers to; may report foreign ones.
    pub(super) fn clean_directory(&self, state: &State, manifest: u64, report: bool) -> Result<()> {
        let files: BTreeSet<(u8, u64)> = state
            .files()
            .map(|(kind, number)| (kind as u8, number))
            .collect();
        for (name, kind) in self.list()? {
            let path = self.env.directory.join(&name);
            let (needed, number) = match meaning_of(&name) {
                NameMeaning::Fixed => (true, None),
                NameMeaning::Numbered(kind @ (FileKind::Table | FileKind::Blob), n) => {
                    (files.contains(&(kind as u8, n)), Some(n))
                }
                NameMeaning::Numbered(FileKind::Log, n) => (state.logs.contains_key(&n), Some(n)),
                NameMeaning::Numbered(FileKind::Manifest, n) => (n == manifest, Some(n)),
                NameMeaning::Numbered(_, n) => (false, Some(n)),
                NameMeaning::Unfinished | NameMeaning::Foreign => (false, None),
            };
            if needed {
                continue;
            }
            let ours = kind == EntryKind::File
                && meaning_of(&name) != NameMeaning::Foreign
                && self.wrote(&path, number);
            if ours {
                self.env
                    .fs
                    .remove(&path)
                    .map_err(|e| Error::io("remove", &path, e))?;
            } else if report {
                self.env.emit(&Event::ForeignFile { path });
            }
        }
        Ok(())
    }

    /// Whether a file that carries a name of Vault's was written by this store. One that is just being created
    /// has no id yet, and may find what an earlier attempt left.
    fn wrote(&self, path: &Path, number: Option<u64>) -> bool {
        let store = self.pointer.is_some().then_some(&self.env.store);
        is_ours(&*self.env.fs, path, store, number)
    }

    pub(super) fn list(&self) -> Result<Vec<(PathBuf, EntryKind)>> {
        let directory = &self.env.directory;
        let entries = self
            .env
            .fs
            .read_dir(directory)
            .map_err(|e| Error::io("list", directory, e))?;
        Ok(entries
            .into_iter()
            .map(|entry| (PathBuf::from(entry.name), entry.kind))
            .collect())
    }

    pub(super) fn log_bytes(&self, number: u64) -> Result<u64> {
        let path = self.env.path(FileKind::Log, number);
        let file = self
            .env
            .fs
            .open(&path)
            .map_err(|e| Error::io("open", &path, e))?;
        file.len().map_err(|e| Error::io("measure", &path, e))
    }
}
