use super::*;
use crate::asf::samples;
use crate::ingest::{stop, testing};
use crate::mms::block::{ReadBlock, ReportReadBlock};
use crate::mms::connect::{Connect, NO_PACKET_PAIR, ReportConnectedEx};
use crate::mms::data::{DataHead, LAST_FRAGMENT};
use crate::mms::end::{CloseFile, ReportEndOfStream, StopPlaying};
use crate::mms::frame::{Decoder, Item as Received, Message, encode};
use crate::mms::funnel::{ConnectFunnel, FunnelInfo, ReportConnectedFunnel, ReportFunnelInfo};
use crate::mms::log::Logging;
use crate::mms::open::{BROADCAST, OpenFile, ReportOpenFile};
use crate::mms::ping::{Ping, Pong};
use crate::mms::play::{ReportStartedPlaying, StartPlaying};
use crate::mms::redirect::{RedirectKind, ReportRedirect};
use crate::mms::select::{ReportStreamSwitch, StreamSwitch};
use crate::mms::testing::asf_header;
use crate::relay::Relay;
use crate::settings::Source;
use crate::wire::Hresult;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

pub(in crate::ingest) const SAMPLE: &str = "live-asf-pipe.asf";
const OTHER: &str = "camera-mjpeg-pcmu.asf";
pub(in crate::ingest) const LIMIT: Duration = Duration::from_secs(20);
pub(in crate::ingest) const CAN_SEEK: u32 = 0x0180_0000;

/// The Header Object and the 50 bytes behind it.
fn header(name: &str) -> Bytes {
    let len = samples::stream(name).0.bytes().len() + 50;
    Bytes::copy_from_slice(&samples::bytes(name)[..len])
}

/// Another server, told what to do step by step.
pub(in crate::ingest) struct Server {
    pub(in crate::ingest) listener: TcpListener,
    pub(in crate::ingest) address: SocketAddr,
}

impl Server {
    pub(in crate::ingest) async fn bind() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    fn url(&self) -> String {
        format!("mmst://{}/talk", self.address)
    }

    /// A viewer comes and asks for something: the name.
    pub(in crate::ingest) async fn asked(&self) -> (Viewer, String) {
        let (stream, _) = timeout(LIMIT, self.listener.accept()).await.expect("nobody connects").unwrap();
        let mut viewer = Viewer {
            stream,
            decoder: Decoder::from_client(),
            sequence: 0,
            incarnation: 10,
            packet_count: 0,
            player: String::new(),
        };
        viewer.player = viewer.expect::<Connect>().await.subscriber.join(" ");
        let version = "9.1.1.3841".to_owned();
        let (hr, authentication) = (Hresult::OK, String::new());
        viewer.say(&ReportConnectedEx { hr, incarnation: NO_PACKET_PAIR, server_version: version, authentication }).await;
        viewer.expect::<FunnelInfo>().await;
        viewer.say(&ReportFunnelInfo { hr, client_id: 7 }).await;
        viewer.expect::<ConnectFunnel>().await;
        viewer.say(&ReportConnectedFunnel).await;
        let name = viewer.expect::<OpenFile>().await.name;
        (viewer, name)
    }

    /// A viewer comes and asks for the talk.
    async fn opened(&self) -> Viewer {
        let (viewer, name) = self.asked().await;
        assert_eq!(name, "talk");
        viewer
    }

    /// And gets it, up to the first packet.
    async fn playing(&self, attributes: u32) -> Viewer {
        let mut viewer = self.opened().await;
        viewer.play(attributes).await;
        viewer
    }
}

pub(in crate::ingest) struct Viewer {
    stream: TcpStream,
    decoder: Decoder,
    pub(in crate::ingest) sequence: u32,
    /// Of its play.
    pub(in crate::ingest) incarnation: u8,
    /// What it is told of the file's length.
    pub(in crate::ingest) packet_count: u64,
    player: String,
}

impl Viewer {
    /// What it asked for is there, or is not.
    pub(in crate::ingest) async fn report(&mut self, hr: Hresult, attributes: u32) {
        let packet_count = self.packet_count;
        let report =
            ReportOpenFile { hr, incarnation: 9, file_id: 1, attributes, bit_rate: 1, packet_count, ..ReportOpenFile::default() };
        self.say(&report).await;
    }

