//! What changes when other settings come into force while the daemon runs, and what waits for its restart.

use super::{
    Access, AccessLog, Control, Delivery, Drain, Hooks, Limits, Listen, Log, OnDemand, Publish, PublishingPoint, RtspTls,
    Settings, Source, Udp, WindowBounds,
};

/// The difference between settings in force and others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Publishing points that come, change and go.
    pub points: Vec<PointDifference>,
    /// Other keys whose new values hold at once, by their names in the settings.
    pub applied: Vec<&'static str>,
    /// Keys whose new values wait for a restart.
    pub waiting: Vec<&'static str>,
}

/// What happens to one publishing point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointDifference {
    /// Its name.
    pub name: String,
    /// What happens.
    pub change: PointChange,
}

/// What happens to a publishing point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PointChange {
    /// It comes.
    Added,
    /// It goes: its viewers get the end of the stream.
    Removed,
    /// It stays, and so do its viewers.
    Changed {
        /// What changes, by the keys of the settings.
        keys: Vec<&'static str>,
        /// Its source begins anew: viewers wait for that.
        source_restarts: bool,
    },
}

impl Difference {
    /// Nothing differs.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty() && self.applied.is_empty() && self.waiting.is_empty()
    }
}

/// What kind of publishing point it is: while that stays the same, viewers can stay.
#[derive(PartialEq, Eq)]
enum Kind {
    Broadcast,
    Files,
    Folder,
    Template,
    Stations,
}

impl PublishingPoint {
    /// Whether it can become the other one while somebody watches.
    pub fn is_same_kind(&self, other: &Self) -> bool {
        self.kind() == other.kind()
    }

    fn kind(&self) -> Kind {
        match &self.source {
            Source::Stations { .. } => Kind::Stations,
            _ if self.pattern().is_some() => Kind::Template,
            _ if self.is_lender() => Kind::Folder,
            Source::Files { .. } => Kind::Files,
            _ => Kind::Broadcast,
        }
    }

    /// The keys by which it differs from what it was before.
    fn keys_changed(&self, before: &Self) -> Vec<&'static str> {
        let Self { name: _, title, source, source_timeout, url_commands, fallback, access, at_once, commands } = self;
        let all = [
            ("title", *title != before.title),
            ("source", *source != before.source),
            ("source_timeout_s", *source_timeout != before.source_timeout),
            ("url_commands", *url_commands != before.url_commands),
            ("fallback", *fallback != before.fallback),
            ("access", access.viewers != before.access.viewers),
            ("allow", access.allow != before.access.allow),
            ("deny", access.deny != before.access.deny),
            ("at_once", *at_once != before.at_once),
            ("hooks", *commands != before.commands),
        ];
        all.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }

    /// The profile that its source is made to be, where it is transcoded.
    fn profile(&self) -> Option<&str> {
        match &self.source {
            Source::Ffmpeg { profile, .. } => Some(profile),
            _ => None,
        }
    }
}

/// Compares fields of one structure, all of them: what is new there has to be named here. Those behind `waits` keep the value in force.
macro_rules! compare {
    ($found:expr, $before:expr, $next:expr, $kind:ident { $($now:ident => $now_key:literal),* ; waits $($later:ident => $later_key:literal),* $(,)? }) => {{
        let $kind { $($now,)* $($later,)* } = $next;
        $(if *$now != $before.$now { $found.applied.push($now_key); })*
        $(if *$later != $before.$later { $found.waiting.push($later_key); $later.clone_from(&$before.$later); })*
    }};
}

