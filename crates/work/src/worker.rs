//! The loop that does what the state machine says.

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use phoenix_model::Stamp;
use phoenix_schedule::farm::{Command, Ends, Leaving, Notice, Record, UnitId, Worker};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::{Cursor, Exchange, Ledger, LedgerError, Parcels, Trouble};

/// How a worker deals with time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How often it shows that it is alive.
    pub beat: Duration,
    /// How often it looks at the ledger while it fetches or builds.
    pub look: Duration,
    /// For how long a request to the ledger is tried again.
    pub patience: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            beat: Duration::from_secs(15),
            look: Duration::from_secs(15),
            patience: Duration::from_secs(300),
        }
    }
}

/// Works until there is nothing more to do; returns why.
///
/// `stop` holds a reason once the worker is to end: what is being built is then broken off and given back.
/// Needs a Tokio runtime with its clock.
pub async fn work(
    worker: Worker,
    ledger: &dyn Ledger,
    exchange: &dyn Exchange,
    settings: &Settings,
    stop: watch::Receiver<Option<String>>,
) -> Leaving {
    let slot = worker.slot();
    let beating = async {
        for count in 1.. {
            // One that is missed is made up for by the next.
            let _ = ledger.beat(slot, count).await;
            sleep(settings.beat).await;
        }
    };
    let working = Loop {
        worker,
        ledger,
        exchange,
        settings,
        stop,
        begun: Instant::now(),
        cursor: Cursor::default(),
        queue: VecDeque::new(),
        parcels: Arc::default(),
        job: None,
        builds: false,
        ahead: None,
        wake: None,
        stopped: false,
    };
    tokio::select! {
        leaving = working.run() => leaving,
        () = beating => Leaving::Done,
    }
}

/// How long it is waited for what was broken off, and for what is saved of it, before the unit is given back.
const BREAK_OFF: Duration = Duration::from_secs(30);

/// What fetching and building come to.
enum Done {
    Fetched(Result<(), Trouble>),
    Built(Result<Ends, Trouble>),
}

struct Loop<'a> {
    worker: Worker,
    ledger: &'a dyn Ledger,
    exchange: &'a dyn Exchange,
    settings: &'a Settings,
    stop: watch::Receiver<Option<String>>,
    begun: Instant,
    cursor: Cursor,
    queue: VecDeque<Command>,
    parcels: Arc<Parcels>,
    job: Option<Pin<Box<dyn Future<Output = Done> + Send + 'a>>>,
    /// Whether that builds.
    builds: bool,
    /// What was begun to be fetched for later.
    ahead: Option<UnitId>,
    wake: Option<Instant>,
    stopped: bool,
}

