//! The client's engine joined with the viewer's, over a link that delays and loses, under a virtual clock; and with servers that are
//! written down.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic, reason = "a panic is a test's report")]

mod joined;
mod lossy;
mod scripted;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::*;
use crate::asf::{Header, samples};
use crate::rtsp::media::{Carriage, Facts, Flow, Packets};
use crate::rtsp::viewer;
use crate::viewing::{Answer, Ask, Content, Cue, Description, Position};
use crate::wire::Hresult;

/// How long anything takes from one end to the other.
const DELAY: Duration = Duration::from_millis(10);
/// From one ASF packet to the next.
const PACE: Duration = Duration::from_millis(20);
pub(super) const URL: &str = "rtsp://media.example/live";
pub(super) const UDP: ClientTransport = ClientTransport::Udp { media: (2000, Some(2001)), resends: (2002, Some(2003)) };

#[expect(clippy::disallowed_methods, reason = "the base of the virtual clock")]
pub(super) fn base() -> Instant {
    Instant::now()
}

/// What arrives.
enum Arrival {
    ToClient(Bytes),
    ToServer(Bytes),
    DatagramToClient(Bytes),
    DatagramToServer(Bytes),
    Connected,
    Closed,
    Packet,
}

/// Both ends, a relay behind the server, and the link.
pub(super) struct Rig {
    pub(super) now: Instant,
    pub(super) client: Client,
    server: viewer::Connection,
    /// Connections made so far.
    pub(super) connections: u32,
    /// What arrives when; those of one instant in their order.
    arrivals: BTreeMap<(Instant, u64), Arrival>,
    order: u64,
    /// Of the server's bytes the last that is on its way: TCP keeps its order.
    pub(super) description: Description,
    pub(super) packets: Vec<Vec<u8>>,
    fragments: u16,
    flow: Flow,
    /// The next packet of the content, and the number of the next in the flow.
    at: usize,
    number: u32,
    plays: bool,
    /// RTP packets by their number, for resends.
    sent: BTreeMap<u16, Bytes>,
    /// Ports are leased.
    pub(super) leases: bool,
    /// Of 1000 datagrams so many are lost.
    pub(super) loss_permille: u64,
    random: u64,
    /// The server's bytes come in pieces of this size.
    pub(super) piece: usize,
    pub(super) events: Vec<ClientEvent>,
    pub(super) end: Option<ClientEnd>,
    pub(super) asks: Vec<Ask>,
}

/// A sample as a description, and its packets.
pub(super) fn content(name: &str, live: bool) -> (Description, Vec<Vec<u8>>) {
    let (header, packets) = samples::stream(name);
    let blob = [header.bytes().as_ref(), &header.data_head()].concat();
    let content = if live { Content::Live } else { Content::File { duration_ms: 60_000, packets: packets.len() as u64 } };
    let description = Description {
        header: blob.into(),
        packet_size: u32::try_from(header.packet_size()).unwrap(),
        bit_rate: header.bit_rate(),
        streams: header.streams().iter().map(|stream| stream.number).collect(),
        content,
        ssrc: 0x90CB_CAAC,
    };
    (description, packets)
}

impl Rig {
    pub(super) fn new(transport: ClientTransport, (description, packets): (Description, Vec<Vec<u8>>)) -> Self {
        let config = ClientConfig { fall_back: transport != ClientTransport::Tcp, ..ClientConfig::new(URL.into(), transport) };
        Self::with(config, (description, packets))
    }

    pub(super) fn with(config: ClientConfig, (description, packets): (Description, Vec<Vec<u8>>)) -> Self {
        let now = base();
        let mut rig = Self {
            now,
            client: Client::new(now, config),
            server: server(now, 1),
            connections: 1,
            arrivals: BTreeMap::new(),
            order: 0,
            flow: Flow { ssrc: description.ssrc, sequence: 0xFF00 },
            description,
            packets,
            fragments: 1,
            at: 0,
            number: 0,
            plays: false,
            sent: BTreeMap::new(),
            leases: true,
            loss_permille: 0,
            random: 0x9E37_79B9_7F4A_7C15,
            piece: usize::MAX,
            events: Vec::new(),
            end: None,
            asks: Vec::new(),
        };
        rig.carry_out();
        rig
    }

    pub(super) fn fragmented(mut self, fragments: u16) -> Self {
        self.fragments = fragments;
        self
    }

    fn later(&mut self, after: Duration, arrival: Arrival) {
        self.order += 1;
        self.arrivals.insert((self.now + after, self.order), arrival);
    }

