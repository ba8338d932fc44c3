//! Slates: a still picture with text and silence, made by ffmpeg once for each format, and kept in memory.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Duration, Instant, timeout, timeout_at};
use tracing::{Instrument as _, info, warn};

use super::slate_format::SlateFormat;
use crate::asf::{Guise, Header, ParameterSets};
use crate::ingest::child::read_up_to;

/// ffmpeg has so long for a few seconds of a still picture.
const MAKING: Duration = Duration::from_secs(30);
/// A slate of more bytes is none.
const BYTES_MAX: u64 = 16 << 20;
/// What it says when it fails is read so far.
const WORDS_MAX: u64 = 4 << 10;
/// Slates that are kept, and as many failures: a source has one format, seldom two in turn.
const KEPT: usize = 3;
/// A format that could not be made is tried again after so long.
const RETRY: Duration = Duration::from_secs(60);
/// Slates that may never be needed are made no more often than this, whatever headers a source sends.
const AHEAD: Duration = Duration::from_secs(5);
/// A slate in the format of the source is waited for so long where there is another one that continues the source.
const PATIENCE: Duration = Duration::from_secs(2);
/// And so long where there is only one of another format, which makes viewers begin anew, and ends what RTSP players have.
const PATIENCE_MAX: Duration = Duration::from_secs(10);
/// Where the font of the text is looked for; elsewhere ffmpeg looks by itself, if it was built to.
const FONTS: [&str; 4] = [
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
    "/usr/share/fonts/dejavu-sans-fonts/DejaVuSans.ttf",
    "/usr/share/fonts/TTF/DejaVuSans.ttf",
    "/usr/share/fonts/truetype/liberation/LiberationSans-Regular.ttf",
];

/// What ffmpeg made, or when it failed.
type Made = Result<Bytes, Instant>;

/// The slates of one publishing point.
pub(super) struct Slates {
    maker: Arc<Maker>,
    /// The one used last is the last.
    made: Vec<(SlateFormat, Made)>,
    /// The one that is being made, in a task that goes with this.
    making: JoinSet<Made>,
    /// What that is: a task that fails does not tell.
    making_format: Option<SlateFormat>,
    /// When one was begun last.
    begun_at: Option<Instant>,
}

/// What runs ffmpeg.
struct Maker {
    text: String,
    program: String,
    warned: Warned,
}

/// What was told already.
#[derive(Default)]
struct Warned {
    not_made: AtomicBool,
    without_text: AtomicBool,
}

impl Slates {
    /// Slates with this text. `program`: ffmpeg, by name or path.
    pub(super) fn new(text: String, program: String) -> Self {
        let maker = Arc::new(Maker { text, program, warned: Warned::default() });
        Self { maker, made: Vec::new(), making: JoinSet::new(), making_format: None, begun_at: None }
    }

    /// Begins to make the slate ahead that would be shown for a source of this header.
    pub(super) fn prepare(&mut self, header: Option<&Header>) {
        self.collect();
        let Some(header) = header.filter(|_| self.begun_at.is_none_or(|at| at.elapsed() >= AHEAD)) else { return };
        let format = SlateFormat::of(header);
        if self.making.is_empty() && self.known(&format).is_none() {
            self.begin(format);
        }
    }

    /// The slate to show now for a source of this header: where that takes long to be made or cannot be, one that is there, at
    /// best one that continues the source.
    pub(super) async fn at_hand(&mut self, header: Option<&Header>) -> Option<Bytes> {
        let begun = Instant::now();
        let format = header.map(SlateFormat::of).unwrap_or_default();
        if let Ok(Some(slate)) = timeout(PATIENCE, self.get(format)).await {
            return Some(slate);
        }
        // A source that never came has nothing to be continued.
        if let Some(slate) =
            self.newest(|slate| header.is_none_or(|header| Header::parse(slate).is_ok_and(|slate| continues(&slate, header))))
        {
            return Some(slate);
        }
        if let Ok(Some(slate)) = timeout_at(begun + PATIENCE_MAX, self.of(header)).await {
            return Some(slate);
        }
        match self.newest(|_| true) {
            Some(slate) => Some(slate),
            None => self.of(header).await,
        }
    }

