//! From the cells to OpenMetrics text, through `prometheus-client`.
//!
//! Called by [`super::Registry::render`]. Invariants: every family of the table is shown, in the order of the table;
//! a family shown per shard leaves out counters that never counted (a shard has thousands of combinations), every
//! other one shows all its combinations from the start, so that a rate never begins in the middle.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry;

use super::Blocks;
use super::block;
use super::histogram::{self, SUM, WIDTH};
use super::table::{Cells, FAMILIES, Family, Shape};

/// The media type of [`super::Registry::render`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Labels of one sample, names and values.
type Labels<'a> = Vec<(&'a str, &'a str)>;

/// Renders the blocks it was made with.
#[derive(Debug)]
pub(super) struct Exporter(registry::Registry);

impl Exporter {
    pub(super) fn new(blocks: Arc<Blocks>) -> Self {
        let mut registry = registry::Registry::default();
        registry.register_collector(Box::new(Export { blocks }));
        Self(registry)
    }

    pub(super) fn render(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.0).expect("a String takes every byte");
        out
    }
}

/// The blocks as a source of metrics.
#[derive(Debug)]
struct Export {
    blocks: Arc<Blocks>,
}

impl Collector for Export {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let help = "The version that runs.";
        encoder
            .encode_descriptor("millrace_build", help, None, MetricType::Info)?
            .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        for (cells, table) in FAMILIES {
            let mut first = block::first(cells);
            for family in table {
                self.family(&mut encoder, family, first)?;
                first += family.combinations() * width(cells);
            }
        }
        Ok(())
    }
}

impl Export {
    fn family(
        &self,
        encoder: &mut DescriptorEncoder,
        family: &Family,
        first: usize,
    ) -> fmt::Result {
        let (name, kind) = described(family);
        let mut encoder = encoder.encode_descriptor(name, family.help, None, kind)?;
        for combination in 0..family.combinations() {
            let labels = labels(family, combination);
            match family.shape {
                Shape::Counter | Shape::Flow | Shape::Level => {
                    let sum = self.blocks.sum(first + combination);
                    sample(&mut encoder, family.shape, &labels, sum)?;
                }
                Shape::ShardCounter | Shape::ShardFlow => {
                    self.per_shard(&mut encoder, family.shape, &labels, first + combination)?;
                }
                Shape::Seconds | Shape::Bytes => {
                    self.histogram(
                        &mut encoder,
                        family.shape,
                        &labels,
                        first + combination * WIDTH,
                    )?;
                }
            }
        }
        Ok(())
    }

    /// What no shard has counted, but a thread beside them, is shown as shard `none`.
    fn per_shard(
        &self,
        encoder: &mut MetricEncoder,
        shape: Shape,
        labels: &Labels,
        cell: usize,
    ) -> fmt::Result {
        for (index, shard) in self.blocks.shards.iter().enumerate() {
            let value = shard.0.read(cell);
            if shape == Shape::ShardCounter && value == 0 {
                continue;
            }
            let index = index.to_string();
            let labels: Labels = [("shard", index.as_str())]
                .into_iter()
                .chain(labels.iter().copied())
                .collect();
            sample(encoder, shape, &labels, value)?;
        }
        let beside = self.blocks.global.0.read(cell);
        if beside != 0 {
            let labels: Labels = [("shard", "none")]
                .into_iter()
                .chain(labels.iter().copied())
                .collect();
            sample(encoder, shape, &labels, beside)?;
        }
        Ok(())
    }

    fn histogram(
        &self,
        encoder: &mut MetricEncoder,
        shape: Shape,
        labels: &Labels,
        first: usize,
    ) -> fmt::Result {
        let bounds = histogram::bounds(shape);
        let shown = bounds
            .iter()
            .map(|bound| histogram::shown(shape, *bound))
            .chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = shown
            .enumerate()
            .map(|(bucket, bound)| (bound, self.blocks.sum(first + bucket)))
            .collect();
        // Counted from the buckets that are shown: read apart from them, the count could contradict them.
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = histogram::shown(shape, self.blocks.sum(first + SUM));
        labelled(encoder, labels, |encoder| {
            encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
        })
    }
}

fn width(cells: Cells) -> usize {
    match cells {
        Cells::Counters | Cells::Gauges => 1,
        Cells::Histograms => WIDTH,
    }
}

/// The name and type as the encoder wants them: it appends `_total` to a counter's name itself.
fn described(family: &Family) -> (&'static str, MetricType) {
    match family.shape {
        Shape::Counter | Shape::ShardCounter => (
            family.name.strip_suffix("_total").unwrap_or(family.name),
            MetricType::Counter,
        ),
        Shape::Flow | Shape::ShardFlow | Shape::Level => (family.name, MetricType::Gauge),
        Shape::Seconds | Shape::Bytes => (family.name, MetricType::Histogram),
    }
}

