//! A worker: a thread with an evaluator process, which answers one attribute after another.

use std::io;
use std::sync::atomic::AtomicBool;

use crossbeam_channel::{Receiver, Sender};
use phoenix_model::Severity;

use crate::evaluator::{Answer, Death, Each, Evaluator, Handle, Round, Talk, quote};
use crate::names::INSPECT;
use crate::neighbours::Neighbours;
use crate::prepare::Prepared;
use crate::said::Said;
use crate::trace::Fault;
use crate::walk::{Inspect, list_in_nix};

/// What a worker is to do.
pub(crate) enum Job {
    /// Answer these, in a new process if `fresh`. Where there is more than one, all are neighbours that are asked for
    /// the same.
    Ask { inspects: Vec<Inspect>, fresh: bool },
    /// End the process; another one is started when there is something to do.
    End,
}

/// What a worker tells.
pub(crate) enum Told {
    /// It has started a process.
    Started { worker: usize, handle: Handle },
    /// Its process said something.
    Said { worker: usize, said: Said },
    /// The next one throws; what it says comes after the others.
    SetAside { worker: usize, inspect: Inspect },
    /// It has an answer.
    Answered { worker: usize, inspect: Inspect, reply: Reply },
    /// It has done what it was given, but for what has no answer because its process ended.
    Done { worker: usize },
    /// It was stopped, and does nothing any more.
    Stopped,
    /// No process can be started for what it was given.
    Lost { worker: usize, error: io::Error },
}

/// An answer.
pub(crate) enum Reply {
    /// What is there.
    Text { json: String, said: Vec<(Severity, String)> },
    /// Nix's error. `lasts`: the flake throws it itself, or it is one of the language, so that it comes again whenever
    /// this is evaluated. `prints_progress`: its text depends on what the process was asked before.
    Error { error: String, said: Vec<(Severity, String)>, lasts: bool, prints_progress: bool },
    /// The process ended over it.
    Died(Death),
}

/// Works until there is nothing more to do; returns the process, which protects what it instantiated.
pub(crate) fn work(
    worker: usize,
    prepared: &Prepared,
    todo: &Receiver<Job>,
    told: &Sender<Told>,
    stop: &AtomicBool,
) -> Option<Evaluator> {
    let mut evaluator: Option<Evaluator> = None;
    for job in todo {
        let (inspects, fresh) = match job {
            Job::Ask { inspects, fresh } => (inspects, fresh),
            Job::End => {
                evaluator = None;
                continue;
            }
        };
        if fresh {
            evaluator = None;
        }
        let current = match evaluator.as_mut() {
            Some(current) => current,
            None => match started(prepared, stop) {
                Ok(started) => {
                    let _ = told.send(Told::Started { worker, handle: started.handle() });
                    evaluator.insert(started)
                }
                Err(error) => {
                    let _ = told.send(Told::Lost { worker, error });
                    continue;
                }
            },
        };
        match (Asking { worker, evaluator: current, prepared, told, stop }).all(inspects) {
            Ended::Done => {}
            Ended::Died => evaluator = None,
            Ended::Stopped => {
                let _ = told.send(Told::Stopped);
                return None;
            }
        }
        let _ = told.send(Told::Done { worker });
    }
    evaluator
}

/// How often a process is started that somebody ends at once.
const STARTS: usize = 10;

/// Starts a process; another one if somebody ends it at once.
fn started(prepared: &Prepared, stop: &AtomicBool) -> io::Result<Evaluator> {
    for _ in 1..STARTS {
        match prepared.evaluator(stop) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            started => return started,
        }
    }
    prepared.evaluator(stop)
}

/// How it ended that something was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Done,
    /// With the process.
    Died,
    Stopped,
}

/// A process that is asked.
struct Asking<'a> {
    worker: usize,
    evaluator: &'a mut Evaluator,
    prepared: &'a Prepared,
    told: &'a Sender<Told>,
    stop: &'a AtomicBool,
}

/// What a flake says on the way to an answer.
type Words = Vec<(Severity, String)>;

