//! What can go wrong in the data layer, sorted by what the caller can do about it.

use std::sync::Arc;
use std::time::Duration;

use vault_core::ErrorKind;

/// The result of an operation of the data layer.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// fn count(db: &vault_db::Database) -> vault_db::Result<u64> {
///     db.vault("notes")?.len()
/// }
/// assert_eq!(count(&vault_db::Database::temp()?)?, 0);
/// # Ok(())
/// # }
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a [`Database`](crate::Database), a [`Vault`](crate::Vault) or a
/// [`Transaction`](crate::Transaction).
///
/// Messages say what was wrong and what to do next; [`Error::kind`] reduces them to what a program can decide.
/// Whatever the error, nothing of the call that gave it was written, unless its description says otherwise.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// use vault_db::{Error, ErrorKind};
/// let vault = db.vault("users")?;
/// vault.put("alice", "admin")?;
/// let error = vault.get::<i64>("alice").unwrap_err();
/// assert!(matches!(error, Error::TypeMismatch { found: "a string", .. }));
/// assert_eq!(error.kind(), ErrorKind::Input);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The storage engine says no.
    #[error(transparent)]
    Engine(#[from] vault_core::Error),
    /// No vault has this name, and it was to exist.
    #[error("there is no vault {name:?}; create it with `Database::vault`, or correct the name")]
    NoSuchVault {
        /// The name that was asked for.
        name: String,
    },
    /// A vault has this name already, and it was not to exist.
    #[error("there is a vault {name:?} already; choose another name, or delete that one first")]
    VaultExists {
        /// The name that was asked for.
        name: String,
    },
    /// The vault behind this handle was deleted.
    #[error(
        "vault {name:?} was deleted; ask the database for a vault of that name to begin a new one"
    )]
    VaultDeleted {
        /// The vault's last name.
        name: String,
    },
    /// A vault of another database was handed to this one.
    #[error(
        "vault {name:?} belongs to another database than this; use the handle that this database gives"
    )]
    ForeignVault {
        /// The vault's name.
        name: String,
    },
    /// This cannot name a vault.
    #[error(
        "{name:?} cannot name a vault: {problem}; use 1 to {max} bytes of letters, digits, space and _ - + @ # ~"
    )]
    InvalidVaultName {
        /// The name as it was given (cut after 64 characters).
        name: String,
        /// What is wrong with it.
        problem: &'static str,
        /// Longest name in bytes.
        max: usize,
    },
    /// No tenant has this name, or it was dropped.
    #[error(
        "there is no tenant {name:?}; create it with `Database::create_tenant`, or correct the name"
    )]
    NoSuchTenant {
        /// The name that was asked for.
        name: String,
    },
    /// A tenant has this name already.
    #[error("there is a tenant {name:?} already; choose another name")]
    TenantExists {
        /// The name that was asked for.
        name: String,
    },
    /// A tenant has as much as it may.
    #[error(
        "tenant {tenant:?} would have more than {max} {what}, its quota; remove some, or raise the quota"
    )]
    OverQuota {
        /// The tenant.
        tenant: String,
        /// Of what: vaults, keys or bytes.
        what: &'static str,
        /// How much it may have.
        max: u64,
    },
    /// No principal has this name.
    #[error(
        "there is no principal {name:?}; create it with `AccessControl::create_principal`, or correct the name"
    )]
    NoSuchPrincipal {
        /// The name that was asked for.
        name: String,
    },
    /// A principal has this name already.
    #[error("there is a principal {name:?} already; choose another name, or remove that one first")]
    PrincipalExists {
        /// The name that was asked for.
        name: String,
    },
    /// No role has this name.
    #[error(
        "there is no role {name:?}; set it with `AccessControl::set_role`, or correct the name"
    )]
    NoSuchRole {
        /// The name that was asked for.
        name: String,
    },
    /// This is no pattern of vault names.
    #[error(
        "{pattern:?} is no pattern of vault names: {problem}; use `*` for any characters and `?` for one"
    )]
    InvalidPattern {
        /// The pattern as it was given (cut after 64 characters).
        pattern: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The name or the secret is wrong, or the principal may not come in.
    #[error(
        "this name and secret do not let anybody in; correct them, or ask whoever manages access"
    )]
    BadCredentials,
    /// So many others are coming in that this one would wait for long. Nothing was checked.
    #[error("more than {max} secrets are being checked at once; try again in some seconds")]
    TooManyLogIns {
        /// How many may be checked or wait for it.
        max: usize,
    },
    /// The token lets nobody in.
    #[error("this token lets nobody in: {problem}; ask for another one")]
    InvalidToken {
        /// Why.
        problem: &'static str,
    },
    /// The principal may not do this.
    #[error(
        "{principal:?} may not {permission} in vault {vault:?}; ask whoever manages access for a role that allows it"
    )]
    Denied {
        /// Who asked.
        principal: String,
        /// What it would have needed.
        permission: &'static str,
        /// The vault.
        vault: String,
    },
    /// As many vaults exist as may.
    #[error(
        "there are {max} vaults already, the most that `bounds.vaults_max` allows; delete some, or raise it"
    )]
    TooManyVaults {
        /// Most vaults.
        max: u64,
    },
    /// A vault has as many keys as it may.
    #[error(
        "vault {vault:?} has {max} keys already, the most that `bounds.keys_per_vault_max` allows; remove some, or raise it"
    )]
    VaultFull {
        /// The vault.
        vault: String,
        /// Most keys.
        max: u64,
    },
    /// A key is longer than it may be.
    #[error(
        "key of {len} bytes is over the {max} that `bounds.key_bytes_max` allows; shorten it, or raise the bound"
    )]
    KeyTooLong {
        /// Length of the encoded key in bytes.
        len: usize,
        /// Longest key in bytes.
        max: usize,
    },
    /// A value is longer than it may be.
    #[error(
        "value of {len} bytes is over the {max} that `bounds.value_bytes_max` allows; split it, or raise the bound"
    )]
    ValueTooLong {
        /// Length of the encoded value in bytes.
        len: usize,
        /// Longest value in bytes.
        max: usize,
    },
    /// What is to be known of a vault is longer than it may be.
    #[error(
        "{what} of a vault with {len} {unit} is over the {max} that are allowed; shorten it, or put it into an entry"
    )]
    MetadataTooLong {
        /// Which part: its description, its owner, a tag, or the list of tags.
        what: &'static str,
        /// How long it is.
        len: usize,
        /// In what: bytes, or tags.
        unit: &'static str,
        /// How long it may be.
        max: usize,
    },
    /// A scan gave as many entries as it may, and there are more.
    #[error(
        "the scan reached {max} entries, the most that `bounds.scan_results_max` allows, and there are more; \
         narrow the range or go on from the last key, or raise the bound"
    )]
    ScanTooLong {
        /// Most entries.
        max: u64,
    },
    /// A value, or a part of it, cannot be encoded.
    #[error("a {type_name} cannot be stored: {problem}")]
    NotEncodable {
        /// The Rust type of the value.
        type_name: &'static str,
        /// What serde says.
        problem: String,
    },
    /// A key cannot be encoded.
    #[error("this cannot be a key: {problem}")]
    InvalidKey {
        /// What is wrong with it and what is accepted.
        problem: String,
    },
    /// A key is there, but not of the type that was asked for.
    #[error(
        "a key of vault {vault:?} is {found}, not {expected}: {key}; read it as `Key`, or as the type it has"
    )]
    KeyMismatch {
        /// The vault.
        vault: String,
        /// The key, for printing.
        key: String,
        /// The type that was asked for.
        expected: &'static str,
        /// What the key is.
        found: &'static str,
    },
    /// A value is there, but not of the type that was asked for.
    #[error(
        "the value of {key} in vault {vault:?} is {found}, which does not read as {expected}: {problem}; \
         read it as `Value`, or as the type it was written with"
    )]
    TypeMismatch {
        /// The vault.
        vault: String,
        /// The key, for printing.
        key: String,
        /// The Rust type that was asked for.
        expected: &'static str,
        /// What is stored: null, a boolean, an integer, a float, a string, bytes, a list, a map, or raw bytes.
        found: &'static str,
        /// What serde says.
        problem: String,
    },
    /// Bytes that the data layer wrote do not decode.
    #[error("{what} is malformed: {problem}; run verify, then restore a copy")]
    Malformed {
        /// What it was to be.
        what: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// A counter left the range of 64-bit integers.
    #[error(
        "adding {by} to {key} in vault {vault:?}, which is {from}, leaves the range of 64-bit integers"
    )]
    CounterOverflow {
        /// The vault.
        vault: String,
        /// The key, for printing.
        key: String,
        /// What it was.
        from: i64,
        /// What was to be added.
        by: i64,
    },
    /// Others kept changing what the transaction had read.
    #[error(
        "gave up after {attempts} attempts in {elapsed:?}: others kept changing what this transaction read; \
         try again later, read less, or raise `TransactionOptions::attempts_max`"
    )]
    Conflict {
        /// Attempts made.
        attempts: u32,
        /// How long they took together.
        elapsed: Duration,
    },
    /// The closure of a transaction gave up, by [`Transaction::abort`](crate::Transaction::abort).
    #[error("the transaction was given up: {reason}")]
    Aborted {
        /// What the closure said.
        reason: String,
    },
    /// The transaction was committed, rolled back or ended by an error before.
    #[error("the transaction has ended ({how}); begin a new one")]
    TransactionEnded {
        /// How it ended.
        how: &'static str,
    },
    /// The transaction has been open for longer than it may.
    #[error(
        "the transaction was open for longer than {max:?}, and was rolled back; \
         do less in one, or raise `TransactionOptions::duration_max`"
    )]
    TransactionTooLong {
        /// How long it may be open.
        max: Duration,
    },
    /// The transaction wants to write more than fits.
    #[error("the transaction holds {bytes} bytes of changes, and {max} may be; write in several")]
    TransactionTooLarge {
        /// Bytes of changes.
        bytes: usize,
        /// Most bytes.
        max: usize,
    },
    /// A transaction was begun inside another one of the same thread and database.
    #[error(
        "a transaction is open on this thread and database already; pass its `&Transaction` on instead of beginning another"
    )]
    NestedTransaction,
    /// The transaction may only read.
    #[error(
        "this transaction was begun by `Database::read`; use `Database::write` to change something"
    )]
    ReadOnlyTransaction,
    /// No savepoint of this transaction is where this one points.
    #[error("this savepoint was rolled back over, or is another transaction's; take a new one")]
    NoSuchSavepoint,
    /// The store was written by a newer data layer.
    #[error(
        "the store has data format {found}, this build reads up to {supported}; open it with a newer Vault"
    )]
    NewerFormat {
        /// The version found.
        found: u32,
        /// The newest version this build reads.
        supported: u32,
    },
    /// Text could not be read or written.
    #[error("{doing} failed: {source}")]
    Stream {
        /// What was being done.
        doing: &'static str,
        /// What the reader or writer said.
        source: Arc<std::io::Error>,
    },
    /// What was to be imported is not as it must be. Nothing was imported.
    #[error("line {line} of the import: {problem}; nothing was imported")]
    Import {
        /// The line, from 1, as far as it is known.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// What was to be imported has the same key twice. Nothing was imported.
    #[error(
        "line {line} of the import has the key {key}, which was there before; nothing was imported"
    )]
    DuplicateKey {
        /// The line of the second one, from 1.
        line: u64,
        /// The key, for printing.
        key: String,
    },
    /// What was to be imported was written by a newer Vault.
    #[error(
        "this export has the form {found:?}, which this build does not read; import it with a newer Vault"
    )]
    NewerExport {
        /// The form it names.
        found: String,
    },
    /// A database that was to be empty is not.
    #[error(
        "the target of the migration has {what} already; give an empty database, or the one that this migration was begun with"
    )]
    TargetNotEmpty {
        /// What it has.
        what: String,
    },
    /// The database is to become another one, and has not yet.
    #[error(
        "this database is the target of a migration that has not ended; run the migration to its end, or use another directory"
    )]
    MigrationUnderWay,
    /// What was copied is not what it was copied from.
    #[error(
        "after copying vault {vault:?}, {key} differs between source and target; run verify on both, then migrate again"
    )]
    CopyDiffers {
        /// The vault.
        vault: String,
        /// The first key that differs, for printing.
        key: String,
    },
    /// The repository of snapshots says no.
    #[error(transparent)]
    Snapshot(Arc<vault_snapshot::archive::Error>),
    /// There is no snapshot yet.
    #[error("there is no snapshot in this repository; make one first")]
    NoSnapshots,
    /// There is no snapshot from which the log leads to a point.
    #[error(
        "no snapshot that the log goes on from lies before {wanted}; ask for a later point, or restore a snapshot as it is"
    )]
    NoBase {
        /// The point.
        wanted: String,
    },
    /// A point lies behind what the log archive holds.
    #[error(
        "the log archive holds what was written up to {until}, and {wanted} lies behind it; ask for an earlier point, or restore a later snapshot"
    )]
    BeyondLog {
        /// The point.
        wanted: String,
        /// The last write that can be restored.
        until: u64,
    },
    /// A snapshot cannot be made like this.
    #[error("cannot make this snapshot: {problem}")]
    UnsupportedSnapshot {
        /// Why, and what can.
        problem: &'static str,
    },
    /// A snapshot is older than what is acceptable.
    #[error(
        "snapshot {snapshot} is of generation {generation}, and at least {least} was asked for; restore a newer one, or ask for less"
    )]
    TooOld {
        /// The snapshot.
        snapshot: String,
        /// Its generation.
        generation: u64,
        /// The least that is acceptable.
        least: u64,
    },
    /// Another restore of this database is under way.
    #[error("another restore of this database is under way; wait until it has ended")]
    RestoreUnderWay,
    /// The caller stopped the work; nothing of it is visible.
    #[error("cancelled by the caller; nothing of it is visible")]
    Cancelled,
}

