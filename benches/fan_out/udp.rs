//! UDP viewers, and the ways to send them a batch.

use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, sendmmsg, sendmsg, setsockopt, sockopt};
use wmrelay::mms::media::{self, HEAD_LEN};
use wmrelay::rtsp::media::Carriage;
use wmrelay::shard::broadcast::Framing;
use wmrelay::shard::origins::Origins;
use wmrelay::shard::udp::{Route, UdpPort};

use crate::ours;
use crate::packets::{Numbers, PACKET_SIZE, Random, Run, STRIDE, image, numbers, runs};
use crate::rounds::Technique;

/// Viewers that one `sendmmsg` serves.
const MESSAGES: usize = 16;

/// Datagrams that fill a socket's buffer many times.
const FILL: usize = 256;

/// What becomes of a segmented send on the viewers' side; sockets are bound and never read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// The system cuts it, as for an interface that cannot: so it is for ordinary players on loopback.
    Cut,
    /// The sockets take it whole (`UDP_GRO`): what is left is the sender's share, as for an interface that cuts by itself.
    Whole,
}

/// Where we send from.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Sockets of viewers that nobody reads, and the one that we send on.
pub(crate) struct Receivers {
    _sockets: Vec<UdpSocket>,
    /// Ours.
    port: Arc<UdpPort>,
    /// The same, as a shard knows it.
    pub(crate) origins: Origins,
    /// How to reach each viewer.
    pub(crate) routes: Vec<Route>,
    /// Each viewer's own numbers.
    pub(crate) numbers: Vec<Numbers>,
}

impl Receivers {
    /// That many viewers on loopback, their buffers full: from here on every send costs the same.
    pub(crate) fn new(count: usize, delivery: Delivery) -> Rc<Self> {
        let port = UdpPort::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 1472).expect("a UDP port");
        let sockets: Vec<UdpSocket> = (0..count).map(|_| open()).collect();
        if delivery == Delivery::Whole {
            for socket in &sockets {
                setsockopt(socket, sockopt::UdpGroSegment, &true).expect("Linux 5.0");
            }
        }
        let (port, mut origins) = (Arc::new(port), Origins::default());
        let origin = origins.id(&port, HERE).expect("the first");
        let route = |socket: &UdpSocket| {
            let destination = socket.local_addr().expect("bound").into();
            Route { destination, origin, segmented: true, fragmented: false }
        };
        let routes = sockets.iter().map(route).collect();
        let receivers = Self { _sockets: sockets, port, origins, routes, numbers: numbers(count) };
        let (plain, datagram) = (open(), [0; STRIDE]);
        for route in &receivers.routes {
            (0..FILL).for_each(|_| drop(plain.send_to(&datagram, SocketAddr::from(route.destination))));
        }
        Rc::new(receivers)
    }

    fn viewers(&self) -> impl Iterator<Item = (&Route, Numbers)> {
        self.routes.iter().zip(self.numbers.iter().copied())
    }

    /// The addresses as nix takes them.
    fn addresses(&self) -> Vec<Option<SockaddrIn>> {
        let address = |route: &Route| match SocketAddr::from(route.destination) {
            SocketAddr::V4(address) => Some(SockaddrIn::from(address)),
            SocketAddr::V6(_) => None,
        };
        self.routes.iter().map(address).collect()
    }

    /// One segmented send of packets of one size.
    fn send(&self, route: &Route, image: &[u8]) {
        self.port.send(HERE, route, &[IoSlice::new(image)], STRIDE);
    }
}

fn open() -> UdpSocket {
    UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).expect("descriptors and ports for the viewers")
}

/// Those that every count of viewers is measured with.
pub(crate) fn techniques(receivers: &Rc<Receivers>, packets: usize) -> Vec<Technique> {
    let numbers = Some(&receivers.numbers[..]);
    let rtp = Framing::Rtp(Carriage::Datagrams);
    vec![
        naive(receivers, "naive", &vec![PACKET_SIZE; packets]),
        ours::over_udp("ours", Framing::Mms, numbers, receivers, packets),
        ours::over_udp("ours, RTP", rtp, None, receivers, packets),
        ours::over_udp("ours, RTP, own", rtp, numbers, receivers, packets),
        bare(receivers, packets),
    ]
}

/// All others that were thought of.
pub(crate) fn alternatives(receivers: &Rc<Receivers>, packets: usize) -> Vec<Technique> {
    let one = Numbers { incarnation: 4, phase: 0 };
    vec![
        stamped(receivers, packets),
        copied(receivers, packets),
        gathered(receivers, packets),
        image_per_group(receivers, "image per group", receivers.numbers.clone(), packets),
        image_per_group(receivers, "one group", vec![one; receivers.numbers.len()], packets),
        connected(receivers, packets),
        many_messages(receivers, "sendmmsg", false, packets),
        many_messages(receivers, "sendmmsg, stamped", true, packets),
    ]
}

