//! Figures as people read them: with units, and no more digits than the measurement has.

use crate::stats::Spread;

/// A median, with the lowest and the highest round where they differ.
pub(super) fn with_spread(spread: Spread, show: fn(f64) -> String) -> String {
    let [median, min, max] = [spread.median, spread.min, spread.max].map(show);
    if spread.min.total_cmp(&spread.max).is_eq() {
        median
    } else {
        format!("{median} ({min} – {max})")
    }
}

/// A rate of operations.
pub(super) fn in_operations(rate: f64) -> String {
    if rate >= 1e6 {
        format!("{:.2} M/s", rate / 1e6)
    } else if rate >= 1e4 {
        format!("{:.0} k/s", rate / 1e3)
    } else {
        format!("{rate:.0}/s")
    }
}

/// A time in seconds.
pub(super) fn in_seconds(seconds: f64) -> String {
    in_time(seconds * 1e9)
}

/// A time in nanoseconds.
pub(super) fn in_time(ns: f64) -> String {
    if ns >= 1e9 {
        format!("{:.2} s", ns / 1e9)
    } else if ns >= 1e6 {
        format!("{:.1} ms", ns / 1e6)
    } else if ns >= 1e3 {
        format!("{:.1} µs", ns / 1e3)
    } else {
        format!("{ns:.0} ns")
    }
}

/// A size.
pub(super) fn in_bytes(bytes: f64) -> String {
    let mib = bytes / f64::from(1 << 20);
    if mib >= 10_240.0 {
        format!("{:.1} GiB", mib / 1024.0)
    } else if mib >= 10.0 {
        format!("{mib:.0} MiB")
    } else {
        format!("{mib:.1} MiB")
    }
}

/// How many times one figure is another.
pub(super) fn in_times(ratio: f64) -> String {
    if ratio >= 100.0 {
        format!("{ratio:.0} ×")
    } else if ratio >= 10.0 {
        format!("{ratio:.1} ×")
    } else {
        format!("{ratio:.2} ×")
    }
}

/// The label of a tick on an axis of times, in whole units.
pub(super) fn tick_of_time(ns: f64) -> String {
    let (value, unit) = match ns {
        1e9.. => (ns / 1e9, "s"),
        1e6.. => (ns / 1e6, "ms"),
        1e3.. => (ns / 1e3, "µs"),
        _ => (ns, "ns"),
    };
    format!("{value:.0} {unit}")
}

/// Text that may stand in HTML, between tags and in attributes.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_units_and_few_digits() {
        assert_eq!(
            [999.0, 12_345.0, 1_234_567.0].map(in_operations),
            ["999/s", "12 k/s", "1.23 M/s"]
        );
        assert_eq!(
            [950.0, 1500.0, 2.5e6, 3e9].map(in_time),
            ["950 ns", "1.5 µs", "2.5 ms", "3.00 s"]
        );
        assert_eq!(
            [5e6, 5e8, 5e10].map(in_bytes),
            ["4.8 MiB", "477 MiB", "46.6 GiB"]
        );
        assert_eq!(
            [0.2, 3.456, 12.34, 456.7].map(in_times),
            ["0.20 ×", "3.46 ×", "12.3 ×", "457 ×"]
        );
        assert_eq!(
            [10.0, 1e3, 1e7, 1e9].map(tick_of_time),
            ["10 ns", "1 µs", "10 ms", "1 s"]
        );
    }

    #[test]
    fn nothing_in_a_text_is_taken_for_a_tag() {
        assert_eq!(
            escaped("<a href=\"x\">'&'"),
            "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;"
        );
    }
}
