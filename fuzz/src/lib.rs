//! Fuzz targets: everything that reads what another program, another machine or a disk wrote. Each asserts more than that
//! nothing panics. Inputs are texts wherever that is possible, so that seeds can be read and written by hand; `fuzz/seeds`
//! has those of each target, and every input that ever found something.
#![forbid(unsafe_code)]

pub mod http;
pub mod json;
mod targets;

use std::sync::OnceLock;

/// The environment variable that names the target.
pub const TARGET: &str = "FUZZ_TARGET";

/// Takes an input, panics when something is wrong, and says in a few words what came of it.
type Target = fn(&[u8]) -> String;

/// All targets, by name.
pub const TARGETS: [(&str, Target); 13] = [
    ("answers", targets::answers::run),
    ("audit", targets::audit::run),
    ("certificates", targets::certificates::run),
    ("config", targets::config::run),
    ("disk", targets::disk::run),
    ("emr", targets::emr::run),
    ("envelope", targets::envelope::run),
    ("exec", targets::exec::run),
    ("header", targets::header::run),
    ("imds", targets::imds::run),
    ("kms", targets::kms::run),
    ("state", targets::state::run),
    ("worker", targets::worker::run),
];

/// Runs one input through the target that the environment names; returns the kind of outcome: what came of it, without what
/// is different for each input.
///
/// # Panics
/// When the target finds something wrong, or there is no such target.
pub fn run(data: &[u8]) -> String {
    static CHOSEN: OnceLock<Target> = OnceLock::new();
    let target = CHOSEN.get_or_init(|| {
        let name = std::env::var(TARGET).unwrap_or_default();
        let found = TARGETS.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("{TARGET}={name}: expected one of {:?}", TARGETS.map(|(name, _)| name))).1
    });
    let said = target(data);
    // numbers, and what is quoted
    said.split(['\'', '`', '"']).step_by(2).flat_map(str::chars).filter(|c| c.is_ascii_alphabetic()).take(60).collect()
}
