//! `perf bare`: the least that a server on this runtime can do, as the ground of what a small hit costs.
//!
//! Run as the party `bare`. One thread, one ring, one receive and one send for each request: it finds six digits
//! in the path and sends bytes that were made before. It is no cache and no HTTP server: no keys beyond its own, no
//! headers, no pipelining, no limits. Left to others: everything that makes a proxy.

use std::io;
use std::net::SocketAddr;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{ListenerOpts, TcpListener, TcpStream};
use monoio::{IoUringDriver, RuntimeBuilder};

use crate::load::requests::Bodies;

const ENTRIES: u32 = 4096;
const REQUEST_BYTES: usize = 4096;

/// What it answers: whole answers, made before, kept for the life of the process.
#[derive(Debug, Clone, Copy)]
struct Answers {
    /// Head and body of each key.
    all: &'static [Vec<u8>],
    head_bytes: usize,
}

impl Answers {
    fn make(bodies: &Bodies, count: u32) -> Answers {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n",
            bodies.size(0)
        );
        let answer = |key| {
            let body = bodies.slice(key, 0, bodies.size(key) as usize);
            [head.as_bytes(), body].concat()
        };
        let all: Vec<Vec<u8>> = (0..count).map(answer).collect();
        Answers {
            all: all.leak(),
            head_bytes: head.len(),
        }
    }

    /// The answer to `GET /bucket/o000123…`; `None` for what it does not understand.
    fn to(self, request: &[u8]) -> Option<&'static [u8]> {
        let line = &request[..memchr::memchr(b'\r', request)?];
        let digits = memchr::memmem::find(line, b"/o")? + 2;
        let key = line
            .get(digits..digits + 6)?
            .iter()
            .try_fold(0_usize, |key, byte| {
                byte.is_ascii_digit()
                    .then(|| key * 10 + usize::from(byte - b'0'))
            })?;
        let answer = self.all.get(key)?;
        match request.first()? {
            b'G' => Some(answer),
            b'H' => Some(&answer[..self.head_bytes]),
            _ => None,
        }
    }
}

/// Serves `count` small objects on one thread until the process is ended.
pub fn serve(listen: SocketAddr, bodies: &Bodies, count: u32) -> io::Result<()> {
    let answers = Answers::make(bodies, count);
    let mut runtime = RuntimeBuilder::<IoUringDriver>::new()
        .with_entries(ENTRIES)
        .build()?;
    runtime.block_on(async move {
        let options = ListenerOpts::new().backlog(4096);
        let listener = TcpListener::bind_with_config(listen, &options)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            monoio::spawn(connection(stream, answers));
        }
    })
}

async fn connection(mut stream: TcpStream, answers: Answers) {
    let mut buffer = vec![0_u8; REQUEST_BYTES];
    loop {
        let (read, back) = stream.read(buffer).await;
        buffer = back;
        let Some(bytes) = read.ok().filter(|bytes| *bytes > 0) else {
            return;
        };
        let Some(answer) = answers.to(&buffer[..bytes]) else {
            return;
        };
        if stream.write_all(answer).await.0.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_that_of_the_key() {
        let bodies = Bodies::generated(100, 1);
        let answers = Answers::make(&bodies, 3);
        let whole = answers
            .to(b"GET /bench/o000002 HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("a key");
        assert!(whole.ends_with(bodies.slice(2, 0, 100)));
        let head = answers
            .to(b"HEAD /bench/o000001 HTTP/1.1\r\n\r\n")
            .expect("a key");
        assert!(head.ends_with(b"\r\n\r\n"));
        for other in [
            "GET /bench/o000003 HTTP/1.1\r\n",
            "GET / HTTP/1.1\r\n",
            "PUT /b/o000001 H\r\n",
            "GET",
        ] {
            assert_eq!(answers.to(other.as_bytes()), None, "{other}");
        }
    }
}
