use std::net::SocketAddr;
use std::path::PathBuf;

use super::*;
use crate::settings::{Listen, OutsidePool, Oversize, PublishingPoint, Settings, Source};

const FORMS: [Form; 8] = [
    Form::Text,
    Form::Nftables,
    Form::Iptables,
    Form::Ufw,
    Form::Firewalld,
    Form::Windows,
    Form::CiscoAsa,
    Form::AwsSecurityGroup,
];

fn options(viewers: usize, side: Side) -> Options {
    Options { viewers, side, media: Media::All, client_net: None, servers: Vec::new(), tcp_only: false, rtsp_ports: RTSP_PORTS }
}

fn listen(addresses: &[&str]) -> Listen {
    let addresses: Vec<SocketAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Listen { addresses, built_in: false }
}

/// The built-in ones, and somebody who may sign in.
fn with_users() -> Settings {
    let mut settings = Settings::default();
    settings.control.users_file = Some(PathBuf::from("users"));
    settings
}

/// Nothing as it is built in.
fn odd() -> Settings {
    let mut settings = with_users();
    settings.control.listen = listen(&["198.51.100.7:3899", "127.0.0.1:3898"]);
    settings.console = listen(&["198.51.100.7:443", "[2001:db8::7]:443"]);
    settings.mms = listen(&["198.51.100.7:1755", "198.51.100.8:1755", "[2001:db8::7]:1756"]);
    settings.http = listen(&["0.0.0.0:80", "127.0.0.1:8080"]);
    settings.rtsp = listen(&["198.51.100.7:554", "[2001:db8::7]:554"]);
    settings.rtsp_server_port = 6970;
    settings.rtsp_tls.listen = listen(&["198.51.100.7:322"]);
    settings.udp.client_ports = "1024-1026,7000-7007".parse().unwrap();
    settings.limits.viewers_per_address = 2;
    settings.publishing_points = vec![PublishingPoint::new("cam1", Source::Push)];
    settings
}

/// All forms of a plan, one behind the other.
#[track_caller]
fn all(settings: &Settings, options: &Options) -> String {
    let plan = Plan::of(settings, options).unwrap();
    FORMS.map(|form| format!("======== {form:?}\n{}", form.print(&plan))).concat()
}

#[track_caller]
fn print(form: Form, settings: &Settings, options: &Options) -> String {
    form.print(&Plan::of(settings, options).unwrap())
}

#[test]
fn built_in_settings() {
    insta::assert_snapshot!("built_in_server", all(&with_users(), &options(10, Side::Server)));
    insta::assert_snapshot!("built_in_viewer", all(&with_users(), &options(10, Side::Viewer)));
}

#[test]
fn odd_settings() {
    insta::assert_snapshot!("odd_server", all(&odd(), &options(3, Side::Server)));
    insta::assert_snapshot!("odd_viewer", all(&odd(), &options(3, Side::Viewer)));
}

#[test]
fn ends_that_were_said() {
    let v4 = Options {
        client_net: Some("192.0.2.0/24".parse().unwrap()),
        servers: vec!["203.0.113.1".parse().unwrap()],
        ..options(10, Side::Viewer)
    };
    insta::assert_snapshot!("ends_v4_viewer", all(&with_users(), &v4));
    let v6 = Options { client_net: Some("2001:db8:1::/48".parse().unwrap()), servers: Vec::new(), ..options(1, Side::Server) };
    insta::assert_snapshot!("ends_v6_server", all(&with_users(), &v6));
}

#[test]
fn tcp_alone() {
    let tcp_only = Options { tcp_only: true, ..options(10, Side::Viewer) };
    insta::assert_snapshot!("tcp_only_viewer", all(&with_users(), &tcp_only));
    let mut settings = with_users();
    settings.udp.enabled = false;
    let disabled = Plan::of(&settings, &options(10, Side::Viewer)).unwrap();
    let asked = Plan::of(&with_users(), &tcp_only).unwrap();
    assert_eq!(disabled.flows, asked.flows);
    assert_ne!(disabled.notes, asked.notes);
    assert!(disabled.flows.iter().all(|flow| flow.transport == Transport::Tcp));
    // A pool that is too small matters to nobody then.
    settings.udp.client_ports = "1024".parse().unwrap();
    assert!(Plan::of(&settings, &options(10, Side::Viewer)).is_ok());
}

