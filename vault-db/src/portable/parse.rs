//! Reading exports: one after the other, what is in them, without holding more than an entry.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{BufRead, Read};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use vault_core::Timestamp;

use super::form::from_base64;
use super::transcode::Entry;
use super::{BASE64_FORMAT, JSON_FORMAT, LINES_FORMAT};
use crate::error::{Error, Result};
use crate::key::{DecodeKey, Key};
use crate::value::{self, Content, Stored};

/// Longest first line of an export in lines, in bytes.
const FIRST_LINE_BYTES_MAX: u64 = 1 << 20;

/// What an export says of its vault.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct About {
    #[serde(default)]
    pub(super) description: Option<String>,
    #[serde(default)]
    pub(super) owner: Option<String>,
    #[serde(default)]
    pub(super) tags: Vec<String>,
}

/// An entry of an export, ready to be stored.
pub(super) struct Parsed {
    pub(super) key: Vec<u8>,
    pub(super) stored: Vec<u8>,
    pub(super) expiry: Option<Timestamp>,
}

/// Takes entries, with the line on which each ends.
pub(super) type Sink<'a> = &'a mut dyn FnMut(u64, Parsed) -> Result<()>;

/// Reads an export of any form. `value_bytes_max` bounds what is read into memory at once.
pub(super) fn read(
    mut input: impl BufRead,
    value_bytes_max: usize,
    sink: Sink<'_>,
) -> Result<About> {
    let mut head = Vec::new();
    let mut first = input.by_ref().take(FIRST_LINE_BYTES_MAX);
    first.read_until(b'\n', &mut head).map_err(unreadable)?;
    #[derive(Deserialize)]
    struct First {
        format: String,
        #[serde(flatten)]
        about: About,
    }
    if let Ok(first) = serde_json::from_slice::<First>(&head)
        && first.format.starts_with("vault-jsonl-")
    {
        check_format(&first.format, 1)?;
        lines(input, value_bytes_max, sink)?;
        return Ok(first.about);
    }
    document(head.chain(input), value_bytes_max, sink)
}

/// Most bytes of text that an entry may take. Base64 takes four bytes for three, and escapes of strings six for one; the rest is
/// for the key and what stands around.
const fn entry_bytes_max(value_bytes_max: usize) -> u64 {
    value_bytes_max as u64 * 6 + (1 << 20)
}

fn unreadable(error: std::io::Error) -> Error {
    Error::Stream {
        doing: "reading an import",
        source: Arc::new(error),
    }
}

fn bad(line: u64, problem: impl Into<String>) -> Error {
    Error::Import {
        line,
        problem: problem.into(),
    }
}

/// Refuses a form that this build does not read.
fn check_format(format: &str, line: u64) -> Result<()> {
    if [JSON_FORMAT, LINES_FORMAT, BASE64_FORMAT].contains(&format) {
        return Ok(());
    }
    let known = ["vault-json-v", "vault-jsonl-v", "vaults-base64-v"];
    let version = known.iter().find_map(|known| format.strip_prefix(known));
    if version
        .and_then(|version| version.parse::<u32>().ok())
        .is_some_and(|version| version > 1)
    {
        return Err(Error::NewerExport {
            found: format.to_owned(),
        });
    }
    let format: String = format.chars().take(64).collect();
    Err(bad(
        line,
        format!("{format:?} is no form of export that this build knows"),
    ))
}

/// Takes an entry as it is to be stored.
fn parsed(entry: Entry) -> Result<Parsed, String> {
    let expiry = entry.expires_at.map(Timestamp);
    let content = match entry.is_raw {
        true => Content::Raw(&entry.content),
        false if !value::is_readable(&entry.content) => {
            return Err("a value with too many lists and maps in one another".to_owned());
        }
        false => Content::MessagePack(&entry.content),
    };
    let stored = Stored {
        expiry: None,
        content,
    };
    Ok(Parsed {
        stored: value::with_expiry(&stored, expiry),
        key: entry.key,
        expiry,
    })
}

