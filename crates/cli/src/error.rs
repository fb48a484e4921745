//! What goes wrong before there is a verdict, and how it is shown.

use std::error::Error;
use std::fmt::Write as _;
use std::process::ExitCode;

use phoenix_evaluate::{EvaluateError, NixEvalJobsError};
use phoenix_store::NixError;

/// Exit code of a usage or internal error.
pub(crate) const EXIT_ERROR: u8 = 1;

/// An error that ends the command: what failed, why, and what to do.
#[derive(Debug)]
pub(crate) struct CommandError {
    message: String,
    causes: Vec<String>,
    hints: Vec<String>,
}

impl CommandError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), causes: Vec::new(), hints: Vec::new() }
    }

    pub(crate) fn because(message: impl Into<String>, cause: &dyn Error) -> Self {
        let mut this = Self::new(message);
        let mut next = Some(cause);
        while let Some(cause) = next {
            this.causes.push(cause.to_string());
            next = cause.source();
        }
        this
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// What failed and why.
    pub(crate) fn in_one_line(&self) -> String {
        let mut parts = vec![self.message.clone()];
        parts.extend(self.causes.iter().cloned());
        parts.join(": ")
    }

    /// Says it on stderr.
    pub(crate) fn report(&self) -> ExitCode {
        let mut text = format!("error: {}\n", self.message);
        for cause in &self.causes {
            let _ = writeln!(text, "  caused by: {}", cause.trim_end().replace('\n', "\n    "));
        }
        for hint in &self.hints {
            let _ = writeln!(text, "hint: {hint}");
        }
        crate::talk::stderr(&phoenix_model::redact(&text));
        ExitCode::from(EXIT_ERROR)
    }
}

impl From<NixError> for CommandError {
    fn from(error: NixError) -> Self {
        match &error {
            NixError::NotFound => Self::new("no `nix` on PATH").hint(
                "install Nix: https://nixos.org/download, on Debian and Ubuntu `apt install nix-bin`; if it is \
                 installed, open a new shell or source its profile script",
            ),
            NixError::Failed { command, message } => {
                let mut this = Self::new(format!("`{command}` failed"));
                this.causes.push(message.clone());
                store_hint(this, message)
            }
            NixError::Setting(_) => Self::because("Nix does not take the value of a setting", &error)
                .hint("look at -j, --option, NIX_CONFIG and nix.conf; `man nix.conf` says which values there are"),
            _ => Self::because("Nix could not be used", &error),
        }
    }
}

impl From<EvaluateError> for CommandError {
    fn from(error: EvaluateError) -> Self {
        match error {
            EvaluateError::Nix(error) => error.into(),
            EvaluateError::Selection(message) => Self::new(message),
            EvaluateError::Strange(_) => Self::because("cannot evaluate", &error)
                .hint("phoenix knows Nix from 2.8 on; does `nix repl` start and answer when you call it?"),
            EvaluateError::NixEvalJobs(NixEvalJobsError::NotFound) => {
                Self::because("cannot evaluate", &error).hint(
                    "install it beside Nix, or leave --evaluator out: phoenix needs nothing but Nix itself",
                )
            }
            other => {
                let this = Self::because("cannot evaluate", &other);
                let line = this.in_one_line();
                store_hint(this, &line)
            }
        }
    }
}

impl From<std::io::Error> for CommandError {
    fn from(error: std::io::Error) -> Self {
        let this = Self::because("cannot keep the records of this run", &error);
        if hint_for(&error.to_string()) == Some(DISK_FULL) {
            return this.hint(DISK_FULL);
        }
        this.hint("they go to $XDG_STATE_HOME/phoenix, or to ~/.local/state/phoenix: name a directory that can be written")
    }
}