/// The labels of combination number `combination`: the last label changes fastest.
fn labels(family: &Family, combination: usize) -> Labels<'static> {
    let mut rest = combination;
    let mut labels: Labels = Vec::with_capacity(family.labels.len());
    for (key, values) in family.labels.iter().rev() {
        labels.push((key, values[rest % values.len()]));
        rest /= values.len();
    }
    labels.reverse();
    labels
}

fn sample(encoder: &mut MetricEncoder, shape: Shape, labels: &Labels, value: u64) -> fmt::Result {
    labelled(encoder, labels, |encoder| match shape {
        Shape::Counter | Shape::ShardCounter => {
            encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
        }
        Shape::Flow | Shape::ShardFlow | Shape::Level | Shape::Seconds | Shape::Bytes => {
            encoder.encode_gauge(&value.cast_signed())
        }
    })
}

/// Calls `encode` with an encoder that writes `labels`; an empty family label set would be written as `{}`.
fn labelled<'a>(
    encoder: &'a mut MetricEncoder<'_>,
    labels: &'a Labels<'a>,
    encode: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    if labels.is_empty() {
        return encode(encoder);
    }
    encode(&mut encoder.encode_family(labels)?)
}

#[cfg(test)]
mod tests {
    use crate::metrics::{
        Counter, Gauge, Histogram, Method, Outcome, Registry, UpstreamKind, gauges_zero_at_rest,
    };

    /// The value of the sample that is written as `series`.
    fn value<'a>(text: &'a str, series: &str) -> Option<&'a str> {
        text.lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
    }

    #[test]
    fn requests_are_shown_by_the_shard_that_accepted_the_connection() {
        let registry = Registry::new(2);
        registry
            .shard(1)
            .add(Counter::Requests(Method::Get, Outcome::Hit), 7);
        let text = registry.render();
        let hits = "millrace_requests_total{shard=\"1\",method=\"get\",result=\"hit\"}";
        assert_eq!(value(&text, hits), Some("7"));
        assert!(!text.contains("millrace_requests_total{shard=\"0\""));
    }

    #[test]
    fn every_series_without_a_shard_is_there_from_the_start() {
        let text = Registry::new(1).render();
        assert_eq!(value(&text, "millrace_fills_started_total"), Some("0"));
        assert_eq!(
            value(
                &text,
                "millrace_upstream_errors_total{kind=\"timeout_connect\"}"
            ),
            Some("0")
        );
        assert_eq!(
            value(&text, "millrace_connections_open{shard=\"0\"}"),
            Some("0")
        );
        assert!(text.contains("millrace_build_info{version=\""));
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn every_gauge_that_must_rest_at_zero_does() {
        let text = Registry::new(2).render();
        for name in gauges_zero_at_rest() {
            let samples = text.lines().filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with([' ', '{']))
            });
            let values: Vec<_> = samples.map(|line| line.rsplit(' ').next()).collect();
            assert!(!values.is_empty(), "{name}");
            assert!(values.iter().all(|value| *value == Some("0")), "{name}");
        }
    }

    #[test]
    fn a_gauge_below_zero_is_shown_as_such() {
        let registry = Registry::new(1);
        registry.shard(0).gauge_add(Gauge::FillsInFlight, -1);
        assert_eq!(
            value(&registry.render(), "millrace_fills_in_flight"),
            Some("-1")
        );
    }

    #[test]
    fn buckets_add_up_and_end_with_the_count() {
        let registry = Registry::new(2);
        let fill = Histogram::UpstreamFirstByte(UpstreamKind::Fill);
        registry.shard(0).observe(fill, 1_500_000);
        registry.shard(1).observe(fill, 3_000_000);
        registry.shard(1).observe(fill, 1_000_000_000_000);
        let text = registry.render();
        let series = |suffix: &str, le: &str| {
            format!("millrace_upstream_first_byte_seconds_{suffix}{{{le}kind=\"fill\"}}")
        };
        assert_eq!(value(&text, &series("bucket", "le=\"0.001\",")), Some("0"));
        assert_eq!(value(&text, &series("bucket", "le=\"0.0025\",")), Some("1"));
        assert_eq!(value(&text, &series("bucket", "le=\"0.005\",")), Some("2"));
        assert_eq!(value(&text, &series("bucket", "le=\"100.0\",")), Some("2"));
        assert_eq!(value(&text, &series("bucket", "le=\"+Inf\",")), Some("3"));
        assert_eq!(value(&text, &series("count", "")), Some("3"));
        assert_eq!(value(&text, &series("sum", "")), Some("1000.0045"));
    }

    #[test]
    fn no_sample_has_an_empty_label_set() {
        assert!(!Registry::new(1).render().contains("{}"));
    }
}
