//! What pages have in common: all that is above their body, and verdicts.

use std::fmt::Display;

use super::disk::Standing;
use super::html::Html;
use crate::digest::sha256_base64;

const STYLE: &str = include_str!("style.css");

/// Begins a page, up to its body. The page loads nothing and runs nothing, except for the script, which [`end_page`] adds.
pub(crate) fn begin_page(title: impl Display, script: Option<&'static str>) -> Html {
    let mut page = Html::default();
    page.raw("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page.raw("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-");
    page.text(sha256_base64(STYLE)).raw("'");
    if let Some(script) = script {
        page.raw("; script-src 'sha256-").text(sha256_base64(script)).raw("'");
    }
    page.raw("\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<style>").raw(STYLE);
    page.element("</style>\n<title>", title, "</title>\n</head>\n<body>\n");
    page
}

/// Ends a page with the script that it began with, and returns it.
pub(crate) fn end_page(mut page: Html, script: Option<&'static str>) -> String {
    if let Some(script) = script {
        page.raw("<script>").raw(script).raw("</script>\n");
    }
    page.raw("</body>\n</html>\n");
    page.into_string()
}

/// Adds a verdict, in words that do not depend on its colour.
pub(crate) fn verdict(page: &mut Html, verdict: Standing) {
    match verdict {
        Standing::Encrypted => page.raw("<span class=\"verdict encrypted\">encrypted</span>"),
        Standing::Excepted => page.raw("<span class=\"verdict excepted\">excepted</span>"),
        Standing::Unknown => page.raw("<span class=\"verdict unknown\">unknown</span>"),
        Standing::NotEncrypted => page.raw("<span class=\"verdict not-encrypted\">not encrypted</span>"),
    };
}
