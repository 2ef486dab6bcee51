//! Which libcryptsetup the program runs with.

use std::fs;

/// The library as the dynamic linker found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Library {
    /// Its file, with the version of its interface.
    pub file: String,
    /// The release of cryptsetup that it is of, such as `2.6`.
    pub release: (u32, u32),
}

/// Returns the loaded library; `None` if its file does not tell the version.
///
/// libcryptsetup has no function that returns its version.
pub fn library() -> Option<Library> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| of_file(line.rsplit('/').next()?))
}

fn of_file(name: &str) -> Option<Library> {
    let version = name.strip_prefix("libcryptsetup.so.12.")?;
    let interface: u32 = version.split('.').next()?.parse().ok()?;
    // 12.4 is of 2.1, and every release since then has added to the interface
    let minor = interface.checked_sub(3)?;
    Some(Library { file: name.to_owned(), release: (2, minor) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_file_tells_the_release() {
        for (name, release) in [
            ("libcryptsetup.so.12.6.0", Some((2, 3))),
            ("libcryptsetup.so.12.8.0", Some((2, 5))),
            ("libcryptsetup.so.12.11.0", Some((2, 8))),
            ("libcryptsetup.so.12", None),
            ("libcryptsetup.so.13.0.0", None),
            ("libcryptsetup.so", None),
            ("libc.so.6", None),
        ] {
            assert_eq!(of_file(name).map(|library| library.release), release, "{name}");
        }
        assert!(library().is_some_and(|library| library.release >= (2, 3)), "{:?}", library());
    }
}
