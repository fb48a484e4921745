//! Locking a flake: from a reference to sources and a lock file.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use phoenix_model::{NarHash, StorePath};
use phoenix_store::{Nix, NixError, error_text};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::across::{Content, content};
use crate::evaluator::quote;
use crate::names::{SEEN, SOURCES};
use crate::trace::tidy;

const CALL_FLAKE: &str = include_str!("nix/call-flake.nix");

/// An input that the lock file holds to its contents.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LockedInput {
    /// The key of its node.
    key: String,
    pub(crate) nar_hash: NarHash,
    /// What the lock file tells of it.
    info: Map<String, Value>,
}

/// The definition of inputs that need not be fetched: those for which there is a path.
pub(crate) fn sources(inputs: &[LockedInput], paths: &[Option<StorePath>]) -> String {
    let there = inputs.iter().zip(paths).filter_map(|(input, path)| {
        let info = Value::Object(input.info.clone());
        let source =
            json!({ "path": path.as_ref()?.as_str(), "narHash": input.info.get("narHash"), "info": info });
        Some((input.key.clone(), source))
    });
    let there: Map<String, Value> = there.collect();
    if there.is_empty() {
        return format!("{SOURCES} = {{ }}");
    }
    format!("{SOURCES} = builtins.fromJSON {}", quote(&Value::Object(there).to_string()))
}

/// The `nixConfig` of a flake: Nix settings it asks for, each in the form of `--option`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FlakeConfig(pub BTreeMap<String, String>);

/// A flake with everything it takes to evaluate it: no reference in it can change any more.
#[derive(Debug, Clone, PartialEq)]
pub struct LockedFlake {
    store_path: String,
    nar_hash: String,
    info: Map<String, Value>,
    dir: String,
    locks: Value,
    own_dir: bool,
    plain_dir: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    path: String,
    locked: Map<String, Value>,
    #[serde(default)]
    resolved: Map<String, Value>,
    #[serde(default)]
    last_modified: Option<i64>,
    locks: Value,
}

/// How a flake is locked.
#[derive(Debug, Clone, Default)]
pub(crate) struct LockOptions<'a> {
    pub(crate) override_inputs: &'a [(String, String)],
    pub(crate) reference_lock_file: Option<&'a Path>,
    pub(crate) impure: bool,
}

