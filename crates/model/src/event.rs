//! What happens in a run. Reports are made from events and nothing else.

use serde::{Deserialize, Serialize};

use crate::{Action, ActionId, ActionVerdict, Does, Secrets, Source, StorePath, Target, TargetId, Verdict};

/// The version of the event stream and of the JSON report; raised when a reader of the old one would
/// misunderstand the new one.
pub const SCHEMA_VERSION: u32 = 1;

/// A point in time: milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
pub struct Stamp(pub u64);

impl Stamp {
    /// The seconds from an earlier point to this one; 0 when it is not earlier.
    #[must_use]
    pub fn seconds_since(self, earlier: Self) -> f64 {
        std::time::Duration::from_millis(self.0.saturating_sub(earlier.0)).as_secs_f64()
    }

    /// The point so many seconds after this one.
    #[must_use]
    pub fn after_seconds(self, seconds: f64) -> Self {
        let later = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default().as_millis();
        Self(self.0.saturating_add(u64::try_from(later).unwrap_or(0)))
    }

    /// The point so many seconds before this one.
    #[must_use]
    pub fn before_seconds(self, seconds: f64) -> Self {
        let earlier = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default().as_millis();
        Self(self.0.saturating_sub(u64::try_from(earlier).unwrap_or(0)))
    }
}

