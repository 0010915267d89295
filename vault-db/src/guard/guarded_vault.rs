//! A vault behind access control.

use std::fmt;
use std::io::Write;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::guarded::Guarded;
use super::policy::Permission;
use crate::error::Result;
use crate::key::{DecodeKey, EncodeKey, KeyBounds};
use crate::portable::ExportFormat;
use crate::vault::{Keys, RawScan, RawValue, Scan, Vault, VaultInfo, VaultStats};

/// A vault as one principal may use it. The verbs are those of [`Vault`], each checked before it does anything.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # use vault_db::encryption::{Kdf, SecretBytes};
/// # let db = vault_db::Database::temp()?;
/// # let control = db.access_control()?;
/// # let secret = || SecretBytes::from_string("correct horse".to_owned());
/// # control.set_role("reader", [vault_db::Grant::new("*", [vault_db::Permission::Read])])?;
/// # control.create_principal("alice", &secret()?, ["reader"], Kdf::danger_weak())?;
/// db.vault("notes")?.put("a", &1)?;
/// let notes = control.log_in("alice", &secret()?)?.vault("notes")?;
/// assert!(notes.contains("a")?);
/// assert!(notes.put("a", &2).is_err());
/// control.set_roles("alice", Vec::<String>::new())?;
/// assert!(notes.contains("a").is_err()); // from the next call on
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Every verb gives [`Denied`](crate::Error::Denied) where the principal's roles do not allow it,
/// [`BadCredentials`](crate::Error::BadCredentials) or [`InvalidToken`](crate::Error::InvalidToken) where it is not let in any
/// more, and else what the verb of [`Vault`] gives.
#[derive(Clone)]
pub struct GuardedVault {
    guarded: Guarded,
    vault: Vault,
}

/// What goes before the example of each verb: a vault `notes` with `a` in it, and a principal who may do everything with it.
macro_rules! example {
    ($example:literal) => {
        concat!(
            "```\n",
            "# fn main() -> vault_db::Result<()> {\n",
            "# use vault_db::encryption::{Kdf, SecretBytes};\n",
            "# use vault_db::{Grant, Permission};\n",
            "# let db = vault_db::Database::temp()?;\n",
            "# db.vault(\"notes\")?.put(\"a\", &1)?;\n",
            "# let control = db.access_control()?;\n",
            "# let all = [Permission::Read, Permission::Write, Permission::Delete, Permission::Scan, Permission::Admin];\n",
            "# control.set_role(\"all\", [Grant::new(\"*\", all)])?;\n",
            "# let secret = || SecretBytes::from_string(\"correct horse\".to_owned());\n",
            "# control.create_principal(\"service\", &secret()?, [\"all\"], Kdf::danger_weak())?;\n",
            "let notes = control.log_in(\"service\", &secret()?)?.vault(\"notes\")?;\n",
            $example,
            "\n# Ok(())\n# }\n```"
        )
    };
}

