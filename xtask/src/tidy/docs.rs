//! Checks on Markdown: links that lead somewhere, no paths of one machine, changelog, decision records.

use super::machine_path;
use crate::Findings;
use crate::source::{Tree, numbered};

const DECISIONS: &str = "docs/adr/";
const DECISION_HEADINGS: [&str; 4] = ["Status", "Context", "Decision", "Consequences"];

/// Runs every check of this module.
pub(crate) fn check(tree: &Tree) -> Findings {
    let mut findings = Findings::default();
    let mut links = 0;
    for (path, text) in tree.ending(".md") {
        for (number, line) in numbered(text) {
            if let Some(found) = machine_path(line) {
                findings.problem(format!(
                    "{path}:{number}: `{found}` is a path of one machine; write it relative to the \
                     repository"
                ));
            }
        }
        for (number, target) in links_of(text) {
            links += 1;
            if let Some(problem) = broken(path, target, tree) {
                findings.problem(format!("{path}:{number}: {problem}"));
            }
        }
    }
    changelog(tree, &mut findings);
    decisions(tree, &mut findings);
    findings.note(format!("{links} links within the repository"));
    findings
}

/// The lines of a text that are not within a code block.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    numbered(text).filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// Where the links of a text lead that do not leave the repository.
fn links_of(text: &str) -> Vec<(usize, &str)> {
    let mut links = Vec::new();
    for (number, line) in prose(text) {
        // What stands between back-quotes is code: `a[i](x)` is no link.
        let mut outside = true;
        let mut at = 0;
        while at < line.len() {
            let rest = &line[at..];
            if rest.starts_with('`') {
                outside = !outside;
            } else if outside && rest.starts_with("](") {
                let target = rest[2..].split(')').next().unwrap_or_default();
                let target = target.split(" \"").next().unwrap_or_default();
                if !target.contains("://") && !target.starts_with("mailto:") {
                    links.push((number, target));
                }
            }
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    links
}

/// Says what is wrong with a link, if anything is.
fn broken(from: &str, target: &str, tree: &Tree) -> Option<String> {
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = match file {
        "" => from.to_owned(),
        file => match resolve(from, file) {
            Some(path) => path,
            None => return Some(format!("link to `{target}` leaves the repository")),
        },
    };
    if !tree.has(&path) {
        return Some(format!(
            "link to `{target}` leads nowhere; mend or remove it"
        ));
    }
    let text = tree.text(&path).filter(|_| path.ends_with(".md"))?;
    if anchor.is_empty() || prose(text).any(|(_, line)| anchor_of(line) == Some(anchor.to_owned()))
    {
        return None;
    }
    Some(format!(
        "link to `{target}`: no heading of {path} has this anchor"
    ))
}

/// A path relative to the file `from`, from the repository's root.
fn resolve(from: &str, target: &str) -> Option<String> {
    let directory = from.rsplit_once('/').map_or("", |(directory, _)| directory);
    let mut parts: Vec<&str> = directory
        .split('/')
        .filter(|part| !part.is_empty())
        .collect();
    if target.starts_with('/') {
        return None;
    }
    for part in target
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
    {
        if part == ".." {
            parts.pop()?;
        } else {
            parts.push(part);
        }
    }
    Some(parts.join("/"))
}

/// The anchor that a heading gets when it is rendered.
fn anchor_of(line: &str) -> Option<String> {
    let heading = line.trim_start_matches('#');
    if heading.len() == line.len() || !heading.starts_with(' ') {
        return None;
    }
    let kept = heading.trim().chars().filter_map(|c| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c.to_ascii_lowercase()),
        _ => None,
    });
    Some(kept.collect())
}

fn headings(text: &str) -> impl Iterator<Item = &str> {
    prose(text).filter_map(|(_, line)| line.strip_prefix("## ").map(str::trim))
}

