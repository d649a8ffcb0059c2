//! Answers that take long, and say at their end that nothing was done.

use crate::harness::client::Framing;
use crate::harness::store::Object;
use crate::harness::stub::{After, Seen, Wire};
use crate::harness::{Ask, Millrace, PATIENCE, Store, Stub, Tile, wait_until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Longer than every timeout of the server under test.
const PAUSE: Duration = Duration::from_millis(450);
const TIMEOUTS: &str = "[listener]\nsend_timeout = '300ms'\nidle_timeout = '300ms'\nhead_timeout = '300ms'\n[upstream]\nfirst_byte_timeout = '150ms'\nidle_timeout = '150ms'\nretries = 0\n[outage]\nfall = 0\n";
const ERROR: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>InternalError</Code><Message>no</Message></Error>";

/// An origin whose writes begin late, go on with white space, and are done, or not, at their end.
fn slow(store: &Store, fails: &Arc<AtomicBool>, chunked: bool) -> Stub {
    let (store, fails) = (store.clone(), Arc::clone(fails));
    Stub::start(move |seen: &mut Seen, wire: &mut Wire| {
        let target = seen.target().to_owned();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let copies = seen.header("x-amz-copy-source").is_some();
        if matches!(seen.method(), "GET" | "HEAD") {
            return store.answer(seen, wire);
        }
        let Ok(body) = wire.read_body(&seen.head) else {
            return After::Close;
        };
        if seen.method() == "PUT" && !copies {
            return wire.respond("200 OK", &[("ETag", "\"p\"")], b"");
        }
        std::thread::sleep(PAUSE);
        let framing = match chunked {
            true => "Transfer-Encoding: chunked",
            false => "Connection: close",
        };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\n{framing}\r\n\r\n");
        let frame = |text: &str| match chunked {
            true => format!("{:x}\r\n{text}\r\n", text.len()),
            false => text.to_owned(),
        };
        let mut sent = wire.send(head).is_ok();
        for _ in 0..3 {
            std::thread::sleep(PAUSE);
            sent &= wire.send(frame(" ")).is_ok();
        }
        std::thread::sleep(PAUSE);
        let xml = match fails.load(Ordering::Acquire) {
            true => ERROR.to_owned(),
            false => {
                let object = match query.contains("uploadId") && !copies {
                    true => Object::tile(7, 300_000),
                    false => Object::bytes(&body),
                };
                let root = match (copies, query.is_empty()) {
                    (true, true) => "CopyObjectResult",
                    (true, false) => "CopyPartResult",
                    _ => "CompleteMultipartUploadResult",
                };
                let etag = object.etag.replace('"', "&quot;");
                if !(copies && query.contains("uploadId")) {
                    store.insert(path, object);
                }
                format!("<{root}><ETag>{etag}</ETag></{root}>")
            }
        };
        let (begin, end) = xml.split_at(xml.len() / 2);
        sent &= wire.send(frame(begin)).is_ok() && wire.send(frame(end)).is_ok();
        match (sent, chunked) {
            (true, true) if wire.send("0\r\n\r\n").is_ok() => After::KeepAlive,
            _ => After::Close,
        }
    })
}

fn requests(path: &str) -> [Ask; 4] {
    let list = "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>\"p\"</ETag></Part></CompleteMultipartUpload>";
    let copy = |target: &str| Ask::put(target, "").header("x-amz-copy-source", "/bucket/source");
    [
        Ask::new("POST", &format!("{path}?uploadId=u")).body(list),
        copy(path),
        copy(&format!("{path}?partNumber=2&uploadId=u")),
        Ask::new("POST", "/bucket?delete")
            .body("<Delete><Object><Key>none</Key></Object></Delete>"),
    ]
}

/// Reference 2E.90 and 4.18.
#[test]
fn semantics_171_answers_of_minutes_pass_without_timers_and_an_error_at_their_end_is_seen() {
    for (chunked, fails) in [(true, true), (true, false), (false, true)] {
        let (store, failing) = (Store::new(), Arc::new(AtomicBool::new(fails)));
        let origin = slow(&store, &failing, chunked);
        let server = Millrace::setup()
            .shards(2)
            .settings(TIMEOUTS)
            .start(origin.address);
        std::thread::scope(|scope| {
            for (number, _) in requests("").iter().enumerate() {
                let (server, store) = (&server, &store);
                scope.spawn(move || {
                    let path = format!("/bucket/{number}");
                    store.insert(&path, Object::bytes(b"old"));
                    assert_eq!(server.get(&path).text(), "old");
                    let ask = &requests(&path)[number];
                    let answer = server.fetch(ask);
                    assert_eq!(answer.status(), 200, "{ask:?}");
                    let text = answer.text();
                    assert!(text.starts_with("   <"), "{text:?}");
                    assert_eq!(text.contains("<Error>"), fails, "{text}");
                    let truth = store.object(&path).expect("the object").etag;
                    let reads = [server.get(&path), server.get(&path)];
                    let right = reads
                        .iter()
                        .all(|read| read.header("etag") == Some(&*truth));
                    assert!(right, "{ask:?}: {reads:?}");
                });
            }
        });
        let late = server
            .metrics()
            .sum("millrace_errors_inside_200_total", &[]);
        assert_eq!(late, if fails { 2.0 } else { 0.0 }, "a copy and an upload");
        server.finish();
    }
}

/// White space is there to say that somebody is working: it does not wait for what comes behind it.
#[test]
fn white_space_reaches_the_client_as_it_comes() {
    let (store, failing) = (Store::new(), Arc::new(AtomicBool::new(false)));
    let origin = slow(&store, &failing, true);
    let server = Millrace::setup().settings(TIMEOUTS).start(origin.address);
    let mut client = server.connect();
    client.patience(PAUSE + PAUSE / 2);
    client.send_ask(&requests("/bucket/k")[0]);
    assert_eq!(client.head().expect("the head alone").status(), 200);
    for _ in 0..3 {
        // A chunk of one byte.
        let chunk = client.reader.body(Framing::Length(6), |bytes| {
            assert!(!bytes.contains(&b'<'), "{bytes:?}");
        });
        chunk.expect("a space within its time");
    }
    client.patience(PATIENCE);
    let _ = client.reader.body(Framing::Chunked, |_| {});
    drop(client);
    server.finish();
}

/// Who is told at the end that nothing was done may ask again: the parts are still there.
#[test]
fn an_upload_whose_completion_failed_late_is_completed_the_second_time() {
    let (store, failing) = (Store::new(), Arc::new(AtomicBool::new(true)));
    let origin = slow(&store, &failing, true);
    let settings = format!("{TIMEOUTS}[cache]\nwrite_through = true\n");
    let server = Millrace::setup()
        .shards(2)
        .settings(&settings)
        .start(origin.address);
    let (path, tile) = ("/bucket/k", Tile::new(7));
    store.insert(path, Object::bytes(b"old"));
    let part = Ask::put("/bucket/k?partNumber=1&uploadId=u", tile.slice(0, 300_000));
    assert_eq!(server.fetch(&part).status(), 200);
    let complete = &requests(path)[0];
    assert!(server.fetch(complete).text().contains("<Error>"));
    assert_eq!(server.get(path).text(), "old");
    failing.store(false, Ordering::Release);
    assert!(!server.fetch(complete).text().contains("<Error>"));
    let sent = store.body_bytes();
    server.get(path).assert_body(&tile, 0, 300_000);
    assert!(store.body_bytes() <= sent + 1, "what was kept was fetched");
    wait_until("that nothing waits any more", PATIENCE, || {
        server.metrics().sum("millrace_writes_staged_bytes", &[]) == 0.0
    });
    server.finish();
}
