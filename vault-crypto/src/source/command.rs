//! A secret that another program prints.
//!
//! The program runs in a process group of its own, so that it can be killed with whatever it started. Its two pipes are
//! watched by one loop without threads, which also looks whether it has ended: the end of the pipes alone would not do, since an
//! agent that the program leaves behind may hold them open. Nobody takes note of its end (`wait`) before it is clear that the
//! group need not be killed any more: until then, the number of the group is nobody else's.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdout, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use vault_core::clock::{Clock, SystemClock};
use vault_core::{Error, Result};

use super::{Form, KeySource, Secret, invalid, unavailable};
use crate::secret::{PASSPHRASE_BYTES_MAX, SecretBytes};

/// How long a command may take unless something else is said.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// How much of what it says on the standard error becomes part of an error, in bytes.
const STDERR_BYTES_MAX: usize = 200;
/// How often it is looked whether the command has ended without closing its pipes.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// What is read and forgotten at once, in bytes.
const DRAIN_BYTES: usize = 4 << 10;

/// A passphrase or a key that a command prints: a password manager's, for instance. What counts is the first line of its
/// standard output, without the end of the line.
///
/// The command is run as it is given, without a shell, with no standard input and in a process group of its own: it cannot ask
/// at the terminal. If it fails, its exit status and the beginning of its standard error (200 bytes) become part of
/// the error; its standard output never does. If it has not ended when the time is up, it is killed with its children,
/// those excepted that made themselves a process group of their own.
///
/// ```
/// use std::time::Duration;
/// use vault_crypto::source::{Command, KeySource};
/// let source = Command::passphrase("printf", ["open sesame\\n"]).time_limit(Duration::from_secs(10));
/// assert!(source.secret().is_ok());
/// ```
#[derive(Clone)]
pub struct Command {
    program: OsString,
    arguments: Vec<OsString>,
    form: Form,
    time_limit: Duration,
}

impl Command {
    /// A command that prints a passphrase.
    #[must_use]
    pub fn passphrase<A: Into<OsString>>(
        program: impl Into<OsString>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        Self {
            program: program.into(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            form: Form::Passphrase,
            time_limit: TIME_LIMIT,
        }
    }

    /// A command that prints a key in 64 hexadecimal digits.
    #[must_use]
    pub fn key<A: Into<OsString>>(
        program: impl Into<OsString>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        Self {
            form: Form::HexKey,
            ..Self::passphrase(program, arguments)
        }
    }

    /// Kills the command when it has not ended after this time. Default: 30 seconds.
    #[must_use]
    pub fn time_limit(mut self, time_limit: Duration) -> Self {
        self.time_limit = time_limit;
        self
    }

    fn start(&self) -> Result<Running> {
        let child = std::process::Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn();
        let mut child = child.map_err(|error| {
            unavailable(self, format!("it cannot be run: {error}; correct its path"))
        })?;
        Ok(Running {
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            child,
            ended: false,
            line: SecretBytes::empty(),
            line_ended: false,
            said: Vec::with_capacity(STDERR_BYTES_MAX),
        })
    }

    /// The error for a command that ended badly.
    fn failed(&self, how: &str, running: &Running) -> Error {
        unavailable(self, format!("{how}{}", running.complaint()))
    }
}

impl KeySource for Command {
    fn name(&self) -> String {
        // Arguments may be nobody's business.
        format!("the command {}", self.program.display())
    }

    fn secret(&self) -> Result<Secret> {
        let mut running = self.start()?;
        let clock = SystemClock::new();
        let begin = clock.monotonic();
        let outcome = loop {
            let left = self.time_limit.saturating_sub(clock.monotonic() - begin);
            if left.is_zero() {
                break None;
            }
            let step = running.step(left.min(LOOK_INTERVAL));
            if let Some(status) =
                step.map_err(|error| unavailable(self, format!("it cannot be watched: {error}")))?
            {
                break Some(status);
            }
        };
        let Some(status) = outcome else {
            let how = format!(
                "it had not ended after {:?} and was killed; run it by hand, or allow it more time",
                self.time_limit
            );
            return Err(self.failed(&how, &running));
        };
        if !status.success() {
            return Err(self.failed(&format!("it failed: {status}"), &running));
        }
        if running.line.expose().is_empty() {
            return Err(self.failed("it printed nothing on its first line", &running));
        }
        if running.line.expose().len() > PASSPHRASE_BYTES_MAX {
            return Err(invalid(format!(
                "the first line that {} prints has over {PASSPHRASE_BYTES_MAX} bytes",
                self.name()
            )));
        }
        let line = std::mem::replace(&mut running.line, SecretBytes::empty());
        self.form.read(line, &self.name())
    }
}

/// A command that was started. Dropped before it has ended, it is killed.
struct Running {
    child: Child,
    /// Open pipes, as long as there may be something in them.
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    /// Whether the process is gone, and its number anybody's.
    ended: bool,
    /// The first line of the standard output, without its end.
    line: SecretBytes,
    line_ended: bool,
    /// The beginning of the standard error.
    said: Vec<u8>,
}

impl Running {
    /// Waits for something to happen, no longer than `wait`, and takes note of it. Gives how the command ended, once it has
    /// and nothing more is to come of the first line.
    fn step(&mut self, wait: Duration) -> io::Result<Option<ExitStatus>> {
        // Looked at before the pipes are: what the command wrote before it ended is then found in them.
        let gone = self.is_gone()?;
        // Somebody may have inherited the pipe, and end the line yet: then there is the time limit.
        let nothing_to_come = gone && (self.line_ended || self.stdout.is_none());
        let wait = if nothing_to_come {
            Duration::ZERO
        } else {
            wait
        };
        let idle = !self.read_what_is_there(wait)?;
        if nothing_to_come && idle {
            self.ended = true;
            return self.child.wait().map(Some);
        }
        Ok(None)
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Whether the command has ended, without taking note of it.
    fn is_gone(&self) -> io::Result<bool> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(waitid(WaitId::Pid(self.pid()), options)?.is_some())
    }

