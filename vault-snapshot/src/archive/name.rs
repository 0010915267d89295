//! Names of snapshots: a moment in UTC, to the second, that sorts as text.

use std::fmt;
use std::str::FromStr;

use jiff::civil;
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use vault_core::Timestamp;

use super::error::{Error, Result};

/// Length of a name in bytes.
const NAME_BYTES: usize = 18;
/// What stands where in a name: `0` for a digit.
const PATTERN: &[u8; NAME_BYTES] = b"0000-00-00T000000Z";
/// The last second that a name can say, 9999-12-30T220000Z: the last of the calendar used.
const SECONDS_MAX: i64 = 253_402_207_200;

/// The name of a snapshot, `2026-11-22T153000Z`: the directory it lies in.
///
/// Names ascend in the order in which snapshots were made, even where the clock went back: a name is at least a second
/// after the one before it.
///
/// ```
/// use vault_core::Timestamp;
/// use vault_snapshot::archive::SnapshotName;
///
/// let name = SnapshotName::at(Timestamp(1_000)).unwrap();
/// assert_eq!(name.to_string(), "1970-01-01T000001Z");
/// assert_eq!("1970-01-01T000001Z".parse::<SnapshotName>().unwrap(), name);
/// assert!("1970-02-30T000001Z".parse::<SnapshotName>().is_err());
/// assert!(name.next().unwrap() > name);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotName {
    /// Since 1970, never negative and at most [`SECONDS_MAX`].
    seconds: i64,
}

impl SnapshotName {
    /// The name of a moment, cut to the second.
    ///
    /// # Errors
    /// [`Error::InvalidName`] beyond the year 9999.
    pub fn at(moment: Timestamp) -> Result<Self> {
        let seconds = i64::try_from(moment.0 / 1000).unwrap_or(i64::MAX);
        if seconds > SECONDS_MAX {
            return Err(invalid(&moment.to_string(), "it is beyond the year 9999"));
        }
        Ok(Self { seconds })
    }

    /// The name a second later.
    ///
    /// # Errors
    /// [`Error::InvalidName`] beyond the year 9999.
    pub fn next(self) -> Result<Self> {
        Self::at(Timestamp(self.timestamp().0 + 1000))
    }

    /// The moment that the name says.
    #[must_use]
    pub fn timestamp(self) -> Timestamp {
        Timestamp(self.seconds.unsigned_abs() * 1000)
    }

    /// Date and time of day, in UTC.
    pub(crate) fn civil(self) -> civil::DateTime {
        let moment = jiff::Timestamp::from_second(self.seconds).unwrap_or(jiff::Timestamp::MAX);
        TimeZone::UTC.to_datetime(moment)
    }
}

impl FromStr for SnapshotName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fits = |(&byte, &wanted): (&u8, &u8)| match wanted {
            b'0' => byte.is_ascii_digit(),
            _ => byte == wanted,
        };
        if text.len() != NAME_BYTES || !text.as_bytes().iter().zip(PATTERN).all(fits) {
            return Err(invalid(text, "it has another form"));
        }
        let number = |at: usize, digits: usize| text[at..at + digits].parse::<i16>().unwrap_or(-1);
        let pair = |at: usize| i8::try_from(number(at, 2)).unwrap_or(-1);
        let (hour, minute, second) = (pair(11), pair(13), pair(15));
        let moment = civil::DateTime::new(number(0, 4), pair(5), pair(8), hour, minute, second, 0)
            .and_then(|moment| TimeZone::UTC.to_timestamp(moment))
            .map_err(|_| invalid(text, "there is no such moment"))?;
        if moment.as_second() < 0 {
            return Err(invalid(text, "it is before 1970"));
        }
        let seconds = moment.as_second();
        Ok(Self { seconds })
    }
}

fn invalid(text: &str, problem: &str) -> Error {
    Error::InvalidName {
        name: text.chars().take(64).collect(),
        problem: problem.to_owned(),
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.civil();
        let (year, month, day) = (at.year(), at.month(), at.day());
        let (hour, minute, second) = (at.hour(), at.minute(), at.second());
        f.pad(&format!(
            "{year:04}-{month:02}-{day:02}T{hour:02}{minute:02}{second:02}Z"
        ))
    }
}

impl fmt::Debug for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for SnapshotName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SnapshotName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A moment as text in RFC 3339, for manifests.
pub(crate) mod moment {
    use super::{Deserialize, Deserializer, Serializer, Timestamp};

    pub(crate) fn serialize<S: Serializer>(
        moment: &Timestamp,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let millis = i64::try_from(moment.0).unwrap_or(i64::MAX);
        let moment = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
        serializer.collect_str(&format_args!("{moment:.3}"))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        let moment: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        let millis = u64::try_from(moment.as_millisecond());
        millis
            .map(Timestamp)
            .map_err(|_| serde::de::Error::custom(format!("{text} is before 1970")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_their_moment_and_sort_by_it() {
        let now = Timestamp(1_795_361_400_999);
        let name = SnapshotName::at(now).unwrap();
        assert_eq!(name.to_string(), "2026-11-22T153000Z");
        assert_eq!(name.timestamp(), Timestamp(1_795_361_400_000));
        assert!(name.next().unwrap().to_string() > name.to_string());
        let leap: SnapshotName = "2024-02-29T235959Z".parse().unwrap();
        assert_eq!(leap.next().unwrap().to_string(), "2024-03-01T000000Z");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            "2026-11-22",
            "2026-11-22T15:30:00Z",
            "2026-11-22T153000z",
            "2026-11-22T153000Z ",
            "+026-11-22T153000Z",
            "2026-13-22T153000Z",
            "2026-11-31T153000Z",
            "2026-11-22T243000Z",
            "2026-11-22T153060Z",
            "1969-12-31T235959Z",
            "../../etc/passwd00",
            "２026-11-22T1530",
        ] {
            let error = text.parse::<SnapshotName>().unwrap_err();
            assert!(matches!(error, Error::InvalidName { .. }), "{text}");
        }
        assert!(SnapshotName::at(Timestamp(u64::MAX)).is_err());
        assert_eq!(SECONDS_MAX, jiff::Timestamp::MAX.as_second());
        let last = SnapshotName::at(Timestamp(SECONDS_MAX.unsigned_abs() * 1000)).unwrap();
        assert!(last.next().is_err());
        assert_eq!(last.to_string().parse::<SnapshotName>().unwrap(), last);
    }
}
