//! Who may watch: signed addresses and passwords, with real players, and what becomes of those who have neither.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's report")]

mod support;

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use support::Need::{self, Program};
use support::daemon::{Daemon, http_get};
use support::media::data;
use support::mms::{self, Control, OPENED, result_of};
use support::player::{self, Vlc, frames, of_stream};
use support::process::Process;
use support::viewer::{Viewer, wait_for_source};
use support::{ready, wait_until};
use wmrelay::text::signed::{Claim, Secrets};

const FFMPEG: &[Need] = &[Program("ffmpeg")];
const VLC: &[Need] = &[Program("cvlc")];
const MPLAYER: &[Need] = &[Program("mplayer")];
const MPV: &[Need] = &[Program("mpv")];
const CURL: &[Need] = &[Program("curl")];
const MINUTE: Duration = Duration::from_secs(60);
/// Pictures and sound for ten seconds.
const FILM: &str = "vod-wmv2-wmav2-indexed.wmv";
const ACCESS_DENIED: u32 = 0x8007_0005;
const DAY_S: u64 = 24 * 60 * 60;

/// A daemon that serves `signed`, `secret` and `public`, and below `archive/` a film by signed addresses.
struct House {
    daemon: Daemon,
    folder: tempfile::TempDir,
}

fn wmrelay(args: &[&str], input: &str) -> Output {
    use std::io::Write as _;
    let mut command = Command::new(env!("CARGO_BIN_EXE_wmrelay"));
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // An error: it ended without reading.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

impl House {
    #[track_caller]
    fn open(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        assert!(wmrelay(&["sign", "--new-key", &at("keys")], "").status.success());
        assert!(wmrelay(&["passwd", &at("viewers"), "anna", "--realm", "studio"], "s3cret\n").status.success());
        std::fs::create_dir(folder.path().join("films")).unwrap();
        std::fs::copy(data(FILM), folder.path().join("films").join(FILM)).unwrap();
        let demo = |name: &str, access: &str| {
            format!("[[publishing_point]]\nname = \"{name}\"\nsource = {{ type = \"demo\" }}\naccess = \"{access}\"\n")
        };
        let settings = format!(
            "{settings}\n[users]\nviewers_file = {:?}\n[signing]\nkey_file = {:?}\n{}{}{}\
             [[publishing_point]]\nname = \"archive/\"\nsource = {{ type = \"files\", root = {:?} }}\naccess = \"signed\"\n",
            at("viewers"),
            at("keys"),
            demo("signed", "signed"),
            demo("secret", "users"),
            demo("public", "all"),
            at("films"),
        );
        let daemon = Daemon::start(settings);
        wait_for_source(&daemon, "public");
        wait_for_source(&daemon, "signed");
        wait_for_source(&daemon, "secret");
        Self { daemon, folder }
    }

    fn keys(&self) -> PathBuf {
        self.folder.path().join("keys")
    }

    /// What `wmrelay sign` prints first.
    #[track_caller]
    fn query(&self, args: &[&str]) -> String {
        self.sign(args).lines().next().unwrap().to_owned()
    }

    #[track_caller]
    fn sign(&self, args: &[&str]) -> String {
        let config = self.daemon.folder().join("wmrelay.toml").display().to_string();
        let done = wmrelay(&[&["sign", "--config", &config], args].concat(), "");
        assert!(done.status.success(), "{}", text(&done.stderr));
        text(&done.stdout)
    }

    /// A key as a program of its own would make it, for a time that may be over.
    fn key(&self, name: &str, ends_in_s: i64, address: Option<IpAddr>) -> String {
        let secrets = Secrets::parse(&std::fs::read_to_string(self.keys()).unwrap(), "keys").unwrap();
        #[expect(clippy::disallowed_methods, reason = "the daemon's clock is the real one")]
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let ends_unix_s = now.checked_add_signed(ends_in_s).unwrap();
        format!("?k={}", secrets.sign(&Claim { name, ends_unix_s, address }).unwrap())
    }

    /// On the port that is named for it; every port takes everything.
    fn url(&self, scheme: &str, name: &str) -> String {
        let address = if scheme == "http" || scheme == "mmsh" { self.daemon.http } else { self.daemon.mms };
        format!("{scheme}://{address}/{name}")
    }
}

#[track_caller]
fn ffmpeg_plays(url: &str) {
    let decoded = player::ffmpeg(url, 2).finish(MINUTE);
    let frames = frames(&decoded.stdout);
    // Over RTSP sound comes first.
    let pictures = of_stream(&frames, usize::from(url.starts_with("rtsp:"))).len();
    assert!(decoded.status.success() && pictures >= 15, "{url}: {pictures} of {} frames\n{}", frames.len(), decoded.stderr);
}

#[track_caller]
fn ffmpeg_does_not_play(url: &str) {
    let decoded = player::ffmpeg(url, 1).finish(MINUTE);
    assert!(!decoded.status.success() && frames(&decoded.stdout).is_empty(), "{url}: {}", decoded.stderr);
}

/// The result of opening a name over MMS.
#[track_caller]
fn open_over_mms(daemon: SocketAddr, name: &str) -> u32 {
    mms::open_result(daemon, name)
}

#[test]
fn ffmpeg_plays_signed_addresses() {
    if !ready("ffmpeg_plays_signed_addresses", FFMPEG) {
        return;
    }
    let house = House::open("");
    let query = house.query(&["signed", "--for", "2h"]);
    let bound = house.query(&["/Signed", "--for", "2h", "--address", "127.0.0.1"]);
    let below = house.query(&["archive/", "--for", "7d"]);
    let film = house.query(&[&format!("archive/{FILM}"), "--for", "90s"]);
    for scheme in ["mmst", "mmsh", "http"] {
        ffmpeg_plays(&house.url(scheme, &format!("signed{query}")));
        ffmpeg_plays(&house.url(scheme, &format!("signed{bound}")));
        for query in [&below, &film] {
            ffmpeg_plays(&house.url(scheme, &format!("archive/{FILM}{query}")));
        }
    }
    // The addresses that are printed whole.
    let base = format!("mms://{}", house.daemon.http);
    let told = house.sign(&["signed", "--for", "2h", "--url", &base]);
    let urls: Vec<&str> = told.lines().skip(1).collect();
    assert!(urls.len() == 2 && urls[0].starts_with(&format!("{base}/signed?k=")), "{told}");
    ffmpeg_plays(urls[1]);
    ffmpeg_plays(&urls[0].replace("mms:", "mmsh:"));
}

#[test]
fn vlc_plays_signed_addresses() {
    if !ready("vlc_plays_signed_addresses", VLC) {
        return;
    }
    let house = House::open("");
    let query = house.query(&["signed", "--for", "2h"]);
    // Over MMS, VLC leaves the query out, is refused and comes again over HTTP.
    for url in [
        house.url("mms", &format!("signed{query}")),
        house.url("mmsh", &format!("signed{query}")),
        house.url("http", &format!("signed{query}")),
        house.url("http", &format!("signed.asx{query}")),
    ] {
        eprintln!("{url}");
        Vlc::play(&url).wait_for_pictures(30, MINUTE);
    }
}

/// MPlayer over MMS comes with the query, over HTTP too.
#[test]
fn mplayer_and_mpv_play_signed_addresses() {
    if !ready("mplayer_and_mpv_play_signed_addresses", &[MPLAYER, MPV].concat()) {
        return;
    }
    let house = House::open("");
    let query = house.query(&["signed", "--for", "2h"]);
    let name = format!("signed{query}");
    for scheme in ["mmst", "mmsh", "http"] {
        assert_eq!(player::mplayer(&house.url(scheme, &name), 20).len(), 20, "{scheme}");
    }
    for scheme in ["mms", "mmsh", "http"] {
        assert!(player::mpv(&house.url(scheme, &name), 20) >= 19, "{scheme}");
    }
}

/// Over each protocol, every way to the content, while others watch on.
#[test]
fn other_names_times_and_addresses_open_nothing() {
    if !ready("other_names_times_and_addresses_open_nothing", FFMPEG) {
        return;
    }
    let house = House::open("");
    let daemon = &house.daemon;
    let watcher = Viewer::tcp(daemon.mms, "public");
    let signed = house.key("signed", 3600, None);
    let long_ago = -i64::try_from(DAY_S).unwrap();
    let refused = [
        String::new(),
        "?k=".to_owned(),
        "?k=00".to_owned(),
        house.key("signed", long_ago, None),
        house.key("public", 3600, None),
        house.key("signed/", 3600, None),
        house.key("archive/", 3600, None),
        house.key("signed", 3600, Some("127.0.0.2".parse().unwrap())),
        format!("{}0", &signed[..signed.len() - 1].replace("?k=01", "?k=02")),
    ];
    for query in &refused {
        let status = |path: &str| http_get(daemon.http, path).0;
        let expected = if query == "?k=" { vec![ACCESS_DENIED, 0xC00D_001A] } else { vec![ACCESS_DENIED] };
        let result = open_over_mms(daemon.mms, &format!("signed{query}"));
        assert!(expected.contains(&result), "{query}: {result:08X}");
        for path in ["signed", "signed.asf", "signed.asx", "signed.m3u"] {
            assert_eq!(status(&format!("/{path}{query}")), 403, "{path}{query}");
            assert_eq!(http_get(daemon.mms, &format!("/{path}{query}")).0, 403, "{path}{query}");
        }
    }
    for scheme in ["mmst", "mmsh", "http"] {
        ffmpeg_does_not_play(&house.url(scheme, &format!("signed{}", refused[3])));
    }
    // A key of one file is none of another, not even of one that is not there.
    let film = house.key(&format!("archive/{FILM}"), 3600, None);
    assert_eq!(http_get(daemon.http, &format!("/archive/other.wmv{film}")).0, 403);
    assert_eq!(http_get(daemon.http, &format!("/archive/other.wmv{}", house.key("archive/", 3600, None))).0, 404);
    assert_eq!(open_over_mms(daemon.mms, &format!("archive/{FILM}{film}")), 0);
    // The right one is good all the same.
    assert_eq!(open_over_mms(daemon.mms, &format!("signed{signed}")), 0);
    assert_eq!(http_get(daemon.http, &format!("/signed.m3u{signed}")).0, 200);
    assert_eq!(open_over_mms(daemon.mms, "public"), 0);
    watcher.wait_for_packets(20, MINUTE);
    watcher.assert_undisturbed();

    let log = daemon.log();
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("WARN wmrelay::auth: viewer not let in: peer=127.0.0.1 cause=wrong_key point=\"signed\""))
        .collect();
    assert!(lines.len() == 10, "ten lines at once, then few:\n{log}");
    assert!(daemon.metric("wmrelay_refusals_total", &[("cause", "wrong_key")]) > 10.0);
    for cause in ["no_key", "expired_key"] {
        assert!(daemon.metric("wmrelay_refusals_total", &[("cause", cause)]) >= 4.0, "{cause}");
    }
    for key in refused.iter().filter(|query| query.len() > 10).chain([&signed, &film]) {
        assert!(!log.contains(&key[3..]), "a key is in the log");
    }
}

