//! From JSON straight to what is stored: no tree of the text is made, so that what an entry takes in memory is bounded by what
//! it takes when it is stored, however it is written.

use std::fmt;

use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use vault_core::limits::KEY_BYTES_MAX;

use super::form::from_base64;
use crate::key::{EncodeKey, NESTING_MAX as KEY_NESTING_MAX, tag};
use crate::value::{self, NESTING_MAX};

/// An entry as a text has it.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// Encoded.
    pub(super) key: Vec<u8>,
    /// MessagePack, or raw bytes.
    pub(super) content: Vec<u8>,
    pub(super) is_raw: bool,
    pub(super) expires_at: Option<u64>,
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an entry with `key`, `value` and perhaps `expires_at`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
        let mut entry = Entry::default();
        let (mut has_key, mut has_value) = (false, false);
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "key" if !has_key => {
                    map.next_value_seed(KeySeed {
                        out: &mut entry.key,
                        depth: 0,
                    })?;
                    has_key = true;
                }
                "value" if !has_value => {
                    map.next_value_seed(ValueSeed {
                        out: &mut entry.content,
                        is_raw: Some(&mut entry.is_raw),
                        depth: 0,
                    })?;
                    has_value = true;
                }
                "expires_at" if entry.expires_at.is_none() => {
                    entry.expires_at = map.next_value()?;
                }
                "key" | "value" | "expires_at" => {
                    return Err(A::Error::custom(format_args!("{name:?} stands twice")));
                }
                _ => {
                    let name: String = name.chars().take(64).collect();
                    return Err(A::Error::custom(format_args!(
                        "{name:?} is no part of an entry"
                    )));
                }
            }
        }
        match (has_key, has_value) {
            (true, true) => Ok(entry),
            (false, _) => Err(A::Error::missing_field("key")),
            (true, false) => Err(A::Error::missing_field("value")),
        }
    }
}

/// Encodes a key.
struct KeySeed<'a> {
    out: &'a mut Vec<u8>,
    /// Tuples that it stands in.
    depth: usize,
}

impl KeySeed<'_> {
    fn put<E: serde::de::Error>(&mut self, key: &(impl EncodeKey + ?Sized)) -> Result<(), E> {
        let put = match self.depth {
            0 => key.encode_key(self.out),
            depth => key.encode_element(self.out, depth),
        };
        put.map_err(E::custom)?;
        if self.out.len() > KEY_BYTES_MAX {
            return Err(E::custom(format_args!(
                "a key of more than {KEY_BYTES_MAX} bytes"
            )));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for KeySeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key: a string, or an object with one mark such as `$bytes`")
    }

    fn visit_str<E: serde::de::Error>(mut self, string: &str) -> Result<(), E> {
        self.put(string)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mark: Option<String> = map.next_key()?;
        match mark.as_deref() {
            Some("$bytes") => {
                let text: String = map.next_value()?;
                let bytes = from_base64(&text).map_err(A::Error::custom)?;
                self.put(&bytes[..])?;
            }
            Some("$integer") => {
                let Integer(number) = map.next_value()?;
                self.put(&number)?;
            }
            Some("$bool") => {
                let bool: bool = map.next_value()?;
                self.put(&bool)?;
            }
            Some("$tuple") if self.depth < KEY_NESTING_MAX => map.next_value_seed(TupleSeed {
                out: self.out,
                depth: self.depth,
            })?,
            _ => return Err(A::Error::custom("an object that marks no key")),
        }
        nothing_follows(&mut map)
    }
}

/// Refuses anything behind a mark.
fn nothing_follows<'de, A: MapAccess<'de>>(map: &mut A) -> Result<(), A::Error> {
    match map.next_key::<IgnoredAny>()? {
        None => Ok(()),
        Some(_) => Err(A::Error::custom(
            "an object with a mark has nothing else in it",
        )),
    }
}

/// A whole number of 64 bits.
struct Integer(i128);

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IntegerVisitor;
        impl Visitor<'_> for IntegerVisitor {
            type Value = Integer;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer of 64 bits")
            }

            fn visit_i64<E>(self, number: i64) -> Result<Integer, E> {
                Ok(Integer(number.into()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Integer, E> {
                Ok(Integer(number.into()))
            }
        }
        deserializer.deserialize_any(IntegerVisitor)
    }
}

/// Encodes the elements of a tuple.
struct TupleSeed<'a> {
    out: &'a mut Vec<u8>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for TupleSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for TupleSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the elements of a tuple")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        self.out.push(tag::TUPLE);
        let depth = self.depth + 1;
        let out = self.out;
        while elements
            .next_element_seed(KeySeed {
                out: &mut *out,
                depth,
            })?
            .is_some()
        {}
        if self.depth > 0 {
            out.push(tag::END);
        }
        Ok(())
    }
}

/// Appends a value as MessagePack, or raw bytes, where that is possible.
struct ValueSeed<'a> {
    out: &'a mut Vec<u8>,
    /// Set for raw bytes, which only the value of an entry can be.
    is_raw: Option<&'a mut bool>,
    /// Lists and maps that it stands in.
    depth: usize,
}

