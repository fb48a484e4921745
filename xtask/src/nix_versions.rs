//! `cargo xtask nix-versions`: the end-to-end tests on each version of Nix that is supported.
//!
//! Beside the Nix that is installed these are those of Debian's newer suites. They are bootstrapped into
//! a directory, and their `nix` is told where its own libraries are; so it runs like any other program,
//! without a chroot.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::args::Args;
use crate::nix::{ensure_nix, install};
use crate::process::{cargo, in_words, is_root, on_path, output, run, say, status};

/// Where a version of Nix comes from.
struct Edition {
    name: &'static str,
    /// Major and minor version it has to have; the installed one is taken as it is.
    version: Option<Expected>,
}

enum Expected {
    Exactly(u32, u32),
    /// Debian's sid moves on.
    AtLeast(u32, u32),
}

const EDITIONS: &[Edition] = &[
    Edition { name: "installed", version: None },
    Edition { name: "trixie", version: Some(Expected::Exactly(2, 26)) },
    Edition { name: "sid", version: Some(Expected::AtLeast(2, 30)) },
];

/// The names by which Nix's one program is called.
const PROGRAMS: &[&str] = &[
    "nix-build",
    "nix-collect-garbage",
    "nix-copy-closure",
    "nix-daemon",
    "nix-env",
    "nix-hash",
    "nix-instantiate",
    "nix-shell",
    "nix-store",
];

/// Packages without which no suite can be bootstrapped, each with a file that shows it is there.
const NEEDED: &[(&str, &str)] = &[
    ("debootstrap", "/usr/sbin/debootstrap"),
    ("patchelf", "/usr/bin/patchelf"),
    ("debian-archive-keyring", "/usr/share/keyrings/debian-archive-keyring.gpg"),
];

pub(crate) fn nix_versions(mut args: Args<'_>) -> Result<()> {
    let allow_skip = args.flag("--allow-skip");
    let only = args.value("--only")?;
    args.finish()?;
    on_each(allow_skip, only, "end-to-end tests", &end_to_end)
}

/// Does something with each version of Nix on a PATH.
pub(crate) fn on_each(
    allow_skip: bool,
    only: Option<&str>,
    what: &str,
    each: &dyn Fn(&OsString, &str) -> Result<()>,
) -> Result<()> {
    if let Some(only) = only.filter(|only| !is_name(only) && !only.starts_with(|c: char| c.is_ascii_digit()))
    {
        return Err(format!("`{only}` is neither a version of Nix nor one of installed, trixie and sid"));
    }
    ensure_nix()?;
    let mut tested = Vec::new();
    let mut skipped = Vec::new();
    let mut known = Vec::new();
    for edition in EDITIONS.iter().filter(|edition| may_be(edition.name, only)) {
        // Only what this machine cannot do may be skipped; what fails on the way fails.
        if let Some(obstacle) = edition.obstacle()? {
            let problem = format!("the Nix of {}: {obstacle}", edition.name);
            if !allow_skip {
                return Err(format!("{problem}; --allow-skip goes on without it"));
            }
            skipped.push(format!("skipped: {problem}"));
            continue;
        }
        let (path, version) =
            edition.provide().map_err(|problem| format!("the Nix of {}: {problem}", edition.name))?;
        known.push(format!("{} ({version})", edition.name));
        if only.is_none_or(|only| only == edition.name || is_version(&version, only)) {
            say(&format!("--- Nix {version} ({})\n", edition.name));
            each(&path, &version)?;
            tested.push(version);
        }
    }
    for line in &skipped {
        say(&format!("{line}\n"));
    }
    match (tested.is_empty(), only) {
        (false, _) => say(&format!("{what} passed on Nix {}\n", tested.join(", "))),
        // What was asked for could not be had, which may be, or does not exist, which may not.
        (true, Some(only)) if skipped.is_empty() => {
            return Err(format!("no Nix is `{only}`; there are {}", known.join(", ")));
        }
        (true, _) => say("no version of Nix was tested\n"),
    }
    Ok(())
}

/// Whether an edition may be the one that is asked for: by its name, or by a version that is not known yet.
fn may_be(name: &str, only: Option<&str>) -> bool {
    only.is_none_or(|only| only == name || !is_name(only))
}

fn is_name(word: &str) -> bool {
    EDITIONS.iter().any(|edition| edition.name == word)
}

/// Whether a version is meant by a possibly shorter one: 2.26.3 by 2.26.
fn is_version(version: &str, meant: &str) -> bool {
    version.strip_prefix(meant).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

impl Expected {
    fn accepts(&self, version: &str) -> bool {
        let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
        let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else { return false };
        match *self {
            Self::Exactly(a, b) => (major, minor) == (a, b),
            Self::AtLeast(a, b) => (major, minor) >= (a, b),
        }
    }

    fn in_words(&self) -> String {
        match self {
            Self::Exactly(major, minor) => format!("{major}.{minor}"),
            Self::AtLeast(major, minor) => format!("{major}.{minor} or later"),
        }
    }
}

impl Edition {
    /// Why it can neither be found nor made on this machine, if so.
    fn obstacle(&self) -> Result<Option<&'static str>> {
        if self.version.is_none() || is_made(&self.programs()?) {
            return Ok(None);
        }
        Ok(if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            Some("it can be had on x86_64 Linux only")
        } else if !is_root() {
            Some("it is not there yet, and root is needed to bootstrap it")
        } else if !on_path("apt-get") {
            Some("it is not there yet, and Debian or Ubuntu is needed to bootstrap it")
        } else {
            None
        })
    }

    /// Where its system is bootstrapped.
    fn system(&self) -> Result<PathBuf> {
        Ok(cache_directory()?.join(self.name))
    }

    fn programs(&self) -> Result<PathBuf> {
        Ok(self.system()?.join("phoenix-bin"))
    }

    /// A PATH on which this Nix comes first, and its version.
    fn provide(&self) -> Result<(OsString, String)> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let Some(expected) = &self.version else {
            let version = version_on(&path).ok_or("`nix --version` fails")?;
            return Ok((path, version));
        };
        let (system, programs) = (self.system()?, self.programs()?);
        if !is_made(&programs) {
            bootstrap(self.name, &system)?;
            make_programs(&system, &programs)?;
        }
        let all = std::iter::once(programs).chain(std::env::split_paths(&path));
        let path = std::env::join_paths(all).map_err(|error| error.to_string())?;
        let again = || format!("remove {} and run this again to bootstrap it anew", system.display());
        let version = version_on(&path).ok_or_else(|| format!("its nix does not run; {}", again()))?;
        if !expected.accepts(&version) {
            return Err(format!("it is {version}, not {}; {}", expected.in_words(), again()));
        }
        Ok((path, version))
    }
}

