//! What the daemon was told to do: typed, checked, with every default in one place.
//!
//! A leaf module: every layer may use these types, none of them knows where a value came from.
//! [`load`] makes them from files, environment and flags; `config/wmrelay.toml` explains every key.

mod camera;
mod check;
mod control;
mod diff;
mod drain;
mod effective;
mod fallback;
mod file;
mod hooks;
mod listen;
mod load;
mod points;
mod problem;
mod raw;
mod stations;
mod template;
mod transcode;

pub use camera::CameraLogin;
pub use control::{Control, ControlSocket};
pub use diff::{Difference, PointChange, PointDifference, difference};
pub use drain::{DRAIN_TIMEOUT_S_MAX, Drain, Elsewhere, ElsewhereError};
pub use effective::{effective, shown_source};
pub use fallback::{Fallback, FallbackKind};
pub use hooks::{Commands, Hooks, Target, Webhook};
pub use listen::network;
pub use load::{Flag, Loaded, Sources, load};
pub use points::{check_name, line_without_secrets, url_without_secrets};
pub use problem::{Problem, SettingsError};
pub use stations::{STATIONS_BYTES_MAX, Station, parse_stations};
pub use template::{Captures, Pattern};
pub use transcode::{
    AudioCodec, AudioProfile, Choice, FfmpegInput, PROFILES_MAX, PlayerProfile, Profile, SCHEMES, Transcode, VideoCodec,
    VideoProfile, scheme_of,
};

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

/// All settings after checking; see `config/wmrelay.toml` for the words that a person writes.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Threads that serve viewers; at least one.
    pub shards: usize,
    /// The MMS listeners, TCP and UDP of the same number.
    pub mms: Listen,
    /// What viewers may speak there.
    pub mms_protocols: Protocols,
    /// The HTTP listeners: viewers watch and publishers push here.
    pub http: Listen,
    /// What viewers may speak there.
    pub http_protocols: Protocols,
    /// RTSP listeners.
    pub rtsp: Listen,
    /// What viewers may speak there.
    pub rtsp_protocols: Protocols,
    /// UDP port that media over RTSP comes from; requests for lost packets come to the next. Even; 0: the system's choice.
    pub rtsp_server_port: u16,
    /// RTSP inside TLS.
    pub rtsp_tls: RtspTls,
    /// The admin listeners: metrics and health.
    pub admin: Listen,
    /// The control port.
    pub control: Control,
    /// The web console: always inside TLS, with the certificate and the users of the control port; none: no console. While there is no
    /// user, those that other machines can reach are left out.
    pub console: Listen,
    /// What SIGTERM does before the daemon ends.
    pub drain: Drain,
    /// UDP delivery.
    pub udp: Udp,
    /// When media is sent.
    pub delivery: Delivery,
    /// What files on demand may take.
    pub on_demand: OnDemand,
    /// What one daemon takes on.
    pub limits: Limits,
    /// How much of each stream is kept.
    pub window: WindowBounds,
    /// What publishers may do beyond feeding.
    pub publish: Publish,
    /// Who may connect at all.
    pub access: Access,
    /// File of HA1 digests of the publishers (`wmrelay passwd`).
    pub users_file: Option<PathBuf>,
    /// The same of those who may watch where [`Viewers::Users`] is said; `None`: the publishers.
    pub viewers_file: Option<PathBuf>,
    /// File of the keys that sign URLs (`wmrelay sign --new-key`).
    pub key_file: Option<PathBuf>,
    /// How the daemon logs.
    pub log: Log,
    /// The log of sessions.
    pub access_log: AccessLog,
    /// [`PublishingPoint::source_timeout`] of those that do not say it; `None`: for ever.
    pub source_timeout: Option<Duration>,
    /// Who hears when sources and viewers come and go.
    pub hooks: Hooks,
    /// What transcodes.
    pub transcode: Transcode,
    /// The profiles, built-in ones first; their names differ.
    pub profiles: Vec<Profile>,
    /// Which players get which profile by themselves; the first that fits counts.
    pub player_profiles: Vec<PlayerProfile>,
    /// The publishing points, in the order of the file.
    pub publishing_points: Vec<PublishingPoint>,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Addresses; port 0 lets the system choose.
    pub addresses: Vec<SocketAddr>,
    /// `*` or `localhost` was spelt out as an IPv4 and an IPv6 address: where the machine has no IPv6, that one is
    /// passed over. An IPv6 address that somebody wrote must be there.
    pub built_in: bool,
}

