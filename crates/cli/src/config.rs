//! `phoenix.toml` at the root of a flake.

use std::path::Path;

use phoenix_schedule::RunnerKind;
use serde::Deserialize;

/// What a flake's `phoenix.toml` may say. Flags win over it.
///
/// ```toml
/// # Only these attributes are targets, instead of the default ones. `*` is one name, `**` any number,
/// # `{system}` each system that is built for.
/// include = ["checks.{system}.*", "packages.{system}.*"]
/// # Never these, nor anything below them; wins over include.
/// exclude = ["packages.*.heavy-*"]
/// # Systems to build for, instead of the machine's own.
/// systems = ["x86_64-linux", "aarch64-linux"]
/// # Stop at the first failure, instead of going on with what does not depend on it.
/// fail-fast = false
/// # Stores that what was built is pushed to.
/// push = ["s3://bucket?region=eu-central-1", "cachix:mine"]
/// # Branches and tags on which actions run, instead of the default branch.
/// refs = ["main", "v*"]
/// # How many seconds a gate may take.
/// gate-time-out = 600
/// # What an image is of which its registry does not say whether it is there.
/// unknown-images = "red"
/// # What runs once all it needs is built.
/// [[actions]]
/// name = "deploy"
/// run = "apps.x86_64-linux.deploy"
/// needs = ["packages.*.app"]
/// refs = ["main"]
/// time-out = 1800
/// # Runners of one's own, before those that GitHub gives to everybody.
/// [[runners]]
/// systems = ["x86_64-linux"]
/// features = ["kvm", "big-parallel"]
/// mandatory = ["big-parallel"]
/// runs-on = ["self-hosted", "large"]
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Config {
    /// Patterns of attribute paths that are targets; empty for the default ones.
    pub(crate) include: Vec<String>,
    /// Patterns of attribute paths that are not.
    pub(crate) exclude: Vec<String>,
    /// Systems to build for; empty for the machine's own.
    pub(crate) systems: Vec<String>,
    /// Whether to stop at the first failure.
    pub(crate) fail_fast: bool,
    /// Stores that what was built is pushed to, once all builds have ended.
    pub(crate) push: Vec<String>,
    /// Patterns of branches and tags on which actions run; empty for the default branch.
    pub(crate) refs: Vec<String>,
    /// How many seconds a gate may take.
    pub(crate) gate_time_out: Option<u64>,
    /// What an image is of which its registry does not say whether it is there.
    pub(crate) unknown_images: UnknownImages,
    /// What runs once all it needs is built.
    pub(crate) actions: Vec<ActionConfig>,
    /// Kinds of runners besides those that GitHub gives to everybody, the preferred first.
    pub(crate) runners: Vec<RunnerKind>,
}

/// What becomes of what publishes an image of which its registry does not say whether it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum UnknownImages {
    /// It is red.
    #[default]
    Red,
    /// It is taken for absent.
    Work,
    /// It is taken for there.
    None,
}

/// Something that runs once all it needs is built.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ActionConfig {
    /// What it is called; no other has this name.
    pub(crate) name: String,
    /// The attribute that is run, as `nix run` takes it.
    pub(crate) run: String,
    /// Names of other actions, `push`, and patterns of targets; without, all targets.
    #[serde(default)]
    pub(crate) needs: Option<Vec<String>>,
    /// Patterns of branches and tags on which it runs, instead of those of all actions.
    #[serde(default)]
    pub(crate) refs: Option<Vec<String>>,
    /// How many seconds it may take.
    #[serde(default)]
    pub(crate) time_out: Option<u64>,
}

/// The name by which actions need that everything is pushed.
pub(crate) const PUSH: &str = "push";

const ACTION_KEYS: &[&str] = &["name", "run", "needs", "refs", "time-out"];

const RUNNER_KEYS: &[&str] = &["systems", "features", "mandatory", "runs-on"];

/// How like a key has to be for it to be what was meant (Jaro-Winkler).
const NEAR: f64 = 0.6;

const KEYS: &[&str] = &[
    "include",
    "exclude",
    "systems",
    "fail-fast",
    "push",
    "refs",
    "gate-time-out",
    "unknown-images",
    "actions",
    "runners",
];