    /// It gets what it asked for, up to the first packet.
    pub(in crate::ingest) async fn play(&mut self, attributes: u32) {
        assert_eq!(self.start(attributes).await, StartPlaying::live(10));
    }

    /// The same: where it wants to begin.
    pub(in crate::ingest) async fn start(&mut self, attributes: u32) -> StartPlaying {
        let (viewer, header, hr) = (self, header(SAMPLE), Hresult::OK);
        viewer.report(hr, attributes).await;
        let incarnation = viewer.expect::<ReadBlock>().await.incarnation;
        viewer.say(&ReportReadBlock { hr, incarnation }).await;
        viewer.data(DataHead::new(0, u8::try_from(incarnation).unwrap(), LAST_FRAGMENT, header.len()), &header).await;
        viewer.go_on().await
    }

    /// It begins, or goes on: where.
    pub(in crate::ingest) async fn go_on(&mut self) -> StartPlaying {
        let hr = Hresult::OK;
        self.expect::<StreamSwitch>().await;
        self.say(&ReportStreamSwitch { hr }).await;
        let start = self.expect::<StartPlaying>().await;
        self.say(&ReportStartedPlaying { hr, incarnation: self.incarnation.into() }).await;
        start
    }

    /// It stops, to rest or to go on elsewhere.
    pub(in crate::ingest) async fn stops(&mut self) {
        let incarnation = self.incarnation.into();
        assert_eq!(self.expect::<StopPlaying>().await.incarnation, incarnation);
        self.expect::<Logging>().await;
        self.say(&ReportEndOfStream { hr: Hresult::OK, incarnation }).await;
        self.incarnation += 1;
    }

    pub(in crate::ingest) async fn say<M: Message>(&mut self, message: &M) {
        self.stream.write_all(&encode(0, message)).await.unwrap();
    }

    async fn data(&mut self, head: DataHead, payload: &[u8]) {
        self.stream.write_all(&[&head.bytes(), payload].concat()).await.unwrap();
    }

    pub(in crate::ingest) async fn packets(&mut self, packets: &[Vec<u8>]) {
        for packet in packets {
            let flags = self.sequence.to_le_bytes()[0];
            self.data(DataHead::new(self.sequence, self.incarnation, flags, packet.len()), packet).await;
            self.sequence += 1;
        }
    }

    /// The next message, which is to be this one.
    pub(in crate::ingest) async fn expect<M: Message>(&mut self) -> M {
        let mut bytes = [0; 4096];
        loop {
            if let Some(Received::Message(frame)) = self.decoder.poll().unwrap() {
                assert_eq!(frame.mid, M::MID, "{:08X}", frame.mid);
                return M::parse(&frame.message).unwrap();
            }
            let count = timeout(LIMIT, self.stream.read(&mut bytes)).await.expect("no message comes").unwrap();
            assert!(count > 0, "the connection is closed");
            self.decoder.feed(&bytes[..count]);
        }
    }

    pub(in crate::ingest) async fn end(&mut self) {
        self.say(&ReportEndOfStream { hr: Hresult::OK, incarnation: 10 }).await;
        self.expect::<CloseFile>().await;
    }
}

struct Bench {
    relay: Arc<Relay>,
    collector: Arc<testing::Collector>,
    stopper: stop::Stopper,
    task: tokio::task::JoinHandle<()>,
}

impl Bench {
    fn new(url: String, start: Start) -> Self {
        let linger = Duration::from_millis(50);
        let source = Source::Pull { url: url.clone(), start, linger };
        let (relay, collector) = testing::collecting(&[("cam", source)]);
        let (stopper, stop) = stop::channel();
        let point = relay.point("cam").unwrap();
        let task = tokio::spawn(run(point, Upstream { url, start, linger }, stop));
        Self { relay, collector, stopper, task }
    }

    async fn wait_for_packets(&self, count: usize) {
        wait_until(|| self.collector.packets().len() >= count).await;
    }
}

pub(in crate::ingest) async fn wait_until(mut condition: impl FnMut() -> bool) {
    let poll = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, poll).await.expect("it never came");
}

/// Packets of a sample, as many as take less than the lead, so that nothing is held back.
pub(in crate::ingest) fn short() -> Vec<Vec<u8>> {
    samples::stream(SAMPLE).1[..20].to_vec()
}

