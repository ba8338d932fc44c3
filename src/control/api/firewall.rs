//! What a firewall has to let through, from the settings in force.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::Deserialize;
use serde::de::IntoDeserializer as _;
use serde::de::value::{Error as WordError, StrDeserializer};
use utoipa::ToSchema;

use super::answer::{Failure, FailureBody};
use super::caller::Anybody;
use crate::control::plane::Plane;
use crate::firewall::{Form, Media, NO_ROOM, Options, Plan, PlanError, RTSP_PORTS, Side};
use crate::settings::network;
use crate::text::percent_decode;

/// More viewers than the pool has ports are refused by the planner; this only bounds the number.
pub(crate) const VIEWERS_MAX: usize = 65_535;
/// UDP ports of one viewer over RTSP.
pub(crate) const RTSP_PORTS_MAX: usize = 4;
/// Addresses of the server that one plan may name.
pub(crate) const SERVERS_MAX: usize = 32;

/// For whom the plan is written.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FormName {
    /// For people.
    Text,
    Nftables,
    Iptables,
    Ufw,
    Firewalld,
    Windows,
    CiscoAsa,
    AwsSg,
    /// For programs.
    Json,
}

/// Where the firewall stands.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum SideName {
    Server,
    Viewer,
}

/// What viewers watch by.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum MediaName {
    All,
    Mms,
    Rtsp,
    Http,
}

/// What a firewall has to let through for so many viewers behind one address, from the settings in force and the ports that are bound.
#[utoipa::path(
    get, path = "/v1/firewall", tag = "viewing", security(("token" = [])),
    params(
        ("viewers" = u16, Query, minimum = 1, maximum = 65535, description = "Viewers at once behind one address, from 1 on"),
        ("for" = inline(Option<FormName>), Query, description = "For people (`text`), or in the words of a firewall"),
        ("side" = inline(Option<SideName>), Query, description = "Where the firewall stands; at the server"),
        ("protocol" = inline(Option<MediaName>), Query, description = "What viewers watch by; all"),
        ("client_net" = Option<String>, Query, description = "The network that viewers come from, `192.0.2.0/24`; any"),
        ("server" = Option<String>, Query, description = "The server's addresses as viewers see them, with commas; those of its listeners"),
        ("tcp_only" = Option<bool>, Query, description = "Media over TCP alone"),
        ("rtsp_ports" = Option<u8>, Query, minimum = 1, maximum = 4, description = "UDP ports of one viewer over RTSP, 1 to 4; 3"),
    ),
    responses(
        (status = 200, description = "The plan; an object with `for=json`", content(
            (String = "text/plain"),
            (serde_json::Value = "application/json"),
        )),
        (status = 400, description = "No such question, or there is no such plan", body = FailureBody),
        (status = 401, description = "Not signed in", body = FailureBody),
    )
)]
pub(super) async fn firewall(
    State(plane): State<Arc<Plane>>,
    _: Anybody,
    RawQuery(query): RawQuery,
) -> Result<impl IntoResponse, Failure> {
    let refused = |error: &'static str| move |why: String| Failure::new(StatusCode::BAD_REQUEST, error, why);
    let (options, form) = asked(query.as_deref().unwrap_or_default()).map_err(refused("bad_query"))?;
    let plan = Plan::of(&plane.running_settings(), &options).map_err(|error| {
        let word = if matches!(error, PlanError::Pool { .. }) { NO_ROOM } else { "no_plan" };
        refused(word)(error.to_string())
    })?;
    Ok(([(header::CONTENT_TYPE, content_type(form))], form.print(&plan)))
}

const fn content_type(form: Form) -> &'static str {
    if matches!(form, Form::Json) { "application/json" } else { "text/plain; charset=utf-8" }
}

