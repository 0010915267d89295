//! Checks on Rust sources: module docs, dead files, banned idioms, sizes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::machine_path;
use crate::Findings;
use crate::source::{Source, Tree, has_word, numbered};

/// Longest line of a source, in characters. Long messages may go beyond what rustfmt aims for.
const LINE_CHARS_MAX: usize = 160;
/// A file of more lines than this probably holds two ideas.
const FILE_LINES_NOTICE: usize = 600;
/// A file of more lines than this is split.
const FILE_LINES_MAX: usize = 900;
/// How far above an `unsafe` its justification may stand, in lines.
const SAFETY_LINES_MAX: usize = 12;

/// What is banned in code, and what to do instead.
const BANNED_CODE: [(&str, &str); 5] = [
    ("todo!", "write it, or leave it out"),
    ("unimplemented!", "return a typed error"),
    ("dbg!", "remove it"),
    (
        "#[ignore",
        "a test that does not run proves nothing: mend or remove it",
    ),
    (
        "allow(",
        "use `expect(…, reason = …)`, which tells when it is no longer needed",
    ),
];

/// What is banned in comments: a note that something is wrong is an issue or a change, not a comment.
const BANNED_COMMENTS: [&str; 3] = ["FIXME", "XXX", "HACK"];

/// The crate whose locks and atomics come through its module `sync`.
const LOCKS_OF: &str = "vault-lsm";
/// Files of it whose atomics only count, or say what is worth keeping in the cache: no answer depends on them, and no model runs them.
const COUNTS: [&str; 8] = [
    "vault-lsm/src/counters.rs",
    "vault-lsm/src/layout.rs",
    "vault-lsm/src/memory/lease.rs",
    "vault-lsm/src/memory/memtables.rs",
    "vault-lsm/src/memory/mod.rs",
    "vault-lsm/src/report/mod.rs",
    "vault-lsm/src/table/cache.rs",
    "vault-lsm/src/table/doorkeeper.rs",
];

/// Runs every check of this module.
pub(crate) fn check(tree: &Tree) -> Findings {
    let mut findings = Findings::default();
    let sources: BTreeMap<&str, Source> = tree
        .ending(".rs")
        .map(|(path, text)| (path, Source::new(text)))
        .collect();
    let tests = test_files(&sources);
    let mut lines = 0;
    for (path, source) in &sources {
        let text = tree.text(path).unwrap_or_default();
        lines += text.lines().count();
        sizes(path, text, &mut findings);
        if let Some(problem) = module_docs(path, text) {
            findings.problem(problem);
        }
        idioms(path, source, tests.contains(path), &mut findings);
        unsafe_blocks(path, source, &mut findings);
        if !tests.contains(path) {
            locks(path, source, &mut findings);
        }
        comments(path, source, &mut findings);
    }
    dead_files(&sources, &mut findings);
    findings.note(format!("{} sources, {lines} lines", sources.len()));
    findings
}

fn sizes(path: &str, text: &str, findings: &mut Findings) {
    for (number, line) in numbered(text) {
        let chars = line.chars().count();
        if chars > LINE_CHARS_MAX {
            findings.problem(format!(
                "{path}:{number}: {chars} characters, at most {LINE_CHARS_MAX}; break the line"
            ));
        }
    }
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        findings.problem(format!(
            "{path}:{lines}: {lines} lines, at most {FILE_LINES_MAX}; split it by what it does"
        ));
    } else if lines > FILE_LINES_NOTICE {
        findings.note(format!("{path}: {lines} lines; does it hold two ideas?"));
    }
}

/// The module's contract stands first. `#!` lines of scripts are not expected here.
fn module_docs(path: &str, text: &str) -> Option<String> {
    let first = text.lines().next().unwrap_or_default();
    let docs = text.lines().map_while(|line| line.strip_prefix("//!"));
    let words: usize = docs.map(|line| line.split_whitespace().count()).sum();
    // Two words say nothing: "To come", "Helper functions".
    let fault = match words {
        _ if !first.starts_with("//!") => "begins without module docs",
        0..=2 => "has module docs that say nothing",
        _ => return None,
    };
    Some(format!(
        "{path}:1: {fault}; begin with `//!` and what the module is for"
    ))
}

