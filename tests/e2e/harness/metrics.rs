//! Reads Prometheus text. Strict: a line that is not of the format fails the test.

use std::collections::BTreeMap;

/// Gauges that are zero whenever nobody is being served.
pub const HELD: &[&str] = &[
    "millrace_connections_open",
    "millrace_requests_in_flight",
    "millrace_upstream_connections_active",
    "millrace_fills_in_flight",
    "millrace_fill_waiters",
    "millrace_ram_leases",
    "millrace_mailbox_depth",
    "millrace_tunnels_open",
    "millrace_tunnel_pipes",
];

/// One scrape.
#[derive(Debug)]
pub struct Scrape {
    /// (family or sample name, labels in order, value).
    pub samples: Vec<(String, BTreeMap<String, String>, f64)>,
    /// Kind of each family: `counter`, `gauge`, `histogram`.
    pub kinds: BTreeMap<String, String>,
}

impl Scrape {
    #[track_caller]
    pub fn parse(text: &str) -> Scrape {
        let mut scrape = Scrape {
            samples: Vec::new(),
            kinds: BTreeMap::new(),
        };
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("TYPE has a kind");
                let before = scrape.kinds.insert(name.to_owned(), kind.to_owned());
                assert!(before.is_none(), "{name} is declared twice");
            } else if !line.starts_with('#') {
                scrape.samples.push(sample(line));
            }
        }
        scrape
    }

    /// Sum of the samples called `name` that carry all of `labels`.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |own: &BTreeMap<String, String>| {
            labels
                .iter()
                .all(|(key, value)| own.get(*key).is_some_and(|have| have == value))
        };
        self.samples
            .iter()
            .filter(|(own, have, _)| own == name && fits(have))
            .map(|sample| sample.2)
            .sum()
    }

    /// Gauges that count what is held right now, and are not zero.
    pub fn held(&self) -> Vec<(String, f64)> {
        self.samples
            .iter()
            .filter(|(name, _, value)| *value != 0.0 && self.is_held_gauge(name))
            .map(|(name, labels, value)| (format!("{name}{labels:?}"), *value))
            .collect()
    }

    fn is_held_gauge(&self, name: &str) -> bool {
        HELD.contains(&name) && self.kinds.get(name).is_some_and(|kind| kind == "gauge")
    }
}

fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let (series, value) = line
        .rsplit_once(' ')
        .unwrap_or_else(|| panic!("not a sample: {line:?}"));
    let value = match value {
        "+Inf" => f64::INFINITY,
        "NaN" => f64::NAN,
        number => number
            .parse()
            .unwrap_or_else(|_| panic!("not a number: {line:?}")),
    };
    let Some((name, rest)) = series.split_once('{') else {
        return (series.to_owned(), BTreeMap::new(), value);
    };
    let inside = rest
        .strip_suffix('}')
        .unwrap_or_else(|| panic!("open labels: {line:?}"));
    let mut labels = BTreeMap::new();
    let mut text = inside;
    while !text.is_empty() {
        let (key, after) = text
            .split_once("=\"")
            .unwrap_or_else(|| panic!("labels: {line:?}"));
        let end = after
            .find('"')
            .unwrap_or_else(|| panic!("labels: {line:?}"));
        labels.insert(key.to_owned(), after[..end].to_owned());
        text = after[end + 1..].trim_start_matches(',');
    }
    (name.to_owned(), labels, value)
}

#[test]
fn a_scrape_is_read_with_its_labels() {
    let text = "# HELP a b\n# TYPE millrace_ram_leases gauge\nmillrace_ram_leases 1\n# TYPE r counter\nr_total{shard=\"0\",result=\"hit\"} 4\nr_total{shard=\"1\",result=\"hit\"} 5\n# EOF\n";
    let scrape = Scrape::parse(text);
    assert_eq!(scrape.sum("r_total", &[("result", "hit")]), 9.0);
    assert_eq!(scrape.sum("r_total", &[("shard", "1")]), 5.0);
    assert_eq!(scrape.held().len(), 1);
}
