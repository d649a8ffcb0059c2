//! The grammar of Amazon S3's endpoint names: from a lower-cased host name to what it addresses.
//!
//! Called by `host` only. Names are read from the right, the way their DNS zones are delegated, so that a
//! name which merely looks like S3 (`s3.amazonaws.com.evil.example`, `evils3.amazonaws.com`,
//! `s3.us-east-1.elb.amazonaws.com`) is not one.
//!
//! Invariant: two spellings give the same (partition, kind, bucket) only if S3 itself leads both to the same
//! bucket. Bucket names are unique within a partition of AWS, not across partitions.
//!
//! Left to others: ports, configured hosts, and what may be cached (`host`, `operation`).

use std::ops::Range;

/// The separate worlds of AWS. A bucket name is unique within one of them only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Partition {
    /// The commercial regions, `amazonaws.com`.
    Commercial,
    /// China, `amazonaws.com.cn`.
    China,
    /// GovCloud, regions `us-gov-…` of `amazonaws.com`.
    GovCloud,
    /// The European Sovereign Cloud, `amazonaws.eu`.
    EuropeanSovereign,
}

impl Partition {
    /// The name AWS gives the partition in its ARNs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Commercial => "aws",
            Self::China => "aws-cn",
            Self::GovCloud => "aws-us-gov",
            Self::EuropeanSovereign => "aws-eusc",
        }
    }
}

/// Names that lead to S3 but whose answers are not objects of a general purpose bucket: never cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PassOnly {
    /// A directory bucket (S3 Express One Zone): its session tokens expire within minutes.
    Express,
    /// An Object Lambda access point: a function writes each answer.
    ObjectLambda,
    /// The S3 control plane, `s3-control`.
    Control,
    /// S3 on Outposts.
    Outposts,
    /// A reserved name of an alias or a table bucket (`…--ol-s3`, `…--x-s3`, `…--table-s3`) used as a bucket.
    ReservedName,
}

/// What an endpoint name addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AwsKind {
    /// The bucket is the first segment of the path.
    Path,
    /// The bucket is the leading part of the name.
    Virtual,
    /// An access point; its name with the account is the leading part.
    AccessPoint,
    /// A multi-region access point; its alias is the leading part.
    MultiRegion,
    /// Everything passes.
    PassOnly(PassOnly),
}

/// An S3 endpoint name taken apart. Ranges are byte positions in the name that was parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AwsName {
    pub(super) partition: Partition,
    pub(super) kind: AwsKind,
    /// Bytes of the leading bucket, access point or alias; the endpoint follows after one more dot.
    pub(super) bucket_len: usize,
    /// The region's label, empty where the name carries none.
    pub(super) region: Range<usize>,
}

/// Takes `name` (lower-case, no port, no trailing dot) apart, or `None` if it is no S3 endpoint.
pub(super) fn parse(name: &str) -> Option<AwsName> {
    let (rest, partition) = strip_zone(name)?;
    let (head, last) = pop(rest);
    let found = match last {
        "s3" => general(head, 0..0),
        "s3-accelerate" => accelerate(head),
        "dualstack" => match pop(head) {
            (bucket, "s3-accelerate") => accelerate(bucket),
            _ => None,
        },
        "s3-global" => multi_region(head),
        "vpce" => private_link(head),
        region if is_region(region) => regional(head, label_range(rest, region)),
        dashed => {
            let tail = dashed.strip_prefix("s3-")?;
            let region = tail.strip_prefix("fips-").unwrap_or(tail);
            let known = is_region(region) || region == "external-1";
            known.then(|| general(head, label_range(rest, region)))?
        }
    }?;
    let partition = partition_of(partition, &name[found.region.clone()])?;
    Some(AwsName { partition, ..found })
}

/// True for names that S3 keeps for aliases whose answers are not plain objects.
pub(super) fn is_reserved_bucket(bucket: &[u8]) -> bool {
    bucket.ends_with(b"-s3") && memchr::memmem::find(bucket, b"--").is_some()
}