fn idioms(path: &str, source: &Source, test_file: bool, findings: &mut Findings) {
    for (number, line) in numbered(&source.code) {
        for (banned, advice) in BANNED_CODE {
            // `allow(` stands only in attributes, also within `cfg_attr`; elsewhere it is a function.
            let attribute = banned != "allow(" || line.trim_start().starts_with("#");
            let attribute = attribute && !(banned == "allow(" && is_shared_support(path, line));
            let word = banned.trim_end_matches(['!', '(']);
            if attribute
                && line.contains(banned)
                && (banned.starts_with('#') || has_word(line, word))
            {
                findings.problem(format!("{path}:{number}: `{banned}`; {advice}"));
            }
        }
        let in_test = test_file || source.test_lines[number - 1];
        if !in_test && path.contains("src/") && line.contains(".unwrap()") {
            findings.problem(format!(
                "{path}:{number}: `.unwrap()`; return an error, or `expect` what must always hold"
            ));
        }
    }
}

/// Whether `line` allows dead code in what several test binaries share: each uses a part of it, so
/// that an `expect` would fail in those that use all.
fn is_shared_support(path: &str, line: &str) -> bool {
    let shared = path
        .split_once("tests/")
        .is_some_and(|(_, rest)| rest.contains('/'));
    shared
        && (line.starts_with("#![allow(dead_code, reason")
            || line.starts_with("#![allow(unused, reason"))
}

/// Each `unsafe` block, impl or function says why it is sound, in a comment above it.
fn unsafe_blocks(path: &str, source: &Source, findings: &mut Findings) {
    let comments: Vec<&str> = source.comments.lines().collect();
    for (number, line) in numbered(&source.code) {
        // Function pointer types and the lints' names say `unsafe` without being it.
        if !has_word(line, "unsafe") || line.trim_start().starts_with('#') {
            continue;
        }
        let above =
            &comments[number.saturating_sub(SAFETY_LINES_MAX + 1)..number.min(comments.len())];
        let justified = |line: &&str| line.contains("SAFETY:") || line.contains("# Safety");
        if !above.iter().any(justified) {
            findings.problem(format!(
                "{path}:{number}: `unsafe` without a `SAFETY:` comment within the {SAFETY_LINES_MAX} \
                 lines above; say why it is sound"
            ));
        }
    }
}

/// What threads of the engine share is built of `crate::sync`, so that models can run it.
fn locks(path: &str, source: &Source, findings: &mut Findings) {
    const MODELLED: [&str; 4] = ["Mutex", "RwLock", "Condvar", "OnceLock"];
    let own = ["sync/", "models/"].map(|part| format!("{LOCKS_OF}/src/{part}"));
    if !path.starts_with(&format!("{LOCKS_OF}/src/"))
        || own.iter().any(|own| path.starts_with(own))
        || COUNTS.contains(&path)
    {
        return;
    }
    let mut lines_before = 0;
    for statement in source.code.split_inclusive(';') {
        let ambient = statement.contains("std::sync::") || statement.contains("std::thread::");
        let words = statement.split(|c: char| !c.is_alphanumeric() && c != '_');
        let shared = |word: &str| {
            MODELLED.contains(&word)
                || (word.starts_with("Atomic") && word.len() > "Atomic".len())
                || ["spawn", "yield_now", "Builder"].contains(&word)
        };
        let blank = statement.len() - statement.trim_start().len();
        let line = 1 + lines_before + statement[..blank].matches('\n').count();
        let in_test = source.test_lines.get(line - 1).copied().unwrap_or(false);
        if ambient && !in_test && words.into_iter().any(shared) {
            findings.problem(format!(
                "{path}:{line}: takes what threads share from `std`; take it from `crate::sync`, so that \
                 models can run it"
            ));
        }
        lines_before += statement.matches('\n').count();
    }
}

fn comments(path: &str, source: &Source, findings: &mut Findings) {
    for (number, line) in numbered(&source.comments) {
        for word in BANNED_COMMENTS
            .into_iter()
            .filter(|word| has_word(line, word))
        {
            findings.problem(format!(
                "{path}:{number}: `{word}` in a comment; mend it, or say plainly how things are"
            ));
        }
        if let Some(found) = machine_path(line) {
            findings.problem(format!(
                "{path}:{number}: `{found}` is a path of one machine; write it relative to the \
                 repository"
            ));
        }
    }
}

