//! What systemd is told (Type=notify) and asks for (watchdog). Without systemd all of it does nothing.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

/// All is bound. `status` is the line that `systemctl status` shows.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
}

/// A new status line.
pub fn status(status: &str) {
    notify(&[NotifyState::Status(&one_line(status))]);
}

/// The settings are read again; [`ready`] says when that is over.
pub fn reloading() {
    // systemd before 253 does not ask for the time.
    let since = NotifyState::monotonic_usec_now().ok();
    let states: Vec<_> = [NotifyState::Reloading].into_iter().chain(since).collect();
    notify(&states);
}

/// The end may take so much longer, however long the unit lets it take (TimeoutStopSec). To be said again before that is over.
pub fn needs(time: Duration) {
    notify(&[NotifyState::ExtendTimeoutUsec(u32::try_from(time.as_micros()).unwrap_or(u32::MAX))]);
}

/// The end has begun: systemd waits for it and restarts nothing.
pub fn stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("Stopping: viewers get end of stream")]);
}

/// A sign of life for the watchdog.
pub fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// How often [`alive`] has to be called: half the time after which systemd ends a silent service. `None`: it does not watch.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2).filter(|interval| !interval.is_zero())
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "systemd could not be notified");
    }
}

/// A line break would begin another variable of the message.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_cannot_smuggle_in_a_variable() {
        assert_eq!(one_line("a\nMAINPID=1"), "a MAINPID=1");
    }
}
