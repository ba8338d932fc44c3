//! Transcoding: what ffmpeg makes of an input, and which of it a player gets.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use super::check::Check;
use super::raw::{RawAudio, RawPlayerProfile, RawProfile, RawTranscode, RawVideo};
use super::{PublishingPoint, Settings, Source};

/// Profiles that one publishing point lends beside its own.
pub const PROFILES_MAX: usize = 16;
/// The profile of a source that names none.
pub(super) const DEFAULT_PROFILE: &str = "wmp9";
/// What FFmpeg, MPlayer, xine and television sets call themselves over HTTP, and Windows Media Player 6.4 did in its first days: they
/// decode more than that.
const BORROWED: &str = "NSPlayer/4.1.0.3856";
/// More would be more than a machine has.
const CHILDREN_MAX: u32 = 1000;
/// The lowest priority that there is.
const NICE_MAX: u32 = 19;
/// Less than that, ffmpeg does not even start.
const MEMORY_MIN: u64 = 64 << 20;
/// The sizes that FFmpeg's ASF writer takes, with room for the head of a packet.
const PACKET_SIZES: std::ops::RangeInclusive<u32> = 256..=65_000;
const BIT_RATES_KBPS: std::ops::RangeInclusive<u32> = 4..=100_000;
/// FFmpeg's encoders of Windows Media Audio take no less, at whatever sample rate.
const WMA_KBPS_MIN: u32 = 24;
const DIMENSIONS: std::ops::RangeInclusive<u32> = 16..=8192;

/// The programs that transcode, and what they may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transcode {
    /// The program `ffmpeg`: a name that is looked for in PATH, or a path.
    pub ffmpeg: String,
    /// The program `ffprobe`, likewise.
    pub ffprobe: String,
    /// Children that transcode at once, at least 1.
    pub children: usize,
    /// Their niceness, 0 to 19.
    pub nice: i32,
    /// Memory that one of them may fill, bytes; `None`: no limit.
    pub memory_bytes: Option<u64>,
}

impl Default for Transcode {
    /// Eight children, behind the daemon in priority, of 2 GiB at most: pictures of 4K in flight take some 1 GiB.
    fn default() -> Self {
        Self { ffmpeg: "ffmpeg".into(), ffprobe: "ffprobe".into(), children: 8, nice: 5, memory_bytes: Some(2 << 30) }
    }
}

/// What an input is made to be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Profile {
    /// Its name, as in `?profile=NAME`: letters, digits, `-` and `_`. Case does not count.
    pub name: Cow<'static, str>,
    /// Pictures; `None`: sound alone.
    pub video: Option<VideoProfile>,
    /// Sound; `None`: pictures alone.
    pub audio: Option<AudioProfile>,
    /// ASF packets, bytes.
    pub packet_size: u32,
    /// Whether what fits already is taken as it is. To know that, the input is looked at first, which takes a second.
    pub copy: bool,
    /// Options for the output, behind all others.
    pub arguments: Vec<String>,
}

/// How pictures are coded. What is smaller or slower stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VideoProfile {
    /// The codec.
    pub codec: VideoCodec,
    /// Bits per second.
    pub bit_rate: u32,
    /// Largest picture, width and height in pixels.
    pub size: (u32, u32),
    /// Most frames a second.
    pub frame_rate: u32,
    /// Time from key frame to key frame.
    pub key_frame_interval: Duration,
}

/// How sound is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AudioProfile {
    /// The codec.
    pub codec: AudioCodec,
    /// Bits per second.
    pub bit_rate: u32,
    /// Samples a second.
    pub sample_rate: u32,
    /// Channels, 1 or 2.
    pub channels: u32,
}

/// A codec of pictures that ASF carries and ffmpeg writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VideoCodec {
    /// Microsoft MPEG-4 version 3 (`MP43`).
    Msmpeg4v3,
    /// Windows Media Video 7.
    Wmv1,
    /// Windows Media Video 8.
    Wmv2,
    /// H.264.
    H264,
    /// Motion JPEG.
    Mjpeg,
}

