//! What a firewall has to let through, by the settings in force: a form, and a sheet that can be printed for a site.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use maud::{Markup, html};

use super::streams::host;
use super::{date, query};
use crate::console::Console;
use crate::console::form::Form;
use crate::console::guard::Visitor;
use crate::console::layout::page;
use crate::console::words;
use crate::control::calls::{RTSP_PORTS_MAX, SERVERS_MAX, VIEWERS_MAX};
use crate::firewall::{Form as Paper, Media, Options, Plan, RTSP_PORTS, Side};
use crate::settings::network;

/// Viewers behind one address, where nothing is said.
const VIEWERS: usize = 10;
/// Characters of what a site is called.
const SITE_MAX: usize = 80;

const PAPERS: [(&str, &str, Paper); 8] = [
    ("text", "Words, for a person", Paper::Text),
    ("nftables", "nftables", Paper::Nftables),
    ("iptables", "iptables", Paper::Iptables),
    ("ufw", "ufw", Paper::Ufw),
    ("firewalld", "firewalld", Paper::Firewalld),
    ("windows", "Windows", Paper::Windows),
    ("cisco-asa", "Cisco ASA", Paper::CiscoAsa),
    ("aws-sg", "AWS security group", Paper::AwsSecurityGroup),
];
const SIDES: [(&str, &str, Side); 2] =
    [("viewer", "The viewers' side", Side::Viewer), ("server", "The server's side", Side::Server)];
const MEDIA: [(&str, &str, Media); 4] = [
    ("all", "All that is served", Media::All),
    ("mms", "MMS", Media::Mms),
    ("rtsp", "RTSP", Media::Rtsp),
    ("http", "HTTP", Media::Http),
];

/// `GET /firewall`; the plan is in its address, so that it can be kept for each site.
pub(in crate::console) async fn firewall(
    State(console): State<Arc<Console>>,
    Extension(visitor): Extension<Visitor>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    let query = query(&uri);
    let site: String = query.get("site").chars().take(SITE_MAX).collect();
    let plan = (!query.is_empty()).then(|| planned(&console, &query));
    let body = html! {
        p.lead.screen { "The exact list for whoever keeps a firewall, from the settings in force. Nothing is changed by it." }
        (form(&query, &site))
        @match plan {
            None => {},
            Some(Err(why)) => p.refused role="alert" { (why) },
            Some(Ok(text)) => section.sheet {
                h2 { @if site.is_empty() { "The plan" } @else { (site) } }
                p.small { (of_whom(&host(&headers), query.get("server"))) ", " (words::date(date())) ", wmrelay " (env!("CARGO_PKG_VERSION")) }
                p.screen { button type="button" data-print hidden { "Print" } }
                // Each line by itself, so that on paper what is too long goes on further in, and is no line of its own.
                pre tabindex="0" aria-label="The plan" { @for line in text.split_inclusive('\n') { span { (line) } } }
            },
        }
    };
    page(&visitor, "/firewall", "Firewall", &body)
}

/// For which server it is, by the name that the browser knows it by, and by its addresses if they were filled in.
fn of_whom(host: &str, addresses: &str) -> String {
    let addresses = addresses.split([',', ' ']).filter(|text| !text.is_empty()).collect::<Vec<_>>().join(", ");
    if addresses.is_empty() { format!("For the server {host}") } else { format!("For the server {host} ({addresses})") }
}

fn form(query: &Form, site: &str) -> Markup {
    // A field for a number shows no words.
    let or = |name: &str, otherwise: usize| query.get(name).parse().unwrap_or(otherwise);
    html! {
        form.fields.screen method="get" action="/firewall" {
            label { "Site" input name="site" maxlength=(SITE_MAX) value=(site) placeholder="Head office"; }
            label {
                "Viewers at once behind one address"
                input name="viewers" type="number" min="1" max=(VIEWERS_MAX) required value=(or("viewers", VIEWERS));
            }
            label { "Firewall of" (select("side", query, SIDES.map(|(word, name, _)| (word, name)))) }
            label { "Written for" (select("for", query, PAPERS.map(|(word, name, _)| (word, name)))) }
            label { "They watch by" (select("protocol", query, MEDIA.map(|(word, name, _)| (word, name)))) }
            label { "Network of the viewers" input name="client_net" value=(query.get("client_net")) placeholder="198.51.100.0/24"; }
            label { "Addresses of the server" input name="server" value=(query.get("server")) placeholder="as it listens"; }
            label {
                "UDP ports of a viewer over RTSP"
                input name="rtsp_ports" type="number" min="1" max=(RTSP_PORTS_MAX) value=(or("rtsp_ports", RTSP_PORTS));
            }
            label.tick { input name="tcp_only" type="checkbox" value="1" checked[!query.get("tcp_only").is_empty()]; " Media over TCP alone" }
            button type="submit" { "Plan" }
        }
    }
}

