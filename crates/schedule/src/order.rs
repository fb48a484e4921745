//! Which unit comes first.

use crate::critical_path::longest_paths;
use crate::units::Unit;

/// How much what a unit unblocks counts beside the longest way to the end.
const UNBLOCKS: f64 = 0.1;

/// The positions of units in the order in which they are to be claimed.
///
/// First comes what has the longest way to the end, weighted by what it unblocks: to the seconds of that way
/// comes a tenth of the seconds of those that wait for it, each shared among all that it waits for. Ties go
/// by `name`, then by position, so that a plan is reproducible.
#[must_use]
pub fn order<'a>(units: &[Unit], name: impl Fn(&Unit) -> &'a str) -> Vec<u32> {
    let seconds: Vec<f64> = units.iter().map(|unit| unit.seconds).collect();
    let mut weight = longest_paths(&seconds, |unit| &units[unit].inputs);
    for unit in units {
        for &input in &unit.inputs {
            weight[input as usize] += UNBLOCKS * unit.seconds / unit.inputs.len() as f64;
        }
    }
    let mut order: Vec<u32> = (0..).take(units.len()).collect();
    order.sort_by(|&a, &b| {
        let by_name = || name(&units[a as usize]).cmp(name(&units[b as usize]));
        weight[b as usize].total_cmp(&weight[a as usize]).then_with(by_name).then(a.cmp(&b))
    });
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(member: u32, inputs: &[u32], seconds: f64) -> Unit {
        Unit { members: vec![member], inputs: inputs.to_vec(), class: 0, seconds, shared_bytes: 0 }
    }

    #[test]
    fn the_longest_way_comes_first_then_what_unblocks_more_then_the_name() {
        // 0 ← 3 and 1 ← 3, 4: equally long ways; 2 is alone and long; 5 and 6 are the same but for the name.
        let units = [
            unit(0, &[], 5.0),
            unit(1, &[], 5.0),
            unit(2, &[], 20.0),
            unit(3, &[0, 1], 5.0),
            unit(4, &[1], 5.0),
            unit(5, &[], 1.0),
            unit(6, &[], 1.0),
        ];
        let names = ["a", "b", "c", "d", "e", "z", "y"];
        let order = order(&units, |unit| names[unit.members[0] as usize]);
        assert_eq!(order, [2, 1, 0, 3, 4, 6, 5]);
    }
}
