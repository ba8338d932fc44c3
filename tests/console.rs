//! The web console, end to end: what it answers to whom, and as Chromium shows it.
//!
//! With `WMRELAY_TEST_PICTURES=FOLDER` the browser's pictures of all pages are left there.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a panic is this test's report; and it runs on the real clock"
)]

mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::accounts::accounts;
use support::browser::Browser;
use support::daemon::{Daemon, Launch};
use support::process::Process;
use support::viewer::Viewer;
use support::{Need, ready, tls, wait_for, wait_until};

/// All routes: method, path, and who may: 0 everybody, 1 viewers, 2 publishers, 3 operators.
const ROUTES: [(&str, &str, usize); 20] = [
    ("GET", "/sign-in", 0),
    ("POST", "/sign-in", 0),
    ("GET", "/assets/console.css", 0),
    ("GET", "/assets/console.js", 0),
    ("GET", "/assets/icon.svg", 0),
    ("GET", "/", 1),
    ("GET", "/still", 1),
    ("POST", "/sign-out", 1),
    ("GET", "/sources", 2),
    ("GET", "/sources/disconnect", 3),
    ("POST", "/sources/disconnect", 3),
    ("GET", "/viewers", 3),
    ("GET", "/viewers/{session}", 3),
    ("GET", "/viewers/{session}/kick", 3),
    ("POST", "/viewers/{session}/kick", 3),
    ("GET", "/load", 3),
    ("GET", "/leases", 3),
    ("GET", "/firewall", 3),
    ("GET", "/probe", 3),
    ("GET", "/users", 3),
];
/// The last one, which ends what the test goes on with.
const SIGN_OUT_OTHERS: (&str, &str, usize) = ("POST", "/users/sign-out", 3);

