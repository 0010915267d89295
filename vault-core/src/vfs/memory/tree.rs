//! Directories and the files in them: the entries as they are now, the entries on the medium, and the
//! journal of changes that lead from these to those.
//!
//! A directory maps names to inodes; an inode is a file or a directory and may outlive its names: while
//! it is open, and while a loss of power could bring a name back.
//!
//! # Invariants
//! - Applying the whole journal in order to the durable entries gives the present ones.
//! - `Inode::names` is the number of present entries that lead to it.
//! - `pages_used` is the sum over the files that have a name or are open.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;

use super::content::{Content, PAGE_BYTES};
use crate::vfs::EntryKind;

mod aftermath;

pub(super) type InodeId = u64;
type Entries = BTreeMap<OsString, InodeId>;

const ROOT: InodeId = 0;

/// All directories and files.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    inodes: BTreeMap<InodeId, Inode>,
    next: InodeId,
    journal: Vec<Change>,
    pages_used: u64,
    capacity_bytes: Option<u64>,
}

#[derive(Debug, Clone)]
struct Inode {
    names: u32,
    handles: u32,
    node: Node,
}

#[derive(Debug, Clone)]
enum Node {
    File(Content),
    Directory(Directory),
}

#[derive(Debug, Default, Clone)]
struct Directory {
    now: Entries,
    durable: Entries,
}

/// Entries that change together: one of them, or the two of a rename.
#[derive(Debug, Clone)]
struct Change {
    edits: Vec<Edit>,
    /// A failed sync has given up on it.
    lost: bool,
}

#[derive(Debug, Clone)]
struct Edit {
    directory: InodeId,
    name: OsString,
    target: Option<InodeId>,
    /// Whether it puts something else in the place of what was there.
    replaces: bool,
}

impl Default for Tree {
    fn default() -> Self {
        let root = Inode {
            names: 1,
            handles: 0,
            node: Node::Directory(Directory::default()),
        };
        Self {
            inodes: BTreeMap::from([(ROOT, root)]),
            next: ROOT + 1,
            journal: Vec::new(),
            pages_used: 0,
            capacity_bytes: None,
        }
    }
}

// What paths lead to.
impl Tree {
    /// What a path leads to, if anything.
    pub(super) fn lookup(&self, path: &Path) -> io::Result<InodeId> {
        let mut inode = ROOT;
        for name in components(path) {
            inode = *self.directory(inode)?.now.get(name).ok_or(Errno::NOENT)?;
        }
        Ok(inode)
    }

    /// The file that a path leads to.
    pub(super) fn lookup_file(&self, path: &Path) -> io::Result<InodeId> {
        let inode = self.lookup(path)?;
        match self.kind(inode) {
            EntryKind::Directory => Err(Errno::ISDIR.into()),
            EntryKind::File | EntryKind::Other => Ok(inode),
        }
    }

    pub(super) fn kind(&self, inode: InodeId) -> EntryKind {
        match self.inodes.get(&inode).map(|inode| &inode.node) {
            Some(Node::File(_)) => EntryKind::File,
            Some(Node::Directory(_)) => EntryKind::Directory,
            None => EntryKind::Other,
        }
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<(OsString, EntryKind)>> {
        let entries = &self.directory(self.lookup(path)?)?.now;
        Ok(entries
            .iter()
            .map(|(name, inode)| (name.clone(), self.kind(*inode)))
            .collect())
    }

    /// Every file with its path and length, in order of the paths.
    pub(super) fn files(&self) -> Vec<(PathBuf, u64)> {
        let mut files = Vec::new();
        let mut directories = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, inode)) = directories.pop() {
            let Ok(directory) = self.directory(inode) else {
                continue;
            };
            for (name, inode) in &directory.now {
                match self.inodes.get(inode).map(|inode| &inode.node) {
                    Some(Node::File(content)) => files.push((path.join(name), content.len())),
                    Some(Node::Directory(_)) => directories.push((path.join(name), *inode)),
                    None => {}
                }
            }
        }
        files.sort();
        files
    }

    fn directory(&self, inode: InodeId) -> io::Result<&Directory> {
        match self.inodes.get(&inode).map(|inode| &inode.node) {
            Some(Node::Directory(directory)) => Ok(directory),
            Some(Node::File(_)) => Err(Errno::NOTDIR.into()),
            None => Err(Errno::NOENT.into()),
        }
    }

    /// The directory that is to hold the last name of a path, and that name.
    fn parent<'a>(&self, path: &[&'a OsStr]) -> io::Result<(InodeId, &'a OsStr)> {
        let (name, above) = path.split_last().ok_or(Errno::BUSY)?;
        let mut inode = ROOT;
        for name in above {
            let entries = &self.directory(inode)?.now;
            inode = *entries.get(*name).ok_or(Errno::NOENT)?;
        }
        self.directory(inode)?;
        Ok((inode, name))
    }

    fn entry(&self, directory: InodeId, name: &OsStr) -> Option<InodeId> {
        self.directory(directory).ok()?.now.get(name).copied()
    }
}