/// An event with its time: one line of an events file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Logged {
    /// When it happened.
    pub at: Stamp,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Event {
    /// A run began. Always the first event.
    RunStarted {
        /// [`SCHEMA_VERSION`] of the writer.
        schema: u32,
        /// The version of phoenix.
        phoenix: String,
        /// The version of Nix, such as `2.26.3`.
        nix: String,
        /// The systems that are built for.
        systems: Vec<String>,
        /// What was asked for, as the user wrote it.
        installables: Vec<String>,
    },
    /// A stage of the pipeline began; the one before it is over.
    StageStarted {
        /// Which.
        stage: Stage,
    },
    /// The evaluator turned to an attribute.
    Evaluating {
        /// The attribute path.
        attr: String,
        /// How many attributes are known to be left after it.
        left: u64,
    },
    /// How far the evaluation is.
    EvaluationProgress {
        /// How many attributes were looked at.
        done: u64,
        /// How many of them did not evaluate.
        failed: u64,
        /// How many are looked at now.
        in_work: u64,
        /// How many are known to be left.
        left: u64,
        /// How many bytes of memory the evaluators have.
        memory: u64,
        /// How many they may have.
        budget: u64,
    },
    /// A target was found.
    TargetFound {
        /// The target. What is not known of one that did not evaluate is left out.
        target: Target,
    },
    /// A substituter does not answer as it should; its answers are unknown from here on. At most once a
    /// substituter.
    SubstituterFailed {
        /// Its URL without credentials.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// What is to be done is known.
    Planned {
        /// What will be built, inputs before what needs them.
        derivations: Vec<PlannedDerivation>,
        /// The targets that are built for.
        targets: Vec<PlannedTarget>,
        /// What will be fetched because a build needs it.
        fetched: Vec<(StorePath, Source)>,
        /// Seconds that earlier runs took for what is cached now, where that is known.
        saved_seconds: f64,
    },
    /// Nix began to build a derivation.
    BuildStarted {
        /// Which.
        drv_path: StorePath,
        /// The remote builder it runs on; empty for this machine.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        machine: String,
    },
    /// A build turned to another phase.
    PhaseStarted {
        /// Which derivation.
        drv_path: StorePath,
        /// The phase, such as `buildPhase`.
        phase: String,
    },
    /// A build printed a line.
    LogLine {
        /// Which derivation.
        drv_path: StorePath,
        /// The line, without its end.
        line: String,
    },
    /// The builder of a derivation has ended; how, Nix tells later. What ended well is settled without this.
    BuildEnded {
        /// Which derivation.
        drv_path: StorePath,
    },
    /// Nix began to fetch a path instead of building it.
    FetchStarted {
        /// What.
        path: StorePath,
        /// From where, as Nix names it.
        from: String,
    },
    /// A derivation of the plan came to its end. Exactly once each.
    DerivationSettled {
        /// How.
        #[serde(flatten)]
        settled: SettledDerivation,
    },
    /// A target came to its end. Exactly once each.
    TargetSettled {
        /// Which.
        target: TargetId,
        /// How.
        #[serde(flatten)]
        verdict: Verdict,
    },
    /// An action was found.
    ActionFound {
        /// The action.
        action: Action,
    },
    /// An action began to run.
    ActionStarted {
        /// Which.
        action: ActionId,
    },
    /// An action printed a line.
    ActionLine {
        /// Which.
        action: ActionId,
        /// The line, without its end.
        line: String,
    },
    /// An action came to its end. Exactly once each.
    ActionSettled {
        /// Which.
        action: ActionId,
        /// How.
        #[serde(flatten)]
        verdict: ActionVerdict,
        /// How long it ran, in seconds; absent when it was not started.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds: Option<f64>,
        /// The file with everything it printed; absent when it printed nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        log: Option<String>,
    },
    /// Something people should read that is no build's log.
    Message {
        /// How much it matters.
        severity: Severity,
        /// What, on one line or more.
        text: String,
    },
    /// The run is being stopped.
    Cancelling {
        /// Why: a signal's name.
        reason: String,
    },
    /// The run is over. Always the last event.
    RunEnded {
        /// The exit code of the process.
        exit_code: u8,
        /// Where the logs and reports of this run are.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        directory: Option<String>,
    },
}

impl Event {
    /// Leaves the credentials of URLs out (see [`redact`](crate::redact())). What a builder prints stays as
    /// it is: only its author knows what is a secret there.
    pub fn redact(&mut self) {
        self.each_text(redact_text);
        match self {
            Self::ActionFound { action } => redact_text(&mut action.name),
            Self::ActionSettled { verdict: ActionVerdict::Blocked { by }, .. } => {
                by.iter_mut().for_each(redact_text);
            }
            _ => {}
        }
    }

    /// Takes secrets out of the texts that people wrote or programs printed.
    ///
    /// What says which thing is meant stays as it is: store paths, attributes, names of actions, systems. A reader could
    /// not tell things apart without, and a value that is in one of them is no secret: whoever sees the path sees it.
    pub fn hide(&mut self, secrets: &Secrets) {
        self.each_text(|text| secrets.hide_in(text));
        match self {
            Self::LogLine { line, .. } | Self::ActionLine { line, .. } => secrets.hide_in(line),
            Self::ActionFound { action: Action { does: Does::Source { script, env }, .. } } => {
                secrets.hide_in(script);
                env.values_mut().for_each(|value| secrets.hide_in(value));
            }
            _ => {}
        }
    }

    /// Goes through the texts that are nobody's name, but for what is printed.
    fn each_text(&mut self, mut visit: impl FnMut(&mut String)) {
        match self {
            Self::RunStarted { installables, .. } => installables.iter_mut().for_each(visit),
            Self::TargetFound { target } => visit(&mut target.source),
            Self::SubstituterFailed { url, problem } => {
                visit(url);
                visit(problem);
            }
            Self::DerivationSettled { settled: SettledDerivation { verdict, .. } }
            | Self::TargetSettled { verdict, .. } => match verdict {
                Verdict::Failed { message: text, .. }
                | Verdict::NotEvaluated { error: text }
                | Verdict::Skipped { reason: text } => visit(text),
                Verdict::Cached { from: Source::Substituter(url) } => visit(url),
                Verdict::Built | Verdict::Cached { .. } | Verdict::Blocked { .. } | Verdict::Cancelled => {}
            },
            Self::Planned { fetched, .. } => {
                for (_, from) in fetched {
                    if let Source::Substituter(url) = from {
                        visit(url);
                    }
                }
            }
            Self::ActionFound { action: Action { does: Does::Push { to: text }, .. } }
            | Self::ActionSettled {
                verdict: ActionVerdict::Failed { message: text } | ActionVerdict::Skipped { reason: text },
                ..
            }
            | Self::FetchStarted { from: text, .. }
            | Self::BuildStarted { machine: text, .. }
            | Self::PhaseStarted { phase: text, .. }
            | Self::Message { text, .. }
            | Self::Cancelling { reason: text } => visit(text),
            Self::StageStarted { .. }
            | Self::Evaluating { .. }
            | Self::EvaluationProgress { .. }
            | Self::BuildEnded { .. }
            | Self::LogLine { .. }
            | Self::ActionFound { .. }
            | Self::ActionStarted { .. }
            | Self::ActionLine { .. }
            | Self::ActionSettled { .. }
            | Self::RunEnded { .. } => {}
        }
    }
}

fn redact_text(text: &mut String) {
    if let std::borrow::Cow::Owned(shown) = crate::redact(text) {
        *text = shown;
    }
}

/// The stages of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// From installables to targets.
    Evaluate,
    /// Gates say which targets have work.
    Gate,
    /// From targets to what is missing.
    Plan,
    /// Nix builds.
    Build,
    /// What needs builds runs.
    Act,
}

/// How much a message matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// The run is red because of it.
    Error,
    /// It may surprise.
    Warning,
    /// Said in passing.
    Notice,
    /// Only for those who asked for more (`-v`).
    Detail,
}

/// A derivation that will be built.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedDerivation {
    /// Its path.
    pub drv_path: StorePath,
    /// The system it is built on.
    pub system: String,
    /// Positions in the same list of what has to be built before it.
    pub inputs: Vec<u32>,
    /// How long it is expected to take, in seconds.
    pub estimate: f64,
    /// Whether it is built for safety, because a substituter that might have it did not answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unknown: bool,
    /// Whether its only output is fixed by a hash: a download, whose end depends on the network.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fixed_output: bool,
}

