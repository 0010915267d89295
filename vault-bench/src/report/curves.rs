//! Charts of what happened when, and of how latencies are spread.

use super::chart::{Svg, WIDTH, class_of};
use super::format::{escaped, in_bytes, in_operations, in_time, tick_of_time};
use crate::latency::Latencies;
use crate::record::Record;

/// A wait that a user notices, in microseconds: such intervals are marked.
pub(super) const STALL_US: u64 = 50_000;
const RATE_HEIGHT: f64 = 40.0;
const STALL_HEIGHT: f64 = 22.0;
const STRIP_HEIGHT: f64 = 14.0 + RATE_HEIGHT + STALL_HEIGHT + 6.0;
const AXIS_HEIGHT: f64 = 18.0;
/// The latencies between which the bars of the longest ones stand: 1 µs and 10 s.
const LONGEST_DECADES: f64 = 7.0;
/// The shares of operations that a curve of latencies passes through, with their names.
const SHARES: [(f64, &str); 7] = [
    (0.5, "50 %"),
    (0.9, "90"),
    (0.99, "99"),
    (0.999, "99.9"),
    (0.9999, "99.99"),
    (0.999_99, "99.999"),
    (1.0, "max"),
];

/// Throughput over time, a strip for each engine with its time and rate to one scale, and below it the longest operation
/// of each interval on a logarithmic scale. `None` where nothing was sampled.
pub(super) fn courses(title: &str, records: &[&Record]) -> Option<String> {
    let records: Vec<_> = records
        .iter()
        .filter(|r| r.figures.course.operations.len() > 1)
        .collect();
    let seconds = records
        .iter()
        .map(|r| r.figures.seconds)
        .fold(0.0, f64::max);
    let most = records
        .iter()
        .map(|record| rates(record).into_iter().fold(0.0, f64::max))
        .fold(0.0, f64::max);
    if records.is_empty() || seconds <= 0.0 || most <= 0.0 {
        return None;
    }
    let mut svg = Svg::new(STRIP_HEIGHT * records.len() as f64 + AXIS_HEIGHT, title);
    let x = |at: f64| (at / seconds).min(1.0) * WIDTH;
    for (row, record) in records.iter().enumerate() {
        strip(&mut svg, record, STRIP_HEIGHT * row as f64, most, &x);
    }
    time_axis(&mut svg, STRIP_HEIGHT * records.len() as f64, seconds, &x);
    Some(svg.finish())
}

fn strip(svg: &mut Svg, record: &Record, top: f64, most: f64, x: &dyn Fn(f64) -> f64) {
    let (figures, course) = (&record.figures, &record.figures.course);
    let class = class_of(&record.engine);
    let step = course.interval_ms as f64 / 1000.0;
    let base = top + 14.0 + RATE_HEIGHT;
    svg.text(
        0.0,
        top + 10.0,
        &format!("label name {class}"),
        &record.engine,
    );
    let longest = course.longest_us.iter().max().copied().unwrap_or(0);
    let rate = in_operations(figures.operations_per_second);
    let told = if longest > 0 {
        format!("{rate}, longest {}", in_time(longest as f64 * 1e3))
    } else {
        rate
    };
    svg.text(WIDTH, top + 10.0, "figure end", &told);
    let mut points = vec![(0.0, base)];
    for (index, rate) in rates(record).into_iter().enumerate() {
        let y = base - rate / most * RATE_HEIGHT;
        let begin = index as f64 * step;
        points.extend([(x(begin), y), (x((begin + step).min(figures.seconds)), y)]);
    }
    points.push((x(figures.seconds), base));
    svg.polygon(&points, &format!("area {class}"));
    svg.line((0.0, base), (WIDTH, base), "axis");
    for (index, &longest) in course.longest_us.iter().enumerate() {
        if longest == 0 {
            continue;
        }
        let height = ((longest as f64).log10() / LONGEST_DECADES).clamp(0.02, 1.0) * STALL_HEIGHT;
        let (begin, end) = (x(index as f64 * step), x((index + 1) as f64 * step));
        let stalled = longest >= STALL_US;
        let bar = if stalled {
            "stall".to_owned()
        } else {
            format!("longest {class}")
        };
        let told = if stalled {
            format!(
                "{} at {:.1} s",
                in_time(longest as f64 * 1e3),
                index as f64 * step
            )
        } else {
            String::new()
        };
        svg.rect(
            (begin, base + 1.0),
            ((end - begin - 0.3).max(0.4), height),
            &bar,
            &told,
        );
    }
}

