//! Who is asked for what next, and what follows from the answers.
//!
//! A [`Routing`] is told what happened and never asks, reads or waits itself. A path goes to the
//! substituter of the lowest priority first, to the next when that one says it has it not, and ends when
//! one has it or nobody is left.

use std::collections::VecDeque;

use phoenix_model::StorePath;

use crate::Found;

/// What one substituter says of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// It has it, and Nix would take it.
    Found(Found),
    /// It has it, and Nix would not take it.
    Untrusted,
    /// It has it not.
    Absent,
    /// It did not say; other questions may fare better.
    Strange(String),
    /// It did not say, and would not say anything else either.
    Failed(String),
}

/// How a question ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The substituter with this number has it.
    Found(usize, Found),
    /// All answered, and none has it.
    Absent,
    /// None has it, and one that could did not answer.
    Unknown,
}

/// A path and how far its question has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) path: StorePath,
    asked: Vec<usize>,
    unknown: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is not known yet what it is.
    Opening,
    /// It answers questions; its priority.
    Open(i64),
    /// Nix passes it over, so it has nothing.
    Foreign,
    /// It does not answer.
    Down,
}

#[derive(Debug)]
struct Member {
    state: State,
    queue: VecDeque<Question>,
}

/// The state of all questions to all substituters.
#[derive(Debug)]
pub(crate) struct Routing {
    members: Vec<Member>,
    /// Questions that wait for all to open; `None` once questions go out.
    parked: Option<Vec<Question>>,
    endings: VecDeque<(StorePath, Ending)>,
}

impl Routing {
    /// So many substituters, of which nothing is known yet.
    pub(crate) fn new(members: usize) -> Self {
        let member = |_| Member { state: State::Opening, queue: VecDeque::new() };
        let mut routing = Self {
            members: (0..members).map(member).collect(),
            parked: Some(Vec::new()),
            endings: VecDeque::new(),
        };
        routing.start_if_all_opened();
        routing
    }

    /// A new question.
    pub(crate) fn ask(&mut self, path: StorePath) {
        self.route(Question { path, asked: Vec::new(), unknown: false });
    }

    /// Questions go out from now on, even if some substituters have not opened yet.
    pub(crate) fn start(&mut self) {
        for question in self.parked.take().unwrap_or_default() {
            self.route(question);
        }
    }

    /// A substituter can be asked.
    pub(crate) fn opened(&mut self, at: usize, priority: i64) {
        self.becomes(at, State::Open(priority));
    }

    /// A substituter turns out to be one that Nix passes over.
    pub(crate) fn foreign(&mut self, at: usize) {
        self.becomes(at, State::Foreign);
    }

    /// A substituter does not answer; whether that is new.
    pub(crate) fn down(&mut self, at: usize) -> bool {
        let new = self.members[at].state != State::Down;
        self.becomes(at, State::Down);
        new
    }

    /// The next question for a substituter.
    pub(crate) fn next(&mut self, at: usize) -> Option<Question> {
        let member = &mut self.members[at];
        if matches!(member.state, State::Open(_)) { member.queue.pop_front() } else { None }
    }

    /// Whether a substituter can be asked and there is something to ask it.
    pub(crate) fn has_next(&self, at: usize) -> bool {
        let member = &self.members[at];
        matches!(member.state, State::Open(_)) && !member.queue.is_empty()
    }

    /// What a substituter said to a question it got.
    pub(crate) fn answered(&mut self, at: usize, mut question: Question, lookup: Lookup) {
        match lookup {
            Lookup::Found(found) => {
                self.endings.push_back((question.path, Ending::Found(at, found)));
                return;
            }
            Lookup::Absent | Lookup::Untrusted => {}
            Lookup::Strange(_) | Lookup::Failed(_) => question.unknown = true,
        }
        question.asked.push(at);
        self.route(question);
    }

    /// A question that has ended since the last call.
    pub(crate) fn ending(&mut self) -> Option<(StorePath, Ending)> {
        self.endings.pop_front()
    }

