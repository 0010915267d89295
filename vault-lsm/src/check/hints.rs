//! What pointer and manifests still tell of a store that is salvaged.

use vault_core::transform::FileKind;
use vault_core::{Error, KeyspaceOptions, Result};

use super::loss::SalvageOptions;
use super::stock::{Stock, as_damage};
use crate::manifest::inspect::scan;
use crate::manifest::{State, TablePlace};

/// What pointer and manifests still tell.
pub(super) struct Hints {
    /// What the best manifest says.
    pub(super) state: State,
    /// Whether that is all there is to know: the manifest is whole, and what it names is there.
    pub(super) exact: bool,
}

impl Hints {
    pub(super) fn gather(stock: &Stock) -> Result<Self> {
        if let Some(manifest) = &stock.manifest {
            let named = stock.pointer.is_none_or(|p| p.manifest == manifest.number);
            let durable = stock.pointer.map_or(0, |pointer| pointer.manifest_bytes);
            let state = manifest.state.clone();
            let tables = stock.numbers(FileKind::Table);
            let mut keyspaces = state.keyspaces.values();
            let all_there = keyspaces.all(|k| k.tables.keys().all(|n| tables.contains(n)));
            let logs = stock.numbers(FileKind::Log);
            let no_more = logs
                .iter()
                .all(|n| *n < state.next_file || state.logs.contains_key(n));
            let exact = named && manifest.is_sound(durable) && all_there && no_more;
            return Ok(Self { state, exact });
        }
        // A manifest that does not count may still know names.
        let mut state = State::default();
        for number in stock.numbers(FileKind::Manifest).into_iter().rev() {
            let path = stock.env.path(FileKind::Manifest, number);
            match scan(&*stock.env.fs, &*stock.env.transform, &path, number).map_err(as_damage) {
                Ok(mut scanned) => {
                    scanned.apply_behind();
                    state = scanned.state;
                    break;
                }
                Err(Error::Corruption { .. } | Error::Io { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self {
            state,
            exact: false,
        })
    }

    /// The options of a keyspace in the new store: those it had, with what the caller knows better.
    pub(super) fn options(&self, id: u32, given: &SalvageOptions) -> KeyspaceOptions {
        let stored = self.state.keyspaces.get(&id);
        let mut options = stored
            .map(|keyspace| keyspace.options.clone())
            .unwrap_or_default();
        let given = given.keyspaces.get(&id);
        if let Some(operator) = given.and_then(|known| known.merge_operator.clone()) {
            options.merge_operator = Some(operator);
        }
        options
    }

    pub(super) fn place(&self, number: u64) -> Option<(u32, &TablePlace)> {
        let mut keyspaces = self.state.keyspaces.iter();
        keyspaces.find_map(|(id, keyspace)| Some((*id, keyspace.tables.get(&number)?)))
    }
}
