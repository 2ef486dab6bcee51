use serde_json::{Value, json};

use super::*;

/// Base64 of 32 bytes, with a slash in it.
const KEY: &str = "UXo3I21hcmtlci9RejcjbWFya2VyL1F6NyNtYXJrZXI=";
const NAME: &str = "transit/nodes";

fn source() -> KeySource {
    let wrapped_key = WrappedKey::new(b"wrapped".to_vec()).unwrap();
    KeySource { provider: Provider::Exec, wrapped_key, key_arn: NAME.to_owned() }
}

fn line(request: Request<'_>) -> Value {
    let line = request.to_line();
    assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
    serde_json::from_slice(line.strip_suffix(b"\n").unwrap()).unwrap()
}

#[test]
fn requests_are_one_line_each_and_hold_no_key() {
    assert_eq!(
        line(Request::Generate(NAME)),
        json!({"version": 1, "operation": "generate", "key_id": NAME, "key_bytes": 32})
    );
    let source = source();
    let with = |operation| json!({"version": 1, "operation": operation, "key_id": NAME, "wrapped_key": "d3JhcHBlZA=="});
    assert_eq!(line(Request::Unwrap(&source)), with("unwrap"));
    assert_eq!(line(Request::Describe(&source)), with("describe"));
}

#[test]
fn an_answer_gives_the_key_and_the_name_of_what_wrapped_it() {
    let answer = |more: &str| format!("{{\"plaintext\": \"{KEY}\", \"wrapped_key\": \"d3JhcHBlZA==\"{more}}}\n");
    let named = answer(", \"key_id\": \"transit/nodes:v3\", \"unknown\": {\"a\": [1]}");
    let key = read_generated(named.as_bytes(), NAME).unwrap();
    assert_eq!((key.provider, key.key_arn.as_str()), (Provider::Exec, "transit/nodes:v3"));
    assert_eq!(
        (key.wrapped_key.as_bytes(), key.data_key.passphrase().expose()),
        (b"wrapped".as_slice(), KEY.as_bytes())
    );
    assert_eq!(read_generated(answer("").as_bytes(), NAME).unwrap().key_arn, NAME);

    for unwrapped in [format!("{{\"plaintext\":\"{KEY}\"}}"), answer(&format!(", \"key_id\": \"{NAME}\""))] {
        // as json-c and others write it
        for text in [unwrapped.clone(), unwrapped.replace('/', "\\/")] {
            assert_eq!(read_unwrapped(text.as_bytes(), NAME).unwrap().passphrase().expose(), KEY.as_bytes(), "{text}");
        }
    }
}

