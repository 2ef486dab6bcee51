//! Recognises noise: uniformly random bytes. Blocks of an EBS volume with EBS encryption can read as noise before they are first written.
//!
//! The test is Pearson's chi-squared statistic of how often each of the 256 byte values occurs. For uniformly random bytes it has a
//! mean of 255 and a standard deviation of 22.6. It is applied to each block and to all blocks together.
//!
//! | | |
//! |---|---|
//! | noise that the test refuses | less than one block in 10^15, one full volume in a million: the bounds are 7 and 11 standard deviations away |
//! | blocks that never pass | a block of 4 KiB with fewer than 228 different byte values, or with one value more than 105 times: text, base64, padding, headers with zeros, code, tables, most metadata of file systems |
//! | data that passes | data that looks like noise: encrypted data without a header, and the output of xz without its first bytes |
//!
//! The bounds for blocks that never pass follow from the statistic: with at most `k` values in `n` bytes it is at least
//! `n (256 / k - 1)`, and with `c` times the same value at least `(c - n / 256)^2 / (n / 256)`. The output of gzip and zstd fails both
//! in single blocks and in the sum: of 8 MiB of a compressed program, one block in four failed, and the sum was more than 10,000.

/// The size of a block in bytes: a page, and the block size of most file systems.
pub(crate) const BLOCK: usize = 4096;
/// The lower bound: the statistic of uniform bytes is below it with a probability of 10^-18.
const LOWEST: u128 = 100;
/// The upper bound: the statistic is above it with a probability of at most 10^-17. It leaves room for the longer tail of few bytes.
const HIGHEST: u128 = 500;
/// The block size of ciphers in bytes. Noise never has the same unit twice in a block; data encrypted unit by unit can.
const UNIT: usize = 16;

/// Counts of each byte value.
#[derive(Debug, Clone)]
pub(crate) struct Counts([u64; 256]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; 256])
    }
}

impl Counts {
    /// Adds a block if it is noise. Returns whether it is.
    pub(crate) fn add_if_noise(&mut self, block: &[u8]) -> bool {
        let mut own = Self::default();
        for byte in block {
            own.0[usize::from(*byte)] += 1;
        }
        let is_noise = own.is_uniform() && !repeats(block);
        if is_noise {
            self.0.iter_mut().zip(own.0).for_each(|(all, own)| *all += own);
        }
        is_noise
    }

    /// Returns how many bytes were added.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Returns whether the statistic, `256 / n` times the sum of squares less `n`, is within the bounds.
    pub(crate) fn is_uniform(&self) -> bool {
        let n = u128::from(self.total());
        let squares: u128 = self.0.iter().map(|count| u128::from(*count).pow(2)).sum();
        n > 0 && (n * (n + LOWEST)..=n * (n + HIGHEST)).contains(&(256 * squares))
    }
}

/// Returns whether a block has the same unit twice.
fn repeats(block: &[u8]) -> bool {
    let mut units: Vec<&[u8]> = block.chunks(UNIT).collect();
    units.sort_unstable();
    units.windows(2).any(|pair| pair[0] == pair[1])
}

