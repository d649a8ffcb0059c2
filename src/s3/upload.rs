//! Uploads, as far as their bytes are kept here: what of a request's body is the object, which parts a multipart upload is made of, and what the
//! origin says of it.
//!
//! Called by `request`. Careful in one direction: whatever is not understood is `None`, and nothing is kept of that upload.
//!
//! Left to others: taking the chunked framing off ([`crate::http::ChunkedDecoder`] reads `aws-chunked` too), offsets, the answer.

use quick_xml::Reader;
use quick_xml::events::{BytesRef, Event};

use super::request_headers::changes_what_is_stored;
use crate::http::{RequestBody, RequestHead};

/// Parts that an upload may have.
pub const PARTS_MAX: u32 = 10_000;
/// The longest list of parts that is read.
pub const PART_LIST_BYTES_MAX: usize = 4 << 20;
/// What is read of the origin's answer to it.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;

/// The object's bytes in the body of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadBody {
    /// How many there are.
    pub bytes: u64,
    /// Whether they come in `aws-chunked` framing.
    pub aws_chunked: bool,
}

/// What of the body of a PUT becomes the object, or the part.
#[must_use]
pub fn upload_body(head: &RequestHead<'_>) -> Option<UploadBody> {
    let headers = &head.headers;
    if headers.iter().any(|(name, _)| changes_what_is_stored(name)) {
        return None;
    }
    let encoded = headers.contains_token("content-encoding", "aws-chunked");
    let hash = headers.find("x-amz-content-sha256").unwrap_or_default();
    let streaming = hash.starts_with(b"STREAMING-");
    let decoded = match headers.count("x-amz-decoded-content-length") {
        0 => None,
        1 => Some(number(headers.find("x-amz-decoded-content-length")?)?),
        _ => return None,
    };
    match (streaming, decoded, head.body) {
        (true, Some(bytes), _) => Some(UploadBody {
            bytes,
            aws_chunked: true,
        }),
        (false, None, RequestBody::Length(bytes)) if !encoded => Some(UploadBody {
            bytes,
            aws_chunked: false,
        }),
        _ => None,
    }
}

fn number(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(text).ok().filter(|_| digits)?;
    text.parse().ok()
}

/// The upload and the part that a query names, as they stand there.
#[must_use]
pub fn part_of(query: Option<&str>) -> Option<(&str, u32)> {
    let value = |wanted: &str| {
        let mut values = query?.split('&').filter_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            (name == wanted).then_some(value)
        });
        let first = values.next()?;
        values.next().is_none().then_some(first)
    };
    let part = number(value("partNumber")?.as_bytes())?;
    let part = u32::try_from(part).ok()?;
    let in_bounds = (1..=PARTS_MAX).contains(&part);
    in_bounds.then_some((value("uploadId")?, part))
}

/// The upload that a query names.
#[must_use]
pub fn upload_of(query: Option<&str>) -> Option<&str> {
    let mut ids = query?
        .split('&')
        .filter_map(|parameter| parameter.strip_prefix("uploadId="));
    let first = ids.next()?;
    ids.next().is_none().then_some(first)
}

/// An ETag without its quotes.
#[must_use]
pub fn unquoted(etag: &[u8]) -> &[u8] {
    let inner = etag.strip_prefix(b"\"");
    inner
        .and_then(|inner| inner.strip_suffix(b"\""))
        .unwrap_or(etag)
}

/// The parts that a `CompleteMultipartUpload` lists, in its order: number and ETag without quotes. `None` if they are not in ascending order,
/// which S3 refuses, or the document is not understood.
#[must_use]
pub fn parse_part_list(body: &[u8]) -> Option<Vec<(u32, Box<[u8]>)>> {
    let root = b"CompleteMultipartUpload";
    let mut parts: Vec<(u32, Box<[u8]>)> = Vec::new();
    let (mut number_seen, mut etag_seen) = (None, None);
    walk(body, |path, text| {
        match path {
            [first, b"Part", b"PartNumber"] if *first == root => {
                let part = u32::try_from(number(text.trim_ascii())?).ok()?;
                number_seen = Some(part);
            }
            [first, b"Part", b"ETag"] if *first == root => {
                etag_seen = Some(unquoted(text.trim_ascii()).into());
            }
            [first, b"Part"] if *first == root => {
                let part = number_seen.take()?;
                let ascends = parts.last().is_none_or(|(last, _)| *last < part);
                (ascends && part <= PARTS_MAX).then_some(())?;
                parts.push((part, etag_seen.take()?));
            }
            [first, ..] if *first == root => {}
            _ => return None,
        }
        Some(())
    })?;
    (!parts.is_empty()).then_some(parts)
}