/// Splits the DNS zone off.
fn strip_zone(name: &str) -> Option<(&str, Partition)> {
    const ZONES: [(&str, Partition); 3] = [
        (".amazonaws.com", Partition::Commercial),
        (".amazonaws.com.cn", Partition::China),
        (".amazonaws.eu", Partition::EuropeanSovereign),
    ];
    ZONES
        .iter()
        .find_map(|(zone, partition)| Some((name.strip_suffix(zone)?, *partition)))
}

/// The partition a zone and a region agree on.
fn partition_of(zone: Partition, region: &str) -> Option<Partition> {
    let gov = region.starts_with("us-gov-");
    let china = region.starts_with("cn-");
    let sovereign = region.starts_with("eusc-");
    match zone {
        Partition::Commercial if gov => Some(Partition::GovCloud),
        Partition::Commercial => (!china && !sovereign).then_some(zone),
        Partition::China => (china || region.is_empty()).then_some(zone),
        Partition::EuropeanSovereign => (sovereign || region.is_empty()).then_some(zone),
        Partition::GovCloud => None,
    }
}

/// Splits the last label off: `a.b.c` → (`a.b`, `c`), `c` → (``, `c`).
fn pop(name: &str) -> (&str, &str) {
    name.rsplit_once('.').unwrap_or(("", name))
}

/// Where `label`, which ends `rest`, begins and ends in it. `rest` begins where the whole name does.
fn label_range(rest: &str, label: &str) -> Range<usize> {
    rest.len() - label.len()..rest.len()
}

fn found(kind: AwsKind, bucket: &str, region: Range<usize>) -> AwsName {
    AwsName {
        partition: Partition::Commercial,
        kind,
        bucket_len: bucket.len(),
        region,
    }
}

/// A plain endpoint: what stands before it is the bucket, dots included.
fn general(bucket: &str, region: Range<usize>) -> Option<AwsName> {
    if bucket.is_empty() {
        return Some(found(AwsKind::Path, "", region));
    }
    if is_reserved_bucket(bucket.as_bytes()) {
        return Some(found(
            AwsKind::PassOnly(PassOnly::ReservedName),
            bucket,
            region,
        ));
    }
    Some(found(AwsKind::Virtual, bucket, region))
}

/// Accelerate takes no bucket with dots: its certificate could not match one.
fn accelerate(bucket: &str) -> Option<AwsName> {
    if bucket.contains('.') {
        return None;
    }
    general(bucket, 0..0)
}

/// `<alias>.accesspoint` in front of `s3-global`.
fn multi_region(head: &str) -> Option<AwsName> {
    let alias = head.strip_suffix(".accesspoint")?;
    is_label(alias).then(|| found(AwsKind::MultiRegion, alias, 0..0))
}

/// `[<bucket>.]bucket.vpce-….s3.<region>`, and the same with `accesspoint` and `control`.
fn private_link(head: &str) -> Option<AwsName> {
    let (service, region) = pop(head);
    if !is_region(region) {
        return None;
    }
    let region = label_range(head, region);
    let (endpoint, service) = pop(service);
    let (kind, vpce) = pop(endpoint);
    if service != "s3" || !vpce.starts_with("vpce-") {
        return None;
    }
    match pop(kind) {
        (bucket, "bucket") => general(bucket, region),
        (name, "accesspoint") => access_point(name, region),
        (account, "control") => Some(found(AwsKind::PassOnly(PassOnly::Control), account, region)),
        _ => None,
    }
}

/// Everything that ends in a region: `[<bucket>.]<service>[.dualstack].<region>`.
fn regional(head: &str, region: Range<usize>) -> Option<AwsName> {
    let head = head.strip_suffix(".dualstack").unwrap_or(head);
    let (front, service) = pop(head);
    let pass = |why| Some(found(AwsKind::PassOnly(why), front, region.clone()));
    match service {
        "s3" | "s3-fips" => general(front, region),
        "s3-accesspoint" | "s3-accesspoint-fips" => access_point(front, region),
        "s3-object-lambda" | "s3-object-lambda-fips" => pass(PassOnly::ObjectLambda),
        "s3-control" | "s3-control-fips" => pass(PassOnly::Control),
        "s3-outposts" | "s3-outposts-fips" => pass(PassOnly::Outposts),
        express if express.starts_with("s3express-") => pass(PassOnly::Express),
        _ => None,
    }
}

