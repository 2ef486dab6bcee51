//! A disk with a volatile write cache, as real ones have: what was flushed survives a power cut, of what was not flushed
//! any part may be lost.
//!
//! QEMU alone cannot show that: what a guest wrote is in the host's page cache by then and outlives the process. So QEMU
//! gets the disk over NBD (the old-style handshake, for which a Unix socket is enough) from a thread of the test, which
//! keeps what is written in memory until the guest flushes. At a power cut it writes a random part of that to the image,
//! and the last write perhaps only in part, by sectors; the rest is lost.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

const BLOCK: usize = 4096;
const SECTOR: usize = 512;
/// A real cache is not without limits either: beyond this everything is written out.
const CACHE: usize = 64 << 20;

/// What one power cut did to what was in the caches.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lost {
    /// Writes that had not been flushed.
    pub unflushed: usize,
    /// How many of these are gone, or torn.
    pub lost: usize,
}

/// A disk while its machine runs.
#[derive(Debug)]
pub struct Volatile {
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    image: File,
    /// What was written since the last flush, in order.
    pending: Vec<Pending>,
    /// How the blocks of it look, for reading.
    blocks: HashMap<u64, Box<[u8; BLOCK]>>,
    bytes: usize,
}

#[derive(Debug)]
struct Pending {
    offset: u64,
    data: Data,
}

#[derive(Debug)]
enum Data {
    Bytes(Vec<u8>),
    Zeros(usize),
}

impl Volatile {
    /// Serves an image at a socket, which is there when this returns, to one client.
    pub fn serve(image: &Path, socket: &Path) -> Self {
        let image = File::options().read(true).write(true).open(image).unwrap();
        let size = image.metadata().unwrap().len();
        let state = State { image, pending: Vec::new(), blocks: HashMap::new(), bytes: 0 };
        let state = Arc::new(Mutex::new(state));
        let listener = UnixListener::bind(socket).unwrap();
        let shared = Arc::clone(&state);
        let server = std::thread::spawn(move || {
            let (client, _) = listener.accept().unwrap();
            // it ends with the client
            talk(client, size, &shared).ok();
        });
        Self { state, server }
    }

    /// After a clean end of the machine: nothing is lost.
    pub fn keep(self) {
        self.server.join().unwrap();
        self.state.lock().unwrap().flush().unwrap();
    }

    /// After a power cut, when the machine is no more: a random part of what was not flushed is lost.
    pub fn cut(self, random: &mut fastrand::Rng) -> Lost {
        self.server.join().unwrap();
        let mut state = self.state.lock().unwrap();
        // all of it, a part in any order, or nothing
        let chance = [0.0, 0.1, 0.5, 0.9, 1.0][random.usize(..5)];
        let mut lost = Lost { unflushed: state.pending.len(), lost: 0 };
        for one in std::mem::take(&mut state.pending) {
            let sectors = one.data.len() / SECTOR;
            let kept = match random.f64() < chance {
                false => sectors,
                // torn now and then, not gone
                true if sectors > 1 && random.u8(..4) == 0 => random.usize(1..sectors),
                true => 0,
            };
            lost.lost += usize::from(kept < sectors);
            state.put(one.offset, &one.data, kept * SECTOR).unwrap();
        }
        lost
    }
}

impl Data {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Zeros(length) => *length,
        }
    }
}

impl State {
    fn put(&self, offset: u64, data: &Data, length: usize) -> io::Result<()> {
        match data {
            Data::Bytes(bytes) => self.image.write_all_at(&bytes[..length], offset),
            Data::Zeros(_) => {
                let zeros = vec![0; 1 << 20];
                let mut at = 0;
                while at < length {
                    let next = zeros.len().min(length - at);
                    // what is sparse stays sparse
                    let mut there = vec![0; next];
                    self.image.read_exact_at(&mut there, offset + at as u64)?;
                    if there != zeros[..next] {
                        self.image.write_all_at(&zeros[..next], offset + at as u64)?;
                    }
                    at += next;
                }
                Ok(())
            }
        }
    }