/// A target that something has to be built for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedTarget {
    /// Which.
    pub target: TargetId,
    /// The position of its derivation in the plan.
    pub derivation: u32,
}

/// How a derivation of the plan ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SettledDerivation {
    /// Which.
    pub drv_path: StorePath,
    /// How.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// How long its builder ran; absent when it was not started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// The file with everything its builder printed; absent when it printed nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_of_json_and_comes_back() {
        let drv_path = StorePath::parse("/nix/store/kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-a.drv").unwrap();
        let settled = SettledDerivation { drv_path, verdict: Verdict::Built, seconds: Some(1.5), log: None };
        let logged = Logged { at: Stamp(1234), event: Event::DerivationSettled { settled } };
        let line = serde_json::to_string(&logged).unwrap();
        assert_eq!(
            line,
            r#"{"at":1234,"event":"derivationSettled","drvPath":"/nix/store/kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-a.drv","verdict":"built","seconds":1.5}"#
        );
        assert_eq!(serde_json::from_str::<Logged>(&line).unwrap(), logged);
    }

    #[test]
    fn seconds_never_go_below_zero() {
        assert!((Stamp(2500).seconds_since(Stamp(1000)) - 1.5).abs() < 1e-9);
        assert!(Stamp(1000).seconds_since(Stamp(2500)).abs() < 1e-9);
    }

    #[test]
    fn credentials_do_not_get_into_events() {
        let text = || "git+https://u:s3cret@host/x".to_owned();
        let verdict = || Verdict::NotEvaluated { error: text() };
        for mut event in [
            Event::Message { severity: Severity::Error, text: text() },
            Event::SubstituterFailed { url: text(), problem: text() },
            Event::TargetSettled { target: TargetId(0), verdict: verdict() },
            Event::RunStarted {
                schema: 1,
                phoenix: String::new(),
                nix: String::new(),
                systems: Vec::new(),
                installables: vec![text()],
            },
        ] {
            event.redact();
            let json = serde_json::to_string(&event).unwrap();
            assert!(json.contains("u:***@host") && !json.contains("s3cret"), "{json}");
        }
    }

    #[test]
    fn a_secret_is_hidden_in_what_is_told_and_in_no_name() {
        // As what others may call a setting: part of a derivation's name, an attribute, a word of the format, an address.
        let secrets = Secrets::among([
            ("A_TOKEN", "production"),
            ("B_TOKEN", "derivationSettled"),
            ("C_TOKEN", "x86_64-linux"),
            ("D_TOKEN", "kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv"),
            ("E_TOKEN", "my-project"),
        ]);
        let drv_path =
            StorePath::parse("/nix/store/kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-production.drv").unwrap();
        let action = |to: &str| Action {
            id: ActionId(0),
            name: "deploy to production".to_owned(),
            of: None,
            does: Does::Push { to: to.to_owned() },
            system: Some("x86_64-linux".to_owned()),
            builds: Vec::new(),
            needs: Vec::new(),
            paths: vec![drv_path.clone()],
            time_out: 1,
        };
        let failed = |message: &str| Event::DerivationSettled {
            settled: SettledDerivation {
                drv_path: drv_path.clone(),
                verdict: Verdict::Failed { class: crate::FailureClass::Build, message: message.to_owned() },
                seconds: None,
                log: Some("logs/production.drv.log".to_owned()),
            },
        };
        let target = |source: &str| Target {
            id: TargetId(0),
            source: source.to_owned(),
            attr_path: crate::AttrPath::parse("checks.x86_64-linux.production").unwrap(),
            kind: crate::TargetKind::Derivation,
            name: Some("production".to_owned()),
            system: Some("x86_64-linux".to_owned()),
            drv_path: Some(drv_path.clone()),
            outputs: [("my-project".to_owned(), Some(drv_path.clone()))].into(),
            wanted: vec!["production".to_owned()],
        };
        let line = |line: &str| Event::LogLine { drv_path: drv_path.clone(), line: line.to_owned() };
        let blocked = Verdict::Blocked { by: vec![drv_path.clone()] };
        for (mut event, expected) in [
            (
                Event::TargetSettled {
                    target: TargetId(0),
                    verdict: Verdict::Cached { from: Source::Substituter("https://c/my-project".to_owned()) },
                },
                Event::TargetSettled {
                    target: TargetId(0),
                    verdict: Verdict::Cached { from: Source::Substituter("https://c/***".to_owned()) },
                },
            ),
            (failed("no production for my-project"), failed("no *** for ***")),
            (
                Event::TargetFound { target: target("my-project") },
                Event::TargetFound { target: target("***") },
            ),
            (line("production"), line("***")),
            (
                Event::ActionFound { action: action("my-project") },
                Event::ActionFound { action: action("***") },
            ),
            (
                Event::TargetSettled { target: TargetId(0), verdict: blocked.clone() },
                Event::TargetSettled { target: TargetId(0), verdict: blocked },
            ),
        ] {
            event.hide(&secrets);
            assert_eq!(event, expected);
        }
    }
}
