//! A key in a file.

use std::io::{ErrorKind, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

use rustix::fs::OFlags;
use vault_core::Result;

use super::{KeySource, Secret, hex_key, invalid, unavailable};
use crate::secret::{KEY_BYTES, SecretBytes, SecretKey};

/// Longest file that can be a key: its digits and the end of a line.
const FILE_BYTES_MAX: usize = 2 * KEY_BYTES + 2;

/// A key in a file: its 32 bytes, or 64 hexadecimal digits with or without the end of a line. Anything else is refused,
/// a passphrase in particular, which would be a weak key.
///
/// So is a file that others than its owner may read or write, as `ssh` does: a key that others can read is not
/// secret. `chmod 600` mends it.
///
/// Keep the file on another medium than the store and its backups.
#[derive(Debug, Clone)]
pub struct KeyFile {
    path: PathBuf,
    any_permissions: bool,
}

impl KeyFile {
    /// A key in this file.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            any_permissions: false,
        }
    }

    /// Accepts a file that others may read or write: for systems that hand out secrets in files with fixed permissions,
    /// and keep others away by other means.
    #[must_use]
    pub fn danger_any_permissions(mut self) -> Self {
        self.any_permissions = true;
        self
    }

    /// The content, as far as it can be a key.
    fn read(&self) -> Result<SecretBytes> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place where a key file is read"
        )]
        let opened = std::fs::OpenOptions::new()
            .read(true)
            // A pipe that nobody writes to would keep us waiting.
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(&self.path);
        let mut file = opened.map_err(|error| match error.kind() {
            ErrorKind::NotFound => unavailable(self, "there is no such file; correct the path"),
            ErrorKind::PermissionDenied => unavailable(
                self,
                "this user may not read it; run as its owner, or change its owner",
            ),
            _ => unavailable(self, format!("it cannot be opened: {error}")),
        })?;
        let unreadable =
            |error: std::io::Error| unavailable(self, format!("it cannot be read: {error}"));
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(unavailable(
                self,
                "it is no regular file; give the path of a file that holds the key",
            ));
        }
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 && !self.any_permissions {
            return Err(unavailable(
                self,
                format!("its permissions ({mode:03o}) let others at it; chmod it to 600"),
            ));
        }
        let mut content = SecretBytes::empty();
        loop {
            match content.try_extend(|room| file.read(room).map(Some)) {
                Ok(Some(0) | None) => return Ok(content),
                Ok(_) if content.expose().len() > FILE_BYTES_MAX => return Err(self.refused()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable(error)),
            }
        }
    }

    fn refused(&self) -> vault_core::Error {
        invalid(format!(
            "{} holds neither {KEY_BYTES} bytes nor {} hexadecimal digits; \
             if it holds a passphrase, give it as one",
            self.name(),
            2 * KEY_BYTES,
        ))
    }
}

impl KeySource for KeyFile {
    fn name(&self) -> String {
        format!("the key file {}", self.path.display())
    }

    fn secret(&self) -> Result<Secret> {
        let content = self.read()?;
        let bytes = content.expose();
        if bytes.len() == KEY_BYTES {
            return SecretKey::build(|key| {
                key.copy_from_slice(bytes);
                Ok(())
            })
            .map(Secret::Key);
        }
        let digits = bytes
            .strip_suffix(b"\r\n")
            .or_else(|| bytes.strip_suffix(b"\n"))
            .unwrap_or(bytes);
        hex_key(digits, &self.name())
            .map(Secret::Key)
            .map_err(|_| self.refused())
    }
}