    /// Waits for the pipes and reads each once. Gives whether there was something.
    fn read_what_is_there(&mut self, wait: Duration) -> io::Result<bool> {
        let timeout = Timespec::try_from(wait).map_err(io::Error::other)?;
        let descriptors = [
            self.stdout.as_ref().map(AsFd::as_fd),
            self.stderr.as_ref().map(AsFd::as_fd),
        ];
        let mut watched: Vec<PollFd<'_>> = descriptors
            .iter()
            .flatten()
            .map(|descriptor| PollFd::from_borrowed_fd(*descriptor, PollFlags::IN))
            .collect();
        match poll(&mut watched, Some(&timeout)) {
            Err(Errno::INTR) => return Ok(true),
            polled => polled?,
        };
        let mut ready = watched.iter().map(|watched| !watched.revents().is_empty());
        let [stdout, stderr] = descriptors.map(|one| one.is_some() && ready.next() == Some(true));
        drop(watched);
        if stdout {
            self.read_stdout()?;
        }
        if stderr {
            self.read_stderr()?;
        }
        Ok(stdout || stderr)
    }

    /// Reads of the standard output what belongs to the first line, and forgets the rest.
    fn read_stdout(&mut self) -> io::Result<()> {
        let Some(pipe) = &mut self.stdout else {
            return Ok(());
        };
        if self.line_ended {
            let mut rest = zeroize::Zeroizing::new([0; DRAIN_BYTES]);
            if read_once(pipe, rest.as_mut_slice())? == Some(0) {
                self.stdout = None;
            }
            return Ok(());
        }
        let known = self.line.expose().len();
        let Some(read) = self.line.try_extend(|room| read_once(pipe, room))? else {
            return Ok(());
        };
        if read == 0 {
            self.stdout = None;
        }
        let line = self.line.expose();
        let end = line[known..].iter().position(|&byte| byte == b'\n');
        if let Some(end) = end {
            self.line_ended = true;
            let end = known + end;
            let return_too = end > 0 && line[end - 1] == b'\r';
            self.line.truncate(end - usize::from(return_too));
        } else if line.len() > PASSPHRASE_BYTES_MAX {
            // No secret: what is there is told apart by its length.
            self.line_ended = true;
        }
        Ok(())
    }

    /// Reads of the standard error the beginning, and forgets the rest.
    fn read_stderr(&mut self) -> io::Result<()> {
        let Some(pipe) = &mut self.stderr else {
            return Ok(());
        };
        let mut said = [0; DRAIN_BYTES];
        let Some(read) = read_once(pipe, &mut said)? else {
            return Ok(());
        };
        if read == 0 {
            self.stderr = None;
        }
        let room = STDERR_BYTES_MAX - self.said.len();
        self.said.extend_from_slice(&said[..read.min(room)]);
        Ok(())
    }

    /// What the command said on its standard error, fit to be part of an error.
    fn complaint(&self) -> String {
        let said = self.said.trim_ascii();
        let secret = self.line.expose();
        if said.is_empty() {
            return String::new();
        }
        // A command that traces what it does may print the secret there too.
        let telling = &secret[..secret.len().min(8)];
        if !telling.is_empty() && said.windows(telling.len()).any(|part| part == telling) {
            return "; what it said is not shown, since it holds what it printed".to_owned();
        }
        format!("; it said: {:?}", String::from_utf8_lossy(said))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            // Neither can fail in a way that leaves something to be done: the group is there until it is waited for.
            let _ = kill_process_group(self.pid(), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// Reads what is there. `None` where a signal came in between.
fn read_once(pipe: &mut impl Read, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match pipe.read(buffer) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
        read => read.map(Some),
    }
}
