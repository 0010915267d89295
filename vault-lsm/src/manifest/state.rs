//! What the edits of a manifest add up to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vault_core::limits::KEYSPACES_MAX;
use vault_core::transform::Salt;
use vault_core::{KeyspaceOptions, SequenceNumber};

use super::Edit;
use crate::internal_key::SEQUENCE_MAX;
use crate::table::TableMeta;

/// What makes up the store. Cloning is cheap: keyspaces are shared until they change.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) next_file: u64,
    pub(crate) next_keyspace: u32,
    pub(crate) last_sequence: SequenceNumber,
    pub(crate) log_floor: u64,
    /// A log segment and a position in it up to which the log is durable; zeros once the segment is
    /// below the floor.
    pub(crate) log_synced: (u64, u64),
    /// Log segments at or above the floor, with their salts.
    pub(crate) logs: BTreeMap<u64, Salt>,
    /// Log segments up to this one hold what must not stay; 0 once they are below the floor.
    pub(crate) forget_logs: u64,
    pub(crate) keyspaces: BTreeMap<u32, Arc<KeyspaceState>>,
    /// The names of the keyspaces: none is taken twice.
    pub(super) names: Arc<BTreeSet<String>>,
}

/// What makes up a keyspace.
#[derive(Debug, Clone)]
pub(crate) struct KeyspaceState {
    pub(crate) name: String,
    pub(crate) options: KeyspaceOptions,
    pub(crate) flushed_through: SequenceNumber,
    /// Its tables by number.
    pub(crate) tables: BTreeMap<u64, TablePlace>,
}

/// Where a table stands.
#[derive(Debug, Clone)]
pub(crate) struct TablePlace {
    pub(crate) level: u32,
    pub(crate) run: u64,
    pub(crate) meta: Arc<TableMeta>,
}

/// Greatest file number there can be.
const FILE_NUMBER_MAX: u64 = 1 << 56;
/// Greatest run number there can be.
const RUN_NUMBER_MAX: u64 = 1 << 56;
/// Deepest level there can be.
pub(crate) const LEVELS_MAX: u32 = 64;

impl Default for State {
    fn default() -> Self {
        Self {
            next_file: 1,
            next_keyspace: 1,
            last_sequence: 0,
            log_floor: 0,
            log_synced: (0, 0),
            logs: BTreeMap::new(),
            forget_logs: 0,
            keyspaces: BTreeMap::new(),
            names: Arc::default(),
        }
    }
}

