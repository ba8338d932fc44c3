//! When a source is to run: always, or while somebody watches.

use tokio::sync::watch;
use tokio::time::{Duration, timeout};

use crate::relay::Point;
use crate::settings::Start;

/// Follows the number of a publishing point's watchers.
#[derive(Clone)]
pub(super) struct Watched(watch::Receiver<u32>);

impl Watched {
    pub(super) fn new(point: &Point, start: Start) -> Self {
        let (watchers, watched) = watch::channel(0);
        if start == Start::Watched {
            point.on_watchers_while(Box::new(move |count| {
                watchers.send_replace(count);
                watchers.receiver_count() > 0
            }));
        } else {
            watchers.send_replace(1);
            // Kept by nobody: the count stays 1.
            drop(watchers);
        }
        Self(watched)
    }

    /// Whether somebody watches now, or the source runs always.
    pub(super) fn is_watched(&self) -> bool {
        *self.0.borrow() > 0
    }

    /// Whether both follow the same.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.0.same_channel(&other.0)
    }

    /// Returns once the source is to run.
    pub(super) async fn begin(&mut self) {
        if self.0.wait_for(|count| *count > 0).await.is_err() && *self.0.borrow() == 0 {
            std::future::pending().await
        }
    }

    /// Returns once nobody has watched for all of `linger`.
    pub(super) async fn end(&mut self, linger: Duration) {
        loop {
            if self.0.wait_for(|count| *count == 0).await.is_err() {
                std::future::pending::<()>().await;
            }
            if timeout(linger, self.0.wait_for(|count| *count > 0)).await.is_err() {
                return;
            }
        }
    }
}
