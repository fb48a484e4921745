//! The report as JUnit XML, as every CI system reads it.

use std::collections::BTreeMap;
use std::time::Duration;

use phoenix_model::{Verdict, VerdictKind};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::{Summary, TargetState, clean};

/// One suite for each installable, one case for each target.
///
/// # Errors
/// When the XML cannot be written, which does not happen in memory.
pub fn junit(summary: &Summary) -> Result<String, quick_junit::SerializeError> {
    let mut suites: BTreeMap<&str, TestSuite> = BTreeMap::new();
    for state in summary.targets.values() {
        let source = state.target.source.as_str();
        let suite = suites.entry(source).or_insert_with(|| TestSuite::new(clean(source).into_owned()));
        suite.add_test_case(case(summary, state));
    }
    let mut report = Report::new("phoenix");
    report.set_time(Duration::from_secs_f64(summary.seconds()));
    report.add_test_suites(suites.into_values());
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
        case.set_time(Duration::from_secs_f64(seconds.max(0.0)));
    }
    case
}

fn status(summary: &Summary, state: &TargetState) -> TestCaseStatus {
    let failure = |kind: &str, message: &str, text: &str| {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
        status.set_type(kind).set_message(clean(message).into_owned());
        let text: Vec<_> = text.lines().map(clean).collect();
        status.set_description(text.join("\n"));
        status
    };
    match &state.verdict {
        Some(Verdict::Built | Verdict::Cached { .. }) => TestCaseStatus::success(),
        Some(Verdict::Skipped { reason }) => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(clean(reason).into_owned());
            status
        }
        Some(Verdict::Failed { class, message }) => {
            let built = state.target.drv_path.as_ref().and_then(|drv_path| summary.of_derivation(drv_path));
            let tail = built
                .map(|state| state.tail.iter().cloned().collect::<Vec<_>>().join("\n"))
                .unwrap_or_default();
            failure(
                &class.to_string(),
                message.lines().next().unwrap_or_default(),
                &format!("{message}\n{tail}"),
            )
        }
        Some(Verdict::Blocked { by }) => {
            let names: Vec<&str> = by.iter().map(phoenix_model::StorePath::as_str).collect();
            let first = by.first().map(phoenix_model::StorePath::human_name).unwrap_or_default();
            failure("blocked", &format!("blocked by {first}"), &names.join("\n"))
        }
        Some(Verdict::NotEvaluated { error }) => {
            failure("not evaluated", error.lines().next().unwrap_or_default(), error)
        }
        Some(Verdict::Cancelled) => failure(&VerdictKind::Cancelled.to_string(), "the run was stopped", ""),
        None => failure("no verdict", "the run ended without a verdict", ""),
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
        assert_eq!(lib.time, Some(Duration::from_secs(2)));
        assert!(xml.contains("FAILED 2 + 2 = 5"));
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
}
