//! Writes to an object: put, conditional put, copy, delete, multipart.
//!
//! Called by `answer`. Invariants: a conditional write is judged and done with no other write between; a failed one
//! changes nothing. Left to others: reading the body, S3's chunk format.

use bytes::Bytes;
use md5::{Digest, Md5};
use percent_encoding::percent_decode_str;

use super::answer::{Answer, conditions_of, escape};
use super::bucket::{elements, iso_date};
use super::condition::{Outcome, Validators, evaluate};
use super::request::Request;
use super::store::{Object, Store, Upload, unique_id};
use crate::Headers;
use crate::sign::hex;

/// Answers a request that is not a read and names an object.
pub fn answer(store: &Store, request: &Request, body: Vec<u8>) -> Answer {
    let upload = request.param("uploadId");
    match (request.method.as_str(), upload) {
        ("PUT", Some(id)) => put_part(store, request, &id, body),
        ("POST", Some(id)) => complete(store, request, &id, &body),
        ("DELETE", Some(id)) => {
            store
                .uploads
                .lock()
                .expect("no panic while it is held")
                .remove(&id);
            Answer::empty(204)
        }
        ("POST", None) if request.params().any(|(name, _)| name == "uploads") => {
            start(store, request)
        }
        ("PUT", None)
            if request
                .params()
                .any(|(name, _)| matches!(name.as_str(), "tagging" | "acl" | "retention")) =>
        {
            Answer::empty(200)
        }
        ("PUT", None) => put(store, request, body),
        ("DELETE", None) => {
            if request.params().all(|(name, _)| name != "tagging") {
                store.delete(&request.bucket, &request.key);
            }
            Answer::empty(204)
        }
        _ => Answer::error(
            405,
            "MethodNotAllowed",
            "The specified method is not allowed against this resource.",
            "",
        ),
    }
}

fn put(store: &Store, request: &Request, body: Vec<u8>) -> Answer {
    let _alone = store.writing.lock().expect("no panic while it is held");
    let current = store.get(&request.bucket, &request.key);
    let now = current.as_ref().map(|object| Validators {
        etag: &object.etag,
        modified_s: object.modified_s,
    });
    if let Outcome::Failed(condition) = evaluate(conditions_of(request), "PUT", now) {
        return Answer::precondition_failed(condition);
    }
    if let Some(source) = request.header("x-amz-copy-source") {
        return copy(store, request, source);
    }
    if let Some(sent) = request.header("content-md5")
        && sent != base64_simd::STANDARD.encode_to_string(Md5::digest(&body))
    {
        return Answer::error(
            400,
            "BadDigest",
            "The Content-MD5 you specified did not match what we received.",
            "",
        );
    }
    let object = store.put(
        &request.bucket,
        &request.key,
        Object::stored(body, stored_headers(request)),
    );
    let mut answer = Answer::empty(200)
        .with("ETag", &object.etag)
        .with("x-amz-version-id", &object.version_id);
    answer.headers.extend(object.checksums.iter().cloned());
    answer
}

fn copy(store: &Store, request: &Request, source: &str) -> Answer {
    let source = percent_decode_str(source).decode_utf8_lossy().into_owned();
    let (bucket, key) = source
        .trim_start_matches('/')
        .split_once('/')
        .unwrap_or_default();
    let Some(from) = store.get(bucket, key) else {
        return Answer::error(404, "NoSuchKey", "The specified key does not exist.", "");
    };
    let mut object = Object::stored(Vec::new(), stored_headers(request));
    object.data = from.data.clone();
    object.etag = from.etag.clone();
    object.checksums = from.checksums.clone();
    object.parts = from.parts.clone();
    if !request
        .header("x-amz-metadata-directive")
        .is_some_and(|value| value.eq_ignore_ascii_case("REPLACE"))
    {
        object.headers = from.headers.clone();
    }
    let object = store.put(&request.bucket, &request.key, object);
    let (date, etag) = (iso_date(object.modified_s), escape(&object.etag));
    Answer::xml(
        200,
        &format!("<CopyObjectResult><LastModified>{date}</LastModified><ETag>{etag}</ETag></CopyObjectResult>"),
    )
    .with("x-amz-version-id", &object.version_id)
}