/// Name, server port and client ports of what is needed.
#[track_caller]
fn flows(settings: &Settings, options: &Options) -> Vec<String> {
    let plan = Plan::of(settings, options).unwrap();
    let told = plan.flows.iter().filter(|flow| flow.needed).map(|flow| {
        let port = flow.server_port.map_or_else(|| "any".into(), |port| port.to_string());
        let ports = flow.client_ports.as_ref().map_or_else(String::new, |ports| format!(" {ports}"));
        format!("{} {port}{ports}", flow.name)
    });
    told.collect()
}

#[test]
fn one_protocol_has_its_own_flows_alone() {
    let of = |media| flows(&with_users(), &Options { media, ..options(10, Side::Server) });
    let control = ["control 3898", "console 8443"];
    assert_eq!(of(Media::Mms), [&control[..], &["MMS 1755", "MMS media 1755 1024-1033", "MMS resends 1755"]].concat());
    assert_eq!(of(Media::Rtsp), [&control[..], &["RTSP 8554", "RTSP media 5004 1024-1053", "RTSP resends 5005"]].concat());
    assert_eq!(of(Media::Http), [&control[..], &["HTTP 8080"]].concat());
    let four = Options { media: Media::Rtsp, rtsp_ports: 4, ..options(10, Side::Server) };
    assert!(flows(&with_users(), &four).contains(&"RTSP media 5004 1024-1063".to_owned()));
}

#[test]
fn what_is_off_has_no_flow() {
    let mut settings = with_users();
    settings.http = listen(&[]);
    settings.rtsp = listen(&[]);
    settings.console = listen(&[]);
    // The MMS port takes all of them, as its protocols say.
    let wanted = ["control 3898", "MMS, RTSP, HTTP 1755", "MMS media 1755 1024-1024", "MMS resends 1755"];
    assert_eq!(flows(&settings, &options(1, Side::Server)), wanted.map(|flow| flow.replace("1024-1024", "1024")));
    settings.mms_protocols.http = false;
    settings.mms_protocols.rtsp = false;
    let plan = Plan::of(&settings, &options(1, Side::Server)).unwrap();
    assert_eq!(plan.left_out, ["RTSP", "HTTP"].map(|name| format!("{name}: nothing that other machines reach serves it.")));
    let http = Options { media: Media::Http, ..options(1, Side::Server) };
    assert!(
        Plan::of(&settings, &http).unwrap_err().to_string().starts_with("no listener that other machines reach serves HTTP;")
    );
}

#[test]
fn without_users_the_control_port_is_left_out() {
    let plan = Plan::of(&Settings::default(), &options(1, Side::Server)).unwrap();
    assert!(plan.flows.iter().all(|flow| !["control", "console"].contains(&flow.name.as_str())));
    let [control, console] = plan.left_out.as_slice() else { panic!("{:?}", plan.left_out) };
    assert!(control.contains("TCP 3898: only this machine") && control.contains("users_file"), "{control}");
    assert!(console.contains("TCP 8443: only this machine"), "{console}");
    let mut settings = with_users();
    settings.mms = listen(&["127.0.0.1:1755"]);
    settings.http = listen(&["127.0.0.1:0", "192.0.2.1:0"]);
    let left_out = Plan::of(&settings, &options(1, Side::Server)).unwrap().left_out;
    assert_eq!(
        left_out,
        [
            "MMS, TCP 1755: only this machine reaches it.",
            "HTTP: the system chooses its port at each start, which no rule can name."
        ]
    );
}

#[test]
fn ports_that_no_rule_can_name() {
    let mut settings = with_users();
    settings.udp.oversize = Oversize::Fragment;
    settings.udp.outside_pool = OutsidePool::Allow;
    settings.udp.refuse_on_nat_mismatch = true;
    settings.rtsp_server_port = 0;
    insta::assert_snapshot!("unnamed_ports_server", print(Form::Nftables, &settings, &options(2, Side::Server)));
    insta::assert_snapshot!("unnamed_ports_viewer", print(Form::Nftables, &settings, &options(2, Side::Viewer)));
    for form in FORMS {
        print(form, &settings, &options(2, Side::Viewer));
    }
}

