//! What a simulation does, as plain data: options, and a list of operations.
//!
//! A plan comes from a seed ([`Plan::from_seed`]), from a fuzzer's bytes (feature `arbitrary`), or is written
//! down by hand in a test. Whatever numbers stand in it, it can be carried out: keyspaces and keys are
//! taken modulo what there is, and operations on what is not there are passed over. So an operation can be
//! taken out of a plan without making the others mean something else, which is what shrinking needs;
//! that is also why values carry their own stamp instead of taking one from their place.

mod bytes;
mod choose;
mod engine;
mod kind;
mod source;

use std::fmt;

use vault_core::vfs::{CrashPolicy, FaultKind, OperationClass};
use vault_core::{Durability, KeyspaceOptions};
use vault_crypto::Algorithm;
use vault_lsm::Settings;

pub use bytes::CANARY;
pub use engine::{batch, ingest_pairs};
pub use kind::Wanted;
pub use source::{Dice, Source};

/// Keyspaces that a plan can have at once.
pub const SLOTS: u8 = 4;

/// Everything that a simulation does.
#[derive(Clone, PartialEq, Eq)]
pub struct Plan {
    /// Where the engine's own randomness (store ids, salts) comes from.
    pub engine_seed: u64,
    /// The cipher of the store; `None`: it is plain.
    pub cipher: Option<Algorithm>,
    /// The settings that the store is opened with at first.
    pub settings: Settings,
    /// The keyspaces that are there from the start, by slot; at most [`SLOTS`].
    pub keyspaces: Vec<KeyspaceOptions>,
    /// What happens.
    pub operations: Vec<Operation>,
}

/// Names a keyspace by its place; taken modulo [`SLOTS`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Slot(pub u8);

/// A key, by its number. The lowest ones are odd: empty, at both ends of the key space, long.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(pub u8);

/// A value, told from all others by its stamp.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Value {
    /// What it says.
    pub stamp: u32,
    /// How long it is, in bytes. A counter's operand is always eight bytes.
    pub bytes: u16,
    /// Whether it consists of noise, which doesn't compress.
    pub noise: bool,
}

/// One change, part of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Sets a key, for ever or for so many milliseconds.
    Put {
        /// Where.
        slot: Slot,
        /// The key.
        key: Key,
        /// The value.
        value: Value,
        /// The time to live, in milliseconds.
        ttl_ms: Option<u64>,
    },
    /// Removes a key.
    Delete {
        /// Where.
        slot: Slot,
        /// The key.
        key: Key,
    },
    /// Removes the keys between two, the greater one excluded.
    DeleteRange {
        /// Where.
        slot: Slot,
        /// One end.
        from: Key,
        /// The other.
        to: Key,
    },
    /// Removes the keys that begin as this one does.
    DeletePrefix {
        /// Where.
        slot: Slot,
        /// A key.
        key: Key,
        /// How many bytes of it.
        bytes: u8,
    },
    /// Merges an operand; a put where the keyspace has no operator.
    Merge {
        /// Where.
        slot: Slot,
        /// The key.
        key: Key,
        /// The operand.
        value: Value,
        /// The time to live, in milliseconds.
        ttl_ms: Option<u64>,
    },
}

/// A range of keys; reads may have it the wrong way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// All there is.
    All,
    /// Between two keys, the second excluded.
    Between(Key, Key),
    /// Between two keys, the first excluded and the second not.
    Behind(Key, Key),
    /// From a key on.
    From(Key),
    /// Before a key.
    Before(Key),
    /// All keys that begin with so many bytes of this one.
    Prefix(Key, u8),
}

/// What a compare-and-set expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expectation {
    /// What is there.
    Current,
    /// Nothing.
    Absent,
    /// This.
    Value(Value),
}

/// A write that has to be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misuse {
    /// A range delete that ends before it starts.
    InvertedRange,
    /// A key that is longer than any may be.
    LongKey,
    /// An expiry that has come already.
    PastExpiry,
    /// A keyspace that is not there.
    UnknownKeyspace,
    /// Ingest of pairs that are not in order.
    UnsortedIngest,
}

/// A move of an open cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// To the first entry.
    First,
    /// To the last entry.
    Last,
    /// To the first entry at or behind a key.
    Seek(Key),
    /// To the last entry at or before a key.
    SeekBack(Key),
    /// To the next entry.
    Next,
    /// To the entry before.
    Prev,
    /// To a second cursor of the same moment.
    Fork,
}

/// How the process or the machine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The process ends. What it wrote is in the page cache.
    Kill,
    /// The power goes. Each unsynced piece stays with this probability.
    PowerLoss {
        /// In percent: 0 none, 100 all.
        keep_percent: u8,
        /// Says which.
        seed: u32,
    },
}

