//! A picture of a stream, for a page: ffmpeg decodes the first key frame of what it is handed and nothing else.

use std::path::Path;
use std::process::Stdio;

use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Duration, timeout};

use super::child::{Bounds, bound, group_of, read_up_to};

/// It has so long.
const MAKING: Duration = Duration::from_secs(8);
/// A picture of more bytes is none.
const BYTES_MAX: u64 = 256 << 10;
/// What it says when it fails is read so far.
const WORDS_MAX: u64 = 2 << 10;
/// Viewers come first, and a frame that asks for more memory is none.
const BOUNDS: Bounds = Bounds { nice: 10, memory_bytes: Some(512 << 20) };
/// At most 480 wide, and even, as the encoder wants it.
const SCALE: &str = r"scale=w=trunc(min(480\,iw)/2)*2:h=-2";

/// Whether there is such a program to be run: one of this name in PATH, or where it is a path, at that.
pub fn is_there(program: &str) -> bool {
    if program.contains('/') {
        return Path::new(program).is_file();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// A JPEG of at most 480 by whatever pixels of the first key frame of `asf`, a header and packets of which the first has a piece of
/// that frame: what is before it there is passed over. ffmpeg gets the bytes on its standard input, opens neither file nor network, and
/// is ended after 8 s, or when this is dropped. `program`: ffmpeg, by name or path.
///
/// # Errors
/// It made none: words for a person.
pub async fn jpeg(program: &str, asf: Bytes) -> Result<Bytes, String> {
    let mut command = tokio::process::Command::new(program);
    command.args(["-nostdin", "-hide_banner", "-loglevel", "error", "-threads", "1", "-protocol_whitelist", "pipe"]);
    command.args([
        "-skip_frame",
        "nokey",
        "-f",
        "asf",
        "-i",
        "pipe:0",
        "-map",
        "0:v:0",
        "-frames:v",
        "1",
        "-vf",
        SCALE,
        "-threads",
        "1",
    ]);
    command.args(["-c:v", "mjpeg", "-q:v", "5", "-f", "image2pipe", "pipe:1"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| format!("cannot run {program}: {error}"))?;
    if let Some(group) = group_of(&child) {
        bound(group, BOUNDS);
    }
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let Some(mut stdin) = stdin {
            // It may have enough before the end.
            let _ = stdin.write_all(&asf).await;
        }
    };
    let work = async {
        let ((), picture, words) = tokio::join!(feed, read_up_to(stdout, BYTES_MAX), read_up_to(stderr, WORDS_MAX));
        (picture, words, child.wait().await)
    };
    let done = timeout(MAKING, work).await;
    let Ok((picture, words, status)) = done else {
        let _ = child.kill().await;
        return Err(format!("it did not end in {} s", MAKING.as_secs()));
    };
    match status {
        Err(error) => Err(error.to_string()),
        Ok(status) if picture.is_empty() || picture.len() as u64 >= BYTES_MAX => {
            Err(format!("{status}, {} bytes of a picture: {}", picture.len(), String::from_utf8_lossy(&words).trim()))
        }
        Ok(_) => Ok(picture.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asf::samples;

    #[tokio::test]
    async fn the_program_is_the_one_that_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("other");
        let name = program.display().to_string();
        assert!(!is_there(&name) && is_there("sh") && !is_there("no-such-ffmpeg"));
        std::fs::write(&program, "#!/bin/sh\necho picture\n").unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        assert!(is_there(&name));
        assert_eq!(jpeg(&name, Bytes::new()).await.as_deref(), Ok(&b"picture\n"[..]));
    }

    /// A frame that needs others is grey, with what moves in it.
    #[tokio::test]
    async fn what_is_before_the_key_frame_is_no_picture() {
        if !is_there("ffmpeg") {
            assert!(std::env::var_os("WMRELAY_TESTS_REQUIRE").is_none(), "there is no ffmpeg");
            eprintln!("SKIPPED what_is_before_the_key_frame_is_no_picture: there is no ffmpeg");
            return;
        }
        let file = samples::bytes("live-asf-pipe.asf");
        let (header, packets) = file.split_at(file.len() - 217 * 1400);
        let from = |first: usize| Bytes::from([header, &packets[first * 1400..][..60 * 1400]].concat());
        let (whole, behind) = (jpeg("ffmpeg", from(0)).await.unwrap(), jpeg("ffmpeg", from(20)).await.unwrap());
        // Of grey there is next to nothing to be written.
        assert!(behind.len() > whole.len() / 2, "{} and {} bytes", whole.len(), behind.len());
        assert!(jpeg("ffmpeg", from(5)).await.is_err(), "no key frame in it");
    }
}