impl Listen {
    /// The built-in wildcard addresses of a port, IPv4 and IPv6.
    pub fn anywhere(port: u16) -> Self {
        let addresses = vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))];
        Self { addresses, built_in: true }
    }
}

/// RTSP inside TLS: `rtsps://`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RtspTls {
    /// The listeners; none: no TLS. Where there is one there are both files.
    pub listen: Listen,
    /// File of the certificate and those between it and its authority, PEM.
    pub certificate: Option<PathBuf>,
    /// File of its private key, PEM.
    pub key: Option<PathBuf>,
}

/// Protocols that viewers may speak on a listener; the first bytes of a connection tell which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocols {
    /// MMS.
    pub mms: bool,
    /// Windows Media over HTTP, and downloads.
    pub http: bool,
    /// Windows Media RTSP.
    pub rtsp: bool,
}

impl Default for Protocols {
    fn default() -> Self {
        Self { mms: true, http: true, rtsp: true }
    }
}

/// UDP delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Udp {
    /// Whether UDP funnels are granted at all.
    pub enabled: bool,
    /// The client ports that a firewall in front of viewers lets through.
    pub client_ports: PortRanges,
    /// What an announced port outside of them gets; below 1024 is always refused.
    pub outside_pool: OutsidePool,
    /// Refuse UDP when the announced address is not the connection's own (a NAT without MMS helper).
    pub refuse_on_nat_mismatch: bool,
    /// Largest datagram to IPv4 viewers, bytes of UDP payload.
    pub max_datagram_v4: usize,
    /// Largest datagram to IPv6 viewers, bytes of UDP payload.
    pub max_datagram_v6: usize,
    /// What happens to packets that do not fit.
    pub oversize: Oversize,
    /// How long UDP is refused to an address at which it did not arrive; 0: it never is.
    pub remember: Duration,
}

impl Udp {
    /// Size of packets that are cut anew: 1400 bytes, less where a datagram and its head of 8 bytes do not hold that.
    pub fn recut_size(&self) -> usize {
        self.max_datagram_v4.min(self.max_datagram_v6).saturating_sub(8).min(1400)
    }
}

/// Inclusive port ranges, sorted, not overlapping, never below 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRanges(pub Vec<RangeInclusive<u16>>);

impl PortRanges {
    /// Whether a port is in one of the ranges.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }

    /// All ports, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().flat_map(Clone::clone)
    }
}

/// A UDP port announced outside of `client_ports`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutsidePool {
    /// Refused at once, so that the player falls back to TCP.
    Refuse,
    /// Leased all the same, from 1024 on.
    Allow,
}

/// ASF packets that do not fit into one datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oversize {
    /// Cut anew to packets that do, for everybody where they are live, for UDP viewers where they are files.
    Recut,
    /// Sent as IP fragments.
    Fragment,
    /// UDP is refused while every source is known to be oversize; those of a folder are not, before they are opened.
    Refuse,
}

/// When media is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Shortest time between two sends of one publishing point to those who are at its live edge; zero: as packets come.
    pub tick: Duration,
    /// On demand: media time that is sent faster than it plays, when a viewer starts or seeks.
    pub burst: Duration,
    /// Media time per real time of that burst, at least 1.
    pub burst_rate: u32,
    /// What a viewer of a broadcast gets that falls behind twice in a row.
    pub on_slow: OnSlow,
}

/// A viewer of a broadcast that is slower than the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnSlow {
    /// It gets the key frames of the video and all of the rest until it keeps up.
    Thin,
    /// It skips from key frame to key frame.
    Skip,
}

/// What files on demand may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnDemand {
    /// Memory for blocks of files, bytes.
    pub cache_bytes: usize,
    /// Threads that read from disks, at least 1.
    pub readers: usize,
}