fn store_hint(error: CommandError, message: &str) -> CommandError {
    match hint_for(message) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// How systems and Nix say that a disk is full.
pub(crate) const DISK_FULL_WORDS: &[&str] =
    &["No space left on device", "disk is full", "database or disk is full"];

/// Whether an error of Nix is about the machine, so that nothing else can be built there either.
pub(crate) fn is_of_machine(message: &str) -> bool {
    let words = ["build-users-group", "Disk quota exceeded", "Read-only file system"];
    DISK_FULL_WORDS.iter().chain(&words).any(|words| message.contains(words))
}

const DISK_FULL: &str =
    "the disk is full: make room there; in a Nix store `nix-collect-garbage` frees what nothing uses";

/// What may be done where a text that should be JSON is none.
pub(crate) const DAMAGED_LOCK: &str =
    "is the flake.lock damaged? `git checkout flake.lock` brings the last good one back";

/// What to do about an error of Nix or of the system, where that is known.
pub(crate) fn hint_for(message: &str) -> Option<&'static str> {
    let has = |part: &str| message.contains(part);
    // A depot says so itself.
    if has("or use another depot") {
        return None;
    }
    if DISK_FULL_WORDS.iter().any(|words| has(words)) {
        return Some(DISK_FULL);
    }
    if has("and there are builders for ") || has("and there is no builder with ") {
        return Some(
            "`--builders` or /etc/nix/machines name machines that can build it, `--option extra-platforms` what this one \
             can besides; `--exclude` or `--systems` leaves it out",
        );
    }
    if has("user namespaces are not enabled") || has("unable to start build process") && has("namespace") {
        return Some(
            "Nix builds in a root of its own where a store lies elsewhere (--store, --runners), and needs user namespaces \
             for it; `-j N` builds several derivations at once in the usual store",
        );
    }
    if has("Too many open files") {
        return Some(
            "more files have to be open at once than this process may have: `ulimit -n` says how many, and allows more",
        );
    }
    if has("build-users-group") {
        return Some(
            "this Nix was set up without users for its builds: `--option build-users-group ''` builds as root, and \
             so does `build-users-group =` in nix.conf",
        );
    }
    if has("Permission denied")
        || has("Operation not permitted")
        || has("read-only")
        || has("Read-only file system")
        || has("readonly database")
    {
        return Some(
            "this user may not write there: is the Nix daemon running, and is NIX_REMOTE or --store what it should be?",
        );
    }
    if has("does not trust this user") {
        return Some(
            "name this user among trusted-users in nix.conf, or sign with `phoenix cache save --sign-key FILE` and name \
             that key among trusted-public-keys",
        );
    }
    if has("cache write denied") {
        return Some(
            "GitHub lets such a job read the cache and not write it, as for a pull request from a fork: nothing is wrong with \
             it, and a job of the branch itself saves",
        );
    }
    if has("cannot connect to socket") || has("cannot connect to daemon") {
        return Some("is the Nix daemon running? (`systemctl start nix-daemon`)");
    }
    let no_file = has("/flake.nix'") && (has("No such file") || has("does not exist"));
    if no_file || has("does not contain a 'flake.nix'") || has("could not find a flake.nix") {
        return Some(
            "`phoenix run DIRECTORY` needs a directory with a flake.nix, and in a git repository one that git \
             tracks (`git add flake.nix`); `-f FILE` evaluates a file instead",
        );
    }
    let unread = has("cannot read ") && (has(".drv: it is damaged") || has(".drv: it is not in the store"));
    if unread || has("error parsing derivation '") {
        return Some(
            "a derivation in the store is damaged or missing: `nix-store --verify --check-contents` finds what else is; after \
             `nix-store --delete $(nix-store --query --referrers-closure PATH)`, which takes what needs it as well, the \
             next evaluation writes it again",
        );
    }
    if has("json.exception.parse_error") || has("flake.lock") && (has("parse error") || has("syntax error")) {
        return Some(DAMAGED_LOCK);
    }
    if has("lacks attribute 'outputs'") {
        return Some("a flake.nix has to have `outputs = { self, … }: { … };`");
    }
    let is_unreachable = has("resolve host") || has("onnect to server") || has("Failed to connect");
    if has("nix-cache-info")
        || has("don't know how to open Nix store")
        || has("cannot open connection to remote store")
    {
        return Some(
            "the store does not answer, or is none: are the address of --store or NIX_REMOTE right, and is the network there?",
        );
    }
    if is_unreachable && (has("unable to download") || has("unable to access") || has("while fetching")) {
        return Some(
            "is the network there, and the address right? `--override-input NAME PATH` takes an input from this \
             disk instead",
        );
    }
    let git_failed = has("program 'git' failed") || has("Failed to fetch git repository");
    if git_failed || has("resolving Git reference") || has("Git repository \"") {
        return Some(
            "git could not fetch it: are the address and the branch right, and has this user access?",
        );
    }
    if has("getting status of ") && has("No such file") || (has("path '") && has("does not exist")) {
        return Some("is the path right? it is named by what was asked for, or by an input of the flake");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_troubles_have_a_hint() {
        for (message, hint) in [
            ("error: writing to file: No space left on device", "disk is full"),
            ("opening lock file '/nix/var/nix/db/big-lock': Permission denied", "may not write"),
            ("cannot connect to socket at '/nix/var/nix/daemon-socket/socket': Connection refused", "daemon"),
            ("path '/nix/store/x-source/flake.nix' does not exist", "flake.nix"),
            ("path '//nonexistent/zz' does not exist", "is the path right"),
            ("getting status of \"/nonexistent\": No such file or directory", "is the path right"),
            ("flake 'path:/x' lacks attribute 'outputs'", "outputs ="),
            ("unable to download 'https://x': Couldn't resolve host name (6)", "network"),
            ("not permitted: cache write denied: token has no writable scopes", "a job of the branch"),
            ("program 'git' failed with exit code 128", "git could not fetch"),
            ("path '/x' does not contain a 'flake.nix', searching up", "flake.nix"),
        ] {
            assert!(hint_for(message).unwrap().contains(hint), "{message}");
        }
        assert_eq!(hint_for("boom"), None);
    }
}
