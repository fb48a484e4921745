//! A flake for several runners, whose builders leave marks outside of the store.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use phoenix_testkit::Flake;

use super::TestEnv;

/// 60 derivations: 20 targets of two derivations each, which share 20 dependencies in chains of four. Each leaves a
/// line in a directory outside the store when it is built.
pub(crate) fn shared(env: &TestEnv, seconds: &str) -> Flake {
    let marks = env.nix.path("marks");
    fs_err::create_dir_all(&marks).unwrap();
    // Nix builds in a root of its own where a store lies elsewhere; it has to be told what else is there.
    let paths: Vec<String> = ["/bin", "/usr", "/lib", "/lib64"]
        .into_iter()
        .filter(|path| Path::new(path).exists())
        .map(str::to_owned)
        .chain([marks.display().to_string()])
        .collect();
    env.nix.configure(&format!("sandbox-paths = {}", paths.join(" ")));
    Flake::new(&format!(
        r#"let
          inherit (builtins) elemAt genList listToAttrs;
          marked = name: attrs: d name
            "sleep {seconds}; echo built >> {marks}/${{name}}; ! grep -qx ${{name}} {marks}/.broken || exit 3; echo ${{name}} > $out; for i in $deps; do cat $i >> $out; done" attrs;
          deps = genList (n: marked "dep-${{toString n}}"
            {{ deps = if n < 5 then [ ] else [ (elemAt deps (n - 5)) ]; }}) 20;
          own = n: marked "own-${{toString n}}" {{ deps = [ (elemAt deps n) ]; }};
          top = n: marked "top-${{toString n}}" {{ deps = [ (own n) (elemAt deps (n * 7 - n * 7 / 20 * 20)) ]; }};
        in {{
          packages.${{system}} = listToAttrs
            (genList (n: {{ name = "top-${{toString n}}"; value = top n; }}) 20);
        }}"#,
        marks = marks.display()
    ))
}

/// How often each derivation was built.
pub(crate) fn marks(env: &TestEnv) -> BTreeMap<String, usize> {
    let entries = fs_err::read_dir(env.nix.path("marks")).unwrap().map(|entry| entry.unwrap());
    let count = |entry: fs_err::DirEntry| {
        let lines = fs_err::read_to_string(entry.path()).unwrap().lines().count();
        (entry.file_name().to_string_lossy().into_owned(), lines)
    };
    entries.map(count).filter(|(name, _)| !name.starts_with('.')).collect()
}

pub(crate) fn each_once(env: &TestEnv) {
    let marks = marks(env);
    assert_eq!(marks.len(), 60);
    assert!(marks.values().all(|count| *count == 1), "{marks:?}");
}

/// Waits until so many derivations were begun.
pub(crate) fn wait_for_marks(env: &TestEnv, count: usize) {
    while marks(env).len() < count {
        std::thread::sleep(Duration::from_millis(20));
    }
}