/// A head put before each packet for each viewer, one `sendto` each.
fn naive(receivers: &Rc<Receivers>, name: &'static str, sizes: &[usize]) -> Technique {
    let (receivers, plain, image, sizes) = (Rc::clone(receivers), open(), image(sizes), sizes.to_vec());
    let mut datagram = [0; STRIDE];
    Technique::new(name, move || {
        for (route, numbers) in receivers.viewers() {
            let mut rest = &image[..];
            for (index, size) in sizes.iter().enumerate() {
                let (framed, behind) = rest.split_at(size + HEAD_LEN);
                let datagram = &mut datagram[..framed.len()];
                datagram.copy_from_slice(framed);
                media::stamp(datagram, STRIDE, numbers.incarnation, numbers.phase + index as u32);
                let _ = plain.send_to(datagram, SocketAddr::from(route.destination));
                rest = behind;
            }
        }
    })
}

/// The same bytes to everybody from one buffer, without any bookkeeping.
fn bare(receivers: &Rc<Receivers>, packets: usize) -> Technique {
    let (receivers, image) = (Rc::clone(receivers), image(&vec![PACKET_SIZE; packets]));
    Technique::new("bare", move || receivers.routes.iter().for_each(|route| receivers.send(route, &image)))
}

/// Copies packet by packet, as packets are framed.
fn copy(image: &[u8], to: &mut [u8]) {
    for (framed, place) in image.chunks(STRIDE).zip(to.chunks_mut(STRIDE)) {
        place.copy_from_slice(framed);
    }
}

/// One image for all, two bytes of each head stamped for each viewer: ours without its bookkeeping.
fn stamped(receivers: &Rc<Receivers>, packets: usize) -> Technique {
    let (receivers, mut image) = (Rc::clone(receivers), image(&vec![PACKET_SIZE; packets]));
    Technique::new("stamped", move || {
        for (route, numbers) in receivers.viewers() {
            media::stamp(&mut image, STRIDE, numbers.incarnation, numbers.phase);
            receivers.send(route, &image);
        }
    })
}

/// Heads and packets copied into a buffer for each viewer.
fn copied(receivers: &Rc<Receivers>, packets: usize) -> Technique {
    let (receivers, image) = (Rc::clone(receivers), image(&vec![PACKET_SIZE; packets]));
    let mut scratch = image.clone();
    Technique::new("copied", move || {
        for (route, numbers) in receivers.viewers() {
            copy(&image, &mut scratch);
            media::stamp(&mut scratch, STRIDE, numbers.incarnation, numbers.phase);
            receivers.send(route, &scratch);
        }
    })
}

/// Heads in an array of their own, two buffers a packet.
fn gathered(receivers: &Rc<Receivers>, packets: usize) -> Technique {
    let (receivers, plain, addresses) = (Rc::clone(receivers), open(), receivers.addresses());
    let image = image(&vec![PACKET_SIZE; packets]);
    let segment = u16::try_from(STRIDE).expect("a datagram");
    let mut heads: Vec<u8> = image.chunks(STRIDE).flat_map(|framed| &framed[..HEAD_LEN]).copied().collect();
    Technique::new("gathered", move || {
        for (address, numbers) in addresses.iter().zip(&receivers.numbers) {
            media::stamp(&mut heads, HEAD_LEN, numbers.incarnation, numbers.phase);
            let mut parts = Vec::with_capacity(2 * packets);
            for (head, framed) in heads.chunks(HEAD_LEN).zip(image.chunks(STRIDE)) {
                parts.extend([IoSlice::new(head), IoSlice::new(&framed[HEAD_LEN..])]);
            }
            let control = [ControlMessage::UdpGsoSegments(&segment)];
            let control = if packets > 1 { &control[..] } else { &[] };
            sendmsg(plain.as_raw_fd(), &parts, control, MsgFlags::empty(), address.as_ref()).expect("loopback takes it");
        }
    })
}

/// An image for all viewers of the same numbers, made anew for each batch.
fn image_per_group(receivers: &Rc<Receivers>, name: &'static str, numbers: Vec<Numbers>, packets: usize) -> Technique {
    let (receivers, image) = (Rc::clone(receivers), image(&vec![PACKET_SIZE; packets]));
    let mut groups: Vec<Numbers> = Vec::new();
    let mut group_of = Vec::new();
    for own in &numbers {
        let known = groups.iter().position(|group| group == own);
        group_of.push(known.unwrap_or(groups.len()));
        if known.is_none() {
            groups.push(*own);
        }
    }
    // Memory for the images stays: what counts is filling them.
    let mut images = vec![image.clone(); groups.len()];
    Technique::new(name, move || {
        for (own, numbers) in images.iter_mut().zip(&groups) {
            copy(&image, own);
            media::stamp(own, STRIDE, numbers.incarnation, numbers.phase);
        }
        for (route, group) in receivers.routes.iter().zip(&group_of) {
            receivers.send(route, &images[*group]);
        }
    })
}