/// Returns whether a disk starts with the magic number of a compressed or encrypted stream, which has no structure after it.
pub(crate) fn is_stream(start: &[u8]) -> bool {
    const MAGICS: [&[u8]; 15] = [
        b"\x1f\x8b\x08",        // gzip
        b"\x28\xb5\x2f\xfd",    // Zstandard
        b"\xfd7zXZ\0",          // xz
        b"BZh",                 // bzip2
        b"\x04\x22\x4d\x18",    // LZ4
        b"7z\xbc\xaf\x27\x1c",  // 7-Zip
        b"PK\x03\x04",          // ZIP
        b"Rar!\x1a\x07",        // RAR
        b"\x89LZO\0",           // lzop
        b"LZIP",                // lzip
        b"\xff\xd8\xff",        // JPEG
        b"\x89PNG",             // PNG
        b"Salted__",            // openssl enc
        b"age-encryption.org/", // age
        b"\x1f\x9d",            // compress
    ];
    MAGICS.iter().any(|magic| start.starts_with(magic))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_noise(block: &[u8]) -> bool {
        Counts::default().add_if_noise(block)
    }

    fn random(seed: u64, bytes: usize) -> Vec<u8> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut block = vec![0; bytes];
        rng.fill(&mut block);
        block
    }

    /// The statistic, for the margins.
    fn statistic(block: &[u8]) -> u64 {
        let mut counts = [0; 256];
        block.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        let n = block.len() as u64;
        counts.iter().map(|count: &u64| count * count).sum::<u64>() * 256 / n - n
    }

    #[test]
    fn random_blocks_are_noise_with_room_to_both_bounds() {
        let mut all = Counts::default();
        for seed in 0..2000 {
            // the end of a disk can be a part of a block
            for bytes in [BLOCK, BLOCK, 512] {
                let block = random(seed, bytes);
                assert!(all.add_if_noise(&block), "seed {seed}, {bytes} bytes");
                let statistic = statistic(&block);
                assert!((150..400).contains(&statistic), "seed {seed}, {bytes} bytes: {statistic}");
            }
        }
        assert!(all.is_uniform());
    }

    #[test]
    fn nothing_with_structure_is_noise() {
        let noise = random(1, BLOCK);
        let with = |at: usize, bytes: &[u8]| {
            let mut block = noise.clone();
            block[at..at + bytes.len()].copy_from_slice(bytes);
            block
        };
        let counter: Vec<u8> = (0..BLOCK / 4).flat_map(|n| u32::try_from(n).unwrap().to_be_bytes()).collect();
        let every_value: Vec<u8> = (0..=255).cycle().take(BLOCK).collect();
        let base64: Vec<u8> = noise
            .iter()
            .map(|byte| b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[usize::from(byte % 64)])
            .collect();
        let words = b"the quick brown fox jumps over the lazy dog\n".repeat(100)[..BLOCK].to_vec();
        let program = std::fs::read("/proc/self/exe").unwrap();
        for (what, block) in [
            ("zeros", vec![0; BLOCK]),
            ("ones", vec![0xff; BLOCK]),
            ("text", words),
            ("base64", base64),
            ("a counter", counter),
            ("every value in turn", every_value),
            ("noise of seven bits", noise.iter().map(|byte| byte & 0x7f).collect()),
            ("half a block of noise", with(BLOCK / 2, &[0; BLOCK / 2])),
            ("a record padded with zeros", with(BLOCK - 128, &[0; 128])),
            ("noise twice", [&noise[..BLOCK / 2], &noise[..BLOCK / 2]].concat()),
            ("the same ciphertext twice", with(16, &noise[..16])),
            ("a program", program[..BLOCK].to_vec()),
        ] {
            assert!(!is_noise(&block), "{what}");
        }
    }

    #[test]
    fn a_bias_that_no_block_shows_is_seen_in_the_sum() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut all = Counts::default();
        let mut passed = 0;
        for _ in 0..2000 {
            // one value of 256 a sixth rarer than the others, as stuffing makes it
            let stuffed = |rng: &mut fastrand::Rng| match rng.u8(..) {
                0xff if rng.u8(..) < 43 => 0,
                byte => byte,
            };
            let block: Vec<u8> = (0..BLOCK).map(|_| stuffed(&mut rng)).collect();
            passed += usize::from(all.add_if_noise(&block));
        }
        assert!(passed > 1990, "{passed}");
        assert!(!all.is_uniform());
    }

    #[test]
    fn streams_are_known_by_their_first_bytes() {
        assert!(is_stream(b"\x1f\x8b\x08\0") && is_stream(b"Salted__x") && is_stream(&[0x28, 0xb5, 0x2f, 0xfd, 0]));
        assert!(!is_stream(b"") && !is_stream(&[0; 64]));
    }

    proptest! {
        /// The bounds that the module promises, whatever the other bytes are.
        #[test]
        fn few_values_or_many_of_one_are_never_noise(
            seed in any::<u64>(), values in 1..228_u8, value in any::<u8>(), times in 106..BLOCK,
        ) {
            let noise = random(seed, BLOCK);
            let few: Vec<u8> = noise.iter().map(|byte| byte % values).collect();
            prop_assert!(!is_noise(&few), "{} values", values);
            let mut many = noise;
            many[..times].fill(value);
            prop_assert!(!is_noise(&many), "{} times {}", times, value);
        }

        #[test]
        fn text_and_tables_are_never_noise(
            text in "[ -~\n]{4096}", numbers in prop::collection::vec(0..1_000_000_u32, BLOCK / 4),
        ) {
            prop_assert!(!is_noise(&text.as_bytes()[..BLOCK]));
            let table: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
            prop_assert!(!is_noise(&table));
        }
    }
}
