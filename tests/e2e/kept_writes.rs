//! Objects that are kept when they are written: their first reader does not fetch them, and never gets other bytes than the origin has.

use crate::harness::millrace::{Scratch, Setup};
use crate::harness::s3s::S3s;
use crate::harness::sign::{Signer, UNSIGNED};
use crate::harness::{
    Ask, Connection, KIB, MIB, Millrace, PATIENCE, Response, Store, Tile, wait_until,
};

fn keeping() -> Setup {
    Millrace::setup()
        .shards(2)
        .settings("[[rule]]\nmatch = 'bucket/kept/**'\nwrite_through = true\n")
}

fn kept(server: &Millrace, result: &str) -> f64 {
    let labels = [("result", result)];
    server.metrics().sum("millrace_writes_kept_total", &labels)
}

fn put(server: &Millrace, signer: &Signer, path: &str, body: &[u8]) {
    let response = server.fetch(&signer.sign(Ask::put(path, body)));
    assert_eq!(response.status(), 200, "{}", response.text());
}

fn get(server: &Millrace, signer: &Signer, path: &str) -> Response {
    server.fetch(&signer.sign(Ask::get(path)))
}

#[test]
fn semantics_160_what_was_written_is_read_without_being_fetched() {
    let origin = S3s::start();
    origin.create_bucket("bucket");
    let server = keeping().ram("128MiB").start(origin.address);
    let signer = origin.signer(server.door);
    for (seed, length) in [(1, 1), (2, 5_000), (3, 8 * MIB), (4, 19 * MIB + 7)] {
        let (tile, path) = (Tile::new(seed), format!("/bucket/kept/{seed}"));
        let body = tile.slice(0, length);
        put(&server, &signer, &path, &body);
        origin.reset_stats();
        let first = get(&server, &signer, &path);
        assert_eq!(first.status(), 200, "{}", first.text());
        first.assert_body(&tile, 0, length);
        assert!(
            first.header("last-modified").is_some(),
            "all of the head is the origin's"
        );
        let stats = origin.stats();
        assert!(
            stats.body_bytes_sent <= 1 && stats.get_requests == 1,
            "{stats:?} for {length} bytes"
        );
        let second = get(&server, &signer, &path);
        assert_eq!((second.status(), second.cache_word()), (200, "HIT"));
        second.assert_body(&tile, 0, length);
        if length > 100 {
            let part = server.fetch(&signer.sign(Ask::get(&path).range(50, length - 3)));
            assert_eq!((part.status(), part.cache_word()), (206, "HIT"));
            part.assert_body(&tile, 50, length - 3);
        }
        assert_eq!(origin.stats(), stats);
    }
    assert_eq!(kept(&server, "kept"), 4.0);
    // Where no rule wants it, nothing is kept.
    put(
        &server,
        &signer,
        "/bucket/other",
        &Tile::new(9).slice(0, 10_000),
    );
    origin.reset_stats();
    get(&server, &signer, "/bucket/other").assert_body(&Tile::new(9), 0, 10_000);
    assert_eq!(origin.stats().body_bytes_sent, 10_000);
    server.finish();
}

#[test]
fn semantics_161_overwritten_here_or_elsewhere_the_reader_gets_what_the_origin_has() {
    let origin = S3s::start();
    origin.create_bucket("bucket");
    let server = keeping().start(origin.address);
    let signer = origin.signer(server.door);
    let path = "/bucket/kept/k";
    for seed in 1..6 {
        let body = Tile::new(seed).slice(0, 300 * KIB);
        put(&server, &signer, path, &body);
        get(&server, &signer, path).assert_body(&Tile::new(seed), 0, 300 * KIB);
    }
    // Past the proxy, between write and read: of the same length, and of another.
    put(&server, &signer, path, &Tile::new(20).slice(0, 300 * KIB));
    origin.put(path, &Tile::new(21).slice(0, 300 * KIB));
    get(&server, &signer, path).assert_body(&Tile::new(21), 0, 300 * KIB);
    put(&server, &signer, path, &Tile::new(22).slice(0, 300 * KIB));
    origin.put(path, &Tile::new(23).slice(0, 10));
    get(&server, &signer, path).assert_body(&Tile::new(23), 0, 10);
    put(&server, &signer, path, &Tile::new(24).slice(0, 300 * KIB));
    origin.put(path, b"");
    assert_eq!(get(&server, &signer, path).body, b"");
    put(&server, &signer, path, &Tile::new(25).slice(0, 300 * KIB));
    let gone = server.fetch(&signer.sign(Ask::new("DELETE", path)));
    assert_eq!(gone.status(), 204);
    assert_eq!(get(&server, &signer, path).status(), 404);
    server.finish();
}

fn aws_chunked(body: &[u8], chunk: usize, trailer: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in body.chunks(chunk) {
        out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("0\r\n{trailer}\r\n").as_bytes());
    out
}

/// Of four bytes.
fn crc32c_base64(body: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, body);
    let bits = crc << 4;
    let letters = (0..6)
        .rev()
        .map(|place| LETTERS[(bits >> (place * 6)) as usize & 63]);
    letters.map(char::from).chain("==".chars()).collect()
}

