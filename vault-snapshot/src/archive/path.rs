//! Paths of entries: which an archive may hold, so that whoever unpacks it, with whatever program and on whatever
//! system, stays inside of the directory that was meant.
//!
//! A path is `store/<file>` or `vaults/<document>.json`, of printable ASCII. No part of it is `.` or `..`, the name of
//! a device, or ends as Windows does not keep it; none has a colon, a backslash or a wildcard. What a name has besides
//! is written as `%XX`, as in an address of the web.

use sha2::{Digest, Sha256};

use super::error::{Error, Result};

/// What a physical snapshot's files lie under.
pub const STORE_PREFIX: &str = "store/";
/// What a logical snapshot's documents lie under.
pub const VAULTS_PREFIX: &str = "vaults/";
/// What a document's name ends in.
pub const DOCUMENT_SUFFIX: &str = ".json";
/// Longest path, in bytes.
pub const PATH_BYTES_MAX: usize = 1024;
/// Longest part of a path, in bytes: what file systems take.
pub const PART_BYTES_MAX: usize = 255;
/// Most parts of a path.
pub const PARTS_MAX: usize = 16;

/// Longest name of a document, as it is written into a path.
const ENCODED_BYTES_MAX: usize = 240;
/// Where a longer one is cut.
const ENCODED_CUT_BYTES: usize = 180;

/// Names that Windows gives to devices, whatever their ending.
const DEVICES: [&str; 10] = [
    "con", "prn", "aux", "nul", "conin$", "conout$", "clock$", "com", "lpt", "config$",
];

/// Refuses what no entry of an archive may be called.
///
/// # Errors
/// [`Error::InvalidPath`].
///
/// ```
/// use vault_snapshot::archive::path::check_path;
/// assert!(check_path("store/000001.table").is_ok());
/// for bad in ["../evil", "store/../evil", "/store/x", "store/a\\b", "store/NUL", "store/c:x"] {
///     assert!(check_path(bad).is_err());
/// }
/// ```
pub fn check_path(path: &str) -> Result<()> {
    match problem_of(path) {
        None => Ok(()),
        Some(problem) => Err(Error::InvalidPath {
            path: path.chars().take(128).collect(),
            problem,
        }),
    }
}

/// Where a file of the store lies in an archive.
///
/// # Errors
/// [`Error::InvalidPath`].
pub fn file_path(name: &str) -> Result<String> {
    let path = format!("{STORE_PREFIX}{name}");
    check_path(&path)?;
    Ok(path)
}

/// Where the document of this name lies in an archive: `vaults/`, the name with `%XX` for what a path cannot hold,
/// `.json`. A name that is too long so is cut, and ends in `~` and a part of its SHA-256.
///
/// # Errors
/// [`Error::InvalidPath`] for an empty name.
///
/// ```
/// use vault_snapshot::archive::path::document_path;
/// assert_eq!(document_path("users").unwrap(), "vaults/users.json");
/// assert_eq!(document_path("über/alles").unwrap(), "vaults/%C3%BCber%2Falles.json");
/// assert!(document_path(&"ü".repeat(64)).unwrap().len() < 255);
/// ```
pub fn document_path(name: &str) -> Result<String> {
    if name.is_empty() {
        return Err(Error::InvalidPath {
            path: String::new(),
            problem: "a document has a name",
        });
    }
    let mut encoded = String::new();
    let mut cut = 0;
    for (at, byte) in name.bytes().enumerate() {
        let first = at == 0 && (byte == b'.' || is_device(name));
        if !first && (byte.is_ascii_alphanumeric() || b"_-.".contains(&byte)) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        if encoded.len() <= ENCODED_CUT_BYTES {
            cut = encoded.len();
        }
    }
    if encoded.len() > ENCODED_BYTES_MAX {
        encoded.truncate(cut);
        encoded.push('~');
        for byte in &Sha256::digest(name.as_bytes())[..16] {
            encoded.push_str(&format!("{byte:02x}"));
        }
    }
    let path = format!("{VAULTS_PREFIX}{encoded}{DOCUMENT_SUFFIX}");
    check_path(&path)?;
    Ok(path)
}

