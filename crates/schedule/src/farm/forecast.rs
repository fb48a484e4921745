//! Whether units will still come to an idle worker.

use phoenix_model::Stamp;

use super::board::Board;

/// At how many units of interest workers will be busy at most at one time from now on, when everything
/// begins as soon as what it needs is done and takes as long as expected.
///
/// With so many workers everything does begin as soon as it can; one more would never get a unit.
pub(crate) fn most_at_once(board: &Board, now: Stamp) -> usize {
    let units = board.plan().units();
    let mut end = vec![0.0_f64; units.len()];
    let mut turns: Vec<(f64, bool)> = Vec::new();
    for unit in board.open() {
        let index = unit as usize;
        // Ends of units that have ended are 0, which is now.
        let start = units[index].inputs.iter().map(|&input| end[input as usize]).fold(0.0, f64::max);
        // What takes longer than expected takes a little longer still.
        let least = (units[index].seconds / 10.0).max(0.001);
        let seconds = match board.claimed_since(unit) {
            Some(since) => (units[index].seconds - now.seconds_since(since)).max(least),
            None => units[index].seconds.max(least),
        };
        end[index] = start + seconds;
        if board.is_of_interest(unit) {
            turns.push((start, true));
            turns.push((end[index], false));
        }
    }
    // At one time ends come before beginnings.
    turns.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let (mut at_once, mut most) = (0_usize, 0);
    for (_, begins) in turns {
        at_once = if begins { at_once + 1 } else { at_once - 1 };
        most = most.max(at_once);
    }
    most
}
