//! `wmrelay probe`: what of the way to a server is open, tried at the viewer's side.

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};

use super::out::out;
use super::passwd::{ask_hidden, ask_shown, line_of};
use crate::args::{FirewallProtocol, ProbeArgs};
use crate::client::probe::{Control, ControlPort, Sealed, by_custom, by_plan, connect};
use crate::client::tls::{fingerprint_of, fingerprint_text};
use crate::probe::verdict::{Outcome, Report, Way, judge};
use crate::probe::{TcpSeen, Untried, Wanted, table};

/// Where the password may be, since others can read a command line.
const PASSWORD: &str = "WMRELAY_PASSWORD";

const EXIT_UNKNOWN: u8 = 1;
const EXIT_BLOCKED: u8 = 3;

/// Tries the way, prints what it did, and tells the server.
///
/// # Errors
/// The host has no address, its certificate is not believed, nobody is signed in, the server refuses the probe.
pub(super) fn probe(args: &ProbeArgs) -> anyhow::Result<ExitCode> {
    let wanted = args.fingerprint.as_deref().map(fingerprint_of).transpose();
    let wanted = wanted.map_err(|why| anyhow!("--fingerprint: {why}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let host = host_of(&args.host)?;
    let wish = wanted_of(args.protocol);
    let (report, problem) = runtime.block_on(async {
        let (address, other) = address_of(&host, args).await?;
        let untried = other.map(|other| other_version(&host, address.ip(), other));
        let reached = reach(&host, address, args.plain).await;
        let (mut port, sealed) = match reached {
            Ok(reached) => reached,
            Err(seen) => {
                let local = address.ip();
                let port = ControlPort { host: host.clone(), address, local, certificate: None };
                let mut seen = by_custom(&port, seen, args.viewers, wish).await;
                seen.notes.extend(alone(wish));
                seen.untried.extend(untried);
                return anyhow::Ok((judge(&seen), None));
            }
        };
        if let Some(sealed) = sealed {
            let shown = sealed.fingerprint().context("the control port shows no certificate")?;
            if !args.insecure && wanted != Some(shown) {
                believe(&host, &fingerprint_text(&shown), wanted.is_some(), sealed.is_vouched_for(&host))?;
            }
            port.certificate = Some(shown);
        }
        let (user, password) = login(args)?;
        let control = Control::sign_in(port, &user, &password).await?;
        let plan = control.begin(args.viewers, wish).await?;
        let mut seen = by_plan(&control, &plan, args.viewers).await?;
        seen.notes.extend(alone(wish));
        seen.untried.extend(untried);
        let report = judge(&seen);
        let told = control.end(plan.id, &report).await;
        Ok((report, told.err()))
    })?;
    print(&report, args.json)?;
    if let Some(problem) = problem {
        writeln!(io::stderr(), "wmrelay: the server was not told what was found: {problem}")?;
    }
    Ok(match report.outcome {
        Outcome::Open => ExitCode::SUCCESS,
        Outcome::Unknown => ExitCode::from(EXIT_UNKNOWN),
        Outcome::Blocked => ExitCode::from(EXIT_BLOCKED),
    })
}

/// The name or address that was typed, without brackets.
fn host_of(typed: &str) -> anyhow::Result<String> {
    let unbracketed = |host: &str| host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let host = unbracketed(typed);
    let address = host.split_once('%').map_or(host.as_str(), |(address, _)| address);
    if address.parse::<Ipv6Addr>().is_ok() {
        return Ok(host);
    }
    let (is_url, place) = match typed.split_once("://") {
        Some((_, rest)) => (true, rest),
        None => (typed.contains('/'), typed),
    };
    let place = place.split(['/', '?']).next().unwrap_or_default();
    let (name, port) = match place.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => (unbracketed(name), Some(port)),
        _ => (unbracketed(place), None),
    };
    match port {
        _ if is_url => bail!("{typed} is more than HOST, which is the server's name or address alone: wmrelay probe {name}"),
        Some(port) => bail!("{typed}: HOST has no port; the control port is named apart: wmrelay probe {name} --control {port}"),
        None => Ok(host),
    }
}

fn wanted_of(protocol: FirewallProtocol) -> Wanted {
    match protocol {
        FirewallProtocol::All => Wanted::All,
        FirewallProtocol::Mms => Wanted::Mms,
        FirewallProtocol::Rtsp => Wanted::Rtsp,
        FirewallProtocol::Http => Wanted::Http,
    }
}

/// That other protocols were not tried.
fn alone(wanted: Wanted) -> Option<String> {
    wanted.name().map(|name| format!("Tried for viewers by {name} alone: of what other protocols need nothing is said."))
}

fn print(report: &Report, as_json: bool) -> anyhow::Result<()> {
    let mut out = out();
    if as_json {
        writeln!(out, "{}", serde_json::to_string(report)?)?;
    } else {
        // Part of it is the server's: nothing in it moves the cursor.
        let text: String = table::table(report).chars().filter(|sign| *sign == '\n' || !sign.is_control()).collect();
        out.write_all(text.as_bytes())?;
    }
    Ok(())
}

/// The first address at which something can be said, else the first at all; and one of the other IP version that players may choose
/// instead, unless one version was asked for.
async fn address_of(host: &str, args: &ProbeArgs) -> anyhow::Result<(SocketAddr, Option<IpAddr>)> {
    let found = tokio::net::lookup_host((host, args.control)).await.with_context(|| format!("{host} has no address"))?;
    let is_wanted = |address: &SocketAddr| if address.ip().to_canonical().is_ipv4() { !args.ipv6 } else { !args.ipv4 };
    let addresses: Vec<_> = found.filter(is_wanted).collect();
    let version = if args.ipv4 { "IPv4 " } else { "IPv6 " };
    let version = if args.ipv4 || args.ipv6 { version } else { "" };
    let Some(mut chosen) = addresses.first().copied() else { bail!("{host} has no {version}address") };
    if addresses.len() > 1 {
        for address in &addresses {
            if connect(*address).await.is_ok() {
                chosen = *address;
                break;
            }
        }
    }
    let other = addresses.iter().find(|other| other.is_ipv4() != chosen.is_ipv4());
    Ok((chosen, other.map(SocketAddr::ip)))
}

/// What was not tried of a server that has addresses of both IP versions.
fn other_version(host: &str, tried: IpAddr, other: IpAddr) -> Untried {
    let [(tried_by, _), (other_by, option)] =
        [tried, other].map(|address| if address.is_ipv4() { ("IPv4", "-4") } else { ("IPv6", "-6") });
    Untried {
        way: Way::TcpOut,
        ports: "all".into(),
        what: format!("the server by {other_by}"),
        why: format!(
            "{host} is {tried} and {other}, and all of this is of {tried_by}; {option} tries the other, which players may choose"
        ),
    }
}

/// A connection to the control port, inside TLS unless `plain`.
async fn reach(host: &str, address: SocketAddr, plain: bool) -> Result<(ControlPort, Option<Sealed>), TcpSeen> {
    let stream = connect(address).await?;
    let local = stream.local_addr().map_err(|error| TcpSeen::Kept(error.to_string()))?.ip().to_canonical();
    let port = ControlPort { host: host.to_owned(), address, local, certificate: None };
    let sealed = if plain { None } else { Some(Sealed::of(stream, host).await?) };
    Ok((port, sealed))
}

/// Decides whether a certificate is believed.
fn believe(host: &str, shown: &str, was_wanted: bool, is_vouched_for: bool) -> anyhow::Result<()> {
    if was_wanted {
        bail!(
            "the control port of {host} shows another certificate than --fingerprint names: {shown}. Either the server has a new one, or \
             somebody is in between; nothing was sent"
        );
    }
    if is_vouched_for {
        return Ok(());
    }
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        bail!(
            "no authority vouches for the certificate of {host}, as for one that the server made itself. Its SHA-256 is {shown}: if that is \
             what the server logged when it started, say --fingerprint {shown}. Nothing was sent"
        );
    }
    let answer = ask_shown(&format!(
        "No authority vouches for the certificate of {host}, as for one that the server made itself. Its SHA-256 is\n  {shown}\n\
         Is that what the server logged when it started? Write yes to go on: "
    ))?;
    if answer.trim() != "yes" {
        bail!("the certificate is not believed; nothing was sent");
    }
    Ok(())
}

