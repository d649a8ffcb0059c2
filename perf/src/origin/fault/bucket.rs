//! Operations on the service and on buckets: lists, multi-delete, and the few that clients ask at start.
//!
//! Called by `answer`. Buckets need not be created; every name is one. Invariant: total; what is not known is 501,
//! never an object. Left to others: objects.

use std::sync::Arc;

use super::answer::{Answer, escape};
use super::condition::to_http_date;
use super::request::Request;
use super::store::{Object, Store};

const KEYS_MAX_DEFAULT: usize = 1000;

/// Answers a request without a key.
pub fn answer(store: &Store, request: &Request, body: &[u8]) -> Answer {
    let has = |name: &str| request.params().any(|(have, _)| have == name);
    match request.method.as_str() {
        "GET" if request.bucket.is_empty() => Answer::xml(
            200,
            "<ListAllMyBucketsResult><Buckets></Buckets></ListAllMyBucketsResult>",
        ),
        "GET" if has("location") => {
            Answer::xml(200, "<LocationConstraint>us-east-1</LocationConstraint>")
        }
        "GET" if has("versioning") => {
            Answer::xml(200, "<VersioningConfiguration></VersioningConfiguration>")
        }
        "GET" if is_list(request) => list(store, request),
        "HEAD" | "PUT" => Answer::empty(200),
        "DELETE" => Answer::empty(204),
        "POST" if has("delete") => multi_delete(store, request, body),
        _ => Answer::error(
            501,
            "NotImplemented",
            "A header you provided implies functionality not implemented",
            "",
        ),
    }
}

/// Only list parameters: anything else is another sub-resource.
fn is_list(request: &Request) -> bool {
    const KNOWN: [&str; 9] = [
        "list-type",
        "prefix",
        "delimiter",
        "max-keys",
        "continuation-token",
        "start-after",
        "marker",
        "encoding-type",
        "fetch-owner",
    ];
    request.params().all(|(name, _)| {
        KNOWN.contains(&name.as_str()) || name.starts_with("X-Amz-") || name == "x-id"
    })
}

fn list(store: &Store, request: &Request) -> Answer {
    let page = Page::of(store, request);
    let name = |text: &str| {
        if page.url {
            crate::sign::encode(text).replace("%2F", "/")
        } else {
            escape(text)
        }
    };
    let entries: String = page
        .entries
        .iter()
        .map(|(key, object)| entry_xml(&name(key), object))
        .collect();
    let prefixes: String = page
        .prefixes
        .iter()
        .map(|p| {
            format!(
                "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>",
                name(p)
            )
        })
        .collect();
    let next = page.next.as_deref().map(escape).map_or(String::new(), |next| {
        format!("<NextContinuationToken>{next}</NextContinuationToken><NextMarker>{next}</NextMarker>")
    });
    Answer::xml(
        200,
        &format!(
            "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>{}</Name><Prefix>{}</Prefix>\
             <KeyCount>{}</KeyCount><MaxKeys>{}</MaxKeys><IsTruncated>{}</IsTruncated>{next}\
             {}{entries}{prefixes}</ListBucketResult>",
            escape(&request.bucket),
            name(&page.prefix),
            page.entries.len() + page.prefixes.len(),
            page.keys_max,
            page.next.is_some(),
            if page.url {
                "<EncodingType>url</EncodingType>"
            } else {
                ""
            },
        ),
    )
}

fn entry_xml(name: &str, object: &Object) -> String {
    format!(
        "<Contents><Key>{name}</Key><LastModified>{}</LastModified><ETag>{}</ETag><Size>{}</Size>\
         <StorageClass>STANDARD</StorageClass></Contents>",
        iso_date(object.modified_s),
        escape(&object.etag),
        object.data.len()
    )
}

/// One page of a list.
struct Page {
    prefix: String,
    keys_max: usize,
    /// Names are wanted percent-encoded.
    url: bool,
    entries: Vec<(String, Arc<Object>)>,
    prefixes: Vec<String>,
    /// Where the next page starts, when there is one.
    next: Option<String>,
}

impl Page {
    fn of(store: &Store, request: &Request) -> Page {
        let param = |name: &str| request.param(name).unwrap_or_default();
        let after = ["continuation-token", "start-after", "marker"]
            .into_iter()
            .map(param)
            .max()
            .expect("three");
        let delimiter = param("delimiter");
        let mut page = Page {
            prefix: param("prefix"),
            keys_max: param("max-keys")
                .parse()
                .unwrap_or(KEYS_MAX_DEFAULT)
                .min(KEYS_MAX_DEFAULT),
            url: param("encoding-type") == "url",
            entries: Vec::new(),
            prefixes: Vec::new(),
            next: None,
        };
        let mut last = String::new();
        for (key, object) in store.list(&request.bucket, &page.prefix, &after) {
            let common = common_prefix(&key, &page.prefix, &delimiter);
            if common
                .as_ref()
                .is_some_and(|common| page.prefixes.contains(common))
            {
                continue;
            }
            if page.entries.len() + page.prefixes.len() == page.keys_max {
                page.next = Some(last);
                break;
            }
            match common {
                Some(common) => {
                    // Behind every key that the prefix stands for.
                    last = format!("{common}\u{10ffff}");
                    page.prefixes.push(common);
                }
                None => {
                    last.clone_from(&key);
                    page.entries.push((key, object));
                }
            }
        }
        page
    }
}