/// What was answered.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(": ")?;
            known.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// The value of a cookie that is set.
    fn cookie(&self, name: &str) -> Option<&str> {
        let set = self.head.lines().filter_map(|line| line.split_once(": ")).filter(|(known, _)| *known == "set-cookie");
        set.filter_map(|(_, value)| value.split(';').next()?.strip_prefix(name)?.strip_prefix('=')).next()
    }

    /// The token that the page's forms carry.
    fn form_token(&self) -> String {
        let page = self.text();
        page.split("name=\"form_token\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    }
}

/// One request, with these fields of its head.
fn ask(address: SocketAddr, method: &str, path: &str, fields: &[(&str, &str)], form: Option<&str>) -> Answer {
    let mut stream = tls::connect(address).unwrap();
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in fields {
        write!(request, "{name}: {value}\r\n").unwrap();
    }
    let form = form.unwrap_or_default();
    if method == "POST" {
        request.push_str("Content-Type: application/x-www-form-urlencoded\r\n");
    }
    write!(request, "Content-Length: {}\r\n\r\n{form}", form.len()).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // The end may come without TLS's own word for it.
    let _ = stream.read_to_end(&mut answer);
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or_else(|| panic!("{method} {path}: no answer"));
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    Answer { status: head.split(' ').nth(1).unwrap().parse().unwrap(), head, body: answer[end + 4..].to_vec() }
}

/// Sends the form of signing in, as a browser does.
fn sign_in_with(address: SocketAddr, user: &str, password: &str, next: &str) -> Answer {
    let page = ask(address, "GET", "/sign-in", &[], None);
    let before = page.cookie("__Host-wmrelay-sign-in").unwrap();
    let form = format!("form_token={}&user={user}&password={password}&next={next}", page.form_token());
    let cookie = format!("__Host-wmrelay-sign-in={before}");
    ask(address, "POST", "/sign-in", &[("Cookie", &cookie), ("Sec-Fetch-Site", "same-origin")], Some(&form))
}

/// Somebody who has signed in.
struct Somebody {
    console: SocketAddr,
    cookie: String,
    form_token: String,
}

impl Somebody {
    fn new(console: SocketAddr, user: &str) -> Self {
        let answer = sign_in_with(console, user, "geheim", "/");
        assert_eq!((answer.status, answer.header("location")), (303, Some("/")), "{answer:?}");
        let cookie = format!("__Host-wmrelay={}", answer.cookie("__Host-wmrelay").unwrap());
        let form_token = ask(console, "GET", "/", &[("Cookie", &cookie)], None).form_token();
        Self { console, cookie, form_token }
    }

    fn get(&self, path: &str) -> Answer {
        ask(self.console, "GET", path, &[("Cookie", &self.cookie)], None)
    }

    fn post(&self, path: &str, form: &str) -> Answer {
        let form = format!("form_token={}&{form}", self.form_token);
        ask(self.console, "POST", path, &[("Cookie", &self.cookie), ("Sec-Fetch-Site", "same-origin")], Some(&form))
    }
}

fn launch(settings: &str, accounts: &Path) -> Daemon {
    Launch::new(settings).control(format!("users_file = {accounts:?}")).console().start()
}

#[test]
fn no_role_sees_what_it_may_not() {
    // Whoever adds a route has to say here who may use it.
    let source = include_str!("../src/console/mod.rs");
    for known in source.split(".route(\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(ROUTES.iter().chain([&SIGN_OUT_OTHERS]).any(|(_, path, _)| *path == known), "{known} is not in this table");
    }
    let (_folder, file) = accounts();
    let daemon = launch("", &file);
    let roles = ["viewer", "publisher", "operator"].map(|role| Somebody::new(daemon.console, role));
    let mut asked = 0;
    for (method, path, least) in ROUTES.into_iter().chain([SIGN_OUT_OTHERS]).filter(|(_, path, _)| *path != "/sign-out") {
        let path = path.replace("{session}", "123456");
        for level in 0..=3 {
            let answer = match (level, method) {
                (0, _) => ask(daemon.console, method, &path, &[], Some("user=nobody&point=nowhere")),
                (_, "GET") => roles[level - 1].get(&path),
                _ => roles[level - 1].post(&path, "user=nobody&point=nowhere"),
            };
            let told = format!("{method} {path} at level {level}: {} {:?}", answer.status, answer.header("location"));
            let to_sign_in = answer.status == 303 && answer.header("location").is_some_and(|to| to.starts_with("/sign-in"));
            if level < least {
                let refused = match (level, path.as_str()) {
                    // A part of a page is not sent to another page.
                    (0, "/still") => answer.status == 401 && answer.cookie("__Host-wmrelay-sign-in").is_none(),
                    (0, _) => to_sign_in,
                    _ => answer.status == 403,
                };
                assert!(refused && !answer.text().contains("127.0.0.1"), "{told}");
            } else if (method, path.as_str()) == ("POST", "/sign-in") {
                assert_eq!(answer.status, 403, "without its form: {told}");
            } else {
                assert!(!to_sign_in && ![401, 403, 405].contains(&answer.status) && answer.status < 500, "{told}");
            }
            asked += 1;
        }
    }
    assert_eq!(asked, 20 * 4);

    // A form that is not ours changes nothing, whoever is signed in.
    let operator = &roles[2];
    let (cookie, form) = (("Cookie", operator.cookie.as_str()), format!("form_token={}&point=demo", operator.form_token));
    for (fields, form) in [
        (&[cookie][..], "point=demo"),
        (&[cookie], &format!("form_token={}&point=demo", roles[1].form_token)),
        (&[cookie, ("Sec-Fetch-Site", "cross-site")], &form),
        (&[cookie, ("Sec-Fetch-Site", "same-site")], &form),
        (&[cookie, ("Origin", "https://evil.example")], &form),
    ] {
        let answer = ask(daemon.console, "POST", "/sources/disconnect", fields, Some(form));
        assert_eq!(answer.status, 403, "{fields:?}");
    }
    assert!(!daemon.log().contains("disconnected by"), "{}", daemon.log());
    let own_page = [cookie, ("Origin", &format!("https://{}", daemon.console))];
    assert_eq!(ask(daemon.console, "POST", "/sources/disconnect", &own_page, Some(&form)).status, 303);
    wait_until("the source's end in the log", Duration::from_secs(10), || daemon.log().contains("disconnected by an operator"));
}

#[test]
fn what_cannot_be_undone_is_asked_first() {
    let (_folder, file) = accounts();
    let daemon = launch("[[publishing_point]]\nname = \"a&b\"\nsource = { type = \"demo\" }\n", &file);
    let operator = Somebody::new(daemon.console, "operator");
    let list = wait_for("a source that sends", Duration::from_secs(20), || {
        let page = operator.get("/sources").text();
        page.contains("href=\"/sources/disconnect?point=a%26b\"").then_some(page)
    });
    assert!(!list.contains("action=\"/sources/disconnect\""), "{list}");
    let question = operator.get("/sources/disconnect?point=a%26b").text();
    assert!(
        question.contains("Disconnect the source of a&amp;b?") && question.contains("name=\"point\" value=\"a&amp;b\""),
        "{question}"
    );
    assert!(question.contains(&format!("name=\"form_token\" value=\"{}\"", operator.form_token)), "{question}");
    assert!(!daemon.log().contains("disconnected by"), "{}", daemon.log());
    assert_eq!(operator.post("/sources/disconnect", "point=a%26b").status, 303);
    wait_until("the source's end in the log", Duration::from_secs(10), || daemon.log().contains("disconnected by an operator"));

    let viewer = Viewer::tcp(daemon.mms, "a&b");
    viewer.wait_for_packets(1, Duration::from_secs(20));
    let question = operator.get("/viewers/1/kick").text();
    assert!(question.contains("End session 1?") && question.contains("<dd>127.0.0.1</dd>"), "{question}");
    assert!(question.contains("action=\"/viewers/1/kick\"") && viewer.ended().is_none(), "{question}");
    assert_eq!(operator.post("/viewers/1/kick", "").header("location"), Some("/viewers?done=kicked"));
    wait_for("the viewer's end", Duration::from_secs(10), || viewer.ended());
    // Of what is over nothing is asked any more.
    wait_until("the session's own page", Duration::from_secs(10), || {
        operator.get("/viewers/1/kick").header("location") == Some("/viewers/1")
    });
    assert_eq!(["/viewers/2/kick", "/sources/disconnect?point=b"].map(|path| operator.get(path).status), [404, 404]);
}

#[test]
fn every_answer_is_secured() {
    let (_folder, file) = accounts();
    let daemon = launch("", &file);
    let operator = Somebody::new(daemon.console, "operator");
    for (path, status, cache) in [
        ("/", 200, "no-store"),
        ("/viewers", 200, "no-store"),
        ("/viewers/none", 404, "no-store"),
        ("/still?point=none", 404, "no-store"),
        ("/none", 404, "no-store"),
        ("/sign-out", 405, "no-store"),
        ("/sign-in", 303, "no-store"),
        ("/assets/console.css", 200, "max-age=3600"),
    ] {
        let answer = operator.get(path);
        assert_eq!((answer.status, answer.header("cache-control")), (status, Some(cache)), "{path}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; ") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        for (name, value) in
            [("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer"), ("x-frame-options", "DENY")]
        {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
        // With a certificate of its own that would lock people out.
        assert_eq!(answer.header("strict-transport-security"), None);
        let page = answer.text();
        assert!(
            !page.contains("<style") && !page.contains(" style=") && !page.contains("<script>") && !page.contains(" onclick")
        );
    }
    let signed_in = sign_in_with(daemon.console, "viewer", "geheim", "/");
    let cookie = signed_in.head.lines().find(|line| line.contains("__Host-wmrelay=")).unwrap();
    for word in ["; Path=/", "; Secure", "; HttpOnly", "; SameSite=Strict", "; Max-Age=43200"] {
        assert!(cookie.contains(word), "{cookie}");
    }
    assert!(!cookie.contains("Domain"), "{cookie}");
    // Longer than any form.
    assert_eq!(operator.post("/sources/disconnect", &format!("point={}", "a".repeat(20_000))).status, 413);
    let odd = ask(daemon.console, "DELETE", "/viewers", &[("Cookie", &operator.cookie)], None);
    assert!([403, 405, 415].contains(&odd.status), "{odd:?}");
}

#[test]
fn signing_in_leads_back_and_cannot_be_tried_for_ever() {
    let (_folder, file) = accounts();
    let daemon = launch("", &file);
    let away = ask(daemon.console, "GET", "/firewall?viewers=10&side=viewer", &[], None);
    let to = away.header("location").unwrap();
    assert_eq!(to, "/sign-in?next=/firewall%3Fviewers%3D10%26side%3Dviewer");
    assert!(ask(daemon.console, "GET", to, &[], None).text().contains("value=\"/firewall?viewers=10&amp;side=viewer\""));
    for (next, expected) in [
        ("%2Ffirewall%3Fviewers%3D10", "/firewall?viewers=10"),
        ("https%3A%2F%2Fevil.example%2F", "/"),
        ("%2F%2Fevil.example", "/"),
        ("%2F%5Cevil.example", "/"),
        ("%2Fa%0D%0ASet-Cookie%3Aa%3Db", "/"),
    ] {
        let answer = sign_in_with(daemon.console, "operator", "geheim", next);
        assert_eq!((answer.status, answer.header("location")), (303, Some(expected)), "{next}");
    }
    // Who asks for no page is not led to one, and gets no cookie.
    let by_script = [("Sec-Fetch-Dest", "empty"), ("Sec-Fetch-Mode", "cors")];
    for fields in [&by_script[..], &[("Sec-Fetch-Dest", "image")]] {
        let answer = ask(daemon.console, "GET", "/viewers", fields, None);
        assert!(answer.status == 401 && answer.header("set-cookie").is_none(), "{answer:?}");
    }
    // A form that was open for too long comes again, with the name, and is good then.
    let stale = "form_token=of-yesterday&user=operator&password=geheim&next=%2Fviewers";
    let same = ("Sec-Fetch-Site", "same-origin");
    let again = ask(daemon.console, "POST", "/sign-in", &[same], Some(stale));
    let page = again.text();
    assert!(again.status == 403 && page.contains("Send it once more") && page.contains("value=\"operator\""), "{page}");
    let cookie = format!("__Host-wmrelay-sign-in={}", again.cookie("__Host-wmrelay-sign-in").unwrap());
    let form = stale.replace("of-yesterday", &again.form_token());
    let answer = ask(daemon.console, "POST", "/sign-in", &[same, ("Cookie", &cookie)], Some(&form));
    assert_eq!((answer.status, answer.header("location")), (303, Some("/viewers")));
    let from_elsewhere = ask(daemon.console, "POST", "/sign-in", &[("Sec-Fetch-Site", "cross-site")], Some(stale));
    assert!(from_elsewhere.status == 403 && from_elsewhere.header("set-cookie").is_none());
    // Who signs in again is signed out of what was there before.
    let before = Somebody::new(daemon.console, "viewer");
    let page = ask(daemon.console, "GET", "/sign-in", &[], None);
    let cookies = format!("{}; __Host-wmrelay-sign-in={}", before.cookie, page.cookie("__Host-wmrelay-sign-in").unwrap());
    let form = format!("form_token={}&user=viewer&password=geheim", page.form_token());
    assert_eq!(ask(daemon.console, "POST", "/sign-in", &[same, ("Cookie", &cookies)], Some(&form)).status, 303);
    assert_eq!(before.get("/").status, 303);
    // What is signed out, by oneself or by an operator, opens nothing.
    let (one, other) = (Somebody::new(daemon.console, "viewer"), Somebody::new(daemon.console, "viewer"));
    let operator = Somebody::new(daemon.console, "operator");
    let out = one.post("/sign-out", "");
    assert!(out.status == 303 && out.head.contains("__Host-wmrelay=; ") && out.head.contains("Max-Age=0"), "{out:?}");
    assert_eq!((one.get("/").status, other.get("/").status), (303, 200));
    assert_eq!(operator.post("/users/sign-out", "user=viewer").status, 303);
    assert_eq!(other.get("/").status, 303);

    // The name comes back as text, the password not at all.
    let wrong = sign_in_with(daemon.console, "%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E", "offen", "/");
    let page = wrong.text();
    assert_eq!(wrong.status, 401);
    assert!(page.contains("Name or password is wrong.") && !page.contains("<script>") && !page.contains("offen"), "{page}");
    assert!(page.contains("&quot;&gt;&lt;script&gt;"), "{page}");
    let tried: Vec<u16> = (0..12).map(|_| sign_in_with(daemon.console, "operator", "offen", "/").status).collect();
    assert_eq!((tried[0], tried[11]), (401, 429), "{tried:?}");
    assert!(daemon.log().contains("nobody was signed in at the console") && !daemon.log().contains("offen"));
}

#[test]
fn what_comes_from_outside_is_escaped() {
    let (_folder, file) = accounts();
    let title = "<script>alert(1)</script>&\\\"'";
    let daemon =
        launch(&format!("[[publishing_point]]\nname = \"a\"\ntitle = \"{title}\"\nsource = {{ type = \"demo\" }}\n"), &file);
    let operator = Somebody::new(daemon.console, "operator");
    let page = operator.get("/").text();
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&amp;&quot;'") && !page.contains("<script>alert"), "{page}");
    let hostile = "%22%3E%3Cimg%20src%3Dx%3E";
    for path in ["/firewall?viewers=10&site=", "/firewall?client_net=", "/firewall?server=", "/viewers?done=", "/sign-in?next="] {
        let page = operator.get(&format!("{path}{hostile}")).text();
        assert!(!page.contains("<img src=x"), "{path}: {page}");
    }
}

#[test]
fn without_users_it_is_for_this_machine_and_says_what_to_do() {
    let daemon = Launch::new("").listen(["127.0.0.1:0", "0.0.0.0:0", "127.0.0.1:0"]).console().start();
    assert!(daemon.console.ip().is_loopback(), "{}", daemon.console);
    let page = ask(daemon.console, "GET", "/sign-in", &[], None).text();
    assert!(page.contains("Nobody may sign in yet") && page.contains("wmrelay passwd --role operator"), "{page}");
    assert_eq!(sign_in_with(daemon.console, "operator", "geheim", "/").status, 401);
}

/// The brightness of 64 by 48 points of a picture.
fn luma(picture: &[u8]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("picture.jpg");
    std::fs::write(&file, picture).unwrap();
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-i"]).arg(&file).args([
        "-vf",
        "scale=64:48",
        "-pix_fmt",
        "gray",
        "-f",
        "rawvideo",
        "-",
    ]);
    let luma = command.output().unwrap().stdout;
    assert_eq!(luma.len(), 64 * 48);
    luma
}

