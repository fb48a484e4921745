//! Folding and collecting in depots that misbehave.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod stores;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use phoenix_cache::{Cache, CollectError, Collected};
use phoenix_depot::testing::{Fault, Faults, Faulty, Memory, body};
use phoenix_depot::{BlobName, Depot};
use phoenix_pack::{Beside, Collection, Damaged, Goal, Measured};
use stores::{Store, check, names, open, restore, save, store};

fn goal(grace: u64) -> Goal {
    Goal {
        budget: 1 << 40,
        measured: Measured::default(),
        room: u64::MAX,
        now: SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs(),
        keep: BTreeSet::new(),
        alive: 1000,
        grace,
        packs: 0,
        outside: BTreeMap::new(),
        foreign: BTreeSet::new(),
        replaced: BTreeMap::new(),
        damaged: Damaged::default(),
        beside: Beside::default(),
    }
}

/// Whether all seeds are to be tried (`PHOENIX_TEST_SEEDS=all`), as `cargo xtask ci` does, or the first few.
fn all_seeds() -> bool {
    std::env::var("PHOENIX_TEST_SEEDS").is_ok_and(|value| value == "all")
}

fn gc(cache: &mut Cache, name: &str, goal: &Goal) -> Result<(Collection, Collected), CollectError> {
    let plan = cache.plan_collection(goal, &mut |_| ())?;
    let name = BlobName::new(format!("packs/{name}")).unwrap();
    let collected = cache.collect(&name, &plan, &mut |_| ())?;
    Ok((plan, collected))
}

fn is_whole(depot: &Arc<dyn Depot>, store: &Store) -> bool {
    let (restored, taken) = restore(&mut open(depot).0, &names(store));
    check(&restored, &taken, store);
    restored.paths.len() == store.len()
}

#[test]
fn frames_that_are_wanted_are_copied_as_they_are() {
    let depot: Arc<dyn Depot> = Arc::new(Memory::new());
    let stores: Vec<Store> = (1..6).map(|salt| store(12, salt)).chain([store(20, 9)]).collect();
    for (at, store) in stores.iter().enumerate() {
        save(&mut open(&depot).0, &at.to_string(), store).unwrap();
    }
    let (plan, collected) = gc(&mut open(&depot).0, "f", &goal(0)).unwrap();
    assert_eq!((plan.sources.len(), plan.dropped.len(), collected.removed.len()), (6, 0, 6));
    assert!(collected.copied * 10 > collected.size * 9, "{collected:?}");
    assert_eq!(open(&depot).0.catalog().packs().count(), 1);
    assert!(stores.iter().all(|store| is_whole(&depot, store)));
}

/// A fold that is lost brings back what it replaced, for that is there for a while yet.
#[test]
fn a_fold_that_is_lost_brings_back_what_it_replaced() {
    for damage in [false, true] {
        let memory = Arc::new(Memory::new());
        let depot: Arc<dyn Depot> = memory.clone();
        let stores: Vec<Store> = (1..6).map(|salt| store(12, salt)).collect();
        for (at, store) in stores.iter().take(4).enumerate() {
            save(&mut open(&depot).0, &at.to_string(), store).unwrap();
        }
        gc(&mut open(&depot).0, "f", &goal(1000)).unwrap();
        save(&mut open(&depot).0, "g", &stores[4]).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let fold = BlobName::new("packs/f").unwrap();
        let bytes = runtime.block_on(async {
            let blob = memory.find(&fold).await.unwrap().unwrap();
            memory.read(&blob, 0..blob.size - 10).await.unwrap()
        });
        runtime.block_on(memory.remove(&fold)).unwrap();
        if damage {
            runtime.block_on(memory.create(&fold, body(bytes))).unwrap();
        }
        let (mut cache, troubles) = open(&depot);
        assert_eq!(troubles.len(), usize::from(damage), "{troubles:?}");
        assert_eq!(cache.catalog().packs().count(), 5);
        assert!(stores.iter().all(|store| is_whole(&depot, store)));
        // They are in use again, and the small ones are folded again.
        let (plan, _) = gc(&mut open(&depot).0, "h", &goal(1000)).unwrap();
        assert_eq!((plan.sources.len(), plan.kept), (4, 60), "{plan:?}");
        assert!(stores.iter().all(|store| is_whole(&depot, store)));
    }
}

/// Whatever a depot does to a collector: what it had before can be restored when it has come to its senses.
#[test]
fn a_depot_that_misbehaves_loses_nothing_by_being_collected() {
    let stores = [store(8, 1), store(16, 2), store(12, 3)];
    // What really takes packs away, or keeps them from being seen, is not the collector's fault.
    let kinds: Vec<Fault> =
        Fault::ALL.into_iter().filter(|kind| !matches!(kind, Fault::Lost | Fault::Gone)).collect();
    let mut folded = 0_u64;
    let seeds = if all_seeds() { 200 } else { 30 };
    for seed in 0..seeds {
        let memory = Arc::new(Memory::new());
        let depot: Arc<dyn Depot> = memory.clone();
        for (at, store) in stores.iter().enumerate() {
            save(&mut open(&depot).0, &at.to_string(), store).unwrap();
        }
        let faults = Faults { seed, every: 3 + seed % 9, kinds: kinds.clone(), lag: 5 };
        let faulty: Arc<dyn Depot> = Arc::new(Faulty::new(memory, faults));
        for round in 0..3 {
            let grace = if seed % 2 == 0 { 0 } else { 1000 };
            folded += u64::from(gc(&mut open(&faulty).0, &format!("f{round}"), &goal(grace)).is_ok());
        }
        for store in &stores {
            assert!(is_whole(&depot, store), "seed {seed}");
        }
    }
    assert!(folded > seeds / 2, "only {folded} collections came to an end: the faults hide everything");
}

