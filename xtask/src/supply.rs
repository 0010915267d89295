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
    bans: Vec<Ban>,
}

#[derive(Debug, PartialEq, Eq)]
struct Ban {
    name: String,
    /// The version below which it is banned (`None`: banned altogether).
    below: Option<Version>,
    /// Crates that may use it all the same.
    wrappers: Vec<String>,
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
    for package in &locked {
        for ban in rules.bans.iter().filter(|ban| ban.name == package.name) {
            if let Some(problem) = banned(ban, package, &locked) {
                findings.problem(problem);
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

/// What is wrong with a locked package that a ban names.
fn banned(ban: &Ban, package: &Locked, locked: &[Locked]) -> Option<String> {
    let name = &ban.name;
    let Some(least) = ban.below else {
        let uses = |other: &&Locked| other.dependencies.contains(name);
        let mut users = locked.iter().filter(uses).map(|other| &other.name);
        let wrapped = !ban.wrappers.is_empty() && users.all(|user| ban.wrappers.contains(user));
        return (!wrapped).then(|| {
            format!("Cargo.lock: {name} is banned by deny.toml; `cargo tree -i {name}` says who wants it")
        });
    };
    let (version, (major, minor, patch)) = (&package.version, least);
    let outdated = parse_version(version).is_none_or(|version| version < least);
    outdated.then(|| {
        format!("Cargo.lock: {name} {version} is below {major}.{minor}.{patch}; `cargo update -p {name}`")
    })
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
                let (name, below) = match spec.split_once("@<") {
                    None => (*spec, None),
                    Some((name, version)) => {
                        let version = parse_version(version)
                            .ok_or_else(|| format!("line {number}: {version:?} is no version"))?;
                        (name, Some(version))
                    }
                };
                let wrappers = line.split_once("wrappers = [").map_or("", |(_, rest)| rest);
                let wrappers = wrappers.split(']').next().unwrap_or_default();
                self.bans.push(Ban {
                    name: name.to_owned(),
                    below,
                    wrappers: wrappers
                        .split('"')
                        .skip(1)
                        .step_by(2)
                        .map(str::to_owned)
                        .collect(),
                });
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

/// A package in a lock file.
#[derive(Debug, Default)]
struct Locked {
    name: String,
    version: String,
    /// Names of what it depends on.
    dependencies: Vec<String>,
}

/// The packages of a lock file.
fn locked_packages(lock: &str) -> Vec<Locked> {
    let value = |line: &str, name: &str| {
        let value = line.strip_prefix(name)?.strip_prefix(" = \"")?;
        value.strip_suffix('"').map(str::to_owned)
    };
    let mut packages: Vec<Locked> = Vec::new();
    for line in lock.lines() {
        if line == "[[package]]" {
            packages.push(Locked::default());
        }
        let Some(package) = packages.last_mut() else {
            continue;
        };
        if let Some(name) = value(line, "name") {
            package.name = name;
        } else if let Some(version) = value(line, "version") {
            package.version = version;
        } else if let Some(dependency) = line.strip_prefix(" \"") {
            // The version follows where there are several.
            let name = dependency.split([' ', '"']).next().unwrap_or_default();
            package.dependencies.push(name.to_owned());
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
    { crate = "clock", wrappers = ["cloud", "sky"], reason = "another one" },
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
    fn a_banned_crate_may_come_with_its_wrapper_alone() {
        let lock = |user: &str| {
            let lock = format!(
                "[[package]]\nname = \"clock\"\nversion = \"1.0.0\"\n\n[[package]]\nname = \"{user}\"\n\
                 version = \"1.0.0\"\ndependencies = [\n \"clock 1.0.0\",\n \"other\",\n]\n"
            );
            check(&Workspace::default(), &lock, DENY).problems.len()
        };
        assert_eq!(lock("sky"), 0);
        assert_eq!(lock("cloud"), 0);
        assert_eq!(lock("watch"), 1);
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
