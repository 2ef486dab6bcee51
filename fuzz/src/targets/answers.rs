//! What the parent makes of a worker's standard output.

use luks_agent::host::{HostError, last_answer};
use luks_agent::worker::Answer;
use tokio::io::BufReader;
use tokio::runtime::Builder;

pub(crate) fn run(data: &[u8]) -> String {
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let mut stages = 0;
    let answer = runtime.block_on(last_answer(BufReader::new(data), |_, percent| {
        assert_eq!(percent.map(|p| p.to_string().parse::<u64>().expect("a number")), percent);
        stages += 1;
    }));

    let parsed = |line: &str| serde_json::from_str::<Answer>(line).ok();
    let lines: Option<Vec<Answer>> = std::str::from_utf8(data).ok().and_then(|text| text.lines().map(parsed).collect());
    let said = format!("{answer:?}");
    match (answer, lines) {
        (Ok(answer), Some(lines)) => {
            let is_stage = |answer: &Answer| matches!(answer, Answer::Progress { .. });
            assert_eq!(stages, lines.iter().filter(|answer| is_stage(answer)).count());
            assert_eq!(answer, lines.into_iter().rfind(|answer| !is_stage(answer)), "not the last that was said");
            if let Some(answer) = answer {
                let text = serde_json::to_string(&answer).expect("JSON");
                assert_eq!(serde_json::from_str::<Answer>(&text).expect("an answer"), answer);
            }
        }
        (Err(HostError::Garbled(_) | HostError::Io(_)), None) => {}
        (answer, lines) => panic!("{answer:?} of {lines:?}"),
    }
    said
}