#[test]
fn what_cannot_be_planned_is_told() {
    let told = |settings: &Settings, options: &Options| Plan::of(settings, options).unwrap_err().to_string();
    let mut settings = with_users();
    assert!(
        told(&settings, &options(3978, Side::Server))
            .contains("\"1024-5000\" has room for 3977 of 3978 viewers over UDP by MMS, 1 port each; make")
    );
    let rtsp = Options { media: Media::Rtsp, ..options(2000, Side::Server) };
    let told_rtsp = told(&settings, &rtsp);
    assert!(told_rtsp.contains("has room for 1325 of 2000 viewers over UDP by RTSP, 3 ports each; make"), "{told_rtsp}");
    assert!(told_rtsp.ends_with("plan for fewer viewers, for MMS alone, or for media over TCP alone"), "{told_rtsp}");
    assert!(!told(&settings, &Options { viewers: 4000, ..rtsp.clone() }).contains("MMS"), "it has no room for these either");
    settings.udp.client_ports = "1000-1025".parse().unwrap();
    assert!(told(&settings, &rtsp).contains("3 ports each and none of those below 1024;"), "{}", told(&settings, &rtsp));
    let client_net = Some("192.0.2.0/24".parse().unwrap());
    let servers = vec!["2001:db8::1".parse().unwrap()];
    // These words go to those who ask by the API and at the console too.
    let apart = told(&settings, &Options { client_net, servers, ..options(1, Side::Server) });
    assert!(apart.contains("192.0.2.0/24 and the server's address 2001:db8::1 are of different IP versions"), "{apart}");
    for listener in [&mut settings.mms, &mut settings.http, &mut settings.rtsp] {
        *listener = Listen { addresses: vec!["[2001:db8::1]:1755".parse().unwrap()], built_in: false };
    }
    let none = told(&settings, &Options { client_net, ..options(1, Side::Server) });
    assert!(none.starts_with("no listener that other machines reach serves any media over IPv4;"), "{none}");
}

/// Ten viewers over MMS find ports in the pool that was made for them, whatever others would need there.
#[test]
fn a_pool_for_ten_over_mms_is_planned_for_and_it_is_told_how_many_fit_over_rtsp() {
    let mut settings = with_users();
    settings.udp.client_ports = "1024-1033,7000".parse().unwrap();
    let plan = Plan::of(&settings, &options(10, Side::Server)).unwrap();
    let ports = |ports: &Option<PortRanges>| ports.as_ref().map(ToString::to_string).unwrap_or_default();
    assert_eq!((ports(&plan.mms_ports).as_str(), ports(&plan.rtsp_ports).as_str()), ("1024-1033", "1024-1032"));
    assert_eq!(plan.rtsp_viewers, 3);
    let [note] = plan.notes.as_slice() else { panic!("{:?}", plan.notes) };
    assert!(
        note.contains("room for 3 of 10 viewers over UDP, 3 ports each; the others take TCP. MMS has room for all"),
        "{note}"
    );
    assert!(Form::Text.print(&plan).contains("so 1024-1032 for 3."), "{}", Form::Text.print(&plan));
    let json: serde_json::Value = serde_json::from_str(&Form::Json.print(&plan)).unwrap();
    assert_eq!(json["rtsp_viewers"], 3);

    // No three of them with a pair: none.
    settings.udp.client_ports = "1024,1026,1028".parse().unwrap();
    let plan = Plan::of(&settings, &options(2, Side::Server)).unwrap();
    assert_eq!((ports(&plan.mms_ports).as_str(), &plan.rtsp_ports, plan.rtsp_viewers), ("1024,1026", &None, 0));
    assert!(
        plan.notes[0].contains("room for none of 2 viewers over UDP, 3 ports each; all of them take TCP"),
        "{:?}",
        plan.notes
    );
    assert!(plan.flows.iter().any(|flow| flow.name == "RTSP"), "its media comes on TCP");
    // Nobody has room: there is no plan, whoever is asked for.
    for media in [Media::All, Media::Mms, Media::Rtsp] {
        assert!(matches!(Plan::of(&settings, &Options { media, ..options(4, Side::Server) }), Err(PlanError::Pool { .. })));
    }
}