/// Each kind of fault alone, at every place where it can strike a save and a collection after it.
#[test]
fn every_fault_at_every_request_costs_speed_and_nothing_else() {
    let stores = [store(6, 1), store(9, 2)];
    for kind in Fault::ALL {
        for seed in 0..if all_seeds() { 12 } else { 4 } {
            let memory = Arc::new(Memory::new());
            let depot: Arc<dyn Depot> = memory.clone();
            let faulty: Arc<dyn Depot> = Arc::new(Faulty::new(memory, Faults::only(kind, seed * 5, 12)));
            let mut kept = Vec::new();
            for (at, store) in stores.iter().enumerate() {
                let name = at.to_string();
                if save(&mut open(&faulty).0, &name, store).is_ok() {
                    kept.push(store);
                }
            }
            drop(gc(&mut open(&faulty).0, "f", &goal(0)));
            for store in &stores {
                let (restored, taken) = restore(&mut open(&faulty).0, &names(store));
                check(&restored, &taken, store);
            }
            if !matches!(kind, Fault::Lost | Fault::Gone) {
                assert!(kept.iter().all(|store| is_whole(&depot, store)), "{kind:?} {seed}");
            }
        }
    }
}

#[test]
fn a_save_that_began_before_a_collection_can_be_restored_after_it() {
    let depot: Arc<dyn Depot> = Arc::new(Memory::new());
    let (old, new) = (store(12, 1), store(24, 2));
    save(&mut open(&depot).0, "1", &old).unwrap();
    // This one has looked, and relies on the chunks of the first pack.
    let mut saver = open(&depot).0;
    let nothing = Goal { budget: 0, ..goal(1000) };
    let (plan, collected) = gc(&mut open(&depot).0, "f", &nothing).unwrap();
    assert_eq!((plan.dropped.len(), collected.removed.len()), (12, 0));
    assert!(!is_whole(&depot, &old), "it was let go");
    assert!(save(&mut saver, "2", &new).unwrap().size < 400_000 * 6);
    assert!(is_whole(&depot, &new), "what was replaced is still there");
    // The next collection carries it over, and then what was replaced may go.
    let (plan, _) = gc(&mut open(&depot).0, "g", &goal(0)).unwrap();
    assert!(!plan.sources.is_empty() && plan.dropped.is_empty());
    gc(&mut open(&depot).0, "h", &goal(0)).unwrap();
    assert_eq!(open(&depot).0.catalog().read_packs().count(), 1);
    assert!(is_whole(&depot, &new));
}

/// What nobody relies on is not touched: to be read is what keeps it from eviction. It goes when its time is over, at
/// the next save, whether that folds or not.
#[test]
fn what_was_replaced_is_not_read_and_goes_when_its_time_is_over() {
    let memory = Arc::new(Memory::new());
    let depot: Arc<dyn Depot> = memory.clone();
    for at in 1..4 {
        save(&mut open(&depot).0, &at.to_string(), &store(4, at)).unwrap();
    }
    let (plan, _) = gc(&mut open(&depot).0, "f", &goal(1000)).unwrap();
    // The first has nearly all that the others need, and stays.
    assert_eq!((plan.sources.len(), plan.waiting.0), (2, 0));
    // Whoever reads one of them is told that it is damaged.
    for at in 2..4 {
        memory.tamper(&BlobName::new(format!("packs/{at}")).unwrap(), |bytes| bytes.truncate(20));
    }
    let mut told = Vec::new();
    let mut cache = open(&depot).0;
    let plan = cache.plan_collection(&goal(1000), &mut |trouble| told.push(trouble.to_string())).unwrap();
    assert_eq!((told, plan.is_nothing(), plan.waiting.0), (vec![], true, 2));
    assert_eq!(cache.replaced().0, 2);

    assert_eq!(cache.remove_replaced(1000, &mut |_| ()).0, 0);
    assert_eq!(cache.remove_replaced(0, &mut |_| ()).0, 2);
    assert_eq!((cache.replaced(), open(&depot).0.replaced()), ((0, 0), (0, 0)));
    assert!((1..4).all(|at| is_whole(&depot, &store(4, at))));
}

#[test]
fn a_depot_that_does_not_tell_all_is_not_collected() {
    let memory = Arc::new(Memory::new());
    let depot: Arc<dyn Depot> = memory.clone();
    for at in 1..4 {
        save(&mut open(&depot).0, &at.to_string(), &store(4, at)).unwrap();
    }
    let busy: Arc<dyn Depot> = Arc::new(Faulty::new(memory, Faults::only(Fault::Busy, 1, 3)));
    let error = gc(&mut open(&busy).0, "f", &goal(0)).unwrap_err().to_string();
    assert!(error.contains("did not tell all that it has"), "{error}");
}
