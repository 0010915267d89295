//! What is broken on purpose: each a place in the engine, what stands there, what is put in its place, and
//! the promise that this breaks. A test holds every place against the source as it is.

use super::Mutant;

const CRASH: &str = "crash";
const FAULTS: &str = "faults";
const DAMAGE: &str = "damage";
const HISTORIES: &str = "histories";
const CONFORMANCE: &str = "conformance";
const SCENARIOS: &str = "scenarios";
const SIMULATION: &str = "simulation";
const STORIES: &str = "stories";
const MODELS: &str = "models";
const TAMPERING: &str = "tampering";
const BLOBS: &str = "large-values";
const SNAPSHOTS: &str = "snapshots";

/// The nets, with what cargo is asked to run for each.
pub(super) const NETS: [(&str, &[&str]); 12] = [
    (
        SNAPSHOTS,
        &[
            "test",
            "--package=vault-snapshot",
            "--test=snapshots",
            "--test=hostile_archives",
            "--test=hostile_chains",
            "--test=restoring_under_faults",
            "--test=snapshot_crashes",
        ],
    ),
    (
        BLOBS,
        &[
            "test",
            "--package=vault-lsm",
            "--lib",
            "--test=large_values",
        ],
    ),
    (CRASH, &["test", "--package=vault-lsm", "--test=crash"]),
    (FAULTS, &["test", "--package=vault-lsm", "--test=faults"]),
    (DAMAGE, &["test", "--package=vault-lsm", "--test=damage"]),
    (
        HISTORIES,
        &["test", "--package=vault-lsm", "--test=random_histories"],
    ),
    (
        CONFORMANCE,
        &["test", "--package=vault-lsm", "--test=conformance"],
    ),
    (
        SCENARIOS,
        &[
            "test",
            "--package=vault-lsm",
            "--test=durability",
            "--test=checkpoints",
            "--test=expiring",
            "--test=ingesting",
            "--test=dropping",
            "--test=interrupted_recovery",
            "--test=short_reads",
            "--test=stress",
        ],
    ),
    (
        SIMULATION,
        &[
            "run",
            "--package=vault-sim",
            "--",
            "run",
            "--from=1",
            "--seeds=100",
        ],
    ),
    (STORIES, &["test", "--package=vault-sim", "--test=stories"]),
    (MODELS, &["xtask", "models"]),
    (
        TAMPERING,
        &[
            "test",
            "--package=vault-lsm",
            "--test=tampering",
            "--test=rollback",
        ],
    ),
];

