//! What the store has to answer, and what has to be left of it.
//!
//! The oracle keeps account of every commit in the order of their sequence numbers, and knows of each what
//! was promised: nothing yet, that it outlives the process (*acknowledged*), or that it outlives a loss of
//! power (*durable*). It shares no code with an engine: it keeps every version of every key for ever and
//! answers by walking through them.
//!
//! What it demands of a store that was opened after an end ([`Oracle::recovered`]):
//! - The keyspaces are those whose creation or dropping was acknowledged, with their options. One whose
//!   creation or dropping failed with the outcome unknown may be there or not.
//! - The latest sequence number is that of the last operation of some commit: batches are whole.
//! - Everything up to that commit is there, and nothing behind it: what is recovered is a prefix.
//! - All that was promised is among it.

mod compare;
mod history;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vault_core::merge::built_in;
use vault_core::{
    CompactionPolicy, KeyRange, KeyspaceOptions, MergeOperator, SequenceNumber, Timestamp,
};

use crate::journal::Journal;

pub(crate) use compare::check_answer;
pub use compare::{Entry, compare_entries, describe};
pub use history::{Answers, Effect, History, Times};

/// The id of a keyspace.
pub type Id = u32;

/// An operation of a commit, as it came to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// On one key.
    One {
        /// Where.
        keyspace: Id,
        /// The key.
        key: Vec<u8>,
        /// What happens to it.
        effect: Effect,
        /// When that reads as a delete.
        expiry: Option<Timestamp>,
    },
    /// On a range.
    RangeDelete {
        /// Where.
        keyspace: Id,
        /// The first key.
        start: Vec<u8>,
        /// Behind the last key.
        end: Vec<u8>,
    },
}

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The call succeeded; nothing is promised beyond the end of the process.
    Acknowledged,
    /// The call succeeded, and promised that this and all before is durable.
    Durable,
    /// The call failed with the outcome unknown. Readers see it.
    Visible,
    /// The call failed with the outcome unknown. Readers don't see it.
    Doubtful,
}

/// What has to be there after an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// After a loss of power: what is durable.
    Durable,
    /// After the end of the process: all that was acknowledged.
    Acknowledged,
}

#[derive(Debug, Clone)]
struct Commit {
    last: SequenceNumber,
    keyspaces: BTreeSet<Id>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Present,
    Dropped,
    /// Dropping it failed with the outcome unknown.
    InDoubt,
}

#[derive(Debug, Clone)]
struct Keyspace {
    name: String,
    /// The options in force, and behind them those that a call failed to put in force with the outcome
    /// unknown.
    options: Vec<KeyspaceOptions>,
    presence: Presence,
    history: History,
}

/// A keyspace as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundKeyspace {
    /// Its id.
    pub id: Id,
    /// Its name.
    pub name: String,
    /// Its options.
    pub options: KeyspaceOptions,
    /// All that is in it, in order.
    pub entries: Vec<Entry>,
}

/// A store as it was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// The latest sequence number.
    pub latest: SequenceNumber,
    /// Its keyspaces, in the order of their ids.
    pub keyspaces: Vec<FoundKeyspace>,
}

/// A moment to read at: what a snapshot sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// The last write it sees.
    pub sequence: SequenceNumber,
    /// The keyspaces there were.
    pub keyspaces: Vec<Id>,
}

/// The account of a store. See the [module](self).
#[derive(Debug, Clone, Default)]
pub struct Oracle {
    keyspaces: BTreeMap<Id, Keyspace>,
    /// A creation that failed with the outcome unknown.
    doubtful_creation: Option<(String, KeyspaceOptions)>,
    commits: Vec<Commit>,
    /// So many commits were acknowledged; so many are seen by readers; so many are durable.
    acknowledged: usize,
    visible: usize,
    durable: usize,
}

/// The merge operators that simulations know.
#[must_use]
pub fn operators() -> Vec<Arc<dyn MergeOperator>> {
    let mut all = built_in();
    all.push(Arc::new(Journal));
    all
}

fn history_for(options: &KeyspaceOptions) -> History {
    let name = options.merge_operator.as_deref();
    let operator = name.map(|name| {
        let mut known = operators().into_iter();
        let found = known.find(|operator| operator.name() == name);
        found.expect("plans name operators that simulations know")
    });
    History::new(operator, is_lossy(options))
}

/// Whether the policy drops data once there is more than a simulation fits in.
const fn is_lossy(options: &KeyspaceOptions) -> bool {
    matches!(options.policy, CompactionPolicy::Fifo { bytes_max } if bytes_max < u64::MAX)
}

