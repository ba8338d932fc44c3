//! What feeds publishing points: publishers that push, files, child processes, other servers, cameras, the built-in picture.
//!
//! Every source becomes bytes of ASF; [`crate::asf::Reader`] makes packets of them and [`crate::relay::Publisher`] takes these on.
//! Other servers send packets already; [`crate::client`] holds the conversation with them.
//! Each source is one task on the runtime that [`Ingest::start`] is given; a source that fails waits and tries again.

mod back_off;
mod byte_rate;
mod camera;
mod child;
mod demo;
mod encoders;
mod exec;
mod fallback;
mod feed;
mod feeders;
mod file;
mod gate;
mod laps;
mod last_words;
mod lead;
mod lent;
mod live_frames;
mod mirror;
mod playlist;
mod pull;
mod push;
mod rejected;
mod rtsp_push;
mod stations;
mod stderr;
pub mod still;
mod stop;
#[cfg(test)]
mod testing;
mod transcode;
mod watched;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use metrics::counter;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tracing::warn;

use crate::metrics::REFUSALS;
use crate::relay::admission::Slots;
use crate::relay::admission::canonical;
use crate::relay::{PointChanges, Relay};
use crate::settings::{Difference, Problem, Settings, SettingsError, Source};
use crate::shard::{Finder, HandOff, Handed, Speaks};
use crate::text::{Users, UsersError};
use crate::wire::UNIX_EPOCH_AS_FILE_TIME;

use encoders::Encoders;
use feeders::Feeders;
use gate::Gate;
use rtsp_push::Ways;
pub use stations::{check_stations, load_stations};
use stop::{Stop, Stopper};
use transcode::Transcoders;

/// Connections of publishers at once.
const CONNECTIONS: usize = 512;
/// Of them, from one address (IPv6: one /64).
const CONNECTIONS_PER_ADDRESS: usize = 64;
/// Connections at once of peers that may not publish: they are told so, and cannot lock encoders out.
const REJECTS: usize = 64;
/// Of them, from one address.
const REJECTS_PER_ADDRESS: usize = 8;
/// Where publishers by HTTP are sent to while the system chooses the port.
const HTTP_PORT: u16 = 8080;
/// How long [`Ingest::stop`] waits: a child process has 3 s to end by itself.
const STOP_TIME: Duration = Duration::from_secs(5);

/// Reads the file of the users that may publish.
///
/// # Errors
/// The file cannot be read, or a line of it is wrong: a problem of the settings, since they name it.
pub fn read_users(path: &Path) -> Result<Users, SettingsError> {
    read_users_of("users.file", path)
}

/// Reads the file of the users that may watch.
///
/// # Errors
/// As [`read_users`].
pub fn read_viewers(path: &Path) -> Result<Users, SettingsError> {
    read_users_of("users.viewers_file", path)
}

fn read_users_of(key: &str, path: &Path) -> Result<Users, SettingsError> {
    let file = path.display();
    let problem = |place: String, key: &str, message: String| {
        let key = key.to_owned();
        SettingsError { problems: vec![Problem { place, key, message }] }
    };
    let text = std::fs::read_to_string(path).map_err(|error| {
        problem(String::new(), key, format!("{file} cannot be read: {error}; `wmrelay passwd {file} USER` writes one"))
    })?;
    Users::parse(&text, &file.to_string()).map_err(|error| match error {
        UsersError::Line { file, line, reason } => problem(format!("{file}:{line}"), "", reason),
        error @ UsersError::Name { .. } => problem(file.to_string(), "", error.to_string()),
    })
}

/// All sources of the daemon.
pub struct Ingest {
    runtime: Handle,
    gate: Arc<Gate>,
    encoders: Arc<Encoders>,
    ways: Ways,
    slots: Arc<Slots>,
    reject_slots: Arc<Slots>,
    transcoders: Arc<Transcoders>,
    mirror: Arc<mirror::Mirror>,
    feeders: Arc<Feeders>,
    stop: Stop,
    stopper: Stopper,
}

