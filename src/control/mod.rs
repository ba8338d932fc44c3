//! What looks at the daemon from outside and tells it what to do: metrics, health, systemd, the control port, the local command line.
//! On a thread and a runtime of its own, so that a slow scrape never delays a viewer.

pub mod accounts;
mod admin;
mod api;
pub mod certificate;
mod drain;
mod faces;
mod health;
mod history;
mod plane;
mod probes;
mod reload;
mod running;
pub mod socket;
mod surveys;
pub mod systemd;
mod taking;
mod throttle;
mod tokens;

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::sync::watch;
use tracing::{error, warn};

pub use drain::{DrainState, DrainWish};
pub use health::{BEAT_EVERY, Health, STALE_AFTER};
pub use history::{HISTORY, Sample};
pub use plane::{LogLevel, Plane, PlaneParts};
pub use probes::{ProbeReport, Probes};
pub use reload::{ReloadOrder, ReloadOrders, ReloadReply, Reloaded};
pub use tokens::Caller;

pub use api::Peer;
pub(crate) use api::calls;

use crate::metrics;
use crate::shard::Certificate;

/// How often histograms are drained into their buckets; until then each sample takes memory.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// How often the files of the certificate and of those who may sign in are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// For passwords and looks at files.
const BLOCKING_THREADS: usize = 8;

/// Open requests get this long at the end.
const GRACE: Duration = Duration::from_secs(1);

/// Makes Prometheus the recorder of this process, with our buckets, help texts and the build information.
///
/// # Errors
/// When the process has a recorder already.
pub fn install_recorder() -> Result<PrometheusHandle, BuildError> {
    let builder = metrics::BUCKETS.iter().try_fold(PrometheusBuilder::new(), |builder, (name, bounds)| {
        builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), bounds)
    });
    let handle = builder?.install_recorder()?;
    metrics::describe_all();
    Ok(handle)
}

/// Where the daemon is told what to do.
pub struct Faces {
    /// What they serve.
    pub plane: Arc<Plane>,
    /// The control port.
    pub ports: Vec<TcpListener>,
    /// The control port is inside TLS with it; `None`: it is not.
    pub certificate: Option<Arc<Certificate>>,
    /// For the local command line.
    pub socket: Option<UnixListener>,
    /// The web console.
    pub pages: Option<Pages>,
}

/// Pages for people, which a layer above makes of the [`Plane`].
pub struct Pages {
    /// Where they are served.
    pub ports: Vec<TcpListener>,
    /// Always inside TLS.
    pub certificate: Arc<Certificate>,
    /// The pages.
    pub router: Router,
}