/// A codec of sound that ASF carries and ffmpeg writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AudioCodec {
    /// Windows Media Audio 1.
    Wmav1,
    /// Windows Media Audio 2 (also called 7, 8 and 9).
    Wmav2,
    /// AAC, low complexity.
    Aac,
    /// MP3.
    Mp3,
}

impl VideoCodec {
    /// What ffprobe and the settings call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Msmpeg4v3 => "msmpeg4v3",
            Self::Wmv1 => "wmv1",
            Self::Wmv2 => "wmv2",
            Self::H264 => "h264",
            Self::Mjpeg => "mjpeg",
        }
    }
}

impl AudioCodec {
    /// What ffprobe and the settings call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wmav1 => "wmav1",
            Self::Wmav2 => "wmav2",
            Self::Aac => "aac",
            Self::Mp3 => "mp3",
        }
    }
}

impl Profile {
    /// Whether a name is meant by it.
    pub fn is_called(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// Whether Windows Media Player 6.4 decodes it, as it was installed or by codecs that it fetched.
    pub fn is_for_wmp64(&self) -> bool {
        let video = self.video.is_none_or(|video| matches!(video.codec, VideoCodec::Msmpeg4v3 | VideoCodec::Wmv1));
        video && self.audio.is_none_or(|audio| !matches!(audio.codec, AudioCodec::Aac))
    }

    /// Those that need no settings.
    ///
    /// `wmp64`: what Windows Media Player 6.4 brought with it, for a modem's or an old machine's sake small. `wmp9`: players from
    /// 7 on. `wmp12`: what Windows decodes from 7 on, and cameras send. `radio`: sound for all of them.
    pub fn built_in() -> Vec<Self> {
        let profile = |name: &'static str, video, audio| Self {
            name: Cow::Borrowed(name),
            video,
            audio: Some(audio),
            packet_size: 1400,
            copy: true,
            arguments: Vec::new(),
        };
        let video = |codec, bit_rate, size, frame_rate| {
            Some(VideoProfile { codec, bit_rate, size, frame_rate, key_frame_interval: Duration::from_secs(2) })
        };
        let audio = |codec, bit_rate, sample_rate, channels| AudioProfile { codec, bit_rate, sample_rate, channels };
        vec![
            profile("wmp64", video(VideoCodec::Msmpeg4v3, 250_000, (320, 240), 15), audio(AudioCodec::Wmav1, 32_000, 22_050, 1)),
            profile("wmp9", video(VideoCodec::Wmv2, 1_200_000, (720, 576), 25), audio(AudioCodec::Wmav2, 96_000, 44_100, 2)),
            profile("wmp12", video(VideoCodec::H264, 3_000_000, (1920, 1080), 30), audio(AudioCodec::Aac, 128_000, 48_000, 2)),
            profile("radio", None, audio(AudioCodec::Wmav2, 96_000, 44_100, 2)),
        ]
    }
}

/// What some players get of a publishing point whose source is transcoded, if they do not say by `?profile=`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlayerProfile {
    /// How the player's name for itself begins, as in `NSPlayer/4.`; empty: any.
    pub player: String,
    /// `mms`, `http` or `rtsp`; `None`: any.
    pub protocol: Option<&'static str>,
    /// The profile's name.
    pub profile: String,
}

/// An input that ffmpeg reads, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FfmpegInput {
    /// A URL, or a path. May hold a login or an access key.
    pub input: String,
    /// Options for it.
    pub arguments: Vec<String>,
}

