use super::*;
use serde_json::json;

/// What is at a path of a tree in which `"drv"` stands for a derivation, `"throw"` for an error, and
/// a set with `"unit"` for a work unit.
fn look(tree: &Value, inspect: &Inspect) -> Result<String, String> {
    let mut at = tree;
    for (depth, name) in inspect.path.names().iter().enumerate() {
        let Some(next) = at.get(name) else {
            let names: Vec<_> = at.as_object().map(|set| set.keys().collect()).unwrap_or_default();
            let left = inspect.path.names().len() - depth;
            let r#type = if at.is_object() { "set" } else { "string" };
            return Ok(json!({"kind": "missing", "left": left, "type": r#type, "names": names}).to_string());
        };
        at = next;
    }
    let path = format!("/nix/store/{}-x", "0".repeat(32));
    Ok(match at {
        Value::String(text) if text == "throw" => return Err("boom".into()),
        Value::String(text) if text.starts_with("drv") => {
            let system = text.strip_prefix("drv:").unwrap_or("x86_64-linux");
            json!({"kind": "derivation", "name": "x", "system": system, "drvPath": format!("{path}.drv"),
                "outputs": {"out": path, "ca": "/1rz4placeholder"}})
        }
        Value::Object(set) if set.contains_key("unit") => {
            json!({"kind": "workUnit", "findWork": set["unit"], "unit": {"type": "ci-work-unit"}})
        }
        Value::Object(set) => {
            let wanted = |name: &&String| inspect.wanted.as_ref().is_none_or(|wanted| wanted.contains(name));
            let names: Vec<_> = set.keys().filter(wanted).collect();
            json!({"kind": "set", "names": names, "recurse": set.get("recurseForDerivations")})
        }
        Value::Null => json!({"kind": "other", "type": "null"}),
        Value::Number(_) => json!({"kind": "other", "type": "int"}),
        Value::Bool(_) => json!({"kind": "other", "type": "bool"}),
        _ => json!({"kind": "other", "type": "string"}),
    }
    .to_string())
}

fn walk_with(selection: Selection, asked: &[&str], tree: &Value) -> Vec<FoundTarget> {
    let mut walk = Walk::new(selection, vec![]);
    for text in asked {
        let installable = crate::Installable::parse(text).unwrap();
        walk.add(installable.candidates("x86_64-linux"), installable.outputs);
    }
    let mut targets = Vec::new();
    while let Some(inspect) = walk.take_next() {
        let json = look(tree, &inspect);
        targets.extend(walk.answer(inspect, json.as_ref().map(String::as_str).map_err(Clone::clone)));
    }
    targets.extend(walk.finish());
    targets
}

fn walk(asked: &[&str], tree: &Value) -> Vec<(String, Option<Ended>)> {
    let selection = Selection::new(&[], &[], &["x86_64-linux".to_owned()]).unwrap();
    walk_with(selection, asked, tree).into_iter().map(|found| (found.path.to_string(), found.ended)).collect()
}

fn paths(asked: &[&str], tree: &Value) -> Vec<String> {
    walk(asked, tree).into_iter().map(|(path, _)| path).collect()
}

#[test]
fn where_nothing_evaluates_a_target_is_called_as_it_is_meant() {
    for (text, expected) in [
        (".#a", "apps.x86_64-linux.a"),
        (".#apps.x86_64-linux.a", "apps.x86_64-linux.a"),
        (".#packages.x86_64-linux.a", "packages.x86_64-linux.a"),
        (".#packages.aarch64-linux.a", "apps.x86_64-linux.packages.aarch64-linux.a"),
        (".#.a", "a"),
    ] {
        let mut walk = Walk::new(Selection::new(&[], &[], &["x86_64-linux".to_owned()]).unwrap(), vec![]);
        walk.add_program(crate::Installable::parse(text).unwrap().program_candidates("x86_64-linux"));
        let inspect = walk.take_next().unwrap();
        let found = walk.answer(inspect, Err("no".to_owned()));
        assert_eq!(found[0].path.to_string(), expected);
    }
}

#[test]
fn the_default_targets_of_a_flake() {
    let tree = json!({
        "checks": {"x86_64-linux": {"a": "drv"}, "aarch64-linux": {"a": "drv"}},
        "packages": {"x86_64-linux": {"b": "drv", "bad": "throw"}},
        "hydraJobs": {"deep": {"deeper": {"c": "drv"}, "none": null, "recurseForDerivations": true}},
        "formatter": {"x86_64-linux": "drv"},
        "legacyPackages": {"x86_64-linux": {"never": "throw"}},
        "nixosConfigurations": {"host": {"options": "throw", "config": {"system": {"build": {"toplevel": "drv"}}}}},
        "lib": "text",
    });
    let mut found = paths(&["."], &tree);
    found.sort();
    assert_eq!(
        found,
        [
            "checks.x86_64-linux.a",
            "formatter.x86_64-linux",
            "hydraJobs.deep.deeper.c",
            "nixosConfigurations.host.config.system.build.toplevel",
            "packages.x86_64-linux.b",
            "packages.x86_64-linux.bad",
        ]
    );
}

#[test]
fn an_error_is_a_target_of_its_own() {
    let tree = json!({"packages": {"x86_64-linux": {"bad": "throw", "good": "drv"}}});
    assert_eq!(
        walk(&["."], &tree),
        [
            ("packages.x86_64-linux.bad".to_owned(), Some(Ended::NotEvaluated("boom".into()))),
            ("packages.x86_64-linux.good".to_owned(), None),
        ]
    );
}

#[test]
fn a_name_without_end_is_red_and_shown_by_its_beginning() {
    let long = "é".repeat(5_000_000);
    let other = format!("{long}x");
    let fine = "a".repeat(4096);
    for (asked, set) in
        [(".", "packages"), (".", "hydraJobs"), (".#legacyPackages.x86_64-linux", "legacyPackages")]
    {
        let tree = json!({ set: { "x86_64-linux": { &long: "drv", &other: "throw", &fine: "drv" } } });
        let found = walk(&[asked], &tree);
        assert_eq!(found.len(), 3, "{asked} {set}: two are two");
        let red: Vec<_> = found.iter().filter(|(_, ended)| ended.is_some()).collect();
        assert_eq!(red.len(), 2);
        for (path, ended) in red {
            assert!(path.len() < 200 && path.contains("éé… (1000000"), "{path}");
            let Some(Ended::NotEvaluated(error)) = ended else { panic!("{ended:?}") };
            assert!(
                error.len() < 200 && error.contains("bytes; what has a name of more than 4096"),
                "{error}"
            );
        }
    }
    let tree = json!({"packages": {"x86_64-linux": {&long: "drv", "b": "drv"}}});
    assert_eq!(nearest("b", std::slice::from_ref(&long)), Vec::<String>::new());
    assert_eq!(nearest(&long, &[other]), Vec::<String>::new(), "and in no time");
    assert_eq!(walk(&[".#packages.x86_64-linux.b"], &tree).len(), 1);
}

#[test]
fn what_is_of_the_wrong_type_is_not_evaluated() {
    let tree = json!({"packages": {"x86_64-linux": {"set": {"x": "drv"}, "text": "text"}}});
    let wrong = |what: &str| Some(Ended::NotEvaluated(format!("it is {what}, not a derivation")));
    assert_eq!(
        walk(&["."], &tree),
        [
            ("packages.x86_64-linux.set".to_owned(), wrong("a set")),
            ("packages.x86_64-linux.text".to_owned(), wrong("a string")),
        ]
    );
}

#[test]
fn a_named_attribute_is_found_where_nix_finds_it() {
    let tree = json!({
        "packages": {"x86_64-linux": {"a": "drv"}},
        "legacyPackages": {"x86_64-linux": {"b": "drv"}},
        "c": "drv",
    });
    assert_eq!(paths(&[".#a"], &tree), ["packages.x86_64-linux.a"]);
    assert_eq!(paths(&[".#b"], &tree), ["legacyPackages.x86_64-linux.b"]);
    assert_eq!(paths(&[".#c"], &tree), ["c"]);
    assert_eq!(paths(&[".#c", ".#.c"], &tree), ["c"], "once");
}

#[test]
fn a_name_that_does_not_exist_gets_suggestions() {
    let tree = json!({"checks": {"x86_64-linux": {"unit-tests": "drv", "lint": "drv"}}});
    let found = walk(&[".#checks.x86_64-linux.unit-test"], &tree);
    let Some(Ended::NotEvaluated(error)) = &found[0].1 else { panic!("{found:?}") };
    assert_eq!(
        error,
        "there is no attribute `unit-test` in `checks.x86_64-linux`; did you mean `unit-tests`?"
    );
    assert_eq!(found.len(), 1);
    let tree =
        json!({"checks": {"x86_64-linux": {"lint": "text"}}, "packages": {"x86_64-linux": {"hello": "drv"}}});
    let found = walk(&[".#helo"], &tree);
    let Some(Ended::NotEvaluated(error)) = &found[0].1 else { panic!("{found:?}") };
    assert_eq!(
        error,
        "there is no attribute `helo`, nor `packages.x86_64-linux.helo` or `legacyPackages.x86_64-linux.helo`; \
         did you mean `hello`?"
    );
    let found = walk(&[".#checks.x86_64-linux.lint.x"], &tree);
    let Some(Ended::NotEvaluated(error)) = &found[0].1 else { panic!("{found:?}") };
    assert!(error.contains("which is a string"), "{error}");
}

#[test]
fn a_named_set_is_entered() {
    let tree = json!({
        "hydraJobs": {"a": {"b": "drv"}},
        "checks": {"x86_64-linux": {"c": "drv"}, "aarch64-linux": {"c": "drv:aarch64-linux"}},
        "mine": {"d": "drv", "f": "text", "plain": {"e": "drv"}, "marked": {"recurseForDerivations": true, "g": "drv"}},
    });
    assert_eq!(paths(&[".#hydraJobs"], &tree), ["hydraJobs.a.b"]);
    assert_eq!(paths(&[".#checks"], &tree), ["checks.x86_64-linux.c"]);
    assert_eq!(paths(&[".#checks.aarch64-linux"], &tree), ["checks.aarch64-linux.c"], "it was named");
    let mut mine = paths(&[".#mine"], &tree);
    mine.sort();
    assert_eq!(mine, ["mine.d", "mine.marked.g"]);
}

#[test]
fn a_named_set_is_entered_by_system_and_is_red_when_nothing_is_found() {
    let tree = json!({
        "mine": {"x86_64-linux": {"a": "drv"}, "aarch64-linux": {"a": "drv"}},
        "nothing": {"plain": {"a": "drv"}},
        "empty": {},
    });
    assert_eq!(paths(&[".#mine"], &tree), ["mine.x86_64-linux.a"]);
    let found = walk(&[".#nothing"], &tree);
    assert!(matches!(&found[..], [(path, Some(Ended::NotEvaluated(_)))] if path == "nothing"), "{found:?}");
    assert_eq!(walk(&[".#empty"], &tree), []);
}

#[test]
fn a_file_is_looked_through_as_nix_build_does() {
    let selection = Selection::of_file(&[], &[], &["x86_64-linux".to_owned()]).unwrap();
    let tree = json!({"a": "drv", "f": "text", "checks": {"x86_64-linux": {"b": "drv"}},
        "tools": {"recurseForDerivations": true, "c": "drv"}});
    let mut found: Vec<_> =
        walk_with(selection, &[".#."], &tree).iter().map(|found| found.path.to_string()).collect();
    found.sort();
    assert_eq!(found, ["a", "tools.c"]);
}

#[test]
fn a_work_unit_is_one_target_whatever_is_in_it() {
    let tree =
        json!({"ci": {"x86_64-linux": {"publish": {"unit": "return {}", "image": "drv"}, "lint": "drv"}}});
    let publish = "ci.x86_64-linux.publish";
    for (globs, asked, units) in [
        (&[] as &[&str], ".", 1),
        (&["ci.**"], ".", 1),
        (&["ci.*.publish"], ".", 1),
        (&[], ".#ci.x86_64-linux.publish", 1),
        (&[], ".#ci.x86_64-linux", 1),
        (&["ci.*.publish.*"], ".", 0),
        (&["**.image"], ".", 0),
    ] {
        let globs: Vec<String> = globs.iter().map(|&glob| glob.to_owned()).collect();
        let selection = Selection::new(&globs, &[], &["x86_64-linux".to_owned()]).unwrap();
        let targets = walk_with(selection, &[asked], &tree);
        let found: Vec<_> = targets.iter().filter(|target| target.special.is_some()).collect();
        assert_eq!(found.len(), units, "{globs:?} {asked}: {targets:#?}");
        for target in found {
            let Some(Special::WorkUnit(unit)) = &target.special else { panic!("{target:#?}") };
            assert_eq!((target.path.to_string().as_str(), unit.find_work.as_str()), (publish, "return {}"));
        }
    }
    let selection = Selection::new(&[], &[publish.to_owned()], &["x86_64-linux".to_owned()]).unwrap();
    let named = walk_with(selection.clone(), &[".#ci.x86_64-linux.publish"], &tree);
    assert!(
        matches!(&named[0].ended, Some(Ended::Skipped(reason)) if reason.contains("excluded by")),
        "{named:#?}"
    );
    assert_eq!(walk_with(selection, &["."], &tree).len(), 1);
    let found = walk(&["."], &json!({"ci": {"empty": {"unit": null}}}));
    assert!(
        matches!(&found[..], [(path, Some(Ended::NotEvaluated(error)))] if path == "ci.empty" && error.contains("findWork"))
    );
}

#[test]
fn outputs_that_do_not_exist_are_named() {
    let tree = json!({"packages": {"x86_64-linux": {"a": "drv"}}});
    let found = walk(&[".#a^dev"], &tree);
    let Some(Ended::NotEvaluated(error)) = &found[0].1 else { panic!("{found:?}") };
    assert!(error.contains("no output `dev`") && error.contains("out"), "{error}");
    assert!(walk(&[".#a^out"], &tree)[0].1.is_none());
}

#[test]
fn a_set_that_holds_itself_ends() {
    let mut tree = json!("drv");
    for _ in 0..80 {
        tree = json!({ "self": tree });
    }
    let found = walk(&["."], &json!({ "hydraJobs": tree }));
    assert!(
        matches!(&found[..], [(_, Some(Ended::NotEvaluated(error)))] if error.contains("more than 64 levels deep"))
    );
}

#[test]
fn a_set_that_asks_not_to_be_entered_is_not() {
    let tree = json!({"hydraJobs": {"no": {"recurseForDerivations": false, "a": "drv"}, "b": "drv"}});
    assert_eq!(paths(&["."], &tree), ["hydraJobs.b"]);
}

#[test]
fn exclude_prunes_before_evaluation_and_skips_what_is_named() {
    let systems = ["x86_64-linux".to_owned()];
    let selection = || Selection::new(&[], &["packages.*.bad".to_owned()], &systems).unwrap();
    let tree = json!({"packages": {"x86_64-linux": {"bad": "throw", "good": "drv"}}});
    let found = walk_with(selection(), &["."], &tree);
    assert_eq!(found.len(), 1);
    let tree = json!({"packages": {"x86_64-linux": {"bad": "drv"}}});
    let found = walk_with(selection(), &[".#bad"], &tree);
    assert!(matches!(&found[0].ended, Some(Ended::Skipped(reason)) if reason.contains("packages.*.bad")));
}

#[test]
fn an_empty_flake_has_no_targets() {
    assert_eq!(walk(&["."], &json!({})), []);
}

#[test]
fn an_answer_that_cannot_be_read_is_an_error_of_its_attribute() {
    let selection = Selection::new(&[], &[], &["x86_64-linux".to_owned()]).unwrap();
    let mut walk = Walk::new(selection, vec![]);
    walk.add(vec![AttrPath(vec!["a".into()])], vec![]);
    let inspect = walk.take_next().unwrap();
    let found = walk.answer(inspect, Ok("{"));
    assert!(matches!(&found[0].ended, Some(Ended::NotEvaluated(_))));
}

#[test]
fn a_pattern_selects_what_it_matches_and_nothing_on_the_way() {
    let tree = json!({"packages": {"x86_64-linux": {"dep": "drv", "top": "drv", "multi": {"dep": "drv", "other": "drv"}}}});
    for (glob, wanted) in [
        ("**.dep", &["packages.x86_64-linux.dep", "packages.x86_64-linux.multi.dep"] as &[_]),
        ("packages.**.dep", &["packages.x86_64-linux.dep", "packages.x86_64-linux.multi.dep"]),
        ("packages.*.multi.*", &["packages.x86_64-linux.multi.dep", "packages.x86_64-linux.multi.other"]),
    ] {
        let selection = Selection::new(&[glob.to_owned()], &[], &["x86_64-linux".to_owned()]).unwrap();
        let mut found: Vec<String> =
            walk_with(selection, &["."], &tree).iter().map(|target| target.path.to_string()).collect();
        found.sort();
        assert_eq!(found, wanted, "{glob}");
    }
}

/// The one error of a walk from the root, and where it is.
fn only_error(tree: &Value) -> (String, String) {
    let found = walk(&["."], tree);
    match &found[..] {
        [(path, Some(Ended::NotEvaluated(error)))] => (path.clone(), error.clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_no_set_where_targets_are_is_not_evaluated() {
    for (tree, place, what) in [
        (json!({"checks": 5}), "checks", "it is an integer, where `checks.x86_64-linux.*` needs a set"),
        (
            json!({"packages": "drv"}),
            "packages",
            "it is a derivation, where `packages.x86_64-linux.*` needs a set",
        ),
        (json!({"devShells": {"x86_64-linux": "x"}}), "devShells.x86_64-linux", "it is a string, where"),
        (json!({"hydraJobs": {"x": 3}}), "hydraJobs.x", "it is an integer, not a derivation"),
        (
            json!({"ci": {"x86_64-linux": {"w": "x"}}}),
            "ci.x86_64-linux.w",
            "it is a string, not a derivation",
        ),
        (
            json!({"nixosConfigurations": {"bad": {}}}),
            "nixosConfigurations.bad",
            "it has no attribute `config`",
        ),
        (
            json!({"nixosConfigurations": {"bad": {"config": {}}}}),
            "nixosConfigurations.bad.config",
            "it has no attribute `system`",
        ),
        (json!({"homeConfigurations": {"h": "x"}}), "homeConfigurations.h", "it is a string, where"),
        (
            json!({"darwinConfigurations": {"d": {"system": 1}}}),
            "darwinConfigurations.d.system",
            "it is an integer",
        ),
    ] {
        let (path, error) = only_error(&tree);
        assert_eq!(path, place);
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn a_flake_s_other_parts_are_no_targets_of_a_pattern() {
    let selection = Selection::new(&["**".to_owned()], &[], &["x86_64-linux".to_owned()]).unwrap();
    let tree = json!({
        "packages": {"x86_64-linux": {"a": "drv", "recurseForDerivations": true}},
        "outputs": {"packages": {"x86_64-linux": {"a": "drv"}}},
        "inputs": {"other": {"packages": {"x86_64-linux": {"b": "drv"}}}},
        "overlay": "text",
        "lastModified": 0,
    });
    let mut walk = Walk::new(selection, vec![]).of_flake();
    walk.add(vec![AttrPath::default()], vec![]);
    let mut found = Vec::new();
    while let Some(inspect) = walk.take_next() {
        let json = look(&tree, &inspect);
        found.extend(walk.answer(inspect, json.as_ref().map(String::as_str).map_err(Clone::clone)));
    }
    let found: Vec<String> = found.iter().map(|target| target.path.to_string()).collect();
    assert_eq!(found, ["packages.x86_64-linux.a"]);
}

#[test]
fn a_star_passes_by_what_says_how_to_look_through_a_set() {
    let selection = Selection::of_file(&["tools.*".to_owned()], &[], &["x86_64-linux".to_owned()]).unwrap();
    let tree = json!({"tools": {"recurseForDerivations": true, "a": "drv"}});
    let found = walk_with(selection, &[".#."], &tree);
    assert!(matches!(&found[..], [FoundTarget { ended: None, .. }]), "{found:?}");
}

#[test]
fn patterns_and_systems_that_lead_to_nothing_are_no_success() {
    let systems = ["x86_64-linux".to_owned()];
    let tree = json!({"packages": {"x86_64-linux": {"a": "drv"}}});
    let error = |selection, asked: &str| {
        let found = walk_with(selection, &[asked], &tree);
        match &found[..] {
            [FoundTarget { ended: Some(Ended::NotEvaluated(error)), .. }] => error.clone(),
            other => panic!("{other:?}"),
        }
    };
    let patterns = ["**.nosuch".to_owned(), "checks.{system}.*".to_owned()];
    let narrowed = || Selection::new(&patterns, &[], &systems).unwrap();
    assert_eq!(error(narrowed(), "."), "no attribute matches `**.nosuch` or `checks.{system}.*`");
    assert_eq!(
        error(narrowed(), ".#packages"),
        "nothing in this set matches `**.nosuch` or `checks.{system}.*`"
    );
    let other = Selection::new(&[], &[], &["riscv64-linux".to_owned()]).unwrap().with_systems_asked();
    assert_eq!(error(other, "."), "there is no target for riscv64-linux");
}

#[test]
fn patterns_are_heeded_below_a_set_that_is_named() {
    let selection =
        Selection::new(&["**.a".to_owned(), "**.zzz".to_owned()], &[], &["x86_64-linux".to_owned()]).unwrap();
    let tree = json!({"packages": {"x86_64-linux": {"a": "drv", "b": "drv"}}});
    let mut walk = Walk::new(selection, vec![]);
    walk.add(vec![AttrPath::parse("packages").unwrap()], vec![]);
    let mut found = Vec::new();
    while let Some(inspect) = walk.take_next() {
        let json = look(&tree, &inspect);
        found.extend(walk.answer(inspect, json.as_ref().map(String::as_str).map_err(Clone::clone)));
    }
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].path.to_string(), "packages.x86_64-linux.a");
    assert_eq!(walk.idle_patterns(), ["**.zzz"]);
}

#[test]
fn near_names_are_slips_or_go_on() {
    let names = ["p1", "hello-world", "narHash", "heavy-1", "packages"].map(str::to_owned);
    for (wanted, expected) in [
        ("pp1", &["`p1`"][..]),
        ("helo-world", &["`hello-world`"]),
        ("hello", &["`hello-world`"]),
        ("pakcages", &["`packages`"]),
        ("a", &[]),
        ("x", &[]),
    ] {
        assert_eq!(nearest(wanted, &names), expected, "{wanted}");
    }
}

/// A flake whose `hydraJobs` holds `loop`, which holds itself under three names, in the hands of so many
/// workers.
fn endless(workers: usize) -> (Vec<String>, usize) {
    let selection = Selection::new(&[], &[], &["x86_64-linux".to_owned()]).unwrap();
    let mut walk = Walk::new(selection, vec![]);
    walk.add(vec![AttrPath::default()], vec![]);
    let look = |inspect: &Inspect| {
        let names = inspect.path.names();
        let set = |names: &[&str]| json!({"kind": "set", "names": names, "recurse": null}).to_string();
        match names.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] => set(&["hydraJobs"]),
            ["hydraJobs"] => set(&["a", "loop", "z"]),
            ["hydraJobs", "a" | "z"] | ["hydraJobs", "loop", .., "drv"] => {
                let path = format!("/nix/store/{}-x", "0".repeat(32));
                json!({"kind": "derivation", "name": "x", "system": "x86_64-linux",
                    "drvPath": format!("{path}.drv"), "outputs": {"out": path}})
                .to_string()
            }
            _ => set(&["x", "y", "z", "drv"]),
        }
    };
    let (mut found, mut steps, mut in_work) = (Vec::new(), 0, Vec::new());
    loop {
        while in_work.len() < workers
            && let Some(inspect) = walk.take_next()
        {
            in_work.push(inspect);
        }
        if in_work.is_empty() {
            break;
        }
        // The one that was asked last answers first, now and then.
        let inspect = in_work.remove(if steps % 3 == 0 { in_work.len() - 1 } else { 0 });
        steps += 1;
        let json = look(&inspect);
        found.extend(walk.answer(inspect, Ok(&json)));
    }
    let errors = found.iter().filter(|target| target.ended.is_some()).count();
    assert_eq!(errors, 1);
    (found.iter().map(|target| target.path.to_string()).collect(), steps)
}

#[test]
fn a_set_that_holds_itself_costs_itself_alone() {
    for workers in [1, 2, 5] {
        let (found, steps) = endless(workers);
        assert!(steps < 500, "{steps} steps with {workers} workers");
        for expected in ["hydraJobs.a", "hydraJobs.z", "hydraJobs.loop", "hydraJobs.loop.drv"] {
            assert!(found.iter().any(|path| path == expected), "{expected} with {workers}: {found:?}");
        }
    }
}

#[test]
fn the_flake_s_own_patterns_do_not_bind_who_names_a_set() {
    let tree =
        json!({"jobs": {"good": "drv", "other": "drv"}, "more": {"x86_64-linux": {"a": "drv", "b": "drv"}}});
    let own = |include: &str, exclude: &[String]| {
        Selection::new(&[include.to_owned()], exclude, &["x86_64-linux".to_owned()]).unwrap().of_the_flake()
    };
    let names = |selection, asked: &str| -> Vec<(String, Option<Ended>)> {
        let found = walk_with(selection, &[asked], &tree);
        found.into_iter().map(|found| (found.path.to_string(), found.ended)).collect()
    };
    assert_eq!(names(own("jobs.good", &[]), "."), [("jobs.good".to_owned(), None)]);
    assert_eq!(names(own("jobs.good", &[]), ".#jobs"), [("jobs.good".to_owned(), None)]);
    assert_eq!(
        names(own("jobs.good", &[]), ".#more"),
        [("more.x86_64-linux.a".to_owned(), None), ("more.x86_64-linux.b".to_owned(), None)]
    );
    let all_excluded = names(own("jobs.good", &["more.**".to_owned()]), ".#more");
    assert!(
        matches!(&all_excluded[..], [(path, Some(Ended::NotEvaluated(error)))]
            if path == "more" && error.contains("excluded by `more.**`")),
        "{all_excluded:?}"
    );
}
