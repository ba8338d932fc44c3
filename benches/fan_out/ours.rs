//! Our path: [`Broadcast::serve`] as the pump calls it. The only file of this bench that knows how a shard keeps its viewers.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wmrelay::asf::StreamSet;
use wmrelay::relay::{Batch, BatchPacket, Generation};
use wmrelay::settings::Settings;
use wmrelay::shard::broadcast::{Broadcast, Framing, Tally, Viewer};
use wmrelay::shard::origins::Origins;

use crate::packets::{Numbers, PACKET_SIZE};
use crate::rounds::{Technique, timed};
use crate::tcp::Connections;
use crate::udp::Receivers;

/// From one packet to the next: 2.2 Mbit/s.
const PACKET_MS: u64 = 5;

/// Our path to UDP viewers, with their packets framed like this, and numbers of their own where those are given.
pub(crate) fn over_udp(
    name: &'static str,
    framing: Framing,
    numbers: Option<&[Numbers]>,
    receivers: &Rc<Receivers>,
    packets: usize,
) -> Technique {
    let viewers = receivers.routes.iter().map(|route| Viewer::over_udp(0, *route).framed(framing));
    let mut broadcast = broadcast(viewers, numbers);
    let receivers = Rc::clone(receivers);
    let mut source = Source::new(&broadcast, packets);
    Technique::partly_timed(name, move |count| {
        let batches = source.batches(count);
        let mut tally = Tally::default();
        let took = timed(|| {
            for batch in batches {
                pass(&mut broadcast, batch, &receivers.origins, &mut tally);
            }
        });
        assert_eq!(tally.udp_packets, (count * broadcast.viewers.len() * packets) as u64, "every viewer gets every packet");
        took
    })
}

/// Our path to TCP viewers, with their packets framed like this.
pub(crate) fn over_tcp(name: &'static str, framing: Framing, connections: &Rc<Connections>, packets: usize) -> Technique {
    let viewers = connections.streams.iter().map(|stream| Viewer::over_tcp(0, Rc::clone(stream)).framed(framing));
    // In RTP all have the same.
    let numbers = Some(&connections.numbers[..]).filter(|_| !matches!(framing, Framing::Rtp(_)));
    let mut broadcast = broadcast(viewers, numbers);
    let mut source = Source::new(&broadcast, packets);
    let connections = Rc::clone(connections);
    let nowhere = Origins::default();
    Technique::partly_timed(name, move |count| {
        let batches = source.batches(count);
        let mut tally = Tally::default();
        let took = timed(|| {
            for batch in batches {
                pass(&mut broadcast, batch, &nowhere, &mut tally);
            }
        });
        assert_eq!(tally.tcp_packets, (count * broadcast.viewers.len() * packets) as u64, "every viewer gets every packet");
        connections.wait_until_read(tally.tcp_bytes);
        took
    })
}

/// A batch comes, and everybody gets it.
fn pass(broadcast: &mut Broadcast, batch: Arc<Batch>, origins: &Origins, tally: &mut Tally) {
    let now = batch.due;
    broadcast.push(now, Duration::ZERO, batch);
    let _ = broadcast.begin_pass(now, Duration::ZERO);
    for index in 0..broadcast.viewers.len() {
        broadcast.serve(index, now, origins, tally).expect("the connection stands");
    }
}

/// A publishing point whose viewers wait at the live edge.
fn broadcast(viewers: impl Iterator<Item = Viewer>, numbers: Option<&[Numbers]>) -> Broadcast {
    let video: StreamSet = [1].into_iter().collect();
    let mut broadcast = Broadcast::new(&Settings::default().window);
    broadcast.generation = Some(Arc::new(Generation {
        number: 0,
        header: Bytes::from_static(b"header"),
        packet_size: PACKET_SIZE,
        preroll_ms: 3000,
        bit_rate: 1_000_000,
        streams: video,
        video,
        ssrc: 0x90CB_CAAC,
        sequence: 0x1234,
    }));
    for (index, mut viewer) in viewers.enumerate() {
        let Numbers { incarnation, phase } = numbers.map_or(Numbers { incarnation: 0, phase: 0 }, |numbers| numbers[index]);
        viewer.start(incarnation, 0, PACKET_SIZE);
        viewer.live(phase);
        broadcast.viewers.push(viewer);
    }
    broadcast
}

/// A packet with one payload that fills it.
fn asf() -> Vec<u8> {
    let mut packet = vec![0x82, 0, 0, 0, 0x5D, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 8];
    packet.resize(PACKET_SIZE, 7);
    packet
}

/// Makes batches whose numbers run on.
struct Source {
    generation: Arc<Generation>,
    bytes: Bytes,
    packets: usize,
    next: u64,
}

impl Source {
    fn new(broadcast: &Broadcast, packets: usize) -> Self {
        let generation = Arc::clone(broadcast.generation.as_ref().expect("it has a header"));
        Self { generation, bytes: asf().repeat(packets).into(), packets, next: 0 }
    }

    fn batches(&mut self, count: usize) -> Vec<Arc<Batch>> {
        (0..count).map(|_| self.batch()).collect()
    }

    fn batch(&mut self) -> Arc<Batch> {
        let first = self.next;
        self.next += self.packets as u64;
        let send_time_ms = u32::try_from(first * PACKET_MS).expect("short runs");
        let packet =
            |number| BatchPacket { number, send_time_ms, join_point: first == 0, key: first == 0, used_len: PACKET_SIZE as u32 };
        #[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
        let due = Instant::now();
        let packets = (first..).map(packet).take(self.packets).collect();
        Arc::new(Batch { generation: Arc::clone(&self.generation), first, bytes: self.bytes.clone(), packets, due })
    }
}
