//! What is left of the directories and files after the process or the power has gone.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use super::{Change, Directory, Entries, Inode, InodeId, Node, ROOT, Tree, apply};
use crate::vfs::memory::CrashChoice;

impl Tree {
    /// As the end of the process leaves it: nothing is open.
    pub(in crate::vfs::memory) fn killed(&self) -> Self {
        let mut tree = self.clone();
        for inode in tree.inodes.values_mut() {
            inode.handles = 0;
        }
        tree.forget_unreachable();
        tree.count_space();
        tree
    }

    /// As a loss of power could leave it. All that is left is durable.
    pub(in crate::vfs::memory) fn crashed(&self, choice: &CrashChoice) -> Self {
        let mut directories: BTreeMap<InodeId, Entries> = BTreeMap::new();
        for (id, inode) in &self.inodes {
            if let Node::Directory(directory) = &inode.node {
                directories.insert(*id, directory.durable.clone());
            }
        }
        for change in self.surviving_changes(choice) {
            for edit in &change.edits {
                if let Some(entries) = directories.get_mut(&edit.directory) {
                    apply(entries, edit);
                }
            }
        }
        // What no path leads to is gone. The root is its own name.
        let mut names: BTreeMap<InodeId, u32> = BTreeMap::from([(ROOT, 1)]);
        let mut unvisited = vec![ROOT];
        while let Some(id) = unvisited.pop() {
            for target in directories.get(&id).into_iter().flat_map(Entries::values) {
                let count = names.entry(*target).or_default();
                *count += 1;
                if *count == 1 {
                    unvisited.push(*target);
                }
            }
        }
        let survivor = |(id, names): (&InodeId, &u32)| {
            let node = match (&self.inodes.get(id)?.node, directories.get(id)) {
                (Node::File(content), _) => Node::File(content.crashed(choice)),
                (Node::Directory(_), entries) => Node::Directory(Directory {
                    now: entries?.clone(),
                    durable: entries?.clone(),
                }),
            };
            let inode = Inode {
                names: *names,
                handles: 0,
                node,
            };
            Some((*id, inode))
        };
        let mut tree = Self {
            inodes: names.iter().filter_map(survivor).collect(),
            next: self.next,
            journal: Vec::new(),
            pages_used: 0,
            capacity_bytes: self.capacity_bytes,
        };
        tree.count_space();
        tree
    }

    /// The changes of the journal that the medium has got, by choice, each for itself. Only those that
    /// make no sense without an earlier one draw it along: what is removed or renamed must have come
    /// there, and what is created or linked must have found the name free.
    fn surviving_changes(&self, choice: &CrashChoice) -> Vec<&Change> {
        let mut kept: Vec<bool> = self.journal.iter().map(|_| choice.keeps()).collect();
        let mut last: BTreeMap<(InodeId, &OsStr), usize> = BTreeMap::new();
        let mut rests_on: Vec<Vec<usize>> = Vec::with_capacity(kept.len());
        for (index, change) in self.journal.iter().enumerate() {
            let mut earlier = Vec::new();
            for edit in &change.edits {
                let before = last.insert((edit.directory, edit.name.as_os_str()), index);
                earlier.extend(before.filter(|_| !edit.replaces));
            }
            rests_on.push(earlier);
        }
        for later in (0..kept.len()).rev() {
            if kept[later] {
                for earlier in &rests_on[later] {
                    kept[*earlier] = true;
                }
            }
        }
        let survivors = self.journal.iter().zip(kept);
        survivors
            .filter_map(|(change, kept)| kept.then_some(change))
            .collect()
    }
}
