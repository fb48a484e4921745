//! The report as JUnit XML, as every CI system reads it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use phoenix_model::{ActionVerdict, StorePath, Verdict};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::clean::{clean_log, one_line};
use crate::roots::reason;
use crate::time::duration;
use crate::{ActionState, Summary, TargetState, clean};

/// How many derivations that are in the way of a target are named.
const BLOCKERS: usize = 10;

/// One suite for each installable, one case for each target; and a suite of the actions, if there are any.
///
/// # Errors
/// When the XML cannot be written, which does not happen in memory.
pub fn junit(summary: &Summary) -> Result<String, quick_junit::SerializeError> {
    let mut suites: BTreeMap<&str, TestSuite> = BTreeMap::new();
    for state in summary.in_order() {
        let source = state.target.source.as_str();
        let suite = suites.entry(source).or_insert_with(|| TestSuite::new(clean(source).into_owned()));
        suite.add_test_case(case(summary, state));
    }
    let mut report = Report::new("phoenix");
    report.set_time(duration(summary.seconds()));
    report.add_test_suites(suites.into_values());
    if !summary.actions.is_empty() {
        let mut suite = TestSuite::new("actions");
        suite.add_test_cases(summary.actions.values().map(action));
        report.add_test_suite(suite);
    }
    report.to_string()
}

fn case(summary: &Summary, state: &TargetState) -> TestCase {
    let names = state.target.attr_path.names();
    let attr = clean(&state.target.attr()).into_owned();
    let mut case = TestCase::new(
        if attr.is_empty() { "(the whole flake)".to_owned() } else { attr },
        status(summary, state),
    );
    let class = names.split_last().map(|(_, class)| class.join(".")).unwrap_or_default();
    if !class.is_empty() {
        case.set_classname(clean(&class).into_owned());
    }
    let built = state.target.drv_path.as_ref().and_then(|drv_path| summary.of_derivation(drv_path));
    if let Some(seconds) = built.and_then(|state| state.seconds) {
        case.set_time(duration(seconds));
    }
    case
}

fn action(state: &ActionState) -> TestCase {
    let tail = state.tail.iter().map(|line| clean_log(line));
    let why = state.particulars();
    let status = match &state.verdict {
        Some(ActionVerdict::Done) => TestCaseStatus::success(),
        Some(ActionVerdict::Skipped { .. }) => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(why);
            status
        }
        Some(ActionVerdict::Failed { .. } | ActionVerdict::Blocked { .. } | ActionVerdict::Cancelled)
        | None => {
            let lines = std::iter::once(Cow::Owned(why.clone())).chain(tail);
            failure(&state.word(), &why, lines)
        }
    };
    let mut case = TestCase::new(clean(&state.action.name).into_owned(), status);
    if let Some(seconds) = state.seconds {
        case.set_time(duration(seconds));
    }
    case
}

fn status(summary: &Summary, state: &TargetState) -> TestCaseStatus {
    let own = state.target.drv_path.as_ref().and_then(|drv_path| summary.of_derivation(drv_path));
    match &state.verdict {
        Some(Verdict::Built | Verdict::Cached { .. }) => TestCaseStatus::success(),
        Some(Verdict::Skipped { reason }) => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(one_line(reason));
            status
        }
        Some(Verdict::Failed { class, message }) => {
            let tail = own.iter().flat_map(|own| &own.tail).map(|line| clean_log(line));
            let lines = message.lines().map(clean).chain(tail);
            failure(&class.to_string(), message.lines().next().unwrap_or_default(), lines)
        }
        Some(Verdict::Blocked { by }) => {
            let first = by.first().map(StorePath::human_name).unwrap_or_default();
            let more = if by.len() > 1 { format!(" and {} more", by.len() - 1) } else { String::new() };
            let rest = by.len().saturating_sub(BLOCKERS);
            let rest = (rest > 0).then(|| Cow::Owned(format!("and {rest} more")));
            let lines = by.iter().take(BLOCKERS).map(|root| Cow::Owned(why(summary, root))).chain(rest);
            failure("blocked", &format!("blocked by {first}{more}"), lines)
        }
        Some(Verdict::NotEvaluated { error }) => {
            failure("not evaluated", error.lines().next().unwrap_or_default(), error.lines().map(clean))
        }
        Some(Verdict::Cancelled) => failure("cancelled", "the run was stopped", std::iter::empty()),
        None => failure("no verdict", "the run ended without a verdict", std::iter::empty()),
    }
}

fn failure<'a>(kind: &str, message: &str, lines: impl Iterator<Item = Cow<'a, str>>) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
    status.set_type(kind).set_message(clean(message).into_owned());
    status.set_description(lines.collect::<Vec<_>>().join("\n"));
    status
}

/// The derivation and, where it is known, why it failed.
fn why(summary: &Summary, root: &StorePath) -> String {
    match summary.of_derivation(root).and_then(|state| state.verdict.as_ref()) {
        Some(Verdict::Failed { message, .. }) => format!("{root}: {}", reason(root, message)),
        _ => root.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use phoenix_model::{Event, Logged, Stamp, TargetId};

    #[test]
    fn every_target_is_a_case() {
        let xml = junit(&fixture::summary()).unwrap();
        let report = Report::deserialize_from_str(&xml).unwrap();
        assert_eq!((report.tests, report.failures), (8, 4));
        let suite = &report.test_suites[0];
        assert_eq!((suite.name.as_str(), suite.test_cases.len()), (".", 8));
        let lib =
            suite.test_cases.iter().find(|case| case.name.as_str() == "packages.x86_64-linux.lib").unwrap();
        assert_eq!(lib.classname.as_ref().map(quick_junit::XmlString::as_str), Some("packages.x86_64-linux"));
        assert_eq!(lib.time, Some(std::time::Duration::from_secs(2)));
        assert!(xml.contains("FAILED 2 + 2 = 5"));
        assert!(
            xml.contains("-lib-1.0.drv: builder failed with exit code 1</failure>"),
            "why it is blocked: {xml}"
        );
    }

    #[test]
    fn no_name_and_no_log_breaks_the_xml() {
        let mut events = fixture::events();
        let mut target = fixture::target(50, "a", None);
        target.attr_path.0 = vec!["x\u{0}]]><evil>\u{1b}[31m&\"".into()];
        let verdict = Verdict::NotEvaluated { error: "\u{1}\u{ffff}]]>".into() };
        for event in [Event::TargetFound { target }, Event::TargetSettled { target: TargetId(50), verdict }] {
            events.push(Logged { at: Stamp(0), event });
        }
        let xml = junit(&fixture::fold(&events)).unwrap();
        let report = Report::deserialize_from_str(&xml).unwrap();
        assert_eq!(report.tests, 9);
    }

    #[test]
    fn a_target_that_many_failures_block_names_some() {
        let mut events = fixture::events();
        let by = (0..50).map(|number| fixture::drv(&format!("root-{number}"))).collect();
        let found = Event::TargetFound { target: fixture::target(50, "all", Some("all")) };
        let settled = Event::TargetSettled { target: TargetId(50), verdict: Verdict::Blocked { by } };
        events.extend([found, settled].map(|event| Logged { at: Stamp(0), event }));
        let xml = junit(&fixture::fold(&events)).unwrap();
        assert!(xml.contains("blocked by root-0 and 49 more"), "{xml}");
        assert!(xml.contains("-root-9.drv\nand 40 more</failure>") && !xml.contains("root-10.drv"), "{xml}");
    }
}
