//! The settings in force, written as a settings file again.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use super::load::Loaded;
use super::points::url_without_secrets;
use super::{ControlSocket, FOREVER, Listen, LogFormat, OnSlow, OutsidePool, Oversize, Profile, Source, Start, Viewers};

/// All settings as TOML. Each line that is not built in says where it was written; reading the text as a settings
/// file gives the same settings, but for what may be secret in URLs: it is left out.
pub fn effective(loaded: &Loaded) -> String {
    let settings = &loaded.settings;
    let mut page = Page { text: String::new(), table: "", loaded };

    page.line("shards", settings.shards);
    page.line("source_timeout_s", seconds_or_never(settings.source_timeout));
    for (table, of) in [("mms", &settings.mms), ("http", &settings.http), ("rtsp", &settings.rtsp), ("admin", &settings.admin)] {
        page.table(table);
        page.line("listen", listen(of));
        let protocols = match table {
            "mms" => Some(settings.mms_protocols),
            "http" => Some(settings.http_protocols),
            "rtsp" => Some(settings.rtsp_protocols),
            _ => None,
        };
        if let Some(protocols) = protocols {
            let names = [(protocols.mms, "\"mms\""), (protocols.http, "\"http\""), (protocols.rtsp, "\"rtsp\"")];
            let served: Vec<_> = names.iter().filter(|(served, _)| *served).map(|(_, name)| *name).collect();
            page.line("protocols", format!("[{}]", served.join(", ")));
        }
        if table == "rtsp" {
            page.line("server_port", settings.rtsp_server_port);
            let tls = &settings.rtsp_tls;
            page.line("tls_listen", listen(&tls.listen));
            for (key, file) in [("certificate", &tls.certificate), ("key", &tls.key)] {
                match file {
                    Some(file) => page.line(key, quoted(&file.to_string_lossy())),
                    None => page.note(&format!("{key}: none, so that there is no rtsps://")),
                }
            }
        }
    }

    let control = &settings.control;
    page.table("control");
    page.line("listen", listen(&control.listen));
    page.line("tls", control.tls);
    page.line("plain_anywhere", control.plain_anywhere);
    for (key, file, without) in [
        ("users_file", &control.users_file, "nobody can sign in, and only this machine can reach control port and console"),
        ("certificate", &control.certificate, "one is made at the first start"),
        ("key", &control.key, "one is made at the first start"),
    ] {
        match file {
            Some(file) => page.line(key, quoted(&file.to_string_lossy())),
            None => page.note(&format!("{key}: none; {without}")),
        }
    }
    match &control.socket {
        ControlSocket::Automatic => page.note("socket: control.sock in the folder for such things"),
        ControlSocket::Off => page.line("socket", quoted("")),
        ControlSocket::At(path) => page.line("socket", quoted(&path.to_string_lossy())),
    }
    page.line("sign_in_s", control.sign_in.as_secs());
    page.line("hold_s", control.hold.as_secs());

    page.table("console");
    page.line("listen", listen(&settings.console));

    page.table("drain");
    page.line("timeout_s", settings.drain.timeout.as_secs());
    match &settings.drain.redirect {
        Some(redirect) => page.line("redirect", quoted(&redirect.to_string())),
        None => page.note("redirect: none; who comes while the daemon drains is refused"),
    }

    let udp = &settings.udp;
    page.table("udp");
    page.line("enabled", udp.enabled);
    page.line("client_ports", quoted(&udp.client_ports.to_string()));
    let outside_pool = match udp.outside_pool {
        OutsidePool::Refuse => "refuse",
        OutsidePool::Allow => "allow",
    };
    page.line("outside_pool", quoted(outside_pool));
    page.line("refuse_on_nat_mismatch", udp.refuse_on_nat_mismatch);
    if udp.max_datagram_v4 == udp.max_datagram_v6 {
        page.line("max_datagram", udp.max_datagram_v4);
    } else {
        page.note(&format!("max_datagram: {} over IPv4, {} over IPv6", udp.max_datagram_v4, udp.max_datagram_v6));
    }
    let oversize = match udp.oversize {
        Oversize::Recut => "recut",
        Oversize::Fragment => "fragment",
        Oversize::Refuse => "refuse",
    };
    page.line("oversize", quoted(oversize));
    page.line("remember_s", udp.remember.as_secs());

    page.table("delivery");
    page.line("tick_ms", settings.delivery.tick.as_millis());
    page.line("burst_ms", settings.delivery.burst.as_millis());
    page.line("burst_rate", settings.delivery.burst_rate);
    let on_slow = match settings.delivery.on_slow {
        OnSlow::Thin => "thin",
        OnSlow::Skip => "skip",
    };
    page.line("on_slow", quoted(on_slow));

    page.table("on_demand");
    page.line("cache_bytes", settings.on_demand.cache_bytes);
    page.line("readers", settings.on_demand.readers);

    let limits = &settings.limits;
    page.table("limits");
    page.line("viewers", limits.viewers);
    page.line("viewers_per_point", limits.viewers_per_point);
    page.line("viewers_per_address", limits.viewers_per_address);
    page.line("bandwidth_kbps", limits.bandwidth_kbps);
    page.line("viewer_kbps", limits.viewer_kbps);
    page.line("tls_connections", limits.tls_connections);
    page.line("joins_per_s", limits.joins_per_s);
    page.line("joins_burst", limits.joins_burst);
    for (key, time) in [("handshake_s", limits.handshake), ("idle_s", limits.idle)] {
        page.line(key, if time == FOREVER { 0 } else { time.as_secs() });
    }
    page.line("max_send_delay_ms", limits.max_send_delay.map_or(0, |delay| delay.as_millis()));

    page.table("window");
    page.line("seconds", settings.window.seconds);
    page.line("bytes", settings.window.bytes);

    page.table("publish");
    page.line("create", settings.publish.create);
    page.line("create_limit", settings.publish.create_limit);

    let access = &settings.access;
    page.table("access");
    page.line("viewers", viewers(access.viewers));
    page.line("viewers_allow", array(&access.viewers_allow));
    page.line("viewers_deny", array(&access.viewers_deny));
    page.line("publishers_allow", array(&access.publishers_allow));
    page.line("publishers_deny", array(&access.publishers_deny));

    page.table("users");
    match &settings.users_file {
        Some(file) => page.line("file", quoted(&file.to_string_lossy())),
        None => page.note("file: none, so that only this machine itself may publish"),
    }
    match &settings.viewers_file {
        Some(file) => page.line("viewers_file", quoted(&file.to_string_lossy())),
        None => page.note("viewers_file: none, so that those of `file` may watch"),
    }

    page.table("signing");
    match &settings.key_file {
        Some(file) => page.line("key_file", quoted(&file.to_string_lossy())),
        None => page.note("key_file: none, so that there are no signed URLs"),
    }

    page.table("log");
    let format = match settings.log.format {
        LogFormat::Auto => "auto",
        LogFormat::Text => "text",
        LogFormat::Json => "json",
        LogFormat::Journald => "journald",
    };
    page.line("format", quoted(format));
    page.line("level", quoted(&settings.log.level));

    let access_log = &settings.access_log;
    page.table("access_log");
    match &access_log.file {
        Some(file) => page.line("file", quoted(&file.to_string_lossy())),
        None => page.note("file: none, so that no access log is written"),
    }
    page.line("rotate_bytes", access_log.rotate_bytes);
    page.line("rotate_daily", access_log.rotate_daily);
    page.line("keep", access_log.keep);
    page.line("hash_addresses", access_log.hash_addresses);

    let transcode = &settings.transcode;
    page.table("transcode");
    page.line("ffmpeg", quoted(&transcode.ffmpeg));
    page.line("ffprobe", quoted(&transcode.ffprobe));
    page.line("children", transcode.children);
    page.line("nice", transcode.nice);
    page.line("memory_bytes", transcode.memory_bytes.unwrap_or(0));
    settings.profiles.iter().for_each(|profile| page.profile(profile));
    for rule in &settings.player_profiles {
        page.head("[[player_profile]]", "player_profile");
        page.line("player", quoted(&rule.player));
        if let Some(protocol) = rule.protocol {
            page.line("protocol", quoted(protocol));
        }
        page.line("profile", quoted(&rule.profile));
    }

    page.table("hooks");
    for (key, argv) in settings.hooks.commands.by_key() {
        page.line(key, array(argv));
    }
    page.line("timeout_s", settings.hooks.timeout.as_secs());
    match &settings.hooks.webhook {
        Some(webhook) => {
            page.note(&format!("url: {}, with a secret that is not shown", one_line(&url_without_secrets(&webhook.url))))
        }
        None => page.note("url: none, so that there is no webhook"),
    }

    if settings.publishing_points.is_empty() {
        page.text.push('\n');
        page.note("no publishing point is configured, so the built-in \"demo\" runs");
    }
    let (lists, points): (Vec<_>, Vec<_>) =
        settings.publishing_points.iter().partition(|point| matches!(point.source, Source::Stations { .. }));
    for (i, point) in points.into_iter().enumerate() {
        page.head("[[publishing_point]]", &format!("publishing_point[{i}]"));
        page.line("name", quoted(&point.name));
        page.line("source", shown_source(&point.source));
        if let Some(title) = &point.title {
            page.line("title", quoted(title));
        }
        page.line("source_timeout_s", seconds_or_never(point.source_timeout));
        if point.url_commands {
            page.line("url_commands", true);
        }
        if let Some(fallback) = &point.fallback {
            page.line("fallback", &fallback.kind);
            page.line("fallback_after_s", fallback.after.as_secs());
        }
        page.line("access", viewers(point.access.viewers));
        page.line("allow", array(&point.access.allow));
        page.line("deny", array(&point.access.deny));
        if point.commands != settings.hooks.commands {
            let commands: Vec<_> = point.commands.by_key().iter().map(|(key, argv)| format!("{key} = {}", array(argv))).collect();
            page.line("hooks", format!("{{ {} }}", commands.join(", ")));
        }
        if point.pattern().is_some() {
            page.line("at_once", point.at_once);
        }
    }
    for (i, list) in lists.into_iter().enumerate() {
        let Source::Stations { file, linger } = &list.source else { continue };
        page.head("[[stations]]", &format!("stations[{i}]"));
        page.line("file", quoted(&file.to_string_lossy()));
        page.line("at_once", list.at_once);
        page.line("linger_s", linger.as_secs());
        page.line("source_timeout_s", seconds_or_never(list.source_timeout));
        page.line("access", viewers(list.access.viewers));
        page.line("allow", array(&list.access.allow));
        page.line("deny", array(&list.access.deny));
    }
    page.text
}

