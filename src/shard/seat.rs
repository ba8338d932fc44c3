//! One viewer of something on demand: what it is sent, and when.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::broadcast::{Tally, Viewer};
use super::file_feed::FileFeed;
use super::file_pace::FilePace;
use super::framing::Framing;
use super::opening::Opening;
use super::origins::Origins;
use super::pace::TICK;
use super::relayed::{Relayed, RelayedFeed};
use super::stage::{Backlog, Blocked, Moment, Stage, Staging};
use super::viewer::most_packets;
use crate::archive::Wake;
use crate::asf::Selection;
use crate::viewing::Cue;

/// What came of serving such a viewer.
#[derive(Debug)]
pub(super) enum Served {
    /// It has all that is due; more is then.
    Until(Instant),
    /// What comes next is not here yet.
    Waiting,
    /// It can take no more now.
    Blocked(Blocked),
    /// It is known with which packet it begins; it is to be served again once its player knows too.
    Cued(Cue),
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
    /// What was due and had no room, or is more than may go at once.
    backlog: Option<Box<Backlog>>,
    /// The viewer itself could not take more until then.
    free_since: Instant,
    /// Its player is to be told with which packet it begins.
    uncued: bool,
    /// When it is served next; kept by who has the clock.
    pub(super) due: Option<Instant>,
}

/// One occasion to send.
pub(super) struct Turn<'a> {
    pub(super) now: Instant,
    /// For how long what is due is gathered.
    pub(super) tick: Duration,
    /// Packets that go with one call.
    pub(super) most: usize,
    pub(super) framing: Framing,
    pub(super) tally: &'a mut Tally,
    /// Makes what is called when a block has been read, on another thread.
    pub(super) wake: &'a dyn Fn() -> Wake,
}

impl OnDemandSeat {
    /// A viewer that has been told nothing yet of this play.
    pub(super) fn new(now: Instant, mut viewer: Viewer, feed: Feed, pace: FilePace) -> Self {
        viewer.hot.blocked = false;
        let uncued = viewer.hot.is_in_rtp();
        Self { viewer, feed, pace, backlog: None, free_since: now, uncued, due: None }
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

    /// Sends what is due. `turn.most` and `turn.framing` are filled in.
    ///
    /// # Errors
    /// The TCP connection is gone.
    pub(super) fn serve(&mut self, turn: &mut Turn<'_>, origins: &Origins, stage: &mut Stage) -> io::Result<Served> {
        turn.framing = self.viewer.hot.framing;
        let stride = turn.framing.stride(self.feed.packet_size());
        let moment = Moment { now: turn.now, free_since: self.free_since };
        stage.begin(self.viewer.cold.flow, self.backlog.take());
        loop {
            turn.most = most_packets(&self.viewer.hot.link, origins, stride).min(self.pace.packets(turn.now)) as usize;
            let stopped = match turn.most {
                0 => Some(Served::Until(turn.now + TICK)),
                most if stage.len() < most => self.feed.gather(turn, &mut self.pace, stage),
                _ => None,
            };
            let count = stage.len().min(turn.most);
            if self.uncued
                && let Some(cue) = stage.cue(&self.viewer.hot.next)
            {
                self.uncued = false;
                self.backlog = stage.behind(0, stride);
                return Ok(Served::Cued(cue));
            }
            if count > 0 {
                let Staging { begun, bytes, blocked } =
                    stage.send(&mut self.viewer, moment, stride, count, origins, turn.tally)?;
                self.pace.sent(u32::try_from(begun).unwrap_or(u32::MAX), bytes);
                self.backlog = stage.behind(begun, stride);
                if let Some(blocked) = blocked {
                    return Ok(Served::Blocked(blocked));
                }
            } else {
                self.backlog = stage.behind(0, stride);
            }
            match stopped {
                Some(stopped) if self.backlog.is_none() || turn.most == 0 => return Ok(stopped),
                _ => stage.begin(self.viewer.cold.flow, self.backlog.take()),
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

    /// Adds what is due to what is gathered; tells why it stopped, where that is not for want of room.
    fn gather(&mut self, turn: &mut Turn<'_>, pace: &mut FilePace, stage: &mut Stage) -> Option<Served> {
        match self {
            Self::File(feed) => feed.gather(turn, pace, stage),
            Self::Relayed(feed) => feed.gather(turn, pace, stage),
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
