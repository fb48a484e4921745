use super::*;
use phoenix_model::{Output, OutputKind};

pub(crate) fn path(name: &str) -> StorePath {
    let digit = name.as_bytes().first().copied().map_or('0', char::from);
    let digit = if "0123456789abcdfghijklmnpqrsvwxyz".contains(digit) { digit } else { '0' };
    StorePath::parse(&format!("/nix/store/{}-{name}", digit.to_string().repeat(32))).unwrap()
}

fn drv(name: &str) -> StorePath {
    path(&format!("{name}.drv"))
}

/// A derivation with the outputs `dev` and `out`, as its file says it.
fn derivation(name: &str, inputs: &[(&str, &str)]) -> Derivation {
    let inputs: Vec<String> =
        inputs.iter().map(|(name, output)| format!(r#"("{}",["{output}"])"#, drv(name))).collect();
    let outputs =
        format!(r#"("dev","{}","",""),("out","{}","","")"#, path(&format!("{name}-dev")), path(name));
    let text = format!(r#"Derive([{outputs}],[{}],[],"x86_64-linux","/bin/sh",[],[])"#, inputs.join(","));
    Derivation::parse(text.as_bytes()).unwrap()
}

/// Drives a search over `graph` where `present` exists; returns the plan and what was asked.
fn search(
    goals: &[&str],
    graph: &[(&str, &[(&str, &str)])],
    present: &[(StorePath, Source)],
) -> (Plan, Vec<StorePath>, Vec<StorePath>) {
    let mut search = Search::default();
    for goal in goals {
        search.add_goal(&drv(goal), &["out".to_owned()]);
    }
    let (mut asked, mut reads) = (Vec::new(), Vec::new());
    loop {
        let to_read = search.to_read();
        let to_ask = search.to_ask();
        if to_read.is_empty() && to_ask.is_empty() {
            break;
        }
        for path in to_read {
            let found = graph.iter().find(|(name, _)| drv(name) == path);
            search.read(
                &path,
                found.map(|(name, inputs)| derivation(name, inputs)).ok_or_else(|| "gone".to_owned()),
            );
            reads.push(path);
        }
        for question in to_ask {
            let status = present
                .iter()
                .find(|(path, _)| *path == question.path)
                .map_or(Status::Absent, |(_, source)| Status::Present(source.clone()));
            search.answer(&question.path, &status);
            asked.push(question.path);
        }
    }
    (search.into_plan(&Estimates::default()), asked, reads)
}

const CHAIN: &[(&str, &[(&str, &str)])] = &[("a", &[("b", "out")]), ("b", &[("c", "dev")]), ("c", &[])];

#[test]
fn what_is_present_hides_everything_below_it() {
    let (plan, asked, reads) = search(&["a"], CHAIN, &[(path("b"), Source::Store)]);
    assert_eq!(plan.steps.iter().map(|step| step.drv_path.clone()).collect::<Vec<_>>(), [drv("a")]);
    assert_eq!(asked, [path("a"), path("b")]);
    assert_eq!(reads, [drv("a"), drv("b")]);
}

#[test]
fn only_the_outputs_that_are_needed_are_asked_for() {
    let (plan, asked, _) = search(&["a"], CHAIN, &[]);
    assert_eq!(asked, [path("a"), path("b"), path("c-dev")]);
    let names: Vec<_> = plan.steps.iter().map(|step| step.drv_path.human_name().to_owned()).collect();
    assert_eq!(names, ["c", "b", "a"], "inputs first");
    assert_eq!(plan.steps[2].inputs, [1]);
}

#[test]
fn a_present_goal_has_no_step_and_says_where_it_is() {
    let from = Source::Substituter("https://cache".into());
    let (plan, ..) = search(&["a"], CHAIN, &[(path("a"), from.clone())]);
    assert!(plan.steps.is_empty());
    assert_eq!(plan.goals[0].step, None);
    assert_eq!(plan.found[&drv("a")], from);
    assert!(plan.fetched.is_empty(), "a cached target is not fetched");
}

#[test]
fn what_a_build_needs_from_a_substituter_is_fetched() {
    let from = Source::Substituter("https://cache".into());
    let (plan, ..) = search(&["a"], CHAIN, &[(path("b"), from.clone())]);
    assert_eq!(plan.fetched, [(path("b"), from)]);
}

#[test]
fn a_shared_derivation_stands_once() {
    let graph: &[(&str, &[(&str, &str)])] =
        &[("a", &[("c", "out")]), ("b", &[("c", "out"), ("c", "dev")]), ("c", &[])];
    let (plan, asked, reads) = search(&["a", "b"], graph, &[]);
    assert_eq!(plan.steps.len(), 3);
    assert_eq!(asked.len(), 4);
    assert_eq!(reads.len(), 3);
}

#[test]
fn two_derivations_may_make_the_same_path_and_it_is_asked_for_once() {
    // The same download written in two ways, both needed.
    let same = |name: &str| Derivation {
        outputs: vec![Output { name: "out".into(), path: Some(path("same")), kind: OutputKind::Fixed }],
        ..derivation(name, &[])
    };
    for late in [false, true] {
        let mut search = Search::default();
        search.add_goal(&drv("a"), &[]);
        search.add_goal(&drv("b"), &[]);
        search.to_read();
        search.read(&drv("a"), Ok(same("a")));
        let mut questions = search.to_ask();
        if late {
            search.answer(&path("same"), &Status::Absent);
        }
        search.read(&drv("b"), Ok(same("b")));
        questions.extend(search.to_ask());
        assert_eq!(questions.len(), 1);
        if !late {
            search.answer(&path("same"), &Status::Absent);
        }
        let plan = search.into_plan(&Estimates::default());
        assert_eq!(plan.steps.len(), 2);
        assert!(plan.steps.iter().all(|step| !step.unknown));
    }
}

#[test]
fn a_derivation_that_cannot_be_read_is_a_step_that_says_so() {
    let (plan, ..) = search(&["a"], &[("a", &[("gone", "out")])], &[]);
    assert!(plan.steps[0].hopeless.as_ref().unwrap().message.ends_with(": gone"));
    assert_eq!(plan.steps[1].inputs, [0]);
}

#[test]
fn an_unanswered_question_is_built_for_safety() {
    let mut search = Search::default();
    search.add_goal(&drv("c"), &[]);
    search.to_read();
    search.read(&drv("c"), Ok(derivation("c", &[])));
    assert_eq!(search.to_ask().len(), 2, "all outputs");
    let plan = search.into_plan(&Estimates::default());
    assert!(plan.steps[0].unknown);
}

#[test]
fn an_output_without_a_path_is_built() {
    let mut search = Search::default();
    search.add_goal(&drv("c"), &[]);
    search.to_read();
    let mut floating = derivation("c", &[("b", "out")]);
    for output in &mut floating.outputs {
        output.path = None;
        output.kind = OutputKind::Floating;
    }
    search.read(&drv("c"), Ok(floating));
    assert_eq!(search.to_read(), [drv("b")]);
    assert!(search.to_ask().is_empty());
}

#[test]
fn an_input_nix_would_not_substitute_is_only_looked_for_here() {
    let mut search = Search::default();
    search.add_goal(&drv("a"), &["out".to_owned()]);
    search.to_read();
    search.read(&drv("a"), Ok(derivation("a", &[("b", "out")])));
    assert!(!search.to_ask()[0].store_only);
    search.answer(&path("a"), &Status::Absent);
    search.to_read();
    search.read(&drv("b"), Ok(Derivation { allow_substitutes: false, ..derivation("b", &[]) }));
    assert!(search.to_ask()[0].store_only);
}
