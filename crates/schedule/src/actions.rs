//! Which actions may run, which never will, and how each ended.

use phoenix_model::{Action, ActionId, ActionVerdict, Does, TargetId, Verdict};

/// The actions of a run, from what they need to their verdicts.
///
/// An action is ready when every target and every action it needs is green, where a target that is not to be built
/// here is no hindrance, unless all of them are such. It is blocked as soon as one is red, and skipped where one of
/// the actions it needs is. What pushes waits for all to end, however they do.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Actions {
    all: Vec<State>,
}

#[derive(Debug, Clone, PartialEq)]
struct State {
    action: Action,
    started: bool,
    verdict: Option<ActionVerdict>,
}

/// What can be told of an action that has not begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It may run.
    Ready,
    /// Something it needs has not ended.
    Waiting,
    /// It will not run.
    Ended(ActionVerdict),
}

impl Actions {
    /// The actions of a run; some have ended before they began.
    #[must_use]
    pub fn new(actions: impl IntoIterator<Item = (Action, Option<ActionVerdict>)>) -> Self {
        let states = actions.into_iter().map(|(action, verdict)| State { action, started: false, verdict });
        Self { all: states.collect() }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Action> {
        self.all.iter().map(|state| &state.action)
    }

    /// All of them, with the verdicts of those that have one.
    #[must_use]
    pub fn all_with_verdicts(&self) -> Vec<(Action, Option<ActionVerdict>)> {
        self.all.iter().map(|state| (state.action.clone(), state.verdict.clone())).collect()
    }

    /// An action.
    #[must_use]
    pub fn get(&self, id: ActionId) -> Option<&Action> {
        self.state(id).map(|state| &state.action)
    }

    /// How an action ended, if it has.
    #[must_use]
    pub fn verdict(&self, id: ActionId) -> Option<&ActionVerdict> {
        self.state(id)?.verdict.as_ref()
    }

    /// Whether all have ended.
    #[must_use]
    pub fn are_over(&self) -> bool {
        self.all.iter().all(|state| state.verdict.is_some())
    }

    /// Whether one of them makes the run red.
    #[must_use]
    pub fn any_red(&self) -> bool {
        self.all.iter().any(|state| state.verdict.as_ref().is_none_or(ActionVerdict::is_red))
    }

    /// Takes in that an action began, here or elsewhere.
    pub fn started(&mut self, id: ActionId) {
        if let Some(state) = self.state_mut(id) {
            state.started = true;
        }
    }

    /// Takes in how an action ended; whether that was not known before.
    pub fn ended(&mut self, id: ActionId, verdict: ActionVerdict) -> bool {
        match self.state_mut(id) {
            Some(state) if state.verdict.is_none() => {
                state.verdict = Some(verdict);
                true
            }
            _ => false,
        }
    }

    /// The next action that may run or will never run, of those that have not begun, in their order; `target` gives
    /// the name and the verdict of a target.
    pub fn next<'t>(
        &self,
        target: impl Fn(TargetId) -> (String, Option<&'t Verdict>),
    ) -> Option<(ActionId, Readiness)> {
        let open = self.all.iter().filter(|state| !state.started && state.verdict.is_none());
        let told = open.map(|state| (state.action.id, self.readiness(&state.action, &target)));
        told.into_iter().find(|(_, readiness)| *readiness != Readiness::Waiting)
    }

    fn readiness<'t>(
        &self,
        action: &Action,
        target: &impl Fn(TargetId) -> (String, Option<&'t Verdict>),
    ) -> Readiness {
        let (mut by, mut skipped, mut waits) = (Vec::new(), None, false);
        // What failed keeps nobody from pushing the rest.
        let only_ends = matches!(action.does, Does::Push { .. });
        let mut passed_over = Vec::new();
        for &id in &action.builds {
            match target(id) {
                (name, Some(verdict)) if verdict.is_red() && !only_ends => by.push(name),
                (name, Some(Verdict::Skipped { reason })) => passed_over.push(format!("{name}: {reason}")),
                (_, Some(_)) => {}
                (_, None) => waits = true,
            }
        }
        // What is not to be built here is no hindrance, unless it is everything.
        if passed_over.len() == action.builds.len() && !only_ends {
            skipped = passed_over.into_iter().next();
        }
        for &id in &action.needs {
            let Some(state) = self.state(id) else { continue };
            match &state.verdict {
                Some(verdict) if verdict.is_red() => by.push(state.action.name.clone()),
                Some(ActionVerdict::Skipped { reason }) => {
                    skipped = Some(format!("{}: {reason}", state.action.name));
                }
                Some(_) => {}
                None => waits = true,
            }
        }
        if !by.is_empty() {
            return Readiness::Ended(ActionVerdict::Blocked { by });
        }
        match skipped {
            Some(what) => Readiness::Ended(ActionVerdict::Skipped {
                reason: format!("it needs what is skipped: {what}"),
            }),
            None if waits => Readiness::Waiting,
            None => Readiness::Ready,
        }
    }

    /// Ends what has not ended: the run is over.
    pub fn close(&mut self, verdict: &ActionVerdict) -> Vec<(ActionId, ActionVerdict)> {
        let mut closed = Vec::new();
        for state in self.all.iter_mut().filter(|state| state.verdict.is_none()) {
            state.verdict = Some(verdict.clone());
            closed.push((state.action.id, verdict.clone()));
        }
        closed
    }

    fn state(&self, id: ActionId) -> Option<&State> {
        self.all.iter().find(|state| state.action.id == id)
    }

    fn state_mut(&mut self, id: ActionId) -> Option<&mut State> {
        self.all.iter_mut().find(|state| state.action.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use phoenix_model::{FailureClass, Source};

    fn action(id: u32, builds: &[u32], needs: &[u32]) -> Action {
        Action {
            id: ActionId(id),
            name: format!("action {id}"),
            of: None,
            does: Does::Run { program: "/bin/true".to_owned() },
            system: None,
            builds: builds.iter().copied().map(TargetId).collect(),
            needs: needs.iter().copied().map(ActionId).collect(),
            paths: Vec::new(),
            time_out: 1,
        }
    }

    fn of(actions: &[Action]) -> Actions {
        Actions::new(actions.iter().cloned().map(|action| (action, None)))
    }

    /// Tells of targets: 0 is built, 1 failed, 2 has not ended, 3 is skipped.
    fn next(actions: &Actions) -> Option<(u32, Readiness)> {
        let failed = Verdict::Failed { class: FailureClass::Build, message: String::new() };
        let skipped = Verdict::Skipped { reason: "not here".to_owned() };
        let cached = Verdict::Cached { from: Source::Store };
        let told = |TargetId(id)| {
            let verdict = match id {
                0 => Some(&cached),
                1 => Some(&failed),
                3 => Some(&skipped),
                _ => None,
            };
            (format!("target {id}"), verdict)
        };
        actions.next(told).map(|(id, readiness)| (id.0, readiness))
    }

    #[test]
    fn an_action_is_ready_when_all_it_needs_is_green() {
        let mut actions = of(&[action(0, &[0, 2], &[]), action(1, &[0], &[]), action(2, &[0], &[1])]);
        assert_eq!(next(&actions), Some((1, Readiness::Ready)));
        actions.started(ActionId(1));
        assert_eq!(next(&actions), None);
        assert!(actions.ended(ActionId(1), ActionVerdict::Done));
        assert!(!actions.ended(ActionId(1), ActionVerdict::Cancelled), "the first verdict stands");
        assert_eq!(next(&actions), Some((2, Readiness::Ready)));
        assert!(actions.any_red() && !actions.are_over(), "what has no verdict is not green");
    }

    #[test]
    fn what_needs_something_red_is_blocked_by_it_however_far_the_rest_is() {
        let mut actions = of(&[action(0, &[2, 1], &[]), action(1, &[], &[0])]);
        let Some((0, Readiness::Ended(verdict))) = next(&actions) else { panic!() };
        assert_eq!(verdict, ActionVerdict::Blocked { by: vec!["target 1".to_owned()] });
        actions.ended(ActionId(0), verdict);
        let Some((1, Readiness::Ended(verdict))) = next(&actions) else { panic!() };
        assert_eq!(verdict.why(), "by action 0");
    }

    #[test]
    fn what_needs_only_what_is_skipped_is_skipped() {
        let actions = of(&[action(0, &[3], &[])]);
        let Some((0, Readiness::Ended(ActionVerdict::Skipped { reason }))) = next(&actions) else { panic!() };
        assert_eq!(reason, "it needs what is skipped: target 3: not here");
        assert_eq!(next(&of(&[action(0, &[0, 3], &[])])), Some((0, Readiness::Ready)));
        let mut actions = of(&[action(0, &[], &[]), action(1, &[0], &[0])]);
        actions.ended(ActionId(0), ActionVerdict::Skipped { reason: "not now".to_owned() });
        let Some((1, Readiness::Ended(verdict))) = next(&actions) else { panic!() };
        assert_eq!(verdict.why(), "it needs what is skipped: action 0: not now");
    }

    #[test]
    fn what_pushes_waits_for_all_to_end_however_they_do() {
        let push = |builds: &[u32]| {
            let does = Does::Push { to: "file:///x".to_owned() };
            of(&[Action { does, ..action(0, builds, &[]) }])
        };
        assert_eq!(next(&push(&[0, 1, 3])), Some((0, Readiness::Ready)));
        assert_eq!(next(&push(&[3])), Some((0, Readiness::Ready)));
        assert_eq!(next(&push(&[0, 2])), None);
    }

    #[test]
    fn at_the_end_every_action_has_a_verdict() {
        let mut actions = of(&[action(0, &[2], &[]), action(1, &[], &[])]);
        actions.ended(ActionId(1), ActionVerdict::Done);
        assert_eq!(actions.close(&ActionVerdict::Cancelled), [(ActionId(0), ActionVerdict::Cancelled)]);
        assert!(actions.are_over() && actions.any_red());
    }
}