#[test]
fn a_still_is_the_last_key_frame_and_starts_no_source() {
    if !ready("a_still_is_the_last_key_frame_and_starts_no_source", &[Need::Program("ffmpeg")]) {
        return;
    }
    let (_folder, file) = accounts();
    let asleep = "[[publishing_point]]\nname = \"asleep\"\nsource = { type = \"exec\", argv = [\"sleep\", \"1000\"], start = \"watched\" }\n";
    let daemon = launch(&format!("[[publishing_point]]\nname = \"demo\"\nsource = {{ type = \"demo\" }}\n{asleep}"), &file);
    let viewer = Somebody::new(daemon.console, "viewer");
    let still = wait_for("a still", Duration::from_secs(60), || {
        let still = viewer.get("/still?point=demo");
        (still.header("content-type") == Some("image/jpeg")).then_some(still)
    });
    assert!(still.body.starts_with(&[0xFF, 0xD8]) && still.body.ends_with(&[0xFF, 0xD9]), "{} bytes", still.body.len());
    assert_eq!(still.header("x-still"), Some("fresh"));
    if let Some(folder) = pictures() {
        std::fs::write(folder.join("still.jpg"), &still.body).unwrap();
    }
    // What a decoder makes of other frames than key frames is grey, with what moves in it.
    let grey = luma(&still.body).iter().filter(|luma| luma.abs_diff(128) < 8).count();
    assert!(grey < 64 * 48 / 2, "{grey} of {} points are grey", 64 * 48);
    // Nothing runs for it when it is made, and nothing was started by who looked.
    wait_until("no child", Duration::from_secs(10), || support::process::children_of(daemon.id()).is_empty());
    let none = viewer.get("/still?point=asleep");
    assert_eq!((none.status, none.header("content-type"), none.header("x-still")), (200, Some("image/svg+xml"), Some("none")));
    assert!(support::process::children_of(daemon.id()).is_empty());
    let sources = daemon.command(&["sources"]).0;
    assert!(sources.lines().any(|line| line.contains("asleep") && !line.contains("up")), "{sources}");
}

