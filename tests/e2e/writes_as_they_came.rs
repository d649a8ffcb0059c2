//! What a write says of itself (conditions, checksums, trailers, locks, tags) reaches the origin byte for byte, and so does its answer the client.

use crate::harness::client::Framing;
use crate::harness::stub::{After, Seen, Wire};
use crate::harness::{Ask, Millrace, Stub, Tile};
use std::sync::{Arc, Mutex};

/// What the origin received behind a head, byte for byte.
type Bodies = Arc<Mutex<Vec<u8>>>;

const ANSWER: &str = "HTTP/1.1 @STATUS@\r\nx-amz-id-2: abc=\r\nx-amz-version-id: 3/L4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY\r\nx-amz-checksum-crc64nvme: AAAAAAAAAAA=\r\nx-amz-checksum-type: FULL_OBJECT\r\nx-amz-server-side-encryption: AES256\r\nx-amz-expiration: expiry-date=\"Fri, 23 Dec 2026 00:00:00 GMT\", rule-id=\"a b\"\r\nETag: \"9b2cf535f27731c974343645a3985328-2\"\r\nContent-Length: 0\r\n\r\n";

/// Takes as many bytes of a body as its client has sent, whatever their framing.
fn recording(bodies: &Bodies, wire_bytes: &Arc<Mutex<u64>>, status: &'static str) -> Stub {
    let (bodies, wire_bytes) = (Arc::clone(bodies), Arc::clone(wire_bytes));
    Stub::start(move |_: &mut Seen, wire: &mut Wire| {
        let bytes = *wire_bytes.lock().expect("the length");
        let mut body = Vec::new();
        let taken = wire.reader().body(Framing::Length(bytes), |piece| {
            body.extend_from_slice(piece)
        });
        *bodies.lock().expect("the body") = body;
        match taken.is_ok() && wire.send(ANSWER.replace("@STATUS@", status)).is_ok() {
            true => After::KeepAlive,
            false => After::Close,
        }
    })
}

fn headers_of(mut ask: Ask, lines: &[&str]) -> Ask {
    for line in lines {
        let (name, value) = line.split_once(": ").expect("a line");
        ask = ask.header(name, value);
    }
    ask
}

const AUTHORIZATION: &str = "Authorization: AWS4-HMAC-SHA256 Credential=AKIA/20260101/us-east-1/s3/aws4_request, SignedHeaders=content-md5;host;if-match;if-none-match;x-amz-bypass-governance-retention;x-amz-checksum-crc64nvme;x-amz-content-sha256;x-amz-date;x-amz-object-lock-legal-hold;x-amz-object-lock-mode;x-amz-object-lock-retain-until-date;x-amz-tagging;x-amz-trailer, Signature=00ff";

const STREAMING: [&str; 5] = [
    "x-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
    "Content-Encoding: aws-chunked,gzip",
    "x-amz-trailer: x-amz-checksum-crc64nvme",
    "x-amz-decoded-content-length: 70000",
    "x-amz-sdk-checksum-algorithm: CRC64NVME",
];

const OBJECT: [&str; 20] = [
    "If-None-Match: *",
    "Content-MD5: 1B2M2Y8AsgTpgAmY7PhCfg==",
    "X-Amz-Checksum-Crc32C: yZRlqg==",
    "x-amz-checksum-sha256: 47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
    "x-amz-content-sha256: UNSIGNED-PAYLOAD",
    "x-amz-object-lock-mode: GOVERNANCE",
    "x-amz-object-lock-retain-until-date: 2030-01-01T00:00:00.000Z",
    "x-amz-object-lock-legal-hold: ON",
    "x-amz-tagging: a=b%20c&d=%C3%A9+",
    "x-amz-meta-Mixed-CASE: one  two",
    "x-amz-meta-empty: ",
    "x-amz-storage-class: STANDARD_IA",
    "x-amz-server-side-encryption: aws:kms",
    "x-amz-server-side-encryption-context: eyJhIjoiYiJ9",
    "x-amz-website-redirect-location: /other?a=b",
    "x-amz-grant-read: uri=\"http://acs.amazonaws.com/groups/global/AllUsers\"",
    "x-amz-expected-bucket-owner: 111122223333",
    "Cache-Control: no-transform",
    "Content-Disposition: attachment; filename=\"a; b\"",
    "Expires: Thu, 01 Dec 2030 16:00:00 GMT",
];

