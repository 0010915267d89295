//! Licences, banned crates and least versions: what `cargo deny` checks, for machines without it.
//!
//! The rules are those of `deny.toml`, which stays the one place where they stand. Licences are checked
//! on what this platform compiles, bans on the lock file, which covers every platform.

use crate::Findings;
use crate::source::numbered;
use crate::workspace::Workspace;

/// The parts of `deny.toml` that are enforced here.
#[derive(Debug, Default, PartialEq, Eq)]
struct Rules {
    licenses: Vec<String>,
    /// Licences that only one crate may have.
    exceptions: Vec<(String, Vec<String>)>,
    /// A crate, and the version below which it is banned (`None`: banned altogether).
    bans: Vec<(String, Option<Version>)>,
}

type Version = (u64, u64, u64);

/// Holds licences and versions against the rules.
pub(crate) fn check(workspace: &Workspace, lock: &str, deny: &str) -> Findings {
    let mut findings = Findings::default();
    let rules = match Rules::parse(deny) {
        Ok(rules) => rules,
        Err(problem) => {
            findings.problem(format!("deny.toml: {problem}"));
            return findings;
        }
    };
    for package in &workspace.packages {
        let (name, version) = (&package.name, &package.version);
        let exceptions = rules.exceptions.iter().filter(|(crate_, _)| crate_ == name);
        let extra: Vec<_> = exceptions.flat_map(|(_, licenses)| licenses).collect();
        let allowed = |license: &str| {
            rules.licenses.iter().any(|l| l == license) || extra.iter().any(|l| *l == license)
        };
        match &package.license {
            Some(license) if Expression::allows(license, &allowed) => {}
            Some(license) => findings.problem(format!(
                "{name} {version} is licensed {license:?}, which deny.toml does not allow; use another \
                 crate"
            )),
            None => findings.problem(format!("{name} {version} names no licence; use another crate")),
        }
    }
    let locked = locked_packages(lock);
    for (name, text) in &locked {
        for (banned, below) in rules.bans.iter().filter(|(banned, _)| banned == name) {
            match below {
                None => findings.problem(format!(
                    "Cargo.lock: {banned} is banned by deny.toml; `cargo tree -i {banned}` says who \
                     wants it"
                )),
                Some(least) if parse_version(text).is_none_or(|version| version < *least) => {
                    let (major, minor, patch) = least;
                    findings.problem(format!(
                        "Cargo.lock: {banned} {text} is below {major}.{minor}.{patch}; `cargo update \
                         -p {banned}`"
                    ));
                }
                Some(_) => {}
            }
        }
    }
    findings.note(format!(
        "{} licences and {} locked versions held against deny.toml",
        workspace.packages.len(),
        locked.len()
    ));
    findings
}

impl Rules {
    /// Reads the lists `licenses.allow`, `licenses.exceptions` and `bans.deny`. Not a TOML parser: it
    /// reads the plain form that `deny.toml` is written in, and refuses to run where it finds nothing.
    fn parse(text: &str) -> Result<Self, String> {
        let mut rules = Self::default();
        let (mut section, mut list) = (String::new(), String::new());
        for (number, line) in numbered(text) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.starts_with('[') && line.ends_with(']') && list.is_empty() {
                line.trim_matches(['[', ']']).clone_into(&mut section);
            } else if let Some((name, rest)) = line.split_once(" = [")
                && list.is_empty()
            {
                if !rest.ends_with(']') {
                    name.clone_into(&mut list);
                }
                rules.take(&section, name, rest, number)?;
            } else if line == "]" {
                list.clear();
            } else if !list.is_empty() {
                rules.take(&section, &list, line, number)?;
            }
        }
        if rules.licenses.is_empty() || rules.bans.is_empty() {
            return Err("no `licenses.allow` or no `bans.deny` found".to_owned());
        }
        Ok(rules)
    }

    fn take(&mut self, section: &str, list: &str, line: &str, number: usize) -> Result<(), String> {
        let quoted: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
        match (section, list, quoted.as_slice()) {
            ("licenses", "allow", licenses) => {
                self.licenses.extend(licenses.iter().map(|&l| l.to_owned()));
            }
            ("licenses", "exceptions", [name, licenses @ ..]) => {
                let licenses = licenses.iter().map(|&l| l.to_owned()).collect();
                self.exceptions.push(((*name).to_owned(), licenses));
            }
            ("bans", "deny", [spec, ..]) => {
                let ban = match spec.split_once("@<") {
                    None => ((*spec).to_owned(), None),
                    Some((name, version)) => {
                        let version = parse_version(version)
                            .ok_or_else(|| format!("line {number}: {version:?} is no version"))?;
                        (name.to_owned(), Some(version))
                    }
                };
                self.bans.push(ban);
            }
            _ => {}
        }
        Ok(())
    }
}

fn parse_version(text: &str) -> Option<Version> {
    let core = text.split(['-', '+']).next()?;
    let mut parts = core.split('.').map(str::parse);
    let mut next = || parts.next().transpose().ok();
    Some((
        next()??,
        next()?.unwrap_or_default(),
        next()?.unwrap_or_default(),
    ))
}

