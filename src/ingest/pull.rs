//! Another server's stream, pulled by MMS, RTSP or HTTP.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use metrics::counter;
use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, Instant, sleep};
use tracing::{Instrument as _, error, info, info_span, warn};

use super::back_off::BackOff;
use super::feed::{Feed, FeedError};
use super::laps::Laps;
use super::now;
use super::stop::Stop;
use super::watched::Watched;
use crate::asf::Header;
use crate::client::{self, Order, PlayError, PlayOptions, StreamUrl};
use crate::metrics::{PULL_CONNECTS, point_label};
use crate::playing::{ClientEnd, ClientEvent};
use crate::relay::{Loan, Point, PublishRefusal, PublisherId};
use crate::settings::Start;

/// Bytes that wait for their time, beyond which TCP is left unread.
const ROOM_BYTES: usize = 1 << 20;
/// Bytes that wait for their time, beyond which datagrams are thrown away.
const MOST_BYTES: usize = 16 << 20;
/// Packets go to the relay in batches of so many bytes at most.
const BATCH_BYTES: usize = 64 << 10;
/// The longest time without a packet while it plays. Media over UDP can stop at a firewall while the control connection lives on.
/// A daemon like this one keeps its viewers for 30 s when its source is lost, and for up to 2 s more before it notices: that long it
/// is not for us to come again.
pub(super) const MEDIA_TIME: Duration = Duration::from_secs(40);
/// The longest wait after an upstream has refused what a viewer named: so long others who name it have to wait for the answer.
const REFUSED_TIME: Duration = Duration::from_secs(5);
/// A file that is shorter, by its own times, is not begun again at once.
const SHORTEST_LAP: Duration = Duration::from_millis(250);
/// Connections in a row that bring a whole file in half that time. The two seconds that a file may be ahead, and what it may make up
/// for after a stall, explain so many; more mean that its times are not what they seem.
const MOST_QUICK_LAPS: u32 = 16;

/// What to pull, and when.
#[derive(Clone)]
pub(super) struct Upstream {
    pub(super) url: String,
    pub(super) start: Start,
    pub(super) linger: Duration,
}

/// Why a connection ended.
#[derive(Debug, Clone)]
enum End {
    /// Nobody watches any more.
    Unwatched,
    /// The daemon stops.
    Stopped,
    /// A file was played to its end.
    Over,
    /// The stream ended, or could not be had.
    Failed(String),
    /// The server does not give it to us.
    Refused(String),
}

/// Pulls, again and again, until the daemon stops.
pub(super) async fn run(point: Arc<Point>, upstream: Upstream, stop: Stop) {
    let span = info_span!("pull", point = point.name());
    begin(point, None, upstream, stop).instrument(span).await;
}

/// Pulls for a publishing point that is lent, and gives it back once nobody has watched for the linger.
pub(super) async fn run_lent(loan: Loan, upstream: Upstream, stop: Stop) {
    let span = info_span!("pull", point = loan.point().name(), name = loan.name());
    begin(Arc::clone(loan.point()), Some(loan), upstream, stop).instrument(span).await;
}

async fn begin(point: Arc<Point>, loan: Option<Loan>, upstream: Upstream, stop: Stop) {
    let url: StreamUrl = match upstream.url.parse() {
        Ok(url) => url,
        Err(error) => {
            point.source_failed(now(), &format!("its URL is none: {error}; correct `url` in the settings"));
            return error!(%error, "cannot be pulled; correct `url` in the settings");
        }
    };
    let watched = Watched::new(&point, upstream.start);
    let pull = Pull { point, loan, url, linger: upstream.linger, watched, on_air: None, headed: None };
    pull.run(stop).await;
}

struct Pull {
    point: Arc<Point>,
    /// For how long it is ours, where it is lent.
    loan: Option<Loan>,
    url: StreamUrl,
    linger: Duration,
    watched: Watched,
    /// Outlasts the end of a file, which begins again.
    on_air: Option<OnAir>,
    /// When this connection's header came.
    headed: Option<Instant>,
}

/// What goes to the relay.
struct OnAir {
    feed: Feed,
    /// Of files, which are joined without a seam; `None` while it is live.
    laps: Option<Laps>,
}

/// Whether a file that is over begins again at once.
#[derive(Default)]
struct Encores {
    /// Connections in a row that took too little time.
    quick: u32,
}