// Changing entries.
impl Tree {
    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<InodeId> {
        let (parent, name) = self.parent(&components(path))?;
        if self.entry(parent, name).is_some() {
            return Err(Errno::EXIST.into());
        }
        let inode = self.add_inode(Node::File(Content::default()));
        self.change([edit(parent, name, Some(inode))]);
        Ok(inode)
    }

    pub(super) fn create_directory(&mut self, path: &Path) -> io::Result<()> {
        let (parent, name) = self.parent(&components(path))?;
        if self.entry(parent, name).is_some() {
            return Err(Errno::EXIST.into());
        }
        let inode = self.add_inode(Node::Directory(Directory::default()));
        self.change([edit(parent, name, Some(inode))]);
        Ok(())
    }

    pub(super) fn create_directories(&mut self, path: &Path) -> io::Result<()> {
        let mut parent = ROOT;
        for name in components(path) {
            self.directory(parent)?;
            parent = self.entry(parent, name).unwrap_or_else(|| {
                let inode = self.add_inode(Node::Directory(Directory::default()));
                self.change([edit(parent, name, Some(inode))]);
                inode
            });
        }
        match self.directory(parent) {
            Ok(_) => Ok(()),
            Err(_) => Err(Errno::EXIST.into()),
        }
    }

    pub(super) fn link(&mut self, existing: &Path, link: &Path) -> io::Result<()> {
        let inode = self.lookup(existing)?;
        let (parent, name) = self.parent(&components(link))?;
        if self.entry(parent, name).is_some() {
            return Err(Errno::EXIST.into());
        }
        if self.kind(inode) == EntryKind::Directory {
            return Err(Errno::PERM.into());
        }
        self.change([edit(parent, name, Some(inode))]);
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path, kind: EntryKind) -> io::Result<()> {
        let (parent, name) = self.parent(&components(path))?;
        let inode = self.entry(parent, name).ok_or(Errno::NOENT)?;
        match (kind, self.directory(inode)) {
            (EntryKind::Directory, Ok(directory)) if !directory.now.is_empty() => {
                return Err(Errno::NOTEMPTY.into());
            }
            (EntryKind::Directory, Err(_)) => return Err(Errno::NOTDIR.into()),
            (EntryKind::File, Ok(_)) => return Err(Errno::ISDIR.into()),
            _ => {}
        }
        self.change([edit(parent, name, None)]);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (components(from), components(to));
        let (from_parent, from_name) = self.parent(&from)?;
        let (to_parent, to_name) = self.parent(&to)?;
        let inode = self.entry(from_parent, from_name).ok_or(Errno::NOENT)?;
        if to.len() > from.len() && to.starts_with(&from) {
            return Err(Errno::INVAL.into());
        }
        if from.len() > to.len() && from.starts_with(&to) {
            return Err(Errno::NOTEMPTY.into());
        }
        let replaced = self.entry(to_parent, to_name);
        if replaced == Some(inode) {
            // Two names of one file: nothing happens, both stay.
            return Ok(());
        }
        if let Some(replaced) = replaced {
            match (self.directory(inode), self.directory(replaced)) {
                (Ok(_), Err(_)) => return Err(Errno::NOTDIR.into()),
                (Err(_), Ok(_)) => return Err(Errno::ISDIR.into()),
                (Ok(_), Ok(old)) if !old.now.is_empty() => return Err(Errno::NOTEMPTY.into()),
                _ => {}
            }
        }
        let arrival = Edit {
            replaces: replaced.is_some(),
            ..edit(to_parent, to_name, Some(inode))
        };
        self.change([edit(from_parent, from_name, None), arrival]);
        Ok(())
    }

