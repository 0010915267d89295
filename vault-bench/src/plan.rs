//! In which order workloads run, and what has to happen in between.
//!
//! [`plan`] turns the list that was asked for into steps:
//!
//! - `fill…` begins with an empty store. A workload that needs data finds what the ones before it left;
//!   where nothing was filled yet, an unreported load in random order comes first.
//! - After each fill and each overwrite, and before anything that reads what was written since, a
//!   *settle* is measured as a step of its own, so that reads don't depend on how far compactions
//!   happened to be. `--no-settle` leaves these out.
//! - What deletes leaves a store that others can't read from: they get a new one, loaded without being reported. `gap-…`
//!   comes straight after a `delete-half…`, the one that was listed last, or else after one of its own.
//! - `fillsync1` and `fillsync16` run on an empty store of their own, beside the main one, which is
//!   closed meanwhile: they are too small to leave anything worth reading.

use crate::workload::{Ground, Workload};

/// One step of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Fills an empty store without reporting it.
    Load,
    /// Measures a workload. `after`: what a settle is settling.
    Measure {
        /// The workload.
        workload: Workload,
        /// The workload that made this settle necessary.
        after: Option<Workload>,
    },
}

/// Orders the steps for a list of workloads; see the [module](self).
#[must_use]
pub fn plan(workloads: &[Workload], settle: bool) -> Vec<Step> {
    let mut planner = Planner {
        steps: Vec::new(),
        ground: Ground::Nothing,
        unsettled: None,
        settle,
    };
    for (i, &workload) in workloads.iter().enumerate() {
        let settles_next = workloads.get(i + 1) == Some(&Workload::Settle);
        planner.add(workload, settles_next);
    }
    planner.steps
}

struct Planner {
    steps: Vec<Step>,
    ground: Ground,
    /// The workload whose work may still be going on.
    unsettled: Option<Workload>,
    settle: bool,
}

impl Planner {
    fn add(&mut self, workload: Workload, settles_next: bool) {
        if workload.is_durable_fill() {
            return self.measure(workload, None);
        }
        if workload == Workload::Settle {
            if self.ground == Ground::Nothing {
                self.prepare(Ground::Whole);
            }
            return self.settle_now();
        }
        self.prepare(workload.needs());
        let must_settle = matches!(
            workload,
            Workload::GapScanSettled | Workload::GapSeekSettled
        );
        let may_settle = self.settle && !workload.is_unsettled();
        if workload.needs() != Ground::Nothing
            && self.unsettled.is_some()
            && (must_settle || may_settle)
        {
            self.settle_now();
        }
        self.measure(workload, None);
        self.ground = workload.leaves();
        if self.ground == Ground::Nothing {
            self.unsettled = None;
        }
        if workload.writes() {
            self.unsettled = Some(workload);
        }
        let is_load = workload.fills() || workload == Workload::Overwrite;
        if self.settle && is_load && !settles_next {
            self.settle_now();
        }
    }

    /// Makes sure of what the next workload must find.
    fn prepare(&mut self, needed: Ground) {
        let is_there = match needed {
            Ground::Nothing => true,
            Ground::Whole => self.ground == Ground::Whole,
            Ground::Gap => self.ground == Ground::Gap,
        };
        if is_there {
            return;
        }
        if self.ground != Ground::Whole {
            self.steps.push(Step::Load);
            self.unsettled = Some(Workload::FillBatch);
            self.ground = Ground::Whole;
        }
        if needed == Ground::Gap {
            self.settle_now();
            self.measure(Workload::DeleteHalf, None);
            self.unsettled = Some(Workload::DeleteHalf);
            self.ground = Ground::Gap;
        }
    }

    fn settle_now(&mut self) {
        let after = self.unsettled.take();
        self.measure(Workload::Settle, after);
    }

    fn measure(&mut self, workload: Workload, after: Option<Workload>) {
        self.steps.push(Step::Measure { workload, after });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(list: &str, settle: bool) -> String {
        let workloads: Vec<Workload> = list.split(' ').map(|name| name.parse().unwrap()).collect();
        let told = |step: &Step| match step {
            Step::Load => "(load)".to_owned(),
            Step::Measure {
                workload,
                after: Some(after),
            } => format!("{workload}:{after}"),
            Step::Measure {
                workload,
                after: None,
            } => workload.to_string(),
        };
        plan(&workloads, settle)
            .iter()
            .map(told)
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn reads_come_after_a_settle_and_need_data() {
        for (list, expected) in [
            (
                "fillrandom readrandom scan",
                "fillrandom settle:fillrandom readrandom scan",
            ),
            (
                "fillrandom settle readrandom",
                "fillrandom settle:fillrandom readrandom",
            ),
            ("readrandom", "(load) settle:fillbatch readrandom"),
            (
                "fillsync16 seek10",
                "fillsync16 (load) settle:fillbatch seek10",
            ),
            (
                "fillbatch overwrite ycsb-a ycsb-c ycsb-c",
                "fillbatch settle:fillbatch overwrite settle:overwrite ycsb-a settle:ycsb-a ycsb-c ycsb-c",
            ),
            (
                "ycsb-c fillseq",
                "(load) settle:fillbatch ycsb-c fillseq settle:fillseq",
            ),
            ("fillsync1", "fillsync1"),
            (
                "delete-half gap-scan gap-scan-settled gap-seek-settled readrandom",
                "(load) settle:fillbatch delete-half gap-scan settle:delete-half gap-scan-settled gap-seek-settled \
                 (load) settle:fillbatch readrandom",
            ),
            ("gap-seek", "(load) settle:fillbatch delete-half gap-seek"),
            (
                "fillseq delete-mix queue drain tails readrandom",
                "fillseq settle:fillseq delete-mix queue drain (load) settle:fillbatch tails settle:tails readrandom",
            ),
        ] {
            assert_eq!(planned(list, true), expected, "{list}");
        }
        assert_eq!(
            planned("fillrandom ycsb-a readrandom settle", false),
            "fillrandom ycsb-a readrandom settle:ycsb-a"
        );
    }
}
