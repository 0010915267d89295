//! `vaultdb snapshot` on encrypted stores: what needs no key, what the key adds, and that a wrong one changes nothing.

use vault_db::encryption::{EncryptedProtection, Kdf, Passphrase, SecretBytes};
use vault_db::{Database, EncryptedDatabase};

use super::support::{Content, Place, content, flip, image, name, ship_all};

/// Prints the passphrase, as a command that gets it would.
const RIGHT: [&str; 2] = ["--passphrase-command", "echo open sesame"];
const WRONG: [&str; 2] = ["--passphrase-command", "echo open barley"];

fn protection() -> EncryptedProtection {
    let secret = SecretBytes::from_string("open sesame".to_owned()).unwrap();
    let passphrase = Passphrase::new(secret).unwrap();
    // Accepted by whoever opens it, and as fast as that goes.
    let kdf = Kdf::Pbkdf2HmacSha256 {
        iterations: 100_000,
    };
    EncryptedProtection::with_source(std::sync::Arc::new(passphrase)).kdf(kdf)
}

fn open(place: &Place, directory: &str) -> EncryptedDatabase {
    let builder = Database::builder();
    builder
        .open_encrypted_with(place.at(directory), protection())
        .unwrap()
}

fn content_of(place: &Place, directory: &str) -> Content {
    let db = open(place, directory);
    let content = content(&db);
    db.close().unwrap();
    content
}

struct Bench {
    place: Place,
    names: [String; 2],
    contents: [Content; 2],
}

