//! The report as JSON, for machines. Its schema is documented in `docs/report-schema.md`.

use std::collections::BTreeMap;

use phoenix_model::{
    ActionVerdict, FailureClass, SCHEMA_VERSION, Severity, Source, StorePath, Verdict, VerdictKind,
};
use serde::Serialize;

use crate::{ActionState, DerivationState, Summary, TargetState};

/// The report of a run.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JsonReport {
    /// The version of this schema.
    pub schema: u32,
    /// The version of phoenix.
    pub phoenix: String,
    /// The version of Nix.
    pub nix: String,
    /// Milliseconds since 1970, or null.
    pub started_at: Option<u64>,
    /// Milliseconds since 1970; null when the events end before the run does.
    pub ended_at: Option<u64>,
    /// How long the run took.
    pub seconds: f64,
    /// The exit code of the run; null when the events end before it does.
    pub exit_code: Option<u8>,
    /// What was asked for.
    pub installables: Vec<String>,
    /// The systems that were built for.
    pub systems: Vec<String>,
    /// The targets, in the order they were found.
    pub targets: Vec<JsonTarget>,
    /// The derivations that had to be built, inputs before what needs them.
    pub derivations: Vec<JsonDerivation>,
    /// What ran after builds, in its order.
    pub actions: Vec<JsonAction>,
    /// Substituters that did not answer as they should.
    pub substituters_failed: Vec<JsonTrouble>,
    /// Errors and warnings.
    pub messages: Vec<JsonMessage>,
    /// Figures.
    pub summary: JsonSummary,
}

/// A verdict and its particulars.
#[derive(Debug, Clone, Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct JsonVerdict {
    /// Which; null when the run ended without one.
    pub verdict: Option<VerdictKind>,
    /// Why, in words, where there is something to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The class of a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<FailureClass>,
    /// The derivations whose failures are in the way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blocked_by: Vec<StorePath>,
    /// Where it was found: `store`, or the URL of a substituter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached_from: Option<String>,
}

/// A target.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JsonTarget {
    /// The attribute path as people write it.
    pub attr: String,
    /// The same, name by name.
    pub attr_path: Vec<String>,
    /// The installable it comes from.
    pub source: String,
    /// The system it is built on.
    pub system: Option<String>,
    /// The name of its derivation.
    pub name: Option<String>,
    /// Its derivation.
    pub drv_path: Option<StorePath>,
    /// Its outputs; null for a path that is known only after the build.
    pub outputs: BTreeMap<String, Option<StorePath>>,
    /// How it ended.
    #[serde(flatten)]
    pub verdict: JsonVerdict,
    /// How long its own derivation was built, when it was.
    pub seconds: Option<f64>,
}

/// A derivation.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JsonDerivation {
    /// Its path.
    pub drv_path: StorePath,
    /// Its name.
    pub name: String,
    /// The system it is built on.
    pub system: String,
    /// How it ended.
    #[serde(flatten)]
    pub verdict: JsonVerdict,
    /// How long its builder ran.
    pub seconds: Option<f64>,
    /// The file with its log.
    pub log: Option<String>,
    /// The last lines of its log, when it did not end well.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log_tail: Vec<String>,
}

/// An action.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JsonAction {
    /// What it is called.
    pub name: String,
    /// The target that asked for it; null for one of the configuration.
    pub of: Option<String>,
    /// How it ended: `done`, `failed`, `blocked`, `skipped`, `cancelled`; null when the run ended before it did.
    pub verdict: Option<String>,
    /// Why, in words, where there is something to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long it ran.
    pub seconds: Option<f64>,
    /// The file with what it printed.
    pub log: Option<String>,
    /// The last lines of that, when it did not end well.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log_tail: Vec<String>,
}

/// A substituter that did not answer as it should.
#[derive(Debug, Clone, Serialize)]
pub struct JsonTrouble {
    /// Its URL without credentials.
    pub url: String,
    /// What was wrong.
    pub problem: String,
}

/// Something that was said.
#[derive(Debug, Clone, Serialize)]
pub struct JsonMessage {
    /// How much it matters.
    pub severity: Severity,
    /// What.
    pub text: String,
}

/// Figures of a run.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JsonSummary {
    /// How many targets ended in each way; every verdict is there.
    pub targets: BTreeMap<VerdictKind, usize>,
    /// How many derivations ended in each way; every verdict is there.
    pub derivations: BTreeMap<VerdictKind, usize>,
    /// How many targets have no verdict: 0 in a run that is over.
    pub without_verdict: usize,
    /// Seconds that earlier runs took for what was cached.
    pub saved_seconds: f64,
}