#[test]
fn semantics_162_the_framing_of_the_sdks_is_taken_off_what_is_kept() {
    let origin = S3s::start();
    origin.create_bucket("bucket");
    let server = keeping().start(origin.address);
    let signer = origin.signer(server.door);
    let (tile, length) = (Tile::new(30), 700_001);
    let body = tile.slice(0, length);
    let trailer = format!("x-amz-checksum-crc32c:{}\r\n", crc32c_base64(&body));
    for (path, chunk) in [
        ("/bucket/kept/a", 65_536),
        ("/bucket/kept/b", 8_191),
        ("/bucket/kept/c", 700_001),
    ] {
        let framed = aws_chunked(&body, chunk, &trailer);
        let ask = Ask::put(path, framed)
            .header("Content-Encoding", "aws-chunked")
            .header("x-amz-trailer", "x-amz-checksum-crc32c")
            .header("x-amz-decoded-content-length", &length.to_string());
        let ask = signer.sign_with_payload(ask, "STREAMING-UNSIGNED-PAYLOAD-TRAILER");
        let response = server.fetch(&ask);
        assert_eq!(response.status(), 200, "{}", response.text());
        origin.reset_stats();
        let read = get(&server, &signer, path);
        read.assert_body(&tile, 0, length);
        // Perhaps it is still on its way.
        assert!(origin.stats().body_bytes_sent <= 1);
    }
    server.finish();
}

#[test]
fn semantics_163_an_upload_that_does_not_end_well_leaves_nothing_behind() {
    let store = Store::new();
    let origin = store.serve();
    let server = keeping().start(origin.address);
    let path = "/bucket/kept/k";
    let tile = Tile::new(40);
    // The client leaves in the middle.
    let mut leaver = Connection::open(server.door);
    leaver.send(format!(
        "PUT {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n",
        20 * MIB
    ));
    leaver.send(tile.slice(0, 9 * MIB));
    wait_until("bytes that are kept", PATIENCE, || {
        server.metrics().sum("millrace_writes_staged_bytes", &[]) > 0.0
    });
    leaver.reset();
    wait_until("that they are given back", PATIENCE, || {
        server.metrics().sum("millrace_writes_staged_bytes", &[]) == 0.0
    });
    assert_eq!(server.metrics().sum("millrace_index_extents", &[]), 0.0);
    assert_eq!(server.get(path).status(), 404);
    assert_eq!(kept(&server, "kept"), 0.0);
    server.finish();
}

#[test]
fn an_upload_that_the_origin_refuses_is_not_kept() {
    let origin = S3s::start();
    origin.create_bucket("bucket");
    let server = keeping().start(origin.address);
    let signer = origin.signer(server.door);
    let path = "/bucket/kept/k";
    put(&server, &signer, path, b"the first");
    let mut forged = signer.sign(Ask::put(path, vec![7u8; 100_000]));
    forged.headers.retain(|(name, _)| name != "Authorization");
    let bad = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00";
    let refused = server.fetch(&forged.header("Authorization", bad));
    assert!(refused.status() >= 400, "{}", refused.status());
    assert_eq!(get(&server, &signer, path).body, b"the first");
    wait_until("that it is given back", PATIENCE, || {
        kept(&server, "refused") == 1.0
    });
    server.finish();
}

fn begin_upload(server: &Millrace, signer: &Signer, path: &str) -> String {
    let target = format!("{path}?uploads");
    let begun = server.fetch(&signer.sign(Ask::new("POST", &target)));
    let text = begun.text();
    let (_, rest) = text.split_once("<UploadId>").expect("an upload id");
    rest.split_once('<').expect("its end").0.to_owned()
}

fn put_part(
    server: &Millrace,
    signer: &Signer,
    path: &str,
    (upload, number): (&str, u32),
    body: Vec<u8>,
) -> String {
    let target = format!("{path}?partNumber={number}&uploadId={upload}");
    let answer = server.fetch(&signer.sign_with_payload(Ask::put(&target, body), UNSIGNED));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.header("etag").expect("an ETag").to_owned()
}

fn complete(
    server: &Millrace,
    signer: &Signer,
    path: &str,
    upload: &str,
    parts: &[(u32, String)],
) -> Response {
    let parts: String = parts
        .iter()
        .map(|(number, etag)| {
            format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>")
        })
        .collect();
    let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
    let target = format!("{path}?uploadId={upload}");
    server.fetch(&signer.sign(Ask::new("POST", &target).body(body)))
}