impl Encores {
    /// `took`: the connection, from its begin to the end of the file; `lasts`: the file.
    fn may(&mut self, took: Duration, lasts: Duration) -> bool {
        self.quick = if took < SHORTEST_LAP / 2 { self.quick + 1 } else { 0 };
        lasts >= SHORTEST_LAP && self.quick <= MOST_QUICK_LAPS
    }
}

impl Pull {
    async fn run(mut self, mut stop: Stop) {
        let (mut back_off, mut encores) = (BackOff::new(), Encores::default());
        loop {
            let (mut watched, linger) = (self.watched.clone(), self.linger);
            tokio::select! {
                () = self.watched.begin() => {}
                // All have left since the last connection.
                () = watched.end(linger), if self.loan.is_some() => {
                    if self.gives_back() {
                        return;
                    }
                    continue;
                }
                () = stop.requested() => return,
            }
            self.headed = None;
            let begun = Instant::now();
            let end = self.run_once(&mut stop).await;
            self.count(&end);
            let was_refused = matches!(end, End::Refused(_));
            let lap = self.headed.map(|headed| headed.elapsed()).unwrap_or_default();
            let reason = match end {
                End::Over if encores.may(begun.elapsed(), lap.max(self.lasts())) => {
                    info!("played to its end, begins again");
                    back_off = BackOff::new();
                    continue;
                }
                End::Over => "it ended as soon as it had begun".into(),
                End::Stopped => return,
                End::Unwatched => {
                    info!("left, nobody watches");
                    if let Some(OnAir { feed, .. }) = self.on_air.take() {
                        feed.end();
                    }
                    if self.gives_back() {
                        return;
                    }
                    back_off = BackOff::new();
                    continue;
                }
                End::Failed(reason) | End::Refused(reason) => reason,
            };
            self.point.source_failed(now(), &reason);
            // A viewer named it, and may have named what is no more: nobody is to wait for it.
            if was_refused && self.loan.is_some() {
                self.point.end();
            }
            (self.on_air, encores) = (None, Encores::default());
            let longest = if self.loan.is_some() && was_refused { REFUSED_TIME } else { Duration::MAX };
            let wait = back_off.after(lap).min(longest);
            warn!(url = %self.url, reason, retry_s = wait.as_secs_f32(), "ended");
            if self.rests(wait, &mut stop).await {
                return;
            }
        }
    }

    /// Waits before the next attempt; returns whether there is to be none.
    async fn rests(&mut self, wait: Duration, stop: &mut Stop) -> bool {
        let mut watched = self.watched.clone();
        let waited = sleep(wait);
        let mut waited = std::pin::pin!(waited);
        loop {
            tokio::select! {
                () = &mut waited => return false,
                // There is nothing to linger for: the next one who names it is to be told what it is by then.
                () = watched.end(Duration::ZERO), if self.loan.is_some() => {
                    if self.gives_back() {
                        return true;
                    }
                }
                () = stop.requested() => return true,
            }
        }
    }

    /// Whether the publishing point was lent, and has gone back.
    fn gives_back(&mut self) -> bool {
        let Some(loan) = self.loan.take() else { return false };
        // Where somebody has come in the meantime it stays.
        self.loan = loan.give_back().err();
        self.loan.is_none()
    }

    /// How long the file that was played last lasts.
    fn lasts(&self) -> Duration {
        let laps = self.on_air.as_ref().and_then(|on_air| on_air.laps.as_ref());
        Duration::from_millis(laps.map_or(0, Laps::lasts_ms).into())
    }

    fn count(&self, end: &End) {
        let result = match (self.headed, end) {
            (Some(_), _) => "played",
            (None, End::Over | End::Failed(_) | End::Refused(_)) => "failed",
            (None, End::Unwatched | End::Stopped) => return,
        };
        counter!(PULL_CONNECTS, "point" => point_label(self.point.name()), "result" => result).increment(1);
    }

