//! The one program for all targets; libFuzzer parses its arguments, so the target is named by the environment.
#![no_main]

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU8, Ordering};

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

/// What libFuzzer counts as coverage beside the compiler's.
#[unsafe(link_section = "__libfuzzer_extra_counters")]
static COUNTERS: Counters = Counters([const { AtomicU8::new(0) }; OUTCOMES + OTHERS]);

/// libFuzzer clears them eight at a time.
#[repr(align(8))]
struct Counters([AtomicU8; OUTCOMES + OTHERS]);

/// One for each kind of outcome, so that without the compiler's there is some guidance still.
const OUTCOMES: usize = 2048;
/// Without the compiler's, most changes show nothing new: some are taken up by chance, so that changes build on changes.
const OTHERS: usize = if cfg!(fuzzing) { 0 } else { 1024 };

fuzz_target!(|data: &[u8]| {
    let outcome = luks_agent_fuzz::run(data);
    count(0, OUTCOMES, &outcome);
    count(OUTCOMES, OTHERS, &data);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    luks_agent_fuzz::json::mutate(data, size, max_size, seed, fuzzer_mutate)
});

fn count(from: usize, among: usize, what: &impl Hash) {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    if let Some(which) = hasher.finish().checked_rem(among as u64) {
        COUNTERS.0[from + which as usize].store(1, Ordering::Relaxed);
    }
}
