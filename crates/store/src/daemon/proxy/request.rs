//! What clients of a daemon ask for: where each request ends, so that those that are not ours can be handed on.

use std::io::{self, Read};

use super::super::{operation, wire};

/// What comes with a request, one after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Number,
    Text,
    Texts,
    /// Names and values.
    Pairs,
    /// Bytes in frames, up to an empty one: always the last.
    Framed,
}

/// What comes with an operation; nothing for one that is not known. All protocols from 1.32 on have it so (nix
/// `src/libstore/daemon.cc`, `performOp`).
fn parts(operation: u64) -> Option<&'static [Part]> {
    use Part::{Framed, Number, Pairs, Text, Texts};
    Some(match operation {
        operation::IS_VALID_PATH
        | operation::QUERY_REFERRERS
        | operation::ENSURE_PATH
        | operation::ADD_TEMP_ROOT
        | operation::ADD_INDIRECT_ROOT
        | operation::QUERY_PATH_INFO
        | operation::QUERY_PATH_FROM_HASH_PART
        | operation::QUERY_VALID_DERIVERS
        | operation::NAR_FROM_PATH
        | operation::QUERY_DERIVATION_OUTPUT_MAP
        | operation::QUERY_REALISATION => &[Text],
        operation::QUERY_SUBSTITUTABLE_PATHS | operation::QUERY_MISSING => &[Texts],
        operation::QUERY_VALID_PATHS | operation::BUILD_PATHS | operation::BUILD_PATHS_WITH_RESULTS => {
            &[Texts, Number]
        }
        operation::ADD_TO_STORE => &[Text, Text, Texts, Number, Framed],
        operation::ADD_TO_STORE_NAR => {
            &[Text, Text, Text, Texts, Number, Number, Number, Texts, Text, Number, Number, Framed]
        }
        operation::ADD_MULTIPLE_TO_STORE => &[Number, Number, Framed],
        operation::SET_OPTIONS => &[
            Number, Number, Number, Number, Number, Number, Number, Number, Number, Number, Number, Number,
            Pairs,
        ],
        _ => return None,
    })
}

/// A request, up to where frames begin.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) operation: u64,
    /// As it came.
    pub(super) raw: Vec<u8>,
    pub(super) texts: Vec<String>,
    /// Of the part that has many.
    pub(super) many: Vec<String>,
    pub(super) numbers: Vec<u64>,
    /// Whether frames follow.
    pub(super) is_framed: bool,
}

impl Request {
    /// Reads what comes with an operation; nothing, and not a byte, if it is not known where that ends.
    pub(super) fn read(operation: u64, from: &mut impl Read) -> io::Result<Option<Self>> {
        let Some(parts) = parts(operation) else { return Ok(None) };
        let mut this = Self {
            operation,
            raw: operation.to_le_bytes().to_vec(),
            texts: Vec::new(),
            many: Vec::new(),
            numbers: Vec::new(),
            is_framed: false,
        };
        for part in parts {
            match part {
                Part::Number => {
                    let number = this.number(from)?;
                    this.numbers.push(number);
                }
                Part::Text => {
                    let text = this.text(from)?;
                    this.texts.push(text);
                }
                Part::Texts => {
                    for _ in 0..this.number(from)? {
                        let text = this.text(from)?;
                        this.many.push(text);
                    }
                }
                Part::Pairs => {
                    for _ in 0..this.number(from)? {
                        this.text(from)?;
                        this.text(from)?;
                    }
                }
                Part::Framed => this.is_framed = true,
            }
        }
        Ok(Some(this))
    }

    fn number(&mut self, from: &mut impl Read) -> io::Result<u64> {
        let number = wire::read_number(from)?;
        wire::number(&mut self.raw, number);
        Ok(number)
    }

    fn text(&mut self, from: &mut impl Read) -> io::Result<String> {
        let bytes = wire::read_bytes(from)?;
        wire::bytes(&mut self.raw, &bytes);
        Ok(match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        })
    }
}

/// Bytes in frames.
#[derive(Debug)]
pub(super) struct Frames<R> {
    from: R,
    /// What is left of the frame that was begun.
    left: u64,
    is_over: bool,
}

impl<R: Read> Frames<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from, left: 0, is_over: false }
    }
}

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.is_over {
            self.left = wire::read_number(&mut self.from)?;
            self.is_over = self.left == 0;
        }
        if self.left == 0 || to.is_empty() {
            return Ok(0);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(to.len());
        let count = self.from.read(&mut to[..most])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_ends_where_the_next_begins() {
        let mut bytes = Vec::new();
        for number in 0..12 {
            wire::number(&mut bytes, number);
        }
        wire::number(&mut bytes, 1);
        wire::string(&mut bytes, "name");
        wire::bytes(&mut bytes, b"\xff");
        let options = bytes.clone();
        wire::string(&mut bytes, "/nix/store/x");
        let mut from = bytes.as_slice();
        let request = Request::read(operation::SET_OPTIONS, &mut from).unwrap().unwrap();
        assert_eq!(request.raw[8..], options, "as it came, though it is no text");
        assert_eq!(request.numbers, (0..12).collect::<Vec<_>>());
        let request = Request::read(operation::IS_VALID_PATH, &mut from).unwrap().unwrap();
        assert_eq!(request.texts, ["/nix/store/x"]);
        assert!(from.is_empty() && !request.is_framed);
        assert_eq!(Request::read(36, &mut from).unwrap(), None, "what is not known");
        assert!(Request::read(operation::IS_VALID_PATH, &mut from).is_err(), "it breaks off");
    }

    proptest! {
        #[test]
        fn frames_read_back(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..6)) {
            let mut bytes = Vec::new();
            for frame in &frames {
                wire::number(&mut bytes, frame.len() as u64);
                bytes.extend_from_slice(frame);
            }
            wire::number(&mut bytes, 0);
            let whole = bytes.len();
            wire::number(&mut bytes, 7);
            let mut from = bytes.as_slice();
            let mut read = Vec::new();
            Frames::new(&mut from).read_to_end(&mut read).unwrap();
            prop_assert_eq!(read, frames.concat());
            prop_assert_eq!(from.len(), bytes.len() - whole, "not a byte more");
            let mut short = &bytes[..whole - 1];
            prop_assert!(Frames::new(&mut short).read_to_end(&mut Vec::new()).is_err());
        }
    }
}
