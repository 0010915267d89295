//! The oracle refuses what it must: a net that catches nothing looks the same as a store without faults.

use super::*;

const NOW: Times = Times {
    now: Timestamp(1_000),
    latest: Timestamp(1_000),
};

fn put(keyspace: Id, key: &str, value: &str) -> Recorded {
    Recorded::One {
        keyspace,
        key: key.into(),
        effect: Effect::Put(value.into()),
        expiry: None,
    }
}

fn delete(key: &str) -> Recorded {
    Recorded::One {
        keyspace: 1,
        key: key.into(),
        effect: Effect::Delete,
        expiry: None,
    }
}

/// Two keyspaces; three commits, of which the first is durable and the second acknowledged; the third
/// failed with its outcome unknown.
fn oracle() -> Oracle {
    let mut oracle = Oracle::default();
    oracle.created(1, "a", &KeyspaceOptions::default()).unwrap();
    oracle.created(2, "b", &KeyspaceOptions::default()).unwrap();
    oracle.commit(
        &[put(1, "x", "1"), put(2, "x", "1")],
        false,
        Outcome::Durable,
    );
    oracle.commit(
        &[put(1, "y", "2"), delete("x"), put(2, "y", "2")],
        false,
        Outcome::Acknowledged,
    );
    oracle.commit(&[put(1, "z", "3")], false, Outcome::Doubtful);
    oracle
}

fn found(latest: SequenceNumber, a: &[(&str, &str)], b: &[(&str, &str)]) -> Found {
    let keyspace = |id, name: &str, entries: &[(&str, &str)]| FoundKeyspace {
        id,
        name: name.to_owned(),
        options: KeyspaceOptions::default(),
        entries: entries
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect(),
    };
    Found {
        latest,
        keyspaces: vec![keyspace(1, "a", a), keyspace(2, "b", b)],
    }
}

fn judge(found: &Found, promise: Promise) -> Result<(), String> {
    oracle().recovered(found, promise, NOW)
}

#[track_caller]
fn refused(found: &Found, promise: Promise, because: &str) {
    let problem = judge(found, promise).expect_err("this must be refused");
    assert!(problem.contains(because), "{problem}");
}

fn after_first() -> Found {
    found(2, &[("x", "1")], &[("x", "1")])
}

fn after_second() -> Found {
    found(5, &[("y", "2")], &[("x", "1"), ("y", "2")])
}

#[test]
fn every_prefix_that_holds_what_was_promised_is_accepted() {
    judge(&after_first(), Promise::Durable).unwrap();
    judge(&after_second(), Promise::Durable).unwrap();
    judge(&after_second(), Promise::Acknowledged).unwrap();
    let with_doubtful = found(6, &[("y", "2"), ("z", "3")], &[("x", "1"), ("y", "2")]);
    judge(&with_doubtful, Promise::Acknowledged).unwrap();
}

#[test]
fn a_lost_durable_commit_is_refused() {
    refused(&found(0, &[], &[]), Promise::Durable, "is lost");
}

#[test]
fn a_lost_acknowledged_commit_is_refused_after_the_end_of_a_process() {
    refused(&after_first(), Promise::Acknowledged, "is lost");
}

#[test]
fn half_a_batch_is_refused() {
    refused(
        &found(3, &[("x", "1"), ("y", "2")], &[("x", "1")]),
        Promise::Durable,
        "was torn",
    );
    // Also where the number says that it is whole.
    refused(
        &found(5, &[("y", "2")], &[("x", "1")]),
        Promise::Durable,
        "is absent",
    );
}

#[test]
fn a_deleted_key_that_is_back_is_refused() {
    let back = found(5, &[("x", "1"), ("y", "2")], &[("x", "1"), ("y", "2")]);
    refused(&back, Promise::Durable, "should be absent");
}

#[test]
fn what_is_no_prefix_is_refused() {
    // The third commit without the second.
    let gap = found(6, &[("x", "1"), ("z", "3")], &[("x", "1")]);
    refused(&gap, Promise::Durable, "is not as 3 commits");
    // More than the number says.
    let ahead = found(2, &[("x", "1"), ("y", "2")], &[("x", "1")]);
    refused(&ahead, Promise::Durable, "should be absent");
}

#[test]
fn numbers_that_were_never_given_out_are_refused() {
    refused(
        &found(9, &[], &[]),
        Promise::Durable,
        "nothing was written after 6",
    );
}