    /// Of the slates that are there and fit, the one used last.
    fn newest(&self, fits: impl Fn(&Bytes) -> bool) -> Option<Bytes> {
        self.made.iter().rev().find_map(|(_, made)| made.as_ref().ok().filter(|&slate| fits(slate)).cloned())
    }

    /// The slate for a source of this header, as ASF: one that could not be made is one in the format of all players, and `None`
    /// where not even that could be. What it waits for goes on being made where it is dropped.
    pub(super) async fn of(&mut self, header: Option<&Header>) -> Option<Bytes> {
        let format = header.map(SlateFormat::of).unwrap_or_default();
        match self.get(format).await {
            Some(slate) => Some(slate),
            None => self.get(SlateFormat::default()).await,
        }
    }

    async fn get(&mut self, format: SlateFormat) -> Option<Bytes> {
        loop {
            self.collect();
            if let Some(made) = self.known(&format) {
                return made.ok();
            }
            if self.making.is_empty() {
                self.begin(format.clone());
            }
            let done = self.making.join_next().await;
            if let Some(done) = done {
                self.keep(done);
            }
        }
    }

    fn begin(&mut self, format: SlateFormat) {
        self.begun_at = Some(Instant::now());
        self.making_format = Some(format.clone());
        let maker = Arc::clone(&self.maker);
        let work = async move { maker.make(&format).await };
        self.making.spawn(work.in_current_span());
    }

    fn collect(&mut self) {
        while let Some(done) = self.making.try_join_next() {
            self.keep(done);
        }
    }

    /// Failures push out failures only, so that slates stay, and slates only slates.
    fn keep(&mut self, done: Result<Made, JoinError>) {
        let Some(format) = self.making_format.take() else { return };
        let made = done.unwrap_or_else(|error| {
            warn!(%error, ?format, retry_s = RETRY.as_secs(), "the task that makes the slate failed; please report this");
            Err(Instant::now())
        });
        self.made.retain(|(known, _)| *known != format);
        let alike = self.made.iter().filter(|(_, other)| other.is_ok() == made.is_ok()).count();
        let oldest = self.made.iter().position(|(_, other)| other.is_ok() == made.is_ok());
        if let Some(oldest) = oldest.filter(|_| alike >= KEPT) {
            drop(self.made.remove(oldest));
        }
        self.made.push((format, made));
    }

    /// What became of a format; `None` where it is to be made.
    fn known(&mut self, format: &SlateFormat) -> Option<Made> {
        let at = self.made.iter().position(|(made, _)| made == format)?;
        let entry = self.made.remove(at);
        if entry.1.as_ref().is_err_and(|failed| failed.elapsed() >= RETRY) {
            return None;
        }
        let made = entry.1.clone();
        self.made.push(entry);
        Some(made)
    }
}

impl Maker {
    async fn make(&self, format: &SlateFormat) -> Made {
        let mut result = self.ffmpeg(format, true).await;
        if let Err(reason) = &result
            && format.picture().is_some()
        {
            let reason = reason.clone();
            result = self.ffmpeg(format, false).await;
            if result.is_ok() && !self.warned.without_text.swap(true, Ordering::Relaxed) {
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
                if !self.warned.not_made.swap(true, Ordering::Relaxed) {
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
            let (slate, words) = tokio::join!(read_up_to(stdout, BYTES_MAX), read_up_to(stderr, WORDS_MAX));
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

/// Whether players of a source of this header go on with a slate.
pub(super) fn continues(slate: &Header, source: &Header) -> bool {
    slate.continues(source) || Guise::of(slate, source, ParameterSets::InBand).is_ok()
}

/// The text as a file without a name, which goes with its last user.
fn text_file(text: &str) -> std::io::Result<File> {
    let file = rustix::fs::memfd_create("wmrelay-slate", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(file);
    file.write_all(text.as_bytes())?;
    Ok(file)
}

#[cfg(test)]
mod tests;
