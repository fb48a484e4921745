//! Plain lines, for a log that is read later: contiguous, greppable, and never silent for long.

use std::collections::HashMap;

use phoenix_model::{
    ActionVerdict, Event, FailureClass, Logged, SettledDerivation, Severity, Stage, Stamp, Verdict,
    VerdictKind,
};

use crate::action_state::kind_of;
use crate::clean::{clean_log, one_line};
use crate::roots::{ALIKE, is_root, plural, reason};
use crate::{ActionState, DerivationState, Style, Summary, clean, human_seconds};

/// After how many seconds without a line a sign of life is given.
const HEARTBEAT_SECONDS: f64 = 30.0;

/// How many running derivations a sign of life names.
const HEARTBEAT_NAMES: usize = 4;

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Detail {
    /// Only errors: what did not evaluate, what failed and why.
    Quiet,
    /// What is built, and how it ends.
    #[default]
    Normal,
    /// Phases, fetches, and everything Nix says.
    Verbose,
}

/// Turns events into lines.
#[derive(Debug, Clone, Default)]
pub struct Lines {
    detail: Detail,
    print_logs: bool,
    style: Style,
    /// Whether a start is worth a line; not where running builds are in view.
    starts: bool,
    /// Whether lines of logs are shown at all.
    logs: bool,
    started: usize,
    last_line: Option<Stamp>,
    /// How often a failure was told whose reason is outside of the derivation, by reason.
    alike: HashMap<String, usize>,
}

impl Lines {
    /// With `print_logs`, every line of every log comes as it is printed, with its derivation's name;
    /// without, the last lines of a log come when its build has failed.
    #[must_use]
    pub fn new(detail: Detail, print_logs: bool, style: Style) -> Self {
        Self {
            detail,
            print_logs,
            style,
            starts: true,
            logs: true,
            started: 0,
            last_line: None,
            alike: HashMap::new(),
        }
    }

    /// Without lines for builds that start: for beside a live view, which shows them.
    #[must_use]
    pub fn without_starts(self) -> Self {
        Self { starts: false, ..self }
    }

    /// Without lines of logs: for who shows them otherwise.
    pub(crate) fn without_logs(self) -> Self {
        Self { logs: false, ..self }
    }

    /// The lines for an event that `summary` has taken in already.
    pub fn lines(&mut self, summary: &Summary, logged: &Logged) -> Vec<String> {
        let lines = self.of_event(summary, logged);
        // The clock of signs of life starts with the first event.
        if !lines.is_empty() || self.last_line.is_none() {
            // What is heard of others may have happened before.
            self.last_line = self.last_line.max(Some(logged.at));
        }
        lines
    }

    /// A sign of life, when nothing was said for 30 seconds.
    pub fn heartbeat(&mut self, summary: &Summary, now: Stamp) -> Option<String> {
        let silent = now.seconds_since(self.last_line?);
        if silent < HEARTBEAT_SECONDS || self.detail == Detail::Quiet {
            return None;
        }
        self.last_line = Some(now);
        Some(still(summary, now))
    }

