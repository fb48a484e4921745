//! `phoenix plan`: what `run` would do.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::process::ExitCode;

use phoenix_model::{ActionVerdict, Severity, StorePath, Verdict, VerdictKind};
use phoenix_report::{Summary, TargetState, clean, human_seconds, plural};
use serde::Serialize;

use crate::args::{FarmArgs, Matrix, NixArgs, PlanArgs, TalkArgs};
use crate::error::{CommandError, EXIT_ERROR};
use crate::farm::{self, Besides};
use crate::gates::Permission;
use crate::pipeline::{self, Farm, Planned, Purpose};
use crate::talk;

/// The plan as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonPlan<'a> {
    schema: u32,
    /// Expected seconds of the longest chain: no number of builders is faster.
    critical_seconds: f64,
    /// Expected seconds of everything, one after another.
    total_seconds: f64,
    /// What would be built, the most urgent first.
    build: Vec<JsonBuild<'a>>,
    /// What a build needs that would be fetched.
    fetch: Vec<JsonFetch<'a>>,
    targets: Vec<JsonTarget<'a>>,
    /// What would run after builds.
    actions: Vec<JsonAction<'a>>,
    /// What is planned for several runners.
    #[serde(flatten)]
    farm: serde_json::Map<String, serde_json::Value>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonBuild<'a> {
    drv_path: &'a StorePath,
    system: &'a str,
    /// What has to be built before it.
    inputs: Vec<&'a StorePath>,
    estimated_seconds: f64,
    /// Built for safety: a substituter that might have it did not answer.
    unknown: bool,
}

#[derive(Debug, Serialize)]
struct JsonFetch<'a> {
    path: &'a StorePath,
    from: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonTarget<'a> {
    attr: String,
    drv_path: Option<&'a StorePath>,
    /// What would become of it: `build`, `cached`, `skipped`, `notEvaluated`, `failed`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonAction<'a> {
    name: &'a str,
    /// What would become of it: `run`, or its verdict where it has one.
    status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Runs the verb.
pub(crate) fn plan(args: &PlanArgs) -> Result<ExitCode, CommandError> {
    let is_farm = args.farm.runners.is_some() || args.farm.simulate;
    let by_gates = matches!(args.farm.matrix, Some(Matrix::V1 | Matrix::Std));
    // Flakes of phoenix-ci v1 may read the environment and files: it evaluated with `--impure`.
    let impure = args.nix.impure || args.farm.matrix == Some(Matrix::V1);
    let nix = NixArgs { impure, ..args.nix.clone() };
    let purpose = Purpose {
        permission: Permission::of(args.build.actions, by_gates),
        farm: is_farm.then_some(&farm::for_runners),
        ships: args.farm.matrix.is_some(),
    };
    let mut planned = pipeline::plan(&args.wanted, &nix, &args.build, &args.talk, purpose)?;
    let more = match planned.farm.take().filter(|_| planned.trouble.is_none() && !planned.run.is_cancelled())
    {
        Some(farm) => for_runners(&mut planned, farm, &args.farm)?,
        None => More::default(),
    };
    show_with(planned, &args.talk, more)
}

/// What a plan for several runners adds to a page.
#[derive(Debug, Default)]
struct More {
    /// At its end.
    text: String,
    /// Instead of it.
    instead: Option<String>,
    /// Whether that has rows of a matrix.
    has_rows: bool,
    /// In its JSON.
    json: serde_json::Map<String, serde_json::Value>,
}