/// Sources that no `mod` leads to are never compiled.
fn dead_files(sources: &BTreeMap<&str, Source>, findings: &mut Findings) {
    let roots = sources.keys().copied().filter(|path| is_root(path));
    let mut waiting: VecDeque<&str> = roots.collect();
    let mut reached: BTreeSet<&str> = waiting.iter().copied().collect();
    while let Some(path) = waiting.pop_front() {
        for (_, candidates) in declared(path, &sources[path]) {
            for candidate in candidates {
                if let Some((&found, _)) = sources.get_key_value(candidate.as_str())
                    && reached.insert(found)
                {
                    waiting.push_back(found);
                }
            }
        }
    }
    for path in sources.keys().filter(|path| !reached.contains(*path)) {
        findings.problem(format!(
            "{path}:1: no `mod` leads to this file; declare or remove it"
        ));
    }
}

/// Files that cargo compiles by convention or declaration.
fn is_root(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        [.., "build.rs"] | [.., "src", "lib.rs" | "main.rs"] => true,
        [.., "src", "bin", _] => true,
        [.., "src", "bin", _, "main.rs"] => true,
        [.., directory, _] => {
            ["tests", "benches", "examples", "fuzz_targets"].contains(directory)
                && !parts.contains(&"src")
        }
        _ => false,
    }
}

