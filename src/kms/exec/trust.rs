//! Which program may be run: one that only root could have written.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::super::class::Class;
use super::super::failure::Failure;
use crate::permissions::objection;

/// Returns the program behind all symbolic links, after checking that no other user could replace it.
///
/// The directories of both the configured path and the program itself count. In a sticky directory such as `/tmp`, other users
/// cannot replace a file of root.
pub(super) fn trusted(program: &Path) -> Result<PathBuf, Failure> {
    let unreadable = |path: &Path, error: std::io::Error| {
        refused(format!("cannot use '{}': {error}", path.display()))
            .with_remedy("correct exec.command, or install the program")
    };
    let real = fs::canonicalize(program).map_err(|e| unreadable(program, e))?;
    let metadata = fs::metadata(&real).map_err(|e| unreadable(&real, e))?;
    if !metadata.is_file() || metadata.mode() & 0o111 == 0 {
        return Err(refused(format!("'{}' is not an executable file", real.display()))
            .with_remedy(format!("correct exec.command, or run 'chmod u+x {}'", real.display())));
    }
    let owner = nix::unistd::geteuid().as_raw();
    let directories = program.ancestors().skip(1).chain(real.ancestors().skip(1));
    for path in directories.chain([real.as_path()]) {
        let metadata = fs::metadata(path).map_err(|e| unreadable(path, e))?;
        let is_sticky = metadata.is_dir() && metadata.mode() & 0o1000 != 0;
        if let Some(reason) = objection(&metadata, owner).filter(|_| !is_sticky) {
            let path = path.display();
            return Err(refused(format!("other users could change the program: {path} {reason}")).with_remedy(
                format!("find out who changed it, then run 'chown {owner} {path}' and 'chmod go-w {path}'"),
            ));
        }
    }
    Ok(real)
}

fn refused(what: String) -> Failure {
    Failure::new(Class::Configuration, format!("exec.command: {what}"))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_program_that_others_could_have_written_is_not_run() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let (bin, link) = (dir.join("bin"), dir.join("link"));
        let program = bin.join("program");
        fs::create_dir(&bin).unwrap();
        fs::write(&program, "#!/bin/sh\n").unwrap();
        symlink(&program, &link).unwrap();
        set_mode(&program, 0o700);
        let refused = |path: &Path| trusted(path).unwrap_err().to_string();
        assert_eq!((trusted(&program).unwrap(), trusted(&link).unwrap()), (program.clone(), program.clone()));

        set_mode(&program, 0o722);
        assert!(refused(&link).contains("bin/program has mode 0722"), "{}", refused(&link));
        set_mode(&program, 0o600);
        assert!(refused(&program).contains("is not an executable file"));
        set_mode(&program, 0o700);
        // whoever can write to the directory can put another program there, wherever the configured path leads
        set_mode(&bin, 0o777);
        assert!(refused(&link).contains("bin has mode 0777"));
        set_mode(&bin, 0o1777);
        assert!(trusted(&link).is_ok());
        set_mode(&bin, 0o700);
        set_mode(&dir, 0o770);
        assert!(refused(&link).contains("has mode 0770"));
        set_mode(&dir, 0o700);
        assert!(refused(&bin).contains("is not an executable file"));
        assert!(refused(&dir.join("none")).contains("No such file"));
        assert_eq!(trusted(&dir.join("none")).unwrap_err().class, Class::Configuration);
    }
}
