//! The description of another server's stream.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;

use super::npt::{Npt, NptRange};
use super::tracks::{Control, Tracks};
use super::url::{parted, resolved};
use super::{ASF_ENCODING, HEADER_PREFIX, RTX_ENCODING};
use crate::asf::header::DATA_HEAD_LEN;
use crate::asf::{Header, HeaderError, guids};

/// Longest description taken, bytes; publishers are allowed less, see `Bounds`.
pub const SDP_BOUND: usize = 512 << 10;
/// Most media of a description of ASF: as many as ASF can have streams, and the repetitions.
const ASF_MEDIA_BOUND: usize = 128;
/// Most media of another description.
const MEDIA_BOUND: usize = 16;
/// Longest URL, bytes: longer ones make request lines that servers refuse.
const URL_BOUND: usize = 2_048;
/// Longest format parameters kept, bytes.
const PARAMETERS_BOUND: usize = 4_096;
/// Longest title and tag kept, bytes.
const WORDS_BOUND: usize = 1_024;

/// Takes base64 with or without padding: there are servers of both kinds.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// Why a description is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// It is too long.
    #[error("SDP of {0} bytes: at most 65536 are taken")]
    TooLong(usize),
    /// It is no SDP.
    #[error("SDP: {0}")]
    Syntax(String),
    /// The URL that it came from is not absolute, so its parts have no URLs.
    #[error("SDP: the URL that it came from is not absolute")]
    Base,
    /// A control URL is too long.
    #[error("SDP: a control URL of {0} bytes: at most 2048 are taken")]
    LongUrl(usize),
    /// Nothing to set up.
    #[error("SDP without media: there is nothing to play")]
    NoMedia,
    /// More than any stream has.
    #[error("SDP of {0} media: at most 16 are taken, 128 of an ASF stream")]
    TooManyMedia(usize),
    /// A clock that stands still.
    #[error("SDP: media {0} has an RTP clock of 0 Hz")]
    Clock(usize),
    /// The ASF header cannot be decoded.
    #[error("SDP: the ASF header in it is not base64")]
    Base64,
    /// The ASF header is not taken.
    #[error("SDP: {0}")]
    Header(#[from] HeaderError),
}

/// The description of another server's stream.
#[derive(Debug, Clone)]
pub struct Remote {
    /// URL of the whole, for PLAY and TEARDOWN: absolute, on the host of the base.
    pub url: String,
    /// Title, where there is one.
    pub title: Option<String>,
    /// For `If-Match`: as it was told, braces or quotes included.
    pub etag: Option<String>,
    /// What may be played; on the axis of packets, with preroll, where a Windows Media server says it.
    pub range: Option<NptRange>,
    /// Whether it says in any way that it is live.
    pub is_broadcast: bool,
    /// What makes it a Windows Media stream, where it is one.
    pub windows_media: Option<WindowsMedia>,
    /// What may be set up, in the order of the description; at least one.
    pub media: Vec<Media>,
}

/// The ASF of a description.
#[derive(Debug, Clone)]
pub struct WindowsMedia {
    /// The header.
    pub header: Header,
    /// Header Object and head of the Data Object; that is made up where the server sent none.
    pub blob: Bytes,
    /// No ASF packet is longer, bytes: `a=maxps` or the header's packet size, whichever is more.
    pub packet_bound: u32,
}

/// One thing that may be set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// URL for SETUP: absolute, on the host of the base.
    pub url: String,
    /// The word of its `m=` line.
    pub kind: MediaKind,
    /// What its packets are.
    pub role: Role,
    /// RTP payload type, the first where there are several.
    pub payload_type: Option<u8>,
    /// What that stands for: as told, or by RFC 3551.
    pub rtpmap: Option<RtpMap>,
    /// Parameters of the format, at most 4096 bytes; longer ones are left out.
    pub fmtp: Option<String>,
}

/// The word of an `m=` line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaKind {
    /// Sound.
    Audio,
    /// Pictures.
    Video,
    /// All else.
    Other,
}

/// What the packets of a media are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// ASF packets of this stream, 1 to 127; those of all streams set up come in one flow.
    Asf(u8),
    /// Repetitions of them.
    Rtx,
    /// Something else, ASF without a header among it: it can be counted.
    Plain,
}

/// What a payload type stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RtpMap {
    /// Name of the encoding, as told.
    pub encoding: String,
    /// Clock of timestamps, not 0.
    pub clock_hz: u32,
    /// What stands behind the clock: the channels of sound.
    pub parameters: Option<String>,
}