/// To bind a list that names the relay's packets alone would cut off all others.
#[test]
fn an_asa_is_given_entries_and_binds_none_by_itself() {
    for side in [Side::Server, Side::Viewer] {
        let text = print(Form::CiscoAsa, &with_users(), &options(10, side));
        let active: Vec<_> = text.lines().filter(|line| !line.starts_with('!')).collect();
        assert!(active.len() > 5 && active.iter().all(|line| line.starts_with("access-list WMRELAY-TO-")), "{active:?}");
        let inside = if side == Side::Server { "WMRELAY-TO-VIEWERS" } else { "WMRELAY-TO-SERVER" };
        let bound = format!("! access-list {inside} extended permit ip any any\n! access-group {inside} in interface inside\n");
        assert!(text.contains(&bound) && text.matches("permit ip any any").count() == 1, "{text}");
    }
}

/// What is forwarded passes no rule for what comes in.
#[test]
fn ufw_and_firewalld_name_a_machine_or_a_router() {
    let one = |net: &str| Options { client_net: Some(net.parse().unwrap()), ..options(10, Side::Viewer) };
    let active = |form, options: &Options| -> Vec<String> {
        let text = print(form, &with_users(), options);
        let place =
            if options.side == Side::Server { "# For the server itself. " } else { "# For a router between viewers and server" };
        assert!(
            text.contains(place) && (options.side == Side::Server || text.contains("For a viewer's machine itself")),
            "{text}"
        );
        text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
    };
    for (options, is_router) in [
        (options(10, Side::Server), false),
        (options(10, Side::Viewer), false),
        (one("192.0.2.7/32"), false),
        (one("192.0.2.0/24"), true),
    ] {
        let ufw = active(Form::Ufw, &options);
        assert!(!ufw.is_empty() && ufw.iter().all(|line| line.starts_with("ufw route allow proto ") == is_router), "{ufw:?}");
        assert_eq!(ufw.iter().any(|line| line.contains("proto tcp")), is_router || options.side == Side::Server, "{ufw:?}");
        let firewalld = active(Form::Firewalld, &options).join("\n");
        assert_eq!(firewalld.contains("--policy=wmrelay-in --add-rich-rule"), is_router, "{firewalld}");
        assert_eq!(firewalld.contains("--policy=wmrelay-out --add-rich-rule"), is_router, "{firewalld}");
        assert!(firewalld.ends_with("firewall-cmd --reload"), "{firewalld}");
    }
}

/// nft and shells read quotes, AWS allows few signs in a description.
#[test]
fn names_of_flows_are_harmless() {
    for settings in [with_users(), odd(), Settings::default()] {
        for flow in Plan::of(&settings, &options(1, Side::Server)).unwrap().flows {
            assert!(flow.name.len() <= 40, "{}", flow.name);
            assert!(flow.name.chars().all(|sign| sign.is_ascii_alphanumeric() || " ,".contains(sign)), "{}", flow.name);
            assert!(!flow.hosts.is_empty(), "{}", flow.name);
        }
    }
}

#[test]
fn lines_are_not_long() {
    assert_eq!(wrapped("one two  three", 7), ["one two", "three"]);
    assert_eq!(wrapped("seven-and-more x", 5), ["seven-and-more", "x"]);
    assert!(wrapped("", 5).is_empty());
}

/// Metrics are nobody's but their collector's: a rule to be left out, and a note.
#[test]
fn an_admin_port_that_others_reach_is_told() {
    let mut settings = with_users();
    settings.admin = listen(&["0.0.0.0:9755", "127.0.0.1:9756"]);
    let plan = Plan::of(&settings, &options(1, Side::Server)).unwrap();
    let [metrics] = plan.flows.iter().filter(|flow| flow.name == "metrics").collect::<Vec<_>>()[..] else { panic!() };
    assert_eq!((metrics.server_port, metrics.needed), (Some(9755), false));
    assert!(plan.notes.iter().any(|note| note.contains("TCP 9755") && note.contains("collector")), "{:?}", plan.notes);
    let nftables = Form::Nftables.print(&plan);
    let open = nftables.lines().filter(|line| line.contains("9755") && !line.trim_start().starts_with('#'));
    assert_eq!(open.count(), 0, "{nftables}");
    let plan = Plan::of(&settings, &options(1, Side::Viewer)).unwrap();
    assert!(!Form::Text.print(&plan).contains("9755"));
    assert!(!print(Form::Text, &with_users(), &options(1, Side::Server)).contains("9755"));
}