impl From<vault_snapshot::archive::Error> for Error {
    fn from(error: vault_snapshot::archive::Error) -> Self {
        Self::Snapshot(Arc::new(error))
    }
}

impl Error {
    /// Says what the caller can do about this error.
    ///
    /// ```
    /// use vault_db::{Error, ErrorKind};
    /// let error = Error::NoSuchVault { name: "users".to_owned() };
    /// assert_eq!(error.kind(), ErrorKind::Input);
    /// ```
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Engine(error) => error.kind(),
            Self::Snapshot(error) => match &**error {
                // What was unpacked could not be made ready: what that takes is what to do.
                vault_snapshot::archive::Error::Prepare { source, .. } => source
                    .downcast_ref::<Self>()
                    .map_or_else(|| error.kind(), Self::kind),
                error => error.kind(),
            },
            Self::Conflict { .. } | Self::RestoreUnderWay | Self::TooManyLogIns { .. } => {
                ErrorKind::Retry
            }
            Self::TooManyVaults { .. } | Self::VaultFull { .. } | Self::OverQuota { .. } => {
                ErrorKind::Full
            }
            Self::Malformed { .. } => ErrorKind::Restore,
            Self::NewerFormat { .. } | Self::NewerExport { .. } | Self::MigrationUnderWay => {
                ErrorKind::Unavailable
            }
            Self::Cancelled => ErrorKind::Cancelled,
            Self::BadCredentials | Self::InvalidToken { .. } | Self::Denied { .. } => {
                ErrorKind::Unavailable
            }
            _ => ErrorKind::Input,
        }
    }
}