/// Source: MS-MMSP 2.2.4.9.
#[test]
fn a_redirect_keeps_the_key() {
    let house = House::open("[udp]\noversize = \"refuse\"\n");
    let name = format!("archive/{FILM}{}", house.key("archive/", 3600, None));
    let step = Duration::from_secs(10);
    let redirect = 0x0004_0022;
    let mut control = Control::connect(house.daemon.mms);
    control.send(mms::CONNECT, &mms::connect_body("NSPlayer/9.0.0.3250; {3F2504E0-4F89-41D3-9A0C-0305E82C3301}"));
    control.expect(mms::CONNECTED, step);
    control.send(mms::CONNECT_FUNNEL, &mms::funnel_body("\\\\127.0.0.1\\UDP\\2048"));
    control.expect(mms::FUNNEL_CONNECTED, step);
    control.send(mms::OPEN_FILE, &mms::open_body(&name));
    let report = control.expect(redirect, step);
    let units: Vec<u16> = report[8..].as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
    let location = String::from_utf16(&units).unwrap();
    assert_eq!(location.trim_end_matches('\0'), house.url("mmst", &name));
}

/// The end of its time closes the door and throws nobody out.
#[test]
fn who_watches_watches_on() {
    let house = House::open("");
    let daemon = &house.daemon;
    let query = house.key("signed", 10, None);
    let watcher = Viewer::tcp(daemon.mms, &format!("signed{query}"));
    wait_until("the end of the key", MINUTE, || http_get(daemon.http, &format!("/signed.m3u{query}")).0 == 403);
    assert_eq!(open_over_mms(daemon.mms, &format!("signed{query}")), ACCESS_DENIED);
    watcher.wait_for_packets(20, MINUTE);
    watcher.assert_undisturbed();
}