/// Operations a second in each interval; of the last one, in as much of it as there was.
fn rates(record: &Record) -> Vec<f64> {
    let course = &record.figures.course;
    let step = course.interval_ms as f64 / 1000.0;
    let rate = |(index, &operations): (usize, &u64)| {
        let seconds = (record.figures.seconds - index as f64 * step).clamp(step * 0.25, step);
        operations as f64 / seconds
    };
    course.operations.iter().enumerate().map(rate).collect()
}

fn time_axis(svg: &mut Svg, top: f64, seconds: f64, x: &dyn Fn(f64) -> f64) {
    let step = round_step(seconds / 4.0);
    let mut at = 0.0;
    while at <= seconds {
        svg.line((x(at), top), (x(at), top + 4.0), "axis");
        let anchor = if at == 0.0 {
            "tick"
        } else if x(at) > WIDTH - 12.0 {
            "tick end"
        } else {
            "tick middle"
        };
        svg.text(x(at), top + 15.0, anchor, &tick_of_seconds(at, step));
        at += step;
    }
}

fn tick_of_seconds(at: f64, step: f64) -> String {
    match step {
        0.1.. if step < 1.0 => format!("{at:.1} s"),
        1.0..60.0 => format!("{at:.0} s"),
        60.0.. => format!("{:.0} min", at / 60.0),
        _ => format!("{:.0} ms", at * 1e3),
    }
}

/// The next larger of 1, 2, 5 times a power of ten; whole minutes beyond a minute.
fn round_step(least: f64) -> f64 {
    if least > 60.0 {
        return (least / 60.0).ceil() * 60.0;
    }
    let power = 10_f64.powf(least.log10().floor());
    let times = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|times| times * power >= least);
    times.unwrap_or(10.0) * power
}

/// Latencies by the share of operations that do not exceed them, both scales logarithmic, a curve for each engine.
/// `None` where no histogram was kept.
pub(super) fn percentiles(title: &str, engines: &[(&str, Latencies)]) -> Option<String> {
    const HEIGHT: f64 = 190.0;
    const LEFT: f64 = 42.0;
    const RIGHT: f64 = 60.0;
    const BOTTOM: f64 = 26.0;
    let engines: Vec<_> = engines
        .iter()
        .filter(|engine| engine.1.count() > 10)
        .collect();
    let ends = |share: f64| {
        engines
            .iter()
            .map(move |engine| engine.1.percentile_ns(share).max(1) as f64)
    };
    let (lowest, highest) = (ends(0.5).reduce(f64::min)?, ends(1.0).reduce(f64::max)?);
    let (bottom, top) = (
        lowest.log10().floor(),
        highest.log10().ceil().max(lowest.log10().floor() + 1.0),
    );
    let mut svg = Svg::new(HEIGHT, title);
    let last = (SHARES.len() - 1) as f64;
    let x = |index: usize| LEFT + index as f64 / last * (WIDTH - LEFT - RIGHT);
    let y = |ns: f64| {
        let part = (ns.max(1.0).log10() - bottom) / (top - bottom);
        HEIGHT - BOTTOM - part * (HEIGHT - BOTTOM - 8.0)
    };
    let mut decade = bottom;
    while decade <= top {
        let at = y(10_f64.powf(decade));
        svg.line((LEFT, at), (WIDTH - RIGHT, at), "grid");
        svg.text(
            LEFT - 5.0,
            at + 4.0,
            "tick end",
            &tick_of_time(10_f64.powf(decade)),
        );
        decade += 1.0;
    }
    for (index, (_, name)) in SHARES.iter().enumerate() {
        svg.text(x(index), HEIGHT - 5.0, "tick middle", name);
    }
    let mut names = Vec::new();
    for (engine, latencies) in &engines {
        let point = |(index, &(share, _)): (usize, &(f64, &str))| {
            (x(index), y(latencies.percentile_ns(share) as f64))
        };
        let points: Vec<_> = SHARES.iter().enumerate().map(point).collect();
        let class = class_of(engine);
        svg.polyline(&points, &format!("curve {class}"));
        for &point in &points {
            svg.circle(point, 2.2, &format!("point {class}"));
        }
        names.extend(points.last().map(|end| (end.1, *engine)));
    }
    for (at, engine) in apart(names, 12.0) {
        svg.text(
            WIDTH - RIGHT + 6.0,
            at + 4.0,
            &format!("label name {}", class_of(engine)),
            engine,
        );
    }
    Some(svg.finish())
}

