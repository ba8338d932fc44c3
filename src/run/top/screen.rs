//! The terminal while a table is live on it: a screen of its own, keys without Enter, and all as before afterwards.
//!
//! Some control sequences that every terminal of the last decades knows, and termios, which the crate rustix has and `wmrelay passwd`
//! uses too: a library for terminals would bring ten crates for it.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Another screen, without cursor; and back.
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l";
const LEAVE: &str = "\u{1b}[?25h\u{1b}[?1049l";
/// Lines and columns of a terminal that does not tell.
const USUAL: (usize, usize) = (24, 80);

/// The terminal, which is as it was when this is dropped.
pub(super) struct Screen {
    keys: UnboundedReceiver<Key>,
    before: Arc<Termios>,
}

/// What was typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Up,
    Down,
    PageUp,
    PageDown,
    Sort,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// It is none, or cannot be set.
    pub(super) fn open() -> io::Result<Self> {
        let before = Arc::new(tcgetattr(io::stdin())?);
        let mut live = (*before).clone();
        // Ctrl-C is a key like others, so that the way out is one.
        live.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
        live.special_codes[SpecialCodeIndex::VMIN] = 1;
        live.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(io::stdin(), OptionalActions::Flush, &live)?;
        let (sender, keys) = unbounded_channel();
        let screen = Self { keys, before };
        // A thread of its own, which waits for a key until the process ends: nothing else that is safe waits for a terminal.
        std::thread::Builder::new().name("keys".into()).spawn(move || {
            let mut bytes = [0; 64];
            while let Ok(count @ 1..) = io::stdin().read(&mut bytes) {
                for key in keys_of(bytes.get(..count).unwrap_or_default()) {
                    if sender.send(key).is_err() {
                        return;
                    }
                }
            }
        })?;
        // What a panic says would be gone with the other screen.
        let (says, before) = (std::panic::take_hook(), Arc::clone(&screen.before));
        std::panic::set_hook(Box::new(move |panic| {
            restore(&before);
            says(panic);
        }));
        let mut out = io::stdout().lock();
        out.write_all(ENTER.as_bytes())?;
        out.flush()?;
        Ok(screen)
    }

    /// Lines and columns now.
    pub(super) fn size(&self) -> (usize, usize) {
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row.into(), size.ws_col.into()),
            _ => USUAL,
        }
    }

    /// Shows these lines and nothing else, in one write, so that nothing flickers.
    ///
    /// # Errors
    /// The terminal is gone.
    pub(super) fn show(&self, lines: &[String]) -> io::Result<()> {
        let text = format!("\u{1b}[H{}\u{1b}[K\u{1b}[J", lines.join("\u{1b}[K\r\n"));
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// The key that was typed next; where the terminal is gone, that is to quit.
    pub(super) async fn key(&mut self) -> Key {
        self.keys.recv().await.unwrap_or(Key::Quit)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore(&self.before);
    }
}

fn restore(before: &Termios) {
    // Nothing more can be done where the terminal is gone.
    let _ = tcsetattr(io::stdin(), OptionalActions::Flush, before);
    let mut out = io::stdout();
    let _ = out.write_all(LEAVE.as_bytes()).and_then(|()| out.flush());
}

/// Keys by the bytes that terminals send for them; others are passed over.
fn keys_of(mut bytes: &[u8]) -> Vec<Key> {
    const KNOWN: [(&[u8], Key); 14] = [
        (b"\x1b[A", Key::Up),
        (b"\x1bOA", Key::Up),
        (b"\x1b[B", Key::Down),
        (b"\x1bOB", Key::Down),
        (b"\x1b[5~", Key::PageUp),
        (b"\x1b[6~", Key::PageDown),
        (b"q", Key::Quit),
        (b"Q", Key::Quit),
        (b"\x03", Key::Quit),
        (b"\x04", Key::Quit),
        (b"k", Key::Up),
        (b"j", Key::Down),
        (b" ", Key::PageDown),
        (b"s", Key::Sort),
    ];
    let mut keys = Vec::new();
    while let Some((_, behind)) = bytes.split_first() {
        match KNOWN.iter().find_map(|(code, key)| Some((bytes.strip_prefix(*code)?, *key))) {
            Some((rest, key)) => {
                keys.push(key);
                bytes = rest;
            }
            // The rest of a sequence that is not known must not be taken for keys.
            None if bytes.starts_with(b"\x1b") => {
                let end = behind.iter().skip(1).position(u8::is_ascii_alphabetic);
                bytes = end.and_then(|end| behind.get(end + 2..)).unwrap_or_default();
            }
            None => bytes = behind,
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart() {
        assert_eq!(keys_of(b"s\x1b[A\x1bOBq"), [Key::Sort, Key::Up, Key::Down, Key::Quit]);
        assert_eq!(keys_of(b"\x1b[5~\x1b[6~\x03"), [Key::PageUp, Key::PageDown, Key::Quit]);
        assert_eq!(keys_of(b"x\xFF\x1b[1;5Qj"), [Key::Down], "the Q of a function key is none");
        assert_eq!(keys_of(b"\x1b"), []);
    }
}
