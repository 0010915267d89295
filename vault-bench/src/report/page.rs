//! The report as one page of HTML: style and drawings are in it, nothing is fetched, nothing is run.

use std::fmt::Write;

use super::book::Book;
use super::chart::{Bar, bars, class_of, ratio};
use super::compare;
use super::costs;
use super::curves;
use super::format::{escaped, in_bytes, in_operations, in_seconds, in_time, in_times, with_spread};
use super::goals::{self, Line};
use super::markdown::{outcome, setups, troubles};
use crate::data::KEY_BYTES;
use crate::engines;
use crate::record::{Figures, Record};
use crate::results::Results;
use crate::stats::{CONFIDENCE_PERCENT, Spread};

const STYLE: &str = include_str!("style.css");

/// The whole page.
#[must_use]
pub fn html(results: &Results) -> String {
    let book = Book::new(&results.records);
    let lines = goals::lines(&book);
    let mut body = head(results, &book, &lines);
    body += &goal_table(&book, &lines);
    body += &comparison(results);
    body += &throughput(&book);
    body += &section(
        "Over time",
        "Throughput as it went: each engine of a workload to one scale of time and rate, in the round of its median. Below the line \
         the longest operation of each interval, on a logarithmic scale from 1 µs to 10 s; red from 50 ms on, where a user notices.",
        &cards(&book, |label| {
            let records: Vec<_> = book
                .engines
                .iter()
                .filter_map(|engine| book.typical(label, engine))
                .collect();
            curves::courses(&format!("{label} over time"), &records)
        }),
    );
    body += &section(
        "Latency",
        "The share of operations that took no longer, all rounds together; both scales logarithmic, so that the tail shows.",
        &cards(&book, |label| {
            let engines: Vec<_> = book
                .engines
                .iter()
                .map(|&engine| (engine, book.latencies(label, engine)))
                .collect();
            curves::percentiles(&format!("{label}: latencies"), &engines)
        }),
    );
    body += &costs(&book);
    body += &memory(&book);
    body += &setup_section(results, &book);
    body += &all_figures(&book);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>Vault: benchmark report</title>\n<style>\n{STYLE}</style>\n\
         <main>\n{body}</main>\n</html>\n"
    )
}

/// A section, left out where it has nothing to show.
fn section(title: &str, told: &str, content: &str) -> String {
    if content.is_empty() {
        return String::new();
    }
    format!("<section><h2>{title}</h2>\n<p class=\"told\">{told}</p>\n{content}</section>\n")
}

/// A card for each step that can be drawn.
fn cards(book: &Book<'_>, draw: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    for label in book
        .labels
        .iter()
        .filter(|label| !book.is_told_by_seconds(label))
    {
        if let Some(drawing) = draw(label) {
            out += &card(label, &drawing);
        }
    }
    in_grid(&out)
}

fn card(title: &str, drawing: &str) -> String {
    format!(
        "<figure><figcaption>{}</figcaption>{drawing}</figure>\n",
        escaped(title)
    )
}

fn in_grid(cards: &str) -> String {
    if cards.is_empty() {
        String::new()
    } else {
        format!("<div class=\"grid\">\n{cards}</div>\n")
    }
}

