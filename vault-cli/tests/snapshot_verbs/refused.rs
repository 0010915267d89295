//! What must not be done, and damage: each is told, and leaves everything as it was.

use vault_core::vfs::{DiskFileSystem, FileSystem};

use super::support::{
    Place, Two, changes_nothing, close, content_at, flip, image, name, open, ship_all, two,
};

#[test]
fn a_damaged_archive_is_told_and_nothing_is_restored_of_it() {
    let Two {
        place,
        names: [first, second],
        contents,
    } = two();
    flip(&place.archive(&first), 3000);
    // The second builds on the first.
    let verified = place.json(1, &["verify", "snapshots", "--all"]);
    for checked in verified.as_array().unwrap() {
        assert_eq!(checked["verdict"], "damaged");
    }
    for verify in [
        &["verify", "snapshots", &*first][..],
        &["verify", "snapshots"],
    ] {
        let said = changes_nothing(&place, 1, verify);
        assert!(
            said.contains("is damaged or forged") && said.ends_with("is damaged\n"),
            "{said}"
        );
    }
    for restore in [
        &["restore", "snapshots", &*second, "--to", "new"][..],
        &["restore", "snapshots", &*second, "--to", "new", "--dry-run"],
        &["consolidate", "snapshots", &*second],
        &["drill", "snapshots"],
        &[
            "restore",
            "snapshots",
            &*first,
            "--into",
            "store",
            "--dry-run",
        ],
    ] {
        let said = changes_nothing(&place, 1, restore);
        assert!(said.contains("damaged or forged"), "{said}");
    }
    let failed = place.json(1, &["restore", "snapshots", &first, "--to", "new"]);
    assert!(name(&failed["error"]).contains("damaged or forged"));
    place.ends(1, &["restore", "snapshots", &first, "--into", "store"]);
    assert_eq!(content_at(&place.at("store")), contents[1]);
}

#[test]
fn a_damaged_archive_of_the_log_is_told_and_nothing_is_restored_of_it() {
    let place = Place::new();
    let db = open(&place);
    let snapshots = db.snapshots(place.at("snapshots")).unwrap();
    let archiver = snapshots.log_archive(place.at("log")).start(None).unwrap();
    db.vault("v").unwrap().put("a", &1).unwrap();
    ship_all(&db, archiver);
    close(&db);
    let shipments = image(&place.at("log"));
    let (last, bytes) = shipments.last_key_value().unwrap();
    flip(last, bytes.len() as u64 / 2);
    let point = [
        "restore-point",
        "snapshots",
        "--log",
        "log",
        "--end",
        "--to",
        "new",
    ];
    let said = changes_nothing(&place, 1, &point);
    assert!(said.contains("shipment"), "{said}");
}

#[test]
fn the_latest_is_not_taken_for_older_than_it_is() {
    let Two {
        place,
        names: [first, second],
        contents,
    } = two();
    let manifest = place.manifest(&second);
    flip(&manifest, 0);
    let listed = place.json(1, &["list", "snapshots"]);
    assert_eq!(name(&listed["unreadable"][0]["name"]), second);
    let said = changes_nothing(
        &place,
        1,
        &["restore", "snapshots", "latest", "--to", "new"],
    );
    assert!(said.contains("name the snapshot that you mean"), "{said}");
    // Nobody can tell what it needs.
    changes_nothing(&place, 1, &["prune", "snapshots", "--keep-last", "1"]);
    place.ends(0, &["restore", "snapshots", &first, "--to", "new"]);
    assert_eq!(content_at(&place.at("new")), contents[0]);
}

#[test]
fn nothing_is_pruned_without_a_rule() {
    let Two { place, .. } = two();
    for prune in [
        &["prune", "snapshots"][..],
        &["prune", "snapshots", "--dry-run"],
    ] {
        let said = changes_nothing(&place, 2, prune);
        assert!(said.contains("--keep-last"), "{said}");
    }
    changes_nothing(&place, 2, &["prune", "snapshots", "--keep-last", "0"]);
}

