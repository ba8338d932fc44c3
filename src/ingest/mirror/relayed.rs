//! One viewer's connection to the upstream of a file.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Duration, Instant};
use tracing::info;

use super::{failed, why};
use crate::asf::{Header, StreamSet, blank_url_commands};
use crate::client::{PlayOptions, Steering, StreamUrl, play_observed};
use crate::ingest::pull::MEDIA_TIME;
use crate::mms::session::Transport;
use crate::playing::{ClientEvent, Course, StartAt};
use crate::shard::{Found, Inflow, Item, RelayedFile, Wish};

/// A connection that held for so long was good: when it is lost it may be made anew.
const GOOD: Duration = Duration::from_secs(10);

/// Opens a file for a viewer and brings what it wants of it, until it is gone. A connection that is lost is made anew, unless the one
/// before it was lost too and it has not held for long; then the play is lost.
// Always over TCP: files wait for their viewers, which datagrams do not.
pub(super) async fn run(url: StreamUrl, wish: Wish) {
    let (course, mut wanted) = watch::channel(Course::default());
    let folder = Arc::clone(&wish.folder);
    let Wish { wake, answer, .. } = wish;
    let inflow = Arc::new(Inflow::new(wake));
    let url_commands = folder.settings().url_commands;
    let mut intake = Intake {
        inflow: Arc::clone(&inflow),
        applied: Arc::default(),
        play: 0,
        next: None,
        skips: false,
        header: None,
        packet_size: 0,
        url_commands,
        commands: StreamSet::EMPTY,
        facts: (0, 0),
        opens: Some(Box::new(move |header, (duration_ms, packets)| {
            (answer)(match header {
                Ok(header) => Found::File(RelayedFile { folder, header, duration_ms, packets, inflow, course }),
                Err(refused) => Found::Refused(refused),
            });
        })),
        changed: watch::Sender::new(false),
        ended: false,
    };
    let mut failures = 0;
    info!("opens a file of the upstream");
    loop {
        let at = intake.next.map(|next| (intake.play, StartAt::Packet(next)));
        (intake.skips, intake.ended) = (at.is_some(), false);
        let steering = Steering { course: wanted.clone(), applied: Arc::clone(&intake.applied), resumed: at };
        let options = PlayOptions {
            transport: Some(Transport::Tcp),
            room: Some(intake.inflow.room()),
            media_time: Some(MEDIA_TIME),
            steering: Some(steering),
            ..PlayOptions::new(url.clone())
        };
        let (mut gone, mut changed) = (wanted.clone(), intake.changed.subscribe());
        let leave = async move {
            tokio::select! {
                () = async { while gone.changed().await.is_ok() {} } => {}
                _ = changed.wait_for(|changed| *changed) => {}
            }
        };
        let begun = Instant::now();
        let played = play_observed(options, leave, |event, _| intake.event(event)).await;
        if let Some(opens) = intake.opens.take() {
            let refused = match played {
                _ if *intake.changed.borrow() => failed(&"it has become live; who asks again is given it"),
                Ok(report) => failed(&report.ended_by),
                Err(error) => why(&error),
            };
            return opens(Err(refused), (0, 0));
        }
        if wanted.has_changed().is_err() {
            return;
        }
        let now = *wanted.borrow();
        let mut done = intake.play;
        if *intake.changed.borrow() {
            return intake.inflow.push(now.play, Item::Lost("the file changed there".into()));
        }
        if !intake.ended && now.play == done && intake.is_whole() {
            // Nothing was lost but the word that this is all.
            intake.end();
        }
        if !intake.ended && now.from.is_some() {
            let reason = played.map_or_else(|error| error.to_string(), |report| report.ended_by);
            info!(reason, "a connection to the upstream was lost");
            failures = if begun.elapsed() >= GOOD { 1 } else { failures + 1 };
            if failures == 1 {
                continue;
            }
            done = now.play;
            intake.inflow.push(done, Item::Lost(reason));
        }
        // It rests, or is over: the next start makes a new connection.
        (intake.next, failures) = (None, 0);
        if wanted.wait_for(|course| course.from.is_some() && course.play != done).await.is_err() {
            return;
        }
    }
}

type Opens = Box<dyn FnOnce(Result<Bytes, crate::shard::Refused>, (u64, u64)) + Send>;

