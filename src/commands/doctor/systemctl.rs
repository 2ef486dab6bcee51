//! What systemd knows about units.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// How long systemd may take to answer. While a node boots, which is when it is asked, it has much else to do.
const PATIENCE: Duration = Duration::from_secs(30);
/// The properties that the checks read.
const PROPERTIES: &str =
    "--property=Id,LoadState,UnitFileState,After,RequiresMountsFor,WorkingDirectory,ReadWritePaths,ExecStart";

/// The units of the machine, by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Units(BTreeMap<String, BTreeMap<String, String>>);

impl Units {
    /// Asks systemd about all loaded units and about `names`.
    ///
    /// # Errors
    /// Why it does not answer, in words.
    pub(super) async fn ask(names: &[&str]) -> Result<Self, String> {
        if !Path::new("/run/systemd/system").exists() {
            return Err("systemd does not run here".to_owned());
        }
        let systemctl = Command::new("systemctl")
            .args(["show", PROPERTIES, "--", "*"])
            .args(names)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .output();
        match timeout(PATIENCE, systemctl).await {
            Ok(Ok(output)) if output.status.success() => Ok(Self::parse(&String::from_utf8_lossy(&output.stdout))),
            Ok(Ok(output)) => {
                Err(String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned())
            }
            Ok(Err(e)) => Err(format!("cannot run systemctl: {e}")),
            Err(_) => Err("systemctl did not finish in time".to_owned()),
        }
    }

    /// Reads the output of `systemctl show`: a block of `NAME=VALUE` for each unit, with an empty line between two.
    pub(super) fn parse(text: &str) -> Self {
        let mut units: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for block in text.split("\n\n") {
            let mut unit: BTreeMap<String, String> = BTreeMap::new();
            for (name, value) in block.lines().filter_map(|line| line.split_once('=')) {
                // a property such as ExecStart has a line for each of its values
                let values = unit.entry(name.to_owned()).or_default();
                if !values.is_empty() {
                    values.push(' ');
                }
                values.push_str(value);
            }
            if let Some(id) = unit.get("Id").cloned() {
                units.insert(id, unit);
            }
        }
        Self(units)
    }

    /// Returns a property of a unit; empty if the unit does not have it.
    pub(super) fn property(&self, unit: &str, name: &str) -> &str {
        self.0.get(unit).and_then(|unit| unit.get(name)).map(String::as_str).unwrap_or_default()
    }

    /// Returns the names of all units.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}
