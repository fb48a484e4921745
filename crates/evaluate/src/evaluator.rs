//! One evaluator process: a stock `nix repl` behind pipes.
//!
//! A question is a Nix expression on one line. There is one question at a time. The answer's own line begins with a mark
//! that nobody else knows, so that nothing a flake prints can be taken for it; and so it ends by itself. Where an
//! error comes instead, or nothing for a moment, two markers are asked for as well: what is printed up to them is the
//! answer.
//!
//! Two markers, because many versions (2.8 to 2.26) take a file that ends too soon, wherever it is imported,
//! for a question that goes on on the next line. The first marker, a command of the repl, then makes that
//! question a syntax error and is not printed; so the question is asked again outside of a repl, where the
//! error is told as it is.
//!
//! Neighbours are asked for together, in one question, and answered one by one as they are evaluated. What is thrown is
//! caught and told as thrown; any other error ends the question, and is that of the first that has no answer.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use phoenix_store::{Nix, strip_ansi};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::names::{EACH, END, NAMES_OF, NEXT, SEEN, SOME};
use crate::neighbours::{Neighbours, Turned, Turns, runs, some};
use crate::recording::Tracking;
use crate::trace::{Fault, tidy};
use crate::{guard, left, names};

/// How often it is looked whether to stop.
const TICK: Duration = Duration::from_millis(100);

/// How long answers are gathered where many come one after another: each that is read by itself wakes four threads.
const GATHER: Duration = Duration::from_millis(2);

/// How many answers are many.
const MANY: usize = 8;

/// How the directories of evaluators are called.
const HOME: &str = "phoenix-eval-";

/// What there is to say of an answer that is none.
const UNREADABLE: &str = "the evaluator answered nothing that can be read";

/// How long it may take to break off what it does.
const PATIENCE: Duration = Duration::from_secs(2);

/// From how many on they are asked for by their numbers.
const NUMBERED: usize = 8;

/// What follows the mark where that is asked for.
const USES: &str = " uses ";

/// What follows the mark where an attribute throws, and where all are answered.
const THROWN: &str = " thrown";
const DONE: &str = " done";

/// How evaluation is kept from reading what it should not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purity {
    /// As `nix build` without `--impure`.
    Pure,
    /// For versions whose repl is never pure (2.8): no environment, no files outside the store.
    Restricted,
    /// Everything may be read.
    Impure,
}

impl Purity {
    fn apply(self, command: &mut Command) {
        match self {
            Self::Pure => {
                command.args(["--option", "pure-eval", "true"]);
            }
            Self::Restricted => {
                command.args(["--option", "restrict-eval", "true", "--option", "allowed-uris"]);
                command.arg("http:// https:// ssh:// git:// git+ssh:// git+https:// file:// path: git+file:// github: gitlab: sourcehut:");
                command.env("NIX_PATH", "");
            }
            Self::Impure => {}
        }
    }
}

/// What an evaluator answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The text after the mark.
    Text(String),
    /// Nix's error.
    Error(Fault),
    /// The process ended over it.
    Died(Death),
    /// We were told to stop.
    Stopped,
    /// It did not answer in the time it was given.
    Silent,
}

/// How a process ended over a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Death {
    /// What it said last, and how it ended, in words.
    pub(crate) words: String,
    /// Whether it may go better when it is tried again: somebody killed it, or it got no memory.
    pub(crate) may_be_memory: bool,
}

/// A process that somebody else may have to stop, and one that is asked in its place.
#[derive(Debug, Clone)]
pub(crate) struct Handle(Arc<Mutex<Ids>>);

#[derive(Debug, Default)]
struct Ids {
    evaluator: Option<u32>,
    in_its_place: Option<u32>,
}

impl Handle {
    /// Of a process group that was just started, which ends with this process at the latest.
    fn new(id: u32) -> Self {
        guard::guard(id);
        Self(Arc::new(Mutex::new(Ids { evaluator: Some(id), in_its_place: None })))
    }

    fn ids(&self) -> MutexGuard<'_, Ids> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The id of that which is at work, as long as it lives.
    pub(crate) fn id(&self) -> Option<u32> {
        let ids = self.ids();
        ids.in_its_place.or(ids.evaluator)
    }

