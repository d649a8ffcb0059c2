//! A DNS server for tests: UDP on loopback, each reply chosen by the test.
//!
//! Used by the tests of [`super`]. Knows questions for A and AAAA and nothing else.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const HEADER_BYTES: usize = 12;

/// What the server says to a question.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    /// Those of the addresses that are of the family asked for.
    Addresses {
        ttl_seconds: u32,
        addresses: Vec<IpAddr>,
    },
    /// An error (RFC 1035 section 4.1.1): 2 is SERVFAIL, 3 NXDOMAIN, 5 REFUSED.
    Code(u8),
    /// Nothing at all.
    Silence,
}

impl Reply {
    pub(super) fn addresses(ttl_seconds: u32, addresses: &[&str]) -> Self {
        let addresses = addresses
            .iter()
            .map(|address| address.parse().expect("an address"))
            .collect();
        Self::Addresses {
            ttl_seconds,
            addresses,
        }
    }
}

/// The server; it ends when dropped.
pub(super) struct DnsServer {
    address: SocketAddr,
    questions: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl DnsServer {
    /// `reply` gets the name, and how often this name and family was asked for before.
    pub(super) fn start(reply: impl Fn(&str, usize) -> Reply + Send + 'static) -> Self {
        Self::start_by_type(move |name, _, nth| reply(name, nth))
    }

    /// The same, and whether IPv6 was asked for.
    pub(super) fn start_by_type(
        reply: impl Fn(&str, bool, usize) -> Reply + Send + 'static,
    ) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket
            .set_read_timeout(Some(Duration::from_millis(10)))
            .expect("a timeout");
        let address = socket.local_addr().expect("an address");
        let (questions, stop) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (counted, stopped) = (Arc::clone(&questions), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut asked: HashMap<(String, bool), Vec<[u8; 2]>> = HashMap::new();
            let mut datagram = [0; 1500];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((len, client)) = socket.recv_from(&mut datagram) else {
                    continue;
                };
                let question = &datagram[..len];
                let (name, record_type) = parse(question);
                let is_v6 = record_type == TYPE_AAAA;
                // A question that is sent again, because its reply took long, is the same question.
                let ids = asked.entry((name.clone(), is_v6)).or_default();
                let id = [question[0], question[1]];
                let nth = ids
                    .iter()
                    .position(|known| *known == id)
                    .unwrap_or(ids.len());
                if nth == ids.len() {
                    ids.push(id);
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                if let Some(response) = respond(question, reply(&name, is_v6, nth)) {
                    socket.send_to(&response, client).expect("sent");
                }
            }
        });
        Self {
            address,
            questions,
            stop,
            thread: Some(thread),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many questions came so far.
    pub(super) fn questions(&self) -> usize {
        self.questions.load(Ordering::Relaxed)
    }

    /// Waits until so many questions came.
    pub(super) fn until_asked(&self, questions: usize) {
        while self.questions() < questions {
            thread::yield_now();
        }
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || ended.is_some_and(|ended| ended.is_ok()));
    }
}

/// Name, without its last dot, and type of the one question.
fn parse(question: &[u8]) -> (String, u16) {
    let mut labels = Vec::new();
    let mut at = HEADER_BYTES;
    while question[at] != 0 {
        let len = usize::from(question[at]);
        labels.push(String::from_utf8_lossy(&question[at + 1..=at + len]).into_owned());
        at += 1 + len;
    }
    let record_type = u16::from_be_bytes([question[at + 1], question[at + 2]]);
    assert!(
        record_type == TYPE_A || record_type == TYPE_AAAA,
        "asked for type {record_type}"
    );
    (labels.join("."), record_type)
}

/// The whole response; none for silence.
fn respond(question: &[u8], reply: Reply) -> Option<Vec<u8>> {
    let name_end = HEADER_BYTES
        + question[HEADER_BYTES..]
            .iter()
            .position(|byte| *byte == 0)?;
    let (_, record_type) = parse(question);
    let (code, ttl_seconds, addresses) = match reply {
        Reply::Addresses {
            ttl_seconds,
            addresses,
        } => (0, ttl_seconds, addresses),
        Reply::Code(code) => (code, 0, Vec::new()),
        Reply::Silence => return None,
    };
    let addresses: Vec<_> = addresses
        .into_iter()
        .filter(|address| address.is_ipv6() == (record_type == TYPE_AAAA))
        .collect();
    let mut response = question[..2].to_vec();
    response.extend([
        0x81,
        0x80 | code,
        0,
        1,
        0,
        addresses.len() as u8,
        0,
        0,
        0,
        0,
    ]);
    response.extend(&question[HEADER_BYTES..name_end + 5]);
    for address in addresses {
        // A pointer to the question's name, then type, class, TTL, length, address.
        response.extend([0xc0, HEADER_BYTES as u8]);
        response.extend(record_type.to_be_bytes());
        response.extend([0, 1]);
        response.extend(ttl_seconds.to_be_bytes());
        match address {
            IpAddr::V4(address) => {
                response.extend([0, 4]);
                response.extend(address.octets());
            }
            IpAddr::V6(address) => {
                response.extend([0, 16]);
                response.extend(address.octets());
            }
        }
    }
    Some(response)
}
