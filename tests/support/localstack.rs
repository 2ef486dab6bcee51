//! Where `scripts/deps.sh localstack` put LocalStack and the AWS CLI.

use std::path::PathBuf;
use std::process::Command;

/// LocalStack's virtual environment; the AWS CLI is in it too.
#[derive(Debug)]
pub struct LocalStack {
    venv: PathBuf,
}

impl LocalStack {
    /// Finds it.
    ///
    /// # Panics
    /// When it is not installed, naming what installs it.
    pub fn find() -> Self {
        let script = super::project_dir().join("scripts/deps.sh");
        let output = Command::new(&script)
            .arg("--localstack-dir")
            .output()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", script.display()));
        assert!(
            output.status.success(),
            "{} --localstack-dir: {}: {}",
            script.display(),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        let venv = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end());
        assert!(
            venv.join("complete").exists(),
            "no LocalStack in {}: run `scripts/deps.sh localstack`",
            venv.display()
        );
        Self { venv }
    }

    /// The directory of the virtual environment.
    pub fn venv(&self) -> String {
        self.venv.to_str().unwrap().to_owned()
    }

    /// The AWS CLI.
    pub fn aws_cli(&self) -> String {
        self.venv.join("bin/aws").to_str().unwrap().to_owned()
    }
}
