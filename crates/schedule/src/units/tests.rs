use proptest::prelude::*;

use super::*;
use crate::plan::{Hopeless, Step};

/// Step `n` of a plan: seconds, inputs, system, features, whether it rides.
#[derive(Debug, Clone)]
struct Draft {
    seconds: f64,
    inputs: Vec<u32>,
    system: &'static str,
    features: Vec<String>,
    rides: bool,
    hopeless: bool,
}

fn draft(seconds: f64, inputs: &[u32]) -> Draft {
    let inputs = inputs.to_vec();
    Draft { seconds, inputs, system: "x86_64-linux", features: vec![], rides: false, hopeless: false }
}

fn plan(drafts: &[Draft]) -> Plan {
    let steps = drafts.iter().enumerate().map(|(number, draft)| Step {
        drv_path: crate::farm::fixture::drv(number),
        system: draft.system.into(),
        outputs: smallvec::smallvec![None],
        inputs: draft.inputs.clone(),
        estimate: draft.seconds,
        bytes: 1000,
        rides: draft.rides,
        fixed_output: false,
        rank: 0.0,
        unknown: false,
        required_features: draft.features.clone(),
        hopeless: draft.hopeless.then(|| Hopeless::other("nobody can".to_owned())),
    });
    Plan { steps: steps.collect(), ..Plan::default() }
}

fn members(drafts: &[Draft]) -> Vec<Vec<u32>> {
    let mut members: Vec<Vec<u32>> =
        Units::of(&plan(drafts), &Grain::default()).units.into_iter().map(|unit| unit.members).collect();
    members.sort();
    members
}

fn longest(units: &[Unit]) -> f64 {
    let seconds: Vec<f64> = units.iter().map(|unit| unit.seconds).collect();
    crate::remaining_seconds(&seconds, |unit| &units[unit].inputs)
}

#[test]
fn a_chain_is_one_unit_until_it_is_long() {
    let chain = |seconds| [draft(seconds, &[]), draft(seconds, &[0]), draft(seconds, &[1])];
    assert_eq!(members(&chain(150.0)), [[0, 1, 2]]);
    assert_eq!(members(&chain(250.0)), [vec![0, 1], vec![2]]);
}

#[test]
fn small_inputs_ride_with_their_only_user() {
    // 3 downloads and a patch for one package; the fourth download has two users.
    let download = Draft { rides: true, ..draft(5.0, &[]) };
    let drafts = [
        download.clone(),
        download.clone(),
        download.clone(),
        draft(2.0, &[2]),
        download,
        draft(1000.0, &[0, 1, 3, 4]),
        draft(900.0, &[4]),
    ];
    assert_eq!(members(&drafts), [vec![0, 1, 2, 3, 5], vec![4], vec![6]]);
}

#[test]
fn work_that_could_be_shared_is_not_put_together() {
    let drafts = [draft(500.0, &[]), draft(500.0, &[]), draft(500.0, &[0, 1])];
    assert_eq!(members(&drafts).len(), 3);
}

#[test]
fn a_chain_does_not_wait_for_what_only_its_end_needs() {
    // 1 needs 0, and 2 which takes long: 0 begins at once all the same.
    let drafts = [draft(100.0, &[]), draft(500.0, &[]), draft(100.0, &[0, 1]), draft(100.0, &[1])];
    assert_eq!(members(&drafts).len(), 4);
}

#[test]
fn small_ones_of_one_level_come_together_until_they_are_worth_a_claim() {
    let mut drafts: Vec<Draft> = (0..20).map(|_| draft(6.0, &[])).collect();
    drafts.push(draft(2000.0, &[]));
    let members = members(&drafts);
    assert_eq!(members.len(), 5);
    assert!(members[..4].iter().all(|members| members.len() == 5));
}

