//! The client's engine: plays one stream, without decoding it. Source: MS-MMSP 3.1.
//!
//! Bytes and datagrams go in, messages, resend requests and packets come out; the engine knows neither sockets nor clocks.

mod answers;
mod api;
mod gaps;
mod header;
mod media;
mod seek;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub use api::{ClientConfig, ClientTransport};
use gaps::Gaps;
use header::HeaderFetch;
use media::Payload;

use super::connect::{Connect, NO_PACKET_PAIR};
use super::data::{DataHead, HEAD_LEN};
use super::end::{CloseFile, StopPlaying};
use super::frame::{Decoder, Item, Message, encode};
use super::log::Logging;
use super::session::Transport;
use crate::asf::StreamSet;
use crate::playing::{ClientEnd, ClientEvent, ClientInput, ClientOutput, ClientStats, StartAt};

/// Time for each answer. A server may wait for its source before it answers OpenFile.
const ANSWER_TIME: Duration = Duration::from_secs(15);
/// Time for the answer to our goodbye.
const STOP_TIME: Duration = Duration::from_secs(2);
/// Servers ping every 30 to 60 seconds.
const SILENCE: Duration = Duration::from_secs(90);
/// The first major version of servers whose EndOfStream says by itself whether more follows, and who know acceleration.
const PLAIN_VERSION: u16 = 9;

/// What a client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Connected,
    FunnelInfo,
    Funnel,
    Opened,
    /// ReportReadBlock may come before, amid or after the header; the header alone counts.
    Header,
    Switched,
    Started,
    Playing,
    /// The server said that another stream follows.
    Changing,
    /// EndOfStream, after which we go on elsewhere, or rest.
    Halting,
    /// Nothing, until somebody wants to go on.
    Paused,
    /// The stream is over; missing packets are still wanted.
    Ending,
    /// EndOfStream, after which we leave.
    Stopping,
    Done,
}

/// One session of a client.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    decoder: Decoder,
    seq: u16,
    step: Step,
    /// What we asked for or were granted.
    transport: Transport,
    /// Our name in resend requests.
    client_id: u32,
    file_id: u32,
    server_major: u16,
    broadcast: bool,
    header: HeaderFetch,
    has_header: bool,
    packet_size: usize,
    /// Incarnations: header requests count 1 to 8, opens and plays 9 to 254, as Windows Media Format 9 does.
    header_incarnation: u8,
    play_incarnation: u8,
    /// Media after a StreamChange on TCP carries 0xFF until our StartPlaying is answered.
    changed: bool,
    /// The play before, whose packets may still be on their way.
    late_incarnation: Option<u8>,
    /// The play whose StopPlaying was answered last; another EndOfStream of it means nothing.
    halted_incarnation: Option<u8>,
    /// Where the last StartPlaying began, and where the next one is to.
    started_at: StartAt,
    start_at: StartAt,
    is_paused: bool,
    /// Send time of the newest packet of this play.
    newest_ms: Option<u32>,
    /// The streams of the header, which of them are video, and those that the server was asked for.
    streams: StreamSet,
    video: StreamSet,
    selected: StreamSet,
    gaps: Gaps,
    stats: ClientStats,
    answer_due: Option<(Instant, &'static str)>,
    silent_at: Instant,
    /// When media came last, or could have begun to come.
    media_at: Instant,
    has_room: bool,
    outputs: VecDeque<ClientOutput>,
}

impl Client {
    /// A client on a connection that has just come about; its first message is in the queue.
    pub fn new(now: Instant, config: ClientConfig) -> Self {
        let transport = match config.transport {
            ClientTransport::Tcp => Transport::Tcp,
            ClientTransport::Udp { .. } => Transport::Udp,
        };
        let subscriber = vec![format!("{}; Host: {}", config.player, config.host)];
        let mut client = Self {
            start_at: config.start,
            config,
            decoder: Decoder::from_server(),
            seq: 0,
            step: Step::Connected,
            transport,
            client_id: 0,
            file_id: 0,
            server_major: 0,
            broadcast: false,
            header: HeaderFetch::default(),
            has_header: false,
            packet_size: 0,
            header_incarnation: 0,
            play_incarnation: 9,
            changed: false,
            late_incarnation: None,
            halted_incarnation: None,
            started_at: StartAt::Beginning,
            is_paused: false,
            newest_ms: None,
            streams: StreamSet::EMPTY,
            video: StreamSet::EMPTY,
            selected: StreamSet::EMPTY,
            gaps: Gaps::default(),
            stats: ClientStats::default(),
            answer_due: None,
            silent_at: now + SILENCE,
            media_at: now,
            has_room: true,
            outputs: VecDeque::new(),
        };
        client.send(&Connect { incarnation: NO_PACKET_PAIR, subscriber });
        client.await_answer(now, Step::Connected, "Connect");
        client
    }