    fn becomes(&mut self, at: usize, state: State) {
        self.members[at].state = state;
        // What waits for one that is not open may go elsewhere, or ends here.
        for member in 0..self.members.len() {
            if !matches!(self.members[member].state, State::Open(_)) {
                for question in std::mem::take(&mut self.members[member].queue) {
                    self.route(question);
                }
            }
        }
        self.start_if_all_opened();
    }

    fn start_if_all_opened(&mut self) {
        if self.members.iter().all(|member| member.state != State::Opening) {
            self.start();
        }
    }

    fn route(&mut self, mut question: Question) {
        if let Some(parked) = &mut self.parked {
            parked.push(question);
            return;
        }
        let mut best: Option<(i64, usize)> = None;
        let mut opening = None;
        for (at, member) in self.members.iter().enumerate().filter(|(at, _)| !question.asked.contains(at)) {
            match member.state {
                State::Open(priority) if best.is_none_or(|best| (priority, at) < best) => {
                    best = Some((priority, at));
                }
                State::Opening => opening = opening.or(Some(at)),
                State::Down => question.unknown = true,
                State::Open(_) | State::Foreign => {}
            }
        }
        match best.map(|(_, at)| at).or(opening) {
            Some(at) => self.members[at].queue.push_back(question),
            None if question.unknown => self.endings.push_back((question.path, Ending::Unknown)),
            None => self.endings.push_back((question.path, Ending::Absent)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(name: &str) -> StorePath {
        StorePath::parse(&format!("/nix/store/kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-{name}")).unwrap()
    }

    fn found() -> Found {
        Found { nar_size: 1, file_size: None, references: Vec::new() }
    }

    fn open(priorities: &[i64]) -> Routing {
        let mut routing = Routing::new(priorities.len());
        for (at, &priority) in priorities.iter().enumerate() {
            routing.opened(at, priority);
        }
        routing
    }

    /// Who gets the question; then what they say to it.
    fn asked(routing: &mut Routing, lookup: Lookup) -> usize {
        let at = (0..routing.members.len()).find(|&at| routing.has_next(at)).unwrap();
        let question = routing.next(at).unwrap();
        routing.answered(at, question, lookup);
        at
    }

    #[test]
    fn the_lowest_priority_is_asked_first_and_then_the_order_of_the_settings() {
        let mut routing = open(&[40, 10, 10]);
        routing.ask(path("a"));
        assert_eq!(asked(&mut routing, Lookup::Absent), 1);
        assert_eq!(asked(&mut routing, Lookup::Untrusted), 2);
        assert_eq!(asked(&mut routing, Lookup::Absent), 0);
        assert_eq!(routing.ending(), Some((path("a"), Ending::Absent)));
    }

    #[test]
    fn nobody_to_ask_means_absent() {
        let mut routing = Routing::new(0);
        routing.ask(path("a"));
        assert_eq!(routing.ending(), Some((path("a"), Ending::Absent)));
    }

    #[test]
    fn the_first_that_has_it_ends_the_question() {
        let mut routing = open(&[1, 2]);
        routing.ask(path("a"));
        assert_eq!(asked(&mut routing, Lookup::Found(found())), 0);
        assert_eq!(routing.ending(), Some((path("a"), Ending::Found(0, found()))));
        assert!(!routing.has_next(1));
    }

    #[test]
    fn whoever_does_not_answer_leaves_it_unknown_unless_another_has_it() {
        for (lookup, ending) in
            [(Lookup::Absent, Ending::Unknown), (Lookup::Found(found()), Ending::Found(1, found()))]
        {
            let mut routing = open(&[1, 2]);
            routing.ask(path("a"));
            assert_eq!(asked(&mut routing, Lookup::Strange("?".into())), 0);
            assert_eq!(asked(&mut routing, lookup), 1);
            assert_eq!(routing.ending(), Some((path("a"), ending)));
        }
    }

    #[test]
    fn one_that_goes_down_hands_its_questions_on() {
        let mut routing = open(&[1, 2]);
        routing.ask(path("a"));
        routing.ask(path("b"));
        let question = routing.next(0).unwrap();
        assert!(routing.down(0));
        assert!(!routing.down(0), "said once");
        routing.answered(0, question, Lookup::Failed("!".into()));
        assert_eq!(asked(&mut routing, Lookup::Absent), 1);
        assert_eq!(asked(&mut routing, Lookup::Found(found())), 1);
        assert_eq!(routing.ending(), Some((path("b"), Ending::Unknown)));
        assert_eq!(routing.ending(), Some((path("a"), Ending::Found(1, found()))));
        routing.ask(path("c"));
        assert_eq!(asked(&mut routing, Lookup::Absent), 1, "it is not asked again");
        assert_eq!(routing.ending(), Some((path("c"), Ending::Unknown)));
    }

    #[test]
    fn one_that_nix_passes_over_has_nothing() {
        let mut routing = Routing::new(2);
        routing.foreign(0);
        routing.ask(path("a"));
        assert_eq!(routing.ending(), None, "the other has not opened");
        routing.opened(1, 0);
        assert_eq!(asked(&mut routing, Lookup::Absent), 1);
        assert_eq!(routing.ending(), Some((path("a"), Ending::Absent)));
    }

    #[test]
    fn a_slow_one_is_asked_when_it_opens_but_holds_up_nobody() {
        let mut routing = Routing::new(2);
        routing.opened(1, 5);
        routing.ask(path("a"));
        assert!(!routing.has_next(1), "all wait for all at first");
        routing.start();
        assert_eq!(asked(&mut routing, Lookup::Absent), 1);
        assert_eq!(routing.ending(), None);
        routing.opened(0, 1);
        assert_eq!(asked(&mut routing, Lookup::Found(found())), 0);
        assert_eq!(routing.ending(), Some((path("a"), Ending::Found(0, found()))));
    }

    #[test]
    fn what_waits_for_a_slow_one_goes_to_the_next_that_opens() {
        let mut routing = Routing::new(2);
        routing.start();
        routing.ask(path("a"));
        routing.opened(1, 5);
        assert_eq!(asked(&mut routing, Lookup::Absent), 1);
        routing.down(0);
        assert_eq!(routing.ending(), Some((path("a"), Ending::Unknown)));
    }

    fn any_lookup() -> impl Strategy<Value = Lookup> {
        prop_oneof![
            Just(Lookup::Found(found())),
            Just(Lookup::Untrusted),
            Just(Lookup::Absent),
            Just(Lookup::Strange(String::new())),
        ]
    }

    proptest! {
        #[test]
        fn every_question_ends_once_and_says_what_was_answered(
            lookups in prop::collection::vec(prop::collection::vec(any_lookup(), 3), 1..8),
            priorities in prop::collection::vec(0i64..3, 3),
            down_after in prop::option::of(0usize..8),
        ) {
            let mut routing = open(&priorities);
            let paths: Vec<StorePath> = (0..lookups.len()).map(|number| path(&number.to_string())).collect();
            for path in &paths {
                routing.ask(path.clone());
            }
            let mut said: Vec<Vec<Lookup>> = vec![Vec::new(); paths.len()];
            let mut turns = 0;
            while let Some(at) = (0..3).find(|&at| routing.has_next(at)) {
                let question = routing.next(at).unwrap();
                let number = paths.iter().position(|path| *path == question.path).unwrap();
                let lookup = lookups[number][at].clone();
                said[number].push(lookup.clone());
                routing.answered(at, question, lookup);
                turns += 1;
                if down_after == Some(turns) {
                    routing.down(0);
                }
            }
            let mut ended = Vec::new();
            while let Some((path, ending)) = routing.ending() {
                let number = paths.iter().position(|known| *known == path).unwrap();
                let said = &said[number];
                prop_assert!(said.len() <= 3);
                match ending {
                    Ending::Found(at, _) => prop_assert_eq!(&lookups[number][at], said.last().unwrap()),
                    Ending::Absent => {
                        prop_assert_eq!(said.len(), 3);
                        prop_assert!(said.iter().all(|lookup| matches!(lookup, Lookup::Absent | Lookup::Untrusted)));
                    }
                    Ending::Unknown => {
                        prop_assert!(said.len() < 3 || said.iter().any(|lookup| matches!(lookup, Lookup::Strange(_))));
                    }
                }
                ended.push(number);
            }
            ended.sort_unstable();
            prop_assert_eq!(ended, (0..paths.len()).collect::<Vec<_>>());
        }
    }
}