/// Name and password.
fn login(args: &ProbeArgs) -> anyhow::Result<(String, String)> {
    let can_ask = io::stdin().is_terminal();
    let user = match &args.user {
        Some(user) => user.clone(),
        None if can_ask => ask_shown("User: ")?.trim().to_owned(),
        None => bail!("who signs in? Say --user NAME"),
    };
    let password = match (&args.password_file, std::env::var(PASSWORD)) {
        (Some(file), _) => {
            let file = fs::File::open(file).with_context(|| format!("{} cannot be read", file.display()))?;
            line_of(io::BufReader::new(file))?
        }
        (None, Ok(password)) => password,
        (None, Err(_)) if can_ask => ask_hidden(&format!("Password of {user}: "))?,
        (None, Err(_)) => bail!("what is the password of {user}? Put it into {PASSWORD}, or into a file: --password-file FILE"),
    };
    Ok((user, password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_version_is_told() {
        let [v4, v6]: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let told = other_version("h", v4, v6);
        assert_eq!(told.what, "the server by IPv6");
        assert!(told.why.contains("all of this is of IPv4; -6 tries"), "{}", told.why);
        assert!(other_version("h", v6, v4).why.contains("of IPv6; -4 tries"));
    }

    #[test]
    fn hosts_are_names_or_addresses_alone() {
        for (typed, host) in [
            ("media.example", "media.example"),
            ("192.0.2.1", "192.0.2.1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("fe80::1%eth0", "fe80::1%eth0"),
        ] {
            assert_eq!(host_of(typed).unwrap(), host);
        }
        for (typed, say) in [
            ("mms://media.example/demo", "wmrelay probe media.example"),
            ("media.example/demo", "wmrelay probe media.example"),
            ("https://[2001:db8::1]:8443/", "wmrelay probe 2001:db8::1"),
            ("media.example:21898", "wmrelay probe media.example --control 21898"),
            ("[2001:db8::1]:21898", "wmrelay probe 2001:db8::1 --control 21898"),
        ] {
            let why = host_of(typed).unwrap_err().to_string();
            assert!(why.ends_with(say), "{why}");
        }
    }

    #[test]
    fn a_certificate_is_believed_for_a_reason() {
        assert!(believe("h", "AB", false, true).is_ok());
        let other = believe("h", "AB", true, true).unwrap_err().to_string();
        assert!(other.contains("another certificate") && other.contains("AB"), "{other}");
    }
}
