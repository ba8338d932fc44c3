//! What a viewer of any protocol asks of the relay, and what it is answered.
//!
//! The engines of all protocols speak these words to the shard that drives them; what stands for them on the wire is their own.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::asf::{Selection, StreamSet};
use crate::wire::Hresult;

/// What a player tells about itself. Everything in it is a claim.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Player {
    /// Its name for itself as sent, for instance `NSPlayer/9.0.0.3250; {…}; Host: media.example`; escape it before logging.
    pub token: String,
    /// Version of `NSPlayer`, major and minor.
    pub version: Option<(u16, u16)>,
    /// Text between the braces: the same within one streaming session, of any form.
    pub guid: Option<String>,
    /// Host name by which the player found the server, without port.
    pub host: Option<String>,
    /// A Windows Media Services 4.x server that pulls: wants padded packets and all streams.
    pub is_wms4: bool,
}

/// Knows what people are shown in place of names; must not block.
#[derive(Clone, Default)]
pub struct Titles(Option<TitleOf>);

/// The title of a name, if it has one.
type TitleOf = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

impl Titles {
    /// Asked anew each time, for what is behind it may change.
    pub fn new(title_of: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(title_of)))
    }

    /// The title of a name, as a viewer writes it.
    pub fn of(&self, name: &str) -> Option<String> {
        self.0.as_ref()?(name)
    }
}

/// The same function, not the same answers.
impl PartialEq for Titles {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(two)) => Arc::ptr_eq(one, two),
            (one, two) => one.is_none() && two.is_none(),
        }
    }
}

impl Eq for Titles {}

impl fmt::Debug for Titles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Titles").finish_non_exhaustive()
    }
}

/// What a viewer shows so that it is let in, and what else it says behind a name.
///
/// It is secret but for the profile: what its debug form tells is which parts there are.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Pass {
    /// Key of a signed URL, see `text::signed`, or a ticket of a viewing session: letters and digits.
    pub key: Option<String>,
    /// Its credentials.
    pub login: Option<Login>,
    /// The profile that it wants of what is transcoded (`?profile=NAME`); of no effect elsewhere.
    pub profile: Option<String>,
}

/// Credentials, and what they were made for.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// Method of the request; empty where the protocol has none.
    pub method: String,
    /// Its target, byte for byte.
    pub target: String,
    /// The value of an `Authorization` field.
    pub authorization: String,
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [(self.key.is_some(), "key"), (self.login.is_some(), "login"), (self.profile.is_some(), "profile")];
        f.debug_list().entries(parts.iter().filter(|(there, _)| *there).map(|(_, part)| part)).finish()
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

/// What a viewer is told that needs credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// Values of `WWW-Authenticate` fields, the better scheme first.
    pub values: Vec<String>,
    /// Realm, for protocols that have nothing else.
    pub realm: String,
}

/// Why a viewer is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// The rules name its address.
    Address,
    /// A signed URL is needed.
    NoKey,
    /// It is none, or one for another name or address.
    WrongKey,
    /// It was one.
    ExpiredKey,
    /// Credentials that cannot be read.
    BadLogin,
    /// There were too many wrong passwords from its address.
    Guesses,
    /// A ticket that is none, or one for another name or address.
    WrongTicket,
    /// It was one.
    ExpiredTicket,
    /// Another session plays by it.
    TicketInUse,
}

impl Denial {
    /// The `cause` label of the refusals metric, and in the log.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Address => "access",
            Self::NoKey => "no_key",
            Self::WrongKey => "wrong_key",
            Self::ExpiredKey => "expired_key",
            Self::BadLogin => "bad_login",
            Self::Guesses => "guesses",
            Self::WrongTicket => "wrong_ticket",
            Self::ExpiredTicket => "expired_ticket",
            Self::TicketInUse => "ticket_in_use",
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "the rules do not let its address watch",
            Self::NoKey => "a key is needed, and it has none",
            Self::WrongKey => "its key is none, or one for another name or address",
            Self::ExpiredKey => "its key has expired",
            Self::BadLogin => "its credentials cannot be read",
            Self::Guesses => "too many wrong passwords came from its address",
            Self::WrongTicket => "its ticket is none, or one for another name or address",
            Self::ExpiredTicket => "its ticket has expired",
            Self::TicketInUse => "another session plays by its ticket",
        })
    }
}