impl Ending {
    /// The policy of a loss of power; `None` where the process alone ends.
    #[must_use]
    pub const fn policy(self) -> Option<CrashPolicy> {
        match self {
            Self::Kill => None,
            Self::PowerLoss { keep_percent, .. } => Some(match keep_percent {
                0 => CrashPolicy::DropUnsynced,
                percent @ 1..100 => CrashPolicy::Random { percent },
                _ => CrashPolicy::KeepUnsynced,
            }),
        }
    }
}

/// An end that comes while the store is being opened after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interruption {
    /// File operations that opening gets to make.
    pub after: u16,
    /// How it ends.
    pub how: Ending,
}

/// What the file system gets wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    /// An input/output error (EIO).
    Io,
    /// No space (ENOSPC).
    NoSpace,
    /// Too many open files (EMFILE).
    TooManyFiles,
    /// Half of a write.
    ShortWrite,
    /// Half of a read.
    ShortRead,
    /// The two names of a link lie on different file systems (EXDEV).
    OtherDevice,
    /// Files cannot be mapped (EOPNOTSUPP).
    NoMapping,
}

impl Mishap {
    /// As the file system takes it.
    #[must_use]
    pub const fn kind(self) -> FaultKind {
        match self {
            Self::Io => FaultKind::Errno(5),
            Self::NoSpace => FaultKind::Errno(28),
            Self::TooManyFiles => FaultKind::Errno(24),
            Self::ShortWrite => FaultKind::ShortWrite,
            Self::ShortRead => FaultKind::ShortRead,
            Self::OtherDevice => FaultKind::Errno(18),
            Self::NoMapping => FaultKind::Errno(95),
        }
    }
}

/// A file system that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trouble {
    /// How.
    pub mishap: Mishap,
    /// In which operations.
    pub class: OperationClass,
    /// On files of this kind: `.log`, `.tab`, `.blob`, `.man`; all where empty.
    pub files: &'static str,
    /// After so many of these that succeed.
    pub after: u16,
    /// Whether it goes on, or happens once.
    pub persists: bool,
    /// It is over after so many operations of the plan.
    pub lasts: u8,
}

/// How the clock moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockMove {
    /// On by milliseconds.
    Forward(u64),
    /// Back by milliseconds.
    Back(u64),
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Writes a batch.
    Write {
        /// What it changes.
        changes: Vec<Change>,
        /// What must have happened before it returns; `None`: the store's default.
        durability: Option<Durability>,
    },
    /// Writes a batch if that needs no waiting.
    TryWrite {
        /// What it changes.
        changes: Vec<Change>,
    },
    /// Replaces a value if it is as expected.
    CompareAndSet {
        /// Where.
        slot: Slot,
        /// The key.
        key: Key,
        /// What it has to be.
        expected: Expectation,
        /// What it becomes; `None`: absent.
        new: Option<Value>,
        /// Whether it has to be durable.
        sync: bool,
    },
    /// Takes in sorted pairs: every `step`th key from `first` on.
    Ingest {
        /// Where.
        slot: Slot,
        /// The first key.
        first: Key,
        /// Keys between two.
        step: u8,
        /// How many.
        count: u8,
        /// The first value; the others have the stamps behind it.
        value: Value,
    },
    /// Tries something that has to be refused with nothing changed.
    Misuse(Misuse),
    /// Makes everything durable.
    Sync,
    /// Flushes one keyspace, or all.
    Flush(Option<Slot>),
    /// Compacts a range.
    Compact {
        /// Where.
        slot: Slot,
        /// What.
        range: Range,
        /// Stops it when it has reported progress so often.
        cancel_after: Option<u8>,
    },
    /// Runs steps of background work.
    Background(u8),
    /// Creates a keyspace, or alters one, with these options (kind of policy and operator of an existing
    /// one stay as they are).
    CreateKeyspace(Slot, KeyspaceOptions),
    /// Drops a keyspace.
    DropKeyspace(Slot),
    /// Looks a key up.
    Get(Slot, Key),
    /// Looks keys up.
    MultiGet(Slot, Vec<Key>),
    /// Reads a range from both ends; the bits say from which end each entry is taken.
    Scan(Slot, Range, u32),
    /// Takes a snapshot.
    TakeSnapshot,
    /// Reads a snapshot.
    ReadSnapshot {
        /// Which of those that are held.
        which: u8,
        /// Where.
        slot: Slot,
        /// A key.
        key: Key,
        /// A range.
        range: Range,
    },
    /// Lets go of a snapshot.
    DropSnapshot(u8),
    /// Opens a cursor, on the newest snapshot or on the store.
    OpenCursor {
        /// Where.
        slot: Slot,
        /// Over what.
        range: Range,
        /// Whether it reads the newest snapshot.
        of_snapshot: bool,
    },
    /// Moves a cursor.
    MoveCursor(u8, Vec<Move>),
    /// Lets go of a cursor.
    CloseCursor(u8),
    /// Makes a checkpoint.
    Checkpoint,
    /// Opens a checkpoint, for reading or for writing, and compares it. One that is opened for writing is written to: from
    /// then on it goes its own way.
    OpenCheckpoint {
        /// Which.
        which: u8,
        /// Whether for writing.
        for_writing: bool,
        /// What is written to it.
        changes: Vec<Change>,
    },
    /// Opens the store for reading beside the writer, and compares.
    OpenReadOnly,
    /// Closes and opens, with other settings if given.
    Reopen(Option<Settings>),
    /// Begins a rotation of the keys.
    Rotate,
    /// Carries a rotation of the keys to its end.
    FinishRotation,
    /// Replaces the secret that opens the store: a key, or now and then a passphrase.
    ChangeSecret {
        /// Whether by a passphrase.
        passphrase: bool,
    },
    /// Wipes the keys, and unlocks the store again after some operations, all of which it has to refuse.
    Lock {
        /// Operations of the plan until then.
        lasts: u8,
    },
    /// Copies the directory while the store is closed.
    BackUp,
    /// Puts the copy of the directory back. The store has to be refused as rolled back, unless its host says that it is meant.
    PutBack {
        /// Whether the host goes on with it.
        go_on: bool,
    },
    /// The process or the machine ends, at once or in one of the following operations.
    Crash {
        /// File operations until then.
        after: u16,
        /// How.
        how: Ending,
        /// What interrupts the openings after that.
        recovery: Vec<Interruption>,
    },
    /// The file system fails.
    Inject(Trouble),
    /// All that the file system got wrong is over.
    ClearFaults,
    /// The disk has this much space left.
    LimitDisk {
        /// Bytes that are free.
        free_bytes: u32,
        /// Operations of the plan until there is space again.
        lasts: u8,
    },
    /// The clock jumps.
    Clock(ClockMove),
    /// Compares everything there is.
    CheckAll,
}