/// As bare, on a connected socket for each viewer that cuts at one size for good.
fn connected(receivers: &Rc<Receivers>, packets: usize) -> Technique {
    let connect = |route: &Route| {
        let socket = open();
        socket.connect(SocketAddr::from(route.destination)).expect("an address on loopback");
        setsockopt(&socket, sockopt::UdpGsoSegment, &i32::try_from(STRIDE).expect("small")).expect("Linux 4.18");
        socket
    };
    let sockets: Vec<UdpSocket> = receivers.routes.iter().map(connect).collect();
    let (_receivers, image) = (Rc::clone(receivers), image(&vec![PACKET_SIZE; packets]));
    Technique::new("connected", move || {
        let _ = &_receivers;
        sockets.iter().for_each(|socket| drop(socket.send(&image)));
    })
}

/// A segmented message each for some viewers in one `sendmmsg`: the same bytes to all, or an image a message to stamp.
fn many_messages(receivers: &Rc<Receivers>, name: &'static str, stamped: bool, packets: usize) -> Technique {
    let (receivers, plain, addresses) = (Rc::clone(receivers), open(), receivers.addresses());
    let images = if stamped { MESSAGES } else { 1 };
    let mut images = vec![image(&vec![PACKET_SIZE; packets]); images];
    let mut messages = MultiHeaders::<SockaddrIn>::preallocate(MESSAGES, Some(cmsg_space!(u16)));
    let segment = u16::try_from(STRIDE).expect("a datagram");
    Technique::new(name, move || {
        for (addresses, numbers) in addresses.chunks(MESSAGES).zip(receivers.numbers.chunks(MESSAGES)) {
            if stamped {
                for (image, numbers) in images.iter_mut().zip(numbers) {
                    media::stamp(image, STRIDE, numbers.incarnation, numbers.phase);
                }
            }
            let parts: [_; MESSAGES] = std::array::from_fn(|index| [IoSlice::new(&images[index % images.len()])]);
            let control = [ControlMessage::UdpGsoSegments(&segment)];
            sendmmsg(plain.as_raw_fd(), &mut messages, &parts, addresses, control, MsgFlags::empty()).expect("loopback takes it");
        }
    })
}

/// Packets that are not all of one size, against a batch of equal ones.
pub(crate) fn ragged(receivers: &Rc<Receivers>, packets: usize) -> Vec<Technique> {
    let mut random = Random(7);
    let mut last_shorter = vec![PACKET_SIZE; packets];
    last_shorter[packets - 1] = PACKET_SIZE / 2;
    let frames: Vec<usize> = (1..=packets).map(|n| if n.is_multiple_of(4) { PACKET_SIZE / 2 } else { PACKET_SIZE }).collect();
    let any: Vec<usize> = (0..packets).map(|_| PACKET_SIZE - random.next() as usize % 400).collect();
    let growing: Vec<usize> = (0..packets).map(|n| PACKET_SIZE - 4 * (packets - n)).collect();
    vec![
        bare(receivers, packets),
        send_a_run(receivers, "last shorter", &last_shorter),
        send_a_run(receivers, "every 4th shorter", &frames),
        send_a_run(receivers, "any sizes", &any),
        send_a_run(receivers, "growing", &growing),
        sendmmsg_of_runs(receivers, &growing),
        naive(receivers, "growing, naive", &growing),
    ]
}

/// A send for each run that the sizes allow.
fn send_a_run(receivers: &Rc<Receivers>, name: &'static str, sizes: &[usize]) -> Technique {
    let (receivers, image, runs) = (Rc::clone(receivers), image(sizes), runs(sizes));
    Technique::new(name, move || {
        for route in &receivers.routes {
            for Run { bytes, stride } in &runs {
                receivers.port.send(HERE, route, &[IoSlice::new(&image[bytes.clone()])], *stride);
            }
        }
    })
}

/// All packets of one viewer, each a message, in one `sendmmsg`.
fn sendmmsg_of_runs(receivers: &Rc<Receivers>, sizes: &[usize]) -> Technique {
    let (receivers, plain, image, runs) = (Rc::clone(receivers), open(), image(sizes), runs(sizes));
    let addresses: Vec<_> = receivers.addresses().into_iter().map(|address| vec![address; runs.len()]).collect();
    let mut messages = MultiHeaders::<SockaddrIn>::preallocate(runs.len(), None);
    Technique::new("growing, sendmmsg", move || {
        for addresses in &addresses {
            let parts: Vec<_> = runs.iter().map(|run| [IoSlice::new(&image[run.bytes.clone()])]).collect();
            sendmmsg(plain.as_raw_fd(), &mut messages, &parts, addresses, [], MsgFlags::empty()).expect("loopback takes it");
        }
    })
}
