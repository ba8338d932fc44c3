//! Batches and times for the tests of this layer.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::batch::{Batch, BatchPacket, Generation};
use super::delivery::{Delivery, ShardPort};
use crate::asf::StreamSet;

/// Size of the packets of [`generation`].
pub(super) const PACKET_SIZE: usize = 100;

/// The start of a virtual clock.
#[expect(clippy::disallowed_methods, reason = "one base for the virtual clock of a test")]
pub(super) fn base() -> Instant {
    Instant::now()
}

/// A generation with one video stream.
pub(super) fn generation(number: u32) -> Arc<Generation> {
    let video: StreamSet = [1].into_iter().collect();
    let (header, packet_size) = (Bytes::from_static(b"header"), PACKET_SIZE);
    Arc::new(Generation {
        number,
        header,
        packet_size,
        preroll_ms: 3000,
        bit_rate: 100_000,
        streams: video,
        video,
        ssrc: 7,
        sequence: 9,
    })
}

/// A batch of packets given as (send time, join point); each packet is filled with the low byte of its number.
pub(super) fn batch(generation: &Arc<Generation>, first: u64, due: Instant, packets: &[(u32, bool)]) -> Arc<Batch> {
    let fill = |number: u64| vec![number.to_le_bytes()[0]; PACKET_SIZE];
    let bytes = (first..).take(packets.len()).flat_map(fill).collect::<Vec<_>>().into();
    let mut numbers = first..;
    let packet = |&(send_time_ms, join_point): &(u32, bool)| BatchPacket {
        number: numbers.next().unwrap(),
        send_time_ms,
        join_point,
        key: join_point,
        used_len: 90,
    };
    let packets = packets.iter().map(packet).collect();
    Arc::new(Batch { generation: Arc::clone(generation), first, bytes, packets, due })
}

/// `base` and so many milliseconds.
pub(super) fn at(base: Instant, ms: u64) -> Instant {
    base + Duration::from_millis(ms)
}

/// Keeps what it is told until it is taken.
#[derive(Default)]
pub(super) struct Shard(Mutex<Vec<Delivery>>);

impl Shard {
    /// What it was told since it was asked last.
    pub(super) fn told(&self) -> Vec<Delivery> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl ShardPort for Shard {
    fn deliver(&self, delivery: Delivery) {
        self.0.lock().unwrap().push(delivery);
    }
}
