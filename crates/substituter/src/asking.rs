//! The thread that asks: waits for questions and answers, and keeps every substituter busy.

use std::collections::HashSet;
use std::future::Future;
use std::rc::Rc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use phoenix_model::{Source, Status, StorePath};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::routing::{Ending, Lookup, Question, Routing};
use crate::store::{Opened, Store};
use crate::{Heard, Location, Netrc, PublicKeys, Settings};

/// How long the first questions wait for all substituters to say what they are. One that takes longer is
/// asked later, for what the others have not.
const PATIENCE: Duration = Duration::from_secs(3);

/// All substituters and all questions.
pub(crate) struct Asking {
    stores: Vec<Member>,
    routing: Routing,
    heard: Sender<Heard>,
}

struct Member {
    store: Rc<Store>,
    in_flight: usize,
    said_strange: bool,
    said_untrusted: bool,
}

impl Asking {
    pub(crate) fn new(settings: &Settings, heard: Sender<Heard>) -> Self {
        let netrc = settings.netrc_file.as_ref().and_then(|file| std::fs::read(file).ok());
        let netrc = netrc.map(|text| Netrc::parse(&String::from_utf8_lossy(&text))).unwrap_or_default();
        let keys = PublicKeys::parse(settings.trusted_public_keys.iter().map(String::as_str));
        let mut seen = HashSet::new();
        let stores: Vec<Member> = settings
            .substituters
            .iter()
            .filter(|url| seen.insert(url.as_str()))
            .map(|url| Store::new(Location::parse(url), settings, &netrc, &keys))
            .map(|store| Member {
                store: Rc::new(store),
                in_flight: 0,
                said_strange: false,
                said_untrusted: false,
            })
            .collect();
        Self { routing: Routing::new(stores.len()), stores, heard }
    }

    /// Answers questions until no more can come.
    pub(crate) async fn run(mut self, mut questions: UnboundedReceiver<Vec<StorePath>>) {
        let mut opening: FuturesUnordered<_> = self.stores.iter().enumerate().map(open).collect();
        let mut looking = FuturesUnordered::new();
        let patience = tokio::time::sleep(PATIENCE);
        tokio::pin!(patience);
        let mut patient = true;
        loop {
            tokio::select! {
                asked = questions.recv() => match asked {
                    Some(paths) => paths.into_iter().for_each(|path| self.routing.ask(path)),
                    None => return,
                },
                Some((at, lookups)) = looking.next() => self.answered(at, lookups),
                Some((at, opened)) = opening.next() => self.opened(at, opened),
                () = &mut patience, if patient => {
                    patient = false;
                    self.routing.start();
                }
            }
            self.tell_endings();
            for at in 0..self.stores.len() {
                while let Some(lookup) = self.next_lookup(at) {
                    looking.push(lookup);
                }
            }
        }
    }

    /// The next lookup of a substituter, if it is to have one more.
    fn next_lookup(
        &mut self,
        at: usize,
    ) -> Option<impl Future<Output = (usize, Vec<(Question, Lookup)>)> + use<>> {
        let member = &mut self.stores[at];
        if member.in_flight >= member.store.window() || !self.routing.has_next(at) {
            return None;
        }
        member.in_flight += 1;
        let store = Rc::clone(&member.store);
        let routing = &mut self.routing;
        let questions: Vec<Question> = std::iter::from_fn(|| routing.next(at)).take(store.batch()).collect();
        Some(async move {
            let paths: Vec<StorePath> = questions.iter().map(|question| question.path.clone()).collect();
            let lookups = store.lookup(&paths).await;
            (at, questions.into_iter().zip(lookups).collect())
        })
    }

    fn opened(&mut self, at: usize, opened: Opened) {
        match opened {
            Opened::Ours(priority) => self.routing.opened(at, priority),
            Opened::Foreign(problem) => {
                self.tell(Heard::Failed { url: self.shown(at), problem });
                self.routing.foreign(at);
            }
            Opened::Failed(problem) => self.failed(at, problem),
        }
    }

    fn failed(&mut self, at: usize, problem: String) {
        self.stores[at].store.shut();
        if self.routing.down(at) {
            self.tell(Heard::Failed { url: self.shown(at), problem });
        }
    }

    fn answered(&mut self, at: usize, lookups: Vec<(Question, Lookup)>) {
        self.stores[at].in_flight -= 1;
        for (question, lookup) in lookups {
            match &lookup {
                Lookup::Failed(problem) => self.failed(at, problem.clone()),
                Lookup::Strange(problem) if !self.stores[at].said_strange => {
                    self.stores[at].said_strange = true;
                    self.tell(Heard::Strange { url: self.shown(at), problem: problem.clone() });
                }
                Lookup::Untrusted if !self.stores[at].said_untrusted => {
                    self.stores[at].said_untrusted = true;
                    self.tell(Heard::Untrusted { url: self.shown(at), example: question.path.clone() });
                }
                Lookup::Found(_) | Lookup::Absent | Lookup::Strange(_) | Lookup::Untrusted => {}
            }
            self.routing.answered(at, question, lookup);
        }
    }

    fn tell_endings(&mut self) {
        while let Some((path, ending)) = self.routing.ending() {
            let (status, found) = match ending {
                Ending::Found(at, found) => {
                    (Status::Present(Source::Substituter(self.shown(at))), Some(found))
                }
                Ending::Absent => (Status::Absent, None),
                Ending::Unknown => (Status::Unknown, None),
            };
            self.tell(Heard::Answer { path, status, found });
        }
    }

    fn shown(&self, at: usize) -> String {
        self.stores[at].store.location.shown()
    }

    fn tell(&self, heard: Heard) {
        // Nobody listens any more when it was stopped.
        let _ = self.heard.send(heard);
    }
}

fn open((at, member): (usize, &Member)) -> impl Future<Output = (usize, Opened)> + use<> {
    let store = Rc::clone(&member.store);
    async move { (at, store.open().await) }
}
