//! From what was written to what it means. All mistakes are noted, not only the first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::control::{console, control};
use super::drain::drain;
use super::hooks::{commands, hooks};
use super::listen::{listen_addresses, network};
use super::points::publishing_points;
use super::problem::{Problem, SettingsError};
use super::raw::{
    List, Raw, RawAccess, RawAccessLog, RawDelivery, RawLimits, RawLog, RawLogFormat, RawOnDemand, RawOnSlow, RawOutsidePool,
    RawOversize, RawPublish, RawRtsp, RawUdp, RawViewers, RawWindow,
};
use super::stations::station_lists;
use super::template::has_blank;
use super::transcode;
use super::{
    Access, AccessLog, Control, Delivery, FOREVER, Limits, Listen, Log, LogFormat, OnDemand, OnSlow, OutsidePool, Oversize,
    PointAccess, PortRanges, Protocols, Publish, PublishingPoint, RtspTls, Settings, Source, Udp, Viewers, WindowBounds,
};

/// More threads than this is a typing error.
const SHARDS_MAX: u32 = 1024;
/// Smallest datagram that is worth a header of 28 bytes; every IPv4 host takes 576 with it.
const DATAGRAM_MIN: u32 = 512;
/// Largest UDP payload over IPv4.
const DATAGRAM_MAX: u32 = 65_507;
/// The payload that fills an Ethernet frame over IPv4.
const DATAGRAM_ETHERNET: u32 = 1472;
/// Networks change sooner than that.
const REMEMBER_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// A longer tick gains next to nothing and comes near the buffers of impatient players.
const TICK_MS_MAX: u32 = 200;
/// Far beyond what any player buffers.
const BURST_MS_MAX: u32 = 60_000;
/// Faster than this the network decides.
const BURST_RATE_MAX: u32 = 100;
/// A few dozen blocks, so that a few viewers do not fight over them.
const CACHE_BYTES_MIN: u64 = 1 << 20;
/// More reads at once make no disk faster.
const READERS_MAX: u32 = 64;
/// A window must hold at least a few of the largest ASF packets (64 KiB each).
const WINDOW_BYTES_MIN: u64 = 1 << 20;
/// Some two hundred lines; smaller files are a slip of the keyboard.
const LOG_BYTES_MIN: u64 = 64 << 10;
/// Each one takes a little memory in every thread from the start on.
const CREATE_LIMIT_MAX: u32 = 1024;
/// Below 1024 no viewer's port is ever used, whatever the range says.
const PORT_UNPRIVILEGED: u16 = 1024;