fn lines(mut input: impl BufRead, value_bytes_max: usize, sink: Sink<'_>) -> Result<()> {
    let line_bytes_max = entry_bytes_max(value_bytes_max);
    let mut line = Vec::new();
    let (mut number, mut entries) = (1_u64, 0_u64);
    loop {
        line.clear();
        number += 1;
        let mut limited = input.by_ref().take(line_bytes_max);
        let read = limited.read_until(b'\n', &mut line).map_err(unreadable)?;
        if read as u64 == line_bytes_max {
            return Err(bad(
                number,
                format!("it is longer than {line_bytes_max} bytes"),
            ));
        }
        if read == 0 {
            return Err(bad(
                number,
                "the export ends before its last line, which says how many entries there are",
            ));
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Last {
            entries: u64,
        }
        if let Ok(last) = serde_json::from_slice::<Last>(&line) {
            if last.entries != entries {
                return Err(bad(
                    number,
                    format!(
                        "it says there are {} entries, and {entries} were found",
                        last.entries
                    ),
                ));
            }
            break;
        }
        let entry = entry_of(&line).map_err(|error| bad(number, error.to_string()))?;
        sink(
            number,
            parsed(entry).map_err(|problem| bad(number, problem))?,
        )?;
        entries += 1;
    }
    let mut rest = Vec::new();
    input
        .by_ref()
        .take(1 << 16)
        .read_to_end(&mut rest)
        .map_err(unreadable)?;
    if rest.iter().any(|byte| !byte.is_ascii_whitespace()) {
        return Err(bad(number + 1, "something follows the last line"));
    }
    Ok(())
}

/// Reads an entry out of a line.
fn entry_of(line: &[u8]) -> serde_json::Result<Entry> {
    let mut deserializer = serde_json::Deserializer::from_slice(line);
    // What an entry has in one another is bounded where it is taken in: a text has more of that than what is stored.
    deserializer.disable_recursion_limit();
    let entry = Entry::deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(entry)
}

/// How far a document was read.
#[derive(Default)]
struct Place {
    /// Ends of lines so far.
    ends: Cell<u64>,
    /// Bytes since the last entry.
    since: Cell<u64>,
}

/// Counts lines as they are read, and refuses to go on where an entry has no end: what is below holds it as a whole.
struct Counting<'a, R> {
    input: R,
    place: &'a Place,
    since_max: u64,
    failure: &'a RefCell<Option<Error>>,
}

impl<R: Read> Read for Counting<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        // One byte at a time, or the count would run ahead of what is being looked at. What is below is buffered.
        let read = self.input.read(&mut buffer[..1])?;
        let since = self.place.since.get() + read as u64;
        self.place.since.set(since);
        if since > self.since_max {
            let problem = format!("an entry is longer than {} bytes", self.since_max);
            *self.failure.borrow_mut() = Some(bad(self.place.line(), problem));
            return Err(std::io::Error::other("see the failure"));
        }
        if read == 1 && buffer[0] == b'\n' {
            self.place.ends.set(self.place.ends.get() + 1);
        }
        Ok(read)
    }
}

impl Place {
    /// The line that is being read, from 1.
    const fn line(&self) -> u64 {
        self.ends.get() + 1
    }
}

fn document(input: impl Read, value_bytes_max: usize, sink: Sink<'_>) -> Result<About> {
    let place = Place::default();
    let failure = RefCell::new(None);
    let context = Context {
        place: &place,
        failure: &failure,
    };
    let mut deserializer = serde_json::Deserializer::from_reader(Counting {
        input,
        place: &place,
        since_max: entry_bytes_max(value_bytes_max),
        failure: &failure,
    });
    // As for lines.
    deserializer.disable_recursion_limit();
    let read = Document {
        context: &context,
        sink,
    }
    .deserialize(&mut deserializer);
    let read = read.and_then(|about| deserializer.end().map(|()| about));
    read.map_err(|error| {
        let failure = failure.borrow_mut().take();
        match (failure, error.classify()) {
            (Some(failure), _) => failure,
            (None, serde_json::error::Category::Io) => unreadable(error.into()),
            (None, serde_json::error::Category::Eof) => {
                bad(error.line() as u64, "the export ends early")
            }
            (None, _) => bad(error.line() as u64, error.to_string()),
        }
    })
}

/// What the parts of a document share.
struct Context<'a> {
    place: &'a Place,
    /// An error that is not one of JSON.
    failure: &'a RefCell<Option<Error>>,
}