/// Name and version of each package in a lock file.
fn locked_packages(lock: &str) -> Vec<(String, String)> {
    let value = |line: &str, name: &str| {
        let value = line.strip_prefix(name)?.strip_prefix(" = \"")?;
        value.strip_suffix('"').map(str::to_owned)
    };
    let mut packages = Vec::new();
    let mut name = None;
    for line in lock.lines() {
        if let Some(found) = value(line, "name") {
            name = Some(found);
        } else if let Some(version) = value(line, "version")
            && let Some(name) = name.take()
        {
            packages.push((name, version));
        }
    }
    packages
}

/// An SPDX licence expression, evaluated while it is read.
struct Expression<'a> {
    words: std::iter::Peekable<std::vec::IntoIter<&'a str>>,
    allowed: &'a dyn Fn(&str) -> bool,
}

impl Expression<'_> {
    /// Whether the expression can be satisfied by allowed licences. What cannot be read is not allowed.
    fn allows(text: &str, allowed: &dyn Fn(&str) -> bool) -> bool {
        // Old manifests write a slash for OR.
        let spaced = text
            .replace('(', " ( ")
            .replace(')', " ) ")
            .replace('/', " OR ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut expression = Expression {
            words: words.into_iter().peekable(),
            allowed,
        };
        expression.any() == Some(true) && expression.words.next().is_none()
    }

    fn any(&mut self) -> Option<bool> {
        let mut holds = self.all()?;
        while self.words.next_if_eq(&"OR").is_some() {
            holds |= self.all()?;
        }
        Some(holds)
    }

    fn all(&mut self) -> Option<bool> {
        let mut holds = self.one()?;
        while self.words.next_if_eq(&"AND").is_some() {
            holds &= self.one()?;
        }
        Some(holds)
    }

    fn one(&mut self) -> Option<bool> {
        let word = self.words.next()?;
        if word == "(" {
            let holds = self.any()?;
            return self.words.next_if_eq(&")").map(|_| holds);
        }
        if matches!(word, ")" | "OR" | "AND" | "WITH") {
            return None;
        }
        if self.words.next_if_eq(&"WITH").is_some() {
            let exception = self.words.next()?;
            return Some((self.allowed)(&format!("{word} WITH {exception}")));
        }
        Some((self.allowed)(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::made_up::workspace;

    const DENY: &str = r#"
[licenses]
allow = [
    "MIT", # permissive
    "Apache-2.0",
    "Unicode-3.0",
]
exceptions = [
    { crate = "hash", allow = ["BSL-1.0"] },
]

[bans]
deny = [
    { crate = "atty" },
    { crate = "lz4_flex@<0.12.1", reason = "advisory" },
]
"#;

    #[test]
    fn expressions_follow_spdx() {
        let allowed = |license: &str| ["MIT", "Apache-2.0", "Unicode-3.0"].contains(&license);
        for good in [
            "MIT",
            "MIT OR Apache-2.0",
            "MIT/GPL-3.0",
            "GPL-3.0 OR MIT",
            "(MIT OR GPL-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR Apache-2.0",
        ] {
            assert!(Expression::allows(good, &allowed), "{good}");
        }
        for bad in [
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "Apache-2.0 WITH LLVM-exception",
            "",
            "(MIT",
            "MIT MIT",
            "MIT OR",
        ] {
            assert!(!Expression::allows(bad, &allowed), "{bad}");
        }
    }

    #[test]
    fn licences_are_held_against_the_rules() {
        let mut packages = workspace(&[
            ("good", false, &[]),
            ("bad", false, &[]),
            ("none", false, &[]),
            ("hash", false, &[]),
        ]);
        packages.packages[1].license = Some("AGPL-3.0".to_owned());
        packages.packages[2].license = None;
        packages.packages[3].license = Some("BSL-1.0".to_owned());
        let found = check(&packages, "", DENY).problems;
        assert_eq!(found.len(), 2, "{found:?}");
        packages.packages[0].license = Some("BSL-1.0".to_owned());
        assert_eq!(check(&packages, "", DENY).problems.len(), 3);
    }

    #[test]
    fn banned_and_outdated_versions_are_found() {
        let lock = |name: &str, version: &str| {
            let lock = format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n");
            check(&Workspace::default(), &lock, DENY).problems.len()
        };
        assert_eq!(lock("lz4_flex", "0.12.1"), 0);
        assert_eq!(lock("lz4_flex", "0.12.0"), 1);
        assert_eq!(lock("lz4_flex", "0.9.30"), 1);
        assert_eq!(lock("lz4_flex", "0.13.0-rc.1"), 0);
        assert_eq!(lock("atty", "9.9.9"), 1);
        assert_eq!(lock("attycat", "9.9.9"), 0);
    }

    #[test]
    fn rules_that_are_missing_are_no_rules() {
        for bad in [
            "",
            "[licenses]\nallow = [\"MIT\"]\n",
            &DENY.replace("0.12.1", "new"),
        ] {
            assert_eq!(
                check(&Workspace::default(), "", bad).problems.len(),
                1,
                "{bad}"
            );
        }
    }
}
