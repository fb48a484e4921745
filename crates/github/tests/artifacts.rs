//! The client of GitHub's artifacts, and the ledger over it, against the double.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use phoenix_github::{Access, Artifacts, Settings};
use phoenix_schedule::farm::{Built, Outcome, Record, Returned, Slot, UnitId};
use phoenix_testkit::github::{Fault, Github, Permission, Request};
use phoenix_work::testing::contract;
use phoenix_work::{ArtifactError, ArtifactLedger, ArtifactStore, Cursor, Ledger, Room};

const MAIN: (&str, Permission) = ("refs/heads/main", Permission::Both);

/// The requests that write, of which a unit has a number.
const WRITES: [Request; 3] = [Request::CreateArtifact, Request::PutBlob, Request::FinalizeArtifact];

fn settings() -> Settings {
    Settings {
        patience: Duration::from_secs(20),
        answer_within: Duration::from_secs(5),
        stall: Duration::from_secs(5),
        first_wait: Duration::from_millis(2),
        ..Settings::default()
    }
}

/// The artifacts of the run, as a job of it has them.
fn of_job(github: &Github, job: u32) -> Artifacts {
    let token = github.token_of_job(job, &[MAIN]);
    Artifacts::new(Access::new(Some(github.url()), Some(&token), None).unwrap(), settings()).unwrap()
}

fn ledger(github: &Github, job: u32, run: &str) -> ArtifactLedger<Artifacts> {
    let url = format!("github-artifacts:{run}");
    let ledger = ArtifactLedger::new(of_job(github, job), &url, run).unwrap();
    ledger.with_presence(Duration::from_millis(100))
}

/// One whose worker has nothing to say of itself during a test.
fn quiet(github: &Github, job: u32, run: &str) -> ArtifactLedger<Artifacts> {
    ledger(github, job, run).with_presence(Duration::from_secs(1000))
}

fn outcome(unit: u32, attempt: u32, slot: u32) -> Record {
    let built = vec![Built { derivation: unit, seconds: 1.5, bytes: Some(7), cached: false, ended: None }];
    Record::Outcome(Outcome {
        unit: UnitId(unit),
        attempt,
        slot: Slot(slot),
        built,
        failed: vec![],
        parcel: None,
        action: None,
    })
}

fn claim(unit: u32, attempt: u32, slot: u32) -> Record {
    Record::Claim { unit: UnitId(unit), attempt, slot: Slot(slot) }
}