impl Config {
    /// Reads the `phoenix.toml` of a directory; the default where there is none.
    ///
    /// # Errors
    /// When it cannot be read, is no TOML, or says something it may not.
    pub(crate) fn load(directory: &Path) -> Result<Self, String> {
        let file = directory.join("phoenix.toml");
        match fs_err::read_to_string(&file) {
            Ok(text) => Self::parse(&text),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(Self::default())
            }
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                Err("phoenix.toml is not TOML: it is no UTF-8 text".to_owned())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            format!("phoenix.toml is not TOML: {}", error.to_string().trim())
        })?;
        known("phoenix.toml", &table, KEYS)?;
        for (list, keys) in [("runners", RUNNER_KEYS), ("actions", ACTION_KEYS)] {
            let entries = table.get(list).and_then(toml::Value::as_array).into_iter().flatten();
            for entry in entries.filter_map(toml::Value::as_table) {
                known(&format!("[[{list}]] of phoenix.toml"), entry, keys)?;
            }
        }
        let config: Self =
            toml::from_str(text).map_err(|error| format!("phoenix.toml: {}", error.to_string().trim()))?;
        if config.runners.iter().any(|kind| kind.runs_on.is_empty() || kind.systems.is_empty()) {
            return Err(
                "[[runners]] of phoenix.toml needs at least one of `systems` and one label in `runs-on`, by \
                        which it is asked for"
                    .to_owned(),
            );
        }
        config.check_actions()?;
        Ok(config)
    }

    /// Sees that actions have names of their own, and that no action waits for itself.
    fn check_actions(&self) -> Result<(), String> {
        let mut seen: Vec<&str> = vec![PUSH];
        for action in &self.actions {
            if action.name.is_empty() || seen.contains(&action.name.as_str()) {
                return Err(format!(
                    "an action of phoenix.toml is called `{}`; each needs a name of its own, other than `{PUSH}`",
                    action.name
                ));
            }
            seen.push(&action.name);
        }
        let mut done: Vec<&str> = vec![PUSH];
        loop {
            let open = self.actions.iter().filter(|action| !done.contains(&action.name.as_str()));
            let waits = |action: &&ActionConfig| {
                let needs = action.needs.iter().flatten().map(String::as_str);
                needs.filter(|need| seen.contains(need)).all(|need| done.contains(&need))
            };
            let (free, held): (Vec<_>, Vec<_>) = open.partition(waits);
            if let ([], [first, ..]) = (free.as_slice(), held.as_slice()) {
                return Err(format!(
                    "the action `{}` of phoenix.toml needs itself, by way of its `needs`",
                    first.name
                ));
            }
            if free.is_empty() {
                return Ok(());
            }
            done.extend(free.into_iter().map(|action| action.name.as_str()));
        }
    }
}

