//! The NAR format: a file tree as one stream of bytes, the same for the same tree.
//!
//! Strings are a length (64 bits, little endian), the bytes, and zeros up to a multiple of 8
//! (nix `src/libutil/archive.cc`; Dolstra 2006, "The Purely Functional Software Deployment Model", 5.2.1).

use std::cmp::Ordering;

/// The longest name of a directory entry that is read: `NAME_MAX` of all systems Nix runs on.
pub const LONGEST_NAME: usize = 255;
/// The longest target of a symlink that is read: `PATH_MAX` of Linux.
pub const LONGEST_TARGET: usize = 4096;
/// How deep directories may be: a path of one-letter names as long as `PATH_MAX`.
pub const DEEPEST: usize = 2048;

const MAGIC: &[u8] = b"nix-archive-1";
/// The longest word of the format itself.
const LONGEST_WORD: usize = 16;

/// Takes what a [`Parser`] finds, in the order of the stream.
///
/// A tree is one node: a file ([`Sink::file`], then [`Sink::data`] for every piece, then
/// [`Sink::file_end`]), a symlink, or a directory ([`Sink::directory`], then for every entry
/// [`Sink::entry`] and its node, then [`Sink::leave`]).
pub trait Sink {
    /// What can go wrong in taking it.
    type Error;

    /// A directory begins.
    ///
    /// # Errors
    /// When it could not be taken; the parser hands the error on.
    fn directory(&mut self) -> Result<(), Self::Error>;
    /// An entry of the directory that is open; its node follows. The name is no empty text, `.` or `..`, has
    /// neither `/` nor NUL, and comes after that of the entry before.
    ///
    /// # Errors
    /// As above.
    fn entry(&mut self, name: &[u8]) -> Result<(), Self::Error>;
    /// The directory that is open ends.
    ///
    /// # Errors
    /// As above.
    fn leave(&mut self) -> Result<(), Self::Error>;
    /// A file of `size` bytes begins.
    ///
    /// # Errors
    /// As above.
    fn file(&mut self, executable: bool, size: u64) -> Result<(), Self::Error>;
    /// The next bytes of the file; never none.
    ///
    /// # Errors
    /// As above.
    fn data(&mut self, bytes: &[u8]) -> Result<(), Self::Error>;
    /// The file is whole.
    ///
    /// # Errors
    /// As above.
    fn file_end(&mut self) -> Result<(), Self::Error>;
    /// A symlink; the target has no NUL and is not empty.
    ///
    /// # Errors
    /// As above.
    fn symlink(&mut self, target: &[u8]) -> Result<(), Self::Error>;
}

/// Why a NAR could not be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError<E> {
    /// It is not a NAR, or damaged.
    #[error("the archive is damaged at byte {at}: {reason}")]
    Damaged {
        /// Offset in bytes, or a little before.
        at: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// What it holds could not be taken.
    #[error(transparent)]
    Sink(E),
}

/// Reads a NAR that comes in pieces.
///
/// Memory is bounded whatever the stream says of itself: names and targets have a longest length, contents
/// are handed on as they come.
#[derive(Debug)]
pub struct Parser {
    state: State,
    /// The beginning of a string that the last piece broke off in.
    partial: Vec<u8>,
    /// The last entry of each directory that is open.
    open: Vec<Vec<u8>>,
    at: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Magic,
    NodeOpen,
    Type,
    Kind,
    FileKey,
    ExecutableValue,
    ContentsKey,
    ContentsSize { executable: bool },
    Contents { left: u64, padding: u8 },
    Padding { left: u8 },
    TargetKey,
    Target,
    NodeClose,
    DirectoryKey,
    EntryOpen,
    NameKey,
    Name,
    NodeKey,
    EntryClose,
    End,
}

impl Default for Parser {
    fn default() -> Self {
        Self { state: State::Magic, partial: Vec::new(), open: Vec::new(), at: 0 }
    }
}

