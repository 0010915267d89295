//! Operations in the form in which an engine takes them.

use std::ops::Bound;

use vault_core::merge::COUNTER;
use vault_core::{KeyRange, KeyspaceId, KeyspaceOptions, Timestamp, WriteBatch};

use super::{Change, Key, Range, Slot, Value};

impl Range {
    /// As the engine takes it.
    #[must_use]
    pub fn keys(self) -> KeyRange {
        match self {
            Self::All => KeyRange::all(),
            Self::Between(from, to) => KeyRange {
                start: Bound::Included(from.bytes()),
                end: Bound::Excluded(to.bytes()),
            },
            Self::Behind(from, to) => KeyRange {
                start: Bound::Excluded(from.bytes()),
                end: Bound::Included(to.bytes()),
            },
            Self::From(from) => KeyRange {
                start: Bound::Included(from.bytes()),
                end: Bound::Unbounded,
            },
            Self::Before(to) => KeyRange {
                start: Bound::Unbounded,
                end: Bound::Excluded(to.bytes()),
            },
            Self::Prefix(key, bytes) => KeyRange::prefix(&key.prefix(bytes)),
        }
    }
}

impl Value {
    /// The bytes of the value as a keyspace with these options takes it.
    #[must_use]
    pub fn for_keyspace(self, options: &KeyspaceOptions) -> Vec<u8> {
        if options.merge_operator.as_deref() == Some(COUNTER) {
            return self.counter();
        }
        self.bytes()
    }
}

impl Change {
    /// The slot of the keyspace that it changes.
    #[must_use]
    pub const fn slot(&self) -> Slot {
        match self {
            Self::Put { slot, .. }
            | Self::Delete { slot, .. }
            | Self::DeleteRange { slot, .. }
            | Self::DeletePrefix { slot, .. }
            | Self::Merge { slot, .. } => *slot,
        }
    }

    fn add_to(
        &self,
        batch: &mut WriteBatch,
        ks: KeyspaceId,
        options: &KeyspaceOptions,
        now: Timestamp,
    ) {
        let until =
            |ttl: &u64| Timestamp(now.0.saturating_add((*ttl).max(1)).min(Timestamp::MAX.0));
        match self {
            Self::Put {
                key, value, ttl_ms, ..
            } => {
                let (key, value) = (key.bytes(), value.for_keyspace(options));
                match ttl_ms {
                    Some(ttl) => batch.put_until(ks, &key, &value, until(ttl)),
                    None => batch.put(ks, &key, &value),
                }
            }
            Self::Merge {
                key, value, ttl_ms, ..
            } => {
                let merges = options.merge_operator.is_some();
                let (key, value) = (key.bytes(), value.for_keyspace(options));
                match ttl_ms {
                    Some(ttl) if merges => batch.merge_until(ks, &key, &value, until(ttl)),
                    None if merges => batch.merge(ks, &key, &value),
                    _ => batch.put(ks, &key, &value),
                }
            }
            Self::Delete { key, .. } => batch.delete(ks, &key.bytes()),
            Self::DeleteRange { from, to, .. } => {
                let (from, to) = (from.bytes(), to.bytes());
                let (start, end) = (from.clone().min(to.clone()), from.max(to));
                batch.delete_range(ks, &start, &end)
            }
            Self::DeletePrefix { key, bytes, .. } => batch.delete_prefix(ks, &key.prefix(*bytes)),
        };
    }
}

/// The batch of these changes, at this time. Changes to slots without a keyspace are left out.
pub fn batch<'a>(
    changes: &[Change],
    now: Timestamp,
    keyspace: &dyn Fn(Slot) -> Option<(u32, &'a KeyspaceOptions)>,
) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for change in changes {
        if let Some((id, options)) = keyspace(change.slot()) {
            change.add_to(&mut batch, KeyspaceId(id), options, now);
        }
    }
    batch
}

/// The pairs of an ingest, in order, each key once.
#[must_use]
pub fn ingest_pairs(
    first: Key,
    step: u8,
    count: u8,
    value: Value,
    options: &KeyspaceOptions,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let numbers = (first.0..=u8::MAX).step_by(usize::from(step).max(1));
    let mut pairs: Vec<_> = numbers
        .zip(0..u32::from(count))
        .map(|(key, n)| {
            let stamp = value.stamp.wrapping_add(n);
            (
                Key(key).bytes(),
                Value { stamp, ..value }.for_keyspace(options),
            )
        })
        .collect();
    pairs.sort();
    pairs
}
