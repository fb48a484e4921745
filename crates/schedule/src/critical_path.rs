//! The longest ways through what is to be built.

use crate::plan::Step;

/// Sets the rank of every step: its estimate and the highest rank among those that wait for it.
pub(crate) fn rank(steps: &mut [Step]) {
    let estimates: Vec<f64> = steps.iter().map(|step| step.estimate).collect();
    let ranks = longest_paths(&estimates, |position| &steps[position].inputs);
    for (step, rank) in steps.iter_mut().zip(ranks) {
        step.rank = rank;
    }
}

/// For every step the seconds from its start to the end of the last step that waits for it, given the
/// seconds of each and the positions of its inputs, which come before it.
#[must_use]
pub fn longest_paths<'a>(seconds: &[f64], inputs: impl Fn(usize) -> &'a [u32]) -> Vec<f64> {
    let mut after = vec![0.0_f64; seconds.len()];
    for position in (0..seconds.len()).rev() {
        let rank = after[position] + seconds[position];
        after[position] = rank;
        for &input in inputs(position) {
            let slot = &mut after[input as usize];
            *slot = slot.max(rank);
        }
    }
    after
}

/// The seconds of the longest way that is left, given what is left of every step (0 for one that is done).
#[must_use]
pub fn remaining_seconds<'a>(left: &[f64], inputs: impl Fn(usize) -> &'a [u32]) -> f64 {
    longest_paths(left, inputs).into_iter().fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_is_the_longest_way_to_the_end() {
        // 0 ← 1 ← 3, 0 ← 2 ← 3 and 4 alone
        let inputs: [&[u32]; 5] = [&[], &[0], &[0], &[1, 2], &[]];
        let ranks = longest_paths(&[1.0, 5.0, 2.0, 1.0, 3.0], |position| inputs[position]);
        assert_eq!(ranks, [7.0, 6.0, 3.0, 1.0, 3.0]);
        assert!((remaining_seconds(&[0.0, 2.0, 0.0, 1.0, 0.0], |p| inputs[p]) - 3.0).abs() < 1e-9);
    }
}