/// Players repeat what they play in their reports, and name what was never split off.
#[test]
fn keys_are_in_no_log() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.log");
    let house = House::open(&format!("[access_log]\nfile = {file:?}\n"));
    let key = &house.key("signed", 3600, None)[3..];
    let url = format!("http%3A%2F%2Fh%2Fsigned%3Fk%3D{key}");
    let ask = |request: &str| {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(house.daemon.http).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    let agent = format!("User-Agent: NSPlayer/9.0 {url} mms://h/signed?k={key}\r\n");
    // MS-WMLOG 2.2.1: 44 fields and three more, in which the address stands wherever a player may put it.
    let fields = format!(
        "0.0.0.0 2024-05-01 12:00:00 - http://h/signed?k={key} 0 9 1 200 - 9.0 en-US Agent_({url}) http://h/page?k={key} wmplayer.exe \
         9.0 Windows 5.1 Pentium 0 0 313441 http TCP - - http://h/channel?k={key} - 4711 - 177 0 0 0 0 0 0 1 5 99 - - - - \
         mms://h/signed?k={key} title?k={key} -"
    );
    assert_eq!(fields.split_whitespace().count(), 47);
    let log = |connection: &str, path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: h\r\n{agent}{connection}Content-Type: application/x-wms-LogStats\r\n\
             Content-Length: {}\r\n\r\n{fields}",
            fields.len()
        )
    };
    let close = "Connection: close\r\n";
    let answer = ask(&log(close, "/signed"));
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    // A report and what is refused on one connection: one line has both.
    let both = ask(&format!("{}GET /nothing?k={key} HTTP/1.1\r\nHost: h\r\n{agent}{close}\r\n", log("", "/nothing")));
    assert!(both.contains("HTTP/1.1 404 "), "{both}");
    for path in [format!("/%3Fk={key}"), format!("/x%3Fk%3D{key}"), format!("/x%253Fk%253D{key}")] {
        ask(&format!("GET {path} HTTP/1.1\r\nHost: h\r\n{agent}{close}\r\n"));
    }
    for name in [format!("nothing?k={key}"), format!("nothing&k={key}"), format!("x%3Fk%3D{key}")] {
        open_over_mms(house.daemon.mms, &name);
    }
    wait_until("the sessions in the log", MINUTE, || house.daemon.log().matches("session ended").count() >= 7);
    let log = house.daemon.log();
    assert!(log.contains("mms://h/signed?k=***") && !log.contains(key), "{log}");
    assert!(house.daemon.stop().success());
    let log = std::fs::read_to_string(&file).unwrap();
    assert!(log.lines().filter(|line| !line.starts_with('#')).count() >= 7, "{log}");
    for told in ["http://h/page?k=***", "http://h/channel?k=***", "Agent_(http%3A%2F%2Fh%2Fsigned%3Fk%3D***)", "/x%3Fk=***"] {
        assert!(log.contains(told), "{told} in {log}");
    }
    assert!(!log.contains(key), "{log}");
}