fn common_prefix(key: &str, prefix: &str, delimiter: &str) -> Option<String> {
    if delimiter.is_empty() {
        return None;
    }
    let at = key[prefix.len()..].find(delimiter)?;
    Some(key[..prefix.len() + at + delimiter.len()].to_string())
}

/// `2024-01-01T00:00:00.000Z`.
pub fn iso_date(unix_s: u64) -> String {
    let when = i64::try_from(unix_s)
        .ok()
        .and_then(|s| time::OffsetDateTime::from_unix_timestamp(s).ok());
    let format =
        time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].000Z");
    match when.and_then(|when| when.format(format).ok()) {
        Some(text) => text,
        None => to_http_date(unix_s),
    }
}

fn multi_delete(store: &Store, request: &Request, body: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(body);
    let mut deleted = String::new();
    for key in elements(&text, "Key") {
        store.delete(&request.bucket, &key);
        deleted.push_str(&format!("<Deleted><Key>{}</Key></Deleted>", escape(&key)));
    }
    if elements(&text, "Quiet")
        .first()
        .is_some_and(|quiet| quiet == "true")
    {
        deleted.clear();
    }
    Answer::xml(200, &format!("<DeleteResult>{deleted}</DeleteResult>"))
}

/// The texts of all elements of that name, in order. Enough XML for the bodies that S3 clients send.
pub fn elements(xml: &str, name: &str) -> Vec<String> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut rest = xml;
    let mut found = Vec::new();
    while let Some((_, after)) = rest.split_once(&open) {
        let Some((text, after)) = after.split_once(&close) else {
            break;
        };
        let text = text
            .trim()
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&quot;", "\"");
        found.push(
            text.replace("&apos;", "'")
                .replace("&#39;", "'")
                .replace("&#34;", "\"")
                .replace("&amp;", "&"),
        );
        rest = after;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(store: &Store, query: &str) -> String {
        let head = format!("GET /b?{query} HTTP/1.1\r\nHost: h\r\n\r\n");
        let request = Request::parse(head.as_bytes(), &[]).expect("well formed");
        let answer = answer(store, &request, b"");
        assert_eq!(answer.status, 200);
        String::from_utf8_lossy(answer.payload.slice(0, 1 << 20)).into_owned()
    }

    #[test]
    fn pages_of_a_list_cover_every_key_and_prefix_once() {
        let store = Store::default();
        for key in ["a/1", "a/2", "b", "c/1", "d"] {
            store.put("b", key, Object::stored(vec![], vec![]));
        }
        let (mut token, mut keys, mut prefixes) = (String::new(), Vec::new(), Vec::new());
        loop {
            let query = format!(
                "list-type=2&delimiter=%2F&max-keys=1&continuation-token={}",
                crate::sign::encode(&token)
            );
            let xml = get(&store, &query);
            keys.extend(elements(&xml, "Key"));
            // The first Prefix element is the request's own.
            prefixes.extend(elements(&xml, "Prefix").into_iter().skip(1));
            match elements(&xml, "NextContinuationToken").pop() {
                Some(next) => token = next,
                None => break,
            }
        }
        assert_eq!(keys, ["b", "d"]);
        assert_eq!(prefixes, ["a/", "c/"]);
    }

    #[test]
    fn multi_delete_deletes_what_it_names() {
        let store = Store::default();
        for key in ["a", "b&c"] {
            store.put("b", key, Object::stored(vec![], vec![]));
        }
        let head = "POST /b?delete HTTP/1.1\r\nHost: h\r\n\r\n";
        let request = Request::parse(head.as_bytes(), &[]).expect("well formed");
        let body = b"<Delete><Object><Key>b&amp;c</Key></Object></Delete>";
        assert_eq!(answer(&store, &request, body).status, 200);
        assert_eq!(store.list("b", "", "").len(), 1);
    }

    #[test]
    fn an_unknown_sub_resource_is_501() {
        let request =
            Request::parse(b"GET /b?policy HTTP/1.1\r\nHost: h\r\n\r\n", &[]).expect("well formed");
        assert_eq!(answer(&Store::default(), &request, b"").status, 501);
    }
}
