//! Charts as inline SVG, each as wide as a column of the page. Colours come from the page's style by the engine's name, so
//! that they are the same everywhere and follow the reader's light or dark.

use std::fmt::Write;

use super::format::escaped;

/// Width of a chart in units of its view box; a column shows about as many pixels.
pub(super) const WIDTH: f64 = 400.0;
/// Where labels of engines end and bars begin.
const LABEL_WIDTH: f64 = 74.0;
/// Room for the figure behind a bar.
const FIGURE_WIDTH: f64 = 92.0;
const ROW_HEIGHT: f64 = 22.0;

/// A drawing that grows.
pub(super) struct Svg {
    body: String,
    height: f64,
    title: String,
}

impl Svg {
    pub(super) fn new(height: f64, title: &str) -> Self {
        Self {
            body: String::new(),
            height,
            title: title.to_owned(),
        }
    }

    // Writing to a string cannot fail; the same below.
    pub(super) fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        let _ = write!(
            self.body,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{}</text>",
            escaped(text)
        );
    }

    /// A rectangle, with words that show when it is pointed at.
    pub(super) fn rect(
        &mut self,
        (x, y): (f64, f64),
        (width, height): (f64, f64),
        class: &str,
        told: &str,
    ) {
        let _ = write!(
            self.body,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" class=\"{class}\">{}</rect>",
            if told.is_empty() {
                String::new()
            } else {
                format!("<title>{}</title>", escaped(told))
            }
        );
    }

    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = write!(
            self.body,
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" class=\"{class}\"/>"
        );
    }

    pub(super) fn polyline(&mut self, points: &[(f64, f64)], class: &str) {
        let _ = write!(
            self.body,
            "<polyline points=\"{}\" class=\"{class}\"/>",
            joined(points)
        );
    }

    pub(super) fn polygon(&mut self, points: &[(f64, f64)], class: &str) {
        let _ = write!(
            self.body,
            "<polygon points=\"{}\" class=\"{class}\"/>",
            joined(points)
        );
    }

    pub(super) fn circle(&mut self, (x, y): (f64, f64), radius: f64, class: &str) {
        let _ = write!(
            self.body,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" class=\"{class}\"/>"
        );
    }

    /// The drawing, with a name for those who cannot see it.
    pub(super) fn finish(self) -> String {
        let (height, title) = (self.height, escaped(&self.title));
        format!(
            "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"{title}\">{}</svg>",
            self.body
        )
    }
}

fn joined(points: &[(f64, f64)]) -> String {
    let mut out = String::new();
    for (x, y) in points {
        let _ = write!(out, "{x:.1},{y:.1} ");
    }
    out
}

/// The class that gives an engine's colour.
pub(super) fn class_of(engine: &str) -> &'static str {
    match engine {
        "vault" => "e-vault",
        "rocksdb" => "e-rocksdb",
        "fjall" => "e-fjall",
        "lmdb" => "e-lmdb",
        "redb" => "e-redb",
        "sqlite" => "e-sqlite",
        other if other.starts_with("vault@") => "e-other",
        other if other.starts_with("vault-") => "e-encrypted",
        _ => "e-memory",
    }
}

/// One bar: an engine, its figure with lowest and highest, and the figure as text.
pub(super) struct Bar<'a> {
    pub(super) engine: &'a str,
    pub(super) figure: (f64, f64, f64),
    pub(super) text: String,
    pub(super) told: String,
}

