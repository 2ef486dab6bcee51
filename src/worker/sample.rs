//! Chooses the parts of a disk that the blank check reads.

use uuid::Uuid;

use crate::disk::BlankScan;

/// The largest disk, in bytes, of which the first look reads everything. It samples larger ones.
const WHOLE_UP_TO: u64 = 1 << 30;
/// The least number of samples between the ends, unless they would be closer than [`STRIDE`].
const SAMPLES: u64 = 1024;
/// The least distance of two samples in bytes.
const STRIDE: u64 = 512 << 10;
/// The size of a sample in bytes.
const SAMPLE: u64 = 64 << 10;
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

    /// Returns the part in pieces of at most `length` bytes.
    pub(super) fn pieces(self, length: usize) -> impl Iterator<Item = Self> {
        let at = (self.at..self.end()).step_by(length);
        at.map(move |at| Self { at, length: (length as u64).min(self.end() - at) })
    }
}

/// Which look at a disk this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Everything that is on the disk counts.
    First,
    /// The first look found the disk blank, and what this node writes to it is noticed in another way.
    Second,
}

impl Look {
    /// Returns how many bytes to read completely at each end of a disk that is sampled.
    fn end(self) -> u64 {
        match self {
            Self::First => 256 << 20,
            // where a header of LUKS2 lies, and all signatures
            Self::Second => 16 << 20,
        }
    }
}

/// Returns the parts to read from byte `from` on, in ascending order.
///
/// `start`, in 0..1, shifts the samples, so that a later look can find data that this one misses because the data is regular.
pub(super) fn choose_parts(from: u64, size: u64, scan: BlankScan, look: Look, start: f64) -> Vec<Part> {
    let end = look.end();
    let is_whole = scan == BlankScan::Full || look == Look::First && size <= WHOLE_UP_TO;
    if is_whole || size <= from.max(end) + end {
        return vec![Part { at: from, length: size.saturating_sub(from) }];
    }
    let (head, tail) = (from.max(end), align(size - end));
    let stride = ((tail - head) / SAMPLES).max(STRIDE);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a jitter"
    )]
    let jitter = (start * (stride - SAMPLE + 1) as f64) as u64;
    let places = (head + jitter..tail).step_by(usize::try_from(stride).unwrap_or(usize::MAX)).map(align);
    let between = places.map(|at| Part { at, length: SAMPLE.min(tail - at) });
    let (first, last) = (Part { at: from, length: head - from }, Part { at: tail, length: size - tail });
    std::iter::once(first).chain(between).chain([last]).filter(|part| part.length > 0).collect()
}

fn align(bytes: u64) -> u64 {
    bytes / ALIGN as u64 * ALIGN as u64
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

    const GIB: u64 = 1 << 30;

    fn parts(size: u64, look: Look, start: f64) -> Vec<Part> {
        choose_parts(0, size, BlankScan::Sampled, look, start)
    }

    fn bytes(parts: &[Part]) -> u64 {
        parts.iter().map(|part| part.length).sum()
    }

    #[test]
    fn a_large_disk_is_read_at_both_ends_and_sampled_between() {
        let size = 500 * GIB;
        for (look, end, places, mib) in [(Look::First, 256 << 20, 1024, 576), (Look::Second, 16 << 20, 1024, 96)] {
            let parts = parts(size, look, 0.5);
            let read = |offset: u64| parts.iter().any(|part| (part.at..part.end()).contains(&offset));
            assert!(read(0) && read(end - 1) && read(size - end) && read(size - 1));
            // what docs/safety.md says
            assert_eq!((parts.len() - 2, bytes(&parts) >> 20), (places, mib), "{look:?}");
        }
    }

    #[test]
    fn each_look_samples_other_places() {
        for look in [Look::First, Look::Second] {
            assert_ne!(parts(10 * GIB, look, 0.1), parts(10 * GIB, look, 0.9));
        }
        let fractions: Vec<f64> = std::iter::repeat_with(random_fraction).take(100).collect();
        assert!(fractions.iter().all(|f| (0.0..1.0).contains(f)), "{fractions:?}");
        assert!(fractions.iter().any(|f| *f < 0.5) && fractions.iter().any(|f| *f > 0.5), "{fractions:?}");
    }

    #[test]
    fn all_of_a_small_disk_is_read_first_and_of_any_if_configured() {
        let all = |size| [Part { at: 0, length: size }];
        assert_eq!(parts(GIB, Look::First, 0.5), all(GIB));
        for look in [Look::First, Look::Second] {
            assert_eq!(choose_parts(0, 20 * GIB, BlankScan::Full, look, 0.5), all(20 * GIB));
            assert_eq!(parts(32 << 20, look, 0.5), all(32 << 20));
        }
        assert_eq!(parts(320 << 20, Look::Second, 0.5).len(), 2 + 2 * (320 - 32));
    }

    proptest! {
        #[test]
        fn ranges_stay_on_the_disk_and_do_not_overlap(
            size in (DATA_OFFSET / 512 + 1..40 << 21).prop_map(|s| s * 512), start in 0.0..1.0, from in prop_oneof![Just(0), Just(DATA_OFFSET)],
            look in prop_oneof![Just(Look::First), Just(Look::Second)],
        ) {
            let parts = choose_parts(from, size, BlankScan::Sampled, look, start);
            prop_assert_eq!(parts[parts.len() - 1].end(), size);
            for pair in parts.windows(2) {
                prop_assert!(pair[0].end() <= pair[1].at);
            }
            prop_assert!(parts.iter().all(|part| part.at % 512 == 0 && part.length > 0 && part.at >= from));
            let end = look.end();
            if parts.len() == 1 {
                let largest = if look == Look::First { WHOLE_UP_TO } else { from.max(end) + end };
                prop_assert!(size <= largest);
                return Ok(());
            }
            // both ends, and between them samples that leave no more out in one place than in another
            let (head, tail) = (end.max(from), parts[parts.len() - 1].at);
            prop_assert!(from >= end || (parts[0].at, parts[0].end()) == (from, end));
            prop_assert!(size - tail >= end);
            let stride = ((tail - head) / SAMPLES).max(STRIDE);
            for pair in parts.windows(2) {
                let gap = pair[1].at - pair[0].end();
                prop_assert!(gap <= stride - SAMPLE + ALIGN as u64, "{gap} between {pair:?}, stride {stride}");
            }
            let whole = parts.iter().filter(|part| part.length == SAMPLE).count() as u64;
            prop_assert!(whole + 1 >= SAMPLES.min((tail - head) / stride), "{whole} samples");
        }
    }
}