/// The difference that `next` makes to the settings in force, and what is then in force: `next`, but for what waits for a restart.
pub fn difference(before: &Settings, next: &Settings) -> (Difference, Settings) {
    let mut found = Difference::default();
    let mut next = next.clone();
    let Settings {
        shards,
        mms,
        mms_protocols,
        http,
        http_protocols,
        rtsp,
        rtsp_protocols,
        rtsp_server_port,
        rtsp_tls,
        admin,
        control,
        console,
        drain,
        udp,
        delivery,
        on_demand,
        limits,
        window,
        publish,
        access,
        users_file,
        viewers_file,
        key_file,
        log,
        access_log,
        source_timeout,
        hooks,
        transcode,
        profiles,
        player_profiles,
        publishing_points: _,
    } = &mut next;
    let mut waits = |differs: bool, key| {
        if differs {
            found.waiting.push(key);
        }
        differs
    };
    if waits(*shards != before.shards, "shards") {
        *shards = before.shards;
    }
    for (listen, of, key) in [
        (mms, &before.mms, "mms.listen"),
        (http, &before.http, "http.listen"),
        (rtsp, &before.rtsp, "rtsp.listen"),
        (admin, &before.admin, "admin.listen"),
        (console, &before.console, "console.listen"),
    ] {
        if waits(listen != of, key) {
            Listen::clone_from(listen, of);
        }
    }
    for (protocols, of, key) in [
        (mms_protocols, before.mms_protocols, "mms.protocols"),
        (http_protocols, before.http_protocols, "http.protocols"),
        (rtsp_protocols, before.rtsp_protocols, "rtsp.protocols"),
    ] {
        if waits(*protocols != of, key) {
            *protocols = of;
        }
    }
    if waits(*rtsp_server_port != before.rtsp_server_port, "rtsp.server_port") {
        *rtsp_server_port = before.rtsp_server_port;
    }
    compare!(found, before.rtsp_tls, rtsp_tls, RtspTls { ; waits
        listen => "rtsp.tls_listen", certificate => "rtsp.certificate", key => "rtsp.key" });
    compare!(found, before.control, control, Control { sign_in => "control.sign_in_s" ; waits
        listen => "control.listen", tls => "control.tls", plain_anywhere => "control.plain_anywhere",
        users_file => "control.users_file", certificate => "control.certificate", key => "control.key", socket => "control.socket",
        hold => "control.hold_s" });
    compare!(found, before.drain, drain, Drain { timeout => "drain.timeout_s", redirect => "drain.redirect" ; waits });
    compare!(found, before.udp, udp, Udp { ; waits
        enabled => "udp.enabled", client_ports => "udp.client_ports", outside_pool => "udp.outside_pool",
        refuse_on_nat_mismatch => "udp.refuse_on_nat_mismatch", max_datagram_v4 => "udp.max_datagram",
        max_datagram_v6 => "udp.max_datagram", oversize => "udp.oversize", remember => "udp.remember_s" });
    compare!(found, before.delivery, delivery, Delivery { ; waits
        tick => "delivery.tick_ms", burst => "delivery.burst_ms", burst_rate => "delivery.burst_rate", on_slow => "delivery.on_slow" });
    compare!(found, before.on_demand, on_demand, OnDemand { ; waits
        cache_bytes => "on_demand.cache_bytes", readers => "on_demand.readers" });
    compare!(found, before.limits, limits, Limits {
        viewers => "limits.viewers", viewers_per_point => "limits.viewers_per_point",
        viewers_per_address => "limits.viewers_per_address", bandwidth_kbps => "limits.bandwidth_kbps",
        joins_per_s => "limits.joins_per_s", joins_burst => "limits.joins_burst" ; waits
        viewer_kbps => "limits.viewer_kbps", tls_connections => "limits.tls_connections", handshake => "limits.handshake_s",
        idle => "limits.idle_s", max_send_delay => "limits.max_send_delay_ms" });
    compare!(found, before.window, window, WindowBounds { ; waits seconds => "window.seconds", bytes => "window.bytes" });
    compare!(found, before.publish, publish, Publish { create => "publish.create", create_limit => "publish.create_limit" ; waits });
    compare!(found, before.access, access, Access {
        viewers => "access.viewers", viewers_allow => "access.viewers_allow", viewers_deny => "access.viewers_deny",
        publishers_allow => "access.publishers_allow", publishers_deny => "access.publishers_deny" ; waits });
    compare!(found, before.log, log, Log { level => "log.level" ; waits format => "log.format" });
    compare!(found, before.access_log, access_log, AccessLog { ; waits
        file => "access_log.file", rotate_bytes => "access_log.rotate_bytes", rotate_daily => "access_log.rotate_daily",
        keep => "access_log.keep", hash_addresses => "access_log.hash_addresses" });
    compare!(found, before.hooks, hooks, Hooks { commands => "hooks" ; waits timeout => "hooks.timeout_s", webhook => "hooks.url" });
    for (differs, key) in [
        (*users_file != before.users_file, "users.file"),
        (*viewers_file != before.viewers_file, "users.viewers_file"),
        (*key_file != before.key_file, "signing.key_file"),
        (*source_timeout != before.source_timeout, "source_timeout_s"),
        (*transcode != before.transcode, "transcode"),
        (*profiles != before.profiles, "profile"),
        (*player_profiles != before.player_profiles, "player_profile"),
    ] {
        if differs {
            found.applied.push(key);
        }
    }
    found.waiting.dedup();
    found.points = points(before, &next);
    (found, next)
}