#[test]
fn systems_and_features_stay_apart_but_for_what_nix_does_itself() {
    let drafts = [
        Draft { system: "aarch64-linux", rides: true, ..draft(1.0, &[]) },
        Draft { system: "builtin", rides: true, ..draft(1.0, &[]) },
        Draft { features: vec!["kvm".into()], ..draft(1.0, &[]) },
        draft(100.0, &[0, 1, 2]),
    ];
    let units = Units::of(&plan(&drafts), &Grain::default());
    assert_eq!(units.units.len(), 3);
    let with_builtin = units.units.iter().find(|unit| unit.members.contains(&1)).unwrap();
    assert_eq!(with_builtin.members, [1, 3]);
    assert_eq!(units.classes[with_builtin.class as usize].system, "x86_64-linux");
}

#[test]
fn what_nobody_can_build_stands_alone() {
    let drafts = [Draft { hopeless: true, ..draft(1.0, &[]) }, draft(1.0, &[0]), draft(1.0, &[])];
    assert!(members(&drafts).contains(&vec![0]));
}

#[test]
fn only_what_leaves_a_unit_counts_as_shared() {
    let drafts = [draft(5.0, &[]), draft(100.0, &[0]), draft(800.0, &[1]), draft(800.0, &[1])];
    let units = Units::of(&plan(&drafts), &Grain::default()).units;
    assert_eq!(units[0].members, [0, 1]);
    assert_eq!(units[0].shared_bytes, 1000);
    assert_eq!(units[1].shared_bytes, 0);
}

fn drafts() -> impl Strategy<Value = Vec<Draft>> {
    let one = (
        prop_oneof![0.0..20.0, 0.0..400.0],
        prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        prop::sample::select(vec!["x86_64-linux", "x86_64-linux", "aarch64-linux", "builtin"]),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.05),
    );
    prop::collection::vec(one, 1..60).prop_map(|drawn| {
        let drafts = drawn.into_iter().enumerate();
        drafts
            .map(|(own, (seconds, inputs, system, kvm, rides, hopeless))| {
                let mut inputs: Vec<u32> = inputs
                    .iter()
                    .filter(|_| own > 0)
                    .map(|index| u32::try_from(index.index(own)).unwrap())
                    .collect();
                inputs.sort_unstable();
                inputs.dedup();
                let features = if kvm && system != "builtin" { vec!["kvm".to_owned()] } else { vec![] };
                Draft { seconds, inputs, system, features, rides, hopeless }
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn units_hold_every_step_once_in_an_order_and_mix_nothing(drafts in drafts()) {
        let plan = plan(&drafts);
        let grain = Grain::default();
        let Units { units, classes } = Units::of(&plan, &grain);
        let mut seen = vec![None; drafts.len()];
        for (number, unit) in units.iter().enumerate() {
            prop_assert!(unit.inputs.iter().all(|&input| (input as usize) < number), "in order");
            prop_assert!(unit.members.is_sorted());
            for &member in &unit.members {
                prop_assert_eq!(seen[member as usize].replace(number), None, "once");
                let (draft, class) = (&drafts[member as usize], &classes[unit.class as usize]);
                let own = draft.system == class.system && draft.features == class.features;
                prop_assert!(own || draft.system == "builtin", "apart");
                prop_assert!(!draft.hopeless || unit.members.len() == 1);
            }
        }
        for (own, draft) in drafts.iter().enumerate() {
            for &input in &draft.inputs {
                let (mine, its) = (seen[own].unwrap(), seen[input as usize].unwrap());
                let waits = units[mine].inputs.iter().any(|&unit| unit as usize == its);
                prop_assert!(mine == its || waits, "waits for what it needs");
            }
        }
        let single: f64 = {
            let seconds: Vec<f64> = drafts.iter().map(|draft| draft.seconds).collect();
            crate::remaining_seconds(&seconds, |step| &drafts[step].inputs)
        };
        prop_assert!(longest(&units) <= single * (1.0 + grain.critical_share) + 1e-6, "the longest path");
        let coarse = grain.times(8.0);
        let limit = single * (1.0 + coarse.critical_share) + coarse.slack_seconds;
        prop_assert!(longest(&Units::of(&plan, &coarse).units) <= limit + 1e-6, "the longest path of coarse ones");
        prop_assert_eq!(Units::of(&plan, &grain).units, units, "reproducible");
        prop_assert_eq!(Units::of(&plan, &Grain::finest()).units.len(), drafts.len());
    }
}
