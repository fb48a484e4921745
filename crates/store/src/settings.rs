//! How Nix is configured: nix.conf, `NIX_CONFIG`, and the options of this run, as Nix itself sees them.

use data_encoding::HEXLOWER;
use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{Nix, NixError, error_text, strip_ansi};

/// The settings that matter here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// The system of this machine, such as `x86_64-linux`.
    pub system: String,
    /// More systems this machine can build for.
    pub extra_platforms: Vec<String>,
    /// The features of this machine that a derivation may require.
    pub system_features: Vec<String>,
    /// The substituters, in the order of nix.conf.
    pub substituters: Vec<String>,
    /// Whether substituters are used at all.
    pub substitute: bool,
    /// Keys whose signatures count.
    pub trusted_public_keys: Vec<String>,
    /// Whether a path has to be signed to come in.
    pub require_sigs: bool,
    /// Where credentials for substituters are.
    pub netrc_file: String,
    /// Root certificates for substituters.
    pub ssl_cert_file: String,
    /// How many connections Nix would open.
    pub http_connections: usize,
    /// How many builds Nix runs at once.
    pub max_jobs: usize,
    /// The remote builders; empty for none.
    pub builders: String,
    /// Whether settings that a flake asks for are used without asking.
    pub accept_flake_config: bool,
    /// Whether errors come with their whole trace.
    pub show_trace: bool,
    /// Whether builders see no more of the machine than they are to.
    pub sandbox: bool,
    /// What they see of it all the same: `PATH`, `PATH=WHAT`, with a `?` at the end when it may be missing.
    pub sandbox_paths: Vec<String>,
    /// A hash of all settings that the result of a pure evaluation may depend on.
    pub evaluation: String,
    /// A setting that lets evaluation depend on what is no setting.
    pub impure: Option<String>,
}

/// Settings by which a pure evaluation gives the same whatever they are: how things are fetched, built, kept and told.
/// All others, and those of versions to come, count.
const BESIDE_EVALUATION: &[&str] = &[
    "accept-flake-config",
    "access-tokens",
    "allow-dirty",
    "allowed-users",
    "always-allow-substitutes",
    "auto-optimise-store",
    "bash-prompt",
    "bash-prompt-prefix",
    "bash-prompt-suffix",
    "build-dir",
    "build-fallback",
    "build-hook",
    "build-poll-interval",
    "build-users-group",
    "builders",
    "builders-use-substitutes",
    "commit-lock-file-summary",
    "commit-lockfile-summary",
    "compress-build-log",
    "connect-timeout",
    "cores",
    "diff-hook",
    "download-attempts",
    "download-buffer-size",
    "download-speed",
    "enforce-determinism",
    "eval-cache",
    "extra-platforms",
    "fallback",
    "filter-syscalls",
    "flake-registry",
    "fsync-metadata",
    "fsync-store-paths",
    "gc-reserved-space",
    "hashed-mirrors",
    "http-connections",
    "http2",
    "id-count",
    "keep-build-log",
    "keep-derivations",
    "keep-env-derivations",
    "keep-failed",
    "keep-going",
    "keep-outputs",
    "log-lines",
    "max-build-log-size",
    "max-free",
    "max-jobs",
    "max-silent-time",
    "max-substitution-jobs",
    "min-free",
    "min-free-check-interval",
    "nar-buffer-size",
    "narinfo-cache-negative-ttl",
    "narinfo-cache-positive-ttl",
    "netrc-file",
    "nix-path",
    "post-build-hook",
    "pre-build-hook",
    "preallocate-contents",
    "print-missing",
    "require-drop-supplementary-groups",
    "require-sigs",
    "run-diff-hook",
    "sandbox",
    "sandbox-build-dir",
    "sandbox-dev-shm-size",
    "sandbox-fallback",
    "sandbox-paths",
    "secret-key-files",
    "ssl-cert-file",
    "stalled-download-timeout",
    "start-id",
    "store",
    "substitute",
    "substituters",
    "sync-before-registering",
    "system-features",
    "tarball-ttl",
    "timeout",
    "trusted-public-keys",
    "trusted-substituters",
    "trusted-users",
    "use-cgroups",
    "use-registries",
    "use-sqlite-wal",
    "use-xdg-base-directories",
    "user-agent-suffix",
    "warn-dirty",
    "warn-large-path-threshold",
];