fn points(before: &Settings, next: &Settings) -> Vec<PointDifference> {
    let (old, new) = (before.publishing_points_or_demo(), next.publishing_points_or_demo());
    let mut found = Vec::new();
    let mut note = |name: &str, change| found.push(PointDifference { name: name.to_owned(), change });
    for point in &new {
        let Some(was) = old.iter().find(|was| was.name == point.name && was.is_same_kind(point)) else {
            note(&point.name, PointChange::Added);
            continue;
        };
        let mut keys = point.keys_changed(was);
        let of = |settings: &Settings| point.profile().and_then(|name| settings.profile(name)).cloned();
        let other_profile = of(before) != of(next);
        if other_profile {
            keys.push("profile");
        }
        // Nothing of these three runs without a viewer who names it.
        let has_source = matches!(point.kind(), Kind::Broadcast);
        let source_restarts = has_source && (was.source != point.source || other_profile);
        if !keys.is_empty() {
            note(&point.name, PointChange::Changed { keys, source_restarts });
        }
    }
    for was in &old {
        if !new.iter().any(|point| was.name == point.name && was.is_same_kind(point)) {
            note(&was.name, PointChange::Removed);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Start, Viewers};
    use std::time::Duration;

    fn point(name: &str, source: Source) -> PublishingPoint {
        PublishingPoint::new(name, source)
    }

    fn pull(url: &str) -> Source {
        Source::Pull { url: url.into(), start: Start::Always, linger: Duration::ZERO }
    }

    #[test]
    fn nothing_differs_from_itself() {
        let settings = Settings::default();
        let (found, next) = difference(&settings, &settings);
        assert!(found.is_empty() && next == settings);
    }

    #[test]
    fn publishing_points_come_change_and_go() {
        let before = [
            point("stays", Source::Push),
            point("goes", Source::Push),
            point("moves", pull("mms://h/1")),
            point("renamed", Source::Demo),
            point("becomes files", Source::Demo),
            point("cam-*", pull("mms://h/{1}")),
        ];
        let mut next = [
            point("comes", Source::Push),
            point("stays", Source::Push),
            point("moves", Source::Push),
            point("renamed", Source::Demo),
            point("becomes files", Source::Files { root: "/srv".into() }),
            point("cam-*", pull("mms://i/{1}")),
        ];
        (next[3].title, next[3].access.viewers) = (Some("new".into()), Viewers::Signed);
        let of = |points: &[PublishingPoint]| Settings { publishing_points: points.to_vec(), ..Settings::default() };
        let found = difference(&of(&before), &of(&next)).0;
        let changed = |keys: &[&'static str], source_restarts| PointChange::Changed { keys: keys.to_vec(), source_restarts };
        let expected = [
            ("comes", PointChange::Added),
            ("moves", changed(&["source"], true)),
            ("renamed", changed(&["title", "access"], false)),
            ("becomes files", PointChange::Added),
            ("cam-*", changed(&["source"], false)),
            ("goes", PointChange::Removed),
            ("becomes files", PointChange::Removed),
        ];
        let expected = expected.map(|(name, change)| PointDifference { name: name.into(), change });
        assert_eq!(found.points, expected);
        // Without any there is the built-in one.
        let found = difference(&of(&[]), &of(&Settings::default().publishing_points_or_demo())).0;
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn what_waits_stays_as_it_is() {
        let before = Settings::default();
        let mut next = before.clone();
        next.shards += 1;
        next.mms = Listen::anywhere(1756);
        next.udp.max_datagram_v4 = 1400;
        next.udp.max_datagram_v6 = 1400;
        next.limits.viewers = 7;
        next.limits.idle = Duration::from_secs(1);
        next.log.level = "debug".into();
        next.control.sign_in = Duration::from_secs(60);
        next.users_file = Some("/etc/users".into());
        let (found, in_force) = difference(&before, &next);
        assert_eq!(found.waiting, ["shards", "mms.listen", "udp.max_datagram", "limits.idle_s"]);
        assert_eq!(found.applied, ["control.sign_in_s", "limits.viewers", "log.level", "users.file"]);
        assert_eq!((in_force.shards, &in_force.mms, &in_force.udp), (before.shards, &before.mms, &before.udp));
        assert_eq!((in_force.limits.viewers, in_force.limits.idle), (7, before.limits.idle));
        // What waits is told again the next time.
        assert_eq!(difference(&in_force, &next).0.waiting, found.waiting);
    }

    #[test]
    fn another_profile_restarts_what_is_made_by_it() {
        let input = crate::settings::FfmpegInput { input: "/srv/x".into(), arguments: Vec::new() };
        let source = Source::Ffmpeg { input, profile: "wmp9".into(), start: Start::Always, linger: Duration::ZERO };
        let before =
            Settings { publishing_points: vec![point("door", source), point("cam", Source::Push)], ..Settings::default() };
        let mut next = before.clone();
        next.profiles.iter_mut().filter(|profile| profile.name == "wmp9").for_each(|profile| profile.packet_size = 512);
        let found = difference(&before, &next).0;
        let change = PointChange::Changed { keys: vec!["profile"], source_restarts: true };
        assert_eq!(found.points, [PointDifference { name: "door".into(), change }]);
        assert_eq!(found.applied, ["profile"]);
    }
}
