//! The repository's files as checks look at them: a tree of texts, and Rust sources with code, comments
//! and string literals told apart.
//!
//! The checks work on masked text: everything that is not of the wanted kind is replaced by spaces, line
//! by line and byte by byte, so that positions stay what they are.

use std::collections::BTreeMap;
use std::path::Path;

/// Largest file whose text is kept; of larger ones (data sets) only the name matters.
const TEXT_BYTES_MAX: u64 = 1 << 20;
/// Directories that hold what tools made.
const GENERATED: [&str; 6] = [
    "target",
    "artifacts",
    "coverage",
    "corpus",
    "node_modules",
    ".git",
];

/// All files of a repository by their path from its root, with `/` between the parts.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    /// Reads every file below `root` that is not generated.
    pub(crate) fn read(root: &Path) -> Result<Self, String> {
        let mut tree = Self::default();
        tree.read_directory(root, "")?;
        Ok(tree)
    }

    fn read_directory(&mut self, directory: &Path, prefix: &str) -> Result<(), String> {
        let context = |error: std::io::Error| format!("{}: {error}", directory.display());
        for entry in std::fs::read_dir(directory).map_err(context)? {
            let entry = entry.map_err(context)?;
            let kind = entry.file_type().map_err(context)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{prefix}{name}");
            if kind.is_dir() {
                if !GENERATED.contains(&name.as_str()) {
                    self.read_directory(&entry.path(), &format!("{path}/"))?;
                }
            } else if kind.is_file() && name != ".git" {
                let small = entry.metadata().map_err(context)?.len() <= TEXT_BYTES_MAX;
                let bytes = if small {
                    std::fs::read(entry.path()).map_err(context)?
                } else {
                    Vec::new()
                };
                self.files
                    .insert(path, String::from_utf8(bytes).unwrap_or_default());
            }
        }
        Ok(())
    }

    /// Adds a file; for tests.
    #[cfg(test)]
    pub(crate) fn with(mut self, path: &str, text: &str) -> Self {
        self.files.insert(path.to_owned(), text.to_owned());
        self
    }

    /// The text of a file.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Whether a file or directory of this path is there.
    pub(crate) fn has(&self, path: &str) -> bool {
        let directory = format!("{}/", path.trim_end_matches('/'));
        let below = self.files.range(directory.clone()..).next();
        path.is_empty()
            || self.files.contains_key(path)
            || below.is_some_and(|(file, _)| file.starts_with(&directory))
    }

    /// Path and text of every file whose name ends so.
    pub(crate) fn ending<'a>(&'a self, end: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.files
            .iter()
            .filter(move |(path, _)| path.ends_with(end))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }
}

/// A Rust source, taken apart.
#[derive(Debug)]
pub(crate) struct Source {
    /// Only code; what stands in comments and literals is blanked.
    pub(crate) code: String,
    /// Only comments.
    pub(crate) comments: String,
    /// Code and literals; only comments are blanked.
    pub(crate) literal: String,
    /// For each line, whether it belongs to something marked `#[cfg(test)]` or `#[test]`.
    pub(crate) test_lines: Vec<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Code,
    Comment,
    Literal,
}

impl Source {
    /// Takes a source apart. Never fails: what is not Rust comes out as some mixture of the three.
    pub(crate) fn new(text: &str) -> Self {
        let parts = classify(text.as_bytes());
        let only = |wanted: &[Part]| {
            let masked = text.bytes().zip(&parts).map(|(byte, part)| {
                if byte == b'\n' || wanted.contains(part) {
                    byte
                } else {
                    b' '
                }
            });
            String::from_utf8_lossy(&masked.collect::<Vec<_>>()).into_owned()
        };
        let code = only(&[Part::Code]);
        Self {
            test_lines: test_lines(&code),
            comments: only(&[Part::Comment]),
            literal: only(&[Part::Code, Part::Literal]),
            code,
        }
    }
}

/// Says of each byte what it is part of. The quotes of a literal count as code.
fn classify(text: &[u8]) -> Vec<Part> {
    let mut parts = vec![Part::Code; text.len()];
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let (len, part) = if rest.starts_with(b"//") {
            let len = rest.iter().position(|&b| b == b'\n');
            (len.unwrap_or(rest.len()), Part::Comment)
        } else if rest.starts_with(b"/*") {
            (block_comment_len(rest), Part::Comment)
        } else if let Some(len) = raw_string_len(text, at) {
            (len, Part::Literal)
        } else if rest[0] == b'"' {
            (quoted_len(rest), Part::Literal)
        } else if rest[0] == b'\'' {
            match char_len(rest) {
                Some(len) => (len, Part::Literal),
                None => (1, Part::Code),
            }
        } else {
            (1, Part::Code)
        };
        let end = (at + len).min(text.len());
        parts[at..end].fill(part);
        at = end;
    }
    parts
}

