//! The only place that prints: text for people, JSON for programs, progress on a terminal.

use std::fmt;
use std::io::{self, IsTerminal, Write, stderr, stdout};
use std::path::Path;
use std::process::ExitCode;

use serde::{Serialize, Serializer};
use vault_db::engine::check::VerifyProgress;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All is well.
    Well,
    /// Damage was found, or something was lost.
    Damaged,
    /// It could not be done.
    Refused,
    /// It was done, and its result could not be written.
    Untold,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Well => Self::SUCCESS,
            Outcome::Damaged => Self::from(1),
            Outcome::Refused => Self::from(3),
            Outcome::Untold => Self::from(4),
        }
    }
}

/// Where results go.
pub(crate) struct Output {
    json: bool,
    quiet: bool,
    progress: bool,
    /// What is shown of the progress now, in thousandths.
    shown: Option<u64>,
    /// Why a result could not be written.
    untold: Option<io::Error>,
}

impl Output {
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        Self {
            json,
            quiet,
            progress: !json && !quiet && stderr().is_terminal(),
            shown: None,
            untold: None,
        }
    }

    pub(crate) const fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Shows how far a verification has come, if somebody is looking.
    pub(crate) fn progress(&mut self, progress: &VerifyProgress) {
        self.progress_bytes(progress.bytes_done, progress.bytes_total, &progress.file);
    }

    /// Shows how many bytes of the work are done, if somebody is looking.
    pub(crate) fn progress_bytes(&mut self, done: u64, total: u64, of: &str) {
        if let Some(percent) = self.advances(done, total) {
            let (done, total) = (size(done), size(total));
            let _ = write!(
                stderr(),
                "\r\x1b[K{percent}  {done} of {total}  {}",
                Spelled(of)
            );
            let _ = stderr().flush();
        }
    }

    /// Shows how many parts of the work are done, if somebody is looking.
    pub(crate) fn progress_parts(&mut self, done: u64, total: u64, of: &str) {
        if let Some(percent) = self.advances(done, total) {
            let _ = write!(
                stderr(),
                "\r\x1b[K{percent}  {done} of {total}  {}",
                Spelled(of)
            );
            let _ = stderr().flush();
        }
    }

    /// How far the work is, where somebody is looking and would see a difference.
    fn advances(&mut self, done: u64, total: u64) -> Option<String> {
        const PARTS: u64 = 1000;
        if !self.progress {
            return None;
        }
        let part = (u128::from(done) * u128::from(PARTS) / u128::from(total.max(1))) as u64;
        if self.shown == Some(part) {
            return None;
        }
        self.shown = Some(part);
        let (percent, tenth) = (part / 10, part % 10);
        Some(format!("{percent:3}.{tenth}%"))
    }

    /// Ends the line that shows progress.
    pub(crate) fn progress_ends(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }

    /// Prints a result: `text` for people, or all of it as JSON.
    pub(crate) fn result(&mut self, value: &impl Serialize, text: impl fmt::Display) {
        self.progress_ends();
        let mut out = stdout().lock();
        let written = if self.json {
            serde_json::to_string_pretty(value)
                .map_err(io::Error::from)
                .and_then(|json| writeln!(out, "{json}"))
        } else {
            write!(out, "{}", Spelled(text))
        };
        let written = written.and_then(|()| out.flush());
        self.untold = self.untold.take().or(written.err());
    }

    /// Says something beside the result: what was done is done.
    pub(crate) fn remark(&mut self, text: &dyn fmt::Display) {
        self.progress_ends();
        let _ = writeln!(stderr(), "vaultdb: {}", Spelled(text));
    }

    /// How a command ended that came to this, now that everything is told, or could not be.
    pub(crate) fn ended(mut self, outcome: Outcome) -> Outcome {
        let Some(error) = self.untold.take() else {
            return outcome;
        };
        // Whoever reads no further knows.
        if error.kind() != io::ErrorKind::BrokenPipe {
            self.remark(&format_args!("the result could not be written: {error}"));
        }
        match outcome {
            Outcome::Well => Outcome::Untold,
            other => other,
        }
    }

    /// Says why something could not be done.
    pub(crate) fn failure(&mut self, error: &dyn fmt::Display) {
        self.progress_ends();
        if self.json {
            let failure = serde_json::json!({ "error": error.to_string() });
            let _ = writeln!(stdout(), "{failure}");
        }
        let _ = writeln!(stderr(), "vaultdb: {}", Spelled(error));
    }
}

/// Text in which what would steer a terminal is spelled out: a name from a forged file is to be seen, not obeyed.
struct Spelled<T>(T);

impl<T: fmt::Display> fmt::Display for Spelled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::write(&mut Speller(f), format_args!("{}", self.0))
    }
}

/// Spells out what comes by.
struct Speller<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for Speller<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(steers) {
            match part.char_indices().next_back() {
                Some((at, last)) if steers(last) => {
                    write!(self.0, "{}{}", &part[..at], last.escape_unicode())?;
                }
                _ => self.0.write_str(part)?,
            }
        }
        Ok(())
    }
}

/// Whether a terminal would do something else than show it: control characters, and those that turn the direction of text.
fn steers(character: char) -> bool {
    match character {
        '\n' => false,
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        other => other.is_control(),
    }
}

/// A path in JSON, which has no place for bytes that are no text: these are replaced, as where it is shown.
pub(crate) fn path_as_shown<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// A number of bytes as people write it.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        return format!("{bytes} B");
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_steer_a_terminal_is_spelled_out() {
        let told = Spelled("users\x1b[2J\u{202e}gpj.exe\r, größer:\nb\u{9b}1mc").to_string();
        let seen = "users\\u{1b}[2J\\u{202e}gpj.exe\\u{d}, größer:\nb\\u{9b}1mc";
        assert_eq!(told, seen);
    }

    #[test]
    fn sizes_are_readable() {
        let sizes = [0, 1023, 1024, 1 << 20, 1_572_864].map(size);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "1.5 MiB"]);
    }
}
