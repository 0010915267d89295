//! A secret in an environment variable.

use zeroize::Zeroize;

use vault_core::Result;

use super::{Form, KeySource, Secret, invalid, unavailable};
use crate::secret::{PASSPHRASE_BYTES_MAX, SecretBytes};

/// A passphrase or a key in an environment variable.
///
/// Whoever may look at the process sees its environment, its children inherit it, and there it stays: a file or a
/// command keeps a secret better.
#[derive(Debug, Clone)]
pub struct EnvironmentVariable {
    name: String,
    form: Form,
}

impl EnvironmentVariable {
    /// A variable that holds a passphrase.
    #[must_use]
    pub fn passphrase(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            form: Form::Passphrase,
        }
    }

    /// A variable that holds a key in 64 hexadecimal digits.
    #[must_use]
    pub fn key(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            form: Form::HexKey,
        }
    }
}

impl KeySource for EnvironmentVariable {
    fn name(&self) -> String {
        format!("the environment variable {}", self.name)
    }

    fn secret(&self) -> Result<Secret> {
        let Some(value) = std::env::var_os(&self.name) else {
            return Err(unavailable(self, "it is not set; set it"));
        };
        let mut value = value.into_encoded_bytes();
        let text = SecretBytes::new(&value);
        value.zeroize();
        let too_long = |_| {
            let name = self.name();
            invalid(format!("{name} holds over {PASSPHRASE_BYTES_MAX} bytes"))
        };
        let text = text.map_err(too_long)?;
        self.form.read(text, &self.name())
    }
}
