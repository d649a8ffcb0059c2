//! How many instructions the parser, the classifier and the index take: the same number each time, on a busy machine too.
//!
//! `benches/instructions.sh` runs this under callgrind, once for each case, and compares with `benches/instructions.txt`. Without an
//! argument each case runs, uncounted, so that none can rot; `--list` names them.

#![allow(missing_docs, reason = "a program, not a library")]

mod samples;

use std::hint::black_box;
use std::sync::Arc;

use millrace::base::prng::mix64;
use millrace::cache::read_map::{MapWriter, ReadMap, table};
use millrace::http::{HeadLimits, Method, parse_request, parse_response};
use millrace::ram::STRIPE_BYTES;
use millrace::s3::{OriginMap, RangeHeader, classify};

/// Calls that are counted; the script divides by it.
const CALLS: usize = 1000;
/// Calls before, so that what is made once is made.
const WARM_CALLS: usize = 10;

/// Callgrind counts while this runs, and only then: the script names it.
#[inline(never)]
fn counted(case: &mut dyn FnMut() -> usize) {
    for _ in 0..CALLS {
        black_box(case());
    }
}

fn measure(mut case: impl FnMut() -> usize) {
    for _ in 0..WARM_CALLS {
        black_box(case());
    }
    counted(&mut case);
}

fn parse(text: &str) {
    let limits = HeadLimits::default();
    measure(|| {
        let head = parse_request(black_box(text.as_bytes()), &limits);
        head.expect("valid").expect("whole").bytes
    });
}

fn parse_a_response() {
    let limits = HeadLimits::default();
    measure(|| {
        let text = black_box(samples::RESPONSE.as_bytes());
        let head = parse_response(text, Method::Get, &limits);
        head.expect("valid").expect("whole").bytes
    });
}

fn resolve(map: &OriginMap, text: &str) {
    let head = samples::parsed(text);
    measure(|| {
        let route = map.resolve_request(head.authority, black_box(head.host));
        usize::from(route.is_ok())
    });
}

fn understand(map: &OriginMap, text: &str) {
    let head = samples::parsed(text);
    let route = map.resolve_request(head.authority, head.host);
    let route = route.expect("an allowed host");
    let mut key = Vec::new();
    measure(|| usize::from(classify(black_box(&head), &route, &mut key).is_cacheable()));
}

fn identify() {
    let map = samples::aws_map();
    let head = samples::parsed(samples::SMALL);
    let route = map.resolve_request(head.authority, head.host);
    let route = route.expect("an allowed host");
    let mut key = Vec::new();
    let request = classify(&head, &route, &mut key);
    let object = request.target.object_key().expect("an object");
    measure(|| black_box(&object).digest().0 as usize);
}

fn range() {
    measure(
        || match RangeHeader::parse(black_box(b"bytes=8388608-16777215")) {
            RangeHeader::One(spec) => usize::from(spec.bounds().is_some()),
            other => panic!("{other:?}"),
        },
    );
}

fn look_up(hit: bool) {
    const ENTRIES: u64 = 1000;
    let map: Arc<ReadMap<u64, u64>> = Arc::new(table(ENTRIES as usize));
    let holder: Arc<dyn AsRef<ReadMap<u64, u64>> + Send + Sync> = Arc::clone(&map) as _;
    let mut writer = MapWriter::new(holder);
    for number in 0..ENTRIES {
        writer.insert(mix64(number), number, number);
    }
    let mut number = if hit { 0 } else { ENTRIES };
    measure(|| {
        number += 1;
        let wanted = if hit { number % ENTRIES } else { number };
        let found = map.get(mix64(wanted), |key| *key == wanted, |value| *value);
        assert_eq!(found.is_some(), hit);
        number as usize
    });
}

fn find(what: &str) {
    let (partition, ids) = samples::full_partition(1000);
    let index = Arc::clone(partition.index());
    let mut next = 0;
    measure(|| {
        next = (next + 1) % ids.len();
        let id = black_box(&ids[next]);
        match what {
            "head" => usize::from(index.head(id.object, samples::KEY).is_some()),
            "extent" => usize::from(index.extent_at(id, 100).is_some()),
            _ => index.reach(id, 100, 16 * 1024).end as usize,
        }
    });
}

fn answer() {
    let head = samples::head(1);
    let mut out = Vec::new();
    measure(|| {
        out.clear();
        let part = Some(STRIPE_BYTES..2 * STRIPE_BYTES);
        let answer = samples::answer(black_box(&head), part);
        answer.write(b"0123456789ABCDEF", &mut out);
        out.len()
    });
}

fn log_line() {
    let record = samples::record(samples::READ);
    let mut out = Vec::new();
    measure(|| {
        out.clear();
        black_box(&record).write(0, &mut out);
        out.len()
    });
}

/// Every case: its name in the file of figures, and what runs it.
const CASES: &[(&str, fn())] = &[
    ("http.request.small", || parse(samples::SMALL)),
    ("http.request.boto3", || parse(samples::BOTO3)),
    ("http.request.presigned", || parse(samples::PRESIGNED)),
    ("http.request.hostile", || parse(&samples::hostile())),
    ("http.response", parse_a_response),
    ("s3.host.aws", || {
        resolve(&samples::aws_map(), samples::SMALL)
    }),
    ("s3.host.single", || {
        resolve(&samples::single_map(), samples::ANONYMOUS)
    }),
    ("s3.classify.small", || {
        understand(&samples::aws_map(), samples::SMALL)
    }),
    ("s3.classify.boto3", || {
        understand(&samples::aws_map(), samples::BOTO3)
    }),
    ("s3.classify.presigned", || {
        understand(&samples::aws_map(), samples::PRESIGNED)
    }),
    ("s3.classify.anonymous", || {
        understand(&samples::single_map(), samples::ANONYMOUS)
    }),
    ("s3.digest", identify),
    ("s3.range", range),
    ("index.table.hit", || look_up(true)),
    ("index.table.miss", || look_up(false)),
    ("index.head", || find("head")),
    ("index.extent", || find("extent")),
    ("index.reach", || find("reach")),
    ("answer.206", answer),
    ("access_log.line", log_line),
];

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench");
    match arguments.next().as_deref() {
        Some("--list") => CASES.iter().for_each(|(name, _)| println!("{name}")),
        Some(wanted) => {
            let case = CASES.iter().find(|(name, _)| *name == wanted);
            let Some((_, run)) = case else {
                eprintln!("there is no case {wanted}; --list names them");
                std::process::exit(2);
            };
            run();
        }
        None => CASES.iter().for_each(|(_, run)| run()),
    }
}