#[test]
fn semantics_164_a_multipart_upload_is_assembled_of_exactly_the_parts_that_were_listed() {
    // Completed as soon as the last part is answered, one part sent twice. (2E.86, 2E.88)
    let origin = S3s::start();
    origin.create_bucket("bucket");
    let server = keeping().ram("256MiB").start(origin.address);
    let signer = origin.signer(server.door);
    let path = "/bucket/kept/k";
    let (tile, part) = (Tile::new(50), 5 * MIB);
    let total = 3 * part + 100_000;
    let upload = begin_upload(&server, &signer, path);
    // In any order, one of them twice; the last one is shorter.
    let mut etags = Vec::new();
    let other = Tile::new(51).slice(0, part);
    put_part(&server, &signer, path, (&upload, 2), other);
    for number in [3, 1, 2, 4] {
        let start = u64::from(number - 1) * part;
        let bytes = tile.slice(start, (start + part).min(total));
        let etag = put_part(&server, &signer, path, (&upload, number), bytes);
        etags.push((number, etag));
    }
    etags.sort();
    let done = complete(&server, &signer, path, &upload, &etags);
    assert_eq!(done.status(), 200, "{}", done.text());
    origin.reset_stats();
    let read = get(&server, &signer, path);
    read.assert_body(&tile, 0, total);
    assert!(origin.stats().body_bytes_sent <= 1, "{:?}", origin.stats());
    let ranged = server.fetch(&signer.sign(Ask::get(path).range(part - 10, 2 * part + 10)));
    assert_eq!((ranged.status(), ranged.cache_word()), (206, "HIT"));
    ranged.assert_body(&tile, part - 10, 2 * part + 10);
    wait_until("that nothing waits any more", PATIENCE, || {
        server.metrics().sum("millrace_writes_staged_bytes", &[]) == 0.0
    });
    server.finish();
}

#[test]
fn a_part_left_out_or_given_up_is_in_no_object() {
    // (2E.87)
    let origin = S3s::start();
    origin.create_bucket("bucket");
    let server = keeping().ram("256MiB").start(origin.address);
    let signer = origin.signer(server.door);
    let path = "/bucket/kept/k";
    let part = 5 * MIB;
    let upload = begin_upload(&server, &signer, path);
    let parts = [1, 2, 3].map(|number| {
        let body = Tile::new(60 + u64::from(number)).slice(0, part);
        (
            number,
            put_part(&server, &signer, path, (&upload, number), body),
        )
    });
    let listed = [parts[0].clone(), parts[1].clone()];
    let done = complete(&server, &signer, path, &upload, &listed);
    assert_eq!(done.status(), 200, "{}", done.text());
    let read = get(&server, &signer, path);
    assert_eq!(read.body.len() as u64, 2 * part);
    assert!(Tile::new(61).holds(0, &read.body[..part as usize]));
    assert!(Tile::new(62).holds(0, &read.body[part as usize..]));
    let upload = begin_upload(&server, &signer, path);
    put_part(
        &server,
        &signer,
        path,
        (&upload, 1),
        Tile::new(70).slice(0, part),
    );
    wait_until("bytes that are kept", PATIENCE, || {
        server.metrics().sum("millrace_writes_staged_bytes", &[]) > 0.0
    });
    let target = format!("{path}?uploadId={upload}");
    let gone = server.fetch(&signer.sign(Ask::new("DELETE", &target)));
    assert_eq!(gone.status(), 204);
    wait_until("that it is given back", PATIENCE, || {
        server.metrics().sum("millrace_writes_staged_bytes", &[]) == 0.0
    });
    server.finish();
}

#[test]
fn uploads_take_no_more_than_their_share() {
    let store = Store::new();
    let origin = store.serve();
    let settings = "[cache]\nwrite_through = true\nwrite_percent_max = 25\n";
    let server = Millrace::setup()
        .ram("64MiB")
        .settings(settings)
        .start(origin.address);
    let tile = Tile::new(80);
    let large = server.fetch(&Ask::put("/bucket/large", tile.slice(0, 17 * MIB)));
    assert_eq!(large.status(), 200);
    assert_eq!(kept(&server, "no_room"), 1.0);
    server.get("/bucket/large").assert_body(&tile, 0, 17 * MIB);
    let small = server.fetch(&Ask::put("/bucket/small", tile.slice(0, 15 * MIB)));
    assert_eq!(small.status(), 200);
    assert_eq!(kept(&server, "kept"), 1.0);
    let sent = store.body_bytes();
    server.get("/bucket/small").assert_body(&tile, 0, 15 * MIB);
    assert_eq!(store.body_bytes() - sent, 1);
    server.finish();
}

#[test]
fn what_was_written_and_read_once_survives_a_restart() {
    let (store, folder) = (Store::new(), Scratch::new());
    let origin = store.serve();
    let start = || {
        Millrace::setup()
            .shards(2)
            .settings("[cache]\nwrite_through = true\n")
            .cache_dir(&folder.path)
            .arguments(&["--disk", "512MiB"])
            .start(origin.address)
    };
    let server = start();
    let (path, tile, length) = ("/bucket/kept/k", Tile::new(90), 9 * MIB + 5);
    assert_eq!(
        server
            .fetch(&Ask::put(path, tile.slice(0, length)))
            .status(),
        200
    );
    server.get(path).assert_body(&tile, 0, length);
    crate::disk::await_written(&server, 1, 2);
    server.kill();
    let server = start();
    crate::disk::await_folded(&server);
    let sent = store.body_bytes();
    let read = server.get(path);
    assert_eq!(read.cache_word(), "HIT");
    read.assert_body(&tile, 0, length);
    assert_eq!(store.body_bytes(), sent);
    server.finish();
}
