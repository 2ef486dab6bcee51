//! The health of a node without a state file: a new one, or one that has lost it.

use super::super::node::Node;
use super::check::shortfalls;
use super::diagnosis::{diagnosed, diagnosis};
use super::strangers::strangers;
use crate::report::{Report, Row, Verdict};

/// Returns the report of a node without a state file, to which `unknown` volumes of luks-agent are attached.
pub(super) fn without_state(command: &'static str, node: Node<'_>, unknown: Vec<Row>) -> Report {
    let summary = match unknown.len() {
        0 => "this node was never provisioned".to_owned(),
        count => format!("there is no state file, and volumes of luks-agent are attached: {count}"),
    };
    let unclear = strangers(node, &unknown).into_iter().filter(|row| row.result == Verdict::Refused).collect();
    let rows = [unknown, unclear, shortfalls(node.config, |_| 0)].concat();
    let wrong = diagnosis(&[], &rows);
    diagnosed(Report::new(command, rows, summary), wrong)
}
