//! Parts of the page that its sections share.

use std::fmt::Display;

use jiff::Timestamp;

use crate::audit::Html;
use crate::disk::Bytes;

/// A table, as it begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heading {
    /// What a screen reader calls it, and the field that filters it.
    pub(super) label: &'static str,
    /// What is in it.
    pub(super) caption: &'static str,
    /// The names of its columns.
    pub(super) columns: &'static [&'static str],
    /// The column whose values a menu offers, to show only the rows that have one of them.
    pub(super) menu: Option<&'static str>,
    /// Whether its rows can be sorted and filtered, if scripts run.
    pub(super) is_sortable: bool,
}

/// Adds a table whose rows `rows` adds.
pub(super) fn table(page: &mut Html, heading: &Heading, rows: impl FnOnce(&mut Html)) {
    page.raw("<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"").raw(heading.label).raw("\">\n");
    page.raw(if heading.is_sortable {
        "<table class=\"sortable\" data-name=\""
    } else {
        "<table class=\"short\" data-name=\""
    });
    page.raw(heading.label).raw("\">\n<caption>").raw(heading.caption).raw("</caption>\n<thead><tr>");
    for column in heading.columns {
        page.raw(if heading.menu == Some(column) { "<th scope=\"col\" data-menu>" } else { "<th scope=\"col\">" })
            .raw(column)
            .raw("</th>");
    }
    page.raw("</tr></thead>\n<tbody>\n");
    rows(page);
    page.raw("</tbody>\n</table>\n</div>\n");
}

/// Begins a row with the cell that names it.
pub(super) fn row(page: &mut Html, name: impl Display) {
    page.element("<tr><th scope=\"row\">", name, "</th>");
}

/// Adds a cell with a text.
pub(super) fn cell(page: &mut Html, text: impl Display) {
    page.element("<td>", text, "</td>");
}

/// Adds a cell with a text that may be missing.
pub(super) fn maybe(page: &mut Html, text: Option<&str>) {
    cell(page, text.unwrap_or("-"));
}

/// Adds a cell with a number.
pub(super) fn number(page: &mut Html, count: u64) {
    page.element("<td class=\"number\">", count, "</td>");
}

/// Adds a cell with a number of bytes, which is sorted by the number.
pub(super) fn bytes(page: &mut Html, count: u64) {
    page.raw("<td class=\"number\" data-sort=\"").text(count).element("\">", Bytes(count), "</td>");
}

/// Adds a cell with a time.
pub(super) fn time(page: &mut Html, at: Option<Timestamp>) {
    page.raw("<td class=\"time\">");
    match at {
        Some(at) => page.text(at),
        None => page.raw("-"),
    };
    page.raw("</td>");
}

/// Adds a cell with the number of some nodes, which opens to their names.
pub(super) fn names(page: &mut Html, names: &[String]) {
    page.raw("<td class=\"number\" data-sort=\"").text(names.len()).raw("\">");
    if names.is_empty() {
        page.raw("0</td>");
        return;
    }
    page.element("<details><summary>", names.len(), "</summary>");
    page.text(names.join(", ")).raw("</details></td>");
}
