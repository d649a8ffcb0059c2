//! Objects that are kept when they are written, where that meets other things: origins that decide, disks, clients that lie, gateways.

use crate::harness::millrace::Scratch;
use crate::harness::store::Object;
use crate::harness::stub::{After, Seen, Wire};
use crate::harness::{Ask, KIB, Millrace, PATIENCE, Store, Stub, Tile, wait_until};

/// What a write left in RAM is no copy that a refused write leaves: only its reader learns what the origin says of it.
#[test]
fn what_was_written_is_no_head_on_disk_where_origins_decide() {
    let (store, folder) = (Store::new(), Scratch::new());
    let origin = store.serve();
    let settings = "[cache]\nfreshness = 'origin'\ndefault_ttl = '1h'\nwrite_through = true\n";
    let server = Millrace::setup()
        .shards(1)
        .settings(settings)
        .cache_dir(&folder.path)
        .arguments(&["--disk", "512MiB"])
        .start(origin.address);
    crate::disk::await_folded(&server);
    let (path, other) = ("/bucket/k", "/bucket/other");
    let body = Tile::new(7).slice(0, 20_000);
    for path in [path, other] {
        assert_eq!(server.fetch(&Ask::put(path, body.clone())).status(), 200);
    }
    server.get(other).assert_body(&Tile::new(7), 0, 20_000);
    // What was queued before it is there too.
    wait_until("what was read on disk", PATIENCE, || {
        let metrics = server.metrics();
        let gauge = |name: &str| metrics.sum(&format!("millrace_disk_{name}"), &[]) as u64;
        gauge("heads") > 0 && gauge("extents") > 0 && gauge("queued_bytes") == 0
    });
    // Past the proxy.
    store.insert(path, Object::tile(8, 20_000));
    let read = server.get(path);
    read.assert_body(&Tile::new(8), 0, 20_000);
    assert_eq!(read.cache_word(), "MISS");
    assert!(read.header("content-type").is_some());
    server.finish();
}

fn aws_chunked(body: &[u8]) -> Vec<u8> {
    let size = format!("{:x}\r\n", body.len());
    [size.as_bytes(), body, b"\r\n0\r\n\r\n"].concat()
}

/// Takes parts as they come out of their framing, whatever their length was said to be.
fn careless(store: &Store, parts: [Vec<u8>; 3]) -> Stub {
    let store = store.clone();
    Stub::start(move |seen: &mut Seen, wire: &mut Wire| {
        let target = seen.target().to_owned();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        if !query.contains("uploadId") {
            return store.answer(seen, wire);
        }
        let Ok(_) = wire.read_body(&seen.head) else {
            return After::Close;
        };
        if seen.method() == "PUT" {
            let number = &query["partNumber=".len()..][..1];
            return wire.respond("200 OK", &[("ETag", &format!("\"p{number}\""))], b"");
        }
        let object = Object::bytes(&parts.concat());
        let etag = &object.etag;
        let xml = format!(
            "<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>"
        );
        store.insert(path, object.clone());
        wire.respond("200 OK", &[], xml.as_bytes())
    })
}

#[test]
fn a_part_whose_length_is_a_lie_moves_no_other() {
    let (store, tile) = (Store::new(), Tile::new(77));
    // What they are, and what they say they are.
    let bounds = [(0, 5 * KIB), (5 * KIB, 15 * KIB), (15 * KIB, 25 * KIB)];
    let said = [10 * KIB, 10 * KIB, 5 * KIB];
    let parts = bounds.map(|(start, end)| tile.slice(start, end));
    let origin = careless(&store, parts.clone());
    let server = Millrace::setup()
        .settings("[cache]\nwrite_through = true\n")
        .start(origin.address);
    let path = "/bucket/k";
    let mut list = String::new();
    for (number, (part, said)) in (1..).zip(parts.iter().zip(said)) {
        let target = format!("{path}?partNumber={number}&uploadId=u");
        let ask = Ask::put(&target, aws_chunked(part))
            .header("Content-Encoding", "aws-chunked")
            .header("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
            .header("x-amz-decoded-content-length", &said.to_string());
        assert_eq!(server.fetch(&ask).status(), 200);
        list += &format!("<Part><PartNumber>{number}</PartNumber><ETag>p{number}</ETag></Part>");
    }
    let body = format!("<CompleteMultipartUpload>{list}</CompleteMultipartUpload>");
    let target = format!("{path}?uploadId=u");
    let done = server.fetch(&Ask::new("POST", &target).body(body));
    assert_eq!(done.status(), 200, "{}", done.text());
    let read = server.fetch(&Ask::get(path).range(11 * KIB, 12 * KIB));
    assert_eq!(read.status(), 206);
    read.assert_body(&tile, 11 * KIB, 12 * KIB);
    server.finish();
}

/// A gateway that says that it had no answer of its origin says no more than one that says nothing.
#[test]
fn a_write_whose_end_a_gateway_did_not_see_lets_no_old_copy_back() {
    for status in ["502 Bad Gateway", "504 Gateway Timeout"] {
        let store = Store::new();
        store.insert("/bucket/k", Object::bytes(b"old"));
        let behind = store.clone();
        let origin = Stub::start(move |seen: &mut Seen, wire: &mut Wire| {
            if seen.method() != "PUT" {
                return behind.answer(seen, wire);
            }
            match wire.read_body(&seen.head) {
                Ok(_) => wire.respond(status, &[], b""),
                Err(_) => After::Close,
            }
        });
        let server = Millrace::setup().shards(2).start(origin.address);
        assert_eq!(server.get("/bucket/k").text(), "old");
        assert_eq!(server.get("/bucket/k").cache_word(), "HIT");
        let answer = server.fetch(&Ask::put("/bucket/k", "new"));
        assert!(status.starts_with(&answer.status().to_string()));
        for _ in 0..2 {
            let between = server.get("/bucket/k");
            assert_eq!(between.text(), "old", "the origin has not done it yet");
            assert_ne!(between.cache_word(), "HIT");
        }
        store.insert("/bucket/k", Object::bytes(b"new"));
        assert_eq!(server.get("/bucket/k").text(), "new", "{status}");
        server.finish();
    }
}
