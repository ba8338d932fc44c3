//! Asking a server what a name is, without playing it.

use std::sync::{Arc, OnceLock};

use tokio::sync::{Notify, watch};

use super::connection::Steering;
use super::play::{PlayError, PlayOptions, play_observed};
use super::url::StreamUrl;
use crate::mms::session::Transport;
use crate::playing::{ClientEvent, Course};

/// What a server has under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A broadcast.
    Live,
    /// A file.
    File,
}

/// Opens a URL over TCP, whatever its scheme says of media, and leaves. Redirects are followed, as many as when playing.
///
/// # Errors
/// [`PlayError`]: the server cannot be reached, or does not open it.
pub async fn inquire(url: StreamUrl) -> Result<Content, PlayError> {
    let (known, content) = (Notify::new(), OnceLock::new());
    let text = url.to_string();
    // At rest: nothing is played for the question.
    let (_rests, course) = watch::channel(Course::default());
    let steering = Steering { course, applied: Arc::default(), resumed: None };
    let options = PlayOptions { transport: Some(Transport::Tcp), steering: Some(steering), ..PlayOptions::new(url) };
    let played = play_observed(options, known.notified(), |event, _| {
        if let ClientEvent::Opened { live, .. } = event {
            let _ = content.set(if *live { Content::Live } else { Content::File });
            known.notify_one();
        }
    });
    match (played.await, content.get().copied()) {
        (_, Some(content)) => Ok(content),
        (Err(error), None) => Err(error),
        (Ok(_), None) => Err(PlayError::Closed(text)),
    }
}
