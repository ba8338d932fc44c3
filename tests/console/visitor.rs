//! Somebody who asks for pages and sends forms, without a browser.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;

use crate::support::daemon::{Daemon, Launch};
use crate::support::tls;

/// What was answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(": ")?;
            known.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// The value of a cookie that is set.
    pub(super) fn cookie(&self, name: &str) -> Option<&str> {
        let set = self.head.lines().filter_map(|line| line.split_once(": ")).filter(|(known, _)| *known == "set-cookie");
        set.filter_map(|(_, value)| value.split(';').next()?.strip_prefix(name)?.strip_prefix('=')).next()
    }

    /// The token that the page's forms carry.
    pub(super) fn form_token(&self) -> String {
        let page = self.text();
        page.split("name=\"form_token\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    }
}

/// One request, with these fields of its head.
pub(super) fn ask(address: SocketAddr, method: &str, path: &str, fields: &[(&str, &str)], form: Option<&str>) -> Answer {
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
pub(super) fn sign_in_with(address: SocketAddr, user: &str, password: &str, next: &str) -> Answer {
    let page = ask(address, "GET", "/sign-in", &[], None);
    let before = page.cookie("__Host-wmrelay-sign-in").unwrap();
    let form = format!("form_token={}&user={user}&password={password}&next={next}", page.form_token());
    let cookie = format!("__Host-wmrelay-sign-in={before}");
    ask(address, "POST", "/sign-in", &[("Cookie", &cookie), ("Sec-Fetch-Site", "same-origin")], Some(&form))
}

/// Somebody who has signed in.
pub(super) struct Somebody {
    pub(super) console: SocketAddr,
    pub(super) cookie: String,
    pub(super) form_token: String,
}

impl Somebody {
    pub(super) fn new(console: SocketAddr, user: &str) -> Self {
        let answer = sign_in_with(console, user, "geheim", "/");
        assert_eq!((answer.status, answer.header("location")), (303, Some("/")), "{answer:?}");
        let cookie = format!("__Host-wmrelay={}", answer.cookie("__Host-wmrelay").unwrap());
        let form_token = ask(console, "GET", "/", &[("Cookie", &cookie)], None).form_token();
        Self { console, cookie, form_token }
    }

    pub(super) fn get(&self, path: &str) -> Answer {
        ask(self.console, "GET", path, &[("Cookie", &self.cookie)], None)
    }

    pub(super) fn post(&self, path: &str, form: &str) -> Answer {
        let form = format!("form_token={}&{form}", self.form_token);
        ask(self.console, "POST", path, &[("Cookie", &self.cookie), ("Sec-Fetch-Site", "same-origin")], Some(&form))
    }
}

pub(super) fn launch(settings: &str, accounts: &Path) -> Daemon {
    Launch::new(settings).control(format!("users_file = {accounts:?}")).console().start()
}