#[test]
fn who_may_not_watch_sees_no_picture() {
    let (_folder, file) = accounts();
    let source = "source = { type = \"demo\" }";
    let points = format!(
        "[[publishing_point]]\nname = \"open\"\n{source}\n[[publishing_point]]\nname = \"closed\"\ndeny = [\"127.0.0.0/8\"]\n{source}\n"
    );
    let daemon = launch(&points, &file);
    let [viewer, publisher, operator] = ["viewer", "publisher", "operator"].map(|role| Somebody::new(daemon.console, role));
    let of = |somebody: &Somebody| ["/still?point=open", "/still?point=closed"].map(|path| somebody.get(path).status);
    assert_eq!([of(&viewer), of(&publisher), of(&operator)], [[200, 403], [200, 403], [200, 200]]);
    // Names are those of the settings to the letter.
    assert_eq!(operator.get("/still?point=OPEN").status, 404);
    if !ready("who_may_not_watch_sees_no_picture", &[Need::Program("ffmpeg")]) {
        return;
    }
    let stills = |somebody: &Somebody| somebody.get("/").text().matches("src=\"/still").count();
    wait_until("two that are live", Duration::from_secs(20), || stills(&operator) == 2);
    assert_eq!(stills(&viewer), 1);
}

#[test]
fn without_ffmpeg_the_page_says_so_once() {
    let (_folder, file) = accounts();
    let two = "[[publishing_point]]\nname = \"a\"\nsource = { type = \"demo\" }\n[[publishing_point]]\nname = \"b\"\nsource = { type = \"demo\" }\n";
    let daemon = Launch::new(two).control(format!("users_file = {file:?}")).console().without_programs().start();
    let viewer = Somebody::new(daemon.console, "viewer");
    let page = wait_for("two that are live", Duration::from_secs(20), || {
        let page = viewer.get("/").text();
        (page.matches(">Live<").count() == 2).then_some(page)
    });
    assert!(page.matches("there is no ffmpeg on this machine").count() == 1 && !page.contains("src=\"/still"), "{page}");
    assert_eq!(viewer.get("/still?point=a").header("content-type"), Some("image/svg+xml"));
}

