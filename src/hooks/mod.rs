//! What happens to publishing points, told to programs and to a web server.
//!
//! Listeners of the relay put events into queues and never wait; tasks take them out. What comes too fast or takes too long is
//! bounded, and whatever becomes of an event, the relay does not notice.

mod command;
mod post;
mod queue;
mod sign;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use metrics::counter;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::metrics::HOOKS;
use crate::relay::{Point, Relay};
use crate::settings::{Commands, Hooks as HookSettings, Source, Webhook};
use post::Poster;
pub use post::WebhookError;
use queue::Queue;

/// Programs, and requests, at once.
const AT_ONCE: usize = 8;
/// Events that wait, for programs and for the web server each.
const WAITING_MAX: usize = 256;
/// How long the last events have at the end.
const LAST_EVENTS: Duration = Duration::from_secs(3);

/// Tells the time of day, seconds of Unix time.
pub type UnixClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ready,
    Gone,
    FirstViewer,
    LastViewer,
}

impl Kind {
    /// As programs and the web server hear it.
    const fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Gone => "gone",
            Self::FirstViewer => "first_viewer",
            Self::LastViewer => "last_viewer",
        }
    }

    fn of(self, commands: &Commands) -> &[String] {
        match self {
            Self::Ready => &commands.on_ready,
            Self::Gone => &commands.on_gone,
            Self::FirstViewer => &commands.on_first_viewer,
            Self::LastViewer => &commands.on_last_viewer,
        }
    }
}

/// Something happened to a publishing point.
#[derive(Debug, Clone)]
struct Event {
    /// Counted from the daemon's start.
    number: u64,
    kind: Kind,
    /// The name that viewers know, of a template the whole.
    point: Arc<str>,
    /// The publishing point of the settings, by its name there.
    of: Arc<str>,
    /// The type of its source.
    source: &'static str,
    viewers: u32,
    unix_s: u64,
    argv: Vec<String>,
}

/// Hears what happens, and tells it.
pub struct Hooks {
    desk: Arc<Desk>,
    tasks: Vec<JoinHandle<()>>,
}

/// Where listeners leave events.
struct Desk {
    commands: Queue,
    posts: Option<Queue>,
    clock: UnixClock,
    numbers: AtomicU64,
}

impl Hooks {
    /// Follows all publishing points of the relay, those to come too. `run_id` tells events of this run of the daemon from those of
    /// others, which begin to count anew.
    ///
    /// # Errors
    /// The certificates of authorities for the web server cannot be read.
    pub fn start(
        runtime: &Handle,
        settings: &HookSettings,
        relay: &Relay,
        clock: UnixClock,
        run_id: u64,
    ) -> Result<Self, WebhookError> {
        let queue = || Queue::new(WAITING_MAX, AT_ONCE);
        let poster = settings.webhook.as_ref().map(|webhook| Poster::new(webhook, settings.timeout, Arc::clone(&clock), run_id));
        let poster = poster.transpose()?.map(Arc::new);
        let posts = poster.is_some().then(queue);
        let desk = Arc::new(Desk { commands: queue(), posts, clock, numbers: AtomicU64::new(0) });
        let mut tasks = Vec::new();
        let limit = settings.timeout;
        let of_commands = Arc::clone(&desk);
        tasks.push(runtime.spawn(async move {
            of_commands.commands.serve(move |event| async move { command::run(event, limit).await }).await;
        }));
        if let Some(poster) = poster {
            let of_posts = Arc::clone(&desk);
            tasks.push(runtime.spawn(async move {
                if let Some(posts) = &of_posts.posts {
                    posts
                        .serve(move |event| {
                            let poster = Arc::clone(&poster);
                            async move { poster.deliver(&event).await }
                        })
                        .await;
                }
            }));
        }
        let listening = Arc::clone(&desk);
        relay.on_point(Box::new(move |point, name| listening.follow(point, name)));
        Ok(Self { desk, tasks })
    }

