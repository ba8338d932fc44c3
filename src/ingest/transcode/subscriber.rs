//! A publishing point that takes what a shared child brings.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Duration, sleep};
use tracing::{debug, warn};

use super::job::Event;
use super::{Subscription, Transcoders};
use crate::ingest::back_off::BackOff;
use crate::ingest::feed::{Feed, FeedError};
use crate::ingest::lent::Failed;
use crate::ingest::now;
use crate::ingest::stop::Stop;
use crate::ingest::watched::Watched;
use crate::relay::{Loan, Point, PublishRefusal, PublisherId};
use crate::settings::{FfmpegInput, Profile, Start};

/// What a publishing point wants, and when.
pub(super) struct Order {
    pub(super) input: FfmpegInput,
    pub(super) profile: Arc<Profile>,
    pub(super) start: Start,
    pub(super) linger: Duration,
}

/// Why packets cannot be handed on.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Refused(#[from] PublishRefusal),
    #[error(transparent)]
    Feed(#[from] FeedError),
}

pub(super) struct Subscriber {
    transcoders: Arc<Transcoders>,
    point: Arc<Point>,
    /// For how long it is ours, where it is lent.
    loan: Option<Loan>,
    order: Order,
    watched: Watched,
    feed: Option<Feed>,
    /// Hears where the input brings nothing at all.
    failed: Option<Failed>,
}

impl Subscriber {
    pub(super) fn new(transcoders: Arc<Transcoders>, point: Arc<Point>, loan: Option<Loan>, order: Order) -> Self {
        let watched = Watched::new(&point, order.start);
        Self { transcoders, point, loan, order, watched, feed: None, failed: None }
    }

    /// Tells why nothing came, where that is so.
    pub(super) fn telling(self, failed: Failed) -> Self {
        Self { failed: Some(failed), ..self }
    }

    /// Feeds it while it is watched, until the daemon stops, or until a loan has gone back.
    pub(super) async fn run(mut self, mut stop: Stop) {
        let mut back_off = BackOff::new();
        loop {
            let (mut watched, linger) = (self.watched.clone(), self.order.linger);
            tokio::select! {
                () = self.watched.begin() => {}
                // All have left since it was lent.
                () = watched.end(linger), if self.loan.is_some() => {
                    if self.gives_back() {
                        return;
                    }
                    continue;
                }
                () = stop.requested() => return,
            }
            match self.transcoders.subscribe(&self.order, self.point.name(), &self.watched) {
                Ok(subscription) => {
                    back_off = BackOff::new();
                    tokio::select! {
                        () = self.take(&subscription) => {}
                        () = watched.end(linger) => {}
                        () = subscription.job.given_up() => {}
                        () = stop.requested() => return,
                    }
                    if let Some(feed) = self.feed.take() {
                        feed.end();
                    }
                }
                Err(none) => {
                    self.point.source_failed(now(), none.reason());
                    // Who waits for its beginning hears that there is none; who sees what stands in for it goes on doing so.
                    let stands_in = self.point.settings().fallback.is_some() || self.point.generation().is_some();
                    if self.loan.is_some() || !stands_in {
                        self.point.end();
                    }
                    tokio::select! {
                        () = sleep(back_off.after(Duration::ZERO)) => {}
                        () = stop.requested() => return,
                    }
                    continue;
                }
            }
            if self.gives_back() {
                return;
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

    /// Hands on what comes, for as long as it is polled.
    async fn take(&mut self, subscription: &Subscription) {
        let mut back_off = BackOff::new();
        loop {
            let (before, mut events) = subscription.job.join();
            let mut before = before.into_iter();
            let trouble = loop {
                let event = match before.next() {
                    Some(event) => event,
                    None => match events.recv().await {
                        Ok(event) => event,
                        Err(RecvError::Lagged(events)) => {
                            debug!(events, "some of the child's output is lost, for this publishing point was held back");
                            continue;
                        }
                        // The job outlives its subscriptions.
                        Err(RecvError::Closed) => return,
                    },
                };
                if let Err(trouble) = self.hand_on(event).await {
                    break trouble;
                }
            };
            self.feed = None;
            let wait = back_off.after(Duration::ZERO);
            warn!(%trouble, retry_s = wait.as_secs_f32(), "the child's output is not handed on");
            self.point.source_failed(now(), &trouble.to_string());
            sleep(wait).await;
        }
    }

    async fn hand_on(&mut self, event: Event) -> Result<(), Trouble> {
        match (event, &mut self.feed) {
            (Event::Gone, feed) => *feed = None,
            (Event::Failed(reason), _) => {
                self.point.source_failed(now(), &reason);
                // A viewer named it, and may have named what is not: nobody is to wait for it.
                if self.point.generation().is_none() && self.loan.is_some() {
                    if let Some(failed) = &self.failed {
                        failed(&reason);
                    }
                    self.point.end();
                }
            }
            (Event::Header(header), Some(feed)) => feed.header(Arc::unwrap_or_clone(header)).await?,
            (Event::Header(header), None) => {
                let mut feed = Feed::new(self.point.publish(now(), PublisherId::BuiltIn)?);
                // It came no faster than it plays.
                feed.pace(false);
                feed.header(Arc::unwrap_or_clone(header)).await?;
                self.feed = Some(feed);
            }
            (Event::Packets(packets), Some(feed)) => feed.whole_packets(BytesMut::from(packets.as_ref())).await?,
            (Event::Packets(_), None) => {}
        }
        Ok(())
    }
}
