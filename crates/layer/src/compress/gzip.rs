//! gzip made on all cores, one member, the same bytes whatever the number of cores.
//!
//! The stream is cut into blocks of a fixed size. Each is deflated on its own with the 32 KiB before it as dictionary,
//! and ends on a byte by an empty stored block, so that the pieces can be put one after the other (as pigz does). A
//! block whose samples do not compress is stored: it would cost most of the time and gain nothing.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use flate2::{Compress, Compression, FlushCompress, Status};
use parking_lot::Mutex;

const BLOCK_BYTES: usize = 512 << 10;
const WINDOW_BYTES: usize = 32 << 10;
// Beyond 4, another percent of size costs a third of the time.
const DEFAULT_LEVEL: u32 = 4;
const SAMPLE_BYTES: usize = 8 << 10;
const SAMPLES_PER_BLOCK: usize = 4;

struct BlockJob {
    data: Arc<[u8]>,
    dictionary: Option<Arc<[u8]>>,
    last: bool,
    done: SyncSender<io::Result<Vec<u8>>>,
}

/// A gzip stream in the making.
pub(super) struct ParallelGzip<W: Write> {
    out: W,
    block: Vec<u8>,
    before: Option<Arc<[u8]>>,
    crc: crc32fast::Hasher,
    length: u64,
    jobs: Option<SyncSender<BlockJob>>,
    pending: VecDeque<Receiver<io::Result<Vec<u8>>>>,
    most_pending: usize,
    threads: Vec<JoinHandle<()>>,
    most_threads: usize,
    queue: Arc<Mutex<Receiver<BlockJob>>>,
    deflater: Deflater,
}

impl<W: Write> ParallelGzip<W> {
    pub(super) fn new(mut out: W, level: Option<i32>, threads: usize) -> io::Result<Self> {
        let requested_level = level.and_then(|level| u32::try_from(level).ok());
        let deflater = Deflater::new(
            requested_level.unwrap_or(DEFAULT_LEVEL).min(9),
            level.is_none(),
        );
        // No name, no time, unknown system: nothing that differs between runs.
        out.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff])?;
        let most_pending = threads * 2;
        let (jobs, queue) = sync_channel(most_pending);
        Ok(Self {
            out,
            block: Vec::with_capacity(BLOCK_BYTES),
            before: None,
            crc: crc32fast::Hasher::new(),
            length: 0,
            jobs: Some(jobs),
            pending: VecDeque::new(),
            most_pending,
            threads: Vec::new(),
            most_threads: threads,
            queue: Arc::new(Mutex::new(queue)),
            deflater,
        })
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.submit(true)?;
        while self.collect()? {}
        let crc = std::mem::take(&mut self.crc).finalize();
        self.out.write_all(&crc.to_le_bytes())?;
        // The format keeps the length modulo 2^32.
        let length = self.length.to_le_bytes();
        self.out.write_all(
            length
                .first_chunk::<4>()
                .expect("eight bytes begin with four"),
        )?;
        self.jobs = None;
        for thread in self.threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
        Ok(self.out)
    }

    fn submit(&mut self, last: bool) -> io::Result<()> {
        let data: Arc<[u8]> = std::mem::take(&mut self.block).into();
        self.block.reserve(if last { 0 } else { BLOCK_BYTES });
        let (done, result) = sync_channel(1);
        let job = BlockJob {
            data: Arc::clone(&data),
            dictionary: self.before.replace(data),
            last,
            done,
        };
        self.pending.push_back(result);
        // A small stream needs no threads; the first block is the only one it has.
        if self.threads.is_empty() && last {
            job.done.send(self.deflater.run(&job)).ok();
            return Ok(());
        }
        if self.threads.len() < self.most_threads {
            let queue = Arc::clone(&self.queue);
            let mut deflater = self.deflater.fresh();
            self.threads
                .push(
                    std::thread::Builder::new()
                        .name("gzip".to_owned())
                        .spawn(move || {
                            loop {
                                let job = queue.lock().recv();
                                let Ok(job) = job else { break };
                                let result = deflater.run(&job);
                                // The stream was dropped, so this block is not needed.
                                job.done.send(result).ok();
                            }
                        })?,
                );
        }
        if let Some(jobs) = &self.jobs {
            // The error of a closed channel is the job itself.
            jobs.send(job)
                .map_err(|_| io::Error::other("gzip threads are gone"))?;
        }
        while self.pending.len() >= self.most_pending {
            self.collect()?;
        }
        Ok(())
    }

    fn collect(&mut self) -> io::Result<bool> {
        let Some(next) = self.pending.pop_front() else {
            return Ok(false);
        };
        // A closed channel says no more than that the thread has ended.
        let packed = next
            .recv()
            .map_err(|_| io::Error::other("a gzip thread is gone"))??;
        self.out.write_all(&packed)?;
        Ok(true)
    }
}

