//! Mutations that know JSON: random bytes would hardly ever get past its parser.

use serde_json::{Map, Value, json};

/// libFuzzer's custom mutator: changes a JSON value somewhere in the text, or leaves it to `bytewise`, libFuzzer's own. It
/// returns the new size; the same seed makes the same change.
pub fn mutate(
    data: &mut [u8],
    size: usize,
    max_size: usize,
    seed: u32,
    bytewise: fn(&mut [u8], usize, usize) -> usize,
) -> usize {
    let mut rng = fastrand::Rng::with_seed(seed.into());
    if rng.u8(..8) < 5
        && let Some(changed) = with_changed_value(&data[..size], &mut rng)
        && changed.len() <= max_size
    {
        data[..changed.len()].copy_from_slice(&changed);
        return changed.len();
    }
    bytewise(data, size, max_size)
}

/// The text with one of the JSON objects and arrays in it changed; `None` if there is none.
fn with_changed_value(text: &[u8], rng: &mut fastrand::Rng) -> Option<Vec<u8>> {
    let mut starts: Vec<usize> = (0..text.len()).filter(|i| matches!(text[*i], b'{' | b'[')).collect();
    // the outermost is the one that matters, unless there are several texts in one
    if rng.bool() {
        rng.shuffle(&mut starts);
    }
    starts.into_iter().take(4).find_map(|start| {
        let mut values = serde_json::Deserializer::from_slice(&text[start..]).into_iter::<Value>();
        let mut value = values.next()?.ok()?;
        let end = start + values.byte_offset();
        for _ in 0..rng.usize(1..4) {
            change(&mut value, rng);
        }
        Some([&text[..start], &serde_json::to_vec(&value).ok()?, &text[end..]].concat())
    })
}

/// Pointers to a value and all below it.
fn pointers(value: &Value) -> Vec<String> {
    let mut found = vec![String::new()];
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    let children: Vec<(String, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(key, child)| (escaped(key), child)).collect(),
        Value::Array(list) => list.iter().enumerate().map(|(i, child)| (i.to_string(), child)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => vec![],
    };
    for (key, child) in children {
        found.extend(pointers(child).into_iter().map(|below| format!("/{key}{below}")));
    }
    found
}

fn change(root: &mut Value, rng: &mut fastrand::Rng) {
    let places = pointers(root);
    let (Some(place), Some(other)) = (rng.choice(&places), rng.choice(&places)) else { return };
    let copy = root.pointer(other).cloned().unwrap_or_default();
    let names: Vec<&str> = places.iter().filter_map(|p| p.rsplit('/').next()).collect();
    let name = rng.choice(names).unwrap_or_default().to_owned();
    let Some(value) = root.pointer_mut(place) else { return };
    match rng.u8(..8) {
        0 => *value = copy,
        1 => *value = any(rng),
        _ => match value {
            Value::Object(map) => change_object(map, name, copy, rng),
            Value::Array(list) => match (rng.u8(..3), list.len()) {
                (0, 1..) => drop(list.remove(rng.usize(..list.len()))),
                (1, 1..) => list.push(list[rng.usize(..list.len())].clone()),
                _ => list.push(copy),
            },
            Value::String(text) => *text = changed_text(text, rng),
            Value::Number(number) => {
                let n = number.as_i64().unwrap_or_default();
                *value = match rng.u8(..4) {
                    0 => json!(n.wrapping_add(1)),
                    1 => json!(n.wrapping_sub(1)),
                    2 => json!(n ^ (1 << rng.u8(..63))),
                    _ => json!(n.to_string()),
                };
            }
            Value::Bool(on) => *on = !*on,
            Value::Null => *value = copy,
        },
    }
}

fn change_object(map: &mut Map<String, Value>, name: String, copy: Value, rng: &mut fastrand::Rng) {
    let keys: Vec<String> = map.keys().cloned().collect();
    let own = rng.choice(keys);
    match (rng.u8(..4), own) {
        (0, Some(own)) => drop(map.remove(&own)),
        (1, Some(own)) => {
            let moved = map.remove(&own).unwrap_or_default();
            map.insert(changed_text(&own, rng), moved);
        }
        (2, Some(own)) => {
            let twin = map[&own].clone();
            map.insert(changed_text(&own, rng), twin);
        }
        _ => drop(map.insert(name, copy)),
    }
}

fn any(rng: &mut fastrand::Rng) -> Value {
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(u64::MAX),
        json!(1.5),
        json!(""),
        json!("0"),
        json!([]),
        json!({}),
        json!("\u{1b}[2J\n\0"),
        json!("a".repeat(10_000)),
    ];
    rng.choice(values).unwrap_or_default()
}

fn changed_text(text: &str, rng: &mut fastrand::Rng) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    let at = rng.usize(..=chars.len());
    match (rng.u8(..6), at < chars.len()) {
        (0, true) => drop(chars.remove(at)),
        (1, true) => chars[at] = rng.choice(['0', '1', 'A', '/', '-', ' ', '\0', 'é']).unwrap_or_default(),
        (2, true) => chars.truncate(at),
        (3, true) => chars[at] = char::from(u8::try_from(chars[at]).unwrap_or_default().wrapping_add(1) & 0x7f),
        (4, _) => return text.repeat(2),
        _ => chars.insert(at, rng.choice(['0', '1', 'x', '"', '\\', '\n']).unwrap_or_default()),
    }
    chars.into_iter().collect()
}
