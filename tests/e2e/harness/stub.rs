//! A scriptable origin: a listener whose handler sees each request as raw bytes and
//! writes whatever it likes, right or wrong. Real sockets, one thread a connection.

use super::wire::{Broken, Framing, Head, Reader, reset_on_close};
use super::{PATIENCE, free_address};
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// One request as the origin saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub head: Head,
    /// Empty unless the handler read it.
    pub body: Vec<u8>,
    /// Which connection it came on, counted from 0.
    pub connection: usize,
    /// Which request of this origin it is, counted from 0.
    pub number: usize,
}

impl Seen {
    pub fn method(&self) -> &str {
        self.head.first_line.split(' ').next().unwrap_or_default()
    }

    pub fn target(&self) -> &str {
        self.head.first_line.split(' ').nth(1).unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// First and one-past-last byte of a plain `bytes=a-b` or `bytes=a-` of an object of `length`.
    pub fn range(&self, length: u64) -> Option<(u64, u64)> {
        let (first, last) = self
            .header("range")?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        if first.is_empty() {
            return Some((length.saturating_sub(last.parse().ok()?), length));
        }
        let end = if last.is_empty() {
            length
        } else {
            last.parse::<u64>().ok()? + 1
        };
        Some((first.parse().ok()?, end.min(length)))
    }
}

/// What becomes of the connection after a handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum After {
    KeepAlive,
    Close,
    Reset,
}

/// The origin's side of one connection, handed to the handler with each request.
pub struct Wire {
    reader: Reader,
    log: Arc<Mutex<Vec<Seen>>>,
    number: usize,
    stopping: Arc<AtomicBool>,
}

impl Wire {
    /// Sends bytes; an error means that the peer left.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.reader.stream.write_all(bytes.as_ref())
    }

    /// Sends a head of these lines and, when it has a body, `Content-Length` and the body.
    pub fn respond(&mut self, status: &str, headers: &[(&str, &str)], body: &[u8]) -> After {
        let mut out = format!("HTTP/1.1 {status}\r\n");
        for (name, value) in headers {
            out.push_str(&format!("{name}: {value}\r\n"));
        }
        if !status.starts_with("204") && !status.starts_with("304") {
            out.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        out.push_str("\r\n");
        let mut bytes = out.into_bytes();
        bytes.extend_from_slice(body);
        self.send(bytes).map_or(After::Close, |()| After::KeepAlive)
    }

    /// An error in S3's XML.
    pub fn refuse(&mut self, status: &str, code: &str) -> After {
        let xml = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>no</Message><RequestId>0</RequestId></Error>"
        );
        self.respond(
            status,
            &[("Content-Type", "application/xml")],
            xml.as_bytes(),
        )
    }

    /// The request's body, as its head frames it.
    pub fn read_body(&mut self, head: &Head) -> Result<Vec<u8>, Broken> {
        let framing = if head.is_chunked() {
            Framing::Chunked
        } else {
            Framing::Length(head.content_length().unwrap_or(0))
        };
        let mut body = Vec::new();
        self.reader
            .body(framing, |piece| body.extend_from_slice(piece))?;
        // In the log before any answer to it, so that who has the answer finds it there.
        self.log.lock().expect("the log")[self.number].body = body.clone();
        Ok(body)
    }

    pub fn reader(&mut self) -> &mut Reader {
        &mut self.reader
    }

    /// Answers nothing until the peer leaves or the test ends.
    pub fn hang(&mut self) -> After {
        let _ = self
            .reader
            .stream
            .set_read_timeout(Some(std::time::Duration::from_millis(50)));
        loop {
            match self.reader.first_byte() {
                Err(Broken::TimedOut { .. }) if !self.stopping.load(Ordering::Acquire) => {}
                _ => return After::Close,
            }
        }
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

type Handler = dyn Fn(&mut Seen, &mut Wire) -> After + Send + Sync;

/// A running stub; ends with its test.
pub struct Stub {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
}

impl Stub {
    pub fn start(handler: impl Fn(&mut Seen, &mut Wire) -> After + Send + Sync + 'static) -> Stub {
        Stub::start_at(free_address(), handler)
    }

    pub fn start_at(
        address: SocketAddr,
        handler: impl Fn(&mut Seen, &mut Wire) -> After + Send + Sync + 'static,
    ) -> Stub {
        let listener = TcpListener::bind(address).expect("the stub's port");
        let stub = Stub {
            address,
            seen: Arc::default(),
            connections: Arc::default(),
            open: Arc::default(),
            stopping: Arc::default(),
        };
        let handler: Arc<Handler> = Arc::new(handler);
        let (seen, connections, open) = (
            stub.seen.clone(),
            stub.connections.clone(),
            stub.open.clone(),
        );
        let stopping = stub.stopping.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopping.load(Ordering::Acquire) {
                    return;
                }
                let number = connections.fetch_add(1, Ordering::AcqRel);
                let (handler, seen, open) = (handler.clone(), seen.clone(), open.clone());
                let stopping = stopping.clone();
                std::thread::spawn(move || {
                    open.fetch_add(1, Ordering::AcqRel);
                    serve(stream, number, &*handler, &seen, stopping);
                    open.fetch_sub(1, Ordering::AcqRel);
                });
            }
        });
        stub
    }

    /// Every request so far, in the order of arrival.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("the log").clone()
    }

    pub fn requests(&self) -> usize {
        self.seen.lock().expect("the log").len()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }

    /// Connections that are open now.
    pub fn open_connections(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(
    stream: TcpStream,
    connection: usize,
    handler: &Handler,
    log: &Arc<Mutex<Vec<Seen>>>,
    stopping: Arc<AtomicBool>,
) {
    let mut wire = Wire {
        reader: Reader::new(stream, PATIENCE * 3),
        log: Arc::clone(log),
        number: 0,
        stopping,
    };
    while let Ok(head) = wire.reader.head() {
        let mut seen = Seen {
            head,
            body: Vec::new(),
            connection,
            number: 0,
        };
        {
            let mut log = log.lock().expect("the log");
            seen.number = log.len();
            log.push(seen.clone());
        }
        wire.number = seen.number;
        match handler(&mut seen, &mut wire) {
            After::KeepAlive => {}
            After::Close => {
                let _ = wire.reader.stream.shutdown(Shutdown::Both);
                return;
            }
            After::Reset => {
                reset_on_close(&wire.reader.stream);
                return;
            }
        }
    }
}
