//! Sockets that outlive the daemon, as systemd's socket units hold them: this test is the parent that holds them. No connection is refused
//! while the daemon is started anew, and who connects in between is served.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a panic is this test's report")]

mod support;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use support::control::Accounts;
use support::daemon::{Daemon, Launch, http_get};
use support::rtsp::Connection;
use support::viewer::Viewer;
use support::{tls, wait_until};

const LIMIT: Duration = Duration::from_secs(30);

/// One of each.
struct Held {
    mms: TcpListener,
    resends: UdpSocket,
    http: TcpListener,
    rtsp: TcpListener,
    media: UdpSocket,
    requests: UdpSocket,
    admin: TcpListener,
    control: TcpListener,
}

impl Held {
    fn bind() -> Self {
        let tcp = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        // Both have the number, or another one is tried.
        let (mms, resends) = std::iter::repeat_with(tcp)
            .take(100)
            .find_map(|mms| {
                let resends = UdpSocket::bind(mms.local_addr().unwrap()).ok()?;
                Some((mms, resends))
            })
            .unwrap();
        let (media, requests) = (30_000..31_000)
            .step_by(2)
            .find_map(|port| {
                let bind = |port: u16| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).ok();
                bind(port).zip(bind(port + 1))
            })
            .unwrap();
        Self { mms, resends, http: tcp(), rtsp: tcp(), media, requests, admin: tcp(), control: tcp() }
    }

    fn all(&self) -> [&dyn AsFd; 8] {
        [&self.mms, &self.resends, &self.http, &self.rtsp, &self.media, &self.requests, &self.admin, &self.control]
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        [&self.mms, &self.http, &self.rtsp, &self.admin, &self.control].map(|listener| listener.local_addr().unwrap()).into()
    }

    /// A daemon with these listeners, and with these of the sockets.
    fn launch(&self, settings: &str, sockets: &[&dyn AsFd]) -> Daemon {
        Launch::new(settings)
            .listen([said(&self.mms), said(&self.http), said(&self.admin)])
            .rtsp(said(&self.rtsp))
            .rtsp_server_port(self.media.local_addr().unwrap().port())
            .control_listen(said(&self.control))
            .sockets(sockets.iter().copied())
            .start()
    }
}

/// Where somebody listens, as settings say it; for as long as the test, a few bytes.
fn said(listener: &TcpListener) -> &'static str {
    listener.local_addr().unwrap().to_string().leak()
}

/// Connects to an address again and again until told to stop; how often, and how often in vain.
fn knock(
    address: SocketAddr,
    stop: &Arc<AtomicBool>,
    refused: &Arc<AtomicU32>,
    knocks: &Arc<AtomicU32>,
) -> std::thread::JoinHandle<()> {
    let (stop, refused, knocks) = (Arc::clone(stop), Arc::clone(refused), Arc::clone(knocks));
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            match TcpStream::connect_timeout(&address, Duration::from_secs(5)) {
                Ok(_) => knocks.fetch_add(1, Ordering::Relaxed),
                Err(_) => refused.fetch_add(1, Ordering::Relaxed),
            };
            std::thread::sleep(Duration::from_millis(3));
        }
    })
}

