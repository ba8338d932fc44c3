//! The command line: what was typed. What it means is up to [`crate::run`] and [`crate::settings`].

mod drain;
mod firewall;
mod operate;
mod probe;
mod top;

pub use drain::DrainArgs;
pub use firewall::{FirewallArgs, FirewallForm, FirewallProtocol, FirewallSide};
pub use operate::{DaemonArgs, OperateCommand};
pub use probe::ProbeArgs;
pub use top::TopArgs;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::settings::{FOREVER, Flag, PortRanges, Sources};

/// A streaming relay for Windows Media-style players.
#[derive(Debug, Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
#[command(after_help = "Without a command: serve. Without a file: a built-in moving test picture as mms://localhost/demo.")]
pub struct Args {
    /// What to do; nothing said is `serve`.
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    serve: ServeArgs,
}

impl Args {
    /// The command that was typed, or `serve`.
    pub fn command(self) -> Command {
        self.command.unwrap_or(Command::Serve(self.serve))
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve viewers and take in sources (the default command)
    Serve(ServeArgs),
    /// Print the settings in force as TOML, or what is wrong with them (exit code 2)
    Check(CheckArgs),
    /// Add a user to a users file, or change the password; reads it from the terminal or one line of standard input
    Passwd(PasswdArgs),
    /// Print an address that opens a publishing point with access = "signed" for a time; or make the keys for that
    Sign(SignArgs),
    /// Ask the running daemon, or tell it what to do.
    #[command(flatten)]
    Operate(OperateCommand),
    /// Play a stream without decoding it, and report what arrived
    Play(PlayArgs),
    /// Play a stream many times over without decoding it, and report how the server bore it
    Swarm(SwarmArgs),
    /// Print what a firewall has to let through for so many viewers, for people or as its rules; nothing is applied
    Firewall(FirewallArgs),
    /// Find out at the viewer's side what of the way to a server is open, and what to ask the firewall's administrator for
    Probe(ProbeArgs),
    /// Print completions for a shell, to be put where it looks for them
    Completions(CompletionsArgs),
    /// Write the manual pages into a folder
    Man(ManArgs),
}

/// `wmrelay serve`
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ServeArgs {
    /// Where settings come from.
    #[command(flatten)]
    pub settings: SettingsArgs,

    /// Write the bound addresses to this file as JSON, once all are bound
    #[arg(long, value_name = "PATH")]
    pub ready_file: Option<PathBuf>,
}

/// `wmrelay check`
#[derive(Debug, Clone, Default, clap::Args)]
pub struct CheckArgs {
    /// Where settings come from.
    #[command(flatten)]
    pub settings: SettingsArgs,

    /// Print nothing when the settings are sound, not even warnings
    #[arg(short, long)]
    pub quiet: bool,

    /// Print what the running daemon would change if it read its settings again now, from where it has them: `--config` may name that file, and no other
    #[arg(long)]
    pub diff: bool,

    /// The daemon's control socket [default: control.sock in $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR/wmrelay or /run/wmrelay]
    #[arg(long, value_name = "PATH", requires = "diff")]
    pub socket: Option<PathBuf>,

    /// Print the difference as JSON
    #[arg(long, requires = "diff")]
    pub json: bool,
}

impl CheckArgs {
    /// Which daemon is asked what it would change.
    pub fn daemon(&self) -> DaemonArgs {
        DaemonArgs { socket: self.socket.clone(), json: self.json }
    }
}

/// Flags that are settings, common to `serve` and `check`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SettingsArgs {
    /// Settings file; conf.d/*.toml beside it is read too
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Where MMS viewers connect, such as "*:1755"; several with commas
    #[arg(long, value_name = "ADDRESS")]
    pub mms_listen: Option<String>,

    /// Where viewers watch by HTTP and encoders publish, such as "*:8080"; "" for nowhere
    #[arg(long, value_name = "ADDRESS")]
    pub http_listen: Option<String>,

    /// Where viewers connect by RTSP, such as "*:8554"; "" for nowhere
    #[arg(long, value_name = "ADDRESS")]
    pub rtsp_listen: Option<String>,

    /// Where metrics and health are served, such as "127.0.0.1:9755"; "" for nowhere
    #[arg(long, value_name = "ADDRESS")]
    pub admin_listen: Option<String>,

