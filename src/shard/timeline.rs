//! What happened to a session, step by step: the answer to "why can't this viewer play?".

use std::time::{Duration, Instant};

use super::conn::Conn;
use super::state::State;
use crate::relay::admission::LeaseRefusal;
use crate::text::signed::masked;
use crate::viewing::{Answer, Ask, Content, Flow, OpenRefusal, Position, UdpPorts};

/// The first steps, which say how a session began, are kept whatever comes later.
const FIRST_KEPT: usize = 32;
/// Of those behind them the last are.
const LAST_KEPT: usize = 16;
/// A player got its first packet of media.
pub(super) const FIRST_PACKET: &str = "it was sent the first packet of media";
/// Characters of what a player says of itself or opens; more says no more.
const WORDS_MAX: usize = 200;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Since the connection was accepted.
    pub after: Duration,
    /// What happened, for a person. What a player said is escaped, and keys are masked.
    pub text: String,
}

/// The steps of one session, of which so many are kept that it is known how it began and how it ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Timeline {
    steps: Vec<Step>,
    left_out: usize,
}

impl Timeline {
    /// Adds a step.
    pub(super) fn note(&mut self, after: Duration, text: impl Into<String>) {
        if self.steps.len() == FIRST_KEPT + LAST_KEPT {
            self.steps.remove(FIRST_KEPT);
            self.left_out += 1;
        }
        self.steps.push(Step { after, text: text.into() });
    }

    /// All that is kept, in order; what was left out between has a step of its own.
    pub(super) fn steps(&self) -> Vec<Step> {
        let mut steps = self.steps.clone();
        if let Some(next) = steps.get(FIRST_KEPT).filter(|_| self.left_out > 0) {
            let step = Step { after: next.after, text: format!("{} steps are left out here", self.left_out) };
            steps.insert(FIRST_KEPT, step);
        }
        steps
    }
}

impl Conn {
    /// Adds a step to the session's time line.
    pub(super) fn step(&mut self, now: Instant, text: impl Into<String>) {
        self.timeline.note(now.saturating_duration_since(self.accepted), text);
    }
}

impl State {
    /// Notes what a player wants.
    pub(super) fn step_of_ask(&mut self, key: usize, now: Instant, ask: &Ask) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if matches!(ask, Ask::Admit(_) | Ask::Open { .. } | Ask::OpenBytes { .. }) {
            conn.refusal = None;
        }
        if let Some(text) = words_of_ask(ask) {
            conn.step(now, text);
        }
    }

    /// Notes what it is told.
    pub(super) fn step_of_answer(&mut self, key: usize, now: Instant, answer: &Answer) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Some(mut text) = words_of_answer(answer) else { return };
        if let Some(refusal) = words_of_refusal(answer) {
            match &conn.refusal {
                // Whoever refused it knows better than the protocol's number says.
                Some(noted) => text = format!("{text}; {noted}"),
                None => conn.refusal = Some(refusal),
            }
        }
        conn.step(now, text);
    }
}

/// Why a port of the player's is not sent to.
pub(super) fn words_of_refused_port(port: u16, refusal: LeaseRefusal) -> String {
    format!("UDP port {port} is refused: {refusal}; the player may go on by TCP")
}