/// The headers that S3 keeps with an object.
fn stored_headers(request: &Request) -> Headers {
    const KEPT: [&str; 6] = [
        "content-type",
        "content-encoding",
        "content-language",
        "content-disposition",
        "cache-control",
        "expires",
    ];
    let mut headers: Headers = request
        .headers
        .iter()
        .filter(|(name, _)| {
            let name = name.to_ascii_lowercase();
            KEPT.contains(&name.as_str())
                || name.starts_with("x-amz-meta-")
                || (name.starts_with("x-amz-checksum-") && name != "x-amz-checksum-algorithm")
        })
        .cloned()
        .collect();
    for (name, value) in &mut headers {
        if name.eq_ignore_ascii_case("content-encoding") {
            let kept: Vec<&str> = value
                .split(',')
                .map(str::trim)
                .filter(|coding| *coding != "aws-chunked")
                .collect();
            *value = kept.join(",");
        }
    }
    headers.retain(|(_, value)| !value.is_empty());
    if !headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("content-type"))
    {
        headers.push(("Content-Type".into(), "binary/octet-stream".into()));
    }
    headers
}

fn no_such_upload() -> Answer {
    Answer::error(
        404,
        "NoSuchUpload",
        "The specified multipart upload does not exist.",
        "",
    )
}

fn start(store: &Store, request: &Request) -> Answer {
    let mut uploads = store.uploads.lock().expect("no panic while it is held");
    let id = format!("upload-{}", unique_id());
    uploads.insert(
        id.clone(),
        Upload {
            headers: stored_headers(request),
            ..Upload::default()
        },
    );
    let (bucket, key) = (escape(&request.bucket), escape(&request.key));
    Answer::xml(
        200,
        &format!(
            "<InitiateMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{key}</Key><UploadId>{id}</UploadId>\
             </InitiateMultipartUploadResult>"
        ),
    )
}

fn put_part(store: &Store, request: &Request, id: &str, body: Vec<u8>) -> Answer {
    let number = request
        .param("partNumber")
        .and_then(|number| number.parse::<u64>().ok());
    let Some(number) = number.filter(|number| (1..=10_000).contains(number)) else {
        return Answer::error(
            400,
            "InvalidArgument",
            "Part number must be an integer between 1 and 10000",
            "",
        );
    };
    let etag = format!("\"{}\"", hex(&Md5::digest(&body)));
    match store
        .uploads
        .lock()
        .expect("no panic while it is held")
        .get_mut(id)
    {
        Some(upload) => upload.parts.insert(number, Bytes::from(body)),
        None => return no_such_upload(),
    };
    Answer::empty(200).with("ETag", etag)
}

fn complete(store: &Store, request: &Request, id: &str, body: &[u8]) -> Answer {
    let wanted: Option<Vec<u64>> = elements(&String::from_utf8_lossy(body), "PartNumber")
        .iter()
        .map(|number| number.parse().ok())
        .collect();
    let mut uploads = store.uploads.lock().expect("no panic while it is held");
    let Some(upload) = uploads.get(id) else {
        return no_such_upload();
    };
    let parts: Option<Vec<&Bytes>> = wanted
        .iter()
        .flatten()
        .map(|number| upload.parts.get(number))
        .collect();
    let Some(parts) = parts.filter(|parts| !parts.is_empty()) else {
        return Answer::error(
            400,
            "InvalidPart",
            "One or more of the specified parts could not be found.",
            "",
        );
    };
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    let mut object = Object::stored(bytes, upload.headers.clone());
    let digests: Vec<u8> = parts
        .iter()
        .flat_map(|part| Md5::digest(part).to_vec())
        .collect();
    object.etag = format!("\"{}-{}\"", hex(&Md5::digest(digests)), parts.len());
    object.parts = parts.iter().map(|part| part.len() as u64).collect();
    uploads.remove(id);
    let object = store.put(&request.bucket, &request.key, object);
    let (bucket, key, etag) = (
        escape(&request.bucket),
        escape(&request.key),
        escape(&object.etag),
    );
    Answer::xml(
        200,
        &format!(
            "<CompleteMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{key}</Key><ETag>{etag}</ETag>\
             </CompleteMultipartUploadResult>"
        ),
    )
    .with("x-amz-version-id", &object.version_id)
}
