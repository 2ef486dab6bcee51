//! What the parent makes of a worker's standard output.

use luks_agent::job::{self, Answer, HostError};
use tokio::io::BufReader;
use tokio::runtime::Builder;

pub(crate) fn run(data: &[u8]) -> String {
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let mut stages = 0;
    let answer = runtime.block_on(job::read_answer(BufReader::new(data), |job::Course { percent, .. }| {
        assert_eq!(percent.map(|p| p.to_string().parse::<u64>().expect("a number")), percent);
        stages += 1;
    }));

    // up to the first that is no stage: the outcome, or no answer at all
    let lines: Vec<_> =
        data.split_inclusive(|b| *b == b'\n').map(|line| serde_json::from_slice::<Answer>(line).ok()).collect();
    let is_stage = |line: &&Option<Answer>| matches!(line, Some(Answer::Progress { .. }));
    assert_eq!(stages, lines.iter().take_while(is_stage).count());
    let said = format!("{answer:?}");
    match (answer, lines.iter().find(|line| !is_stage(line))) {
        (Ok(Some(answer)), Some(Some(expected))) => {
            assert_eq!(answer, *expected, "not the first outcome");
            let text = serde_json::to_string(&answer).expect("JSON");
            assert_eq!(serde_json::from_str::<Answer>(&text).expect("an answer"), answer);
        }
        (Ok(None), None) | (Err(HostError::Garbled(_) | HostError::Io(_)), Some(None)) => {}
        (answer, expected) => panic!("{answer:?}, expected {expected:?}"),
    }
    said
}
