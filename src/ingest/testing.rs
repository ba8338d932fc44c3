//! A relay whose deliveries are collected, and the clocks of tests.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::relay::{Delivery, Relay, ShardPort};
use crate::settings::{PublishingPoint, Settings, Source};
use crate::wire::Guid;

/// A virtual clock's start, for what does not run on tokio's.
#[expect(clippy::disallowed_methods, reason = "one base instant; all others are computed from it")]
pub(super) fn start() -> Instant {
    Instant::now()
}

/// Publishing points with these sources.
pub(super) fn relay(points: &[(&str, Source)]) -> Arc<Relay> {
    collecting(points).0
}

/// And everything that they deliver.
pub(super) fn collecting(points: &[(&str, Source)]) -> (Arc<Relay>, Arc<Collector>) {
    let point = |(name, source): &(&str, Source)| PublishingPoint::new(*name, source.clone());
    with_settings(&Settings { publishing_points: points.iter().map(point).collect(), ..Settings::default() })
}

/// The same with settings of their own.
pub(super) fn with_settings(settings: &Settings) -> (Arc<Relay>, Arc<Collector>) {
    let collector = Arc::<Collector>::default();
    let shards: Vec<Arc<dyn ShardPort>> = vec![Arc::clone(&collector) as Arc<dyn ShardPort>];
    (Relay::new(settings, Box::new(|| Guid([1; 16])), shards), collector)
}

/// Keeps deliveries with the time (on tokio's clock) at which they came.
#[derive(Default)]
pub(super) struct Collector {
    pub(super) deliveries: Mutex<Vec<(tokio::time::Instant, Delivery)>>,
}

impl ShardPort for Collector {
    fn deliver(&self, delivery: Delivery) {
        self.deliveries.lock().unwrap().push((tokio::time::Instant::now(), delivery));
    }
}

impl Collector {
    /// Send time of each packet, with its bytes and when it came.
    pub(super) fn packets(&self) -> Vec<(tokio::time::Instant, u32, Vec<u8>)> {
        let mut packets = Vec::new();
        for (at, delivery) in self.deliveries.lock().unwrap().iter() {
            if let Delivery::Batch { batch, .. } = delivery {
                let bytes = batch.bytes.chunks_exact(batch.generation.packet_size);
                packets.extend(batch.packets.iter().zip(bytes).map(|(packet, bytes)| (*at, packet.send_time_ms, bytes.to_vec())));
            }
        }
        packets
    }

    /// Headers of all generations.
    pub(super) fn generations(&self) -> usize {
        self.deliveries.lock().unwrap().iter().filter(|(_, delivery)| matches!(delivery, Delivery::Generation { .. })).count()
    }

    /// Numbers of all packets.
    pub(super) fn numbers(&self) -> Vec<u64> {
        let deliveries = self.deliveries.lock().unwrap();
        let batches = deliveries.iter().filter_map(|(_, delivery)| match delivery {
            Delivery::Batch { batch, .. } => Some(batch),
            _ => None,
        });
        batches.flat_map(|batch| batch.packets.iter().map(|packet| packet.number)).collect()
    }

    /// How often a stream ended for its viewers.
    pub(super) fn ends(&self) -> usize {
        self.deliveries.lock().unwrap().iter().filter(|(_, delivery)| matches!(delivery, Delivery::Ended { .. })).count()
    }

    /// How often a source was lost.
    pub(super) fn losses(&self) -> usize {
        self.deliveries.lock().unwrap().iter().filter(|(_, delivery)| matches!(delivery, Delivery::SourceLost { .. })).count()
    }
}