/// The wish for a fast start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acceleration {
    /// Bits per second.
    pub bandwidth: u32,
    /// Milliseconds of media.
    pub duration_ms: u32,
}

/// Where to begin in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Milliseconds of content, preroll not included.
    Time(u64),
    /// Packet number.
    Packet(u32),
    /// Byte of the file.
    Offset(u32),
}

/// Where to end in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Milliseconds of content.
    Time(u32),
    /// Milliseconds past the begin of this play.
    After(u32),
}

/// UDP ports of a player that one of its flows is to go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpPorts {
    /// By which the session is known: its own ports do not rest for it.
    pub owner: u32,
    /// What goes there.
    pub flow: Flow,
    /// The first, not 0.
    pub first: u16,
    /// The next one is asked for too.
    pub pair: bool,
    /// The port that the player will ask for next, in so far as it is known: if that cannot be leased, these are not wanted.
    pub then: Option<u16>,
}

/// A flow of datagrams to a player that has more than one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Media.
    Media,
    /// Packets sent again, and those by which the path is tested.
    Resends,
}

/// The first packet that a play begins with, where it is numbered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cue {
    /// Its RTP sequence number.
    pub sequence: u16,
    /// Its RTP timestamp: its send time, milliseconds.
    pub timestamp: u32,
    /// Of a broadcast that begins in the past, if that was asked about: what is sent faster than it plays.
    pub head_start: Option<Box<HeadStart>>,
}

/// The begin of a broadcast that is sent faster than it plays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadStart {
    /// Media time of it, milliseconds.
    pub media_ms: u32,
    /// Media time per real time.
    pub rate: u32,
    /// Its profile, see `rtsp::startup`.
    pub profile: Option<String>,
}

/// What the relay answers, or tells.
#[derive(Debug, Clone)]
pub enum Answer {
    /// To [`Ask::Admit`]. A failure is reported and the session closes.
    Admitted(Result<(), Hresult>),
    /// To [`Ask::AwaitsPublisher`].
    AwaitsPublisher(bool),
    /// To [`Ask::ClaimPort`]. After a failure the player may ask for another funnel.
    Funnel(Result<(), Hresult>),
    /// To [`Ask::Lease`].
    Leased(Result<(), Hresult>),
    /// To [`Ask::Play`], [`Ask::PlayFile`] and [`Ask::Resume`], where packets are numbered for all: media follows.
    Cued(Cue),
    /// To [`Ask::Open`].
    Opened(Result<Description, OpenRefusal>),
    /// News, where packets are numbered for all: the number behind the last packet that was sent. What ended is said next.
    NextSequence(u16),
    /// News: another header from the next packet on.
    NewGeneration(Description),
    /// News: nothing more will come.
    Ended,
    /// News: what was asked for by [`Ask::PlayFile`] has been sent; the player may ask for another place of the file.
    Finished {
        /// Of which play.
        incarnation: u8,
    },
    /// News: the file cannot be played on, because it changed or cannot be read. The session closes.
    Broken,
    /// To [`Ask::OpenBytes`].
    Bytes(Result<FileFacts, OpenRefusal>),
    /// News: what was asked for by [`Ask::SendBytes`] has been sent.
    BytesSent,
}

/// What a download tells about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFacts {
    /// Bytes.
    pub len: u64,
    /// When it was changed last, in seconds of Unix time.
    pub modified: Option<i64>,
    /// Another number for another content, as far as the file system tells (inode and time of change, for instance).
    pub identity: u64,
    /// `video/x-ms-wmv`, `audio/x-ms-wma` or `video/x-ms-asf`, by the streams in it.
    pub content_type: &'static str,
}

