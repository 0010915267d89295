//! The chain that a snapshot builds on: from itself, parent by parent, to a full one.

use super::Repository;
use crate::archive::{Error, Manifest, Result, SnapshotName};

impl Repository {
    /// The names of the chain, the snapshot itself first and the full one last. Each is there, is of the same store and form,
    /// and names the same full one.
    pub(super) fn chain(&self, manifest: &Manifest) -> Result<Vec<SnapshotName>> {
        let mut names = vec![manifest.name];
        let mut next = manifest.parent;
        while let Some(name) = next {
            let child = names.last().copied().unwrap_or(name);
            let broken = |problem: String| Error::Parent {
                snapshot: child.to_string(),
                parent: name.to_string(),
                problem,
            };
            if names.len() >= self.limits.chain_max {
                return Err(Error::OverLimit {
                    what: format!("snapshots in the chain of {}", manifest.name),
                    found: names.len() as u64 + 1,
                    max: self.limits.chain_max as u64,
                    setting: "chain_max",
                });
            }
            let parent = match self.load(name) {
                Ok(loaded) => loaded.manifest,
                Err(Error::NoSuchSnapshot { .. }) => {
                    return Err(broken(
                        "it is missing; put it back, or take another snapshot".into(),
                    ));
                }
                Err(error) => return Err(error),
            };
            if parent.store != manifest.store {
                return Err(broken(format!("it is of store {}", parent.store)));
            }
            if parent.form != manifest.form || parent.chain_root != manifest.chain_root {
                return Err(broken("it is of another chain".into()));
            }
            // Names descend, which a manifest checks of itself: the walk ends.
            names.push(name);
            next = parent.parent;
        }
        if names.last() != Some(&manifest.chain_root) {
            return Err(Error::Parent {
                snapshot: manifest.name.to_string(),
                parent: manifest.chain_root.to_string(),
                problem: "the chain does not lead there".into(),
            });
        }
        Ok(names)
    }

    /// Holds what a snapshot says of an archive of its chain against what that archive's manifest says.
    pub(super) fn check_references(&self, manifest: &Manifest, holder: &Manifest) -> Result<()> {
        let held = manifest.entries.iter().filter(|e| e.holder == holder.name);
        for entry in held {
            if holder.entry(&entry.path) != Some(entry) {
                return Err(Error::Parent {
                    snapshot: manifest.name.to_string(),
                    parent: holder.name.to_string(),
                    problem: format!("it does not hold {:?} as it was", entry.path),
                });
            }
        }
        Ok(())
    }
}