    /// One connection, or several where the server sends us on.
    async fn run_once(&mut self, stop: &mut Stop) -> End {
        let left = OnceLock::new();
        let (mut watched, linger) = (self.watched.clone(), self.linger);
        let leave = async {
            let why = tokio::select! {
                () = watched.end(linger) => End::Unwatched,
                () = stop.requested() => End::Stopped,
            };
            let _ = left.set(why);
        };
        let mut leave = std::pin::pin!(leave);
        let (mut intake, outlet, room) = queue();
        let options = PlayOptions { room: Some(room), media_time: Some(MEDIA_TIME), ..PlayOptions::new(self.url.clone()) };
        info!(url = %self.url, "connects");
        let mut feeding = std::pin::pin!(outlet.feed(self));
        let played = {
            let playing = client::play_observed(options, leave.as_mut(), |event, _| intake.event(event));
            tokio::select! {
                played = playing => played,
                // Ends by itself only where packets are of no use.
                result = &mut feeding => return End::Failed(result.err().map_or_else(String::new, |error| error.to_string())),
            }
        };
        if let Some(why) = left.get() {
            return why.clone();
        }
        let is_over = intake.is_over();
        // What waits still has its time.
        intake.finish();
        let result = tokio::select! {
            result = feeding => result,
            () = leave => return left.get().cloned().unwrap_or(End::Stopped),
        };
        match (result, played) {
            (Err(error), _) => End::Failed(error.to_string()),
            (
                _,
                Err(
                    error @ PlayError::Session {
                        end: ClientEnd::Refused { .. } | ClientEnd::Status { .. } | ClientEnd::NotAsf,
                        ..
                    },
                ),
            ) => End::Refused(error.to_string()),
            (_, Err(error)) => End::Failed(error.to_string()),
            (_, Ok(report)) if is_over && report.packets > 0 => End::Over,
            (_, Ok(report)) => End::Failed(report.ended_by),
        }
    }
}

/// Why what came cannot be published.
#[derive(Debug, thiserror::Error)]
enum PullError {
    #[error(transparent)]
    Refused(#[from] PublishRefusal),
    #[error("what it sends is of no use: {0}")]
    Feed(#[from] FeedError),
}

/// What goes from the connection to the relay, in order.
enum Item {
    Header { header: Header, len: usize, is_live: bool },
    Packet(Bytes),
}

/// The connection's end of the queue.
struct Intake {
    items: mpsc::UnboundedSender<Item>,
    backlog: Arc<Backlog>,
    order: Order,
    is_live: bool,
    has_ended: bool,
    thrown_away: u64,
}

/// The relay's end of it.
struct Outlet {
    items: mpsc::UnboundedReceiver<Item>,
    backlog: Arc<Backlog>,
}

/// Bytes in the queue, and whether there is room for more.
struct Backlog {
    bytes: AtomicUsize,
    room: watch::Sender<bool>,
}

fn queue() -> (Intake, Outlet, watch::Receiver<bool>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let (room, has_room) = watch::channel(true);
    let backlog = Arc::new(Backlog { bytes: AtomicUsize::new(0), room });
    let intake = Intake {
        items: sender,
        backlog: Arc::clone(&backlog),
        order: Order::default(),
        is_live: true,
        has_ended: false,
        thrown_away: 0,
    };
    (intake, Outlet { items: receiver, backlog }, has_room)
}

impl Backlog {
    fn tell(&self, bytes: usize) {
        let has_room = bytes < ROOM_BYTES;
        self.room.send_if_modified(|room| std::mem::replace(room, has_room) != has_room);
    }

    fn add(&self, bytes: usize) {
        self.tell(self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes);
    }

    fn remove(&self, bytes: usize) {
        self.tell(self.bytes.fetch_sub(bytes, Ordering::Relaxed).saturating_sub(bytes));
    }

    fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= MOST_BYTES
    }
}

impl Intake {
    fn event(&mut self, event: &ClientEvent) {
        match event {
            ClientEvent::FunnelRefused(hr) => info!(reason = %hr, "UDP refused"),
            ClientEvent::UdpRefused { reason } => info!(reason, "no UDP"),
            ClientEvent::Opened { live, .. } => self.is_live = *live,
            ClientEvent::Header(header) => {
                self.order = Order::default();
                self.header(header);
            }
            ClientEvent::NewHeader(header) => {
                self.release(|order, out| order.flush(out));
                self.header(header);
            }
            ClientEvent::Starting => self.release(|order, out| order.flush(out)),
            ClientEvent::Playing { path } => info!(transport = path.label(), live = self.is_live, "plays"),
            ClientEvent::Packet { sequence, bytes, settled, .. } => {
                self.release(|order, out| order.packet(*sequence, bytes.clone(), *settled, out));
            }
            ClientEvent::GivenUp { settled } => self.release(|order, out| order.settle(*settled, out)),
            ClientEvent::End { hr } => self.has_ended = !hr.is_failure(),
            ClientEvent::Counted { .. } => {}
        }
    }