impl Remote {
    /// Reads a description. `base` is what its URLs are relative to, see `base_url`.
    ///
    /// Lines that nothing is taken from may be wrong or missing.
    ///
    /// # Errors
    /// [`SdpError`] where it is none, is over a bound, or has an ASF header that is not sound.
    ///
    /// Source: RFC 4566; RFC 2326 C; MS-RTSP 2.2.5.
    pub fn parse(text: &str, base: &str) -> Result<Self, SdpError> {
        if text.len() > SDP_BOUND {
            return Err(SdpError::TooLong(text.len()));
        }
        if parted(base).is_none() {
            return Err(SdpError::Base);
        }
        let session =
            sdp_types::Session::parse(relevant(text).as_bytes()).map_err(|error| SdpError::Syntax(error.to_string()))?;
        let value = |name| session.get_first_attribute_value(name).flatten();
        let windows_media = match header_text(&session) {
            Some(text) => Some(WindowsMedia::read(text, value("maxps"))?),
            None => None,
        };
        let bound = if windows_media.is_some() { ASF_MEDIA_BOUND } else { MEDIA_BOUND };
        match session.medias.len() {
            0 => return Err(SdpError::NoMedia),
            count if count > bound => return Err(SdpError::TooManyMedia(count)),
            _ => {}
        }
        let url = bounded(resolved(base, value("control").unwrap_or_default()))?;
        let tracks = windows_media.as_ref().map(|asf| Tracks::of_streams(asf.header.streams()));
        let media = session.medias.iter().enumerate();
        let media: Vec<_> = media.map(|(at, media)| Media::read(at, media, &url, tracks.as_ref())).collect::<Result<_, _>>()?;
        let range = value("range").and_then(NptRange::parse);
        let types = value("type").unwrap_or_default();
        let is_broadcast = types.split(',').any(|word| word.trim().eq_ignore_ascii_case("broadcast"))
            || range.is_some_and(|range| range.start == Npt::Now)
            || windows_media.as_ref().is_some_and(|asf| asf.header.is_broadcast());
        let title = Some(session.session_name.trim()).filter(|title| !["", "-", "<No Title>"].contains(title));
        Ok(Self {
            url,
            title: title.and_then(words),
            etag: value("etag").and_then(words),
            range,
            is_broadcast,
            windows_media,
            media,
        })
    }
}

/// The lines that something is taken from, each in its place: whatever is in the others is of no interest.
fn relevant(text: &str) -> String {
    let (mut versions, mut titles) = (0, 0);
    let mut out = String::with_capacity(text.len());
    for line in text.split('\n') {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let is_wanted = match line.as_bytes() {
            [b'v', b'=', ..] => {
                versions += 1;
                versions == 1
            }
            [b's', b'=', ..] => {
                titles += 1;
                titles == 1
            }
            [b'a' | b'm', b'=', ..] => true,
            _ => false,
        };
        if is_wanted && !line.contains(['\0', '\r']) {
            out.push_str(line);
        }
        out.push('\n');
    }
    out
}

/// The base64 text of the ASF header.
fn header_text(session: &sdp_types::Session) -> Option<&str> {
    session.attributes.iter().filter(|attribute| attribute.attribute.eq_ignore_ascii_case("pgmpu")).find_map(|attribute| {
        let (prefix, text) = attribute.value.as_deref()?.trim().split_at_checked(HEADER_PREFIX.len())?;
        prefix.eq_ignore_ascii_case(HEADER_PREFIX).then_some(text)
    })
}

impl WindowsMedia {
    fn read(base64: &str, maxps: Option<&str>) -> Result<Self, SdpError> {
        let blob = BASE64.decode(base64).map_err(|_| SdpError::Base64)?;
        let header = Header::parse(&blob)?;
        let behind = blob.get(header.bytes().len()..).unwrap_or_default();
        let at = behind.windows(guids::DATA.0.len()).position(|window| window == guids::DATA.0);
        let head = at.and_then(|at| behind.get(at..)?.first_chunk::<DATA_HEAD_LEN>());
        let blob = Bytes::from([header.bytes(), head.copied().unwrap_or_else(|| header.data_head()).as_slice()].concat());
        let stated = maxps.and_then(|text| text.trim().parse::<u16>().ok()).unwrap_or_default();
        let packet_size = u32::try_from(header.packet_size()).unwrap_or(u32::MAX);
        // Once more, for what the head of the Data Object says, which may have stood farther behind.
        Ok(Self { header: Header::parse(&blob)?, blob, packet_bound: packet_size.max(stated.into()) })
    }
}

