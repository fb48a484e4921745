//! A worker: a thread with an evaluator process, which answers one attribute after another.

use std::io;
use std::sync::atomic::AtomicBool;

use crossbeam_channel::{Receiver, Sender};
use phoenix_model::Severity;

use crate::evaluator::{Answer, Death, Evaluator, Handle, Question, Talk, quote};
use crate::prepare::Prepared;
use crate::said::Said;
use crate::walk::{Inspect, list_in_nix};

/// What a worker is to do.
pub(crate) enum Job {
    /// Answer this, in a new process if `fresh`.
    Ask { inspect: Inspect, fresh: bool },
    /// End the process; another one is started when there is something to do.
    End,
}

/// What a worker tells.
pub(crate) enum Told {
    /// It has started a process.
    Started { worker: usize, handle: Handle },
    /// Its process said something.
    Said { worker: usize, said: Said },
    /// It has an answer.
    Answered { worker: usize, inspect: Inspect, reply: Reply },
    /// It was stopped, and does nothing any more.
    Stopped,
    /// No process can be started.
    Lost(io::Error),
}

/// An answer.
pub(crate) enum Reply {
    /// What is there.
    Text { json: String, said: Vec<(Severity, String)> },
    /// Nix's error. `thrown`: the flake throws it itself, so that it comes again whenever this is evaluated.
    Error { error: String, said: Vec<(Severity, String)>, thrown: bool },
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
        let (inspect, fresh) = match job {
            Job::Ask { inspect, fresh } => (inspect, fresh),
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
            None => match prepared.evaluator() {
                Ok(started) => {
                    let _ = told.send(Told::Started { worker, handle: started.handle() });
                    evaluator.insert(started)
                }
                Err(error) => {
                    let _ = told.send(Told::Lost(error));
                    return None;
                }
            },
        };
        let Some(reply) = ask(worker, current, prepared, &inspect, told, stop) else {
            let _ = told.send(Told::Stopped);
            return None;
        };
        if matches!(reply, Reply::Died(_)) {
            evaluator = None;
        }
        let _ = told.send(Told::Answered { worker, inspect, reply });
    }
    evaluator
}

fn ask(
    worker: usize,
    evaluator: &mut Evaluator,
    prepared: &Prepared,
    inspect: &Inspect,
    told: &Sender<Told>,
    stop: &AtomicBool,
) -> Option<Reply> {
    let mut words = Vec::new();
    let mut talk = |talk: Talk<'_>| {
        if let Talk::Line(line) = talk
            && let Some(said) = Said::read(line)
        {
            if said.is_of_the_flake() {
                words.push((said.severity, said.text.clone()));
            }
            let _ = told.send(Told::Said { worker, said });
        }
    };
    let (names, rest) = (inspect.path.names(), inspect.wanted_in_nix());
    let quoted = names.last().map(|name| quote(name));
    let set = list_in_nix(&names[..names.len().saturating_sub(1)]);
    let question = Question { function: "inspect", set, name: quoted.as_deref(), rest };
    match evaluator.ask_at(&question, stop, &mut talk) {
        Answer::Text(json) => Some(Reply::Text { json, said: words }),
        Answer::Error(error) => {
            let thrown = prepared.fingerprint.is_some() && is_thrown(evaluator, &question.whole(), stop);
            Some(Reply::Error { error, said: words, thrown })
        }
        Answer::Died(death) => Some(Reply::Died(death)),
        // It has all the time it wants.
        Answer::Stopped | Answer::Silent => None,
    }
}

/// Whether a question that ended in an error throws: `tryEval` catches what a flake throws, and nothing that went
/// wrong with a download, a build or the machine (nix `src/libexpr/primops.cc`, `prim_tryEval`).
fn is_thrown(evaluator: &mut Evaluator, question: &str, stop: &AtomicBool) -> bool {
    let expression =
        format!("{} + builtins.toJSON (builtins.tryEval ({question})).success", quote(evaluator.mark()));
    evaluator.ask(&expression, stop, &mut |_| {}) == Answer::Text("false".to_owned())
}
