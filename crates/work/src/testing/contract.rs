//! What every ledger promises, as test cases.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use phoenix_schedule::farm::{Built, Outcome, Record, Returned, Slot, UnitId};
use tokio::time::{Instant, sleep};

use crate::{Cursor, Ledger};

/// How long a record may stay out of sight.
const LAG: Duration = Duration::from_secs(10);

/// Runs every case of the contract. `open` opens the ledger with a name, a new object each time, as another
/// process would. Needs a Tokio runtime with its clock and I/O.
///
/// # Panics
///
/// When a promise is not kept.
pub async fn contract<F>(open: impl Fn(&'static str) -> F)
where
    F: Future<Output = Arc<dyn Ledger>>,
{
    a_new_ledger_holds_nothing(open("nothing").await).await;
    a_claim_has_one_winner(&join_all((0..8).map(|_| open("claims"))).await).await;
    who_has_a_claim_is_told_so_again(open("again").await).await;
    the_first_outcome_stands(open("outcomes").await, open("outcomes").await).await;
    every_record_is_seen_once_by_everybody(open("records").await, open("records").await).await;
    who_comes_late_sees_all(open("late").await, || open("late")).await;
    many_at_once_lose_nothing(&join_all((0..4).map(|_| open("many"))).await).await;
    beats_are_seen_by_others(open("beats").await, open("beats").await).await;
}

fn outcome(unit: u32, attempt: u32, slot: u32) -> Record {
    let built = vec![Built { derivation: unit, seconds: 1.5, bytes: Some(7), cached: false, ended: None }];
    let parcel = Some("a place".to_owned());
    Record::Outcome(Outcome {
        unit: UnitId(unit),
        attempt,
        slot: Slot(slot),
        built,
        failed: vec![],
        parcel,
        action: None,
    })
}

/// Reads until there are so many records.
async fn seen(ledger: &dyn Ledger, cursor: &mut Cursor, count: usize) -> Vec<Record> {
    let end = Instant::now() + LAG;
    let mut seen = Vec::new();
    while seen.len() < count && Instant::now() < end {
        seen.extend(ledger.since(cursor).await.expect("what is new"));
        if seen.len() < count {
            sleep(Duration::from_millis(5)).await;
        }
    }
    assert_eq!(seen.len(), count, "{seen:?}");
    seen
}

async fn a_new_ledger_holds_nothing(ledger: Arc<dyn Ledger>) {
    assert_eq!(ledger.since(&mut Cursor::default()).await.expect("nothing"), []);
    assert_eq!(ledger.beats().await.expect("nobody"), []);
    assert!(!ledger.location().is_empty());
}

async fn a_claim_has_one_winner(ledgers: &[Arc<dyn Ledger>]) {
    for unit in 0..20 {
        let claims = (0..).zip(ledgers).map(|(slot, ledger)| ledger.claim(UnitId(unit), 1, Slot(slot)));
        let won = join_all(claims).await.into_iter().filter(|won| *won.as_ref().expect("an answer")).count();
        assert_eq!(won, 1, "unit {unit}");
    }
    assert!(
        ledgers[0].claim(UnitId(0), 2, Slot(0)).await.expect("an answer"),
        "another attempt is another claim"
    );
}

async fn who_has_a_claim_is_told_so_again(ledger: Arc<dyn Ledger>) {
    for _ in 0..3 {
        assert!(ledger.claim(UnitId(5), 1, Slot(3)).await.expect("an answer"));
        assert!(!ledger.claim(UnitId(5), 1, Slot(4)).await.expect("an answer"));
    }
    assert_eq!(seen(&*ledger, &mut Cursor::default(), 1).await.len(), 1);
}

async fn the_first_outcome_stands(one: Arc<dyn Ledger>, other: Arc<dyn Ledger>) {
    assert!(one.post(&outcome(1, 1, 0)).await.expect("an answer"));
    assert!(!other.post(&outcome(1, 2, 1)).await.expect("an answer"));
    assert!(one.post(&outcome(1, 1, 0)).await.expect("an answer"), "it is the same one");
    assert_eq!(seen(&*other, &mut Cursor::default(), 1).await, [outcome(1, 1, 0)]);
}

async fn every_record_is_seen_once_by_everybody(one: Arc<dyn Ledger>, other: Arc<dyn Ledger>) {
    let returned = Returned {
        unit: UnitId(2),
        attempt: 1,
        slot: Slot(1),
        reason: "disk full: \"/\"\n\u{fc}".to_owned(),
        stopped: true,
        built: vec![Built { derivation: 4, seconds: 1.5, bytes: None, cached: false, ended: None }],
        parcel: Some("packs/a".to_owned()),
    };
    let records = [
        Record::Joined { slot: Slot(1) },
        Record::Claim { unit: UnitId(2), attempt: 1, slot: Slot(1) },
        Record::Returned(returned),
        outcome(3, 1, 1),
        Record::Left { slot: Slot(1), spent: true },
    ];
    let (mut cursor, mut others) = (Cursor::default(), Cursor::default());
    for record in &records {
        match record {
            Record::Claim { unit, attempt, slot } => {
                assert!(one.claim(*unit, *attempt, *slot).await.expect("an answer"));
            }
            record => assert!(one.post(record).await.expect("an answer")),
        }
        // Whoever reads as they come sees each once, and so does the writer.
        assert_eq!(seen(&*other, &mut others, 1).await, std::slice::from_ref(record));
        assert_eq!(seen(&*one, &mut cursor, 1).await, std::slice::from_ref(record));
    }
    assert_eq!(other.since(&mut others).await.expect("nothing"), []);
}

async fn who_comes_late_sees_all<F>(one: Arc<dyn Ledger>, open: impl Fn() -> F)
where
    F: Future<Output = Arc<dyn Ledger>>,
{
    for unit in 0..20 {
        assert!(one.post(&outcome(unit, 1, 0)).await.expect("an answer"));
    }
    let late = open().await;
    assert_eq!(seen(&*late, &mut Cursor::default(), 20).await.len(), 20);
    assert!(!late.post(&outcome(7, 2, 5)).await.expect("an answer"));
}

async fn many_at_once_lose_nothing(ledgers: &[Arc<dyn Ledger>]) {
    let writers = (0..).zip(ledgers).map(|(slot, ledger)| async move {
        for number in 0..10 {
            assert!(ledger.post(&outcome(slot * 100 + number, 1, slot)).await.expect("an answer"));
        }
    });
    join_all(writers).await;
    for ledger in ledgers {
        let units: BTreeSet<u32> = seen(&**ledger, &mut Cursor::default(), 40)
            .await
            .iter()
            .filter_map(|record| match record {
                Record::Outcome(outcome) => Some(outcome.unit.0),
                _ => None,
            })
            .collect();
        assert_eq!(units.len(), 40);
    }
}

async fn beats_are_seen_by_others(one: Arc<dyn Ledger>, other: Arc<dyn Ledger>) {
    for (slot, count) in [(3, 1), (1, 1), (3, 2)] {
        one.beat(Slot(slot), count).await.expect("written");
    }
    let end = Instant::now() + LAG;
    loop {
        let beats = other.beats().await.expect("an answer");
        if beats == [(Slot(1), 1), (Slot(3), 2)] {
            break;
        }
        assert!(Instant::now() < end, "{beats:?}");
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(other.since(&mut Cursor::default()).await.expect("nothing"), [], "beats are no records");
}
