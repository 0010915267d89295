//! The table of expected counts: how it is written, read, and compared with what was counted.
//!
//! It is Markdown that people read, `docs/bench/instructions.md`: first what it was counted with, then a line for each
//! part. Counts with another compiler, library or processor say nothing about a change of ours, so they are not compared.

use crate::Findings;

/// Where the table is kept, from the root of the repository.
pub(super) const PATH: &str = "docs/bench/instructions.md";
/// What a count may differ, in either direction, in per cent: counts repeat almost exactly, and this leaves room for what
/// the compiler does anew each time something in the same crate changes: small parts were seen to move by 4.4 % for that alone. A part
/// that moves further for no reason of its own has its line renewed.
pub(super) const TOLERATED_PERCENT: u64 = 5;

const HEAD: &str = "\
# Instructions of each part

How many instructions one operation of each part executes, as callgrind counts them. Written by
`cargo xtask instructions --write`, held by `cargo xtask ci`; what to do with it stands in
[CONTRIBUTING.md](../../CONTRIBUTING.md#speed), what the parts are in
[benching.rs](../../vault-lsm/src/benching.rs).
";
const SETTINGS_HEAD: &str = "| counted with | |";
const PARTS_HEAD: &str = "| part | instructions |";

/// Instructions of one operation, in tenths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count(pub(super) u64);

impl Count {
    /// Of so many operations together.
    pub(super) fn of(instructions: u64, operations: u64) -> Option<Self> {
        let tenths = instructions.checked_mul(10)?.checked_add(operations / 2)?;
        tenths.checked_div(operations).map(Self)
    }

    fn parse(text: &str) -> Option<Self> {
        let (whole, tenth) = text.split_once('.')?;
        let tenth = Some(tenth).filter(|tenth| tenth.len() == 1)?;
        let whole: u64 = whole.parse().ok()?;
        whole
            .checked_mul(10)?
            .checked_add(tenth.parse().ok()?)
            .map(Self)
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{}.{}", self.0 / 10, self.0 % 10))
    }
}

/// Counts, and what they were made with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Name and value of everything that counts depend on, beside the code.
    pub(super) settings: Vec<(String, String)>,
    /// Name and count of each part.
    pub(super) parts: Vec<(String, Count)>,
}

impl Counts {
    /// The file of the repository.
    pub(super) fn render(&self) -> String {
        let mut out = format!("{HEAD}\n{SETTINGS_HEAD}\n| --- | --- |\n");
        for (name, value) in &self.settings {
            out += &format!("| {name} | {value} |\n");
        }
        out += &format!("\n{PARTS_HEAD}\n| --- | ---: |\n");
        for (name, count) in &self.parts {
            out += &format!("| {name} | {count} |\n");
        }
        out
    }

