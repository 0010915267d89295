//! Patterns of vault names.

use crate::error::{Error, Result};

/// Longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 256;

/// Refuses what is no pattern: 1 to 256 bytes, with `*` for any characters and `?` for any one.
pub(super) fn check(pattern: &str) -> Result<()> {
    let problem = if pattern.is_empty() {
        "it is empty"
    } else if pattern.len() > PATTERN_BYTES_MAX {
        "it is longer than 256 bytes"
    } else if pattern.contains(char::is_control) {
        "it has a control character"
    } else {
        return Ok(());
    };
    Err(Error::InvalidPattern {
        pattern: pattern.chars().take(64).collect(),
        problem,
    })
}

/// Whether a name matches a pattern. Takes time in proportion to the two lengths multiplied, at worst.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where the last star was, and how much of the name it stands for.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == '?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((at, taken)) = star else {
                    return false;
                };
                star = Some((at, taken + 1));
                p = at + 1;
                n = taken + 1;
            }
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, name) in [
            ("*", ""),
            ("*", "anything"),
            ("users", "users"),
            ("app-*", "app-"),
            ("app-*", "app-logs"),
            ("*-log", "a-log-log"),
            ("a*b*c", "axxbyyc"),
            ("u?er", "user"),
            ("??", "ßa"),
            ("a**", "a"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("", "a"),
            ("users", "user"),
            ("users", "users2"),
            ("app-*", "app"),
            ("?", ""),
            ("a*b", "ac"),
            ("Users", "users"),
            ("*a", "ab"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        // What would take a backtracking matcher for ever.
        let long = "a".repeat(128);
        assert!(!matches(
            &"a*".repeat(128),
            &format!("{long}b").replace('a', "c")
        ));
        assert!(!matches(&format!("{}b", "a*".repeat(100)), &long));
    }

    #[test]
    fn odd_patterns_are_refused() {
        assert!(check("app-*").is_ok());
        for odd in ["", "a\n", &"x".repeat(257)] {
            assert!(matches!(check(odd), Err(Error::InvalidPattern { .. })));
        }
    }
}