/// curl's view of a URL: status and head.
#[track_caller]
fn curl(arguments: &[&str], url: &str) -> (String, String) {
    let mut command = Command::new("curl");
    command.args(["--silent", "--max-time", "3", "--output", "/dev/null", "--dump-header", "-", "--write-out", "%{http_code}"]);
    command.args(arguments).arg(url);
    let done = Process::start(command).finish(MINUTE);
    let (head, status) = done.stdout.rsplit_once("\r\n").unwrap();
    (status.to_owned(), head.to_owned())
}

#[test]
fn passwords_over_http() {
    if !ready("passwords_over_http", &[FFMPEG, CURL, MPLAYER].concat()) {
        return;
    }
    let house = House::open("");
    let url = house.url("http", "secret");
    let (status, head) = curl(&[], &url);
    assert_eq!(status, "401");
    assert!(head.contains("WWW-Authenticate: Digest realm=\"studio\"") && head.contains("WWW-Authenticate: Basic"), "{head}");
    for scheme in ["--digest", "--basic", "--anyauth"] {
        for path in ["secret", "secret.asx", "secret.m3u"] {
            let (status, head) = curl(&[scheme, "--user", "anna:s3cret"], &house.url("http", path));
            assert_eq!(status, "200", "{scheme} {path}");
            assert!(head.contains("private"), "{head}");
        }
        assert_eq!(curl(&[scheme, "--user", "anna:s3cret", "--head"], &url).0, "200", "{scheme}");
    }
    let with_password = |scheme: &str| house.url(scheme, "secret").replace("://", "://anna:s3cret@");
    ffmpeg_plays(&with_password("http"));
    ffmpeg_does_not_play(&with_password("http").replace("s3cret", "wrong"));
    for scheme in ["mmst", "mmsh"] {
        ffmpeg_does_not_play(&house.url(scheme, "secret"));
    }
    assert_eq!(player::mplayer(&with_password("mmsh"), 20).len(), 20);
    // Where a server says that it may ask, players that know no passwords play what is open to all.
    ffmpeg_plays(&house.url("mmst", "public"));
    assert_eq!(player::mplayer(&house.url("mmst", "public"), 20).len(), 20);
    let log = house.daemon.log();
    assert!(log.contains("wmrelay::auth: viewer not let in: peer=127.0.0.1 cause=wrong_password point=\"secret\""), "{log}");
    assert!(!log.contains("s3cret") && !log.contains("YW5uYTp"), "a password is in the log");
}