/// Moves labels down until none covers another.
fn apart(mut labels: Vec<(f64, &str)>, distance: f64) -> Vec<(f64, &str)> {
    labels.sort_by(|a, b| f64::total_cmp(&a.0, &b.0));
    for i in 1..labels.len() {
        labels[i].0 = labels[i].0.max(labels[i - 1].0 + distance);
    }
    labels
}

/// Memory over the steps of one round, one behind the other. A line below it names the steps.
pub(super) fn memory(engine: &str, steps: &[&Record], most_kib: u64) -> Option<String> {
    const HEIGHT: f64 = 96.0;
    const TOP: f64 = 16.0;
    let seconds: f64 = steps.iter().map(|step| step.figures.seconds).sum();
    if steps
        .iter()
        .all(|step| step.figures.memory.at_ms.is_empty())
        || seconds <= 0.0
        || most_kib == 0
    {
        return None;
    }
    let mut svg = Svg::new(
        HEIGHT + AXIS_HEIGHT,
        &format!("memory of {engine} over time"),
    );
    let class = class_of(engine);
    let x = |at: f64| at / seconds * WIDTH;
    let y = |kib: u64| TOP + (1.0 - kib as f64 / most_kib as f64) * (HEIGHT - TOP);
    let (mut resident, mut private, mut accounted) = (Vec::new(), Vec::new(), Vec::new());
    let (mut begin, mut peak, mut budget) = (0.0, 0, 0);
    for step in steps {
        let memory = &step.figures.memory;
        budget = budget.max(memory.budget_kib);
        for (index, &at_ms) in memory.at_ms.iter().enumerate() {
            let at = x(begin + (at_ms as f64 / 1000.0).min(step.figures.seconds));
            let kib = |list: &[u64]| list.get(index).copied();
            resident.extend(kib(&memory.resident_kib).map(|kib| (at, y(kib))));
            private.extend(kib(&memory.private_kib).map(|kib| (at, y(kib))));
            accounted.extend(kib(&memory.accounted_kib).map(|kib| (at, y(kib))));
        }
        peak = peak.max(step.figures.peak_memory_bytes);
        begin += step.figures.seconds;
        svg.rect(
            (x(begin), TOP),
            (0.5, HEIGHT - TOP),
            "grid-bar",
            &step.figures.label(),
        );
    }
    for (points, kind) in [(&resident, "area faint"), (&private, "area")] {
        let mut area = points.clone();
        if let (Some(first), Some(last)) = (points.first(), points.last()) {
            area.insert(0, (first.0, HEIGHT));
            area.push((last.0, HEIGHT));
        }
        svg.polygon(&area, &format!("{kind} {class}"));
    }
    svg.polyline(&accounted, "accounted");
    if budget > 0 && budget <= most_kib {
        svg.line((0.0, y(budget)), (WIDTH, y(budget)), "asked");
        svg.text(
            WIDTH,
            y(budget) - 3.0,
            "tick end",
            &format!("budget {}", in_bytes(budget as f64 * 1024.0)),
        );
    }
    svg.text(0.0, 11.0, &format!("label name {class}"), engine);
    svg.text(
        WIDTH / 2.0,
        11.0,
        "figure end",
        &format!("peak {}", in_bytes(peak as f64)),
    );
    svg.line((0.0, HEIGHT), (WIDTH, HEIGHT), "axis");
    time_axis(&mut svg, HEIGHT, seconds, &x);
    Some(svg.finish())
}