impl LockedFlake {
    /// Has Nix fetch a flake and lock its inputs. The lock file is not written. Also returns what Nix
    /// had to say about it (a dirty tree, an input that is not locked). Nothing when `go_on`, which is asked all the
    /// while, says no.
    pub(crate) fn lock(
        nix: &Nix,
        reference: &str,
        options: &LockOptions<'_>,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<(Self, String)>, NixError> {
        let shown = format!("nix flake metadata {reference}");
        let mut command = nix.nix(&["flake", "metadata"]);
        command.args(["--json", "--no-write-lock-file"]);
        if options.impure {
            command.arg("--impure");
        }
        for (input, replacement) in options.override_inputs {
            command.args(["--override-input", input, replacement]);
        }
        if let Some(file) = options.reference_lock_file {
            command.arg("--reference-lock-file").arg(file);
        }
        command.arg(reference);
        let Some(output) = nix.output_while(&mut command, &shown, go_on)? else { return Ok(None) };
        let said = phoenix_store::strip_ansi(&String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            let lines: Vec<String> =
                format!("error: {}", error_text(&said)).lines().map(str::to_owned).collect();
            return Err(NixError::Failed { command: shown, message: tidy(&lines) });
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let metadata = serde_json::from_str(&text)
            .map_err(|error| NixError::Output { command: shown.clone(), problem: error.to_string() })?;
        let flake = Self::new(nix, metadata, &shown)?;
        Ok(Some((flake, said)))
    }

    fn new(nix: &Nix, metadata: Metadata, shown: &str) -> Result<Self, NixError> {
        let text =
            |from: &Map<String, Value>, name: &str| from.get(name).and_then(Value::as_str).map(str::to_owned);
        let locked = &metadata.locked;
        let nar_hash = match text(locked, "narHash") {
            Some(hash) => hash,
            None => nar_hash(nix, &metadata.path, shown)?,
        };
        let dir = text(locked, "dir").or_else(|| text(&metadata.resolved, "dir")).unwrap_or_default();
        let info = source_info(locked, metadata.last_modified, &nar_hash);
        let (own_dir, plain_dir) = (nix.version_numbers() >= (2, 14), nix.version_numbers() >= (2, 29));
        let (store_path, locks) = (metadata.path, metadata.locks);
        Ok(Self { store_path, nar_hash, info, dir, locks, own_dir, plain_dir })
    }

    /// The directory of the flake in the store.
    pub(crate) fn root(&self) -> String {
        if self.dir.is_empty() {
            self.store_path.clone()
        } else {
            format!("{}/{}", self.store_path, self.dir)
        }
    }

    /// Its source in the store.
    pub(crate) fn source(&self) -> &str {
        &self.store_path
    }

    /// The hash in the name of its source.
    pub(crate) fn source_hash(&self) -> &str {
        let name = self.store_path.rsplit('/').next().unwrap_or_default();
        name.split('-').next().unwrap_or_default()
    }

    /// The file it is in, relative to its source.
    pub(crate) fn file(&self) -> String {
        if self.dir.is_empty() { "flake.nix".to_owned() } else { format!("{}/flake.nix", self.dir) }
    }

    /// What is told of its source by a name.
    pub(crate) fn told(&self, name: &str) -> Option<Content> {
        if name == "outPath" {
            return Some(content(self.store_path.as_bytes()));
        }
        self.info.get(name).map(|value| content(value.to_string().as_bytes()))
    }

    /// What an evaluation depends on besides what is in its files and what is told of its source.
    pub(crate) fn family(&self) -> Vec<String> {
        let names: Vec<&str> = self.info.keys().map(String::as_str).collect();
        vec![
            one_line(CALL_FLAKE),
            self.own_dir.to_string(),
            self.plain_dir.to_string(),
            self.store_path.rsplit_once('/').map(|(store_dir, _)| store_dir.to_owned()).unwrap_or_default(),
            self.dir.clone(),
            names.join(" "),
            self.locks.to_string(),
        ]
    }

    /// An input that the lock file does not hold to its contents, if there is one.
    pub(crate) fn unlocked_input(&self) -> Option<String> {
        let root = self.locks.get("root")?.as_str()?;
        let nodes = self.locks.get("nodes").and_then(Value::as_object)?;
        let is_held = |node: &Value| {
            let locked = node.get("locked");
            let text = |name: &str| locked?.get(name)?.as_str();
            // What lies in the source of another flake has its hash.
            let is_relative =
                text("type") == Some("path") && text("path").is_some_and(|path| !path.starts_with('/'));
            text("narHash").is_some_and(|hash| !hash.is_empty()) || is_relative
        };
        nodes.iter().find(|(name, node)| *name != root && !is_held(node)).map(|(name, _)| name.clone())
    }

    /// The inputs that Nix takes from the store if they are there (nix `src/libfetchers/fetchers.cc`,
    /// `getAccessorUnchecked`). What a flake itself fetches is fetched again by versions since 2.25, wherever its contents
    /// are; so these are not to be fetched. Earlier ones look into the store by themselves.
    pub(crate) fn inputs(&self, nix: &Nix) -> Vec<LockedInput> {
        let nodes = self.locks.get("nodes").and_then(Value::as_object);
        let inputs = nodes.into_iter().flatten().filter_map(|(key, node)| {
            let locked = node.get("locked")?.as_object()?;
            let (kind, nar_hash) = (locked.get("type")?.as_str()?, locked.get("narHash")?.as_str()?);
            // What the lock file does not tell is told by who fetches it.
            locked.get("lastModified")?;
            if kind == "file" || kind == "indirect" {
                return None;
            }
            let bytes = BASE64_STANDARD.decode(nar_hash.strip_prefix("sha256-")?).ok()?;
            let info = source_info(locked, None, nar_hash);
            Some(LockedInput { key: key.clone(), nar_hash: NarHash(bytes.try_into().ok()?), info })
        });
        if nix.version_numbers() < (2, 25) { Vec::new() } else { inputs.collect() }
    }

    /// Definitions for an evaluator after which `name` is the flake.
    pub(crate) fn definitions(&self, name: &str) -> Vec<String> {
        let json = |value: &Value| quote(&value.to_string());
        let source = format!(
            "fetchTree {{ type = \"path\"; path = {}; narHash = {}; }}",
            quote(&self.store_path),
            quote(&self.nar_hash)
        );
        vec![
            format!("{} = {source}", source_name(name)),
            // A path has its own lastModified; that of the reference counts.
            format!(
                "{name}Info = builtins.removeAttrs {name}Source [ \"lastModified\" \"lastModifiedDate\" ] // builtins.fromJSON {}",
                json(&Value::Object(self.info.clone()))
            ),
            format!("{name}Locks = builtins.fromJSON {}", json(&self.locks)),
            format!(
                "{name} = ({}) {SOURCES} {SEEN} {} {} {name}Locks {name}Info {}",
                one_line(CALL_FLAKE),
                self.own_dir,
                self.plain_dir,
                quote(&self.dir)
            ),
        ]
    }

    /// An expression for the `nixConfig` of the flake that `definitions(name)` defined.
    pub(crate) fn config_expression(&self, name: &str) -> String {
        let dir = if self.dir.is_empty() { String::new() } else { format!("/{}", self.dir) };
        format!("(import ({name}Source + {})).nixConfig or {{}}", quote(&format!("{dir}/flake.nix")))
    }
}

/// What the source of a flake is called among its definitions.
pub(crate) fn source_name(name: &str) -> String {
    format!("{name}Source")
}

/// What `sourceInfo` holds besides the path, as Nix makes it of a locked reference
/// (nix `src/libexpr/primops/fetchTree.cc`, `emitTreeAttrs`).
fn source_info(
    locked: &Map<String, Value>,
    last_modified: Option<i64>,
    nar_hash: &str,
) -> Map<String, Value> {
    let mut info = Map::new();
    for name in ["rev", "revCount", "dirtyRev", "dirtyShortRev"] {
        if let Some(value) = locked.get(name) {
            info.insert(name.to_owned(), value.clone());
        }
    }
    if let Some(rev) = locked.get("rev").and_then(Value::as_str) {
        info.insert("shortRev".to_owned(), rev.chars().take(7).collect::<String>().into());
    }
    if locked.get("type").and_then(Value::as_str) == Some("git") {
        info.insert("submodules".to_owned(), locked.get("submodules").cloned().unwrap_or(false.into()));
    }
    let last_modified = locked.get("lastModified").and_then(Value::as_i64).or(last_modified);
    if let Some(seconds) = last_modified {
        info.insert("lastModified".to_owned(), seconds.into());
        if let Ok(time) = jiff::Timestamp::from_second(seconds) {
            info.insert("lastModifiedDate".to_owned(), time.strftime("%Y%m%d%H%M%S").to_string().into());
        }
    }
    info.insert("narHash".to_owned(), nar_hash.into());
    info
}

fn nar_hash(nix: &Nix, path: &str, shown: &str) -> Result<String, NixError> {
    let mut command = nix.nix_store("--query");
    command.args(["--hash", path]);
    let text = nix.run(&mut command, "nix-store --query --hash")?;
    let hash = text.trim();
    if hash.is_empty() {
        return Err(NixError::Output { command: shown.to_owned(), problem: format!("{path} has no hash") });
    }
    Ok(hash.to_owned())
}

/// Reads the JSON of a `nixConfig`.
pub(crate) fn parse_config(json: &str) -> FlakeConfig {
    let Ok(Value::Object(settings)) = serde_json::from_str(json) else { return FlakeConfig::default() };
    let word = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let settings = settings
        .into_iter()
        .map(|(name, value)| {
            let value = match &value {
                Value::Array(items) => items.iter().map(word).collect::<Vec<_>>().join(" "),
                other => word(other),
            };
            (name, value)
        })
        .collect();
    FlakeConfig(settings)
}

/// A Nix expression without its comment lines, on one line.
pub(crate) fn one_line(nix: &str) -> String {
    let lines = nix.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_info_is_that_of_nix() {
        let Value::Object(locked) = json!({"type": "git", "rev": "0123456789abcdef", "revCount": 3,
            "lastModified": 1_700_000_000, "url": "file:///x"})
        else {
            panic!()
        };
        assert_eq!(
            Value::Object(source_info(&locked, None, "sha256-x")),
            json!({"rev": "0123456789abcdef", "shortRev": "0123456", "revCount": 3, "submodules": false,
                "lastModified": 1_700_000_000, "lastModifiedDate": "20231114221320", "narHash": "sha256-x"})
        );
    }

    #[test]
    fn sources_of_two_stores_are_of_two_families() {
        let flake = |store_path: &str| LockedFlake {
            store_path: store_path.to_owned(),
            nar_hash: String::new(),
            info: Map::new(),
            dir: String::new(),
            locks: json!({}),
            own_dir: true,
            plain_dir: true,
        };
        let family = |store_path: &str| flake(store_path).family();
        assert_eq!(family("/nix/store/1-source"), family("/nix/store/2-source"));
        assert_ne!(family("/nix/store/1-source"), family("/other/store/1-source"));
    }

    #[test]
    fn configuration_is_options() {
        let config =
            parse_config(r#"{"extra-substituters":["https://a","https://b"],"sandbox":false,"x":"y"}"#);
        assert_eq!(
            config.0.into_iter().collect::<Vec<_>>(),
            [
                ("extra-substituters".to_owned(), "https://a https://b".to_owned()),
                ("sandbox".to_owned(), "false".to_owned()),
                ("x".to_owned(), "y".to_owned())
            ]
        );
        assert_eq!(parse_config("[]"), FlakeConfig::default());
    }

    #[test]
    fn expressions_fit_on_a_line() {
        for text in [
            CALL_FLAKE,
            include_str!("nix/inspect.nix"),
            include_str!("nix/job.nix"),
            include_str!("nix/call.nix"),
            include_str!("nix/details.nix"),
        ] {
            let line = one_line(text);
            assert!(!line.contains('\n') && !line.contains('#') && line.len() > 100);
        }
    }
}
