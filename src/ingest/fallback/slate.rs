//! Slates: a still picture with text and silence, made by ffmpeg once for each format, and kept in memory.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::{Duration, Instant, timeout};
use tracing::{info, warn};

use super::slate_format::SlateFormat;
use crate::asf::Header;

/// ffmpeg has so long for a few seconds of a still picture.
const MAKING: Duration = Duration::from_secs(30);
/// A slate of more bytes is none.
const BYTES_MAX: u64 = 16 << 20;
/// What it says when it fails is read so far.
const WORDS_MAX: u64 = 4 << 10;
/// Formats that are kept: a source has one, seldom two in turn.
const KEPT: usize = 3;
/// A format that could not be made is tried again after so long.
const RETRY: Duration = Duration::from_secs(60);
/// Slates that may never be needed are made no more often than this, whatever headers a source sends.
const AHEAD: Duration = Duration::from_secs(5);
/// Where the font of the text is looked for; elsewhere ffmpeg looks by itself, if it was built to.
const FONTS: [&str; 4] = [
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
    "/usr/share/fonts/dejavu-sans-fonts/DejaVuSans.ttf",
    "/usr/share/fonts/TTF/DejaVuSans.ttf",
    "/usr/share/fonts/truetype/liberation/LiberationSans-Regular.ttf",
];

/// The slates of one publishing point.
pub(super) struct Slates {
    text: String,
    program: String,
    /// The one used last is the last.
    made: Vec<(SlateFormat, Result<Bytes, Instant>)>,
    /// When one was made last, or was to be.
    made_at: Option<Instant>,
    warned: Warned,
}

/// What was told already.
#[derive(Default)]
struct Warned {
    not_made: bool,
    without_text: bool,
}

impl Slates {
    pub(super) fn new(text: String) -> Self {
        Self { text, program: "ffmpeg".into(), made: Vec::new(), made_at: None, warned: Warned::default() }
    }

    /// Makes the slate ahead that would be shown for a source of this header.
    pub(super) async fn prepare(&mut self, header: Option<&Header>) {
        if header.is_some() && self.made_at.is_none_or(|at| at.elapsed() >= AHEAD) {
            self.of(header).await;
        }
    }

    /// The slate for a source of this header, as ASF: one that could not be made is one in the format of all players, and `None`
    /// where not even that could be.
    pub(super) async fn of(&mut self, header: Option<&Header>) -> Option<Bytes> {
        let format = header.map(SlateFormat::of).unwrap_or_default();
        match self.get(format).await {
            Some(slate) => Some(slate),
            None => self.get(SlateFormat::default()).await,
        }
    }

    async fn get(&mut self, format: SlateFormat) -> Option<Bytes> {
        let at = self.made.iter().position(|(made, _)| *made == format);
        let (format, result) = match at.map(|at| self.made.remove(at)) {
            Some((format, Ok(slate))) => (format, Ok(slate)),
            Some((format, Err(failed))) if failed.elapsed() < RETRY => (format, Err(failed)),
            _ => {
                let result = self.make(&format).await;
                self.made_at = Some(Instant::now());
                (format, result)
            }
        };
        let slate = result.as_ref().ok().cloned();
        if self.made.len() >= KEPT {
            drop(self.made.remove(0));
        }
        self.made.push((format, result));
        slate
    }

    async fn make(&mut self, format: &SlateFormat) -> Result<Bytes, Instant> {
        let mut result = self.ffmpeg(format, true).await;
        if let Err(reason) = &result
            && format.picture().is_some()
        {
            let reason = reason.clone();
            result = self.ffmpeg(format, false).await;
            if result.is_ok() && !std::mem::replace(&mut self.warned.without_text, true) {
                warn!(
                    reason,
                    "the slate is without its text: ffmpeg cannot draw it; it needs its filter drawtext, and a font such as DejaVu Sans"
                );
            }
        }
        match result {
            Ok(slate) => {
                info!(bytes = slate.len(), ?format, "slate made");
                Ok(slate)
            }
            Err(reason) => {
                if !std::mem::replace(&mut self.warned.not_made, true) {
                    warn!(
                        program = self.program,
                        reason, "no slate can be made, so that nothing stands in for the source; is ffmpeg installed?"
                    );
                }
                Err(Instant::now())
            }
        }
    }

    /// Runs ffmpeg; the reason where it fails.
    async fn ffmpeg(&self, format: &SlateFormat, with_text: bool) -> Result<Bytes, String> {
        let filter = format.picture().filter(|_| with_text).map(|(width, height)| self.filter(width, height));
        let mut command = tokio::process::Command::new(&self.program);
        command.args(["-hide_banner", "-loglevel", "error", "-nostdin"]);
        command.args(format.arguments(filter.as_deref())).args(["-f", "asf", "pipe:1"]);
        let text = if filter.is_some() {
            Stdio::from(text_file(&self.text).map_err(|error| format!("its text cannot be passed on: {error}"))?)
        } else {
            Stdio::null()
        };
        command.stdin(text).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| format!("cannot run {}: {error}", self.program))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let work = async {
            let (slate, words) = tokio::join!(read(stdout, BYTES_MAX), read(stderr, WORDS_MAX));
            (slate, words, child.wait().await)
        };
        let done = timeout(MAKING, work).await;
        let Ok((slate, words, status)) = done else {
            let _ = child.kill().await;
            return Err(format!("it did not end in {} s", MAKING.as_secs()));
        };
        let words = String::from_utf8_lossy(&words);
        match status {
            Ok(status) if !status.success() => Err(format!("{status}: {}", words.trim())),
            Err(error) => Err(error.to_string()),
            Ok(_) if slate.len() as u64 >= BYTES_MAX || slate.is_empty() => Err(format!("{} bytes are no slate", slate.len())),
            Ok(_) => Ok(slate.into()),
        }
    }

    /// Draws the text in the middle. It is in a file, so that nothing in it is taken for a filter's syntax.
    fn filter(&self, width: u32, height: u32) -> String {
        let columns = self.text.lines().map(|line| line.chars().count()).max().unwrap_or(1).max(8);
        let columns = u32::try_from(columns).unwrap_or(u32::MAX);
        // A letter is a little over half as wide as it is high.
        let size = (width * 9 / 10 * 10 / 6 / columns).min(height / 8).max(8);
        let font =
            FONTS.iter().find(|font| Path::new(font).is_file()).map(|font| format!(":fontfile={font}")).unwrap_or_default();
        format!(
            "drawtext=textfile=/proc/self/fd/0:expansion=none{font}:fontcolor=0xE8E8E8:fontsize={size}:line_spacing={}:x=(w-text_w)/2:y=(h-text_h)/2",
            size / 4
        )
    }
}

/// The text as a file without a name, which goes with its last user.
fn text_file(text: &str) -> std::io::Result<File> {
    let file = rustix::fs::memfd_create("wmrelay-slate", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(file);
    file.write_all(text.as_bytes())?;
    Ok(file)
}

/// Reads to the end, or as much as there may be; what is beyond is left, and its writer ends by that.
async fn read(stream: Option<impl AsyncRead + Unpin>, most: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        // What was read before an error is judged by its end.
        let _ = stream.take(most).read_to_end(&mut bytes).await;
    }
    bytes
}

#[cfg(test)]
mod tests;