fn head(results: &Results, book: &Book<'_>, lines: &[Line]) -> String {
    let mut out = "<header><h1>Vault beside its rivals</h1>\n".to_owned();
    let Some(first) = results.records.first() else {
        return out + "<p>Nothing was measured.</p></header>\n" + &trouble_list(results);
    };
    let (s, m) = (&first.settings, &first.machine);
    let asked: Vec<_> = lines.iter().filter_map(Line::reached).collect();
    if !lines.is_empty() {
        let reached = asked.iter().filter(|&&reached| reached).count();
        let behind = lines.iter().filter(|line| !line.ahead()).count();
        // Writing to a string cannot fail; the same below.
        let _ = writeln!(
            out,
            "<p class=\"tiles\"><span><b>{reached}</b> of {} asked ratios reached</span><span><b>{}</b> of {} lines ahead</span>\
             <span class=\"{}\"><b>{behind}</b> behind</span></p>",
            asked.len(),
            lines.len() - behind,
            lines.len(),
            if behind > 0 { "bad" } else { "" }
        );
    }
    let rounds = book.rounds_max();
    let _ = writeln!(
        out,
        "<p class=\"facts\"><b>{}</b> · {} · {} cores · {} · {} · {} · revision {}<br>{} entries · keys {KEY_BYTES} B, values {} B, half as large when \
         compressed · {} client threads · cache {} MiB · memtables {} MiB · {rounds} {}, engines in turn, each turn a fresh process</p>",
        escaped(first.date.split('T').next().unwrap_or_default()),
        escaped(&m.cpu),
        m.cores,
        in_bytes(m.memory_mib as f64 * f64::from(1 << 20)),
        escaped(&m.kernel),
        escaped(&m.file_system),
        escaped(
            results
                .records
                .iter()
                .find_map(|r| r.revision.as_deref())
                .unwrap_or("unknown")
        ),
        s.n,
        s.value_bytes,
        s.threads,
        s.cache_mib,
        s.write_buffer_mib,
        if rounds == 1 { "round" } else { "rounds" },
    );
    out += "<p class=\"legend\">";
    for engine in &book.engines {
        let _ = write!(
            out,
            "<span class=\"{}\"><i></i>{} {}</span>",
            class_of(engine),
            escaped(engine),
            escaped(book.version(engine))
        );
    }
    out += "</p></header>\n";
    out + &trouble_list(results)
}

fn trouble_list(results: &Results) -> String {
    let troubles = troubles(results);
    if troubles.is_empty() {
        return String::new();
    }
    let items = troubles
        .iter()
        .map(|trouble| format!("<li>{}</li>\n", escaped(trouble)));
    format!(
        "<aside><b>What did not go as it should</b><ul>\n{}</ul></aside>\n",
        items.collect::<String>()
    )
}

fn goal_table(book: &Book<'_>, lines: &[Line]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let mut table = "<div class=\"wide\"><table class=\"goals\"><thead><tr><th></th><th>ratio</th><th></th><th>asked</th><th></th>\
                     <th>vault</th><th>the better rival</th></tr></thead><tbody>\n"
        .to_owned();
    for line in lines {
        let good = |ratio: f64| {
            if line.more_is_better {
                ratio
            } else {
                1.0 / ratio
            }
        };
        let gain = (line.gain(), good(line.ratio.min), good(line.ratio.max));
        let class = match (line.reached(), line.ahead()) {
            (_, false) => "behind",
            (Some(false), true) => "short",
            _ => "ahead",
        };
        let told = if line.stretch.is_empty() {
            String::new()
        } else {
            format!("<small>stretch {}</small>", line.stretch)
        };
        let _ = writeln!(
            table,
            "<tr><th>{}</th><td><b>{}</b><small>{}</small></td><td>{}</td><td>{}{told}</td><td class=\"{class}\">{}</td>\
             <td>{}</td><td>{} <small>{}</small></td></tr>",
            escaped(&line.what),
            in_times(line.ratio.median),
            range(line.ratio),
            ratio(gain, line.asked.map(good)),
            line.asked_in_words(),
            outcome(line).replace("**", ""),
            line.ours,
            line.theirs,
            escaped(&line.rival),
        );
    }
    table += "</tbody></table></div>\n";
    let missing = goals::unmeasured(book);
    if !missing.is_empty() {
        let _ = writeln!(
            table,
            "<p class=\"told\">Asked for, and not measured in this run: {}.</p>",
            missing.join(", ")
        );
    }
    section(
        "Asked and reached",
        "Against the better of RocksDB and fjall in the same run, or the one that is named. Right of the middle line Vault is ahead, for \
         throughput and costs alike; the dot is the ratio of medians, the thin line the range of the rounds, the upright mark what is asked.",
        &table,
    )
}

