//! `vaultdb repair`
//!
//! A repair that loses entries is carried out only where the caller has said that this is accepted.

use std::fmt;
use std::ops::ControlFlow;

use vault_db::engine::check::{self, RepairPermission, RepairReport, RepairVerdict};
use vault_db::engine::{LsmOptions, Result};

use crate::arguments::Repair;
use crate::keys::with_options;
use crate::output::{Outcome, Output};

pub(crate) fn run(arguments: &Repair, output: &mut Output) -> Result<Outcome> {
    let report = with_options(&arguments.keys, output, |options, output| {
        plan_and_repair(arguments, options, output)
    })?;
    let text = Text {
        report: &report,
        dry_run: arguments.dry_run,
    };
    output.result(&report, text);
    let loses = !report.plan.losses.is_empty();
    Ok(match &report.plan.verdict {
        RepairVerdict::Sound => Outcome::Well,
        RepairVerdict::NeedsSalvage { .. } => Outcome::Refused,
        RepairVerdict::Repairable if report.done && !loses => Outcome::Well,
        RepairVerdict::Repairable => Outcome::Damaged,
    })
}

fn plan_and_repair(
    arguments: &Repair,
    options: &LsmOptions,
    output: &mut Output,
) -> Result<RepairReport> {
    let permission = match (arguments.dry_run, arguments.accept_loss) {
        (true, _) => RepairPermission::Plan,
        (false, true) => RepairPermission::AcceptLoss,
        (false, false) => RepairPermission::LoseNothing,
    };
    let mut report = repair(arguments, options, permission, output)?;
    if arguments.show_names {
        report.plan.reveal_names();
    }
    Ok(report)
}

fn repair(
    arguments: &Repair,
    options: &LsmOptions,
    permission: RepairPermission,
    output: &mut Output,
) -> Result<RepairReport> {
    let report = check::repair(&arguments.store, options, permission, &mut |progress| {
        output.progress(progress);
        ControlFlow::Continue(())
    });
    output.progress_ends();
    report
}

struct Text<'a> {
    report: &'a RepairReport,
    dry_run: bool,
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.report.plan)?;
        match &self.report.lost {
            Some(lost) => writeln!(
                f,
                "repaired; what was dropped is in {}: keep it until you know that nothing of it is needed",
                lost.display()
            ),
            None if self.report.plan.verdict != RepairVerdict::Repairable => Ok(()),
            None if self.dry_run => writeln!(f, "a dry run: nothing was changed"),
            None => writeln!(
                f,
                "nothing was changed: entries would be lost; run it again with --accept-loss, or restore the files \
                 from a copy"
            ),
        }
    }
}
