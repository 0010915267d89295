//! Holding what was read against what may be there.

use vault_core::error::printable;
use vault_core::{KeyRange, SequenceNumber};

use super::history::{Answers, History, Times};

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// Compares the entries that were found in a range with those that the history allows at a moment.
///
/// # Errors
/// The first difference.
pub fn compare_entries(
    history: &History,
    range: &KeyRange,
    sequence: SequenceNumber,
    times: Times,
    found: &[Entry],
) -> Result<(), String> {
    if let Some(pair) = found.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
        return Err(format!(
            "key {} comes before {}",
            printable(&pair[0].0),
            printable(&pair[1].0)
        ));
    }
    let mut expected = history
        .entries(range, sequence, times)
        .into_iter()
        .peekable();
    for (key, value) in found {
        while let Some((missing, answers)) = expected.next_if(|(next, _)| *next < &key[..]) {
            check_answer(missing, &answers, None)?;
        }
        match expected.next_if(|(next, _)| *next == &key[..]) {
            Some((_, answers)) => check_answer(key, &answers, Some(value))?,
            None => check_answer(key, &[None], Some(value))?,
        }
    }
    expected.try_for_each(|(missing, answers)| check_answer(missing, &answers, None))
}

/// Checks one answer.
pub(crate) fn check_answer(
    key: &[u8],
    answers: &[Option<Vec<u8>>],
    found: Option<&[u8]>,
) -> Result<(), String> {
    if answers.iter().any(|answer| answer.as_deref() == found) {
        return Ok(());
    }
    Err(format!(
        "key {} is {}, and should be {}",
        printable(key),
        describe(found),
        any_of(answers)
    ))
}

fn any_of(answers: &[Option<Vec<u8>>]) -> String {
    let all: Vec<String> = answers
        .iter()
        .map(|answer| describe(answer.as_deref()))
        .collect();
    all.join(" or ")
}

/// A value, or its absence, for people.
#[must_use]
pub fn describe(value: Option<&[u8]>) -> String {
    value.map_or_else(
        || "absent".to_owned(),
        |value| format!("{} ({} bytes)", printable(value), value.len()),
    )
}

impl History {
    /// Checks what a lookup gave.
    ///
    /// # Errors
    /// The difference.
    pub fn check_answer(
        &self,
        key: &[u8],
        sequence: SequenceNumber,
        times: Times,
        found: Option<&[u8]>,
    ) -> Result<(), String> {
        let answers: Answers = self.answers(key, sequence, times);
        check_answer(key, &answers, found)
    }
}
