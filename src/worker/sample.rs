//! Chooses the parts of a disk that the blank check reads.

use uuid::Uuid;

use crate::disk::BlankScan;

/// The largest disk, in bytes, of which the check reads everything. It samples larger ones.
const WHOLE_UP_TO: u64 = 1 << 30;
/// How many bytes to read at each end of a larger disk.
const END: u64 = 256 << 20;
/// The least number of samples between the ends.
const SAMPLES: u64 = 1024;
/// The size of a sample in bytes.
const SAMPLE: usize = 64 << 10;
/// The alignment in bytes that `O_DIRECT` needs for buffers and offsets on any disk.
pub(super) const ALIGN: usize = 4096;

/// A part of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// The offset of its first byte.
    pub(super) at: u64,
    /// Its length in bytes.
    pub(super) length: u64,
}

impl Part {
    /// Returns the offset of the first byte behind it.
    pub(super) fn end(self) -> u64 {
        self.at + self.length
    }
}

/// Returns the parts to read from byte `from` on.
///
/// `start`, in 0..1, shifts the samples, so that a later check can find data that this one misses because the data is regular.
pub(super) fn choose_parts(from: u64, size: u64, scan: BlankScan, start: f64) -> Vec<Part> {
    if scan == BlankScan::Full || size <= WHOLE_UP_TO {
        return vec![Part { at: from, length: size.saturating_sub(from) }];
    }
    let (head, tail) = (END.max(from), (size - END) / ALIGN as u64 * ALIGN as u64);
    let stride = ((tail - head) / SAMPLES).max(SAMPLE as u64);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a jitter"
    )]
    let jitter = (start * (stride - SAMPLE as u64 + 1) as f64) as u64;
    let samples = (head + jitter..tail).step_by(usize::try_from(stride).unwrap_or(usize::MAX)).map(|at| {
        let at = at / ALIGN as u64 * ALIGN as u64;
        Part { at, length: (SAMPLE as u64).min(tail - at) }
    });
    let (first, last) = (Part { at: from, length: head - from }, Part { at: tail, length: size - tail });
    std::iter::once(first).chain(samples).chain([last]).collect()
}

/// Returns a random number in 0..1.
pub(super) fn random_fraction() -> f64 {
    let (high, _) = Uuid::new_v4().as_u64_pair();
    f64::from((high >> 32) as u32) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::luks2::DATA_OFFSET;

    #[test]
    fn a_large_disk_is_read_at_both_ends_and_sampled_between() {
        let size = 10 << 30;
        let parts = choose_parts(0, size, BlankScan::Sampled, 0.5);
        let read = |offset: u64| parts.iter().any(|part| (part.at..part.end()).contains(&offset));
        assert!(read(0) && read(END - 1) && read(size - END) && read(size - 1));
        let between = parts.iter().filter(|part| (END..size - END).contains(&part.at)).count() as u64;
        assert!(between >= SAMPLES, "{between}");
    }

    #[test]
    fn each_check_looks_elsewhere() {
        let parts = |start| choose_parts(0, 10 << 30, BlankScan::Sampled, start);
        assert_ne!(parts(0.1), parts(0.9));
        let fractions: Vec<f64> = std::iter::repeat_with(random_fraction).take(100).collect();
        assert!(fractions.iter().all(|f| (0.0..1.0).contains(f)), "{fractions:?}");
        assert!(fractions.iter().any(|f| *f < 0.5) && fractions.iter().any(|f| *f > 0.5), "{fractions:?}");
    }

    proptest! {
        #[test]
        fn ranges_stay_on_the_disk_and_do_not_overlap(
            size in (DATA_OFFSET / 512 + 1..40 << 21).prop_map(|s| s * 512), start in 0.0..1.0, from in prop_oneof![Just(0), Just(DATA_OFFSET)],
        ) {
            let parts = choose_parts(from, size, BlankScan::Sampled, start);
            prop_assert_eq!(parts[0].at, from);
            let last = parts[parts.len() - 1];
            prop_assert_eq!(last.end(), size);
            for pair in parts.windows(2) {
                prop_assert!(pair[0].end() <= pair[1].at);
            }
            prop_assert!(parts.iter().all(|part| part.at % 512 == 0 && part.length > 0));
            if size <= WHOLE_UP_TO {
                prop_assert_eq!(parts.len(), 1);
                return Ok(());
            }
            // both ends, and between them samples that leave no more out in one place than in another
            let (head, tail) = (parts[0].end(), last.at);
            prop_assert!(head >= END && size - tail >= END);
            let stride = ((tail - head) / SAMPLES).max(SAMPLE as u64);
            for pair in parts.windows(2) {
                let gap = pair[1].at - pair[0].end();
                prop_assert!(gap <= stride - SAMPLE as u64 + ALIGN as u64, "{gap} between {pair:?}, stride {stride}");
            }
            let whole = parts.iter().filter(|part| part.length == SAMPLE as u64).count() as u64;
            prop_assert!(whole + 1 >= SAMPLES, "{whole} samples");
        }
    }
}
