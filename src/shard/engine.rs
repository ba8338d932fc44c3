//! The engine of a connection, whatever protocol it speaks.

use std::time::Instant;

use bytes::Bytes;

use super::framing::Framing;
use super::visits::{report_in, report_of};
use crate::access_log::ClientReport;
use crate::http::viewer as http;
use crate::mms::session as mms;
use crate::rtsp::viewer as rtsp;
use crate::text::signed::masked;
use crate::viewing::{Answer, Ask, Player};
use crate::wire::Hresult;

/// What a connection speaks.
pub(super) enum Engine {
    /// MMS.
    Mms(Box<mms::Session>),
    /// HTTP: Windows Media's streaming protocol, and downloads.
    Http(Box<http::Connection>),
    /// RTSP.
    Rtsp(Box<rtsp::Connection>),
}

/// What happens to a connection.
#[derive(Debug)]
pub(super) enum Event<'a> {
    /// Bytes of the TCP connection.
    Bytes(&'a [u8]),
    /// A resend request for its session.
    Datagram(&'a [u8]),
    /// The relay answers, or has news.
    Answer(Answer),
    /// Another connection of its session says so.
    Told(http::Told),
    /// The peer is gone, or is given up; the packet behind the last one that it was sent, of a file.
    Left(Option<u32>),
    /// The time has come that the engine waits for.
    Timeout,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Output {
    Send(Bytes),
    Datagram(Bytes),
    Ask(Ask),
    Tell {
        connection: usize,
        told: http::Told,
    },
    /// It is a publisher's: these bytes come next on it.
    HandOver(Vec<u8>),
    Close {
        label: &'static str,
        text: &'static str,
    },
}

/// What a session tells about itself in its last log line.
pub(super) struct Account {
    pub(super) player: String,
    pub(super) resends_asked: u64,
    pub(super) resends_granted: u64,
    pub(super) client_report: String,
}

impl Engine {
    /// Takes an event in.
    ///
    /// # Errors
    /// What ends the session: its label, and words for a person.
    pub(super) fn handle(&mut self, now: Instant, event: Event<'_>) -> Result<(), (&'static str, String)> {
        match self {
            Self::Mms(session) => {
                let input = match event {
                    Event::Bytes(bytes) => mms::Input::Bytes(bytes),
                    Event::Datagram(bytes) => mms::Input::Datagram(bytes),
                    Event::Answer(answer) => mms::Input::Answer(answer),
                    Event::Timeout => mms::Input::Timeout,
                    Event::Told(_) | Event::Left(_) => return Ok(()),
                };
                session.handle(now, input).map_err(|error| (error.reason().label(), error.to_string()))
            }
            Self::Http(connection) => {
                connection.handle(
                    now,
                    match event {
                        Event::Bytes(bytes) => http::Input::Bytes(bytes),
                        Event::Answer(answer) => http::Input::Answer(answer),
                        Event::Told(told) => http::Input::Told(told),
                        Event::Left(_) => http::Input::End,
                        Event::Timeout => http::Input::Timeout,
                        Event::Datagram(_) => return Ok(()),
                    },
                );
                Ok(())
            }
            Self::Rtsp(connection) => {
                connection.handle(
                    now,
                    match event {
                        Event::Bytes(bytes) => rtsp::Input::Bytes(bytes),
                        Event::Datagram(bytes) => rtsp::Input::Datagram(bytes),
                        Event::Answer(answer) => rtsp::Input::Answer(answer),
                        Event::Timeout => rtsp::Input::Timeout,
                        Event::Left(next) => rtsp::Input::End { next },
                        Event::Told(_) => return Ok(()),
                    },
                );
                Ok(())
            }
        }
    }

    /// What is to be done next.
    pub(super) fn poll_output(&mut self) -> Option<Output> {
        Some(match self {
            Self::Mms(session) => match session.poll_output()? {
                mms::Output::Send(bytes) => Output::Send(bytes),
                mms::Output::Datagram(bytes) => Output::Datagram(bytes),
                mms::Output::Ask(ask) => Output::Ask(ask),
                mms::Output::Close(reason) => Output::Close { label: reason.label(), text: mms_words(reason) },
            },
            Self::Http(connection) => match connection.poll_output()? {
                http::Output::Send(bytes) => Output::Send(bytes),
                http::Output::Ask(ask) => Output::Ask(ask),
                http::Output::Tell { connection, told } => Output::Tell { connection, told },
                http::Output::Close(reason) => Output::Close { label: reason.label(), text: http_words(reason) },
            },
            Self::Rtsp(connection) => match connection.poll_output()? {
                rtsp::Output::Send(bytes) => Output::Send(bytes),
                rtsp::Output::Datagram(bytes) => Output::Datagram(bytes),
                rtsp::Output::Ask(ask) => Output::Ask(ask),
                rtsp::Output::HandOver(bytes) => Output::HandOver(bytes),
                rtsp::Output::Close(reason) => Output::Close { label: reason.label(), text: rtsp_words(reason) },
            },
        })
    }

    /// When it wants [`Event::Timeout`].
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Mms(session) => session.poll_timeout(),
            Self::Http(connection) => connection.poll_timeout(),
            Self::Rtsp(connection) => connection.poll_timeout(),
        }
    }

    /// How packets of the play are framed that it has just asked for.
    pub(super) fn framing(&self) -> Framing {
        match self {
            Self::Mms(_) => Framing::Mms,
            Self::Http(connection) => connection.wrap().map_or_else(Framing::default, Framing::Http),
            Self::Rtsp(connection) => connection.carriage().map_or_else(Framing::default, Framing::Rtp),
        }
    }

    /// Packets that resend requests named and that were granted, and UDP funnels refused.
    pub(super) fn counts(&self) -> [u64; 3] {
        match self {
            Self::Mms(session) => {
                let report = session.report();
                [report.resends_asked, report.resends_granted, report.refused_funnels.into()]
            }
            Self::Http(_) => [0; 3],
            Self::Rtsp(connection) => {
                let report = connection.report();
                [report.resends_asked, report.resends_granted, 0]
            }
        }
    }

    /// The label of the protocol.
    pub(super) const fn protocol(&self) -> &'static str {
        match self {
            Self::Mms(_) => "mms",
            Self::Http(_) => "http",
            Self::Rtsp(_) => "rtsp",
        }
    }

    /// The name that was opened last, as the player gave it.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Mms(session) => session.report().point.as_deref(),
            Self::Http(connection) => connection.report().name.as_deref(),
            Self::Rtsp(connection) => connection.report().name.as_deref(),
        }
    }

    /// Who plays, in its own words.
    pub(super) fn player(&self) -> Option<&Player> {
        match self {
            Self::Mms(session) => session.report().player.as_ref(),
            Self::Http(connection) => connection.report().player.as_ref(),
            Self::Rtsp(connection) => connection.report().player.as_ref(),
        }
    }

    /// The text by which a player knows itself again.
    pub(super) fn guid(&self) -> Option<String> {
        self.player()?.guid.clone()
    }

    /// What the player said about its playing on this connection.
    pub(super) fn client_report(&self) -> Option<ClientReport> {
        match self {
            Self::Mms(session) => session.report().log.as_deref().map(report_of),
            Self::Http(connection) => connection.report().log.as_deref().and_then(report_in),
            Self::Rtsp(connection) => connection.report().log.as_deref().and_then(report_in),
        }
    }

    /// Whether a name that is not there is tried again without its ending, before the player hears of it.
    pub(super) fn tries_bare_name(&self) -> bool {
        matches!(self, Self::Http(connection) if connection.tries_bare_name())
    }

    /// Media time of a broadcast that the player wants faster than it plays, milliseconds, where it wants to know about it.
    pub(super) fn head_start_ms(&self) -> Option<u32> {
        match self {
            Self::Mms(_) | Self::Http(_) => None,
            Self::Rtsp(connection) => connection.head_start_ms(),
        }
    }

    /// The session by which the player knows itself, and under which it may come again.
    pub(super) fn returns_as(&self) -> Option<u32> {
        match self {
            Self::Mms(_) | Self::Rtsp(_) => None,
            Self::Http(connection) => connection.report().client_id.filter(|_| connection.report().names_session),
        }
    }

    /// The same where what it asks for displaces whatever plays in that session: only then are two connections one player. Whoever
    /// downloads may name any session of its address, as often as it likes.
    pub(super) fn displaces_as(&self) -> Option<u32> {
        match self {
            Self::Http(connection) if connection.plays_in_session() => self.returns_as(),
            Self::Mms(_) | Self::Http(_) | Self::Rtsp(_) => None,
        }
    }

    /// Whether the player has still to be told that what it plays is over, though it may be sent no more media.
    pub(super) fn owes_end(&self) -> bool {
        match self {
            Self::Mms(session) => session.owes_end(),
            // They tell it with the last packet.
            Self::Http(_) | Self::Rtsp(_) => false,
        }
    }

    /// Why the player was told that a name does not open, where the engine says so by itself.
    pub(super) const fn open_failure(&self) -> Option<Hresult> {
        match self {
            Self::Mms(session) => session.report().open_failure,
            Self::Http(_) | Self::Rtsp(_) => None,
        }
    }

    /// Whether it goes on with a session that another connection began, or has one itself.
    pub(super) fn has_session(&self, http_sessions: &http::Sessions) -> bool {
        match self {
            Self::Mms(_) => false,
            Self::Http(_) => self.returns_as().is_some_and(|client_id| http_sessions.holds(client_id)),
            Self::Rtsp(connection) => connection.has_session(),
        }
    }

    /// Facts for the log.
    pub(super) fn account(&self) -> Account {
        let [resends_asked, resends_granted, _] = self.counts();
        let (player, client_report) = match self {
            Self::Mms(session) => (session.report().player_text(), session.report().log_text()),
            Self::Http(connection) => (connection.report().player_text(), connection.report().log_text()),
            Self::Rtsp(connection) => (connection.report().player_text(), connection.report().log_text()),
        };
        // Players repeat the address that they play, with the key in it.
        let client_report = client_report.map(|report| masked(&report)).unwrap_or_default();
        Account { player: masked(&player), resends_asked, resends_granted, client_report }
    }
}