    /// Stops it at once, with what is asked in its place.
    pub(crate) fn kill(&self) {
        // While this is held nobody waits for them, so that the ids are not those of others.
        let ids = self.ids();
        for id in [ids.in_its_place, ids.evaluator].into_iter().flatten() {
            if let Some(group) = i32::try_from(id).ok().and_then(Pid::from_raw) {
                let _ = kill_process_group(group, Signal::KILL);
            }
        }
    }

    /// It is waited for from now on.
    fn is_gone(&self) {
        if let Some(id) = self.ids().evaluator.take() {
            guard::let_go(id);
        }
    }

    /// A process group was started that is asked in its place.
    fn begin(&self, id: u32) {
        guard::guard(id);
        self.ids().in_its_place = Some(id);
    }

    /// What is asked in its place is waited for from now on.
    fn end(&self) {
        if let Some(id) = self.ids().in_its_place.take() {
            guard::let_go(id);
        }
    }
}

/// What an evaluator says besides the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Talk<'a> {
    /// A line.
    Line(&'a str),
    /// Nothing for a moment.
    Nothing,
}

/// What an evaluator says when it is asked for several attributes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Each<'a> {
    /// The next one is there: the text after the mark.
    Text(String),
    /// The next one throws.
    Thrown,
    /// Something besides.
    Talk(Talk<'a>),
}

/// How a question for several attributes ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Round {
    /// All were told of.
    Whole,
    /// The first that was not told of is this: an error, or the end of the process.
    Broken(Answer),
}

/// A running evaluator. Dropping it ends the process; until then it protects what it instantiated from
/// the garbage collector.
#[derive(Debug)]
pub(crate) struct Evaluator {
    nix: Nix,
    purity: Purity,
    flags: Vec<String>,
    definitions: Vec<String>,
    child: Child,
    handle: Handle,
    stdin: ChildStdin,
    lines: Receiver<String>,
    mark: String,
    /// What it was told of sets.
    turns: Turns,
    /// Whether it is at work on something that nobody waits for any more.
    busy: bool,
    /// Whether nothing may be written to the store.
    read_only: bool,
    /// Who is told of what is asked for of a source.
    tracking: Option<Tracking>,
    /// Whether the last question is one with many answers.
    answers_many: Arc<AtomicBool>,
    _home: left::Made,
}

