//! Streams set up, one after the other: over which transport, from which ports. Source: MS-RTSP 3.1.5.3; RFC 2326 10.4.

use std::time::Instant;

use super::answers::is_success;
use super::{Client, ClientTransport, Errand, Step};
use crate::playing::{ClientEvent, ClientOutput};
use crate::rtsp::message::Response;
use crate::rtsp::sdp::{Remote, Role};
use crate::rtsp::transport::{Lower, Mode, Spec};

/// Most streams of a server that is only counted.
const MOST_PLAIN: usize = 16;
/// Where requests for lost packets go if the server does not say. Source: MS-RTSP 1.9.
const RESEND_PORTS: (u16, u16) = (5004, 5005);
/// RTP of no content, and an empty report: they open the way for what comes.
const OPENER: [u8; 12] = [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// A stream to be set up.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) url: String,
    role: Role,
    pub(super) spec: Spec,
}

impl Client {
    /// The transport of a stream of media: all of ASF have the same one, of others each has its own.
    pub(super) fn media_spec(&self, index: usize) -> Spec {
        let mode = Some(Mode::Play);
        match self.transport {
            ClientTransport::Tcp => {
                let first = u8::try_from(index * 2).unwrap_or(0);
                Spec { interleaved: Some((first, Some(first + 1))), mode, ..Spec::new(Lower::Tcp) }
            }
            ClientTransport::Udp { media, resends } => {
                let ports = if index == 0 { media } else { resends };
                Spec { client_port: Some(ports), mode, ..Spec::new(Lower::Udp) }
            }
        }
    }

    /// A description came: begins to set up what is wanted of it.
    pub(super) fn begin_setups(&mut self, now: Instant, remote: &Remote) {
        self.step = Step::SettingUp;
        self.setups.clear();
        // Of streams that are not wanted any more.
        self.pending.retain(|pending| pending.errand != Errand::Setup);
        self.window.set_asks(false);
        let is_asf = remote.windows_media.is_some();
        let wanted = self.wanted();
        let mut setups = Vec::new();
        for media in &remote.media {
            let spec = match media.role {
                Role::Asf(stream) if wanted.contains(stream) => self.media_spec(0),
                Role::Plain if !is_asf && setups.len() < self.most_plain() => self.media_spec(setups.len()),
                Role::Rtx if is_asf && self.resend_spec().is_some() => {
                    // Before all others: where it is refused, nothing was set up that would have to be undone.
                    let Some(spec) = self.resend_spec() else { continue };
                    self.setups.push_back(Setup { url: media.url.clone(), role: media.role, spec });
                    continue;
                }
                Role::Asf(_) | Role::Plain | Role::Rtx => continue,
            };
            setups.push(Setup { url: media.url.clone(), role: media.role, spec });
        }
        if setups.is_empty() {
            return self.fail("it describes no stream that could be set up");
        }
        self.setups.extend(setups);
        self.ask(now, Errand::Setup);
    }

    const fn most_plain(&self) -> usize {
        match self.transport {
            ClientTransport::Tcp => MOST_PLAIN,
            // So many ports there are.
            ClientTransport::Udp { .. } => 2,
        }
    }

    fn resend_spec(&self) -> Option<Spec> {
        let ClientTransport::Udp { resends, .. } = self.transport else { return None };
        Some(Spec { client_port: Some(resends), mode: Some(Mode::Play), ..Spec::new(Lower::Udp) })
    }

    /// An answer to SETUP.
    pub(super) fn set_up(&mut self, now: Instant, response: &Response) {
        if self.step != Step::SettingUp {
            return;
        }
        let Some(setup) = self.setups.pop_front() else { return };
        if is_success(response) {
            self.granted(&setup, response);
        } else if response.status == 461 && self.is_udp() && self.config.fall_back {
            return self.fall_back(now, setup);
        } else if matches!(setup.role, Role::Asf(_)) || (self.setups.is_empty() && self.session.is_none()) {
            // Of a camera's streams some may be refused, and of Windows Media the repetitions.
            return self.refused("SETUP", response);
        }
        if self.setups.is_empty() {
            self.all_set_up(now);
        } else {
            self.ask(now, Errand::Setup);
        }
    }

    /// UDP is refused. Where nothing was set up yet, the same connection will do.
    fn fall_back(&mut self, now: Instant, setup: Setup) {
        if self.session.is_some() {
            return self.leave_udp(now, "the server refuses it");
        }
        self.event(ClientEvent::UdpRefused { reason: "the server refuses it" });
        self.transport = ClientTransport::Tcp;
        self.setups.push_front(setup);
        self.setups.retain(|setup| setup.role != Role::Rtx);
        let specs: Vec<Spec> = (0..self.setups.len()).map(|index| self.media_spec(index)).collect();
        for (setup, spec) in self.setups.iter_mut().zip(specs) {
            let is_asf = matches!(setup.role, Role::Asf(_));
            let shared = Spec { interleaved: Some((0, Some(1))), ..spec.clone() };
            setup.spec = if is_asf { shared } else { spec };
        }
        self.ask(now, Errand::Setup);
    }

    /// Takes what the server says about a stream; what it does not say, or says wrongly, is as we asked.
    fn granted(&mut self, setup: &Setup, response: &Response) {
        let told = Spec::parse_all(response.headers.all("Transport")).ok().and_then(|specs| specs.into_iter().next());
        let told = told.unwrap_or_else(|| setup.spec.clone());
        let session = self.session(response);
        match setup.role {
            Role::Rtx => {
                let (first, second) = told.server_port.unwrap_or((RESEND_PORTS.0, None));
                session.resend_ports = Some((first, second.unwrap_or(first.saturating_add(1))));
                session.resend_ssrc = told.ssrc;
                let asks = told.ssrc.is_some();
                self.window.set_asks(asks);
            }
            Role::Asf(stream) => {
                session.streams.insert(stream);
                session.media(&told, &setup.spec);
            }
            Role::Plain => session.media(&told, &setup.spec),
        }
    }

    /// An answer to SETUP of one stream more.
    pub(super) fn added(&mut self, stream: u8, response: &Response) {
        let asked = self.media_spec(0);
        let told = Spec::parse_all(response.headers.all("Transport")).ok().and_then(|specs| specs.into_iter().next());
        let session = self.session(response);
        session.streams.insert(stream);
        session.media(&told.unwrap_or_else(|| asked.clone()), &asked);
    }

    fn all_set_up(&mut self, now: Instant) {
        if let (ClientTransport::Udp { media, resends }, Some(session)) = (self.transport, &self.session) {
            let openers = [(media.0, session.media_port), (resends.0, session.resend_ports.map(|(first, _)| first))];
            for (from, to) in openers {
                if let Some(to) = to.filter(|to| *to != 0) {
                    self.outputs.push_back(ClientOutput::DatagramTo { from, to, bytes: OPENER.to_vec().into() });
                }
            }
        }
        self.go_on(now);
    }
}

impl super::Session {
    fn media(&mut self, told: &Spec, asked: &Spec) {
        match asked.lower {
            Lower::Tcp => {
                let channel = told.interleaved.or(asked.interleaved).map_or(0, |(first, _)| first);
                if !self.channels.contains(&channel) {
                    self.channels.push(channel);
                }
            }
            Lower::Udp => self.media_port = told.server_port.map(|(first, _)| first).or(self.media_port),
        }
    }
}
