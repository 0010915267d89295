//! Keys and names in reports, and whether they are told.
//!
//! A report is for the owner of a store, who may hand a copy of it to somebody else: put it into a ticket, a log, a
//! file. So what an encrypted store holds is in a report as data and not as text: printed or serialized, a key
//! is its length, and so is the name of a keyspace, unless the owner has asked for names.

use std::fmt;

use serde::{Serialize, Serializer};
use vault_core::Operation;
use vault_core::batch::OperationKind;
use vault_core::error::withheld;
use vault_core::transform::Transform;

/// Whether the content of a store may stand in text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Told,
    Withheld,
}

impl Content {
    pub(crate) fn of(transform: &dyn Transform) -> Self {
        if transform.keys().is_some() {
            Self::Withheld
        } else {
            Self::Told
        }
    }

    pub(crate) const fn key(self, bytes: Vec<u8>) -> KeyBytes {
        KeyBytes {
            bytes,
            withheld: matches!(self, Self::Withheld),
        }
    }

    pub(crate) fn name(self, name: &str) -> KeyspaceName {
        KeyspaceName {
            text: name.to_owned(),
            withheld: self == Self::Withheld,
        }
    }
}

/// A key. As text it is printable ASCII with the rest as `\xNN`; of an encrypted store it is never text, only its length
/// is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyBytes {
    bytes: Vec<u8>,
    withheld: bool,
}

impl KeyBytes {
    /// The key itself. Of an encrypted store, take care where it goes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Display for KeyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.withheld {
            return f.write_str(&withheld(&self.bytes));
        }
        write!(f, "\"{}\"", self.bytes.escape_ascii())
    }
}

impl fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for KeyBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.withheld {
            return serializer.serialize_str(&withheld(&self.bytes));
        }
        serializer.collect_str(&self.bytes.escape_ascii())
    }
}

/// The name of a keyspace. Of an encrypted store it is text only where that was asked for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyspaceName {
    text: String,
    withheld: bool,
}

impl KeyspaceName {
    /// The name itself. Of an encrypted store, take care where it goes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is not told.
    #[must_use]
    pub const fn is_withheld(&self) -> bool {
        self.withheld
    }

    pub(super) const fn reveal(&mut self) {
        self.withheld = false;
    }
}

impl fmt::Display for KeyspaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.withheld {
            return f.write_str(&withheld(self.text.as_bytes()));
        }
        f.write_str(&self.text)
    }
}

impl fmt::Debug for KeyspaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.withheld {
            return fmt::Display::fmt(self, f);
        }
        fmt::Debug::fmt(&self.text, f)
    }
}

impl Serialize for KeyspaceName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl PartialEq<str> for KeyspaceName {
    fn eq(&self, other: &str) -> bool {
        self.text == other
    }
}

impl PartialEq<String> for KeyspaceName {
    fn eq(&self, other: &String) -> bool {
        self.text == *other
    }
}

impl PartialEq<&str> for KeyspaceName {
    fn eq(&self, other: &&str) -> bool {
        self.text == **other
    }
}

/// A stretch of keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeySpan {
    /// The first key; `None`: from the beginning.
    pub start: Option<KeyBytes>,
    /// The last key; `None`: to the end.
    pub end: Option<KeyBytes>,
    /// Whether `end` belongs to it.
    pub end_included: bool,
}

impl KeySpan {
    /// Every key.
    pub const ALL: Self = Self {
        start: None,
        end: None,
        end_included: true,
    };

    /// Whether the key lies within.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        let behind_start = self.start.as_ref().is_none_or(|start| start.bytes() <= key);
        let before_end = self.end.as_ref().is_none_or(|end| {
            if self.end_included {
                key <= end.bytes()
            } else {
                key < end.bytes()
            }
        });
        behind_start && before_end
    }

    /// Whether the operation says something of a key within.
    pub(super) fn is_touched_by(&self, operation: &Operation<'_>) -> bool {
        if operation.kind != OperationKind::RangeDelete {
            return self.contains(operation.key);
        }
        let start = self.start.as_ref().map(KeyBytes::bytes);
        let end = self.end.as_ref().map(KeyBytes::bytes);
        let starts_behind = end.is_some_and(|end| operation.key > end);
        let ends_before = start.is_some_and(|start| operation.value <= start);
        !starts_behind && !ends_before
    }
}

impl fmt::Display for KeySpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.start {
            Some(start) => write!(f, "from {start}")?,
            None => f.write_str("from the first key")?,
        }
        match &self.end {
            Some(end) if self.end_included => write!(f, " to {end}"),
            Some(end) => write!(f, " to before {end}"),
            None => f.write_str(" to the last key"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(content: Content) -> KeySpan {
        KeySpan {
            start: Some(content.key(b"alice".to_vec())),
            end: Some(content.key(b"bob\x00".to_vec())),
            end_included: true,
        }
    }

    #[test]
    fn content_of_a_plain_store_is_told() {
        let told = Content::Told;
        assert_eq!(span(told).to_string(), r#"from "alice" to "bob\x00""#);
        assert_eq!(
            format!("{:?} {}", told.name("users"), told.name("users")),
            "\"users\" users"
        );
        let json = serde_json::to_string(&(span(told), told.name("users"))).unwrap();
        assert!(json.contains("alice") && json.contains("users"), "{json}");
    }

    #[test]
    fn content_of_an_encrypted_store_is_told_nowhere_and_is_there() {
        let kept = Content::Withheld;
        let (span, mut name) = (span(kept), kept.name("users"));
        let json = serde_json::to_string(&(&span, &name)).unwrap();
        for text in [span.to_string(), format!("{span:?} {name:?} {name}"), json] {
            for content in ["alice", "bob", "users"] {
                assert!(!text.contains(content), "{text}");
            }
            assert!(text.contains("(5 bytes, withheld"), "{text}");
        }
        assert_eq!(
            span.start.as_ref().map(KeyBytes::bytes),
            Some(&b"alice"[..])
        );
        assert!(span.contains(b"alice") && span.contains(b"bob") && !span.contains(b"carol"));
        assert!(name == "users");
        name.reveal();
        assert_eq!(serde_json::to_string(&name).unwrap(), "\"users\"");
    }
}
