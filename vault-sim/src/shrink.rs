//! Making a failing plan small: leave out as much as possible while it still fails.
//!
//! Delta debugging (Zeller, Hildebrandt: "Simplifying and Isolating Failure-Inducing Input", 2002): runs of
//! operations are taken out, long ones first, then shorter ones; then parts of what is left.

use crate::plan::{Operation, Plan};

/// Plans that are tried.
const ATTEMPTS_MAX: usize = 5_000;

/// A smaller plan for which `fails` still holds. It holds for `plan`.
pub fn shrink(plan: &Plan, fails: &mut dyn FnMut(&Plan) -> bool) -> Plan {
    let mut shrinking = Shrinking {
        best: plan.clone(),
        fails,
        attempts: 0,
    };
    loop {
        let before = shrinking.best.clone();
        shrinking.take_out_operations();
        shrinking.take_out_parts();
        shrinking.take_out_keyspaces();
        if shrinking.best == before || shrinking.attempts >= ATTEMPTS_MAX {
            return shrinking.best;
        }
    }
}

struct Shrinking<'a> {
    best: Plan,
    fails: &'a mut dyn FnMut(&Plan) -> bool,
    attempts: usize,
}

impl Shrinking<'_> {
    fn keep_if_it_fails(&mut self, candidate: Plan) -> bool {
        self.attempts += 1;
        let fails = self.attempts <= ATTEMPTS_MAX && (self.fails)(&candidate);
        if fails {
            self.best = candidate;
        }
        fails
    }

    fn take_out_operations(&mut self) {
        let mut run = self.best.operations.len().next_power_of_two();
        while run > 0 {
            // From the end: what fails often needs little after it.
            let mut at = self.best.operations.len();
            while at > 0 {
                let from = at.saturating_sub(run);
                let mut candidate = self.best.clone();
                candidate.operations.drain(from..at);
                self.keep_if_it_fails(candidate);
                at = from;
            }
            run /= 2;
        }
    }

    /// Takes single changes out of batches, interruptions out of recoveries, moves and keys out of reads.
    fn take_out_parts(&mut self) {
        for index in 0..self.best.operations.len() {
            let mut part = 0;
            while let Some(smaller) = without_part(&self.best.operations[index], part) {
                let mut candidate = self.best.clone();
                candidate.operations[index] = smaller;
                if !self.keep_if_it_fails(candidate) {
                    part += 1;
                }
            }
        }
    }

    fn take_out_keyspaces(&mut self) {
        while self.best.keyspaces.len() > 1 {
            let mut candidate = self.best.clone();
            candidate.keyspaces.pop();
            if !self.keep_if_it_fails(candidate) {
                break;
            }
        }
    }
}

/// The operation without its nth part; `None` where there is none.
fn without_part(operation: &Operation, part: usize) -> Option<Operation> {
    fn shorter<T>(list: &mut Vec<T>, part: usize) -> Option<()> {
        (part < list.len()).then(|| drop(list.remove(part)))
    }
    let mut smaller = operation.clone();
    match &mut smaller {
        Operation::Write { changes, .. }
        | Operation::TryWrite { changes }
        | Operation::OpenCheckpoint { changes, .. } => {
            shorter(changes, part)?;
        }
        Operation::Crash { recovery, .. } => shorter(recovery, part)?,
        Operation::MultiGet(_, keys) => shorter(keys, part)?,
        Operation::MoveCursor(_, moves) => shorter(moves, part)?,
        Operation::Ingest { count, .. } if part == 0 && *count > 1 => *count /= 2,
        Operation::Background(steps) if part == 0 && *steps > 1 => *steps -= 1,
        _ => return None,
    }
    Some(smaller)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_stays() {
        let plan = Plan::from_seed(3);
        let needed = |operation: &Operation| matches!(operation, Operation::Write { changes, .. } if changes.len() > 2);
        let mut fails = |plan: &Plan| plan.operations.iter().filter(|one| needed(one)).count() >= 2;
        assert!(fails(&plan));
        let small = shrink(&plan, &mut fails);
        assert_eq!(small.operations.len(), 2);
        assert_eq!(small.keyspaces.len(), 1);
        for operation in &small.operations {
            assert!(matches!(operation, Operation::Write { changes, .. } if changes.len() == 3));
        }
    }
}
