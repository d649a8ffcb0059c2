//! The pictures: speed and CPU as bars with their extremes, latency as a curve over the percentiles.
//!
//! Called by the page's assembly. Drawn by plotters as SVG, in memory, with no font library. Invariant: the same
//! results give the same bytes. Left to others: where the pictures are kept.

use std::io::Cursor;
use std::ops::Range;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::derive::{self, Measure, Spread};
use super::{figures, markdown};
use crate::results::Results;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

const WIDTH: i32 = 760;
const LABELS: i32 = 150;
const FIGURES: i32 = 190;
const HEAD: i32 = 40;
const ROW: i32 = 30;
const CURVE_HEIGHT: u32 = 380;

/// The least samples beyond a percentile that is drawn.
const SAMPLES_BEYOND: f64 = 5.0;

/// The pictures that these results give: name's end and what it shows.
pub fn kinds(results: &Results) -> Vec<(&'static str, &'static str)> {
    let (speed, cost) = markdown::headline(results);
    let some = |measure| !rows(results, measure).is_empty();
    let all = [
        (some(speed), ("speed", "Speed")),
        (some(cost), ("cpu", "Server CPU")),
        (!curves(results).is_empty(), ("latency", "Latency")),
    ];
    let present = all.into_iter().filter(|(present, _)| *present);
    present.map(|(_, kind)| kind).collect()
}

/// The picture of a kind as SVG.
pub fn draw(results: &Results, kind: &str) -> String {
    let (speed, cost) = markdown::headline(results);
    match kind {
        "speed" => bars(results, speed),
        "cpu" => bars(results, cost),
        _ => latency(results),
    }
}

fn rows(results: &Results, measure: Measure) -> Vec<(String, Spread)> {
    let named = |name: &str| Some((name.to_string(), derive::spread(results, name, measure)?));
    let parties = results.parties.iter();
    parties.filter_map(|party| named(&party.name)).collect()
}

fn picture(height: u32, draw: impl FnOnce(&Area<'_>) -> Drawn) -> String {
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, (WIDTH as u32, height)).into_drawing_area();
    area.fill(&WHITE)
        .and_then(|()| draw(&area))
        .and_then(|()| area.present())
        .expect("memory takes what is drawn");
    drop(area);
    text
}

/// The same colour for the same party on every picture.
fn colour(name: &str, place: usize) -> RGBColor {
    match name {
        "millrace" | "proxy" => RGBColor(31, 119, 180),
        "direct" => RGBColor(127, 127, 127),
        "nginx" => RGBColor(44, 160, 44),
        "haproxy" => RGBColor(148, 103, 189),
        "varnish" => RGBColor(255, 127, 14),
        "ats" => RGBColor(140, 86, 75),
        _ => [
            RGBColor(23, 190, 207),
            RGBColor(214, 39, 40),
            RGBColor(227, 119, 194),
            RGBColor(188, 189, 34),
        ][place % 4],
    }
}

fn style(size: i32, horizontal: HPos) -> TextStyle<'static> {
    let font = ("sans-serif", size).into_font();
    font.color(&BLACK).pos(Pos::new(horizontal, VPos::Center))
}

fn bars(results: &Results, measure: Measure) -> String {
    let rows = rows(results, measure);
    let most = rows
        .iter()
        .map(|(_, spread)| spread.max)
        .fold(0.0, f64::max);
    let width = f64::from(WIDTH - LABELS - FIGURES);
    let x = |value: f64| LABELS + (value / most.max(f64::MIN_POSITIVE) * width).round() as i32;
    let height = HEAD + ROW * rows.len() as i32 + 10;
    picture(height as u32, |area| {
        let title = format!("{}: {}", results.scenario.name, measure.title());
        area.draw(&Text::new(title, (10, HEAD / 2), style(18, HPos::Left)))?;
        for (place, (name, spread)) in rows.iter().enumerate() {
            let top = HEAD + ROW * place as i32;
            let middle = top + ROW / 2;
            let bar = [(LABELS, top + 5), (x(spread.median), top + ROW - 5)];
            area.draw(&Text::new(
                name.clone(),
                (LABELS - 8, middle),
                style(16, HPos::Right),
            ))?;
            area.draw(&Rectangle::new(bar, colour(name, place).filled()))?;
            let (least, greatest) = (x(spread.min), x(spread.max));
            for line in [
                vec![(least, middle), (greatest, middle)],
                vec![(least, middle - 5), (least, middle + 5)],
                vec![(greatest, middle - 5), (greatest, middle + 5)],
            ] {
                area.draw(&PathElement::new(line, BLACK.stroke_width(1)))?;
            }
            let at = (greatest + 8, middle);
            let figure = figures::spread(Some(*spread));
            area.draw(&Text::new(figure, at, style(16, HPos::Left)))?;
        }
        Ok(())
    })
}

/// A party's latencies: (1 / share of requests that took longer, µs).
type Curve = (String, Vec<(f64, f64)>);

fn curves(results: &Results) -> Vec<Curve> {
    let parties = results.parties.iter();
    let curves = parties.filter_map(|party| {
        let merged = merged(results, &party.name)?;
        Some((party.name.clone(), points(&merged)))
    });
    curves.filter(|(_, points)| points.len() > 1).collect()
}

