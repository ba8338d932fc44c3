//! What a child process said last before its end: mostly that is why.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Lines of ffmpeg that tell that it failed, not why; the line before them does.
const EMPTY_WORDS: [&str; 5] = [
    "Conversion failed",
    "Error initializing output stream",
    "Exiting",
    "Nothing was written into output file",
    "At least one output file must",
];

/// The last line of a child that says something.
#[derive(Debug, Clone, Default)]
pub(super) struct LastWords(Arc<Mutex<String>>);

impl LastWords {
    /// Another child runs.
    pub(super) fn forget(&self) {
        self.lock().clear();
    }

    /// A line, without what may be secret.
    pub(super) fn say(&self, line: &str) {
        if !EMPTY_WORDS.iter().any(|begin| line.starts_with(begin)) {
            line.clone_into(&mut self.lock());
        }
    }

    /// A reason with these words in front of it, where there are any.
    pub(super) fn instead_of(&self, reason: &str) -> String {
        match self.lock().as_str() {
            "" => reason.to_owned(),
            said => format!("it said \"{}\"; {reason}", without_address(said)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// ffmpeg names its part and where that lies in memory, `[wmav2 @ 0x55d0] `, which tells nobody anything.
fn without_address(line: &str) -> String {
    let part = line.strip_prefix('[').and_then(|line| line.split_once("] "));
    let part = part.and_then(|(part, said)| Some((part.split_once(" @ 0x")?.0, said)));
    part.map_or_else(|| line.to_owned(), |(part, said)| format!("{part}: {said}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_says_why_is_kept() {
        let said = LastWords::default();
        assert_eq!(said.instead_of("exit status: 1"), "exit status: 1");
        for line in [
            "[wmav2 @ 0x55d0a] bitrate too low: got 8000, need 24000 or higher",
            "Error initializing output stream 0:0 -- Error while opening encoder",
            "Conversion failed!",
        ] {
            said.say(line);
        }
        assert_eq!(
            said.instead_of("exit status: 1"),
            "it said \"wmav2: bitrate too low: got 8000, need 24000 or higher\"; exit status: 1"
        );
        said.clone().say("[not this] one");
        assert_eq!(said.instead_of("it hung"), "it said \"[not this] one\"; it hung");
        said.forget();
        assert_eq!(said.instead_of("it hung"), "it hung");
    }
}
