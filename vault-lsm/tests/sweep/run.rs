//! Running a workload, keeping account of what was promised, and checking what a reopened store holds.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use vault_core::vfs::MemoryFileSystem;
use vault_core::{
    Engine, Error, KeyRange, KeyspaceId, KeyspaceInfo, Result, Snapshot, WriteOptions,
};
use vault_lsm::Lsm;

use super::{Change, Model, Step, batch, contents, contents_of, keyspace_options, open, options};

/// What a run came to.
pub(crate) struct Account {
    /// What the store held after each commit, the empty store first. The last one may be a commit that
    /// failed with its outcome unknown.
    pub(crate) states: Vec<Model>,
    /// By commit: the step that made it.
    commits: Vec<Step>,
    /// This state is acknowledged, at whatever durability.
    pub(crate) acknowledged: usize,
    /// This state must survive a loss of power.
    pub(crate) durable: usize,
    /// What was durable when the last commit began.
    pub(crate) durable_before_last: usize,
    /// Keyspaces whose creation was acknowledged and whose dropping was not begun.
    pub(crate) created: BTreeSet<String>,
    /// Keyspaces that may be there.
    pub(crate) possible: BTreeSet<String>,
    pub(crate) store: Option<Lsm>,
    /// Checkpoints by their directory, with the state that each was made of, and whether it was acknowledged.
    copies: Vec<(&'static str, Model, bool)>,
    /// A snapshot, with the state that it was taken of.
    held: Option<(Arc<dyn Snapshot>, Vec<KeyspaceInfo>, Model)>,
}

impl Account {
    pub(crate) fn new() -> Self {
        Self {
            states: vec![Model::new()],
            commits: Vec::new(),
            acknowledged: 0,
            durable: 0,
            durable_before_last: 0,
            created: BTreeSet::new(),
            possible: BTreeSet::new(),
            store: None,
            copies: Vec::new(),
            held: None,
        }
    }

    pub(crate) fn state(&self) -> &Model {
        &self.states[self.acknowledged]
    }

    /// Takes the snapshot that a step asks for.
    fn hold(&mut self, store: &Lsm) {
        if let (Ok(snapshot), Ok(keyspaces)) = (store.snapshot(), store.keyspaces()) {
            self.held = Some((snapshot, keyspaces, self.state().clone()));
        }
    }

    /// Checks that the snapshot still shows what it was taken of, whatever was written, dropped, flushed
    /// and merged since. A reading that fails says nothing.
    fn check_held(&self) {
        if let Some((snapshot, keyspaces, model)) = &self.held
            && let Ok(found) = contents_of(&**snapshot, keyspaces)
        {
            assert!(found == *model, "a snapshot changed under its reader");
        }
    }

    /// Notes that a step begins: from now on its change may be found.
    pub(crate) fn begin(&mut self, step: &Step) {
        if matches!(step, Step::Reopen) {
            self.check_held();
            self.held = None;
        }
        self.states.truncate(self.acknowledged + 1);
        self.commits.truncate(self.acknowledged);
        if let Some(next) = step.apply(self.state()) {
            self.durable_before_last = self.durable;
            self.states.push(next);
            self.commits.push(step.clone());
        }
        match step {
            Step::Create(name) => {
                self.possible.insert((*name).to_owned());
            }
            Step::Drop(name) => {
                self.created.remove(*name);
            }
            Step::Checkpoint(path) => {
                let state = self.state().clone();
                self.copies.push((*path, state, false));
            }
            _ => {}
        }
    }

    /// Notes that a step succeeded.
    pub(crate) fn end(&mut self, store: &Lsm, step: &Step) {
        self.acknowledged = self.states.len() - 1;
        if let (Step::Checkpoint(_), Some((_, _, complete))) = (step, self.copies.last_mut()) {
            *complete = true;
        }
        match step {
            Step::Hold => self.hold(store),
            Step::Compact(_) => self.check_held(),
            Step::Create(name) => {
                self.created.insert((*name).to_owned());
            }
            Step::Drop(name) => {
                self.possible.remove(*name);
                self.durable = self.acknowledged;
            }
            Step::Write { sync: false, .. } | Step::Background(_) => {}
            Step::Flush(Some(name)) => {
                // What it flushed, and with it, being a prefix, all before.
                let last = self.commits.iter().rposition(|step| step.touches(name));
                self.durable = self.durable.max(last.map_or(0, |at| at + 1));
            }
            Step::Write { sync: true, .. }
            | Step::Sync
            | Step::Flush(None)
            | Step::Ingest(..)
            | Step::Checkpoint(_)
            | Step::Reopen => self.durable = self.acknowledged,
        }
    }