/// All rounds together; none where a round's histogram is missing or not readable.
fn merged(results: &Results, party: &str) -> Option<Histogram<u64>> {
    let mut all: Option<Histogram<u64>> = None;
    for run in derive::runs_of(results, party) {
        let bytes = base64_simd::STANDARD.decode_to_vec(&run.histogram).ok()?;
        let one: Histogram<u64> = Deserializer::new()
            .deserialize(&mut Cursor::new(bytes))
            .ok()?;
        match &mut all {
            None => all = Some(one),
            Some(all) => all.add(&one).ok()?,
        }
    }
    all.filter(|all| !all.is_empty())
}

/// Twenty points for each power of ten, as far as there are samples beyond.
fn points(latencies: &Histogram<u64>) -> Vec<(f64, f64)> {
    let last = latencies.len() as f64 / SAMPLES_BEYOND;
    let steps = (0..).map(|step| 10_f64.powf(f64::from(step) / 20.0));
    steps
        .take_while(|odds| *odds <= last)
        .map(|odds| {
            (
                odds,
                latencies.value_at_quantile(1.0 - 1.0 / odds).max(1) as f64,
            )
        })
        .collect()
}

fn bounds(curves: &[Curve]) -> (Range<f64>, Range<f64>) {
    let all = || curves.iter().flat_map(|(_, points)| points);
    let right = all().map(|point| point.0).fold(10.0, f64::max);
    let top = all().map(|point| point.1).fold(10.0, f64::max);
    let bottom = all().map(|point| point.1).fold(top, f64::min);
    // A logarithmic axis has its marks from a power of ten on.
    let decade = |value: f64| 10_f64.powf(value.log10().floor());
    let up = [1.0, 2.0, 5.0, 10.0].map(|step| step * decade(top));
    let above = up.into_iter().find(|step| *step >= top);
    (1.0..right, decade(bottom)..above.unwrap_or(top * 1.1))
}

fn latency(results: &Results) -> String {
    let curves = curves(results);
    let (across, up) = bounds(&curves);
    picture(CURVE_HEIGHT, |area| {
        let title = format!("{}: latency by percentile", results.scenario.name);
        area.draw(&Text::new(title, (10, HEAD / 2), style(18, HPos::Left)))?;
        let below = area.margin(HEAD, 5, 5, 20);
        let mut chart = ChartBuilder::on(&below)
            .x_label_area_size(30)
            .y_label_area_size(70)
            .build_cartesian_2d(across.log_scale(), up.log_scale())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_label_formatter(&|odds| percentile(*odds))
            .y_label_formatter(&|us| time(*us))
            .label_style(("sans-serif", 14))
            .draw()?;
        for (place, (name, points)) in curves.iter().enumerate() {
            let line = colour(name, place).stroke_width(2);
            chart.draw_series(LineSeries::new(points.iter().copied(), line))?;
            let y = HEAD + 12 + 18 * place as i32;
            let swatch = [(90, y - 5), (104, y + 5)];
            area.draw(&Rectangle::new(swatch, colour(name, place).filled()))?;
            area.draw(&Text::new(name.clone(), (110, y), style(16, HPos::Left)))?;
        }
        Ok(())
    })
}

fn percentile(odds: f64) -> String {
    let nines = odds.log10().round();
    let digits = (nines - 2.0).max(0.0) as usize;
    match odds {
        _ if odds <= 1.0 => "0 %".to_string(),
        _ => format!("{:.digits$} %", 100.0 - 100.0 / odds),
    }
}

fn time(us: f64) -> String {
    match us {
        _ if us >= 1e6 => format!("{} s", us / 1e6),
        _ if us >= 1e3 => format!("{} ms", us / 1e3),
        _ => format!("{us:.0} µs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::tally::Latencies;
    use crate::report::made_up::{results, run};

    fn with_histograms() -> Results {
        let mut latencies = Latencies::default();
        for us in 1..=1000 {
            latencies.record_ns(us * 1000);
        }
        let runs = ["millrace", "nginx"].map(|party| {
            let mut run = run(party, 1, 1000.0);
            run.histogram = latencies.encoded();
            run
        });
        results("hit-4k-64", runs.to_vec())
    }

    #[test]
    fn a_curve_follows_the_percentiles_as_far_as_samples_go() {
        let curves = curves(&with_histograms());
        assert_eq!(curves.len(), 2);
        let (_, points) = &curves[0];
        let (odds, us) = points[20];
        assert!(
            (odds - 10.0).abs() < 1e-9 && (899.0..=901.0).contains(&us),
            "{odds} {us}"
        );
        assert!(points.last().expect("points").0 <= 200.0);
    }

    #[test]
    fn every_kind_is_an_svg_and_the_same_twice() {
        let results = with_histograms();
        let kinds: Vec<&str> = kinds(&results).iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, ["speed", "cpu", "latency"]);
        for kind in kinds {
            let svg = draw(&results, kind);
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
            assert!(svg.contains("nginx") && !svg.contains("NaN"));
            assert_eq!(svg, draw(&results, kind));
        }
    }

    #[test]
    fn what_cannot_be_drawn_is_left_out() {
        let mut odd = run("millrace", 1, 0.0);
        odd.bytes = 0;
        odd.server_cpu = None;
        odd.histogram = "not base64".to_string();
        let kinds: Vec<&str> = kinds(&results("x", vec![odd]))
            .iter()
            .map(|k| k.0)
            .collect();
        assert_eq!(kinds, ["speed"]);
    }

    #[test]
    fn axes_speak_of_percent_and_time() {
        assert_eq!(percentile(1.0), "0 %");
        assert_eq!(percentile(10.0), "90 %");
        assert_eq!(percentile(1000.0), "99.9 %");
        assert_eq!(
            (time(12.0), time(1500.0)),
            ("12 µs".into(), "1.5 ms".into())
        );
    }
}