impl ValueSeed<'_> {
    fn put<T: serde::Serialize + ?Sized, E: serde::de::Error>(self, value: &T) -> Result<(), E> {
        rmp_serde::encode::write(self.out, value).map_err(E::custom)
    }
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.put(&())
    }

    fn visit_bool<E: serde::de::Error>(self, bool: bool) -> Result<(), E> {
        self.put(&bool)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<(), E> {
        self.put(&number)
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<(), E> {
        self.put(&number)
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<(), E> {
        self.put(&number)
    }

    fn visit_str<E: serde::de::Error>(self, string: &str) -> Result<(), E> {
        self.put(string)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let depth = deeper(self.depth)?;
        let start = self.out.len();
        let out = self.out;
        let mut count = 0_u32;
        while elements
            .next_element_seed(ValueSeed {
                out: &mut *out,
                is_raw: None,
                depth,
            })?
            .is_some()
        {
            count = count.checked_add(1).ok_or_else(too_many)?;
        }
        put_length(out, start, LIST, count);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let start = self.out.len();
        let out = self.out;
        let mut count = 0_u32;
        let mut name: Option<String> = map.next_key()?;
        if let Some(mark) = name.as_deref().filter(|name| name.starts_with('$')) {
            visit_marked(&mut map, mark, out, self.is_raw, self.depth)?;
            return nothing_follows(&mut map);
        }
        let depth = deeper(self.depth)?;
        while let Some(field) = name {
            if field.starts_with('$') {
                return Err(A::Error::custom(
                    "an object with a mark has nothing else in it",
                ));
            }
            rmp_serde::encode::write(out, field.as_str()).map_err(A::Error::custom)?;
            map.next_value_seed(ValueSeed {
                out: &mut *out,
                is_raw: None,
                depth,
            })?;
            count = count.checked_add(1).ok_or_else(too_many)?;
            name = map.next_key()?;
        }
        put_length(out, start, MAP, count);
        Ok(())
    }
}

fn visit_marked<'de, A: MapAccess<'de>>(
    map: &mut A,
    mark: &str,
    out: &mut Vec<u8>,
    is_raw: Option<&mut bool>,
    depth: usize,
) -> Result<(), A::Error> {
    match (mark, is_raw) {
        ("$raw", Some(is_raw)) => {
            let text: String = map.next_value()?;
            out.extend(from_base64(&text).map_err(A::Error::custom)?);
            *is_raw = true;
            Ok(())
        }
        ("$bytes", _) => {
            let text: String = map.next_value()?;
            let bytes = from_base64(&text).map_err(A::Error::custom)?;
            let bytes = value::Value::Bytes(bytes);
            rmp_serde::encode::write(out, &bytes).map_err(A::Error::custom)
        }
        ("$float", _) => {
            let text: String = map.next_value()?;
            let float = match text.as_str() {
                "NaN" => f64::NAN,
                "inf" => f64::INFINITY,
                "-inf" => f64::NEG_INFINITY,
                _ => {
                    return Err(A::Error::custom(
                        "a float that is none of NaN, inf and -inf",
                    ));
                }
            };
            rmp_serde::encode::write(out, &float).map_err(A::Error::custom)
        }
        ("$map", _) => map.next_value_seed(PairsSeed {
            out,
            depth: deeper(depth)?,
        }),
        _ => {
            let mark: String = mark.chars().take(64).collect();
            Err(A::Error::custom(format_args!("{mark:?} marks no value")))
        }
    }
}

/// Goes into a list or map. Nothing else bounds how many of them a text may have in one another.
fn deeper<E: serde::de::Error>(depth: usize) -> Result<usize, E> {
    if depth < NESTING_MAX {
        return Ok(depth + 1);
    }
    Err(E::custom(format_args!(
        "a value with more than {NESTING_MAX} lists and maps in one another"
    )))
}

fn too_many<E: serde::de::Error>() -> E {
    E::custom("more than 2^32 of something")
}

/// The first bytes of lists and maps: up to 15 elements, up to 2¹⁶, up to 2³² (MessagePack specification, "Formats").
const LIST: [u8; 3] = [0x90, 0xdc, 0xdd];
const MAP: [u8; 3] = [0x80, 0xde, 0xdf];

/// Puts the length of a list or map in front of its elements, which begin at `start`.
fn put_length(out: &mut Vec<u8>, start: usize, first: [u8; 3], count: u32) {
    let mut head = Vec::with_capacity(5);
    match (u8::try_from(count), u16::try_from(count)) {
        (Ok(count), _) if count < 16 => head.push(first[0] | count),
        (_, Ok(count)) => {
            head.push(first[1]);
            head.extend_from_slice(&count.to_be_bytes());
        }
        _ => {
            head.push(first[2]);
            head.extend_from_slice(&count.to_be_bytes());
        }
    }
    out.splice(start..start, head);
}

/// Appends the pairs of a `$map`.
struct PairsSeed<'a> {
    out: &'a mut Vec<u8>,
    /// Lists and maps that the pairs stand in, their own included.
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for PairsSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for PairsSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pairs of keys and values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut pairs: A) -> Result<(), A::Error> {
        let (out, depth) = (self.out, self.depth);
        let start = out.len();
        let mut count = 0_u32;
        while pairs
            .next_element_seed(PairSeed {
                out: &mut *out,
                depth,
            })?
            .is_some()
        {
            count = count.checked_add(1).ok_or_else(too_many)?;
        }
        put_length(out, start, MAP, count);
        Ok(())
    }
}

struct PairSeed<'a> {
    out: &'a mut Vec<u8>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for PairSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for PairSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a pair of a key and a value")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<(), A::Error> {
        let out = self.out;
        for part in 0..2 {
            let seed = ValueSeed {
                out: &mut *out,
                is_raw: None,
                depth: self.depth,
            };
            if pair.next_element_seed(seed)?.is_none() {
                return Err(A::Error::invalid_length(part, &"a key and a value"));
            }
        }
        match pair.next_element::<IgnoredAny>()? {
            None => Ok(()),
            Some(_) => Err(A::Error::invalid_length(3, &"a key and a value")),
        }
    }
}