impl Asking<'_> {
    /// Answers all of some neighbours, unless the process ends over one.
    fn all(&mut self, inspects: Vec<Inspect>) -> Ended {
        let Some(first) = inspects.first() else { return Ended::Done };
        let (neighbours, names) = (neighbours(first), inspects.iter().filter_map(name).collect::<Vec<_>>());
        if names.len() < inspects.len() {
            // The root has no name, and no neighbours.
            return self.root(first.clone());
        }
        let mut thrown = Vec::new();
        let mut left = inspects.into_iter().peekable();
        while left.peek().is_some() {
            let mut words = Words::new();
            let names = &names[names.len() - left.len()..];
            let (worker, told) = (self.worker, self.told);
            let round = self.evaluator.ask_each(&neighbours, names, self.stop, &mut |each| match each {
                Each::Talk(talk) => hear(worker, told, talk, &mut words),
                Each::Text(json) => {
                    if let Some(inspect) = left.next() {
                        let reply = Reply::Text { json, said: std::mem::take(&mut words) };
                        let _ = told.send(Told::Answered { worker, inspect, reply });
                    }
                }
                Each::Thrown => {
                    if let Some(inspect) = left.next() {
                        let _ = told.send(Told::SetAside { worker, inspect: inspect.clone() });
                        thrown.push((inspect, std::mem::take(&mut words)));
                    }
                }
            });
            let Round::Broken(answer) = round else { continue };
            let Some(inspect) = left.next() else { break };
            // What is thrown is told otherwise, but not where each is asked for in a process of its own.
            let (answer, thrown) = if self.evaluator.asks_alone() && is_cut_short(&answer) {
                let again = self.evaluator.ask(&inspect.question(), self.stop, &mut |_| {});
                let thrown = is_cut_short(&again);
                (again, thrown)
            } else {
                (answer, false)
            };
            match self.told(inspect, answer, words, thrown) {
                Ended::Done => {}
                ended => return ended,
            }
        }
        for (inspect, words) in thrown {
            let Some(name) = name(&inspect) else { continue };
            // It says again what it said before.
            let mut answer = self.evaluator.ask_at(&neighbours, &name, self.stop, &mut |_| {});
            if is_cut_short(&answer) {
                // What it says twice are its own words.
                answer = self.evaluator.ask_at(&neighbours, &name, self.stop, &mut |_| {});
            }
            match self.told(inspect, answer, words, true) {
                Ended::Done => {}
                ended => return ended,
            }
        }
        Ended::Done
    }

    fn root(&mut self, inspect: Inspect) -> Ended {
        let question = inspect.question();
        let mut words = Words::new();
        let mut talk = |talk: Talk<'_>| hear(self.worker, self.told, talk, &mut words);
        let answer = self.evaluator.ask(&question, self.stop, &mut talk);
        let is_to_be_known = |fault: &Fault| {
            !fault.lasts && (self.prepared.fingerprint.is_some() || fault.cut_short.is_some())
        };
        let thrown =
            matches!(&answer, Answer::Error(fault) if is_to_be_known(fault)) && self.is_thrown(&question);
        self.told(inspect, answer, words, thrown)
    }

    /// Tells of an answer.
    fn told(&self, inspect: Inspect, answer: Answer, said: Words, thrown: bool) -> Ended {
        let (reply, ended) = match answer {
            Answer::Text(json) => (Reply::Text { json, said }, Ended::Done),
            Answer::Error(Fault { cut_short: Some(words), .. }) if !thrown => {
                (Reply::Died(Death { words, may_be_memory: true }), Ended::Died)
            }
            Answer::Error(Fault { text, lasts, prints_progress, .. }) => {
                let lasts = thrown || lasts;
                (Reply::Error { error: text, said, lasts, prints_progress }, Ended::Done)
            }
            Answer::Died(death) => (Reply::Died(death), Ended::Died),
            // It has all the time it wants.
            Answer::Stopped | Answer::Silent => return Ended::Stopped,
        };
        let _ = self.told.send(Told::Answered { worker: self.worker, inspect, reply });
        ended
    }

    /// Whether a question that ended in an error throws: `tryEval` catches what a flake throws, and nothing that went
    /// wrong with a download, a build or the machine (nix `src/libexpr/primops.cc`, `prim_tryEval`).
    fn is_thrown(&mut self, question: &str) -> bool {
        let mark = quote(self.evaluator.mark());
        let expression = format!("{mark} + builtins.toJSON (builtins.tryEval ({question})).success");
        self.evaluator.ask(&expression, self.stop, &mut |_| {}) == Answer::Text("false".to_owned())
    }
}

/// Whether somebody ended what was asked, or a flake says so.
fn is_cut_short(answer: &Answer) -> bool {
    matches!(answer, Answer::Error(Fault { cut_short: Some(_), .. }))
}

/// Passes on what a process says.
fn hear(worker: usize, told: &Sender<Told>, talk: Talk<'_>, words: &mut Words) {
    if let Talk::Line(line) = talk
        && let Some(said) = Said::read(line)
    {
        if said.is_of_the_flake() {
            words.push((said.severity, said.text.clone()));
        }
        let _ = told.send(Told::Said { worker, said });
    }
}

/// The name of an attribute, as a string of Nix; the root has none.
fn name(inspect: &Inspect) -> Option<String> {
    inspect.path.names().last().map(|name| quote(name))
}

/// What an attribute and its neighbours are asked for.
fn neighbours(inspect: &Inspect) -> Neighbours {
    let names = inspect.path.names();
    let set = list_in_nix(&names[..names.len().saturating_sub(1)]);
    Neighbours { function: INSPECT, set, rest: inspect.wanted_in_nix() }
}

/// Whether two attributes can be asked for in one question.
pub(crate) fn are_neighbours(one: &Inspect, other: &Inspect) -> bool {
    let (Some((_, set)), Some((_, other_set))) =
        (one.path.names().split_last(), other.path.names().split_last())
    else {
        return false;
    };
    set == other_set && one.asks_the_same_as(other)
}