    /// Where the control port is, such as "*:3898"; "" for nowhere
    #[arg(long, value_name = "ADDRESS")]
    pub control_listen: Option<String>,

    /// Where the web console is, such as "*:8443"; "" for nowhere
    #[arg(long, value_name = "ADDRESS")]
    pub console_listen: Option<String>,

    /// The form of the log: auto, text, json or journald
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

impl SettingsArgs {
    /// These flags over this process's environment over the file.
    pub fn sources(&self) -> Sources {
        let flags = [
            ("--mms-listen", "mms.listen", &self.mms_listen),
            ("--http-listen", "http.listen", &self.http_listen),
            ("--rtsp-listen", "rtsp.listen", &self.rtsp_listen),
            ("--admin-listen", "admin.listen", &self.admin_listen),
            ("--control-listen", "control.listen", &self.control_listen),
            ("--console-listen", "console.listen", &self.console_listen),
            ("--log-format", "log.format", &self.log_format),
        ];
        let typed = |(name, key, value): (_, _, &Option<String>)| Some(Flag { name, key, value: value.clone()? });
        Sources::of_process(self.config.clone(), flags.into_iter().filter_map(typed).collect())
    }
}

/// `wmrelay completions`
#[derive(Debug, Clone, clap::Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// `wmrelay man`
#[derive(Debug, Clone, clap::Args)]
pub struct ManArgs {
    /// The folder, such as /usr/share/man/man1
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
}

/// `wmrelay passwd`
#[derive(Debug, Clone, clap::Args)]
pub struct PasswdArgs {
    /// The users file; created when it is not there
    #[arg(value_name = "USERS_FILE")]
    pub file: PathBuf,

    /// The user's name
    #[arg(value_name = "USER")]
    pub user: String,

    /// Write a line of the file of those who sign in at control port and console (control.users_file), with this role: viewer,
    /// publisher or operator [default: in such a file the role that the user has]
    #[arg(long, conflicts_with = "realm")]
    pub role: Option<String>,

    /// The realm of the file, which the encoder is told when it is asked for the password [default: that of the file, or "wmrelay"]
    #[arg(long)]
    pub realm: Option<String>,
}

/// `wmrelay sign`
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "The settings are those of `serve`: the same file, the same environment. Exit code: 2 where they, the key file or the \
                        command line cannot be used."
)]
pub struct SignArgs {
    /// The name that viewers are to open, such as cam1 or archive/one.wmv; with a slash at its end all names below it
    #[arg(value_name = "NAME", required_unless_present = "new_key")]
    pub name: Option<String>,

    /// How long it opens, from now on: 90s, 30m, 2h, 7d. Who watches by then watches on
    #[arg(long = "for", value_name = "TIME", value_parser = span, required_unless_present = "new_key")]
    pub span: Option<Duration>,

    /// The only address that it is good for; an IPv6 address as a whole
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<IpAddr>,

    /// Settings file; conf.d/*.toml beside it is read too
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// How viewers reach the server, such as mms://media.example: whole addresses are printed
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,

    /// Write a new key to this file, which must not be there
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "span", "address", "config", "url"])]
    pub new_key: Option<PathBuf>,
}

/// `wmrelay play`
#[derive(Debug, Clone, clap::Args)]
pub struct PlayArgs {
    /// What to play: mms://HOST/NAME, rtsp://HOST/NAME, or by HTTP http://HOST/NAME or mmsh://HOST/NAME, each with HOST:PORT too; RTSP that is no Windows Media is counted
    pub url: String,

    /// How the media is to come, in place of what the URL says: mms:// and rtsp:// are UDP, or TCP where UDP does not work; mmsu:// and rtspu:// are UDP alone, mmst:// and rtspt:// TCP alone
    #[arg(long, value_enum)]
    pub transport: Option<PlayTransport>,

    /// The local UDP ports that may be taken, the lowest free one first
    #[arg(long, value_name = "RANGES", default_value = "1024-5000")]
    pub ports: PortRanges,

    /// Stop after this many seconds; without it, at the end of the stream
    #[arg(long, value_name = "N")]
    pub seconds: Option<u64>,

    /// Begin at this time of a file, seconds; the server goes back to the key frame before it
    #[arg(long, value_name = "SECONDS", value_parser = content_time, group = "begin")]
    pub start: Option<f64>,

    /// Begin at this packet of a file, by its number
    #[arg(long, value_name = "N", group = "begin")]
    pub packet: Option<u32>,

