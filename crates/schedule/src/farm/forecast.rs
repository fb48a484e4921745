//! Whether units will still come to an idle worker.

use phoenix_model::Stamp;

use super::board::Board;

/// Into how many spans of time what is left is divided.
const SPANS: usize = 1024;

/// In how many seconds more than `workers` workers will be busy with units of interest at one time, when
/// everything begins as soon as what it needs is done and takes as long as expected; `None` if they never will.
/// Times are taken in spans, of which each counts with its average.
///
/// As long as that is never, everything does begin as soon as it can, and one worker more would get no unit.
pub(crate) fn more_than(board: &Board, now: Stamp, workers: f64) -> Option<f64> {
    let plan = board.plan();
    let mut start = vec![0.0_f64; plan.units().len()];
    let mut times: Vec<(f64, f64)> = Vec::new();
    let mut last = 0.0_f64;
    for unit in board.open() {
        let (begin, expected) = (start[unit as usize], plan.units()[unit as usize].seconds);
        let seconds = match board.claimed_since(unit) {
            // What takes longer than expected takes a little longer still.
            Some(since) => (expected - now.seconds_since(since)).max(expected / 10.0),
            None => expected,
        };
        let end = begin + seconds;
        for &user in plan.users(unit) {
            let start = &mut start[user as usize];
            *start = start.max(end);
        }
        last = last.max(end);
        if board.is_of_interest(unit) {
            times.push((begin, end));
        }
    }
    busier(&times, last, workers)
}

/// When the average over a span of how many times there are at one moment first is above `limit`.
fn busier(times: &[(f64, f64)], last: f64, limit: f64) -> Option<f64> {
    let span = (last / SPANS as f64).max(0.001);
    // How many more there are from a span on, and how much of them is only in a span.
    let (mut more, mut parts) = ([0.0_f64; SPANS + 1], [0.0_f64; SPANS + 1]);
    for &(start, end) in times {
        let (start, end) = (start / span, end / span);
        let (first, final_) = ((start as usize).min(SPANS), (end as usize).min(SPANS));
        if first == final_ {
            parts[first] += end - start;
        } else {
            parts[first] += first as f64 + 1.0 - start;
            parts[final_] += end - final_ as f64;
            more[first + 1] += 1.0;
            more[final_] -= 1.0;
        }
    }
    let mut whole = 0.0;
    let above = more.iter().zip(parts).position(|(more, part)| {
        whole += more;
        whole + part > limit + 0.01
    });
    above.map(|at| at as f64 * span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_counts_with_its_average() {
        let three = [(0.0, 100.0), (0.0, 60.0), (50.0, 100.0)];
        assert!(busier(&three, 100.0, 2.0).is_some_and(|at| (at - 50.0).abs() < 0.2));
        assert_eq!(busier(&three, 100.0, 3.0), None);
        assert_eq!(busier(&[(0.0, 10.24), (10.24, 1024.0)], 1024.0, 1.0), None);
        // A thousand short ones after each other are no crowd.
        let short: Vec<(f64, f64)> =
            (0..1000).map(f64::from).map(|at| (at / 1000.0, (at + 1.0) / 1000.0)).collect();
        assert_eq!(busier(&short, 1024.0, 1.0), None);
        assert_eq!(busier(&[], 0.0, 0.0), None);
        assert!(busier(&[(5.0, 10.0)], 10.0, 0.0).is_some_and(|at| (at - 5.0).abs() < 0.1));
    }
}