macro_rules! verbs {
    ($(
        $(#[$doc:meta])*
        [$($permission:ident),+] $example:literal
        fn $verb:ident $(<$($generic:ident: $($bound:path),+ $(,)?);+>)? ($($argument:ident: $type:ty),*) -> $result:ty;
    )*) => {$(
        $(#[$doc])*
        ///
        #[doc = example!($example)]
        ///
        /// # Errors
        /// As [`GuardedVault`] says.
        pub fn $verb $(<$($generic: $($bound +)+),+>)? (&self, $($argument: $type),*) -> Result<$result> {
            $(self.allow(Permission::$permission)?;)+
            self.vault.$verb($($argument),*)
        }
    )*};
}

impl GuardedVault {
    pub(super) const fn new(guarded: Guarded, vault: Vault) -> Self {
        Self { guarded, vault }
    }

    fn allow(&self, permission: Permission) -> Result<()> {
        // By the name of now: a rename takes the vault to other rules.
        self.guarded.allow(permission, &self.vault.name())
    }

    /// The vault's name.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::encryption::{Kdf, SecretBytes};
    /// # use vault_db::{Grant, Permission};
    /// # let db = vault_db::Database::temp()?;
    /// # let control = db.access_control()?;
    /// # let all = [Permission::Read, Permission::Write, Permission::Delete, Permission::Scan, Permission::Admin];
    /// # control.set_role("all", [Grant::new("app-*", all)])?;
    /// # let secret = || SecretBytes::from_string("correct horse".to_owned());
    /// # control.create_principal("service", &secret()?, ["all"], Kdf::danger_weak())?;
    /// # let guarded = control.log_in("service", &secret()?)?;
    /// # let vault = guarded.vault("app-users")?;
    /// assert_eq!(vault.name(), "app-users");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn name(&self) -> String {
        self.vault.name()
    }

    verbs! {
        /// Reads a value: [`Vault::get`]. Needs [`Permission::Read`].
        [Read] "assert_eq!(notes.get::<i64>(\"a\")?, Some(1));"
        fn get<V: DeserializeOwned>(key: impl EncodeKey) -> Option<V>;
        /// Reads raw bytes: [`Vault::get_raw`]. Needs [`Permission::Read`].
        [Read] "assert!(notes.get_raw(\"b\")?.is_none());"
        fn get_raw(key: impl EncodeKey) -> Option<RawValue>;
        /// Whether a key is there: [`Vault::contains`]. Needs [`Permission::Read`].
        [Read] "assert!(notes.contains(\"a\")?);"
        fn contains(key: impl EncodeKey) -> bool;
        /// How long a key will be there: [`Vault::time_to_live`]. Needs [`Permission::Read`].
        [Read] "assert_eq!(notes.time_to_live(\"a\")?, Some(None)); // there, and for good"
        fn time_to_live(key: impl EncodeKey) -> Option<Option<Duration>>;
        /// How many entries there are: [`Vault::len`]. Needs [`Permission::Read`].
        [Read] "assert_eq!(notes.len()?, 1);"
        fn len() -> u64;
        /// Whether there are none: [`Vault::is_empty`]. Needs [`Permission::Read`].
        [Read] "assert!(!notes.is_empty()?);"
        fn is_empty() -> bool;
        /// What is known of the vault: [`Vault::info`]. Needs [`Permission::Read`].
        [Read] "assert_eq!(notes.info()?.keys, 1);"
        fn info() -> VaultInfo;
        /// How it is used, keys included: [`Vault::stats`]. Needs [`Permission::Read`] and [`Permission::Scan`].
        [Read, Scan] "assert_eq!(notes.stats()?.writes, 1);"
        fn stats() -> VaultStats;
        /// All keys: [`Vault::keys`]. Needs [`Permission::Scan`].
        [Scan] "assert_eq!(notes.keys::<String>()?.collect::<vault_db::Result<Vec<_>>>()?, [\"a\"]);"
        fn keys<K: DecodeKey>() -> Keys<K>;
        /// All entries: [`Vault::items`]. Needs [`Permission::Read`] and
        /// [`Permission::Scan`].
        [Read, Scan] "assert_eq!(notes.items::<String, i64>()?.next().transpose()?, Some((\"a\".to_owned(), 1)));"
        fn items<K: DecodeKey; V: DeserializeOwned>() -> Scan<K, V>;
        /// The entries of a range: [`Vault::range`]. Needs [`Permission::Read`] and
        /// [`Permission::Scan`].
        [Read, Scan] "assert_eq!(notes.range::<String, i64>(\"b\"..)?.count(), 0);"
        fn range<K: DecodeKey; V: DeserializeOwned>(bounds: impl KeyBounds) -> Scan<K, V>;
        /// The entries with a prefix: [`Vault::prefix`]. Needs [`Permission::Read`] and
        /// [`Permission::Scan`].
        [Read, Scan] "notes.put((\"user\", 7), \"alice\")?;\nassert_eq!(notes.prefix::<(String, i64), String>((\"user\",))?.count(), 1);"
        fn prefix<K: DecodeKey; V: DeserializeOwned>(prefix: impl EncodeKey) -> Scan<K, V>;
        /// The raw bytes of a range: [`Vault::range_raw`]. Needs [`Permission::Read`] and [`Permission::Scan`].
        [Read, Scan] "notes.put_raw(\"b\", b\"bytes\")?;\nassert_eq!(notes.range_raw::<String>(\"b\"..)?.count(), 1);"
        fn range_raw<K: DecodeKey>(bounds: impl KeyBounds) -> RawScan<K>;
        /// Sets a key unless it is there, and gives the value that it has then: [`Vault::set_default`]. Needs [`Permission::Read`] and
        /// [`Permission::Write`].
        [Read, Write] "assert_eq!(notes.set_default(\"a\", &9)?, 1);"
        fn set_default<V: Serialize, DeserializeOwned>(key: impl EncodeKey, default: &V) -> V;
        /// Sets many keys at once: [`Vault::update`]. Needs [`Permission::Write`].
        [Write] "notes.update([(\"b\", 2), (\"c\", 3)])?;\nassert_eq!(notes.len()?, 3);"
        fn update<K: EncodeKey; V: Serialize>(pairs: impl IntoIterator<Item = (K, V)>) -> ();
        /// Gives a key a new expiry, or none: [`Vault::expire`]. Needs [`Permission::Write`].
        [Write] "assert!(notes.expire(\"a\", Some(std::time::Duration::from_secs(60)))?);"
        fn expire(key: impl EncodeKey, time_to_live: Option<Duration>) -> bool;
        /// Removes the entry with the smallest key and gives it: [`Vault::pop_first`]. Needs [`Permission::Read`],
        /// [`Permission::Scan`] and [`Permission::Delete`].
        [Read, Scan, Delete] "assert_eq!(notes.pop_first::<String, i64>()?, Some((\"a\".to_owned(), 1)));"
        fn pop_first<K: DecodeKey; V: DeserializeOwned>() -> Option<(K, V)>;
        /// Removes the entry with the greatest key and gives it: [`Vault::pop_last`]. Needs [`Permission::Read`],
        /// [`Permission::Scan`] and [`Permission::Delete`].
        [Read, Scan, Delete] "assert_eq!(notes.pop_last::<String, i64>()?, Some((\"a\".to_owned(), 1)));"
        fn pop_last<K: DecodeKey; V: DeserializeOwned>() -> Option<(K, V)>;
        /// Takes away what has expired: [`Vault::cleanup_expired`]. Needs [`Permission::Delete`].
        [Delete] "assert_eq!(notes.cleanup_expired()?, 0);"
        fn cleanup_expired() -> u64;
        /// Sets a key to bytes: [`Vault::put_raw`]. Needs [`Permission::Write`].
        [Write] "notes.put_raw(\"b\", b\"bytes\")?;\nassert_eq!(&notes.get_raw(\"b\")?.expect(\"just put\")[..], b\"bytes\");"
        fn put_raw(key: impl EncodeKey, bytes: &[u8]) -> ();
        /// Removes a key: [`Vault::remove`]. Needs [`Permission::Delete`].
        [Delete] "assert!(notes.remove(\"a\")?);"
        fn remove(key: impl EncodeKey) -> bool;
        /// Removes every entry: [`Vault::clear`]. Needs [`Permission::Delete`].
        [Delete] "assert_eq!(notes.clear()?, 1);"
        fn clear() -> u64;
        /// Says what the vault is for: [`Vault::describe`]. Needs [`Permission::Admin`].
        [Admin] "notes.describe(Some(\"what not to forget\"))?;\nassert!(notes.info()?.description.is_some());"
        fn describe(description: Option<&str>) -> ();
        /// Says whose the vault is: [`Vault::set_owner`]. Needs [`Permission::Admin`].
        [Admin] "notes.set_owner(Some(\"alice\"))?;\nassert_eq!(notes.info()?.owner.as_deref(), Some(\"alice\"));"
        fn set_owner(owner: Option<&str>) -> ();
        /// Says what the vault is found by: [`Vault::set_tags`]. Needs [`Permission::Admin`].
        [Admin] "notes.set_tags([\"private\"])?;\nassert_eq!(notes.info()?.tags, [\"private\"]);"
        fn set_tags<T: Into<String>>(tags: impl IntoIterator<Item = T>) -> ();
        /// Deletes the vault: [`Vault::delete`]. Needs [`Permission::Admin`].
        [Admin] "assert_eq!(notes.delete()?, 1);\nassert!(!db.contains_vault(\"notes\"));"
        fn delete() -> u64;
        /// Writes the vault as text: [`Vault::export`]. Needs [`Permission::Read`], [`Permission::Scan`] and
        /// [`Permission::Admin`].
        [Read, Scan, Admin] "let mut text = Vec::new();\nassert_eq!(notes.export(vault_db::ExportFormat::Json, &mut text)?, 1);"
        fn export(format: ExportFormat, out: impl Write) -> u64;
    }

    /// Sets a key to a value: [`Vault::put`]. Needs [`Permission::Write`].
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::encryption::{Kdf, SecretBytes};
    /// # use vault_db::{Grant, Permission};
    /// # let db = vault_db::Database::temp()?;
    /// # let control = db.access_control()?;
    /// # let all = [Permission::Read, Permission::Write, Permission::Delete, Permission::Scan, Permission::Admin];
    /// # control.set_role("all", [Grant::new("app-*", all)])?;
    /// # let secret = || SecretBytes::from_string("correct horse".to_owned());
    /// # control.create_principal("service", &secret()?, ["all"], Kdf::danger_weak())?;
    /// # let guarded = control.log_in("service", &secret()?)?;
    /// # let vault = guarded.vault("app-users")?;
    /// vault.put("alice", "admin")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`GuardedVault`] says.
    pub fn put<V: Serialize + ?Sized>(&self, key: impl EncodeKey, value: &V) -> Result<()> {
        self.allow(Permission::Write)?;
        self.vault.put(key, value)
    }

    /// Sets a key to a value for some time: [`Vault::put_for`]. Needs [`Permission::Write`].
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::encryption::{Kdf, SecretBytes};
    /// # use vault_db::{Grant, Permission};
    /// # let db = vault_db::Database::temp()?;
    /// # let control = db.access_control()?;
    /// # let all = [Permission::Read, Permission::Write, Permission::Delete, Permission::Scan, Permission::Admin];
    /// # control.set_role("all", [Grant::new("app-*", all)])?;
    /// # let secret = || SecretBytes::from_string("correct horse".to_owned());
    /// # control.create_principal("service", &secret()?, ["all"], Kdf::danger_weak())?;
    /// # let guarded = control.log_in("service", &secret()?)?;
    /// # let vault = guarded.vault("app-users")?;
    /// vault.put_for("session", "alice", std::time::Duration::from_secs(60))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`GuardedVault`] says.
    pub fn put_for<V: Serialize + ?Sized>(
        &self,
        key: impl EncodeKey,
        value: &V,
        time_to_live: Duration,
    ) -> Result<()> {
        self.allow(Permission::Write)?;
        self.vault.put_for(key, value, time_to_live)
    }

    /// Adds to a counter: [`Vault::increment`]. Needs [`Permission::Read`] and [`Permission::Write`].
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::encryption::{Kdf, SecretBytes};
    /// # use vault_db::{Grant, Permission};
    /// # let db = vault_db::Database::temp()?;
    /// # let control = db.access_control()?;
    /// # let all = [Permission::Read, Permission::Write, Permission::Delete, Permission::Scan, Permission::Admin];
    /// # control.set_role("all", [Grant::new("app-*", all)])?;
    /// # let secret = || SecretBytes::from_string("correct horse".to_owned());
    /// # control.create_principal("service", &secret()?, ["all"], Kdf::danger_weak())?;
    /// # let guarded = control.log_in("service", &secret()?)?;
    /// # let vault = guarded.vault("app-users")?;
    /// assert_eq!(vault.increment("visits", 1)?, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`GuardedVault`] says.
    pub fn increment(&self, key: impl EncodeKey, by: i64) -> Result<i64> {
        self.allow(Permission::Read)?;
        self.allow(Permission::Write)?;
        self.vault.increment(key, by)
    }

    /// Replaces a value if it is the expected one: [`Vault::compare_and_set`]. Needs [`Permission::Read`] and
    /// [`Permission::Write`], and [`Permission::Delete`] to remove.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::encryption::{Kdf, SecretBytes};
    /// # use vault_db::{Grant, Permission};
    /// # let db = vault_db::Database::temp()?;
    /// # let control = db.access_control()?;
    /// # let all = [Permission::Read, Permission::Write, Permission::Delete, Permission::Scan, Permission::Admin];
    /// # control.set_role("all", [Grant::new("app-*", all)])?;
    /// # let secret = || SecretBytes::from_string("correct horse".to_owned());
    /// # control.create_principal("service", &secret()?, ["all"], Kdf::danger_weak())?;
    /// # let guarded = control.log_in("service", &secret()?)?;
    /// # let vault = guarded.vault("app-users")?;
    /// assert!(vault.compare_and_set("lock", None, Some("mine"))?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`GuardedVault`] says.
    pub fn compare_and_set<V: Serialize + ?Sized>(
        &self,
        key: impl EncodeKey,
        expected: Option<&V>,
        new: Option<&V>,
    ) -> Result<bool> {
        self.allow(Permission::Read)?;
        self.allow(if new.is_some() {
            Permission::Write
        } else {
            Permission::Delete
        })?;
        self.vault.compare_and_set(key, expected, new)
    }

    /// Removes a key and gives its value: [`Vault::pop`]. Needs [`Permission::Read`] and [`Permission::Delete`].
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::encryption::{Kdf, SecretBytes};
    /// # use vault_db::{Grant, Permission};
    /// # let db = vault_db::Database::temp()?;
    /// # let control = db.access_control()?;
    /// # let all = [Permission::Read, Permission::Write, Permission::Delete, Permission::Scan, Permission::Admin];
    /// # control.set_role("all", [Grant::new("app-*", all)])?;
    /// # let secret = || SecretBytes::from_string("correct horse".to_owned());
    /// # control.create_principal("service", &secret()?, ["all"], Kdf::danger_weak())?;
    /// # let guarded = control.log_in("service", &secret()?)?;
    /// # let vault = guarded.vault("app-users")?;
    /// assert_eq!(vault.pop::<i64>("missing")?, None);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`GuardedVault`] says.
    pub fn pop<V: DeserializeOwned>(&self, key: impl EncodeKey) -> Result<Option<V>> {
        self.allow(Permission::Read)?;
        self.allow(Permission::Delete)?;
        self.vault.pop(key)
    }

    /// Gives the vault another name: [`Vault::rename`]. Needs [`Permission::Admin`] under both names, so that nobody takes a
    /// vault out of reach of others, or into it; and under the old name whatever is allowed under the new one, so that nobody gains
    /// anything by it.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::encryption::{Kdf, SecretBytes};
    /// # use vault_db::{Grant, Permission};
    /// # let db = vault_db::Database::temp()?;
    /// # let control = db.access_control()?;
    /// # let all = [Permission::Read, Permission::Write, Permission::Delete, Permission::Scan, Permission::Admin];
    /// # control.set_role("all", [Grant::new("app-*", all)])?;
    /// # let secret = || SecretBytes::from_string("correct horse".to_owned());
    /// # control.create_principal("service", &secret()?, ["all"], Kdf::danger_weak())?;
    /// # let guarded = control.log_in("service", &secret()?)?;
    /// # let vault = guarded.vault("app-users")?;
    /// vault.rename("app-people")?;
    /// assert!(vault.rename("payroll").is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`GuardedVault`] says.
    pub fn rename(&self, name: &str) -> Result<u64> {
        self.allow(Permission::Admin)?;
        self.guarded.allow(Permission::Admin, name)?;
        for permission in self.guarded.permissions(name)? {
            self.allow(permission)?;
        }
        self.vault.rename(name)
    }

    /// Copies the vault: [`Vault::copy_to`]. Needs [`Permission::Read`] and [`Permission::Scan`] here, and
    /// [`Permission::Admin`] under the name of the copy.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::encryption::{Kdf, SecretBytes};
    /// # use vault_db::{Grant, Permission};
    /// # let db = vault_db::Database::temp()?;
    /// # let control = db.access_control()?;
    /// # let all = [Permission::Read, Permission::Write, Permission::Delete, Permission::Scan, Permission::Admin];
    /// # control.set_role("all", [Grant::new("app-*", all)])?;
    /// # let secret = || SecretBytes::from_string("correct horse".to_owned());
    /// # control.create_principal("service", &secret()?, ["all"], Kdf::danger_weak())?;
    /// # let guarded = control.log_in("service", &secret()?)?;
    /// # let vault = guarded.vault("app-users")?;
    /// vault.copy_to("app-copy")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`GuardedVault`] says.
    pub fn copy_to(&self, name: &str) -> Result<Self> {
        self.allow(Permission::Read)?;
        self.allow(Permission::Scan)?;
        self.guarded.allow(Permission::Admin, name)?;
        Ok(Self::new(self.guarded.clone(), self.vault.copy_to(name)?))
    }
}

impl fmt::Debug for GuardedVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedVault")
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}
