//! Values of every type, keys of every kind, and types that do not fit.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vault_db::{Database, Durability, Error, ErrorKind, Result, Value};

fn temp() -> Database {
    Database::builder()
        .durability(Durability::Os)
        .temp()
        .unwrap()
}

#[test]
fn values_of_every_type_come_back() {
    let db = temp();
    let vault = db.vault("types").unwrap();
    vault.put("string", "hello").unwrap();
    vault.put("int", &42).unwrap();
    vault.put("float", &2.5).unwrap();
    vault.put("bool", &true).unwrap();
    vault.put("none", &None::<u8>).unwrap();
    vault.put("list", &(1, 2, "three")).unwrap();
    vault.put("russian", "привет").unwrap();
    vault.put("emoji", "👋").unwrap();
    vault
        .put("special", "!@#$%^&*()_+-=[]{}|;':\",./<>?\0\n")
        .unwrap();
    vault.put("large", &"x".repeat(100_000)).unwrap();
    vault.put("larger", &vec![7_u8; 1 << 20]).unwrap();
    assert_eq!(
        vault.get::<String>("string").unwrap().as_deref(),
        Some("hello")
    );
    assert_eq!(vault.get::<i64>("int").unwrap(), Some(42));
    assert_eq!(vault.get::<f64>("float").unwrap(), Some(2.5));
    assert_eq!(vault.get::<bool>("bool").unwrap(), Some(true));
    assert_eq!(vault.get::<Option<u8>>("none").unwrap(), Some(None));
    assert_eq!(
        vault.get::<(u8, u8, String)>("list").unwrap(),
        Some((1, 2, "three".to_owned()))
    );
    assert_eq!(
        vault.get::<String>("russian").unwrap().as_deref(),
        Some("привет")
    );
    assert_eq!(vault.get::<String>("emoji").unwrap().as_deref(), Some("👋"));
    assert_eq!(
        vault.get::<String>("large").unwrap().unwrap().len(),
        100_000
    );
    assert_eq!(
        vault.get::<Vec<u8>>("larger").unwrap().unwrap(),
        vec![7; 1 << 20]
    );
    assert_eq!(
        vault.get::<Value>("list").unwrap(),
        Some(Value::List(vec![1.into(), 2.into(), "three".into()]))
    );
    assert_eq!(vault.get::<i64>("missing").unwrap(), None);
    assert_eq!(vault.get_or("missing", 9).unwrap(), 9);
    assert_eq!(vault.len().unwrap(), 11);
}

#[test]
fn keys_of_every_kind_stand_in_order() {
    let db = temp();
    let vault = db.vault("keys").unwrap();
    vault.put("text", &1).unwrap();
    vault.put(&b"bytes"[..], &2).unwrap();
    vault.put(("a", 1_u8), &3).unwrap();
    vault.put(("a", 2_u8), &4).unwrap();
    vault.put(("b", -1_i64), &5).unwrap();
    vault.put(-5, &6).unwrap();
    vault.put(70_000, &7).unwrap();
    vault.put(true, &8).unwrap();
    let order: Vec<i64> = vault
        .values()
        .unwrap()
        .map(|value| value.unwrap())
        .collect();
    assert_eq!(order, [2, 1, 3, 4, 5, 6, 7, 8]);
    let of_a: Vec<(String, u8)> = vault
        .prefix::<(String, u8), i64>(("a",))
        .unwrap()
        .map(|item| item.unwrap().0)
        .collect();
    assert_eq!(of_a, [("a".to_owned(), 1), ("a".to_owned(), 2)]);
    // A zero byte in an element is content, not its end.
    vault.put(("a\0b", 1_u8), &0).unwrap();
    let of_a = vault.prefix::<(String, u8), i64>(("a",)).unwrap();
    assert_eq!(of_a.count(), 2, "another user's entry");
    assert!(vault.remove(("a\0b", 1_u8)).unwrap());
    let Some(Err(Error::KeyMismatch {
        found, expected, ..
    })) = vault.keys::<String>().unwrap().next()
    else {
        panic!()
    };
    assert_eq!((found, expected), ("bytes", "alloc::string::String"));
    let last: Vec<i64> = vault
        .range::<i64, i64>(0..)
        .unwrap()
        .filter_map(Result::ok)
        .map(|(_, n)| n)
        .collect();
    assert_eq!(last, [7]);
}