fn range(ratio: Spread) -> String {
    if ratio.min.total_cmp(&ratio.max).is_eq() {
        return String::new();
    }
    format!("{} – {}", in_times(ratio.min), in_times(ratio.max))
}

fn comparison(results: &Results) -> String {
    let compared = compare::compare(results);
    if compared.is_empty() {
        return String::new();
    }
    let other = results.run().and_then(|run| run.compare.as_ref());
    let name = other.map_or_else(String::new, |other| {
        format!("{} ({})", other.asked, other.commit)
    });
    let mut table = "<div class=\"wide\"><table><thead><tr><th></th><th></th><th>times as fast</th><th>interval</th><th></th></tr></thead><tbody>\n".to_owned();
    for c in &compared {
        let r = &c.ratio;
        let class = match c.verdict {
            crate::stats::Verdict::Slower => "behind",
            crate::stats::Verdict::Faster => "ahead",
            crate::stats::Verdict::Undecided => "",
        };
        let _ = writeln!(
            table,
            "<tr><th>{}</th><td>{}</td><td><b>{}</b></td><td>{}</td><td class=\"{class}\">{}</td></tr>",
            escaped(&c.label),
            ratio((r.ratio, r.low, r.high), None),
            in_times(r.ratio),
            compare::interval(r),
            compare::in_words(c.verdict),
        );
    }
    table += "</tbody></table></div>\n";
    let told = format!(
        "Paired by round; intervals of {CONFIDENCE_PERCENT} % by Student's t on the logarithms of the ratios. Slower or faster is what the \
         whole interval is by more than {:.0} %.",
        compare::MARGIN * 100.0
    );
    section(
        &format!("Beside revision {}", escaped(&name)),
        &told,
        &table,
    )
}

fn throughput(book: &Book<'_>) -> String {
    let labels = |by_seconds: bool| {
        book.labels
            .iter()
            .filter(move |label| book.is_told_by_seconds(label) == by_seconds)
    };
    let rates = labels(false).map(|label| {
        card(
            label,
            &bars_of(book, label, in_operations, |f| f.operations_per_second),
        )
    });
    let times =
        labels(true).map(|label| card(label, &bars_of(book, label, in_seconds, |f| f.seconds)));
    let (rates, times) = (
        in_grid(&rates.collect::<String>()),
        in_grid(&times.collect::<String>()),
    );
    let told = "Operations a second: more is better. Medians over the rounds; the thin line reaches from the lowest to the highest round.";
    let waits = "Until all background work is done (settle), and until a store is closed and open again (reopen): less is better.";
    section("Throughput", told, &rates) + &section("Waiting", waits, &times)
}

fn bars_of(
    book: &Book<'_>,
    label: &str,
    show: fn(f64) -> String,
    figure: impl Fn(&Figures) -> f64,
) -> String {
    let bar = |engine| {
        let s = book.of(label, engine, |record| figure(&record.figures))?;
        let (text, told) = (
            show(s.median),
            format!("{engine}: {}", with_spread(s, show)),
        );
        Some(Bar {
            engine,
            figure: (s.median, s.min, s.max),
            text,
            told,
        })
    };
    bars(
        label,
        &book
            .engines
            .iter()
            .copied()
            .filter_map(bar)
            .collect::<Vec<_>>(),
    )
}

/// Write and space amplification, and processor time.
fn costs(book: &Book<'_>) -> String {
    let mut out = String::new();
    for label in costs::FILLS {
        for cost in costs::Cost::ALL {
            let (title, found) = (cost.of(label), costs::bars(book, label, cost));
            if !found.is_empty() {
                out += &card(&title, &bars(&title, &found));
            }
        }
    }
    section(
        "What it cost",
        "Write amplification is what the process made dirty on the disk (log, tables and all), settling included; space amplification is what \
         the files take up. Values compress to half, so both can be below 1. Less is better.",
        &in_grid(&out),
    )
}

