//! Names of mirrored folders, templates and lists of stations, and other profiles of what is transcoded: what they are is found out
//! elsewhere.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::command::Command;
use super::conn::Opened;
use super::engine::Event;
use super::news::why_nothing;
use super::relayed::RelayedFile;
use super::state::State;
use crate::metrics as names;
use crate::relay::{Point, Watch};
use crate::settings::{Choice, Source, line_without_secrets};
use crate::viewing::{Answer, OpenRefusal};
use crate::wire::Hresult;

/// A viewer's wish for a name below a mirrored folder or of a template, or for another profile of what is transcoded.
pub struct Wish {
    /// The folder, the template, or the publishing point that is transcoded.
    pub folder: Arc<Point>,
    /// The name below it, of a template the whole one; empty: the publishing point itself.
    pub below: String,
    /// The profile, where that is not the source's own.
    pub profile: Option<String>,
    /// Who wishes.
    pub viewer: IpAddr,
    /// Is called when something comes for a viewer of a file who found nothing in its [`Inflow`](super::Inflow).
    pub wake: Box<dyn Fn() + Send + Sync>,
    /// Takes what was found, on any thread. Dropped, it leaves the viewer without an answer.
    pub answer: Box<dyn FnOnce(Found) + Send>,
}

/// What a name below a mirrored folder is.
#[derive(Debug)]
pub enum Found {
    /// Live: the publishing point that was lent to it, already watched on behalf of the viewer.
    Live(Watch),
    /// A file, open at the upstream for this viewer alone.
    File(RelayedFile),
    /// Nothing that can be had now.
    Refused(Refused),
}

/// Why a name below a mirrored folder cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// For the player.
    pub hr: Hresult,
    /// For the metrics: one of few.
    pub cause: &'static str,
    /// For the log.
    pub reason: String,
}

impl fmt::Debug for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { below, profile, viewer, .. } = self;
        f.debug_struct("Wish").field("below", below).field("profile", profile).field("viewer", viewer).finish_non_exhaustive()
    }
}

/// Finds out what a name below a mirrored folder is; must not block.
pub type Finder = Arc<dyn Fn(Wish) + Send + Sync>;

impl State {
    /// Opens a name below a mirrored folder; the answer comes when it is known what that is.
    pub(super) fn open_mirrored(&mut self, key: usize, folder: Arc<Point>, below: &str, profile: Option<&str>) -> Option<Answer> {
        let mailbox = self.context.mailbox(self.index).clone();
        let conn = self.conns.get_mut(key)?;
        conn.request += 1;
        let (client_id, request) = (conn.entry.client_id(), conn.request);
        conn.opened = None;
        let waker = mailbox.clone();
        let wake = Box::new(move || {
            waker.send(Command::Came { conn: key, client_id });
        });
        let answer = Box::new(move |found| {
            mailbox.send(Command::Found { conn: key, client_id, request, found });
        });
        let (below, profile, viewer) = (below.to_owned(), profile.map(str::to_owned), conn.peer.ip());
        (self.context.finder)(Wish { folder, below, profile, viewer, wake, answer });
        None
    }