    fn add_inode(&mut self, node: Node) -> InodeId {
        let id = self.next;
        self.next += 1;
        let inode = Inode {
            names: 0,
            handles: 0,
            node,
        };
        self.inodes.insert(id, inode);
        id
    }

    /// Changes present entries, all at once, and notes it in the journal.
    fn change(&mut self, edits: impl Into<Vec<Edit>>) {
        let edits = edits.into();
        let mut nameless = Vec::new();
        for edit in &edits {
            if let Some(inode) = edit.target.and_then(|id| self.inodes.get_mut(&id)) {
                inode.names += 1;
            }
            let Some(directory) = directory_mut(&mut self.inodes, edit.directory) else {
                continue;
            };
            let old = apply(&mut directory.now, edit);
            if let Some((id, inode)) = old.and_then(|id| Some((id, self.inodes.get_mut(&id)?))) {
                inode.names -= 1;
                nameless.push(id);
            }
        }
        self.journal.push(Change { edits, lost: false });
        for inode in nameless {
            self.give_back_space(inode);
        }
    }

    /// A file that lost its last name or handle takes no space any more.
    fn give_back_space(&mut self, id: InodeId) {
        if let Some(Inode {
            names: 0,
            handles: 0,
            node: Node::File(content),
        }) = self.inodes.get(&id)
        {
            self.pages_used -= content.pages_used();
        }
    }
}

// Making entries durable.
impl Tree {
    pub(super) fn sync_directory(&mut self, path: &Path) -> io::Result<()> {
        let directory = self.lookup(path)?;
        self.directory(directory)?;
        self.commit(|edit| edit.directory == directory);
        self.forget_unreachable();
        Ok(())
    }

    /// What a failed sync of a directory does: see [`Content::lose`].
    pub(super) fn lose_directory(&mut self, path: &Path) {
        let Ok(directory) = self.lookup(path) else {
            return;
        };
        for change in &mut self.journal {
            change.lost |= change.edits.iter().any(|edit| edit.directory == directory);
        }
    }

    /// Makes the changes durable that touch certain entries, and those that they rest on: what
    /// happened before under the same names.
    fn commit(&mut self, wanted: impl Fn(&Edit) -> bool) {
        let mut committed: Vec<Change> = Vec::new();
        let mut names: BTreeSet<(InodeId, OsString)> = BTreeSet::new();
        let mut left = Vec::new();
        for change in std::mem::take(&mut self.journal).into_iter().rev() {
            let key = |edit: &Edit| (edit.directory, edit.name.clone());
            let asked_for = !change.lost && change.edits.iter().any(&wanted);
            if asked_for || change.edits.iter().any(|edit| names.contains(&key(edit))) {
                names.extend(change.edits.iter().map(key));
                committed.push(change);
            } else {
                left.push(change);
            }
        }
        left.reverse();
        self.journal = left;
        for edit in committed.iter().rev().flat_map(|change| &change.edits) {
            if let Some(directory) = directory_mut(&mut self.inodes, edit.directory) {
                apply(&mut directory.durable, edit);
            }
        }
    }

    /// Drops the inodes that are not open, have no name, and cannot get one back.
    fn forget_unreachable(&mut self) {
        loop {
            let is_orphan = |inode: &Inode| inode.names == 0 && inode.handles == 0;
            if !self.inodes.values().any(is_orphan) {
                return;
            }
            let mut named: BTreeSet<InodeId> = BTreeSet::new();
            for inode in self.inodes.values() {
                if let Node::Directory(directory) = &inode.node {
                    named.extend(directory.durable.values());
                }
            }
            let edits = self.journal.iter().flat_map(|change| &change.edits);
            named.extend(edits.filter_map(|edit| edit.target));
            let before = self.inodes.len();
            self.inodes
                .retain(|id, inode| !is_orphan(inode) || named.contains(id));
            if self.inodes.len() == before {
                return;
            }
            // Changes within directories that are gone have nothing to change.
            let inodes = &self.inodes;
            self.journal.retain(|change| {
                let mut edits = change.edits.iter();
                edits.any(|edit| inodes.contains_key(&edit.directory))
            });
        }
    }
}

