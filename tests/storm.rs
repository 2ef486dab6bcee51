//! A cluster of 100,000 nodes at a scale of 1 to 200: nodes and quotas of KMS are as many times smaller, and time is the same. `make storm`
//! runs it in full.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

#[path = "../examples/storm/nodes.rs"]
mod nodes;
#[path = "../examples/storm/page.rs"]
mod page;
#[path = "../examples/storm/service.rs"]
mod service;

use nodes::{Boot, Figures, Storm};
use service::Service;

/// In a Region with 10,000 requests a second, and 2,000 of `DescribeKey`.
const STORM: Storm = Storm { nodes: 500, boot: Boot::First, window: 60.0, quota: 50 };
const DESCRIBE_QUOTA: u32 = 10;

fn run(storm: Storm) -> Figures {
    let figures = nodes::run(storm, |quota| Service::new(quota, DESCRIBE_QUOTA), 1);
    println!("{}\n{}\n{}", page::HEADER, page::row(&figures), page::plot(&figures));
    figures
}

#[test]
fn nodes_that_boot_within_a_minute_wait_for_nothing_that_others_need() {
    for boot in [Boot::First, Boot::Again] {
        let figures = run(Storm { boot, ..STORM });
        assert!(figures.ratio() <= 1.2, "{boot:?}");
        assert!(figures.others.share() <= 0.01, "{boot:?}");
        assert!(figures.median_wait() <= 0.1, "{boot:?}");
    }
}

#[test]
fn nodes_that_boot_within_a_second_are_open_about_as_soon_as_the_quota_allows() {
    // an unlock has one call, and the health checks of nodes that are open compete with it: two calls each
    for (boot, ratio) in [(Boot::First, 1.2), (Boot::Again, 1.7)] {
        let figures = run(Storm { boot, window: 1.0, ..STORM });
        assert!(figures.ratio() <= ratio, "{boot:?}");
    }
}

#[test]
fn the_figures_are_the_same_every_time() {
    let storm = Storm { nodes: 100, window: 1.0, ..STORM };
    let [once, again] = [run(storm), run(storm)];
    assert_eq!((once.open, once.agents.all), (again.open, again.agents.all));
}