/// What a player said, for a page that people read.
fn said(text: &str) -> String {
    let text = masked(&text.escape_debug().to_string());
    match text.char_indices().nth(WORDS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

fn words_of_ask(ask: &Ask) -> Option<String> {
    Some(match ask {
        Ask::Admit(player) => format!("the player says it is {}", said(&player.token)),
        Ask::ClaimPort { port, announced: Some(announced) } => {
            format!("it wants media by UDP at port {port}, and says that its address is {announced}")
        }
        Ask::ClaimPort { port, announced: None } => format!("it wants media by UDP at port {port}"),
        Ask::ReleasePort => "it gives its UDP ports back: media is to go over TCP".into(),
        Ask::Lease(UdpPorts { flow, first, pair, .. }) => {
            let what = match flow {
                Flow::Media => "media",
                Flow::Resends => "packets that are sent again",
            };
            match first.checked_add(1).filter(|_| *pair) {
                Some(second) => format!("it wants {what} by UDP at ports {first} and {second}"),
                None => format!("it wants {what} by UDP at port {first}"),
            }
        }
        Ask::Open { name, .. } => format!("it opens \"{}\"", said(name)),
        Ask::OpenBytes { name, .. } => format!("it asks for the file \"{}\"", said(name)),
        Ask::SendBytes { first: 0, .. } => "it downloads the file".into(),
        Ask::SendBytes { first, .. } => format!("it downloads the file from byte {first} on"),
        Ask::Play { .. } => "it plays".into(),
        Ask::PlayFile { from, .. } => match from {
            Position::Time(0) => "it plays from the beginning".into(),
            Position::Time(ms) => format!("it plays from {}.{:03} s on", ms / 1000, ms % 1000),
            Position::Packet(packet) => format!("it plays from packet {packet} on"),
            Position::Offset(offset) => format!("it plays from byte {offset} on"),
        },
        Ask::Resume { .. } => "it plays on".into(),
        Ask::Select(_) => "it selects streams".into(),
        Ask::Stop => "it stops, or pauses".into(),
        Ask::Rest => "it is done with what it had opened".into(),
        Ask::Incarnation { .. } | Ask::Resend { .. } | Ask::AwaitsPublisher { .. } => return None,
    })
}

fn words_of_answer(answer: &Answer) -> Option<String> {
    Some(match answer {
        Answer::Admitted(Ok(())) => "it is admitted".into(),
        Answer::Admitted(Err(hr)) => format!("it is refused: {hr}"),
        Answer::Funnel(Ok(())) | Answer::Leased(Ok(())) => "UDP is granted".into(),
        Answer::Funnel(Err(hr)) | Answer::Leased(Err(hr)) => format!("UDP is refused: {hr}"),
        Answer::Opened(Ok(description)) => {
            let rate = description.bit_rate / 1000;
            match description.content {
                Content::Live => format!("it is a broadcast of {rate} kbit/s in packets of {} bytes", description.packet_size),
                Content::File { duration_ms, .. } => format!("it is a file of {} s and {rate} kbit/s", duration_ms / 1000),
            }
        }
        Answer::Opened(Err(refusal)) | Answer::Bytes(Err(refusal)) => match refusal {
            OpenRefusal::Status(hr) => format!("it does not open: {hr}"),
            OpenRefusal::Redirect(url) => format!("it is sent to {}", said(url)),
            OpenRefusal::Login(_) => "it is asked for a name and password".into(),
            OpenRefusal::Denied(denial) => format!("it may not watch: {denial}"),
            OpenRefusal::NotAFile => "it is a broadcast, not a file".into(),
        },
        Answer::Bytes(Ok(facts)) => format!("it is a file of {} bytes", facts.len),
        Answer::NewGeneration(_) => "the source has another header, and the player is told".into(),
        Answer::Ended => "the stream has ended, and the player is told".into(),
        Answer::Finished { .. } => "it has been sent everything that it asked for".into(),
        Answer::BytesSent => "the file has been sent".into(),
        Answer::Broken => "the file changed or cannot be read".into(),
        Answer::Cued(_) | Answer::NextSequence(_) | Answer::AwaitsPublisher(_) => return None,
    })
}

/// Why a player did not get what it asked for, as the reason why it then leaves; `None` where it got it.
fn words_of_refusal(answer: &Answer) -> Option<String> {
    Some(match answer {
        Answer::Admitted(Err(hr)) => format!("refused: {hr}"),
        Answer::Opened(Err(refusal)) | Answer::Bytes(Err(refusal)) => match refusal {
            OpenRefusal::Status(hr) => format!("refused: {hr}"),
            OpenRefusal::Redirect(url) => format!("sent to {}", said(url)),
            OpenRefusal::Login(_) => "asked for a name and password".into(),
            OpenRefusal::Denied(denial) => format!("refused: {denial}"),
            OpenRefusal::NotAFile => "refused: it is a broadcast, not a file".into(),
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;

    use super::*;
    use crate::mms::connect::{self, Connect};
    use crate::mms::end::CloseFile;
    use crate::mms::frame::encode;
    use crate::mms::funnel::ConnectFunnel;
    use crate::mms::open::{self, OpenFile};
    use crate::relay::Relay;
    use crate::settings::{PointAccess, PublishingPoint, Settings, Source, Viewers};
    use crate::shard::engine::Event;
    use crate::shard::sniff::Protocol;
    use crate::shard::state::Arrival;
    use crate::shard::{Context, DrainOrder, Roster};
    use crate::wire::Guid;

    #[test]
    fn begin_and_end_are_kept() {
        let mut timeline = Timeline::default();
        for n in 0..100u64 {
            timeline.note(Duration::from_secs(n), n.to_string());
        }
        let steps = timeline.steps();
        assert_eq!(steps.len(), FIRST_KEPT + 1 + LAST_KEPT);
        assert_eq!((steps[31].text.as_str(), steps[32].text.as_str()), ("31", "52 steps are left out here"));
        assert_eq!((steps[33].text.as_str(), steps[48].text.as_str()), ("84", "99"));
    }

    /// What a player sends, whether the shard drains before it comes, and why its session ended then.
    async fn ends(protocol: Protocol, sends: &[u8], drain: Option<Option<&str>>) -> String {
        let keyed = PublishingPoint {
            access: PointAccess { viewers: Viewers::Signed, ..PointAccess::default() },
            ..PublishingPoint::new("keyed", Source::Push)
        };
        let points = vec![PublishingPoint::new("cam", Source::Push), keyed];
        let settings = Settings { publishing_points: points, ..Settings::default() };
        let relay = Relay::new(&settings, Box::new(Guid::default), Vec::new());
        let (sender, _) = tokio::sync::mpsc::unbounded_channel();
        let mut state = State::new(Arc::new(Context::for_tests(settings, relay, sender)), 0);
        let now = tokio::time::Instant::now().into_std();
        if let Some(redirect) = drain {
            let redirect = redirect.map(|redirect| redirect.parse().unwrap());
            state.drain(Some(Arc::new(DrainOrder { redirect, until: None })));
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _player = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let local = stream.local_addr().unwrap();
        let arrival = Arrival { peer, local, at: now, udp: None, protocol, tls: false, takes_publishers: false };
        let key = state.admit(now, arrival, Rc::new(stream));
        state.drive(key, now, Event::Bytes(sends));
        state.remove(key, now);
        let (_, facts) = Roster(Arc::clone(&state.context)).ended(1).remove(0);
        facts.end.unwrap()
    }

    fn over_mms(name: &str, closes: bool) -> Vec<u8> {
        let connect = Connect { incarnation: connect::NO_PACKET_PAIR, subscriber: vec!["NSPlayer/9.0; {A}".into()] };
        let funnel = ConnectFunnel::tcp("127.0.0.1".parse().unwrap(), 2048);
        let open = OpenFile { incarnation: 9, name: name.into(), token: open::Token::None };
        let mut bytes = [encode(0, &connect), encode(1, &funnel), encode(2, &open)].concat();
        if closes {
            bytes.extend_from_slice(&encode(3, &CloseFile));
        }
        bytes
    }

    #[tokio::test]
    async fn who_is_refused_and_leaves_ended_by_the_refusal() {
        let unknown = "refused: there is no publishing point of this name";
        let (no_key, no_source) = ("refused: a key is needed, and it has none", "refused: nobody publishes it");
        let draining = "refused: the daemon drains and takes no new viewers";
        for (name, drain, why) in [
            ("none", None, unknown),
            ("keyed", None, no_key),
            ("cam", None, no_source),
            ("cam", Some(None), draining),
            ("cam", Some(Some("b.example")), "sent to {}://b.example/cam"),
        ] {
            let http = format!("GET /{name} HTTP/1.1\r\nHost: a\r\nUser-Agent: curl/8\r\n\r\n");
            let rtsp = format!("DESCRIBE rtsp://a/{name} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n");
            for (scheme, protocol, sends) in [
                ("mms", Protocol::Mms, over_mms(name, true)),
                // It closes its connection without a word.
                ("mms", Protocol::Mms, over_mms(name, false)),
                ("http", Protocol::Http, http.into_bytes()),
                ("rtsp", Protocol::Rtsp, rtsp.into_bytes()),
            ] {
                assert_eq!(ends(protocol, &sends, drain).await, why.replace("{}", scheme), "{scheme} {name}");
            }
        }
        // Where the engine says no by itself.
        let end = ends(Protocol::Mms, &over_mms(&"x".repeat(5000), true), None).await;
        assert!(end.starts_with("refused: 0x"), "{end}");
        let connected =
            encode(0, &Connect { incarnation: connect::NO_PACKET_PAIR, subscriber: vec!["NSPlayer/9.0; {A}".into()] });
        assert_eq!(ends(Protocol::Mms, &connected, None).await, "closed by the player");
    }

    #[test]
    fn what_players_say_is_harmless() {
        let ask = Ask::Open { name: format!("a\"b\u{1b}[2J{}", "x".repeat(1000)), pass: crate::viewing::Pass::default() };
        let words = words_of_ask(&ask).unwrap();
        assert!(words.starts_with("it opens \"a\\\"b\\u{1b}[2Jx") && words.ends_with("…\"") && words.len() < 250, "{words}");
    }
}