    /// Notes that a step failed without effect.
    pub(crate) fn refused(&mut self, step: &Step) {
        self.states.truncate(self.acknowledged + 1);
        self.commits.truncate(self.acknowledged);
        match step {
            Step::Create(name) if !self.state().contains_key(*name) => {
                self.possible.remove(*name);
            }
            Step::Drop(name) => {
                self.created.insert((*name).to_owned());
            }
            _ => {}
        }
    }

    /// Checks that `found` is one of the states from `least` on. Gives which.
    ///
    /// A keyspace comes into being at once and durably, whatever becomes of writes before it that were not
    /// synced: an empty one may be there early.
    pub(crate) fn check(&self, found: &Model, least: usize, context: &str) -> usize {
        for name in &self.created {
            assert!(
                found.contains_key(name),
                "{context}: keyspace {name} is gone"
            );
        }
        for name in found.keys() {
            assert!(
                self.possible.contains(name),
                "{context}: keyspace {name} is back"
            );
        }
        let seen = filled(found);
        let at = (0..self.states.len())
            .rev()
            .find(|&at| filled(&self.states[at]) == seen);
        match at {
            Some(at) if at >= least => at,
            Some(at) => panic!("{context}: state {at} was recovered, {least} was promised"),
            None => panic!(
                "{context}: what was recovered never was\n{}",
                self.closest(found)
            ),
        }
    }

    /// Checks that each checkpoint opens with what it was made of. One that was interrupted may be refused, but
    /// shows nothing else either.
    fn check_copies(&self, fs: &MemoryFileSystem, context: &str) {
        for (path, model, complete) in &self.copies {
            let found = Lsm::open_read_only(path, &options(fs)).and_then(|copy| contents(&copy));
            match found {
                Ok(found) => assert!(found == *model, "{context}: {path} is not as it was made"),
                Err(error) => assert!(!complete, "{context}: {path}: {error}"),
            }
        }
    }

    /// Checks that `found` is what was acknowledged.
    pub(crate) fn same(&self, found: &Model, context: &str) {
        let differs = || self.closest(found);
        assert!(found == self.state(), "{context}: wrong\n{}", differs());
    }