/// How many zeros follow a string of this length.
#[must_use]
pub fn padding(length: u64) -> usize {
    // Less than 8, so it fits.
    ((8 - length % 8) % 8) as usize
}

impl Parser {
    /// Reads the next piece, of any size.
    ///
    /// # Errors
    /// When the stream is no NAR, or the sink fails. Nothing more can be read then.
    pub fn feed<S: Sink>(&mut self, mut input: &[u8], sink: &mut S) -> Result<(), ParseError<S::Error>> {
        while !input.is_empty() {
            let before = input.len();
            match self.state {
                State::Contents { left, padding } => {
                    let count = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
                    let (bytes, rest) = input.split_at(count);
                    sink.data(bytes).map_err(ParseError::Sink)?;
                    input = rest;
                    let left = left - count as u64;
                    self.state = State::Contents { left, padding };
                    if left == 0 {
                        self.file_end(padding, sink)?;
                    }
                }
                State::Padding { left } => {
                    let count = usize::from(left).min(input.len());
                    let (bytes, rest) = input.split_at(count);
                    if bytes.iter().any(|&byte| byte != 0) {
                        return Err(self.damaged("what fills up a string is not zero"));
                    }
                    input = rest;
                    // At most `left`, which is below 8.
                    self.state = match left - count as u8 {
                        0 => State::NodeClose,
                        left => State::Padding { left },
                    };
                }
                State::ContentsSize { executable } => {
                    let Some((size, rest)) = self.number(input) else { break };
                    input = rest;
                    sink.file(executable, size).map_err(ParseError::Sink)?;
                    let padding = padding(size) as u8;
                    self.state = State::Contents { left: size, padding };
                    if size == 0 {
                        self.file_end(padding, sink)?;
                    }
                }
                State::End => return Err(self.damaged("something follows its end")),
                _ => {
                    let Some((string, rest)) = self.string(input)? else { break };
                    input = rest;
                    self.token(&string, sink)?;
                }
            }
            self.at += (before - input.len()) as u64;
        }
        Ok(())
    }

    /// Says that nothing more comes.
    ///
    /// # Errors
    /// When the stream broke off.
    pub fn finish<E>(&self) -> Result<(), ParseError<E>> {
        if self.state == State::End { Ok(()) } else { Err(self.damaged("it breaks off")) }
    }

    fn damaged<E>(&self, reason: &'static str) -> ParseError<E> {
        ParseError::Damaged { at: self.at, reason }
    }

    fn file_end<S: Sink>(&mut self, padding: u8, sink: &mut S) -> Result<(), ParseError<S::Error>> {
        sink.file_end().map_err(ParseError::Sink)?;
        self.state = if padding == 0 { State::NodeClose } else { State::Padding { left: padding } };
        Ok(())
    }

