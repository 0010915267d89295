//! Holding what readers give against the oracle.

use std::collections::BTreeMap;

use vault_core::clock::Clock;
use vault_core::{
    Engine, Error, KeyRange, KeyspaceId, Reader, Result as CoreResult, Scan, Timestamp,
};

use super::{DIRECTORY, Simulation, Step};
use crate::oracle::{Entry, Id, Moment, compare_entries};

impl Simulation {
    pub(super) fn clock_now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Looks a key up.
    pub(super) fn check_key(&mut self, id: Id, key: &[u8]) -> Step {
        let got = self.store().get(KeyspaceId(id), key);
        let Some(found) = self.accept("get", got)? else {
            return Ok(());
        };
        self.digest.add(found.as_deref().unwrap_or(b"absent"));
        let (sequence, times) = (self.oracle.latest(), self.times());
        let history = self.oracle.history(id);
        history
            .check_answer(key, sequence, times, found.as_deref())
            .map_err(|problem| format!("get in keyspace {id}: {problem}"))
    }

    /// A keyspace that was dropped is unknown.
    pub(super) fn check_unknown(&mut self, id: Id) -> Step {
        match self.store().get(KeyspaceId(id), b"") {
            Err(Error::UnknownKeyspace { .. }) => Ok(()),
            other => Err(format!("a keyspace that was dropped answers {other:?}")),
        }
    }

    /// Compares everything there is, as the store gives it and as the snapshots do.
    pub(super) fn check_everything(&mut self) -> Step {
        if self.crash_is_due() || self.store.is_none() || self.secrecy.is_locked() {
            return Ok(());
        }
        self.check_keyspaces()?;
        let store = self.store().clone();
        let moment = self.oracle.moment();
        self.check_reader("the store", &store, &moment)?;
        let snapshots = std::mem::take(&mut self.snapshots);
        let checked = snapshots
            .iter()
            .try_for_each(|held| self.check_reader("a snapshot", &*held.snapshot, &held.moment));
        self.snapshots = snapshots;
        checked
    }

    fn check_keyspaces(&mut self) -> Step {
        let listed = self
            .store()
            .keyspaces()
            .map_err(|error| format!("keyspaces: {error}"))?;
        let listed: Vec<_> = listed
            .iter()
            .map(|info| (info.id.0, &info.name[..], &info.options))
            .collect();
        let expected: Vec<_> = self.oracle.present().collect();
        if !self.keyspaces_in_doubt && listed != expected {
            return Err(format!(
                "the keyspaces are {listed:?}, and should be {expected:?}"
            ));
        }
        Ok(())
    }

    /// Reads a moment forwards, backwards and key by key. With a fault about, a read may fail.
    pub(super) fn check_reader(
        &mut self,
        what: &str,
        reader: &dyn Reader,
        moment: &Moment,
    ) -> Step {
        for &id in &moment.keyspaces {
            let range = KeyRange::all();
            let read = forwards(reader, id, &range);
            let Some(found) = self.accept("scan", read)? else {
                return Ok(());
            };
            self.digest.add_debug(&found);
            let read = backwards(reader, id, &range);
            let Some(reversed) = self.accept("scan back", read)? else {
                return Ok(());
            };
            if found != reversed {
                return Err(format!("{what} reads keyspace {id} differently backwards"));
            }
            let times = self.times();
            let history = self.oracle.history(id);
            compare_entries(history, &range, moment.sequence, times, &found)
                .map_err(|problem| format!("{what}, keyspace {id}: {problem}"))?;
            let keys: Vec<Vec<u8>> = history.keys().map(<[u8]>::to_vec).collect();
            let wanted: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            let got = reader.multi_get(KeyspaceId(id), &wanted);
            let Some(got) = self.accept("multi_get", got)? else {
                return Ok(());
            };
            let mut entries = found.iter();
            let mut next = entries.next();
            for (key, got) in keys.iter().zip(got) {
                let scanned = next.filter(|entry| entry.0 == *key);
                if got.as_deref() != scanned.map(|entry| &entry.1[..]) {
                    return Err(format!(
                        "{what}, keyspace {id}: a lookup of {} gives something else than a scan",
                        key.escape_ascii()
                    ));
                }
                if scanned.is_some() {
                    next = entries.next();
                }
            }
        }
        Ok(())
    }

    /// Nothing lies in the directory that the store does not know of, and nothing that it knows is missing.
    /// Holds right after an opening, when nothing is waiting to be removed.
    pub(super) fn check_files(&mut self) -> Step {
        let outcome = self.store().stats();
        let Some(stats) = self.accept("stats", outcome)? else {
            return Ok(());
        };
        let levels = stats.keyspaces.iter().flat_map(|keyspace| &keyspace.levels);
        let tables: usize = levels.map(|level| level.tables).sum();
        let blobs: u64 = stats.keyspaces.iter().map(|k| k.blobs.files).sum();
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        for (path, _) in self.fs.list() {
            if let Ok(name) = path.strip_prefix(DIRECTORY) {
                let kind = name.extension().unwrap_or(name.as_os_str());
                *found
                    .entry(kind.to_string_lossy().into_owned())
                    .or_default() += 1;
            }
        }
        let logs = usize::try_from(stats.log.segments).unwrap_or(usize::MAX);
        let keyrings = usize::from(self.secrecy.is_encrypted());
        let known = [
            ("CURRENT", 1),
            ("KEYRING", keyrings),
            ("copy", keyrings),
            ("LOCK", 1),
            ("log", logs),
            ("man", 1),
            ("tab", tables),
            ("blob", usize::try_from(blobs).unwrap_or(usize::MAX)),
        ];
        let known = known.into_iter().filter(|(_, count)| *count > 0);
        let known: BTreeMap<String, usize> = known.map(|(kind, n)| (kind.to_owned(), n)).collect();
        if found != known {
            return Err(format!(
                "files by kind: {found:?}, known to the store: {known:?}"
            ));
        }
        Ok(())
    }
}

/// The entries of a range in order.
pub(super) fn forwards(reader: &dyn Reader, id: Id, range: &KeyRange) -> CoreResult<Vec<Entry>> {
    owned(reader.scan(KeyspaceId(id), range.clone())?)
}

/// The entries of a range, read from its end, in order.
fn backwards(reader: &dyn Reader, id: Id, range: &KeyRange) -> CoreResult<Vec<Entry>> {
    let scan: Scan = reader.scan(KeyspaceId(id), range.clone())?;
    let mut entries = owned(scan.rev())?;
    entries.reverse();
    Ok(entries)
}

fn owned(
    entries: impl Iterator<Item = CoreResult<(vault_core::Slice, vault_core::Slice)>>,
) -> CoreResult<Vec<Entry>> {
    entries
        .map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())))
        .collect()
}