    fn is_lost(&mut self) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % 1000 < self.loss_permille
    }

    /// Runs until the client is done, or for so long.
    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        for _ in 0..1_000_000 {
            if self.end.is_some() {
                return;
            }
            let arrival = self.arrivals.first_key_value().map(|((at, _), _)| *at);
            let client = self.client.poll_timeout().map(|at| at.max(self.now));
            let server = self.server.poll_timeout().map(|at| at.max(self.now));
            let Some(next) = [arrival, client, server].into_iter().flatten().min().filter(|next| *next <= until) else {
                self.now = until;
                return;
            };
            self.now = next;
            if arrival == Some(next) {
                let (_, arrival) = self.arrivals.pop_first().unwrap();
                self.arrive(arrival);
            } else if client == Some(next) {
                self.client.handle(next, ClientInput::Timeout);
            } else {
                self.server.handle(next, viewer::Input::Timeout);
            }
            self.carry_out();
        }
        panic!("it runs in circles");
    }

    /// Runs until a number of packets has come, or panics after a minute.
    pub(super) fn run_to(&mut self, packets: usize) {
        for _ in 0..6000 {
            if self.received().len() >= packets {
                return;
            }
            self.run(Duration::from_millis(10));
        }
        panic!("{} packets came: {:?}", self.received().len(), self.end);
    }

    pub(super) fn input(&mut self, input: ClientInput<'_>) {
        self.client.handle(self.now, input);
        self.carry_out();
    }

    /// The relay has news.
    pub(super) fn news(&mut self, answer: Answer) {
        self.server.handle(self.now, viewer::Input::Answer(answer));
        self.carry_out();
    }

    fn arrive(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::ToClient(bytes) => {
                for piece in bytes.chunks(self.piece.min(bytes.len().max(1))) {
                    self.client.handle(self.now, ClientInput::Bytes(piece));
                }
            }
            Arrival::ToServer(bytes) => self.server.handle(self.now, viewer::Input::Bytes(&bytes)),
            Arrival::DatagramToClient(bytes) => self.client.handle(self.now, ClientInput::Datagram(&bytes)),
            Arrival::DatagramToServer(bytes) => self.server.handle(self.now, viewer::Input::Datagram(&bytes)),
            Arrival::Connected => {
                self.server = server(self.now, self.connections);
                self.client.handle(self.now, ClientInput::Connected);
            }
            Arrival::Closed => self.client.handle(self.now, ClientInput::Closed),
            Arrival::Packet => self.packet(),
        }
    }

    fn carry_out(&mut self) {
        loop {
            if let Some(output) = self.client.poll_output() {
                self.of_client(output);
            } else if let Some(output) = self.server.poll_output() {
                self.of_server(output);
            } else {
                return;
            }
        }
    }

    fn of_client(&mut self, output: ClientOutput) {
        match output {
            ClientOutput::Send(bytes) => self.later(DELAY, Arrival::ToServer(bytes)),
            ClientOutput::DatagramTo { from, to, bytes } => {
                assert!((2000..=2003).contains(&from), "{from}");
                if to == 5005 && !self.is_lost() {
                    self.later(DELAY, Arrival::DatagramToServer(bytes));
                }
            }
            ClientOutput::Datagram(_) | ClientOutput::Disconnect => panic!("that is another protocol's"),
            ClientOutput::Connect => {
                self.plays = false;
                self.connections += 1;
                self.arrivals.clear();
                self.later(DELAY, Arrival::Connected);
            }
            ClientOutput::Event(event) => self.events.push(event),
            ClientOutput::Close(end) => {
                assert_eq!(self.end.replace(end), None);
            }
        }
    }

    fn of_server(&mut self, output: viewer::Output) {
        match output {
            viewer::Output::Send(bytes) => self.later(DELAY, Arrival::ToClient(bytes)),
            viewer::Output::Datagram(bytes) => self.later(DELAY, Arrival::DatagramToClient(bytes)),
            viewer::Output::Close(_) => self.later(DELAY, Arrival::Closed),
            viewer::Output::Ask(ask) => self.ask(ask),
            viewer::Output::HandOver(_) => unreachable!("nobody publishes"),
        }
    }

    fn ask(&mut self, ask: Ask) {
        self.asks.push(ask.clone());
        let answer = match ask {
            Ask::Admit(_) => Answer::Admitted(Ok(())),
            Ask::Open { .. } => Answer::Opened(Ok(self.description.clone())),
            Ask::Lease(_) => Answer::Leased(if self.leases { Ok(()) } else { Err(Hresult::DUPLICATE_ADDRESS) }),
            Ask::Play { .. } | Ask::Resume { .. } => self.play(self.at),
            Ask::PlayFile { from, .. } => {
                let at = match from {
                    Position::Packet(packet) => packet as usize,
                    Position::Time(ms) => usize::try_from(ms).unwrap() / 1000,
                    Position::Offset(_) => 0,
                };
                self.play(at)
            }
            Ask::Stop => {
                self.plays = false;
                self.arrivals.retain(|_, arrival| !matches!(arrival, Arrival::Packet));
                return;
            }
            Ask::Resend { sequences } => {
                for sequence in sequences {
                    let Some(packet) = self.sent.get(&u16::try_from(sequence).unwrap()).cloned() else { continue };
                    if !self.is_lost() {
                        self.later(DELAY, Arrival::DatagramToClient(packet));
                    }
                }
                return;
            }
            _ => return,
        };
        self.server.handle(self.now, viewer::Input::Answer(answer));
    }

    fn play(&mut self, at: usize) -> Answer {
        (self.at, self.plays) = (at, true);
        self.later(Duration::ZERO, Arrival::Packet);
        Answer::Cued(Cue { sequence: self.flow.sequence_of(self.number, self.fragments), timestamp: 0, head_start: None })
    }

    /// Sends the next packet of the content; at its end that is told.
    fn packet(&mut self) {
        if !self.plays {
            return;
        }
        let Some(packet) = self.packets.get(self.at) else {
            self.plays = false;
            let is_live = self.description.content == Content::Live;
            return self.news(if is_live { Answer::Ended } else { Answer::Finished { incarnation: self.incarnation() } });
        };
        let carriage = self.server.carriage().unwrap();
        let size = self.description.packet_size as usize;
        let facts = Facts { packet: self.number, send_time_ms: crate::asf::send_time_ms(packet).unwrap_or(0), key: true };
        let mut made = Packets::new(carriage, self.fragments);
        made.push(packet, size, self.flow, facts);
        let stretch = made.stretch(0, 1);
        if carriage == Carriage::Datagrams {
            for index in 0..self.fragments {
                let rtp = Bytes::copy_from_slice(stretch.fragment(index).unwrap());
                self.sent.insert(u16::from_be_bytes([rtp[2], rtp[3]]), rtp.clone());
                if !self.is_lost() {
                    self.later(DELAY, Arrival::DatagramToClient(rtp));
                }
            }
        } else {
            self.later(DELAY, Arrival::ToClient(Bytes::copy_from_slice(stretch.bytes)));
        }
        (self.at, self.number) = (self.at + 1, self.number + 1);
        self.later(PACE, Arrival::Packet);
    }

    /// Of the last play.
    fn incarnation(&self) -> u8 {
        let plays = self.asks.iter().rev().find_map(|ask| match ask {
            Ask::Play { incarnation } | Ask::PlayFile { incarnation, .. } | Ask::Resume { incarnation, .. } => Some(*incarnation),
            _ => None,
        });
        plays.unwrap()
    }

    /// The packets that came, in the order in which they came.
    pub(super) fn received(&self) -> Vec<&Bytes> {
        let packets = self.events.iter().filter_map(|event| match event {
            ClientEvent::Packet { bytes, .. } => Some(bytes),
            _ => None,
        });
        packets.collect()
    }

    /// Events but packets, by their names.
    pub(super) fn told(&self) -> Vec<&'static str> {
        let name = |event: &ClientEvent| match event {
            ClientEvent::Opened { .. } => Some("opened"),
            ClientEvent::Header(_) => Some("header"),
            ClientEvent::NewHeader(_) => Some("new header"),
            ClientEvent::Starting => Some("starting"),
            ClientEvent::Playing { path } => Some(path.label()),
            ClientEvent::UdpRefused { .. } => Some("no udp"),
            ClientEvent::End { .. } => Some("end"),
            ClientEvent::Counted { .. } => Some("counted"),
            ClientEvent::GivenUp { .. } => Some("given up"),
            ClientEvent::FunnelRefused(_) => Some("funnel"),
            ClientEvent::Packet { .. } => None,
        };
        self.events.iter().filter_map(name).collect()
    }

    /// Which packets of the content came, in order; all are of the fixed size and sound.
    pub(super) fn numbers(&self) -> Vec<usize> {
        let meaning = |packet: &[u8]| -> Vec<(u8, u32, Vec<u8>)> {
            let payloads = crate::asf::payloads(packet).unwrap();
            payloads.map(|payload| (payload.stream, payload.presentation_ms, payload.data.to_vec())).collect()
        };
        let known: Vec<_> = self.packets.iter().map(|packet| meaning(packet)).collect();
        let mut from = 0;
        let mut numbers = Vec::new();
        for packet in self.received() {
            assert_eq!(packet.len(), self.description.packet_size as usize);
            let packet = meaning(packet);
            let at = known[from..].iter().position(|known| *known == packet).map(|at| from + at);
            let at = at.or_else(|| known.iter().position(|known| *known == packet)).expect("a packet that was not sent");
            (from, _) = (at + 1, numbers.push(at));
        }
        numbers
    }
}

fn server(now: Instant, client_id: u32) -> viewer::Connection {
    let peer = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
    let config = Arc::new(viewer::Config::default());
    let sessions = Rc::default();
    viewer::Connection::new(
        now,
        config,
        sessions,
        peer,
        "192.0.2.1:554".parse().unwrap(),
        Some(5004),
        7 << 32 | 0x2F73_0000 | u64::from(client_id),
    )
}

/// The header of what was opened.
pub(super) fn header_of(rig: &Rig) -> Header {
    let header = rig.events.iter().find_map(|event| match event {
        ClientEvent::Header(header) => Some(header.clone()),
        _ => None,
    });
    Header::parse(&header.unwrap()).unwrap()
}