// What the store is told to do.
impl Oracle {
    /// A keyspace was created under this id.
    ///
    /// # Errors
    /// Where the id was in use before.
    pub fn created(&mut self, id: Id, name: &str, options: &KeyspaceOptions) -> Result<(), String> {
        if let Some((&last, _)) = self.keyspaces.last_key_value()
            && id <= last
        {
            return Err(format!(
                "keyspace {name} got id {id}, and {last} has been given out already"
            ));
        }
        let keyspace = Keyspace {
            name: name.to_owned(),
            options: vec![options.clone()],
            presence: Presence::Present,
            history: history_for(options),
        };
        self.keyspaces.insert(id, keyspace);
        Ok(())
    }

    /// The creation of a keyspace failed with the outcome unknown.
    pub fn creation_in_doubt(&mut self, name: &str, options: &KeyspaceOptions) {
        self.doubtful_creation = Some((name.to_owned(), options.clone()));
    }

    /// A keyspace has other options, or, where that is in doubt, perhaps.
    pub fn altered(&mut self, id: Id, options: &KeyspaceOptions, in_doubt: bool) {
        let keyspace = self.known(id);
        if is_lossy(options) {
            keyspace.history.may_lose();
        }
        if !in_doubt {
            keyspace.options.clear();
        }
        keyspace.options.push(options.clone());
    }

    /// A keyspace was dropped. That is durable, with all before.
    pub fn dropped(&mut self, id: Id) {
        self.known(id).presence = Presence::Dropped;
        self.all_durable();
    }

    /// The dropping of a keyspace failed with the outcome unknown.
    pub fn dropping_in_doubt(&mut self, id: Id) {
        self.known(id).presence = Presence::InDoubt;
    }

    /// A commit; gives the number of its last operation. Each operation has a number of its own, but
    /// those of an ingest share one.
    pub fn commit(&mut self, operations: &[Recorded], ingest: bool, outcome: Outcome) {
        if operations.is_empty() {
            if outcome == Outcome::Durable {
                self.all_durable();
            }
            return;
        }
        let mut sequence = self.commits.last().map_or(0, |commit| commit.last);
        let mut keyspaces = BTreeSet::new();
        for (index, operation) in operations.iter().enumerate() {
            if index == 0 || !ingest {
                sequence += 1;
            }
            keyspaces.insert(self.apply(sequence, operation));
        }
        let last = sequence;
        self.commits.push(Commit { last, keyspaces });
        let all = self.commits.len();
        match outcome {
            Outcome::Acknowledged => (self.acknowledged, self.visible) = (all, all),
            Outcome::Durable => {
                (self.acknowledged, self.visible) = (all, all);
                self.all_durable();
            }
            Outcome::Visible => self.visible = all,
            Outcome::Doubtful => {}
        }
    }

    fn apply(&mut self, sequence: SequenceNumber, operation: &Recorded) -> Id {
        match operation {
            Recorded::One {
                keyspace,
                key,
                effect,
                expiry,
            } => {
                let history = &mut self.known(*keyspace).history;
                history.record(sequence, key, effect.clone(), *expiry);
                *keyspace
            }
            Recorded::RangeDelete {
                keyspace,
                start,
                end,
            } => {
                let history = &mut self.known(*keyspace).history;
                history.record_range_delete(sequence, start, end);
                *keyspace
            }
        }
    }

    /// Everything acknowledged is durable from now on.
    pub fn all_durable(&mut self) {
        self.durable = self.acknowledged;
    }

    /// Everything acknowledged up to the last commit that touched this keyspace is durable.
    pub fn flushed(&mut self, id: Id) {
        let acknowledged = &self.commits[..self.acknowledged];
        let last = acknowledged
            .iter()
            .rposition(|commit| commit.keyspaces.contains(&id));
        self.durable = self.durable.max(last.map_or(0, |at| at + 1));
    }

    fn known(&mut self, id: Id) -> &mut Keyspace {
        self.keyspaces
            .get_mut(&id)
            .expect("the oracle was told of every keyspace")
    }
}

// What readers see.
impl Oracle {
    /// The latest sequence number that readers see.
    #[must_use]
    pub fn latest(&self) -> SequenceNumber {
        self.sequence_of(self.visible)
    }

    /// The latest sequence number of all commits, those in doubt included.
    #[must_use]
    pub fn written(&self) -> SequenceNumber {
        self.sequence_of(self.commits.len())
    }

    /// The number of the last operation of the first so many commits.
    fn sequence_of(&self, commits: usize) -> SequenceNumber {
        commits
            .checked_sub(1)
            .map_or(0, |last| self.commits[last].last)
    }

    /// Commits so far, those in doubt included.
    #[must_use]
    pub const fn commits(&self) -> usize {
        self.commits.len()
    }

    /// The present moment.
    #[must_use]
    pub fn moment(&self) -> Moment {
        Moment {
            sequence: self.latest(),
            keyspaces: self.present().map(|(id, ..)| id).collect(),
        }
    }