#[test]
fn a_store_that_another_process_has_open_is_left_to_it() {
    let Two {
        place,
        names: [first, _],
        ..
    } = two();
    let db = open(&place);
    let before = image(&place.at("snapshots"));
    for arguments in [
        &["create", "store", "snapshots"][..],
        &["restore", "snapshots", &*first, "--into", "store"],
    ] {
        let said = place.ends(3, arguments);
        assert!(said.contains("is open for writing by"), "{said}");
        assert!(said.contains(&std::process::id().to_string()), "{said}");
    }
    assert!(image(&place.at("snapshots")) == before);
    // What it would change can be told beside it.
    let said = place.ends(
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
    assert!(said.contains("users: 1 added"), "{said}");
    db.close().unwrap();
}

#[test]
fn wrong_names_and_places_change_nothing() {
    let Two {
        place,
        names: [first, _],
        ..
    } = two();
    let never = "2001-01-01T000000Z";
    for unknown in [
        &["verify", "snapshots", never][..],
        &["diff", "snapshots", never, "latest"],
        &["restore", "snapshots", never, "--to", "new"],
        &["restore", "snapshots", never, "--to", "new", "--dry-run"],
        &["restore", "snapshots", never, "--into", "store"],
        &["consolidate", "snapshots", never],
        &[
            "restore",
            "snapshots",
            never,
            "--into",
            "store",
            "--dry-run",
        ],
    ] {
        let said = changes_nothing(&place, 3, unknown);
        assert!(
            said.contains("there is no snapshot 2001-01-01T000000Z"),
            "{said}"
        );
    }
    for missing in [
        &["list", "nowhere"][..],
        &["verify", "nowhere"],
        &["restore", "nowhere", "latest", "--to", "new"],
        &["prune", "nowhere", "--keep-last", "1"],
        &["clean", "nowhere"],
        &["drill", "nowhere"],
        &["create", "nowhere", "snapshots"],
        &["restore", "snapshots", &*first, "--into", "nowhere"],
    ] {
        let said = changes_nothing(&place, 3, missing);
        assert!(said.contains("nowhere"), "{said}");
    }
    for wrong in [
        &["verify", "snapshots", "yesterday"][..],
        &["restore", "snapshots", &*first],
        &[
            "restore",
            "snapshots",
            &*first,
            "--to",
            "new",
            "--into",
            "store",
        ],
        &[
            "restore",
            "snapshots",
            &*first,
            "--to",
            "new",
            "--vault",
            "users",
        ],
        &[
            "restore",
            "snapshots",
            &*first,
            "--into",
            "store",
            "--least-generation",
            "1",
        ],
    ] {
        changes_nothing(&place, 2, wrong);
    }
}

#[test]
fn a_target_that_holds_something_is_left_alone() {
    let Two {
        place,
        names: [first, _],
        ..
    } = two();
    for dry in [&[][..], &["--dry-run"]] {
        for target in ["store", "snapshots"] {
            let restore = ["restore", "snapshots", &first, "--to", target];
            let said = changes_nothing(&place, 3, &[&restore[..], dry].concat());
            assert!(said.contains("cannot restore into"), "{said}");
        }
    }
}

#[test]
fn an_older_generation_than_was_asked_for_is_refused() {
    let Two {
        place,
        names: [first, _],
        ..
    } = two();
    let rows = place.json(0, &["list", "snapshots"]);
    let generation = rows["snapshots"][0]["generation"].as_u64().unwrap();
    let (least, beyond) = (generation.to_string(), (generation + 1).to_string());
    for dry in [&[][..], &["--dry-run"]] {
        let refused = [
            "restore",
            "snapshots",
            &first,
            "--to",
            "new",
            "--least-generation",
            &beyond,
        ];
        let said = changes_nothing(&place, 3, &[&refused[..], dry].concat());
        assert!(said.contains("of generation"), "{said}");
    }
    place.ends(
        0,
        &[
            "restore",
            "snapshots",
            &first,
            "--to",
            "new",
            "--least-generation",
            &least,
        ],
    );
}

#[test]
fn a_restore_of_a_vault_that_is_missing_changes_nothing() {
    let Two {
        place,
        names: [first, _],
        contents,
    } = two();
    let missing = [
        "restore",
        "snapshots",
        &first,
        "--into",
        "store",
        "--vault",
        "late",
    ];
    let said = place.ends(3, &missing);
    assert!(said.contains("there is no vault \"late\""), "{said}");
    let taken = [
        "restore",
        "snapshots",
        &first,
        "--into",
        "store",
        "--vault",
        "users=visits",
    ];
    let said = place.ends(3, &taken);
    assert!(
        said.contains("there is a vault \"visits\" already"),
        "{said}"
    );
    assert_eq!(content_at(&place.at("store")), contents[1]);
}

#[test]
fn an_empty_repository_has_no_latest() {
    let place = Place::new();
    DiskFileSystem
        .create_dir_all(&place.at("snapshots"))
        .unwrap();
    let said = place.ends(0, &["list", "snapshots"]);
    assert_eq!(said, "there is no snapshot that can be used\n");
    for arguments in [&["verify", "snapshots"][..], &["drill", "snapshots"]] {
        let said = place.ends(3, arguments);
        assert!(
            said.contains("there is no snapshot in this repository"),
            "{said}"
        );
    }
    assert_eq!(
        place.json(0, &["verify", "snapshots", "--all"]),
        serde_json::json!([])
    );
}
