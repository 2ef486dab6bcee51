//! Values that are checked during parsing, so that an error can name the line.

use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

/// Defines a type whose values are checked during parsing.
macro_rules! checked {
    ($name:ident($inner:ty) from $raw:ty, $check:expr) => {
        #[derive(Debug)]
        pub(super) struct $name(pub(super) $inner);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let check: fn($raw) -> Result<$inner, String> = $check;
                check(<$raw>::deserialize(deserializer)?).map(Self).map_err(de::Error::custom)
            }
        }
    };
}

checked!(NonEmpty(String) from String, |text| match text.trim() {
    "" => Err("must not be empty".to_owned()),
    trimmed => Ok(trimmed.to_owned()),
});
checked!(Url(String) from String, |text| {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match host {
        Some(host) if !host.is_empty() && !host.contains(char::is_whitespace) => Ok(text),
        Some(_) | None => Err(format!("invalid endpoint URL '{text}', expected http:// or https:// and a host")),
    }
});
checked!(CommandLine(Vec<String>) from Vec<String>, |words| {
    let is_path = words.first().is_some_and(|program| {
        let path = Path::new(program);
        path.is_absolute() && path.file_name().is_some() && !path.components().any(|c| c == Component::ParentDir)
    });
    if !is_path {
        let program = words.first().map_or("", String::as_str);
        return Err(format!("invalid program '{program}', expected an absolute path without '..', and arguments after it"));
    }
    match words.iter().any(|word| word.contains('\0')) {
        true => Err("an argument must not contain a NUL character".to_owned()),
        false => Ok(words),
    }
});
checked!(Variable(String) from String, |name| {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.starts_with(|c: char| is_name(c) && !c.is_ascii_digit()) && name.chars().all(is_name) {
        Ok(name)
    } else {
        Err(format!("invalid name of an environment variable '{name}', expected letters, digits and underscores"))
    }
});
checked!(Span(Duration) from String, |text| {
    let problem = || format!("invalid duration '{text}', expected a positive time such as \"90s\", \"10m\" or \"1h\"");
    let span: jiff::SignedDuration = text.parse().map_err(|_| problem())?;
    let span = Duration::try_from(span).map_err(|_| problem())?;
    if span.is_zero() { Err(problem()) } else { Ok(span) }
});
checked!(AuditInterval(Duration) from Span, |Span(span)| {
    // an audit reads blocks of every volume, for up to a minute
    if span >= Duration::from_secs(60) {
        Ok(span)
    } else {
        Err(format!("invalid interval {span:?}, expected at least a minute, such as \"24h\""))
    }
});
checked!(AbsolutePath(PathBuf) from PathBuf, |path| {
    let parent = path.components().any(|c| c == Component::ParentDir);
    if path.is_absolute() && !parent {
        Ok(normalised(&path))
    } else {
        Err(format!("invalid path '{}', expected an absolute path without '..'", path.display()))
    }
});
checked!(MountBase(PathBuf) from PathBuf, |path| {
    if path.is_absolute() && path.file_name().is_some() && !path.components().any(|c| c == Component::ParentDir) {
        Ok(normalised(&path))
    } else {
        Err(format!("invalid mount point '{}', expected an absolute path below / such as \"/mnt\"", path.display()))
    }
});
checked!(MountOption(String) from String, |text| {
    if text.is_empty() || text.contains(|c: char| c == ',' || c.is_whitespace()) {
        Err(format!("invalid mount option '{text}', expected one option per string, such as \"noatime\""))
    } else {
        Ok(text)
    }
});
checked!(KeySize(u32) from u32, |bits| match bits {
    256 | 512 => Ok(bits),
    _ => Err(format!("invalid key size {bits}, expected 256 or 512 bits")),
});
checked!(SectorSize(u32) from u32, |bytes| match bytes {
    512 | 1024 | 2048 | 4096 => Ok(bytes),
    _ => Err(format!("invalid sector size {bytes}, expected 512, 1024, 2048 or 4096 bytes")),
});

/// Returns whether data sent to an endpoint can be read on the way.
///
/// That is so unless the endpoint is `https://`, loopback, or link-local, which no router forwards. A host name can
/// resolve to any address, except `localhost`.
pub fn crosses_in_clear(url: &str) -> bool {
    let Ok(url) = url.parse::<hyper::Uri>() else { return true };
    if url.scheme_str().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")) {
        return false;
    }
    let host = url.host().unwrap_or_default();
    let is_near = match host.trim_start_matches('[').trim_end_matches(']').parse() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
        Ok(IpAddr::V6(address)) => address.is_loopback() || address.is_unicast_link_local(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    };
    !is_near
}

/// Removes `.`, double slashes and a trailing slash.
///
/// Other code compares paths as text and appends numbers to them.
fn normalised(path: &Path) -> PathBuf {
    path.components().collect()
}