impl FfmpegInput {
    /// Whether it waits for somebody who sends to it: then nobody may look at it before, and its silence is no fault.
    pub fn listens(&self) -> bool {
        let query = self.input.split_once('?').map_or("", |(_, query)| query);
        let asks = |parameter: &str| query.split(['&', ';']).any(|part| part == parameter);
        let told = self.arguments.windows(2).any(|pair| match pair {
            [option, value] => match option.as_str() {
                "-listen" => value != "0",
                "-mode" => value == "listener",
                "-rtsp_flags" => value.contains("listen"),
                _ => false,
            },
            _ => false,
        });
        told || asks("listen") || asks("listen=1") || asks("mode=listener")
    }

    /// Whether it comes no faster than it plays, from whoever takes it up.
    pub fn is_live(&self) -> bool {
        const LIVE: [&str; 7] = ["rtsp", "rtsps", "rtp", "rtmp", "rtmps", "srt", "udp"];
        scheme_of(&self.input).is_some_and(|scheme| LIVE.contains(&scheme.as_str()))
    }

    /// Whether it is sent to a port of this machine, which one child can have at a time. Datagrams to a group come to all who want
    /// them.
    pub fn owns_port(&self) -> bool {
        match scheme_of(&self.input).as_deref() {
            Some("udp" | "rtp") => {
                let host = self.authority().rsplit_once(':').map_or("", |(host, _)| host);
                let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
                !host.parse::<IpAddr>().is_ok_and(|address| address.is_multicast())
            }
            Some(_) => self.listens(),
            None => self.input.get(self.input.len().saturating_sub(4)..).is_some_and(|end| end.eq_ignore_ascii_case(".sdp")),
        }
    }

    /// Host and port of a URL.
    fn authority(&self) -> &str {
        let rest = self.input.split_once("://").map_or("", |(_, rest)| rest);
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        authority.rsplit_once('@').map_or(authority, |(_, authority)| authority)
    }
}

/// What a viewer of a publishing point whose source is transcoded gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice<'a> {
    /// The publishing point itself.
    Own,
    /// Another profile of its input.
    Other(&'a str),
    /// There is no such profile.
    Unknown,
    /// Another profile was asked for, and the input comes once: see [`FfmpegInput::owns_port`].
    OwnAlone,
}

impl Settings {
    /// The profile of this name, own or built in.
    pub fn profile(&self, name: &str) -> Option<&Profile> {
        self.profiles.iter().find(|profile| profile.is_called(name))
    }

    /// Which profile a viewer gets of a source with the profile `own`: what it asks for (`wish`), else what the settings say
    /// of such players (`token`: its name for itself), else `own`, but for NSPlayer 4 to 6, which is Windows Media Player 6.4
    /// and could not decode most of these: it gets `wmp64`. An input that owns its port comes once, in the profile `own`.
    pub fn profile_for<'a>(
        &'a self,
        input: &FfmpegInput,
        own: &str,
        wish: Option<&str>,
        token: &str,
        protocol: &str,
    ) -> Choice<'a> {
        if input.owns_port() {
            return match wish.map(|wish| self.profile(wish)) {
                None => Choice::Own,
                Some(Some(profile)) if profile.is_called(own) => Choice::Own,
                Some(Some(_)) => Choice::OwnAlone,
                Some(None) => Choice::Unknown,
            };
        }
        let chosen = match wish {
            Some(wish) => match self.profile(wish) {
                Some(profile) => Some(profile),
                None => return Choice::Unknown,
            },
            None => {
                let begins = |begin: &str| token.get(..begin.len()).is_some_and(|begun| begun.eq_ignore_ascii_case(begin));
                let is_meant =
                    |rule: &&PlayerProfile| begins(&rule.player) && rule.protocol.is_none_or(|spoken| spoken == protocol);
                let is_old = ["NSPlayer/4.", "NSPlayer/5.", "NSPlayer/6."].iter().any(|old| begins(old)) && !begins(BORROWED);
                match self.player_profiles.iter().find(is_meant) {
                    Some(rule) => self.profile(&rule.profile),
                    None if is_old && !self.profile(own).is_some_and(Profile::is_for_wmp64) => self.profile("wmp64"),
                    None => None,
                }
            }
        };
        match chosen {
            Some(profile) if !profile.is_called(own) => Choice::Other(&profile.name),
            _ => Choice::Own,
        }
    }
}