#[tokio::test]
async fn a_live_stream_is_pulled_and_pulled_again() {
    let server = Server::bind().await;
    let bench = Bench::new(server.url(), Start::Always);
    let mut viewer = server.playing(BROADCAST).await;
    assert!(viewer.player.starts_with("NSPlayer/7.1.0.3055; {"), "{}", viewer.player);
    assert!(viewer.player.ends_with("}; Host: 127.0.0.1"), "{}", viewer.player);
    viewer.packets(&short()).await;
    bench.wait_for_packets(20).await;
    let came: Vec<Vec<u8>> = bench.collector.packets().into_iter().map(|(.., packet)| packet).collect();
    assert_eq!(came, short());
    // A connection that breaks, then one that ends as it should.
    drop(viewer);
    let mut viewer = server.playing(BROADCAST).await;
    assert_eq!(bench.collector.losses(), 1);
    viewer.packets(&short()).await;
    bench.wait_for_packets(40).await;
    viewer.end().await;
    server.playing(BROADCAST).await;
    assert_eq!((bench.collector.losses(), bench.collector.generations()), (2, 1), "the same header continues");
    bench.stopper.stop().await;
}

#[tokio::test]
async fn a_redirect_is_followed() {
    let (first, second) = (Server::bind().await, Server::bind().await);
    let bench = Bench::new(first.url(), Start::Always);
    let mut sent_on = first.opened().await;
    sent_on.say(&ReportRedirect { kind: RedirectKind::Url, location: second.url() }).await;
    let mut viewer = second.playing(BROADCAST).await;
    viewer.packets(&short()).await;
    bench.wait_for_packets(20).await;
    // The next connection begins where the settings say.
    drop(viewer);
    first.opened().await;
    bench.stopper.stop().await;
}

#[tokio::test]
async fn a_file_begins_again_when_it_is_over() {
    let server = Server::bind().await;
    let bench = Bench::new(server.url(), Start::Always);
    let (_, packets) = samples::stream(SAMPLE);
    // More than the lead and the shortest lap together.
    let send_time_ms = |packet: &Vec<u8>| crate::asf::send_time_ms(packet).unwrap();
    let end = packets.iter().position(|packet| send_time_ms(packet) > send_time_ms(&packets[0]) + 3200).unwrap();
    for lap in 1..=2 {
        let mut viewer = server.playing(CAN_SEEK).await;
        viewer.packets(&packets[..end]).await;
        viewer.end().await;
        bench.wait_for_packets(end * lap).await;
    }
    server.playing(CAN_SEEK).await;
    assert_eq!((bench.collector.losses(), bench.collector.generations()), (0, 1), "viewers notice nothing");
    let times: Vec<u32> = bench.collector.packets().iter().map(|(_, send_time_ms, _)| *send_time_ms).collect();
    assert!(times.is_sorted(), "one timeline");
    bench.stopper.stop().await;
    assert_eq!(bench.collector.losses(), 1);
}

#[tokio::test]
async fn an_empty_file_is_not_asked_for_again_at_once() {
    let server = Server::bind().await;
    let bench = Bench::new(server.url(), Start::Always);
    server.playing(CAN_SEEK).await.end().await;
    server.opened().await;
    assert_eq!(bench.collector.losses(), 1, "it was given up before it was tried again");
    bench.stopper.stop().await;
}

/// Lets time pass, in which nothing happens but what waits for it.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn media_that_stops_is_pulled_anew() {
    let server = Server::bind().await;
    let bench = Bench::new(server.url(), Start::Always);
    let mut viewer = server.playing(BROADCAST).await;
    viewer.packets(&short()).await;
    bench.wait_for_packets(20).await;
    // The connection lives.
    viewer.say(&Ping).await;
    viewer.expect::<Pong>().await;
    pass(MEDIA_TIME).await;
    viewer.expect::<CloseFile>().await;
    let mut viewer = server.playing(BROADCAST).await;
    viewer.packets(&short()).await;
    bench.wait_for_packets(40).await;
    assert_eq!((bench.collector.losses(), bench.collector.generations()), (1, 1));
    bench.stopper.stop().await;
}