const BROWSER: [Need; 2] = [Need::Program("chromium"), Need::Program("chromedriver")];

/// Where the pictures go, if anybody wants them.
fn pictures() -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("WMRELAY_TEST_PICTURES")?);
    std::fs::create_dir_all(&folder).unwrap();
    Some(folder)
}

/// A port that nothing has, for settings that have to name one.
fn free_port() -> u16 {
    TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port()
}

/// Runs a probe from this machine.
fn probe(daemon: &Daemon) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wmrelay"));
    let control = daemon.control.port().to_string();
    command.args(["probe", "127.0.0.1", "--viewers", "2", "--user", "operator", "--insecure", "--control", &control]);
    command.env("WMRELAY_PASSWORD", "geheim");
    let said = Process::start(command).finish(Duration::from_secs(60));
    assert!(said.stdout.contains("OPEN"), "{}{}", said.stdout, said.stderr);
}

/// A daemon whose firewall can be planned: viewers can reach it. With the address by which this machine does.
fn reachable(file: &Path) -> (Daemon, SocketAddr) {
    let port = free_port();
    let listen: &'static str = format!("0.0.0.0:{port}").leak();
    let settings = "[[publishing_point]]\nname = \"demo\"\ntitle = \"The built-in picture\"\nsource = { type = \"demo\" }\n\
                    [[publishing_point]]\nname = \"cam1\"\nsource = { type = \"push\" }\n";
    let launch = Launch::new(settings).listen([listen, "127.0.0.1:0", "127.0.0.1:0"]);
    let daemon = launch.control(format!("users_file = {file:?}")).console().start();
    (daemon, SocketAddr::from(([127, 0, 0, 1], port)))
}