/// The schemes that ffmpeg is given; what each may open beside itself is with the arguments that are made of it.
pub const SCHEMES: [&str; 12] = ["rtsp", "rtsps", "http", "https", "udp", "rtp", "rtmp", "rtmps", "srt", "tcp", "mmsh", "mmst"];

/// The scheme of an input in small letters; `None` where it is a path.
pub fn scheme_of(input: &str) -> Option<String> {
    let (scheme, _) = input.split_once("://")?;
    let is_one = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    (is_one && !scheme.is_empty()).then(|| scheme.to_ascii_lowercase())
}

pub(super) fn transcode(check: &mut Check<'_>, raw: &RawTranscode) -> Transcode {
    let built_in = Transcode::default();
    let mut program = |key: &str, written: Option<&String>, built_in: String| match written {
        Some(program) if program.is_empty() => {
            check.problem(key, "is empty; leave it out, or name the program".into());
            built_in
        }
        Some(program) => program.clone(),
        None => built_in,
    };
    let (ffmpeg, ffprobe) = (
        program("transcode.ffmpeg", raw.ffmpeg.as_ref(), built_in.ffmpeg),
        program("transcode.ffprobe", raw.ffprobe.as_ref(), built_in.ffprobe),
    );
    if let Some(children) = raw.children.filter(|children| !(1..=CHILDREN_MAX).contains(children)) {
        check.problem("transcode.children", format!("{children} is not between 1 and {CHILDREN_MAX}"));
    }
    if let Some(nice) = raw.nice.filter(|nice| *nice > NICE_MAX) {
        check.problem("transcode.nice", format!("{nice} is not between 0 and {NICE_MAX}"));
    }
    if let Some(bytes) = raw.memory_bytes.filter(|bytes| (1..MEMORY_MIN).contains(bytes)) {
        check.problem(
            "transcode.memory_bytes",
            format!("{bytes} is too little; ffmpeg needs at least {MEMORY_MIN}, and 0 is no limit"),
        );
    }
    Transcode {
        ffmpeg,
        ffprobe,
        children: raw.children.and_then(|children| usize::try_from(children).ok()).unwrap_or(built_in.children),
        nice: raw.nice.and_then(|nice| i32::try_from(nice).ok()).unwrap_or(built_in.nice),
        memory_bytes: raw.memory_bytes.map_or(built_in.memory_bytes, |bytes| (bytes > 0).then_some(bytes)),
    }
}

/// The built-in profiles, those replaced that are written under the same name, and then what is written beside.
pub(super) fn profiles(check: &mut Check<'_>, raw: &[RawProfile]) -> Vec<Profile> {
    let mut profiles = Profile::built_in();
    for (i, raw) in raw.iter().enumerate() {
        let key = format!("profile[{i}]");
        let Some(profile) = profile(check, &key, raw) else { continue };
        match profiles.iter_mut().find(|earlier| earlier.is_called(&profile.name)) {
            Some(earlier) => *earlier = profile,
            None => profiles.push(profile),
        }
    }
    if profiles.len() > PROFILES_MAX {
        let why = format!("{} with those that are built in; there can be {PROFILES_MAX}", profiles.len());
        check.problem("profile", why);
    }
    profiles
}