#[test]
fn a_bad_answer_is_refused_and_nothing_of_it_is_shown() {
    let with = |plaintext: &str, wrapped: &str| json!({"plaintext": plaintext, "wrapped_key": wrapped}).to_string();
    let long = STANDARD.encode([7; 2049]);
    let raw_in_clear = STANDARD.encode([b"x".as_slice(), &STANDARD.decode(KEY).unwrap(), b"y"].concat());
    let text_in_clear = STANDARD.encode(format!("vault:{KEY}"));
    for (answer, says) in [
        (String::new(), "it is empty"),
        (" \n\t".to_owned(), "it is empty"),
        (KEY.to_owned(), "it is not a JSON object"),
        (format!("\"{KEY}\""), "with the fields of the protocol"),
        (format!("[\"{KEY}\"]"), "with the fields of the protocol"),
        (format!("{{\"plaintext\": \"{KEY}"), "ends in the middle"),
        (format!("{} trailing", with(KEY, "AQID")), "something stands beside"),
        (format!("log line\n{}", with(KEY, "AQID")), "it is not a JSON object"),
        (format!("{{\"plaintext\": \"{KEY}\", \"wrapped_key\": {{\"{KEY}\": 1}}}}"), "with the fields of the protocol"),
        (format!("{{\"plaintext\": \"{KEY}\", \"plaintext\": \"{KEY}\"}}"), "with the fields of the protocol"),
        (format!("{{\"plaintext\": [\"{KEY}\"], \"wrapped_key\": \"AQID\"}}"), "plaintext is not a string"),
        (format!("{{\"plaintext\": \"{KEY}\\n\", \"wrapped_key\": \"AQID\"}}"), "plaintext is not base64"),
        ("{}".to_owned(), "it has no plaintext"),
        ("{\"plaintext\": null}".to_owned(), "it has no plaintext"),
        (with("", "AQID"), "the data key has 0 bytes, expected 32"),
        (with(&STANDARD.encode([1; 31]), "AQID"), "the data key has 31 bytes, expected 32"),
        (with(&STANDARD.encode([1; 33]), "AQID"), "the data key has 33 bytes, expected 32"),
        (with(&"00".repeat(32), "AQID"), "the data key has 48 bytes, expected 32"),
        (with("no base64 at all", "AQID"), "plaintext is not base64"),
        (format!("{{\"plaintext\": \"{KEY}\"}}"), "it has no wrapped_key"),
        (with(KEY, ""), "wrapped_key has 0 bytes"),
        (with(KEY, "not base64"), "wrapped_key is not base64"),
        (with(KEY, &long), "wrapped_key has 2049 bytes, expected 1 to 2048"),
        (with(KEY, KEY), "contains the data key in clear"),
        (with(KEY, &raw_in_clear), "contains the data key in clear"),
        (with(KEY, &text_in_clear), "contains the data key in clear"),
        (format!("{{\"plaintext\": \"{KEY}\", \"wrapped_key\": \"AQID\", \"key_id\": \"\"}}"), "key_id is not a name"),
        (
            format!("{{\"plaintext\": \"{KEY}\", \"wrapped_key\": \"AQID\", \"key_id\": \"a\\nb\"}}"),
            "key_id is not a name",
        ),
    ] {
        let error = format!("{:?}", read_generated(answer.as_bytes(), NAME).unwrap_err());
        assert!(error.contains(says), "{answer}: {error}");
        assert!(!error.contains(&KEY[..16]), "{error}");
    }
    let other = json!({"plaintext": KEY, "key_id": "other"}).to_string();
    let error = read_unwrapped(other.as_bytes(), NAME).unwrap_err();
    assert_eq!(error, AnswerError::Refused("it is from another key, other".to_owned()));
    assert!(read_unwrapped(b"{\"plaintext\": \"\xff\"}", NAME).is_err());
}

#[test]
fn a_reported_error_counts_whatever_stands_beside_it() {
    for (kind, class) in [
        (ErrorKind::Unavailable, Class::Transient),
        (ErrorKind::Denied, Class::Denied),
        (ErrorKind::KeyDisabled, Class::KeyState),
        (ErrorKind::WrappedKey, Class::WrappedKey),
        (ErrorKind::Configuration, Class::Configuration),
        (ErrorKind::Unsupported, Class::Configuration),
    ] {
        let message = format!("no\nway, {}.", "x".repeat(900));
        let answer = json!({"plaintext": KEY, "error": {"kind": kind.name(), "message": message}}).to_string();
        let Err(AnswerError::Reported { kind: read, message }) = read_unwrapped(answer.as_bytes(), NAME) else {
            panic!("{answer}")
        };
        assert_eq!((read, read.class()), (kind, class));
        assert!(message.starts_with("no way, xxx") && message.len() == MESSAGE_MAX + 3, "{message}");
        assert!(
            include_str!("../../../../docs/exec-provider.md").contains(&format!("| `{}` |", kind.name())),
            "{kind:?}"
        );
    }
    let unknown = read_unwrapped(b"{\"error\": {\"kind\": \"tired\"}}", NAME).unwrap_err();
    assert!(matches!(unknown, AnswerError::Garbled(_)), "{unknown:?}");
}

#[test]
fn a_description_has_a_state_or_is_not_supported() {
    let read = |answer: Value| read_described(answer.to_string().as_bytes());
    let known = |name: &str, enabled| {
        Ok(Description::Known { state: KeyState { name: name.to_owned(), deletion: None }, enabled })
    };
    assert_eq!(read(json!({"enabled": true, "state": "Active"})), known("Active", true));
    assert_eq!(read(json!({"enabled": true})), known("enabled", true));
    assert_eq!(read(json!({"enabled": false, "state": " "})), known("disabled", false));
    assert_eq!(read(json!({"error": {"kind": "unsupported", "message": "no"}})), Ok(Description::Unsupported));
    assert!(matches!(read(json!({"error": {"kind": "denied"}})), Err(AnswerError::Reported { .. })));
    // silence is not consent
    assert!(read(json!({"state": "Active"})).is_err());
}