/// In the framing of the SDKs, as odd as it may be: upper case, leading zeros, signatures, a trailer.
fn framed(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in body.chunks(16_001) {
        out.extend_from_slice(format!("00{:X};chunk-signature=ab\r\n", piece.len()).as_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    let trailer = b"0;chunk-signature=cd\r\nx-amz-checksum-crc64nvme:AAAAAAAAAAA=\r\nx-amz-trailer-signature:ef\r\n\r\n";
    out.extend_from_slice(trailer);
    out
}

/// The same in chunks of the transfer, with a trailer of its own.
fn doubly(framed: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in framed.chunks(9_973) {
        out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\nX-Of-The-Transfer: yes\r\n\r\n");
    out
}

fn writes() -> Vec<Ask> {
    let body = Tile::new(3).slice(0, 70_000);
    let (framed, doubly) = (framed(&body), doubly(&framed(&body)));
    let common = [
        AUTHORIZATION,
        "X-Amz-Date: 20260101T000000Z",
        "amz-sdk-invocation-id: 3f6f-2",
        "amz-sdk-request: attempt=1; max=3",
        "User-Agent: aws-sdk/1  (two  spaces)",
    ];
    let list = "<CompleteMultipartUpload><Part><ETag>\"a\"</ETag><PartNumber>1</PartNumber></Part></CompleteMultipartUpload>";
    [
        headers_of(Ask::put("/bucket/k?x-id=PutObject", body.clone()), &OBJECT),
        headers_of(Ask::put("/bucket/k", body.clone()), &["If-Match: \"abc\""]),
        headers_of(Ask::put("/bucket/k", framed), &STREAMING),
        headers_of(Ask::put("/bucket/k", doubly), &STREAMING)
            .header("Trailer", "X-Of-The-Transfer")
            .header("Transfer-Encoding", "chunked"),
        headers_of(
            Ask::put("/bucket/k?partNumber=3&uploadId=a%2Fb~", body.clone()),
            &["x-amz-checksum-crc64nvme: AAAAAAAAAAA="],
        ),
        headers_of(
            Ask::new("POST", "/bucket/k?uploadId=a%2Fb~").body(list),
            &[
                "If-None-Match: *",
                "x-amz-mp-object-size: 70000",
                "x-amz-checksum-type: FULL_OBJECT",
                "x-amz-checksum-crc64nvme: AAAAAAAAAAA=",
            ],
        ),
        headers_of(
            Ask::new("POST", "/bucket/k?uploads="),
            &["x-amz-checksum-algorithm: CRC64NVME", "x-amz-tagging: a=b"],
        ),
        headers_of(
            Ask::new("DELETE", "/bucket/k?versionId=3%2FL4"),
            &[
                "If-Match: \"abc\"",
                "x-amz-mfa: 20899872 301749",
                "x-amz-bypass-governance-retention: true",
                "x-amz-if-match-last-modified-time: Wed, 12 Aug 2026 10:00:00 GMT",
                "x-amz-if-match-size: 0",
            ],
        ),
        headers_of(
            Ask::put("/bucket/k", ""),
            &[
                "x-amz-copy-source: /source/a%20b?versionId=1",
                "x-amz-copy-source-if-match: \"e\"",
                "x-amz-metadata-directive: REPLACE",
                "x-amz-tagging-directive: COPY",
            ],
        ),
        headers_of(
            Ask::put("/bucket/k?retention&versionId=1", "<Retention/>"),
            &["x-amz-checksum-crc32: AAAAAA==", "Content-MD5: xx=="],
        ),
        headers_of(
            Ask::new("POST", "/bucket/?delete").body("<Delete/>"),
            &[
                "x-amz-checksum-sha1: 2jmj7l5rSw0yVb/vlWAYkK/YBwk=",
                "x-amz-mfa: 1 2",
            ],
        ),
    ]
    .map(|ask| headers_of(ask, &common))
    .into()
}

/// Reference 4.11, 4.12 and 4.25.
#[test]
fn semantics_172_conditions_checksums_trailers_locks_and_tags_pass_byte_for_byte() {
    for (write_through, status) in [
        (false, "200 OK"),
        (true, "200 OK"),
        (true, "412 Precondition Failed"),
        (true, "409 Conflict"),
    ] {
        let (bodies, wire_bytes) = (Bodies::default(), Arc::default());
        let origin = recording(&bodies, &wire_bytes, status);
        let server = Millrace::setup()
            .settings(&format!("[cache]\nwrite_through = {write_through}\n"))
            .start(origin.address);
        let mut client = server.connect();
        for ask in writes() {
            *wire_bytes.lock().expect("the length") = ask.body.len() as u64;
            let answer = client.exchange(&ask);
            let seen = origin.seen().pop().expect("the write");
            let line = format!("{} {} HTTP/1.1", ask.method, ask.target);
            assert_eq!(seen.head.first_line, line);
            // Every line as it was, in its order; what was added stands where it does not matter.
            let came = String::from_utf8_lossy(&seen.head.raw).into_owned();
            let mut rest = came.as_str();
            let of_the_transfer = |name: &str| name.eq_ignore_ascii_case("transfer-encoding");
            for (name, value) in &ask.headers {
                if of_the_transfer(name) {
                    assert!(seen.head.is_chunked(), "{came}");
                    continue;
                }
                let line = format!("\r\n{name}: {value}\r\n");
                let at = rest.find(&line);
                let at = at.unwrap_or_else(|| panic!("{line:?} is not in {rest}"));
                rest = &rest[at + line.len() - 2..];
                let own = came.to_ascii_lowercase();
                let line = format!("\r\n{}:", name.to_ascii_lowercase());
                assert_eq!(own.matches(&line).count(), 1, "{name}");
            }
            assert_eq!(*bodies.lock().expect("the body"), ask.body, "{line}");
            let told = String::from_utf8_lossy(&answer.head.raw).into_owned();
            assert!(
                told.starts_with(&format!("HTTP/1.1 {status}\r\n")),
                "{told}"
            );
            for line in ANSWER.lines().skip(1).filter(|line| !line.is_empty()) {
                assert!(
                    told.contains(&format!("\r\n{line}\r\n")),
                    "no {line} in {told}"
                );
            }
        }
        drop(client);
        server.finish();
    }
}