struct Page<'a> {
    text: String,
    table: &'static str,
    loaded: &'a Loaded,
}

impl Page<'_> {
    fn table(&mut self, table: &'static str) {
        self.table = table;
        let _ = writeln!(self.text, "\n[{table}]"); // writing to a String cannot fail
    }

    /// A head whose place is told instead of that of the lines below it.
    fn head(&mut self, head: &str, key: &str) {
        self.table = "publishing_point";
        let place = self.loaded.places.get(key).map(|place| format!(" # {}", one_line(place))).unwrap_or_default();
        let _ = writeln!(self.text, "\n{head}{place}");
    }

    fn line(&mut self, key: &str, value: impl Display) {
        let dotted = if self.table.is_empty() { key.to_owned() } else { format!("{}.{key}", self.table) };
        let place = self.loaded.places.get(&dotted).map(|place| format!(" # {}", one_line(place))).unwrap_or_default();
        let _ = writeln!(self.text, "{key} = {value}{place}");
    }

    fn profile(&mut self, profile: &Profile) {
        self.head("[[profile]]", "profile");
        self.line("name", quoted(&profile.name));
        if let Some(video) = &profile.video {
            let (name, kbps, (width, height)) = (quoted(video.codec.name()), video.bit_rate / 1000, video.size);
            let (fps, ms) = (video.frame_rate, video.key_frame_interval.as_millis());
            let text = format!(
                "{{ codec = {name}, bit_rate_kbps = {kbps}, max_width = {width}, max_height = {height}, max_fps = {fps}, \
                 key_frame_ms = {ms} }}"
            );
            self.line("video", text);
        }
        if let Some(audio) = &profile.audio {
            let (name, kbps) = (quoted(audio.codec.name()), audio.bit_rate / 1000);
            let (rate, channels) = (audio.sample_rate, audio.channels);
            let text = format!("{{ codec = {name}, bit_rate_kbps = {kbps}, sample_rate = {rate}, channels = {channels} }}");
            self.line("audio", text);
        }
        self.line("packet_size", profile.packet_size);
        self.line("copy", profile.copy);
        self.line("arguments", array(&profile.arguments));
    }

    fn note(&mut self, text: &str) {
        let _ = writeln!(self.text, "# {text}");
    }
}