    /// Reads such a file.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut counts = Self::default();
        let mut in_parts = None;
        for (line, number) in text.lines().zip(1..) {
            match line {
                SETTINGS_HEAD => in_parts = Some(false),
                PARTS_HEAD => in_parts = Some(true),
                _ => {}
            }
            let Some((name, value)) = cells(line).filter(|(name, _)| !name.starts_with("---"))
            else {
                continue;
            };
            match in_parts {
                _ if line == SETTINGS_HEAD || line == PARTS_HEAD => {}
                Some(false) => counts.settings.push((name.to_owned(), value.to_owned())),
                Some(true) => {
                    let count = Count::parse(value).filter(|count| count.0 > 0);
                    let count = count.ok_or_else(|| {
                        format!("{PATH}:{number}: `{value}` is no count; one is written as `12.3`")
                    })?;
                    counts.parts.push((name.to_owned(), count));
                }
                None => return Err(format!("{PATH}:{number}: a table of neither kind")),
            }
        }
        if counts.settings.is_empty() || counts.parts.is_empty() {
            return Err(format!(
                "{PATH} has no counts; write it anew with `cargo xtask instructions --write`"
            ));
        }
        Ok(counts)
    }

    /// How what these were made with differs from what others were: nothing, if they can be compared.
    pub(super) fn differences(&self, other: &Self) -> Vec<String> {
        let value = |counts: &Self, name: &str| {
            let found = counts.settings.iter().find(|(n, _)| n == name);
            found.map_or_else(|| "unknown".to_owned(), |(_, value)| value.clone())
        };
        let names = self
            .settings
            .iter()
            .chain(&other.settings)
            .map(|(name, _)| name);
        let mut differences: Vec<String> = Vec::new();
        for name in names {
            let (ours, theirs) = (value(self, name), value(other, name));
            let difference = format!("{name}: the table has `{ours}`, here is `{theirs}`");
            if ours != theirs && !differences.contains(&difference) {
                differences.push(difference);
            }
        }
        differences
    }

    /// Holds what was counted against these, which are expected. With `whole`, every part was counted.
    pub(super) fn compare(&self, found: &Self, whole: bool) -> Findings {
        let mut findings = Findings::default();
        for (name, count) in &found.parts {
            match self.parts.iter().find(|(n, _)| n == name) {
                Some((_, expected)) => compare(&mut findings, name, *expected, *count),
                None => findings.problem(format!(
                    "{name}: {count} instructions, and {PATH} knows no such part; {}",
                    renewing(name)
                )),
            }
        }
        for (name, _) in &self.parts {
            if whole && !found.parts.iter().any(|(n, _)| n == name) {
                findings.problem(format!(
                    "{name}: stands in {PATH}, and is no part any more; take its line out"
                ));
            }
        }
        findings
    }

    /// Takes over the counts of some parts, and leaves those of others.
    pub(super) fn renew(&mut self, found: &Self) {
        for (name, count) in &found.parts {
            match self.parts.iter_mut().find(|(n, _)| n == name) {
                Some((_, expected)) => *expected = *count,
                None => self.parts.push((name.clone(), *count)),
            }
        }
    }
}

fn compare(findings: &mut Findings, name: &str, expected: Count, found: Count) {
    let difference = found.0.abs_diff(expected.0);
    let more = found.0 >= expected.0;
    // In hundredths of a per cent; only for people.
    let share = difference.saturating_mul(10_000) / expected.0.max(1);
    let (percent, hundredths) = (share / 100, share % 100);
    let direction = if more { "+" } else { "-" };
    let line = format!("{name:<28} {found:>10} {direction}{percent}.{hundredths:02} %");
    if difference.saturating_mul(100) <= expected.0.saturating_mul(TOLERATED_PERCENT) {
        findings.note(line);
    } else if more {
        findings.problem(format!(
            "{line}: more than the {expected} of {PATH}; mend it, or, if it is worth that, say why in the commit and {}",
            renewing(name)
        ));
    } else {
        findings.problem(format!(
            "{line}: less than the {expected} of {PATH}; well done, now keep it: {}",
            renewing(name)
        ));
    }
}

fn renewing(name: &str) -> String {
    format!("renew its line with `cargo xtask instructions --write {name}`")
}