    /// A number; `None` when the input ends in it, and all of it was kept.
    fn number<'i>(&mut self, input: &'i [u8]) -> Option<(u64, &'i [u8])> {
        let take = (8 - self.partial.len()).min(input.len());
        let (head, rest) = input.split_at(take);
        self.partial.extend_from_slice(head);
        let number = u64::from_le_bytes(self.partial.as_slice().try_into().ok()?);
        self.partial.clear();
        Some((number, rest))
    }

    /// The longest string that may stand here.
    fn longest(&self) -> usize {
        match self.state {
            State::Name => LONGEST_NAME,
            State::Target => LONGEST_TARGET,
            _ => LONGEST_WORD,
        }
    }

    /// A string; `None` when the input ends in it, and all of it was kept.
    #[expect(clippy::type_complexity, reason = "a string and the rest")]
    fn string<'i, E>(
        &mut self,
        input: &'i [u8],
    ) -> Result<Option<(std::borrow::Cow<'i, [u8]>, &'i [u8])>, ParseError<E>> {
        if self.partial.is_empty()
            && let Some((head, rest)) = input.split_first_chunk::<8>()
        {
            let (length, padding) = self.length(*head)?;
            if let Some((string, rest)) = rest.split_at_checked(length)
                && let Some((zeros, rest)) = rest.split_at_checked(padding)
            {
                self.zeros(zeros)?;
                return Ok(Some((string.into(), rest)));
            }
        }
        let mut rest = input;
        if self.partial.len() < 8 {
            rest = self.keep(rest, 8);
        }
        let Some(head) = self.partial.first_chunk::<8>() else { return Ok(None) };
        let (length, padding) = self.length(*head)?;
        let whole = 8 + length + padding;
        rest = self.keep(rest, whole);
        if self.partial.len() < whole {
            return Ok(None);
        }
        let mut string = std::mem::take(&mut self.partial);
        self.zeros(&string[8 + length..])?;
        string.truncate(8 + length);
        string.drain(..8);
        Ok(Some((string.into(), rest)))
    }

    /// Keeps as much of the input as brings what is kept to `whole` bytes; returns the rest.
    fn keep<'i>(&mut self, input: &'i [u8], whole: usize) -> &'i [u8] {
        let take = whole.saturating_sub(self.partial.len()).min(input.len());
        let (head, rest) = input.split_at(take);
        self.partial.extend_from_slice(head);
        rest
    }

    fn length<E>(&self, head: [u8; 8]) -> Result<(usize, usize), ParseError<E>> {
        let length = u64::from_le_bytes(head);
        match usize::try_from(length) {
            Ok(short) if short <= self.longest() => Ok((short, padding(length))),
            _ => Err(self.damaged("a string is longer than any that may stand there")),
        }
    }

    fn zeros<E>(&self, bytes: &[u8]) -> Result<(), ParseError<E>> {
        if bytes.iter().all(|&byte| byte == 0) {
            Ok(())
        } else {
            Err(self.damaged("what fills up a string is not zero"))
        }
    }

    fn word<E>(&self, string: &[u8], wanted: &[u8], next: State) -> Result<State, ParseError<E>> {
        if string == wanted {
            Ok(next)
        } else {
            Err(self.damaged("it has a word that does not belong there"))
        }
    }

    fn token<S: Sink>(&mut self, string: &[u8], sink: &mut S) -> Result<(), ParseError<S::Error>> {
        let sunk = ParseError::Sink;
        self.state = match self.state {
            State::Magic => self.word(string, MAGIC, State::NodeOpen)?,
            State::NodeOpen => self.word(string, b"(", State::Type)?,
            State::Type => self.word(string, b"type", State::Kind)?,
            State::Kind => match string {
                b"regular" => State::FileKey,
                b"symlink" => State::TargetKey,
                b"directory" => {
                    if self.open.len() == DEEPEST {
                        return Err(self.damaged("its directories are too deep"));
                    }
                    sink.directory().map_err(sunk)?;
                    self.open.push(Vec::new());
                    State::DirectoryKey
                }
                _ => return Err(self.damaged("it has a kind of file that is not known")),
            },
            State::FileKey => match string {
                b"executable" => State::ExecutableValue,
                b"contents" => State::ContentsSize { executable: false },
                // Nix writes contents always, and reads a file without as an empty one.
                b")" => {
                    sink.file(false, 0).map_err(sunk)?;
                    sink.file_end().map_err(sunk)?;
                    self.after_node()
                }
                _ => return Err(self.damaged("it has a word that does not belong there")),
            },
            State::ExecutableValue => self.word(string, b"", State::ContentsKey)?,
            State::ContentsKey => self.word(string, b"contents", State::ContentsSize { executable: true })?,
            State::TargetKey => self.word(string, b"target", State::Target)?,
            State::Target => {
                if string.is_empty() || string.contains(&0) {
                    return Err(self.damaged("a symlink has no possible target"));
                }
                sink.symlink(string).map_err(sunk)?;
                State::NodeClose
            }
            State::NodeClose => {
                self.word(string, b")", State::End)?;
                self.after_node()
            }
            State::DirectoryKey => match string {
                b"entry" => State::EntryOpen,
                b")" => {
                    self.open.pop();
                    sink.leave().map_err(sunk)?;
                    self.after_node()
                }
                _ => return Err(self.damaged("it has a word that does not belong there")),
            },
            State::EntryOpen => self.word(string, b"(", State::NameKey)?,
            State::NameKey => self.word(string, b"name", State::Name)?,
            State::Name => {
                self.name(string)?;
                sink.entry(string).map_err(sunk)?;
                State::NodeKey
            }
            State::NodeKey => self.word(string, b"node", State::NodeOpen)?,
            State::EntryClose => self.word(string, b")", State::DirectoryKey)?,
            state @ (State::ContentsSize { .. }
            | State::Contents { .. }
            | State::Padding { .. }
            | State::End) => state,
        };
        Ok(())
    }

    /// What follows when a node is whole.
    fn after_node(&self) -> State {
        if self.open.is_empty() { State::End } else { State::EntryClose }
    }

    fn name<E>(&mut self, name: &[u8]) -> Result<(), ParseError<E>> {
        if matches!(name, b"" | b"." | b"..") || name.iter().any(|&byte| byte == b'/' || byte == 0) {
            return Err(self.damaged("an entry has a name that no file can have"));
        }
        let sorted = self.open.last().is_none_or(|last| last.as_slice().cmp(name) == Ordering::Less);
        if !sorted {
            return Err(self.damaged("the entries of a directory are not in order"));
        }
        if let Some(last) = self.open.last_mut() {
            last.clear();
            last.extend_from_slice(name);
        }
        Ok(())
    }
}

