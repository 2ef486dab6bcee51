//! The table and the plot.

use super::nodes::{Boot, Figures};

/// Targets, met or missed: when the last node is open, in parts of the lower bound, and the share of the requests of others that KMS
/// throttles.
const RATIO: f64 = 1.2;
const OTHERS: f64 = 0.01;

pub(crate) const HEADER: &str = "\
| nodes | boot | quota | bound | last node open | ratio | median wait | calls a node | throttled | others throttled | of `DescribeKey` | targets |
|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|";

pub(crate) fn row(figures: &Figures) -> String {
    let storm = figures.storm;
    let (others, describing) = (figures.others.share(), figures.others_describing.share());
    let missed: Vec<&str> =
        [(figures.ratio() <= RATIO, "time"), (others <= OTHERS, "others"), (describing <= OTHERS, "`DescribeKey`")]
            .into_iter()
            .filter_map(|(met, what)| (!met).then_some(what))
            .collect();
    let targets = if missed.is_empty() { "met".to_owned() } else { format!("missed: {}", missed.join(", ")) };
    format!(
        "| {} | {} | {} | {:.1} s | {:.1} s | {:.2} | {:.2} s | {:.2} | {} | {} | {} | {targets} |",
        thousands(storm.nodes),
        storm.boot.name(),
        thousands(storm.quota),
        figures.bound(),
        figures.time(),
        figures.ratio(),
        figures.median_wait(),
        figures.calls_per_node(),
        percent(figures.agents.share()),
        percent(others),
        percent(describing),
    )
}

/// Nodes that are open over time, in bars, and what the lower bound allows, in dots.
pub(crate) fn plot(figures: &Figures) -> String {
    const WIDTH: f64 = 60.0;
    const LINES: u32 = 12;
    let needs = f64::from(figures.storm.nodes) / figures.bound();
    let step = (figures.time().max(figures.bound()) / f64::from(LINES)).ceil();
    let bar = |line: u32| {
        let time = step * f64::from(line);
        let open = figures.open_at(time);
        let bound = (needs * time / f64::from(figures.storm.nodes)).min(1.0);
        let text: String = (0..60)
            .map(|column| f64::from(column) / WIDTH)
            .map(|at| {
                if at < open {
                    '#'
                } else if at < bound {
                    '.'
                } else {
                    ' '
                }
            })
            .collect();
        format!("{time:>4.0} s |{text}| {:>3.0} %", 100.0 * open)
    };
    let bars = (0..=LINES).map(bar).collect::<Vec<_>>().join("\n");
    let kind = if figures.storm.boot == Boot::First { "first boot" } else { "reboot" };
    format!(
        "{} nodes, {kind}, {} requests a second\n{bars}",
        thousands(figures.storm.nodes),
        thousands(figures.storm.quota)
    )
}

fn percent(share: f64) -> String {
    if share == 0.0 { "none".to_owned() } else { format!("{:.1} %", 100.0 * share) }
}

fn thousands(number: u32) -> String {
    if number < 1000 { number.to_string() } else { format!("{},{:03}", number / 1000, number % 1000) }
}
