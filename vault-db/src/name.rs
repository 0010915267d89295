//! Names of vaults.

use crate::bounds::VAULT_NAME_BYTES_MAX;
use crate::error::{Error, Result};

/// Names that begin like this are kept for the database itself.
const RESERVED_PREFIX: &str = "vault-";

/// Refuses what cannot name a vault: 1 to 128 bytes of letters and digits of any script, spaces inside, and `_ - + @ # ~`.
/// No dots, no separators, no control characters: a name can become part of a path, of a URL or of a pattern. Names that
/// begin with `vault-` are kept for the database.
pub(crate) fn check_vault_name(name: &str) -> Result<()> {
    let odd =
        |c: char| !(c.is_alphanumeric() || matches!(c, ' ' | '_' | '-' | '+' | '@' | '#' | '~'));
    let problem = if name.is_empty() {
        "it is empty"
    } else if name.len() > VAULT_NAME_BYTES_MAX {
        "it is too long"
    } else if name.contains(['/', '\\', ':', '|']) {
        "it has a separator"
    } else if name.contains(char::is_control) {
        "it has a control character"
    } else if name.contains('.') {
        "it has a dot"
    } else if name.starts_with(' ') || name.ends_with(' ') {
        "it begins or ends with a space"
    } else if name.starts_with(RESERVED_PREFIX) {
        "names that begin with `vault-` are kept for the database itself"
    } else if name.contains(odd) {
        "it has a character that is neither letter nor digit"
    } else {
        return Ok(());
    };
    Err(Error::InvalidVaultName {
        name: name.chars().take(64).collect(),
        problem,
        max: VAULT_NAME_BYTES_MAX,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in [
            "a",
            "users",
            "Ключи",
            "user@host",
            "a b",
            "x_y-z+1#2~",
            &"x".repeat(128),
        ] {
            assert!(check_vault_name(good).is_ok(), "{good}");
        }
        let bad = [
            ("", "empty"),
            (&"x".repeat(129), "long"),
            ("a/b", "separator"),
            ("a\\b", "separator"),
            ("a:b", "separator"),
            ("..", "dot"),
            ("a.b", "dot"),
            ("a\0", "control"),
            ("a\n", "control"),
            (" a", "space"),
            ("vault-audit", "kept"),
            ("a*", "neither"),
            ("a\u{202e}b", "neither"),
        ];
        for (name, reason) in bad {
            let Err(Error::InvalidVaultName { problem, .. }) = check_vault_name(name) else {
                panic!("{name:?} passed")
            };
            assert!(problem.contains(reason), "{name:?}: {problem}");
        }
    }
}
