//! Ending all tasks, and knowing that they have.

use std::convert::Infallible;
use std::future::Future;

use tokio::sync::{mpsc, watch};

/// Tells tasks to end and waits for them.
pub(super) struct Stopper {
    stop: watch::Sender<bool>,
    /// Ends when the last [`Stop`] is gone.
    tasks: mpsc::Receiver<Infallible>,
}

/// A task's ear for the end; the task counts as running while it has one.
#[derive(Clone)]
pub(super) struct Stop {
    stop: watch::Receiver<bool>,
    running: mpsc::Sender<Infallible>,
}

/// Makes a [`Stop`] while the daemon runs, without counting as a task.
#[derive(Clone)]
pub(super) struct WeakStop {
    stop: watch::Receiver<bool>,
    running: mpsc::WeakSender<Infallible>,
}

pub(super) fn channel() -> (Stopper, Stop) {
    let (sender, stop) = watch::channel(false);
    let (running, tasks) = mpsc::channel(1);
    (Stopper { stop: sender, tasks }, Stop { stop, running })
}

impl Stopper {
    /// Returns when no task has a [`Stop`] any more.
    pub(super) async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.tasks.recv().await.is_some() {}
    }
}

impl Stop {
    /// Waits until the task is to end.
    pub(super) async fn requested(&mut self) {
        // A stopper that is gone stops as well.
        let _ = self.stop.wait_for(|stop| *stop).await;
    }

    /// Runs a task that may be cut off at any point.
    pub(super) async fn until(mut self, task: impl Future<Output = ()>) {
        tokio::select! {
            () = task => {}
            () = self.requested() => {}
        }
    }

    pub(super) fn downgrade(&self) -> WeakStop {
        WeakStop { stop: self.stop.clone(), running: self.running.downgrade() }
    }
}

impl WeakStop {
    pub(super) fn upgrade(&self) -> Option<Stop> {
        let running = self.running.upgrade().filter(|_| !*self.stop.borrow())?;
        Some(Stop { stop: self.stop.clone(), running })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_for_the_tasks() {
        let (stopper, stop) = channel();
        let weak = stop.downgrade();
        let mut slow = weak.upgrade().unwrap();
        let (done, result) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            slow.requested().await;
            tokio::task::yield_now().await;
            done.send(()).unwrap();
        });
        tokio::spawn(stop.clone().until(std::future::pending()));
        drop(stop);
        stopper.stop().await;
        assert_eq!(result.await, Ok(()));
        assert!(weak.upgrade().is_none());
    }
}