    fn write(&mut self, offset: u64, data: Data) -> io::Result<()> {
        let length = data.len();
        let mut at = 0;
        while at < length {
            let block = (offset + at as u64) / BLOCK as u64;
            let within = usize::try_from((offset + at as u64) % BLOCK as u64).unwrap();
            let next = (BLOCK - within).min(length - at);
            if !self.blocks.contains_key(&block) {
                let mut bytes = Box::new([0; BLOCK]);
                if next < BLOCK {
                    self.image.read_exact_at(bytes.as_mut_slice(), block * BLOCK as u64)?;
                }
                self.blocks.insert(block, bytes);
            }
            let there = &mut self.blocks.get_mut(&block).unwrap()[within..within + next];
            match &data {
                Data::Bytes(bytes) => there.copy_from_slice(&bytes[at..at + next]),
                Data::Zeros(_) => there.fill(0),
            }
            at += next;
        }
        self.pending.push(Pending { offset, data });
        self.bytes += length;
        if self.bytes > CACHE { self.flush() } else { Ok(()) }
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.image.read_exact_at(buffer, offset)?;
        if self.blocks.is_empty() {
            return Ok(());
        }
        let mut at = 0;
        while at < buffer.len() {
            let block = (offset + at as u64) / BLOCK as u64;
            let within = usize::try_from((offset + at as u64) % BLOCK as u64).unwrap();
            let next = (BLOCK - within).min(buffer.len() - at);
            if let Some(bytes) = self.blocks.get(&block) {
                buffer[at..at + next].copy_from_slice(&bytes[within..within + next]);
            }
            at += next;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        for one in std::mem::take(&mut self.pending) {
            self.put(one.offset, &one.data, one.data.len())?;
        }
        self.blocks.clear();
        self.bytes = 0;
        Ok(())
    }
}

/// The NBD protocol, as far as QEMU needs it: <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>.
fn talk(mut client: UnixStream, size: u64, state: &Mutex<State>) -> io::Result<()> {
    const HAS_FLAGS: u16 = 1;
    const SEND_FLUSH: u16 = 1 << 2;
    const SEND_FUA: u16 = 1 << 3;
    const SEND_TRIM: u16 = 1 << 5;
    const SEND_WRITE_ZEROES: u16 = 1 << 6;
    const FUA: u64 = 1;
    const EINVAL: u32 = 22;
    const EIO: u32 = 5;

    client.write_all(b"NBDMAGIC")?;
    client.write_all(&0x0000_4202_8186_1253_u64.to_be_bytes())?;
    client.write_all(&size.to_be_bytes())?;
    client.write_all(&0_u16.to_be_bytes())?;
    client.write_all(&(HAS_FLAGS | SEND_FLUSH | SEND_FUA | SEND_TRIM | SEND_WRITE_ZEROES).to_be_bytes())?;
    client.write_all(&[0; 124])?;

    let mut reply = Vec::new();
    loop {
        let mut request = [0; 28];
        client.read_exact(&mut request)?;
        let number = |range: std::ops::Range<usize>| request[range].iter().fold(0, |n, b| n << 8 | u64::from(*b));
        assert_eq!(number(0..4), 0x2560_9513, "not an NBD request");
        let (flags, command) = (number(4..6), number(6..8));
        let (offset, length) = (number(16..24), usize::try_from(number(24..28)).unwrap());

        reply.clear();
        reply.extend_from_slice(&0x6744_6698_u32.to_be_bytes());
        reply.extend_from_slice(&0_u32.to_be_bytes());
        reply.extend_from_slice(&request[8..16]);
        let data = match command {
            1 => {
                let mut data = vec![0; length];
                client.read_exact(&mut data)?;
                Some(Data::Bytes(data))
            }
            4 | 6 => Some(Data::Zeros(length)),
            _ => None,
        };
        let mut state = state.lock().unwrap();
        let done = match (command, data) {
            (0, _) => {
                reply.resize(16 + length, 0);
                state.read(offset, &mut reply[16..])
            }
            (_, Some(data)) => {
                let written = state.write(offset, data);
                if flags & FUA == 0 { written } else { written.and_then(|()| state.flush()) }
            }
            (2, None) => return Ok(()),
            (3, None) => state.flush(),
            (_, None) => Err(io::Error::from_raw_os_error(EINVAL.cast_signed())),
        };
        drop(state);
        if done.is_err() {
            reply.truncate(16);
            reply[4..8].copy_from_slice(&EIO.to_be_bytes());
        }
        client.write_all(&reply)?;
    }
}