#[test]
fn passwords_and_signed_addresses_over_rtsp() {
    if !ready("passwords_and_signed_addresses_over_rtsp", FFMPEG) {
        return;
    }
    let house = House::open("");
    let daemon = &house.daemon;
    let url = |user: &str, name: &str| format!("rtsp://{user}{}/{name}", daemon.rtsp);
    ffmpeg_plays(&url("anna:s3cret@", "secret"));
    ffmpeg_does_not_play(&url("anna:wrong@", "secret"));
    ffmpeg_does_not_play(&url("", "secret"));
    ffmpeg_plays(&url("", &format!("signed{}", house.query(&["signed", "--for", "2h"]))));
    ffmpeg_plays(&url("", &format!("archive/{FILM}{}", house.query(&["archive/", "--for", "2h"]))));
    let key = house.key("signed", 3600, None);
    let status = |method: &str, name: &str| -> u16 {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(daemon.rtsp).unwrap();
        stream.set_read_timeout(Some(MINUTE)).unwrap();
        let transport = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1";
        write!(stream, "{method} rtsp://{}/{name} RTSP/1.0\r\nCSeq: 1\r\n{transport}\r\n\r\n", daemon.rtsp).unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        text(&head[9..]).parse().unwrap()
    };
    // A SETUP opens as well, so it is asked for the same.
    for (name, refused) in [
        (String::from("signed"), 403),
        (format!("signed{}", house.key("public", 3600, None)), 403),
        (format!("signed{}", house.key("signed", -3600, None)), 403),
        (format!("signed{}", house.key("signed", 3600, Some("127.0.0.2".parse().unwrap()))), 403),
        (String::from("secret"), 401),
        (String::from("nothing"), 404),
    ] {
        assert_eq!((status("DESCRIBE", &name), status("SETUP", &format!("{name}/video"))), (refused, refused), "{name}");
    }
    assert_eq!((status("DESCRIBE", &format!("signed{key}")), status("SETUP", &format!("signed{key}/video"))), (200, 200));
    let log = daemon.log();
    assert!(!log.contains("s3cret") && !log.contains(&key[3..]), "a secret is in the log");
}