/// The two cells of a line of a table.
fn cells(line: &str) -> Option<(&str, &str)> {
    let line = line.strip_prefix('|')?.strip_suffix('|')?;
    let (first, second) = line.split_once('|')?;
    Some((first.trim(), second.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(parts: &[(&str, u64)]) -> Counts {
        let settings = [("compiler", "rustc 1.95.0"), ("processor", "x86_64 aes")];
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Counts {
            settings: settings.map(owned).to_vec(),
            parts: (parts
                .iter()
                .map(|&(name, tenths)| (name.to_owned(), Count(tenths))))
            .collect(),
        }
    }

    #[test]
    fn a_table_reads_back_as_it_was_written() {
        let written = counts(&[("log/append", 2345), ("block/encode", 120_000), ("tiny", 7)]);
        let text = written.render();
        assert!(text.contains("| log/append | 234.5 |\n") && text.contains("| tiny | 0.7 |\n"));
        assert_eq!(Counts::parse(&text), Ok(written));
    }

    #[test]
    fn nonsense_is_refused_with_its_line() {
        let text = counts(&[("a", 10)]).render();
        let at = format!("{PATH}:{}: ", text.lines().count());
        for nonsense in [
            "",
            "1",
            "x.1",
            "1.23",
            "1.",
            "-1.0",
            "0.0",
            "99999999999999999999.0",
        ] {
            let spoiled = text.replace("| a | 1.0 |", &format!("| a | {nonsense} |"));
            let problem = Counts::parse(&spoiled).unwrap_err();
            assert!(problem.starts_with(&at), "{nonsense}: {problem}");
        }
        assert!(Counts::parse("").unwrap_err().contains("--write"));
        assert!(Counts::parse(&text.replace("| a | 1.0 |\n", "")).is_err());
        assert!(
            Counts::parse("| a | 1.0 |")
                .unwrap_err()
                .contains("neither")
        );
    }

    #[test]
    fn more_and_less_than_tolerated_are_problems() {
        let expected = counts(&[("a", 1000), ("b", 1000)]);
        for (a, problems) in [
            (1000, 0),
            (1050, 0),
            (1051, 1),
            (950, 0),
            (949, 1),
            (2000, 1),
            (0, 1),
        ] {
            let findings = expected.compare(&counts(&[("a", a), ("b", 1000)]), true);
            assert_eq!(findings.problems.len(), problems, "{a}: {findings:?}");
            assert_eq!(findings.notes.len(), 2 - problems);
        }
        let worse = expected.compare(&counts(&[("a", 1060), ("b", 1000)]), true);
        let problem = &worse.problems[0];
        assert!(
            problem.contains("106.0 +6.00 %: more than the 100.0"),
            "{problem}"
        );
        assert!(problem.contains("--write a`"), "{problem}");
        let better = expected.compare(&counts(&[("a", 900), ("b", 1000)]), true);
        assert!(
            better.problems[0].contains("-10.00 %: less than"),
            "{better:?}"
        );
    }

    #[test]
    fn parts_that_came_or_went_are_problems() {
        let expected = counts(&[("a", 1000), ("b", 1000)]);
        let other = counts(&[("a", 1000), ("c", 5)]);
        let findings = expected.compare(&other, true);
        assert_eq!(findings.problems.len(), 2, "{findings:?}");
        assert!(findings.problems[0].starts_with("c: 0.5 instructions"));
        assert!(findings.problems[1].starts_with("b: stands in"));
        // Where only some were asked for, the others are not missed.
        assert!(
            expected
                .compare(&counts(&[("a", 1000)]), false)
                .problems
                .is_empty()
        );
    }

    #[test]
    fn counts_of_other_compilers_are_told_apart() {
        let (here, mut there) = (counts(&[("a", 1)]), counts(&[("a", 1)]));
        assert!(here.differences(&there).is_empty());
        there.settings[0].1 = "rustc 1.96.0".to_owned();
        there.settings.remove(1);
        assert_eq!(
            here.differences(&there),
            [
                "compiler: the table has `rustc 1.95.0`, here is `rustc 1.96.0`",
                "processor: the table has `x86_64 aes`, here is `unknown`"
            ]
        );
        assert_eq!(there.differences(&here).len(), 2);
    }

    #[test]
    fn renewing_leaves_other_parts_alone() {
        let mut expected = counts(&[("a", 1), ("b", 2)]);
        expected.renew(&counts(&[("b", 3), ("c", 4)]));
        assert_eq!(expected, counts(&[("a", 1), ("b", 3), ("c", 4)]));
    }

    #[test]
    fn counts_are_rounded_to_tenths() {
        assert_eq!(Count::of(1234, 100), Some(Count(123)));
        assert_eq!(Count::of(1235, 100), Some(Count(124)));
        assert_eq!(Count::of(1, 0), None);
        assert_eq!(Count::of(u64::MAX, 1), None);
    }
}