/// Serves the admin port and the control plane until `shutdown` ends; also does the metrics' upkeep and feeds systemd's watchdog
/// while the shards live. Without listeners it does only the latter two.
///
/// # Errors
/// When a listener cannot be handed to the runtime.
pub async fn serve(
    listeners: Vec<TcpListener>,
    faces: Option<Faces>,
    metrics: PrometheusHandle,
    health: Arc<Health>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let router = admin::router(metrics.clone(), Arc::clone(&health));
    let (stop, stopped) = watch::channel(false);
    let mut servers = tokio::task::JoinSet::new();
    for listener in listeners {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let mut stopped = stopped.clone();
        let server = axum::serve(listener, router.clone()).with_graceful_shutdown(async move {
            // An error means that the sender is gone, which is an end as well.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        });
        servers.spawn(async move {
            // It ends without an error.
            let _ = server.await;
        });
    }
    // The console has the same one where both have one.
    let pages = faces.as_ref().and_then(|faces| faces.pages.as_ref()).map(|pages| Arc::clone(&pages.certificate));
    let certificate = faces.as_ref().and_then(|faces| faces.certificate.clone()).or(pages);
    let plane = faces.as_ref().map(|faces| Arc::clone(&faces.plane));
    if let Some(Faces { plane, ports, certificate, socket, pages }) = faces {
        let router = api::router(plane);
        for listener in ports {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            servers.spawn(faces::serve_tcp("control port", listener, certificate.clone(), router.clone(), stopped.clone()));
        }
        if let Some(Pages { ports, certificate, router }) = pages {
            for listener in ports {
                listener.set_nonblocking(true)?;
                let listener = tokio::net::TcpListener::from_std(listener)?;
                let certificate = Some(Arc::clone(&certificate));
                servers.spawn(faces::serve_tcp("console", listener, certificate, router.clone(), stopped.clone()));
            }
        }
        if let Some(socket) = socket {
            let socket = tokio::net::UnixListener::from_std(socket)?;
            servers.spawn(faces::serve_unix(socket, router, stopped.clone()));
        }
    }
    let chores = async {
        tokio::join!(upkeep(metrics), feed_watchdog(health), sample(plane.clone()), refresh(certificate, plane));
    };
    tokio::select! {
        () = chores => {}
        () = shutdown => {}
    }
    stop.send_replace(true);
    let ended = async { while servers.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, ended).await.is_err() {
        warn!("requests to the admin or control port were cut off");
    }
    Ok(())
}

async fn upkeep(metrics: PrometheusHandle) {
    let mut ticks = tokio::time::interval(UPKEEP_EVERY);
    loop {
        ticks.tick().await;
        metrics.run_upkeep();
    }
}

/// Notes how many watch, for the charts of the last hour.
async fn sample(plane: Option<Arc<Plane>>) {
    let Some(plane) = plane else { return };
    let mut ticks = tokio::time::interval(history::SAMPLE_EVERY);
    loop {
        plane.sample(ticks.tick().await.into_std());
    }
}

/// Looks at the files of the certificate and of those who may sign in from time to time.
async fn refresh(certificate: Option<Arc<Certificate>>, plane: Option<Arc<Plane>>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    loop {
        ticks.tick().await;
        let (certificate, plane) = (certificate.clone(), plane.clone());
        // A disk may be slow.
        let look = move || {
            certificate.iter().for_each(|certificate| certificate.refresh());
            plane.iter().for_each(|plane| plane.refresh_accounts());
        };
        let _ = tokio::task::spawn_blocking(look).await;
    }
}

/// Never ends. A stuck shard starves the watchdog, and systemd starts the service anew.
async fn feed_watchdog(health: Arc<Health>) {
    let Some(interval) = systemd::watchdog_interval() else { return std::future::pending().await };
    let mut ticks = tokio::time::interval(interval);
    loop {
        let now = ticks.tick().await.into_std();
        match health.stale(now) {
            None => systemd::alive(),
            Some((shard, silent)) => {
                error!(shard, silent_s = silent.as_secs(), "a shard is stuck; the watchdog is not fed");
            }
        }
    }
}

/// [`serve`] on a thread of its own.
#[derive(Debug)]
pub struct Control {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Control {
    /// Starts the thread `control`.
    ///
    /// # Errors
    /// When the system gives no thread or runtime.
    pub fn start(
        listeners: Vec<TcpListener>,
        faces: Option<Faces>,
        metrics: PrometheusHandle,
        health: Arc<Health>,
    ) -> io::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING_THREADS).build()?;
        let (stop, mut stopped) = watch::channel(false);
        let body = move || {
            let shutdown = async move {
                let _ = stopped.wait_for(|stopped| *stopped).await;
            };
            if let Err(error) = runtime.block_on(serve(listeners, faces, metrics, health, shutdown)) {
                error!(%error, "admin and control port are not served");
            }
            // A password that is looked at is nobody's any more.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("control".into()).spawn(body)?;
        Ok(Self { stop, thread })
    }

    /// Ends the thread; open requests get a second.
    pub fn stop(self) {
        self.stop.send_replace(true);
        if self.thread.join().is_err() {
            error!("the control thread panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};

    use super::*;

    fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn the_admin_port_answers() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let metrics = recorder.handle();
        ::metrics::with_local_recorder(&recorder, || {
            metrics::describe_all();
            ::metrics::gauge!(metrics::VIEWERS, "protocol" => "mms", "transport" => "udp").set(3.0);
        });
        let now = tokio::time::Instant::now().into_std();
        let health = Health::new(now, 1);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let control = Control::start(vec![listener], None, metrics, Arc::clone(&health)).unwrap();

        let page = ask(address, "/metrics");
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains("content-type: text/plain; version=0.0.4"), "{page}");
        assert!(
            page.contains("\n# TYPE wmrelay_viewers gauge\nwmrelay_viewers{protocol=\"mms\",transport=\"udp\"} 3\n"),
            "{page}"
        );
        assert!(page.contains("# HELP wmrelay_viewers "), "{page}");
        assert!(page.contains(&format!("wmrelay_build_info{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION"))), "{page}");

        assert!(ask(address, "/readyz").starts_with("HTTP/1.1 503 "));
        health.set_ready();
        assert!(ask(address, "/readyz").starts_with("HTTP/1.1 200 "));
        health.set_stopping();
        assert!(ask(address, "/readyz").ends_with("\r\n\r\nstopping\n"));
        assert!(ask(address, "/healthz").starts_with("HTTP/1.1 200 "));
        assert!(ask(address, "/").starts_with("HTTP/1.1 404 "));
        control.stop();
        assert!(TcpStream::connect(address).is_err(), "the listener is closed");
    }

    #[test]
    fn a_stuck_shard_is_told() {
        let Some(long_ago) = tokio::time::Instant::now().into_std().checked_sub(2 * STALE_AFTER) else { return };
        let health = Health::new(long_ago, 2);
        health.beat(0, tokio::time::Instant::now().into_std());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let control = Control::start(vec![listener], None, PrometheusBuilder::new().build_recorder().handle(), health).unwrap();
        let answer = ask(address, "/healthz");
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("shard 1 gave no sign of life"), "{answer}");
        control.stop();
    }
}
