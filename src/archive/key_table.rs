//! The key frames of a file whose send times do not rise: read once, however many searches want them.
//!
//! One search reads, which may take long. The others are put aside meanwhile, so that they keep no thread, and queued
//! again when it is through. Where it stops early, the next goes on from there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ReadError;
use super::locate::Search;

/// Presentation time, ms, and packet of key frames, in order of the file.
pub(super) type KeyTable = Arc<[(u32, u64)]>;

/// The table of one file, in whatever state it is.
#[derive(Default)]
pub(super) struct KeyTableCell(Mutex<State>);

enum State {
    Partial(Partial),
    /// A search reads; these wait for it.
    Reading(Vec<Search>),
    Whole(KeyTable),
}

/// A table as far as it is read.
#[derive(Default)]
pub(super) struct Partial {
    pub(super) keys: Vec<(u32, u64)>,
    /// The packet with which it goes on.
    pub(super) next: u64,
}

/// What a search finds that wants the table.
pub(super) enum Wanted<'a> {
    Here(KeyTable),
    /// It must read on by itself.
    Read(Reading<'a>),
    /// Another search does: this one is to be [put aside](KeyTableCell::put_aside).
    Taken,
}

/// The duty to read the table. Dropped before its end, the next search that wants the table goes on.
pub(super) struct Reading<'a> {
    cell: &'a KeyTableCell,
    pub(super) partial: Partial,
    ended: bool,
}

impl Default for State {
    fn default() -> Self {
        Self::Partial(Partial::default())
    }
}

impl KeyTableCell {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for the table. Never waits for another search.
    pub(super) fn want(&self) -> Wanted<'_> {
        let mut state = self.lock();
        match &mut *state {
            State::Whole(keys) => Wanted::Here(keys.clone()),
            State::Reading(_) => Wanted::Taken,
            State::Partial(partial) => {
                let partial = std::mem::take(partial);
                *state = State::Reading(Vec::new());
                Wanted::Read(Reading { cell: self, partial, ended: false })
            }
        }
    }

    /// Keeps a search until the table is read, or gives it back where nobody reads it any more.
    pub(super) fn put_aside(&self, search: Search) -> Option<Search> {
        match &mut *self.lock() {
            State::Reading(waiting) => {
                waiting.push(search);
                None
            }
            State::Partial(_) | State::Whole(_) => Some(search),
        }
    }

    /// Changes the state and returns who waited for that.
    fn set(&self, state: State) -> Vec<Search> {
        match std::mem::replace(&mut *self.lock(), state) {
            State::Reading(waiting) => waiting,
            State::Partial(_) | State::Whole(_) => Vec::new(),
        }
    }

    #[cfg(test)]
    pub(super) fn whole(&self) -> Option<KeyTable> {
        match &*self.lock() {
            State::Whole(keys) => Some(keys.clone()),
            _ => None,
        }
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        match &*self.lock() {
            State::Reading(waiting) => waiting.len(),
            _ => 0,
        }
    }
}

impl Reading<'_> {
    /// The table is read, or cannot be.
    ///
    /// # Errors
    /// Those of the read, which all who wait are told too; but where nobody wanted this search any more, another goes on.
    pub(super) fn end(mut self, result: Result<(), ReadError>) -> Result<KeyTable, ReadError> {
        let partial = std::mem::take(&mut self.partial);
        match result {
            Ok(()) => {
                self.ended = true;
                let keys: KeyTable = partial.keys.into();
                self.cell.set(State::Whole(keys.clone())).into_iter().for_each(Search::queue);
                Ok(keys)
            }
            Err(ReadError::Unwanted) => {
                self.partial = partial;
                Err(ReadError::Unwanted)
            }
            Err(error) => {
                self.ended = true;
                for search in self.cell.set(State::Partial(partial)) {
                    search.end(Err(error.clone()));
                }
                Err(error)
            }
        }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let partial = std::mem::take(&mut self.partial);
            self.cell.set(State::Partial(partial)).into_iter().for_each(Search::queue);
        }
    }
}
