//! What ffmpeg and ffprobe are told: lists of arguments, which no shell ever reads.

use std::path::Path;

use super::probe::Copies;
use crate::settings::{AudioCodec, AudioProfile, FfmpegInput, Profile, VideoCodec, VideoProfile, scheme_of};

/// How long an input may be silent before ffmpeg gives it up, µs; a camera that was switched off is noticed by that.
const INPUT_TIMEOUT_US: &str = "15000000";
/// So much of an input is read before it is decided what is in it, µs of media: a stream without sound would take five seconds.
const ANALYZE_US: &str = "2000000";
/// Pictures of a live input by which its rate is guessed, where nothing is made of that guess; twenty would be waited for, which take a
/// second or two. So many tell whether pictures come in another order than they are shown in.
const FEW_PICTURES: &str = "8";

/// What an input is opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To be looked at, by ffprobe, which lacks some options.
    Look,
    /// To be sent on, pictures as they are.
    Copy,
    /// To be sent on, pictures encoded anew: at the rate that is guessed.
    Transcode,
}

/// The arguments, the program first, by which ffmpeg makes of an input what a profile says.
///
/// It writes ASF to its standard output, and its progress to standard error, a `key=value` line each.
pub(super) fn ffmpeg(program: &str, input: &FfmpegInput, profile: &Profile, copies: Copies) -> Vec<String> {
    let mut argv = Argv::new(program);
    argv.add(["-hide_banner", "-nostdin", "-loglevel", "warning", "-nostats", "-stats_period", "2", "-progress", "pipe:2"]);
    let purpose = if profile.video.is_some() && !copies.video { Purpose::Transcode } else { Purpose::Copy };
    argv.input(input, purpose, !plays_in_laps(input, profile, copies));
    argv.add(["-map_metadata", "-1", "-map_chapters", "-1", "-sn", "-dn"]);
    // What is missing in the input is missing in the output; a cover of a record (V leaves it out) is no film.
    match &profile.video {
        Some(_) if copies.video => argv.add(["-map", "0:V:0?"]).copied_video(profile),
        Some(video) => argv.add(["-map", "0:V:0?"]).video(video),
        None => argv.add(["-vn"]),
    };
    match &profile.audio {
        Some(_) if copies.audio => argv.add(["-map", "0:a:0?", "-c:a", "copy"]),
        Some(audio) => argv.add(["-map", "0:a:0?"]).audio(audio),
        None => argv.add(["-an"]),
    };
    argv.add(["-packet_size", &profile.packet_size.to_string(), "-flush_packets", "1", "-max_interleave_delta", "500000"]);
    argv.add(profile.arguments.iter().map(String::as_str));
    argv.add(["-f", "asf_stream", "pipe:1"]);
    argv.0
}

/// The arguments, the program first, by which ffprobe tells as JSON what streams an input has.
pub(super) fn ffprobe(program: &str, input: &FfmpegInput) -> Vec<String> {
    let mut argv = Argv::new(program);
    argv.add(["-hide_banner", "-loglevel", "error", "-print_format", "json", "-show_streams"]);
    argv.input(input, Purpose::Look, false);
    argv.0
}

/// Whether a file that is played over and over is to be begun anew by another child each time. FFmpeg's own loop ends H.264 that is
/// copied: at the end of the file the filter that puts start codes in takes no more.
pub(super) fn plays_in_laps(input: &FfmpegInput, profile: &Profile, copies: Copies) -> bool {
    let is_copied_h264 = copies.video && profile.video.is_some_and(|video| video.codec == VideoCodec::H264);
    is_copied_h264 && (loops_unasked(input) || input.arguments.windows(2).any(|pair| pair == ["-stream_loop", "-1"]))
}

/// Whether a path is one of a file that is played over and over though nobody wrote so.
fn loops_unasked(input: &FfmpegInput) -> bool {
    let is_told = |argument: &String| ["-f", "-re", "-readrate", "-stream_loop"].contains(&argument.as_str());
    scheme_of(&input.input).is_none()
        && !has_ending(&input.input, &["m3u8", "m3u", "sdp"])
        && !input.arguments.iter().any(is_told)
}

