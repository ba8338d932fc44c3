//! A real browser without a screen, told what to do by WebDriver: a dozen of its calls over plain HTTP.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};

use super::wait_for;

/// How WebDriver names an element in JSON (W3C WebDriver 11).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// A page is loaded by then.
const PATIENCE: Duration = Duration::from_secs(30);

/// A browser window; closed when dropped.
pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    _profile: tempfile::TempDir,
}

/// Something on a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element(String);

impl Browser {
    /// Starts chromedriver on a port of the system's choice, and by it Chromium with a window of this size.
    #[track_caller]
    pub fn start(width: u32, height: u32, scripts: bool) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let log = profile.path().join("driver.log");
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdin(Stdio::null()).stderr(Stdio::null());
        command.env("HOME", profile.path()).env("TMPDIR", profile.path()).stdout(std::fs::File::create(&log).unwrap());
        let driver = command.spawn().unwrap();
        // A guard from here on.
        let mut browser = Self { driver, address: ([127, 0, 0, 1], 0).into(), session: String::new(), _profile: profile };
        let port = wait_for("chromedriver's port", PATIENCE, || {
            let log = std::fs::read_to_string(&log).ok()?;
            log.split("started successfully on port ").nth(1)?.split('.').next()?.parse::<u16>().ok()
        });
        browser.address.set_port(port);
        let folder = browser._profile.path().join("profile");
        let arguments = [
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-quic".to_owned(),
            "--no-first-run".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            "--ignore-certificate-errors".to_owned(),
            format!("--window-size={width},{height}"),
            format!("--user-data-dir={}", folder.display()),
        ];
        let scripts = if scripts { 1 } else { 2 };
        let options = json!({
            "args": arguments,
            "mobileEmulation": { "deviceMetrics": { "width": width, "height": height, "pixelRatio": 1.0, "mobile": width < 600, "touch": false } },
            "prefs": { "profile.managed_default_content_settings.javascript": scripts, "profile.default_content_setting_values.javascript": scripts },
        });
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome", "acceptInsecureCerts": true, "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let begun = browser.call("POST", "/session", &wanted);
        browser.session = begun["sessionId"].as_str().unwrap_or_else(|| panic!("no browser: {begun}")).to_owned();
        browser
    }

    /// Opens a page.
    #[track_caller]
    pub fn open(&self, url: &str) {
        self.of("POST", "url", &json!({ "url": url }));
    }

    /// Where it is.
    #[track_caller]
    pub fn url(&self) -> String {
        self.of("GET", "url", &Value::Null).as_str().unwrap().to_owned()
    }

    /// The page as the server sent it or scripts made it.
    #[track_caller]
    pub fn source(&self) -> String {
        self.of("GET", "source", &Value::Null).as_str().unwrap().to_owned()
    }

    /// The elements that a CSS selector finds.
    #[track_caller]
    pub fn find_all(&self, selector: &str) -> Vec<Element> {
        let found = self.of("POST", "elements", &json!({ "using": "css selector", "value": selector }));
        found.as_array().unwrap().iter().map(|element| Element(element[ELEMENT].as_str().unwrap().to_owned())).collect()
    }

    /// The one element that a CSS selector finds, once it is there.
    #[track_caller]
    pub fn find(&self, selector: &str) -> Element {
        wait_for(&format!("an element {selector}"), PATIENCE, || self.find_all(selector).into_iter().next())
    }

    /// Presses it, as a mouse does.
    #[track_caller]
    pub fn click(&self, selector: &str) {
        // What a script has just replaced is found again.
        wait_for(&format!("a click at {selector}"), PATIENCE, || {
            let element = self.find_all(selector).into_iter().next()?;
            self.answer("POST", &self.path(&format!("element/{}/click", element.0)), &json!({})).ok()
        });
    }

    /// Writes into it, behind what is there.
    #[track_caller]
    pub fn write(&self, selector: &str, text: &str) {
        let element = self.find(selector);
        self.of("POST", &format!("element/{}/value", element.0), &json!({ "text": text }));
    }

    /// The words that are seen in it.
    #[track_caller]
    pub fn text(&self, selector: &str) -> String {
        wait_for(&format!("words of {selector}"), PATIENCE, || {
            let element = self.find_all(selector).into_iter().next()?;
            let text = self.answer("GET", &self.path(&format!("element/{}/text", element.0)), &Value::Null).ok()?;
            text.as_str().map(str::to_owned)
        })
    }

    /// Waits until the words of an element hold these.
    #[track_caller]
    pub fn wait_for_text(&self, selector: &str, words: &str) {
        wait_for(&format!("{words:?} in {selector}"), PATIENCE, || self.text(selector).contains(words).then_some(()));
    }

    /// Runs the body of a function in the page, and returns what that returns. Works where the page's own scripts are switched off, too.
    #[track_caller]
    pub fn run(&self, script: &str) -> Value {
        self.of("POST", "execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// What the browser complained of since the last call.
    #[track_caller]
    pub fn complaints(&self) -> Vec<String> {
        let log = self.of("POST", "se/log", &json!({ "type": "browser" }));
        log.as_array().unwrap().iter().map(|line| format!("{}: {}", line["level"], line["message"])).collect()
    }

    /// Puts a picture of the whole page into a file.
    #[track_caller]
    pub fn picture(&self, file: &Path) {
        let whole = json!({ "cmd": "Page.captureScreenshot", "params": { "captureBeyondViewport": true, "format": "png" } });
        let picture = self.of("POST", "goog/cdp/execute", &whole);
        let png = base64::prelude::BASE64_STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
        std::fs::write(file, png).unwrap();
    }

    /// Light or dark, as the system would say.
    #[track_caller]
    pub fn colours(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        let media = json!({ "cmd": "Emulation.setEmulatedMedia", "params": { "features": features } });
        self.of("POST", "goog/cdp/execute", &media);
    }

    /// As on paper.
    #[track_caller]
    pub fn on_paper(&self) {
        let media = json!({ "cmd": "Emulation.setEmulatedMedia", "params": { "media": "print" } });
        self.of("POST", "goog/cdp/execute", &media);
    }

    fn path(&self, what: &str) -> String {
        format!("/session/{}/{what}", self.session)
    }

    #[track_caller]
    fn of(&self, method: &str, what: &str, body: &Value) -> Value {
        self.call(method, &self.path(what), body)
    }

    #[track_caller]
    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        self.answer(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// One call; what the browser says against it is the error.
    fn answer(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        let mut stream = TcpStream::connect(self.address).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
        // It keeps the connection, whatever it is asked for.
        let mut answer = Vec::new();
        let mut buffer = [0; 64 << 10];
        let text = loop {
            let count = stream.read(&mut buffer).map_err(|error| error.to_string())?;
            answer.extend_from_slice(&buffer[..count]);
            let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(head) = end.and_then(|end| std::str::from_utf8(&answer[..end]).ok()) {
                let head = head.to_ascii_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
                let body = &answer[end.unwrap() + 4..];
                if length.is_some_and(|length| body.len() >= length) || count == 0 {
                    break String::from_utf8_lossy(body).into_owned();
                }
            }
            if count == 0 {
                return Err("the connection ended".into());
            }
        };
        let answer: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        match answer["value"]["error"].as_str() {
            Some(error) => Err(format!("{error}: {}", answer["value"]["message"].as_str().unwrap_or_default())),
            None => Ok(answer["value"].clone()),
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // Ends Chromium, which has children of its own.
            let _ = self.answer("DELETE", &format!("/session/{}", self.session), &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