impl Operation {
    /// Whether a store that is locked refuses it. The others happen around the store, or to others beside it.
    #[must_use]
    pub const fn needs_keys(&self) -> bool {
        !matches!(
            self,
            Self::DropSnapshot(_)
                | Self::CloseCursor(_)
                | Self::OpenCheckpoint { .. }
                | Self::OpenReadOnly
                | Self::Reopen(_)
                | Self::PutBack { .. }
                | Self::Crash { .. }
                | Self::Inject(_)
                | Self::ClearFaults
                | Self::LimitDisk { .. }
                | Self::Clock(_)
        )
    }

    /// Its kind, for counting.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Write { .. } => "write",
            Self::TryWrite { .. } => "try_write",
            Self::CompareAndSet { .. } => "compare_and_set",
            Self::Ingest { .. } => "ingest",
            Self::Misuse(_) => "misuse",
            Self::Sync => "sync",
            Self::Flush(_) => "flush",
            Self::Compact { .. } => "compact",
            Self::Background(_) => "background",
            Self::CreateKeyspace(..) => "create_keyspace",
            Self::DropKeyspace(_) => "drop_keyspace",
            Self::Get(..) => "get",
            Self::MultiGet(..) => "multi_get",
            Self::Scan(..) => "scan",
            Self::TakeSnapshot => "take_snapshot",
            Self::ReadSnapshot { .. } => "read_snapshot",
            Self::DropSnapshot(_) => "drop_snapshot",
            Self::OpenCursor { .. } => "open_cursor",
            Self::MoveCursor(..) => "move_cursor",
            Self::CloseCursor(_) => "close_cursor",
            Self::Checkpoint => "checkpoint",
            Self::OpenCheckpoint { .. } => "open_checkpoint",
            Self::OpenReadOnly => "open_read_only",
            Self::Reopen(None) => "reopen",
            Self::Reopen(Some(_)) => "reopen_with",
            Self::Rotate => "rotate",
            Self::FinishRotation => "finish_rotation",
            Self::ChangeSecret { .. } => "change_secret",
            Self::Lock { .. } => "lock",
            Self::BackUp => "back_up",
            Self::PutBack { .. } => "put_back",
            Self::Crash { .. } => "crash",
            Self::Inject(_) => "inject",
            Self::ClearFaults => "clear_faults",
            Self::LimitDisk { .. } => "limit_disk",
            Self::Clock(_) => "clock",
            Self::CheckAll => "check_all",
        }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ks{}", self.index())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noise = if self.noise { "~" } else { "" };
        write!(f, "#{}×{}{noise}", self.stamp, self.bytes)
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "engine seed {}", self.engine_seed)?;
        let cipher = self.cipher.map_or("none: a plain store", Algorithm::name);
        writeln!(f, "cipher {cipher}")?;
        writeln!(f, "{:?}", self.settings)?;
        for (slot, options) in self.keyspaces.iter().enumerate() {
            writeln!(f, "ks{slot}: {options:?}")?;
        }
        for (index, operation) in self.operations.iter().enumerate() {
            writeln!(f, "{index:>5}  {operation:?}")?;
        }
        Ok(())
    }
}