/// What an answer with 200 says that may be an error all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LateAnswer {
    /// It is done; with the ETag, quotes included, if it says one.
    Done(Option<Box<[u8]>>),
    /// An error.
    Error,
    /// Something else, or not all of it is known.
    Unclear,
}

/// Reads the answer to a `CompleteMultipartUpload` or a copy.
#[must_use]
pub fn parse_late_answer(body: &[u8]) -> LateAnswer {
    let mut answer = LateAnswer::Unclear;
    let mut etag = None;
    // Strictly, nothing may stand before the declaration; white space that keeps the connection alive does.
    let walked = walk(body.trim_ascii_start(), |path, text| {
        match path {
            [b"Error"] => answer = LateAnswer::Error,
            [b"CompleteMultipartUploadResult" | b"CopyObjectResult" | b"CopyPartResult"] => {
                answer = LateAnswer::Done(etag.take());
            }
            [_, b"ETag"] => {
                let inner = unquoted(text.trim_ascii());
                etag = Some([b"\"", inner, b"\""].concat().into_boxed_slice());
            }
            _ => {}
        }
        Some(())
    });
    match walked {
        Some(()) => answer,
        None => LateAnswer::Unclear,
    }
}

/// How deep elements may be nested.
const DEPTH_MAX: usize = 16;

/// Goes through a document; calls `end` for each element as it ends, with the local names down to it and its own text.
fn walk(body: &[u8], mut end: impl FnMut(&[&[u8]], &[u8]) -> Option<()>) -> Option<()> {
    let mut reader = Reader::from_reader(body);
    reader.config_mut().expand_empty_elements = true;
    let mut open: Vec<Vec<u8>> = Vec::new();
    let mut text: Vec<u8> = Vec::new();
    let mut roots = 0;
    loop {
        match reader.read_event().ok()? {
            Event::Start(start) => {
                roots += u32::from(open.is_empty());
                (open.len() < DEPTH_MAX && roots == 1).then_some(())?;
                open.push(start.local_name().as_ref().to_vec());
                text.clear();
            }
            Event::End(_) => {
                let path: Vec<&[u8]> = open.iter().map(Vec::as_slice).collect();
                end(&path, &text)?;
                open.pop()?;
                text.clear();
            }
            Event::Text(more) => text.extend_from_slice(&more),
            Event::CData(more) => text.extend_from_slice(&more),
            Event::GeneralRef(reference) => push_reference(&mut text, &reference)?,
            Event::Decl(_) | Event::Comment(_) => {}
            Event::Eof => break,
            // A document type may say anything.
            Event::DocType(_) | Event::PI(_) | Event::Empty(_) => return None,
        }
    }
    (open.is_empty() && roots == 1).then_some(())
}

