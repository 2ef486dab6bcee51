//! One file a target: `run` takes an input, panics when something is wrong, and says what came of it.

pub(crate) mod answers;
pub(crate) mod audit;
pub(crate) mod certificates;
pub(crate) mod config;
pub(crate) mod disk;
pub(crate) mod emr;
pub(crate) mod envelope;
pub(crate) mod exec;
pub(crate) mod header;
pub(crate) mod imds;
pub(crate) mod kms;
pub(crate) mod state;
pub(crate) mod worker;

/// The parts of an input that has several, with lines `%%` between them.
fn split(data: &[u8]) -> Vec<&[u8]> {
    const LINE: &[u8] = b"\n%%\n";
    let mut parts = Vec::new();
    let mut rest = data;
    while let Some(at) = rest.windows(LINE.len()).position(|window| window == LINE) {
        parts.push(&rest[..at]);
        rest = &rest[at + LINE.len()..];
    }
    parts.push(rest);
    parts
}
