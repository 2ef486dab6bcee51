//! Answers of IMDS: first what is asked (`id`, `region`, `identity`, or the block device mapping), then the answers, lines `%%` between
//! them; the first of them is the session token.

use std::time::Duration;

use luks_agent::kms::InstanceIdentity;
use luks_agent::kms::imds::Imds;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use crate::http::{Exchange, Scripted};

/// How long the agent is told to wait for IMDS.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long one request may hang, and the session token's before it.
const HANGS: Duration = Duration::from_secs(5);

pub(crate) fn run(data: &[u8]) -> String {
    thread_local! {
        static RUNTIME: Runtime =
            Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    }
    let mut parts = super::split(data);
    let what = parts.remove(0);
    let http = Scripted::new(&parts);
    fastrand::seed(1);
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let since = Instant::now();
            let imds = Imds::over(http.client(), luks_agent::config::Imds::default()).wait_until(since + PATIENCE);
            match what {
                b"id" | b"region" => {
                    let answer = if what == b"id" { imds.instance_id().await } else { imds.region().await };
                    assert!(
                        since.elapsed() < PATIENCE + HANGS,
                        "it took {:?}: {:#?}",
                        since.elapsed(),
                        http.exchanges()
                    );
                    match &answer {
                        Ok(Some(text)) => {
                            assert_eq!(Some(text), answered(&http).as_ref(), "not what was answered");
                            assert!(!text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'));
                        }
                        Ok(None) => {}
                        Err(error) => says_nothing_of_answers(&error.to_string(), &http),
                    }
                    answer
                        .map_or_else(|error| error.to_string(), |text| format!("{} {}", text.is_some(), text.is_none()))
                }
                b"identity" => match imds.identity_document().await {
                    Ok(found) => {
                        if let Some(InstanceIdentity { document, rsa2048, identity }) = &found {
                            let texts = [&identity.instance_id, &identity.account_id, &identity.image_id];
                            let is_plain =
                                |text: &&String| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
                            assert!(texts.iter().all(is_plain) && document.contains('{'), "{document}");
                            assert!(rsa2048.as_ref().is_none_or(|text| text.is_ascii()));
                        }
                        format!("{:?}", found.map(|found| found.rsa2048.is_some()))
                    }
                    Err(error) => {
                        says_nothing_of_answers(&error.to_string(), &http);
                        error.to_string()
                    }
                },
                _ => match imds.block_device_mapping().await {
                    Ok(mapping) => {
                        for (name, device) in mapping.iter().flatten() {
                            assert!(!name.is_empty() && name.trim() == name && device.trim() == device);
                        }
                        format!("{mapping:?}")
                    }
                    Err(error) => error.to_string(),
                },
            }
        })
    })
}

/// The trimmed body of the last exchange, if that was a good answer in UTF-8.
fn answered(http: &Scripted) -> Option<String> {
    let exchanges = http.exchanges();
    let Exchange { asked, status, body, .. } = exchanges.last()?;
    assert!(
        asked.starts_with("GET ") && status.is_some_and(|status| (200..300).contains(&status)),
        "{asked}: {status:?}"
    );
    Some(std::str::from_utf8(body).ok()?.trim().to_owned())
}

/// Answers can hold tokens and credentials.
fn says_nothing_of_answers(said: &str, http: &Scripted) {
    for Exchange { body, .. } in http.exchanges() {
        let body = String::from_utf8_lossy(&body).trim().to_owned();
        assert!(body.len() < 16 || !said.contains(&body), "an answer is shown: {said}");
    }
}
