//! What each verb does, on stores that take no key.

use vault_core::vfs::{DiskFileSystem, FileSystem};

use super::support::{
    Content, Place, Two, changes_nothing, close, content, content_at, fill, name, open, ship_all,
    two,
};

#[test]
fn snapshots_are_made_and_listed() {
    let Two {
        place,
        names: [first, second],
        contents,
    } = two();
    let said = place.ends(
        0,
        &[
            "create",
            "store",
            "snapshots",
            "--full",
            "--note",
            "before\nmoving",
        ],
    );
    assert!(
        said.contains("made ") && said.contains("full") && said.contains(r#""before\nmoving""#),
        "{said}"
    );

    let listed = place.json(0, &["list", "snapshots"]);
    let rows = listed["snapshots"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    let kinds: Vec<_> = rows.iter().map(|row| name(&row["kind"])).collect();
    assert_eq!(kinds, ["full", "incremental", "full"]);
    assert_eq!(
        [name(&rows[0]["name"]), name(&rows[1]["name"])],
        [&*first, &*second]
    );
    assert_eq!(name(&rows[1]["parent"]), first);
    assert_eq!(rows[1]["tags"], serde_json::json!(["weekly"]));
    assert_eq!(
        (&rows[1]["form"], &rows[1]["encrypted"]),
        (&"physical".into(), &false.into())
    );
    let entries: usize = contents[1].values().map(Vec::len).sum();
    assert_eq!(rows[1]["entries"], entries);
    let bytes = |field: &str| rows[1][field].as_u64().unwrap();
    assert!(0 < bytes("own_bytes") && bytes("own_bytes") < bytes("bytes"));
    assert_eq!(listed["interrupted"], serde_json::json!([]));

    let said = place.ends(0, &["list", "snapshots"]);
    assert!(
        said.contains(&format!("on {first}, tag \"weekly\"")),
        "{said}"
    );
}

#[test]
fn what_was_interrupted_is_listed_and_cleaned() {
    let Two {
        place,
        names: [first, second],
        ..
    } = two();
    let manifest = place.manifest(&second);
    DiskFileSystem.remove(&manifest).unwrap();
    let listed = place.json(0, &["list", "snapshots"]);
    assert_eq!(listed["interrupted"], serde_json::json!([second]));
    assert_eq!(listed["snapshots"].as_array().unwrap().len(), 1);
    let said = place.ends(0, &["list", "snapshots"]);
    assert!(
        said.contains(&format!("{second}  is no snapshot")),
        "{said}"
    );

    let cleaned = place.json(0, &["clean", "snapshots"]);
    assert_eq!(cleaned["removed"], serde_json::json!([second]));
    assert!(!place.is_there(&format!("snapshots/{second}")));
    let said = place.ends(0, &["clean", "snapshots"]);
    assert_eq!(said, "nothing was left behind\n");
    assert!(
        place
            .ends(0, &["verify", "snapshots", &first])
            .contains("is whole")
    );
}

#[test]
fn what_has_lost_its_manifest_and_is_needed_is_not_cleaned() {
    let Two {
        place,
        names: [first, second],
        ..
    } = two();
    let manifest = place.manifest(&first);
    DiskFileSystem.remove(&manifest).unwrap();
    let cleaned = place.json(1, &["clean", "snapshots"]);
    assert_eq!(cleaned["removed"], serde_json::json!([]));
    assert_eq!(
        cleaned["kept"],
        serde_json::json!([{ "name": first, "needed_by": [second] }])
    );
    let said = place.ends(1, &["clean", "snapshots"]);
    assert!(
        said.contains(&format!("{first}  stays: it has lost its manifest")),
        "{said}"
    );
    assert!(DiskFileSystem.open(&place.archive(&first)).is_ok());
}

#[test]
fn a_logical_snapshot_has_what_was_chosen() {
    let place = Place::new();
    fill(&place);
    let made = place.json(
        0,
        &[
            "create",
            "store",
            "snapshots",
            "--logical",
            "--vault",
            "visits",
        ],
    );
    assert_eq!(
        (name(&made["form"]), &made["files"]),
        ("logical", &1.into())
    );
    let made = place.json(
        0,
        &[
            "create",
            "store",
            "snapshots",
            "--logical",
            "--tenant",
            "acme",
        ],
    );
    assert_eq!(made["entries"], 1);
    let told = place.json(
        0,
        &[
            "restore",
            "snapshots",
            "latest",
            "--to",
            "unused",
            "--dry-run",
        ],
    );
    assert_eq!(told["vaults"], serde_json::json!(["acme/users"]));
    let said = place.ends(0, &["restore", "snapshots", "latest", "--to", "new"]);
    assert!(
        said.contains("has these vaults and no others: \"acme/users\"\n"),
        "{said}"
    );
    let expected = Content::from([("acme/users".to_owned(), vec![("wile".to_owned(), 1)])]);
    assert_eq!(content_at(&place.at("new")), expected);

    let said = changes_nothing(
        &place,
        2,
        &["create", "store", "snapshots", "--vault", "visits"],
    );
    assert!(said.contains("--logical"), "{said}");
    let nobody = [
        "create",
        "store",
        "snapshots",
        "--logical",
        "--vault",
        "nobody",
    ];
    let said = place.ends(3, &nobody);
    assert!(said.contains("there is no vault \"nobody\""), "{said}");
    assert_eq!(
        place.json(0, &["list", "snapshots"])["snapshots"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn whole_snapshots_are_verified_block_by_block() {
    let Two {
        place,
        names: [first, second],
        ..
    } = two();
    let verified = place.json(0, &["verify", "snapshots", "--all"]);
    for (checked, name) in verified.as_array().unwrap().iter().zip([&first, &second]) {
        assert_eq!(
            (&checked["snapshot"], &checked["verdict"]),
            (&(**name).into(), &"whole".into())
        );
        assert!(
            checked["content"]["checked"]["entries"].as_u64().unwrap() > 300,
            "{checked}"
        );
    }
    let said = changes_nothing(&place, 0, &["verify", "snapshots"]);
    assert!(
        said.starts_with(&format!("{second}  is whole")) && said.contains("of 2 archives"),
        "{said}"
    );
}

#[test]
fn differences_are_told_by_vault_and_by_key() {
    let Two {
        place,
        names: [first, second],
        ..
    } = two();
    let said = changes_nothing(&place, 0, &["diff", "snapshots", &first, "latest"]);
    assert!(
        said.contains("users: 1 added, 1 changed, 1 removed, 298 the same"),
        "{said}"
    );
    assert!(
        said.contains("late: 1 added, 0 changed, 0 removed, 0 the same; the vault is new"),
        "{said}"
    );
    assert!(!said.contains("zoe") && !said.contains("visits"), "{said}");
    let said = place.ends(0, &["diff", "snapshots", &first, &second, "--keys"]);
    for line in [
        "~ users: \"user 000\"",
        "- users: \"user 001\"",
        "+ users: \"zoe\"",
        "+ late: \"a\"",
    ] {
        assert!(said.lines().any(|said| said == line), "{line}: {said}");
    }
    let told = place.json(0, &["diff", "snapshots", &second, &first, "--keys"]);
    assert_eq!(told["keys"].as_array().unwrap().len(), 4);
    let vaults = told["vaults"].as_array().unwrap();
    let late = vaults
        .iter()
        .find(|vault| vault["vault"] == "late")
        .unwrap();
    assert_eq!(
        (&late["is_gone"], &late["removed"]),
        (&true.into(), &1.into())
    );
    let said = place.ends(0, &["diff", "snapshots", &first, &first]);
    assert_eq!(said, format!("{first} and {first} hold the same\n"));
}

#[test]
fn whoever_has_lost_the_store_gets_it_back_entry_by_entry() {
    let Two {
        place,
        names: [first, second],
        contents,
    } = two();
    DiskFileSystem
        .rename(&place.at("store"), &place.at("lost"))
        .unwrap();
    let planned = changes_nothing(
        &place,
        0,
        &["restore", "snapshots", "latest", "--to", "new", "--dry-run"],
    );
    assert!(
        planned.contains("would go into") && planned.contains("nothing was changed"),
        "{planned}"
    );
    let told = place.json(0, &["restore", "snapshots", "latest", "--to", "new"]);
    assert_eq!(
        (name(&told["snapshot"]), &told["opened"]),
        (&*second, &true.into())
    );
    assert!(name(&told["target"]).ends_with("/new"));
    assert_eq!(content_at(&place.at("new")), contents[1]);
    let said = place.ends(0, &["restore", "snapshots", &first, "--to", "older"]);
    assert!(said.contains(&format!("restored {first} into ")), "{said}");
    assert_eq!(content_at(&place.at("older")), contents[0]);
}

#[test]
fn restores_in_place_bring_what_was_chosen() {
    let Two {
        place,
        names: [first, _],
        contents: [then, now],
    } = two();
    let beside = [
        "restore",
        "snapshots",
        &first,
        "--into",
        "store",
        "--vault",
        "users=users then",
    ];
    let told = place.json(0, &beside);
    assert_eq!(
        (&told["vaults"], &told["entries"]),
        (&1.into(), &300.into())
    );
    let mut expected = now.clone();
    expected.insert("users then".to_owned(), then["users"].clone());
    assert_eq!(content_at(&place.at("store")), expected);
    place.ends(
        0,
        &[
            "restore",
            "snapshots",
            &first,
            "--into",
            "store",
            "--tenant",
            "acme",
        ],
    );
    assert_eq!(content_at(&place.at("store")), expected);
    let of_tenant = [
        "restore",
        "snapshots",
        &first,
        "--into",
        "store",
        "--vault",
        "users=old",
        "--tenant",
        "acme",
    ];
    place.ends(0, &of_tenant);
    expected.insert("acme/old".to_owned(), then["acme/users"].clone());
    assert_eq!(content_at(&place.at("store")), expected);
    let said = place.ends(0, &["restore", "snapshots", &first, "--into", "store"]);
    assert!(said.contains("3 vaults with 302 entries"), "{said}");
    assert_eq!(content_at(&place.at("store")), then);
}

#[test]
fn dry_runs_say_what_would_change_and_change_no_byte() {
    let Two {
        place,
        names: [first, second],
        ..
    } = two();
    let said = changes_nothing(
        &place,
        0,
        &[
            "restore",
            "snapshots",
            &first,
            "--into",
            "store",
            "--dry-run",
        ],
    );
    assert!(
        said.contains("users: 1 added, 1 changed, 1 removed, 298 the same"),
        "{said}"
    );
    assert!(
        said.contains("late: ") && said.contains("the vault is gone"),
        "{said}"
    );
    let one = [
        "restore",
        "snapshots",
        &first,
        "--into",
        "store",
        "--vault",
        "users",
        "--dry-run",
        "--json",
    ];
    let said = changes_nothing(&place, 0, &one);
    let told: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (told["vaults"].as_array().unwrap().len(), &told["dry_run"]),
        (1, &true.into())
    );
    let said = changes_nothing(
        &place,
        0,
        &[
            "restore",
            "snapshots",
            &second,
            "--into",
            "store",
            "--dry-run",
        ],
    );
    assert!(said.contains("holds what is there already"), "{said}");
    place.ends(0, &["create", "store", "snapshots", "--full"]);
    let said = changes_nothing(
        &place,
        0,
        &["prune", "snapshots", "--keep-last", "1", "--dry-run"],
    );
    assert!(
        said.contains(&format!("{first}  would go")) && said.contains("a dry run"),
        "{said}"
    );
}

#[test]
fn pruning_says_what_goes_and_why_the_rest_stays() {
    let Two {
        place,
        names: [first, second],
        ..
    } = two();
    let newest = place.json(0, &["create", "store", "snapshots", "--full"]);
    let newest = name(&newest["name"]);
    let said = changes_nothing(&place, 0, &["prune", "snapshots", "--keep-tag", "weekly"]);
    assert!(
        said.contains(&format!("{first}  stays: needed by {second}")),
        "{said}"
    );
    assert!(
        said.contains(&format!("{second}  stays: --keep-tag \"weekly\"")),
        "{said}"
    );
    assert!(
        said.contains(&format!("{newest}  stays: the newest")),
        "{said}"
    );
    let told = place.json(0, &["prune", "snapshots", "--keep-daily", "1"]);
    assert_eq!(told["removed"], serde_json::json!([first, second]));
    assert_eq!(
        told["kept"][0]["reasons"],
        serde_json::json!(["newest", "daily"])
    );
    assert_eq!(
        place.json(0, &["list", "snapshots"])["snapshots"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert!(!place.is_there(&format!("snapshots/{first}")));
}

#[test]
fn a_consolidated_snapshot_stands_alone() {
    let Two {
        place,
        names: [first, second],
        contents,
    } = two();
    let made = place.json(0, &["consolidate", "snapshots", &second]);
    assert_eq!(
        (name(&made["kind"]), name(&made["content_of"])),
        ("full", &*second)
    );
    place.ends(0, &["prune", "snapshots", "--keep-last", "1"]);
    place.ends(0, &["restore", "snapshots", "latest", "--to", "new"]);
    assert_eq!(content_at(&place.at("new")), contents[1]);
    let said = changes_nothing(
        &place,
        3,
        &["consolidate", "snapshots", name(&made["name"])],
    );
    assert!(said.contains("is full already"), "{said}");
    let said = changes_nothing(&place, 3, &["consolidate", "snapshots", &first]);
    assert!(said.contains("there is no snapshot"), "{said}");
}

#[test]
fn a_drill_reads_every_entry() {
    let Two {
        place,
        names: [_, second],
        contents,
    } = two();
    let entries: usize = contents[1].values().map(Vec::len).sum();
    let drilled = place.json(0, &["drill", "snapshots"]);
    assert_eq!(
        (name(&drilled["snapshot"]), &drilled["good"]),
        (&*second, &true.into())
    );
    assert_eq!(
        (&drilled["entries"], &drilled["vaults"]),
        (&entries.into(), &contents[1].len().into())
    );
    let said = changes_nothing(&place, 0, &["drill", "snapshots"]);
    assert!(said.contains("is good"), "{said}");
}

#[test]
fn every_point_of_the_log_can_be_restored() {
    let place = Place::new();
    let db = open(&place);
    let archive = db
        .snapshots(place.at("snapshots"))
        .unwrap()
        .log_archive(place.at("log"));
    let archiver = archive.start(None).unwrap();
    let vault = db.vault("v").unwrap();
    vault.put("a", &1).unwrap();
    let (good, then) = (db.engine().latest_sequence(), content(&db));
    vault.clear().unwrap();
    let latest = db.engine().latest_sequence();
    ship_all(&db, archiver);
    let now = close(&db);

    let base = ["restore-point", "snapshots", "--log", "log"];
    let sequence = good.to_string();
    let told = place.json(
        0,
        &[&base[..], &["--sequence", &sequence, "--to", "then"]].concat(),
    );
    assert_eq!(
        (&told["sequence"], told["batches"].as_u64().unwrap() > 0),
        (&good.into(), true)
    );
    assert_eq!(content_at(&place.at("then")), then);
    let said = place.ends(0, &[&base[..], &["--end", "--to", "end"]].concat());
    assert!(said.contains("restored into "), "{said}");
    assert_eq!(content_at(&place.at("end")), now);
    place.ends(
        0,
        &[
            &base[..],
            &["--time", "9999-01-01T00:00:00Z", "--to", "later"],
        ]
        .concat(),
    );
    assert_eq!(content_at(&place.at("later")), now);

    let beyond = (latest + 1_000).to_string();
    let said = changes_nothing(
        &place,
        3,
        &[&base[..], &["--sequence", &beyond, "--to", "new"]].concat(),
    );
    assert!(said.contains("lies behind it"), "{said}");
    let said = changes_nothing(
        &place,
        3,
        &[&base[..], &["--time", "1000", "--to", "new"]].concat(),
    );
    assert!(said.contains("lies before"), "{said}");
    let said = changes_nothing(&place, 3, &[&base[..], &["--end", "--to", "then"]].concat());
    assert!(said.contains("cannot restore into"), "{said}");
    for wrong in [
        &["--to", "new"][..],
        &["--end", "--time", "1", "--to", "new"],
        &["--time", "noon", "--to", "new"],
    ] {
        changes_nothing(&place, 2, &[&base[..], wrong].concat());
    }
}