#[tokio::test]
async fn media_that_we_do_not_read_is_not_missed() {
    let server = Server::bind().await;
    let (has_room, room) = watch::channel(true);
    let has_room = &has_room;
    let (came, mut packets) = mpsc::unbounded_channel();
    let options =
        PlayOptions { room: Some(room), media_time: Some(MEDIA_TIME), ..PlayOptions::new(server.url().parse().unwrap()) };
    let playing = client::play_observed(options, std::future::pending(), |event, _| {
        if let ClientEvent::Packet { location, .. } = event {
            has_room.send_replace(false);
            came.send(*location).unwrap();
        }
    });
    let serving = async {
        let mut viewer = server.playing(CAN_SEEK).await;
        viewer.packets(&short()[..1]).await;
        assert_eq!(timeout(LIMIT, packets.recv()).await, Ok(Some(0)));
        pass(MEDIA_TIME * 5).await;
        viewer.packets(&short()[1..2]).await;
        let nothing = timeout(Duration::from_millis(50), packets.recv()).await;
        assert!(nothing.is_err(), "there is no room");
        has_room.send_replace(true);
        assert_eq!(timeout(LIMIT, packets.recv()).await, Ok(Some(1)));
        has_room.send_replace(true);
        viewer.say(&Ping).await;
        viewer.expect::<Pong>().await;
        pass(MEDIA_TIME).await;
        viewer.expect::<CloseFile>().await;
    };
    let (played, ()) = tokio::join!(playing, serving);
    let why = played.unwrap().ended_by;
    assert!(why.contains("no media for 40 s"), "{why}");
}

#[tokio::test]
async fn pulled_while_somebody_watches() {
    let server = Server::bind().await;
    let bench = Bench::new(server.url(), Start::Watched);
    let nobody = timeout(Duration::from_millis(50), server.listener.accept()).await;
    assert!(nobody.is_err(), "nobody watches");
    let point = bench.relay.point("cam").unwrap();
    for _ in 0..2 {
        let (one, two) = (point.watch(), point.watch());
        let mut viewer = server.playing(BROADCAST).await;
        viewer.packets(&short()).await;
        drop(one);
        viewer.packets(&short()).await;
        drop(two);
        // It says goodbye.
        assert_eq!(viewer.expect::<StopPlaying>().await.incarnation, 10);
    }
    bench.stopper.stop().await;
}