    /// Takes one input in; drain [`Client::poll_output`] behind it. After [`ClientOutput::Close`] inputs do nothing.
    pub fn handle(&mut self, now: Instant, input: ClientInput<'_>) {
        if self.step == Step::Done {
            return;
        }
        match input {
            ClientInput::Bytes(bytes) => {
                self.silent_at = now + SILENCE;
                self.decoder.feed(bytes);
                while self.step != Step::Done {
                    match self.decoder.poll() {
                        Ok(Some(Item::Message(frame))) => self.answer(now, &frame),
                        Ok(Some(Item::Data { head, payload })) => self.data(now, head, Payload::Owned(payload)),
                        Ok(None) => break,
                        Err(error) => self.close(ClientEnd::Protocol(error.to_string())),
                    }
                }
            }
            ClientInput::Datagram(datagram) => {
                if self.transport != Transport::Udp {
                    return;
                }
                let Ok(head) = DataHead::parse(datagram) else { return };
                let payload = datagram.get(HEAD_LEN..usize::from(head.size)).filter(|_| datagram.len() == usize::from(head.size));
                match payload {
                    Some(payload) => {
                        self.silent_at = now + SILENCE;
                        self.data(now, head, Payload::Borrowed(payload));
                    }
                    None => self.stats.stale += 1,
                }
            }
            // The connection is the session: who holds it knows that both are over.
            ClientInput::Connected | ClientInput::Closed => {}
            ClientInput::Timeout => self.timeout(now),
            ClientInput::Seek(at) => self.seek(now, at),
            ClientInput::Pause => self.pause(now),
            ClientInput::Resume => self.resume(now),
            ClientInput::Room(has_room) => {
                if has_room && !self.has_room {
                    // What was not read in the meantime cannot have come.
                    (self.silent_at, self.media_at) = (now + SILENCE, now);
                }
                self.has_room = has_room;
            }
            ClientInput::Select(streams) => self.reselect(streams),
            ClientInput::Stop => self.stop(now),
        }
    }

    /// The next thing to do, oldest first.
    pub fn poll_output(&mut self) -> Option<ClientOutput> {
        self.outputs.pop_front()
    }

    /// When [`ClientInput::Timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.step == Step::Done {
            return None;
        }
        let answer = self.answer_due.map(|(at, _)| at);
        [self.silence_due(), self.media_due(), answer, self.header.due(), self.gaps.next_due()].into_iter().flatten().min()
    }

    /// When a server that says nothing is gone.
    fn silence_due(&self) -> Option<Instant> {
        self.has_room.then_some(self.silent_at)
    }

    /// When media has been missing for too long. All other steps wait for an answer, which has a time of its own, or for nothing.
    fn media_due(&self) -> Option<Instant> {
        let awaited = self.step == Step::Playing && self.has_room;
        self.config.media_time.filter(|_| awaited).map(|time| self.media_at + time)
    }

    /// What was counted so far.
    pub const fn stats(&self) -> ClientStats {
        self.stats
    }

    fn timeout(&mut self, now: Instant) {
        if self.silence_due().is_some_and(|at| now >= at) {
            return self.close(ClientEnd::Silent(SILENCE));
        }
        if let (Some(at), Some(time)) = (self.media_due(), self.config.media_time)
            && now >= at
        {
            return self.leave(ClientEnd::NoMedia(time));
        }
        match self.answer_due {
            Some((at, _)) if now >= at && self.step == Step::Stopping => return self.leave(ClientEnd::Stopped),
            Some((at, what)) if now >= at => return self.close(ClientEnd::NoAnswer { what, limit: ANSWER_TIME }),
            _ => {}
        }
        if self.header.due().is_some_and(|at| now >= at) {
            self.retry_header(now);
        }
        self.request_missing(now);
    }

    fn stop(&mut self, now: Instant) {
        if !matches!(self.step, Step::Started | Step::Playing | Step::Changing) {
            return self.leave(ClientEnd::Stopped);
        }
        self.send(&StopPlaying { incarnation: self.play_incarnation.into() });
        self.send(&self.log());
        self.stats.lost += self.gaps.give_up();
        self.step = Step::Stopping;
        self.answer_due = Some((now + STOP_TIME, "StopPlaying"));
    }

    /// What a server may want to know about our playing.
    fn log(&self) -> Logging {
        let count = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Logging {
            url: format!("mms://{}/{}", self.config.host, self.config.name),
            user_agent: self.config.player.split(';').next().unwrap_or_default().to_owned(),
            rate: 1,
            bytes_received: self.stats.bytes,
            packets_received: count(self.stats.packets),
            packets_lost: count(self.stats.lost),
            packets_lost_net: count(self.stats.gaps),
            resend_requests: count(self.stats.resend_requests),
            packets_recovered: count(self.stats.recovered),
            source_id: self.file_id,
            protocol: "mms".into(),
            transport: match self.transport {
                Transport::Tcp => "TCP".into(),
                Transport::Udp => "UDP".into(),
            },
            ..Logging::default()
        }
    }

    fn await_answer(&mut self, now: Instant, step: Step, what: &'static str) {
        self.step = step;
        self.answer_due = Some((now + ANSWER_TIME, what));
    }

    fn send<M: Message>(&mut self, message: &M) {
        let packet = encode(self.seq, message);
        self.seq = self.seq.wrapping_add(1);
        self.outputs.push_back(ClientOutput::Send(packet));
    }

    fn event(&mut self, event: ClientEvent) {
        self.outputs.push_back(ClientOutput::Event(event));
    }

    /// Says goodbye and closes.
    fn leave(&mut self, end: ClientEnd) {
        self.send(&CloseFile);
        self.close(end);
    }

    fn close(&mut self, end: ClientEnd) {
        self.stats.lost += self.gaps.give_up();
        self.outputs.push_back(ClientOutput::Close(end));
        self.step = Step::Done;
    }
}