    /// The keyspaces there are, with their names and options.
    pub fn present(&self) -> impl Iterator<Item = (Id, &str, &KeyspaceOptions)> {
        let present = self.keyspaces.iter();
        present
            .filter(|(_, keyspace)| keyspace.presence == Presence::Present)
            .map(|(&id, keyspace)| (id, &keyspace.name[..], &keyspace.options[0]))
    }

    /// The keyspace of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<(Id, &KeyspaceOptions)> {
        self.present()
            .find(|(_, of, _)| *of == name)
            .map(|(id, _, options)| (id, options))
    }

    /// Every text that the keyspaces there are brought in, their names too.
    pub fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.present().flat_map(|(id, name, _)| {
            let history = self.history(id);
            std::iter::once(name.as_bytes()).chain(history.texts())
        })
    }

    /// The history of a keyspace, dropped or not.
    ///
    /// # Panics
    /// If there never was one of this id.
    #[must_use]
    pub fn history(&self, id: Id) -> &History {
        &self
            .keyspaces
            .get(&id)
            .expect("the oracle was told of every keyspace")
            .history
    }
}

// What is left.
impl Oracle {
    /// Judges what an opening after an end has found, and goes on from there.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn recovered(
        &mut self,
        found: &Found,
        promise: Promise,
        times: Times,
    ) -> Result<(), String> {
        self.settle_keyspaces(found)?;
        let recovered = (0..=self.commits.len())
            .find(|&commits| self.sequence_of(commits) == found.latest)
            .ok_or_else(|| self.no_commit_ends_there(found))?;
        let least = match promise {
            Promise::Durable => self.durable,
            Promise::Acknowledged => self.acknowledged,
        };
        // Of commits to keyspaces that are gone nothing needs to be left.
        let lost = (recovered..least).find(|&commit| {
            let mut touched = self.commits[commit].keyspaces.iter();
            touched.any(|id| self.keyspaces[id].presence == Presence::Present)
        });
        if let Some(lost) = lost {
            return Err(format!(
                "{recovered} commits were recovered (sequence {}), {least} were promised: commit \
                 {lost} (sequence {}) is lost",
                found.latest, self.commits[lost].last
            ));
        }
        for keyspace in &found.keyspaces {
            let history = self.history(keyspace.id);
            let all = KeyRange::all();
            compare_entries(history, &all, found.latest, times, &keyspace.entries).map_err(
                |problem| {
                    format!(
                        "{} is not as {recovered} commits (sequence {}) left it: {problem}",
                        keyspace.name, found.latest
                    )
                },
            )?;
        }
        self.commits.truncate(recovered);
        for keyspace in self.keyspaces.values_mut() {
            keyspace.history.cut(found.latest);
        }
        (self.acknowledged, self.visible, self.durable) = (recovered, recovered, recovered);
        Ok(())
    }

    fn no_commit_ends_there(&self, found: &Found) -> String {
        let after = self
            .commits
            .iter()
            .position(|commit| commit.last > found.latest);
        match after {
            Some(commit) => format!(
                "the latest sequence number is {}: commit {commit}, which ends at {}, was torn",
                found.latest, self.commits[commit].last
            ),
            None => format!(
                "the latest sequence number is {}, and nothing was written after {}",
                found.latest,
                self.sequence_of(self.commits.len())
            ),
        }
    }

    /// Holds the keyspaces found against those that have to be there, and settles what was in doubt.
    fn settle_keyspaces(&mut self, found: &Found) -> Result<(), String> {
        for keyspace in &found.keyspaces {
            if self.keyspaces.contains_key(&keyspace.id) {
                continue;
            }
            match self.doubtful_creation.take() {
                Some((name, options)) if name == keyspace.name && options == keyspace.options => {
                    self.created(keyspace.id, &name, &options)?;
                }
                _ => {
                    return Err(format!(
                        "keyspace {} ({}) was never created",
                        keyspace.id, keyspace.name
                    ));
                }
            }
        }
        self.doubtful_creation = None;
        for (id, known) in &mut self.keyspaces {
            let there = found.keyspaces.iter().find(|keyspace| keyspace.id == *id);
            match (there, known.presence) {
                (None, Presence::Present) => {
                    return Err(format!("keyspace {id} ({}) is gone", known.name));
                }
                (Some(_), Presence::Dropped) => {
                    return Err(format!("keyspace {id} ({}) is back", known.name));
                }
                (None, _) => known.presence = Presence::Dropped,
                (Some(there), _) => {
                    known.presence = Presence::Present;
                    if there.name != known.name || !known.options.contains(&there.options) {
                        return Err(format!(
                            "keyspace {id} is {} with {:?}, and should be {} with {:?}",
                            there.name, there.options, known.name, known.options
                        ));
                    }
                    known.options = vec![there.options.clone()];
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