fn profile(check: &mut Check<'_>, key: &str, raw: &RawProfile) -> Option<Profile> {
    let Some(name) = raw.name.clone() else {
        check.problem(key, "lacks `name`".into());
        return None;
    };
    if name.is_empty() || name.len() > 64 || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
        check.problem(
            &format!("{key}.name"),
            format!("{name:?} is not of 1 to 64 letters, digits, - and _, as ?profile=NAME wants it"),
        );
    }
    if raw.video.is_none() && raw.audio.is_none() {
        check.problem(key, "has neither `video` nor `audio`, such as video = { codec = \"wmv2\" }".into());
    }
    let video = raw.video.as_ref().map(|raw| video(check, &format!("{key}.video"), raw));
    let audio = raw.audio.as_ref().map(|raw| audio(check, &format!("{key}.audio"), raw));
    let packet_size = in_range(check, &format!("{key}.packet_size"), raw.packet_size, &PACKET_SIZES, 1400);
    let arguments = arguments(check, &format!("{key}.arguments"), raw.arguments.as_ref());
    // One that is wrong has been told.
    let (video, audio) = (video.flatten(), audio.flatten());
    Some(Profile { name: Cow::Owned(name), video, audio, packet_size, copy: raw.copy.unwrap_or(true), arguments })
}

fn video(check: &mut Check<'_>, key: &str, raw: &RawVideo) -> Option<VideoProfile> {
    const CODECS: [VideoCodec; 5] =
        [VideoCodec::Msmpeg4v3, VideoCodec::Wmv1, VideoCodec::Wmv2, VideoCodec::H264, VideoCodec::Mjpeg];
    let names = CODECS.map(VideoCodec::name);
    let codec = codec(check, key, raw.codec.as_deref(), &names).and_then(|at| CODECS.get(at).copied());
    let bit_rate = in_range(check, &format!("{key}.bit_rate_kbps"), raw.bit_rate_kbps, &BIT_RATES_KBPS, 1000);
    let width = in_range(check, &format!("{key}.max_width"), raw.max_width, &DIMENSIONS, 720);
    let height = in_range(check, &format!("{key}.max_height"), raw.max_height, &DIMENSIONS, 576);
    let frame_rate = in_range(check, &format!("{key}.max_fps"), raw.max_fps, &(1..=120), 25);
    let key_frame_ms = in_range(check, &format!("{key}.key_frame_ms"), raw.key_frame_ms, &(100..=30_000), 2000);
    Some(VideoProfile {
        codec: codec?,
        bit_rate: bit_rate * 1000,
        size: (width, height),
        frame_rate,
        key_frame_interval: Duration::from_millis(key_frame_ms.into()),
    })
}

fn audio(check: &mut Check<'_>, key: &str, raw: &RawAudio) -> Option<AudioProfile> {
    const CODECS: [AudioCodec; 4] = [AudioCodec::Wmav1, AudioCodec::Wmav2, AudioCodec::Aac, AudioCodec::Mp3];
    let names = CODECS.map(AudioCodec::name);
    let codec = codec(check, key, raw.codec.as_deref(), &names).and_then(|at| CODECS.get(at).copied());
    let bit_rate = in_range(check, &format!("{key}.bit_rate_kbps"), raw.bit_rate_kbps, &BIT_RATES_KBPS, 64);
    let is_wma = matches!(codec, Some(AudioCodec::Wmav1 | AudioCodec::Wmav2));
    if is_wma && BIT_RATES_KBPS.contains(&bit_rate) && bit_rate < WMA_KBPS_MIN {
        let why =
            format!("{bit_rate} is too little: ffmpeg makes no Windows Media Audio below {WMA_KBPS_MIN} kbit/s; mp3 goes lower");
        check.problem(&format!("{key}.bit_rate_kbps"), why);
    }
    let sample_rate = in_range(check, &format!("{key}.sample_rate"), raw.sample_rate, &(8000..=48_000), 44_100);
    let channels = in_range(check, &format!("{key}.channels"), raw.channels, &(1..=2), 2);
    Some(AudioProfile { codec: codec?, bit_rate: bit_rate * 1000, sample_rate, channels })
}