fn writes(github: &Github) -> u64 {
    WRITES.iter().map(|&kind| github.counts().of(kind)).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_keeps_the_promises_of_all() {
    let github = Github::start().unwrap();
    let jobs = AtomicU32::new(0);
    // Each ledger is opened by a job of its own.
    contract(|name| {
        let ledger = ledger(&github, jobs.fetch_add(1, Ordering::Relaxed), name);
        async move { Arc::new(ledger) as Arc<dyn Ledger> }
    })
    .await;
}

#[tokio::test]
async fn a_unit_costs_three_requests_and_its_news_two_to_each_reader() {
    const UNITS: u32 = 40;
    let github = Github::start().unwrap();
    let workers = [quiet(&github, 0, "run"), quiet(&github, 1, "run")];
    let mut cursors = [Cursor::default(); 2];
    for unit in 0..UNITS {
        let turn = usize::from(unit % 2 == 1);
        let slot = unit % 2;
        assert!(workers[turn].claim(UnitId(unit), 1, Slot(slot)).await.unwrap());
        assert!(workers[turn].post(&outcome(unit, 1, slot)).await.unwrap());
        workers[turn].since(&mut cursors[turn]).await.unwrap();
    }
    let counts = github.counts();
    assert_eq!(writes(&github), u64::from(3 * UNITS), "{counts:?}");
    // Each listing is a look at the ledger: one before an outcome, one after.
    assert_eq!(counts.of(Request::ListArtifacts), u64::from(2 * UNITS));
    for kind in [Request::SignArtifact, Request::GetBlob] {
        // The last one was not looked at by the other.
        assert_eq!(counts.of(kind), u64::from(UNITS - 1), "{kind:?}");
    }
    assert_eq!(counts.of(Request::DeleteArtifact) + counts.of(Request::HeadBlob), 0);
    assert_eq!(github.artifacts().len(), UNITS as usize, "one artifact a unit");
}

#[tokio::test]
async fn a_claim_that_is_refused_costs_one_request_and_is_not_asked_for_again() {
    let github = Github::start().unwrap();
    let (one, other) = (quiet(&github, 0, "run"), quiet(&github, 1, "run"));
    assert!(one.claim(UnitId(1), 1, Slot(0)).await.unwrap());
    for _ in 0..3 {
        assert!(!other.claim(UnitId(1), 1, Slot(1)).await.unwrap());
        assert!(one.claim(UnitId(1), 1, Slot(0)).await.unwrap());
    }
    assert_eq!(github.counts().of(Request::CreateArtifact), 2);
}

#[tokio::test]
async fn workers_tell_of_themselves_by_time_and_in_one_artifact() {
    let github = Github::start().unwrap();
    let (one, other) = (ledger(&github, 0, "run"), quiet(&github, 1, "run"));
    for unit in 0..3 {
        assert!(one.claim(UnitId(unit), 1, Slot(5)).await.unwrap());
        assert!(one.post(&outcome(unit, 1, 5)).await.unwrap());
    }
    assert!(one.claim(UnitId(9), 1, Slot(5)).await.unwrap());
    let seen = |records: &[Record]| records.contains(&claim(9, 1, 5));
    let (mut cursor, mut records) = (Cursor::default(), Vec::new());
    for count in 1.. {
        one.beat(Slot(5), count).await.unwrap();
        records.extend(other.since(&mut cursor).await.unwrap());
        let beats = other.beats().await.unwrap();
        if seen(&records) && beats.iter().any(|&(slot, count)| slot == Slot(5) && count > 3) {
            break;
        }
        assert!(count < 1000, "{records:?} {beats:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let workers = github.artifacts().into_iter().filter(|artifact| artifact.name.contains(".worker."));
    let workers: Vec<_> = workers.filter(|artifact| artifact.finalized).collect();
    assert!(workers.len() <= 2, "what it said before is removed: {workers:?}");
    assert!(!records.contains(&claim(0, 1, 5)) || records.contains(&outcome(0, 1, 5)));
}

#[tokio::test]
async fn an_attempt_that_took_too_long_ends_in_another_artifact() {
    let github = Github::start().unwrap();
    github.behave(|behaviour| behaviour.upload_valid = Duration::ZERO);
    let (one, other) = (quiet(&github, 0, "run"), quiet(&github, 1, "run"));
    assert!(one.claim(UnitId(1), 1, Slot(0)).await.unwrap());
    assert!(one.claim(UnitId(2), 1, Slot(0)).await.unwrap());
    github.behave(|behaviour| behaviour.upload_valid = Duration::from_secs(3600));
    assert!(one.post(&outcome(1, 1, 0)).await.unwrap());
    let returned = Record::Returned(Returned {
        unit: UnitId(2),
        attempt: 1,
        slot: Slot(0),
        reason: "full disk".to_owned(),
        stopped: false,
        built: vec![],
        parcel: None,
    });
    assert!(one.post(&returned).await.unwrap());
    let records = other.since(&mut Cursor::default()).await.unwrap();
    assert_eq!(records, [claim(1, 1, 0), outcome(1, 1, 0), claim(2, 1, 0), returned]);
    assert!(!other.post(&outcome(1, 2, 1)).await.unwrap());
}

#[tokio::test]
async fn what_goes_wrong_on_the_way_writes_nothing_twice() {
    let faults =
        [Fault::Broken, Fault::AnswerLost, Fault::Status(502), Fault::TooMany(Some(0)), Fault::Strange];
    for (number, fault) in (0..).zip(faults) {
        let github = Github::start().unwrap();
        let (one, other) = (quiet(&github, 0, "run"), quiet(&github, 1, "run"));
        assert!(one.claim(UnitId(1), 1, Slot(0)).await.unwrap());
        let kinds = [
            Request::ListArtifacts,
            Request::PutBlob,
            Request::FinalizeArtifact,
            Request::SignArtifact,
            Request::GetBlob,
        ];
        for kind in kinds.into_iter().filter(|kind| fault.befalls(*kind)) {
            github.fault(kind, fault, 1);
        }
        assert!(one.post(&outcome(1, 1, 0)).await.unwrap(), "{number}");
        let records = other.since(&mut Cursor::default()).await.unwrap();
        assert_eq!(records, [claim(1, 1, 0), outcome(1, 1, 0)], "{fault:?}");
        assert_eq!(github.artifacts().len(), 1);
    }
}

#[tokio::test]
async fn a_lost_answer_to_a_claim_is_no_claim() {
    let github = Github::start().unwrap();
    let one = quiet(&github, 0, "run");
    github.fault(Request::CreateArtifact, Fault::AnswerLost, 1);
    assert!(!one.claim(UnitId(1), 1, Slot(0)).await.unwrap(), "the place for the bytes is lost");
    assert!(one.claim(UnitId(1), 2, Slot(0)).await.unwrap());
}

#[tokio::test]
async fn the_run_is_over_and_leaves_only_what_is_not_its_own() {
    let github = Github::start().unwrap();
    let (one, other) = (ledger(&github, 0, "run"), ledger(&github, 1, "run"));
    let elsewhere = ledger(&github, 2, "another");
    let foreign = of_job(&github, 3);
    let reservation = foreign.reserve("phoenix-logs").await.unwrap().unwrap();
    foreign.fill(&reservation, Bytes::from_static(b"log")).await.unwrap();
    assert!(elsewhere.post(&Record::Joined { slot: Slot(0) }).await.unwrap());
    assert!(one.post(&Record::Joined { slot: Slot(0) }).await.unwrap());
    assert!(one.post(&outcome(1, 1, 0)).await.unwrap());
    assert!(other.post(&Record::Left { slot: Slot(1), spent: false }).await.unwrap());
    assert_eq!(github.artifacts().len(), 5);
    assert!(one.leaves_something());
    assert!(github.artifacts().iter().all(|artifact| !artifact.expires.is_empty()));
    other.discard().await.unwrap();
    let left: Vec<_> = github.artifacts().into_iter().map(|artifact| artifact.name).collect();
    assert_eq!(left, ["phoenix-logs", "phoenix-another.joined.0"]);
}

#[tokio::test]
async fn a_job_knows_when_it_has_made_all_that_it_may() {
    let github = Github::start().unwrap();
    let one = quiet(&github, 0, "run");
    for unit in 0..439 {
        assert!(one.claim(UnitId(unit), 1, Slot(0)).await.unwrap());
    }
    // Whatever else the job makes is counted, too.
    assert!(of_job(&github, 0).reserve("a pack").await.unwrap().is_some());
    let error = one.claim(UnitId(439), 1, Slot(0)).await.unwrap_err();
    assert!(error.is_full);
    let error = error.to_string();
    for words in [
        "the ledger github-artifacts:run failed while claiming unit 439",
        "440 of the 500 artifacts",
        "runners",
    ] {
        assert!(error.contains(words), "{error}");
    }
    assert!(one.post(&outcome(7, 1, 0)).await.unwrap(), "what was claimed has its place");
    assert!(
        one.post(&Record::Left { slot: Slot(0), spent: true }).await.unwrap(),
        "and there is one to say it"
    );
    assert_eq!(of_job(&github, 1).room(), Room { most: 500, left: 500 }, "another job has its own");
}

#[tokio::test]
async fn errors_say_what_to_do_and_hold_no_secrets() {
    let github = Github::start().unwrap();
    let token = github.token_of_job(0, &[MAIN]);
    let access = Access::new(Some(github.url()), Some(&token), None).unwrap();
    let artifacts = Artifacts::new(access, settings()).unwrap();
    let reserved = artifacts.reserve("a").await.unwrap().unwrap();
    let made = artifacts.fill(&reserved, Bytes::from_static(b"abc")).await.unwrap();
    let mut said = vec![format!("{artifacts:?} {reserved:?}")];
    let other = |error: ArtifactError| match error {
        ArtifactError::Other(words) | ArtifactError::Full(words) => words,
        // What is refused where the bytes are is a lapsed reservation; another artifact is made then.
        ArtifactError::Lapsed => "artifact; lapsed".to_owned(),
        ArtifactError::Gone => "gone".to_owned(),
    };
    for fault in
        [Fault::Status(500), Fault::Status(418), Fault::Expired, Fault::Broken, Fault::TooMany(Some(99))]
    {
        let kinds = [
            Request::CreateArtifact,
            Request::FinalizeArtifact,
            Request::PutBlob,
            Request::ListArtifacts,
            Request::SignArtifact,
            Request::GetBlob,
            Request::DeleteArtifact,
        ];
        for kind in kinds {
            github.fault(kind, fault, 40);
            let error = match kind {
                Request::CreateArtifact => artifacts.reserve("b").await.map(drop),
                Request::ListArtifacts => artifacts.list().await.map(drop),
                Request::SignArtifact | Request::GetBlob => artifacts.read(&made).await.map(drop),
                Request::DeleteArtifact => artifacts.remove(&made).await,
                _ => artifacts.fill(&reserved, Bytes::from_static(b"abc")).await.map(drop),
            };
            let words = other(error.unwrap_err());
            assert!(words.contains("artifact"), "{words}");
            assert!(words.contains("; "), "{words}");
            said.push(words);
            github.clear_faults();
        }
    }
    let opaque = Access::new(Some(github.url()), Some("hunter22"), None).unwrap();
    let error = Artifacts::new(opaque, settings()).unwrap_err().to_string();
    assert!(error.contains("ACTIONS_RUNTIME_TOKEN is not the token of a job"), "{error}");
    said.push(error);
    let claims = token.split('.').nth(1).unwrap();
    for text in &said {
        for secret in [token.as_str(), claims, "hunter22", "sig=", "sig%3D", "productionresultssa"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}

#[tokio::test]
async fn what_was_removed_is_gone_and_no_error_to_remove_again() {
    let github = Github::start().unwrap();
    let (one, other) = (of_job(&github, 0), of_job(&github, 1));
    let reserved = one.reserve("a").await.unwrap().unwrap();
    assert!(other.reserve("a").await.unwrap().is_none());
    assert_eq!(other.list().await.unwrap(), []);
    one.fill(&reserved, Bytes::from_static(b"abc")).await.unwrap();
    let listed = other.list().await.unwrap();
    assert_eq!(other.read(&listed[0]).await.unwrap(), "abc");
    other.remove(&listed[0]).await.unwrap();
    other.remove(&listed[0]).await.unwrap();
    assert_eq!(other.read(&listed[0]).await, Err(ArtifactError::Gone));
}
