//! The areas on the disk that hold the key material of keyslots.

use std::ops::Range;

use serde_json::Value;

use super::layout::DATA_OFFSET;
use super::violation::{PolicyViolation, shown, violation};

/// The size in bytes of the binary part of each header copy. `json_size` does not include it (LUKS2 on-disk format, section 2).
const BINARY_HEADER: u64 = 4096;
/// How many times the anti-forensic splitter writes a volume key to a keyslot's area (LUKS2 on-disk format, section 3.2.2).
const STRIPES: u64 = 4000;

/// The area of a keyslot on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyslotArea {
    /// Number of the keyslot.
    pub(crate) number: u32,
    /// Its byte offsets.
    pub(crate) bytes: Range<u64>,
}

/// Returns the areas of all keyslots in the order of the disk.
///
/// They lie between both copies of the metadata and the data, and do not overlap (LUKS2 on-disk format, sections 3.2.1 and 3.6).
///
/// # Errors
/// Names the first area for which that is not so.
pub(crate) fn keyslot_areas(metadata: &Value) -> Result<Vec<KeyslotArea>, PolicyViolation> {
    let number = |value: Option<&Value>| value.and_then(Value::as_str).and_then(|text| text.parse::<u64>().ok());
    let config = |name: &str| metadata.pointer(&format!("/config/{name}"));
    let bounds = || {
        let json_size = number(config("json_size"))?;
        let begin = json_size.checked_add(BINARY_HEADER)?.checked_mul(2)?;
        let end = begin.checked_add(number(config("keyslots_size"))?)?;
        (begin <= end && end <= DATA_OFFSET).then_some(begin..end)
    };
    let Some(bounds) = bounds() else {
        return violation(format!(
            "its metadata ({} bytes) and keyslots ({} bytes) do not fit before the data",
            shown(config("json_size")),
            shown(config("keyslots_size"))
        ));
    };
    let mut areas: Vec<KeyslotArea> = Vec::new();
    for (id, keyslot) in metadata.get("keyslots").and_then(Value::as_object).into_iter().flatten() {
        let (offset, size) = (keyslot.pointer("/area/offset"), keyslot.pointer("/area/size"));
        let area = || {
            let begin = number(offset)?;
            let area = begin..begin.checked_add(number(size)?)?;
            let needed = keyslot.get("key_size")?.as_u64()?.checked_mul(STRIPES)?;
            let fits = bounds.start <= area.start && area.end <= bounds.end && area.end - area.start >= needed;
            fits.then_some(area)
        };
        let Some(area) = area() else {
            return violation(format!(
                "the area of keyslot {}, {} bytes at byte {}, is too small for its key or does not lie between byte {} and byte {}",
                id.escape_debug(),
                shown(size),
                shown(offset),
                bounds.start,
                bounds.end
            ));
        };
        let Ok(number) = id.parse() else {
            return violation(format!("invalid keyslot number '{}'", id.escape_debug()));
        };
        areas.push(KeyslotArea { number, bytes: area });
    }
    areas.sort_by_key(|area| area.bytes.start);
    match areas.windows(2).find(|pair| pair[0].bytes.end > pair[1].bytes.start) {
        Some(pair) => violation(format!("the areas of keyslots {} and {} overlap", pair[0].number, pair[1].number)),
        None => Ok(areas),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Returns the metadata of a header with one keyslot, with only the fields that matter for areas.
    fn header() -> Value {
        json!({
            "keyslots": {"0": {"type": "luks2", "key_size": 64, "area": {"offset": "32768", "size": "258048"}}},
            "config": {"json_size": "12288", "keyslots_size": "16744448"},
        })
    }

    #[test]
    fn keyslots_lie_between_the_metadata_and_the_data_and_not_in_one_place() {
        let area = |offset: &str, size: &str| json!({"key_size": 64, "area": {"offset": offset, "size": size}});
        let of = |keyslots: Value| {
            let mut metadata = header();
            metadata["keyslots"] = keyslots;
            keyslot_areas(&metadata).map_err(|e| match e {
                PolicyViolation::Changed(why) => why,
                PolicyViolation::OtherVolumeKey => unreachable!("it knows no volume key"),
            })
        };
        assert_eq!(of(json!({})), Ok(vec![]));
        let two = json!({"0": area("290816", "258048"), "7": area("32768", "258048")});
        let found = |number, bytes| KeyslotArea { number, bytes };
        assert_eq!(of(two), Ok(vec![found(7, 32_768..290_816), found(0, 290_816..548_864)]));
        let last = found(0, 16_519_168..16_777_216);
        assert_eq!(of(json!({"0": area("16519168", "258048")})), Ok(vec![last]));
        assert_eq!(of(json!({"x": area("32768", "258048")})), Err("invalid keyslot number 'x'".to_owned()));
        for (offset, size) in [
            ("0", "258048"),
            ("28672", "258048"),
            ("16523264", "258048"),
            ("16777216", "258048"),
            ("32768", "255999"),
            ("32768", "0"),
            ("32768", "16748544"),
            ("32768", "18446744073709551615"),
            ("18446744073709551615", "258048"),
            ("-1", "258048"),
            ("", "258048"),
        ] {
            let refused = of(json!({"0": area(offset, size)})).unwrap_err();
            assert!(refused.starts_with("the area of keyslot 0, "), "{offset} {size}: {refused}");
        }
        let overlapping = json!({"0": area("32768", "258048"), "1": area("290815", "258048")});
        assert_eq!(of(overlapping), Err("the areas of keyslots 0 and 1 overlap".to_owned()));

        for (json_size, keyslots_size) in [
            ("12288", "16744449"),
            ("16777216", "0"),
            ("18446744073709551615", "0"),
            ("12288", "18446744073709551615"),
            ("12288", "-1"),
            // the area of its keyslot then overlaps the metadata, or lies behind the keyslots area
            ("28672", "16711680"),
            ("12288", "131072"),
        ] {
            let mut metadata = header();
            metadata["config"]["json_size"] = json!(json_size);
            metadata["config"]["keyslots_size"] = json!(keyslots_size);
            assert!(keyslot_areas(&metadata).is_err(), "{json_size} {keyslots_size}");
        }
    }
}