/// The names of the steps of one round with their seconds, for the text below the charts of memory.
pub(super) fn steps_in_words(steps: &[&Record]) -> String {
    let name = |step: &&Record| {
        format!(
            "{} {:.1} s",
            escaped(&step.figures.label()),
            step.figures.seconds
        )
    };
    steps.iter().map(name).collect::<Vec<_>>().join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::record;
    use crate::timeline::{Course, MemoryCourse};
    use crate::workload::Workload;

    fn sampled() -> Record {
        let mut record = record("vault", 1, Workload::Overwrite, 600, 3);
        record.figures.course = Course {
            interval_ms: 1000,
            operations: vec![500, 0, 100],
            longest_us: vec![12, 0, 1_800_000],
        };
        record.figures.memory = MemoryCourse {
            at_ms: vec![0, 1000, 2900],
            resident_kib: vec![1000, 2000, 1500],
            private_kib: vec![900, 1800, 1400],
            accounted_kib: vec![800, 1700, 1300],
            budget_kib: 1900,
            ..MemoryCourse::default()
        };
        record
    }

    #[test]
    fn a_stall_is_marked_and_a_gap_is_a_gap() {
        let record = sampled();
        let svg = courses("overwrite", &[&record]).unwrap();
        assert_eq!(svg.matches("class=\"stall\"").count(), 1, "{svg}");
        assert!(
            svg.contains("1.80 s at 2.0 s") && svg.contains("longest 1.80 s"),
            "{svg}"
        );
        // From one to two seconds the area lies on its base.
        let base = 14.0 + RATE_HEIGHT;
        assert!(
            svg.contains(&format!(
                "{:.1},{base:.1} {:.1},{base:.1}",
                WIDTH / 3.0,
                WIDTH * 2.0 / 3.0
            )),
            "{svg}"
        );
        assert!(svg.contains("3 s") && !svg.contains("NaN"));
        assert!(
            courses(
                "x",
                &[&crate::results::tests::record(
                    "vault",
                    1,
                    Workload::Scan,
                    1,
                    1
                )]
            )
            .is_none()
        );
    }

    #[test]
    fn curves_of_latencies_name_their_engines_apart() {
        let mut latencies = Latencies::default();
        (1..2000).for_each(|i| latencies.record(i * 1000));
        let svg = percentiles(
            "scan",
            &[("vault", latencies.clone()), ("fjall", latencies)],
        )
        .unwrap();
        assert!(
            svg.contains(">vault<") && svg.contains(">fjall<") && svg.contains("1 ms"),
            "{svg}"
        );
        assert!(percentiles("scan", &[("vault", Latencies::default())]).is_none());
        let moved = apart(vec![(5.0, "b"), (4.0, "a"), (90.0, "c")], 12.0);
        assert_eq!(moved, [(4.0, "a"), (16.0, "b"), (90.0, "c")]);
    }

    #[test]
    fn memory_shows_its_budget_and_peak() {
        let record = sampled();
        let svg = memory("vault", &[&record], 2000).unwrap();
        assert!(
            svg.contains("budget 1.9 MiB") && svg.contains("accounted") && !svg.contains("NaN"),
            "{svg}"
        );
        assert!(memory("vault", &[], 2000).is_none());
        assert_eq!(steps_in_words(&[&record]), "overwrite 3.0 s");
    }

    #[test]
    fn axes_have_round_steps() {
        assert_eq!(
            [0.03, 0.2, 3.0, 40.0, 61.0].map(round_step),
            [0.05, 0.2, 5.0, 50.0, 120.0]
        );
        assert_eq!(tick_of_seconds(0.4, 0.2), "0.4 s");
        assert_eq!(tick_of_seconds(240.0, 120.0), "4 min");
    }
}
