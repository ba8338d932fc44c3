use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::relay::Relay;
use crate::settings::{PointAccess, PublishingPoint, Settings, Source};
use crate::text::Users;
use crate::text::signed::Claim;
use crate::wire::Guid;

const NOW: u64 = 1_700_000_000;

/// A gate, its clock, and a publishing point `Cam` for whom it asks this of.
struct Bench {
    gate: Gate,
    relay: Arc<Relay>,
    unix_s: Arc<AtomicU64>,
    secrets: Secrets,
    now: Instant,
}

impl Bench {
    fn new(viewers: Viewers) -> Self {
        let now = tokio::time::Instant::now().into_std();
        let deny = vec!["198.51.100.0/24".parse().unwrap()];
        let access = PointAccess { viewers, allow: Vec::new(), deny };
        let point = |name: &str, source| PublishingPoint { access: access.clone(), ..PublishingPoint::new(name, source) };
        let points = vec![point("Cam", Source::Push), point("files", Source::Files { root: "/nowhere".into() })];
        let settings = Settings { publishing_points: points, ..Settings::default() };
        let secrets = Secrets::parse(&Secrets::file_of([7; 32]), "keys").unwrap();
        let users = Users::parse(&Users::line("x", "r", "y").unwrap(), "users").unwrap();
        let unix_s = Arc::new(AtomicU64::new(NOW));
        let clock = Arc::clone(&unix_s);
        let gate = Gate::new(
            Some(secrets.clone()),
            Some(Authenticator::new(now, users, [3; 32])),
            Arc::new(move || clock.load(Ordering::Relaxed)),
        );
        Self { gate, relay: Relay::new(&settings, Box::new(Guid::default), Vec::new()), unix_s, secrets, now }
    }

    fn ask(&self, peer: &str, name: &str, pass: &Pass) -> Result<(), OpenRefusal> {
        let (point, below) = self.relay.resolve(name).unwrap();
        self.gate.admit(self.now, SocketAddr::new(peer.parse().unwrap(), 7), &point, &below, pass, false)
    }

    fn key(&self, name: &str, address: Option<&str>) -> Pass {
        let address = address.map(|address| address.parse().unwrap());
        let key = self.secrets.sign(&Claim { name, ends_unix_s: NOW + 60, address }).unwrap();
        Pass { key: Some(key), ..Pass::default() }
    }
}

fn password(password: &str) -> Pass {
    let authorization = format!("Basic {}", STANDARD.encode(format!("x:{password}")));
    Pass { login: Some(Login { method: "GET".into(), target: "/".into(), authorization }), ..Pass::default() }
}

const PEER: &str = "192.0.2.7";

fn denied(denial: Denial) -> Result<(), OpenRefusal> {
    Err(OpenRefusal::Denied(denial))
}

#[test]
fn keys_are_for_a_name_an_address_and_a_time() {
    let bench = Bench::new(Viewers::Signed);
    let cam = bench.key("Cam", None);
    assert_eq!(bench.ask(PEER, "Cam", &cam), Ok(()));
    assert_eq!(bench.ask(PEER, "cAM", &cam), Ok(()), "the name that is meant counts");
    assert_eq!(bench.ask(PEER, "files/Cam", &cam), denied(Denial::WrongKey));
    assert_eq!(bench.ask(PEER, "Cam", &Pass::default()), denied(Denial::NoKey));
    assert_eq!(bench.ask(PEER, "Cam", &password("y")), denied(Denial::NoKey));
    let (folder, file) = (bench.key("files/", None), bench.key("files/a/b.wmv", None));
    assert_eq!((bench.ask(PEER, "files/a/b.wmv", &folder), bench.ask(PEER, "FILES/a/b.wmv", &file)), (Ok(()), Ok(())));
    assert_eq!(bench.ask(PEER, "files", &folder), denied(Denial::WrongKey));
    assert_eq!(bench.ask(PEER, "files/a/B.wmv", &file), denied(Denial::WrongKey));
    let bound = bench.key("Cam", Some(PEER));
    assert_eq!((bench.ask(PEER, "Cam", &bound), bench.ask("192.0.2.8", "Cam", &bound)), (Ok(()), denied(Denial::WrongKey)));
    bench.unix_s.store(NOW + 60, Ordering::Relaxed);
    assert_eq!(bench.ask(PEER, "Cam", &cam), denied(Denial::ExpiredKey));
}

#[test]
fn address_rules_come_first() {
    for viewers in [Viewers::All, Viewers::Users, Viewers::Signed] {
        let bench = Bench::new(viewers);
        let pass = Pass { login: password("y").login, ..bench.key("Cam", None) };
        assert_eq!(bench.ask("198.51.100.3", "Cam", &pass), denied(Denial::Address), "{viewers:?}");
        assert_eq!(bench.ask(PEER, "Cam", &pass), Ok(()), "{viewers:?}");
    }
}

#[test]
fn passwords() {
    let bench = Bench::new(Viewers::Users);
    assert_eq!(bench.ask(PEER, "Cam", &password("y")), Ok(()));
    for pass in [Pass::default(), bench.key("Cam", None), password("z")] {
        let Err(OpenRefusal::Login(Challenge { values, realm })) = bench.ask(PEER, "Cam", &pass) else { panic!() };
        assert!(values[0].starts_with("Digest ") && values[1].starts_with("Basic ") && realm == "r");
    }
    let login = password("y").login.map(|login| Login { authorization: "Digest".into(), ..login });
    let broken = Pass { login, ..Pass::default() };
    assert_eq!(bench.ask(PEER, "Cam", &broken), denied(Denial::BadLogin));
}

#[test]
fn who_guesses_passwords_is_not_listened_to() {
    let mut bench = Bench::new(Viewers::Users);
    for _ in 0..10 {
        assert!(matches!(bench.ask(PEER, "Cam", &password("z")), Err(OpenRefusal::Login(_))));
    }
    for pass in ["z", "y"] {
        assert_eq!(bench.ask(PEER, "Cam", &password(pass)), denied(Denial::Guesses), "the right one too");
    }
    // Who asks without a password guesses nothing, and others are not concerned.
    assert!(matches!(bench.ask(PEER, "Cam", &Pass::default()), Err(OpenRefusal::Login(_))));
    assert_eq!(bench.ask("192.0.2.8", "Cam", &password("y")), Ok(()));
    bench.now += std::time::Duration::from_secs(30);
    assert_eq!(bench.ask(PEER, "Cam", &password("y")), Ok(()));
}

#[test]
fn a_right_key_is_good_whoever_guesses_beside_it() {
    let bench = Bench::new(Viewers::Signed);
    for _ in 0..50 {
        assert_eq!(bench.ask(PEER, "Cam", &bench.key("Can", None)), denied(Denial::WrongKey));
    }
    assert_eq!(bench.ask(PEER, "Cam", &bench.key("Cam", None)), Ok(()));
}

#[test]
fn without_secrets_or_users_nobody_comes_in() {
    for viewers in [Viewers::Users, Viewers::Signed] {
        let bench = Bench::new(viewers);
        let gate = Gate::new(None, None, Arc::new(|| NOW));
        let (point, below) = bench.relay.resolve("Cam").unwrap();
        let pass = Pass { login: password("y").login, ..bench.key("Cam", None) };
        assert!(gate.admit(bench.now, SocketAddr::new(PEER.parse().unwrap(), 7), &point, &below, &pass, false).is_err());
    }
}