fn push_reference(text: &mut Vec<u8>, reference: &BytesRef<'_>) -> Option<()> {
    if let Some(character) = reference.resolve_char_ref().ok()? {
        text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        return Some(());
    }
    text.push(match &**reference {
        b"quot" => b'"',
        b"apos" => b'\'',
        b"amp" => b'&',
        b"lt" => b'<',
        b"gt" => b'>',
        _ => return None,
    });
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{HeadLimits, parse_request};

    fn body_of(headers: &str) -> Option<UploadBody> {
        let text = format!("PUT /b/k HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
        let limits = HeadLimits {
            head_bytes_max: 4096,
            headers_max: 64,
        };
        let head = parse_request(text.as_bytes(), &limits).unwrap().unwrap();
        upload_body(&head)
    }

    #[test]
    fn what_of_a_body_is_the_object_by_table() {
        let plain = |bytes| {
            Some(UploadBody {
                bytes,
                aws_chunked: false,
            })
        };
        let chunked = |bytes| {
            Some(UploadBody {
                bytes,
                aws_chunked: true,
            })
        };
        let streaming = "x-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER\r\n";
        let decoded = "x-amz-decoded-content-length: 9\r\n";
        let table = [
            ("Content-Length: 7\r\n".to_owned(), plain(7)),
            (
                "Content-Length: 7\r\nContent-Encoding: gzip\r\nx-amz-content-sha256: UNSIGNED-PAYLOAD\r\n".to_owned(),
                plain(7),
            ),
            (
                format!("Transfer-Encoding: chunked\r\nContent-Encoding: aws-chunked\r\n{streaming}{decoded}"),
                chunked(9),
            ),
            (format!("Content-Length: 90\r\n{streaming}{decoded}"), chunked(9)),
            // Not told, told twice, or told in two ways.
            (format!("Content-Length: 90\r\n{streaming}"), None),
            (format!("Content-Length: 90\r\n{streaming}{decoded}{decoded}"), None),
            (format!("Content-Length: 90\r\n{decoded}"), None),
            ("Content-Length: 90\r\nContent-Encoding: aws-chunked\r\n".to_owned(), None),
            ("Transfer-Encoding: chunked\r\n".to_owned(), None),
            (
                format!("Content-Length: 90\r\n{streaming}x-amz-decoded-content-length: +9\r\n"),
                None,
            ),
            // Not what is stored, or not for everybody.
            ("Content-Length: 7\r\nx-amz-write-offset-bytes: 5\r\n".to_owned(), None),
            ("Content-Length: 7\r\nContent-Range: bytes 5-11/20\r\n".to_owned(), None),
            ("Content-Length: 7\r\nX-Amz-Copy-Source: /b/k\r\n".to_owned(), None),
            (
                "Content-Length: 7\r\nx-amz-server-side-encryption-customer-algorithm: AES256\r\n".to_owned(),
                None,
            ),
            ("Content-Length: 7\r\nx-oss-process: image\r\n".to_owned(), None),
            ("Content-Length: 7\r\nX-HTTP-Method-Override: DELETE\r\n".to_owned(), None),
        ];
        for (headers, want) in table {
            assert_eq!(body_of(&headers), want, "{headers}");
        }
    }

    #[test]
    fn parts_are_named_once_and_in_bounds() {
        let table = [
            (Some("partNumber=3&uploadId=a%2Fb"), Some(("a%2Fb", 3))),
            (
                Some("uploadId=u&x-id=UploadPart&partNumber=10000"),
                Some(("u", 10_000)),
            ),
            (Some("partNumber=0&uploadId=u"), None),
            (Some("partNumber=10001&uploadId=u"), None),
            (Some("partNumber=1&partNumber=2&uploadId=u"), None),
            (Some("partNumber=+1&uploadId=u"), None),
            (Some("partNumber=1"), None),
            (None, None),
        ];
        for (query, want) in table {
            assert_eq!(part_of(query), want, "{query:?}");
        }
        assert_eq!(upload_of(Some("uploadId=u")), Some("u"));
        assert_eq!(upload_of(Some("uploadId=u&uploadId=v")), None);
    }

    #[test]
    fn a_list_of_parts_is_read_as_clients_write_it() {
        let list = parse_part_list(
            b"<?xml version=\"1.0\"?><CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\n\
              <Part><ETag>\"a1\"</ETag><PartNumber>1</PartNumber></Part>\
              <Part><PartNumber> 7 </PartNumber><ETag>&quot;b2&#34;</ETag><ChecksumCRC32>x</ChecksumCRC32></Part>\
              </CompleteMultipartUpload>",
        );
        let list = list.expect("it is a list");
        let want: [(u32, Box<[u8]>); 2] = [(1, (*b"a1").into()), (7, (*b"b2").into())];
        assert_eq!(list, want);
        for refused in [
            "",
            "<CompleteMultipartUpload/>",
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber></Part></CompleteMultipartUpload>",
            "<CompleteMultipartUpload><Part><ETag>a</ETag><PartNumber>2</PartNumber></Part><Part><ETag>a</ETag><PartNumber>2</PartNumber></Part></CompleteMultipartUpload>",
            "<CompleteMultipartUpload><Part><ETag>a</ETag><PartNumber>1</PartNumber></Part>",
            "<!DOCTYPE x [<!ENTITY e \"1\">]><CompleteMultipartUpload><Part><ETag>a</ETag><PartNumber>&e;</PartNumber></Part></CompleteMultipartUpload>",
            "<Other><Part><ETag>a</ETag><PartNumber>1</PartNumber></Part></Other>",
        ] {
            assert_eq!(parse_part_list(refused.as_bytes()), None, "{refused}");
        }
    }

    #[test]
    fn an_error_inside_a_200_is_seen() {
        let done = b"  \n \n<?xml version='1.0'?><CompleteMultipartUploadResult><Key>k</Key><ETag>&quot;e-2&quot;</ETag></CompleteMultipartUploadResult>";
        let etag: Box<[u8]> = (*b"\"e-2\"").into();
        assert_eq!(parse_late_answer(done), LateAnswer::Done(Some(etag)));
        assert_eq!(
            parse_late_answer(b"<Error><Code>InternalError</Code></Error>"),
            LateAnswer::Error
        );
        for unclear in ["", "<Error>", "<Other/>", "text"] {
            assert_eq!(
                parse_late_answer(unclear.as_bytes()),
                LateAnswer::Unclear,
                "{unclear}"
            );
        }
    }
}
