//! A set of small numbers.

/// Numbers below a fixed limit, of which the least are found fast.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bits {
    words: Vec<u64>,
    /// No word before this one has a number.
    first: usize,
    len: usize,
}

impl Bits {
    /// An empty set for numbers below `limit`.
    pub(crate) fn new(limit: usize) -> Self {
        Self { words: vec![0; limit.div_ceil(64)], first: 0, len: 0 }
    }

    /// Adds a number; whether it was not there.
    pub(crate) fn insert(&mut self, number: u32) -> bool {
        let (word, bit) = (number as usize / 64, 1_u64 << (number % 64));
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.len += usize::from(new);
        self.first = self.first.min(word);
        new
    }

    /// Takes a number out; whether it was there.
    pub(crate) fn remove(&mut self, number: u32) -> bool {
        let (word, bit) = (number as usize / 64, 1_u64 << (number % 64));
        let there = self.words[word] & bit != 0;
        self.words[word] &= !bit;
        self.len -= usize::from(there);
        if self.len == 0 {
            self.first = self.words.len();
        } else if word == self.first {
            while self.words[self.first] == 0 {
                self.first += 1;
            }
        }
        there
    }

    pub(crate) fn contains(&self, number: u32) -> bool {
        self.words[number as usize / 64] & (1_u64 << (number % 64)) != 0
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The numbers, the least first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        let from = self.first.min(self.words.len());
        let numbers = (0..).zip(&self.words).skip(from).flat_map(|(place, &word)| {
            let place: u32 = place;
            let mut left = word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(place * 64 + bit)
            })
        });
        // Without looking for more when all were found.
        numbers.take(self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in_and_not_taken_out() {
        let mut bits = Bits::new(1000);
        for number in [999, 3, 64, 63, 500, 3] {
            bits.insert(number);
        }
        assert!(!bits.remove(4) && bits.remove(3) && !bits.contains(3) && bits.contains(64));
        assert_eq!(bits.iter().collect::<Vec<_>>(), [63, 64, 500, 999]);
        for number in [64, 63, 999, 500] {
            assert!(bits.remove(number));
        }
        assert_eq!((bits.len(), bits.iter().next()), (0, None));
        bits.insert(700);
        bits.insert(2);
        assert_eq!(bits.iter().collect::<Vec<_>>(), [2, 700]);
    }
}