impl<W: Write> Write for ParallelGzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full block goes out only when more follows, so that the last one is never empty for nothing.
        if self.block.len() == BLOCK_BYTES && !bytes.is_empty() {
            self.submit(false)?;
        }
        let take = bytes
            .get(..bytes.len().min(BLOCK_BYTES - self.block.len()))
            .unwrap_or_default();
        self.block.extend_from_slice(take);
        self.crc.update(take);
        self.length += take.len() as u64;
        Ok(take.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Deflater {
    level: u32,
    may_store: bool,
    packer: Option<Compress>,
    tester: Option<Compress>,
}

impl Deflater {
    fn new(level: u32, may_store: bool) -> Self {
        Self {
            level,
            may_store,
            packer: None,
            tester: None,
        }
    }

    fn fresh(&self) -> Self {
        Self::new(self.level, self.may_store)
    }

    fn run(&mut self, job: &BlockJob) -> io::Result<Vec<u8>> {
        if self.may_store && self.is_incompressible(&job.data)? {
            return Ok(stored(&job.data, job.last));
        }
        let level = self.level;
        let packer = self
            .packer
            .get_or_insert_with(|| Compress::new(Compression::new(level), false));
        packer.reset();
        if let Some(before) = &job.dictionary {
            let window = before
                .get(before.len().saturating_sub(WINDOW_BYTES)..)
                .unwrap_or_default();
            packer.set_dictionary(window).map_err(io::Error::other)?;
        }
        let mut out = Vec::with_capacity(job.data.len() / 2 + 1024);
        pack(
            packer,
            &job.data,
            if job.last {
                FlushCompress::Finish
            } else {
                FlushCompress::Sync
            },
            &mut out,
        )?;
        Ok(out)
    }

    // A few samples, packed quickly: when none of them shrinks, the block will not either.
    fn is_incompressible(&mut self, data: &[u8]) -> io::Result<bool> {
        if data.len() < SAMPLE_BYTES * SAMPLES_PER_BLOCK {
            return Ok(false);
        }
        let tester = self
            .tester
            .get_or_insert_with(|| Compress::new(Compression::new(1), false));
        let mut out = Vec::with_capacity(SAMPLE_BYTES + 1024);
        for i in 0..SAMPLES_PER_BLOCK {
            let at = (data.len() - SAMPLE_BYTES) / (SAMPLES_PER_BLOCK - 1) * i;
            let sample = data.get(at..at + SAMPLE_BYTES).unwrap_or_default();
            tester.reset();
            out.clear();
            pack(tester, sample, FlushCompress::Finish, &mut out)?;
            if out.len() < SAMPLE_BYTES / 100 * 98 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn pack(
    packer: &mut Compress,
    data: &[u8],
    flush: FlushCompress,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    loop {
        let bytes_in = usize::try_from(packer.total_in()).unwrap_or(usize::MAX);
        let rest = data.get(bytes_in..).unwrap_or_default();
        let status = packer
            .compress_vec(rest, out, flush)
            .map_err(io::Error::other)?;
        let all_in = packer.total_in() >= data.len() as u64;
        match status {
            Status::StreamEnd => return Ok(()),
            // Room left over means that the flush is complete.
            Status::Ok | Status::BufError
                if all_in && matches!(flush, FlushCompress::Sync) && out.len() < out.capacity() =>
            {
                return Ok(());
            }
            Status::Ok | Status::BufError => out.reserve(data.len() / 4 + 1024),
        }
    }
}

// Blocks that hold the bytes as they are; the last one of the stream says so.
fn stored(data: &[u8], last: bool) -> Vec<u8> {
    const MAX_STORED_BYTES: usize = 65_535;
    let pieces = data.len().div_ceil(MAX_STORED_BYTES);
    let mut out = Vec::with_capacity(data.len() + pieces * 5);
    for (i, piece) in data.chunks(MAX_STORED_BYTES).enumerate() {
        let length = u16::try_from(piece.len()).unwrap_or(u16::MAX);
        out.push(u8::from(last && i + 1 == pieces));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(piece);
    }
    out
}
