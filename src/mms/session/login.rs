//! Credentials over MMS: BASIC alone, in clear text. Source: MS-MMSP 2.2.4.14, 2.2.4.24, 3.2.5.6, 3.2.5.7.

use std::time::{Duration, Instant};

use super::timers::Timer;
use super::{Session, Waiting};
use crate::mms::open::Token;
use crate::mms::security::{SecurityChallenge, SecurityToken};
use crate::text::split_query;
use crate::viewing::{Ask, Challenge, Login, Pass};
use crate::wire::{Hresult, encode_utf16_nul};

/// Times that a player is asked for one open.
const MAX_ROUNDS: u32 = 3;
/// Time for a person to type name and password.
const TYPING: Duration = Duration::from_secs(120);
/// What the open-source players call themselves, all of them: each ends where it is challenged, while it can tell of a failure.
const CANNOT: &str = "NSPlayer/7.0.0.1956";

/// What a player is about to open.
#[derive(Debug)]
pub(super) struct Opening {
    name: String,
    key: Option<String>,
    profile: Option<String>,
    /// Challenges sent; the last one's number is its cookie.
    rounds: u32,
    /// The last one has not been answered.
    challenged: bool,
}

impl Session {
    /// Asks for a name as the player sent it, its query and all.
    pub(super) fn open_point(&mut self, incarnation: u32, name: &str, token: &Token) {
        let (name, key, profile) = split_query(name);
        self.report.point = Some(name.to_owned());
        let (key, profile) = (key.map(str::to_owned), profile.map(str::to_owned));
        self.opening = Some(Opening { name: name.into(), key, profile, rounds: 0, challenged: false });
        let credentials = match token {
            Token::Bytes(bytes) => basic(bytes),
            Token::None | Token::Invalid => None,
        };
        self.ask_open(incarnation, credentials);
    }

    fn ask_open(&mut self, incarnation: u32, authorization: Option<String>) {
        let Some(opening) = &mut self.opening else { return };
        opening.challenged = false;
        let login = authorization.map(|authorization| Login { method: String::new(), target: String::new(), authorization });
        let pass = Pass { key: opening.key.clone(), login, profile: opening.profile.clone() };
        let open = Ask::Open { name: opening.name.clone(), pass };
        self.ask(Waiting::Opened { incarnation }, open);
    }

    /// Asks the player who it is, if it can say so.
    pub(super) fn challenge(&mut self, now: Instant, incarnation: u32, challenge: &Challenge) {
        let can = self.report.player.as_ref().is_some_and(|player| !player.token.starts_with(CANNOT) && !player.is_wms4);
        let Some(opening) = self.opening.as_mut().filter(|opening| can && opening.rounds < MAX_ROUNDS) else {
            self.opening = None;
            return self.report_open_failure(incarnation, Hresult::ACCESS_DENIED);
        };
        opening.rounds += 1;
        opening.challenged = true;
        let cookie = opening.rounds;
        let token = encode_utf16_nul(&format!("realm=\"{}\"", challenge.realm));
        self.send(&SecurityChallenge(SecurityToken { incarnation, cookie, token }));
        for timer in [Timer::Step, Timer::Handshake] {
            if self.timers.runs(timer) {
                self.timers.set(timer, now + TYPING);
            }
        }
    }

    pub(super) fn security_response(&mut self, response: &SecurityToken) {
        let asked = |opening: &&Opening| opening.challenged && opening.rounds == response.cookie;
        if self.opening.as_ref().filter(asked).is_none() {
            self.report_open_failure(response.incarnation, Hresult::INVALID_REQUEST);
            return self.wrong_state();
        }
        match basic(&response.token) {
            Some(authorization) => self.ask_open(response.incarnation, Some(authorization)),
            // NTLM, or nothing: there is nothing else to offer.
            None => {
                self.opening = None;
                self.report_open_failure(response.incarnation, Hresult::ACCESS_DENIED);
            }
        }
    }
}

/// The token of BASIC as an `Authorization` field has it: base64, ended by NUL or not.
fn basic(token: &[u8]) -> Option<String> {
    let end = token.iter().position(|byte| *byte == 0).unwrap_or(token.len());
    let base64 = token.get(..end).filter(|base64| !base64.is_empty())?;
    let plain = base64.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(byte));
    plain.then(|| format!("Basic {}", String::from_utf8_lossy(base64)))
}
