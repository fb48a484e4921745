//! Stores that only Nix itself can reach (`ssh://`, `s3://`, `daemon`, …), asked through `nix path-info`.

use std::collections::{HashMap, HashSet};

use phoenix_model::StorePath;
use phoenix_store::Nix;
use serde_json::Value;

/// How many paths one call is asked for.
pub(crate) const PATHS_A_CALL: usize = 1000;

/// The sizes of those paths that the store has.
pub(crate) fn lookup(nix: &Nix, url: &str, paths: &[StorePath]) -> Result<HashMap<StorePath, u64>, String> {
    let mut command = nix.nix(&["path-info"]);
    command.args(["--json", "--store", url]).args(paths.iter().map(StorePath::as_str));
    let text = nix.run(&mut command, "nix path-info").map_err(|error| error.to_string())?;
    parse(&text, paths)
}

/// Reads what `nix path-info --json` prints: an array of objects where an invalid path has
/// `"valid": false` (2.8), or an object by path, or by base name in a later form, with null for an invalid one.
fn parse(text: &str, paths: &[StorePath]) -> Result<HashMap<StorePath, u64>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let size = |info: &Value| info["narSize"].as_u64().unwrap_or(0);
    let mut sizes: HashMap<String, u64> = HashMap::new();
    match &value {
        Value::Array(infos) => {
            for info in infos.iter().filter(|info| info["valid"] != Value::Bool(false)) {
                if let Some(path) = info["path"].as_str() {
                    sizes.insert(path.to_owned(), size(info));
                }
            }
        }
        Value::Object(infos) => {
            let infos = infos.get("info").and_then(Value::as_object).unwrap_or(infos);
            sizes.extend(infos.iter().filter(|(_, info)| info.is_object()).map(|(path, info)| (path.clone(), size(info))));
        }
        _ => return Err("it is neither a list nor a set".to_owned()),
    }
    let known: HashSet<&str> = sizes.keys().map(String::as_str).collect();
    let found = paths.iter().filter_map(|path| {
        let name = [path.as_str(), path.base_name()].into_iter().find(|name| known.contains(name))?;
        Some((path.clone(), sizes[name]))
    });
    Ok(found.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_versions_are_understood() {
        let a = StorePath::parse("/nix/store/kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-a").unwrap();
        let b = StorePath::parse("/nix/store/kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-b").unwrap();
        let paths = [a.clone(), b];
        for text in [
            format!(r#"[{{"path":"{a}","narSize":5}},{{"path":"{}","valid":false}}]"#, paths[1]),
            format!(r#"{{"{a}":{{"narSize":5}},"{}":null}}"#, paths[1]),
            format!(r#"{{"{}":{{"narSize":5}}}}"#, a.base_name()),
            format!(r#"{{"info":{{"{}":{{"narSize":5}}}},"version":2}}"#, a.base_name()),
        ] {
            assert_eq!(parse(&text, &paths).unwrap(), HashMap::from([(a.clone(), 5)]), "{text}");
        }
        assert!(parse("3", &paths).is_err());
        assert!(parse("warning", &paths).is_err());
    }
}