    fn of_event(&mut self, summary: &Summary, logged: &Logged) -> Vec<String> {
        let normal = self.detail >= Detail::Normal;
        let verbose = self.detail >= Detail::Verbose;
        match &logged.event {
            Event::StageStarted { stage: Stage::Evaluate } if normal => {
                let what: Vec<_> = summary.installables.iter().map(|text| clean(text)).collect();
                vec![format!("evaluating {}", what.join(" "))]
            }
            Event::TargetSettled { target, verdict } => {
                let Some(state) = summary.targets.get(target) else { return Vec::new() };
                let told = is_root(summary, &state.target);
                self.target_ended(|| clean(&summary.shown(&state.target)).into_owned(), verdict, told)
            }
            Event::SubstituterFailed { url, problem } if normal => {
                let problem = one_line(problem);
                vec![format!("warning: substituter {}: {problem}; going on without it", clean(url))]
            }
            Event::Planned { derivations, fetched, .. } if normal => {
                vec![plan_line(summary, derivations.len(), fetched.len())]
            }
            Event::BuildStarted { drv_path, machine } if normal && self.starts => {
                self.started += 1;
                let place =
                    if machine.is_empty() { String::new() } else { format!(" on {}", clean(machine)) };
                let of = summary.derivations.len().max(self.started);
                vec![format!("building {}{place} ({}/{of})", drv_path.human_name(), self.started)]
            }
            Event::PhaseStarted { drv_path, phase } if verbose => {
                vec![format!("{}: {}", drv_path.human_name(), clean(phase))]
            }
            Event::LogLine { drv_path, line } if self.print_logs && self.logs => {
                vec![self.log_line(drv_path.human_name(), line)]
            }
            Event::FetchStarted { path, from } if verbose => {
                vec![format!("fetching {} from {}", path.name(), clean(from))]
            }
            Event::DerivationSettled { settled } => {
                self.derivation_ended(summary.of_derivation(&settled.drv_path), settled)
            }
            Event::BuildEnded { drv_path } if normal => {
                let started = summary.of_derivation(drv_path).and_then(|state| state.started);
                let after = started
                    .map(|started| format!(" after {}", human_seconds(logged.at.seconds_since(started))))
                    .unwrap_or_default();
                let line = format!("{} failed{after}; why, Nix says later", drv_path.human_name());
                vec![self.style.verdict(VerdictKind::Failed, &line)]
            }
            Event::ActionStarted { action } if normal => {
                let Some(state) = summary.actions.get(action) else { return Vec::new() };
                vec![format!("started {}", clean(&state.action.name))]
            }
            Event::ActionLine { action, line } if normal && self.logs => {
                let Some(state) = summary.actions.get(action) else { return Vec::new() };
                vec![self.log_line(&state.action.name, line)]
            }
            Event::ActionSettled { action, .. } => {
                summary.actions.get(action).into_iter().filter_map(|state| self.action_ended(state)).collect()
            }
            Event::Message { severity, text } => self.message(*severity, text),
            Event::Cancelling { reason } => {
                vec![format!("stopping ({}): what was built stays built", one_line(reason))]
            }
            _ => Vec::new(),
        }
    }

    /// The end of a target, where it is not that of its derivation: `told` says that it is.
    fn target_ended(&self, name: impl Fn() -> String, verdict: &Verdict, told: bool) -> Vec<String> {
        let line = match verdict {
            Verdict::NotEvaluated { error } => {
                let first = error.lines().rev().map(str::trim).find(|line| line.starts_with("error:"));
                let first = first.or_else(|| error.lines().next()).unwrap_or_default();
                let first = first.strip_prefix("error:").unwrap_or(first).trim();
                self.style.verdict(verdict.kind(), &format!("not evaluated: {}: {}", name(), clean(first)))
            }
            Verdict::Failed { class, message } if !told => {
                let line = format!("FAILED {} ({class}): {}", name(), one_line(message));
                self.style.verdict(verdict.kind(), &line)
            }
            Verdict::Skipped { reason } if self.detail >= Detail::Normal => {
                format!("skipped {}: {}", name(), one_line(reason))
            }
            Verdict::Cached { from } if self.detail >= Detail::Verbose => {
                format!("cached {} in {}", name(), clean(&from.to_string()))
            }
            _ => return Vec::new(),
        };
        vec![line]
    }

    fn derivation_ended(
        &mut self,
        state: Option<&DerivationState>,
        settled: &SettledDerivation,
    ) -> Vec<String> {
        let drv_path = &settled.drv_path;
        let name = drv_path.human_name();
        let time = |word: &str| {
            settled.seconds.map(|seconds| format!(" {word} {}", human_seconds(seconds))).unwrap_or_default()
        };
        match &settled.verdict {
            Verdict::Built if self.detail >= Detail::Normal => {
                vec![self.style.verdict(VerdictKind::Built, &format!("built {name}{}", time("in")))]
            }
            Verdict::Cached { from } if self.detail >= Detail::Verbose => {
                vec![format!("had {name} from {} after all", clean(&from.to_string()))]
            }
            Verdict::Failed { class, message } => {
                if *class == FailureClass::Other && state.is_none_or(|state| state.tail.is_empty()) {
                    let count = self.alike.entry(reason(drv_path, message)).or_default();
                    *count += 1;
                    match (*count).cmp(&(ALIKE + 1)) {
                        std::cmp::Ordering::Less => {}
                        std::cmp::Ordering::Equal => {
                            return vec!["… and more for the same reason".to_owned()];
                        }
                        std::cmp::Ordering::Greater => return Vec::new(),
                    }
                }
                let head = format!("FAILED {name}{} ({class}): {}", time("after"), reason(drv_path, message));
                let mut lines = vec![self.style.verdict(VerdictKind::Failed, &head)];
                // Whoever wants it quiet finds the log on the last page.
                let told = self.print_logs || !self.logs || self.detail == Detail::Quiet;
                if let (false, Some(state)) = (told, state) {
                    lines.extend(state.tail.iter().map(|line| self.log_line(name, line)));
                }
                lines
            }
            _ => Vec::new(),
        }
    }