/// The report.
#[must_use]
pub fn json(summary: &Summary) -> JsonReport {
    let all = |counts: BTreeMap<VerdictKind, usize>| {
        VerdictKind::ALL.into_iter().map(|kind| (kind, counts.get(&kind).copied().unwrap_or(0))).collect()
    };
    let troubles = summary.substituters_failed.iter();
    JsonReport {
        schema: SCHEMA_VERSION,
        phoenix: summary.phoenix.clone(),
        nix: summary.nix.clone(),
        started_at: summary.started.map(|at| at.0),
        ended_at: summary.exit_code.and(summary.last).map(|at| at.0),
        seconds: summary.seconds(),
        exit_code: summary.exit_code,
        installables: summary.installables.clone(),
        systems: summary.systems.clone(),
        targets: summary.in_order().into_iter().map(|state| target(summary, state)).collect(),
        derivations: summary.derivations.iter().map(derivation).collect(),
        actions: summary.actions.values().map(action).collect(),
        substituters_failed: troubles
            .map(|(url, problem)| JsonTrouble { url: url.clone(), problem: problem.clone() })
            .collect(),
        messages: summary
            .messages
            .iter()
            .map(|(severity, text)| JsonMessage { severity: *severity, text: text.clone() })
            .collect(),
        summary: JsonSummary {
            targets: all(summary.target_counts()),
            derivations: all(summary.derivation_counts()),
            without_verdict: summary.without_verdict(),
            saved_seconds: summary.saved_seconds,
        },
    }
}

fn target(summary: &Summary, state: &TargetState) -> JsonTarget {
    let target = &state.target;
    let built = target.drv_path.as_ref().and_then(|drv_path| summary.of_derivation(drv_path));
    JsonTarget {
        attr: target.attr(),
        attr_path: target.attr_path.names().to_vec(),
        source: target.source.clone(),
        system: target.system.clone(),
        name: target.name.clone(),
        drv_path: target.drv_path.clone(),
        outputs: target.outputs.clone(),
        verdict: verdict(state.verdict.as_ref()),
        seconds: built.and_then(|state| state.seconds),
    }
}

fn derivation(state: &DerivationState) -> JsonDerivation {
    JsonDerivation {
        drv_path: state.planned.drv_path.clone(),
        name: state.planned.drv_path.human_name().to_owned(),
        system: state.planned.system.clone(),
        verdict: verdict(state.verdict.as_ref()),
        seconds: state.seconds,
        log: state.log.clone(),
        log_tail: state.tail.iter().cloned().collect(),
    }
}

fn action(state: &ActionState) -> JsonAction {
    JsonAction {
        name: state.action.name.clone(),
        of: state.action.of.clone(),
        verdict: state.verdict.as_ref().map(ToString::to_string),
        reason: state.verdict.as_ref().map(ActionVerdict::why).filter(|why| !why.is_empty()),
        seconds: state.seconds,
        log: state.log.clone(),
        log_tail: state.tail.iter().cloned().collect(),
    }
}

fn verdict(verdict: Option<&Verdict>) -> JsonVerdict {
    let Some(verdict) = verdict else { return JsonVerdict::default() };
    let mut json = JsonVerdict { verdict: Some(verdict.kind()), ..JsonVerdict::default() };
    match verdict {
        Verdict::Built | Verdict::Cancelled => {}
        Verdict::Cached { from: Source::Store } => json.cached_from = Some("store".to_owned()),
        Verdict::Cached { from: Source::Substituter(url) } => json.cached_from = Some(url.clone()),
        Verdict::Failed { class, message } => {
            json.class = Some(*class);
            json.reason = Some(message.clone());
        }
        Verdict::Blocked { by } => json.blocked_by.clone_from(by),
        Verdict::Skipped { reason } => json.reason = Some(reason.clone()),
        Verdict::NotEvaluated { error } => json.reason = Some(error.clone()),
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    /// The documentation's example is what the code gives for the fixture.
    #[test]
    fn the_documented_example_is_true() {
        let documentation = include_str!("../../../docs/report-schema.md");
        let (_, rest) = documentation.split_once("```json\n").unwrap();
        let (example, _) = rest.split_once("```").unwrap();
        let documented: serde_json::Value = serde_json::from_str(example).unwrap();
        let mut events = fixture::events();
        // Twenty-five lines of log are too many for an example.
        let mut lines = 0;
        events.retain(|logged| {
            let is_line = matches!(logged.event, phoenix_model::Event::LogLine { .. });
            lines += usize::from(is_line);
            !is_line || lines > 29
        });
        let real = serde_json::to_value(json(&fixture::fold(&events))).unwrap();
        assert_eq!(documented, real, "{}", serde_json::to_string_pretty(&real).unwrap());
    }

    #[test]
    fn every_verdict_is_counted_and_they_add_up() {
        let report = json(&fixture::summary());
        assert_eq!(report.summary.targets.len(), VerdictKind::ALL.len());
        assert_eq!(report.summary.targets.values().sum::<usize>(), report.targets.len());
        assert_eq!(report.summary.derivations.values().sum::<usize>(), report.derivations.len());
    }
}
