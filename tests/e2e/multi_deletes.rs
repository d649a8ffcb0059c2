//! Multi-deletes: the keys are in the body, and may be written in many ways.

use crate::harness::store::Object;
use crate::harness::stub::{Seen, Wire};
use crate::harness::{Ask, Millrace, Store, Stub};

/// Of one path of the URL, as a client spells it.
fn encoded(key: &str) -> String {
    key.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// Keys that are easily got wrong, with how they may stand in the list.
const ODD_KEYS: [(&str, &str); 16] = [
    ("plain", "plain"),
    ("a&b", "a&amp;b"),
    ("<x>\"'", "&lt;x&gt;&quot;&apos;"),
    ("a+b", "a+b"),
    ("a b", "a b"),
    (" begin and end ", " begin and end "),
    ("%2F", "%2F"),
    ("100%", "100%"),
    ("%zz", "&#37;zz"),
    ("a//b", "a//b"),
    ("./..", "./.."),
    ("\u{e9}\u{1f600}", "\u{e9}&#x1F600;"),
    ("line\nfeed", "line&#10;feed"),
    ("tab\tand\rreturn", "tab&#9;and&#xD;return"),
    ("cdata<&", "<![CDATA[cdata<&]]>"),
    ("trailing/", "trailing/"),
];

/// Lists that name all odd keys: whether only what is listed goes, and the list.
fn lists() -> [(bool, String); 9] {
    let filler = |count: usize, bytes: usize| -> String {
        // A thousand bytes at most, each of which may be written in five.
        let escaped = bytes.saturating_sub(990) / 4;
        let filler = "x".repeat(bytes.min(990) - escaped) + &"&amp;".repeat(escaped);
        let object = |n| format!("<Object><Key>none-{n:06}-{filler}</Key></Object>");
        (0..count).map(object).collect()
    };
    let listed = |version: &str| -> String {
        let object = |(_, xml)| format!("<Object>{version}<Key>{xml}</Key></Object>");
        ODD_KEYS.into_iter().map(object).collect()
    };
    let version = "<VersionId>3/L4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY</VersionId>";
    let namespace = "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"";
    [
        (true, format!("<Delete>{}</Delete>", listed(""))),
        (
            true,
            format!(
                "<Delete {namespace}><Quiet>true</Quiet>{}</Delete>",
                listed("")
            ),
        ),
        (
            true,
            format!(
                "\u{feff}<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Delete {namespace}>{}\n<Quiet>true</Quiet></Delete>\n",
                listed(version)
            ),
        ),
        (
            true,
            format!(
                "<s3:Delete xmlns:s3=\"x\">{}</s3:Delete>",
                listed("")
                    .replace("Object>", "s3:Object>")
                    .replace("Key>", "s3:Key>")
            ),
        ),
        (
            true,
            format!("<Delete>{}{}</Delete>", filler(984, 990), listed(version)),
        ),
        // Just what is read of it, and more than that.
        (
            true,
            format!("<Delete>{}{}</Delete>", filler(984, 2_070), listed("")),
        ),
        (
            false,
            format!("<Delete>{}{}</Delete>", filler(984, 2_150), listed("")),
        ),
        (false, format!("<Delete>{}<Object></Delete>", listed(""))),
        (
            false,
            format!(
                "<!DOCTYPE d [<!ENTITY e \"k\">]><Delete>{}</Delete>",
                listed("")
            ),
        ),
    ]
}

/// Reference 2A.5 and 2E.104.
#[test]
fn semantics_169_a_multi_delete_drops_its_keys_however_they_are_written() {
    let store = Store::new();
    let origin = {
        let store = store.clone();
        Stub::start(move |seen: &mut Seen, wire: &mut Wire| {
            if seen.method() == "POST" {
                for (key, _) in ODD_KEYS {
                    store.remove(&format!("/bucket/{}", encoded(key)));
                }
            }
            store.answer(seen, wire)
        })
    };
    let server = Millrace::setup().shards(2).start(origin.address);
    let kept = "/bucket/kept";
    for (exact, xml) in lists() {
        store.insert(kept, Object::bytes(b"kept"));
        server.get(kept);
        for (key, _) in ODD_KEYS {
            let path = format!("/bucket/{}", encoded(key));
            store.insert(&path, Object::bytes(key.as_bytes()));
            for _ in 0..2 {
                assert_eq!(server.get(&path).text(), key);
            }
            assert_eq!(server.get(&path).cache_word(), "HIT", "{key:?}");
        }
        let answer = server.fetch(&Ask::new("POST", "/bucket?delete").body(xml.clone()));
        assert_eq!(answer.status(), 200, "{} bytes", xml.len());
        for (key, _) in ODD_KEYS {
            let path = format!("/bucket/{}", encoded(key));
            assert_eq!(server.get(&path).status(), 404, "{key:?} in {:.300}", xml);
        }
        let word = server.get(kept).cache_word().to_owned();
        assert_eq!(word == "HIT", exact, "{} bytes: {:.200}", xml.len(), xml);
    }
    server.finish();
}

/// In the framing of the SDKs, or in chunks, a list says the same, or everything goes.
#[test]
fn a_multi_delete_in_any_framing_drops_its_keys() {
    let store = Store::new();
    let origin = {
        let store = store.clone();
        Stub::start(move |seen: &mut Seen, wire: &mut Wire| {
            if seen.method() == "POST" {
                store.remove("/bucket/k");
            }
            store.answer(seen, wire)
        })
    };
    let server = Millrace::start(origin.address);
    let xml = "<Delete><Object><Key>k</Key></Object></Delete>";
    let chunked = |cut: usize| {
        let pieces = xml.as_bytes().chunks(cut);
        let text = |piece: &[u8]| String::from_utf8_lossy(piece).into_owned();
        let framed = pieces.map(|piece| format!("{:x}\r\n{}\r\n", piece.len(), text(piece)));
        framed.collect::<String>() + "0\r\n\r\n"
    };
    let post = || Ask::new("POST", "/bucket?delete");
    let aws = |body: String| {
        post()
            .header("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
            .header("x-amz-decoded-content-length", &xml.len().to_string())
            .header("Content-Encoding", "aws-chunked")
            .body(body)
    };
    let asks = [
        post()
            .header("Transfer-Encoding", "chunked")
            .body(chunked(7)),
        aws(chunked(1000)),
        aws(chunked(5)).header("x-amz-trailer", "x-amz-checksum-crc32"),
    ];
    for ask in &asks {
        store.insert("/bucket/k", Object::bytes(b"old"));
        assert_eq!(server.get("/bucket/k").text(), "old");
        assert_eq!(server.get("/bucket/k").cache_word(), "HIT");
        assert_eq!(server.fetch(ask).status(), 200);
        assert_eq!(server.get("/bucket/k").status(), 404, "{ask:?}");
    }
    server.finish();
}