/// `<name>-<account>`, the account being twelve digits.
fn access_point(name: &str, region: Range<usize>) -> Option<AwsName> {
    let (point, account) = name.rsplit_once('-')?;
    let account_ok = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    (account_ok && is_label(point)).then(|| found(AwsKind::AccessPoint, name, region))
}

fn is_label(label: &str) -> bool {
    !label.is_empty() && !label.contains('.')
}

/// `us-east-1`, `us-gov-west-1`, `eusc-de-east-1`: letters, more letters, a number.
fn is_region(label: &str) -> bool {
    let Some((words, number)) = label.rsplit_once('-') else {
        return false;
    };
    let number_ok =
        (1..=2).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts = words.split('-');
    let first_ok = parts
        .next()
        .is_some_and(|first| (2..=4).contains(&first.len()));
    let letters = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
    number_ok
        && first_ok
        && words
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'-')
        && words.contains('-')
        && parts.all(letters)
}

#[cfg(test)]
mod tests {
    use super::AwsKind::{AccessPoint, MultiRegion, Path, Virtual};
    use super::Partition::{China, Commercial, EuropeanSovereign, GovCloud};
    use super::*;

    fn parsed(name: &str) -> Option<(Partition, AwsKind, &str, &str)> {
        parse(name).map(|found| {
            (
                found.partition,
                found.kind,
                &name[..found.bucket_len],
                &name[found.region],
            )
        })
    }

    #[test]
    fn regions_are_told_from_bucket_names() {
        for region in [
            "us-east-1",
            "us-gov-west-1",
            "ap-southeast-3",
            "eusc-de-east-1",
            "cn-north-1",
        ] {
            assert!(is_region(region), "{region}");
        }
        for other in [
            "us-east",
            "us-east-1a",
            "east-1",
            "website-us-east-1",
            "us--1",
            "-us-east-1",
            "us-east-111",
            "s3",
            "",
        ] {
            assert!(!is_region(other), "{other}");
        }
    }

    type Parts = (Partition, AwsKind, &'static str, &'static str);

    /// Name, and what is expected of it: partition, kind, bucket, region.
    const FORMS: &[(&str, Parts)] = &[
        ("s3.amazonaws.com", (Commercial, Path, "", "")),
        (
            "s3.us-west-2.amazonaws.com",
            (Commercial, Path, "", "us-west-2"),
        ),
        (
            "s3-us-west-2.amazonaws.com",
            (Commercial, Path, "", "us-west-2"),
        ),
        (
            "s3-external-1.amazonaws.com",
            (Commercial, Path, "", "external-1"),
        ),
        (
            "s3-fips.us-east-1.amazonaws.com",
            (Commercial, Path, "", "us-east-1"),
        ),
        (
            "s3-fips-us-gov-west-1.amazonaws.com",
            (GovCloud, Path, "", "us-gov-west-1"),
        ),
        (
            "s3.us-gov-west-1.amazonaws.com",
            (GovCloud, Path, "", "us-gov-west-1"),
        ),
        (
            "s3.cn-north-1.amazonaws.com.cn",
            (China, Path, "", "cn-north-1"),
        ),
        (
            "s3.eusc-de-east-1.amazonaws.eu",
            (EuropeanSovereign, Path, "", "eusc-de-east-1"),
        ),
        ("b.s3.amazonaws.com", (Commercial, Virtual, "b", "")),
        (
            "b.s3.eu-west-1.amazonaws.com",
            (Commercial, Virtual, "b", "eu-west-1"),
        ),
        (
            "b.s3-eu-west-1.amazonaws.com",
            (Commercial, Virtual, "b", "eu-west-1"),
        ),
        (
            "b.s3.dualstack.eu-west-1.amazonaws.com",
            (Commercial, Virtual, "b", "eu-west-1"),
        ),
        (
            "b.s3-fips.dualstack.us-east-2.amazonaws.com",
            (Commercial, Virtual, "b", "us-east-2"),
        ),
        (
            "b.c.d.s3.eu-west-1.amazonaws.com",
            (Commercial, Virtual, "b.c.d", "eu-west-1"),
        ),
        (
            "b.s3-accelerate.amazonaws.com",
            (Commercial, Virtual, "b", ""),
        ),
        (
            "b.s3-accelerate.dualstack.amazonaws.com",
            (Commercial, Virtual, "b", ""),
        ),
        (
            "p-123456789012.s3-accesspoint.us-east-1.amazonaws.com",
            (Commercial, AccessPoint, "p-123456789012", "us-east-1"),
        ),
        (
            "p-123456789012.s3-accesspoint-fips.dualstack.us-east-1.amazonaws.com",
            (Commercial, AccessPoint, "p-123456789012", "us-east-1"),
        ),
        (
            "mfzwi23gnjvgw.accesspoint.s3-global.amazonaws.com",
            (Commercial, MultiRegion, "mfzwi23gnjvgw", ""),
        ),
        (
            "bucket.vpce-1a2b3c4d-5e6f.s3.us-east-1.vpce.amazonaws.com",
            (Commercial, Path, "", "us-east-1"),
        ),
        (
            "b.bucket.vpce-1a2b3c4d-5e6f-us-east-1a.s3.us-east-1.vpce.amazonaws.com",
            (Commercial, Virtual, "b", "us-east-1"),
        ),
        (
            "p-123456789012.accesspoint.vpce-1a2b-5e6f.s3.us-east-1.vpce.amazonaws.com",
            (Commercial, AccessPoint, "p-123456789012", "us-east-1"),
        ),
    ];