// Files.
impl Tree {
    /// The bytes of a file. Absent only where the caller holds no handle.
    pub(super) fn content(&self, inode: InodeId) -> io::Result<&Content> {
        match self.inodes.get(&inode).map(|inode| &inode.node) {
            Some(Node::File(content)) => Ok(content),
            _ => Err(Errno::BADF.into()),
        }
    }

    /// Changes the bytes of a file and keeps count of the space. `change` is told how many pages are
    /// free.
    pub(super) fn change_content<T>(
        &mut self,
        inode: InodeId,
        change: impl FnOnce(&mut Content, u64) -> T,
    ) -> io::Result<T> {
        let free = self.capacity_bytes.map_or(u64::MAX, |bytes| {
            (bytes / PAGE_BYTES as u64).saturating_sub(self.pages_used)
        });
        match self.inodes.get_mut(&inode).map(|inode| &mut inode.node) {
            Some(Node::File(content)) => {
                let before = content.pages_used();
                let outcome = change(content, free);
                self.pages_used = self.pages_used - before + content.pages_used();
                Ok(outcome)
            }
            _ => Err(Errno::BADF.into()),
        }
    }

    /// Replaces the bytes of a file, or creates it, all durable at once.
    pub(super) fn put_durable(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let inode = match self.lookup_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.create_file(path)?,
            found => found?,
        };
        self.change_content(inode, |content, _| *content = Content::durable_from(bytes))?;
        let mut parent = ROOT;
        for name in components(path) {
            self.commit(|edit| edit.directory == parent && edit.name == name);
            parent = self.entry(parent, name).ok_or(Errno::NOENT)?;
        }
        Ok(())
    }

    pub(super) fn set_capacity(&mut self, bytes: Option<u64>) {
        self.capacity_bytes = bytes;
    }

    pub(super) fn bytes_used(&self) -> u64 {
        self.pages_used * PAGE_BYTES as u64
    }

    /// Notes that a file is open once more.
    pub(super) fn hold(&mut self, inode: InodeId) {
        if let Some(inode) = self.inodes.get_mut(&inode) {
            inode.handles += 1;
        }
    }

    /// Notes that a file is open once less.
    pub(super) fn release(&mut self, id: InodeId) {
        let Some(inode) = self.inodes.get_mut(&id) else {
            return;
        };
        inode.handles -= 1;
        if inode.names == 0 && inode.handles == 0 {
            self.give_back_space(id);
            self.forget_unreachable();
        }
    }
}

// Counting.
impl Tree {
    #[cfg(test)]
    pub(super) fn inodes(&self) -> usize {
        self.inodes.len()
    }

    fn count_space(&mut self) {
        let used = |inode: &Inode| match &inode.node {
            Node::File(content) if inode.names > 0 || inode.handles > 0 => content.pages_used(),
            _ => 0,
        };
        self.pages_used = self.inodes.values().map(used).sum();
    }
}

fn directory_mut(inodes: &mut BTreeMap<InodeId, Inode>, id: InodeId) -> Option<&mut Directory> {
    match inodes.get_mut(&id).map(|inode| &mut inode.node) {
        Some(Node::Directory(directory)) => Some(directory),
        _ => None,
    }
}

fn edit(directory: InodeId, name: &OsStr, target: Option<InodeId>) -> Edit {
    Edit {
        directory,
        name: name.to_owned(),
        target,
        replaces: false,
    }
}

/// Changes an entry; gives what it led to before.
fn apply(entries: &mut Entries, edit: &Edit) -> Option<InodeId> {
    match edit.target {
        Some(inode) => entries.insert(edit.name.clone(), inode),
        None => entries.remove(&edit.name),
    }
}

/// The names along a path from the root, which is also the current directory. There are no symbolic
/// links, so `..` can be resolved by the text.
fn components(path: &Path) -> Vec<&OsStr> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::ParentDir => {
                names.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    names
}
