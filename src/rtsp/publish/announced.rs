//! What a publisher announces, read.

use super::{Announcement, Carries, NotAsf};
use crate::asf::Header;
use crate::rtsp::depacketize::Depacketizer;
use crate::rtsp::message::Request;
use crate::rtsp::payload;
use crate::rtsp::reorder::Reorder;
use crate::rtsp::sdp::{Media, Remote, Role};
use crate::rtsp::tracks::Tracks;

/// Tracks of one publisher.
const MOST_TRACKS: usize = 16;

/// What a description says.
#[derive(Debug)]
pub(super) struct Announced {
    pub(super) content: Content,
    pub(super) media: Vec<Media>,
}

/// What comes.
#[derive(Debug)]
pub(super) enum Content {
    Asf(Header),
    /// Which track each media is, where it is one.
    Tracks {
        tracks: Tracks,
        places: Vec<Option<usize>>,
        /// The lines of formats and parameters.
        parameters: String,
        left_out: String,
    },
}

impl Content {
    /// What carries a media, by its place in the description.
    pub(super) fn carries(&self, media: usize) -> Carries {
        match self {
            Self::Asf(header) => {
                Carries::Asf { reorder: Reorder::default(), depacketizer: Depacketizer::new(header.packet_size()) }
            }
            Self::Tracks { places, .. } => places.get(media).copied().flatten().map_or(Carries::Nothing, Carries::Track),
        }
    }

    pub(super) fn announcement(&self) -> Announcement {
        match self {
            Self::Asf(header) => Announcement::Asf(header.clone()),
            Self::Tracks { parameters, left_out, .. } => {
                Announcement::Tracks { parameters: parameters.clone(), left_out: left_out.clone() }
            }
        }
    }
}

/// Reads an announcement.
///
/// # Errors
/// It is not sound, or there is nothing in it that ASF can carry.
pub(super) fn describe(request: &Request) -> Result<Announced, NotAsf> {
    let text = str::from_utf8(&request.body).map_err(|_| NotAsf::Unsound("SDP: it is not UTF-8".into()))?;
    let remote = Remote::parse(text, &request.target).map_err(|error| NotAsf::Unsound(error.to_string()))?;
    let Remote { windows_media, media, .. } = remote;
    if let Some(windows_media) = windows_media
        && media.iter().any(|media| matches!(media.role, Role::Asf(_)))
    {
        return Ok(Announced { content: Content::Asf(windows_media.header), media });
    }
    let named = |media: &Media| media.rtpmap.as_ref().map_or_else(|| "unnamed".to_owned(), |map| map.encoding.clone());
    let (mut depacketizers, mut places, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
    for media in &media {
        match payload::Depacketizer::new(media) {
            Ok(depacketizer) if depacketizers.len() < MOST_TRACKS => {
                places.push(Some(depacketizers.len()));
                depacketizers.push(depacketizer);
            }
            Ok(_) => places.push(None),
            Err(why) => {
                places.push(None);
                left_out.push(why.to_string());
            }
        }
    }
    if depacketizers.is_empty() {
        return Err(NotAsf::Other(media.iter().map(named).collect::<Vec<_>>().join(", ")));
    }
    let is_parameter = |line: &&str| line.starts_with("a=rtpmap:") || line.starts_with("a=fmtp:");
    let parameters = text.lines().filter(is_parameter).collect::<Vec<_>>().join("\n");
    let content = Content::Tracks { tracks: Tracks::new(depacketizers), places, parameters, left_out: left_out.join("; ") };
    Ok(Announced { content, media })
}
