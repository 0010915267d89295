//! Values: anything that serde can serialize, stored so that it describes itself.
//!
//! # The bytes
//! ```text
//! form     u8   low bits: 0 raw bytes, 1 MessagePack; 0x80: an expiry follows
//! expiry   u64  little-endian, milliseconds since 1970; only with 0x80
//! content       the raw bytes as they are, or one MessagePack value: structs as maps by the names of their fields
//! ```
//!
//! The engine knows the expiry too, and hides the entry when it has come. Here it stands for whoever copies, exports
//! or shows the entry.

mod dynamic;
mod nesting;
mod stored;

use std::any::type_name;

use serde::Serialize;
use serde::de::DeserializeOwned;
use vault_core::Timestamp;

pub use dynamic::Value;
pub(crate) use nesting::is_readable;
pub(crate) use stored::{Content, Stored};

use crate::error::{Error, Result};

pub(crate) const FORM_RAW: u8 = 0;
pub(crate) const FORM_MESSAGE_PACK: u8 = 1;
pub(crate) const HAS_EXPIRY: u8 = 0x80;

/// Lists and maps in one another, at most. Reading and writing recurse.
pub(crate) const NESTING_MAX: usize = 128;

fn put_header(out: &mut Vec<u8>, form: u8, expiry: Option<Timestamp>) {
    match expiry {
        None => out.push(form),
        Some(expiry) => {
            out.push(form | HAS_EXPIRY);
            out.extend_from_slice(&expiry.0.to_le_bytes());
        }
    }
}

/// Encodes a value as it is stored.
pub(crate) fn encode<V: Serialize + ?Sized>(
    value: &V,
    expiry: Option<Timestamp>,
) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(128);
    encode_into(&mut out, value, expiry)?;
    Ok(out)
}

/// As [`encode`], into an empty buffer.
pub(crate) fn encode_into<V: Serialize + ?Sized>(
    out: &mut Vec<u8>,
    value: &V,
    expiry: Option<Timestamp>,
) -> Result<()> {
    put_header(out, FORM_MESSAGE_PACK, expiry);
    let refused = |problem: String| Error::NotEncodable {
        type_name: type_name::<V>(),
        problem,
    };
    let header_bytes = out.len();
    let mut serializer = rmp_serde::Serializer::new(&mut *out)
        .with_struct_map()
        .with_bytes(rmp_serde::config::BytesMode::ForceIterables);
    value
        .serialize(&mut serializer)
        .map_err(|error| refused(error.to_string()))?;
    if !is_readable(&out[header_bytes..]) {
        return Err(refused(format!(
            "it has more than {NESTING_MAX} lists and maps in one another"
        )));
    }
    Ok(())
}

/// Puts raw bytes in their envelope.
pub(crate) fn encode_raw(bytes: &[u8], expiry: Option<Timestamp>) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 9);
    encode_raw_into(&mut out, bytes, expiry);
    out
}

/// As [`encode_raw`], into an empty buffer.
pub(crate) fn encode_raw_into(out: &mut Vec<u8>, bytes: &[u8], expiry: Option<Timestamp>) {
    put_header(out, FORM_RAW, expiry);
    out.extend_from_slice(bytes);
}

/// A stored value with another expiry.
pub(crate) fn with_expiry(stored: &Stored<'_>, expiry: Option<Timestamp>) -> Vec<u8> {
    let (form, content) = match stored.content {
        Content::Raw(content) => (FORM_RAW, content),
        Content::MessagePack(content) => (FORM_MESSAGE_PACK, content),
    };
    let mut out = Vec::with_capacity(content.len() + 9);
    put_header(&mut out, form, expiry);
    out.extend_from_slice(content);
    out
}

/// Why a value could not be read as the type that was asked for.
#[derive(Debug)]
pub(crate) struct Mismatch {
    pub(crate) expected: &'static str,
    pub(crate) found: &'static str,
    pub(crate) problem: String,
}