/// What one daemon takes on; 0 is no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Sessions in all.
    pub viewers: u32,
    /// Sessions of one publishing point.
    pub viewers_per_point: u32,
    /// Sessions of one client address (IPv6: of one /64).
    pub viewers_per_address: u32,
    /// Sum of the bit rates of all viewers, kbit/s.
    pub bandwidth_kbps: u64,
    /// What one viewer of a file gets at most, kbit/s.
    pub viewer_kbps: u32,
    /// Connections inside TLS, each of which costs more than all else that a viewer needs.
    pub tls_connections: u32,
    /// New sessions a second.
    pub joins_per_s: u32,
    /// New sessions at once, until the rate holds them back; 0: one second's worth.
    pub joins_burst: u32,
    /// Time for each step until the player asks for the header; [`FOREVER`] for no limit.
    pub handshake: Duration,
    /// Time for which a session that does not play may say nothing but answers to pings; [`FOREVER`] for no limit.
    pub idle: Duration,
    /// New viewers are refused while media goes out so much later than its tick; `None`: never.
    pub max_send_delay: Option<Duration>,
}

/// "No limit" where a time is needed: ten years, which can be added to an `Instant` where `Duration::MAX` cannot.
pub const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// How the daemon logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The form of a line.
    pub format: LogFormat,
    /// Levels as [`Log::filter`] reads them: `info`, `info,wmrelay::mms=debug`.
    pub level: String,
}

impl Log {
    /// What lets through what a level, or a list of levels of parts of the program, says.
    ///
    /// # Errors
    /// It says none; a sentence for the person who wrote it.
    pub fn filter(level: &str) -> Result<EnvFilter, String> {
        let known = "there are off, error, warn, info, debug and trace, and lists such as \"info,wmrelay::mms=debug\"";
        // The filter takes a bare word that is no level for a part of the program, and all others would be silent.
        let mut parts = level.split(',').map(str::trim);
        if let Some(part) = parts.find(|part| !part.contains('=') && part.parse::<LevelFilter>().is_err()) {
            return Err(format!("{part:?} is no log level; {known}"));
        }
        EnvFilter::try_new(level).map_err(|error| format!("{level:?} is no log level ({error}); {known}"))
    }
}

/// The log of sessions, a line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// Where it is written; `None`: nowhere.
    pub file: Option<PathBuf>,
    /// The file is put away before it is larger, bytes; 0: never.
    pub rotate_bytes: u64,
    /// The file is put away when its day, by UTC, is over.
    pub rotate_daily: bool,
    /// Files that were put away and are kept; 0: all.
    pub keep: usize,
    /// Keyed hashes in place of the addresses of viewers.
    pub hash_addresses: bool,
}

impl Default for AccessLog {
    /// No file; one that is named takes some 1.1 GB at most with those that were put away.
    fn default() -> Self {
        Self { file: None, rotate_bytes: 100 << 20, rotate_daily: false, keep: 10, hash_addresses: false }
    }
}

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// The journal where standard error is connected to it, text otherwise.
    Auto,
    /// Lines for people, on standard error.
    Text,
    /// A JSON object a line, on standard error.
    Json,
    /// Fields in the systemd journal.
    Journald,
}

/// How much of each stream is kept for joins, slow viewers and resends; whichever bound is reached first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowBounds {
    /// Seconds of send time.
    pub seconds: u32,
    /// Bytes.
    pub bytes: usize,
}

/// What publishers may do beyond feeding the publishing points that there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Who publishes to a name that there is not makes a publishing point of it.
    pub create: bool,
    /// Publishing points that are there at once because of that, 1 to 1024.
    pub create_limit: usize,
}

/// Address rules: deny wins; an empty allow list allows all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// [`PointAccess::viewers`] of those that do not say it.
    pub viewers: Viewers,
    /// Networks that may watch.
    pub viewers_allow: Vec<IpNet>,
    /// Networks that may not.
    pub viewers_deny: Vec<IpNet>,
    /// Networks that may publish.
    pub publishers_allow: Vec<IpNet>,
    /// Networks that may not.
    pub publishers_deny: Vec<IpNet>,
}

impl Access {
    /// Whether an address may watch.
    pub fn may_watch(&self, address: IpAddr) -> bool {
        permitted(&self.viewers_allow, &self.viewers_deny, address)
    }

    /// Whether an address may publish.
    pub fn may_publish(&self, address: IpAddr) -> bool {
        permitted(&self.publishers_allow, &self.publishers_deny, address)
    }
}

