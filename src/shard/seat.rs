//! One viewer of something on demand: what it is sent, and when.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::broadcast::{Tally, Viewer};
use super::file_feed::FileFeed;
use super::file_pace::FilePace;
use super::opening::Opening;
use super::origins::Origins;
use super::pace::TICK;
use super::relayed::{Relayed, RelayedFeed};
use super::stage::{Blocked, Moment, Stage};
use super::viewer::most_packets;
use crate::archive::Wake;
use crate::asf::Selection;
use crate::mms::media::HEAD_LEN;

/// What came of serving such a viewer.
#[derive(Debug)]
pub(super) enum Served {
    /// It has all that is due; more is then.
    Until(Instant),
    /// What comes next is not here yet.
    Waiting,
    /// It can take no more now.
    Blocked(Blocked),
    /// It has everything.
    Finished,
    /// It cannot be played on; why.
    Broken(String),
}

/// Where its packets come from.
pub(super) enum Feed {
    /// A file of ours.
    File(Box<FileFeed>),
    /// A file of an upstream.
    Relayed(RelayedFeed),
}

/// One viewer of something on demand, while it plays.
pub(super) struct OnDemandSeat {
    pub(super) viewer: Viewer,
    pub(super) feed: Feed,
    pace: FilePace,
    /// The viewer itself could not take more until then.
    free_since: Instant,
    /// When it is served next; kept by who has the clock.
    pub(super) due: Option<Instant>,
}

/// One occasion to send.
pub(super) struct Turn<'a> {
    pub(super) now: Instant,
    /// For how long what is due is gathered.
    pub(super) tick: Duration,
    /// Packets that one call takes.
    pub(super) most: usize,
    pub(super) tally: &'a mut Tally,
    /// Makes what is called when a block has been read, on another thread.
    pub(super) wake: &'a dyn Fn() -> Wake,
}

impl OnDemandSeat {
    /// A viewer that has been told nothing yet of this play.
    pub(super) fn new(now: Instant, mut viewer: Viewer, feed: Feed, pace: FilePace) -> Self {
        viewer.hot.blocked = false;
        Self { viewer, feed, pace, free_since: now, due: None }
    }

    /// Another selection from here on.
    pub(super) fn select(&mut self, selection: Selection) {
        match &mut self.feed {
            Feed::File(feed) => {
                if feed.select(selection) {
                    // What was sent is cut by the selection when it is sent again.
                    self.viewer.cold.track.forget(&self.viewer.hot.next);
                }
            }
            Feed::Relayed(feed) => feed.relayed.select(selection),
        }
    }

    /// The viewer takes bytes again.
    pub(super) fn is_free(&mut self, now: Instant) {
        self.viewer.hot.blocked = false;
        self.free_since = now;
    }

    /// Sends what is due. `turn.most` is filled in.
    ///
    /// # Errors
    /// The TCP connection is gone.
    pub(super) fn serve(&mut self, turn: &mut Turn<'_>, origins: &Origins, stage: &mut Stage) -> io::Result<Served> {
        let stride = self.feed.packet_size() + HEAD_LEN;
        let moment = Moment { now: turn.now, free_since: self.free_since };
        loop {
            stage.clear();
            turn.most = most_packets(&self.viewer.hot.link, origins, stride).min(self.pace.packets(turn.now)) as usize;
            let stopped = match turn.most {
                0 => Some(Served::Until(turn.now + TICK)),
                _ => self.feed.gather(turn, &mut self.pace, stage),
            };
            let mut sent = 0;
            while sent < stage.len() {
                let end = stage.len().min(sent + turn.most);
                let (begun, blocked) = stage.send(&mut self.viewer, moment, stride, sent..end, origins, turn.tally)?;
                self.pace.sent(u32::try_from(begun).unwrap_or(u32::MAX), begun * stride);
                self.feed.sent(stage, sent + begun);
                if let Some(blocked) = blocked {
                    self.feed.unsent(stage, sent + begun, &mut self.pace);
                    return Ok(Served::Blocked(blocked));
                }
                sent = end;
            }
            if let Some(stopped) = stopped {
                return Ok(stopped);
            }
        }
    }

    /// It plays no more; what is left is the viewer.
    pub(super) fn leave(self) -> Viewer {
        if let Feed::Relayed(feed) = &self.feed {
            feed.relayed.rest();
        }
        self.viewer
    }
}

impl Feed {
    pub(super) fn packet_size(&self) -> usize {
        match self {
            Self::File(feed) => feed.opening.packet_size,
            Self::Relayed(feed) => feed.relayed.packet_size,
        }
    }

    /// Gathers what is due; tells why it stopped, where that is not for want of room.
    fn gather(&mut self, turn: &mut Turn<'_>, pace: &mut FilePace, stage: &mut Stage) -> Option<Served> {
        match self {
            Self::File(feed) => feed.gather(turn, pace, stage),
            Self::Relayed(feed) => feed.gather(turn, pace, stage),
        }
    }

    /// So many of what was gathered have begun to go.
    fn sent(&mut self, stage: &Stage, count: usize) {
        let last = count.checked_sub(1).and_then(|last| stage.number(last));
        match (self, last) {
            (Self::File(feed), Some(last)) => feed.sent(last + 1),
            (Self::Relayed(feed), Some(last)) => feed.sent(last),
            (_, None) => {}
        }
    }

    /// Nothing more than so many can go now.
    fn unsent(&mut self, stage: &Stage, from: usize, pace: &mut FilePace) {
        if let (Self::File(feed), Some(first)) = (self, stage.number(from)) {
            feed.unsent(first, pace);
        }
    }
}

/// What a session has opened that is on demand.
#[derive(Clone)]
pub(super) enum Title {
    /// A file of ours.
    File(Rc<Opening>),
    /// A file of an upstream.
    Relayed(Rc<Relayed>),
}