/// A file's name may hold what would end a comment.
fn one_line(place: &str) -> String {
    place.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn seconds_or_never(time: Option<Duration>) -> u64 {
    time.map_or(0, |time| time.as_secs())
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn array<T: Display>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(&item.to_string())).collect();
    format!("[{}]", items.join(", "))
}

/// The addresses, the pairs that were spelt out put back into their short form.
fn listen(listen: &Listen) -> String {
    let Listen { addresses, built_in } = listen;
    let mut short = Vec::new();
    let mut rest = addresses.as_slice();
    while let Some((first, more)) = rest.split_first() {
        let pair =
            more.first().filter(|second| *built_in && first.is_ipv4() && second.is_ipv6() && first.port() == second.port());
        let word = match pair {
            Some(second) if first.ip().is_unspecified() && second.ip().is_unspecified() => Some("*"),
            Some(second) if first.ip().is_loopback() && second.ip().is_loopback() => Some("localhost"),
            _ => None,
        };
        match word {
            Some(word) => {
                short.push(format!("{word}:{}", first.port()));
                rest = more.get(1..).unwrap_or_default();
            }
            None => {
                short.push(first.to_string());
                rest = more;
            }
        }
    }
    array(&short)
}

const fn viewers(viewers: Viewers) -> &'static str {
    match viewers {
        Viewers::All => "\"all\"",
        Viewers::Users => "\"users\"",
        Viewers::Signed => "\"signed\"",
    }
}