/// What a viewer has to show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Viewers {
    /// Nothing.
    #[default]
    All,
    /// A password.
    Users,
    /// A signed URL.
    Signed,
}

/// Who may watch one publishing point, of those whom [`Access`] lets in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PointAccess {
    /// What a viewer has to show.
    pub viewers: Viewers,
    /// Networks that may watch; none allows all.
    pub allow: Vec<IpNet>,
    /// Networks that may not.
    pub deny: Vec<IpNet>,
}

impl PointAccess {
    /// Whether an address may watch, whatever it shows.
    pub fn may_watch(&self, address: IpAddr) -> bool {
        permitted(&self.allow, &self.deny, address)
    }
}

fn permitted(allow: &[IpNet], deny: &[IpNet], address: IpAddr) -> bool {
    let named = |list: &[IpNet]| list.iter().any(|net| net.contains(&address));
    !named(deny) && (allow.is_empty() || named(allow))
}

/// A name that viewers can open, and what feeds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishingPoint {
    /// The name, as in `mms://host/NAME`; that of a template has a `*` in it ([`PublishingPoint::pattern`]).
    pub name: String,
    /// What people are shown in place of the name.
    pub title: Option<String>,
    /// Its source.
    pub source: Source,
    /// How long viewers wait for a source that is gone; `None`: for ever.
    pub source_timeout: Option<Duration>,
    /// Whether script commands of its source may open web pages and other streams in a player.
    pub url_commands: bool,
    /// What viewers get while the source is gone; `None`: nothing.
    pub fallback: Option<Fallback>,
    /// Who may watch it.
    pub access: PointAccess,
    /// Names that are live at once, where it stands for many; at least one.
    pub at_once: usize,
    /// Programs that hear of it.
    pub commands: Commands,
}

/// What feeds a broadcast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A publisher that sends to `/publish/NAME`.
    Push,
    /// ASF files in real time, one after the other, from the start again after the last.
    File {
        /// The files, at least one.
        paths: Vec<PathBuf>,
        /// When they are played; each time from the first one's beginning.
        start: Start,
        /// How long they go on without viewers (`Start::Watched`).
        linger: Duration,
    },
    /// A child process that writes ASF to its standard output.
    Exec {
        /// Program and arguments; no shell.
        argv: Vec<String>,
        /// When it runs.
        start: Start,
        /// How long it goes on without viewers (`Start::Watched`).
        linger: Duration,
    },
    /// A camera, or another server of plain RTSP, whose codecs ASF carries.
    Camera {
        /// `rtsp` URL, which may hold a login or an access key.
        url: String,
        /// Set apart from the URL, which it takes precedence over.
        login: Option<CameraLogin>,
        /// Media comes as datagrams, not on the connection.
        udp: bool,
        /// When it is connected.
        start: Start,
        /// How long it stays so without viewers (`Start::Watched`).
        linger: Duration,
    },
    /// The built-in moving test picture.
    Demo,
    /// On demand: an ASF file, or the ASF files of a folder and those below it. The one type without a broadcast.
    Files {
        /// The file, or the folder that no name leads out of.
        root: PathBuf,
    },
    /// Another server, by MMS.
    Pull {
        /// `mms` (UDP, or TCP where that does not work), `mmst` (TCP), `mmsu` (UDP), `http` or `mmsh` URL, which may hold a login or
        /// an access key; with a slash at its end all names
        /// below it are meant.
        url: String,
        /// When it is connected.
        start: Start,
        /// How long it stays so without viewers (`Start::Watched`).
        linger: Duration,
    },
    /// What a list of stations names, each of them pulled while it is watched. Its publishing point has the file's name, which nobody
    /// can open.
    Stations {
        /// The list.
        file: PathBuf,
        /// How long a station is pulled without viewers.
        linger: Duration,
    },
    /// Whatever ffmpeg reads, made to be what a profile says.
    Ffmpeg {
        /// What it reads.
        input: FfmpegInput,
        /// The name of a profile.
        profile: String,
        /// When it runs.
        start: Start,
        /// How long it goes on without viewers (`Start::Watched`).
        linger: Duration,
    },
}

