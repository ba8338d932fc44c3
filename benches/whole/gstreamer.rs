//! A thousand viewers over RTSP: the daemon beside gst-rtsp-server, which packs the same stream into RTP in the same way.
//!
//! Ours loops the file itself; the other one is sent it by a thread here, in real time. Both send RTP over UDP to sockets that nobody
//! reads, in turn. What is compared is the processor time of each process by the RTP packets that it sent.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::daemon::{Daemon, Swarm, number};
use crate::listeners::Encoder;
use crate::media::VIDEO;
use crate::{ROUNDS, SPAN, assert_all_play, median};

/// Debian's interpreter: its bindings are installed for that one.
const PYTHON: &str = "/usr/bin/python3";
/// Serves what comes over TCP to port 1 as `/video` on port 2.
const SERVER: &str = r#"
import sys, gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(sys.argv[2])
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch("( tcpclientsrc host=127.0.0.1 port=" + sys.argv[1] + " ! asfparse ! rtpasfpay mtu=1500 pt=96 name=pay0 )")
factory.set_shared(True)
server.get_mount_points().add_factory("/video", factory)
server.attach(None)
GLib.MainLoop().run()
"#;

/// Ended when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
    /// Where it asks for the stream.
    source: TcpListener,
}

impl Server {
    /// `None` where it is not installed.
    fn start() -> Option<Self> {
        let check = Command::new(PYTHON)
            .args(["-c", "import gi; gi.require_version('GstRtspServer', '1.0')"])
            .stderr(Stdio::null())
            .status();
        check.ok().filter(std::process::ExitStatus::success)?;
        let source = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        let child = Command::new(PYTHON)
            .args(["-c", SERVER])
            .arg(source.local_addr().expect("it is bound").port().to_string())
            .arg(address.port().to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Python starts");
        let server = Self { child, address, source };
        for _ in 0..1000 {
            if TcpStream::connect(server.address).is_ok() {
                return Some(server);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("gst-rtsp-server does not listen after 10 s");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ours beside its.
pub(crate) fn gstreamer() {
    let Some(server) = Server::start() else {
        return println!(
            "gst-rtsp-server is not installed (apt-get install gir1.2-gst-rtsp-server-1.0 python3-gi): nothing to compare with"
        );
    };
    let daemon = Daemon::start("", &[VIDEO]);
    let file = daemon.path(&VIDEO);
    let source = server.source.try_clone().expect("a descriptor");
    // It asks for the stream with its first viewer, and once more whenever there was none.
    std::thread::spawn(move || {
        for stream in source.incoming().flatten() {
            let encoder = Encoder::to(stream, &file);
            std::thread::spawn(move || encoder.wait());
        }
    });
    let url = format!("rtspu://{}/video", server.address);
    let mut ratios = Vec::new();
    for round in 1..=ROUNDS {
        let ours = || Swarm::over_rtsp(&daemon, &VIDEO, 1000).addresses("127.0.0.2").unread().seconds(SPAN).run();
        let theirs = || Swarm::of_process(server.child.id(), &url, 1000).addresses("127.0.0.3").unread().seconds(SPAN).run();
        // Who goes first changes.
        let (ours, theirs) = if round % 2 == 0 {
            let theirs = theirs();
            (ours(), theirs)
        } else {
            (ours(), theirs())
        };
        assert_all_play(&ours, 1000);
        assert_all_play(&theirs, 1000);
        let [ours_ns, theirs_ns] = [&ours, &theirs].map(|report| number(report, "server_cpu_ns_per_packet"));
        println!(
            "round {round}: ours {ours_ns:.0} ns a packet at {:.0} packets/s, gst-rtsp-server {theirs_ns:.0} at {:.0}",
            number(&ours["measured"], "packets") / SPAN.as_secs_f64(),
            number(&theirs["measured"], "packets") / SPAN.as_secs_f64()
        );
        ratios.push(ours_ns / theirs_ns);
    }
    println!("1000 UDP viewers of 2 Mbit/s over RTSP: {:.2} x gst-rtsp-server (median)", median(ratios));
}
