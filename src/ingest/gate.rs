//! Who may publish what.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use metrics::counter;
use tracing::info;

use super::rejected::{Announced, Rejected};
use crate::http::{PublishRequest, Refusal, Status};
use crate::metrics::REFUSALS;
use crate::relay::admission::Guesses;
use crate::relay::{CreateRefusal, Point, PublishRefusal, Publisher, PublisherId, Relay};
use crate::settings::Access;
use crate::text::{Authenticator, Users, Verdict};

/// When it is worth to ask again after too many wrong passwords.
const GUESSES_RETRY: Duration = Duration::from_secs(60);

/// Decides about requests to publish.
pub(super) struct Gate {
    rules: RwLock<Rules>,
    relay: Arc<Relay>,
    /// Seals the nonces of Digest.
    key: [u8; 32],
    /// Wrong passwords, over all connections of an address.
    guesses: Mutex<Guesses>,
    rejected: Mutex<Rejected>,
}

/// What the settings say.
#[derive(Clone)]
struct Rules {
    access: Arc<Access>,
    users: Option<Users>,
    authenticator: Option<Arc<Mutex<Authenticator>>>,
}

impl Rules {
    fn may_publish(&self, peer: IpAddr) -> bool {
        self.access.may_publish(peer)
    }
}

impl Gate {
    /// `key` is random; it seals the nonces of Digest.
    pub(super) fn new(now: Instant, access: Access, relay: Arc<Relay>, users: Option<Users>, key: [u8; 32]) -> Self {
        let authenticator = authenticator(now, users.clone(), key);
        let rules = Rules { access: Arc::new(access), users, authenticator };
        Self { rules: RwLock::new(rules), relay, key, guesses: Mutex::default(), rejected: Mutex::default() }
    }