impl Source {
    /// Whether names below that of the publishing point belong to it too.
    pub fn is_folder(&self) -> bool {
        match self {
            Self::Files { .. } => true,
            // What stands behind a question mark is no path.
            Self::Pull { url, .. } => url.ends_with('/') && !url.contains('?'),
            Self::Push
            | Self::File { .. }
            | Self::Exec { .. }
            | Self::Demo
            | Self::Stations { .. }
            | Self::Ffmpeg { .. }
            | Self::Camera { .. } => false,
        }
    }
}

/// When a source runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// From the daemon's start on.
    Always,
    /// While somebody watches.
    Watched,
}

impl Default for Settings {
    /// The built-in settings: what `wmrelay` does without a file. They have no publishing point;
    /// [`Settings::publishing_points_or_demo`] says what then runs.
    fn default() -> Self {
        Self {
            shards: std::thread::available_parallelism().map_or(1, usize::from),
            mms: Listen::anywhere(1755),
            http: Listen::anywhere(8080),
            mms_protocols: Protocols::default(),
            http_protocols: Protocols::default(),
            rtsp: Listen::anywhere(8554),
            rtsp_protocols: Protocols::default(),
            rtsp_server_port: 5004,
            rtsp_tls: RtspTls { listen: Listen { addresses: Vec::new(), built_in: false }, certificate: None, key: None },
            admin: Listen { addresses: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 9755))], built_in: false },
            control: Control::default(),
            console: Listen::anywhere(8443),
            drain: Drain::default(),
            udp: Udp {
                enabled: true,
                client_ports: PortRanges(vec![1024..=5000]),
                outside_pool: OutsidePool::Refuse,
                refuse_on_nat_mismatch: false,
                max_datagram_v4: 1472,
                max_datagram_v6: 1452,
                oversize: Oversize::Recut,
                remember: Duration::from_secs(3600),
            },
            delivery: Delivery {
                tick: Duration::from_millis(40),
                burst: Duration::from_secs(5),
                burst_rate: 5,
                on_slow: OnSlow::Thin,
            },
            on_demand: OnDemand { cache_bytes: 128 << 20, readers: 4 },
            limits: Limits {
                viewers: 0,
                viewers_per_point: 0,
                viewers_per_address: 0,
                bandwidth_kbps: 0,
                viewer_kbps: 0,
                tls_connections: 500,
                joins_per_s: 0,
                joins_burst: 0,
                handshake: Duration::from_secs(10),
                idle: Duration::from_secs(60),
                max_send_delay: Some(Duration::from_millis(250)),
            },
            window: WindowBounds { seconds: 20, bytes: 32 << 20 },
            publish: Publish { create: false, create_limit: 64 },
            access: Access::default(),
            users_file: None,
            viewers_file: None,
            key_file: None,
            log: Log { format: LogFormat::Auto, level: "info".into() },
            access_log: AccessLog::default(),
            source_timeout: Some(Duration::from_secs(30)),
            hooks: Hooks::default(),
            transcode: Transcode::default(),
            profiles: Profile::built_in(),
            player_profiles: Vec::new(),
            publishing_points: Vec::new(),
        }
    }
}

impl PublishingPoint {
    /// A broadcast that publishers feed and everybody may watch.
    pub fn push(name: String, source_timeout: Option<Duration>) -> Self {
        Self { source_timeout, ..Self::new(name, Source::Push) }
    }

    /// One that everybody may watch and whose viewers wait for ever, with nothing else said of it.
    pub fn new(name: impl Into<String>, source: Source) -> Self {
        Self {
            name: name.into(),
            title: None,
            source,
            source_timeout: None,
            url_commands: false,
            fallback: None,
            access: PointAccess::default(),
            at_once: template::AT_ONCE,
            commands: Commands::default(),
        }
    }
}

impl Settings {
    /// The configured publishing points, or the built-in `demo` where there is none.
    pub fn publishing_points_or_demo(&self) -> Vec<PublishingPoint> {
        if self.publishing_points.is_empty() {
            let access = PointAccess { viewers: self.access.viewers, ..PointAccess::default() };
            let (source_timeout, commands) = (self.source_timeout, self.hooks.commands.clone());
            vec![PublishingPoint { source_timeout, access, commands, ..PublishingPoint::new("demo", Source::Demo) }]
        } else {
            self.publishing_points.clone()
        }
    }
}
