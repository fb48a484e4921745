//! How Nix is called.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal, Read};
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender};

use crate::group;
use crate::text::error_text;

/// How often somebody who waits for Nix is asked whether to go on.
const TICK: Duration = Duration::from_millis(100);

/// The Nix on PATH, and the options every call of it gets.
///
/// What we need of Nix's experimental features is enabled for our own calls only.
#[derive(Debug, Clone)]
pub struct Nix {
    version: String,
    options: Vec<(String, String)>,
    env: Vec<(OsString, Option<OsString>)>,
}

/// Why Nix could not be called, or what it said.
#[derive(Debug, thiserror::Error)]
pub enum NixError {
    /// There is no `nix`.
    #[error("no `nix` on PATH")]
    NotFound,
    /// It could not be started.
    #[error("cannot start `{command}`")]
    Start {
        /// The command and its verb.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// It ended with an error.
    #[error("`{command}` failed: {message}")]
    Failed {
        /// The command and its verb.
        command: String,
        /// What it said.
        message: String,
    },
    /// A setting has a value that Nix does not take.
    #[error("{0}")]
    Setting(String),
    /// What it printed is not what it should be.
    #[error("`{command}` printed something that could not be understood: {problem}")]
    Output {
        /// The command and its verb.
        command: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl NixError {
    /// Whether Nix cannot use its store at all, whatever it is asked for: no daemon, or no right to the database.
    #[must_use]
    pub fn is_of_store(&self) -> bool {
        let Self::Failed { message, .. } = self else { return false };
        [
            "cannot connect to socket",
            "cannot open connection to remote store",
            "big-lock",
            "SQLite database",
            "readonly database",
        ]
        .iter()
        .any(|part| message.contains(part))
    }
}

impl Nix {
    /// Asks the `nix` on PATH for its version.
    ///
    /// # Errors
    /// When there is none, or it does not say.
    pub fn find() -> Result<Self, NixError> {
        let nix = Self::of_unknown_version();
        Ok(Self { version: nix.ask_version()?, ..nix })
    }

    /// The `nix` on PATH, of which nothing is known.
    pub(crate) const fn of_unknown_version() -> Self {
        Self { version: String::new(), options: Vec::new(), env: Vec::new() }
    }

    pub(crate) fn with_version(self, version: String) -> Self {
        Self { version, ..self }
    }

    pub(crate) fn ask_version(&self) -> Result<String, NixError> {
        let text = self.run(Command::new("nix").arg("--version"), "nix --version")?;
        // `nix (Nix) 2.26.3`, `nix (Lix, like Nix) 2.91.0`
        let version = text
            .split_ascii_whitespace()
            .find(|word| word.starts_with(|first: char| first.is_ascii_digit()))
            .ok_or_else(|| NixError::Output {
                command: "nix --version".into(),
                problem: format!("no version in `{}`", text.trim()),
            })?;
        Ok(version.to_owned())
    }

    /// The version, such as `2.26.3`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Major and minor version; zeros for what is not a number.
    #[must_use]
    pub fn version_numbers(&self) -> (u32, u32) {
        let mut numbers =
            self.version.split(|char: char| !char.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    /// Gives every later call a setting (`--option NAME VALUE`); a later one of the same name wins.
    pub fn set_option(&mut self, name: &str, value: &str) {
        self.options.push((name.to_owned(), value.to_owned()));
    }

    /// Gives every later call a variable in its environment.
    pub fn set_env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) {
        self.env.push((name.as_ref().to_owned(), Some(value.as_ref().to_owned())));
    }

    /// Keeps a variable of ours from every later call, and from all that is started beside Nix: builders and the programs
    /// of flakes see what is in their environment.
    pub fn hide_env(&mut self, name: impl AsRef<OsStr>) {
        self.env.push((name.as_ref().to_owned(), None));
    }

    /// A call of `nix` with a verb of one or two words.
    #[must_use]
    pub fn nix(&self, verb: &[&str]) -> Command {
        let mut command = Command::new("nix");
        command.args(["--extra-experimental-features", "nix-command flakes"]).args(verb);
        self.finish(&mut command);
        command
    }

    /// A call of `nix-store` with an operation such as `--realise`.
    #[must_use]
    pub fn nix_store(&self, operation: &str) -> Command {
        let mut command = Command::new("nix-store");
        command.arg(operation);
        self.finish(&mut command);
        command
    }

    /// A call of `nix-instantiate` with arguments.
    #[must_use]
    pub fn nix_instantiate(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("nix-instantiate");
        command.args(["--extra-experimental-features", "nix-command flakes"]).args(arguments);
        self.finish(&mut command);
        command
    }

    /// Gives a call of another program, which works on the same store, the variables that calls of Nix get.
    pub fn in_env<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        for (name, value) in &self.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    /// The variables that every call gets, and those without a value that none gets.
    #[must_use]
    pub fn env(&self) -> &[(OsString, Option<OsString>)] {
        &self.env
    }

    /// The settings that every call gets, as arguments.
    #[must_use]
    pub fn option_args(&self) -> Vec<String> {
        let options = self.options.iter();
        options.flat_map(|(name, value)| ["--option".to_owned(), name.clone(), value.clone()]).collect()
    }

    fn finish(&self, command: &mut Command) {
        for (name, value) in &self.options {
            command.args(["--option", name, value]);
        }
        self.in_env(command);
        command.stdin(Stdio::null());
    }

    /// Runs a command to its end and returns what it printed.
    ///
    /// # Errors
    /// When it cannot be started, or ends with an error.
    pub fn run(&self, command: &mut Command, shown: &str) -> Result<String, NixError> {
        let output = self.output(command, shown)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = error_text(&String::from_utf8_lossy(&output.stderr));
        let message = if said.trim().is_empty() { format!("it ended with {}", output.status) } else { said };
        Err(NixError::Failed { command: shown.to_owned(), message })
    }

    /// Runs a command to its end, however that is, or until `go_on`, which is asked all the while, says no: then the
    /// process and all it has started are ended, and there is no output.
    ///
    /// # Errors
    /// When it cannot be started or waited for.
    pub fn output_while(
        &self,
        command: &mut Command,
        shown: &str,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Output>, NixError> {
        let trouble = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => NixError::NotFound,
            _ => NixError::Start { command: shown.to_owned(), source },
        };
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Who sits at a terminal may be asked for a password there, which a group of its own could not read.
        let spawned = if io::stdin().is_terminal() { command.spawn() } else { group::spawn(command) };
        let mut child = spawned.map_err(trouble)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (sender, end) = crossbeam_channel::bounded::<()>(0);
        let read = |pipe: Option<Box<dyn Read + Send>>, sender: Sender<()>| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                // What could not be read is missing from the output, as if it had not been printed.
                let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
                drop(sender);
                bytes
            })
        };
        let stdout = read(stdout.map(|pipe| Box::new(pipe) as _), sender.clone());
        let stderr = read(stderr.map(|pipe| Box::new(pipe) as _), sender);
        while end.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            if !go_on() {
                group::end(&mut child);
                return Ok(None);
            }
        }
        let status = child.wait().map_err(trouble)?;
        let bytes = |reader: JoinHandle<Vec<u8>>| reader.join().unwrap_or_default();
        Ok(Some(Output { status, stdout: bytes(stdout), stderr: bytes(stderr) }))
    }

    /// Runs a command to its end, however that is.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn output(&self, command: &mut Command, shown: &str) -> Result<Output, NixError> {
        command.output().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => NixError::NotFound,
            _ => NixError::Start { command: shown.to_owned(), source },
        })
    }
}
