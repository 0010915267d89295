//! How fast snapshots are made, verified and restored, beside `cp` of the same files and `sync`.
//!
//! `cargo run --release -p vault-snapshot --features archive --example snapshot_speed -- DIRECTORY [MIB] [FILE_MIB]` makes files in
//! a new directory below `DIRECTORY` (1024 MiB in files of 64 MiB), and prints the medians of five rounds. Everything is read from the page
//! cache and written to the disk; the bytes are random.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a measurement: it prints, fails loudly, and takes the time of the machine"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vault_core::random::SeededRandom;
use vault_core::vfs::{DiskFileSystem, FileSystem};
use vault_snapshot::archive::{Form, SnapshotName};
use vault_snapshot::destination::Directory;
use vault_snapshot::repository::{
    CreateOptions, Parent, Repository, RepositoryOptions, Source, SourceFile,
};

const MIB: u64 = 1 << 20;
const ROUNDS: usize = 5;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().expect("a directory to work in"));
    let mut number = |or: u64| arguments.next().map_or(or, |n| n.parse().unwrap());
    let (bytes, file_bytes) = (number(1024) * MIB, number(64) * MIB);
    let scratch = directory.join("snapshot-speed");
    let fs = Arc::new(DiskFileSystem::new());
    let store = scratch.join("store");
    fs.create_dir_all(&store).unwrap();
    let files = make_files(&*fs, &store, bytes, file_bytes);
    println!(
        "{} files, {} MiB, medians of {ROUNDS} rounds",
        files.len(),
        bytes / MIB
    );

    let mut times: Vec<(&str, Vec<Duration>)> = Vec::new();
    let mut note = |what, time| match times.iter_mut().find(|(known, _)| *known == what) {
        Some((_, all)) => all.push(time),
        None => times.push((what, vec![time])),
    };
    for round in 0..ROUNDS {
        let copy = scratch.join("copy");
        note("cp", timed(|| cp(&store, &copy)));
        note("cp and sync of each file", {
            std::fs::remove_dir_all(&copy).unwrap();
            timed(|| {
                cp(&store, &copy);
                sync_all(&copy);
            })
        });
        std::fs::remove_dir_all(&copy).unwrap();

        let place = Directory::new(fs.clone(), scratch.join(format!("repository-{round}")));
        let repository = Repository::open(Arc::new(place), RepositoryOptions::default()).unwrap();
        let mut name = None;
        note(
            "create",
            timed(|| name = Some(create(&repository, &files, Parent::None))),
        );
        let name = name.unwrap();
        note(
            "create, nothing new",
            timed(|| assert!(create(&repository, &files, Parent::Newest) > name)),
        );
        note(
            "verify",
            timed(|| drop(repository.verify(name, &()).unwrap())),
        );
        let target = scratch.join("restored");
        let extract = || {
            let all = |_: &_| true;
            repository
                .extract(name, &*fs, &target, &all, |_| Ok(()), &())
                .unwrap();
        };
        note("extract, with its verification", timed(extract));
        std::fs::remove_dir_all(&target).unwrap();
        std::fs::remove_dir_all(scratch.join(format!("repository-{round}"))).unwrap();
    }
    for (what, mut all) in times {
        all.sort_unstable();
        let median = all[all.len() / 2].as_secs_f64();
        let speed = bytes as f64 / MIB as f64 / median;
        println!("{what:32} {:8.1} ms  {speed:8.0} MiB/s", median * 1000.0);
    }
    if let Some(peak) = peak_memory() {
        println!("peak of resident memory: {peak}");
    }
    std::fs::remove_dir_all(&scratch).unwrap();
}

fn make_files(fs: &dyn FileSystem, store: &Path, bytes: u64, file_bytes: u64) -> Vec<SourceFile> {
    let random = SeededRandom::new(1);
    let mut made = Vec::new();
    let mut chunk = vec![0; MIB as usize];
    while (made.len() as u64 * file_bytes) < bytes {
        let name = format!("{:06}.table", made.len());
        let file = fs.create(&store.join(&name)).unwrap();
        let mut offset = 0;
        while offset < file_bytes {
            for word in chunk.chunks_exact_mut(8) {
                word.copy_from_slice(&random.next_u64().to_le_bytes());
            }
            file.write_at(&chunk, offset).unwrap();
            offset += chunk.len() as u64;
        }
        file.sync().unwrap();
        let mut salt = [0; 24];
        salt[..8].copy_from_slice(&random.next_u64().to_le_bytes());
        made.push(SourceFile {
            name,
            bytes: file_bytes,
            salt: Some(salt),
            immutable: true,
            content: file,
        });
    }
    made
}

fn create(repository: &Repository, files: &[SourceFile], parent: Parent) -> SnapshotName {
    let mut source = Source::new([1; 16], Form::Physical);
    source.files = files.to_vec();
    let options = CreateOptions {
        parent,
        ..CreateOptions::default()
    };
    repository.create(source, &options, &()).unwrap().name
}

fn timed(work: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    work();
    begin.elapsed()
}

fn cp(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-r").arg(from).arg(to).status();
    assert!(copied.unwrap().success());
}

fn sync_all(directory: &Path) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let file = std::fs::File::open(entry.unwrap().path()).unwrap();
        file.sync_data().unwrap();
    }
}

/// The most memory that the process has had, as Linux tells.
fn peak_memory() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
