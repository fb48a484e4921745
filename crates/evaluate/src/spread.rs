//! How work is spread over workers.
//!
//! Neighbours have most in common, and what they have in common is evaluated once in each process. So each worker has a
//! stretch of neighbours, and one that has nothing left takes the latter half of the longest stretch: what is behind
//! something slow does not wait for it.

use std::collections::VecDeque;

/// What is left to do, by the worker that is to do it.
#[derive(Debug)]
pub(crate) struct Spread<T> {
    stretches: Vec<VecDeque<T>>,
}

impl<T> Default for Spread<T> {
    fn default() -> Self {
        Self { stretches: Vec::new() }
    }
}

impl<T> Spread<T> {
    /// Puts something, in its order, before everything that a worker has.
    pub(crate) fn give(&mut self, worker: usize, items: Vec<T>) {
        let stretch = self.stretch(worker);
        for item in items.into_iter().rev() {
            stretch.push_front(item);
        }
    }

    /// What a worker is to do next.
    pub(crate) fn take(&mut self, worker: usize) -> Option<T> {
        if self.stretch(worker).is_empty() {
            // Of two that are as long, the one of the first worker.
            let longest = (0..self.stretches.len()).rev().max_by_key(|&other| self.stretches[other].len())?;
            let half = self.stretches[longest].len() / 2;
            let stolen = self.stretches[longest].split_off(half);
            self.stretches[worker] = stolen;
        }
        self.stretches[worker].pop_front()
    }

    /// What a worker is to do next, and so many of what follows that go with the first.
    pub(crate) fn take_some(
        &mut self,
        worker: usize,
        most: usize,
        go_together: impl Fn(&T, &T) -> bool,
    ) -> Vec<T> {
        let Some(first) = self.take(worker) else { return Vec::new() };
        let stretch = self.stretch(worker);
        let more =
            stretch.iter().take(most.saturating_sub(1)).take_while(|item| go_together(&first, item)).count();
        std::iter::once(first).chain(self.stretches[worker].drain(..more)).collect()
    }

    /// How much is left.
    pub(crate) fn len(&self) -> usize {
        self.stretches.iter().map(VecDeque::len).sum()
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.stretches.iter().all(VecDeque::is_empty)
    }

    /// Everything that is left.
    pub(crate) fn drain(&mut self) -> Vec<T> {
        self.stretches.drain(..).flatten().collect()
    }

    fn stretch(&mut self, worker: usize) -> &mut VecDeque<T> {
        if self.stretches.len() <= worker {
            self.stretches.resize_with(worker + 1, VecDeque::new);
        }
        &mut self.stretches[worker]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_worker_has_everything_in_its_order() {
        let mut spread = Spread::default();
        spread.give(0, vec![1, 4]);
        assert_eq!(spread.take(0), Some(1));
        spread.give(0, vec![2, 3]);
        let rest: Vec<i32> = std::iter::from_fn(|| spread.take(0)).collect();
        assert_eq!(rest, [2, 3, 4]);
        assert_eq!((spread.take(0), spread.len()), (None, 0));
    }

    #[test]
    fn who_has_nothing_takes_the_latter_half_of_the_longest_stretch() {
        let mut spread = Spread::default();
        spread.give(0, (0..8).collect());
        assert_eq!(spread.take(1), Some(4));
        assert_eq!(spread.take(0), Some(0));
        // Both have three left: of the first.
        assert_eq!(spread.take(2), Some(2));
        assert_eq!(spread.take(1), Some(5));
        assert_eq!(spread.take(2), Some(3));
    }

    #[test]
    fn what_goes_together_is_taken_together() {
        let mut spread = Spread::default();
        spread.give(0, vec![1, 3, 5, 6, 7]);
        let both_odd = |one: &i32, other: &i32| one % 2 == other % 2;
        assert_eq!(spread.take_some(0, 2, both_odd), [1, 3]);
        assert_eq!(spread.take_some(0, 9, both_odd), [5]);
        assert_eq!(spread.take_some(0, 0, both_odd), [6]);
        assert_eq!(spread.take_some(0, 9, both_odd), [7]);
        assert!(spread.take_some(0, 9, both_odd).is_empty());
    }

    #[test]
    fn the_last_one_is_taken_too() {
        let mut spread = Spread::default();
        spread.give(0, vec![1]);
        assert_eq!(spread.take(5), Some(1));
        assert!(spread.is_empty());
    }

    proptest! {
        #[test]
        fn everything_is_done_once(takers in proptest::collection::vec(0_usize..4, 0..200), count in 0_usize..100) {
            let mut spread = Spread::default();
            spread.give(0, (0..count).collect());
            let mut done: Vec<usize> = takers.into_iter().filter_map(|worker| spread.take(worker)).collect();
            done.extend(spread.drain());
            done.sort_unstable();
            prop_assert_eq!(done, (0..count).collect::<Vec<_>>());
        }
    }
}