/// Bars from zero, each with its figure behind it and a whisker from the lowest to the highest round.
pub(super) fn bars(title: &str, bars: &[Bar<'_>]) -> String {
    let mut svg = Svg::new(ROW_HEIGHT * bars.len() as f64 + 4.0, title);
    let most = bars.iter().map(|bar| bar.figure.2).fold(0.0, f64::max);
    let room = WIDTH - LABEL_WIDTH - FIGURE_WIDTH;
    let scale = |figure: f64| {
        if most > 0.0 {
            figure / most * room
        } else {
            0.0
        }
    };
    for (row, bar) in bars.iter().enumerate() {
        let y = ROW_HEIGHT * row as f64;
        let (median, low, high) = bar.figure;
        let class = class_of(bar.engine);
        svg.text(LABEL_WIDTH - 6.0, y + 15.0, "label end", bar.engine);
        let size = (scale(median).max(1.0), ROW_HEIGHT - 7.0);
        svg.rect(
            (LABEL_WIDTH, y + 3.0),
            size,
            &format!("bar {class}"),
            &bar.told,
        );
        if high > low {
            let middle = y + ROW_HEIGHT / 2.0 - 0.5;
            let (from, to) = (LABEL_WIDTH + scale(low), LABEL_WIDTH + scale(high));
            svg.line((from, middle), (to, middle), "whisker");
            for x in [from, to] {
                svg.line((x, middle - 3.0), (x, middle + 3.0), "whisker");
            }
        }
        svg.text(
            LABEL_WIDTH + scale(high.max(median)) + 5.0,
            y + 15.0,
            "figure",
            &bar.text,
        );
    }
    svg.finish()
}

/// A ratio on a logarithmic line whose middle is 1: where it is, how far its rounds reach, and what is asked.
pub(super) fn ratio(gain: (f64, f64, f64), asked: Option<f64>) -> String {
    const HEIGHT: f64 = 18.0;
    const TIMES_MAX: f64 = 10.0;
    const HALF: f64 = 86.0;
    let x = |gain: f64| {
        let part = gain.clamp(1.0 / TIMES_MAX, TIMES_MAX).ln() / TIMES_MAX.ln();
        HALF + 4.0 + part * HALF
    };
    let (median, low, high) = gain;
    let mut body = String::new();
    let mut line = |x1: f64, x2: f64, (y1, y2): (f64, f64), class: &str| {
        let _ = write!(
            body,
            "<line x1=\"{x1:.1}\" y1=\"{y1}\" x2=\"{x2:.1}\" y2=\"{y2}\" class=\"{class}\"/>"
        );
    };
    line(x(0.1), x(10.0), (9.0, 9.0), "track");
    line(x(1.0), x(1.0), (2.0, 16.0), "one");
    if let Some(asked) = asked {
        line(x(asked), x(asked), (3.0, 15.0), "asked");
    }
    let class = if median >= 1.0 { "ahead" } else { "behind" };
    line(x(1.0), x(median), (9.0, 9.0), &format!("thick {class}"));
    line(x(low), x(high), (9.0, 9.0), "whisker");
    let _ = write!(
        body,
        "<circle cx=\"{:.1}\" cy=\"9\" r=\"4.5\" class=\"dot {class}\"/>",
        x(median)
    );
    let width = 2.0 * HALF + 8.0;
    format!(
        "<svg class=\"ratio\" viewBox=\"0 0 {width} {HEIGHT}\" aria-hidden=\"true\">{body}</svg>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stand_in_proportion_and_names_are_escaped() {
        let bar = |engine, figure| Bar {
            engine,
            figure,
            text: "x".to_owned(),
            told: "a < b".to_owned(),
        };
        let svg = bars(
            "<title>",
            &[
                bar("vault", (100.0, 90.0, 100.0)),
                bar("<odd>", (50.0, 50.0, 50.0)),
            ],
        );
        let room = WIDTH - LABEL_WIDTH - FIGURE_WIDTH;
        for part in [
            format!("width=\"{room:.1}\""),
            format!("width=\"{:.1}\"", room / 2.0),
        ] {
            assert!(svg.contains(&part), "{part} in {svg}");
        }
        assert!(svg.contains("&lt;odd&gt;") && svg.contains("a &lt; b") && !svg.contains("<odd>"));
        assert_eq!(
            svg.matches("whisker").count(),
            3,
            "only where rounds differ"
        );
        assert!(!bars("", &[bar("vault", (0.0, 0.0, 0.0))]).contains("NaN"));
    }

    #[test]
    fn ratios_beyond_the_line_stay_on_it() {
        for gain in [0.0001, 0.5, 1.0, 3.0, 1e9] {
            let svg = ratio((gain, gain, gain), Some(3.0));
            assert!(
                svg.contains("asked") && !svg.contains("NaN") && !svg.contains("inf"),
                "{svg}"
            );
            assert_eq!(svg.contains("behind"), gain < 1.0);
        }
    }
}
