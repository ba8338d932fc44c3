//! Our client and our server, under one clock that nobody waits for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{FILE, LIVE, asf, base, packet};
use crate::asf::StreamSet;
use crate::http::client::{Client, ClientConfig};
use crate::http::viewer::{self, Connection, Sessions};
use crate::http::wrap::{Slab, Wrap};
use crate::playing::{ClientEnd, ClientEvent, ClientInput, ClientOutput, StartAt};
use crate::viewing::{Answer, Ask, Content, Description, OpenRefusal, Position};
use crate::wire::{Guid, Hresult};

/// Packets a second.
const RATE: u32 = 50;
const TICK: Duration = Duration::from_millis(20);
const PACKET_SIZE: usize = 200;

fn description(flags: u32, packet_size: usize) -> Description {
    let content = if flags == LIVE { Content::Live } else { Content::File { duration_ms: 20_000, packets: 1000 } };
    Description {
        header: asf(u32::try_from(packet_size).unwrap(), flags).into(),
        packet_size: u32::try_from(packet_size).unwrap(),
        bit_rate: 80_000,
        streams: [1, 2].into_iter().collect(),
        content,
        ssrc: 0,
    }
}

/// A server with one name, and a client at it. A tick is the way between them.
struct World {
    now: Instant,
    client: Client,
    connections: BTreeMap<usize, Connection>,
    sessions: Rc<RefCell<Sessions>>,
    opened: Result<Description, OpenRefusal>,
    /// The connection of the client; the number of the next one.
    key: Option<usize>,
    next_key: usize,
    to_client: Vec<u8>,
    /// Who plays, from which packet on.
    playing: Option<(usize, u32)>,
    live: u32,
    selected: Option<StreamSet>,
    logs: Vec<String>,
    events: Vec<ClientEvent>,
    packets: Vec<(u32, Bytes)>,
    ended: Option<ClientEnd>,
}

impl World {
    fn new(opened: Result<Description, OpenRefusal>, change: impl FnOnce(&mut ClientConfig)) -> Self {
        let now = base();
        let mut config = ClientConfig::new("relay".into(), "/live".into(), "NSServer/9.0.0.3171".into(), Guid([9; 16]));
        change(&mut config);
        let mut world = Self {
            now,
            client: Client::new(now, config),
            connections: BTreeMap::new(),
            sessions: Rc::default(),
            opened,
            key: None,
            next_key: 0,
            to_client: Vec::new(),
            playing: None,
            live: 0,
            selected: None,
            logs: Vec::new(),
            events: Vec::new(),
            packets: Vec::new(),
            ended: None,
        };
        world.connect();
        world.settle();
        world
    }

    fn connect(&mut self) {
        self.disconnect();
        let (key, sessions) = (self.next_key, Rc::clone(&self.sessions));
        self.next_key += 1;
        let id = u32::try_from(key).unwrap() + 77;
        let local = "198.51.100.20:80".parse().unwrap();
        let connection = Connection::new(self.now, Arc::default(), sessions, key, [192, 0, 2, 10].into(), local, id);
        self.connections.insert(key, connection);
        self.key = Some(key);
    }

    fn disconnect(&mut self) {
        self.to_client.clear();
        if let Some(key) = self.key.take() {
            self.tell(key, viewer::Input::End);
        }
    }

    fn tell(&mut self, key: usize, input: viewer::Input<'_>) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        connection.handle(self.now, input);
        self.logs.extend(connection.report().log.clone());
        while let Some(output) = self.connections.get_mut(&key).and_then(Connection::poll_output) {
            match output {
                viewer::Output::Send(bytes) if self.key == Some(key) => self.to_client.extend_from_slice(&bytes),
                viewer::Output::Send(_) => {}
                viewer::Output::Ask(ask) => self.ask(key, ask),
                viewer::Output::Tell { connection, told } => self.tell(connection, viewer::Input::Told(told)),
                viewer::Output::Close(_) => {
                    self.connections.remove(&key);
                    self.playing = self.playing.filter(|(playing, _)| *playing != key);
                    return;
                }
            }
        }
    }

    fn ask(&mut self, key: usize, ask: Ask) {
        let answer = match ask {
            Ask::Admit(_) => Answer::Admitted(Ok(())),
            Ask::Open { .. } => Answer::Opened(self.opened.clone()),
            Ask::Play { .. } => return self.playing = Some((key, self.live)),
            Ask::PlayFile { from, .. } => {
                let first = match from {
                    Position::Time(ms) => u32::try_from(ms).unwrap() * RATE / 1000,
                    Position::Packet(number) => number,
                    Position::Offset(_) => unreachable!(),
                };
                return self.playing = Some((key, first));
            }
            Ask::Select(selection) => return self.selected = Some(selection.streams),
            Ask::Stop => return self.playing = None,
            _ => return,
        };
        self.tell(key, viewer::Input::Answer(answer));
    }

