//! The streams that are measured, made by ffmpeg, and how they fall into ticks.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use wmrelay::asf::{Event, Reader};

/// Bytes of a packet of all streams here.
pub(crate) const PACKET_SIZE: usize = 1400;

/// A stream and the arguments that make 20 seconds of it.
pub(crate) struct Medium {
    /// The name of its publishing point.
    pub name: &'static str,
    arguments: &'static str,
}

/// Video of 2 Mbit/s, 25 pictures a second.
pub(crate) const VIDEO: Medium = Medium {
    name: "video",
    arguments: "-f lavfi -i testsrc2=size=640x480:rate=25,noise=alls=20:allf=t -c:v wmv2 -b:v 1950k -minrate 1950k -maxrate 1950k \
                -bufsize 400k -g 50",
};
/// Video of 300 kbit/s, 25 pictures a second.
pub(crate) const SMALL: Medium = Medium {
    name: "small",
    arguments: "-f lavfi -i testsrc2=size=320x240:rate=25,noise=alls=10:allf=t -c:v wmv2 -b:v 280k -maxrate 290k -bufsize 60k -g 50",
};
/// Video of 1 Mbit/s, 60 pictures a second.
pub(crate) const SMOOTH: Medium = Medium {
    name: "smooth",
    arguments: "-f lavfi -i testsrc2=size=480x360:rate=60,noise=alls=10:allf=t -c:v wmv2 -b:v 950k -minrate 950k -maxrate 950k \
                -bufsize 200k -g 120",
};
/// Audio of 32 kbit/s.
pub(crate) const RADIO: Medium = Medium { name: "radio", arguments: "-f lavfi -i sine=440 -c:a wmav2 -ac 1 -b:a 32k" };

impl Medium {
    /// Makes it in `folder`.
    pub(crate) fn make(&self, folder: &Path) -> PathBuf {
        let path = folder.join(format!("{}.asf", self.name));
        let made = Command::new("ffmpeg")
            .args(["-v", "error", "-y"])
            .args(self.arguments.split_whitespace())
            .args(["-t", "20", "-packet_size", &PACKET_SIZE.to_string(), "-f", "asf"])
            .arg(&path)
            .status()
            .expect("ffmpeg is there: tests/run installs it");
        assert!(made.success(), "ffmpeg makes {}", self.name);
        path
    }
}

/// Packets that fall due within each tick, for as long as the stream lasts.
pub(crate) fn ticks(path: &Path, tick: Duration) -> Vec<usize> {
    let mut reader = Reader::new();
    reader.feed(&std::fs::read(path).expect("the stream"));
    reader.finish();
    let mut ticks = Vec::new();
    while let Some(event) = reader.poll() {
        let Event::Packets(packets) = event.expect("sound ASF") else { continue };
        for packet in packets.chunks_exact(PACKET_SIZE) {
            let send_time_ms = wmrelay::asf::send_time_ms(packet).expect("a packet");
            let tick = (u128::from(send_time_ms).div_ceil(tick.as_millis())) as usize;
            ticks.resize(ticks.len().max(tick + 1), 0);
            ticks[tick] += 1;
        }
    }
    ticks
}