    /// Lets the last events out, for three seconds at most. Programs that still run then are ended.
    pub async fn stop(self) {
        let all = async {
            self.desk.commands.idle().await;
            if let Some(posts) = &self.desk.posts {
                posts.idle().await;
            }
        };
        if timeout(LAST_EVENTS, all).await.is_err() {
            tracing::warn!("some hooks did not end in time");
        }
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
    }
}

impl Desk {
    fn follow(self: &Arc<Self>, point: &Arc<Point>, name: &str) {
        // The publishing point itself is not kept: it is to go when all others have let go of it.
        let told = Arc::new(Told {
            desk: Arc::clone(self),
            point: name.into(),
            of: Arc::downgrade(point),
            viewers: Mutex::new(0),
            is_up: AtomicBool::new(false),
        });
        let of_source = Arc::clone(&told);
        point.on_watchers(Box::new(move |count| told.watchers(count)));
        point.on_source(Box::new(move |is_up| of_source.source(is_up)));
    }

    fn tell(&self, event: Event) {
        if !event.argv.is_empty() {
            push(&self.commands, "command", event.clone());
        }
        if let Some(posts) = &self.posts {
            push(posts, "webhook", event);
        }
    }
}

fn push(queue: &Queue, kind: &'static str, event: Event) {
    if let Some(dropped) = queue.push(event) {
        counter!(HOOKS, "kind" => kind, "result" => "dropped").increment(1);
        tracing::warn!(point = %dropped.point, event = dropped.kind.word(), kind, "too many events wait: the oldest is dropped");
    }
}

/// What was told of one publishing point last.
struct Told {
    desk: Arc<Desk>,
    point: Arc<str>,
    of: Weak<Point>,
    viewers: Mutex<u32>,
    is_up: AtomicBool,
}

impl Told {
    fn watchers(&self, count: u32) {
        let before = std::mem::replace(&mut *self.viewers.lock().unwrap_or_else(PoisonError::into_inner), count);
        match (before, count) {
            (0, 1..) => self.tell(Kind::FirstViewer, count),
            (1.., 0) => self.tell(Kind::LastViewer, count),
            _ => {}
        }
    }

    fn source(&self, is_up: bool) {
        if self.is_up.swap(is_up, Ordering::Relaxed) != is_up {
            let viewers = *self.viewers.lock().unwrap_or_else(PoisonError::into_inner);
            self.tell(if is_up { Kind::Ready } else { Kind::Gone }, viewers);
        }
    }

    fn tell(&self, kind: Kind, viewers: u32) {
        let Some(settings) = self.of.upgrade().map(|point| point.settings()) else { return };
        let argv = kind.of(&settings.commands).to_vec();
        if argv.is_empty() && self.desk.posts.is_none() {
            return;
        }
        self.desk.tell(Event {
            number: self.desk.numbers.fetch_add(1, Ordering::Relaxed),
            kind,
            point: Arc::clone(&self.point),
            of: settings.name.as_str().into(),
            source: word_of(&settings.source),
            viewers,
            unix_s: (self.desk.clock)(),
            argv,
        });
    }
}

/// Whether a web server can be posted to at all: its URL makes sense, and the certificates of authorities can be read.
///
/// # Errors
/// What is wrong with the settings.
pub fn check(webhook: &Webhook) -> Result<(), WebhookError> {
    Poster::new(webhook, Duration::ZERO, Arc::new(|| 0), 0).map(drop)
}

