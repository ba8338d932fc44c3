//! What ffmpeg says: its progress for the metrics, the rest for the log, without what is secret in its input's address.

use metrics::{Counter, Gauge, counter, gauge};

use crate::metrics as names;
pub(super) use crate::settings::line_without_secrets as masked;

/// The metrics of one child after the other, of one input and profile.
pub(super) struct Meters {
    /// Children that run: one or none.
    pub(super) children: Gauge,
    pub(super) restarts: Counter,
    speed: Gauge,
    dropped: Counter,
}

impl Meters {
    /// `point` is the publishing point that wanted the input first, as a label.
    pub(super) fn new(point: &str, profile: &str) -> Self {
        let (point, profile) = (names::point_label(point), profile.to_owned());
        let labels = [("point", point), ("profile", profile.into())];
        Self {
            children: gauge!(names::TRANSCODE_CHILDREN, &labels),
            restarts: counter!(names::TRANSCODE_RESTARTS, &labels),
            speed: gauge!(names::TRANSCODE_SPEED, &labels),
            dropped: counter!(names::TRANSCODE_DROPPED_FRAMES, &labels),
        }
    }
}

/// Reads the progress of one child. What it added to the gauges is taken back when it is dropped.
pub(super) struct Progress {
    speed: Gauge,
    dropped: Counter,
    /// What was told last.
    told: (f64, u64),
}

impl Progress {
    pub(super) fn new(meters: &Meters) -> Self {
        Self { speed: meters.speed.clone(), dropped: meters.dropped.clone(), told: (0.0, 0) }
    }

    /// Whether a line is of the progress.
    pub(super) fn hears(&mut self, line: &str) -> bool {
        const KEYS: [&str; 11] = [
            "frame",
            "fps",
            "bitrate",
            "total_size",
            "out_time_us",
            "out_time_ms",
            "out_time",
            "dup_frames",
            "drop_frames",
            "speed",
            "progress",
        ];
        let Some((key, value)) = line.split_once('=') else { return false };
        let value = value.trim();
        match key {
            "speed" => {
                if let Ok(speed) = value.trim_end_matches('x').parse::<f64>() {
                    self.told_speed(speed);
                }
            }
            "drop_frames" => {
                if let Ok(frames) = value.parse::<u64>() {
                    self.dropped.increment(frames.saturating_sub(self.told.1));
                    self.told.1 = frames;
                }
            }
            // Of each stream, its quality.
            _ if key.starts_with("stream_") && key.ends_with("_q") => {}
            _ => return KEYS.contains(&key),
        }
        true
    }

    /// Up and down, not set: publishing points beyond the last label share one.
    fn told_speed(&mut self, speed: f64) {
        let speed = if speed.is_finite() { speed } else { 0.0 };
        self.speed.increment(speed - self.told.0);
        self.told.0 = speed;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.told_speed(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_no_secrets() {
        for (line, expected) in [
            ("rtsp://u:p@cam/1: Connection refused", "rtsp://…@cam/1: Connection refused"),
            ("[hls @ 0x1] Opening 'http://h/a.ts?token=x' for reading", "[hls @ 0x1] Opening 'http://h/a.ts?…' for reading"),
            ("x=rtmp://h/live", "x=rtmp://h/live"),
            ("no address", "no address"),
            ("", ""),
        ] {
            assert_eq!(masked(line), expected);
        }
    }

    #[test]
    fn progress_is_counted_and_not_logged() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let page = || recorder.handle().render();
        metrics::with_local_recorder(&recorder, || {
            let meters = Meters::new("cam", "wmp9");
            let mut progress = Progress::new(&meters);
            let lines = "frame=10\nfps=25.00\nstream_0_0_q=2.0\nbitrate= 300.1kbits/s\ntotal_size=1\nout_time_us=1\ndup_frames=0\n\
                         drop_frames=3\nspeed=1.02x\nprogress=continue\ndrop_frames=5\nspeed=N/A\ndrop_frames=x";
            assert!(lines.lines().all(|line| progress.hears(line)));
            assert!(!["speedy=1", "Error = bad", "words"].into_iter().any(|line| progress.hears(line)));
            let labels = "{point=\"cam\",profile=\"wmp9\"}";
            assert!(page().contains(&format!("wmrelay_transcode_dropped_frames_total{labels} 5\n")), "{}", page());
            assert!(page().contains(&format!("wmrelay_transcode_speed{labels} 1.02\n")), "{}", page());
            drop(progress);
            // The next child counts from zero.
            assert!(Progress::new(&meters).hears("drop_frames=2"));
            assert!(page().contains(&format!("wmrelay_transcode_dropped_frames_total{labels} 7\n")), "{}", page());
            assert!(page().contains(&format!("wmrelay_transcode_speed{labels} 0\n")), "{}", page());
        });
    }
}