/// Which of the codecs.
fn codec(check: &mut Check<'_>, key: &str, written: Option<&str>, names: &[&str]) -> Option<usize> {
    let mut known = String::new();
    for name in names {
        let _ = write!(known, "{}\"{name}\"", if known.is_empty() { "" } else { ", " }); // writing to a String cannot fail
    }
    let Some(written) = written else {
        check.problem(key, format!("lacks `codec`: one of {known}"));
        return None;
    };
    let found = names.iter().position(|name| *name == written);
    if found.is_none() {
        check.problem(&format!("{key}.codec"), format!("{written:?} is not one of {known}"));
    }
    found
}

fn in_range(
    check: &mut Check<'_>,
    key: &str,
    written: Option<u32>,
    range: &std::ops::RangeInclusive<u32>,
    otherwise: u32,
) -> u32 {
    match written {
        None => otherwise,
        Some(number) if range.contains(&number) => number,
        Some(number) => {
            check.problem(key, format!("{number} is not between {} and {}", range.start(), range.end()));
            otherwise
        }
    }
}

/// Arguments that a program can be given.
fn arguments(check: &mut Check<'_>, key: &str, written: Option<&Vec<String>>) -> Vec<String> {
    let arguments = written.cloned().unwrap_or_default();
    if arguments.iter().any(|argument| argument.contains('\0')) {
        check.problem(key, "an argument contains a NUL character, which no program can be given".into());
    }
    if let [only] = arguments.as_slice()
        && only.starts_with('-')
        && only.contains(' ')
    {
        let why = "the only argument contains spaces; there is no shell, so every option and every value is a string of its own";
        check.warning(key, why.into());
    }
    arguments
}

pub(super) fn player_profiles(check: &mut Check<'_>, raw: &[RawPlayerProfile], profiles: &[Profile]) -> Vec<PlayerProfile> {
    let mut rules = Vec::new();
    for (i, raw) in raw.iter().enumerate() {
        let key = format!("player_profile[{i}]");
        let protocol = match raw.protocol.as_deref() {
            None => None,
            Some("mms") => Some("mms"),
            Some("http") => Some("http"),
            Some("rtsp") => Some("rtsp"),
            Some(other) => {
                let why = format!("{other:?} is no protocol for viewers; there are \"mms\", \"http\" and \"rtsp\"");
                check.problem(&format!("{key}.protocol"), why);
                None
            }
        };
        let Some(profile) = raw.profile.clone() else {
            check.problem(&key, "lacks `profile`".into());
            continue;
        };
        known_profile(check, &format!("{key}.profile"), &profile, profiles);
        if raw.player.is_none() && protocol.is_none() {
            check.problem(
                &key,
                "has neither `player` nor `protocol`, so it would hold for all; write `profile` at the sources".into(),
            );
        }
        rules.push(PlayerProfile { player: raw.player.clone().unwrap_or_default(), protocol, profile });
    }
    rules
}

fn known_profile(check: &mut Check<'_>, key: &str, name: &str, profiles: &[Profile]) {
    if !profiles.iter().any(|profile| profile.is_called(name)) {
        let known: Vec<_> = profiles.iter().map(|profile| format!("{:?}", profile.name)).collect();
        check.problem(key, format!("there is no profile {name:?}; there are {}", known.join(", ")));
    }
}

