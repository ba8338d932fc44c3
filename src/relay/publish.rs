//! How a source feeds a publishing point.

use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::delivery::Delivery;
use super::point::Point;
use crate::settings::Source;

/// A publisher that was silent for so long gives way to another one with the same credentials: its connection is
/// most likely dead, and the newcomer is the same encoder.
const SILENCE: Duration = Duration::from_secs(2);

/// Who publishes: what has to be equal for a take-over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublisherId {
    /// A user who gave the password.
    User(String),
    /// A program on this machine, without a password.
    Local,
    /// The daemon's own source of the publishing point: file, child process, demo.
    BuiltIn,
}

/// Why nobody may publish under a name now.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PublishRefusal {
    /// There is no such publishing point.
    #[error("there is no publishing point {name:?}; add it to the settings with `source = {{ type = \"push\" }}`")]
    Unknown {
        /// The name asked for.
        name: String,
    },
    /// The publishing point has a source of its own.
    #[error("publishing point {name:?} has a source of another type than \"push\"")]
    NotPush {
        /// The name asked for.
        name: String,
    },
    /// Somebody publishes already.
    #[error("publishing point {name:?} has a publisher already; its connection must end or fall silent first")]
    Busy {
        /// The name asked for.
        name: String,
    },
}

/// The source side of a publishing point.
#[derive(Debug, Default)]
pub(super) struct Feed {
    publisher: Option<Current>,
    tokens: u64,
}

#[derive(Debug)]
struct Current {
    /// Tells this publisher from earlier ones.
    token: u64,
    id: PublisherId,
    /// When it last gave a sign of life.
    active: Instant,
}

/// The right to feed a publishing point; the source is gone when it is dropped.
pub struct Publisher {
    point: Arc<Point>,
    token: u64,
}

impl Publisher {
    pub(super) fn new(point: Arc<Point>, now: Instant, id: PublisherId) -> Result<Self, PublishRefusal> {
        let name = || point.name().to_owned();
        let pushed = matches!(point.settings().source, Source::Push);
        if !pushed && id != PublisherId::BuiltIn {
            return Err(PublishRefusal::NotPush { name: name() });
        }
        let mut feed = point.lock_feed();
        if let Some(current) = &feed.publisher
            && (current.id != id || now.saturating_duration_since(current.active) < SILENCE)
        {
            return Err(PublishRefusal::Busy { name: name() });
        }
        feed.tokens += 1;
        let token = feed.tokens;
        feed.publisher = Some(Current { token, id, active: now });
        drop(feed);
        Ok(Self { point, token })
    }

    /// The publishing point that is fed.
    pub fn point(&self) -> &Arc<Point> {
        &self.point
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let mut feed = self.point.lock_feed();
        if feed.publisher.as_ref().is_some_and(|current| current.token == self.token) {
            feed.publisher = None;
            self.point.deliver(&Delivery::SourceLost { point: self.point.id() });
        }
    }
}
