//! The configuration file and its drop-ins, which lines `%%` keep apart.

use std::cell::LazyCell;
use std::fs;
use std::path::{Component, Path};

use luks_agent::config::{Config, ConfigError, crosses_in_clear};
use luks_agent::key::Provider;
use tempfile::TempDir;

thread_local! {
    static DIR: LazyCell<TempDir> = LazyCell::new(|| tempfile::tempdir().expect("a temporary directory"));
}

pub(crate) fn run(data: &[u8]) -> String {
    DIR.with(|dir| check(dir.path(), data))
}

fn check(dir: &Path, data: &[u8]) -> String {
    let main = dir.join("config.toml");
    let drop_ins = dir.join("config.d");
    let _ = fs::remove_dir_all(&drop_ins);
    fs::create_dir(&drop_ins).expect("config.d");
    let mut files = Vec::new();
    for (i, text) in super::split(data).into_iter().enumerate() {
        let path = if i == 0 { main.clone() } else { drop_ins.join(format!("{i:02}.toml")) };
        fs::write(&path, text).expect("a file");
        files.push((path, text));
    }

    let loaded = Config::load(&main);
    let again = Config::load(&main);
    assert_eq!(format!("{loaded:?}"), format!("{again:?}"), "not the same twice");
    match loaded {
        Ok(config) => {
            valid(&config);
            format!("{config:?}")
        }
        Err(ConfigError::Invalid { path, line, message }) => {
            let (_, text) = files.iter().find(|(file, _)| *file == path).expect("one of the files");
            let lines = text.split(|b| *b == b'\n').count();
            assert!((1..=lines).contains(&line), "line {line} of {lines}: {message}");
            assert!(!message.trim().is_empty());
            message
        }
        Err(ConfigError::Required { path, key, expected: _ }) => {
            assert!(path == main && ["kms.key_id", "exec.command", "exec.key_id"].contains(&key), "{key}");
            "no key".to_owned()
        }
        Err(ConfigError::InClear { path, url }) => {
            assert!(path == main && crosses_in_clear(&url), "{url}");
            "in clear".to_owned()
        }
        Err(ConfigError::TwoEndpoints { path, key }) => {
            assert!(path == main && ["kms.fips", "kms.dual_stack"].contains(&key), "{key}");
            "two endpoints".to_owned()
        }
        Err(ConfigError::Read { path, source }) => {
            match files.iter().find(|(file, _)| *file == path) {
                Some((_, text)) => assert!(std::str::from_utf8(text).is_err(), "{source}"),
                // the file of [emr], whatever name the input gives it
                None => assert!(path.is_absolute()),
            }
            "not UTF-8".to_owned()
        }
        Err(ConfigError::SecurityConfiguration { path, message }) => {
            assert!(path.is_absolute() && !message.is_empty());
            message
        }
        Err(ConfigError::Permissions { path, .. }) if path.is_absolute() && !path.starts_with(dir) => {
            "permissions".to_owned()
        }
        Err(error @ (ConfigError::Missing { .. } | ConfigError::Permissions { .. })) => panic!("{error}"),
    }
}

/// What the rest of the program relies on.
fn valid(config: &Config) {
    let in_clear = config.kms.endpoint_url.iter().any(|url| crosses_in_clear(url));
    assert!(config.kms.allow_http || !in_clear);
    let chosen = [config.kms.fips, config.kms.dual_stack].contains(&Some(true));
    assert!(config.kms.endpoint_url.is_none() || !chosen);
    let plain = |path: &Path| path.is_absolute() && path.components().all(|c| c != Component::ParentDir);
    assert!(!config.keys.key_id.trim().is_empty());
    let key_id = match config.keys.provider {
        Provider::AwsKms => config.kms.key_id.as_ref(),
        Provider::Exec => config.exec.as_ref().map(|exec| &exec.key_id),
    };
    assert_eq!(key_id, Some(&config.keys.key_id));
    if let Some(exec) = &config.exec {
        assert!(plain(&exec.program) && !exec.deadline.is_zero() && !exec.timeout.is_zero());
        assert!(exec.arguments.iter().all(|argument| !argument.contains('\0')));
        assert!(exec.pass_environment.iter().all(|name| !name.is_empty() && !name.contains(['=', '\0'])));
    }
    assert!(!config.kms.deadline.is_zero() && !config.volumes.deadline.is_zero());
    assert!(plain(&config.state.dir));
    assert!(plain(&config.filesystem.mount_base) && config.filesystem.mount_base.file_name().is_some());
    assert!([256, 512].contains(&config.luks.key_size));
    assert!(config.luks.sector_size.is_none_or(|size| [512, 1024, 2048, 4096].contains(&size)));
    for option in &config.filesystem.options {
        assert!(!option.is_empty() && !option.contains(',') && !option.contains(char::is_whitespace));
    }
}