/// The profiles that sources name must be there, and their inputs' ports are one child's each.
pub(super) fn sources(check: &mut Check<'_>, settings: &Settings) {
    let mut ports: Vec<(&PublishingPoint, &FfmpegInput, &str)> = Vec::new();
    for (i, point) in settings.publishing_points.iter().enumerate() {
        let Source::Ffmpeg { input, profile, .. } = &point.source else { continue };
        known_profile(check, &format!("publishing_point[{i}].source.profile"), profile, &settings.profiles);
        if !input.owns_port() {
            continue;
        }
        let key = format!("publishing_point[{i}].source.input");
        if point.pattern().is_some() {
            let why = "comes to one port of this machine, so that one name of the template can be watched at a time";
            check.warning(&key, why.into());
        }
        let is_same_port = |other: &FfmpegInput| {
            other == input || (!input.authority().is_empty() && other.authority().eq_ignore_ascii_case(input.authority()))
        };
        let other = ports.iter().find(|(_, other, _)| is_same_port(other));
        match other {
            Some((_, other, of_other)) if *other == input && of_other.eq_ignore_ascii_case(profile) => {}
            Some((other, ..)) => check.warning(
                &key,
                format!("comes to the port of {:?}: one child can have it, so that the other one has no source", other.name),
            ),
            None => {}
        }
        let rules = settings.player_profiles.iter().any(|rule| !rule.profile.eq_ignore_ascii_case(profile));
        if rules || !settings.profile(profile).is_none_or(Profile::is_for_wmp64) {
            let why = format!(
                "comes to one port of this machine, so that all players get it in its own profile, {profile:?}, whatever they \
                 decode: no [[player_profile]] holds for it, and no other one by ?profile="
            );
            check.warning(&key, why);
        }
        ports.push((point, input, profile));
    }
}