impl Evaluator {
    /// Starts a process and gives it definitions, each an assignment on one line.
    pub(crate) fn start(
        nix: &Nix,
        purity: Purity,
        flags: &[&str],
        definitions: &[String],
        tracking: Option<&Tracking>,
    ) -> io::Result<Self> {
        // The repl writes a history file; not into the user's.
        let home = left::make_temporary(HOME)?;
        let mark = mark(home.path());
        let mut command = nix.nix(&["repl"]);
        command.args(flags);
        purity.apply(&mut command);
        if let Some(tracking) = tracking {
            tracking.apply(&mut command);
        }
        let (output, writer) = io::pipe()?;
        command
            .env("XDG_DATA_HOME", home.path())
            .env("NO_COLOR", "1")
            .env("TERM", "dumb")
            .stdin(Stdio::piped())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0);
        let mut child = command.spawn()?;
        drop(command);
        let stdin = child.stdin.take().ok_or_else(|| io::Error::other("no pipe to the evaluator"))?;
        let (sender, lines) = crossbeam_channel::bounded(1024);
        let answers_many = Arc::new(AtomicBool::new(false));
        let gathers = answers_many.clone();
        let heard = tracking.map(|tracking| (uses(&mark), tracking.clone()));
        std::thread::spawn(move || {
            let mut reader = BufReader::with_capacity(1 << 16, output);
            let mut line = Vec::new();
            while matches!(reader.read_until(b'\n', &mut line), Ok(count) if count > 0) {
                let text = strip_ansi(&String::from_utf8_lossy(&line));
                line.clear();
                if let Some((uses, tracking)) = &heard
                    && let Some(name) = text.trim_end().strip_prefix(uses)
                {
                    tracking.note(name);
                    continue;
                }
                if sender.send(text.trim_end_matches(['\n', '\r']).to_owned()).is_err() {
                    return;
                }
                if reader.buffer().is_empty() && gathers.load(Ordering::Relaxed) {
                    std::thread::sleep(GATHER);
                }
            }
        });
        let mut this = Self {
            nix: nix.clone(),
            purity,
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            definitions: Vec::new(),
            handle: Handle::new(child.id()),
            child,
            stdin,
            lines,
            mark,
            turns: Turns::default(),
            busy: false,
            read_only: false,
            tracking: tracking.cloned(),
            answers_many,
            _home: home,
        };
        let seen = match this.tracking {
            Some(_) => format!("builtins.trace ({} + name) value", quote(&format!("{}{USES}", this.mark))),
            None => "value".to_owned(),
        };
        this.define(&format!("{SEEN} = name: value: {seen}"))?;
        for definition in definitions {
            this.define(definition)?;
        }
        for (name, word) in [(NEXT, "next"), (END, "end")] {
            let marker = format!("{name} = \"{} \" + \"{word}\"", this.mark);
            this.send(&marker)?;
        }
        let told = format!("if r.success then r.value else \"{}{THROWN}\"", this.mark);
        let each = format!("(_: n: let r = builtins.tryEval (f n); in builtins.trace ({told}) null)");
        let each = format!("builtins.seq (builtins.foldl' {each} null names) \"{}{DONE}\"", this.mark);
        this.send(&format!("{EACH} = f: names: {each}"))?;
        this.send(&some())?;
        Ok(this)
    }

    /// What stops it from elsewhere.
    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The mark an answer has to begin with, as a Nix string.
    pub(crate) fn mark(&self) -> &str {
        &self.mark
    }

    /// Whether each question gets a process of its own.
    pub(crate) fn asks_alone(&self) -> bool {
        self.read_only
    }

    /// Has it write nothing to the store. No repl can be told so: each question gets a process of its own.
    pub(crate) fn write_nothing(&mut self) {
        self.read_only = true;
        self.flags.push("--readonly-mode".to_owned());
    }

    /// Gives it one more definition.
    pub(crate) fn define(&mut self, definition: &str) -> io::Result<()> {
        self.definitions.push(definition.to_owned());
        self.send(definition)
    }

    /// Asks for one of some neighbours, by its name as a string of Nix.
    pub(crate) fn ask_at(
        &mut self,
        neighbours: &Neighbours,
        name: &str,
        stop: &AtomicBool,
        talk: &mut dyn FnMut(Talk<'_>),
    ) -> Answer {
        let whole = neighbours.whole(name);
        if self.read_only {
            return self.ask_alone(&whole, stop);
        }
        let question = self.turn_to(neighbours, false).map(|turned| format!("{} {name}", turned.function()));
        self.ask_within(None, question.as_ref().unwrap_or(&whole), &whole, stop, talk)
    }

    /// Asks for some neighbours, one after another, by their names as strings of Nix. `each` is told of them in their
    /// order, up to the end of the question.
    pub(crate) fn ask_each(
        &mut self,
        neighbours: &Neighbours,
        names: &[String],
        stop: &AtomicBool,
        each: &mut dyn FnMut(Each<'_>),
    ) -> Round {
        if self.read_only {
            return self.ask_each_alone(neighbours, names, stop, each);
        }
        let many = names.len() >= NUMBERED;
        if many && let Err(answer) = self.ask_for_numbers(neighbours, stop, each) {
            return Round::Broken(answer);
        }
        self.answers_many.store(names.len() >= MANY, Ordering::Relaxed);
        let question = match self.turn_to(neighbours, many) {
            None => format!("{EACH} ({}) [{}]", neighbours.function(), names.join(" ")),
            Some(turned) => {
                let numbers = turned.numbers.as_ref().and_then(Option::as_ref);
                let names = match numbers.and_then(|numbers| runs(numbers, names)) {
                    Some(runs) => format!("({SOME} {} [{runs}])", turned.names()),
                    None => format!("[{}]", names.join(" ")),
                };
                format!("{EACH} {} {names}", turned.function())
            }
        };
        let mut sent = self.send(&question);
        let traced = format!("trace: {}", self.mark);
        let done = format!("{}{DONE}", self.mark);
        let (next, end) = (self.marker("next"), self.marker("end"));
        // Nothing but the end of the question has to be waited for, until something strange comes.
        let (mut marked, mut is_whole, mut is_done) = (false, false, false);
        let mut told = 0;
        let mut error: Option<Vec<String>> = None;
        while !is_done || marked {
            let line = match self.lines.recv_timeout(TICK) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) if stop.load(Ordering::Relaxed) => {
                    self.busy = true;
                    return Round::Broken(Answer::Stopped);
                }
                Err(RecvTimeoutError::Timeout) => {
                    if !marked {
                        sent = sent.and_then(|()| self.send_markers());
                        marked = true;
                    }
                    each(Each::Talk(Talk::Nothing));
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let death = self.last_words(&error.unwrap_or_default(), sent.err());
                    return Round::Broken(Answer::Died(death));
                }
            };
            // `:p` prints a string with quotes in some versions and without in others.
            let bare = line.trim_matches('"');
            let answer = line.strip_prefix(&traced);
            if answer.is_some() || bare == done {
                // What looked like an error was none: it went on.
                for line in error.take().unwrap_or_default() {
                    each(Each::Talk(Talk::Line(&line)));
                }
            }
            if let Some(text) = answer {
                told += 1;
                each(if text == THROWN { Each::Thrown } else { Each::Text(text.to_owned()) });
            } else if bare == done {
                is_done = true;
            } else if bare == next {
                is_whole = true;
            } else if bare == end {
                break;
            } else if line.starts_with("nix-repl>") {
                // The echo of what was asked.
            } else if let Some(lines) = &mut error {
                lines.push(line);
            } else if line.starts_with("error:") {
                error = Some(vec![line]);
                if !marked {
                    sent = sent.and_then(|()| self.send_markers());
                    marked = true;
                }
            } else if !line.trim().is_empty() {
                each(Each::Talk(Talk::Line(&line)));
            }
        }
        let has_no_words = !is_whole || error.as_ref().is_some_and(|lines| names::is_unknown(lines));
        match error {
            _ if is_done && told == names.len() => Round::Whole,
            _ if has_no_words && told < names.len() => {
                Round::Broken(self.ask_alone(&neighbours.whole(&names[told]), stop))
            }
            Some(lines) => Round::Broken(Answer::Error(Fault::read(&lines))),
            None => Round::Broken(Answer::Error(Fault::cut_short(UNREADABLE))),
        }
    }

    /// The same with a process for each.
    fn ask_each_alone(
        &self,
        neighbours: &Neighbours,
        names: &[String],
        stop: &AtomicBool,
        each: &mut dyn FnMut(Each<'_>),
    ) -> Round {
        for name in names {
            match self.ask_alone(&neighbours.whole(name), stop) {
                Answer::Text(text) => each(Each::Text(text)),
                other => return Round::Broken(other),
            }
        }
        Round::Whole
    }

    /// Tells it once what is asked for neighbours, if they are many, or come again: what the repl reads costs more than
    /// what it evaluates.
    fn turn_to(&mut self, neighbours: &Neighbours, many: bool) -> Option<&mut Turned> {
        if let Some((turned, true)) = self.turns.turn(neighbours, many) {
            let definition = format!("{} = {}", turned.function(), neighbours.function());
            // A process that is gone says so when it is asked.
            let _ = self.send(&definition);
        }
        self.turns.known(neighbours)
    }

    /// Asks once for the names of all neighbours: their numbers are much less to read. An error is an answer that ends
    /// the question.
    fn ask_for_numbers(
        &mut self,
        neighbours: &Neighbours,
        stop: &AtomicBool,
        each: &mut dyn FnMut(Each<'_>),
    ) -> Result<(), Answer> {
        let Some(turned) = self.turn_to(neighbours, true) else { return Ok(()) };
        if turned.numbers.is_some() {
            return Ok(());
        }
        let names = turned.names();
        let _ = self.send(&format!("{names} = {NAMES_OF} ({})", neighbours.set));
        let question = format!("{} + builtins.toJSON {names}", quote(&self.mark));
        let mut talk = |talk: Talk<'_>| each(Each::Talk(talk));
        let names = match self.ask(&question, stop, &mut talk) {
            Answer::Text(text) => serde_json::from_str::<Vec<String>>(&text).ok(),
            // It comes again with the first of them, where it belongs.
            Answer::Error(_) | Answer::Silent => None,
            ended @ (Answer::Died(_) | Answer::Stopped) => return Err(ended),
        };
        let numbers =
            names.map(|names| names.iter().enumerate().map(|(number, name)| (quote(name), number)).collect());
        if let Some(turned) = self.turn_to(neighbours, true) {
            turned.numbers = Some(numbers);
        }
        Ok(())
    }

    /// Asks for the value of an expression, a string that begins with the mark. `talk` gets the lines
    /// that are neither answer nor error, as they come, and is called when none comes for a moment.
    pub(crate) fn ask(
        &mut self,
        expression: &str,
        stop: &AtomicBool,
        talk: &mut dyn FnMut(Talk<'_>),
    ) -> Answer {
        self.ask_within(None, expression, expression, stop, talk)
    }

    /// The same with a limit to how long the answer may take. `whole` is the same expression without what was only
    /// sent, and not defined.
    pub(crate) fn ask_within(
        &mut self,
        limit: Option<Duration>,
        expression: &str,
        whole_expression: &str,
        stop: &AtomicBool,
        talk: &mut dyn FnMut(Talk<'_>),
    ) -> Answer {
        if self.read_only {
            return self.ask_alone(expression, stop);
        }
        self.answers_many.store(false, Ordering::Relaxed);
        let begin = Instant::now();
        let sent = self.send(expression).and_then(|()| self.send_markers());
        let (next, end) = (self.marker("next"), self.marker("end"));
        let value = format!("\"{}", self.mark);
        let mut whole = false;
        let mut answer = None;
        let mut error: Option<Vec<String>> = None;
        loop {
            if limit.is_some_and(|limit| begin.elapsed() > limit) {
                self.busy = true;
                return Answer::Silent;
            }
            let line = match self.lines.recv_timeout(TICK) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) if stop.load(Ordering::Relaxed) => {
                    self.busy = true;
                    return Answer::Stopped;
                }
                Err(RecvTimeoutError::Timeout) => {
                    talk(Talk::Nothing);
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Answer::Died(self.last_words(&error.unwrap_or_default(), sent.err()));
                }
            };
            // `:p` prints a string with quotes in some versions and without in others.
            let bare = line.trim_matches('"');
            if bare == next {
                whole = true;
                continue;
            }
            if bare == end {
                break;
            }
            // The echo of what was asked.
            if line.starts_with("nix-repl>") {
                continue;
            }
            if let Some(text) = line.strip_prefix(&value) {
                answer = unquote(text);
            } else if let Some(lines) = &mut error {
                lines.push(line);
            } else if line.starts_with("error:") {
                error = Some(vec![line]);
            } else if !line.trim().is_empty() {
                talk(Talk::Line(&line));
            }
        }
        match (answer, error) {
            _ if !whole => self.ask_alone(whole_expression, stop),
            (Some(text), _) => Answer::Text(text),
            (None, Some(lines)) if names::is_unknown(&lines) => self.ask_alone(whole_expression, stop),
            (None, Some(lines)) => Answer::Error(Fault::read(&lines)),
            (None, None) => Answer::Error(Fault::cut_short(UNREADABLE)),
        }
    }

    /// Asks in a process of its own that is no repl.
    fn ask_alone(&self, expression: &str, stop: &AtomicBool) -> Answer {
        let script = format!("let {}; in {expression}", self.definitions.join("; "));
        let mut command = self.nix.nix_instantiate(&["--eval", "-"]);
        command.args(&self.flags);
        self.purity.apply(&mut command);
        if let Some(tracking) = &self.tracking {
            tracking.apply(&mut command);
        }
        let answer = self.output_of(&mut command, &script, stop);
        if stop.load(Ordering::Relaxed) {
            return Answer::Stopped;
        }
        let uses = uses(&self.mark);
        if let (Some(tracking), Ok(output)) = (&self.tracking, &answer) {
            let said = strip_ansi(&String::from_utf8_lossy(&output.stderr));
            said.lines()
                .filter_map(|line| line.trim_end().strip_prefix(&uses))
                .for_each(|name| tracking.note(name));
        }
        match answer {
            Ok(output) if output.status.success() => {
                let text = strip_ansi(&String::from_utf8_lossy(&output.stdout));
                let text = text.trim_end().strip_prefix('"').and_then(|text| text.strip_prefix(&self.mark));
                match text.and_then(unquote) {
                    Some(text) => Answer::Text(text),
                    None => Answer::Error(Fault::passing(UNREADABLE)),
                }
            }
            Ok(output) if output.status.signal().is_some() => {
                let said = String::from_utf8_lossy(&output.stderr);
                let lines: Vec<String> = strip_ansi(&said).lines().map(str::to_owned).collect();
                Answer::Died(Death::of(&lines, Ok(output.status), None))
            }
            Ok(output) => {
                // Ours is a string in a repl; that a trace is cut short is no part of the error.
                let text =
                    strip_ansi(&String::from_utf8_lossy(&output.stderr)).replace("«stdin»", "«string»");
                let lines = text.lines().filter(|line| {
                    !line.starts_with("(use '--show-trace'")
                        && !line.trim().starts_with("(stack trace truncated")
                        && !line.starts_with(&uses)
                });
                Answer::Error(Fault::read(&lines.map(str::to_owned).collect::<Vec<_>>()))
            }
            Err(error) => Answer::Error(Fault::passing(format!(
                "syntax error: a file that it imports ends too soon (which one, `nix-instantiate` could not \
                 be asked: {error})"
            ))),
        }
    }

    /// Runs a command of Nix's that reads a text from a pipe, in the place of this process, until it ends or is to stop.
    fn output_of(&self, command: &mut Command, text: &str, stop: &AtomicBool) -> io::Result<Output> {
        let mut child = speaking(command).process_group(0).spawn()?;
        self.handle.begin(child.id());
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (ended, until_end) = crossbeam_channel::bounded::<()>(0);
        let (stdout, stderr) = std::thread::scope(|scope| {
            scope.spawn(|| {
                while until_end.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                    if stop.load(Ordering::Relaxed) {
                        self.handle.kill();
                    }
                }
            });
            scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(text.as_bytes())));
            let errors = scope.spawn(|| all_of(stderr));
            let output = all_of(stdout);
            let errors = errors.join().unwrap_or_default();
            drop(ended);
            (output, errors)
        });
        self.handle.end();
        Ok(Output { status: child.wait()?, stdout, stderr })
    }

    /// A marker as it is printed.
    fn marker(&self, word: &str) -> String {
        format!("{} {word}", self.mark)
    }

    fn send(&mut self, line: &str) -> io::Result<()> {
        self.stdin.write_all(format!("{line}\n").as_bytes())
    }

    fn send_markers(&mut self) -> io::Result<()> {
        self.send(&format!(":p {NEXT}\n:p {END}"))
    }

    fn last_words(&mut self, lines: &[String], sent: Option<io::Error>) -> Death {
        self.handle.is_gone();
        Death::of(lines, self.child.wait(), sent)
    }
}