fn memory(book: &Book<'_>) -> String {
    let of = |engine: &str, round: u32| -> Vec<&Record> {
        book.records
            .iter()
            .filter(|r| r.engine == engine && r.round == round)
            .collect()
    };
    let most = |record: &Record| {
        let memory = &record.figures.memory;
        let sampled = memory.resident_kib.iter().copied().max().unwrap_or(0);
        sampled
            .max(memory.accounted_kib.iter().copied().max().unwrap_or(0))
            .max(record.figures.peak_memory_bytes >> 10)
    };
    let most_kib = book.records.iter().map(most).max().unwrap_or(0);
    let mut out = String::new();
    for engine in &book.engines {
        // The last round that is whole: the first has a colder machine, and an interrupted one lacks steps.
        let steps = (1..=book.rounds_max()).map(|round| of(engine, round));
        let steps = steps.max_by_key(Vec::len).unwrap_or_default();
        if let Some(drawing) = curves::memory(engine, &steps, most_kib) {
            let _ = writeln!(
                out,
                "<figure>{drawing}<details><summary>the steps</summary><p class=\"told\">{}</p></details></figure>",
                curves::steps_in_words(&steps)
            );
        }
    }
    section(
        "Memory over time",
        "Resident memory of one round, to one scale: pale with file mappings (the log, a mapped tree), strong without; dashed what the engine \
         itself says it holds, where it tells, and its budget. Upright lines: the ends of steps.",
        &in_grid(&out),
    )
}

fn setup_section(results: &Results, book: &Book<'_>) -> String {
    let mut table = "<div class=\"wide\"><table class=\"words\"><thead>\
                     <tr><th></th><th>version</th><th>settings</th><th>what a write survives</th></tr></thead><tbody>\n".to_owned();
    let mut known = setups(results);
    known.retain(|setup| book.engines.contains(&setup.0));
    for (engine, version, setup) in known {
        let _ = writeln!(
            table,
            "<tr><th class=\"{}\"><i></i>{}</th><td>{}</td><td>{}</td><td>{}</td></tr>",
            class_of(engine),
            escaped(engine),
            escaped(version),
            escaped(setup),
            escaped(engines::durability(engine))
        );
    }
    table += "</tbody></table></div>\n";
    if let Some(run) = results.run() {
        let load = run.load.map_or_else(String::new, |load| {
            format!(", load average {load:.2} when it began")
        });
        let names: Vec<_> = run.workloads.iter().map(ToString::to_string).collect();
        let _ = writeln!(
            table,
            "<p class=\"told\">Begun {}; {}{load}. Seed {}. Workloads in order: {}.</p>",
            escaped(&run.date),
            escaped(&run.compiler),
            run.settings.seed,
            escaped(&names.join(", "))
        );
    }
    section(
        "How it was measured",
        "Every read is checked, in every engine alike; a run that read anything wrong does not count.",
        &table,
    )
}