/// Decides how many runners there are to be, and ships the plan if rows for a matrix are wanted.
fn for_runners(planned: &mut Planned, mut farm: Farm, args: &FarmArgs) -> Result<More, CommandError> {
    farm::tell_of_floating(&farm.plan, &mut planned.recorder);
    let mut more = More::default();
    let mut add = |name: &str, value: serde_json::Value| drop(more.json.insert(name.to_owned(), value));
    if args.simulate {
        let comparison = farm::simulation(&farm.plan, &farm.farm, &farm.kinds, args);
        more.text.push_str(&farm::table(&comparison));
        let json = serde_json::to_value(&comparison);
        add("simulation", json.map_err(|error| CommandError::because("cannot write the plan", &error))?);
    }
    let Some(asked) = args.runners else { return Ok(more) };
    if let Some(format @ (Matrix::V1 | Matrix::Std)) = args.matrix {
        return for_hits(planned, farm, args, format);
    }
    let mut decision = match args.matrix {
        Some(Matrix::Github) => farm::decide_within(&mut farm, asked, args.max_runners),
        _ => farm::decide(&farm.farm, &farm.kinds, asked, args.max_runners),
    };
    let here = &planned.setup.settings.system;
    farm::place_actions(&planned.actions, here, &farm.kinds, &mut decision.counts);
    farm.farm = farm.farm.with_slots(&farm.kinds, &decision.counts);
    let units = farm.farm.count_to_claim();
    let _ = writeln!(
        more.text,
        "\n{} {} for {} {}: about {}",
        decision.runners(),
        plural(decision.runners(), "runner"),
        units,
        plural(units, "unit"),
        human_seconds(decision.makespan_seconds)
    );
    add("runners", decision.runners().into());
    add("units", units.into());
    add("makespanSeconds", decision.makespan_seconds.into());
    if let Some(format) = args.matrix {
        let with_slots = farm.farm.clone();
        more.has_rows = decision.runners() > 0;
        let besides = Besides { actions: planned.actions.all_with_verdicts(), hits: Vec::new() };
        let (reference, _) = farm::ship(planned, farm, besides, args.reference.as_deref())?;
        planned.recorder.say(Severity::Notice, format!("the plan is {reference}"));
        more.instead = Some(format!("{}\n", farm::matrix_rows(&with_slots, &reference, format)));
    }
    Ok(more)
}

/// Ships a plan in which each slot answers for one thing that has work.
fn for_hits(
    planned: &mut Planned,
    mut farm: Farm,
    args: &FarmArgs,
    format: Matrix,
) -> Result<More, CommandError> {
    let is_lost = || planned.recorder.summary().target_counts().contains_key(&VerdictKind::NotEvaluated);
    if format == Matrix::Std && !planned.has_std && !is_lost() {
        // As std-action: who asks for a matrix of them and has none has it wrong.
        let systems = planned.recorder.summary().systems.join(", ");
        return Err(CommandError::new(format!("there is no action of std for {systems}, so that nothing has a row"))
            .hint(
                "`__std.ci.SYSTEM` is empty or not there: a block opts in with `ci.ACTION = true`, as in \
                 (installables \"packages\" {ci.build = true;}); for other flakes there are `--matrix github` and `v1`",
            ));
    }
    let verdict = |id| planned.run.verdict(id);
    let rows = farm::hits(&planned.gated, &planned.targets, &planned.actions, verdict, format);
    if format == Matrix::Std {
        let without = farm::without_row(&planned.gated, &planned.actions);
        let names: Vec<&str> = without.iter().map(|action| action.name.as_str()).collect();
        if !names.is_empty() {
            let text = format!("no row of std runs these actions of phoenix.toml: {}", names.join(", "));
            planned.recorder.say(Severity::Warning, text);
        }
    }
    let (hits, actions) = (farm::of_slots(&rows), planned.actions.all_with_verdicts());
    farm::fit_hits(&mut farm, &hits, &actions);
    let here = &planned.setup.settings.system;
    let able = farm.kinds.for_class(here, &[]).unwrap_or_default();
    let Some(&kind) = able.first() else {
        return Err(CommandError::new(format!("no kind of runner is for {here}, the system of this one"))
            .hint("[[runners]] of phoenix.toml names kinds of runners"));
    };
    let mut counts = vec![0; farm.kinds.kinds().len()];
    counts[kind] = rows.len();
    farm.farm = farm.farm.with_slots(&farm.kinds, &counts);
    let besides = Besides { actions, hits };
    let (reference, _) = farm::ship(planned, farm, besides, args.reference.as_deref())?;
    planned.recorder.say(Severity::Notice, format!("the plan is {reference}"));
    let instead = format!("{}\n", farm::hits_rows(&rows, &reference, format));
    Ok(More { instead: Some(instead), ..More::default() })
}