    /// Other rules and users from now on. Who publishes goes on.
    pub(super) fn apply(&self, now: Instant, access: &Access, users: Option<Users>) {
        let before = self.rules();
        // What encoders were asked before stays good where nobody's password is another.
        let authenticator =
            if users == before.users { before.authenticator } else { authenticator(now, users.clone(), self.key) };
        let rules = Rules { access: Arc::new(access.clone()), users, authenticator };
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    fn rules(&self) -> Rules {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether anything that this peer could send would let it publish.
    pub(super) fn may_publish(&self, peer: IpAddr) -> bool {
        let rules = self.rules();
        rules.may_publish(peer) && (peer.is_loopback() || rules.authenticator.is_some())
    }

    /// Who sends the request, if that one may publish at all.
    ///
    /// The address rules come first. Then credentials count; a program on this machine needs none, unless a browser or proxy
    /// sends on behalf of somebody else. Which names there are is only told to who passed.
    pub(super) fn authorise(&self, now: Instant, peer: IpAddr, request: &PublishRequest) -> Result<PublisherId, Denial> {
        let rules = self.rules();
        if !rules.may_publish(peer) {
            return Err(Refusal::new(Status::Forbidden, format!("The settings do not let {peer} publish.")).into());
        }
        match (&request.authorization, &rules.authenticator) {
            (Some(_), Some(_)) if !lock(&self.guesses).may_guess(now, peer) => {
                let text = "There were too many wrong passwords from your address; try again later.";
                Err(Refusal { retry_after: Some(GUESSES_RETRY), ..Refusal::new(Status::TooManyRequests, text) }.into())
            }
            (Some(authorization), Some(authenticator)) => {
                let mut authenticator = lock(authenticator);
                match authenticator.check(now, &request.method, &request.target, authorization) {
                    Ok(Verdict::Granted { user }) => Ok(PublisherId::User(user)),
                    Ok(Verdict::Denied) => {
                        lock(&self.guesses).wrong(now, peer);
                        // Programs that ban addresses read this line of viewers and of publishers; see the gate of the shards.
                        tracing::warn!(
                            target: "wmrelay::auth",
                            point = request.name,
                            "viewer not let in: peer={peer} cause=publisher_password"
                        );
                        let challenges = authenticator.challenges(now, false);
                        Err(Denial::WrongCredentials(Refusal::unauthorized("User or password is wrong.", challenges)))
                    }
                    Ok(Verdict::Stale) => {
                        let challenges = authenticator.challenges(now, true);
                        Err(Refusal::unauthorized("The nonce is used up, try the new one.", challenges).into())
                    }
                    Err(error) => Err(Refusal::new(Status::BadRequest, format!("Bad request: {error}.")).into()),
                }
            }
            // Without users no password can be wrong, and a program on this machine needs none.
            (_, None) | (None, Some(_)) if peer.is_loopback() => match request.third_party {
                None => Ok(PublisherId::Local),
                Some(field) => Err(Refusal::new(
                    Status::Forbidden,
                    format!("A password is needed: the {field} field tells that somebody else is behind this request."),
                )
                .into()),
            },
            (None, Some(authenticator)) => {
                let mut authenticator = lock(authenticator);
                Err(Refusal::unauthorized("User and password are needed.", authenticator.challenges(now, false)).into())
            }
            (_, None) => Err(Refusal::new(
                Status::Forbidden,
                "Publishing from another machine needs a user, and the settings name no users file; make one with `wmrelay passwd`.",
            )
            .into()),
        }
    }

    /// Notes that a stream turned out to be of no use, by what was announced of it.
    pub(super) fn reject(&self, now: Instant, announced: &Announced<'_>, why: String) {
        lock(&self.rejected).note(now, announced, why);
    }

    /// Whether what is announced is what was rejected of the same publisher a moment ago.
    pub(super) fn was_rejected(&self, now: Instant, announced: &Announced<'_>) -> Option<Refusal> {
        let rejected = lock(&self.rejected);
        let (why, left) = rejected.why(now, announced)?;
        // The first line alone is the status line of RTSP.
        let text = format!("{}.\nThe same is tried again in {} s.", capitalised(why), left.as_secs() + 1);
        Some(Refusal { retry_after: Some(left), ..Refusal::new(Status::UnsupportedMediaType, text) })
    }

    /// Whether there is such a publishing point, or may be.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.relay.point(name).is_some() || self.relay.creates()
    }

    /// Whether a publishing point was made by a publisher.
    pub(super) fn made(&self, point: &Point) -> bool {
        self.relay.is_created(point.id())
    }

    /// Takes a publishing point away that a publisher made.
    pub(super) fn destroy(&self, point: &Arc<Point>) {
        if self.made(point) {
            info!(point = point.name(), "publishing point goes with its push");
            self.relay.destroy(point);
        }
    }

    /// The right to feed the publishing point that was named. Where there is none and the settings let publishers make it, one is
    /// made, with the settings of the template if one is named.
    pub(super) fn claim(&self, now: Instant, name: &str, id: PublisherId, template: Option<&str>) -> Result<Publisher, Refusal> {
        let mut claimed = self.relay.publish(now, name, id.clone());
        if matches!(claimed, Err(PublishRefusal::Unknown { .. })) && self.relay.creates() {
            let point = self.relay.create(name, template).map_err(|refusal| not_made(&refusal))?;
            info!(point = name, ?id, template, "publisher makes a publishing point");
            claimed = point.publish(now, id);
        }
        claimed.map_err(|refusal| {
            let text = format!("{}.", capitalised(&refusal.to_string()));
            match refusal {
                PublishRefusal::Unknown { .. } => Refusal::new(Status::NotFound, text),
                PublishRefusal::NotPush { .. } => Refusal::new(Status::Forbidden, text),
                PublishRefusal::Busy { .. } => {
                    Refusal { retry_after: Some(Duration::from_secs(2)), ..Refusal::new(Status::Conflict, text) }
                }
            }
        })
    }
}

fn authenticator(now: Instant, users: Option<Users>, key: [u8; 32]) -> Option<Arc<Mutex<Authenticator>>> {
    users.map(|users| Arc::new(Mutex::new(Authenticator::new(now, users, key))))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn not_made(refusal: &CreateRefusal) -> Refusal {
    let text = format!("{}.", capitalised(&refusal.to_string()));
    match refusal {
        CreateRefusal::Off | CreateRefusal::Template { .. } => Refusal::new(Status::NotFound, text),
        CreateRefusal::Name(_) => Refusal::new(Status::BadRequest, text),
        CreateRefusal::Taken { .. } => Refusal::new(Status::Forbidden, text),
        CreateRefusal::Full { .. } => Refusal::unavailable(text, Duration::from_secs(30)),
    }
}

/// Why somebody may not publish.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Denial {
    /// User or password is wrong: somebody may be guessing.
    WrongCredentials(Refusal),
    /// For another reason.
    Other(Refusal),
}

impl From<Refusal> for Denial {
    fn from(refusal: Refusal) -> Self {
        Self::Other(refusal)
    }
}

/// Counts a refusal.
pub(super) fn count(refusal: &Refusal) {
    let cause = match refusal.status {
        Status::Unauthorized => "publisher_credentials",
        Status::Forbidden => "publisher_forbidden",
        Status::NotFound => "publisher_unknown_point",
        Status::Conflict => "publisher_conflict",
        Status::UnsupportedMediaType => "publisher_not_asf",
        Status::TooManyRequests => "publisher_guesses",
        _ => "publisher_other",
    };
    counter!(REFUSALS, "cause" => cause).increment(1);
}

/// A sentence from an error's words.
pub(super) fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::testing;
    use crate::settings::Source;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    const LOOPBACK: &str = "::1";
    const ELSEWHERE: &str = "192.0.2.7";

    fn gate(users: bool) -> Gate {
        let relay = testing::relay(&[("cam", Source::Push), ("demo", Source::Demo)]);
        let line = Users::line("cam", "studio", "secret").unwrap();
        let users = users.then(|| Users::parse(&line, "users").unwrap());
        let access = Access { publishers_deny: vec!["198.51.100.0/24".parse().unwrap()], ..Access::default() };
        Gate::new(testing::start(), access, relay, users, [9; 32])
    }