#[test]
fn a_wrong_value_is_refused() {
    refused(
        &found(2, &[("x", "?")], &[("x", "1")]),
        Promise::Durable,
        "and should be",
    );
}

#[test]
fn keyspaces_that_vanish_come_back_or_change_are_refused() {
    let mut without = after_second();
    without.keyspaces.pop();
    refused(&without, Promise::Durable, "keyspace 2 (b) is gone");

    let mut oracle = oracle();
    oracle.dropped(2);
    let problem = oracle
        .recovered(&after_second(), Promise::Durable, NOW)
        .unwrap_err();
    assert!(problem.contains("is back"), "{problem}");

    let mut altered = after_second();
    altered.keyspaces[0].options.block_bytes = 512;
    refused(&altered, Promise::Durable, "should be");

    let mut foreign = after_second();
    foreign.keyspaces[1].id = 3;
    refused(&foreign, Promise::Durable, "was never created");
}

#[test]
fn a_keyspace_in_doubt_may_be_there_or_not() {
    for there in [false, true] {
        let mut oracle = oracle();
        oracle.dropping_in_doubt(2);
        oracle.creation_in_doubt("c", &KeyspaceOptions::default());
        let mut state = after_second();
        if there {
            state.keyspaces.push(FoundKeyspace {
                id: 7,
                name: "c".to_owned(),
                options: KeyspaceOptions::default(),
                entries: Vec::new(),
            });
        } else {
            state.keyspaces.pop();
        }
        oracle.recovered(&state, Promise::Durable, NOW).unwrap();
        assert_eq!(oracle.find("b").is_some(), there);
        assert_eq!(oracle.find("c").is_some(), there);
    }
}

#[test]
fn commits_to_keyspaces_that_are_gone_need_not_be_left() {
    let mut oracle = oracle();
    oracle.commit(&[put(2, "w", "4")], false, Outcome::Durable);
    // The third commit is acknowledged with it, and touches the keyspace that stays.
    oracle.dropped(2);
    let mut state = found(6, &[("y", "2"), ("z", "3")], &[]);
    state.keyspaces.pop();
    oracle
        .clone()
        .recovered(&state, Promise::Durable, NOW)
        .unwrap();
    let mut state = found(5, &[("y", "2")], &[]);
    state.keyspaces.pop();
    assert!(oracle.recovered(&state, Promise::Durable, NOW).is_err());
}

#[test]
fn an_early_end_of_an_expiring_entry_is_refused() {
    let mut oracle = oracle();
    let expiring = Recorded::One {
        keyspace: 1,
        key: b"e".to_vec(),
        effect: Effect::Put(b"e".to_vec()),
        expiry: Some(Timestamp(2_000)),
    };
    oracle
        .recovered(&after_second(), Promise::Durable, NOW)
        .unwrap();
    oracle.commit(&[expiring], false, Outcome::Durable);
    let gone = found(6, &[("y", "2")], &[("x", "1"), ("y", "2")]);
    let there = found(6, &[("e", "e"), ("y", "2")], &[("x", "1"), ("y", "2")]);
    let later = |now, latest| Times {
        now: Timestamp(now),
        latest: Timestamp(latest),
    };
    let judge = |found: &Found, times| oracle.clone().recovered(found, Promise::Durable, times);
    assert!(judge(&gone, later(1_999, 1_999)).is_err());
    assert!(judge(&there, later(2_000, 2_000)).is_err());
    // The clock was there, and has gone back: a merge may have come by.
    assert!(judge(&gone, later(1_999, 2_000)).is_ok());
    assert!(judge(&there, later(1_999, 2_000)).is_ok());
}

#[test]
fn a_range_delete_that_was_lost_is_refused() {
    let mut oracle = oracle();
    oracle
        .recovered(&after_second(), Promise::Durable, NOW)
        .unwrap();
    let all = Recorded::RangeDelete {
        keyspace: 1,
        start: b"a".to_vec(),
        end: b"zz".to_vec(),
    };
    oracle.commit(&[all], false, Outcome::Durable);
    let mut not_deleted = after_second();
    not_deleted.latest = 6;
    assert!(
        oracle
            .recovered(&not_deleted, Promise::Durable, NOW)
            .is_err()
    );
}

#[test]
fn ids_that_were_given_out_before_are_refused() {
    let mut oracle = oracle();
    assert!(oracle.created(2, "c", &KeyspaceOptions::default()).is_err());
}