    #[test]
    fn each_endpoint_form_of_the_documentation_is_read() {
        for (name, want) in FORMS {
            assert_eq!(parsed(name), Some(*want), "{name}");
        }
    }

    #[test]
    fn endpoints_whose_answers_are_not_plain_objects_are_pass_only() {
        let table = [
            (
                "b--usw2-az1--x-s3.s3express-usw2-az1.us-west-2.amazonaws.com",
                PassOnly::Express,
            ),
            (
                "s3express-control.us-west-2.amazonaws.com",
                PassOnly::Express,
            ),
            (
                "o-123456789012.s3-object-lambda.us-east-1.amazonaws.com",
                PassOnly::ObjectLambda,
            ),
            (
                "123456789012.s3-control.us-east-1.amazonaws.com",
                PassOnly::Control,
            ),
            (
                "p-123456789012.op-0123.s3-outposts.us-east-1.amazonaws.com",
                PassOnly::Outposts,
            ),
            (
                "x--ol-s3.s3.us-east-1.amazonaws.com",
                PassOnly::ReservedName,
            ),
            (
                "x--usw2-az1--x-s3.s3.us-west-2.amazonaws.com",
                PassOnly::ReservedName,
            ),
        ];
        for (name, why) in table {
            assert_eq!(
                parse(name).map(|found| found.kind),
                Some(AwsKind::PassOnly(why)),
                "{name}"
            );
        }
    }

    #[test]
    fn names_that_only_look_like_s3_are_not() {
        for name in [
            "s3.amazonaws.com.evil.example",
            "evils3.amazonaws.com",
            "amazonaws.com",
            "s3amazonaws.com",
            "s3.us-east-1.elb.amazonaws.com",
            "b.s3.us-east-1.compute.amazonaws.com",
            "vpce-0123-abc.vpce-svc-0123.us-east-1.vpce.amazonaws.com",
            "bucket.vpce-0123.ec2.us-east-1.vpce.amazonaws.com",
            "b.s3-website-us-east-1.amazonaws.com",
            "b.s3-website.us-east-2.amazonaws.com",
            "a.b.s3-accelerate.amazonaws.com",
            "s3.cn-north-1.amazonaws.com",
            "s3.us-east-1.amazonaws.com.cn",
            "p.s3-accesspoint.us-east-1.amazonaws.com",
            "a.p-123456789012.s3-accesspoint.us-east-1.amazonaws.com",
            "a.b.accesspoint.s3-global.amazonaws.com",
            "sqs.us-east-1.amazonaws.com",
            "s3tables.us-east-1.amazonaws.com",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