/// Shows a plan instead of carrying it out.
pub(crate) fn show(planned: Planned, talk: &TalkArgs) -> Result<ExitCode, CommandError> {
    show_with(planned, talk, More::default())
}

fn show_with(mut planned: Planned, talk: &TalkArgs, more: More) -> Result<ExitCode, CommandError> {
    if let Some(trouble) = planned.trouble.take() {
        planned.recorder.finish();
        return Err(trouble);
    }
    if planned.was_stopped() {
        planned.recorder.say(Severity::Error, "stopped before there was a plan");
        return Ok(ExitCode::from(130));
    }
    let urgency = std::mem::take(&mut planned.urgency);
    let expected = planned.expected;
    let lost = planned.recorder.lost_events();
    let summary = planned.recorder.finish();
    let hints = pipeline::hints(&summary);
    let hindered = hindered(&summary);
    if let Some(instead) = &more.instead {
        talk::stdout(instead)?;
    } else if talk.json {
        let json = JsonPlan { farm: more.json, ..json(&summary, &hindered, &urgency, expected) };
        let text = serde_json::to_string_pretty(&json)
            .map_err(|error| CommandError::because("cannot write the plan", &error))?;
        talk::stdout(&format!("{text}\n"))?;
    } else {
        talk::stdout(&format!("{}{}", page(&summary, &hindered, &urgency, expected), more.text))?;
    }
    for hint in hints {
        talk::stderr(&format!("hint: {hint}\n"));
    }
    let is_lost = lost.is_some();
    if let Some(lost) = lost {
        lost.report();
    }
    // What is red in a plan that somebody works on is told by the report, which is red then; what can be built is
    // built before that.
    if more.has_rows && !is_lost {
        return Ok(ExitCode::SUCCESS);
    }
    let any = |test: fn(&Verdict) -> bool| {
        summary.targets.values().filter_map(|state| state.verdict.as_ref()).any(test)
    };
    Ok(if any(|verdict| matches!(verdict, Verdict::NotEvaluated { .. })) {
        ExitCode::from(120)
    } else if any(|verdict| matches!(verdict, Verdict::Failed { .. }))
        || summary.actions.values().any(|state| state.verdict.as_ref().is_some_and(ActionVerdict::is_red))
        || !hindered.is_empty()
        || is_lost
    {
        ExitCode::from(EXIT_ERROR)
    } else {
        ExitCode::SUCCESS
    })
}

/// The derivations that need one that cannot be built, and the first such.
type Hindered<'s> = HashMap<&'s StorePath, &'s StorePath>;

fn hindered(summary: &Summary) -> Hindered<'_> {
    let mut hindered = Hindered::new();
    // What is needed comes before what needs it.
    for state in &summary.derivations {
        let mut inputs = state.planned.inputs.iter().map(|&input| &summary.derivations[input as usize]);
        let by = inputs.find_map(|input| match input.verdict {
            Some(Verdict::Failed { .. }) => Some(&input.planned.drv_path),
            _ => hindered.get(&input.planned.drv_path).copied(),
        });
        hindered.extend(by.map(|by| (&state.planned.drv_path, by)));
    }
    hindered
}

/// What would become of a target, and why.
fn status(state: &TargetState, hindered: &Hindered<'_>) -> (&'static str, Option<String>) {
    let verdict = state.verdict.as_ref();
    let by = state.target.drv_path.as_ref().and_then(|drv_path| hindered.get(drv_path));
    if let (None, Some(by)) = (verdict, by) {
        return ("blocked", Some(format!("by {}", by.human_name())));
    }
    match verdict {
        Some(Verdict::Cached { from }) => ("cached", Some(from.to_string())),
        Some(Verdict::Skipped { reason }) => ("skipped", Some(reason.clone())),
        Some(Verdict::NotEvaluated { error }) => ("notEvaluated", Some(error.clone())),
        Some(Verdict::Failed { message, .. }) => ("failed", Some(message.clone())),
        None | Some(Verdict::Built | Verdict::Blocked { .. } | Verdict::Cancelled) => ("build", None),
    }
}