#[test]
fn vlc_plays_what_is_open_beside_what_is_not() {
    if !ready("vlc_plays_what_is_open_beside_what_is_not", VLC) {
        return;
    }
    let house = House::open("");
    Vlc::play(&house.url("mmst", "public")).wait_for_pictures(20, MINUTE);
}

/// As Windows Media Player does it.
#[test]
fn passwords_over_mms() {
    let house = House::open("");
    let challenge = 0x0004_001A;
    let response = 0x0003_001A;
    let step = Duration::from_secs(10);
    let mut control = Control::connect(house.daemon.mms);
    control.send(mms::CONNECT, &mms::connect_body("NSPlayer/9.0.0.3250; {3F2504E0-4F89-41D3-9A0C-0305E82C3301}"));
    control.expect(mms::CONNECTED, step);
    control.send(mms::OPEN_FILE, &mms::open_body("secret"));
    let answer = |asked: &[u8], base64: &str| {
        // Incarnation and cookie are echoed.
        let mut body = asked[..8].to_vec();
        body.extend(u32::try_from(base64.len() + 1).unwrap().to_le_bytes());
        body.extend(base64.as_bytes());
        body.push(0);
        body
    };
    let asked = control.expect(challenge, step);
    let realm: Vec<u8> = "realm=\"studio\"".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(asked[12..12 + realm.len()], realm);
    control.send(response, &answer(&asked, "YW5uYTp3cm9uZw=="));
    let asked = control.expect(challenge, step);
    control.send(response, &answer(&asked, "YW5uYTpzM2NyZXQ="));
    assert_eq!(result_of(&control.expect(OPENED, step)), 0);
    assert!(house.daemon.log().contains("cause=wrong_password"));
}

#[test]
fn who_guesses_is_stopped_and_nobody_else() {
    if !ready("who_guesses_is_stopped_and_nobody_else", CURL) {
        return;
    }
    let house = House::open("");
    let watcher = Viewer::tcp(house.daemon.mms, "public");
    let url = house.url("http", "secret.m3u");
    let ask = |from: &str, password: &str| curl(&["--interface", from, "--basic", "--user", &format!("anna:{password}")], &url).0;
    for _ in 0..10 {
        assert_eq!(ask("127.0.0.9", "wrong"), "401");
    }
    assert_eq!(ask("127.0.0.9", "wrong"), "429");
    assert_eq!(ask("127.0.0.9", "s3cret"), "429", "not even looked at");
    assert_eq!(ask("127.0.0.10", "s3cret"), "200");
    let query = house.query(&["signed", "--for", "2h"]);
    assert_eq!(curl(&["--interface", "127.0.0.9"], &house.url("http", &format!("signed.m3u{query}"))).0, "200");
    let log = house.daemon.log();
    assert_eq!(log.matches("wmrelay::auth: viewer not let in: peer=127.0.0.9 cause=wrong_password").count(), 10, "{log}");
    wait_until("the metric", MINUTE, || house.daemon.metric("wmrelay_refusals_total", &[("cause", "guesses")]) == 2.0);
    watcher.wait_for_packets(5, MINUTE);
    watcher.assert_undisturbed();
}

