//! Stores that only Nix itself can reach (`ssh://`, `s3://`, `daemon`, …), asked through `nix path-info`.

use std::collections::HashMap;
use std::process::{Output, Stdio};

use phoenix_model::StorePath;
use phoenix_store::{Nix, strip_ansi};
use serde_json::{Map, Value};
use tokio::process::Command;

use crate::{Location, PathInfo};

/// How many paths one call is asked for: they have to fit into an argument list.
pub(crate) const PATHS_A_CALL: usize = 500;

/// The first version that wants to be told which JSON it shall print.
const TELLS_FORMATS: (u32, u32) = (2, 34);

/// A path that a store has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) info: PathInfo,
    /// Bytes to fetch, where told.
    pub(crate) download_size: Option<u64>,
}

/// Those of the paths that the store has, by base name.
pub(crate) async fn lookup(
    nix: &Nix,
    location: &Location,
    paths: &[StorePath],
) -> Result<HashMap<String, Held>, String> {
    let mut command = nix.nix(&["path-info"]);
    // Else Nix asks its own substituters what they have of what the store has not.
    command.args(["--option", "substitute", "false", "--option", "substituters", ""]);
    command.args(["--json", "--store", location.url()]);
    if nix.version_numbers() >= TELLS_FORMATS {
        command.args(["--json-format", "1"]);
    }
    command.args(paths.iter().map(StorePath::as_str));
    let mut command = Command::from(command);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.map_err(|error| format!("cannot start `nix path-info`: {error}"))?;
    if !output.status.success() {
        return Err(location.scrub(&problem(&output)));
    }
    parse(&String::from_utf8_lossy(&output.stdout))
        .map_err(|error| format!("`nix path-info` printed something that could not be understood: {error}"))
}

/// The last error that Nix named, in one line.
fn problem(output: &Output) -> String {
    let text = strip_ansi(&String::from_utf8_lossy(&output.stderr));
    let error = text.rfind("error:").map_or(text.as_str(), |at| &text[at + "error:".len()..]);
    let words = error.split_whitespace().collect::<Vec<_>>().join(" ");
    if words.is_empty() {
        format!("`nix path-info` ended with {}", output.status)
    } else {
        format!("Nix says: {}", words.chars().take(500).collect::<String>())
    }
}

/// Reads what `nix path-info --json` prints: an array of objects where a path it has not has
/// `"valid": false` (2.8), or an object by path where it is null (2.26, 2.34), or, in the second format of
/// 2.34, such an object by base name inside `info`.
fn parse(text: &str) -> Result<HashMap<String, Held>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut all = HashMap::new();
    match &value {
        Value::Array(infos) => {
            for info in infos {
                let object = info.as_object().ok_or("an entry is no object")?;
                let path = object.get("path").and_then(Value::as_str).ok_or("an entry has no path")?;
                if object.get("valid") != Some(&Value::Bool(false)) {
                    add(&mut all, path, object)?;
                }
            }
        }
        Value::Object(infos) => {
            let inner = infos.get("info").and_then(Value::as_object);
            for (path, info) in inner.unwrap_or(infos) {
                match info {
                    Value::Null => {}
                    Value::Object(object) => add(&mut all, path, object)?,
                    _ => return Err(format!("`{path}` is no object")),
                }
            }
        }
        _ => return Err("it is neither a list nor an object".to_owned()),
    }
    Ok(all)
}

fn add(all: &mut HashMap<String, Held>, path: &str, object: &Map<String, Value>) -> Result<(), String> {
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    let list = |name: &str| object.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let base_name = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    let full = match (path.contains('/'), text("storeDir")) {
        (false, Some(store_dir)) => format!("{store_dir}/{path}"),
        _ => path.to_owned(),
    };
    let info = PathInfo {
        store_path: StorePath::parse(&full).map_err(|error| error.to_string())?,
        nar_hash: text("narHash").unwrap_or_default().to_owned(),
        nar_size: object
            .get("narSize")
            .and_then(Value::as_u64)
            .ok_or_else(|| format!("`{path}` has no size"))?,
        references: list("references").iter().filter_map(Value::as_str).map(base_name).collect(),
        signatures: list("signatures").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        content_address: text("ca").map(str::to_owned),
    };
    let download_size = object.get("downloadSize").and_then(Value::as_u64).filter(|&size| size > 0);
    all.insert(info.store_path.base_name().to_owned(), Held { info, download_size });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HAS: &str = "q8jv3ynk3cg4lv6m9kyzj5zdvsi1myjd-f";
    const HAS_NOT: &str = "kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-a";
    const FIELDS: &str = r#""narHash":"sha256-EFUdrtf6Rn0LWIJufrmg8q99aT3jGfLvd1//zaJEufY=","narSize":120,"ca":"fixed:r:sha256:1xmr","downloadSize":124"#;

    /// What Nix 2.8.0, 2.26.3 and 2.34.8 print, and its second format.
    fn printed() -> [String; 4] {
        let reference = format!("/nix/store/{HAS_NOT}");
        [
            format!(
                r#"[{{"path":"{reference}","valid":false}},{{"path":"/nix/store/{HAS}",{FIELDS},"references":["{reference}"]}}]"#
            ),
            format!(
                r#"{{"{reference}":null,"/nix/store/{HAS}":{{{FIELDS},"references":["{reference}"],"signatures":[],"ultimate":false}}}}"#
            ),
            format!(
                r#"{{"{reference}":null,"/nix/store/{HAS}":{{{FIELDS},"references":["{reference}"],"signatures":[],"storeDir":"/nix/store","version":1}}}}"#
            ),
            format!(
                r#"{{"info":{{"{HAS_NOT}":null,"{HAS}":{{{FIELDS},"references":["{HAS_NOT}"],"storeDir":"/nix/store"}}}},"version":2}}"#
            ),
        ]
    }

    #[test]
    fn all_versions_are_understood() {
        for text in printed() {
            let all = parse(&text).unwrap();
            assert_eq!(all.keys().collect::<Vec<_>>(), [HAS], "{text}");
            let held = &all[HAS];
            assert_eq!(held.info.store_path.as_str(), format!("/nix/store/{HAS}"));
            assert_eq!((held.info.nar_size, held.download_size), (120, Some(124)));
            assert_eq!(held.info.references, [HAS_NOT]);
            assert_eq!(held.info.content_address.as_deref(), Some("fixed:r:sha256:1xmr"));
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for text in ["3", "warning", "[3]", "[{}]", r#"{"a":{"narSize":1}}"#, r#"{"/nix/store/x":3}"#] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