/// The protocols that an input of this scheme may open, its own and what that runs on: so a playlist from afar reads no local files.
fn protocols(input: &FfmpegInput) -> &'static str {
    const WEB: &str = "http,https,tls,tcp,httpproxy,crypto";
    match scheme_of(&input.input).as_deref() {
        Some("rtsp") => "rtsp,rtp,udp,tcp",
        Some("rtsps") => "rtsp,rtp,udp,tls,tcp",
        Some("http" | "https") => WEB,
        Some("udp") => "udp",
        Some("rtp") => "rtp,udp",
        Some("rtmp") => "rtmp,tcp",
        Some("rtmps") => "rtmps,tls,tcp",
        Some("srt") => "srt",
        Some("tcp") => "tcp",
        Some("mmsh") => "mmsh,http,tcp",
        Some("mmst") => "mmst,tcp",
        Some(_) => "none",
        None if has_ending(&input.input, &["sdp"]) => "file,rtp,udp",
        None => "file,crypto",
    }
}

fn has_ending(path: &str, endings: &[&str]) -> bool {
    let ending = Path::new(path).extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    endings.iter().any(|known| ending.eq_ignore_ascii_case(known))
}

/// Arguments that grow.
struct Argv(Vec<String>);

impl Argv {
    fn new(program: &str) -> Self {
        Self(vec![program.to_owned()])
    }