/// What a query asks for.
///
/// # Errors
/// A sentence that names the wrong part.
fn asked(query: &str) -> Result<(Options, Form), String> {
    let mut options = Options {
        viewers: 0,
        side: Side::Server,
        media: Media::All,
        client_net: None,
        servers: Vec::new(),
        tcp_only: false,
        rtsp_ports: RTSP_PORTS,
    };
    let mut form = Form::Text;
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let value = percent_decode(value).map_err(|_| format!("{key} is not written as in a URL"))?;
        match key {
            "viewers" => options.viewers = number(key, &value, VIEWERS_MAX)?,
            "rtsp_ports" => options.rtsp_ports = number(key, &value, RTSP_PORTS_MAX)?,
            "for" => {
                form = match word(key, &value)? {
                    FormName::Text => Form::Text,
                    FormName::Nftables => Form::Nftables,
                    FormName::Iptables => Form::Iptables,
                    FormName::Ufw => Form::Ufw,
                    FormName::Firewalld => Form::Firewalld,
                    FormName::Windows => Form::Windows,
                    FormName::CiscoAsa => Form::CiscoAsa,
                    FormName::AwsSg => Form::AwsSecurityGroup,
                    FormName::Json => Form::Json,
                }
            }
            "side" => {
                options.side = match word(key, &value)? {
                    SideName::Server => Side::Server,
                    SideName::Viewer => Side::Viewer,
                }
            }
            "protocol" => {
                options.media = match word(key, &value)? {
                    MediaName::All => Media::All,
                    MediaName::Mms => Media::Mms,
                    MediaName::Rtsp => Media::Rtsp,
                    MediaName::Http => Media::Http,
                }
            }
            "client_net" => options.client_net = Some(network(&value).map_err(|why| format!("client_net: {why}"))?),
            "server" => {
                let addresses = value.split(',').take(SERVERS_MAX + 1).map(|address| address.trim().parse());
                options.servers = addresses.collect::<Result<_, _>>().map_err(|_| format!("server: {value:?} is no address"))?;
                if options.servers.len() > SERVERS_MAX {
                    return Err(format!("server: more than {SERVERS_MAX} addresses"));
                }
            }
            "tcp_only" => options.tcp_only = value.parse().map_err(|_| format!("tcp_only: {value:?} is not true or false"))?,
            _ => return Err(format!("{key:?} is not asked here")),
        }
    }
    if options.viewers == 0 {
        return Err("viewers is missing: how many at once, behind one address?".into());
    }
    Ok((options, form))
}

fn number(key: &str, value: &str, most: usize) -> Result<usize, String> {
    let number = value.parse().ok().filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| format!("{key}: {value:?} is not between 1 and {most}"))
}

fn word<'a, T: Deserialize<'a>>(key: &str, value: &'a str) -> Result<T, String> {
    let deserializer: StrDeserializer<'a, WordError> = value.into_deserializer();
    // The error is that no such word is known, and which ones are.
    T::deserialize(deserializer).map_err(|error| {
        let error = error.to_string();
        let words = error.split_once("expected ").map_or("", |(_, words)| words).trim_start_matches("one of ");
        format!("{key}: {value:?} is not known here; it takes {}", words.replace('`', ""))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_programs_is_json() {
        assert_eq!(content_type(Form::Json), "application/json");
        assert_eq!(content_type(Form::Text), "text/plain; charset=utf-8");
    }

    #[test]
    fn queries() {
        let (options, form) = asked("viewers=10").unwrap();
        assert_eq!((options.viewers, options.side, options.rtsp_ports, form), (10, Side::Server, 3, Form::Text));
        let all = "viewers=3&for=cisco-asa&side=viewer&protocol=mms&client_net=192.0.2.0%2F24&server=198.51.100.1,2001:db8::1&tcp_only=true&rtsp_ports=4";
        let (options, form) = asked(all).unwrap();
        assert_eq!((options.viewers, options.side, options.media, form), (3, Side::Viewer, Media::Mms, Form::CiscoAsa));
        assert_eq!(options.client_net.map(|net| net.to_string()).as_deref(), Some("192.0.2.0/24"));
        assert!(options.servers.len() == 2 && options.tcp_only && options.rtsp_ports == 4);
        for (query, told) in [
            ("", "viewers is missing"),
            ("viewers=0", "viewers: \"0\" is not between 1 and 65535"),
            ("viewers=ten", "viewers"),
            ("viewers=1&for=pf", "for: \"pf\" is not known here; it takes text, nftables, "),
            ("viewers=1&server=media.example", "server"),
            ("viewers=1&client_net=home", "client_net"),
            ("viewers=1&tcp_only=perhaps", "tcp_only"),
            ("viewers=1&rtsp_ports=5", "rtsp_ports"),
            ("viewers=%zz", "viewers is not written"),
            ("viewers=1&colour=red", "\"colour\" is not asked here"),
        ] {
            let why = asked(query).unwrap_err();
            assert!(why.starts_with(told), "{query}: {why}");
        }
    }
}
