//! What the quickstart loads: records with a key, a value, a label to index and a group to count.

use std::collections::BTreeMap;
use std::path::Path;

use crate::{Outcome, SAMPLE_RECORDS};

pub(crate) struct Record {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    /// What the index finds it by; need not be unique.
    pub(crate) label: Vec<u8>,
    /// What it is counted under.
    pub(crate) group: Vec<u8>,
}

impl Record {
    /// Label and key, so that records of one label stay apart.
    pub(crate) fn index_key(&self) -> Vec<u8> {
        [&self.label[..], &[0], &self.key[..]].concat()
    }

    pub(crate) fn shown(&self) -> String {
        self.key.escape_ascii().to_string()
    }
}

pub(crate) struct Dataset {
    pub(crate) title: String,
    pub(crate) records: Vec<Record>,
    pub(crate) group_name: &'static str,
    pub(crate) scan_prefix: Vec<u8>,
    pub(crate) doomed_prefix: Vec<u8>,
}

impl Dataset {
    /// The Unicode Character Database: code point → line, indexed by name, counted by category.
    pub(crate) fn unicode() -> Outcome<Self> {
        let file = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../examples/data/UnicodeData.txt"
        );
        let mut records = Vec::new();
        for (number, line) in read_lines(Path::new(file))? {
            let fields: Vec<_> = line.split(';').collect();
            let [code_point, name, category, ..] = fields[..] else {
                return Err(format!("{file}, line {number}: fewer than three fields").into());
            };
            records.push(Record {
                // Six digits, so that bytewise order is the order of code points.
                key: format!("{code_point:0>6}").into_bytes(),
                value: line.clone().into_bytes(),
                label: name.as_bytes().to_vec(),
                group: category.as_bytes().to_vec(),
            });
        }
        Ok(Self {
            title: "Unicode Character Database 15.0.0".to_owned(),
            records,
            group_name: "general category",
            scan_prefix: b"01F6".to_vec(),
            doomed_prefix: b"CJK COMPATIBILITY IDEOGRAPH-".to_vec(),
        })
    }

    /// A JSON Lines file: key field (or line number) → line, indexed and counted by how a key begins.
    pub(crate) fn json_lines(file: &Path, field: Option<&str>) -> Outcome<Self> {
        let mut records = Vec::new();
        let mut lines_by_key = BTreeMap::new();
        for (number, line) in read_lines(file)? {
            let at = |problem: String| format!("{}, line {number}: {problem}", file.display());
            if line.trim().is_empty() {
                continue;
            }
            let parsed: serde_json::Value =
                serde_json::from_str(&line).map_err(|error| at(format!("not JSON: {error}")))?;
            let key = match field.map(|field| (field, parsed.get(field))) {
                None => format!("{number:010}"),
                Some((_, Some(serde_json::Value::String(text)))) => text.clone(),
                Some((_, Some(serde_json::Value::Number(number)))) => number.to_string(),
                Some((field, Some(other))) => {
                    let problem = format!("field {field:?} is {other}, not a string or number");
                    return Err(at(problem).into());
                }
                Some((field, None)) => return Err(at(format!("no field {field:?}")).into()),
            };
            if let Some(before) = lines_by_key.insert(key.clone(), number) {
                let problem = format!("key {key:?} was already used on line {before}");
                return Err(at(problem).into());
            }
            let group: String = key.chars().take(1).collect();
            records.push(Record {
                key: key.into_bytes(),
                value: line.into_bytes(),
                label: group.clone().into_bytes(),
                group: group.into_bytes(),
            });
        }
        let Some(middle) = records.get(records.len() / 2) else {
            return Err(format!("{} holds no records", file.display()).into());
        };
        Ok(Self {
            title: file.display().to_string(),
            group_name: "first character",
            scan_prefix: middle.group.clone(),
            doomed_prefix: middle.label.clone(),
            records,
        })
    }

    pub(crate) fn sample(&self) -> &[Record] {
        let sample = self.records.len().min(SAMPLE_RECORDS);
        &self.records[..sample]
    }
}

/// Reads a file into numbered lines.
#[expect(
    clippy::disallowed_methods,
    reason = "the data set is the example's own file, not the store's"
)]
fn read_lines(file: &Path) -> Outcome<Vec<(usize, String)>> {
    let text = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut lines = Vec::new();
    for (i, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let line = std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line))
            .map_err(|error| format!("{}, line {}: {error}", file.display(), i + 1))?;
        lines.push((i + 1, line.to_owned()));
    }
    // What stands behind the last line end is a line only where there is something.
    lines.pop_if(|(_, line)| line.is_empty());
    Ok(lines)
}
