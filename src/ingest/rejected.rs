//! Streams that turned out to be of no use while they came, remembered for a while by who sent them and what was announced of them.
//!
//! Encoders have no ear for an answer while they send, and come again at once when their connection closes. Whoever announces the same
//! again is told then, and viewers do not see it begin and end over and over.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::relay::PublisherId;

/// How long one is remembered: an encoder may announce with the same words what it now makes otherwise.
const MEMORY: Duration = Duration::from_secs(60);
/// The same where the words say nothing of how pictures are made, so that a corrected encoder has no others.
const MEMORY_OF_VAGUE: Duration = Duration::from_secs(5);
/// What says it: parameter sets of H.264. Source: RFC 6184 8.1.
const PARAMETER_SETS: &str = "sprop-parameter-sets=";
/// Streams remembered; the oldest make room.
const MOST: usize = 64;

/// Remembers them.
#[derive(Debug, Default)]
pub(super) struct Rejected(VecDeque<Entry>);

/// Who announces what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Announced<'a> {
    /// The publishing point.
    pub(super) point: &'a str,
    /// The publisher.
    pub(super) id: &'a PublisherId,
    /// Where from: several may publish with one password.
    pub(super) peer: IpAddr,
    /// The lines of formats and parameters.
    pub(super) parameters: &'a str,
}

#[derive(Debug)]
struct Entry {
    point: String,
    id: PublisherId,
    peer: IpAddr,
    parameters: String,
    why: String,
    until: Instant,
}

impl Rejected {
    /// Notes that what was announced is of no use.
    pub(super) fn note(&mut self, now: Instant, announced: &Announced<'_>, why: String) {
        self.0.retain(|entry| entry.until > now && !entry.is_of(announced));
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        let Announced { point, id, peer, parameters } = *announced;
        let is_vague = !parameters.to_ascii_lowercase().contains(PARAMETER_SETS);
        let until = now + if is_vague { MEMORY_OF_VAGUE } else { MEMORY };
        let (point, parameters) = (point.to_owned(), parameters.to_owned());
        self.0.push_back(Entry { point, id: id.clone(), peer, parameters, why, until });
    }

    /// Why the same was of no use, and how long that is remembered.
    pub(super) fn why(&self, now: Instant, announced: &Announced<'_>) -> Option<(&str, Duration)> {
        let entry = self.0.iter().find(|entry| entry.until > now && entry.is_of(announced))?;
        Some((&entry.why, entry.until.saturating_duration_since(now)))
    }
}

impl Entry {
    fn is_of(&self, announced: &Announced<'_>) -> bool {
        let Announced { point, id, peer, parameters } = *announced;
        self.point == point && self.id == *id && self.peer == peer && self.parameters == parameters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::testing;

    const SETS: &str = "a=fmtp:96 packetization-mode=1; sprop-parameter-sets=Z0LA,aM4PyA==";
    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    const LOCAL: &PublisherId = &PublisherId::Local;

    const fn announced(parameters: &str) -> Announced<'_> {
        Announced { point: "cam", id: LOCAL, peer: PEER, parameters }
    }

    #[test]
    fn the_same_at_the_same_point_and_not_for_ever() {
        let (mut rejected, start) = (Rejected::default(), testing::start());
        let at = |s| start + Duration::from_secs(s);
        let same = announced(SETS);
        rejected.note(start, &same, "first".into());
        assert_eq!(rejected.why(at(20), &same), Some(("first", Duration::from_secs(40))));
        assert_eq!(rejected.why(at(20), &announced("sprop-parameter-sets=Z")), None);
        assert_eq!(rejected.why(at(20), &Announced { point: "cam2", ..same }), None);
        assert_eq!(rejected.why(at(60), &same), None);
        rejected.note(at(30), &same, "again".into());
        assert_eq!(rejected.why(at(60), &same), Some(("again", Duration::from_secs(30))));
        for other in 0..MOST {
            rejected.note(at(31), &announced(&other.to_string()), "other".into());
        }
        assert_eq!((rejected.why(at(31), &same), rejected.0.len()), (None, MOST), "bounded");
        assert!(rejected.why(at(31), &announced("0")).is_some());
    }

    #[test]
    fn others_are_not_held_to_account() {
        let (mut rejected, now) = (Rejected::default(), testing::start());
        let (anna, ben) = (PublisherId::User("anna".into()), PublisherId::User("ben".into()));
        let same = Announced { id: &anna, ..announced(SETS) };
        rejected.note(now, &same, "anna's".into());
        assert!(rejected.why(now, &same).is_some());
        assert_eq!(rejected.why(now, &Announced { id: &ben, ..same }), None);
        assert_eq!(rejected.why(now, &Announced { peer: "192.0.2.7".parse().unwrap(), ..same }), None);
        // What one sends again does not take away what is known of another.
        rejected.note(now, &Announced { id: &ben, ..same }, "ben's".into());
        assert_eq!(rejected.why(now, &same).map(|(why, _)| why), Some("anna's"));
    }

    #[test]
    fn words_without_parameter_sets_are_soon_forgotten() {
        let (mut rejected, start) = (Rejected::default(), testing::start());
        let vague = announced("a=rtpmap:96 H264/90000\na=fmtp:96 packetization-mode=1");
        rejected.note(start, &vague, "B-frames".into());
        assert_eq!(rejected.why(start, &vague), Some(("B-frames", Duration::from_secs(5))));
        assert_eq!(rejected.why(start + Duration::from_secs(5), &vague), None);
    }
}