impl Media {
    /// The last part of its URL: all that counts of what a publisher says, who may name any host and path.
    pub fn token(&self) -> &str {
        self.url.rsplit('/').next().unwrap_or_default()
    }

    fn read(at: usize, media: &sdp_types::Media, base: &str, tracks: Option<&Tracks>) -> Result<Self, SdpError> {
        let value = |name| media.get_first_attribute_value(name).flatten();
        let payload_type: Option<u8> = media.fmt.split(' ').next().and_then(|first| first.parse().ok());
        let of_type = |value: Option<&str>| {
            let (of, rest) = value?.trim().split_once(' ')?;
            (payload_type.is_some() && of.parse().ok() == payload_type).then(|| rest.trim().to_owned())
        };
        let rtpmap = media.get_attribute_values("rtpmap").find_map(of_type).map(|text| RtpMap::read(&text));
        if let Some(RtpMap { clock_hz: 0, .. }) = rtpmap {
            return Err(SdpError::Clock(at + 1));
        }
        let rtpmap = rtpmap.or_else(|| payload_type.and_then(RtpMap::of_static));
        let is_encoding = |name| rtpmap.as_ref().is_some_and(|map| map.encoding.eq_ignore_ascii_case(name));
        let control = value("control").unwrap_or_default();
        let role = match tracks {
            _ if is_encoding(RTX_ENCODING) => Role::Rtx,
            Some(tracks) if is_encoding(ASF_ENCODING) => stream(value("stream"), control, tracks).map_or(Role::Plain, Role::Asf),
            _ => Role::Plain,
        };
        let kind = match media.media.as_str() {
            kind if kind.eq_ignore_ascii_case("audio") => MediaKind::Audio,
            kind if kind.eq_ignore_ascii_case("video") => MediaKind::Video,
            _ => MediaKind::Other,
        };
        let fmtp = media.get_attribute_values("fmtp").find_map(of_type).filter(|text| text.len() <= PARAMETERS_BOUND);
        Ok(Self { url: bounded(resolved(base, control))?, kind, role, payload_type, rtpmap, fmtp })
    }
}

/// The ASF stream of a media: by its number, else by its token.
fn stream(number: Option<&str>, control: &str, tracks: &Tracks) -> Option<u8> {
    let number = number.and_then(|text| text.trim().parse::<u8>().ok()).filter(|number| (1..=127).contains(number));
    number.or_else(|| match tracks.find(control.rsplit('/').next()?) {
        Some(Control::Stream(number)) => Some(number),
        _ => None,
    })
}

impl RtpMap {
    /// Reads `x-asf-pf/1000`; a clock that cannot be read is 0.
    fn read(text: &str) -> Self {
        let mut parts = text.splitn(3, '/');
        let encoding = parts.next().unwrap_or_default().trim().to_owned();
        let clock = parts.next().unwrap_or_default().trim();
        let clock_hz = if clock.bytes().all(|byte| byte.is_ascii_digit()) { clock.parse().unwrap_or_default() } else { 0 };
        Self { encoding, clock_hz, parameters: parts.next().map(|text| text.trim().to_owned()) }
    }

    /// Payload types that need no telling, as far as they are met (RFC 3551 6).
    fn of_static(payload_type: u8) -> Option<Self> {
        let (encoding, clock_hz) = match payload_type {
            0 => ("PCMU", 8_000),
            3 => ("GSM", 8_000),
            8 => ("PCMA", 8_000),
            9 => ("G722", 8_000),
            14 => ("MPA", 90_000),
            26 => ("JPEG", 90_000),
            32 => ("MPV", 90_000),
            33 => ("MP2T", 90_000),
            _ => return None,
        };
        Some(Self { encoding: encoding.to_owned(), clock_hz, parameters: None })
    }
}

fn bounded(url: String) -> Result<String, SdpError> {
    if url.len() > URL_BOUND { Err(SdpError::LongUrl(url.len())) } else { Ok(url) }
}

/// Foreign words without control characters; nothing where there are too many.
fn words(text: &str) -> Option<String> {
    let text: String = text.trim().chars().filter(|c| !c.is_control()).collect();
    Some(text).filter(|text| (1..=WORDS_BOUND).contains(&text.len()))
}