impl Context<'_> {
    fn fail<E: serde::de::Error>(&self, error: Error) -> E {
        *self.failure.borrow_mut() = Some(error);
        E::custom("see the failure")
    }

    const fn line(&self) -> u64 {
        self.place.line()
    }

    /// Says that an entry was taken.
    fn entry_taken(&self) {
        self.place.since.set(0);
    }
}

struct Document<'a, 'b> {
    context: &'a Context<'a>,
    sink: Sink<'b>,
}

impl<'de> DeserializeSeed<'de> for Document<'_, '_> {
    type Value = About;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<About, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Document<'_, '_> {
    type Value = About;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an export")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<About, A::Error> {
        let context = self.context;
        let mut about = About::default();
        let mut format: Option<String> = None;
        let mut complete = false;
        while let Some(name) = map.next_key::<String>()? {
            let needs_format = |expected: &str| -> Result<(), A::Error> {
                if format.as_deref() == Some(expected) {
                    return Ok(());
                }
                let problem =
                    format!("{name:?} stands before the format, or does not belong to it");
                Err(context.fail::<A::Error>(bad(context.line(), problem)))
            };
            match name.as_str() {
                "format" => {
                    let found: String = map.next_value()?;
                    check_format(&found, context.line())
                        .map_err(|error| context.fail::<A::Error>(error))?;
                    format = Some(found);
                }
                "entries" => {
                    needs_format(JSON_FORMAT)?;
                    map.next_value_seed(EntryList {
                        context,
                        sink: self.sink,
                    })?;
                    complete = true;
                }
                "data" => {
                    needs_format(BASE64_FORMAT)?;
                    map.next_value_seed(EncodedData {
                        context,
                        sink: self.sink,
                    })?;
                    complete = true;
                }
                "description" => about.description = map.next_value()?,
                "owner" => about.owner = map.next_value()?,
                "tags" => about.tags = map.next_value()?,
                "vault" | "exported_at" | "created_at" => {
                    map.next_value::<IgnoredAny>()?;
                }
                other => {
                    let other: String = other.chars().take(64).collect();
                    let problem = format!("{other:?} is no part of an export");
                    return Err(context.fail::<A::Error>(bad(context.line(), problem)));
                }
            }
        }
        if !complete {
            return Err(context.fail::<A::Error>(bad(
                context.line(),
                "the export has no entries, not even an empty list of them",
            )));
        }
        Ok(about)
    }
}

struct EntryList<'a, 'b> {
    context: &'a Context<'a>,
    sink: Sink<'b>,
}

impl<'de> DeserializeSeed<'de> for EntryList<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for EntryList<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(entry) = entries.next_element::<Entry>()? {
            let line = self.context.line();
            let parsed = parsed(entry).map_err(|problem| bad(line, problem));
            let taken = parsed.and_then(|parsed| (self.sink)(line, parsed));
            taken.map_err(|error| self.context.fail::<A::Error>(error))?;
            self.context.entry_taken();
        }
        Ok(())
    }
}

struct EncodedData<'a, 'b> {
    context: &'a Context<'a>,
    sink: Sink<'b>,
}

impl<'de> DeserializeSeed<'de> for EncodedData<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EncodedData<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("keys and values in Base64")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((key, stored)) = map.next_entry::<String, String>()? {
            let line = self.context.line();
            let parsed = parse_encoded(&key, &stored).map_err(|problem| bad(line, problem));
            let taken = parsed.and_then(|parsed| (self.sink)(line, parsed));
            taken.map_err(|error| self.context.fail::<A::Error>(error))?;
            self.context.entry_taken();
        }
        Ok(())
    }
}

fn parse_encoded(key: &str, stored: &str) -> Result<Parsed, String> {
    let (key, stored) = (from_base64(key)?, from_base64(stored)?);
    Key::decode_key(&key).map_err(|_| "a key that is none".to_owned())?;
    let parsed = Stored::parse(&stored).ok_or("a value that is none")?;
    if let Content::MessagePack(content) = parsed.content {
        value::decode::<value::Value>(content).map_err(|mismatch| mismatch.problem)?;
    }
    let expiry = parsed.expiry;
    Ok(Parsed {
        key,
        stored,
        expiry,
    })
}