#[test]
fn raw_bytes_and_values_are_told_apart() {
    let db = temp();
    let vault = db.vault("raw").unwrap();
    vault.put_raw("r", b"\x93\x01").unwrap();
    vault.put_raw("empty", b"").unwrap();
    vault.put("v", &1).unwrap();
    assert_eq!(&vault.get_raw("r").unwrap().unwrap()[..], b"\x93\x01");
    assert_eq!(&vault.get_raw("empty").unwrap().unwrap()[..], b"");
    assert!(vault.get_raw("missing").unwrap().is_none());
    let Err(Error::TypeMismatch { found, .. }) = vault.get::<Vec<u8>>("r") else {
        panic!()
    };
    assert_eq!(found, "raw bytes");
    let Err(Error::TypeMismatch {
        expected, found, ..
    }) = vault.get_raw("v")
    else {
        panic!()
    };
    assert_eq!((expected, found), ("raw bytes", "an integer"));
}

#[test]
fn a_type_that_does_not_fit_is_named_and_nothing_is_lost() {
    #[derive(Debug, Serialize, Deserialize)]
    struct User {
        name: String,
        age: u8,
    }
    let db = temp();
    let vault = db.vault("users").unwrap();
    vault.put("alice", "just a string").unwrap();
    let error = vault.get::<User>("alice").unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("\"alice\"") && text.contains("a string") && text.contains("User"),
        "{text}"
    );
    assert_eq!(error.kind(), ErrorKind::Input);
    vault
        .put("bob", &BTreeMap::from([("name", "bob")]))
        .unwrap();
    assert!(
        vault
            .get::<User>("bob")
            .unwrap_err()
            .to_string()
            .contains("age")
    );
    assert!(matches!(
        vault.pop::<User>("alice"),
        Err(Error::TypeMismatch { .. })
    ));
    assert!(matches!(
        vault.increment("alice", 1),
        Err(Error::TypeMismatch { .. })
    ));
    assert!(matches!(
        vault.pop_first::<String, User>(),
        Err(Error::TypeMismatch { .. })
    ));
    assert!(matches!(
        vault.pop_first::<i64, String>(),
        Err(Error::KeyMismatch { .. })
    ));
    assert_eq!(vault.len().unwrap(), 2);
    vault.put("n", &i64::MAX).unwrap();
    let Err(Error::CounterOverflow { from, by, .. }) = vault.increment("n", 1) else {
        panic!()
    };
    assert_eq!((from, by), (i64::MAX, 1));
    assert_eq!(vault.get::<i64>("n").unwrap(), Some(i64::MAX));
    // A scan tells of it, and goes on.
    let users: Vec<bool> = vault
        .items::<String, User>()
        .unwrap()
        .map(|item| item.is_ok())
        .collect();
    assert_eq!(users, [false, false, false]);
}

/// What serde cannot make of a value.
struct Unwritable;

impl Serialize for Unwritable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> std::result::Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("a socket cannot be stored"))
    }
}

impl<'de> Deserialize<'de> for Unwritable {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> std::result::Result<Self, D::Error> {
        Ok(Self)
    }
}

/// Lists in one another, deeper than any reader goes.
struct Deep(u32);

impl Serialize for Deep {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        match self.0 {
            0 => serializer.serialize_unit(),
            depth => serializer.collect_seq([Self(depth - 1)]),
        }
    }
}

#[test]
fn a_value_that_cannot_be_encoded_is_refused_by_every_verb() {
    let db = temp();
    let vault = db.vault("v").unwrap();
    vault.put("a", &1).unwrap();
    let refused = |verb: &str, result: Result<()>| {
        let Err(Error::NotEncodable { type_name, problem }) = result else {
            panic!("{verb}: {result:?}")
        };
        assert!(type_name.contains("Unwritable"), "{verb}: {type_name}");
        assert!(problem.contains("a socket"), "{verb}: {problem}");
    };
    let bad = &Unwritable;
    let hour = std::time::Duration::from_secs(3600);
    refused("put", vault.put("a", bad));
    refused("put_for", vault.put_for("a", bad, hour));
    refused("set_default", vault.set_default("b", bad).map(drop));
    refused(
        "update",
        vault.update([("a", Unwritable), ("b", Unwritable)]),
    );
    refused(
        "compare_and_set",
        vault.compare_and_set("b", None, Some(bad)).map(drop),
    );
    refused(
        "entry",
        vault.entry("b").unwrap().or_insert(Unwritable).map(drop),
    );
    refused(
        "transaction",
        db.write(|tx| {
            let vault = tx.vault("v")?;
            vault.put("b", &2)?;
            vault.put("a", bad)
        }),
    );
    let deep = vault.put("a", &Deep(200));
    assert!(matches!(deep, Err(Error::NotEncodable { .. })), "{deep:?}");
    assert_eq!(vault.get::<i64>("a").unwrap(), Some(1));
    assert_eq!(vault.len().unwrap(), 1);
    vault.put("a", &Deep(100)).unwrap();
    assert!(vault.get::<Value>("a").is_ok());
}