/// Why a session over MMS ended, for a person.
const fn mms_words(reason: mms::CloseReason) -> &'static str {
    use mms::CloseReason;
    match reason {
        CloseReason::Left => "the player left",
        CloseReason::Ended => "the broadcast ended",
        CloseReason::Refused => "not admitted",
        CloseReason::Redirected => "sent elsewhere",
        CloseReason::Handshake => "the next step of the handshake did not come in time",
        CloseReason::Broken => "the file changed or cannot be read",
        CloseReason::Idle => "nothing heard of a session that does not play",
        CloseReason::Unanswered => "three pings without an answer",
        CloseReason::WrongState => "three messages that did not fit the state",
        CloseReason::Flood => "more messages than a player sends",
        CloseReason::Protocol => "not MMS, or broken MMS",
    }
}

/// Why a session over RTSP ended, for a person.
const fn rtsp_words(reason: rtsp::CloseReason) -> &'static str {
    use rtsp::CloseReason;
    match reason {
        CloseReason::Left => "the player left",
        CloseReason::Ended => "the broadcast or the file ended",
        CloseReason::Refused => "refused",
        CloseReason::Redirected => "sent elsewhere",
        CloseReason::SentAgain => "sent to the same name again, which it may have wanted to publish",
        CloseReason::Changed => "the stream changed, which this player cannot be told",
        CloseReason::Idle => "nothing heard in time",
        CloseReason::Broken => "the file changed or cannot be read",
        CloseReason::Flood => "more requests than a player sends",
        CloseReason::Protocol => "not RTSP, or broken RTSP",
    }
}

/// Why a connection over HTTP ended, for a person.
const fn http_words(reason: http::CloseReason) -> &'static str {
    use http::CloseReason;
    match reason {
        CloseReason::Done => "all was answered",
        CloseReason::Left => "the player left",
        CloseReason::Ended => "the broadcast or the file ended",
        CloseReason::Refused => "refused",
        CloseReason::Redirected => "sent elsewhere",
        CloseReason::Changed => "the stream changed, which this player cannot be told",
        CloseReason::TakenOver => "another connection of its session plays in its stead",
        CloseReason::Idle => "no complete request in time",
        CloseReason::Broken => "the file changed or cannot be read",
        CloseReason::Flood => "more requests than a player sends",
        CloseReason::Protocol => "not HTTP, or broken HTTP",
    }
}
