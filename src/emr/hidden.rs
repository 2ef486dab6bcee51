//! Where a control passes and data is in clear all the same.

use serde::Serialize;

use super::control::{CONTROLS, ControlVerdict, Verdict};
use super::pointer::Pointer;
use super::surface::{Place, Protection, Surface};

/// Data in clear behind a control that passes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hidden {
    /// Where the data is.
    pub place: Place,
    /// The controls that pass.
    pub controls: Vec<&'static str>,
    /// The place in the document that decides.
    pub at: Pointer,
    /// What is so.
    pub message: String,
}

impl Hidden {
    /// Returns all such places.
    pub(super) fn all(surfaces: &[Surface], verdicts: &[ControlVerdict]) -> Vec<Self> {
        let in_clear = surfaces.iter().filter(|surface| surface.protection == Protection::InClear);
        in_clear.filter_map(|surface| Self::of(surface, verdicts)).collect()
    }

    fn of(surface: &Surface, verdicts: &[ControlVerdict]) -> Option<Self> {
        let passing = CONTROLS
            .iter()
            .zip(verdicts)
            .filter(|(control, found)| found.verdict == Verdict::Pass && control.covers.contains(&surface.place));
        let controls: Vec<&'static str> = passing.map(|(control, _)| control.id).collect();
        if controls.is_empty() {
            return None;
        }
        let (names, verb) = (controls.join(", "), if controls.len() == 1 { "passes" } else { "pass" });
        let message = format!("{} in clear although {names} {verb}: {}", surface.title(), surface.reason);
        Some(Self { place: surface.place, controls, at: surface.at.clone(), message })
    }
}