/// One test at a time: between two system calls a socket is open to whatever child is started then.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn a_restart_refuses_nobody_and_serves_who_came_in_between() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let held = Held::bind();
    // A child of the daemon tells what it has of it.
    let folder = tempfile::tempdir().unwrap();
    let (environment, descriptors) = (folder.path().join("environment"), folder.path().join("descriptors"));
    let tells = format!("env > {}; ls -l /proc/self/fd > {}; sleep 1000", environment.display(), descriptors.display());
    let settings = format!(
        "[[publishing_point]]\nname = \"demo\"\nsource = {{ type = \"demo\" }}\n\
         [[publishing_point]]\nname = \"child\"\nsource = {{ type = \"exec\", start = \"always\", argv = [\"sh\", \"-c\", {tells:?}] }}\n"
    );
    let first = held.launch(&settings, &held.all());
    assert!(first.log().contains("sockets were inherited") && !first.log().contains("belongs to no listener"), "{}", first.log());
    let addresses = held.addresses();
    assert_eq!(vec![first.mms, first.http, first.rtsp, first.admin, first.control], addresses);
    // Media over UDP and resends go by sockets that are not ours either.
    let over_udp = Viewer::udp(first.mms, "demo", 4471, None);
    over_udp.wait_for_packets(5, LIMIT);
    drop(over_udp);
    // What was handed over is handed to nobody else.
    wait_until("the child's words", LIMIT, || std::fs::read_to_string(&descriptors).is_ok_and(|text| text.contains("/proc/")));
    let [environment, descriptors] = [environment, descriptors].map(|file| std::fs::read_to_string(file).unwrap());
    assert!(environment.contains("PATH=") && !environment.contains("LISTEN_"), "{environment}");
    assert!(!descriptors.contains("socket:"), "{descriptors}");

    let (stop, refused, knocks) = (Arc::default(), Arc::default(), Arc::default());
    let knocking: Vec<_> = addresses.iter().map(|address| knock(*address, &stop, &refused, &knocks)).collect();
    wait_until("some knocks", LIMIT, || knocks.load(Ordering::Relaxed) > 20);
    assert!(first.stop().success());
    // Nobody listens to them now, and they wait.
    let before = knocks.load(Ordering::Relaxed);
    wait_until("knocks while there is no daemon", LIMIT, || knocks.load(Ordering::Relaxed) > before + 20);
    let [mms, http, rtsp, admin, control] = addresses[..] else { panic!("five") };
    let waiting = [
        std::thread::spawn(move || Viewer::tcp(mms, "demo").wait_for_packets(5, LIMIT)),
        std::thread::spawn(move || assert_eq!(http_get(http, "/demo.asx").0, 200)),
        std::thread::spawn(move || assert_eq!(Connection::open(rtsp, "demo").ask("DESCRIBE", "", "").status(), 200)),
        std::thread::spawn(move || assert_eq!(http_get(admin, "/healthz").0, 200)),
        std::thread::spawn(move || {
            let mut stream = tls::connect(control).unwrap();
            let head = tls::ask(&mut stream, "GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        }),
    ];
    let second = held.launch("", &held.all());
    for thread in waiting {
        thread.join().unwrap();
    }
    let before = knocks.load(Ordering::Relaxed);
    wait_until("knocks at the second daemon", LIMIT, || knocks.load(Ordering::Relaxed) > before + 20);
    stop.store(true, Ordering::Relaxed);
    knocking.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(refused.load(Ordering::Relaxed), 0);
    Viewer::udp(second.mms, "demo", 4473, None).wait_for_packets(5, LIMIT);
}

#[test]
fn what_was_not_handed_over_is_bound_and_what_nobody_wants_is_told() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let held = Held::bind();
    let stranger = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let Held { mms, resends, http, rtsp, media, requests, admin, control } = &held;
    let sockets: [&dyn AsFd; 8] = [mms, resends, http, rtsp, media, requests, control, &stranger];
    // The daemon binds this one itself.
    let at = admin.local_addr().unwrap();
    let launched = {
        let at: &'static str = at.to_string().leak();
        // SO_REUSEADDR lets two bind, but not while one of them listens: it is closed first.
        let launch = Launch::new("")
            .listen([said(mms), said(http), at])
            .rtsp(said(rtsp))
            .rtsp_server_port(media.local_addr().unwrap().port())
            .control_listen(said(control))
            .sockets(sockets.iter().copied());
        drop(held.admin);
        launch.start()
    };
    assert_eq!(launched.admin, at);
    let stranger = stranger.local_addr().unwrap();
    let told = format!("the inherited socket {stranger} (TCP) belongs to no listener of the settings");
    assert!(launched.log().contains(&told), "{}", launched.log());
    Viewer::tcp(launched.mms, "demo").wait_for_packets(5, LIMIT);
}

/// The socket unit has the control port as it is before there are users, or the other way around.
#[test]
fn a_socket_unit_that_does_not_fit_the_control_port_keeps_nobody_from_watching() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let accounts = Accounts::new();
    let control = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = control.local_addr().unwrap().port();
    let daemon = Launch::new("")
        .control_listen(format!("0.0.0.0:{port}"))
        .control(format!("users_file = {:?}", accounts.file()))
        .sockets([&control as &dyn AsFd])
        .start();
    Viewer::tcp(daemon.mms, "demo").wait_for_packets(5, LIMIT);
    assert_eq!(daemon.control, control.local_addr().unwrap(), "this machine reaches it");
    tls::connect(daemon.control).unwrap();
    let log = daemon.log();
    for words in [
        &format!(
            "control.listen cannot listen on 0.0.0.0:{port} (TCP), and until that is mended listens on 127.0.0.1:{port} alone"
        ),
        &format!("write ListenStream=0.0.0.0:{port} in place of ListenStream=127.0.0.1:{port}"),
    ] {
        assert!(log.contains(words), "{log}");
    }
    drop((daemon, control));

    let control = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = control.local_addr().unwrap().port();
    let daemon = Launch::new("").control_listen(format!("0.0.0.0:{port}")).sockets([&control as &dyn AsFd]).start();
    Viewer::tcp(daemon.mms, "demo").wait_for_packets(5, LIMIT);
    assert_eq!(daemon.control.port(), 0, "nowhere, rather than where strangers reach it");
    let log = daemon.log();
    for words in [
        &format!("write ListenStream=127.0.0.1:{port} in place of ListenStream=0.0.0.0:{port}"),
        "before there are users (control.users_file) the control port is for this machine alone",
    ] {
        assert!(log.contains(words), "{log}");
    }
}