#[tokio::test]
async fn a_stop_says_goodbye() {
    let server = Server::bind().await;
    let bench = Bench::new(server.url(), Start::Always);
    let mut viewer = server.playing(BROADCAST).await;
    let goodbye = async {
        viewer.expect::<StopPlaying>().await;
        viewer.say(&ReportEndOfStream { hr: Hresult::OK, incarnation: 10 }).await;
    };
    tokio::join!(bench.stopper.stop(), goodbye);
    timeout(LIMIT, bench.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn packets_of_no_use_end_the_connection() {
    let server = Server::bind().await;
    let bench = Bench::new(server.url(), Start::Always);
    let mut viewer = server.playing(BROADCAST).await;
    let size = samples::stream(SAMPLE).0.packet_size();
    viewer.packets(&vec![vec![0xFF; size]; 60]).await;
    server.playing(BROADCAST).await;
    assert_eq!((bench.collector.packets().len(), bench.collector.losses()), (0, 1));
    bench.stopper.stop().await;
}

#[tokio::test]
async fn what_cannot_be_pulled_is_not_tried() {
    for url in ["mms://user:secret@127.0.0.1/a", "https://127.0.0.1/a"] {
        let bench = Bench::new(url.into(), Start::Always);
        timeout(LIMIT, bench.task).await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_lent_goes_back_while_it_waits_for_the_next_attempt() {
    let url = "mms://h/".to_owned();
    let source = Source::Pull { url: url.clone(), start: Start::Always, linger: Duration::from_secs(3600) };
    let (relay, _) = testing::collecting(&[("mirror", source)]);
    let folder = relay.point("mirror").unwrap().id();
    let (watch, loan) = relay.lend(folder, "a", None).unwrap();
    let point = Arc::clone(watch.point());
    let watched = Watched::new(&point, Start::Watched);
    let linger = Duration::from_secs(3600);
    let mut pull = Pull { point, loan, url: "mms://h/a".parse().unwrap(), linger, watched, on_air: None, headed: None };
    let (stopper, mut stop) = stop::channel();
    let begin = Instant::now();
    assert!(!pull.rests(Duration::from_secs(7), &mut stop).await, "somebody watches");
    assert_eq!(begin.elapsed().as_secs(), 7);
    let leaves = async {
        sleep(Duration::from_secs(1)).await;
        drop(watch);
    };
    assert!(tokio::join!(pull.rests(Duration::from_secs(30), &mut stop), leaves).0);
    assert_eq!(begin.elapsed().as_secs(), 8);
    assert!(relay.lent(folder, "a", None).is_none());
    drop(stopper);
}

/// The queue between connection and relay, without a connection.
struct Pipe {
    intake: Intake,
    sequence: u32,
}

impl Pipe {
    fn header(&mut self, name: &str, attributes: u32) {
        let (duration_s, packet_count, packet_size, bit_rate) = (0.0, 0, 0, 0);
        self.intake.event(&ClientEvent::Opened {
            live: attributes & BROADCAST != 0,
            duration_s,
            packet_count,
            packet_size,
            bit_rate,
        });
        self.intake.event(&ClientEvent::Header(header(name)));
    }

    fn packets(&mut self, packets: &[Vec<u8>]) {
        for packet in packets {
            let bytes = Bytes::copy_from_slice(packet);
            let (location, sequence, resent, settled) = (0, self.sequence, false, self.sequence + 1);
            self.intake.event(&ClientEvent::Packet { location, sequence, bytes, resent, settled });
            self.sequence += 1;
        }
    }
}

fn pull() -> (Pull, Arc<testing::Collector>) {
    let url = "mms://h/talk".to_owned();
    let source = Source::Pull { url: url.clone(), start: Start::Always, linger: Duration::ZERO };
    let (relay, collector) = testing::collecting(&[("cam", source)]);
    let point = relay.point("cam").unwrap();
    let watched = Watched::new(&point, Start::Always);
    (
        Pull { point, loan: None, url: url.parse().unwrap(), linger: Duration::ZERO, watched, on_air: None, headed: None },
        collector,
    )
}

#[tokio::test(start_paused = true)]
async fn a_file_is_held_to_real_time_and_a_broadcast_is_not() {
    let (_, packets) = samples::stream(SAMPLE);
    for (attributes, expected_s) in [(CAN_SEEK, 7.0..9.0), (BROADCAST, 0.0..0.1)] {
        let ((mut pull, collector), (intake, outlet, _)) = (pull(), queue());
        let mut pipe = Pipe { intake, sequence: 0 };
        pipe.header(SAMPLE, attributes);
        pipe.packets(&packets);
        pipe.intake.finish();
        let begin = Instant::now();
        outlet.feed(&mut pull).await.unwrap();
        // Ten seconds, of which two are the lead.
        let took_s = begin.elapsed().as_secs_f64();
        assert!(expected_s.contains(&took_s), "{took_s}");
        assert_eq!(collector.packets().len(), packets.len());
    }
}

/// Packets of a sample, of so much time.
fn jingle(ms: u32) -> Vec<Vec<u8>> {
    let (_, mut packets) = samples::stream(SAMPLE);
    let send_time_ms = |packet: &Vec<u8>| crate::asf::send_time_ms(packet).unwrap();
    let end = packets.iter().position(|packet| send_time_ms(packet) >= send_time_ms(&packets[0]) + ms).unwrap();
    packets.truncate(end);
    packets
}

#[tokio::test]
async fn a_short_file_begins_again_at_once() {
    const LAPS: usize = 9;
    let server = Server::bind().await;
    let bench = Bench::new(server.url(), Start::Always);
    let jingle = jingle(400);
    for _ in 0..LAPS {
        let mut viewer = server.playing(CAN_SEEK).await;
        viewer.packets(&jingle).await;
        viewer.end().await;
    }
    server.playing(CAN_SEEK).await;
    assert_eq!((bench.collector.losses(), bench.collector.generations()), (0, 1), "viewers notice nothing");
    assert_eq!(bench.collector.packets().len(), LAPS * jingle.len());
    bench.stopper.stop().await;
}

#[tokio::test]
async fn a_file_of_no_length_is_not_begun_again_at_once() {
    let server = Server::bind().await;
    let bench = Bench::new(server.url(), Start::Always);
    let mut viewer = server.playing(CAN_SEEK).await;
    let packet = &short()[..1];
    for _ in 0..3 {
        viewer.packets(packet).await;
    }
    viewer.end().await;
    server.opened().await;
    assert_eq!((bench.collector.packets().len(), bench.collector.losses()), (3, 1), "it was given up before it was tried again");
    bench.stopper.stop().await;
}

#[test]
fn files_whose_times_are_not_what_they_seem_wait() {
    let (hour, quick, slow) = (Duration::from_secs(3600), Duration::from_millis(20), Duration::from_millis(240));
    let mut encores = Encores::default();
    // As many as the lead explains, then in real time.
    assert!((0..9).all(|_| encores.may(quick, SHORTEST_LAP)));
    assert!((0..100).all(|_| encores.may(slow, SHORTEST_LAP)));
    assert_eq!((0..100).take_while(|_| encores.may(quick, hour)).count(), 16);
    assert!(!Encores::default().may(quick, SHORTEST_LAP / 2));
}

#[tokio::test(start_paused = true)]
async fn a_short_file_runs_on_without_a_seam() {
    const LAPS: u32 = 20;
    let ((mut pull, collector), jingle) = (pull(), jingle(1500));
    let begin = Instant::now();
    for _ in 0..LAPS {
        let (intake, outlet, _) = queue();
        let mut pipe = Pipe { intake, sequence: 0 };
        pipe.header(SAMPLE, CAN_SEEK);
        pipe.packets(&jingle);
        pipe.intake.finish();
        outlet.feed(&mut pull).await.unwrap();
        assert!(pull.lasts() >= Duration::from_millis(1400), "{:?}", pull.lasts());
    }
    let took_s = begin.elapsed().as_secs_f64();
    let times: Vec<u32> = collector.packets().iter().map(|(_, send_time_ms, _)| *send_time_ms).collect();
    assert_eq!((times.len(), collector.generations()), (LAPS as usize * jingle.len(), 1));
    let longest = times.windows(2).map(|pair| pair[1].checked_sub(pair[0]).expect("one timeline")).max().unwrap();
    assert!(longest <= 200, "a gap of {longest} ms");
    // As fast as it plays, less the lead: neither squeezed nor stretched.
    let played_s = f64::from(times[times.len() - 1] - times[0]) / 1000.0;
    assert!((27.0..33.0).contains(&played_s), "{played_s}");
    assert!((played_s - 2.5..=played_s).contains(&took_s), "{took_s} s for {played_s} s");
}

#[tokio::test(start_paused = true)]
async fn another_header_is_another_generation() {
    let ((mut pull, collector), (intake, outlet, _)) = (pull(), queue());
    let mut pipe = Pipe { intake, sequence: 0 };
    pipe.header(SAMPLE, BROADCAST);
    pipe.packets(&short());
    // Of before the change, though something is missing before it.
    let late = Bytes::copy_from_slice(&short()[0]);
    pipe.intake.event(&ClientEvent::Packet { location: 0, sequence: 21, bytes: late, resent: false, settled: 20 });
    pipe.intake.event(&ClientEvent::NewHeader(header(OTHER)));
    pipe.sequence = 22;
    pipe.packets(&samples::stream(OTHER).1[..3]);
    pipe.packets(&[vec![1; 7]]);
    pipe.intake.finish();
    outlet.feed(&mut pull).await.unwrap();
    assert_eq!((collector.generations(), collector.packets().len()), (2, 20 + 1 + 3));
}

#[test]
fn what_waits_is_bounded() {
    let (intake, mut outlet, room) = queue();
    let mut pipe = Pipe { intake, sequence: 0 };
    pipe.packets(&vec![vec![0; 1 << 16]; 15]);
    assert!(*room.borrow());
    pipe.packets(&[vec![0; 1 << 16]]);
    assert!(!*room.borrow(), "TCP waits");
    outlet.backlog.remove(1);
    assert!(*room.borrow());
    pipe.packets(&vec![vec![0; 1 << 16]; 300]);
    assert_eq!(pipe.intake.thrown_away, 316 - 257);
    let mut waiting = 0;
    while outlet.items.try_recv().is_ok() {
        waiting += 1;
    }
    assert_eq!(waiting, 257, "16 MiB and the byte that went");
}

#[test]
fn headers_that_wait_are_bounded_too() {
    let (mut intake, _outlet, room) = queue();
    let header = asf_header(800, &[1], 900);
    let most = ROOM_BYTES / header.len();
    for _ in 0..most {
        assert!(*room.borrow());
        intake.event(&ClientEvent::NewHeader(header.clone()));
    }
    intake.event(&ClientEvent::NewHeader(header));
    assert!(!*room.borrow(), "TCP waits");
}