fn json<'a>(
    summary: &'a Summary,
    hindered: &Hindered<'_>,
    urgency: &[u32],
    (critical, total): (f64, f64),
) -> JsonPlan<'a> {
    let at = |position: u32| &summary.derivations[position as usize].planned;
    JsonPlan {
        schema: phoenix_model::SCHEMA_VERSION,
        critical_seconds: critical,
        total_seconds: total,
        build: urgency
            .iter()
            .map(|&position| {
                let planned = at(position);
                JsonBuild {
                    drv_path: &planned.drv_path,
                    system: &planned.system,
                    inputs: planned.inputs.iter().map(|&input| &at(input).drv_path).collect(),
                    estimated_seconds: planned.estimate,
                    unknown: planned.unknown,
                }
            })
            .collect(),
        fetch: summary
            .to_fetch
            .iter()
            .map(|(path, from)| JsonFetch { path, from: from.to_string() })
            .collect(),
        targets: summary
            .in_order()
            .into_iter()
            .map(|state| {
                let (status, reason) = status(state, hindered);
                JsonTarget {
                    attr: state.target.attr(),
                    drv_path: state.target.drv_path.as_ref(),
                    status,
                    reason,
                }
            })
            .collect(),
        actions: summary
            .actions
            .values()
            .map(|state| JsonAction {
                name: &state.action.name,
                status: state.verdict.as_ref().map_or_else(|| "run".to_owned(), ToString::to_string),
                reason: state.verdict.as_ref().map(ActionVerdict::why).filter(|why| !why.is_empty()),
            })
            .collect(),
        farm: serde_json::Map::new(),
    }
}

fn page(
    summary: &Summary,
    hindered: &Hindered<'_>,
    urgency: &[u32],
    (critical, total): (f64, f64),
) -> String {
    let mut page = String::new();
    for state in summary.in_order() {
        let (status, reason) = status(state, hindered);
        let status = if status == "notEvaluated" { "not evaluated" } else { status };
        let reason = reason.and_then(|reason| reason.lines().next().map(str::to_owned)).unwrap_or_default();
        let reason = if status == "cached" { format!("in {reason}") } else { reason };
        let line = format!("{status:<13} {}  {}", clean(&summary.shown(&state.target)), clean(&reason));
        let _ = writeln!(page, "{}", line.trim_end());
    }
    if !urgency.is_empty() {
        page.push_str("\nto build, the most urgent first:\n");
    }
    for &position in urgency {
        let planned = &summary.derivations[position as usize].planned;
        let unknown = if planned.unknown { "  (unknown to a substituter that does not answer)" } else { "" };
        let _ = writeln!(page, "  {:>6} {}{unknown}", human_seconds(planned.estimate), planned.drv_path);
    }
    if !summary.to_fetch.is_empty() {
        page.push_str("\nto fetch for these builds:\n");
    }
    for (path, from) in &summary.to_fetch {
        let _ = writeln!(page, "  {path} from {}", clean(&from.to_string()));
    }
    if urgency.is_empty() {
        page.push_str("\nnothing to build\n");
    } else {
        let _ = writeln!(
            page,
            "\n{} to build: about {} of work, {} on the critical path",
            urgency.len(),
            human_seconds(total),
            human_seconds(critical)
        );
    }
    if !summary.actions.is_empty() {
        page.push_str("\nafter that:\n");
    }
    for state in summary.actions.values() {
        let status = state.verdict.as_ref().map_or_else(|| "run".to_owned(), ToString::to_string);
        let line = format!("  {status:<9} {}  {}", clean(&state.action.name), state.particulars());
        let _ = writeln!(page, "{}", line.trim_end());
    }
    if summary.saved_seconds >= 0.05 {
        let _ = writeln!(
            page,
            "{} of building saved by what exists already",
            human_seconds(summary.saved_seconds)
        );
    }
    page
}