impl Loop<'_> {
    async fn run(mut self) -> Leaving {
        self.tell(Notice::Woken);
        let mut look_at = Instant::now() + self.settings.look;
        loop {
            while let Some(command) = self.queue.pop_front() {
                if let Some(leaving) = self.follow(command).await {
                    return leaving;
                }
            }
            let busy = self.job.is_some();
            let wake = self.wake.filter(|_| !busy);
            tokio::select! {
                done = finished(&mut self.job) => {
                    self.job = None;
                    self.done(done);
                }
                () = until(wake) => {
                    self.wake = None;
                    self.tell(Notice::Woken);
                }
                () = sleep_until(look_at), if busy => {
                    look_at = Instant::now() + self.settings.look;
                    // What is new may end the build; that nothing can be heard does not.
                    if let Ok(records) = self.ledger.since(&mut self.cursor).await {
                        self.tell(Notice::News(&records));
                        self.look_ahead();
                    }
                }
                reason = told_to_stop(&mut self.stop), if !self.stopped => {
                    self.stopped = true;
                    self.tell(Notice::Stop { reason });
                }
            }
        }
    }

    fn tell(&mut self, notice: Notice<'_>) {
        if let Notice::News(records) = &notice {
            for (unit, parcel) in records.iter().filter_map(Record::parcel) {
                Arc::make_mut(&mut self.parcels).add(unit, parcel);
            }
        }
        self.queue.extend(self.worker.apply(self.now(), notice));
    }

    fn now(&self) -> Stamp {
        Stamp(u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Has what comes next fetched while something is built.
    fn look_ahead(&mut self) {
        let coming = self.worker.coming(self.now()).filter(|unit| self.ahead != Some(*unit));
        if let Some(unit) = coming {
            self.ahead = Some(unit);
            let derivations = self.worker.board().to_build(unit.0);
            self.exchange.prefetch(unit, &derivations, &self.parcels);
        }
    }

    /// The derivations that somebody has yet to build, as far as is known here.
    fn open(&self) -> Vec<u32> {
        let board = self.worker.board();
        let units = (0..).take(board.plan().units().len());
        units.filter(|unit| !board.is_settled(*unit)).flat_map(|unit| board.to_build(unit)).collect()
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Fetched(Ok(())) => self.tell(Notice::Fetched),
            Done::Built(Ok(Ends { built, failed, parcel })) => {
                self.tell(Notice::Built { built, failed, parcel });
            }
            Done::Fetched(Err(trouble)) | Done::Built(Err(trouble)) => {
                self.tell(Notice::Interrupted { reason: trouble.why, ends: trouble.ends });
            }
        }
    }

    /// Does what is wanted, and tells what came of it; why the worker leaves, if it does.
    async fn follow(&mut self, command: Command) -> Option<Leaving> {
        let (ledger, exchange, patience) = (self.ledger, self.exchange, self.settings.patience);
        match command {
            Command::Look => {
                let begin = self.cursor;
                let asked = || async move {
                    let mut cursor = begin;
                    ledger.since(&mut cursor).await.map(|records| (records, cursor))
                };
                match again(patience, asked).await {
                    Ok((records, cursor)) => {
                        self.cursor = cursor;
                        self.tell(Notice::News(&records));
                    }
                    Err(error) => self.lost(&error),
                }
            }
            Command::Listen => match again(patience, || ledger.beats()).await {
                Ok(beats) => self.tell(Notice::Beats(&beats)),
                Err(error) => self.lost(&error),
            },
            Command::Claim { unit, attempt } => {
                let slot = self.worker.slot();
                match again(patience, || ledger.claim(unit, attempt, slot)).await {
                    Ok(true) => self.tell(Notice::Claimed),
                    Ok(false) => self.tell(Notice::Taken),
                    Err(error) if error.is_full => self.tell(Notice::Spent { reason: error.problem }),
                    Err(error) => self.lost(&error),
                }
            }
            // Others find out without it, only later.
            Command::Tell(record) => drop(ledger.post(&record).await),
            Command::Post(record) => self.post(&record).await,
            Command::Fetch { unit, derivations } => {
                let parcels = Arc::clone(&self.parcels);
                self.builds = false;
                let open = exchange.is_short_of_room().then(|| self.open());
                self.job = Some(Box::pin(async move {
                    if let Some(open) = open {
                        exchange.make_room(&open).await;
                    }
                    Done::Fetched(exchange.fetch(unit, &derivations, &parcels).await)
                }));
            }
            Command::Build { unit, derivations } => {
                self.builds = true;
                self.job =
                    Some(Box::pin(async move { Done::Built(exchange.build(unit, &derivations).await) }));
                self.look_ahead();
            }
            Command::Abandon { unit } => {
                self.job = None;
                let built =
                    async { if self.builds { exchange.broken_off(unit).await } else { Ends::default() } };
                let ends = timeout(BREAK_OFF, built).await.unwrap_or_default();
                let stopped = self.stop.borrow().clone();
                let reason = stopped.unwrap_or_else(|| "it was not needed any more".to_owned());
                self.tell(Notice::Interrupted { reason, ends });
            }
            Command::Wait { until } => self.wake = Some(self.begun + Duration::from_millis(until.0)),
            Command::Leave(why) => return Some(why),
        }
        None
    }

    async fn post(&mut self, record: &Record) {
        let ledger = self.ledger;
        match again(self.settings.patience, || ledger.post(record)).await {
            Ok(first) => self.tell(Notice::Posted { first }),
            Err(error) => self.lost(&error),
        }
    }

    fn lost(&mut self, error: &LedgerError) {
        self.queue.clear();
        self.tell(Notice::LedgerLost { reason: error.to_string() });
    }
}

/// Asks until there is an answer, or patience has run out.
async fn again<T, F>(patience: Duration, ask: impl Fn() -> F) -> Result<T, LedgerError>
where
    F: Future<Output = Result<T, LedgerError>>,
{
    let end = Instant::now() + patience;
    let mut pause = Duration::from_millis(100);
    loop {
        match ask().await {
            Err(error) if !error.is_full && Instant::now() + pause < end => sleep(pause).await,
            answer => return answer,
        }
        pause = (pause * 2).min(Duration::from_secs(15));
    }
}

async fn finished<F: Future + ?Sized>(job: &mut Option<Pin<Box<F>>>) -> F::Output {
    match job {
        Some(job) => job.as_mut().await,
        None => pending().await,
    }
}

async fn until(wake: Option<Instant>) {
    match wake {
        Some(wake) => sleep_until(wake).await,
        None => pending().await,
    }
}

/// The reason to stop.
async fn told_to_stop(stop: &mut watch::Receiver<Option<String>>) -> String {
    match stop.wait_for(Option::is_some).await.map(|reason| reason.clone()) {
        Ok(Some(reason)) => reason,
        // Nobody is left who could say it.
        _ => pending().await,
    }
}