/// The type of a source, as the settings write it.
const fn word_of(source: &Source) -> &'static str {
    match source {
        Source::Push => "push",
        Source::File { .. } => "file",
        Source::Exec { .. } => "exec",
        Source::Demo => "demo",
        Source::Files { .. } => "files",
        Source::Pull { .. } => "pull",
        Source::Stations { .. } => "stations",
        Source::Ffmpeg { .. } => "ffmpeg",
        Source::Camera { .. } => "camera",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asf::samples;
    use crate::relay::PublisherId;
    use crate::settings::{PublishingPoint, Settings, Start};
    use crate::wire::Guid;

    pub(super) fn event(number: u64, point: &str) -> Event {
        Event {
            number,
            kind: Kind::Ready,
            point: point.into(),
            of: "cam-*".into(),
            source: "exec",
            viewers: 3,
            unix_s: 1_600_000_000,
            argv: Vec::new(),
        }
    }

    fn desk(waiting_max: usize) -> Arc<Desk> {
        let queue = || Queue::new(waiting_max, 1);
        Arc::new(Desk { commands: queue(), posts: Some(queue()), clock: Arc::new(|| 7), numbers: AtomicU64::new(0) })
    }

    /// What waits, in order.
    async fn told(queue: &Queue) -> Vec<String> {
        let told = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&told);
        let serve = queue.serve(move |event| {
            noted.lock().unwrap().push(format!(
                "{} {} {} {}",
                event.point,
                event.kind.word(),
                event.viewers,
                event.argv.join(" ")
            ));
            std::future::ready(())
        });
        tokio::select! {
            () = serve => {}
            () = queue.idle() => {}
        }
        let told = told.lock().unwrap();
        told.clone()
    }

    #[tokio::test]
    async fn each_event_is_told_once() {
        let exec = Source::Exec { argv: vec!["x".into()], start: Start::Watched, linger: Duration::ZERO };
        let own = Commands { on_ready: vec!["up".into()], on_last_viewer: vec!["left".into()], ..Commands::default() };
        let points = vec![
            PublishingPoint { commands: own, ..PublishingPoint::new("cam-*", exec) },
            PublishingPoint::new("demo", Source::Demo),
        ];
        let settings = Settings { publishing_points: points, ..Settings::default() };
        let relay = Relay::new(&settings, Box::new(Guid::default), Vec::new());
        let desk = desk(WAITING_MAX);
        let listening = Arc::clone(&desk);
        relay.on_point(Box::new(move |point, name| listening.follow(point, name)));
        let (header, packets) = samples::stream("live-asf-pipe.asf");
        let now = tokio::time::Instant::now().into_std();
        for _ in 0..2 {
            let (template, name) = relay.resolve("CAM-1").unwrap();
            let (one, loan) = relay.lend(template.id(), &name, None).unwrap();
            let (two, _) = relay.lend(template.id(), &name, None).unwrap();
            let mut publisher = one.point().publish(now, PublisherId::BuiltIn).unwrap();
            publisher.header(now, 0, &header).unwrap();
            for packet in &packets[..2] {
                publisher.packets(now, packet.as_slice().into()).unwrap();
            }
            drop((one, two, publisher));
            assert!(loan.unwrap().give_back().is_ok());
        }
        drop(relay.point("demo").unwrap().watch());
        let of_a_loan = ["cam-1 first_viewer 1 ", "cam-1 ready 2 up", "cam-1 last_viewer 0 left", "cam-1 gone 0 "];
        let all = [&of_a_loan[..], &of_a_loan, &["demo first_viewer 1 ", "demo last_viewer 0 "]].concat();
        assert_eq!(told(desk.posts.as_ref().unwrap()).await, all);
        let with_programs: Vec<_> = all.iter().filter(|event| !event.ends_with(' ')).collect();
        assert_eq!(told(&desk.commands).await.iter().collect::<Vec<_>>(), with_programs);
    }

    #[tokio::test]
    async fn too_many_events_hold_nobody_up() {
        let relay = Relay::new(&Settings::default(), Box::new(Guid::default), Vec::new());
        let desk = desk(4);
        let listening = Arc::clone(&desk);
        relay.on_point(Box::new(move |point, name| listening.follow(point, name)));
        for _ in 0..1000 {
            drop(relay.point("demo").unwrap().watch());
        }
        assert_eq!(told(desk.posts.as_ref().unwrap()).await.len(), 4);
    }
}
