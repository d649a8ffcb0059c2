//! Operations on the service and on buckets: lists, multi-delete, and the few that clients ask at start.
//!
//! Called by `answer`. Buckets need not be created; every name is one. Invariant: total; what is not known is 501,
//! never an object. Left to others: objects.

use super::answer::{Answer, escape};
use super::condition::to_http_date;
use super::request::Request;
use super::store::Store;

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
    let param = |name: &str| request.param(name).unwrap_or_default();
    let prefix = param("prefix");
    let delimiter = param("delimiter");
    let after = [
        param("continuation-token"),
        param("start-after"),
        param("marker"),
    ]
    .into_iter()
    .max()
    .expect("three");
    let keys_max = param("max-keys")
        .parse()
        .unwrap_or(KEYS_MAX_DEFAULT)
        .min(KEYS_MAX_DEFAULT);
    let url = param("encoding-type") == "url";
    let name = |text: &str| {
        if url {
            crate::sign::encode(text).replace("%2F", "/")
        } else {
            escape(text)
        }
    };
    let (mut entries, mut prefixes, mut count, mut last) =
        (String::new(), Vec::<String>::new(), 0, String::new());
    let mut truncated = false;
    for (key, object) in store.list(&request.bucket, &prefix, &after) {
        let common = common_prefix(&key, &prefix, &delimiter);
        // A continuation that is itself a common prefix has shown all keys below it.
        if common
            .as_ref()
            .is_some_and(|common| prefixes.contains(common) || common.as_str() <= after.as_str())
        {
            continue;
        }
        if count == keys_max {
            truncated = true;
            break;
        }
        count += 1;
        match common {
            Some(common) => {
                last = format!("{common}\u{10ffff}");
                prefixes.push(common);
            }
            None => {
                entries.push_str(&format!(
                    "<Contents><Key>{}</Key><LastModified>{}</LastModified><ETag>{}</ETag><Size>{}</Size>\
                     <StorageClass>STANDARD</StorageClass></Contents>",
                    name(&key),
                    iso_date(object.modified_s),
                    escape(&object.etag),
                    object.data.len()
                ));
                last = key;
            }
        }
    }
    let prefixes: String = prefixes
        .iter()
        .map(|p| {
            format!(
                "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>",
                name(p)
            )
        })
        .collect();
    let next = match truncated {
        true => format!(
            "<NextContinuationToken>{0}</NextContinuationToken><NextMarker>{0}</NextMarker>",
            escape(&last)
        ),
        false => String::new(),
    };
    Answer::xml(
        200,
        &format!(
            "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>{}</Name><Prefix>{}</Prefix>\
             <KeyCount>{count}</KeyCount><MaxKeys>{keys_max}</MaxKeys><IsTruncated>{truncated}</IsTruncated>{next}\
             {}{entries}{prefixes}</ListBucketResult>",
            escape(&request.bucket),
            name(&prefix),
            if url {
                "<EncodingType>url</EncodingType>"
            } else {
                ""
            },
        ),
    )
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
