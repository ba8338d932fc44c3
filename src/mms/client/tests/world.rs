//! A virtual clock, a link, a small relay: what a client and a session need to meet.

#![expect(clippy::cast_possible_truncation, reason = "numbers of tests are small; LocationIds are low halves by design")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::mms::client::{Client, ClientConfig, ClientTransport};
use crate::mms::media::{HEAD_LEN, Next, Track, stamp, wrap};
use crate::mms::session::{CloseReason, Config, Input, Output, Session, Transport};
use crate::mms::testing::{base, description};
use crate::playing::{ClientEnd, ClientEvent, ClientInput, ClientOutput};
use crate::viewing::{Answer, Ask, Description};
use crate::wire::Hresult;

/// Packets a second of the broadcast, in batches of four.
pub(super) const PACKETS_PER_S: u32 = 100;
const BATCH: u64 = 4;
/// Packets that the relay keeps.
const WINDOW: u64 = 512;
const CLIENT_ID: u32 = 0x0BAD_CAFE;

/// SplitMix64: a seed says what is lost.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

/// The network: TCP never loses, UDP as told.
pub(super) struct Link {
    pub(super) delay: Duration,
    /// Datagrams lost of a thousand, each way.
    pub(super) loss_permille: u64,
    /// Datagrams delivered twice of a thousand.
    pub(super) twice_permille: u64,
    /// Datagrams are late by up to so much more.
    pub(super) jitter: Duration,
    /// The first datagrams to the client that are lost in any case.
    pub(super) lose_first: u32,
    random: Random,
}

enum Arrival {
    ToServer(Bytes),
    ToClient(Bytes),
    DatagramToServer(Bytes),
    DatagramToClient(Bytes),
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) start: Instant,
    pub(super) client: Client,
    pub(super) session: Session,
    pub(super) link: Link,
    pub(super) claim: Result<(), Hresult>,
    pub(super) description: Description,
    wire: BTreeMap<(Instant, u64), Arrival>,
    sent: u64,
    // The relay: packet numbers that exist, the first of this header, what this viewer has, whether it plays.
    made: u64,
    since: u64,
    next: Next,
    playing: bool,
    track: Track,
    next_batch: Instant,
    /// Media packets handed to the network, first times only.
    pub(super) offered: u64,
    pub(super) events: Vec<ClientEvent>,
    pub(super) packets: BTreeMap<u32, u32>,
    settled: u32,
    pub(super) client_end: Option<ClientEnd>,
    pub(super) server_end: Option<CloseReason>,
    /// What the session wanted of the relay, in order.
    pub(super) asks: VecDeque<Ask>,
}

