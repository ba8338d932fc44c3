//! Which client ports are taken, as a map of each client's.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::Uri;
use axum::response::Response;
use maud::{Markup, html};

use super::query;
use crate::console::Console;
use crate::console::guard::Visitor;
use crate::console::layout::{id_of, page};
use crate::console::paging::Paging;
use crate::console::words;
use crate::control::calls::{LeaseAnswer, leases};
use crate::settings::PortRanges;

/// Ports of a row of the map.
const ROW: u16 = 10;
/// Rows of one client; who has more is told how many.
const ROWS_MAX: usize = 60;

/// `GET /leases`
pub(in crate::console) async fn ports(
    State(console): State<Arc<Console>>,
    Extension(visitor): Extension<Visitor>,
    uri: Uri,
) -> Response {
    let leases = leases(&console.plane, &console.plane.recent_sessions().await);
    let pool = &console.plane.settings.udp.client_ports;
    let mut clients: BTreeMap<String, Vec<&LeaseAnswer>> = BTreeMap::new();
    for lease in &leases {
        clients.entry(sortable(&lease.address)).or_default().push(lease);
    }
    let clients: Vec<_> = clients.into_values().collect();
    let paging = Paging::new(clients.len(), query(&uri).get("page"));
    let body = html! {
        p.lead {
            "Of each client address, which UDP ports of " code { "[udp] client_ports = \"" (pool.to_string()) "\"" } " are taken. A port that was "
            "given back rests some seconds before others get it."
        }
        ul.legend {
            li { span.port.leased { "1" } " leased" } li { span.port.held { "2" } " held" }
            li { span.port.resting { "3" } " at rest" } li { span.port { "4" } " free" }
        }
        div data-live id="clients" {
            @if clients.is_empty() { p.empty { "No client port is taken." } }
            @for client in paging.of(&clients) { (map(client, pool)) }
        }
        (paging.links("/leases"))
    };
    page(&visitor, "/leases", "Ports", &body)
}

/// One client.
fn map(leases: &[&LeaseAnswer], pool: &PortRanges) -> Markup {
    let address = leases.first().map_or("", |lease| lease.address.as_str());
    let taken: BTreeMap<u16, &LeaseAnswer> = leases.iter().map(|lease| (lease.port, *lease)).collect();
    let id = id_of("client", address);
    let mut rows: Vec<u16> = taken.keys().map(|port| row_of(*port)).collect();
    rows.dedup();
    html! {
        section.client id=(id) {
            h2 { (address) " " span.small { (words::count(taken.len() as u64, "port", "ports")) } }
            ol.ports {
                @for first in rows.iter().take(ROWS_MAX) {
                    @for port in (*first..=first.saturating_add(ROW - 1)).filter(|port| pool.contains(*port) || taken.contains_key(port)) {
                        (cell(&id, port, taken.get(&port).copied()))
                    }
                }
            }
            @if rows.len() > ROWS_MAX { p.small { "And more, which " code { "wmrelay leases" } " lists." } }
        }
    }
}

fn cell(client: &str, port: u16, lease: Option<&LeaseAnswer>) -> Markup {
    let Some(lease) = lease else { return html! { li.port id={ (client) "-" (port) } { (port) } } };
    // What the API calls it.
    let state = serde_json::to_value(&lease.state).ok().and_then(|state| Some(state.as_str()?.to_owned())).unwrap_or_default();
    let told = format!("{port}: {state} for {} s, {} packets, {} sent again", lease.age_s, lease.packets, lease.resends);
    html! {
        li class={ "port " (state) } id={ (client) "-" (port) } title=(told) {
            @match lease.session {
                Some(session) => a id={ (client) "-to-" (port) } href={ "/viewers/" (session) } { (port) span.aside { " " (state) " to session " (session) } },
                None => { (port) span.aside { " " (state) } },
            }
        }
    }
}

/// The first port of the row that a port is in.
const fn row_of(port: u16) -> u16 {
    port - port % ROW
}

/// Addresses in the order of their numbers, IPv4 first.
fn sortable(address: &str) -> String {
    match address.parse() {
        Ok(IpAddr::V4(ip)) => format!("4{:08x}", ip.to_bits()),
        Ok(IpAddr::V6(ip)) => format!("6{:032x}", ip.to_bits()),
        Err(_) => address.to_owned(),
    }
}