    /// Says for a failure in what the found state differs from the acknowledged one.
    fn closest(&self, found: &Model) -> String {
        let mut out = format!(
            "acknowledged {} durable {}\n",
            self.acknowledged, self.durable
        );
        for (name, entries) in found {
            let empty = std::collections::BTreeMap::new();
            let expected = self.state().get(name).unwrap_or(&empty);
            let keys: BTreeSet<_> = entries.keys().chain(expected.keys()).collect();
            for key in keys
                .into_iter()
                .filter(|key| entries.get(*key) != expected.get(*key))
            {
                let describe =
                    |value: Option<&Vec<u8>>| value.map(|v| v[..v.len().min(8)].to_vec());
                out += &format!(
                    "{name}/{}: found {:?} expected {:?}\n",
                    String::from_utf8_lossy(key),
                    describe(entries.get(key)),
                    describe(expected.get(key)),
                );
            }
        }
        out
    }
}

/// The keyspaces that are not empty.
pub(crate) fn filled(model: &Model) -> Model {
    let filled = model.iter().filter(|(_, entries)| !entries.is_empty());
    filled
        .map(|(name, entries)| (name.clone(), entries.clone()))
        .collect()
}

pub(crate) fn id(store: &Lsm, name: &str) -> Result<KeyspaceId> {
    let found = store.keyspace(name)?;
    Ok(found.expect("the workload uses keyspaces that exist"))
}

/// Carries out one step on an open store.
pub(crate) fn perform(store: &mut Lsm, fs: &MemoryFileSystem, step: &Step) -> Result<()> {
    match step {
        Step::Create(name) => store
            .create_keyspace(name, &keyspace_options(name))
            .map(drop),
        Step::Drop(name) => store.drop_keyspace(id(store, name)?),
        Step::Write { changes, sync } => {
            let options = if *sync {
                WriteOptions::SYNC
            } else {
                WriteOptions::OS
            };
            store.write(&batch(store, changes)?, &options).map(drop)
        }
        Step::Sync => store.sync(),
        Step::Flush(name) => {
            let target = name.map(|name| id(store, name)).transpose()?;
            store.flush(target)
        }
        Step::Compact(name) => {
            let all = KeyRange::new::<&[u8]>(..);
            let progress = &mut |_| ControlFlow::Continue(());
            store.compact(id(store, name)?, all, progress).map(drop)
        }
        Step::Background(times) => (0..*times).try_for_each(|_| store.background_step().map(drop)),
        Step::Ingest(name, pairs) => {
            let pairs = pairs.iter().map(|(key, value)| (key, value));
            store.ingest(id(store, name)?, pairs).map(drop)
        }
        Step::Checkpoint(path) => store.checkpoint(path).map(drop),
        // The account takes it.
        Step::Hold => Ok(()),
        Step::Reopen => {
            store.close()?;
            *store = open(fs)?;
            Ok(())
        }
    }
}

/// Runs a workload on a fresh file system until its end or the first error.
pub(crate) fn run(fs: &MemoryFileSystem, steps: &[Step]) -> (Account, Option<Error>) {
    let mut account = Account::new();
    let mut store = match open(fs) {
        Ok(store) => store,
        Err(error) => return (account, Some(error)),
    };
    for step in steps {
        account.begin(step);
        match perform(&mut store, fs, step) {
            Ok(()) => account.end(&store, step),
            Err(error) => {
                account.store = Some(store);
                return (account, Some(error));
            }
        }
    }
    account.store = Some(store);
    (account, None)
}

/// Opens what is left and checks that it is one of the states from `least` on; gives it and which.
pub(crate) fn recover(
    fs: &MemoryFileSystem,
    account: &Account,
    least: usize,
    context: &str,
) -> (Lsm, usize) {
    let store = open(fs).unwrap_or_else(|error| panic!("{context}: {error}"));
    let found = contents(&store).unwrap_or_else(|error| panic!("{context}: {error}"));
    let at = account.check(&found, least, context);
    account.check_copies(fs, context);
    (store, at)
}

/// Checks that a recovered store works: it takes writes, flushes, compacts, and further openings give
/// the same.
pub(crate) fn exercise(mut store: Lsm, fs: &MemoryFileSystem, context: &str) {
    let mut expected = contents(&store).expect("read just before");
    let mut names: Vec<&'static str> = vec!["a", "b", "c"];
    names.retain(|name| expected.contains_key(*name));
    let write = |n: u8| Step::Write {
        changes: names
            .iter()
            .map(|&name| Change::Put(name, vec![b'z', n], vec![n; 100]))
            .collect(),
        sync: n == 1,
    };
    let steps = [
        write(1),
        Step::Reopen,
        write(2),
        Step::Flush(None),
        write(3),
        Step::Background(20),
        Step::Reopen,
    ];
    for step in steps
        .into_iter()
        .chain(names.iter().map(|&name| Step::Compact(name)))
    {
        if let Some(next) = step.apply(&expected) {
            expected = next;
        }
        perform(&mut store, fs, &step).unwrap_or_else(|error| panic!("{context}, after: {error}"));
        if matches!(step, Step::Reopen) {
            let found =
                contents(&store).unwrap_or_else(|error| panic!("{context}, again: {error}"));
            assert!(
                found == expected,
                "{context}: a second opening gives something else"
            );
        }
    }
    let found = contents(&store).unwrap_or_else(|error| panic!("{context}, after: {error}"));
    assert!(found == expected, "{context}: it does not stay as it was");
}