    fn action_ended(&self, state: &ActionState) -> Option<String> {
        let Some(verdict) = &state.verdict else { return None };
        let (name, more) = (clean(&state.action.name), state.particulars());
        let line = match verdict {
            ActionVerdict::Failed { .. } => format!("FAILED {name}{}: {more}", state.after()),
            _ if more.is_empty() => format!("{verdict} {name}"),
            _ => {
                let colon = if matches!(verdict, ActionVerdict::Skipped { .. }) { ":" } else { "" };
                format!("{verdict} {name}{colon} {more}")
            }
        };
        let shown = verdict.is_red() || self.detail >= Detail::Normal;
        shown.then(|| self.style.verdict(kind_of(Some(verdict)), &line))
    }

    /// A line that something printed.
    pub(crate) fn log_line(&self, name: &str, line: &str) -> String {
        format!("{} {}", self.style.dim(&format!("{}>", clean(name))), clean_log(line))
    }

    fn message(&self, severity: Severity, text: &str) -> Vec<String> {
        let (shown, head) = match severity {
            Severity::Error => (true, "error: "),
            Severity::Warning => (self.detail >= Detail::Normal, "warning: "),
            Severity::Notice => (self.detail >= Detail::Normal, ""),
            Severity::Detail => (self.detail >= Detail::Verbose, ""),
        };
        if !shown {
            return Vec::new();
        }
        let lines = text.lines().map(clean);
        lines
            .enumerate()
            .map(|(at, line)| if at == 0 { format!("{head}{line}") } else { format!("  {line}") })
            .collect()
    }
}

fn plan_line(summary: &Summary, build: usize, fetch: usize) -> String {
    let targets = summary.targets.len();
    // A worker of several knows of no targets.
    let mut parts = Vec::new();
    if targets > 0 || build == 0 {
        parts.push(format!("{targets} {}", plural(targets, "target")));
    }
    parts.push(if build == 0 {
        "nothing to build".to_owned()
    } else {
        format!("{build} {} to build", plural(build, "derivation"))
    });
    if fetch > 0 {
        parts.push(format!("{fetch} {} to fetch", plural(fetch, "path")));
    }
    parts.join(", ")
}