fn select<const N: usize>(name: &str, query: &Form, options: [(&str, &str); N]) -> Markup {
    html! {
        select name=(name) {
            @for (word, shown) in options { option value=(word) selected[query.get(name) == word] { (shown) } }
        }
    }
}

fn planned(console: &Console, query: &Form) -> Result<String, String> {
    let options = options(query)?;
    let paper = choice("for", query, &PAPERS)?;
    let plan = Plan::of(&console.plane.running_settings(), &options).map_err(|error| error.to_string())?;
    Ok(paper.print(&plan))
}

fn options(query: &Form) -> Result<Options, String> {
    let number = |name: &str, what: &str, otherwise: usize, most: usize| match query.get(name) {
        "" => Ok(otherwise),
        text => {
            let number = text.parse().ok().filter(|number| (1..=most).contains(number));
            number.ok_or_else(|| format!("{what} has to be a number from 1 to {most}."))
        }
    };
    let client_net = match query.get("client_net") {
        "" => None,
        text => Some(network(text).map_err(|why| format!("{why}."))?),
    };
    let servers = query.get("server").split([',', ' ']).filter(|text| !text.is_empty()).take(SERVERS_MAX + 1);
    let servers = servers.map(|text| text.parse().map_err(|_| format!("{text:?} is no address of a server, such as 192.0.2.1.")));
    let servers = servers.collect::<Result<Vec<_>, _>>()?;
    if servers.len() > SERVERS_MAX {
        return Err(format!("A plan is for {SERVERS_MAX} addresses of the server at most; these are more."));
    }
    Ok(Options {
        viewers: number("viewers", "The number of viewers", VIEWERS, VIEWERS_MAX)?,
        side: choice("side", query, &SIDES)?,
        media: choice("protocol", query, &MEDIA)?,
        client_net,
        servers,
        tcp_only: !query.get("tcp_only").is_empty(),
        rtsp_ports: number("rtsp_ports", "The number of UDP ports", RTSP_PORTS, RTSP_PORTS_MAX)?,
    })
}

/// What a word stands for; the first where none is said.
fn choice<T: Copy>(name: &str, query: &Form, options: &[(&str, &str, T)]) -> Result<T, String> {
    let said = query.get(name);
    let found = options.iter().find(|(word, ..)| *word == said || said.is_empty());
    found.map(|(.., value)| *value).ok_or_else(|| format!("{said:?} is none of the choices."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_says_for_which_server_it_is() {
        assert_eq!(of_whom("media.example", " "), "For the server media.example");
        assert_eq!(of_whom("media.example", "192.0.2.1,  2001:db8::1"), "For the server media.example (192.0.2.1, 2001:db8::1)");
    }

    #[test]
    fn what_is_filled_in_is_planned_for() {
        let options_of = |query: &str| options(&Form::parse(query));
        let options =
            options_of("viewers=12&side=server&protocol=mms&client_net=198.51.100.0%2F24&server=192.0.2.1,+192.0.2.2&tcp_only=1")
                .unwrap();
        assert_eq!((options.viewers, options.side, options.media, options.tcp_only), (12, Side::Server, Media::Mms, true));
        assert_eq!((options.servers.len(), options.client_net.unwrap().to_string().as_str()), (2, "198.51.100.0/24"));
        assert_eq!(options_of("client_net=192.0.2.9").unwrap().client_net.unwrap().to_string(), "192.0.2.9/32");
        let servers = |count: usize| options_of(&format!("server={}", vec!["192.0.2.1"; count].join(",")));
        assert_eq!(servers(SERVERS_MAX).unwrap().servers.len(), 32);
        assert!(servers(SERVERS_MAX + 1).unwrap_err().contains("32 addresses of the server at most"));
        assert_eq!(options_of("a=b").unwrap().viewers, 10);
        for wrong in
            ["viewers=0", "viewers=x", "viewers=99999", "side=top", "protocol=ftp", "client_net=x", "server=x", "rtsp_ports=99"]
        {
            let error = options_of(wrong).unwrap_err();
            assert!(error.ends_with('.'), "{error}");
        }
    }
}