/// Decodes MessagePack content, all of it.
pub(crate) fn decode<V: DeserializeOwned>(content: &[u8]) -> Result<V, Mismatch> {
    let mut rest = content;
    let mut deserializer = rmp_serde::Deserializer::new(&mut rest);
    // One more than there may be: the last one is refused.
    deserializer.set_max_depth(NESTING_MAX + 1);
    let mismatch = |problem: String| Mismatch {
        expected: type_name::<V>(),
        found: kind_of(content),
        problem,
    };
    let value = V::deserialize(&mut deserializer)
        .map_err(|error| mismatch(without_content(error.to_string())))?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(mismatch(format!("{} bytes follow the value", rest.len())))
    }
}

/// What serde says of a value that does not fit, without the value: messages go into logs.
fn without_content(problem: String) -> String {
    const CHARS_MAX: usize = 200;
    const EXPECTED: &str = ", expected ";
    const QUOTING: [&str; 3] = ["invalid type: ", "invalid value: ", "unknown variant "];
    let quotes = QUOTING.iter().any(|start| problem.starts_with(start));
    let quoted = problem
        .find(" \"")
        .into_iter()
        .chain(problem.find(" `"))
        .min();
    let problem = match (quotes, quoted) {
        (true, Some(quoted)) => {
            let expected = problem.rfind(EXPECTED).filter(|&at| at > quoted);
            let expected = expected.map_or("", |at| &problem[at..]);
            format!("{}{expected}", &problem[..quoted])
        }
        _ => problem,
    };
    match problem.char_indices().nth(CHARS_MAX) {
        Some((cut, _)) => format!("{}…", &problem[..cut]),
        None => problem,
    }
}

