//! Scanning a vault inside a transaction: the moment, with the transaction's own changes laid over it.

use std::collections::VecDeque;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::ops::Bound;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use vault_core::{KeyRange, Scan, Slice};

use super::Transaction;
use crate::access::AccessVerb;
use crate::commit::NewValue;
use crate::database::VaultState;
use crate::error::{Error, Result};
use crate::key::DecodeKey;
use crate::vault::codec;

type Encoded = (Slice, Slice);

/// The entries of a range as a transaction sees them, from either end. What the transaction changes while it scans is not
/// seen by the scan.
///
/// The transaction relies on the part of the range that was given, and on all of it once it has come to an end.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// db.write(|tx| {
///     let notes = tx.vault("notes")?;
///     notes.put("a", &1)?;
///     notes.put("b", &2)?;
///     let last = notes.items::<String, i64>()?.next_back().transpose()?;
///     assert_eq!(last, Some(("b".to_owned(), 2)));
///     Ok(())
/// })?;
/// # Ok(())
/// # }
/// ```
pub struct TransactionScan<'a, K, V> {
    transaction: &'a Transaction,
    vault: Arc<VaultState>,
    scan: Scan,
    /// Looked at and not given yet, at either end.
    ahead: [Option<Encoded>; 2],
    own: VecDeque<(Vec<u8>, NewValue)>,
    range: KeyRange,
    /// Numbers of what is relied on at either end.
    relied: [Option<usize>; 2],
    given: u64,
    done: bool,
    types: PhantomData<fn() -> (K, V)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Front = 0,
    Back = 1,
}

impl<'a, K, V> TransactionScan<'a, K, V> {
    pub(super) fn encoded(
        transaction: &'a Transaction,
        vault: &Arc<VaultState>,
        range: KeyRange,
    ) -> Result<Self> {
        transaction.check()?;
        let shared = &transaction.shared;
        vault.access.begin(shared, AccessVerb::Scan, &[]).end();
        let moment = transaction.moment()?;
        let scan = match moment.snapshot.scan(vault.keyspace, range.clone()) {
            Ok(scan) => scan,
            Err(error) => {
                transaction.without_keyspace(vault, error)?;
                let nothing = KeyRange::from(&b""[..]..&b""[..]);
                let catalog = shared.keyspaces()?.catalog;
                moment.snapshot.scan(catalog, nothing)?
            }
        };
        let own = transaction.state.borrow().writes.in_range(vault.id, &range);
        Ok(Self {
            transaction,
            vault: Arc::clone(vault),
            scan,
            ahead: [None, None],
            own: own.into(),
            range,
            relied: [None, None],
            given: 0,
            done: false,
            types: PhantomData,
        })
    }

    pub(super) fn next_encoded(&mut self) -> Result<Option<Encoded>> {
        self.step(End::Front)
    }

    /// The next entry at an end, still encoded.
    fn step(&mut self, end: End) -> Result<Option<Encoded>> {
        if self.done {
            return Ok(None);
        }
        let step = self.transaction.check().and_then(|()| self.merge(end));
        match &step {
            Ok(Some((key, _))) => {
                self.rely_up_to(end, key);
                self.given += 1;
                let max = self.transaction.shared.bounds.scan_results_max;
                if self.given > max {
                    self.done = true;
                    return Err(Error::ScanTooLong { max });
                }
            }
            Ok(None) => {
                self.done = true;
                self.rely_on_all(end);
            }
            Err(_) => self.done = true,
        }
        step
    }

    /// Takes the entry that stands first at an end: the moment's, or the transaction's own.
    fn merge(&mut self, end: End) -> Result<Option<Encoded>> {
        loop {
            if self.ahead[end as usize].is_none() {
                let next = match end {
                    End::Front => self.scan.next(),
                    End::Back => self.scan.next_back(),
                };
                let next = next.transpose().map_err(|error| self.vault.told(error))?;
                // Nothing is left between the ends: what the other end has looked at is next.
                let other = 1 - end as usize;
                self.ahead[end as usize] = match next {
                    Some(next) => Some(next),
                    None => self.ahead[other].take(),
                };
            }
            let own = match end {
                End::Front => self.own.front(),
                End::Back => self.own.back(),
            };
            let theirs = self.ahead[end as usize].as_ref();
            let order = match (theirs, own) {
                (None, None) => return Ok(None),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((theirs, _)), Some((own, _))) if end == End::Front => {
                    theirs[..].cmp(own.as_slice())
                }
                (Some((theirs, _)), Some((own, _))) => own.as_slice().cmp(&theirs[..]),
            };
            if order.is_le() {
                let theirs = self.ahead[end as usize].take();
                if order.is_lt() {
                    return Ok(theirs);
                }
            }
            let own = match end {
                End::Front => self.own.pop_front(),
                End::Back => self.own.pop_back(),
            };
            let Some((key, new)) = own else { continue };
            if let Some(stored) = self.transaction.still_visible(&new) {
                return Ok(Some((Slice::from(key), stored)));
            }
        }
    }

    fn rely_up_to(&mut self, end: End, key: &[u8]) {
        let number = self.relied_at(end);
        let range = &self.range;
        self.transaction
            .change_relied_range(self.vault.id, number, |relied| match end {
                End::Front => {
                    if let Bound::Included(last) = &mut relied.end {
                        last.clear();
                        last.extend_from_slice(key);
                    } else {
                        relied.start = range.start.clone();
                        relied.end = Bound::Included(key.to_vec());
                    }
                }
                End::Back => {
                    relied.start = Bound::Included(key.to_vec());
                    relied.end = range.end.clone();
                }
            });
    }

    fn rely_on_all(&mut self, end: End) {
        let number = self.relied_at(end);
        let range = &self.range;
        self.transaction
            .change_relied_range(self.vault.id, number, |relied| *relied = range.clone());
    }

    /// The number of what is relied on at an end.
    fn relied_at(&mut self, end: End) -> usize {
        let (transaction, vault) = (self.transaction, &self.vault);
        *self.relied[end as usize].get_or_insert_with(|| transaction.rely_on_range(vault))
    }
}

impl<K: DecodeKey, V: DeserializeOwned> TransactionScan<'_, K, V> {
    fn decoded(&self, entry: Result<Option<Encoded>>) -> Option<Result<(K, V)>> {
        let entry = entry.transpose()?;
        Some(entry.and_then(|(key, stored)| {
            let value = codec::decode_value(&self.vault, &key, &stored)?;
            Ok((codec::decode_key(&self.vault, &key)?, value))
        }))
    }
}

impl<K: DecodeKey, V: DeserializeOwned> Iterator for TransactionScan<'_, K, V> {
    type Item = Result<(K, V)>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.step(End::Front);
        self.decoded(entry)
    }
}

impl<K: DecodeKey, V: DeserializeOwned> DoubleEndedIterator for TransactionScan<'_, K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let entry = self.step(End::Back);
        self.decoded(entry)
    }
}

impl<K: DecodeKey, V: DeserializeOwned> FusedIterator for TransactionScan<'_, K, V> {}