fn still(summary: &Summary, now: Stamp) -> String {
    let running = crate::live::running(summary, now);
    let since = summary.started.map_or(0.0, |started| now.seconds_since(started));
    if running.is_empty() {
        let doing = match summary.stage {
            Some((Stage::Evaluate, _)) => {
                let attr = summary.evaluating.as_ref().map(|(attr, _)| format!(" {}", clean(attr)));
                let count = summary.targets.len();
                format!("evaluating{}, {count} {} so far", attr.unwrap_or_default(), plural(count, "target"))
            }
            Some((Stage::Gate, _)) => "asking gates".to_owned(),
            Some((Stage::Act, _)) => "running actions".to_owned(),
            Some((Stage::Plan, _)) => "looking for what exists already".to_owned(),
            // Nix builds here, workers elsewhere.
            Some((Stage::Build, _)) => "waiting for builds".to_owned(),
            _ => "waiting for Nix".to_owned(),
        };
        return format!("still {doing} after {}", human_seconds(since));
    }
    let names: Vec<String> = running
        .iter()
        .take(HEARTBEAT_NAMES)
        .map(|(state, seconds)| {
            let phase = state.phase.as_ref().map(|phase| format!(", {}", clean(phase))).unwrap_or_default();
            format!("{} ({}{phase})", state.planned.drv_path.human_name(), human_seconds(*seconds))
        })
        .collect();
    let more = running.len().saturating_sub(HEARTBEAT_NAMES);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let done = summary.derivations.iter().filter(|state| state.verdict.is_some()).count();
    format!(
        "still building after {}: {}{more}; {done} of {} done",
        human_seconds(since),
        names.join(", "),
        summary.derivations.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn all(detail: Detail, print_logs: bool) -> String {
        of(&fixture::events(), detail, print_logs)
    }

    fn of(events: &[Logged], detail: Detail, print_logs: bool) -> String {
        let mut lines = Lines::new(detail, print_logs, Style::default());
        let mut summary = Summary::default();
        let mut text = Vec::new();
        for event in events {
            summary.apply(event);
            text.extend(lines.lines(&summary, event));
        }
        text.join("\n")
    }

    #[test]
    fn a_run_in_lines() {
        let text = all(Detail::Normal, false);
        let (head, tail) = text.split_once("lib-1.0> line 7\n").unwrap();
        insta::assert_snapshot!(head, @r"
        evaluating .
        skipped nixosConfigurations.arm.config.system.build.toplevel: it is for aarch64-linux, and this run is for x86_64-linux
        not evaluated: packages.x86_64-linux.broken: boom
        warning: substituter https://down.example: it answers 503 Service Unavailable; going on without it
        8 targets, 5 derivations to build, 1 path to fetch
        building hello-2.12 (1/5)
        building lib-1.0 (2/5)
        FAILED lib-1.0 after 2.0s (build failed): builder failed with exit code 1
        ");
        insta::assert_snapshot!(tail.split_once("line 30\n").unwrap().1, @r"
        lib-1.0> FAILED 2 + 2 = 5
        built hello-2.12 in 4.2s
        stopping (SIGINT): what was built stays built
        warning: Git tree '/x' is dirty
        ");
    }

    #[test]
    fn quiet_says_only_what_is_wrong_and_verbose_everything() {
        let quiet = all(Detail::Quiet, false);
        for part in ["building", "built hello", "warning", "skipped"] {
            assert!(!quiet.contains(part), "{part}: {quiet}");
        }
        assert!(quiet.contains("FAILED lib-1.0") && quiet.contains("not evaluated: "), "{quiet}");
        let verbose = all(Detail::Verbose, true);
        for part in [
            "lib-1.0: checkPhase",
            "fetching stdenv.drv from",
            "cached packages.x86_64-linux.old in the store",
            "lib-1.0> line 1\n",
        ] {
            assert!(verbose.contains(part), "{part}");
        }
        assert_eq!(verbose.matches("line 30").count(), 1, "the tail is not printed again");
    }

    #[test]
    fn a_target_that_failed_by_itself_is_told_and_one_whose_derivation_failed_is_not_told_twice() {
        let mut events = fixture::events();
        let verdict = Verdict::Failed { class: FailureClass::Other, message: "its .drv\nis damaged".into() };
        let found = Event::TargetFound { target: fixture::target(50, "odd", Some("odd")) };
        let settled = Event::TargetSettled { target: phoenix_model::TargetId(50), verdict };
        events.extend([found, settled].map(|event| Logged { at: Stamp(0), event }));
        let text = of(&events, Detail::Quiet, false);
        assert!(text.contains("\nFAILED odd (could not be built): its .drv is damaged"), "{text}");
        assert_eq!(text.matches("FAILED lib").count(), 1);
    }

    #[test]
    fn a_sign_of_life_comes_after_thirty_silent_seconds_and_not_before() {
        let mut lines = Lines::new(Detail::Normal, false, Style::default());
        let mut summary = Summary::default();
        for event in
            fixture::events().iter().take_while(|event| !matches!(event.event, Event::LogLine { .. }))
        {
            summary.apply(event);
            lines.lines(&summary, event);
        }
        let at = |seconds: u64| Stamp(1_700_000_000_100 + seconds * 1000);
        assert_eq!(lines.heartbeat(&summary, at(29)), None);
        insta::assert_snapshot!(
            lines.heartbeat(&summary, at(31)).unwrap(),
            @"still building after 31s: hello-2.12 (31s), lib-1.0 (31s, checkPhase); 0 of 5 done"
        );
        assert_eq!(lines.heartbeat(&summary, at(40)), None);
        assert!(lines.heartbeat(&summary, at(62)).is_some());
    }
}
