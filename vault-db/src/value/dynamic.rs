//! A value of any kind.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// A value of any kind, for programs that do not know what they read: command lines, exports, scripts.
///
/// Whatever a typed value was written as, it reads as one of these: structs and maps as [`Value::Map`], enums as a
/// string, or a map of one entry.
///
/// ```
/// use vault_db::{Database, Value};
/// # fn main() -> vault_db::Result<()> {
/// let db = Database::temp()?;
/// let settings = db.vault("settings")?;
/// settings.put("host", "localhost")?;
/// settings.put("port", &5432)?;
/// assert_eq!(settings.get::<Value>("port")?, Some(Value::Integer(5432)));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// Nothing: `None`, `()`.
    #[default]
    Null,
    /// A boolean.
    Bool(bool),
    /// A whole number from -2⁶³ to 2⁶⁴ - 1.
    Integer(i128),
    /// A floating-point number.
    Float(f64),
    /// A string.
    String(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Values in order.
    List(Vec<Value>),
    /// Entries in the order in which they were written.
    Map(Vec<(Value, Value)>),
}

impl Value {
    /// Says what kind of value this is.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// use vault_db::Value;
    /// assert_eq!(Value::from("text").kind(), "a string");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::String(_) => "a string",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }

    /// The value of a field, if this is a map that has it.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// use std::collections::BTreeMap;
    /// use vault_db::Value;
    /// db.vault("v")?.put("user", &BTreeMap::from([("age", 7)]))?;
    /// let user: Option<Value> = db.vault("v")?.get("user")?;
    /// assert_eq!(user.unwrap().field("age"), Some(&Value::from(7)));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Self> {
        let Self::Map(entries) = self else {
            return None;
        };
        let named = |key: &Self| matches!(key, Self::String(key) if key == name);
        entries
            .iter()
            .find(|(key, _)| named(key))
            .map(|(_, value)| value)
    }

    /// The string, if it is one.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// use vault_db::Value;
    /// assert_eq!(Value::from("text").as_str(), Some("text"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(string) => Some(string),
            _ => None,
        }
    }

    /// The number, if it is one and fits.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// use vault_db::Value;
    /// assert_eq!(Value::from(7).as_i64(), Some(7));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => i64::try_from(*number).ok(),
            _ => None,
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(bool) => serializer.serialize_bool(*bool),
            Self::Integer(number) => match (i64::try_from(*number), u64::try_from(*number)) {
                (_, Ok(number)) => serializer.serialize_u64(number),
                (Ok(number), _) => serializer.serialize_i64(number),
                _ => Err(serde::ser::Error::custom(format_args!(
                    "{number} is not between -2^63 and 2^64 - 1"
                ))),
            },
            Self::Float(number) => serializer.serialize_f64(*number),
            Self::String(string) => serializer.serialize_str(string),
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Self::List(values) => serializer.collect_seq(values),
            Self::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

/// Elements that are made room for before they have been read: lengths are not to be trusted, and each level of a nested value
/// claims one.
const RESERVED_MAX: usize = 16;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of any kind")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, bool: bool) -> Result<Value, E> {
        Ok(Value::Bool(bool))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Integer(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Integer(number.into()))
    }

    fn visit_i128<E: serde::de::Error>(self, number: i128) -> Result<Value, E> {
        if number < i128::from(i64::MIN) || number > i128::from(u64::MAX) {
            return Err(E::custom(format_args!(
                "{number} is not between -2^63 and 2^64 - 1"
            )));
        }
        Ok(Value::Integer(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Float(number))
    }

    fn visit_str<E>(self, string: &str) -> Result<Value, E> {
        Ok(Value::String(string.to_owned()))
    }

    fn visit_string<E>(self, string: String) -> Result<Value, E> {
        Ok(Value::String(string))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Value, E> {
        Ok(Value::Bytes(bytes.to_vec()))
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Value, E> {
        Ok(Value::Bytes(bytes))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut list = Vec::with_capacity(elements.size_hint().unwrap_or(0).min(RESERVED_MAX));
        while let Some(element) = elements.next_element()? {
            list.push(element);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::with_capacity(entries.size_hint().unwrap_or(0).min(RESERVED_MAX));
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Value::Map(map))
    }

    fn visit_enum<A: serde::de::EnumAccess<'de>>(self, _: A) -> Result<Value, A::Error> {
        Err(A::Error::custom(
            "enums read as a string or a map of one entry",
        ))
    }
}

macro_rules! from {
    ($($from:ty => $variant:ident),* $(,)?) => {$(
        impl From<$from> for Value {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        }
    )*};
}
from!(
    bool => Bool, u8 => Integer, u16 => Integer, u32 => Integer, u64 => Integer,
    i8 => Integer, i16 => Integer, i32 => Integer, i64 => Integer,
    f32 => Float, f64 => Float, &str => String, String => String,
    &[u8] => Bytes, Vec<u8> => Bytes, Vec<Self> => List, Vec<(Self, Self)> => Map,
);