#[test]
fn address_rules_of_one_publishing_point() {
    let point =
        |name: &str, rules: &str| format!("[[publishing_point]]\nname = \"{name}\"\nsource = {{ type = \"demo\" }}\n{rules}\n");
    let settings = [
        point("here", "allow = \"127.0.0.0/8\""),
        point("there", "allow = \"192.0.2.0/24\""),
        point("off", "deny = \"127.0.0.1\""),
    ];
    let daemon = Daemon::start(settings.concat());
    wait_for_source(&daemon, "here");
    for (name, result, status) in [("here", 0, 200), ("there", ACCESS_DENIED, 403), ("off", ACCESS_DENIED, 403)] {
        assert_eq!(open_over_mms(daemon.mms, name), result, "{name}");
        assert_eq!(http_get(daemon.http, &format!("/{name}.asx")).0, status, "{name}");
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn keys_are_written_once_and_for_their_owner() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    let made = wmrelay(&["sign", "--new-key", path(&file)], "");
    assert!(made.status.success() && made.stdout.is_empty(), "{}", text(&made.stderr));
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);
    let before = std::fs::read_to_string(&file).unwrap();
    let again = wmrelay(&["sign", "--new-key", path(&file)], "");
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("is there already"), "{}", text(&again.stderr));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
    let other = folder.path().join("other");
    assert!(wmrelay(&["sign", "--new-key", path(&other)], "").status.success());
    assert_ne!(std::fs::read_to_string(&other).unwrap(), before);
}

#[test]
fn settings_that_could_let_nobody_in_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("w.toml");
    let point = "[[publishing_point]]\nname = \"cam\"\nsource = { type = \"push\" }\naccess = ";
    for (settings, place, word) in [
        (format!("{point}\"signed\""), ":4: publishing_point[0].access: ", "wmrelay sign --new-key"),
        (format!("{point}\"users\""), ":4: publishing_point[0].access: ", "wmrelay passwd"),
        (format!("{point}\"sigend\""), ":4: publishing_point[0].access: ", "did you mean \"signed\"?"),
        ("[access]\nviewers = \"signed\"".to_owned(), ":2: access.viewers: ", "wmrelay sign --new-key"),
        (format!("signing.key_file = \"none\"\n{point}\"signed\""), ":1: signing.key_file: ", "cannot be read"),
        (format!("signing.key_file = \"w.toml\"\n{point}\"signed\""), "w.toml:1: ", "64 hexadecimal digits"),
        (format!("users.viewers_file = \"none\"\n{point}\"users\""), ":1: users.viewers_file: ", "cannot be read"),
    ] {
        std::fs::write(&file, &settings).unwrap();
        let done = wmrelay(&["check", "--config", path(&file)], "");
        let told = text(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{settings}: {told}");
        assert!(told.contains(place) && told.contains(word), "{settings}: {told}");
        let serve = wmrelay(
            &[
                "serve",
                "--mms-listen",
                "127.0.0.1:0",
                "--http-listen",
                "",
                "--rtsp-listen",
                "",
                "--admin-listen",
                "",
                "--config",
                path(&file),
            ],
            "",
        );
        assert_eq!(serve.status.code(), Some(2), "{settings}: {}", text(&serve.stderr));
    }
    std::fs::write(&file, "[[publishing_point]]\nname = \"cam\"\nsource = { type = \"push\" }").unwrap();
    let done = wmrelay(&["sign", "cam", "--for", "2h", "--config", path(&file)], "");
    assert!(!done.status.success() && text(&done.stderr).contains("[signing] key_file"), "{}", text(&done.stderr));
}