impl Ingest {
    /// Starts the sources of all publishing points on a runtime (with time and IO), which may be a current-thread one.
    ///
    /// # Errors
    /// The system has no random numbers for nonces; a list of stations is there and is not sound.
    pub fn start(runtime: &Handle, settings: &Settings, relay: &Arc<Relay>, users: Option<Users>) -> anyhow::Result<Self> {
        let (stopper, stop) = stop::channel();
        let mut key = [0; 32];
        getrandom::fill(&mut key).context("no random numbers for the nonces of publishers' logins")?;
        let gate = Gate::new(now(), settings.access.clone(), Arc::clone(relay), users, key);
        let transcoders = Transcoders::new(runtime.clone(), Arc::clone(relay), settings, stop.downgrade());
        let feeders = Feeders::new(runtime.clone(), Arc::clone(relay), Arc::clone(&transcoders), stop.downgrade());
        for point in relay.points() {
            feeders.start(&point)?;
        }
        let mirror = mirror::Mirror::new(runtime.clone(), Arc::clone(relay), Arc::clone(&transcoders), stop.downgrade());
        let slots = Slots::new(CONNECTIONS, CONNECTIONS_PER_ADDRESS);
        let reject_slots = Slots::new(REJECTS, REJECTS_PER_ADDRESS);
        let gate = Arc::new(gate);
        let encoders = Encoders::new(Arc::clone(&gate));
        let runtime = runtime.clone();
        let port = |address: &SocketAddr| if address.port() == 0 { HTTP_PORT } else { address.port() };
        let ways = Ways { udp: settings.udp.enabled, http_port: settings.http.addresses.first().map(port) };
        Ok(Self { runtime, gate, encoders, ways, slots, reject_slots, transcoders, mirror, feeders, stop, stopper })
    }

    /// Other settings are in force, and the relay has made of them what it told: sources come, go and begin anew, other users may
    /// publish. Sources that stay as they are do not notice.
    pub fn apply(&self, settings: &Settings, users: Option<Users>, difference: &Difference, changes: &PointChanges) {
        self.gate.apply(now(), &settings.access, users);
        self.transcoders.apply(settings);
        self.mirror.forget();
        self.feeders.apply(difference, changes);
    }

    /// Takes the connections of publishers from the shards, on any thread.
    pub fn push_handoff(&self) -> HandOff {
        let (runtime, gate, stop) = (self.runtime.clone(), Arc::clone(&self.gate), self.stop.downgrade());
        let (encoders, ways) = (Arc::clone(&self.encoders), self.ways);
        let (slots, reject_slots) = (Arc::clone(&self.slots), Arc::clone(&self.reject_slots));
        Arc::new(move |handed: Handed| {
            // Nothing comes in while the daemon stops.
            let Some(stop) = stop.upgrade() else { return };
            let peer = canonical(handed.peer.ip());
            let slots = if gate.may_publish(peer) { &slots } else { &reject_slots };
            let Some(slot) = slots.take(peer) else {
                counter!(REFUSALS, "cause" => "publisher_connections").increment(1);
                warn!(peer = %handed.peer, "publisher's connection closed: there are too many");
                return;
            };
            let (gate, encoders) = (Arc::clone(&gate), Arc::clone(&encoders));
            runtime.spawn(async move {
                match handed.speaks {
                    Speaks::Http => push::serve(handed, gate, encoders, stop).await,
                    Speaks::Rtsp { tls } => rtsp_push::serve(handed, tls, gate, ways, stop).await,
                }
                drop(slot);
            });
        })
    }

    /// Finds out what names of mirrored folders and templates are, and brings other profiles of transcoded inputs, for shards on any
    /// thread.
    pub fn finder(&self) -> Finder {
        let (transcoders, mirror) = (Arc::clone(&self.transcoders), Arc::clone(&self.mirror));
        Arc::new(move |wish| match wish.folder.settings().source {
            Source::Ffmpeg { .. } if !wish.folder.settings().is_lender() => transcoders.take(wish),
            _ => mirror.take(wish),
        })
    }

