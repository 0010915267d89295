//! Which plans are wanted, the kinds of their operations, and how often each happens.

/// Which plans are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wanted {
    /// Those of plain and of encrypted stores, about half and half.
    #[default]
    Either,
    /// Those of plain stores.
    Plain,
    /// Those of encrypted stores.
    Encrypted,
}

/// The kinds of operations with how often they happen in a plan of even temper.
pub(super) const WEIGHTS: [(Kind, u64); 37] = [
    (Kind::Write, 400),
    (Kind::TryWrite, 20),
    (Kind::CompareAndSet, 40),
    (Kind::Ingest, 20),
    (Kind::Misuse, 6),
    (Kind::Sync, 25),
    (Kind::Flush, 40),
    (Kind::Compact, 20),
    (Kind::Background, 110),
    (Kind::CreateKeyspace, 14),
    (Kind::DropKeyspace, 7),
    (Kind::Get, 30),
    (Kind::MultiGet, 15),
    (Kind::Scan, 40),
    (Kind::TakeSnapshot, 20),
    (Kind::ReadSnapshot, 25),
    (Kind::DropSnapshot, 15),
    (Kind::OpenCursor, 20),
    (Kind::MoveCursor, 35),
    (Kind::CloseCursor, 10),
    (Kind::Checkpoint, 7),
    (Kind::OpenCheckpoint, 5),
    (Kind::OpenReadOnly, 8),
    (Kind::Reopen, 12),
    (Kind::ReopenWith, 6),
    (Kind::Rotate, 9),
    (Kind::FinishRotation, 7),
    (Kind::ChangeSecret, 8),
    (Kind::Lock, 10),
    (Kind::BackUp, 8),
    (Kind::PutBack, 8),
    (Kind::Crash, 30),
    (Kind::Inject, 25),
    (Kind::ClearFaults, 8),
    (Kind::LimitDisk, 8),
    (Kind::Clock, 25),
    (Kind::CheckAll, 6),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Write,
    TryWrite,
    CompareAndSet,
    Ingest,
    Misuse,
    Sync,
    Flush,
    Compact,
    Background,
    CreateKeyspace,
    DropKeyspace,
    Get,
    MultiGet,
    Scan,
    TakeSnapshot,
    ReadSnapshot,
    DropSnapshot,
    OpenCursor,
    MoveCursor,
    CloseCursor,
    Checkpoint,
    OpenCheckpoint,
    OpenReadOnly,
    Reopen,
    ReopenWith,
    Rotate,
    FinishRotation,
    ChangeSecret,
    Lock,
    BackUp,
    PutBack,
    Crash,
    Inject,
    ClearFaults,
    LimitDisk,
    Clock,
    CheckAll,
}

impl Kind {
    /// Whether it needs keys.
    pub(super) const fn is_of_keys(self) -> bool {
        matches!(
            self,
            Self::Rotate | Self::FinishRotation | Self::ChangeSecret | Self::Lock
        )
    }
}
