//! TCP viewers, and the ways to write them a batch.

use std::cell::Cell;
use std::io::IoSlice;
use std::net::{Ipv4Addr, TcpListener};
use std::rc::Rc;

use nix::sys::uio::writev;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use wmrelay::http::wrap::Wrap;
use wmrelay::mms::media::{self, HEAD_LEN};
use wmrelay::rtsp::media::Carriage;
use wmrelay::shard::broadcast::Framing;

use crate::drain::Drain;
use crate::ours;
use crate::packets::{Numbers, PACKET_SIZE, STRIDE, image, numbers};
use crate::rounds::{Technique, timed};

/// Connections over loopback whose other ends a thread reads.
pub(crate) struct Connections {
    /// Our ends.
    pub(crate) streams: Vec<Rc<TcpStream>>,
    /// Each viewer's own numbers.
    pub(crate) numbers: Vec<Numbers>,
    drain: Drain,
    written: Cell<u64>,
    // Behind the streams, which leave it when they are dropped.
    _runtime: Runtime,
}

impl Connections {
    /// That many connections that have NODELAY, ready for writing.
    pub(crate) fn new(count: usize) -> Rc<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("bound");
        let (mut streams, mut others) = (Vec::new(), Vec::new());
        for _ in 0..count {
            others.push(std::net::TcpStream::connect(address).expect("descriptors for the viewers"));
            let (stream, _) = listener.accept().expect("it waits");
            stream.set_nodelay(true).expect("TCP");
            stream.set_nonblocking(true).expect("a socket");
            let _inside = runtime.enter();
            streams.push(Rc::new(TcpStream::from_std(stream).expect("a runtime")));
        }
        // tokio tries a write only once epoll has said that there is room.
        runtime.block_on(async {
            for stream in &streams {
                stream.writable().await.expect("it stands");
            }
        });
        let (numbers, drain) = (numbers(count), Drain::new(others));
        Rc::new(Self { streams, numbers, drain, written: Cell::new(0), _runtime: runtime })
    }

    /// Waits until the viewers have these bytes, and all that was written before.
    pub(crate) fn wait_until_read(&self, written: u64) {
        self.written.set(self.written.get() + written);
        self.drain.wait_for(self.written.get());
    }

    /// A technique that writes one viewer's batch of `bytes`; its rounds end when the viewers have read.
    fn technique(
        self: &Rc<Self>,
        name: &'static str,
        bytes: usize,
        mut write: impl FnMut(&TcpStream, Numbers) + 'static,
    ) -> Technique {
        let connections = Rc::clone(self);
        Technique::partly_timed(name, move |count| {
            let took = timed(|| {
                for _ in 0..count {
                    connections.streams.iter().zip(&connections.numbers).for_each(|(stream, numbers)| write(stream, *numbers));
                }
            });
            connections.wait_until_read((count * connections.streams.len() * bytes) as u64);
            took
        })
    }
}

/// All ways to write a batch.
pub(crate) fn techniques(connections: &Rc<Connections>, packets: usize) -> Vec<Technique> {
    let framed = image(&vec![PACKET_SIZE; packets]);
    let bytes = framed.len();
    let whole = "the system has room for a batch once the viewers have read";

    // A head put before each packet for each viewer, one write each.
    let (own, mut packet) = (framed.clone(), [0; STRIDE]);
    let naive = connections.technique("naive", bytes, move |stream, numbers| {
        for (index, framed) in own.chunks(STRIDE).enumerate() {
            packet.copy_from_slice(framed);
            media::stamp(&mut packet, STRIDE, numbers.incarnation, numbers.phase + index as u32);
            assert_eq!(writev(stream, &[IoSlice::new(&packet)]), Ok(STRIDE), "{whole}");
        }
    });

    // The same bytes to everybody in one write, straight to the descriptor.
    let own = framed.clone();
    let bare = connections.technique("bare", bytes, move |stream, _| {
        assert_eq!(writev(stream, &[IoSlice::new(&own)]), Ok(bytes), "{whole}");
    });

    // The same by way of tokio, which looks at what it knows of the socket first.
    let own = framed.clone();
    let tokio = connections.technique("tokio", bytes, move |stream, _| {
        assert_eq!(stream.try_write_vectored(&[IoSlice::new(&own)]).ok(), Some(bytes), "{whole}");
    });

    // Heads in an array of their own, two buffers a packet.
    let mut heads: Vec<u8> = framed.chunks(STRIDE).flat_map(|framed| &framed[..HEAD_LEN]).copied().collect();
    let gathered = connections.technique("gathered", bytes, move |stream, numbers| {
        media::stamp(&mut heads, HEAD_LEN, numbers.incarnation, numbers.phase);
        let mut parts = Vec::with_capacity(2 * packets);
        for (head, framed) in heads.chunks(HEAD_LEN).zip(framed.chunks(STRIDE)) {
            parts.extend([IoSlice::new(head), IoSlice::new(&framed[HEAD_LEN..])]);
        }
        assert_eq!(writev(stream, &parts), Ok(bytes), "{whole}");
    });
    let [ours, framed, chunked, raw, rtp] = [
        ("ours", Framing::Mms),
        ("ours, HTTP framed", Framing::Http(Wrap::Framed)),
        ("ours, HTTP chunked", Framing::Http(Wrap::Chunked)),
        ("ours, HTTP raw", Framing::Http(Wrap::Raw)),
        ("ours, interleaved", Framing::Rtp(Carriage::Interleaved { channel: 0 })),
    ]
    .map(|(name, framing)| ours::over_tcp(name, framing, connections, packets));
    vec![naive, ours, bare, framed, chunked, raw, rtp, tokio, gathered]
}
