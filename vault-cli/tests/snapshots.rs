//! `vaultdb snapshot`, as an operator runs it: real processes and directories, text and JSON, and what every wrong command
//! leaves as it was.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod snapshot_verbs;
