//! Making a copy of a store an instance of its own, when it is first opened for writing.
//!
//! The manifest says that it is a copy, or a [mark](crate::restored) beside it does. Then keys of another epoch are begun before
//! anything is sealed, and the first manifest of this opening, the one that `CURRENT` is pointed to, is sealed under them and has the
//! new instance. Until that is durable the next opening finds the copy as it was, and does the same again; an epoch that was begun in
//! vain goes with the others when all files are sealed anew.

use vault_core::{Error, Result};

use super::Opening;
use crate::manifest::{self, Instance, State};
use crate::restored::{is_marked, unmark};

impl Opening {
    /// The instance that this opening is of. Begins an epoch where it is a new one of a copy.
    pub(super) fn begin_instance(&self, read: &State) -> Result<Instance> {
        let marked = is_marked(&*self.env.fs, &self.env.directory)?;
        match read.instance {
            Instance::Own(id) if !marked => return Ok(Instance::Own(id)),
            Instance::Unknown if !marked => {}
            Instance::Own(_) | Instance::Unknown | Instance::CopyOf(_) => self.begin_epoch(read)?,
        }
        if self.replaying {
            // What is replayed is the original's: nobody has written anything of his own.
            return Ok(read.instance.copied());
        }
        let mut id = [0; 16];
        self.env.random.fill(&mut id)?;
        Ok(Instance::Own(id))
    }

    /// Takes the mark away, now that the manifest has the new instance.
    pub(super) fn forget_mark(&self) -> Result<()> {
        if is_marked(&*self.env.fs, &self.env.directory)? {
            unmark(&*self.env.fs, &self.env.directory)?;
        }
        Ok(())
    }

    fn begin_epoch(&self, read: &State) -> Result<()> {
        let Some(keys) = self.env.transform.keys() else {
            return Ok(());
        };
        let begun = match (keys.begin_epoch(), &self.pointer) {
            (Err(Error::DiskFull { .. }), Some(pointer)) => {
                self.make_room(read, pointer)?;
                keys.begin_epoch()
            }
            (begun, _) => begun,
        };
        // There is no open store yet that would have to become read-only.
        begun.map(drop).map_err(manifest::cause)
    }
}