fn sign_in_by_hand(browser: &Browser, console: SocketAddr) {
    browser.open(&format!("https://{console}/viewers"));
    assert!(browser.url().ends_with("/sign-in?next=/viewers"), "{}", browser.url());
    browser.write("input[name=user]", "operator");
    browser.write("input[name=password]", "geheim");
    browser.click("main button");
    browser.wait_for_text("h1", "Viewers");
}

/// What is wrong with a page for those who see little, or not at all, or have a small screen.
const AUDIT: &str = r#"
    const faults = [], width = arguments.length ? arguments[0] : innerWidth;
    const colour = (text) => { const n = text.match(/[\d.]+/g).map(Number); return n.length > 3 ? n : [...n, 1]; };
    const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
    const ground = (element) => {
        const layers = [];
        for (let e = element; e; e = e.parentElement) {
            const c = colour(getComputedStyle(e).backgroundColor);
            layers.push(c);
            if (c[3] === 1) break;
        }
        const canvas = matchMedia('(prefers-color-scheme: dark)').matches ? [18, 18, 18, 1] : [255, 255, 255, 1];
        return layers.reverse().reduce((below, top) => over(top, below), canvas);
    };
    const light = (c) => [0, 1, 2].map((i) => { const v = c[i] / 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; })
        .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
    const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
    let texts = 0;
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        const element = node.parentElement, box = element.getBoundingClientRect(), style = getComputedStyle(element);
        if (!node.data.trim() || box.width <= 1 || box.height <= 1 || style.visibility === 'hidden') continue;
        texts += 1;
        const back = ground(element), contrast = ratio(over(colour(style.color), back), back);
        if (contrast < 4.5) faults.push(`contrast ${contrast.toFixed(2)} of "${node.data.trim()}"`);
    }
    if (texts < 5) faults.push(`${texts} texts were looked at`);
    for (const field of document.querySelectorAll('input:not([type=hidden]), select, textarea')) {
        if (!field.labels.length && !field.getAttribute('aria-label')) faults.push(`no label of ${field.name}`);
        const back = ground(field.parentElement), own = ground(field), style = getComputedStyle(field);
        if (ratio(colour(style.color), own) < 4.5) faults.push(`contrast of the field ${field.name}`);
        if (field.type !== 'checkbox' && ratio(colour(style.borderTopColor), back) < 3) faults.push(`border of ${field.name}`);
    }
    for (const image of document.querySelectorAll('img')) if (!image.hasAttribute('alt')) faults.push(`no alt of ${image.src}`);
    for (const button of document.querySelectorAll('button, a')) if (!button.textContent.trim()) faults.push('a button without words');
    const ids = [...document.querySelectorAll('[id]')].map((element) => element.id);
    if (new Set(ids).size !== ids.length) faults.push(`ids twice: ${ids}`);
    if (document.querySelectorAll('h1').length !== 1) faults.push('not one h1');
    if (document.documentElement.lang !== 'en') faults.push('no lang');
    if (!document.title) faults.push('no title');
    if (document.documentElement.scrollWidth > innerWidth) faults.push(`${document.documentElement.scrollWidth} wide of ${innerWidth}`);
    const foreign = performance.getEntriesByType('resource').filter((entry) => new URL(entry.name).origin !== location.origin);
    if (foreign.length) faults.push(`fetched elsewhere: ${foreign.map((entry) => entry.name)}`);
    return faults;
"#;

fn audit(browser: &Browser, page: &str, size: &str) {
    for scheme in ["light", "dark"] {
        browser.colours(scheme);
        let faults = browser.run(AUDIT);
        assert_eq!(faults.as_array().map(Vec::len), Some(0), "{page}, {size}, {scheme}: {faults}");
        if let Some(folder) = pictures() {
            browser.picture(&folder.join(format!("{page}-{size}-{scheme}.png")));
        }
    }
}