/// What a MessagePack value is, by its first byte (MessagePack specification, "Formats").
pub(crate) fn kind_of(content: &[u8]) -> &'static str {
    match content.first() {
        None => "nothing",
        Some(0xc0) => "null",
        Some(0xc2 | 0xc3) => "a boolean",
        Some(0x00..=0x7f | 0xcc..=0xd3 | 0xe0..=0xff) => "an integer",
        Some(0xca | 0xcb) => "a float",
        Some(0xa0..=0xbf | 0xd9..=0xdb) => "a string",
        Some(0xc4..=0xc6) => "bytes",
        Some(0x90..=0x9f | 0xdc | 0xdd) => "a list",
        Some(0x80..=0x8f | 0xde | 0xdf) => "a map",
        Some(_) => "an extension type",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    /// A message says what was found and what was expected, and nothing of what is stored.
    #[test]
    fn messages_do_not_quote_values() {
        let secret = "s3cret, expected nowhere `at all` \"".to_owned();
        let stored = encode(&secret, None).unwrap();
        let stored = Stored::parse(&stored).unwrap();
        let problems = [
            stored.read::<u64>().unwrap_err().problem,
            stored.read::<Role>().unwrap_err().problem,
            stored.read::<std::net::IpAddr>().unwrap_err().problem,
            stored.read::<char>().unwrap_err().problem,
        ];
        for problem in &problems {
            assert!(
                !problem.contains("s3cret") && !problem.contains("at all"),
                "{problem}"
            );
        }
        assert_eq!(problems[3], "invalid value: string, expected a character");
        for (said, told) in [
            (
                r#"invalid type: string "a, expected b", expected u64"#,
                "invalid type: string, expected u64",
            ),
            (
                "invalid value: integer `123`, expected u8",
                "invalid value: integer, expected u8",
            ),
            (
                "unknown variant `x`, expected `A` or `B`",
                "unknown variant, expected `A` or `B`",
            ),
            ("missing field `age`", "missing field `age`"),
        ] {
            assert_eq!(without_content(said.to_owned()), told);
        }
        let long = without_content("ß".repeat(1000));
        assert_eq!(long.chars().count(), 201);
    }

    fn through<V: Serialize + DeserializeOwned>(value: &V) -> V {
        let stored = encode(value, None).unwrap();
        Stored::parse(&stored).unwrap().read::<V>().unwrap()
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Role {
        Admin,
        Guest(u8),
        Member { since: i64 },
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct User {
        name: String,
        age: Option<u32>,
        roles: Vec<Role>,
        key: Vec<u8>,
        scores: BTreeMap<u16, f64>,
        pair: (i8, char),
        nothing: (),
    }

    #[test]
    fn every_shape_of_serde_comes_back() {
        let user = User {
            name: "Ада 👋".to_owned(),
            age: None,
            roles: vec![Role::Admin, Role::Guest(3), Role::Member { since: -5 }],
            key: vec![0, 255, 7],
            scores: [(1, 0.5), (9, f64::INFINITY)].into(),
            pair: (-128, 'ß'),
            nothing: (),
        };
        assert_eq!(through(&user), user);
        assert_eq!(through(&u64::MAX), u64::MAX);
        assert_eq!(through(&i64::MIN), i64::MIN);
        assert_eq!(through(&f32::MIN_POSITIVE), f32::MIN_POSITIVE);
        assert_eq!(through(&Some(Some(3))), Some(Some(3)));
        assert_eq!(through(&"x".repeat(100_000)).len(), 100_000);
        let by_number: HashMap<
            i32,
            Vec<String>,
            std::hash::BuildHasherDefault<std::hash::DefaultHasher>,
        > = [(-1, vec!["a".to_owned()])].into_iter().collect();
        assert_eq!(through(&by_number), by_number);
    }

    #[test]
    fn bytes_are_stored_as_bytes() {
        let stored = encode(&vec![1_u8, 2, 3], None).unwrap();
        assert_eq!(kind_of(&stored[1..]), "bytes");
        assert_eq!(through(&vec![1_u8, 2, 3]), vec![1, 2, 3]);
    }

    #[test]
    fn a_wrong_type_names_both() {
        let stored = encode("hello", None).unwrap();
        let mismatch = Stored::parse(&stored).unwrap().read::<u32>().unwrap_err();
        assert_eq!((mismatch.expected, mismatch.found), ("u32", "a string"));
        let stored = encode(&-1, None).unwrap();
        assert!(Stored::parse(&stored).unwrap().read::<u32>().is_err());
        let stored = encode_raw(b"hello", None);
        let stored = Stored::parse(&stored).unwrap();
        assert_eq!(stored.read::<String>().unwrap_err().found, "raw bytes");
        assert!(stored.read::<u32>().is_err() && stored.read::<Vec<u8>>().is_err());
        assert_eq!(
            stored.read::<Value>().unwrap(),
            Value::Bytes(b"hello".to_vec())
        );
    }

    #[test]
    fn what_cannot_be_encoded_says_why() {
        struct Unwilling;
        impl Serialize for Unwilling {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("no"))
            }
        }
        let Err(Error::NotEncodable { type_name, problem }) = encode(&Unwilling, None) else {
            panic!()
        };
        assert!(type_name.ends_with("Unwilling") && problem.contains("no"));
    }

    #[test]
    fn nesting_is_bounded_both_ways() {
        let mut deep = Value::Null;
        for _ in 0..NESTING_MAX * 4 {
            deep = Value::List(vec![deep]);
        }
        assert!(matches!(
            encode(&deep, None),
            Err(Error::NotEncodable { .. })
        ));
        let mut bytes = vec![FORM_MESSAGE_PACK];
        bytes.extend(std::iter::repeat_n(0x91, 100_000));
        assert!(Stored::parse(&bytes).unwrap().read::<Value>().is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Some(stored) = Stored::parse(&bytes) {
                let _ = stored.read::<Value>();
                let _ = stored.read::<User>();
            }
        }
    }
}
