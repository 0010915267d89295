//! `vaultdb salvage`: runs it, and prints what was had and what was not.

use std::fmt;
use std::ops::ControlFlow;

use vault_db::engine::Result;
use vault_db::engine::check::{self, SalvageOptions, SalvageReport};

use crate::arguments::Salvage;
use crate::keys::with_options;
use crate::output::{Outcome, Output};

pub(crate) fn run(arguments: &Salvage, output: &mut Output) -> Result<Outcome> {
    let known = SalvageOptions {
        keyspaces: arguments.keyspace.iter().cloned().collect(),
    };
    let (from, into) = (&arguments.from, &arguments.into);
    let mut report = with_options(&arguments.keys, output, |options, output| {
        check::salvage(from, into, options, &known, &mut |progress| {
            output.progress(progress);
            ControlFlow::Continue(())
        })
    })?;
    if arguments.show_names {
        report.reveal_names();
    }
    output.result(&report, Text(&report));
    Ok(if report.complete {
        Outcome::Well
    } else {
        Outcome::Damaged
    })
}

struct Text<'a>(&'a SalvageReport);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        for file in &report.files {
            for problem in &file.problems {
                writeln!(f, "{}: {problem}", file.file)?;
            }
            let (name, entries, lost) = (&file.file, file.entries, file.bytes_lost);
            writeln!(f, "{name}: {entries} entries read, {lost} bytes lost")?;
        }
        for keyspace in &report.keyspaces {
            let (name, id) = (&keyspace.name, keyspace.id);
            let (entries, deletes) = (keyspace.entries, keyspace.range_deletes);
            writeln!(
                f,
                "keyspace {id}, {name:?}: {entries} entries and {deletes} range deletes written"
            )?;
        }
        for unknown in &report.unknown {
            writeln!(f, "it cannot be known {unknown}")?;
        }
        let into = report.into.display();
        if report.complete {
            writeln!(f, "everything was salvaged into {into}")
        } else {
            writeln!(
                f,
                "what could be read was salvaged into {into}; look at it before you rely on it"
            )
        }
    }
}