impl State {
    /// Applies an edit, or says how it contradicts the state.
    pub(crate) fn apply(&mut self, edit: &Edit) -> Result<(), String> {
        match edit {
            Edit::NextFile(number) => self.use_number(number.saturating_sub(1))?,
            Edit::NextKeyspace(id) => self.next_keyspace = self.next_keyspace.max(*id),
            Edit::LastSequence(sequence) => self.use_sequence(*sequence)?,
            Edit::AddLog { number, salt } => {
                self.use_number(*number)?;
                if self.logs.insert(*number, *salt).is_some() {
                    return Err(format!("log segment {number} is added twice"));
                }
            }
            Edit::LogFloor(floor) => {
                self.log_floor = self.log_floor.max(*floor);
                self.logs = self.logs.split_off(floor);
                if self.log_synced.0 < self.log_floor {
                    self.log_synced = (0, 0);
                }
                if self.forget_logs < self.log_floor {
                    self.forget_logs = 0;
                }
            }
            Edit::ForgetLogs(segment) => {
                if *segment >= self.log_floor {
                    self.forget_logs = self.forget_logs.max(*segment);
                }
            }
            Edit::LogSynced { segment, position } => {
                if *segment >= self.log_floor && *position > self.log_synced.1 {
                    self.log_synced = (*segment, *position);
                }
            }
            Edit::CreateKeyspace { id, name, options } => self.create(*id, name, options)?,
            Edit::AlterKeyspace { id, options } => self.keyspace(*id)?.options = options.clone(),
            Edit::DropKeyspace { id } => {
                let dropped = self.keyspaces.remove(id).ok_or_else(|| unknown(*id))?;
                Arc::make_mut(&mut self.names).remove(&dropped.name);
            }
            Edit::FlushedThrough { keyspace, sequence } => {
                self.use_sequence(*sequence)?;
                let keyspace = self.keyspace(*keyspace)?;
                keyspace.flushed_through = keyspace.flushed_through.max(*sequence);
            }
            Edit::AddTable {
                keyspace,
                level,
                run,
                meta,
            } => {
                if *level >= LEVELS_MAX {
                    return Err(format!("table {} in level {level}", meta.number));
                }
                if *run > RUN_NUMBER_MAX {
                    return Err(format!("run number {run} is over {RUN_NUMBER_MAX}"));
                }
                self.use_number(meta.number)?;
                self.use_sequence(meta.sequence_max)?;
                let place = TablePlace {
                    level: *level,
                    run: *run,
                    meta: Arc::clone(meta),
                };
                if self
                    .keyspace(*keyspace)?
                    .tables
                    .insert(meta.number, place)
                    .is_some()
                {
                    return Err(format!("table {} is added twice", meta.number));
                }
            }
            Edit::RemoveTable {
                keyspace,
                level,
                number,
            } => {
                let removed = self.keyspace(*keyspace)?.tables.remove(number);
                if removed.is_none_or(|place| place.level != *level) {
                    return Err(format!(
                        "table {number} is removed from level {level}, where it is not"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Edits that state everything.
    pub(crate) fn statement(&self) -> Vec<Edit> {
        let mut edits = vec![
            Edit::NextFile(self.next_file),
            Edit::NextKeyspace(self.next_keyspace),
            Edit::LastSequence(self.last_sequence),
            Edit::LogFloor(self.log_floor),
        ];
        let add = |(&number, &salt)| Edit::AddLog { number, salt };
        edits.extend(self.logs.iter().map(add));
        if self.forget_logs != 0 {
            edits.push(Edit::ForgetLogs(self.forget_logs));
        }
        if self.log_synced.0 != 0 {
            let (segment, position) = self.log_synced;
            edits.push(Edit::LogSynced { segment, position });
        }
        for (&id, keyspace) in &self.keyspaces {
            let (name, options) = (keyspace.name.clone(), keyspace.options.clone());
            edits.push(Edit::CreateKeyspace { id, name, options });
            let sequence = keyspace.flushed_through;
            edits.push(Edit::FlushedThrough {
                keyspace: id,
                sequence,
            });
            edits.extend(keyspace.tables.values().map(|place| Edit::AddTable {
                keyspace: id,
                level: place.level,
                run: place.run,
                meta: Arc::clone(&place.meta),
            }));
        }
        edits
    }

    fn create(&mut self, id: u32, name: &str, options: &KeyspaceOptions) -> Result<(), String> {
        if self.keyspaces.len() == KEYSPACES_MAX {
            return Err(format!("more than {KEYSPACES_MAX} keyspaces"));
        }
        if !Arc::make_mut(&mut self.names).insert(name.to_owned()) {
            return Err(format!(
                "keyspace {id} is created with a name that is taken"
            ));
        }
        let keyspace = KeyspaceState {
            name: name.to_owned(),
            options: options.clone(),
            flushed_through: 0,
            tables: BTreeMap::new(),
        };
        if self.keyspaces.insert(id, Arc::new(keyspace)).is_some() {
            return Err(format!("keyspace {id} is created twice"));
        }
        let next = id.checked_add(1).ok_or("the last keyspace id is used up")?;
        self.next_keyspace = self.next_keyspace.max(next);
        Ok(())
    }

    fn keyspace(&mut self, id: u32) -> Result<&mut KeyspaceState, String> {
        self.keyspaces
            .get_mut(&id)
            .map(Arc::make_mut)
            .ok_or_else(|| unknown(id))
    }

    /// Notes that a sequence number was given out.
    fn use_sequence(&mut self, sequence: SequenceNumber) -> Result<(), String> {
        if sequence > SEQUENCE_MAX {
            return Err(format!("sequence number {sequence} is over {SEQUENCE_MAX}"));
        }
        self.last_sequence = self.last_sequence.max(sequence);
        Ok(())
    }

    /// Notes that a file number was given out.
    pub(super) fn use_number(&mut self, number: u64) -> Result<(), String> {
        if number > FILE_NUMBER_MAX {
            return Err(format!("file number {number} is over {FILE_NUMBER_MAX}"));
        }
        self.next_file = self.next_file.max(number + 1);
        Ok(())
    }
}

fn unknown(id: u32) -> String {
    format!("keyspace {id} does not exist")
}