/// The modules that a source declares (and the files it includes): the line, and where each may lie.
fn declared(path: &str, source: &Source) -> Vec<(usize, Vec<String>)> {
    let (directory, file) = path.rsplit_once('/').unwrap_or(("", path));
    let own = match file {
        "mod.rs" => directory.to_owned(),
        _ if is_root(path) => directory.to_owned(),
        _ => format!("{directory}/{}", file.trim_end_matches(".rs")),
    };
    let literals: Vec<&str> = source.literal.lines().collect();
    let mut modules = Vec::new();
    for (number, line) in numbered(&source.code) {
        let literal = literals[number - 1];
        let included = literal.split_once("include!(").map(|(_, rest)| rest);
        if let Some(file) = included.and_then(|rest| rest.split('"').nth(1)) {
            modules.push((number, vec![normal(&format!("{directory}/{file}"))]));
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(at) = words.iter().position(|&word| word == "mod") else {
            continue;
        };
        let Some(name) = words.get(at + 1).and_then(|name| name.strip_suffix(';')) else {
            continue;
        };
        let attributes = literals[..number].iter().rev();
        let attributes = attributes.skip_while(|line| !line.contains("#["));
        let placed = attributes
            .take_while(|line| line.trim_start().starts_with("#["))
            .chain(std::iter::once(&literal))
            .find_map(|line| line.split_once("#[path = \"")?.1.split('"').next())
            .filter(|_| number > 1 && literals[number - 2].contains("#["));
        modules.push(match placed {
            Some(placed) => (number, vec![normal(&format!("{directory}/{placed}"))]),
            None => (
                number,
                vec![format!("{own}/{name}.rs"), format!("{own}/{name}/mod.rs")],
            ),
        });
    }
    modules
}

/// Resolves `..` within a path.
fn normal(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
    {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    parts.join("/")
}

/// Files that hold only tests: by their place, because their `mod` stands under `cfg(test)`, or because
/// they say themselves, with a reason, that they panic where what they test is wrong (a conformance
/// suite, say). What they declare is theirs.
fn test_files<'a>(sources: &BTreeMap<&'a str, Source>) -> BTreeSet<&'a str> {
    let placed = |path: &str| path.contains("/tests/") || path.ends_with("/tests.rs");
    let says_so = |source: &Source| {
        let mut expectations = source.code.split("#![expect(").skip(1);
        expectations.any(|rest| {
            rest.split(']')
                .next()
                .is_some_and(|e| e.contains("unwrap_used"))
        })
    };
    let mut tests: BTreeSet<&str> = sources
        .iter()
        .filter(|(path, source)| placed(path) || says_so(source))
        .map(|(path, _)| *path)
        .collect();
    loop {
        let before = tests.len();
        for (path, source) in sources {
            for (line, candidates) in declared(path, source) {
                if !tests.contains(path) && !source.test_lines[line - 1] {
                    continue;
                }
                let found = candidates
                    .iter()
                    .filter_map(|c| sources.get_key_value(c.as_str()));
                tests.extend(found.map(|(path, _)| *path));
            }
        }
        if tests.len() == before {
            return tests;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(files: &[(&str, &str)]) -> Vec<String> {
        let tree = files
            .iter()
            .fold(Tree::default(), |tree, (path, text)| tree.with(path, text));
        check(&tree).problems
    }

    /// A crate of one file with this code in it.
    fn complaint(code: &str) -> String {
        problems(&[("a/src/lib.rs", &format!("//! What this is for.\n{code}\n"))]).join("\n")
    }

    #[test]
    fn what_threads_share_comes_from_the_module_for_it() {
        let takes = |path: &str, code: &str| {
            let lib = format!(
                "//! What this is for.\nmod {};\n",
                path.trim_end_matches(".rs")
            );
            let found = problems(&[
                ("vault-lsm/src/lib.rs", &lib),
                (
                    &format!("vault-lsm/src/{path}"),
                    &format!("//! What this is for.\n{code}\n"),
                ),
            ]);
            found.join("\n")
        };
        let found = takes(
            "view.rs",
            "use std::fmt;\nuse std::sync::{\n    Arc, Mutex,\n};",
        );
        assert!(
            found.starts_with("vault-lsm/src/view.rs:3: takes what"),
            "{found}"
        );
        for code in [
            "use std::sync::atomic::AtomicU64;",
            "fn f() { std::thread::yield_now(); }",
        ] {
            assert!(takes("view.rs", code).contains("crate::sync"), "{code}");
            assert_eq!(takes("counters.rs", code), "", "{code}");
        }
        for fine in [
            "use std::sync::{Arc, PoisonError};",
            "use std::sync::atomic::Ordering;",
            "use crate::sync::Mutex;",
            "#[cfg(test)]\nmod tests {\n    use std::sync::Mutex;\n}",
        ] {
            assert_eq!(takes("view.rs", fine), "", "{fine}");
        }
    }

    #[test]
    fn sound_sources_pass() {
        let code = concat!(
            "mod b;\n#[expect(dead_code, reason = \"x\")]\nfn allow(x: u8) { allow(x); }\n",
            "// SAFETY: nothing is touched.\nunsafe impl Send for X {}\n",
            "const S: &str = \"todo!() FIXME .unwrap()\";\n",
            "#[cfg(test)]\nmod tests { fn t() { x.unwrap(); } }\n",
        );
        let found = problems(&[
            ("a/src/lib.rs", &format!("//! What this is for.\n{code}")),
            ("a/src/b.rs", "//! The other part of it.\nmod c;\n"),
            ("a/src/b/c.rs", "//! The part of the part.\n"),
            (
                "a/tests/story.rs",
                "//! One story a file.\nmod common;\nfn f() { x.unwrap(); }\n",
            ),
            ("a/tests/common/mod.rs", "//! Shared by the stories.\n"),
        ]);
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn module_docs_must_stand_first_and_say_something() {
        let bare = problems(&[("a/src/lib.rs", "fn f() {}\n")]);
        assert!(bare[0].starts_with("a/src/lib.rs:1: begins without module docs"));
        let empty = problems(&[("a/src/lib.rs", "//! To come.\n")]);
        assert!(empty[0].contains("say nothing"));
    }

    #[test]
    fn banned_idioms_are_found_where_they_are_code() {
        for (code, found) in [
            ("fn f() { todo!() }", "`todo!`"),
            ("fn f() { unimplemented!() }", "`unimplemented!`"),
            ("fn f() { dbg!(1); }", "`dbg!`"),
            (
                "#[test]\n#[ignore = \"slow\"]\nfn f() {}",
                "a/src/lib.rs:3: `#[ignore`",
            ),
            ("#[allow(dead_code)]\nfn f() {}", "`allow(`"),
            ("#![allow(dead_code)]", "`allow(`"),
            ("#[cfg_attr(test, allow(dead_code))]\nfn f() {}", "`allow(`"),
            ("fn f() { x.unwrap(); }", "`.unwrap()`"),
            ("// FIXME: later", "a/src/lib.rs:2: `FIXME`"),
            ("/* XXX */", "`XXX`"),
            ("// Lies in /home/ann/vault.", "path of one machine"),
            (&"x".repeat(161), "161 characters"),
            (&"\n".repeat(900), "902 lines"),
        ] {
            assert!(
                complaint(code).contains(found),
                "{code}: {}",
                complaint(code)
            );
        }
        assert_eq!(
            complaint("fn f() { my_todo!(); x.unwrap_or(1); } // unsafe"),
            ""
        );
    }

    #[test]
    fn unsafe_needs_its_reason_near() {
        assert!(complaint("fn f() { unsafe { g() } }").contains("`unsafe` without"));
        let far = format!("// SAFETY: too far.\n{}unsafe {{}}", "\n".repeat(12));
        assert!(complaint(&far).contains("`unsafe` without"));
        let near = format!("// SAFETY: near.\n{}unsafe {{}}", "\n".repeat(11));
        assert_eq!(complaint(&near), "");
        assert_eq!(complaint("#![deny(unsafe_code)]"), "");
    }

    #[test]
    fn files_that_nothing_declares_are_dead() {
        let found = problems(&[
            ("a/src/lib.rs", "//! What this is for.\nmod b;\n// mod c;\n"),
            ("a/src/b/mod.rs", "//! The other part of it.\n"),
            ("a/src/c.rs", "//! Nobody declares this.\n"),
            ("a/src/b/d.rs", "//! Nor does anybody this.\n"),
        ]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("a/src/b/d.rs:1: no `mod`"));
        assert!(found[1].starts_with("a/src/c.rs:1: no `mod`"));
    }

    #[test]
    fn placed_and_included_files_are_reached() {
        let found = problems(&[
            (
                "examples/tour.rs",
                "//! What this is for.\n#[path = \"tour/data.rs\"]\nmod data;\nmod plain;\n",
            ),
            (
                "examples/tour/data.rs",
                "//! Where the data is.\ninclude!(\"../../fuzz/x.rs\");\n",
            ),
            ("examples/plain.rs", "//! An example by itself.\n"),
            ("fuzz/x.rs", "//! Included from afar.\n"),
        ]);
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn suites_that_say_so_may_panic() {
        let suite = "//! A suite for others to run.\n#![expect(\n    clippy::unwrap_used,\n    \
                     reason = \"tests\"\n)]\nmod part;\n";
        let part = "//! A part of it.\nfn f() { x.unwrap(); }\n";
        let files = |suite| {
            [
                ("a/src/lib.rs", "//! What this is for.\nmod suite;\n"),
                ("a/src/suite/mod.rs", suite),
                ("a/src/suite/part.rs", part),
            ]
        };
        assert_eq!(problems(&files(suite)), Vec::<String>::new());
        let silent = suite.replace("unwrap_used", "print_stdout");
        assert!(problems(&files(&silent))[0].starts_with("a/src/suite/part.rs:2: `.unwrap()`"));
    }

    #[test]
    fn shared_support_may_allow_dead_code() {
        let support = "//! Shared by the stories.\n#![allow(dead_code, reason = \"parts\")]\n";
        let story = "//! One story a file.\nmod support;\n";
        let shared = [
            ("a/tests/story.rs", story),
            ("a/tests/support/mod.rs", support),
        ];
        assert_eq!(problems(&shared), Vec::<String>::new());
        let alone = problems(&[("a/tests/story.rs", support)]);
        assert!(alone[0].contains("`allow(`"), "{alone:?}");
    }

    #[test]
    fn files_declared_under_test_are_tests() {
        let found = problems(&[
            (
                "a/src/lib.rs",
                "//! What this is for.\n#[cfg(test)]\nmod model;\n",
            ),
            (
                "a/src/model.rs",
                "//! The model of the tests.\nmod part;\nfn f() { x.unwrap(); }\n",
            ),
            (
                "a/src/model/part.rs",
                "//! A part of it.\nfn f() { x.unwrap(); }\n",
            ),
        ]);
        assert_eq!(found, Vec::<String>::new());
    }
}