/// Browsers write errors of pages and of what these load.
fn assert_no_complaints(browser: &Browser, page: &str) {
    let complaints = browser.complaints();
    assert!(complaints.is_empty(), "{page}: {complaints:?}");
}

#[test]
fn an_operator_sees_a_viewer_come_and_sends_it_away() {
    if !ready("an_operator_sees_a_viewer_come_and_sends_it_away", &BROWSER) {
        return;
    }
    let (_folder, file) = accounts();
    let (daemon, mms) = reachable(&file);
    let browser = Browser::start(1280, 900, true);
    sign_in_by_hand(&browser, daemon.console);
    browser.wait_for_text("#sessions", "Nobody watches.");
    browser.run("window.sameDocument = true;");
    let viewer = Viewer::tcp(mms, "demo");
    browser.wait_for_text("#sessions", "demo");
    assert_eq!(browser.run("return window.sameDocument === true"), true, "it came without a reload");
    let session = browser.text("#sessions tbody th");

    // Whoever did not mean it goes back.
    browser.click(&format!("#kick-{session}"));
    browser.wait_for_text("h1", &format!("End session {session}?"));
    browser.click("main form a");
    browser.wait_for_text("#sessions", "demo");
    assert!(viewer.ended().is_none());
    browser.click(&format!("#kick-{session}"));
    browser.wait_for_text("h1", &format!("End session {session}?"));
    browser.click("main button");
    browser.wait_for_text(".notice", "The session is ended.");
    wait_for("the viewer's end", Duration::from_secs(10), || viewer.ended());
    browser.wait_for_text("#sessions", "Nobody watches.");
    browser.wait_for_text("#ended", "an operator ended it");
    // A reload by hand does not tell it again.
    wait_until("the address without what was done", Duration::from_secs(10), || browser.url().ends_with("/viewers"));
    browser.click("#ended th a");
    browser.wait_for_text("ol.steps", "it was sent the first packet of media");

    // The firewall, for ten.
    browser.click("nav a[href='/firewall']");
    browser.wait_for_text("h1", "Firewall");
    browser.write("input[name=site]", "Head office");
    browser.click("form.fields button");
    browser.wait_for_text(".sheet h2", "Head office");
    let plan = browser.text(".sheet pre");
    assert!(plan.contains("1024-1033") && plan.contains("10 viewers"), "{plan}");
    browser.click("nav a[href='/probe']");
    browser.wait_for_text(".how", "wmrelay probe 127.0.0.1 --viewers 10");
    browser.wait_for_text("#probes", "None has reported yet.");
    probe(&daemon);
    browser.wait_for_text("#probes", "OPEN");
    assert!(browser.text("#probes").contains("2 viewers of 127.0.0.1"));
    browser.click("nav a[href='/users']");
    browser.wait_for_text("tbody", "operator");
    assert_no_complaints(&browser, "the way through");

    browser.click(".who button");
    browser.wait_for_text("h1", "Sign in");
    browser.open(&format!("https://{}/viewers", daemon.console));
    browser.wait_for_text("h1", "Sign in");
}

#[test]
fn what_is_live_moves_nothing_from_under_anybodys_hands() {
    if !ready("what_is_live_moves_nothing_from_under_anybodys_hands", &[BROWSER[0], BROWSER[1], Need::Program("ffmpeg")]) {
        return;
    }
    let (_folder, file) = accounts();
    let point = |name: &str| format!("[[publishing_point]]\nname = \"{name}\"\nsource = {{ type = \"demo\" }}\n");
    let daemon = launch(&format!("{}{}", point("a"), point("b")), &file);
    let browser = Browser::start(1280, 900, true);
    sign_in_by_hand(&browser, daemon.console);
    browser.open(&format!("https://{}/", daemon.console));
    let seen = |script: &str| wait_until(script, Duration::from_secs(60), || browser.run(&format!("return {script}")) == true);
    let cards = |count: usize| seen(&format!("document.querySelectorAll('.card').length === {count}"));
    cards(2);
    // Both come by themselves: at first there are none, and the script asks again.
    seen("[...document.images].filter((image) => image.src.includes('at=') && image.naturalWidth > 0).length === 2");
    browser.run(
        "window.card = [...document.querySelectorAll('.card')].find((card) => card.querySelector('h2').textContent === 'b');
         [window.still, window.summary] = [window.card.querySelector('img'), window.card.querySelector('summary')];
         window.summary.click(); window.summary.focus();",
    );
    // The first one goes: what is left is the other one with its picture, open, and still at hand.
    let settings = daemon.folder().join("wmrelay.toml");
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, text.replace(&point("a"), "")).unwrap();
    assert_eq!(daemon.command(&["reload"]).1, Some(0));
    cards(1);
    let same = browser.run(
        "return [document.querySelector('.card') === window.card, document.querySelector('img.still') === window.still,
            window.still.src.includes('point=b&at='), document.querySelector('.card details').open,
            document.activeElement === window.summary];",
    );
    assert_eq!(same, serde_json::json!([true, true, true, true, true]));

    // While words are selected they stay as they are.
    browser.run("getSelection().selectAllChildren(document.querySelector('.card h2'));");
    std::fs::write(&settings, text.replace(&point("a"), &point("c"))).unwrap();
    assert_eq!(daemon.command(&["reload"]).1, Some(0));
    browser.run(
        "window.asked = 0; const ask = window.fetch; window.fetch = (...what) => { if (!what[1].method) window.asked += 1; return ask(...what); };",
    );
    seen("window.asked >= 3");
    assert_eq!(browser.run("return document.querySelectorAll('.card').length"), 1);
    browser.run("getSelection().removeAllRanges();");
    cards(2);
    assert_eq!(browser.run("return document.querySelectorAll('.card')[1] === window.card"), true);
}