    /// What the server has sent reaches the client.
    fn deliver(&mut self) {
        let bytes = std::mem::take(&mut self.to_client);
        if !bytes.is_empty() {
            self.client.handle(self.now, ClientInput::Bytes(&bytes));
        }
    }

    /// What the client wants is done, until it wants nothing.
    fn settle(&mut self) {
        while let Some(output) = self.client.poll_output() {
            match output {
                ClientOutput::Send(request) => {
                    let key = self.key.expect("a request without a connection");
                    self.tell(key, viewer::Input::Bytes(&request));
                }
                ClientOutput::Connect => {
                    self.connect();
                    self.client.handle(self.now, ClientInput::Connected);
                }
                ClientOutput::Disconnect => self.disconnect(),
                ClientOutput::Event(ClientEvent::Packet { location, bytes, .. }) => self.packets.push((location, bytes)),
                ClientOutput::Event(event) => self.events.push(event),
                ClientOutput::Close(end) => {
                    self.ended = Some(end);
                    self.disconnect();
                }
                ClientOutput::Datagram(_) | ClientOutput::DatagramTo { .. } => unreachable!(),
            }
        }
    }

    /// Lets ticks pass until something holds.
    #[track_caller]
    fn run(&mut self, limit: Duration, mut holds: impl FnMut(&Self) -> bool) {
        let end = self.now + limit;
        while !holds(self) {
            assert!(self.now < end, "not within {limit:?}: {} events, {} packets", self.events.len(), self.packets.len());
            self.tick();
        }
    }

    fn tick(&mut self) {
        self.now += TICK;
        self.live += 1;
        if let Some((key, number)) = self.playing {
            let size = self.opened.as_ref().map_or(0, |description| description.packet_size as usize);
            let is_file = self.opened.as_ref().is_ok_and(|description| description.content != Content::Live);
            if is_file && number == 1000 {
                self.tell(key, viewer::Input::Answer(Answer::Finished { incarnation: 1 }));
            } else {
                let fill = u8::try_from(number % 251).unwrap();
                let wrap = self.connections.get(&key).and_then(Connection::wrap).unwrap_or(Wrap::Framed);
                let mut image = Vec::new();
                Slab::new(size).push_part(wrap, &packet(size, fill), number, &mut image);
                self.to_client.extend_from_slice(&image);
                self.playing = Some((key, number + 1));
            }
        }
        for key in self.connections.keys().copied().collect::<Vec<_>>() {
            if self.connections[&key].poll_timeout().is_some_and(|at| at <= self.now) {
                self.tell(key, viewer::Input::Timeout);
            }
        }
        self.sessions.borrow_mut().expire(self.now);
        self.deliver();
        self.settle();
        if self.key.is_some_and(|key| !self.connections.contains_key(&key)) {
            self.key = None;
            self.client.handle(self.now, ClientInput::Closed);
        }
        if self.client.poll_timeout().is_some_and(|at| at <= self.now) {
            self.client.handle(self.now, ClientInput::Timeout);
        }
        self.settle();
    }

    fn news(&mut self, answer: Answer) {
        let (key, _) = self.playing.unwrap();
        self.tell(key, viewer::Input::Answer(answer));
        self.deliver();
        self.settle();
    }

    fn handle(&mut self, input: ClientInput<'_>) {
        self.client.handle(self.now, input);
        self.settle();
    }