    fn header(&self, header: &Bytes) {
        let len = header.len();
        // The engine hands on no header that does not parse.
        if let Ok(header) = Header::parse(header) {
            // Nobody takes it only where the run is over anyway.
            self.backlog.add(len);
            let _ = self.items.send(Item::Header { header, len, is_live: self.is_live });
        }
    }

    /// Lets the order of packets go on, and sends on what comes out of it.
    fn release(&mut self, change: impl FnOnce(&mut Order, &mut dyn FnMut(Bytes))) {
        let Self { items, backlog, order, thrown_away, .. } = self;
        change(order, &mut |packet| {
            if backlog.is_full() {
                *thrown_away += 1;
                return;
            }
            backlog.add(packet.len());
            let _ = items.send(Item::Packet(packet));
        });
    }

    /// Whether a file came to its end, as opposed to a broadcast.
    const fn is_over(&self) -> bool {
        self.has_ended && !self.is_live
    }

    /// No more comes.
    fn finish(mut self) {
        self.release(|order, out| order.flush(out));
        if self.thrown_away > 0 {
            warn!(packets = self.thrown_away, "thrown away: they came much faster than they play");
        }
    }
}

impl Outlet {
    /// Gives everything to the relay, until the intake is gone.
    async fn feed(mut self, pull: &mut Pull) -> Result<(), PullError> {
        let (mut packet_size, mut next) = (0, None);
        loop {
            let item = match next.take() {
                Some(item) => item,
                None => match self.items.recv().await {
                    Some(item) => item,
                    None => return Ok(()),
                },
            };
            match item {
                Item::Header { header, len, is_live } => {
                    if packet_size > 0 {
                        info!("the stream changes");
                    }
                    pull.headed.get_or_insert_with(Instant::now);
                    packet_size = header.packet_size();
                    let on_air = match pull.on_air.take() {
                        Some(on_air) => on_air,
                        None => OnAir { feed: Feed::new(pull.point.publish(now(), PublisherId::BuiltIn)?), laps: None },
                    };
                    pull.on_air.insert(on_air).header(header, is_live).await?;
                    self.backlog.remove(len);
                }
                Item::Packet(packet) => {
                    let (mut bytes, mut taken) = (BytesMut::new(), 0);
                    let mut one_more = Some(packet);
                    while let Some(packet) = one_more.take() {
                        taken += packet.len();
                        // Another size: its padding could not be restored.
                        if packet.len() == packet_size {
                            bytes.extend_from_slice(&packet);
                        }
                        if taken < BATCH_BYTES {
                            match self.items.try_recv() {
                                Ok(Item::Packet(packet)) => one_more = Some(packet),
                                Ok(header) => next = Some(header),
                                Err(_) => {}
                            }
                        }
                    }
                    if let Some(on_air) = &mut pull.on_air {
                        on_air.packets(bytes, packet_size).await?;
                    }
                    self.backlog.remove(taken);
                }
            }
        }
    }
}

impl OnAir {
    /// A header came: of a connection, or of a change in it.
    async fn header(&mut self, header: Header, is_live: bool) -> Result<(), FeedError> {
        // A live stream cannot run ahead of time, and what it begins with is there for viewers to begin with, too.
        self.feed.pace(!is_live);
        if is_live {
            self.laps = None;
            return self.feed.header(header).await;
        }
        let joined = self.laps.is_some() && self.feed.is_continued_by(&header);
        self.laps.get_or_insert_default().begin(&header, joined);
        if joined { Ok(()) } else { self.feed.header(header).await }
    }

    async fn packets(&mut self, mut packets: BytesMut, packet_size: usize) -> Result<(), FeedError> {
        if let Some(laps) = &mut self.laps {
            for packet in packets.chunks_exact_mut(packet_size) {
                // The publisher counts the invalid ones and leaves them out.
                let _ = laps.place(packet);
            }
        }
        self.feed.whole_packets(packets).await
    }
}

#[cfg(test)]
pub(super) mod tests;
