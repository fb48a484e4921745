//! Store paths to another store, or to a cache service through its own client.

use std::io;
use std::process::{Command, ExitStatus};

use phoenix_model::StorePath;
use phoenix_schedule::signal_name;
use phoenix_store::Nix;
use phoenix_substituter::redacted;

use crate::error::{CommandError, hint_for};

/// The most bytes of paths in one call: macOS takes 1 MB of arguments and environment together.
const MOST_ARGUMENTS: usize = 256 << 10;

/// Where to, and by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum To {
    /// A store, by `nix copy`.
    Store(String),
    /// A cache of cachix.org, by `cachix push`.
    Cachix(String),
    /// A cache of an attic server, by `attic push`.
    Attic(String),
}

/// Runs a client to its end.
pub(crate) type RunClient<'r> = dyn FnMut(Command) -> io::Result<ExitStatus> + 'r;

impl To {
    /// Reads where to.
    pub(crate) fn parse(text: &str) -> Result<Self, CommandError> {
        let name = |name: &str| {
            let is_name = name.starts_with(|first: char| first.is_ascii_alphanumeric())
                && name.chars().all(|char| char.is_ascii_alphanumeric() || "._-:".contains(char));
            let no = || CommandError::new(format!("`{text}` does not name a cache"));
            is_name.then(|| name.to_owned()).ok_or_else(|| {
                no().hint("write cachix:CACHE, attic:CACHE or attic:SERVER:CACHE, or the URL of a store")
            })
        };
        if let Some(cache) = text.strip_prefix("cachix:") {
            return name(cache).map(Self::Cachix);
        }
        if let Some(cache) = text.strip_prefix("attic:") {
            return name(cache).map(Self::Attic);
        }
        if text.is_empty() || text.starts_with('-') {
            return Err(CommandError::new(format!("`{text}` is not the URL of a store"))
                .hint("such as https://…, s3://…, ssh-ng://…, file:///…, or cachix:CACHE, attic:CACHE"));
        }
        let holds_secret = text.split_once("://").is_some_and(|(scheme, rest)| {
            let authority = rest.split(['/', '?']).next().unwrap_or_default();
            let user = authority.rsplit_once('@').map(|(user, _)| user);
            user.is_some_and(|user| user.contains(':') || scheme.starts_with("http"))
        });
        if holds_secret {
            // Everybody on this machine could read it in the list of processes.
            return Err(CommandError::new(format!("{} has a password in its URL", redacted(text)))
                .hint("put it into the file that Nix's setting netrc-file names"));
        }
        Ok(Self::Store(text.to_owned()))
    }

    /// For messages.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Store(url) => redacted(url),
            Self::Cachix(cache) => format!("cachix:{cache}"),
            Self::Attic(cache) => format!("attic:{cache}"),
        }
    }

    fn program(&self) -> &'static str {
        match self {
            Self::Store(_) => "nix",
            Self::Cachix(_) => "cachix",
            Self::Attic(_) => "attic",
        }
    }

    /// The command, as people would write it.
    fn client(&self) -> String {
        let verb = if matches!(self, Self::Store(_)) { "copy" } else { "push" };
        format!("{} {verb}", self.program())
    }

    /// Pushes paths, with all they refer to; `run` runs a client to its end.
    pub(crate) fn push_all(
        &self,
        nix: &Nix,
        paths: &[&StorePath],
        is_derivation: bool,
        run: &mut RunClient<'_>,
    ) -> Result<(), CommandError> {
        batches(paths).into_iter().try_for_each(|batch| self.push(nix, batch, is_derivation, run))
    }

    fn push(
        &self,
        nix: &Nix,
        paths: &[&StorePath],
        is_derivation: bool,
        run: &mut RunClient<'_>,
    ) -> Result<(), CommandError> {
        let names = paths.iter().map(|path| path.as_str());
        let status = match self {
            Self::Store(url) => {
                let mut command = nix.nix(&["copy"]);
                command.args(["--to", url]).args(is_derivation.then_some("--derivation")).args(names);
                run(command)
            }
            Self::Cachix(cache) | Self::Attic(cache) => {
                let mut command = Command::new(self.program());
                nix.in_env(&mut command).args(["push", cache]).args(names);
                run(command)
            }
        };
        let failed = || format!("pushing to {} failed", self.shown());
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => {
                let how = CommandError::new(format!(
                    "{}: `{}` ended with {}",
                    failed(),
                    self.client(),
                    ended(status)
                ));
                Err(how.hint("its own words are above; what was built is not touched by this"))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let program = self.program();
                Err(CommandError::new(format!("{}: there is no `{program}` on PATH", failed()))
                    .hint(self.how_to_get()))
            }
            Err(error) => {
                let told = CommandError::because(failed(), &error);
                Err(match hint_for(&error.to_string()) {
                    Some(hint) => told.hint(hint),
                    None => told,
                })
            }
        }
    }

    fn how_to_get(&self) -> &'static str {
        match self {
            Self::Store(_) => "install Nix: https://nixos.org/download",
            Self::Cachix(_) => {
                "install it: `nix profile install nixpkgs#cachix`; then it wants CACHIX_AUTH_TOKEN in the environment"
            }
            Self::Attic(_) => {
                "install it: `nix profile install nixpkgs#attic-client`; then `attic login SERVER URL TOKEN`"
            }
        }
    }
}

/// How a program ended, in words.
pub(crate) fn ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {}", signal_name(signal)),
        (None, None) => "no exit code".to_owned(),
    }
}

/// Splits paths so that each part fits into one call.
fn batches<'p>(paths: &'p [&'p StorePath]) -> Vec<&'p [&'p StorePath]> {
    let mut batches = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, path) in paths.iter().enumerate() {
        // Each has a zero and a pointer besides.
        let size = path.as_str().len() + 9;
        if bytes + size > MOST_ARGUMENTS {
            batches.push(&paths[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += size;
    }
    batches.extend((start < paths.len()).then(|| &paths[start..]));
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_who_pushes() {
        let to = |text: &str| To::parse(text).unwrap();
        assert_eq!(to("cachix:mine"), To::Cachix("mine".into()));
        assert_eq!(to("attic:srv:mine"), To::Attic("srv:mine".into()));
        for url in
            ["file:///tmp/x", "s3://bucket?region=eu", "ssh-ng://me@host", "https://cache.example", "/tmp/s"]
        {
            assert_eq!(to(url), To::Store(url.into()));
        }
        for bad in ["", "--help", "cachix:", "cachix:--help", "attic:a b", "attic:-x"] {
            assert!(To::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_password_is_refused_and_not_said() {
        for url in [
            "https://me:hunter2@host/x",
            "http://hunter2@host",
            "s3://me:hunter2@bucket",
            "ssh://me:hunter2@h",
        ] {
            let error = To::parse(url).unwrap_err().in_one_line();
            assert!(error.contains("password") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn no_call_is_too_long_and_none_is_empty() {
        let paths: Vec<StorePath> = (0..5000)
            .map(|number| StorePath::parse(&format!("/nix/store/{number:032}-{}", "n".repeat(100))).unwrap())
            .collect();
        let all: Vec<&StorePath> = paths.iter().collect();
        let some = batches(&all);
        assert!(some.len() > 1);
        let sizes = some.iter().map(|batch| batch.iter().map(|path| path.as_str().len() + 9).sum::<usize>());
        assert!(sizes.into_iter().all(|size| size > 0 && size <= MOST_ARGUMENTS));
        assert_eq!(some.concat(), all);
        assert!(batches(&[]).is_empty());
    }
}