/// The mutants, in the order of the write path, then recovery, then what reads and merges, then secrecy.
pub(super) const MUTANTS: [Mutant; 49] = [
    Mutant {
        name: "acknowledge-before-sync",
        breaks: "a `Sync` write returns before the log is durable",
        file: "vault-lsm/src/write/commit.rs",
        find: "Durability::Sync => self.sync_log(end),",
        replace: "Durability::Sync => Ok(()),",
        nets: &[CRASH, FAULTS, SIMULATION],
    },
    Mutant {
        name: "forget-a-failed-sync",
        breaks: "a sync that failed is tried again and reported as a success",
        file: "vault-lsm/src/log/sync.rs",
        find: "Err(error) => state.failed = Some(Arc::new(error)),",
        replace: "Err(_) => self.synced.store(target, Ordering::Release),",
        nets: &[FAULTS, SIMULATION],
    },
    Mutant {
        name: "publish-too-early",
        breaks: "readers are shown a sequence number whose entries are not in the memtable yet",
        file: "vault-lsm/src/write/commit.rs",
        find: "        insert(&view, batch, record.first, appended.segment);",
        replace: "        self.visible.store(sequence, Ordering::Release);
        std::thread::yield_now();
        insert(&view, batch, record.first, appended.segment);",
        nets: &[SCENARIOS, MODELS],
    },
    Mutant {
        name: "publish-out-of-turn",
        breaks: "a write is visible and acknowledged while there is a hole before it in the log",
        file: "vault-lsm/src/write/turns.rs",
        find: "        turns.wait_for(number + 1, &publish);
        number < turns.failed.load(Relaxed)",
        replace: "        publish(publication);
        number < turns.failed.load(Relaxed)",
        nets: &[MODELS],
    },
    Mutant {
        name: "skip-the-directory-sync",
        breaks: "a table is named by the manifest before its directory entry is durable",
        file: "vault-lsm/src/compact/output.rs",
        find: "self.store.env.sync_directory().map_err(sync_failed)?;",
        replace: "",
        nets: &[CRASH, SIMULATION],
    },
    Mutant {
        name: "skip-the-table-sync",
        breaks: "a table is named by the manifest before its bytes are durable",
        file: "vault-lsm/src/table/writer.rs",
        find: "        self.write()?;
        self.file
            .sync()",
        replace: "        self.write()?;
        self.file
            .len()
            .map(drop)",
        nets: &[CRASH, SIMULATION],
    },
    Mutant {
        name: "skip-the-manifest-sync",
        breaks: "files are removed before the edit that lets go of them is durable",
        file: "vault-lsm/src/manifest/mod.rs",
        find: "        self.file.sync().map_err(outcome_unknown)?;
",
        replace: "",
        nets: &[CRASH, SIMULATION],
    },
    Mutant {
        name: "skip-the-pointer-sync",
        breaks: "the pointer is renamed over the old one before its bytes are durable",
        file: "vault-lsm/src/manifest/pointer.rs",
        find: "        file.sync()
            .map_err(|e| sync_failed(Error::io(\"sync\", &path, e)))",
        replace: "        Ok(())",
        nets: &[CRASH, SIMULATION],
    },
    Mutant {
        name: "drop-the-log-too-early",
        breaks: "a segment goes that unflushed writes of another keyspace still need",
        file: "vault-lsm/src/flush.rs",
        find: "        .chain(std::iter::once(current))
        .min()",
        replace: "        .chain(std::iter::once(current))
        .max()",
        nets: &[CRASH, HISTORIES, SIMULATION],
    },
    Mutant {
        name: "flush-past-unsynced-writes",
        breaks: "a flush makes later writes durable than those of another keyspace before them",
        file: "vault-lsm/src/flush.rs",
        find: "    last_log > store.log_sync.synced() && pinned.keyspaces.iter().any(unflushed)",
        replace: "    last_log > store.log_sync.synced() && pinned.keyspaces.iter().any(unflushed) && false",
        nets: &[CRASH, SIMULATION],
    },
    Mutant {
        name: "drop-past-unsynced-writes",
        breaks: "a dropped keyspace takes along what was copied out of it without syncing",
        file: "vault-lsm/src/keyspaces.rs",
        find: "    store.sync_log(position)?;
    let segment",
        replace: "    let segment",
        nets: &[CRASH, SIMULATION],
    },
    Mutant {
        name: "reuse-a-file-number",
        breaks: "the number of a file that an interrupted run left behind is given out again",
        file: "vault-lsm/src/recover.rs",
        find: "state.next_file = state.next_file.max(number + 1);",
        replace: "let _ = number;",
        nets: &[CRASH, FAULTS, SIMULATION],
    },
    Mutant {
        name: "ignore-checksums",
        breaks: "damaged bytes are taken for sound ones",
        file: "vault-core/src/transform/checksum.rs",
        find: "if self.of(block, content) != u32::from_le_bytes(*stored) {",
        replace: "if self.of(block, content) != u32::from_le_bytes(*stored) && false {",
        nets: &[DAMAGE, CRASH],
    },
    Mutant {
        name: "replay-what-is-flushed",
        breaks: "merge operands that are in tables already are applied again",
        file: "vault-lsm/src/replay.rs",
        find: "if sequence <= *flushed || !insert {",
        replace: "if !insert {",
        nets: &[CRASH, HISTORIES, SIMULATION],
    },
    Mutant {
        name: "cut-a-damaged-middle",
        breaks: "damage in the middle of the log is taken for a torn tail, and acknowledged writes go",
        file: "vault-lsm/src/log/reader.rs",
        find: "record.synced > position && reaches(&record)",
        replace: "record.synced > position && reaches(&record) && false",
        nets: &[DAMAGE],
    },
    Mutant {
        name: "believe-a-shorter-manifest",
        breaks: "an ingest that the manifest has lost goes, and writes from after it stay",
        file: "vault-lsm/src/replay.rs",
        find: "if log_last == 0 || first.saturating_sub(1) <= known {",
        replace: "if log_last == 0 || first.saturating_sub(1) <= known || true {",
        nets: &[DAMAGE],
    },
    Mutant {
        name: "trust-the-second-sync",
        breaks: "what a failed sync left in the page cache is called durable by the next opening",
        file: "vault-lsm/src/log/secure.rs",
        find: "        rewrite(&*file, &path, 0..segment.end)?;
",
        replace: "        let _ = rewrite;
",
        nets: &[FAULTS, SIMULATION],
    },
    Mutant {
        name: "forget-the-replayed-log",
        breaks: "what was read back is not made durable before new writes are",
        file: "vault-lsm/src/recover.rs",
        find: "            secure(&self.env, &replayed.replay, state.log_synced.1)?;
",
        replace: "            let _ = secure;
",
        nets: &[CRASH, SIMULATION],
    },
    Mutant {
        name: "remove-before-the-new-manifest",
        breaks: "opening removes files on the word of edits that a loss of power may take back",
        file: "vault-lsm/src/recover.rs",
        find: "        let mut manifest = self.begin_manifest(&state, settled)?;
",
        replace:
            "        self.clean_directory(&state, self.pointer.map_or(0, |p| p.manifest), false)?;
        let mut manifest = self.begin_manifest(&state, settled)?;
",
        nets: &[CRASH, SCENARIOS, SIMULATION],
    },
    Mutant {
        name: "short-read-is-the-end",
        breaks: "a read that gives less than was asked for is taken for the end of the file",
        file: "vault-core/src/vfs/mod.rs",
        find: "if read < buffer.len() && file.len()? > offset + read as u64 {",
        replace: "if read < buffer.len() && file.len()? > offset + read as u64 && false {",
        nets: &[FAULTS, SCENARIOS, SIMULATION],
    },
    Mutant {
        name: "tombstone-dropped-too-early",
        breaks: "a deleted key comes back from a deeper table",
        file: "vault-snapshot/src/visibility.rs",
        find: "        !self.bottommost || self.snapshots.first()",
        replace: "        self.snapshots.first()",
        nets: &[HISTORIES, CONFORMANCE, SIMULATION],
    },
    Mutant {
        name: "merge-past-snapshots",
        breaks: "a merge drops versions that an open snapshot still reads",
        file: "vault-lsm/src/snapshot.rs",
        find: "        let mut sequences = self.sequences();
        let at",
        replace: "        let mut sequences = Vec::new();
        let at",
        nets: &[HISTORIES, CRASH, CONFORMANCE, SIMULATION],
    },
    Mutant {
        name: "expiry-off-by-one",
        breaks: "an entry is visible at the moment of its expiry",
        file: "vault-lsm/src/read/visible.rs",
        find: "expiry.is_some_and(|expiry| expiry <= self.clock.now());",
        replace: "expiry.is_some_and(|expiry| expiry < self.clock.now());",
        nets: &[CONFORMANCE, SCENARIOS, HISTORIES, SIMULATION],
    },
    Mutant {
        name: "stale-view",
        breaks: "a write goes to a memtable that was sealed meanwhile",
        file: "vault-lsm/src/view.rs",
        find: "        self.generation.load(Ordering::Acquire) == view.generation
    }",
        replace: "        self.generation.load(Ordering::Acquire) >= view.generation
    }",
        nets: &[HISTORIES, SCENARIOS, MODELS],
    },
    Mutant {
        name: "remove-what-the-manifest-may-name",
        breaks: "tables whose edit may be durable are removed when its sync failed",
        file: "vault-lsm/src/compact/written.rs",
        find: "        if !matches!(error, Error::Poisoned { .. }) {
            self.discard(store);",
        replace: "        {
            let _ = error;
            self.discard(store);",
        nets: &[FAULTS, SIMULATION],
    },
    Mutant {
        name: "torn-checkpoint",
        breaks: "a checkpoint holds one half of a batch without the other",
        file: "vault-lsm/src/stock.rs",
        find: "    state.last_sequence = sequence;
    state
",
        replace: "    state.last_sequence = sequence;
    state.keyspaces.values_mut().for_each(|keyspace| {
        let keyspace = Arc::make_mut(keyspace);
        let last = keyspace.tables.keys().next_back().copied();
        last.map(|last| keyspace.tables.remove(&last));
    });
    state
",
        nets: &[SCENARIOS, CRASH, SIMULATION],
    },
    Mutant {
        name: "blob-of-the-version-before",
        breaks: "a value that a table points to is there for as long as somebody reads the table",
        file: "vault-lsm/src/compact/job.rs",
        find: "        let left = manifest.state().blobs_left_by(id.0, &edits);",
        replace: "        let left: Vec<u64> = self.leaving.iter().copied().collect();",
        nets: &[HISTORIES, CONFORMANCE, CRASH],
    },
    Mutant {
        name: "any-value-will-do",
        breaks: "a pointer gives the value of its own key, or damage",
        file: "vault-lsm/src/blob/file.rs",
        find: "        if value.key != key {",
        replace: "        if value.key.is_empty() && !key.is_empty() {",
        nets: &[BLOBS],
    },
    Mutant {
        name: "forgotten-garbage",
        breaks: "what is overwritten or deleted is given back",
        file: "vault-lsm/src/compact/mod.rs",
        find: "            None => match job::claim_for_collection(store, keyspace.id) {
                Some(claim) => (claim, true),",
        replace: "            None => match job::claim_for_collection(store, keyspace.id) {
                Some(_) => continue,",
        nets: &[BLOBS],
    },
    Mutant {
        name: "one-salt-for-all",
        breaks: "files with the same number have the same key, which sees its nonces twice",
        file: "vault-core/src/transform/header.rs",
        find: "        random.fill(&mut salt)?;
        let mut header",
        replace: "        random.fill(&mut salt)?;
        salt = [0; SALT_BYTES];
        let mut header",
        nets: &[SIMULATION],
    },
    Mutant {
        name: "keys-outlive-their-keyspace",
        breaks: "the keys of a dropped keyspace stay in the keyring",
        file: "vault-lsm/src/keyspaces.rs",
        find: "    keys.keep_domains(&kept)
        .and_then",
        replace: "    let _ = (keys, kept);
    Ok(())
        .and_then",
        nets: &[SIMULATION],
    },
    Mutant {
        name: "the-log-remembers",
        breaks: "log segments with the writes of a dropped keyspace stay",
        file: "vault-lsm/src/keyspaces.rs",
        find: "        edits.push(Edit::ForgetLogs(segment));",
        replace: "",
        nets: &[SIMULATION, STORIES],
    },
    Mutant {
        name: "telling-errors",
        breaks: "errors of an encrypted store hold keys and names",
        file: "vault-lsm/src/layout.rs",
        find: "            error.withholding_content()",
        replace: "            error",
        nets: &[SIMULATION],
    },
    Mutant {
        name: "keys-stay-in-memory",
        breaks: "a store that was locked keeps its keys",
        file: "vault-lsm/src/locking.rs",
        find: "        keys.lock();
        store.locking.done",
        replace: "        store.locking.done",
        nets: &[SIMULATION],
    },
    Mutant {
        name: "an-older-store-is-good-enough",
        breaks: "a store is opened at an earlier generation than its host has seen",
        file: "vault-lsm/src/recover.rs",
        find: "        if generation < least {",
        replace: "        if generation < least.min(1) {",
        nets: &[SIMULATION],
    },
    Mutant {
        name: "rely-on-an-unsynced-keyring",
        breaks: "opening goes on with a keyring that a loss of power may still take away",
        file: "vault-lsm/src/recover.rs",
        find: "        self.mend_keys(&state)?;",
        replace: "",
        nets: &[STORIES],
    },
    Mutant {
        name: "take-any-salt",
        breaks: "an older file, or one of a clone, passes for the one with its number",
        file: "vault-lsm/src/layout.rs",
        find: "if self.salt == *expected {",
        replace: "if self.salt == *expected || true {",
        nets: &[TAMPERING],
    },
    Mutant {
        name: "take-an-older-keyring",
        breaks: "a keyring that was put back brings an old passphrase and destroyed keys with it",
        file: "vault-lsm/src/manifest/pointer.rs",
        find: "if found >= self.keyring_version {",
        replace: "if found >= self.keyring_version || true {",
        nets: &[TAMPERING],
    },
    Mutant {
        name: "mend-no-keyring",
        breaks: "a keyring that was damaged stays so until its copy is damaged too",
        file: "vault-lsm/src/recover/keys.rs",
        find: "                keys.mend()
",
        replace: "                Ok(())
",
        nets: &[TAMPERING],
    },
    Mutant {
        name: "forget-how-far-the-log-was",
        breaks: "what was closed cleanly is cut off the log behind the next opening, and nobody notices",
        file: "vault-lsm/src/recover.rs",
        find: "if log.last != 0 {",
        replace: "if log.last != 0 && false {",
        nets: &[DAMAGE, TAMPERING],
    },
    Mutant {
        name: "list-before-it-is-durable",
        breaks: "a loss of power leaves a snapshot that is listed and is not whole",
        file: "vault-snapshot/src/destination/directory.rs",
        find: "let synced = self.file.sync();",
        replace: "let synced: io::Result<()> = Ok(());",
        nets: &[SNAPSHOTS],
    },
    Mutant {
        name: "remove-the-archive-first",
        breaks: "a loss of power leaves a manifest without its archive",
        file: "vault-snapshot/src/destination/directory.rs",
        find: "match self.file_system.sync_dir(&directory) {",
        replace: "match Ok::<(), io::Error>(()) {",
        nets: &[SNAPSHOTS],
    },
    Mutant {
        name: "prune-the-oldest-first",
        breaks: "an interrupted pruning leaves snapshots without what they build on",
        file: "vault-snapshot/src/repository/prune.rs",
        find: "for &name in plan.remove.iter().rev() {",
        replace: "for &name in &plan.remove {",
        nets: &[SNAPSHOTS],
    },
    Mutant {
        name: "believe-a-hash",
        breaks: "what was changed in an archive is restored as if it were the store's",
        file: "vault-snapshot/src/repository/check.rs",
        find: "Some(entry) if entry.sha256 != found =>",
        replace: "Some(entry) if entry.sha256 != found && false =>",
        nets: &[SNAPSHOTS],
    },
    Mutant {
        name: "rename-before-the-names-are-durable",
        breaks: "a loss of power leaves a target without some of its files",
        file: "vault-snapshot/src/repository/extract.rs",
        find: "for directory in directories.iter().rev() {",
        replace: "for directory in directories.iter().rev().take(0) {",
        nets: &[SNAPSHOTS],
    },
    Mutant {
        name: "take-either-manifest",
        breaks: "an archive and the manifest beside it say different things, and nobody notices",
        file: "vault-snapshot/src/archive/reader.rs",
        find: "if inside != json {",
        replace: "if inside != json && false {",
        nets: &[SNAPSHOTS],
    },
    Mutant {
        name: "take-links",
        breaks: "a link out of a crafted archive is taken for a file",
        file: "vault-snapshot/src/archive/reader.rs",
        find: "if !header.plain_file {",
        replace: "if !header.plain_file && false {",
        nets: &[SNAPSHOTS],
    },
    Mutant {
        name: "build-on-any-store",
        breaks: "files of another store are taken for this one's",
        file: "vault-snapshot/src/repository/chain.rs",
        find: "if parent.store != manifest.store {",
        replace: "if parent.store != manifest.store && false {",
        nets: &[SNAPSHOTS],
    },
    Mutant {
        name: "restore-before-it-is-verified",
        breaks: "something is written before all of a snapshot was found whole",
        file: "vault-snapshot/src/repository/extract.rs",
        find: "self.read_content(&manifest, &chain, &|_| true, &mut (), &mut progress)?;",
        replace: "progress.add(0)?;",
        nets: &[SNAPSHOTS],
    },
];