/// Settings and warnings from the sum of all layers. `base`: the folder that relative paths start from.
pub(super) fn settings(
    raw: &Raw,
    base: &Path,
    places: &BTreeMap<String, String>,
) -> Result<(Settings, Vec<Problem>), SettingsError> {
    let mut check = Check { base, places, problems: Vec::new(), warnings: Vec::new() };
    let built_in = Settings::default();
    let source_timeout = raw.source_timeout_s.map_or(built_in.source_timeout, |seconds| check.time_or_never(seconds));
    let access = check.access(&raw.access);
    let hooks = hooks(&mut check, &raw.hooks);
    let profiles = transcode::profiles(&mut check, &raw.profile);
    let settings = Settings {
        shards: check.shards(raw.shards).unwrap_or(built_in.shards),
        mms: check.listen("mms.listen", raw.mms.listen.as_ref(), built_in.mms),
        mms_protocols: check.protocols("mms.protocols", raw.mms.protocols.as_ref(), built_in.mms_protocols),
        http: check.listen("http.listen", raw.http.listen.as_ref(), built_in.http),
        http_protocols: check.protocols("http.protocols", raw.http.protocols.as_ref(), built_in.http_protocols),
        rtsp: check.listen("rtsp.listen", raw.rtsp.listen.as_ref(), built_in.rtsp),
        rtsp_protocols: check.protocols("rtsp.protocols", raw.rtsp.protocols.as_ref(), built_in.rtsp_protocols),
        rtsp_server_port: check.server_port(raw.rtsp.server_port, built_in.rtsp_server_port),
        rtsp_tls: check.rtsp_tls(&raw.rtsp, built_in.rtsp_tls),
        admin: check.listen("admin.listen", raw.admin.listen.as_ref(), built_in.admin),
        control: control(&mut check, &raw.control),
        console: console(&mut check, raw.console.listen.as_ref(), built_in.console, raw.control.users_file.is_some()),
        drain: drain(&mut check, &raw.drain),
        udp: check.udp(&raw.udp, built_in.udp),
        delivery: check.delivery(&raw.delivery, built_in.delivery),
        on_demand: check.on_demand(&raw.on_demand, &built_in.on_demand),
        limits: check.limits(&raw.limits, &built_in.limits),
        window: check.window(&raw.window, &built_in.window),
        publish: check.publish(&raw.publish, &built_in.publish),
        users_file: raw.users.file.as_deref().map(|path| check.existing_file("users.file", path)),
        viewers_file: raw.users.viewers_file.as_deref().map(|path| check.existing_file("users.viewers_file", path)),
        key_file: raw.signing.key_file.as_deref().map(|path| check.existing_file("signing.key_file", path)),
        log: check.log(&raw.log, built_in.log),
        access_log: check.access_log(&raw.access_log),
        source_timeout,
        transcode: transcode::transcode(&mut check, &raw.transcode),
        player_profiles: transcode::player_profiles(&mut check, &raw.player_profile, &profiles),
        profiles,
        publishing_points: {
            let mut points = publishing_points(&mut check, &raw.publishing_point, source_timeout, access.viewers);
            points.extend(station_lists(&mut check, &raw.stations, source_timeout, access.viewers));
            for (i, point) in points.iter_mut().enumerate() {
                let own = raw.publishing_point.get(i).map(|raw| (format!("publishing_point[{i}].hooks"), &raw.hooks));
                let own = own.map(|(key, own)| commands(&mut check, &key, own, &hooks.commands));
                point.commands = own.unwrap_or_else(|| hooks.commands.clone());
            }
            points
        },
        access,
        hooks,
    };
    check.whole(&settings);
    let Check { problems, warnings, .. } = check;
    if problems.is_empty() { Ok((settings, warnings)) } else { Err(SettingsError { problems }) }
}

