//! Single datagrams to one viewer: packets sent again, pieces of the header, and what its path takes.

use std::io::IoSlice;

use super::broadcast::Link;
use super::conn::Place;
use super::seat::Title;
use super::state::State;
use crate::mms::media::HEAD_LEN;
use crate::settings::Oversize;

impl State {
    /// Sends a packet again, byte for byte as the first time, to the leased port.
    pub(super) fn resend(&mut self, key: usize, sequence: u32) {
        let result = self.try_resend(key, sequence).unwrap_or("unknown");
        self.counters.resent(result, 1);
    }

    fn try_resend(&mut self, key: usize, sequence: u32) -> Option<&'static str> {
        let conn = self.conns.get(key)?;
        let (route, opened) = (conn.route?, conn.opened.as_ref()?);
        let broadcast = self.broadcasts.get(opened.channel)?;
        let point = opened.point.id();
        let (next, track) = match &conn.place {
            Place::Seat(index) => (&broadcast.viewers.hot(*index)?.next, &broadcast.viewers.cold(*index)?.track),
            Place::OnDemand(seat) => (&seat.viewer.hot.next, &seat.viewer.cold.track),
            Place::Parked(viewer) => (&viewer.hot.next, &viewer.cold.track),
            Place::Nowhere | Place::Download(_) => return None,
        };
        let sent = track.lookup(next, sequence)?;
        let mut datagram = Vec::new();
        let mut frame = |number: u64, packet: &[u8]| {
            datagram.extend_from_slice(&sent.head_of(number, packet.len()).bytes());
            datagram.extend_from_slice(packet);
        };
        match &opened.title {
            Some(Title::File(file)) => {
                file.again(sent.packet, conn.selection, frame);
                crate::asf::padding::settle(datagram.get_mut(HEAD_LEN..).unwrap_or_default());
            }
            Some(Title::Relayed(relayed)) => relayed.again(sent.packet, frame),
            None => {
                let cut = self.tagged(point, sent.variant).and_then(|channel| self.broadcasts.get(channel));
                let Some((batch, index)) = cut.and_then(|cut| cut.window.packet(sent.packet)) else { return Some("expired") };
                frame(batch.packets.get(index)?.number, batch.packet(index)?);
            }
        }
        if datagram.is_empty() {
            return Some("expired");
        }
        let stride = datagram.len();
        let outcome = self.origins.send(&route, &[IoSlice::new(&datagram)], stride);
        // What single datagrams tell of the path holds for media too.
        if outcome.too_big {
            self.fragment(key);
        }
        self.tally.udp_calls += u64::from(outcome.calls);
        self.tally.icmp_pending |= outcome.errors_pending;
        if outcome.bytes != stride || outcome.failed != 0 {
            return Some("failed");
        }
        self.tally.udp_packets += 1;
        self.tally.udp_bytes += stride as u64;
        Some("sent")
    }

    /// What an engine makes: a fragment of the header over an MMS funnel, a test of a path. Nobody looks after a lost one here.
    pub(super) fn send_datagram(&mut self, key: usize, packet: &[u8]) {
        let Some(conn) = self.conns.get(key) else { return };
        let Some(route) = conn.resend_path.as_ref().map(|path| &path.route).or(conn.route.as_ref()) else { return };
        let sent = self.origins.send(route, &[IoSlice::new(packet)], packet.len());
        self.tally.udp_calls += u64::from(sent.calls);
        self.tally.icmp_pending |= sent.errors_pending;
        if sent.too_big {
            self.fragment(key);
        }
    }

    /// Datagrams of this session are too big for a network on the way: they go as IP fragments from here on.
    pub(super) fn fragment(&mut self, key: usize) {
        if self.context.settings.udp.oversize == Oversize::Refuse {
            return;
        }
        let Some(conn) = self.conns.get_mut(key) else { return };
        if let Some(route) = &mut conn.route {
            route.fragmented = true;
        }
        if let Place::OnDemand(seat) = &mut conn.place
            && let Link::Udp(route) = &mut seat.viewer.hot.link
        {
            route.fragmented = true;
        }
        if let (Some(opened), Place::Seat(index)) = (&conn.opened, &conn.place)
            && let Some(broadcast) = self.broadcasts.get_mut(opened.channel)
            && let Some(Link::Udp(route)) = broadcast.viewers.hot_mut(*index).map(|viewer| &mut viewer.link)
        {
            route.fragmented = true;
        }
    }
}
