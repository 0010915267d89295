//! What is told while a run goes on: what is being run, what is done, and about how long it still takes.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::record::Figures;
use crate::results::{Note, Results};
use crate::runner::Request;

/// How far a run is.
#[derive(Debug)]
pub struct Progress {
    turns: usize,
    done: usize,
    /// Turns that are still to come, by engine.
    left: BTreeMap<String, u32>,
    /// For each engine, the turns that were timed and their seconds together.
    timed: BTreeMap<String, (u32, f64)>,
}

impl Progress {
    /// Counts what is to be done. Turns that are kept from before count as done, and tell how long others will take.
    #[must_use]
    pub fn new(request: &Request, engines: &[&str], kept: &Results) -> Self {
        let mut progress = Self {
            turns: engines.len() * request.rounds as usize,
            done: 0,
            left: BTreeMap::new(),
            timed: BTreeMap::new(),
        };
        for &engine in engines {
            let left = (1..=request.rounds)
                .filter(|&round| !kept.has_turn(engine, round))
                .count();
            progress.done += request.rounds as usize - left;
            progress.left.insert(engine.to_owned(), left as u32);
        }
        for note in &kept.notes {
            if let Note::Ended {
                engine, seconds, ..
            } = note
            {
                progress.time(engine, *seconds);
            }
        }
        progress
    }

    /// One line about a turn that begins.
    #[must_use]
    pub fn begin(&self, engine: &str, round: u32) -> String {
        let (at, turns) = (self.done + 1, self.turns);
        format!(
            "turn {at} of {turns}: round {round}, {engine}{}",
            self.left_in_words(", ")
        )
    }

    /// One line about a turn that has ended.
    #[must_use]
    pub fn end(&mut self, engine: &str, took: Duration) -> String {
        self.done += 1;
        self.time(engine, took.as_secs_f64());
        if let Some(left) = self.left.get_mut(engine) {
            *left = left.saturating_sub(1);
        }
        let (done, turns) = (self.done, self.turns);
        let took = in_words(took.as_secs_f64());
        format!(
            "  {done} of {turns} turns done, this one in {took}{}",
            self.left_in_words("; ")
        )
    }

    fn time(&mut self, engine: &str, seconds: f64) {
        let timed = self.timed.entry(engine.to_owned()).or_default();
        timed.0 += 1;
        timed.1 += seconds;
    }

    /// Seconds that the turns still take: as long as the engine's own did, or where it had none yet, as all did.
    #[must_use]
    pub fn seconds_left(&self) -> Option<f64> {
        let mean = |timed: &(u32, f64)| timed.1 / f64::from(timed.0);
        let all = self
            .timed
            .values()
            .fold((0, 0.0), |sum, timed| (sum.0 + timed.0, sum.1 + timed.1));
        if all.0 == 0 {
            return None;
        }
        let of = |(engine, left): (&String, &u32)| {
            let one = self.timed.get(engine).map_or_else(|| mean(&all), mean);
            one * f64::from(*left)
        };
        Some(self.left.iter().map(of).sum())
    }

    fn left_in_words(&self, before: &str) -> String {
        match self.seconds_left() {
            Some(seconds) if seconds > 0.0 => format!("{before}about {} to go", in_words(seconds)),
            _ => String::new(),
        }
    }
}

fn in_words(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match seconds {
        0..=89 => format!("{seconds} s"),
        90..=5399 => format!("{} min", (seconds + 30) / 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// One line about a finished step.
#[must_use]
pub fn told(figures: &Figures) -> String {
    let label = figures.label();
    if figures.workload.is_told_by_seconds() {
        return format!("  {label:<22} {:>9.3} s", figures.seconds);
    }
    let short = if figures.cut_short {
        "  (cut short)"
    } else {
        ""
    };
    format!(
        "  {label:<22} {:>9.0} operations/s  p99 {:.1} µs{short}",
        figures.operations_per_second,
        figures.p99_ns as f64 / 1e3
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn request() -> Request {
        Request {
            engines: Vec::new(),
            other: None,
            workloads: Vec::new(),
            rounds: 3,
            settings: Settings::default(),
            settle: true,
            dir: "stores".into(),
            rivals_built: None,
        }
    }

    #[test]
    fn what_is_left_goes_by_what_each_engine_took() {
        let mut progress = Progress::new(&request(), &["vault", "fjall"], &Results::default());
        assert_eq!(progress.begin("vault", 1), "turn 1 of 6: round 1, vault");
        let told = progress.end("vault", Duration::from_secs(10));
        // Two more of ten seconds, and three that nothing is known of.
        assert_eq!(
            told,
            "  1 of 6 turns done, this one in 10 s; about 50 s to go"
        );
        let told = progress.end("fjall", Duration::from_secs(100));
        assert_eq!(
            told,
            "  2 of 6 turns done, this one in 100 s; about 4 min to go".replace("100 s", "2 min")
        );
        assert_eq!(
            progress.begin("vault", 2),
            "turn 3 of 6: round 2, vault, about 4 min to go"
        );
    }

    #[test]
    fn turns_kept_from_before_are_not_to_come() {
        let mut kept = Results::default();
        let engine = "vault".to_owned();
        kept.note(Note::Ended {
            engine,
            round: 1,
            seconds: 5400.0,
        });
        let progress = Progress::new(&request(), &["vault"], &kept);
        assert_eq!(
            progress.begin("vault", 2),
            "turn 2 of 3: round 2, vault, about 3 h 0 min to go"
        );
    }
}
