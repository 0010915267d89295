//! What the edits of a manifest add up to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vault_core::limits::KEYSPACES_MAX;
use vault_core::transform::{FileKind, Salt};
use vault_core::{KeyspaceOptions, SequenceNumber};

use super::Edit;
use crate::blob::{BlobMeta, BlobUse};
use crate::internal_key::SEQUENCE_MAX;
use crate::table::TableMeta;

/// The id of an instance.
pub(crate) type InstanceId = [u8; 16];

/// Which instance of a store the files are: of those that began as the same store, each is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Instance {
    /// Nothing is known: the store is being made, or was written by a Vault that knew no instances.
    #[default]
    Unknown,
    /// A copy of this instance that nobody has opened for writing yet; zeros where it is not known of which.
    CopyOf(InstanceId),
    /// One that was opened for writing.
    Own(InstanceId),
}

impl Instance {
    /// The id of an instance that was opened for writing.
    pub(crate) const fn id(self) -> Option<InstanceId> {
        match self {
            Self::Own(id) => Some(id),
            Self::Unknown | Self::CopyOf(_) => None,
        }
    }

    /// What a copy of it is.
    pub(crate) const fn copied(self) -> Self {
        match self {
            Self::Own(id) | Self::CopyOf(id) => Self::CopyOf(id),
            Self::Unknown => Self::CopyOf([0; 16]),
        }
    }
}

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
    pub(crate) instance: Instance,
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
    /// Its blob files by number.
    pub(crate) blobs: BTreeMap<u64, BlobPlace>,
}

/// A blob file, and who needs it.
#[derive(Debug, Clone)]
pub(crate) struct BlobPlace {
    pub(crate) meta: Arc<BlobMeta>,
    /// Tables that point into it.
    pub(crate) tables: u64,
}

impl BlobPlace {
    /// A file that no table points into yet.
    pub(crate) const fn new(meta: Arc<BlobMeta>) -> Self {
        Self { meta, tables: 0 }
    }
}

impl KeyspaceState {
    /// Adds a table, or says how that contradicts the state.
    pub(crate) fn add_table(&mut self, place: TablePlace) -> Result<(), String> {
        let meta = Arc::clone(&place.meta);
        if self.tables.insert(meta.number, place).is_some() {
            return Err(format!("table {} is added twice", meta.number));
        }
        for BlobUse { file, .. } in &meta.blobs {
            let Some(blob) = self.blobs.get_mut(file) else {
                let number = meta.number;
                return Err(format!(
                    "table {number} points into blob file {file}, which is not there"
                ));
            };
            blob.tables += 1;
        }
        Ok(())
    }

    /// Takes a table out, if it is there.
    pub(crate) fn remove_table(&mut self, number: u64) -> Option<TablePlace> {
        let removed = self.tables.remove(&number)?;
        for BlobUse { file, .. } in &removed.meta.blobs {
            if let Some(blob) = self.blobs.get_mut(file) {
                blob.tables -= 1;
            }
        }
        Some(removed)
    }
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
            instance: Instance::Unknown,
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
            Edit::Instance(instance) => {
                if self.instance != Instance::Unknown {
                    return Err("the instance is stated twice".to_owned());
                }
                self.instance = *instance;
            }
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
                self.keyspace(*keyspace)?.add_table(place)?;
            }
            Edit::AddBlob { keyspace, meta } => {
                let number = meta.number;
                self.use_number(number)?;
                let blobs = &mut self.keyspace(*keyspace)?.blobs;
                let place = BlobPlace::new(Arc::clone(meta));
                if blobs.insert(number, place).is_some() {
                    return Err(format!("blob file {number} is added twice"));
                }
            }
            Edit::RemoveBlob { keyspace, number } => {
                let removed = self.keyspace(*keyspace)?.blobs.remove(number);
                let place = removed
                    .ok_or_else(|| format!("blob file {number} is removed, and is not there"))?;
                if place.tables > 0 {
                    let tables = place.tables;
                    return Err(format!(
                        "blob file {number} is removed, and {tables} tables point into it"
                    ));
                }
            }
            Edit::RemoveTable {
                keyspace,
                level,
                number,
            } => {
                let removed = self.keyspace(*keyspace)?.remove_table(*number);
                if removed.is_none_or(|place| place.level != *level) {
                    return Err(format!(
                        "table {number} is removed from level {level}, where it is not"
                    ));
                }
            }
        }
        Ok(())
    }

    /// The tables and blob files of all keyspaces.
    pub(crate) fn files(&self) -> impl Iterator<Item = (FileKind, u64)> {
        self.keyspaces.values().flat_map(|keyspace| {
            let tables = keyspace.tables.keys().map(|&n| (FileKind::Table, n));
            let blobs = keyspace.blobs.keys().map(|&n| (FileKind::Blob, n));
            tables.chain(blobs)
        })
    }

    /// Edits that state everything.
    pub(crate) fn statement(&self) -> Vec<Edit> {
        let mut edits = vec![
            Edit::NextFile(self.next_file),
            Edit::NextKeyspace(self.next_keyspace),
            Edit::LastSequence(self.last_sequence),
            Edit::LogFloor(self.log_floor),
        ];
        if self.instance != Instance::Unknown {
            edits.push(Edit::Instance(self.instance));
        }
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
            edits.extend(keyspace.blobs.values().map(|place| Edit::AddBlob {
                keyspace: id,
                meta: Arc::clone(&place.meta),
            }));
            edits.extend(keyspace.tables.values().map(|place| Edit::AddTable {
                keyspace: id,
                level: place.level,
                run: place.run,
                meta: Arc::clone(&place.meta),
            }));
        }
        edits
    }

    /// The blob files of a keyspace into which no table points any more once these edits of it are applied.
    pub(crate) fn blobs_left_by(&self, id: u32, edits: &[Edit]) -> Vec<u64> {
        let Some(keyspace) = self.keyspaces.get(&id) else {
            return Vec::new();
        };
        let mut change: BTreeMap<u64, i64> = BTreeMap::new();
        let mut count = |meta: &TableMeta, by: i64| {
            for BlobUse { file, .. } in &meta.blobs {
                *change.entry(*file).or_default() += by;
            }
        };
        for edit in edits {
            match edit {
                Edit::AddTable { meta, .. } => count(meta, 1),
                Edit::RemoveTable { number, .. } => {
                    let place = keyspace.tables.get(number);
                    place.into_iter().for_each(|place| count(&place.meta, -1));
                }
                _ => {}
            }
        }
        let left = change.into_iter().filter(|(number, by)| {
            let place = keyspace.blobs.get(number);
            place.is_some_and(|place| place.tables.checked_add_signed(*by) == Some(0))
        });
        left.map(|(number, _)| number).collect()
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
            blobs: BTreeMap::new(),
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