    fn refusal(denial: Denial) -> Refusal {
        let (Denial::WrongCredentials(refusal) | Denial::Other(refusal)) = denial;
        refusal
    }

    fn request(password: Option<&str>) -> PublishRequest {
        PublishRequest {
            method: "POST".into(),
            target: "/publish/cam".into(),
            name: "cam".into(),
            authorization: password.map(|password| format!("Basic {}", STANDARD.encode(format!("cam:{password}")))),
            third_party: None,
            user_agent: None,
            empty: false,
            push: None,
            push_id: None,
            takes_basic: true,
        }
    }

    #[test]
    fn rules_then_credentials_then_loopback() {
        let user = || Ok(PublisherId::User("cam".into()));
        for (users, peer, password, expected) in [
            (true, ELSEWHERE, Some("secret"), user()),
            (true, ELSEWHERE, Some("wrong"), Err(Status::Unauthorized)),
            (true, ELSEWHERE, None, Err(Status::Unauthorized)),
            (false, ELSEWHERE, None, Err(Status::Forbidden)),
            (false, ELSEWHERE, Some("secret"), Err(Status::Forbidden)),
            (true, LOOPBACK, None, Ok(PublisherId::Local)),
            (true, LOOPBACK, Some("secret"), user()),
            (true, LOOPBACK, Some("wrong"), Err(Status::Unauthorized)),
            (false, "127.8.8.8", None, Ok(PublisherId::Local)),
            (false, LOOPBACK, Some("any"), Ok(PublisherId::Local)),
            (true, "198.51.100.3", Some("secret"), Err(Status::Forbidden)),
        ] {
            let result = gate(users).authorise(testing::start(), peer.parse().unwrap(), &request(password));
            let wrong = matches!(result, Err(Denial::WrongCredentials(_)));
            assert_eq!(wrong, password == Some("wrong"), "{users} {peer}");
            assert_eq!(result.map_err(|denial| refusal(denial).status), expected, "{users} {peer} {password:?}");
        }
        for (users, peer, may) in
            [(true, ELSEWHERE, true), (false, ELSEWHERE, false), (false, LOOPBACK, true), (true, "198.51.100.3", false)]
        {
            assert_eq!(gate(users).may_publish(peer.parse().unwrap()), may, "{users} {peer}");
        }
    }

    #[test]
    fn an_address_guesses_a_few_times_and_then_seldom() {
        let gate = gate(true);
        let now = testing::start();
        let status = |now, peer: &str, password| {
            gate.authorise(now, peer.parse().unwrap(), &request(password)).map_err(|denial| refusal(denial).status)
        };
        let told: Vec<_> = (0..12).map(|_| status(now, ELSEWHERE, Some("wrong")).unwrap_err()).collect();
        assert_eq!(told, [[Status::Unauthorized; 10].as_slice(), &[Status::TooManyRequests; 2]].concat());
        // The right one is not looked at either; others are not held to account.
        assert_eq!(status(now, ELSEWHERE, Some("secret")), Err(Status::TooManyRequests));
        assert_eq!(status(now, ELSEWHERE, None), Err(Status::Unauthorized));
        assert!(status(now, "192.0.2.8", Some("secret")).is_ok());
        assert!(status(now + Duration::from_secs(31), ELSEWHERE, Some("secret")).is_ok());
    }

    #[test]
    fn a_refusal_carries_challenges() {
        let denial = gate(true).authorise(testing::start(), ELSEWHERE.parse().unwrap(), &request(None)).unwrap_err();
        let refusal = refusal(denial);
        assert!(refusal.challenges[0].starts_with("Digest ") && refusal.challenges[1].starts_with("Basic "));
    }

    #[test]
    fn browsers_and_proxies_on_this_machine_need_a_password() {
        let gate = gate(true);
        let (now, peer) = (testing::start(), LOOPBACK.parse().unwrap());
        let behind = |password| PublishRequest { third_party: Some("Origin"), ..request(password) };
        let refusal = refusal(gate.authorise(now, peer, &behind(None)).unwrap_err());
        assert_eq!(refusal.status, Status::Forbidden);
        assert!(refusal.text.contains("Origin"));
        assert_eq!(gate.authorise(now, peer, &behind(Some("secret"))), Ok(PublisherId::User("cam".into())));
    }

    #[test]
    fn names() {
        let gate = gate(false);
        let now = testing::start();
        let claim =
            |name: &str| gate.claim(now, name, PublisherId::Local, None).map_err(|refusal| (refusal.status, refusal.text));
        let first = claim("cam").map_err(|_| ()).unwrap();
        let Err((Status::Conflict, text)) = claim("cam") else { panic!("two publishers") };
        assert!(text.starts_with("Publishing point \"cam\" has a publisher"), "{text}");
        drop(first);
        assert!(claim("cam").is_ok());
        assert!(matches!(claim("demo"), Err((Status::Forbidden, _))));
        assert!(matches!(claim("nobody"), Err((Status::NotFound, _))));
    }
}
