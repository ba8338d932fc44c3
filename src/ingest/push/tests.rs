use super::*;
use crate::asf::{Event, Reader};
use crate::ingest::playlist::Medium;
use crate::ingest::{demo, stop, testing};
use crate::settings::{Access, Source};
use crate::text::Users;
use std::net::TcpListener;

mod encoders;

/// A relay with the publishing point `cam`, and connections to it.
struct Bench {
    gate: Arc<Gate>,
    encoders: Arc<Encoders>,
    relay: Arc<crate::relay::Relay>,
    collector: Arc<testing::Collector>,
    stopper: stop::Stopper,
    stop: Stop,
}

impl Bench {
    fn new() -> Self {
        Self::over(testing::collecting(&[("cam", Source::Push), ("demo", Source::Demo)]))
    }

    fn over((relay, collector): (Arc<crate::relay::Relay>, Arc<testing::Collector>)) -> Self {
        let users = Users::parse(&Users::line("cam", "studio", "secret").unwrap(), "users").unwrap();
        let gate = Arc::new(Gate::new(now(), Access::default(), Arc::clone(&relay), Some(users), [5; 32]));
        let (stopper, stop) = stop::channel();
        let encoders = Encoders::new(Arc::clone(&gate));
        Self { gate, encoders, relay, collector, stopper, stop }
    }

    /// A client whose connection is being served, `head` being what a shard has read already.
    async fn connect(&self, head: &[u8]) -> TcpStream {
        self.connect_from(None, head).await
    }

    /// The same as if from another machine.
    async fn connect_from(&self, from: Option<&str>, head: &[u8]) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let client = TcpStream::connect(local).await.unwrap();
        let (stream, peer) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let peer = from.map_or(peer, |from| from.parse().unwrap());
        let handed = Handed { stream, peer, local, head: head.to_vec(), speaks: crate::shard::Speaks::Http };
        tokio::spawn(serve(handed, Arc::clone(&self.gate), Arc::clone(&self.encoders), self.stop.clone()));
        client
    }

    /// Sends bytes and reads until the server closes.
    async fn exchange(&self, bytes: &[u8]) -> String {
        let mut client = self.connect(b"").await;
        client.write_all(bytes).await.unwrap();
        read_all(&mut client).await
    }
}

async fn read_all(client: &mut TcpStream) -> String {
    let mut response = Vec::new();
    client.read_to_end(&mut response).await.unwrap();
    String::from_utf8(response).unwrap()
}

/// The header of the demo, and so many of its packets: less than the lead, so that nothing is held back.
fn asf(packets: usize) -> Vec<u8> {
    let Medium::BuiltIn(bytes) = demo::medium() else { panic!() };
    let mut reader = Reader::new();
    reader.feed(bytes);
    let Some(Ok(Event::Header(header))) = reader.poll() else { panic!() };
    bytes[..header.bytes().len() + 50 + packets * header.packet_size()].to_vec()
}

fn put(fields: &str, body: &[u8]) -> Vec<u8> {
    let mut request =
        format!("PUT /publish/cam HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n{fields}\r\n", body.len()).into_bytes();
    request.extend_from_slice(body);
    request
}

#[tokio::test]
async fn a_stream_with_a_length() {
    let bench = Bench::new();
    let response = bench.exchange(&put("Connection: close\r\n", &asf(20))).await;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert_eq!((bench.collector.packets().len(), bench.collector.generations(), bench.collector.losses()), (20, 1, 1));
}

#[tokio::test]
async fn many_puts_are_one_stream() {
    let bench = Bench::new();
    let whole = asf(6);
    let (header, packets) = whole.split_at(whole.len() - 6 * 1400);
    let mut client = bench.connect(b"").await;
    client.write_all(&put("", header)).await.unwrap();
    for packet in packets.chunks(1400) {
        client.write_all(&put("", packet)).await.unwrap();
    }
    client.shutdown().await.unwrap();
    let responses = read_all(&mut client).await;
    assert_eq!(responses.matches("HTTP/1.1 200 OK").count(), 7, "{responses}");
    assert_eq!((bench.collector.packets().len(), bench.collector.generations(), bench.collector.losses()), (6, 1, 1));
}

