//! GET_PARAMETER and SET_PARAMETER: what keeps a session alive, what players report, the tests of their path.

use std::time::Instant;

use super::describe::cache_control;
use super::{Ask, Connection, Output, Request};
use crate::asf::Selection;
use crate::rtsp::recovery;
use crate::rtsp::transport::{SwitchEntry, Thinning};
use crate::rtsp::sdp::Control;

/// Longest report that is kept, bytes.
const LOG_BOUND: usize = 8 << 10;
/// Runs of the UDP test for one session. Source: the daemon's own, against reflection.
const MOST_TESTS: u8 = 3;

impl Connection {
    pub(super) fn get_parameter(&mut self, now: Instant, request: &Request) {
        if request.headers.is_type("application/x-rtsp-packetpair") {
            return self.packet_pair(now, request);
        }
        if request.headers.is_type("application/x-wms-getcontentinfo") {
            let content = self.opened.as_ref().map(|opened| opened.description.content);
            let value = content.map_or("no-cache", cache_control);
            return self.refuse_with(now, request, 200, &[("Cache-Control", value)]);
        }
        if request.body.is_empty() { self.accept(now, request) } else { self.refuse(now, request, 451) }
    }

    pub(super) fn set_parameter(&mut self, now: Instant, request: &Request) {
        let is = |kind: &str| request.headers.is_type(kind);
        if is("application/x-wms-streamswitch") {
            return self.switch(now, request);
        }
        if is("application/x-rtsp-udp-packetpair") {
            return self.udp_packet_pair(now, request);
        }
        if is("application/x-wms-Logplaystats") || is("application/x-wms-Logconnectstats") || is("application/x-wms-sendevent") {
            // What is in it is the player's own affair: no server has ever refused one.
            if is("application/x-wms-Logplaystats") {
                let text = String::from_utf8_lossy(request.body.get(..LOG_BOUND).unwrap_or(&request.body)).into_owned();
                self.report.log = Some(text);
            }
            return self.accept(now, request);
        }
        // What GStreamer makes of our own request at the end of the stream.
        if request.body.is_empty() || is("application/x-wms-extension-cmd") {
            self.reader.expects_echo(false);
            return self.accept(now, request);
        }
        self.refuse(now, request, 451);
    }

    /// Three packets of noise behind the answer, by whose arrival a player knows its bandwidth. Source: MS-RTSP 3.2.5.16.
    fn packet_pair(&mut self, now: Instant, request: &Request) {
        let mut response = self.reply(request, 200);
        response.header("Content-Type", "application/x-rtsp-packetpair");
        let head = response.head_for(recovery::TCP_PACKET_PAIR_LEN);
        let noise = Noise(self.next_id).bytes();
        let body = recovery::tcp_packet_pair(head.len(), &noise);
        let mut bytes = head.to_vec();
        bytes.extend_from_slice(&body);
        self.send(bytes.into());
        self.heard(now);
    }

    /// The same over UDP, which tells a player that it can be reached: never left out. Source: MS-RTSP 3.2.5.14.
    fn udp_packet_pair(&mut self, now: Instant, request: &Request) {
        let Some(session) = self.session.as_mut().filter(|session| session.resends) else {
            return self.refuse(now, request, 455);
        };
        if session.tests < MOST_TESTS {
            session.tests += 1;
            let variable = request.body.windows(13).any(|part| part.eq_ignore_ascii_case(b"variable-size"));
            let noise = Noise(self.next_id ^ u64::from(session.tests)).bytes();
            for packet in recovery::udp_packet_pair(self.client_id, 0, variable, &noise) {
                self.outputs.push_back(Output::Datagram(packet.into()));
            }
        }
        self.accept(now, request);
    }

    /// Source: MS-RTSP 2.2.7.10.
    fn switch(&mut self, now: Instant, request: &Request) {
        if let Err(status) = self.is_about_session(request) {
            return self.refuse(now, request, status);
        }
        let Some(entries) = SwitchEntry::parse_all(&request.body) else { return self.refuse(now, request, 400) };
        let (Some(session), Some(opened)) = (&mut self.session, &self.opened) else { return };
        let mut thinned = session.thinned;
        for entry in entries {
            let number = |stream: Option<u32>| stream.map(|stream| opened.tracks.find(&format!("stream={stream}")));
            let (old, new) = (number(entry.old), number(entry.new));
            if matches!(old, Some(None)) || matches!(new, Some(None)) {
                return self.refuse(now, request, 400);
            }
            let stream = |control: Option<Option<Control>>| match control.flatten() {
                Some(Control::Stream(stream)) => Some(stream),
                _ => None,
            };
            let (old, new) = (stream(old), stream(new));
            if entry.thinning == Thinning::Nothing {
                session.streams.retain(|(_, known)| Some(*known) != new && Some(*known) != old);
                continue;
            }
            if let (Some(old), Some(new)) = (old, new)
                && let Some(place) = session.streams.iter_mut().find(|(_, known)| *known == old)
            {
                // The URL of the first SETUP stays the stream's name.
                place.1 = new;
            }
            if let Some(new) = new {
                let one = [new].into_iter().collect();
                thinned = if entry.thinning == Thinning::KeyFrames { thinned.union(one) } else { thinned.difference(one) };
            }
        }
        session.thinned = thinned;
        let streams = session.streams.iter().map(|(_, stream)| *stream).collect();
        self.ask(Ask::Select(Selection { thinned, ..Selection::all(streams) }));
        self.accept(now, request);
    }
}

/// Bytes that no link on the way makes smaller. Nothing hangs on their being unknown.
struct Noise(u64);

impl Noise {
    fn bytes(mut self) -> Vec<u8> {
        let mut next = || {
            // xorshift64.
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        };
        (0..recovery::NOISE_LEN.div_ceil(8)).flat_map(|_| next().to_le_bytes()).collect()
    }
}
