//! A camera: gst-rtsp-server with live test pictures and sound.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::Need::{self, Element, Program};
use super::process::Process;
use super::wait_until;

/// What it needs beside Python's bindings, which [`Camera::start`] looks for.
pub const CAMERA: &[Need] = &[
    Program("ffmpeg"),
    Program("python3"),
    Element("x264enc"),
    Element("voaacenc"),
    Element("jpegenc"),
    Element("rtph264pay"),
    Element("rtpmp4gpay"),
    Element("rtppcmapay"),
    Element("rtpjpegpay"),
];

/// Debian's interpreter: its bindings are installed for that one.
const PYTHON: &str = "/usr/bin/python3";
/// Serves a pipeline as `/cam` on a port, to everybody or to one user with Digest.
const SERVER: &str = r#"
import sys, gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer
Gst.init(None)
port, launch, user, password = sys.argv[1:5]
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(port)
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(launch)
factory.set_shared(True)
if user:
    auth = GstRtspServer.RTSPAuth()
    auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth.add_digest(user, password, token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_role("viewer")
    permissions.add_permission_for_role("viewer", "media.factory.access", True)
    permissions.add_permission_for_role("viewer", "media.factory.construct", True)
    factory.set_permissions(permissions)
server.get_mount_points().add_factory("/cam", factory)
server.attach(None)
GLib.MainLoop().run()
"#;

/// H.264 without B-frames, a key frame a second; no picture is like another.
pub const H264: &str = "videotestsrc is-live=true pattern=snow ! video/x-raw,width=176,height=144,framerate=15/1 \
    ! x264enc tune=zerolatency speed-preset=ultrafast bframes=0 key-int-max=15 bitrate=600 ! video/x-h264,profile=main \
    ! rtph264pay name=pay0 pt=96";
/// The same with two of them between others.
pub const H264_B_FRAMES: &str = "videotestsrc is-live=true ! video/x-raw,width=176,height=144,framerate=15/1 \
    ! x264enc speed-preset=ultrafast bframes=2 b-adapt=false key-int-max=15 ! video/x-h264,profile=main ! rtph264pay name=pay0 pt=96";
/// Motion JPEG.
pub const MJPEG: &str = "videotestsrc is-live=true pattern=snow ! video/x-raw,format=I420,width=176,height=144,framerate=10/1 \
    ! jpegenc ! rtpjpegpay name=pay0 pt=26";
/// G.711, A-law.
pub const A_LAW: &str = "audiotestsrc is-live=true wave=white-noise samplesperbuffer=160 ! audio/x-raw,rate=8000,channels=1 \
    ! alawenc ! rtppcmapay name=pay1 pt=8";
/// AAC.
pub const AAC: &str = "audiotestsrc is-live=true wave=white-noise ! audio/x-raw,rate=44100,channels=1 \
    ! voaacenc ! aacparse ! rtpmp4gpay name=pay1 pt=97";

/// It ends when dropped.
pub struct Camera {
    pub address: SocketAddr,
    arguments: [String; 3],
    process: Option<Process>,
}

impl Camera {
    /// Serves these tracks; with a login, only to whom knows it. `None`, and said loudly, where Python's bindings are missing.
    ///
    /// # Panics
    /// Where they are missing and `WMRELAY_TESTS_REQUIRE` asks for them.
    #[track_caller]
    pub fn start(test: &str, tracks: &[&str], login: Option<(&str, &str)>) -> Option<Self> {
        let mut check = Command::new(PYTHON);
        check.args(["-c", "import gi; gi.require_version('GstRtspServer', '1.0')"]).stderr(Stdio::null());
        if !check.status().is_ok_and(|status| status.success()) {
            let required = std::env::var("WMRELAY_TESTS_REQUIRE").unwrap_or_default();
            assert!(matches!(required.as_str(), "" | "0"), "{test}: gir1.2-gst-rtsp-server-1.0 or python3-gi is missing");
            eprintln!("SKIPPED: {test}: gir1.2-gst-rtsp-server-1.0 or python3-gi is missing");
            return None;
        }
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap();
        let (user, password) = login.unwrap_or_default();
        let arguments = [format!("( {} )", tracks.join(" ")), user.to_owned(), password.to_owned()];
        let mut camera = Self { address, arguments, process: None };
        camera.switch_on();
        Some(camera)
    }

    /// Starts it again after [`Camera::switch_off`], at the same address.
    #[track_caller]
    pub fn switch_on(&mut self) {
        let mut command = Command::new(PYTHON);
        command.args(["-c", SERVER]).arg(self.address.port().to_string()).args(&self.arguments);
        self.process = Some(Process::start(command));
        let address = self.address;
        wait_until("the camera listens", Duration::from_secs(30), || TcpStream::connect(address).is_ok());
    }

    /// Kills it.
    pub fn switch_off(&mut self) {
        self.process = None;
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("rtsp://{}/cam", self.address)
    }
}