fn with<'a>(arguments: &[&'a str], key: [&'a str; 2]) -> Vec<&'a str> {
    [arguments, &key].concat()
}

/// An encrypted store and two snapshots of it.
fn bench() -> Bench {
    let place = Place::new();
    let db = open(&place, "store");
    let secrets = db.vault("secrets").unwrap();
    for n in 0..100_i64 {
        secrets.put(format!("secret-key-{n:02}"), &n).unwrap();
    }
    let first = content(&db);
    db.close().unwrap();
    let made = place.json(0, &with(&["create", "store", "snapshots"], RIGHT));
    let first_name = name(&made["name"]).to_owned();
    let db = open(&place, "store");
    db.vault("secrets")
        .unwrap()
        .put("secret-key-00", &-1)
        .unwrap();
    let second = content(&db);
    db.close().unwrap();
    let made = place.json(0, &with(&["create", "store", "snapshots"], RIGHT));
    assert_eq!(
        (&made["encrypted"], &made["entries"]),
        (&true.into(), &serde_json::Value::Null)
    );
    Bench {
        place,
        names: [first_name, name(&made["name"]).to_owned()],
        contents: [first, second],
    }
}

#[test]
fn hashes_need_no_key_and_blocks_do() {
    let Bench {
        place,
        names: [first, second],
        ..
    } = bench();
    let said = place.ends(0, &["verify", "snapshots", "--all"]);
    assert_eq!(
        said.matches("with its key, its blocks can be checked, too")
            .count(),
        2,
        "{said}"
    );
    let verified = place.json(0, &with(&["verify", "snapshots"], RIGHT));
    assert_eq!(name(&verified[0]["snapshot"]), second);
    assert_eq!(verified[0]["content"]["assurance"], "authenticity");
    let listed = place.ends(0, &["list", "snapshots"]);
    assert!(
        listed.contains("encrypted") && !listed.contains("secret"),
        "{listed}"
    );
    flip(&place.archive(&first), 3000);
    place.ends(1, &["verify", "snapshots", &first]);
}

#[test]
fn a_store_comes_back_with_its_key_and_without() {
    let Bench {
        place,
        names: [first, _],
        contents,
    } = bench();
    let told = place.json(
        0,
        &with(&["restore", "snapshots", "latest", "--to", "new"], RIGHT),
    );
    assert_eq!(told["opened"], true);
    assert_eq!(content_of(&place, "new"), contents[1]);
    let said = place.ends(0, &["restore", "snapshots", &first, "--to", "unseen"]);
    assert!(said.contains("nobody has looked into it"), "{said}");
    assert_eq!(content_of(&place, "unseen"), contents[0]);
}

#[test]
fn restores_in_place_differences_and_drills_take_the_key() {
    let Bench {
        place,
        names: [first, second],
        contents,
    } = bench();
    let said = place.ends(0, &with(&["diff", "snapshots", &first, &second], RIGHT));
    assert!(
        said.contains("secrets: 0 added, 1 changed, 0 removed, 99 the same"),
        "{said}"
    );
    let drilled = place.json(0, &with(&["drill", "snapshots"], RIGHT));
    assert_eq!(
        (&drilled["good"], &drilled["entries"]),
        (&true.into(), &100.into())
    );
    let before = image(&place.at("store"));
    let dry = [
        "restore",
        "snapshots",
        &first,
        "--into",
        "store",
        "--dry-run",
    ];
    let said = place.ends(0, &with(&dry, RIGHT));
    assert!(said.contains("secrets: 0 added, 1 changed"), "{said}");
    assert!(image(&place.at("store")) == before);
    place.ends(
        0,
        &with(&["restore", "snapshots", &first, "--into", "store"], RIGHT),
    );
    assert_eq!(content_of(&place, "store"), contents[0]);
}

#[test]
fn a_wrong_passphrase_and_none_change_nothing() {
    let Bench {
        place,
        names: [first, second],
        ..
    } = bench();
    let before = image(&place.at("."));
    for arguments in [
        &["create", "store", "snapshots"][..],
        &["verify", "snapshots"],
        &["verify", "snapshots", "--all"],
        &["diff", "snapshots", &*first, &*second],
        &["drill", "snapshots"],
        &["restore", "snapshots", &*first, "--to", "new"],
        &["restore", "snapshots", &*first, "--to", "new", "--dry-run"],
        &["restore", "snapshots", &*first, "--into", "store"],
        &[
            "restore",
            "snapshots",
            &*first,
            "--into",
            "store",
            "--dry-run",
        ],
    ] {
        let said = place.ends(3, &with(arguments, WRONG));
        assert!(!said.contains("secret-key"), "{said}");
        assert!(
            said.contains("key") || said.contains("passphrase"),
            "{said}"
        );
        assert!(image(&place.at(".")) == before, "{said}");
    }
    for arguments in [
        &["create", "store", "snapshots"][..],
        &["diff", "snapshots", &*first, &*second],
        &["drill", "snapshots"],
        &["restore", "snapshots", &*first, "--into", "store"],
        &[
            "restore-point",
            "snapshots",
            "--log",
            "log",
            "--end",
            "--to",
            "new",
        ],
    ] {
        let said = place.ends(3, arguments);
        assert!(image(&place.at(".")) == before, "{said}");
        // There is no archive of the log in the last case, which is told first.
        assert!(
            said.contains("nothing says where its key is") || said.contains("no snapshot"),
            "{said}"
        );
    }
}

#[test]
fn documents_of_an_encrypted_store_are_in_the_clear_only_where_that_is_said() {
    let Bench {
        place, contents, ..
    } = bench();
    let before = image(&place.at("snapshots"));
    let said = place.ends(
        3,
        &with(&["create", "store", "snapshots", "--logical"], RIGHT),
    );
    assert!(said.contains("--in-the-clear"), "{said}");
    assert!(image(&place.at("snapshots")) == before);
    let meant = [
        "create",
        "store",
        "snapshots",
        "--logical",
        "--in-the-clear",
    ];
    place.ends(0, &with(&meant, RIGHT));
    // What becomes of documents is encrypted under the key that is given.
    place.ends(
        0,
        &with(&["restore", "snapshots", "latest", "--to", "new"], RIGHT),
    );
    assert_eq!(content_of(&place, "new"), contents[1]);
    assert!(Database::open(place.at("new")).is_err());
}

#[test]
fn a_point_of_the_log_takes_the_key() {
    let place = Place::new();
    let db = open(&place, "store");
    let snapshots = db.snapshots(place.at("snapshots")).unwrap();
    let archiver = snapshots.log_archive(place.at("log")).start(None).unwrap();
    db.vault("secrets").unwrap().put("secret-key", &1).unwrap();
    ship_all(&db, archiver);
    let now = content(&db);
    db.close().unwrap();
    let point = [
        "restore-point",
        "snapshots",
        "--log",
        "log",
        "--end",
        "--to",
        "new",
    ];
    let before = image(&place.at("."));
    let said = place.ends(3, &point);
    assert!(said.contains("nothing says where its key is"), "{said}");
    place.ends(3, &with(&point, WRONG));
    assert!(image(&place.at(".")) == before);
    place.ends(0, &with(&point, RIGHT));
    assert_eq!(content_of(&place, "new"), now);
}

/// The signal comes while the key is being got, which is before anything is copied: the shell that gets it sends it.
#[test]
fn an_interrupted_snapshot_leaves_nothing() {
    let Bench {
        place, contents, ..
    } = bench();
    let before = image(&place.at("snapshots"));
    for signal in ["INT", "TERM"] {
        let command = format!("kill -{signal} $PPID; echo open sesame");
        let key = ["--passphrase-command", &*command];
        let said = place.ends(3, &with(&["create", "store", "snapshots", "--full"], key));
        assert!(said.contains("cancelled"), "{said}");
        assert!(image(&place.at("snapshots")) == before);
        let into = ["restore", "snapshots", "latest", "--into", "store"];
        let said = place.ends(3, &with(&into, key));
        assert!(said.contains("cancelled"), "{said}");
    }
    // Whoever does not want to wait for that asks twice.
    let twice = "kill -INT $PPID; sleep 0.3; kill -INT $PPID; sleep 0.3; echo open sesame";
    let key = ["--passphrase-command", twice];
    place.ends(130, &with(&["create", "store", "snapshots"], key));
    assert!(image(&place.at("snapshots")) == before);
    assert_eq!(content_of(&place, "store"), contents[1]);
    place.ends(0, &with(&["create", "store", "snapshots", "--full"], RIGHT));
}

/// Nothing is decrypted into a store in the clear, or archived in the clear, by whoever gives a key.
#[test]
fn a_key_is_refused_where_the_store_is_in_the_clear() {
    let Bench { place, names, .. } = bench();
    let plain = Database::builder().open(place.at("plain")).unwrap();
    plain.vault("open").unwrap().put("key", &1).unwrap();
    let before = content(&plain);
    plain.close().unwrap();
    let into = ["restore", "snapshots", &names[0], "--into", "plain"];
    let cases: [&[&str]; 3] = [
        &into,
        &[&into[..], &["--dry-run"]].concat(),
        &["create", "plain", "others"],
    ];
    for arguments in cases {
        let told = place.ends(3, &with(arguments, RIGHT));
        assert!(told.contains("is not encrypted"), "{arguments:?}: {told}");
    }
    assert!(!place.is_there("others"));
    let plain = Database::builder().open(place.at("plain")).unwrap();
    assert_eq!(content(&plain), before);
    plain.close().unwrap();
}