fn version_on(path: &OsString) -> Option<String> {
    let text = output(Command::new("nix").arg("--version").env("PATH", path))?;
    text.split(' ').next_back().map(str::to_owned)
}

fn end_to_end(path: &OsString, version: &str) -> Result<()> {
    let mut tests = cargo(&["test", "--test", "*"]);
    for package in ["phoenix-cli", "phoenix-evaluate", "phoenix-store", "phoenix-substituter"] {
        tests.args(["--package", package]);
    }
    run(tests.env("PATH", path).env("PHOENIX_TEST_NIX_VERSION", version))
        .map_err(|problem| format!("on Nix {version}: {problem}"))
}

/// Whether the last of what [`make_programs`] makes is there.
fn is_made(programs: &Path) -> bool {
    programs.join(PROGRAMS[PROGRAMS.len() - 1]).exists()
}

fn bootstrap(suite: &str, system: &Path) -> Result<()> {
    let missing: Vec<&str> =
        NEEDED.iter().filter(|(_, file)| !Path::new(file).exists()).map(|(package, _)| *package).collect();
    if !missing.is_empty() {
        install(&missing)?;
    }
    if system.join("usr/bin/nix").exists() {
        return Ok(());
    }
    fs_err::create_dir_all(system).map_err(|error| error.to_string())?;
    let log = system.with_extension("log");
    say(&format!("bootstrapping {suite} into {}; its log is {}\n", system.display(), log.display()));
    let out = fs_err::File::create(&log).map_err(|error| error.to_string())?.into_file();
    let err = out.try_clone().map_err(|error| error.to_string())?;
    let mut debootstrap = Command::new("debootstrap");
    debootstrap.args(["--variant=minbase", "--include=nix-bin", suite]).arg(system);
    // Its last step may fail over a Perl module that nothing here needs; what counts is the program.
    let code = status(debootstrap.stdout(out).stderr(err))?;
    if !system.join("usr/bin/nix").exists() {
        return Err(format!("debootstrap brought no nix ({}); see {}", in_words(code), log.display()));
    }
    Ok(())
}

/// Makes Nix's programs run outside of their system, with its libraries.
fn make_programs(system: &Path, programs: &Path) -> Result<()> {
    let nix = programs.join("nix");
    fs_err::create_dir_all(programs).map_err(|error| error.to_string())?;
    fs_err::copy(system.join("usr/bin/nix"), &nix).map_err(|error| error.to_string())?;
    run(Command::new("patchelf")
        .arg("--set-interpreter")
        .arg(system.join("lib64/ld-linux-x86-64.so.2"))
        .args(["--force-rpath", "--set-rpath"])
        .arg(system.join("usr/lib/x86_64-linux-gnu"))
        .arg(&nix))?;
    for program in PROGRAMS {
        let link = programs.join(program);
        let _ = fs_err::remove_file(&link);
        fs_err::os::unix::fs::symlink("nix", &link).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn cache_directory() -> Result<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let directory = var("PHOENIX_NIX_VERSIONS_DIR")
        .or_else(|| var("XDG_CACHE_HOME").map(|cache| cache.join("phoenix-ci/nix-versions")))
        .or_else(|| var("HOME").map(|home| home.join(".cache/phoenix-ci/nix-versions")))
        .ok_or(
            "there is nowhere to keep it: none of PHOENIX_NIX_VERSIONS_DIR, XDG_CACHE_HOME, HOME is set",
        )?;
    // What is made there holds its own path.
    std::path::absolute(directory).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edition_is_asked_for_by_name_or_version() {
        assert!(may_be("sid", None));
        assert!(may_be("sid", Some("sid")));
        assert!(!may_be("trixie", Some("sid")));
        assert!(may_be("trixie", Some("2.26.3")));
        assert!(is_version("2.26.3", "2.26") && is_version("2.26.3", "2.26.3"));
        assert!(!is_version("2.26.3", "2.2") && !is_version("2.8.0", "2.26"));
    }

    #[test]
    fn sid_may_move_on_and_trixie_may_not() {
        assert!(Expected::AtLeast(2, 30).accepts("2.34.8") && Expected::AtLeast(2, 30).accepts("3.0pre1"));
        assert!(!Expected::AtLeast(2, 30).accepts("2.8.0"));
        assert!(Expected::Exactly(2, 26).accepts("2.26.3+dfsg-1"));
        assert!(!Expected::Exactly(2, 26).accepts("2.34.8"));
        assert!(!Expected::AtLeast(2, 30).accepts("nonsense"));
    }
}