/// Writes a NAR: a [`Sink`] that keeps the bytes of the stream until they are taken.
#[derive(Debug, Default)]
pub struct Writer {
    /// What was written and not taken yet.
    pub bytes: Vec<u8>,
    depth: usize,
    padding: usize,
    begun: bool,
}

impl Writer {
    fn string(&mut self, string: &[u8]) {
        self.bytes.extend_from_slice(&(string.len() as u64).to_le_bytes());
        self.bytes.extend_from_slice(string);
        self.zeros(padding(string.len() as u64));
    }

    fn zeros(&mut self, count: usize) {
        self.bytes.extend_from_slice(&[0; 8][..count]);
    }

    fn node(&mut self, kind: &[u8]) {
        if !std::mem::replace(&mut self.begun, true) {
            self.string(MAGIC);
        }
        for word in [b"(", b"type".as_slice(), kind] {
            self.string(word);
        }
    }

    fn close(&mut self) {
        self.string(b")");
        if self.depth > 0 {
            self.string(b")");
        }
    }
}

impl Sink for Writer {
    type Error = std::convert::Infallible;

    fn directory(&mut self) -> Result<(), Self::Error> {
        self.node(b"directory");
        self.depth += 1;
        Ok(())
    }

    fn entry(&mut self, name: &[u8]) -> Result<(), Self::Error> {
        for word in [b"entry", b"(".as_slice(), b"name", name, b"node"] {
            self.string(word);
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Self::Error> {
        self.depth -= 1;
        self.close();
        Ok(())
    }

    fn file(&mut self, executable: bool, size: u64) -> Result<(), Self::Error> {
        self.node(b"regular");
        if executable {
            self.string(b"executable");
            self.string(b"");
        }
        self.string(b"contents");
        self.bytes.extend_from_slice(&size.to_le_bytes());
        self.padding = padding(size);
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn file_end(&mut self) -> Result<(), Self::Error> {
        self.zeros(self.padding);
        self.close();
        Ok(())
    }

    fn symlink(&mut self, target: &[u8]) -> Result<(), Self::Error> {
        self.node(b"symlink");
        self.string(b"target");
        self.string(target);
        self.close();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
