//! What operators see: an access log of whole JSON lines without secrets, and metrics
//! that add up.

use crate::harness::s3s::{ACCESS_KEY, S3s};
use crate::harness::store::Object;
use crate::harness::{Ask, KIB, Millrace, PATIENCE, Store, wait_until};
use serde_json::Value;
use std::time::SystemTime;

const LOGGED: &str = "[log]\naccess = \"@ACCESS_LOG@\"";

/// The access log once it has `count` lines, each parsed.
#[track_caller]
fn lines(server: &Millrace, count: usize) -> Vec<Value> {
    wait_until("the access log is written", PATIENCE, || {
        server.access_log_lines().len() >= count
    });
    let lines = server.access_log_lines();
    assert_eq!(lines.len(), count, "{lines:#?}");
    lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[test]
fn semantics_46_each_request_is_one_json_line() {
    // (2A.30)
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(110, 10 * KIB));
    let origin = store.serve();
    let server = Millrace::setup().settings(LOGGED).start(origin.address);
    for _ in 0..50 {
        server.get("/bucket/k");
    }
    server.get("/bucket/none");
    server.fetch(&Ask::put("/bucket/n", "x"));
    let mut broken = server.connect();
    broken.send("GET /b HTTP/1.1\r\nHost : h\r\n\r\n");
    let _ = broken.response("GET");
    let lines = lines(&server, 53);
    assert!(lines.iter().all(Value::is_object));
    let hit = &lines[1];
    for (field, value) in [
        ("method", "GET"),
        ("bucket", "bucket"),
        ("key", "k"),
        ("result", "hit"),
    ] {
        assert_eq!(hit[field], value, "{field} of {hit}");
    }
    assert_eq!(
        (&hit["status"], &hit["bytes_sent"]),
        (&Value::from(200), &Value::from(10 * KIB))
    );
    drop(broken);
    server.finish();
}

#[test]
fn semantics_47_no_secret_is_written_anywhere() {
    // (2D.81; wire rule 32)
    let origin = S3s::start();
    origin.create_bucket("bucket");
    origin.put("/bucket/k", b"content");
    let server = Millrace::setup()
        .settings(LOGGED)
        .settings("level = \"trace\"")
        .start(origin.address);
    let signer = origin.signer(server.door);
    let secrets = ["TOKEN0SECRET0VALUE", "SSEC0KEY0VALUE", ACCESS_KEY];
    let signed = signer.sign(Ask::get("/bucket/k"));
    let presigned = signer.presign("GET", "/bucket/k", 600, SystemTime::now());
    let tokened = Ask::get("/bucket/k")
        .header("x-amz-security-token", secrets[0])
        .header("x-amz-server-side-encryption-customer-key", secrets[1]);
    let query_token = Ask::get(&format!(
        "/bucket/k?X-Amz-Security-Token={}&X-Amz-Signature=SIG0VALUE&AWSAccessKeyId=OLD0KEY&Signature=OLD0SIG",
        secrets[0]
    ));
    let mut signatures = vec!["SIG0VALUE".to_owned(), "OLD0SIG".to_owned()];
    for ask in [&signed, &presigned] {
        assert_eq!(server.fetch(ask).text(), "content");
        let whole = format!("{}{:?}", ask.target, ask.headers);
        let at = whole.find("Signature=").expect("a signature") + "Signature=".len();
        signatures.push(whole[at..at + 64].to_owned());
    }
    server.fetch(&tokened);
    server.fetch(&query_token);
    let logged: String = lines(&server, 4).iter().map(Value::to_string).collect();
    let everything = format!("{logged}{}", server.output());
    for secret in signatures.iter().map(String::as_str).chain(secrets) {
        assert!(!everything.contains(secret), "{secret} was written");
    }
    let metrics = server.metrics();
    let bounded = metrics
        .samples
        .iter()
        .all(|(_, labels, _)| !labels.contains_key("bucket") && !labels.contains_key("key"));
    assert!(
        bounded,
        "clients choose the labels of {:?}",
        metrics.samples
    );
    server.finish();
}

#[test]
fn the_access_log_is_its_owners_alone() {
    // (2K.188)
    use std::os::unix::fs::PermissionsExt;
    let store = Store::new();
    let origin = store.serve();
    let server = Millrace::setup().settings(LOGGED).start(origin.address);
    server.get("/bucket/none");
    lines(&server, 1);
    let mode = std::fs::metadata(&server.access_log)
        .expect("the log")
        .permissions()
        .mode();
    assert_eq!(mode & 0o077, 0, "others may open the log: {mode:o}");
    server.finish();
}

#[test]
fn hostile_names_stay_inside_their_json_string() {
    // (2D.82)
    let store = Store::new();
    let origin = store.serve();
    let server = Millrace::setup().settings(LOGGED).start(origin.address);
    let targets = [
        "/bucket/%0d%0a%22%7d,%7b",
        "/bucket/\"},{\"a\":\"",
        "/bucket/%00%1b[31m",
        "/bucket/<script>",
        "/bucket/%ff%fe",
    ];
    for target in targets {
        let _ = server
            .connect()
            .try_exchange(&Ask::get(target).header("User-Agent", "a\\\"b\u{7f}"));
    }
    assert_eq!(lines(&server, targets.len()).len(), targets.len());
    server.finish();
}

#[test]
fn semantics_48_counters_add_up() {
    // (2K.180)
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(111, 100 * KIB));
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    for _ in 0..5 {
        server.get("/bucket/k");
        server.fetch(&Ask::get("/bucket/k").range(0, 10));
        server.fetch(&Ask::head("/bucket/k"));
        server.get("/bucket?list-type=2");
    }
    server.assert_nothing_held();
    let metrics = server.metrics();
    assert_eq!(metrics.sum("millrace_requests_total", &[]), 20.0);
    assert_eq!(
        metrics.sum("millrace_requests_total", &[("result", "miss")]),
        1.0
    );
    assert_eq!(
        metrics.sum("millrace_requests_total", &[("result", "hit")]),
        14.0
    );
    assert_eq!(
        metrics.sum("millrace_requests_total", &[("result", "pass")]),
        5.0
    );
    assert_eq!(
        metrics.sum("millrace_requests_total", &[("method", "head")]),
        5.0
    );
    assert_eq!(metrics.sum("millrace_responses_total", &[]), 20.0);
    let from_ram = metrics.sum("millrace_downstream_sent_bytes_total", &[("source", "ram")]);
    let from_fill = metrics.sum(
        "millrace_downstream_sent_bytes_total",
        &[("source", "fill")],
    );
    assert_eq!(from_ram + from_fill, (5 * 100 * KIB + 50) as f64);
    assert_eq!(
        metrics.sum("millrace_upstream_requests_total", &[]) as usize,
        origin.requests()
    );
    assert_eq!(
        metrics.sum("millrace_fill_bytes_total", &[]),
        (100 * KIB) as f64
    );
    server.finish();
}

#[test]
fn the_document_of_metrics_names_every_family_and_no_other() {
    let store = Store::new();
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/METRICS.md");
    let document = std::fs::read_to_string(path).expect("docs/METRICS.md");
    let metrics = server.metrics();
    assert!(metrics.kinds.len() > 20);
    for (name, kind) in &metrics.kinds {
        assert!(name.starts_with("millrace_"), "{name}");
        // The exposition leaves the suffix of a counter, and of an info, to its samples.
        let samples = match kind.as_str() {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.clone(),
        };
        assert!(
            document.contains(&format!("`{samples}")),
            "{samples} is not documented"
        );
    }
    server.finish();
}
