//! Which control token stands for which stream, for descriptions and for the requests that follow them.

use crate::asf::{Header, Stream, StreamKind};
use crate::viewing::Description;

/// Control token of the repetitions.
pub const RTX: &str = "rtx";
/// Stream number of the repetitions.
pub const RTX_STREAM: u32 = 65_536;

/// One stream that may be set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    /// Last part of its URL: `audio` and `video` of the first of these kinds, `stream=N` of all others.
    pub token: String,
    /// ASF stream number, 1 to 127.
    pub stream: u8,
    /// What it carries.
    pub kind: StreamKind,
}

/// What a control token stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// A stream, by its ASF number.
    Stream(u8),
    /// The repetitions.
    Rtx,
}

/// The streams of a description, in the order in which it names them: sound, pictures, and the rest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tracks(Vec<Track>);

impl Tracks {
    /// Of a description; none where its header cannot be read.
    pub fn of(description: &Description) -> Self {
        Header::parse(&description.header).map(|header| Self::of_streams(header.streams())).unwrap_or_default()
    }

    /// Of the streams of a header.
    pub fn of_streams(streams: &[Stream]) -> Self {
        let mut streams: Vec<_> = streams.iter().collect();
        streams.sort_by_key(|stream| rank(stream.kind));
        let first = |kind| streams.iter().find(|stream| stream.kind == kind).map(|stream| stream.number);
        let named = [(first(StreamKind::Audio), "audio"), (first(StreamKind::Video), "video")];
        let tracks = streams.iter().map(|stream| {
            let name = named.iter().find(|(number, _)| *number == Some(stream.number)).map(|(_, name)| (*name).to_owned());
            let token = name.unwrap_or_else(|| format!("stream={}", stream.number));
            Track { token, stream: stream.number, kind: stream.kind }
        });
        Self(tracks.collect())
    }

    /// The tracks.
    pub fn as_slice(&self) -> &[Track] {
        &self.0
    }

    /// The one that stands for all where a client can do with one only: pictures if there are any.
    pub fn main(&self) -> Option<&Track> {
        self.0.iter().find(|track| track.kind == StreamKind::Video).or_else(|| self.0.first())
    }

    /// What a control token stands for.
    ///
    /// Besides those that descriptions have, `stream=N`, `audio=N` and `video=N` with the ASF number of any stream are taken.
    pub fn find(&self, token: &str) -> Option<Control> {
        if token.eq_ignore_ascii_case(RTX) {
            return Some(Control::Rtx);
        }
        let track = self.0.iter().find(|track| track.token.eq_ignore_ascii_case(token)).or_else(|| {
            let (word, digits) = token.split_once('=')?;
            let is_word = ["stream", "audio", "video"].iter().any(|known| word.eq_ignore_ascii_case(known));
            let is_number = is_word && digits.bytes().all(|byte| byte.is_ascii_digit());
            let number = is_number.then(|| digits.parse::<u8>().ok()).flatten()?;
            self.0.iter().find(|track| track.stream == number)
        })?;
        Some(Control::Stream(track.stream))
    }
}

const fn rank(kind: StreamKind) -> u8 {
    match kind {
        StreamKind::Audio => 0,
        StreamKind::Video => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asf::Format;

    fn tracks(streams: &[(u8, StreamKind)]) -> Tracks {
        let stream = |(number, kind): &(u8, StreamKind)| Stream {
            number: *number,
            kind: *kind,
            format: Format::Unread,
            encrypted: false,
            bit_rate: 0,
        };
        Tracks::of_streams(&streams.iter().map(stream).collect::<Vec<_>>())
    }

    #[test]
    fn tokens() {
        use StreamKind::{Audio, Command, Video};
        let all = tracks(&[(1, Video), (5, Command), (2, Audio), (3, Video), (4, Audio)]);
        let names: Vec<_> = all.as_slice().iter().map(|track| (track.token.as_str(), track.stream)).collect();
        assert_eq!(names, [("audio", 2), ("stream=4", 4), ("video", 1), ("stream=3", 3), ("stream=5", 5)]);
        assert_eq!(all.main().unwrap().stream, 1);
        for (token, control) in [
            ("audio", Some(Control::Stream(2))),
            ("VIDEO", Some(Control::Stream(1))),
            ("stream=2", Some(Control::Stream(2))),
            ("audio=4", Some(Control::Stream(4))),
            ("video=03", Some(Control::Stream(3))),
            ("rtx", Some(Control::Rtx)),
            ("stream=6", None),
            ("stream=0", None),
            ("stream=258", None),
            ("stream=+2", None),
            ("stream=", None),
            ("track=2", None),
            ("", None),
        ] {
            assert_eq!(all.find(token), control, "{token}");
        }
        let sound = tracks(&[(7, Audio)]);
        assert_eq!((sound.main().unwrap().token.as_str(), sound.find("video")), ("audio", None));
        assert_eq!((tracks(&[]).main(), tracks(&[]).find("audio")), (None, None));
    }
}
