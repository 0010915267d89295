//! Copies of the directory that are put back.
//!
//! Whoever can write to the disk can bring back an older state of everything at once, and nothing in it tells. The host that
//! kept the store's generation notices.

use std::path::PathBuf;

use vault_core::vfs::{FileSystem, MemoryFileSystem, parent_of};
use vault_core::{Error, Result as CoreResult};
use vault_lsm::Lsm;

use super::Secret;
use super::canary::content;
use crate::oracle::{Oracle, Promise};
use crate::run::opening::everything;
use crate::run::{DIRECTORY, Simulation, Step};

/// A copy of the directory, with the account of what is in it.
#[derive(Clone)]
pub(super) struct BackUp {
    files: Vec<(PathBuf, Vec<u8>)>,
    oracle: Oracle,
    secret: Secret,
    copies_made: usize,
}

impl Simulation {
    /// Copies the directory while the store is closed.
    pub(in crate::run) fn back_up(&mut self) -> Step {
        self.end_troubles()?;
        if self.poisoned.is_some() {
            return Ok(());
        }
        self.close_store()?;
        self.secrecy.back_up = Some(self.state_of_directory());
        self.open_anew()
    }

    /// Whoever handles files has a disk that works.
    fn end_troubles(&mut self) -> Step {
        self.armed = None;
        self.fs.set_crash_point(None);
        self.clear_faults();
        self.space_is_back()
    }

    fn state_of_directory(&self) -> BackUp {
        let files = self.fs.list();
        let files = files.into_iter().map(|(path, _)| path);
        let files = files.filter(|path| path.starts_with(DIRECTORY));
        BackUp {
            files: files
                .map(|path| {
                    let bytes = content(&self.fs, &path);
                    (path, bytes)
                })
                .collect(),
            oracle: self.oracle.clone(),
            secret: self.secrecy.secret,
            copies_made: self.copies_made,
        }
    }

    /// Puts the copy back. The host notices; where it means to, it goes on with the copy, and otherwise it puts
    /// back what was there.
    pub(in crate::run) fn put_back(&mut self, go_on: bool) -> Step {
        let Some(back_up) = self.secrecy.back_up.clone() else {
            return Ok(());
        };
        self.end_troubles()?;
        if self.poisoned.is_some() {
            return Ok(());
        }
        self.close_store()?;
        let current = self.state_of_directory();
        self.restore(&back_up)?;
        self.secrecy.secret = back_up.secret;
        match self.open_store() {
            Err(Error::RolledBack { .. }) => {}
            other => return Err(format!("an older copy that was put back gave {other:?}")),
        }
        if self.state_of_directory().files != back_up.files {
            return Err("a store that was refused was changed".to_owned());
        }
        self.report.rollbacks_refused += 1;
        if go_on {
            self.note("rolled back on purpose");
            self.secrecy.noted = 0;
            self.oracle = back_up.oracle;
            // What was copied later is of a time that never was.
            let made = back_up.copies_made;
            self.copies.retain(|copy| copy.number <= made);
            return self.open_anew();
        }
        self.read_older(&back_up)?;
        self.restore(&current)?;
        self.secrecy.secret = current.secret;
        self.open_anew()
    }

    /// Without the generation the copy opens as what it is.
    fn read_older(&mut self, back_up: &BackUp) -> Step {
        let read = || -> CoreResult<_> {
            let store = Lsm::open_read_only(DIRECTORY, &self.options_with(back_up.secret))?;
            everything(&store)
        };
        let found = read().map_err(|error| format!("an older copy does not open: {error}"))?;
        let times = self.times();
        back_up
            .oracle
            .clone()
            .recovered(&found, Promise::Acknowledged, times)
            .map_err(|problem| format!("an older copy: {problem}"))
    }

    /// A machine on which the directory holds these files, and all else is as it was.
    fn restore(&mut self, state: &BackUp) -> Step {
        let fs = MemoryFileSystem::new();
        let others = self.fs.list().into_iter().map(|(path, _)| path);
        let others = others.filter(|path| !path.starts_with(DIRECTORY));
        let others = others.map(|path| {
            let bytes = content(&self.fs, &path);
            (path, bytes)
        });
        for (path, bytes) in others.chain(state.files.iter().cloned()) {
            let directory = parent_of(&path);
            let put = fs
                .create_dir_all(&directory)
                .and_then(|()| fs.sync_dir(&parent_of(&directory)))
                .and_then(|()| fs.write_file(&path, &bytes));
            put.map_err(|error| format!("cannot put {} back: {error}", path.display()))?;
        }
        self.take_stock();
        self.fs = fs;
        self.hits_before = 0;
        Ok(())
    }
}