/// What takes the connections' events.
struct Intake {
    inflow: Arc<Inflow>,
    /// The play that the present connection was asked for last.
    applied: Arc<AtomicU32>,
    /// The play that the next packet is of.
    play: u32,
    /// The number of the packet behind the last one of this play.
    next: Option<u32>,
    /// Packets before that one came over an earlier connection.
    skips: bool,
    header: Option<Bytes>,
    packet_size: usize,
    /// Whether the file's commands may open anything, and the streams of those that may not.
    url_commands: bool,
    commands: StreamSet,
    /// Duration in milliseconds, packets.
    facts: (u64, u64),
    /// Takes the first header, or why there is none.
    opens: Option<Opens>,
    /// The header is another one than at first.
    changed: watch::Sender<bool>,
    ended: bool,
}

impl Drop for Intake {
    fn drop(&mut self) {
        // The daemon stops, or this has failed: nobody is to wait for an answer.
        if let Some(opens) = self.opens.take() {
            opens(Err(failed(&"it was given up")), (0, 0));
        }
    }
}

/// Header Object and what is behind it, without commands that open anything; nothing moves.
fn harmless(parsed: &Header, header: &Bytes) -> Bytes {
    let object = parsed.without_url_commands();
    if object == parsed.bytes() {
        return header.clone();
    }
    [&object, header.get(object.len()..).unwrap_or_default()].concat().into()
}

impl Intake {
    /// A packet without commands that may not open anything; one that cannot be read is the shard's business.
    fn allowed(&self, packet: &Bytes) -> Bytes {
        if self.commands == StreamSet::EMPTY {
            return packet.clone();
        }
        let mut allowed = packet.to_vec();
        let _ = blank_url_commands(&mut allowed, self.commands);
        allowed.into()
    }

    /// The play has come to its end.
    fn end(&mut self) {
        self.ended = true;
        self.inflow.push(self.play, Item::End);
    }

    /// Whether the last packet of the file has come.
    fn is_whole(&self) -> bool {
        self.facts.1 > 0 && self.next.is_some_and(|next| u64::from(next) >= self.facts.1)
    }

    fn event(&mut self, event: &ClientEvent) {
        match event {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, and it is not negative")]
            ClientEvent::Opened { live, duration_s, packet_count, .. } => {
                self.facts = ((duration_s * 1000.0).round() as u64, *packet_count);
                if *live {
                    // It was a file a moment ago; who asks anew is told so.
                    self.changed.send_replace(true);
                }
            }
            ClientEvent::Header(header) => {
                // The engine hands on no header that does not parse.
                let parsed = Header::parse(header).ok();
                self.packet_size = parsed.as_ref().map_or(0, Header::packet_size);
                if self.header.get_or_insert_with(|| header.clone()) != header {
                    self.changed.send_replace(true);
                }
                if let Some(opens) = self.opens.take() {
                    let strange = parsed.filter(|_| !self.url_commands);
                    self.commands = strange.as_ref().map_or(StreamSet::EMPTY, Header::command_streams);
                    opens(Ok(strange.map_or_else(|| header.clone(), |parsed| harmless(&parsed, header))), self.facts);
                }
            }
            ClientEvent::NewHeader(_) => {
                self.changed.send_replace(true);
            }
            ClientEvent::Starting => {
                let play = self.applied.load(Ordering::Relaxed);
                if play != self.play {
                    (self.play, self.next, self.skips) = (play, None, false);
                }
            }
            ClientEvent::Packet { location, bytes, .. } => {
                if self.skips && self.next.is_some_and(|next| *location < next) {
                    return;
                }
                (self.skips, self.next) = (false, Some(location.wrapping_add(1)));
                // Broken; its viewers are told of packets of one size.
                if bytes.len() != self.packet_size {
                    return;
                }
                self.inflow.push(self.play, Item::Packet { location: *location, bytes: self.allowed(bytes) });
            }
            ClientEvent::End { .. } => self.end(),
            ClientEvent::FunnelRefused(_)
            | ClientEvent::UdpRefused { .. }
            | ClientEvent::Playing { .. }
            | ClientEvent::GivenUp { .. }
            | ClientEvent::Counted { .. } => {}
        }
    }
}