impl Death {
    /// By what a process said last, how it ended, and why nothing could be said to it any more.
    fn of(lines: &[String], ended: io::Result<ExitStatus>, sent: Option<io::Error>) -> Self {
        let mut may_be_memory = false;
        let end = match ended {
            Ok(status) => match (status.code(), status.signal()) {
                (_, Some(11 | 7 | 10)) => {
                    "the evaluator crashed, most likely because its stack overflowed (possible infinite recursion)"
                        .to_owned()
                }
                (_, Some(9)) => {
                    may_be_memory = true;
                    "the evaluator was killed, maybe for want of memory".to_owned()
                }
                (_, Some(signal)) => {
                    may_be_memory = true;
                    format!("the evaluator was ended by signal {signal}")
                }
                (Some(code), None) => format!("the evaluator ended with exit code {code}"),
                (None, None) => "the evaluator ended".to_owned(),
            },
            Err(error) => format!("the evaluator ended ({error})"),
        };
        let said = tidy(lines);
        let words = match (said.is_empty(), sent) {
            (false, _) => format!("{said}\n({end})"),
            (true, Some(error)) => format!("{end} ({error})"),
            (true, None) => end,
        };
        Self { words, may_be_memory }
    }
}

impl Evaluator {
    /// Has it break off what it does. What it builds meanwhile runs in a session of its own, which only Nix ends.
    fn interrupt(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::INT);
        }
        let end = self.marker("end");
        let deadline = Instant::now() + PATIENCE;
        while let Ok(line) = self.lines.recv_deadline(deadline) {
            if line.trim_matches('"') == end {
                return;
            }
        }
    }
}

