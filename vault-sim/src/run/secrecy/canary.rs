//! Looking for what must not be readable: in files, in errors, in what listeners are told.

use std::fmt::Debug;
use std::path::Path;

use vault_core::vfs::MemoryFileSystem;

use crate::plan::CANARY;

/// The places of the canary in some bytes.
pub(in crate::run) fn find(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let canary = u64::from_le_bytes(*CANARY);
    bytes
        .windows(CANARY.len())
        .enumerate()
        .filter(move |(_, window)| {
            window
                .first_chunk()
                .is_some_and(|eight| u64::from_le_bytes(*eight) == canary)
        })
        .map(|(at, _)| at)
}

/// Some bytes around a place, for a message.
pub(in crate::run) fn around(bytes: &[u8], at: usize) -> String {
    let end = bytes.len().min(at + 32);
    bytes[at.saturating_sub(8)..end].escape_ascii().to_string()
}

/// How many files of a file system hold the canary, and the first of these with what can be read there.
pub(in crate::run) fn find_in_files(fs: &MemoryFileSystem) -> (usize, Option<String>) {
    let (mut files, mut first) = (0, None);
    for (path, _) in fs.list() {
        let bytes = content(fs, &path);
        if let Some(at) = find(&bytes).next() {
            files += 1;
            let told = || format!("{} at {at}: {}", path.display(), around(&bytes, at));
            first.get_or_insert_with(told);
        }
    }
    (files, first)
}

/// What a file holds; nothing where it cannot be read.
pub(in crate::run) fn content(fs: &MemoryFileSystem, path: &Path) -> Vec<u8> {
    fs.read_file(path).unwrap_or_default()
}

/// What something prints, where that holds the canary.
pub(in crate::run) fn find_in_text(printed: &dyn Debug) -> Option<String> {
    let text = format!("{printed:?}");
    let found = find(text.as_bytes()).next().is_some();
    found.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_wherever_it_stands() {
        let all = [&CANARY[..], b"..", &CANARY[..7], b".", CANARY].concat();
        assert_eq!(find(&all).collect::<Vec<_>>(), [0, 18]);
        assert_eq!(find(b"Canary").count(), 0);
        assert!(find_in_text(&"Canary7Qk001").is_some());
        assert!(find_in_text(&"k001").is_none());
        let fs = MemoryFileSystem::new();
        fs.write_file("/a", b"nothing").unwrap();
        assert_eq!(find_in_files(&fs), (0, None));
        fs.write_file("/b", &all).unwrap();
        let (files, first) = find_in_files(&fs);
        assert_eq!(files, 1);
        assert!(first.unwrap().starts_with("/b at 0: Canary7Q.."));
    }
}