    /// Opens a broadcast that is transcoded: the publishing point itself or the name `below` of a template, or another profile of it,
    /// as the viewer wishes or needs.
    pub(super) fn open_profile(
        &mut self,
        key: usize,
        now: Instant,
        point: Arc<Point>,
        below: &str,
        name: &str,
    ) -> Option<Answer> {
        let context = Arc::clone(&self.context);
        let conn = self.conns.get_mut(key)?;
        let (of_point, settings) = (point.settings(), context.relay.settings());
        let Source::Ffmpeg { input, profile: own, .. } = &of_point.source else { return None };
        let token = conn.engine.player().map_or("", |player| player.token.as_str());
        match settings.profile_for(input, own, conn.profile.as_deref(), token, conn.engine.protocol()) {
            Choice::Own if of_point.is_lender() => self.open_mirrored(key, point, below, None),
            Choice::Own => self.open_live(key, now, Opened::new(point, name)),
            Choice::Other(profile) => self.open_mirrored(key, point, below, Some(profile)),
            Choice::Unknown => {
                metrics::counter!(names::REFUSALS, "cause" => "unknown_name").increment(1);
                let profile = conn.profile.as_deref().unwrap_or_default();
                tracing::info!(session = conn.session, peer = %conn.peer, profile, "no such profile");
                conn.refused_because("there is no profile of this name");
                Some(Answer::Opened(Err(OpenRefusal::Status(Hresult::FILE_NOT_FOUND))))
            }
            Choice::OwnAlone => {
                metrics::counter!(names::REFUSALS, "cause" => "one_profile").increment(1);
                tracing::info!(
                    session = conn.session,
                    peer = %conn.peer,
                    point = of_point.name,
                    "not opened: its input comes to one port of this machine, so that there is no profile of it but {own:?}"
                );
                Some(Answer::Opened(Err(OpenRefusal::Status(Hresult::FILE_NOT_FOUND))))
            }
        }
    }

    /// It is known what a name below a mirrored folder is.
    pub(super) fn found(&mut self, key: usize, now: Instant, request: u64, name: Found) {
        let Some(conn) = self.conns.get_mut(key).filter(|conn| conn.request == request && conn.closing.is_none()) else { return };
        let answer = match name {
            Found::Live(watch) => {
                let name = conn.engine.name().unwrap_or_default().to_owned();
                self.open_live(key, now, Opened::watching(watch, &name))
            }
            Found::File(file) => Some(self.opened_relayed(key, file)),
            Found::Refused(Refused { hr, cause, reason }) => {
                metrics::counter!(names::REFUSALS, "cause" => cause).increment(1);
                let name = conn.engine.name().unwrap_or_default();
                tracing::info!(session = conn.session, peer = %conn.peer, name = %name.escape_debug(), "not opened: {reason}");
                conn.refused_because(line_without_secrets(&reason).escape_debug());
                Some(Answer::Opened(Err(OpenRefusal::Status(hr))))
            }
        };
        if let Some(answer) = answer {
            self.drive(key, now, Event::Answer(answer));
        }
    }

    /// Opens a broadcast; `None` where the answer has to wait for its header.
    pub(super) fn open_live(&mut self, key: usize, now: Instant, opened: Opened) -> Option<Answer> {
        let (channel, wait) = (opened.channel, opened.point.source_expected());
        let generation = self.broadcast(channel)?.generation.clone();
        let conn = self.conns.get_mut(key)?;
        conn.opened = Some(opened);
        match generation {
            Some(generation) => Some(self.opened(key, &generation)),
            None if wait => {
                let waiting = &mut self.broadcast(channel)?.waiting;
                waiting.retain(|(waiting, _)| *waiting != key);
                waiting.push((key, now));
                None
            }
            None => {
                let conn = self.conns.get_mut(key)?;
                let opened = conn.opened.take();
                conn.refused_because(why_nothing(opened.as_ref(), now));
                metrics::counter!(names::REFUSALS, "cause" => "no_source").increment(1);
                Some(Answer::Opened(Err(OpenRefusal::Status(Hresult::NO_STREAM))))
            }
        }
    }

    /// A lent publishing point goes back: nobody watches it, and nothing of it is kept.
    pub(super) fn vacate(&mut self, channel: usize) {
        self.forget_window(channel);
        let Some(broadcast) = self.broadcasts.get(channel) else { return };
        debug_assert!(broadcast.viewers.is_empty(), "who has a seat watches");
        for (own, is_free) in broadcast.variants.clone().into_iter().map(|variant| (variant, true)).chain([(channel, false)]) {
            if let Some(broadcast) = self.broadcasts.get_mut(own) {
                *broadcast = self.context.new_broadcast();
                broadcast.is_free = is_free;
            }
        }
    }
}
