//! `make storm`: many nodes boot at once against the request quotas of KMS, in virtual time and with the agent's own client. Prints the
//! tables and the plot of docs/fleet.md.
//!
//! `storm [NODES]`: without the storms of more nodes. The figures are the same on every machine, because time is virtual and all that
//! is random has a seed.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool, which fails if this does")]

#[path = "storm/nodes.rs"]
mod nodes;
#[path = "storm/page.rs"]
mod page;
#[path = "storm/service.rs"]
mod service;

use std::sync::Mutex;
use std::thread;

use nodes::{Boot, Figures, Storm, run};
use service::Service;

/// Requests a second of `DescribeKey` in an account and Region.
const DESCRIBE_QUOTA: u32 = 2000;
/// The same of the quota that `Decrypt` and `GenerateDataKey` share, in Regions of three sizes.
const QUOTAS: [u32; 3] = [10_000, 20_000, 100_000];
const NODES: [u32; 3] = [1000, 10_000, 100_000];
const MINUTE: f64 = 60.0;
const SECOND: f64 = 1.0;

fn main() {
    let most = std::env::args().nth(1).map_or(u32::MAX, |text| text.parse().unwrap());
    let mut storms = Vec::new();
    for window in [MINUTE, SECOND] {
        for nodes in NODES.into_iter().filter(|nodes| *nodes <= most) {
            for boot in [Boot::First, Boot::Again] {
                storms.extend(QUOTAS.map(|quota| Storm { nodes, boot, window, quota }));
            }
        }
    }
    let done = run_all(&storms);
    for (window, title) in [(MINUTE, "Within a minute"), (SECOND, "Within a second")] {
        println!("{title}:\n\n{}", page::HEADER);
        let rows = done.iter().filter(|figures| figures.storm.window == window).map(page::row);
        println!("{}\n", rows.collect::<Vec<_>>().join("\n"));
    }
    let worst = |figures: &&Figures| figures.storm.window == SECOND && figures.storm.quota == QUOTAS[0];
    if let Some(figures) = done.iter().filter(worst).max_by(|a, b| a.time().total_cmp(&b.time())) {
        println!("{}", page::plot(figures));
    }
}

/// Runs storms, one a core at a time, the largest first.
fn run_all(storms: &[Storm]) -> Vec<Figures> {
    let next = Mutex::new((0..storms.len()).collect::<Vec<_>>());
    let done = Mutex::new(Vec::new());
    let work = || {
        loop {
            let Some(index) = next.lock().unwrap().pop() else { return };
            let figures = run(storms[index], |quota| Service::new(quota, DESCRIBE_QUOTA), 1);
            done.lock().unwrap().push((index, figures));
        }
    };
    next.lock().unwrap().sort_by_key(|index| storms[*index].nodes);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, figures)| figures).collect()
}
