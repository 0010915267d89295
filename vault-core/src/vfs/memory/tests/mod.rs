//! What the file system in memory promises, promise by promise.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::vfs::read_exact_at;

mod crash;
mod faults;
mod like_disk;
mod verbs;

fn path(text: &str) -> &Path {
    Path::new(text)
}

/// A file with a durable name and durable bytes.
fn durable(fs: &MemoryFileSystem, name: &str, bytes: &[u8]) -> Arc<dyn File> {
    let file = fs.create(path(name)).unwrap();
    file.write_at(bytes, 0).unwrap();
    file.sync().unwrap();
    fs.sync_dir(&crate::vfs::parent_of(path(name))).unwrap();
    file
}

fn kind_of_error<T>(result: io::Result<T>) -> io::ErrorKind {
    result.err().expect("an error was due").kind()
}

fn names(fs: &MemoryFileSystem) -> Vec<String> {
    let files = fs.list().into_iter();
    files
        .map(|(path, _)| path.to_string_lossy().into_owned())
        .collect()
}
