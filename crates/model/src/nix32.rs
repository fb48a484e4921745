//! Nix's base 32 (nix `src/libutil/hash.cc`, `printHash32`).

use crate::NIX32_ALPHABET;

/// The digits of some bytes, most significant first.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    let digits = (bytes.len() * 8).div_ceil(5);
    (0..digits)
        .rev()
        .map(|digit| {
            let bit = digit * 5;
            let (byte, shift) = (bit / 8, bit % 8);
            let low = u16::from(bytes[byte]) >> shift;
            let high = bytes.get(byte + 1).map_or(0, |&next| u16::from(next) << (8 - shift));
            char::from(NIX32_ALPHABET[usize::from((low | high) & 0x1f)])
        })
        .collect()
}

/// The bytes of some digits; `None` when a digit is none, or bits are left over that are not zero.
#[must_use]
pub fn decode(digits: &str) -> Option<Vec<u8>> {
    let mut bytes = vec![0u8; digits.len() * 5 / 8];
    for (digit, char) in digits.bytes().rev().enumerate() {
        let value = u16::try_from(NIX32_ALPHABET.iter().position(|&known| known == char)?).ok()?;
        let bit = digit * 5;
        let shifted = value << (bit % 8);
        for (at, part) in [(bit / 8, shifted & 0xff), (bit / 8 + 1, shifted >> 8)] {
            let part = u8::try_from(part).ok()?;
            match bytes.get_mut(at) {
                Some(byte) => *byte |= part,
                None if part == 0 => {}
                None => return None,
            }
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn digits_are_those_of_nix() {
        // `nix-hash --type sha256 --to-base32` of the hash of nothing.
        let empty: Vec<u8> = (0..64)
            .step_by(2)
            .map(|at| {
                let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
                u8::from_str_radix(&hex[at..at + 2], 16).unwrap()
            })
            .collect();
        assert_eq!(encode(&empty), "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73");
    }

    #[test]
    fn digits_outside_the_alphabet_or_with_bits_to_spare_are_refused() {
        assert_eq!(decode("e"), None);
        assert_eq!(decode("zz"), None);
        assert_eq!(decode("7z"), Some(vec![0xff]));
    }

    proptest! {
        #[test]
        fn bytes_and_digits_are_one(bytes in prop::collection::vec(any::<u8>(), 0..65)) {
            prop_assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }
    }
}