/// Collects what is found.
pub(super) struct Check<'a> {
    base: &'a Path,
    places: &'a BTreeMap<String, String>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Check<'_> {
    pub(super) fn problem(&mut self, key: &str, message: String) {
        let problem = self.placed(key, message);
        self.problems.push(problem);
    }

    pub(super) fn warning(&mut self, key: &str, message: String) {
        let warning = self.placed(key, message);
        self.warnings.push(warning);
    }

    /// At the key's own place, or at that of the nearest table or list around it.
    fn placed(&self, key: &str, message: String) -> Problem {
        let mut around = key;
        let place = loop {
            match (self.places.get(around), around.rfind(['.', '['])) {
                (Some(place), _) => break place.clone(),
                (None, Some(end)) => around = around.get(..end).unwrap_or_default(),
                (None, None) => break String::new(),
            }
        };
        Problem { place, key: key.to_owned(), message }
    }

    /// Seconds, of which 0 means never.
    pub(super) fn time_or_never(&self, seconds: u32) -> Option<Duration> {
        (seconds > 0).then(|| Duration::from_secs(seconds.into()))
    }

    /// A path from the settings' folder; that nothing is there now is a warning only, for it may still come.
    pub(super) fn existing_file(&mut self, key: &str, path: &Path) -> PathBuf {
        let path = self.base.join(path);
        if !path.as_os_str().is_empty() && !path.is_file() && !has_blank(&path.to_string_lossy()) {
            self.warning(key, format!("{} is not there, or is no file, or may not be seen by this user", path.display()));
        }
        path
    }

    /// A path from the settings' folder.
    pub(super) fn path(&self, path: &Path) -> PathBuf {
        self.base.join(path)
    }

    /// The same as [`Self::existing_file`] for what may be a file or a folder.
    pub(super) fn existing_path(&mut self, key: &str, path: &Path) -> PathBuf {
        let path = self.base.join(path);
        if !path.is_file() && !path.is_dir() {
            self.warning(key, format!("{} is not there, or may not be seen by this user", path.display()));
        }
        path
    }

    fn shards(&mut self, written: Option<u32>) -> Option<usize> {
        let shards = written.filter(|shards| *shards > 0)?;
        if shards > SHARDS_MAX {
            self.problem("shards", format!("{shards} threads are too many; 0 takes one for each processor"));
        }
        usize::try_from(shards).ok()
    }

    fn protocols(&mut self, key: &str, raw: Option<&List>, built_in: Protocols) -> Protocols {
        let Some(List(items)) = raw else { return built_in };
        let mut protocols = Protocols { mms: false, http: false, rtsp: false };
        for (i, item) in items.iter().enumerate() {
            match item.to_ascii_lowercase().as_str() {
                "mms" => protocols.mms = true,
                "http" => protocols.http = true,
                "rtsp" => protocols.rtsp = true,
                _ => self.problem(
                    &format!("{key}[{i}]"),
                    format!("{item:?} is no protocol for viewers; there are \"mms\", \"http\" and \"rtsp\""),
                ),
            }
        }
        protocols
    }

    /// The number of the first of two ports, of which players expect that it is even.
    fn server_port(&mut self, raw: Option<u16>, built_in: u16) -> u16 {
        let Some(port) = raw else { return built_in };
        if port % 2 == 1 {
            self.problem(
                "rtsp.server_port",
                format!("{port} is odd; media goes from an even port, and requests come to the next"),
            );
        } else if port > 0 && port < PORT_UNPRIVILEGED {
            self.problem("rtsp.server_port", format!("{port} is below {PORT_UNPRIVILEGED}; 0 lets the system choose"));
        }
        port
    }

    fn rtsp_tls(&mut self, raw: &RawRtsp, built_in: RtspTls) -> RtspTls {
        let file =
            |check: &mut Self, key: &str, path: &Option<PathBuf>| path.as_deref().map(|path| check.existing_file(key, path));
        let tls = RtspTls {
            listen: self.listen("rtsp.tls_listen", raw.tls_listen.as_ref(), built_in.listen),
            certificate: file(self, "rtsp.certificate", &raw.certificate),
            key: file(self, "rtsp.key", &raw.key),
        };
        let is_on = raw.tls_listen.as_ref().is_some_and(|List(items)| !items.is_empty());
        for (key, is_there) in [("rtsp.certificate", tls.certificate.is_some()), ("rtsp.key", tls.key.is_some())] {
            if is_on && !is_there {
                self.problem(
                    key,
                    "is not set, and `tls_listen` needs it: a file in PEM, as certificate authorities hand it out".into(),
                );
            } else if is_there && !is_on {
                self.warning(key, "has no effect without `tls_listen`".into());
            }
        }
        tls
    }

    pub(super) fn listen(&mut self, key: &str, raw: Option<&List>, built_in: Listen) -> Listen {
        let Some(List(items)) = raw else { return built_in };
        let mut listen = Listen { addresses: Vec::new(), built_in: false };
        for (i, item) in items.iter().enumerate() {
            match listen_addresses(item) {
                Ok((addresses, spelt_out)) => {
                    listen.addresses.extend(addresses);
                    listen.built_in |= spelt_out;
                }
                Err(why) => self.problem(&format!("{key}[{i}]"), why),
            }
        }
        listen
    }

    fn udp(&mut self, raw: &RawUdp, built_in: Udp) -> Udp {
        let datagram = raw.max_datagram.and_then(|bytes| {
            if !(DATAGRAM_MIN..=DATAGRAM_MAX).contains(&bytes) {
                self.problem("udp.max_datagram", format!("{bytes} is not between {DATAGRAM_MIN} and {DATAGRAM_MAX} bytes"));
            } else if bytes > DATAGRAM_ETHERNET {
                self.warning(
                    "udp.max_datagram",
                    format!("datagrams over {DATAGRAM_ETHERNET} bytes do not pass an Ethernet whole"),
                );
            }
            usize::try_from(bytes).ok()
        });
        let remember = raw.remember_s.map_or(built_in.remember, |seconds| Duration::from_secs(seconds.into()));
        if remember > REMEMBER_MAX {
            self.problem("udp.remember_s", format!("is more than {} seconds, a year", REMEMBER_MAX.as_secs()));
        }
        Udp {
            enabled: raw.enabled.unwrap_or(built_in.enabled),
            client_ports: self.client_ports(raw.client_ports.as_ref()).unwrap_or(built_in.client_ports),
            outside_pool: match raw.outside_pool {
                Some(RawOutsidePool::Refuse) => OutsidePool::Refuse,
                Some(RawOutsidePool::Allow) => OutsidePool::Allow,
                None => built_in.outside_pool,
            },
            refuse_on_nat_mismatch: raw.refuse_on_nat_mismatch.unwrap_or(built_in.refuse_on_nat_mismatch),
            max_datagram_v4: datagram.unwrap_or(built_in.max_datagram_v4),
            max_datagram_v6: datagram.unwrap_or(built_in.max_datagram_v6),
            oversize: match raw.oversize {
                Some(RawOversize::Recut) => Oversize::Recut,
                Some(RawOversize::Fragment) => Oversize::Fragment,
                Some(RawOversize::Refuse) => Oversize::Refuse,
                None => built_in.oversize,
            },
            remember,
        }
    }

    fn client_ports(&mut self, written: Option<&List>) -> Option<PortRanges> {
        let List(items) = written?;
        let key = "udp.client_ports";
        match items.join(",").parse::<PortRanges>() {
            Err(why) => self.problem(key, why),
            Ok(ports) if ports.0.iter().all(|range| *range.end() < PORT_UNPRIVILEGED) => {
                let why = "holds no port from 1024 on, so that no viewer could take UDP; if that is meant, say `enabled = false`";
                self.problem(key, why.into());
            }
            Ok(ports) => {
                if ports.0.iter().any(|range| *range.start() < PORT_UNPRIVILEGED) {
                    self.warning(key, "ports below 1024 are never sent to, whatever the range says".into());
                }
                return Some(ports);
            }
        }
        None
    }

    fn delivery(&mut self, raw: &RawDelivery, built_in: Delivery) -> Delivery {
        if let Some(tick_ms) = raw.tick_ms.filter(|ms| *ms > TICK_MS_MAX) {
            self.problem("delivery.tick_ms", format!("{tick_ms} is more than {TICK_MS_MAX}; players would see it as jitter"));
        }
        if let Some(burst_ms) = raw.burst_ms.filter(|ms| *ms > BURST_MS_MAX) {
            self.problem(
                "delivery.burst_ms",
                format!("{burst_ms} is more than {BURST_MS_MAX}; players have no room for so much"),
            );
        }
        if let Some(rate) = raw.burst_rate.filter(|rate| !(1..=BURST_RATE_MAX).contains(rate)) {
            self.problem("delivery.burst_rate", format!("{rate} is not between 1 (real time, no burst) and {BURST_RATE_MAX}"));
        }
        let milliseconds = |ms: Option<u32>, built_in| ms.map_or(built_in, |ms| Duration::from_millis(ms.into()));
        Delivery {
            tick: milliseconds(raw.tick_ms, built_in.tick),
            burst: milliseconds(raw.burst_ms, built_in.burst),
            burst_rate: raw.burst_rate.unwrap_or(built_in.burst_rate),
            on_slow: match raw.on_slow {
                Some(RawOnSlow::Thin) => OnSlow::Thin,
                Some(RawOnSlow::Skip) => OnSlow::Skip,
                None => built_in.on_slow,
            },
        }
    }

    fn on_demand(&mut self, raw: &RawOnDemand, built_in: &OnDemand) -> OnDemand {
        let cache_bytes = raw.cache_bytes.and_then(|bytes| {
            if bytes < CACHE_BYTES_MIN {
                self.problem("on_demand.cache_bytes", format!("{bytes} is too little; files need at least {CACHE_BYTES_MIN}"));
            }
            usize::try_from(bytes).ok()
        });
        if let Some(readers) = raw.readers.filter(|readers| !(1..=READERS_MAX).contains(readers)) {
            self.problem("on_demand.readers", format!("{readers} is not between 1 and {READERS_MAX} threads"));
        }
        OnDemand {
            cache_bytes: cache_bytes.unwrap_or(built_in.cache_bytes),
            readers: raw.readers.and_then(|readers| usize::try_from(readers).ok()).unwrap_or(built_in.readers),
        }
    }

    fn limits(&mut self, raw: &RawLimits, built_in: &Limits) -> Limits {
        if raw.joins_burst.is_some_and(|burst| burst > 0) && raw.joins_per_s.unwrap_or(built_in.joins_per_s) == 0 {
            self.warning("limits.joins_burst", "has no effect without `joins_per_s`".into());
        }
        let mut time = |key: &str, written: Option<u32>, built_in: Duration| match written {
            None => built_in,
            Some(0) => {
                self.warning(key, "0 is no limit: connections that say nothing stay open for good".into());
                FOREVER
            }
            Some(seconds) => Duration::from_secs(seconds.into()),
        };
        Limits {
            handshake: time("limits.handshake_s", raw.handshake_s, built_in.handshake),
            idle: time("limits.idle_s", raw.idle_s, built_in.idle),
            viewers: raw.viewers.unwrap_or(built_in.viewers),
            viewers_per_point: raw.viewers_per_point.unwrap_or(built_in.viewers_per_point),
            viewers_per_address: raw.viewers_per_address.unwrap_or(built_in.viewers_per_address),
            bandwidth_kbps: raw.bandwidth_kbps.unwrap_or(built_in.bandwidth_kbps),
            viewer_kbps: raw.viewer_kbps.unwrap_or(built_in.viewer_kbps),
            tls_connections: raw.tls_connections.unwrap_or(built_in.tls_connections),
            joins_per_s: raw.joins_per_s.unwrap_or(built_in.joins_per_s),
            joins_burst: raw.joins_burst.unwrap_or(built_in.joins_burst),
            max_send_delay: match raw.max_send_delay_ms {
                None => built_in.max_send_delay,
                Some(ms) => (ms > 0).then(|| Duration::from_millis(ms.into())),
            },
        }
    }

    fn window(&mut self, raw: &RawWindow, built_in: &WindowBounds) -> WindowBounds {
        if raw.seconds == Some(0) {
            self.problem("window.seconds", "viewers join from the window, so it needs at least 1 second".into());
        }
        let bytes = raw.bytes.and_then(|bytes| {
            if bytes < WINDOW_BYTES_MIN {
                self.problem("window.bytes", format!("{bytes} is too little; a window needs at least {WINDOW_BYTES_MIN}"));
            }
            usize::try_from(bytes).ok()
        });
        WindowBounds { seconds: raw.seconds.unwrap_or(built_in.seconds), bytes: bytes.unwrap_or(built_in.bytes) }
    }

    fn publish(&mut self, raw: &RawPublish, built_in: &Publish) -> Publish {
        if let Some(limit) = raw.create_limit.filter(|limit| !(1..=CREATE_LIMIT_MAX).contains(limit)) {
            let why = format!("{limit} is not between 1 and {CREATE_LIMIT_MAX}; `create = false` makes none");
            self.problem("publish.create_limit", why);
        }
        let create_limit = raw.create_limit.and_then(|limit| usize::try_from(limit).ok());
        let limits = create_limit.is_some_and(|limit| limit != built_in.create_limit);
        if limits && !raw.create.unwrap_or(built_in.create) {
            self.warning("publish.create_limit", "has no effect without `create = true`".into());
        }
        Publish { create: raw.create.unwrap_or(built_in.create), create_limit: create_limit.unwrap_or(built_in.create_limit) }
    }

    fn access(&mut self, raw: &RawAccess) -> Access {
        let access = Access {
            viewers: viewers(raw.viewers, Viewers::All),
            viewers_allow: self.networks("access.viewers_allow", raw.viewers_allow.as_ref()),
            viewers_deny: self.networks("access.viewers_deny", raw.viewers_deny.as_ref()),
            publishers_allow: self.networks("access.publishers_allow", raw.publishers_allow.as_ref()),
            publishers_deny: self.networks("access.publishers_deny", raw.publishers_deny.as_ref()),
        };
        let pairs = [
            ("access.viewers_allow", &access.viewers_allow, &access.viewers_deny),
            ("access.publishers_allow", &access.publishers_allow, &access.publishers_deny),
        ];
        for (key, allow, deny) in pairs {
            self.not_denied_too(key, allow, deny);
        }
        access
    }

    /// Warns of what is in the list at `key` for nothing.
    pub(super) fn not_denied_too(&mut self, key: &str, allow: &[IpNet], deny: &[IpNet]) {
        let shut = |net: &IpNet| deny.iter().any(|denied| denied.contains(net));
        for (i, net) in allow.iter().enumerate().filter(|(_, net)| shut(net)) {
            self.warning(&format!("{key}[{i}]"), format!("{net} is denied too, and deny wins"));
        }
    }

    pub(super) fn networks(&mut self, key: &str, written: Option<&List>) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for (i, item) in written.iter().flat_map(|List(items)| items).enumerate() {
            match network(item) {
                Ok(network) => networks.push(network),
                Err(why) => self.problem(&format!("{key}[{i}]"), why),
            }
        }
        networks
    }

    fn log(&mut self, raw: &RawLog, built_in: Log) -> Log {
        let level = raw.level.clone().unwrap_or(built_in.level);
        if let Err(why) = Log::filter(&level) {
            self.problem("log.level", why);
        }
        let format = match raw.format {
            Some(RawLogFormat::Auto) => LogFormat::Auto,
            Some(RawLogFormat::Text) => LogFormat::Text,
            Some(RawLogFormat::Json) => LogFormat::Json,
            Some(RawLogFormat::Journald) => LogFormat::Journald,
            None => built_in.format,
        };
        Log { format, level }
    }

    fn access_log(&mut self, raw: &RawAccessLog) -> AccessLog {
        if let Some(bytes) = raw.rotate_bytes.filter(|bytes| (1..LOG_BYTES_MIN).contains(bytes)) {
            self.problem(
                "access_log.rotate_bytes",
                format!("{bytes} is too little; write at least {LOG_BYTES_MIN}, or 0 for never"),
            );
        }
        let file = raw.file.as_deref().map(|path| self.base.join(path));
        if let Some(file) = file.as_deref().filter(|file| file.is_dir()) {
            self.problem("access_log.file", format!("{} is a folder; name a file in it", file.display()));
        }
        let built_in = AccessLog::default();
        let access_log = AccessLog {
            file,
            rotate_bytes: raw.rotate_bytes.unwrap_or(built_in.rotate_bytes),
            rotate_daily: raw.rotate_daily.unwrap_or(built_in.rotate_daily),
            keep: raw.keep.map_or(built_in.keep, |keep| usize::try_from(keep).unwrap_or(usize::MAX)),
            hash_addresses: raw.hash_addresses.unwrap_or(built_in.hash_addresses),
        };
        let AccessLog { rotate_bytes, rotate_daily, keep, hash_addresses, .. } = access_log;
        let rotates = rotate_bytes > 0 || rotate_daily;
        if access_log.file.is_none() {
            for (key, is_of_use) in [
                ("access_log.rotate_bytes", rotate_bytes != built_in.rotate_bytes && rotate_bytes > 0),
                ("access_log.rotate_daily", rotate_daily),
                ("access_log.keep", keep != built_in.keep && keep > 0),
                ("access_log.hash_addresses", hash_addresses),
            ] {
                if is_of_use {
                    self.warning(key, "has no effect: [access_log] file is not set, so there is no such log".into());
                }
            }
        } else if raw.keep.is_some_and(|keep| keep > 0) && !rotates {
            self.warning("access_log.keep", "has no effect: the file is put away neither by size nor by day".into());
        }
        access_log
    }

    /// What a viewer has to show must be something that can be checked.
    fn proofs(&mut self, settings: &Settings) {
        let mut points = settings.publishing_points_or_demo();
        if settings.publish.create {
            // Those that publishers make are watched as `access.viewers` says.
            let access = PointAccess { viewers: settings.access.viewers, ..PointAccess::default() };
            points.push(PublishingPoint { access, ..PublishingPoint::push("[publish] create".into(), None) });
        }
        let own = points.iter().filter(|point| !matches!(point.source, Source::Stations { .. })).count();
        for (i, point) in points.iter().enumerate() {
            let written = match point.source {
                Source::Stations { .. } => format!("stations[{}].access", i.saturating_sub(own)),
                _ => format!("publishing_point[{i}].access"),
            };
            let key = if self.places.contains_key(&written) { written } else { "access.viewers".to_owned() };
            match point.access.viewers {
                Viewers::Signed if settings.key_file.is_none() => self.problem(
                    &key,
                    format!(
                        "\"signed\" of {:?} needs keys: `wmrelay sign --new-key FILE` makes them, and [signing] key_file names the \
                         file",
                        point.name
                    ),
                ),
                Viewers::Users if settings.users_file.is_none() && settings.viewers_file.is_none() => self.problem(
                    &key,
                    format!(
                        "\"users\" of {:?} needs a file of users: `wmrelay passwd FILE USER` writes it, and [users] viewers_file \
                         names it",
                        point.name
                    ),
                ),
                _ => {}
            }
        }
        let asks = |viewers| points.iter().any(|point| point.access.viewers == viewers);
        if settings.viewers_file.is_some() && !asks(Viewers::Users) {
            self.warning("users.viewers_file", "has no effect: no publishing point says access = \"users\"".into());
        }
        if settings.key_file.is_some() && !asks(Viewers::Signed) {
            self.warning("signing.key_file", "has no effect: no publishing point says access = \"signed\"".into());
        }
        if settings.viewers_file.is_none() && settings.users_file.is_some() && asks(Viewers::Users) {
            self.warning(
                "users.file",
                "names those who may watch too, as there is no `viewers_file`: whoever watches may publish".into(),
            );
        }
    }

    /// What only the whole can say.
    fn whole(&mut self, settings: &Settings) {
        self.proofs(settings);
        transcode::sources(self, settings);
        let Settings { mms, http, rtsp, admin, control, console, .. } = settings;
        let has_users = control.users_file.is_some();
        let (control, console) = (&Control::reachable(&control.listen, has_users), &Control::reachable(console, has_users));
        let failed = |key: &str| self.problems.iter().any(|problem| problem.key.starts_with(key));
        let [listen_failed, protocols_failed] = ["mms.listen", "mms.protocols"].map(failed);
        if mms.addresses.is_empty() && !listen_failed {
            self.problem("mms.listen", "is empty, so there is nothing to serve; write \"*:1755\", or leave it out".into());
        }
        let Protocols { mms: over_mms, http: over_http, rtsp: over_rtsp } = settings.mms_protocols;
        if !(over_mms || over_http || over_rtsp || protocols_failed) {
            self.problem(
                "mms.protocols",
                "is empty, so the listener serves nobody; write [\"mms\", \"http\", \"rtsp\"], or leave it out".into(),
            );
        }
        let tls = &settings.rtsp_tls.listen;
        // In this order: of two that collide the later one is told.
        let listeners = [
            ("mms.listen", mms),
            ("http.listen", http),
            ("rtsp.listen", rtsp),
            ("rtsp.tls_listen", tls),
            ("admin.listen", admin),
        ];
        let media =
            listeners.into_iter().filter(|(key, _)| *key != "admin.listen").flat_map(|(_, listen)| listen.addresses.clone());
        if let Some(redirect) = &settings.drain.redirect
            && let Some(listener) = redirect.leads_to(media, |_| false)
        {
            self.problem(
                "drain.redirect",
                format!("leads back to this daemon, which listens on {listener}; name another server"),
            );
        }
        // What nobody has written gives way when it is bound.
        let built_in = Settings::default();
        let said = [
            ("control.listen", control, settings.control.listen != built_in.control.listen),
            ("console.listen", console, settings.console != built_in.console),
        ];
        let said = said.into_iter().filter(|(_, _, said)| *said).map(|(key, listen, _)| (key, listen));
        let listeners: Vec<_> = listeners.into_iter().chain(said).collect();
        for (i, (key, listen)) in listeners.iter().enumerate() {
            if let Some((one, two)) = listen.collides_itself() {
                self.problem(key, format!("{one} and {two} take the same port"));
            }
            for (earlier_key, earlier) in listeners.iter().take(i) {
                if let Some((one, two)) = listen.collides(earlier) {
                    self.problem(key, format!("{one} takes the port of {two} ({earlier_key})"));
                }
            }
        }
        if let Some(open) = admin.addresses.iter().find(|address| !address.ip().to_canonical().is_loopback()) {
            self.warning(
                "admin.listen",
                format!("{open} can be reached from other machines, and the admin port asks for no password"),
            );
        }
        let mut pushes = settings.publishing_points.iter().filter(|point| point.source == Source::Push);
        let pushed = pushes.next().map(|point| format!("{:?}", point.name));
        if let Some(what) = pushed.or_else(|| settings.publish.create.then(|| "anything (publish.create)".to_owned())) {
            if http.addresses.is_empty() && rtsp.addresses.is_empty() {
                self.warning("http.listen", format!("is empty, so nobody can publish {what}"));
            } else if http.addresses.is_empty() {
                self.warning("http.listen", format!("is empty, so {what} is published by RTSP alone, which few encoders can"));
            } else if settings.users_file.is_none() {
                self.warning("users.file", format!("is not set, so only this machine itself can publish {what}"));
            }
        }
    }
}

/// What a viewer has to show; where nothing is written, what holds for all.
pub(super) fn viewers(written: Option<RawViewers>, otherwise: Viewers) -> Viewers {
    match written {
        None => otherwise,
        Some(RawViewers::All) => Viewers::All,
        Some(RawViewers::Users) => Viewers::Users,
        Some(RawViewers::Signed) => Viewers::Signed,
    }
}