fn problem_of(path: &str) -> Option<&'static str> {
    if path.len() > PATH_BYTES_MAX {
        return Some("it is over 1024 bytes long");
    }
    if !path.starts_with(STORE_PREFIX) && !path.starts_with(VAULTS_PREFIX) {
        return Some("it lies neither under store/ nor under vaults/");
    }
    if path.starts_with(VAULTS_PREFIX) && !path.ends_with(DOCUMENT_SUFFIX) {
        return Some("a document ends in .json");
    }
    if path.split('/').count() > PARTS_MAX {
        return Some("it has over 16 parts");
    }
    path.split('/').find_map(part_problem)
}

fn part_problem(part: &str) -> Option<&'static str> {
    if part.is_empty() {
        return Some("a part of it is empty");
    }
    if part.len() > PART_BYTES_MAX {
        return Some("a part of it is over 255 bytes long");
    }
    if part == "." || part == ".." {
        return Some("a part of it leads to another directory");
    }
    let odd = |c: char| !c.is_ascii_graphic() || "\\:<>\"|?*".contains(c);
    if part.contains(odd) {
        return Some("it has characters other than printable ASCII without \\ : < > \" | ? *");
    }
    if part.ends_with('.') {
        return Some("a part of it ends in a dot, which some systems drop");
    }
    is_device(part).then_some("a part of it is the name of a device on some systems")
}

/// Whether a name, up to its first dot, is one of Windows' devices.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default();
    let stem = stem.trim_end().to_ascii_lowercase();
    let unnumbered = stem.trim_end_matches(|c: char| c.is_ascii_digit());
    match unnumbered {
        "com" | "lpt" => stem.len() == 4,
        _ => DEVICES.contains(&stem.as_str()) && stem != "com" && stem != "lpt",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        let long = format!("store/{}", "a".repeat(256));
        let deep = format!("store{}", "/a".repeat(16));
        for path in [
            "",
            "store",
            "store/",
            "/store/a",
            "a",
            "..",
            "../store/a",
            "store/..",
            "store/../a",
            "store/./a",
            "store//a",
            "store/a/",
            "store/a\\..\\b",
            "store\\a",
            "C:/store/a",
            "store/c:a",
            "store/a\0b",
            "store/a\nb",
            "store/ä",
            "store/a b",
            "store/a.",
            "store/CON",
            "store/nul.table",
            "store/Com1.log",
            "store/lpt9",
            "store/aux/x",
            "vaults/a",
            "vaults/con.json",
            "manifest.json",
            &long,
            &deep,
        ] {
            let error = check_path(path).unwrap_err();
            assert!(matches!(error, Error::InvalidPath { .. }), "{path}");
        }
        for path in [
            "store/a",
            "store/...a",
            "store/.hidden",
            "store/a/b/c",
            "store/com",
            "store/com10",
            "store/console",
            "store/CURRENT",
            "store/000012.table",
            "vaults/a.json",
        ] {
            assert!(check_path(path).is_ok(), "{path}");
        }
    }

    #[test]
    fn every_name_of_a_document_has_a_path_of_its_own() {
        let long = "ü".repeat(64);
        let longer = format!("{long}ü");
        let names = [
            "a", "A.b-c_d", ".", "..", ".x", "CON", "nul.json", "a/b", "a\\b", "ü", "%41", "日本",
            "a b", "a:b", "x.json", "\0", "Com1", "~", &long, &longer,
        ];
        let mut paths: Vec<_> = names.iter().map(|n| document_path(n).unwrap()).collect();
        for path in &paths {
            assert!(check_path(path).is_ok(), "{path}");
        }
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), names.len());
        assert!(document_path("").is_err());
    }
}