impl Drop for Evaluator {
    fn drop(&mut self) {
        if self.busy {
            self.interrupt();
        }
        // It may be gone already.
        self.handle.kill();
        self.handle.is_gone();
        let _ = self.child.wait();
    }
}

/// What comes up to the end; that more cannot be read is told by how the process ended.
fn all_of(from: Option<impl io::Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = from.map(|mut from| from.read_to_end(&mut bytes));
    bytes
}

/// A command of Nix's that is told something and listened to, and speaks without colours.
fn speaking(command: &mut Command) -> &mut Command {
    command.env("NO_COLOR", "1").env("TERM", "dumb");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped())
}

/// Runs a command of Nix's that reads a text from a pipe.
pub(crate) fn output_of(command: &mut Command, text: &str) -> io::Result<Output> {
    let mut child = speaking(command).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes())?;
    }
    child.wait_with_output()
}

/// Whether an error is none of Nix's language: its stack overflowed, which Nix survives since 2.30 or so, or the
/// evaluator ended over it.
#[must_use]
pub fn is_crash(error: &str) -> bool {
    let last = error.lines().next_back().unwrap_or_default().trim_start_matches('(');
    let ends =
        ["the evaluator crashed", "the evaluator was", "the evaluator ended", "it needs more memory than"];
    ends.iter().any(|begin| last.starts_with(begin)) || error.contains("stack overflow")
}

