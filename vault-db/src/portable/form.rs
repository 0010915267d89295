//! Keys and values as JSON, and back.

use base64ct::{Base64, Encoding};
use serde_json::{Map, Number, Value as Json};

use crate::key::Key;
use crate::value::Value;

pub(super) fn base64(bytes: &[u8]) -> String {
    Base64::encode_string(bytes)
}

pub(super) fn from_base64(text: &str) -> Result<Vec<u8>, String> {
    Base64::decode_vec(text).map_err(|_| "it is no Base64 with padding".to_owned())
}

fn marked(mark: &str, content: Json) -> Json {
    Json::Object(Map::from_iter([(mark.to_owned(), content)]))
}

fn number(number: i128) -> Json {
    match (u64::try_from(number), i64::try_from(number)) {
        (Ok(number), _) => Json::from(number),
        (_, Ok(number)) => Json::from(number),
        // Neither keys nor values hold such a number.
        _ => Json::from(number.to_string()),
    }
}

/// A key as JSON.
pub(super) fn key_to_json(key: &Key) -> Json {
    match key {
        Key::String(string) => Json::from(string.as_str()),
        Key::Bytes(bytes) => marked("$bytes", Json::from(base64(bytes))),
        Key::Integer(integer) => marked("$integer", number(*integer)),
        Key::Bool(bool) => marked("$bool", Json::from(*bool)),
        Key::Tuple(elements) => {
            let elements = elements.iter().map(key_to_json).collect();
            marked("$tuple", Json::Array(elements))
        }
    }
}

/// A value as JSON.
pub(super) fn value_to_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(bool) => Json::from(*bool),
        Value::Integer(integer) => number(*integer),
        Value::Float(float) => match Number::from_f64(*float) {
            Some(number) => Json::Number(number),
            None if float.is_nan() => marked("$float", Json::from("NaN")),
            None if *float > 0.0 => marked("$float", Json::from("inf")),
            None => marked("$float", Json::from("-inf")),
        },
        Value::String(string) => Json::from(string.as_str()),
        Value::Bytes(bytes) => marked("$bytes", Json::from(base64(bytes))),
        Value::List(values) => Json::Array(values.iter().map(value_to_json).collect()),
        Value::Map(entries) => map_to_json(entries),
    }
}

fn map_to_json(entries: &[(Value, Value)]) -> Json {
    let mut map = Map::new();
    for (key, value) in entries {
        match key {
            Value::String(key) if !key.starts_with('$') && !map.contains_key(key) => {
                map.insert(key.clone(), value_to_json(value));
            }
            _ => {
                let pair = |(key, value): &(Value, Value)| {
                    Json::Array(vec![value_to_json(key), value_to_json(value)])
                };
                return marked("$map", Json::Array(entries.iter().map(pair).collect()));
            }
        }
    }
    Json::Object(map)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::transcode::Entry;
    use super::*;
    use crate::key::DecodeKey;
    use crate::value::decode;

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            prop_oneof![
                Just(f64::INFINITY),
                Just(1.0),
                Just(-0.0),
                any::<f64>().prop_filter("NaN differs from itself", |f| !f.is_nan())
            ]
            .prop_map(Value::Float),
            "[$a\\x00\"ß]{0,5}".prop_map(Value::String),
            prop::collection::vec(any::<u8>(), 0..6).prop_map(Value::Bytes),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
                prop::collection::vec((inner.clone(), inner), 0..4).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn values_come_back(value in values()) {
            let back = read("\"k\"", &value_to_json(&value).to_string()).unwrap().1;
            // JSON maps have no order of their own; ours are written as they stand and read in the order of keys.
            prop_assert_eq!(sorted(back), sorted(value));
        }
    }

    fn sorted(value: Value) -> Value {
        match value {
            Value::List(values) => Value::List(values.into_iter().map(sorted).collect()),
            Value::Map(entries) => {
                let mut entries: Vec<_> = entries
                    .into_iter()
                    .map(|(key, value)| (sorted(key), sorted(value)))
                    .collect();
                if entries.iter().all(|(key, _)| key.as_str().is_some()) {
                    entries.sort_by(|a, b| a.0.as_str().cmp(&b.0.as_str()));
                }
                Value::Map(entries)
            }
            other => other,
        }
    }

    /// Reads a key and a value that are given as JSON.
    fn read(key: &str, value: &str) -> Result<(Key, Value), String> {
        let text = format!("{{\"key\": {key}, \"value\": {value}}}");
        let entry: Entry = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let key = Key::decode_key(&entry.key)?;
        let value = match entry.is_raw {
            true => Value::Bytes(entry.content),
            false => decode(&entry.content).map_err(|mismatch| mismatch.problem)?,
        };
        Ok((key, value))
    }

    #[test]
    fn keys_come_back() {
        let keys = [
            Key::from("a"),
            Key::from(""),
            Key::from(vec![0, 255]),
            Key::from(u64::MAX),
            Key::from(i64::MIN),
            Key::from(true),
            Key::Tuple(vec![]),
            Key::Tuple(vec![
                Key::from("a\0b"),
                Key::Tuple(vec![Key::from(1)]),
                Key::Tuple(vec![]),
            ]),
        ];
        for key in keys {
            let text = key_to_json(&key).to_string();
            assert_eq!(read(&text, "1"), Ok((key, Value::from(1))), "{text}");
        }
    }

    #[test]
    fn what_is_read_is_stored_as_what_was_put() {
        for value in [
            Value::from((0..20).map(Value::from).collect::<Vec<_>>()),
            Value::from((0..70_000).map(Value::from).collect::<Vec<_>>()),
            Value::Map(
                (0..300)
                    .map(|n| (Value::from(format!("{n:03}")), Value::Null))
                    .collect(),
            ),
        ] {
            let text = format!("{{\"key\": \"k\", \"value\": {}}}", value_to_json(&value));
            let entry: Entry = serde_json::from_str(&text).unwrap();
            assert_eq!(
                entry.content,
                crate::value::encode(&value, None).unwrap()[1..]
            );
        }
    }

    #[test]
    fn odd_json_is_refused() {
        for key in [
            "1",
            "null",
            "[]",
            "{}",
            r#"{"$bytes": "x"}"#,
            r#"{"$bytes": 1}"#,
            r#"{"$what": 1}"#,
            r#"{"$integer": 1.5}"#,
            r#"{"$integer": 18446744073709551616}"#,
            r#"{"$bool": true, "$integer": 1}"#,
            &format!("\"{}\"", "x".repeat(70_000)),
            &format!("{}1{}", r#"{"$tuple": ["#.repeat(60), "]}".repeat(60)),
        ] {
            assert!(read(key, "1").is_err(), "{key}");
        }
        for value in [
            r#"{"$bytes": "x"}"#,
            r#"{"$bytes": "AA==", "b": 1}"#,
            r#"{"b": 1, "$bytes": "AA=="}"#,
            r#"{"$float": "1"}"#,
            r#"{"$map": [[1]]}"#,
            r#"{"$map": [[1, 2, 3]]}"#,
            r#"{"$map": 1}"#,
            r#"{"$tuple": []}"#,
            r#"[{"$raw": "AA=="}]"#,
        ] {
            assert!(read("\"k\"", value).is_err(), "{value}");
        }
        for entry in [
            "{}",
            r#"{"key": "a"}"#,
            r#"{"value": 1}"#,
            r#"{"key": "a", "key": "a", "value": 1}"#,
        ] {
            assert!(serde_json::from_str::<Entry>(entry).is_err(), "{entry}");
        }
    }
}
