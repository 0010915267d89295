//! Errors on demand: which operation fails, how, and from when on nothing works any more.

use std::io;
use std::path::Path;

/// An error that the file system is told to give.
///
/// ```
/// use std::io;
/// use vault_core::vfs::{Fault, FaultKind, FileSystem, MemoryFileSystem, OperationClass};
///
/// let file_system = MemoryFileSystem::new();
/// let full = FaultKind::Error(io::ErrorKind::StorageFull);
/// file_system.inject(Fault::new(OperationClass::Create, full).after(1).on_path(".log"));
/// assert!(file_system.create("/1.log".as_ref()).is_ok());
/// assert!(file_system.create("/1.table".as_ref()).is_ok());
/// assert!(file_system.create("/2.log".as_ref()).is_err());
/// assert!(file_system.create("/2.log".as_ref()).is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// How many matching operations succeed before; 0 fails the next one.
    pub after: u64,
    /// Which operations match.
    pub class: OperationClass,
    /// How they fail.
    pub kind: FaultKind,
    /// Whether all matching operations fail from then on, rather than one.
    pub sticky: bool,
    /// Only operations on paths that contain this. A file goes by the path it was opened under.
    pub path: Option<String>,
}

impl Fault {
    /// Fails the next operation of a class, once.
    #[must_use]
    pub const fn new(class: OperationClass, kind: FaultKind) -> Self {
        Self {
            after: 0,
            class,
            kind,
            sticky: false,
            path: None,
        }
    }

    /// Lets this many matching operations succeed before.
    #[must_use]
    pub const fn after(mut self, operations: u64) -> Self {
        self.after = operations;
        self
    }

    /// Fails all matching operations from then on.
    #[must_use]
    pub const fn sticky(mut self) -> Self {
        self.sticky = true;
        self
    }

    /// Matches only paths that contain this.
    #[must_use]
    pub fn on_path(mut self, part: impl Into<String>) -> Self {
        self.path = Some(part.into());
        self
    }

    fn matches(&self, class: OperationClass, paths: &[&Path]) -> bool {
        let class_matches = match self.kind {
            // Only what moves bytes can stop in the middle.
            FaultKind::ShortRead => class == OperationClass::Read,
            FaultKind::ShortWrite => class == OperationClass::Write,
            FaultKind::Error(_) | FaultKind::Errno(_) => true,
        };
        class_matches
            && (self.class == OperationClass::Any || self.class == class)
            && self.path.as_ref().is_none_or(|part| {
                paths
                    .iter()
                    .any(|path| path.to_string_lossy().contains(part.as_str()))
            })
    }
}

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// With this kind of error, and no effect. A sync that fails loses what was to be synced.
    Error(io::ErrorKind),
    /// With this error number of the operating system, and no effect.
    Errno(i32),
    /// Half of the bytes are written, then [`io::ErrorKind::WriteZero`] is given. Matches writes.
    ShortWrite,
    /// Half of the bytes are read, as if the file ended there. Matches reads.
    ShortRead,
}

/// What an operation does, for choosing which fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationClass {
    /// All.
    Any,
    /// Opening an existing file.
    Open,
    /// Reading from a file.
    Read,
    /// Writing to a file or into a map, and changing the length of a file.
    Write,
    /// Syncing a file.
    Sync,
    /// Creating a file or directories.
    Create,
    /// Renaming.
    Rename,
    /// Removing a file or directory.
    Remove,
    /// Giving a second name.
    Link,
    /// Syncing a directory.
    SyncDir,
    /// Reserving space.
    Allocate,
    /// Mapping a file.
    Map,
    /// Listing a directory.
    List,
    /// Asking for the length of a file, or what a path leads to.
    Metadata,
    /// Taking a lock.
    Lock,
}

/// What an operation is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All.
    Proceed,
    /// Half.
    Short,
}

/// The errors to come, and the count of operations they go by.
#[derive(Debug, Default)]
pub(super) struct Faults {
    operations: u64,
    hit: u64,
    crash_point: Option<u64>,
    pending: Vec<Fault>,
}

impl Faults {
    pub(super) fn operations(&self) -> u64 {
        self.operations
    }

    pub(super) fn hit(&self) -> u64 {
        self.hit
    }

    pub(super) fn set_crash_point(&mut self, operations: Option<u64>) {
        self.crash_point = operations;
    }

    /// Whether the state is frozen.
    pub(super) fn crashed(&self) -> bool {
        self.crash_point.is_some_and(|at| self.operations > at)
    }

    pub(super) fn inject(&mut self, fault: Fault) {
        self.pending.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.pending.clear();
    }

    /// Counts an operation and says whether it may be done.
    pub(super) fn check(&mut self, class: OperationClass, paths: &[&Path]) -> io::Result<Verdict> {
        self.operations += 1;
        if self.crashed() {
            return Err(io::Error::other("simulated crash"));
        }
        let mut fired = None;
        self.pending.retain_mut(|fault| {
            if !fault.matches(class, paths) {
                return true;
            }
            if fault.after > 0 {
                fault.after -= 1;
                return true;
            }
            if fired.is_some() {
                // One error at a time: this one is for the next operation.
                return true;
            }
            fired = Some(fault.kind);
            fault.sticky
        });
        self.hit += u64::from(fired.is_some());
        match fired {
            None => Ok(Verdict::Proceed),
            Some(FaultKind::Error(kind)) => Err(io::Error::new(kind, "injected error")),
            Some(FaultKind::Errno(number)) => Err(io::Error::from_raw_os_error(number)),
            Some(FaultKind::ShortRead | FaultKind::ShortWrite) => Ok(Verdict::Short),
        }
    }
}
