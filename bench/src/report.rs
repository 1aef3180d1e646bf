//! The report of a ladder of rates as one HTML file with its plots inside.

use std::fmt::Write;

use crate::latency::{Interval, Latency};

/// One rung of the ladder.
pub struct Rung {
    /// Calls a second by schedule.
    pub rate: f64,
    /// Calls placed.
    pub calls: u64,
    /// Calls that went as planned.
    pub as_planned: u64,
    /// What was timed.
    pub latency: Latency,
    /// CPU time of the server per call that went as planned, microseconds.
    pub cpu_us: Option<f64>,
}

/// The whole file.
#[must_use]
pub fn html(title: &str, rungs: &[Rung], verdict: Option<&str>) -> String {
    let mut out = format!(
        "<!DOCTYPE html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\
         <style>{STYLE}</style><h1>{title}</h1>\n",
        title = escape(title)
    );
    if let Some(verdict) = verdict {
        let _ = writeln!(out, "<p class=\"verdict\">{}</p>", escape(verdict));
    }
    rows(&mut out, rungs);
    for interval in Interval::ALL {
        let quantile = |value: fn(&crate::latency::Quantiles) -> u64| -> Vec<(f64, f64)> {
            rungs
                .iter()
                .map(|rung| (rung.rate, rung.latency.of(interval)))
                .filter(|(_, of)| of.count > 0)
                .map(|(rate, of)| (rate, value(&of) as f64 / 1e3))
                .collect()
        };
        let lines = [
            ("p50", quantile(|of| of.p50_us)),
            ("p90", quantile(|of| of.p90_us)),
            ("p99", quantile(|of| of.p99_us)),
        ];
        if !lines[0].1.is_empty() {
            plot(&mut out, &format!("{}, ms", interval.name()), &lines);
        }
    }
    let cpu: Vec<_> = rungs
        .iter()
        .filter_map(|rung| Some((rung.rate, rung.cpu_us?)))
        .collect();
    if !cpu.is_empty() {
        plot(&mut out, "CPU per call, microseconds", &[("server", cpu)]);
    }
    out.push_str("</html>\n");
    out
}

fn rows(out: &mut String, rungs: &[Rung]) {
    out.push_str(
        "<table><tr><th>calls/s<th>calls<th>as planned<th>CPU &micro;s/call\
         <th>INVITE&rarr;1xx p50/p99 ms<th>INVITE&rarr;200 p50/p99 ms\n",
    );
    for rung in rungs {
        let ms = |interval| {
            let of = rung.latency.of(interval);
            format!(
                "{:.2} / {:.2}",
                of.p50_us as f64 / 1e3,
                of.p99_us as f64 / 1e3
            )
        };
        let cpu = rung
            .cpu_us
            .map_or_else(String::new, |cpu| format!("{cpu:.1}"));
        let _ = writeln!(
            out,
            "<tr><td>{}<td>{}<td>{}<td>{cpu}<td>{}<td>{}",
            rung.rate,
            rung.calls,
            rung.as_planned,
            ms(Interval::InviteToProvisional),
            ms(Interval::InviteToAnswer)
        );
    }
    out.push_str("</table>\n");
}

/// A plot of values over the rate, both axes from 0.
fn plot(out: &mut String, title: &str, lines: &[(&str, Vec<(f64, f64)>)]) {
    let points = || lines.iter().flat_map(|(_, line)| line);
    let x_max = points().map(|(x, _)| *x).fold(1.0, f64::max);
    let y_max = nice(points().map(|(_, y)| *y).fold(0.001, f64::max));
    let x = |value: f64| LEFT + value / x_max * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - value / y_max * (HEIGHT - TOP - BOTTOM);
    let _ = write!(
        out,
        "<h2>{}</h2><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\">",
        escape(title)
    );
    for step in 0..=STEPS {
        let part = f64::from(step) / f64::from(STEPS);
        let (at_x, at_y) = (x(x_max * part), y(y_max * part));
        let _ = write!(
            out,
            "<path class=\"grid\" d=\"M{LEFT} {at_y:.1}H{}\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <text x=\"{at_x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at_y + 4.0,
            short(y_max * part),
            HEIGHT - BOTTOM + 18.0,
            short(x_max * part),
        );
    }
    for (place, (name, line)) in lines.iter().enumerate() {
        let colour = COLOURS[place % COLOURS.len()];
        let path: Vec<String> = line
            .iter()
            .map(|(at, value)| format!("{:.1} {:.1}", x(*at), y(*value)))
            .collect();
        let _ = write!(
            out,
            "<path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <text x=\"{}\" y=\"{}\" fill=\"{colour}\">{}</text>",
            path.join("L"),
            LEFT + 12.0 + 60.0 * place as f64,
            TOP + 4.0,
            escape(name)
        );
        for (at, value) in line {
            let _ = write!(
                out,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                x(*at),
                y(*value)
            );
        }
    }
    out.push_str("</svg>\n");
}

/// The next of 1, 2, 5, 10, ... that is not below `value`.
fn nice(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|nice| *nice >= value)
        .unwrap_or(value)
}

fn short(value: f64) -> String {
    if value >= 10.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 28.0;
const STEPS: u32 = 5;
const COLOURS: [&str; 3] = ["#1f6f8b", "#c46210", "#a02040"];
const STYLE: &str = "body{font:15px system-ui;max-width:760px;margin:2em auto;color:#222}\
    table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:4px 8px;text-align:right}\
    svg text{font-size:12px;fill:#444}.grid{stroke:#ddd;fill:none}.verdict{font-weight:600}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_a_round_number() {
        for (value, end) in [(0.7, 1.0), (1.2, 2.0), (49.0, 50.0), (51.0, 100.0)] {
            assert!((nice(value) - end).abs() < 1e-9, "{value}");
        }
    }
}