#[tokio::test]
async fn what_a_shard_has_read_comes_first() {
    let bench = Bench::new();
    let request = put("Connection: close\r\n", &asf(3));
    for cut in [1, 30, 200, 3000] {
        let mut client = bench.connect(&request[..cut]).await;
        client.write_all(&request[cut..]).await.unwrap();
        assert!(read_all(&mut client).await.starts_with("HTTP/1.1 200 OK\r\n"), "{cut}");
    }
    assert_eq!(bench.collector.packets().len(), 12);
}

#[tokio::test]
async fn refusals_are_seen_by_the_sender() {
    let bench = Bench::new();
    let big = asf(100);
    for (request, status) in [
        (put("Connection: close\r\n", b"GIF89a, not ASF at all"), "415"),
        (put("Connection: close\r\n", &big[..200]), "415"),
        (put("Origin: http://evil.example\r\n", &big), "403"),
        (put("Authorization: Basic Y2FtOndyb25n\r\n", &big), "401"),
        (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(), "404"),
        (b"PUT /publish/nobody HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n12345".to_vec(), "404"),
        (b"PUT /publish/demo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n12345".to_vec(), "403"),
        (b"PUT /publish/cam HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(), "411"),
    ] {
        let mut client = bench.connect(b"").await;
        // The server may close while it is being written to; what matters is the response.
        let _ = client.write_all(&request[..request.len().min(8 << 10)]).await;
        client.shutdown().await.unwrap();
        let response = read_all(&mut client).await;
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {response}");
        assert!(response.trim_end().ends_with('.') && response.contains("Connection: close\r\n"), "{response}");
    }
    assert!(bench.collector.packets().is_empty());
}

#[tokio::test(start_paused = true)]
async fn guessing_passwords_takes_long() {
    let bench = Bench::new();
    let mut client = bench.connect(b"").await;
    let start = Instant::now();
    // Without a body the connection could be kept for ever.
    let probe = |fields: &str| format!("PUT /publish/cam HTTP/1.1\r\nHost: h\r\nOrigin: o\r\nContent-Length: 0\r\n{fields}\r\n");
    let wrong = probe("Authorization: Basic Y2FtOndyb25n\r\n");
    client.write_all(wrong.repeat(4).as_bytes()).await.unwrap();
    let responses = read_all(&mut client).await;
    assert_eq!(responses.matches("HTTP/1.1 401 ").count(), 3, "{responses}");
    assert_eq!(responses.matches("Connection: close\r\n").count(), 1, "{responses}");
    let took = start.elapsed();
    assert!((3..5).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test]
async fn one_publisher_a_name() {
    let bench = Bench::new();
    let mut first = bench.connect(b"").await;
    first
        .write_all(b"POST /publish/cam HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await
        .unwrap();
    let mut interim = [0; 25];
    first.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    let response = bench.exchange(b"POST /publish/cam HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 409 Conflict\r\n") && response.contains("Retry-After: 2\r\n"), "{response}");
    // The first is not disturbed.
    let body = asf(2);
    first.write_all(format!("{:x}\r\n", body.len()).as_bytes()).await.unwrap();
    first.write_all(&body).await.unwrap();
    first.write_all(b"\r\n0\r\n\r\n").await.unwrap();
    first.shutdown().await.unwrap();
    assert!(read_all(&mut first).await.starts_with("HTTP/1.1 200 OK"));
    assert_eq!(bench.collector.packets().len(), 2);
    assert!(bench.relay.publish(now(), "cam", PublisherId::Local).is_ok());
}

#[tokio::test]
async fn a_stop_is_told_to_publishers() {
    let bench = Bench::new();
    let mut client = bench.connect(&put("Connection: close\r\n", &asf(2))[..3000]).await;
    client.write_all(b"more").await.unwrap();
    // Served so far that the source is there.
    while bench.collector.packets().is_empty() {
        tokio::task::yield_now().await;
    }
    let Bench { stopper, stop, .. } = bench;
    drop(stop);
    let (response, ()) = tokio::join!(read_all(&mut client), stopper.stop());
    assert!(response.starts_with("HTTP/1.1 503 Service Unavailable\r\n") && response.contains("being stopped"), "{response}");
}

#[tokio::test]
async fn a_connection_that_breaks_gives_the_name_back() {
    let bench = Bench::new();
    let client = bench.connect(&put("", &asf(5))[..6000]).await;
    while bench.collector.packets().is_empty() {
        tokio::task::yield_now().await;
    }
    drop(client);
    while bench.collector.losses() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(bench.relay.publish(now(), "cam", PublisherId::Local).is_ok());
}
