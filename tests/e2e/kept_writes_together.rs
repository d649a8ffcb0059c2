//! Objects that are kept when they are written, where several do so at once, or clients do it oddly.

use crate::harness::millrace::Scratch;
use crate::harness::store::Object;
use crate::harness::stub::{After, Seen, Wire};
use crate::harness::{
    Ask, Connection, KIB, MIB, Millrace, PATIENCE, Store, Stub, Tile, wait_until,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const WRITE_THROUGH: &str = "[cache]\nwrite_through = true\nwrite_percent_max = 50\n";

/// A store that makes objects of parts: those that were listed, of that upload.
fn assembling(store: &Store) -> Stub {
    type Parts = Arc<Mutex<BTreeMap<(String, u32), Vec<u8>>>>;
    let (store, parts) = (store.clone(), Parts::default());
    Stub::start(move |seen: &mut Seen, wire: &mut Wire| {
        let target = seen.target().to_owned();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let Some((_, upload)) = query.split_once("uploadId=") else {
            return store.answer(seen, wire);
        };
        let Ok(body) = wire.read_body(&seen.head) else {
            return After::Close;
        };
        if seen.method() == "DELETE" {
            return wire.respond("204 No Content", &[], b"");
        }
        let mut parts = parts.lock().expect("the parts");
        if seen.method() == "PUT" {
            let number = query["partNumber=".len()..].split('&').next();
            let number = number
                .and_then(|number| number.parse().ok())
                .expect("a part");
            let etag = Object::bytes(&body).etag;
            parts.insert((upload.to_owned(), number), body);
            return wire.respond("200 OK", &[("ETag", &etag)], b"");
        }
        let own = parts.range((upload.to_owned(), 0)..=(upload.to_owned(), u32::MAX));
        let object = Object::bytes(&own.flat_map(|(_, part)| part).copied().collect::<Vec<u8>>());
        let etag = object.etag.clone();
        store.insert(path, object);
        let xml = format!(
            "<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>"
        );
        wire.respond("200 OK", &[], xml.as_bytes())
    })
}

fn put_part(
    client: &mut Connection,
    path: &str,
    upload: &str,
    number: u32,
    body: Vec<u8>,
) -> String {
    let target = format!("{path}?partNumber={number}&uploadId={upload}");
    let answer = client.exchange(&Ask::put(&target, body));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let etag = answer.header("etag").expect("an ETag");
    format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>")
}

fn complete(server: &Millrace, path: &str, upload: &str, list: &str) {
    let xml = format!("<CompleteMultipartUpload>{list}</CompleteMultipartUpload>");
    let ask = Ask::new("POST", &format!("{path}?uploadId={upload}")).body(xml);
    let done = server.fetch(&ask);
    assert_eq!(done.status(), 200, "{}", done.text());
}

/// Reference 2E.89.
#[test]
fn semantics_175_two_uploads_of_one_key_at_a_time_have_nothing_in_common() {
    let store = Store::new();
    let origin = assembling(&store);
    let server = Millrace::setup()
        .shards(2)
        .settings(WRITE_THROUGH)
        .start(origin.address);
    let path = "/bucket/k";
    let part = 5 * MIB;
    let lists = std::thread::scope(|scope| {
        let uploads = [("a", 1), ("b", 2), ("c", 3)].map(|(upload, seed)| {
            let server = &server;
            scope.spawn(move || {
                let (tile, mut client) = (Tile::new(seed), server.connect());
                let numbers = 1..=3_u32;
                let parts = numbers.map(|number| {
                    let start = u64::from(number - 1) * part;
                    let body = tile.slice(start, start + part);
                    put_part(&mut client, path, upload, number, body)
                });
                parts.collect::<String>()
            })
        });
        uploads.map(|upload| upload.join().expect("its list"))
    });
    // In another order than they began; one is given up.
    for (number, upload) in [(1, "b"), (0, "a")] {
        complete(&server, path, upload, &lists[number]);
        let sent = store.body_bytes();
        let read = server.get(path);
        read.assert_body(&Tile::new(number as u64 + 1), 0, 3 * part);
        assert!(store.body_bytes() <= sent + 1, "what was kept was fetched");
    }
    let given_up = Ask::new("DELETE", &format!("{path}?uploadId=c"));
    assert_eq!(server.fetch(&given_up).status(), 204);
    server.get(path).assert_body(&Tile::new(1), 0, 3 * part);
    wait_until("that nothing waits any more", PATIENCE, || {
        server.metrics().sum("millrace_writes_staged_bytes", &[]) == 0.0
    });
    server.finish();
}

/// Reference 2A.35.
#[test]
fn semantics_176_who_reads_a_version_reads_it_to_its_end_though_another_is_kept_meanwhile() {
    let store = Store::new();
    let origin = store.serve();
    let server = Millrace::setup()
        .shards(2)
        .ram("128MiB")
        .settings(WRITE_THROUGH)
        .start(origin.address);
    let (path, length) = ("/bucket/k", 20 * MIB);
    store.insert(path, Object::tile(1, length));
    server.get(path).assert_body(&Tile::new(1), 0, length);
    let mut readers: Vec<Connection> = (0..4)
        .map(|_| Connection::open_narrow(server.door, 32 << 10))
        .collect();
    let mut heads = Vec::new();
    for reader in &mut readers {
        reader.send_ask(&Ask::get(path));
        heads.push(reader.head().expect("a head"));
    }
    for seed in 2..6 {
        let body = Tile::new(seed).slice(0, length);
        assert_eq!(server.fetch(&Ask::put(path, body)).status(), 200);
        let sent = store.body_bytes();
        server.get(path).assert_body(&Tile::new(seed), 0, length);
        assert!(store.body_bytes() <= sent + 1, "what was kept was fetched");
    }
    for (reader, head) in readers.iter_mut().zip(&heads) {
        let read = reader.check_body(head, &Tile::new(1), 0);
        assert_eq!(read, Ok(length), "a version that is in RAM is read whole");
    }
    drop(readers);
    server.finish();
}

/// Sends `body` in pieces of `piece` bytes, each of which comes alone.
fn put_in_pieces(client: &mut Connection, path: &str, body: &[u8], piece: usize, aws: bool) {
    let framed = |piece: &[u8]| match aws {
        true => [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat(),
        false => piece.to_vec(),
    };
    let end: &[u8] = if aws { b"0\r\n\r\n" } else { b"" };
    let wire: Vec<Vec<u8>> = body.chunks(piece).map(framed).collect();
    let length = wire.iter().map(Vec::len).sum::<usize>() + end.len();
    let headers = match aws {
        true => format!(
            "x-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER\r\nx-amz-decoded-content-length: {}\r\n",
            body.len()
        ),
        false => String::new(),
    };
    client.send(format!(
        "PUT {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {length}\r\n{headers}\r\n",
        client.peer
    ));
    for (number, piece) in wire.iter().enumerate() {
        client.send(piece);
        if number % 64 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    client.send(end);
    assert_eq!(client.response("PUT").expect("an answer").status(), 200);
}

/// An origin that stores what comes out of the framing of the SDKs.
fn unframing(store: &Store) -> Stub {
    let store = store.clone();
    Stub::start(move |seen: &mut Seen, wire: &mut Wire| {
        if seen.method() != "PUT" || seen.header("x-amz-decoded-content-length").is_none() {
            return store.answer(seen, wire);
        }
        let mut body = Vec::new();
        let framing = crate::harness::client::Framing::Chunked;
        let read = wire
            .reader()
            .body(framing, |piece| body.extend_from_slice(piece));
        let object = Object::bytes(&body);
        let etag = object.etag.clone();
        store.insert(seen.target(), object);
        match read {
            Ok(_) => wire.respond("200 OK", &[("ETag", &etag)], b""),
            Err(_) => After::Close,
        }
    })
}

/// Reference 2E.97.
#[test]
fn semantics_177_however_small_the_pieces_are_the_copy_is_as_large_as_the_object() {
    let (store, folder) = (Store::new(), Scratch::new());
    let origin = unframing(&store);
    let server = Millrace::setup()
        .shards(1)
        .settings(WRITE_THROUGH)
        .cache_dir(&folder.path)
        .arguments(&["--disk", "512MiB"])
        .start(origin.address);
    crate::disk::await_folded(&server);
    let (tile, length) = (Tile::new(5), MIB + 11);
    let body = tile.slice(0, length);
    let mut client = server.connect();
    let gauge = |name: &str| server.metrics().sum(&format!("millrace_{name}"), &[]) as u64;
    for (number, piece, aws) in [(1, 300, false), (2, 300, true), (3, 7_001, true)] {
        let path = format!("/bucket/{number}");
        put_in_pieces(&mut client, &path, &body, piece, aws);
        let (sent, written) = (store.body_bytes(), gauge("disk_written_bytes_total"));
        server.get(&path).assert_body(&tile, 0, length);
        let fetched = store.body_bytes() - sent;
        assert!(
            fetched <= 1,
            "{fetched} bytes of {path} were fetched, which was kept"
        );
        wait_until("one extent for each object", PATIENCE, || {
            gauge("index_extents") == number
        });
        wait_until("that it is on disk", PATIENCE, || {
            gauge("disk_extents") == number && gauge("disk_queued_bytes") == 0
        });
        let grown = gauge("disk_written_bytes_total") - written;
        assert!(grown <= length + 64 * KIB, "{grown} bytes for {length}");
    }
    drop(client);
    server.finish();
}

/// Reference 2E.98 and 2E.103.
#[test]
fn semantics_178_what_was_kept_is_as_fresh_as_its_rule_says() {
    let store = Store::new();
    let origin = store.serve();
    let rules = "[[rule]]\nmatch = 'bucket/always/**'\nttl = '0s'\n[[rule]]\nmatch = 'bucket/second/**'\nttl = '1s'\n";
    let server = Millrace::setup()
        .shards(2)
        .settings(&format!("{WRITE_THROUGH}ttl = '1h'\n{rules}"))
        .start(origin.address);
    let (tile, other, length) = (Tile::new(1), Tile::new(2), 300 * KIB);
    let past = |path: &str| store.insert(path, Object::tile(2, length));
    for folder in ["hour", "always", "second"] {
        let path = format!("/bucket/{folder}/k");
        let put = Ask::put(&path, tile.slice(0, length));
        assert_eq!(server.fetch(&put).status(), 200);
        let sent = store.body_bytes();
        server.get(&path).assert_body(&tile, 0, length);
        assert!(store.body_bytes() <= sent + 1, "what was kept was fetched");
        // Again while nothing has changed: at most asked, never sent.
        server.get(&path).assert_body(&tile, 0, length);
        assert!(store.body_bytes() <= sent + 1, "{folder}");
    }
    // A write that does not come through here is seen when the rule says so.
    past("/bucket/always/k");
    server
        .get("/bucket/always/k")
        .assert_body(&other, 0, length);
    past("/bucket/hour/k");
    let read = server.get("/bucket/hour/k");
    assert_eq!(read.cache_word(), "HIT");
    read.assert_body(&tile, 0, length);
    past("/bucket/second/k");
    wait_until("that a second has passed", PATIENCE, || {
        other.holds(0, &server.get("/bucket/second/k").body)
    });
    // Or when its operator hears of it.
    let purge = Ask::new("POST", "/purge?name=bucket/hour/k");
    assert_eq!(crate::harness::fetch(server.admin, &purge).status(), 200);
    server.get("/bucket/hour/k").assert_body(&other, 0, length);
    server.finish();
}
