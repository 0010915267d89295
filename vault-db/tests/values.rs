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