    fn add<'a>(&mut self, arguments: impl IntoIterator<Item = &'a str>) -> &mut Self {
        self.0.extend(arguments.into_iter().map(str::to_owned));
        self
    }

    /// The input and its options. `loops`: whether it may be played over and over by the same child.
    fn input(&mut self, input: &FfmpegInput, purpose: Purpose, loops: bool) -> &mut Self {
        let FfmpegInput { input: url, arguments } = input;
        let plays = purpose != Purpose::Look;
        let scheme = scheme_of(url);
        let says = |option: &str| arguments.iter().any(|argument| argument == option);
        self.add(["-protocol_whitelist", protocols(input), "-analyzeduration", ANALYZE_US]);
        if input.is_live() && purpose != Purpose::Transcode {
            self.add(["-fpsprobesize", FEW_PICTURES]);
        }
        match scheme.as_deref() {
            Some("rtsp" | "rtsps") => {
                // One way through every firewall, and no picture torn by a lost datagram.
                self.add(["-rtsp_transport", "tcp", "-timeout", INPUT_TIMEOUT_US]);
            }
            Some("http" | "https") => {
                self.add(["-reconnect", "1", "-reconnect_streamed", "1", "-reconnect_on_network_error", "1"]);
                self.add(["-reconnect_delay_max", "5", "-rw_timeout", INPUT_TIMEOUT_US]);
            }
            Some("rtmp" | "rtmps" | "tcp" | "mmsh" | "mmst") if !input.listens() => {
                self.add(["-rw_timeout", INPUT_TIMEOUT_US]);
            }
            // Files are no faster than they play, and begin again.
            None if plays && !["-f", "-re", "-readrate", "-stream_loop"].iter().any(|option| says(option)) => {
                self.add(["-re"]);
                if loops && loops_unasked(input) {
                    self.add(["-stream_loop", "-1"]);
                }
            }
            _ => {}
        }
        let mut rest = arguments.iter().map(String::as_str);
        while let Some(argument) = rest.next() {
            match argument {
                "-re" if !plays => {}
                "-stream_loop" if !loops => {
                    rest.next();
                }
                "-readrate" | "-itsoffset" | "-thread_queue_size" | "-hwaccel" if !plays => {
                    rest.next();
                }
                _ => {
                    self.add([argument]);
                }
            }
        }
        // The name of a file may look like a protocol.
        let url = if scheme.is_none() && url.starts_with('/') && !says("-f") { format!("file:{url}") } else { url.clone() };
        self.add(["-i", &url])
    }

    /// As it is, but in the form that Windows decodes: H.264 with start codes, and its parameter sets before each key frame.
    fn copied_video(&mut self, profile: &Profile) -> &mut Self {
        self.add(["-c:v", "copy"]);
        if profile.video.is_some_and(|video| video.codec == VideoCodec::H264) {
            self.add(["-bsf:v", "h264_mp4toannexb,dump_extra=freq=keyframe", "-tag:v", "H264"]);
        }
        self
    }

    fn video(&mut self, video: &VideoProfile) -> &mut Self {
        let VideoProfile { codec, bit_rate, size: (width, height), frame_rate, key_frame_interval } = *video;
        let encoder = match codec {
            VideoCodec::Msmpeg4v3 => "msmpeg4",
            VideoCodec::H264 => "libx264",
            other => other.name(),
        };
        let pixels = if codec == VideoCodec::Mjpeg { "yuvj420p" } else { "yuv420p" };
        let bit_rate = bit_rate.to_string();
        // Smaller pictures stay; sides are even, as half as many samples of colour want it.
        let filter = format!(
            "scale=w='min({width},iw)':h='min({height},ih)':force_original_aspect_ratio=decrease:force_divisible_by=2,format={pixels}"
        );
        let interval_s = key_frame_interval.as_secs_f64();
        let key_frames = format!("expr:gte(t,n_forced*{interval_s})");
        // In frames, for encoders that count: no more than at the highest rate.
        let group = (u128::from(frame_rate) * key_frame_interval.as_millis()).div_ceil(1000).max(1).to_string();
        self.add(["-c:v", encoder, "-b:v", &bit_rate, "-maxrate:v", &bit_rate, "-bufsize:v", &bit_rate]);
        self.add(["-vf", &filter, "-fpsmax", &frame_rate.to_string(), "-g", &group, "-force_key_frames", &key_frames]);
        match codec {
            VideoCodec::H264 => {
                // B-frames would be shown at their decode times, which is what FFmpeg writes into ASF.
                self.add(["-preset", "veryfast", "-tune", "zerolatency", "-profile:v", "main", "-bf", "0"]);
                self.add(["-sc_threshold", "0", "-bsf:v", "dump_extra=freq=keyframe", "-tag:v", "H264"])
            }
            VideoCodec::Mjpeg => self.add(["-huffman", "default"]),
            VideoCodec::Msmpeg4v3 | VideoCodec::Wmv1 | VideoCodec::Wmv2 => self.add(["-bf", "0"]),
        }
    }

    fn audio(&mut self, audio: &AudioProfile) -> &mut Self {
        let AudioProfile { codec, bit_rate, sample_rate, channels } = *audio;
        let encoder = if codec == AudioCodec::Mp3 { "libmp3lame" } else { codec.name() };
        self.add(["-c:a", encoder, "-b:a", &bit_rate.to_string(), "-ar", &sample_rate.to_string(), "-ac", &channels.to_string()]);
        // Gaps of the input are filled, or sound would run ahead of pictures after each.
        self.add(["-af", "aresample=async=1000"])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn input(url: &str, arguments: &[&str]) -> FfmpegInput {
        FfmpegInput { input: url.into(), arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect() }
    }

    /// What stands for the input, without the progress before and the output behind.
    fn input_of(url: &str, arguments: &[&str]) -> String {
        let argv = ffmpeg("ffmpeg", &input(url, arguments), &Settings::default().profiles[0], Copies::default()).join(" ");
        let (_, from) = argv.split_once("-protocol_whitelist ").unwrap();
        from.split_once(" -map_metadata").unwrap().0.replace(" -analyzeduration 2000000", "")
    }

    fn output_of(profile: &str, copies: Copies) -> String {
        let settings = Settings::default();
        let argv = ffmpeg("ffmpeg", &input("udp://h:1", &[]), settings.profile(profile).unwrap(), copies).join(" ");
        argv.split_once("-sn -dn ").unwrap().1.to_owned()
    }

    const NONE: Copies = Copies { video: false, audio: false };
    const ALL: Copies = Copies { video: true, audio: true };

    #[test]
    fn inputs_by_their_schemes() {
        let web = "http,https,tls,tcp,httpproxy,crypto -reconnect 1 -reconnect_streamed 1 -reconnect_on_network_error 1 \
                   -reconnect_delay_max 5 -rw_timeout 15000000";
        for (url, arguments, expected) in [
            ("rtsp://u:p@cam/1", &[][..], "rtsp,rtp,udp,tcp -rtsp_transport tcp -timeout 15000000 -i rtsp://u:p@cam/1"),
            (
                "RTSP://cam/1",
                &["-rtsp_transport", "udp"],
                "rtsp,rtp,udp,tcp -rtsp_transport tcp -timeout 15000000 -rtsp_transport udp -i RTSP://cam/1",
            ),
            ("https://h/x.m3u8?k=v", &[], &format!("{web} -i https://h/x.m3u8?k=v")),
            ("udp://@239.0.0.1:5000", &[], "udp -i udp://@239.0.0.1:5000"),
            ("rtmp://h/live/x", &[], "rtmp,tcp -rw_timeout 15000000 -i rtmp://h/live/x"),
            ("rtmp://h/live/x", &["-listen", "1"], "rtmp,tcp -listen 1 -i rtmp://h/live/x"),
            ("/media/a.mp4", &[], "file,crypto -re -stream_loop -1 -i file:/media/a.mp4"),
            ("/media/http://a.mp4", &[], "file,crypto -re -stream_loop -1 -i file:/media/http://a.mp4"),
            ("/hls/a.m3u8", &[], "file,crypto -re -i file:/hls/a.m3u8"),
            ("/dev/video0", &["-f", "v4l2"], "file,crypto -f v4l2 -i /dev/video0"),
        ] {
            assert_eq!(input_of(url, arguments), expected, "{url}");
        }
    }

    #[test]
    fn a_guess_at_the_rate_takes_time_where_pictures_are_encoded() {
        let settings = Settings::default();
        let few = "-analyzeduration 2000000 -fpsprobesize 8 ";
        for (url, profile, copies, expected) in [
            ("rtsp://h/1", "wmp12", ALL, true),
            ("rtsp://h/1", "wmp12", Copies { video: true, audio: false }, true),
            ("rtsp://h/1", "wmp12", Copies { video: false, audio: true }, false),
            ("rtsp://h/1", "wmp9", NONE, false),
            ("rtsp://h/1", "radio", NONE, true),
            // Comes as fast as it is read.
            ("https://h/x.m3u8", "wmp12", ALL, false),
            ("/media/a.mp4", "wmp12", ALL, false),
        ] {
            let argv = ffmpeg("ffmpeg", &input(url, &[]), settings.profile(profile).unwrap(), copies).join(" ");
            assert_eq!(argv.contains(few), expected, "{argv}");
        }
        assert!(ffprobe("ffprobe", &input("rtsp://h/1", &[])).join(" ").contains(few));
    }

    #[test]
    fn what_is_copied_is_played_by_laps_and_all_else_in_a_loop() {
        let settings = Settings::default();
        for (url, arguments, profile, copies, laps, loops) in [
            ("/a.mp4", &[][..], "wmp12", ALL, true, false),
            ("/a.mp4", &[], "wmp12", NONE, false, true),
            ("/a.mp4", &[], "wmp9", ALL, false, true),
            ("/a.mp4", &[], "radio", ALL, false, true),
            ("/a.m3u8", &[], "wmp12", ALL, false, false),
            ("rtsp://h/1", &[], "wmp12", ALL, false, false),
            ("/a.mp4", &["-re"], "wmp12", ALL, false, false),
            ("/a.mp4", &["-re", "-stream_loop", "-1"], "wmp12", ALL, true, false),
            ("/a.mp4", &["-re", "-stream_loop", "-1"], "wmp12", NONE, false, true),
            ("/a.mp4", &["-re", "-stream_loop", "2"], "wmp12", ALL, false, true),
        ] {
            let (input, profile) = (input(url, arguments), settings.profile(profile).unwrap());
            let argv = ffmpeg("ffmpeg", &input, profile, copies);
            let found = (plays_in_laps(&input, profile, copies), argv.contains(&"-stream_loop".into()));
            assert_eq!(found, (laps, loops), "{argv:?}");
            assert!(argv.contains(&"-re".into()) || scheme_of(url).is_some(), "in real time: {argv:?}");
        }
    }

    #[test]
    fn no_argument_of_ours_is_made_of_two() {
        // One that holds what a shell would take for more is handed on as one.
        let hostile = input("http://h/$(reboot);`id` && x", &["-user_agent", "a b; c"]);
        let argv = ffmpeg("ffmpeg", &hostile, &Settings::default().profiles[0], NONE);
        for whole in ["http://h/$(reboot);`id` && x", "a b; c"] {
            assert_eq!(argv.iter().filter(|argument| *argument == whole).count(), 1);
        }
    }

    #[test]
    fn outputs_by_their_profiles() {
        let scale = |width, height| {
            format!(
                "-vf scale=w='min({width},iw)':h='min({height},ih)':force_original_aspect_ratio=decrease:force_divisible_by=2,format=yuv420p"
            )
        };
        let end = "-packet_size 1400 -flush_packets 1 -max_interleave_delta 500000 -f asf_stream pipe:1";
        let (small, middle, large) = (scale(320, 240), scale(720, 576), scale(1920, 1080));
        let sound = "-map 0:a:0? -c:a wmav2 -b:a 96000 -ar 44100 -ac 2 -af aresample=async=1000";
        assert_eq!(
            output_of("wmp64", NONE),
            format!(
                "-map 0:V:0? -c:v msmpeg4 -b:v 250000 -maxrate:v 250000 -bufsize:v 250000 {small} -fpsmax 15 -g 30 \
                 -force_key_frames expr:gte(t,n_forced*2) -bf 0 -map 0:a:0? -c:a wmav1 -b:a 32000 -ar 22050 -ac 1 \
                 -af aresample=async=1000 {end}"
            )
        );
        assert_eq!(
            output_of("wmp9", NONE),
            format!(
                "-map 0:V:0? -c:v wmv2 -b:v 1200000 -maxrate:v 1200000 -bufsize:v 1200000 {middle} -fpsmax 25 -g 50 \
                 -force_key_frames expr:gte(t,n_forced*2) -bf 0 {sound} {end}"
            )
        );
        assert_eq!(
            output_of("wmp12", NONE),
            format!(
                "-map 0:V:0? -c:v libx264 -b:v 3000000 -maxrate:v 3000000 -bufsize:v 3000000 {large} -fpsmax 30 -g 60 \
                 -force_key_frames expr:gte(t,n_forced*2) -preset veryfast -tune zerolatency -profile:v main -bf 0 -sc_threshold 0 \
                 -bsf:v dump_extra=freq=keyframe -tag:v H264 -map 0:a:0? -c:a aac -b:a 128000 -ar 48000 -ac 2 \
                 -af aresample=async=1000 {end}"
            )
        );
        assert_eq!(output_of("radio", NONE), format!("-vn {sound} {end}"));
        assert_eq!(
            output_of("wmp12", ALL),
            format!(
                "-map 0:V:0? -c:v copy -bsf:v h264_mp4toannexb,dump_extra=freq=keyframe -tag:v H264 -map 0:a:0? -c:a copy {end}"
            )
        );
        assert_eq!(output_of("wmp9", ALL), format!("-map 0:V:0? -c:v copy -map 0:a:0? -c:a copy {end}"));
        assert_eq!(output_of("radio", Copies { video: true, audio: false }), format!("-vn {sound} {end}"));
    }

    #[test]
    fn own_arguments_come_last() {
        let mut profile = Settings::default().profiles[3].clone();
        profile.arguments = vec!["-threads".into(), "1".into()];
        let argv = ffmpeg("/opt/ffmpeg", &input("udp://h:1", &[]), &profile, NONE).join(" ");
        assert!(argv.starts_with("/opt/ffmpeg ") && argv.ends_with(" -threads 1 -f asf_stream pipe:1"), "{argv}");
    }

    #[test]
    fn ffprobe_is_told_of_the_input_alone() {
        let argv = ffprobe("ffprobe", &input("/a.mp4", &["-re", "-stream_loop", "3", "-f", "mp4"])).join(" ");
        let begin = "ffprobe -hide_banner -loglevel error -print_format json -show_streams -protocol_whitelist file,crypto";
        assert_eq!(argv, format!("{begin} -analyzeduration 2000000 -f mp4 -i /a.mp4"));
    }

    #[test]
    fn who_waits_for_a_sender() {
        for (url, arguments, expected) in [
            ("rtmp://h/x", &["-listen", "1"][..], true),
            ("rtmp://h/x", &["-listen", "0"], false),
            ("tcp://h:1?listen", &[], true),
            ("tcp://h:1?listen=1&x=y", &[], true),
            ("srt://:9000?mode=listener", &[], true),
            ("srt://h:9000?mode=caller", &[], false),
            ("http://h/listen=1", &[], false),
        ] {
            assert_eq!(input(url, arguments).listens(), expected, "{url}");
        }
    }
}
