//! A stop: viewers get the end of the stream, whatever carries their media, and the daemon does not wait for who has nothing to wait for.

#![allow(clippy::unwrap_used, reason = "a panic is a test's report")]

mod support;

use std::net::TcpStream;
use std::time::Duration;

use support::daemon::Daemon;
use support::process::send_signal;
use support::viewer::Viewer;
use support::{wait_for, wait_until};

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn every_viewer_gets_the_end_of_the_stream_and_the_daemon_ends() {
    let mut daemon = Daemon::start("");
    let over_tcp = Viewer::tcp(daemon.mms, "demo");
    let over_udp = Viewer::udp(daemon.mms, "demo", 4321, None);
    // Who has not opened anything must not keep the daemon.
    let _silent = TcpStream::connect(daemon.mms).unwrap();
    over_tcp.wait_for_packets(5, LIMIT);
    over_udp.wait_for_packets(5, LIMIT);
    send_signal(daemon.id(), "TERM");
    for viewer in [&over_tcp, &over_udp] {
        let end = wait_for("the end of the stream", LIMIT, || viewer.ended());
        assert!(end.contains("end of stream"), "{end}");
    }
    wait_until("the daemon ends", LIMIT, || !daemon.runs());
    assert!(!daemon.log().contains("did not leave in time"), "{}", daemon.log());
}
