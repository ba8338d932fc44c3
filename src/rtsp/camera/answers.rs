//! What a camera answers. Source: RFC 2326 10, 12.

use std::time::{Duration, Instant};

use super::{Camera, CameraError, CameraOutput, MOST_TRACKS, Path, REPORT_TIME, Step};
use crate::rtsp::message::Response;
use crate::rtsp::payload::{Depacketizer, Unusable};
use crate::rtsp::sdp::{Remote, base_url};
use crate::rtsp::tracks::Tracks;
use crate::rtsp::transport::Spec;
use crate::text::Challenge;

/// Challenges answered in a row, one of them because a nonce was too old.
const MOST_LOGINS: u32 = 2;
/// Longest session id that is taken, bytes.
const SESSION_BOUND: usize = 256;
/// What a camera may say of how long a session lasts without a sign of life, seconds.
const SESSION_TIMES_S: std::ops::RangeInclusive<u64> = 4..=600;

impl Camera {
    pub(super) fn response(&mut self, now: Instant, response: &Response) -> Result<(), CameraError> {
        if response.status < 200 {
            return Ok(());
        }
        // Some cameras count by themselves: with one request at a time it is clear what is answered.
        let Some(pending) = self.pending else { return Ok(()) };
        let number = response.headers.number::<u64>("CSeq");
        if number.is_some_and(|number| number < pending.cseq) {
            return Ok(());
        }
        self.pending = None;
        match response.status {
            401 => return self.challenged(now, response),
            300..=399 => return Err(CameraError::Moved),
            _ => self.logins = 0,
        }
        if self.step == Step::Playing {
            if response.status == 454 {
                return Err(CameraError::Ended);
            }
            self.lacks_get_parameter |= response.status >= 400;
            return Ok(());
        }
        if !(200..300).contains(&response.status) {
            let reason = response.reason.chars().filter(|c| !c.is_control()).take(80).collect();
            return Err(CameraError::Status { what: pending.what, status: response.status, reason });
        }
        match self.step {
            Step::Describing => self.described(response)?,
            Step::SettingUp(at) => self.set_up(at, response),
            Step::Starting => {
                self.step = Step::Playing;
                self.latest = now;
                self.keep_alive_due = Some(now + self.keep_alive);
                if self.config.ports.is_some() {
                    self.report_due = Some(now + REPORT_TIME);
                    self.tell_ports();
                }
                self.outputs.push_back(CameraOutput::Playing);
                return Ok(());
            }
            Step::Playing => {}
        }
        self.ask(now);
        Ok(())
    }

    fn challenged(&mut self, now: Instant, response: &Response) -> Result<(), CameraError> {
        if self.config.login.is_none() {
            return Err(CameraError::LoginWanted);
        }
        let fields: Vec<&str> = response.headers.all("WWW-Authenticate").collect();
        let challenge = Challenge::best(fields.iter().copied()).ok_or(CameraError::LoginRefused)?;
        self.logins += 1;
        if self.logins > 1 && (self.logins > MOST_LOGINS || !challenge.is_stale()) {
            return Err(CameraError::LoginRefused);
        }
        (self.challenge, self.answers) = (Some(challenge), 0);
        self.ask(now);
        Ok(())
    }

    /// Chooses what is set up: the first pictures and the first sound that can be sent on.
    fn described(&mut self, response: &Response) -> Result<(), CameraError> {
        let headers = &response.headers;
        let base = base_url(&self.config.url, headers.get("Content-Base"), headers.get("Content-Location"));
        let remote = Remote::parse(&String::from_utf8_lossy(&response.body), &base)?;
        let (mut left_out, mut depacketizers) = (Vec::new(), Vec::<Depacketizer>::new());
        for (number, media) in (1..).zip(&remote.media) {
            match Depacketizer::new(media) {
                Ok(depacketizer) => {
                    let is_video = depacketizer.is_video();
                    let is_other = depacketizers.iter().all(|other| other.is_video() != is_video);
                    if depacketizers.len() < MOST_TRACKS && is_other {
                        let first = u8::try_from(depacketizers.len() * 2).unwrap_or_default();
                        self.paths.push(Path { url: media.url.clone(), channels: (first, first + 1), server_ports: None });
                        depacketizers.push(depacketizer);
                    }
                }
                Err(why) => left_out.push((number, why)),
            }
        }
        if depacketizers.is_empty() {
            let whys: Vec<String> =
                left_out.iter().filter(|(_, why)| *why != Unusable::Other).map(|(_, why)| why.to_string()).collect();
            return Err(CameraError::NothingUsable(if whys.is_empty() {
                "neither pictures nor sound".into()
            } else {
                whys.join("; ")
            }));
        }
        self.outputs.extend(left_out.into_iter().map(|(media, why)| CameraOutput::LeftOut { media, why }));
        self.tracks = Tracks::new(depacketizers);
        self.url = remote.url;
        self.step = Step::SettingUp(0);
        Ok(())
    }

    /// Takes what the camera says of a track's way; what it does not say, or says wrongly, is as we asked.
    fn set_up(&mut self, at: usize, response: &Response) {
        let told = Spec::parse_all(response.headers.all("Transport")).ok().and_then(|specs| specs.into_iter().next());
        if let (Some(told), Some(path)) = (told, self.paths.get_mut(at)) {
            if let Some((first, second)) = told.interleaved {
                path.channels = (first, second.unwrap_or(first.wrapping_add(1)));
            }
            path.server_ports = told.server_port.map(|(first, second)| (first, second.unwrap_or(first.saturating_add(1))));
        }
        if let Some(value) = response.headers.get("Session") {
            let mut parts = value.split(';').map(str::trim);
            let id = parts.next().filter(|id| !id.is_empty() && id.len() <= SESSION_BOUND);
            self.session = id.map(str::to_owned).or_else(|| self.session.take());
            if let Some(time) = parts.find_map(|part| part.strip_prefix("timeout=")?.trim().parse::<u64>().ok()) {
                let time = time.clamp(*SESSION_TIMES_S.start(), *SESSION_TIMES_S.end());
                self.keep_alive = Duration::from_secs(time) / 2;
            }
        }
        self.step = if at + 1 < self.tracks.len() { Step::SettingUp(at + 1) } else { Step::Starting };
    }
}
