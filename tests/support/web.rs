//! A web server of a few lines, for clients: it hears a request and answers what the test says.

use std::io::{Read as _, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::asf::Synthetic;

/// One connection for each request; it is closed behind the answer.
pub struct WebServer {
    /// Where it listens.
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl WebServer {
    /// Starts it on loopback. `answer` writes what a request head is answered; an error ends the connection.
    pub fn start(answer: impl Fn(&str, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (heard, stopped, answer) = (Arc::clone(&requests), Arc::clone(&stop), Arc::new(answer));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (heard, answer) = (Arc::clone(&heard), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream, &heard, &*answer));
            }
        });
        Self { address, requests, stop, thread: Some(thread) }
    }

    /// `SCHEME://127.0.0.1:PORT/PATH`.
    pub fn url(&self, scheme: &str, path: &str) -> String {
        format!("{scheme}://{}/{path}", self.address)
    }

    /// The heads of all requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(
    mut stream: TcpStream,
    heard: &Mutex<Vec<String>>,
    answer: &(dyn Fn(&str, &mut TcpStream) -> std::io::Result<()> + Send + Sync),
) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
    let _ = stream.set_write_timeout(Some(Duration::from_secs(10)));
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && head.len() < 1 << 16 {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    heard.lock().unwrap().push(head.clone());
    // The client may have gone.
    let _ = answer(&head, &mut stream);
}

/// A whole response.
pub fn respond(stream: &mut TcpStream, status: &str, fields: &str, body: &[u8]) -> std::io::Result<()> {
    let head =
        format!("HTTP/1.1 {status}\r\nServer: nginx\r\nContent-Length: {}\r\nConnection: close\r\n{fields}\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body].concat())
}

/// Header and packets for as long as somebody takes them, as an Icecast server has them.
pub fn endless(stream: &mut TcpStream) -> std::io::Result<()> {
    let synthetic = Synthetic { packet_size: 400, packets_per_second: 50 };
    stream.write_all(b"HTTP/1.0 200 OK\r\nServer: Icecast 2.4.4\r\nContent-Type: video/x-ms-asf\r\nicy-name: x\r\n\r\n")?;
    stream.write_all(&synthetic.header())?;
    let begin = Instant::now();
    for number in 0..u32::MAX {
        // The encoder's own clock: packets come in real time.
        while u128::from(synthetic.send_time_ms(number)) > begin.elapsed().as_millis() {
            std::thread::sleep(Duration::from_millis(5));
        }
        stream.write_all(&synthetic.packet(number))?;
    }
    Ok(())
}
