//! What S3 makes of the query of a read, for the tests' own store: parts, versions, overridden headers, ranges that nothing satisfies. Written for the tests
//! alone, so that an error in the server's own understanding cannot hide in shared code.

use super::store::Object;
use super::stub::{After, Seen, Wire};

const OVERRIDES: [(&str, &str); 6] = [
    ("response-cache-control", "Cache-Control"),
    ("response-content-disposition", "Content-Disposition"),
    ("response-content-encoding", "Content-Encoding"),
    ("response-content-language", "Content-Language"),
    ("response-content-type", "Content-Type"),
    ("response-expires", "Expires"),
];

/// The query of one read.
#[derive(Default)]
pub struct Queried {
    pub part: Option<usize>,
    pub version: Option<String>,
    overrides: Vec<(&'static str, String)>,
    signed: bool,
}

impl Queried {
    pub fn of(seen: &Seen) -> Queried {
        let mut queried = Queried::default();
        let query = seen.target().split_once('?').map_or("", |(_, query)| query);
        for parameter in query.split('&') {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match name {
                "partNumber" => queried.part = value.parse().ok(),
                "versionId" => queried.version = Some(value.to_owned()),
                "X-Amz-Signature" => queried.signed = true,
                _ => {}
            }
            if let Some((_, header)) = OVERRIDES.iter().find(|(known, _)| *known == name) {
                let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
                queried.overrides.push((header, value.into_owned()));
            }
        }
        queried
    }

    /// Under which name the store has what is asked for.
    pub fn name(&self, path: &str) -> String {
        match &self.version {
            Some(version) => format!("{path}?versionId={version}"),
            None => path.to_owned(),
        }
    }

    pub fn overrides_without_signature(&self, seen: &Seen) -> bool {
        !self.overrides.is_empty() && !self.signed && seen.header("authorization").is_none()
    }

    pub fn overridden(&self, mut object: Object) -> Object {
        for (name, value) in &self.overrides {
            object
                .headers
                .retain(|(own, _)| !own.eq_ignore_ascii_case(name));
            object = object.header(name, value);
        }
        object
    }

    /// What S3 says beside a part: how many there are, and the part's own checksum.
    pub fn with_part_headers(&self, object: Object, seen: &Seen) -> Object {
        let Some(number) = self.part.filter(|_| !object.parts.is_empty()) else {
            return object;
        };
        let count = object.parts.len().to_string();
        let object = object.header("x-amz-mp-parts-count", &count);
        match seen.header("x-amz-checksum-mode") {
            Some("ENABLED") => object.header("x-amz-checksum-crc32", &format!("part-{number}")),
            _ => object,
        }
    }
}

/// First and one-past-last byte of a part; an object that was not made of parts is its only one.
pub fn part_bounds(object: &Object, number: usize) -> Option<(u64, u64)> {
    let length = object.content.length();
    if object.parts.is_empty() {
        return (number == 1).then_some((0, length));
    }
    let part = object.parts.get(number.checked_sub(1)?)?;
    let first: u64 = object.parts[..number - 1].iter().sum();
    Some((first, first + part))
}

pub fn refuse_range(seen: &Seen, length: u64, wire: &mut Wire) -> After {
    let range = seen.header("range").unwrap_or_default();
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>InvalidRange</Code><Message>The requested range is not satisfiable</Message><RangeRequested>{range}</RangeRequested><ActualObjectSize>{length}</ActualObjectSize><RequestId>0</RequestId><HostId>0</HostId></Error>"
    );
    let headers = [("Content-Type", "application/xml")];
    wire.respond(
        "416 Requested Range Not Satisfiable",
        &headers,
        xml.as_bytes(),
    )
}