    /// Ends all sources and waits until they have: child processes are gone, publishers have heard why.
    pub async fn stop(self) {
        let Self { stop, stopper, .. } = self;
        drop(stop);
        if tokio::time::timeout(STOP_TIME, stopper.stop()).await.is_err() {
            warn!("some sources did not end in time");
        }
    }
}

/// tokio's clock, which tests can pause, as the layers below want it.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// The present time as ASF headers have it: 100 ns since 1601.
#[expect(clippy::disallowed_methods, reason = "the creation date of a broadcast is the only use of the calendar here")]
fn file_time() -> u64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_nanos() / 100).unwrap_or(u64::MAX).saturating_add(UNIX_EPOCH_AS_FILE_TIME)
}

/// The present time for people and their programs.
#[expect(clippy::disallowed_methods, reason = "the Date of a response is the calendar's")]
fn date() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Start;
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn sources_start_and_stop_together() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let argv = vec!["sleep".to_owned(), "1000".to_owned()];
        let exec = Source::Exec { argv, start: Start::Always, linger: Duration::ZERO };
        let file = Source::File { paths: vec!["no/such/file.asf".into()], start: Start::Always, linger: Duration::ZERO };
        let (relay, collector) =
            testing::collecting(&[("demo", Source::Demo), ("exec", exec), ("file", file), ("cam", Source::Push)]);
        let ingest = Ingest::start(runtime.handle(), &Settings::default(), &relay, None).unwrap();
        let hand_off = ingest.push_handoff();

        // A shard on another thread hands a connection over.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(local).unwrap();
        let (stream, peer) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        hand_off(Handed { stream, peer, local, head: b"PUT /publish/ca".to_vec(), speaks: Speaks::Http });
        client.write_all(b"m HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n0&\xb2u").unwrap();

        runtime.block_on(async {
            while collector.packets().is_empty() {
                tokio::task::yield_now().await;
            }
            ingest.stop().await;
        });
        let mut response = String::new();
        client.read_to_string(&mut response).unwrap();
        assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
        assert!(collector.losses() >= 2, "demo and exec");
        // What comes later is closed.
        let mut late = TcpStream::connect(local).unwrap();
        let (stream, peer) = listener.accept().unwrap();
        hand_off(Handed { stream, peer, local, head: Vec::new(), speaks: Speaks::Http });
        assert_eq!(late.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn who_may_not_publish_takes_no_place_of_those_who_may() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (relay, _) = testing::collecting(&[("cam", Source::Push)]);
        let ingest = Ingest::start(runtime.handle(), &Settings::default(), &relay, None).unwrap();
        let hand_off = ingest.push_handoff();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let hand_over = |peer: &str| {
            let client = TcpStream::connect(local).unwrap();
            let (stream, _) = listener.accept().unwrap();
            stream.set_nonblocking(true).unwrap();
            hand_off(Handed { stream, peer: peer.parse().unwrap(), local, head: Vec::new(), speaks: Speaks::Http });
            client.set_nonblocking(true).unwrap();
            client
        };
        let is_open = |mut client: &TcpStream| client.read(&mut [0; 1]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        // Without a users file, nobody but this machine may publish.
        let strangers: Vec<TcpStream> = (0..70).map(|host| hand_over(&format!("192.0.2.{host}:5000"))).collect();
        assert_eq!(strangers.iter().filter(|client| is_open(client)).count(), REJECTS);
        let encoders: Vec<TcpStream> = (0..70).map(|port| hand_over(&format!("127.0.0.1:{}", 5000 + port))).collect();
        assert_eq!(encoders.iter().filter(|client| is_open(client)).count(), CONNECTIONS_PER_ADDRESS);
        runtime.block_on(ingest.stop());
    }

    #[test]
    fn errors_of_the_users_file_name_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "nonsense").unwrap();
        let error = read_users(file.path()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}:1: ", file.path().display())), "{error}");
        let error = read_users(Path::new("no/such/file")).unwrap_err().to_string();
        assert!(error.starts_with("users.file: no/such/file cannot be read: No such file"), "{error}");
    }
}