fn changelog(tree: &Tree, findings: &mut Findings) {
    let text = tree.text("CHANGELOG.md").unwrap_or_default();
    if !headings(text).any(|heading| heading.trim_matches(['[', ']']) == "Unreleased") {
        findings.problem(
            "CHANGELOG.md:1: no section `## Unreleased`; that is where the next change is told",
        );
    }
}

/// Each decision has its four parts, a number of its own without gaps, and a place in the list.
fn decisions(tree: &Tree, findings: &mut Findings) {
    let list = format!("{DECISIONS}README.md");
    let index = tree.text(&list).unwrap_or_default();
    let mut expected = 1;
    for (path, text) in tree
        .ending(".md")
        .filter(|(path, _)| path.starts_with(DECISIONS))
    {
        let name = &path[DECISIONS.len()..];
        if name == "README.md" {
            continue;
        }
        for wanted in DECISION_HEADINGS {
            if !headings(text).any(|heading| heading == wanted) {
                findings.problem(format!("{path}:1: no section `## {wanted}`; see {list}"));
            }
        }
        if name == "template.md" {
            continue;
        }
        if name.get(..5) != Some(&format!("{expected:04}-")) {
            findings.problem(format!(
                "{path}:1: the next decision is {expected:04}; number it so"
            ));
        }
        expected += 1;
        if !index.contains(&format!("]({name})")) {
            findings.problem(format!("{list}:1: does not list {name}; add it"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECISION: &str = "# 1. x\n## Status\n## Context\n## Decision\n## Consequences\n";

    fn complete() -> Tree {
        Tree::default()
            .with("CHANGELOG.md", "# Changes\n\n## Unreleased\n")
            .with("docs/adr/README.md", "- [one](0001-one.md)\n")
            .with("docs/adr/0001-one.md", DECISION)
            .with("docs/adr/template.md", DECISION)
            .with(
                "README.md",
                "[a](docs/adr) [b](docs/adr/0001-one.md#status) [c](#head-ing) [d](https://x.y/z)\n\
                 ```\n[e](nowhere.md)\n```\n`[f](nowhere.md)`\n# Head, ing\n",
            )
    }

    #[test]
    fn a_complete_tree_passes() {
        let findings = check(&complete());
        assert_eq!(findings.problems, Vec::<String>::new());
        assert_eq!(findings.notes, ["4 links within the repository"]);
    }

    #[test]
    fn broken_links_are_found() {
        for (link, problem) in [
            ("[a](nowhere.md)", "leads nowhere"),
            ("[a](docs/adr/0001-one.md#nothing)", "no heading"),
            ("[a](#nothing)", "no heading"),
            ("[a](../other/x.md)", "leaves the repository"),
            ("[a](/etc/x.md)", "leaves the repository"),
            ("See `/home/ann/x`.", "path of one machine"),
        ] {
            let found = check(&complete().with("README.md", link)).problems;
            assert_eq!(found.len(), 1, "{link}: {found:?}");
            assert!(
                found[0].starts_with("README.md:1: ") && found[0].contains(problem),
                "{found:?}"
            );
        }
    }

    #[test]
    fn the_changelog_needs_its_unreleased_section() {
        let tree = complete().with("CHANGELOG.md", "# Changes\n## 0.1.0\n");
        assert!(check(&tree).problems[0].starts_with("CHANGELOG.md:1"));
    }

    #[test]
    fn decisions_are_whole_numbered_and_listed() {
        let part = complete().with(
            "docs/adr/0001-one.md",
            "## Status\n## Context\n## Decision\n",
        );
        let found = check(&part).problems;
        assert!(
            found.iter().any(|p| p.contains("`## Consequences`")),
            "{found:?}"
        );
        let gap = complete().with("docs/adr/0003-three.md", DECISION);
        let found = check(&gap).problems;
        assert!(
            found.iter().any(|p| p.contains("next decision is 0002")),
            "{found:?}"
        );
        assert!(
            found
                .iter()
                .any(|p| p.contains("does not list 0003-three.md")),
            "{found:?}"
        );
    }
}