fn block_comment_len(text: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// The length of a raw string that begins at `at`, from its `r` to its last hash.
fn raw_string_len(text: &[u8], at: usize) -> Option<usize> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let before = at.checked_sub(1).map(|before| text[before]);
    // `br` and `cr` begin raw strings too; any other letter before the `r` makes it part of a name.
    let prefixed = matches!(before, Some(b'b' | b'c')) && (at < 2 || !word(text[at - 2]));
    if text[at] != b'r' || (before.is_some_and(word) && !prefixed) {
        return None;
    }
    let hashes = text[at + 1..].iter().take_while(|&&b| b == b'#').count();
    let open = at + 1 + hashes;
    if text.get(open) != Some(&b'"') {
        return None;
    }
    let close = [&b"\""[..], &b"#".repeat(hashes)].concat();
    let body = &text[open + 1..];
    let end = body.windows(close.len()).position(|window| window == close);
    Some(end.map_or(text.len() - at, |end| open + 1 + end + close.len() - at))
}

fn quoted_len(text: &[u8]) -> usize {
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// The length of a character literal; `None` for a lifetime.
fn char_len(text: &[u8]) -> Option<usize> {
    if text.get(1) == Some(&b'\\') {
        let close = text.iter().skip(3).position(|&b| b == b'\'')?;
        return Some(close + 4);
    }
    let first = std::str::from_utf8(&text[1..text.len().min(5)])
        .map_or_else(
            |error| std::str::from_utf8(&text[1..=error.valid_up_to()]).ok(),
            Some,
        )?
        .chars()
        .next()?;
    let close = 1 + first.len_utf8();
    (text.get(close) == Some(&b'\'')).then_some(close + 1)
}

/// Marks the lines of each item under `#[cfg(test)]` or `#[test]`, from the attribute to the item's
/// closing brace (or semicolon).
fn test_lines(code: &str) -> Vec<bool> {
    let lines = code.bytes().filter(|&b| b == b'\n').count() + 1;
    let mut marked = vec![false; lines];
    let bytes = code.as_bytes();
    for attribute in ["#[cfg(test)]", "#[test]", "#![cfg(test)]"] {
        for (begin, _) in code.match_indices(attribute) {
            let mut at = begin + attribute.len();
            let mut depth = 0_i32;
            let whole = attribute.starts_with("#!");
            while at < bytes.len() {
                match bytes[at] {
                    b'{' | b'(' | b'[' => depth += 1,
                    b'}' | b')' | b']' => depth -= 1,
                    _ => {}
                }
                let ends = matches!(bytes[at], b'}' | b';') && depth <= 0;
                at += 1;
                if ends && !whole {
                    break;
                }
            }
            let line = |at: usize| code[..at].bytes().filter(|&b| b == b'\n').count();
            marked[line(begin)..=line(at.min(code.len()))].fill(true);
        }
    }
    marked
}

/// The lines of a text with their numbers, from 1.
pub(crate) fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(i, line)| (i + 1, line))
}

/// Whether `word` stands in `line` as a word of its own.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(part) && !line[at + word.len()..].starts_with(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_told_from_code() {
        let source = Source::new(concat!(
            "let a = \"in // text\"; // note\n",
            "let b = r#\"raw \" text\"#; /* x /* nested */ y */ call();\n",
            "fn f<'a>(c: char) { c == '\"' || c == '\\'' || c == 'é' } // end\n",
        ));
        assert!(!source.code.contains("text") && source.code.contains("call();"));
        assert!(source.code.contains("fn f<'a>(c: char)"), "{}", source.code);
        assert!(!source.code.contains("end") && source.comments.contains("end"));
        assert!(source.comments.contains("note") && !source.comments.contains("in //"));
        assert!(source.comments.contains("y */") && source.literal.contains("raw \" text"));
        assert_eq!(source.code.lines().count(), 3);
    }

    #[test]
    fn bytes_that_are_no_source_do_no_harm() {
        for text in ["'", "\"", "r#\"", "/*", "'\\", "b'", "é'é", "#[cfg(test)]"] {
            let _ = Source::new(text);
        }
    }

    #[test]
    fn test_items_are_marked_whole() {
        let source =
            Source::new("fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\nfn c() {}\n");
        assert_eq!(
            source.test_lines[..6],
            [false, true, true, true, true, false]
        );
        let declared = Source::new("#[cfg(test)]\nmod tests;\nfn c() {}\n");
        assert_eq!(declared.test_lines[..3], [true, true, false]);
    }

    #[test]
    fn words_have_ends() {
        assert!(has_word("unsafe {", "unsafe") && !has_word("deny(unsafe_code)", "unsafe"));
    }
}