/// A source as a settings file writes it, without what may be secret in URLs.
pub fn shown_source(source: &Source) -> String {
    match source {
        Source::Push => "{ type = \"push\" }".to_owned(),
        Source::Demo => "{ type = \"demo\" }".to_owned(),
        Source::File { paths, start, linger } => {
            let paths: Vec<_> = paths.iter().map(|path| path.to_string_lossy()).collect();
            let paths = match paths.as_slice() {
                [path] => format!("path = {}", quoted(path)),
                _ => format!("paths = {}", array(&paths)),
            };
            format!("{{ type = \"file\", {paths}, {} }}", when(*start, *linger))
        }
        Source::Exec { argv, start, linger } => {
            format!("{{ type = \"exec\", argv = {}, {} }}", array(argv), when(*start, *linger))
        }
        Source::Camera { url, udp, start, linger, .. } => {
            let transport = if *udp { "udp" } else { "tcp" };
            let url = quoted(&url_without_secrets(url));
            format!("{{ type = \"camera\", url = {url}, transport = \"{transport}\", {} }}", when(*start, *linger))
        }
        Source::Files { root } => format!("{{ type = \"files\", root = {} }}", quoted(&root.to_string_lossy())),
        Source::Stations { file, .. } => format!("{{ type = \"stations\", file = {} }}", quoted(&file.to_string_lossy())),
        Source::Pull { url, start, linger } => {
            format!("{{ type = \"pull\", url = {}, {} }}", quoted(&url_without_secrets(url)), when(*start, *linger))
        }
        Source::Ffmpeg { input, profile, start, linger } => {
            let (shown, arguments) = (quoted(&url_without_secrets(&input.input)), array(&shown(&input.arguments)));
            let (profile, when) = (quoted(profile), when(*start, *linger));
            format!("{{ type = \"ffmpeg\", input = {shown}, input_arguments = {arguments}, profile = {profile}, {when} }}")
        }
    }
}

/// Options as they may be shown: URLs without what may be secret in them, and nothing of what options are for that carry secrets.
fn shown(arguments: &[String]) -> Vec<String> {
    const SECRET: [&str; 5] = ["-headers", "-cookies", "-passphrase", "-decryption_key", "-cryptokey"];
    let before = std::iter::once("").chain(arguments.iter().map(String::as_str));
    let pairs = before.zip(arguments);
    pairs.map(|(option, value)| if SECRET.contains(&option) { "…".to_owned() } else { url_without_secrets(value) }).collect()
}

fn when(start: Start, linger: Duration) -> String {
    match start {
        Start::Always => "start = \"always\"".to_owned(),
        Start::Watched => format!("start = \"watched\", linger_s = {}", linger.as_secs()),
    }
}
