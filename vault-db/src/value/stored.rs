//! A value as it is stored, taken apart.

use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};
use vault_core::Timestamp;

use super::{FORM_MESSAGE_PACK, FORM_RAW, HAS_EXPIRY, Mismatch, decode, kind_of};

/// A stored value: its expiry, and its content in one of two forms.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored<'a> {
    pub(crate) expiry: Option<Timestamp>,
    pub(crate) content: Content<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    Raw(&'a [u8]),
    MessagePack(&'a [u8]),
}

impl<'a> Stored<'a> {
    /// Takes a stored value apart; `None` where it is malformed.
    #[inline]
    pub(crate) fn parse(stored: &'a [u8]) -> Option<Self> {
        let (&header, mut rest) = stored.split_first()?;
        let expiry = if header & HAS_EXPIRY == 0 {
            None
        } else {
            let (expiry, behind) = rest.split_first_chunk()?;
            rest = behind;
            Some(Timestamp(u64::from_le_bytes(*expiry)))
        };
        let content = match header & !HAS_EXPIRY {
            FORM_RAW => Content::Raw(rest),
            FORM_MESSAGE_PACK => Content::MessagePack(rest),
            _ => return None,
        };
        Some(Self { expiry, content })
    }

    /// How many bytes of `stored` stand before its content.
    #[inline]
    pub(crate) const fn header_bytes(&self) -> usize {
        if self.expiry.is_some() { 9 } else { 1 }
    }

    /// What is stored, in words.
    pub(crate) fn kind(&self) -> &'static str {
        match self.content {
            Content::Raw(_) => "raw bytes",
            Content::MessagePack(content) => kind_of(content),
        }
    }

    /// Reads the content as a type.
    pub(crate) fn read<V: DeserializeOwned>(&self) -> Result<V, Mismatch> {
        match self.content {
            Content::MessagePack(content) => decode(content),
            Content::Raw(raw) => V::deserialize(RawBytes(raw)).map_err(|_| Mismatch {
                expected: std::any::type_name::<V>(),
                found: "raw bytes",
                problem: "it was written by `put_raw`, and `get_raw` reads it".to_owned(),
            }),
        }
    }
}

/// Raw bytes, for types that take whatever there is, as [`Value`](super::Value) does. What asks for something of its own
/// gets nothing: raw bytes are no string, even if they could be one.
struct RawBytes<'a>(&'a [u8]);

impl<'de> Deserializer<'de> for RawBytes<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_bytes(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_str<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("raw bytes"))
    }

    fn deserialize_string<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("raw bytes"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}
