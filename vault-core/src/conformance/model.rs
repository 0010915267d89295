//! What an engine should answer, worked out the plainest way there is.
//!
//! The model keeps every operation that was ever written, in order, and answers by walking through all
//! of them from the oldest on. It shares no code and no idea with any engine: no versions are dropped,
//! no search begins at the newest, operands are applied as they come by.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::batch::{OperationKind, WriteBatch};
use crate::clock::Timestamp;
use crate::engine::{KeyspaceId, SequenceNumber};
use crate::merge::{MergeOperator, built_in};
use crate::range::KeyRange;

/// A moment of the model: what a snapshot taken then should see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// The last write it sees.
    pub sequence: SequenceNumber,
    /// The keyspaces there were.
    pub keyspaces: Vec<KeyspaceId>,
}

/// The whole history of a store.
#[derive(Debug)]
pub struct Model {
    operators: Vec<Arc<dyn MergeOperator>>,
    keyspaces: BTreeMap<KeyspaceId, KeyspaceModel>,
    latest: SequenceNumber,
}

#[derive(Debug)]
struct KeyspaceModel {
    name: String,
    operator: Option<Arc<dyn MergeOperator>>,
    dropped: bool,
    history: Vec<Record>,
}

#[derive(Debug)]
struct Record {
    sequence: SequenceNumber,
    kind: OperationKind,
    key: Vec<u8>,
    value: Vec<u8>,
    expiry: Option<Timestamp>,
}

impl Model {
    /// An empty store that knows the built-in merge operators and these.
    #[must_use]
    pub fn new(operators: &[Arc<dyn MergeOperator>]) -> Self {
        let mut all = built_in();
        all.extend(operators.iter().cloned());
        Self {
            operators: all,
            keyspaces: BTreeMap::new(),
            latest: 0,
        }
    }

    /// Takes note of a keyspace that the engine created under this id.
    ///
    /// # Panics
    /// If the id has been in use before, or the operator is unknown.
    pub fn create_keyspace(&mut self, id: KeyspaceId, name: &str, operator: Option<&str>) {
        let find = |name| self.operators.iter().find(|known| known.name() == name);
        let operator = operator.map(|name| find(name).expect("a known operator").clone());
        let keyspace = KeyspaceModel {
            name: name.to_owned(),
            operator,
            dropped: false,
            history: Vec::new(),
        };
        let before = self.keyspaces.insert(id, keyspace);
        assert!(before.is_none(), "keyspace id {id} was given out twice");
    }

    /// Drops a keyspace. Moments from before go on seeing it.
    ///
    /// # Panics
    /// If there is none with this id.
    pub fn drop_keyspace(&mut self, id: KeyspaceId) {
        self.keyspaces
            .get_mut(&id)
            .expect("a known keyspace")
            .dropped = true;
    }

    /// Writes a batch that the engine should accept; gives the number of its last operation.
    ///
    /// # Panics
    /// If the batch names an unknown keyspace.
    pub fn write(&mut self, batch: &WriteBatch) -> SequenceNumber {
        for operation in batch {
            self.latest += 1;
            let keyspace = self.keyspaces.get_mut(&operation.keyspace);
            keyspace.expect("a known keyspace").history.push(Record {
                sequence: self.latest,
                kind: operation.kind,
                key: operation.key.to_vec(),
                value: operation.value.to_vec(),
                expiry: operation.expiry,
            });
        }
        self.latest
    }

    /// The last write.
    #[must_use]
    pub const fn latest(&self) -> SequenceNumber {
        self.latest
    }

    /// The present moment.
    #[must_use]
    pub fn moment(&self) -> Moment {
        let present = self
            .keyspaces
            .iter()
            .filter(|(_, keyspace)| !keyspace.dropped);
        Moment {
            sequence: self.latest,
            keyspaces: present.map(|(&id, _)| id).collect(),
        }
    }

    /// The keyspaces there are now, with their names, in the order of their ids.
    #[must_use]
    pub fn keyspaces(&self) -> Vec<(KeyspaceId, &str)> {
        let present = self
            .keyspaces
            .iter()
            .filter(|(_, keyspace)| !keyspace.dropped);
        present
            .map(|(&id, keyspace)| (id, &keyspace.name[..]))
            .collect()
    }

    /// The value of a key at a moment, with the clock at `now`.
    ///
    /// # Panics
    /// If the keyspace is unknown or an operator fails.
    #[must_use]
    pub fn get(
        &self,
        moment: &Moment,
        id: KeyspaceId,
        key: &[u8],
        now: Timestamp,
    ) -> Option<Vec<u8>> {
        let keyspace = &self.keyspaces[&id];
        let mut value = None;
        for record in &keyspace.history {
            if record.sequence <= moment.sequence && record.touches(key) {
                value = keyspace.after(record, key, value.as_deref(), now);
            }
        }
        value
    }

    /// The entries of a range at a moment, with the clock at `now`, in ascending order.
    ///
    /// # Panics
    /// If the keyspace is unknown or an operator fails.
    #[must_use]
    pub fn scan(
        &self,
        moment: &Moment,
        id: KeyspaceId,
        range: &KeyRange,
        now: Timestamp,
    ) -> Vec<(Vec<u8>, Vec<u8>)> {
        let keyspace = &self.keyspaces[&id];
        let mut map: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for record in &keyspace.history {
            if record.sequence > moment.sequence {
                break;
            }
            if record.kind == OperationKind::RangeDelete {
                map.retain(|key, _| !record.touches(key));
            } else if range.contains(&record.key) {
                let before = map.remove(&record.key);
                if let Some(value) = keyspace.after(record, &record.key, before.as_deref(), now) {
                    map.insert(record.key.clone(), value);
                }
            }
        }
        map.into_iter().collect()
    }

    /// The expiry that came last among those that had come by `now`: the clock may go back as far as
    /// this without anything coming alive again.
    #[must_use]
    pub fn last_expiry_before(&self, now: Timestamp) -> Option<Timestamp> {
        let histories = self
            .keyspaces
            .values()
            .flat_map(|keyspace| &keyspace.history);
        histories
            .filter_map(|record| record.expiry)
            .filter(|&expiry| expiry <= now)
            .max()
    }
}

impl KeyspaceModel {
    /// What becomes of the value of `key` through one more operation on it.
    fn after(
        &self,
        record: &Record,
        key: &[u8],
        before: Option<&[u8]>,
        now: Timestamp,
    ) -> Option<Vec<u8>> {
        if record.expiry.is_some_and(|expiry| expiry <= now) {
            return None;
        }
        match record.kind {
            OperationKind::Put => Some(record.value.clone()),
            OperationKind::Delete | OperationKind::RangeDelete => None,
            OperationKind::Merge => {
                let operator = self.operator.as_ref().expect("an operator");
                let merged = operator.merge(key, before, &[&record.value]);
                Some(merged.expect("operands and values that the operator accepts"))
            }
        }
    }
}

impl Record {
    fn touches(&self, key: &[u8]) -> bool {
        match self.kind {
            OperationKind::RangeDelete => self.key[..] <= *key && *key < self.value[..],
            _ => self.key == key,
        }
    }
}