/// A word nobody can know beforehand: the random name of a directory made for this process.
fn mark(directory: &std::path::Path) -> String {
    let name = directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    format!("@@{name}@@")
}

/// How a line begins that tells of something that is asked for of a source.
fn uses(mark: &str) -> String {
    format!("trace: {mark}{USES}")
}

/// Reads the rest of a string as the repl prints it, up to its closing quote.
fn unquote(text: &str) -> Option<String> {
    let body = text.strip_suffix('"')?;
    let mut plain = String::with_capacity(body.len());
    let mut chars = body.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => plain.push(match chars.next()? {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                other => other,
            }),
            other => plain.push(other),
        }
    }
    Some(plain)
}

/// A text as a Nix string literal on one line. What a terminal would take for a command is written as numbers, for so
/// does the repl; `__fromJSON` is `builtins.fromJSON` by a name that nobody gives anything else.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for char in text.chars() {
        match char {
            '"' | '\\' | '$' => quoted.extend(['\\', char]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            control if control.is_ascii_control() => {
                quoted.push_str(&format!("${{__fromJSON \"\\\"\\\\u{:04x}\\\"\"}}", u32::from(control)));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_crash_is_told_from_errors_of_the_language() {
        assert!(is_crash("stack overflow; max-call-depth exceeded\n\nat /x.nix:1:2:"));
        assert!(is_crash("boom\n(the evaluator was killed, maybe for want of memory)"));
        assert!(!is_crash("infinite recursion encountered"));
        assert!(!is_crash("the evaluator crashed\nis what a flake says"));
    }

    proptest! {
        #[test]
        fn quoting_and_unquoting_are_one(text in "[a-z\"\\\\\n\t${}é ]{0,30}") {
            let quoted = quote(&text);
            prop_assert_eq!(unquote(quoted.strip_prefix('"').unwrap()).unwrap(), text);
        }
    }
}