/// The bytes of packet `number`; all packets differ.
fn content(number: u64, size: u32) -> Vec<u8> {
    let mut bytes = vec![number as u8; size as usize];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

impl World {
    pub(super) fn new(udp: bool, fall_back: bool) -> Self {
        let now = base();
        let transport = match udp {
            true => ClientTransport::Udp { address: "192.0.2.10".parse().unwrap(), port: 1024 },
            false => ClientTransport::Tcp,
        };
        let player = "NSPlayer/7.1.0.3055; {3F2504E0-4F89-41D3-9A0C-0305E82C3301}".into();
        let config =
            ClientConfig { fall_back, ..ClientConfig::new("relay.example".into(), "live/cam1".into(), transport, player) };
        Self {
            now,
            start: now,
            client: Client::new(now, config),
            session: Session::new(now, Arc::new(Config::default()), CLIENT_ID),
            link: Link {
                delay: Duration::from_millis(20),
                loss_permille: 0,
                twice_permille: 0,
                jitter: Duration::ZERO,
                lose_first: 0,
                random: Random(1),
            },
            claim: Ok(()),
            description: description(),
            wire: BTreeMap::new(),
            sent: 0,
            made: 70_000,
            since: 0,
            next: Next::default(),
            playing: false,
            track: Track::new(),
            next_batch: now,
            offered: 0,
            events: Vec::new(),
            packets: BTreeMap::new(),
            settled: 0,
            client_end: None,
            server_end: None,
            asks: VecDeque::new(),
        }
    }

    pub(super) fn seed(&mut self, seed: u64) {
        self.link.random = Random(seed);
    }

    /// Runs until `done` or the time is over.
    pub(super) fn run(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) {
        let end = self.now + limit;
        self.settle();
        while !done(self) {
            let arrival = self.wire.keys().next().map(|(at, _)| *at);
            let timeouts = [self.client.poll_timeout(), self.session.poll_timeout(), arrival, Some(self.next_batch)];
            let at = timeouts.into_iter().flatten().min().unwrap();
            if at > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(at);
            self.step();
        }
    }

    fn step(&mut self) {
        let now = self.now;
        if self.client.poll_timeout().is_some_and(|at| at <= now) {
            self.client.handle(now, ClientInput::Timeout);
            assert!(self.client.poll_timeout().is_none_or(|at| at > now), "a timeout that does not end");
        }
        if self.session.poll_timeout().is_some_and(|at| at <= now) {
            self.session.handle(now, Input::Timeout).unwrap();
        }
        if self.next_batch <= now {
            self.made += BATCH;
            self.next_batch += Duration::from_secs(1) * BATCH as u32 / PACKETS_PER_S;
            self.pump();
        }
        while let Some(entry) = self.wire.first_entry().filter(|entry| entry.key().0 <= now) {
            match entry.remove() {
                Arrival::ToServer(bytes) => self.session.handle(now, Input::Bytes(&bytes)).unwrap(),
                Arrival::ToClient(bytes) => self.client.handle(now, ClientInput::Bytes(&bytes)),
                Arrival::DatagramToServer(bytes) => self.session.handle(now, Input::Datagram(&bytes)).unwrap(),
                Arrival::DatagramToClient(bytes) => self.client.handle(now, ClientInput::Datagram(&bytes)),
            }
        }
        self.settle();
    }

    /// Carries out what both sides want.
    pub(super) fn settle(&mut self) {
        while let Some(output) = self.client.poll_output() {
            match output {
                ClientOutput::Send(bytes) => self.put(Duration::ZERO, Arrival::ToServer(bytes)),
                ClientOutput::Datagram(bytes) => self.lose_or_put(bytes, false),
                ClientOutput::Event(event) => self.event(event),
                ClientOutput::Close(end) => self.client_end = Some(end),
                output @ (ClientOutput::Connect | ClientOutput::Disconnect | ClientOutput::DatagramTo { .. }) => {
                    unreachable!("{output:?}")
                }
            }
        }
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Send(bytes) => self.put(Duration::ZERO, Arrival::ToClient(bytes)),
                Output::Datagram(bytes) => self.lose_or_put(bytes, true),
                Output::Ask(ask) => self.grant(ask),
                Output::Close(reason) => self.server_end = Some(reason),
            }
        }
    }

    fn grant(&mut self, ask: Ask) {
        let answer = match &ask {
            Ask::Admit(_) => Some(Answer::Admitted(Ok(()))),
            Ask::ClaimPort { .. } => Some(Answer::Funnel(self.claim)),
            Ask::Open { .. } => Some(Answer::Opened(Ok(self.description.clone()))),
            Ask::Play { incarnation } => {
                self.playing = true;
                // A join burst of a second, of this header only.
                let from = self.next.packet.max(self.since).max(self.made - u64::from(PACKETS_PER_S));
                self.track.start(&mut self.next, *incarnation);
                self.track.jump(&mut self.next, from);
                self.pump();
                None
            }
            Ask::Incarnation { incarnation } => {
                self.track.start(&mut self.next, *incarnation);
                None
            }
            Ask::Stop => {
                self.playing = false;
                None
            }
            Ask::Resend { sequences } => {
                for sequence in sequences {
                    self.resend(*sequence);
                }
                None
            }
            Ask::ReleasePort | Ask::Select(_) => None,
            Ask::PlayFile { .. } | Ask::OpenBytes { .. } | Ask::SendBytes { .. } | Ask::Rest => unreachable!("a broadcast"),
            Ask::Lease(_) | Ask::Resume { .. } | Ask::AwaitsPublisher { .. } => unreachable!("RTSP's"),
        };
        self.asks.push_back(ask);
        if let Some(answer) = answer {
            self.session.handle(self.now, Input::Answer(answer)).unwrap();
        }
    }

    fn resend(&mut self, sequence: u32) {
        let first = self.since.max(self.made.saturating_sub(WINDOW));
        let Some(sent) = self.track.lookup(&self.next, sequence).filter(|sent| sent.packet >= first) else { return };
        let size = self.description.packet_size;
        let mut packet = sent.head(size as usize).bytes().to_vec();
        packet.extend(content(sent.packet, size));
        self.lose_or_put(packet.into(), true);
    }

    fn pump(&mut self) {
        let udp = self.session.transport() == Some(Transport::Udp);
        let size = self.description.packet_size as usize;
        while self.playing && self.next.packet < self.made {
            let count = (self.made - self.next.packet).min(BATCH);
            let Next { packet: first, sequence, incarnation } = self.next;
            let packets = (0..count).map(|n| content(first + n, size as u32)).collect::<Vec<_>>().concat();
            let mut image = Vec::new();
            wrap(&packets, size, (first as u32).., &mut image);
            stamp(&mut image, HEAD_LEN + size, incarnation, sequence);
            self.next.advance(count as u32);
            self.offered += count;
            let image = Bytes::from(image);
            if udp {
                for n in 0..count as usize {
                    self.lose_or_put(image.slice(n * (HEAD_LEN + size)..(n + 1) * (HEAD_LEN + size)), true);
                }
            } else {
                self.put(Duration::ZERO, Arrival::ToClient(image));
            }
        }
    }

    fn lose_or_put(&mut self, datagram: Bytes, to_client: bool) {
        let lost = self.link.random.below(1000) < self.link.loss_permille;
        let twice = self.link.random.below(1000) < self.link.twice_permille;
        if to_client && self.link.lose_first > 0 {
            self.link.lose_first -= 1;
            return;
        }
        if lost {
            return;
        }
        for _ in 0..=usize::from(twice) {
            let jitter = Duration::from_micros(self.link.random.below(self.link.jitter.as_micros() as u64 + 1));
            let arrival = if to_client { Arrival::DatagramToClient } else { Arrival::DatagramToServer };
            self.put(jitter, arrival(datagram.clone()));
        }
    }

    fn put(&mut self, late: Duration, arrival: Arrival) {
        self.sent += 1;
        self.wire.insert((self.now + self.link.delay + late, self.sent), arrival);
    }

    fn event(&mut self, event: ClientEvent) {
        match event {
            ClientEvent::Packet { location, sequence, bytes, settled, .. } => {
                assert!(sequence >= self.settled, "packet {sequence} came, but all below {} were settled", self.settled);
                self.is_settled(settled);
                assert_eq!(bytes, content(location.into(), bytes.len() as u32), "packet {location}");
                assert!(self.packets.insert(location, sequence).is_none(), "packet {location} twice");
            }
            // Comes once, before the header; what is in it is looked at elsewhere.
            ClientEvent::Opened { .. } => {}
            ClientEvent::GivenUp { settled } => self.is_settled(settled),
            other => self.events.push(other),
        }
    }

    fn is_settled(&mut self, settled: u32) {
        assert!(settled >= self.settled);
        self.settled = settled;
    }

    /// The source goes on with another header.
    pub(super) fn change(&mut self, description: Description) {
        self.description = description.clone();
        self.since = self.made;
        self.session.handle(self.now, Input::Answer(Answer::NewGeneration(description))).unwrap();
        self.settle();
    }

    pub(super) fn end(&mut self) {
        self.session.handle(self.now, Input::Answer(Answer::Ended)).unwrap();
        self.settle();
    }

    pub(super) fn stop(&mut self) {
        self.client.handle(self.now, ClientInput::Stop);
        self.settle();
    }
}