/// An input as a person writes it: a URL of a scheme that is known, or a path.
pub(super) fn input(
    check: &mut Check<'_>,
    key: &str,
    written: Option<&String>,
    input_arguments: Option<&Vec<String>>,
) -> Option<FfmpegInput> {
    let arguments = arguments(check, &format!("{key}.input_arguments"), input_arguments);
    let Some(input) = written.filter(|input| !input.is_empty()) else {
        check.problem(key, "lacks `input`, such as \"rtsp://USER:PASSWORD@camera/stream\", or a path".into());
        return None;
    };
    let key = format!("{key}.input");
    if input.starts_with('-') {
        check.problem(&key, "begins with -, so that ffmpeg would take it for an option; for a file write ./ in front".into());
    }
    if input.chars().any(char::is_control) {
        check.problem(&key, "contains a control character".into());
    }
    let has_format = arguments.iter().any(|argument| argument == "-f");
    let input = match scheme_of(input) {
        Some(scheme) if !SCHEMES.contains(&scheme.as_str()) => {
            check.problem(&key, format!("{scheme}:// is not known here; there are {}, and paths", SCHEMES.join(", ")));
            input.clone()
        }
        Some(_) => input.clone(),
        // A device, or something that is no file at all: the format says how it is read.
        None if has_format => input.clone(),
        None => check.existing_file(&key, std::path::Path::new(input)).to_string_lossy().into_owned(),
    };
    Some(FfmpegInput { input, arguments })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        let rule =
            |player: &str, protocol, profile: &str| PlayerProfile { player: player.into(), protocol, profile: profile.into() };
        Settings {
            player_profiles: vec![rule("NSPlayer/4.", Some("http"), "radio"), rule("VLC", None, "wmp12")],
            ..Settings::default()
        }
    }

    #[test]
    fn a_player_gets_what_it_asks_for_else_what_it_can_decode() {
        let settings = settings();
        for (own, wish, token, protocol, choice) in [
            ("wmp9", None, "NSPlayer/9.0.0.3250", "mms", Choice::Own),
            ("wmp9", Some("WMP64"), "NSPlayer/9.0.0.3250", "mms", Choice::Other("wmp64")),
            ("wmp9", Some("WMP9"), "NSPlayer/4.1", "mms", Choice::Own),
            ("wmp9", Some("mp3"), "", "mms", Choice::Unknown),
            ("wmp9", Some(""), "", "mms", Choice::Unknown),
            ("wmp9", None, "NSPlayer/4.1.0.3925; {x}", "mms", Choice::Other("wmp64")),
            ("wmp9", None, "NSPlayer/4.1.0.3856 (compatible; LG NetCast.TV-2013)", "http", Choice::Other("radio")),
            ("wmp9", None, "NSPlayer/4.1.0.3856", "mms", Choice::Own),
            ("wmp9", None, "NSPlayer/6.4.9.1125", "http", Choice::Other("wmp64")),
            ("wmp9", None, "nsplayer/6.4", "rtsp", Choice::Other("wmp64")),
            ("wmp9", None, "NSPlayer/40.1", "mms", Choice::Own),
            ("wmp64", None, "NSPlayer/4.1.0.3925", "mms", Choice::Own),
            ("radio", None, "NSPlayer/4.1.0.3925", "mms", Choice::Own),
            ("wmp9", None, "NSPlayer/4.1.0.3856", "http", Choice::Other("radio")),
            ("wmp9", None, "VLC/3", "rtsp", Choice::Other("wmp12")),
            ("wmp12", None, "VLC/3", "rtsp", Choice::Own),
            ("wmp9", None, "", "rtsp", Choice::Own),
        ] {
            let camera = FfmpegInput { input: "rtsp://h/1".into(), arguments: Vec::new() };
            assert_eq!(settings.profile_for(&camera, own, wish, token, protocol), choice, "{own} {wish:?} {token} {protocol}");
        }
    }

    #[test]
    fn what_comes_to_a_port_of_ours_is_had_in_one_profile() {
        let settings = settings();
        let input = |url: &str, arguments: &[&str]| FfmpegInput {
            input: url.into(),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
        };
        for (url, arguments, owns) in [
            ("udp://127.0.0.1:20703", &[][..], true),
            ("udp://:5000?pkt_size=1316", &[], true),
            ("udp://@:5000", &[], true),
            ("rtp://[::1]:5000", &[], true),
            ("udp://@239.0.0.1:5000", &[], false),
            ("udp://239.0.0.1:5000?localaddr=192.0.2.1", &[], false),
            ("rtp://[ff02::7]:5000", &[], false),
            ("rtmp://h:1935/live", &[], false),
            ("rtmp://h:1935/live", &["-listen", "1"], true),
            ("srt://:9000?mode=listener", &[], true),
            ("rtsp://:8555/x", &["-rtsp_flags", "prefer_tcp+listen"], true),
            ("rtsp://cam/1", &[], false),
            ("/x.sdp", &[], true),
            ("/x.mp4", &[], false),
            ("x", &[], false),
        ] {
            let input = input(url, arguments);
            assert_eq!(input.owns_port(), owns, "{url}");
            let (old, choice) = ("NSPlayer/4.1.0.3925", |other| if owns { Choice::Own } else { other });
            assert_eq!(settings.profile_for(&input, "wmp9", None, old, "mms"), choice(Choice::Other("wmp64")), "{url}");
            let wished = if owns { Choice::OwnAlone } else { Choice::Other("wmp64") };
            assert_eq!(settings.profile_for(&input, "wmp9", Some("wmp64"), old, "mms"), wished, "{url}");
            assert_eq!(settings.profile_for(&input, "wmp9", Some("WMP9"), old, "mms"), Choice::Own, "{url}");
            assert_eq!(settings.profile_for(&input, "wmp9", Some("no"), old, "mms"), Choice::Unknown, "{url}");
        }
    }

    #[test]
    fn the_built_in_profiles_are_for_whom_they_say() {
        let settings = Settings::default();
        let names: Vec<_> = settings.profiles.iter().map(|profile| (&*profile.name, profile.is_for_wmp64())).collect();
        assert_eq!(names, [("wmp64", true), ("wmp9", false), ("wmp12", false), ("radio", true)]);
    }

    #[test]
    fn schemes() {
        for (input, scheme) in [
            ("RTSP://h/", Some("rtsp")),
            ("udp://@239.0.0.1:5000", Some("udp")),
            ("/dev/video0", None),
            ("a b://c", None),
            ("://x", None),
            ("C:/x", None),
        ] {
            assert_eq!(scheme_of(input).as_deref(), scheme, "{input}");
        }
    }
}