    /// Begin at this byte of a file, counted from the beginning of its header
    #[arg(long, value_name = "BYTES", group = "begin")]
    pub offset: Option<u32>,

    /// After so many seconds of playing, seek to this time: 5:60
    #[arg(long, value_name = "SECONDS:TO_SECONDS", value_parser = seek)]
    pub seek_after: Option<Seek>,

    /// Ask for these streams alone, by their numbers; several with commas
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', value_parser = clap::value_parser!(u8).range(1..=127))]
    pub streams: Vec<u8>,

    /// Write what comes as an ASF file: the header as received, and the packets in the order in which they arrive; when the header changes, those of the first alone
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,

    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// A seek while `play` plays.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seek {
    /// Seconds from the first packet on.
    pub after_s: f64,
    /// Time of the content, seconds.
    pub to_s: f64,
}

/// A transport that `play` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PlayTransport {
    /// UDP; with mms:// and rtsp://, TCP where that is refused
    Udp,
    /// TCP, and UDP never
    Tcp,
}

/// `wmrelay swarm`
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Exit code: 0 where somebody played to the end, with --seconds 0 where somebody joined, or after Ctrl-C; \
                        1 where not, or where nothing could start; 2 for wrong arguments; 130 after a second Ctrl-C."
)]
pub struct SwarmArgs {
    /// What to play: mms://HOST/NAME, rtsp://HOST/NAME, mmsh://HOST/NAME, with a port mms://HOST:PORT/NAME, on any server that is yours to load
    pub url: String,

    /// How many viewers
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub viewers: u32,

    /// How the media is to come, in place of what the URL says: mms://, mmsu://, rtsp:// and rtspu:// are UDP, mmst://, rtspt://, mmsh:// and http:// are TCP
    #[arg(long, value_enum)]
    pub transport: Option<SwarmTransport>,

    /// Connections to begin per second; at most 1000 handshakes are under way at once
    #[arg(long, value_name = "N/s", default_value = "500", value_parser = per_second)]
    pub ramp: u32,

    /// Measure for this many seconds when all have joined; 0: join and leave
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(..=31_536_000))]
    pub seconds: u64,

    /// Begin at this time of a file, seconds, or each viewer at a random one; at its end a viewer begins again there, or elsewhere
    #[arg(long, value_name = "SECONDS|random", value_parser = swarm_start)]
    pub start: Option<SwarmStart>,

    /// Local addresses, which viewers take in turn, such as 127.0.0.2-127.0.0.9; several with commas [default: the system chooses]
    #[arg(long, value_name = "ADDRESSES")]
    pub addresses: Option<String>,

    /// The local UDP ports that may be taken on each address, the lowest free one first
    #[arg(long, value_name = "RANGES", default_value = "1024-5000")]
    pub ports: PortRanges,

    /// Leave media unread by all viewers but four, so that less of this machine goes into reading; over UDP packets are then estimated
    #[arg(long)]
    pub unread: bool,

    /// Let the kernel hand over several datagrams as one (UDP_GRO): sends of a server on this machine cost it less than to ordinary players
    #[arg(long)]
    pub gro: bool,

    /// Process id of the server, where it runs on this machine: report its processor time and memory
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,

    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Where the viewers of `swarm` begin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SwarmStart {
    /// Each anywhere.
    Random,
    /// All at this time of the content, seconds.
    Time(f64),
}

/// A transport that `swarm` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SwarmTransport {
    /// UDP; a server that refuses it is a failure
    Udp,
    /// TCP
    Tcp,
}

/// A time as people write it: a number and a unit.
fn span(text: &str) -> Result<Duration, String> {
    let wanted = || "a number and a unit are wanted, such as 90s, 30m, 2h or 7d, ten years at most".to_owned();
    let at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wanted)?;
    let (number, unit) = text.split_at_checked(at).ok_or_else(wanted)?;
    let unit_s = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(wanted()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_s));
    seconds.map(Duration::from_secs).filter(|span| !span.is_zero() && *span <= FOREVER).ok_or_else(wanted)
}

fn content_time(text: &str) -> Result<f64, String> {
    let seconds: Option<f64> = text.parse().ok();
    seconds.filter(|seconds| (0.0..1e9).contains(seconds)).ok_or_else(|| "seconds are wanted, such as 90 or 12.5".into())
}