fn all_figures(book: &Book<'_>) -> String {
    let mut rows = String::new();
    for label in &book.labels {
        for engine in &book.engines {
            let of = |figure: &dyn Fn(&Figures) -> f64| {
                book.of(label, engine, |record| figure(&record.figures))
            };
            let Some(rate) = of(&|f| f.operations_per_second) else {
                continue;
            };
            let median = |figure: &dyn Fn(&Figures) -> f64| of(figure).map_or(0.0, |s| s.median);
            let first = if book.is_told_by_seconds(label) {
                of(&|f| f.seconds).map_or_else(String::new, |s| with_spread(s, in_seconds))
            } else {
                with_spread(rate, in_operations)
            };
            let cells = [
                first,
                in_time(median(&|f| f.p50_ns as f64)),
                in_time(median(&|f| f.p99_ns as f64)),
                in_time(median(&|f| f.p999_ns as f64)),
                in_time(median(&|f| f.max_ns as f64)),
                in_seconds(median(&|f| f.cpu_seconds)),
                in_bytes(median(&|f| f.write_bytes as f64)),
                in_bytes(median(&|f| f.disk_allocated_bytes as f64)),
                in_bytes(median(&|f| f.peak_memory_bytes as f64)),
            ];
            let cells: String = cells
                .iter()
                .map(|cell| format!("<td>{cell}</td>"))
                .collect();
            let (label, class, engine) = (escaped(label), class_of(engine), escaped(engine));
            let _ = writeln!(
                rows,
                "<tr><th>{label}</th><th class=\"{class}\"><i></i>{engine}</th>{cells}</tr>"
            );
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let table = format!(
        "<details><summary>Show the table</summary><div class=\"wide\"><table><thead><tr><th></th><th></th><th>throughput</th><th>p50</th><th>p99</th>\
         <th>p99.9</th><th>max</th><th>CPU</th><th>written</th><th>on disk</th><th>memory</th></tr></thead><tbody>\n{rows}</tbody></table></div></details>\n"
    );
    section(
        "All figures",
        "Medians of the rounds; throughput with its range.",
        &table,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Note;
    use crate::results::tests::record;
    use crate::workload::Workload;

    fn results() -> Results {
        let mut results = Results::default();
        for (engine, rate) in [("vault", 100), ("fjall", 200), ("<b>", 5)] {
            for round in 1..=2 {
                let mut record = record(
                    engine,
                    round,
                    Workload::FillRandom,
                    rate + u64::from(round),
                    1,
                );
                record.figures.histogram = vec![(100, 50), (200, 5)];
                record.figures.course.interval_ms = 500;
                record.figures.course.operations = vec![rate, rate];
                record.figures.course.longest_us = vec![7, 90_000];
                record.figures.memory.at_ms = vec![0, 900];
                record.figures.memory.resident_kib = vec![1000, 2000];
                record.figures.memory.private_kib = vec![900, 1900];
                results.keep(record);
            }
        }
        results
    }

    /// Every tag that is opened is closed, in order; of those that need it.
    fn well_formed(html: &str) {
        const VOID: [&str; 5] = ["meta", "br", "line", "circle", "!doctype"];
        let mut open: Vec<&str> = Vec::new();
        for piece in html.split('<').skip(1) {
            let (tag, _) = piece
                .split_once('>')
                .unwrap_or_else(|| panic!("an open tag: {piece}"));
            let name = tag
                .split([' ', '/'])
                .find(|part| !part.is_empty())
                .unwrap_or_default();
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name), "at {piece}");
            } else if !tag.ends_with('/') && !VOID.contains(&name) {
                open.push(name);
            }
        }
        assert!(open.is_empty(), "{open:?} stay open");
    }

    #[test]
    fn the_page_holds_every_section_and_fetches_nothing() {
        let mut results = results();
        let (engine, why) = ("rocksdb".to_owned(), "no <compiler>".to_owned());
        results.note(Note::Failed {
            engine,
            round: None,
            why,
        });
        let page = html(&results);
        well_formed(&page);
        for part in [
            "Asked and reached",
            "Throughput",
            "Over time",
            "Latency",
            "What it cost",
            "Memory over time",
            "All figures",
            "no &lt;compiler&gt;",
            "behind",
            "prefers-color-scheme: dark",
            "class=\"stall\"",
        ] {
            assert!(page.contains(part), "no {part}");
        }
        for part in [
            "http", "src=", "<script", "@import", "url(", "<b>\"", "NaN", "inf\"",
        ] {
            assert!(!page.contains(part), "{part}");
        }
    }

    #[test]
    fn a_page_about_nothing_or_an_interrupted_run_is_still_a_page() {
        well_formed(&html(&Results::default()));
        let mut results = Results::default();
        results.keep(record("redb", 1, Workload::Reopen, 1, 1));
        results.note(Note::Interrupted {
            date: "2026-01-01T00:00:00Z".to_owned(),
        });
        let page = html(&results);
        well_formed(&page);
        assert!(page.contains("interrupted at 2026"));
    }
}
