//! What a forge shows beside the run: one remark for each failure of its own.

use crate::action_state::failed_actions;
use crate::clean::{clean_log, clip, one_line};
use crate::errors::evaluation_errors;
use crate::roots::{failed_alone, plural};
use crate::{Summary, clean, root_failures};

/// How many errors GitHub shows for a step.
pub const MOST_ANNOTATIONS: usize = 10;

/// How many lines of a log are told, how long each and all may be: GitHub cuts what is longer than 4096 bytes.
const LINES: usize = 10;
const LINE_LENGTH: usize = 200;
const TEXT_LENGTH: usize = 3500;

/// A remark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// Of what, on one clean line.
    pub title: String,
    /// What is wrong, on several clean lines.
    pub text: String,
}

/// A remark for each root failure, the one that stopped most first, then for targets that failed by themselves
/// and for evaluation errors. What is blocked has none. At most [`MOST_ANNOTATIONS`]; the last says how many more.
#[must_use]
pub fn annotations(summary: &Summary) -> Vec<Annotation> {
    let roots = root_failures(summary);
    let of_roots = roots.iter().map(|root| {
        let state = root.derivation;
        let mut lines = vec![format!("{}{}: {}", root.class, state.after(), root.reason())];
        lines.extend(root.blocked_line(summary, 5).map(|blocked| format!("blocked: {blocked}")));
        let tail = state.last_lines(LINES);
        lines.extend(tail.map(|line| clip(&clean_log(line), LINE_LENGTH).into_owned()));
        annotation(state.planned.drv_path.human_name(), "failed", &lines)
    });
    let alone = failed_alone(summary);
    let alone = alone.iter().map(|(state, class, message)| {
        annotation(&summary.shown(&state.target), "failed", &[format!("{class}: {}", one_line(message))])
    });
    let errors = evaluation_errors(summary);
    let errors = errors.iter().map(|error| {
        let lines = error.text.lines().take(LINES * 2);
        let lines: Vec<_> = lines.map(|line| clip(&clean(line), LINE_LENGTH).into_owned()).collect();
        annotation(&error.names(summary, 3), "did not evaluate", &lines)
    });
    let of_actions = failed_actions(summary).map(|state| {
        let mut lines = vec![state.particulars()];
        let tail = state.last_lines(LINES);
        lines.extend(tail.map(|line| clip(&clean_log(line), LINE_LENGTH).into_owned()));
        annotation(&state.action.name, "failed", &lines)
    });
    let mut all: Vec<_> = of_roots.chain(alone).chain(errors).chain(of_actions).collect();
    if all.len() > MOST_ANNOTATIONS {
        let rest = all.len() - (MOST_ANNOTATIONS - 1);
        all.truncate(MOST_ANNOTATIONS - 1);
        let title = format!("{rest} more {}", plural(rest, "failure"));
        all.push(Annotation { title, text: "The job summary and the reports have them.".to_owned() });
    }
    all
}

fn annotation(name: &str, what: &str, lines: &[String]) -> Annotation {
    let name = one_line(&clip(name, LINE_LENGTH));
    Annotation { title: format!("{name} {what}"), text: clip(&lines.join("\n"), TEXT_LENGTH).into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use phoenix_model::{Event, FailureClass, Logged, Stamp, TargetId, Verdict};

    #[test]
    fn a_failure_has_one_and_what_it_blocked_has_none() {
        let all = annotations(&fixture::summary());
        let titles: Vec<_> = all.iter().map(|one| one.title.as_str()).collect();
        assert_eq!(titles, ["lib-1.0 failed", "packages.x86_64-linux.broken did not evaluate"]);
        let lines: Vec<_> = all[0].text.lines().collect();
        assert_eq!(lines[0], "build failed after 2.0s: builder failed with exit code 1");
        assert_eq!(lines[1], "blocked: checks.x86_64-linux.uses-lib and 1 derivation on the way");
        assert_eq!((lines.len(), lines[11]), (12, "FAILED 2 + 2 = 5"));
    }

    #[test]
    fn there_are_ten_at_most_and_the_last_says_how_many_more() {
        let mut events = fixture::events();
        for id in 100..130 {
            let verdict =
                Verdict::Failed { class: FailureClass::Other, message: "no\u{202e}\n".repeat(5000) };
            let found = Event::TargetFound { target: fixture::target(id, "a", None) };
            let settled = Event::TargetSettled { target: TargetId(id), verdict };
            events.extend([found, settled].map(|event| Logged { at: Stamp(1_700_000_005_000), event }));
        }
        let all = annotations(&fixture::fold(&events));
        assert_eq!((all.len(), all[9].title.as_str()), (10, "23 more failures"));
        assert!(all.iter().all(|one| one.text.len() < 4096 * 3 && !one.text.contains('\u{202e}')));
    }
}