impl Settings {
    /// Finds Nix and asks for its settings, both at once. `set` gives Nix what every call gets.
    ///
    /// # Errors
    /// When there is no Nix, or it does not answer, or not in JSON.
    pub fn find(set: impl FnOnce(&mut Nix)) -> Result<(Nix, Self), NixError> {
        let mut nix = Nix::of_unknown_version();
        set(&mut nix);
        let (version, settings) = std::thread::scope(|scope| {
            // How newer versions are asked.
            let settings = scope.spawn(|| Self::ask(&nix, CONFIG_SHOW));
            let version = nix.ask_version();
            (version, settings.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        let nix = nix.with_version(version?);
        let settings = if verb(&nix) == CONFIG_SHOW { settings? } else { Self::ask(&nix, verb(&nix))? };
        Ok((nix, settings))
    }

    /// Asks Nix.
    ///
    /// # Errors
    /// When Nix does not answer, or not in JSON.
    pub fn read(nix: &Nix) -> Result<Self, NixError> {
        Self::ask(nix, verb(nix))
    }

    fn ask(nix: &Nix, verb: &[&str]) -> Result<Self, NixError> {
        let (text, shown) = show(nix, verb)?;
        Self::parse(&text).map_err(|problem| NixError::Output { command: shown, problem })
    }

    /// The names of all settings, and of each whether it is true or false.
    ///
    /// # Errors
    /// When Nix does not answer, or not in JSON.
    pub fn flags(nix: &Nix) -> Result<BTreeMap<String, bool>, NixError> {
        let (text, shown) = show(nix, verb(nix))?;
        let all: BTreeMap<String, Setting> = serde_json::from_str(&text)
            .map_err(|error| NixError::Output { command: shown, problem: error.to_string() })?;
        Ok(all.into_iter().map(|(name, setting)| (name, setting.value.is_boolean())).collect())
    }

    fn parse(text: &str) -> Result<Self, String> {
        let all: BTreeMap<String, Setting> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let value = |name: &str| all.get(name).map(|setting| &setting.value);
        let string = |name| value(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let flag = |name, default| value(name).and_then(Value::as_bool).unwrap_or(default);
        let number = |name, default| {
            value(name)
                .and_then(Value::as_u64)
                .and_then(|number| usize::try_from(number).ok())
                .unwrap_or(default)
        };
        let list = |name| match value(name) {
            Some(Value::Array(items)) => {
                items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
            }
            Some(Value::String(words)) => words.split_ascii_whitespace().map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        let system = string("system");
        if system.is_empty() {
            return Err("it has no setting `system`".to_owned());
        }
        let counts = all.iter().filter(|(name, _)| !BESIDE_EVALUATION.contains(&name.as_str()));
        let counting: BTreeMap<&String, &Value> =
            counts.map(|(name, setting)| (name, &setting.value)).collect();
        let text = serde_json::to_string(&counting).map_err(|error| error.to_string())?;
        let evaluation = HEXLOWER.encode(&Sha256::digest(text.as_bytes()));
        let is_empty = |value: &&Value| match value {
            Value::Array(items) => items.is_empty(),
            Value::String(text) => text.is_empty(),
            other => **other == Value::Bool(false),
        };
        let impure = ["plugin-files", "allow-unsafe-native-code-during-evaluation"];
        let impure = impure.into_iter().find(|name| value(name).is_some_and(|value| !is_empty(&value)));
        Ok(Self {
            evaluation,
            impure: impure.map(str::to_owned),
            system,
            extra_platforms: list("extra-platforms"),
            system_features: list("system-features"),
            substituters: list("substituters"),
            substitute: flag("substitute", true),
            trusted_public_keys: list("trusted-public-keys"),
            require_sigs: flag("require-sigs", true),
            netrc_file: string("netrc-file"),
            ssl_cert_file: string("ssl-cert-file"),
            http_connections: number("http-connections", 25),
            max_jobs: number("max-jobs", 1),
            builders: string("builders"),
            accept_flake_config: flag("accept-flake-config", false),
            show_trace: flag("show-trace", false),
            // `relaxed` is one for all but those who ask for none.
            sandbox: value("sandbox").and_then(Value::as_bool).unwrap_or(true),
            sandbox_paths: match value("sandbox-paths") {
                // Since 2.33 or so.
                Some(Value::Object(paths)) => paths.iter().map(sandbox_path).collect(),
                _ => list("sandbox-paths"),
            },
        })
    }
}

/// A setting, as Nix tells it.
#[derive(serde::Deserialize)]
struct Setting {
    value: Value,
}

const CONFIG_SHOW: &[&str] = &["config", "show"];

/// How Nix is asked for its settings.
fn verb(nix: &Nix) -> &'static [&'static str] {
    // `show-config` became `config show` in 2.18 or so; the old name is an alias with a warning.
    if nix.version_numbers() >= (2, 19) { CONFIG_SHOW } else { &["show-config"] }
}

/// What Nix tells of all its settings, and the command that was asked.
fn show(nix: &Nix, verb: &[&str]) -> Result<(String, String), NixError> {
    let shown = format!("nix {}", verb.join(" "));
    let output = nix.output(nix.nix(verb).arg("--json"), &shown)?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(NixError::Failed { command: shown, message: error_text(&said) });
    }
    // Nix's own commands refuse a value that does not fit, but some of them only warn and go on without.
    if let Some(refused) = refused(&said) {
        return Err(NixError::Setting(refused));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok((text.into_owned(), shown))
}

/// A path that builders see, as nix.conf says it.
fn sandbox_path((target, what): (&String, &Value)) -> String {
    let source = what.get("source").and_then(Value::as_str).unwrap_or(target);
    let optional = what.get("optional").and_then(Value::as_bool).unwrap_or_default();
    format!("{target}={source}{}", if optional { "?" } else { "" })
}

/// What Nix says of a setting's value that it does not take, if it does.
fn refused(stderr: &str) -> Option<String> {
    let text = strip_ansi(stderr);
    text.lines().find_map(|line| {
        let line = line.strip_prefix("warning:")?.trim();
        let line = line.strip_prefix("error:").unwrap_or(line).trim();
        let about = line.contains("setting '") || line.contains("option '");
        let refuses =
            line.contains("has invalid value") || line.contains("should be") || line.contains("is not valid");
        (about && refuses).then(|| line.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_have_defaults() {
        let text = r#"{"system":{"value":"x86_64-linux"},"substituters":{"value":["https://a","https://b"]},
            "require-sigs":{"value":false},"max-jobs":{"value":4},"extra-platforms":{"value":["i686-linux"]}}"#;
        let settings = Settings::parse(text).unwrap();
        assert_eq!(settings.substituters, ["https://a", "https://b"]);
        assert_eq!(settings.extra_platforms, ["i686-linux"]);
        for (value, sandbox) in [("true", true), ("false", false), ("\"relaxed\"", true)] {
            let text = format!(r#"{{"system":{{"value":"x"}},"sandbox":{{"value":{value}}}}}"#);
            assert_eq!(Settings::parse(&text).unwrap().sandbox, sandbox);
        }
        assert_eq!((settings.require_sigs, settings.substitute, settings.max_jobs), (false, true, 4));
        assert_eq!((settings.http_connections, settings.show_trace), (25, false));
        let traced = r#"{"system":{"value":"x"},"show-trace":{"value":true}}"#;
        assert!(Settings::parse(traced).unwrap().show_trace);
    }

    #[test]
    fn an_evaluation_depends_on_all_settings_but_those_that_are_known_not_to_matter() {
        let read = |more: &str| {
            Settings::parse(&format!(r#"{{"system":{{"value":"x86_64-linux"}}{more}}}"#)).unwrap()
        };
        let plain = read("");
        assert_eq!(read(r#","cores":{"value":3}"#).evaluation, plain.evaluation);
        for more in [r#","restrict-eval":{"value":true}"#, r#","of-some-day":{"value":1}"#] {
            assert_ne!(read(more).evaluation, plain.evaluation, "{more}");
        }
        assert_eq!(read(r#","plugin-files":{"value":[]}"#).impure, None);
        assert_eq!(read(r#","plugin-files":{"value":["/p.so"]}"#).impure.as_deref(), Some("plugin-files"));
    }

    #[test]
    fn a_value_that_nix_does_not_take_is_told_from_other_warnings() {
        for line in [
            "warning: error: option 'sandbox' has invalid value 'maybe'",
            "warning: option 'sandbox' has invalid value 'maybe'",
            "warning: error: configuration setting 'max-jobs' should be 'auto' or an integer",
            "\u{1b}[35;1mwarning:\u{1b}[0m error: setting 'cores' has invalid value 'abc'",
        ] {
            assert!(refused(&format!("warning: 'show-config' is deprecated\n{line}\n")).is_some(), "{line}");
        }
        for (paths, expected) in [
            (r#"["/a","/b=/c?"]"#, ["/a", "/b=/c?"]),
            (
                r#"{"/a":{"optional":false,"source":"/a"},"/b":{"optional":true,"source":"/c"}}"#,
                ["/a=/a", "/b=/c?"],
            ),
        ] {
            let text = format!(r#"{{"system":{{"value":"x"}},"sandbox-paths":{{"value":{paths}}}}}"#);
            assert_eq!(Settings::parse(&text).unwrap().sandbox_paths, expected);
        }
        for line in ["warning: unknown setting 'nosuch'", "warning: 'show-config' is a deprecated alias"] {
            assert_eq!(refused(line), None, "{line}");
        }
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        assert!(Settings::parse("{}").unwrap_err().contains("system"));
        assert!(Settings::parse("warning: nonsense").is_err());
    }
}
