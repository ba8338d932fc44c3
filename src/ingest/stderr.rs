//! What a child process has to say, line by line, for the log.

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::{Duration, Instant};

/// Longer lines are cut.
const LINE_BYTES: usize = 1024;
/// More lines in a period are counted, not logged.
const LINES: u32 = 20;
const PERIOD: Duration = Duration::from_secs(1);

/// Calls `log` with each line until the stream ends, but for those that `heard` returns `true` for; what is over the rate is summed
/// up in a line of its own.
pub(super) async fn lines(mut stream: impl AsyncRead + Unpin, mut heard: impl FnMut(&str) -> bool, mut log: impl FnMut(&str)) {
    let mut buffer = [0; 4096];
    let mut line = Vec::new();
    let mut rate = Rate { since: Instant::now(), lines: 0 };
    loop {
        let count = match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        for &byte in buffer.get(..count).unwrap_or_default() {
            // ffmpeg ends its progress lines with CR.
            if byte == b'\n' || byte == b'\r' {
                rate.line(&mut line, &mut heard, &mut log);
            } else if line.len() < LINE_BYTES {
                line.push(byte);
            }
        }
    }
    rate.line(&mut line, &mut heard, &mut log);
    rate.sum_up(&mut log);
}

struct Rate {
    since: Instant,
    lines: u32,
}

impl Rate {
    fn line(&mut self, line: &mut Vec<u8>, heard: &mut impl FnMut(&str) -> bool, log: &mut impl FnMut(&str)) {
        if self.since.elapsed() >= PERIOD {
            self.sum_up(log);
            *self = Self { since: Instant::now(), lines: 0 };
        }
        let text = String::from_utf8_lossy(line);
        let text: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        line.clear();
        if !text.is_empty() && !heard(&text) {
            self.lines += 1;
            if self.lines <= LINES {
                log(&text);
            }
        }
    }

    fn sum_up(&self, log: &mut impl FnMut(&str)) {
        if self.lines > LINES {
            log(&format!("({} more lines)", self.lines - LINES));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn logged(text: &[u8]) -> Vec<String> {
        let mut log = Vec::new();
        lines(text, |line| line == "heard", |line| log.push(line.to_owned())).await;
        log
    }

    #[tokio::test(start_paused = true)]
    async fn splits_cleans_and_cuts() {
        assert_eq!(logged(b"one\r\n\n  two\x1b[0m\rthree\xff").await, ["one", "two [0m", "three\u{FFFD}"]);
        assert_eq!(logged(&[b'x'; 5000]).await, ["x".repeat(LINE_BYTES)]);
        assert!(logged(b"").await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn bounds_the_rate() {
        let log = logged("line\nheard\n".repeat(100).as_bytes()).await;
        assert_eq!((log.len(), log[20].as_str()), (21, "(80 more lines)"));
    }
}