/// Sees that a table has no other keys than these.
fn known(place: &str, table: &toml::Table, keys: &[&str]) -> Result<(), String> {
    let Some(key) = table.keys().find(|key| !keys.contains(&key.as_str())) else { return Ok(()) };
    let likeness = |known: &str| strsim::jaro_winkler(key, known);
    let nearest = keys.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    let meant = nearest.filter(|nearest| likeness(nearest) > NEAR);
    let meant = meant.map(|nearest| format!("did you mean `{nearest}`? ")).unwrap_or_default();
    Err(format!("{place} has an unknown key `{key}`; {meant}(known: {})", keys.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_documentation_is_read() {
        let text = r#"
            include = ["a"]
            exclude = ["b"]
            systems = ["c"]
            fail-fast = true
            push = ["cachix:d"]
            refs = ["e"]
            gate-time-out = 5
            unknown-images = "none"
            [[actions]]
            name = "f"
            run = "g"
            needs = ["push"]
            refs = ["h"]
            time-out = 6
            [[runners]]
            systems = ["c"]
            runs-on = ["own"]
        "#;
        let config = Config::parse(text).unwrap();
        assert_eq!(
            config,
            Config {
                include: vec!["a".into()],
                exclude: vec!["b".into()],
                systems: vec!["c".into()],
                fail_fast: true,
                push: vec!["cachix:d".into()],
                refs: vec!["e".into()],
                gate_time_out: Some(5),
                unknown_images: UnknownImages::None,
                actions: vec![ActionConfig {
                    name: "f".into(),
                    run: "g".into(),
                    needs: Some(vec!["push".into()]),
                    refs: Some(vec!["h".into()]),
                    time_out: Some(6),
                }],
                runners: vec![RunnerKind {
                    systems: vec!["c".into()],
                    features: vec![],
                    mandatory: vec![],
                    runs_on: vec!["own".into()]
                }],
            }
        );
        for key in KEYS {
            assert!(text.contains(key), "{key}");
        }
        assert_eq!(Config::parse("").unwrap(), Config::default());
    }

    /// What `docs/phoenix-toml.md` says is true.
    #[test]
    fn the_documentation_is_read_and_its_default_is_the_default() {
        let documentation = include_str!("../../../docs/phoenix-toml.md");
        let blocks: Vec<&str> =
            documentation.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        let config = Config::parse(blocks[0]).unwrap();
        assert_eq!(config.systems.len(), 2);
        assert!(
            KEYS.iter()
                .all(|key| blocks[0].contains(&format!("{key} ="))
                    || blocks[0].contains(&format!("[[{key}]]")))
        );
        assert_eq!(Config::parse(blocks[1]).unwrap().include, phoenix_evaluate::DEFAULT_INCLUDE);
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let error = Config::parse("inclde = []").unwrap_err();
        assert!(error.contains("`inclde`; did you mean `include`?"), "{error}");
        let error = Config::parse("failfast = true").unwrap_err();
        assert!(error.contains("did you mean `fail-fast`?"), "{error}");
        let error = Config::parse("zzz = true").unwrap_err();
        assert!(!error.contains("did you mean"), "{error}");
        let error = Config::parse("[[runners]]\nsystem = [\"x\"]\nruns-on = [\"y\"]").unwrap_err();
        assert!(error.contains("[[runners]]") && error.contains("did you mean `systems`?"), "{error}");
        let error = Config::parse("[[runners]]\nsystems = [\"x\"]\nruns-on = []").unwrap_err();
        assert!(error.contains("one label in `runs-on`"), "{error}");
    }

    #[test]
    fn actions_have_names_of_their_own_and_wait_for_no_one_who_waits_for_them() {
        let of = |actions: &[(&str, &str)]| {
            let text: String = actions
                .iter()
                .map(|(name, needs)| {
                    format!("[[actions]]\nname = \"{name}\"\nrun = \"x\"\nneeds = [{needs}]\n")
                })
                .collect();
            Config::parse(&text).map(drop)
        };
        assert_eq!(of(&[("b", "\"a\", \"packages.*\""), ("a", "\"push\"")]), Ok(()));
        for (actions, said) in [
            (&[("a", "\"a\"")] as &[_], "needs itself"),
            (&[("a", "\"b\""), ("b", "\"a\"")], "needs itself"),
            (&[("a", ""), ("a", "")], "a name of its own"),
            (&[("push", "")], "a name of its own"),
        ] {
            let error = of(actions).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn one_label_may_stand_alone() {
        let config = Config::parse("[[runners]]\nsystems = [\"x\"]\nruns-on = \"own\"").unwrap();
        assert_eq!(config.runners[0].runs_on, ["own"]);
    }

    #[test]
    fn a_wrong_value_and_a_syntax_error_say_where() {
        let error = Config::parse("include = 3").unwrap_err();
        assert!(error.contains("include = 3") && error.contains("line 1"), "{error}");
        let error = Config::parse("[[runners]]\nsystems = [\"x\"]\nruns-on = 3").unwrap_err();
        assert!(error.contains("a label, or a list of labels"), "{error}");
        let error = Config::parse("unknown-images = \"green\"").unwrap_err();
        assert!(error.contains("`red`, `work`, `none`"), "{error}");
        let error = Config::parse("include = [").unwrap_err();
        assert!(error.contains("not TOML"), "{error}");
    }

    #[test]
    fn no_file_is_the_default() {
        assert_eq!(Config::load(Path::new("/nowhere")).unwrap(), Config::default());
    }
}