#[test]
fn numbers_at_their_ends_come_back() {
    let db = temp();
    let vault = db.vault("v").unwrap();
    vault.put("i64", &i64::MIN).unwrap();
    vault.put("u64", &u64::MAX).unwrap();
    vault.put("f64", &f64::MIN_POSITIVE).unwrap();
    vault.put("nan", &f64::NAN).unwrap();
    vault.put("minus zero", &-0.0_f64).unwrap();
    vault.put("f32", &f32::MAX).unwrap();
    vault.put("char", &'\u{10ffff}').unwrap();
    assert_eq!(vault.get::<i64>("i64").unwrap(), Some(i64::MIN));
    assert_eq!(vault.get::<u64>("u64").unwrap(), Some(u64::MAX));
    assert_eq!(vault.get::<f64>("f64").unwrap(), Some(f64::MIN_POSITIVE));
    assert!(vault.get::<f64>("nan").unwrap().unwrap().is_nan());
    assert!(
        vault
            .get::<f64>("minus zero")
            .unwrap()
            .unwrap()
            .is_sign_negative()
    );
    assert_eq!(vault.get::<f32>("f32").unwrap(), Some(f32::MAX));
    assert_eq!(vault.get::<char>("char").unwrap(), Some('\u{10ffff}'));
    // What is too large for the type is told, not cut.
    assert!(matches!(
        vault.get::<i64>("u64"),
        Err(Error::TypeMismatch { .. })
    ));
    assert!(matches!(
        vault.get::<u64>("i64"),
        Err(Error::TypeMismatch { .. })
    ));
    assert!(matches!(
        vault.get::<u8>("f64"),
        Err(Error::TypeMismatch { .. })
    ));
    assert_eq!(
        vault.get::<Value>("u64").unwrap(),
        Some(Value::from(u64::MAX))
    );
}

#[test]
fn ranges_go_both_ways() {
    let db = temp();
    let vault = db.vault("v").unwrap();
    vault.update((0..10).map(|n| (n, n * n))).unwrap();
    let forth: Vec<(i64, i64)> = vault
        .range(3..7)
        .unwrap()
        .map(|item| item.unwrap())
        .collect();
    let mut back: Vec<(i64, i64)> = vault
        .range(3..7)
        .unwrap()
        .rev()
        .map(|item| item.unwrap())
        .collect();
    assert_eq!(forth, [(3, 9), (4, 16), (5, 25), (6, 36)]);
    back.reverse();
    assert_eq!(forth, back);
    // Both ends of one scan meet, and give each entry once.
    let mut both = vault.range::<i64, i64>(..).unwrap();
    let mut met = Vec::new();
    while let Some(item) = both.next() {
        met.push(item.unwrap().0);
        met.extend(both.next_back().map(|item| item.unwrap().0));
    }
    assert_eq!(met, [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]);
    let keys: Vec<i64> = vault
        .keys()
        .unwrap()
        .rev()
        .map(|key| key.unwrap())
        .collect();
    assert_eq!(keys, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
    let inclusive: Vec<(i64, i64)> = vault
        .range(..=1)
        .unwrap()
        .map(|item| item.unwrap())
        .collect();
    assert_eq!(inclusive, [(0, 0), (1, 1)]);
    // One that ends before it begins is empty.
    #[expect(clippy::reversed_empty_ranges, reason = "this is about them")]
    let backwards = 7..3;
    assert_eq!(vault.range::<i64, i64>(backwards).unwrap().count(), 0);
}
