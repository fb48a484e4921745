//! A file for what has been fetched and what there is no room for in memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

/// A file without a name, which is made when it is needed.
#[derive(Debug, Default)]
pub(crate) struct Spill {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Empty,
    /// With so many bytes in it.
    Open(std::sync::Arc<File>, u64),
    /// There is no place for it, or no more room.
    Useless,
}

impl Spill {
    /// Puts bytes away; where they are, or none when they cannot be.
    pub(crate) fn put(&self, bytes: &[u8]) -> Option<u64> {
        let (file, at) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if matches!(*state, State::Empty) {
                *state = tempfile::tempfile().map_or(State::Useless, |file| State::Open(file.into(), 0));
            }
            let State::Open(file, end) = &mut *state else { return None };
            let at = *end;
            *end += bytes.len() as u64;
            (file.clone(), at)
        };
        match file.write_all_at(bytes, at) {
            Ok(()) => Some(at),
            Err(_) => {
                // What was put there before stays readable as long as somebody holds the file.
                self.give_up();
                None
            }
        }
    }

    fn give_up(&self) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State::Useless;
    }

    /// The bytes that were put away here.
    pub(crate) fn take(&self, at: u64, length: usize) -> io::Result<Vec<u8>> {
        let file = match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Open(file, _) => file.clone(),
            State::Empty | State::Useless => return Err(io::ErrorKind::NotFound.into()),
        };
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_away_is_there_until_no_more_can_be() {
        let spill = Spill::default();
        assert!(spill.take(0, 1).is_err());
        let (one, two) = (spill.put(b"one").unwrap(), spill.put(b"two").unwrap());
        assert_eq!(
            (spill.take(two, 3).unwrap(), spill.take(one, 2).unwrap()),
            (b"two".to_vec(), b"on".to_vec())
        );
        assert!(spill.take(two, 4).is_err());
        spill.give_up();
        assert_eq!(spill.put(b"x"), None);
        assert!(spill.take(one, 3).is_err());
    }
}