/// Why a publishing point does not open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenRefusal {
    /// It does not; the player may try another name.
    Status(Hresult),
    /// It is elsewhere: an `mms`, `mmsu` or `mmst` URL.
    Redirect(String),
    /// For those who show that they may.
    Login(Challenge),
    /// Not for this viewer.
    Denied(Denial),
    /// To [`Ask::OpenBytes`] only: there is such a publishing point, and it is a broadcast.
    NotAFile,
}

/// What is to be played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Header Object and the first 50 bytes of the Data Object.
    pub header: Bytes,
    /// Fixed size of packets, bytes.
    pub packet_size: u32,
    /// Bits per second.
    pub bit_rate: u32,
    /// The streams of the header.
    pub streams: StreamSet,
    /// Whether it is a broadcast or a file.
    pub content: Content,
    /// By which its RTP packets are known.
    pub ssrc: u32,
}

/// What kind of content a description is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A broadcast: it has neither begin nor end, and nobody seeks in it.
    Live,
    /// A file.
    File {
        /// How long it plays, preroll not included.
        duration_ms: u64,
        /// ASF packets.
        packets: u64,
    },
}

/// What a session wants of the relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// May this player have a session? Answer: [`Answer::Admitted`].
    Admit(Player),
    /// Could somebody publish under this name now? Answer: [`Answer::AwaitsPublisher`].
    AwaitsPublisher {
        /// Name of a publishing point, as in [`Ask::Open`].
        name: String,
    },
    /// May media go to this UDP port of the player's address? Answer: [`Answer::Funnel`].
    ClaimPort {
        /// The port, not 0.
        port: u16,
        /// The address that the player says it has.
        announced: Option<IpAddr>,
    },
    /// The ports granted are not wanted any more.
    ReleasePort,
    /// May a flow go to these UDP ports of the player's address? Answer: [`Answer::Leased`].
    Lease(UdpPorts),
    /// What is this? Answer: [`Answer::Opened`].
    Open {
        /// Name of a publishing point, without leading slash: MMS as sent, HTTP percent-decoded once.
        name: String,
        /// What it shows.
        pass: Pass,
    },
    /// Is this a file, and how long? Waits for no source. Answer: [`Answer::Bytes`].
    OpenBytes {
        /// As in [`Ask::Open`].
        name: String,
        /// What it shows.
        pass: Pass,
    },
    /// Send these bytes of the file that was opened by [`Ask::OpenBytes`], as they are on the disk. News:
    /// [`Answer::BytesSent`], or [`Answer::Broken`].
    SendBytes {
        /// The first, from 0.
        first: u64,
        /// How many, at least 1.
        len: u64,
    },
    /// Send media from here on, with `mms::media::Track::start` of this incarnation.
    Play {
        /// For each packet.
        incarnation: u8,
    },
    /// Send media of a file, from the key frame at or before a place on, with `mms::media::Track::start` of this
    /// incarnation. What was sent before is over. News: [`Answer::Finished`].
    PlayFile {
        /// For each packet.
        incarnation: u8,
        /// Where to begin.
        from: Position,
        /// Where to end, before the end of the file.
        until: Option<Until>,
        /// How fast to begin; `None`: as the server does by itself.
        acceleration: Option<Acceleration>,
        /// How many times faster than it plays all of it is wanted, at least 1.
        speed: u8,
    },
    /// Go on where [`Ask::Stop`] stopped: a file behind the last packet that was sent, a broadcast where it is now.
    Resume {
        /// For each packet.
        incarnation: u8,
        /// Where to end, before the end of the file.
        until: Option<Until>,
    },
    /// Of what is sent from here on: these streams.
    Select(Selection),
    /// Media goes on with `mms::media::Track::start` of this incarnation.
    Incarnation {
        /// For each packet from here on.
        incarnation: u8,
    },
    /// Send no more media.
    Stop,
    /// Nothing that was asked for is wanted any more: its place among the viewers is free. Whoever goes on asks for
    /// [`Ask::Admit`] again.
    Rest,
    /// Send these packets again, to the leased port.
    Resend {
        /// Up to 32 sequence numbers as the player counts them, see `mms::media::Track::lookup`.
        sequences: Vec<u32>,
    },
}