    /// Packets came in their order without a gap, each with what it should hold.
    fn assert_in_order(&self, from: usize) {
        let packets = &self.packets[from..];
        for ((number, bytes), expected) in packets.iter().zip(packets[0].0..) {
            assert_eq!((*number, bytes), (expected, &Bytes::from(packet(bytes.len(), u8::try_from(number % 251).unwrap()))));
        }
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_broadcast_that_changes_and_ends() {
    let mut world = World::new(Ok(description(LIVE, PACKET_SIZE)), |_| {});
    world.run(MINUTE, |world| world.packets.len() >= 500);
    assert!(matches!(world.events[0], ClientEvent::Opened { live: true, .. }));
    assert_eq!(world.events[1], ClientEvent::Header(asf(200, LIVE).into()));
    assert_eq!(world.events.len(), 4, "{:?}", world.events);
    let other = description(LIVE, 300);
    world.opened = Ok(other.clone());
    world.news(Answer::NewGeneration(other));
    assert_eq!(world.events.last(), Some(&ClientEvent::NewHeader(asf(300, LIVE).into())));
    world.run(MINUTE, |world| world.packets.len() >= 1_000);
    assert!(world.packets[..500].iter().all(|(_, bytes)| bytes.len() == 200));
    assert!(world.packets[500..].iter().all(|(_, bytes)| bytes.len() == 300));
    world.assert_in_order(0);
    world.news(Answer::Ended);
    world.run(MINUTE, |world| world.ended.is_some());
    assert_eq!(
        (world.ended.as_ref(), world.events.last()),
        (Some(&ClientEnd::Ended), Some(&ClientEvent::End { hr: Hresult::OK }))
    );
    assert!(world.logs.last().unwrap().contains(" 1000 0 0 "), "the server knows how many came: {:?}", world.logs);
}

#[test]
fn a_file_with_seeks_and_pauses() {
    let mut world = World::new(Ok(description(FILE, PACKET_SIZE)), |config| config.start = StartAt::Time { s: 2.0 });
    world.run(MINUTE, |world| world.packets.len() >= 50);
    assert!(matches!(world.events[0], ClientEvent::Opened { live: false, packet_count: 7, .. }));
    world.assert_in_order(0);
    assert_eq!(world.packets[0].0, 100);
    for (at, first) in [(StartAt::Time { s: 10.0 }, 500), (StartAt::Packet(7), 7), (StartAt::Beginning, 0)] {
        let before = world.packets.len();
        world.handle(ClientInput::Seek(at));
        world.run(MINUTE, |world| world.packets.len() >= before + 50);
        assert_eq!(world.packets[before].0, first, "{at:?}");
        world.assert_in_order(before);
    }
    // Five minutes of rest are more than a session lasts without a sign of life.
    let next = world.packets.last().unwrap().0 + 1;
    world.handle(ClientInput::Pause);
    let (before, key) = (world.packets.len(), world.next_key);
    world.run(MINUTE * 6, |world| world.now >= base() + MINUTE * 5 && world.next_key >= key + 5);
    assert_eq!((world.packets.len(), world.sessions.borrow().len()), (before, 1));
    world.handle(ClientInput::Resume);
    world.run(MINUTE, |world| world.packets.len() >= before + 50);
    assert_eq!(world.packets[before].0, next);
    world.handle(ClientInput::Select([2].into_iter().collect()));
    world.run(MINUTE, |world| world.selected.is_some());
    assert_eq!(world.selected, Some([2].into_iter().collect()));
    world.run(MINUTE, |world| world.ended.is_some());
    assert_eq!((world.ended.as_ref(), world.packets.last().unwrap().0), (Some(&ClientEnd::Ended), 999));
}

#[test]
fn the_server_goes_away_and_a_second_client_comes() {
    let mut world = World::new(Ok(description(LIVE, PACKET_SIZE)), |_| {});
    world.run(MINUTE, |world| world.packets.len() >= 100);
    let session = Rc::clone(&world.sessions);
    let key = world.key.take().unwrap();
    world.connections.remove(&key);
    world.playing = None;
    world.handle(ClientInput::Closed);
    assert_eq!(world.ended, Some(ClientEnd::Closed));
    let mut again = World::new(Ok(description(LIVE, PACKET_SIZE)), |_| {});
    again.sessions = session;
    again.live = 500;
    again.run(MINUTE, |world| world.packets.len() >= 100);
    again.assert_in_order(0);
    // Silence, and leaving.
    again.playing = None;
    again.run(MINUTE, |world| world.ended.is_some());
    assert_eq!(again.ended, Some(ClientEnd::Silent(Duration::from_secs(30))));
    let mut left = World::new(Ok(description(LIVE, PACKET_SIZE)), |_| {});
    left.run(MINUTE, |world| world.packets.len() >= 10);
    left.handle(ClientInput::Stop);
    left.run(MINUTE, |world| world.ended.is_some());
    assert_eq!((left.ended.as_ref(), left.logs.len()), (Some(&ClientEnd::Stopped), 1));
}

#[test]
fn what_the_server_refuses() {
    let refusal = |refusal| {
        let mut world = World::new(Err(refusal), |_| {});
        world.run(MINUTE, |world| world.ended.is_some());
        world.ended.unwrap()
    };
    let missing = refusal(OpenRefusal::Status(Hresult::FILE_NOT_FOUND));
    assert_eq!(missing.to_string(), "the stream's description refused: 404 Not Found");
    assert!(matches!(refusal(OpenRefusal::Status(Hresult::NO_STREAM)), ClientEnd::Status { code: 503, .. }));
    let elsewhere = refusal(OpenRefusal::Redirect("mms://other/x".into()));
    assert!(matches!(&elsewhere, ClientEnd::Redirected(place) if place.contains("//other")), "{elsewhere}");
}
