//! A report as a table for people.

use std::fmt;

use super::check::Check;
use super::report::Report;
use super::row::Row;
use crate::columns::in_columns;
use crate::disk::Bytes;
use crate::text::escape_controls;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.checks.is_empty() {
            return self.print_checks(f);
        }
        let dash = || "-".to_owned();
        let cells = |row: &Row| {
            [
                row.device.clone().unwrap_or_else(dash),
                row.role.clone(),
                Bytes(row.size).to_string(),
                row.serial.clone().unwrap_or_else(dash),
                row.result.to_string(),
                row.mount_point.as_ref().map_or_else(dash, |at| at.display().to_string()),
                row.mapper.clone().unwrap_or_else(dash),
            ]
            .map(|cell| escape_controls(&cell).into_owned())
        };
        let heading = ["DEVICE", "ROLE", "SIZE", "SERIAL", "RESULT", "MOUNT", "MAPPER"].map(str::to_owned);
        let lines: Vec<_> = std::iter::once(heading).chain(self.rows.iter().map(cells)).collect();
        for (number, line) in in_columns(&lines).iter().enumerate() {
            writeln!(f, "{line}")?;
            let Some(row) = number.checked_sub(1).and_then(|n| self.rows.get(n)) else { continue };
            if let Some(reason) = &row.reason {
                writeln!(f, "    {}", escape_controls(reason))?;
            }
            if let Some(remedy) = &row.remedy {
                writeln!(f, "    -> {}", escape_controls(remedy))?;
            }
            let header = row.header.as_ref().map(ToString::to_string).unwrap_or_default();
            for line in header.lines() {
                writeln!(f, "    {}", escape_controls(line))?;
            }
        }
        writeln!(f, "{}: {}", self.command, escape_controls(&self.summary))
    }
}

impl Report {
    fn print_checks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.checks.iter().map(|check| check.check.len());
        let width = names.chain(["CHECK".len()]).max().unwrap_or(0);
        writeln!(f, "{:width$}  RESULT   EVIDENCE", "CHECK")?;
        for Check { check, result, evidence, remedy, .. } in &self.checks {
            writeln!(f, "{check:width$}  {result:7}  {}", escape_controls(evidence))?;
            if let Some(remedy) = remedy {
                writeln!(f, "    -> {}", escape_controls(remedy))?;
            }
        }
        writeln!(f, "{}: {}", self.command, escape_controls(&self.summary))
    }
}