#[test]
fn programs_get_every_flow() {
    let plan = Plan::of(&with_users(), &options(10, Side::Viewer)).unwrap();
    let told: serde_json::Value = serde_json::from_str(&Form::Json.print(&plan)).unwrap();
    assert_eq!((told["viewers"].as_u64(), told["side"].as_str()), (Some(10), Some("viewer")));
    assert_eq!(told["mms_client_ports"], serde_json::json!([[1024, 1033]]));
    let flows = told["flows"].as_array().unwrap();
    assert_eq!(flows.len(), plan.flows.len());
    let media = flows.iter().find(|flow| flow["transport"] == "udp" && flow["toward"] == "viewers").unwrap();
    assert_eq!((media["server_port"].as_u64(), media["needed"].as_bool()), (Some(1755), Some(true)));
    assert_eq!(media["servers"][0], serde_json::json!({ "ip": 4, "address": null }));
}

/// Whoever collects metrics is no viewer, and makes no firewall for an IP version that has no media.
#[test]
fn an_admin_port_changes_nothing_of_the_viewers_rules() {
    let mut settings = with_users();
    for listener in
        [&mut settings.mms, &mut settings.http, &mut settings.rtsp, &mut settings.control.listen, &mut settings.console]
    {
        let ports: Vec<u16> = listener.addresses.iter().map(SocketAddr::port).collect();
        listener.addresses = ports.into_iter().map(|port| SocketAddr::from(([0, 0, 0, 0], port))).collect();
        listener.addresses.dedup();
    }
    let active = |text: &str| {
        let marks = ['#', '!'];
        text.lines().filter(|line| !line.trim_start().starts_with(marks)).map(str::to_owned).collect::<Vec<_>>()
    };
    let net = Options { client_net: Some("10.0.0.0/8".parse().unwrap()), ..options(2, Side::Server) };
    for (admin, options) in [(&["[::]:9755"][..], options(2, Side::Server)), (&["0.0.0.0:9755", "[::]:9755"], net)] {
        for form in [Form::Iptables, Form::Ufw, Form::Firewalld, Form::CiscoAsa, Form::Nftables] {
            settings.admin = listen(admin);
            let with = print(form, &settings, &options);
            settings.admin = listen(&["127.0.0.1:9755"]);
            let without = print(form, &settings, &options);
            assert_eq!(active(&with), active(&without), "{form:?}");
            let metrics: Vec<_> = with.lines().filter(|line| line.contains("9755") && !line.contains("[admin]")).collect();
            assert!(!metrics.is_empty() && metrics.iter().all(|line| !line.contains("10.0.0.0")), "{metrics:?}");
            assert!(!with.contains("ip6tables -I WMRELAY") && !with.contains("ip6tables -N"), "{with}");
        }
    }
}

/// The service refuses a second rule of the same port, protocol and peer, whatever it is called.
#[test]
fn a_security_group_has_each_permission_once() {
    let mut settings = odd();
    settings.console = listen(&["198.51.100.7:1755"]);
    settings.mms = listen(&["198.51.100.8:1755"]);
    settings.rtsp = listen(&["198.51.100.9:1755"]);
    for side in [Side::Server, Side::Viewer] {
        let text = print(Form::AwsSecurityGroup, &settings, &options(2, side));
        let lines = text.lines().map(|line| line.trim_start_matches("# ").trim().trim_end_matches(','));
        let permissions: Vec<serde_json::Value> = lines.filter_map(|line| serde_json::from_str(line).ok()).collect();
        assert!(permissions.len() > 3, "{text}");
        let mut keys: Vec<_> = permissions
            .iter()
            .map(|permission| {
                let part = |key: &str| permission[key].to_string();
                let peers = ["IpRanges", "Ipv6Ranges"].map(|kind| permission[kind][0].clone());
                let peers = peers.map(|peer| format!("{}{}", peer["CidrIp"], peer["CidrIpv6"]));
                let way = if text.find(&permission.to_string()) > text.find("egress") { "out" } else { "in" };
                format!("{way} {} {} {} {peers:?}", part("IpProtocol"), part("FromPort"), part("ToPort"))
            })
            .collect();
        let all = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), all, "{text}");
        if side == Side::Server {
            assert!(text.contains("wmrelay: console, MMS, RTSP"), "{text}");
        }
    }
}