fn swarm_start(text: &str) -> Result<SwarmStart, String> {
    if text == "random" {
        return Ok(SwarmStart::Random);
    }
    content_time(text).map(SwarmStart::Time).map_err(|wanted| format!("{wanted}, or random"))
}

fn seek(text: &str) -> Result<Seek, String> {
    let (after, to) = text.split_once(':').ok_or("two times are wanted, such as 5:60")?;
    Ok(Seek { after_s: content_time(after)?, to_s: content_time(to)? })
}

/// A rate as people write it: `500` or `500/s`.
fn per_second(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    number.parse().ok().filter(|rate| *rate > 0).ok_or_else(|| "a number per second from 1 on is wanted, such as 500".into())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(line: &str) -> Command {
        Args::try_parse_from(line.split(' ')).unwrap().command()
    }

    #[test]
    fn clap_finds_no_fault() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn serve_is_the_default() {
        for line in ["wmrelay --config w.toml --ready-file r", "wmrelay serve --config w.toml --ready-file r"] {
            let Command::Serve(serve) = parse(line) else { panic!("{line}") };
            assert_eq!(serve.settings.config.as_deref(), Some(Path::new("w.toml")));
            assert_eq!(serve.ready_file.as_deref(), Some(Path::new("r")));
        }
        assert!(matches!(parse("wmrelay"), Command::Serve(_)));
        assert!(Args::try_parse_from(["wmrelay", "--config", "a", "check"]).is_err(), "a flag of serve before another command");
    }

    #[test]
    fn flags_become_settings() {
        let Command::Check(check) = parse("wmrelay check --mms-listen 127.0.0.1:0 --log-format json") else { panic!() };
        let flags = check.settings.sources().flags;
        let told: Vec<_> = flags.iter().map(|flag| (flag.name, flag.key, flag.value.as_str())).collect();
        assert_eq!(told, [("--mms-listen", "mms.listen", "127.0.0.1:0"), ("--log-format", "log.format", "json")]);
    }

    #[test]
    fn sign_takes_its_options() {
        let Command::Sign(sign) = parse("wmrelay sign archive/ --for 2h --address 192.0.2.7 --url mms://h") else { panic!() };
        assert_eq!((sign.name.as_deref(), sign.span), (Some("archive/"), Some(Duration::from_secs(7200))));
        assert_eq!((sign.address, sign.url.as_deref()), (Some([192, 0, 2, 7].into()), Some("mms://h")));
        let Command::Sign(sign) = parse("wmrelay sign --new-key f") else { panic!() };
        assert_eq!((sign.new_key.as_deref(), sign.name), (Some(Path::new("f")), None));
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("7d", 604_800)] {
            assert_eq!(span(text), Ok(Duration::from_secs(seconds)));
        }
        for line in [
            "wmrelay sign a",
            "wmrelay sign --for 2h",
            "wmrelay sign a --for 2",
            "wmrelay sign a --for 0s",
            "wmrelay sign a --for h",
            "wmrelay sign a --for 2x",
            "wmrelay sign a --for -2h",
            "wmrelay sign a --for 4000d",
            "wmrelay sign a --for 99999999999999999999d",
            "wmrelay sign a --new-key f",
            "wmrelay sign a --for 2h --address 192.0.2.0/24",
        ] {
            assert!(Args::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn play_takes_its_options() {
        let Command::Play(play) = parse("wmrelay play mms://h/n --transport tcp --seconds 5 --ports 40000,1024-1033 --json")
        else {
            panic!()
        };
        assert_eq!(play.ports.to_string(), "1024-1033,40000");
        assert_eq!((play.transport, play.seconds, play.json), (Some(PlayTransport::Tcp), Some(5), true));
        let Command::Play(play) = parse("wmrelay play mms://h/n --start 12.5 --seek-after 5:60 --streams 1,3 --write a.asf")
        else {
            panic!()
        };
        assert_eq!((play.start, play.packet, play.offset), (Some(12.5), None, None));
        assert_eq!(play.seek_after, Some(Seek { after_s: 5.0, to_s: 60.0 }));
        assert_eq!((play.streams.as_slice(), play.write.as_deref()), ([1, 3].as_slice(), Some(Path::new("a.asf"))));
        for line in [
            "wmrelay play mms://h/n --start 1 --packet 2",
            "wmrelay play mms://h/n --packet 1 --offset 2",
            "wmrelay play mms://h/n --start -1",
            "wmrelay play mms://h/n --start NaN",
            "wmrelay play mms://h/n --streams 0",
            "wmrelay play mms://h/n --streams 1,128",
            "wmrelay play mms://h/n --seek-after 5",
        ] {
            assert!(Args::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn firewall_takes_its_options() {
        let Command::Firewall(plan) = parse("wmrelay firewall --viewers 10") else { panic!() };
        assert_eq!((plan.viewers, plan.form, plan.side), (10, FirewallForm::Text, FirewallSide::Server));
        assert_eq!((plan.protocol, plan.client_net, plan.rtsp_ports), (FirewallProtocol::All, None, 3));
        let Command::Firewall(plan) = parse(
            "wmrelay firewall --viewers 1 --for cisco-asa --side viewer --protocol mms --client-net 192.0.2.7/24 \
             --server 198.51.100.1,2001:db8::1 --tcp-only --config f",
        ) else {
            panic!()
        };
        assert_eq!((plan.form, plan.side), (FirewallForm::CiscoAsa, FirewallSide::Viewer));
        assert_eq!(plan.client_net.map(|net| net.to_string()).as_deref(), Some("192.0.2.0/24"));
        assert_eq!((plan.server.len(), plan.tcp_only), (2, true));
        for form in ["text", "nftables", "iptables", "ufw", "firewalld", "windows", "cisco-asa", "aws-sg"] {
            assert!(matches!(parse(&format!("wmrelay firewall --viewers 2 --for {form}")), Command::Firewall(_)), "{form}");
        }
        for line in [
            "wmrelay firewall",
            "wmrelay firewall --viewers 0",
            "wmrelay firewall --viewers 65536",
            "wmrelay firewall --viewers 1 --client-net 192.0.2.0/33",
            "wmrelay firewall --viewers 1 --client-net home",
            "wmrelay firewall --viewers 1 --server media.example",
            "wmrelay firewall --viewers 1 --rtsp-ports 5",
        ] {
            assert!(Args::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn probe_takes_its_options() {
        let Command::Probe(probe) = parse("wmrelay probe media.example") else { panic!() };
        assert_eq!((probe.host.as_str(), probe.viewers, probe.control), ("media.example", 10, 3898));
        assert_eq!(probe.protocol, FirewallProtocol::All);
        let Command::Probe(probe) = parse("wmrelay probe h --protocol mms") else { panic!() };
        assert_eq!(probe.protocol, FirewallProtocol::Mms);
        for line in [
            "wmrelay probe",
            "wmrelay probe h --viewers 0",
            "wmrelay probe h --viewers 101",
            "wmrelay probe h --control 0",
            "wmrelay probe h --insecure --fingerprint AB",
            "wmrelay probe h --password geheim",
        ] {
            assert!(Args::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn swarm_takes_its_options() {
        let Command::Swarm(swarm) = parse(
            "wmrelay swarm mms://h/n --viewers 5000 --transport udp --ramp 2000/s --seconds 0 --addresses 127.0.0.2-127.0.0.9 \
             --unread --gro --pid 1 --json",
        ) else {
            panic!()
        };
        assert_eq!((swarm.viewers, swarm.transport, swarm.ramp), (5000, Some(SwarmTransport::Udp), 2000));
        assert_eq!(swarm.start, None);
        for (text, start) in [("random", SwarmStart::Random), ("12.5", SwarmStart::Time(12.5))] {
            let Command::Swarm(swarm) = parse(&format!("wmrelay swarm mms://h/n --viewers 1 --start {text}")) else { panic!() };
            assert_eq!(swarm.start, Some(start));
        }
        assert_eq!((swarm.seconds, swarm.pid, swarm.unread && swarm.gro && swarm.json), (0, Some(1), true));
        for line in [
            "wmrelay swarm mms://h/n",
            "wmrelay swarm mms://h/n --viewers 0",
            "wmrelay swarm mms://h/n --viewers 1 --start anywhere",
            "wmrelay swarm mms://h/n --viewers 1 --start -1",
            "wmrelay swarm mms://h/n --viewers 1 --ramp 0/s",
            "wmrelay swarm mms://h/n --viewers 1 --seconds 18446744073709551615",
        ] {
            assert!(Args::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