#[test]
fn without_a_script_it_does_the_same() {
    if !ready("without_a_script_it_does_the_same", &BROWSER) {
        return;
    }
    let (_folder, file) = accounts();
    let (daemon, mms) = reachable(&file);
    let viewer = Viewer::tcp(mms, "demo");
    viewer.wait_for_packets(1, Duration::from_secs(20));
    let browser = Browser::start(1280, 900, false);
    sign_in_by_hand(&browser, daemon.console);
    let session = browser.text("#sessions tbody th");
    browser.click(&format!("#kick-{session}"));
    browser.wait_for_text("h1", &format!("End session {session}?"));
    browser.click("main button");
    browser.wait_for_text(".notice", "The session is ended.");
    // With a script the address would be without it by now.
    assert!(browser.url().ends_with("?done=kicked"), "{}", browser.url());
    wait_for("the viewer's end", Duration::from_secs(10), || viewer.ended());
}

#[test]
fn all_can_read_it_on_any_screen() {
    if !ready("all_can_read_it_on_any_screen", &BROWSER) {
        return;
    }
    let (_folder, file) = accounts();
    let (daemon, mms) = reachable(&file);
    let over_tcp = Viewer::tcp(mms, "demo");
    let over_udp: Vec<_> = [4960, 4961, 4965].into_iter().map(|port| Viewer::udp(mms, "demo", port, None)).collect();
    over_tcp.wait_for_packets(1, Duration::from_secs(20));
    over_udp.iter().for_each(|viewer| viewer.wait_for_packets(1, Duration::from_secs(20)));
    probe(&daemon);
    // One that is over.
    let gone = Viewer::tcp(mms, "demo");
    gone.wait_for_packets(1, Duration::from_secs(20));
    drop(gone);
    let pages: BTreeMap<&str, &str> = [
        ("streams", "/"),
        ("sources", "/sources"),
        ("viewers", "/viewers"),
        ("session", "/viewers/1"),
        ("session-end", "/viewers/1/kick"),
        ("source-disconnect", "/sources/disconnect?point=demo"),
        ("load", "/load"),
        ("ports", "/leases"),
        ("firewall", "/firewall?viewers=10&site=Head+office&side=viewer&for=text"),
        ("firewall-wrong", "/firewall?viewers=many"),
        ("probe", "/probe"),
        ("users", "/users"),
    ]
    .into();
    for (size, width, height) in [("wide", 1280, 900), ("narrow", 390, 844)] {
        let browser = Browser::start(width, height, true);
        browser.open(&format!("https://{}/", daemon.console));
        browser.wait_for_text("h1", "Sign in");
        audit(&browser, "sign-in", size);
        sign_in_by_hand(&browser, daemon.console);
        let session = browser.find_all("#sessions tbody th a").len();
        assert_eq!(session, 4, "{}", browser.text("#sessions"));
        for (page, path) in &pages {
            browser.open(&format!("https://{}{path}", daemon.console));
            // Pictures are part of it.
            wait_until("all pictures", Duration::from_secs(60), || {
                browser.run("return [...document.images].every((image) => image.complete)") == true
            });
            assert_no_complaints(&browser, page);
            audit(&browser, page, size);
        }
        browser.open(&format!("https://{}/none", daemon.console));
        audit(&browser, "not-found", size);
        // Where there is no such page the browser says so, and nothing else.
        let complaints = browser.complaints();
        assert!(complaints.iter().all(|complaint| complaint.contains("404")), "{complaints:?}");
    }
}
