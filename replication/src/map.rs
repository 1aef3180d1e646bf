//! The memory behind a ring: a mapped file that outlives the process, or heap for tests.
//!
//! `Map` is the only way to the bytes. It has one writer by construction: the file is locked
//! (the kernel drops the lock of a killed process) and every store takes `&mut self`. Other
//! processes read through `Window`, word by word, and believe nothing a checksum does not prove.

#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{Advice, MmapOptions, MmapRaw};

use crate::error::OpenError;
use crate::layout::HEADER;

/// How a mapped file comes by its pages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pages {
    /// All at once, instead of one by one when they are touched.
    pub prefault: bool,
    /// Pages of 2 MiB where kernel and file system have them: a tmpfs mounted with `huge=advise`.
    pub huge: bool,
}

/// Memory of one ring, writable by its one owner.
#[derive(Debug)]
pub struct Map {
    memory: Memory,
    #[cfg(test)]
    journal: Option<journal::Journal>,
}

impl Map {
    /// Zeroed heap memory of `len` bytes, rounded up to whole cache lines.
    #[must_use]
    pub fn heap(len: usize) -> Self {
        let lines = (0..len.div_ceil(HEADER)).map(|_| Line::default()).collect();
        Self::new(Memory::Heap(lines))
    }

    /// Heap memory with a copy of `bytes`: a process image for crash tests.
    #[must_use]
    pub fn heap_copy(bytes: &[u8]) -> Self {
        let mut map = Self::heap(bytes.len());
        map.bytes_mut(0, bytes.len()).copy_from_slice(bytes);
        map
    }

    /// Maps the file, creating it and its folder with `len` zero bytes if it is missing or empty.
    ///
    /// # Errors
    /// `Locked` if another process writes to the file, `NoRoom` if the file system is too small: all
    /// of the file is taken from it at once. `Io` if the system refuses.
    pub fn file(path: &Path, len: usize, pages: Pages) -> Result<Self, OpenError> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => OpenError::Locked,
            TryLockError::Error(error) => OpenError::from(error),
        })?;
        let is_new = file.metadata()?.len() == 0;
        if is_new {
            file.set_len(len as u64)?;
        }
        let map = map_reserved(&file, pages).inspect_err(|error| {
            if is_new && matches!(error, OpenError::NoRoom { .. }) {
                // What it took goes back to whoever else needs it.
                let _ = file.set_len(0);
            }
        })?;
        if map.len() < HEADER {
            return Err(OpenError::NotARing);
        }
        Ok(Self::new(Memory::File { map, _lock: file }))
    }

    /// Bytes of memory.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        match &self.memory {
            Memory::File { map, .. } => map.len(),
            Memory::Heap(lines) => lines.len() * HEADER,
        }
    }

    /// Whether there is no memory at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes `at..at + len`.
    ///
    /// # Panics
    /// If the range leaves the memory.
    #[must_use]
    #[inline]
    pub fn bytes(&self, at: usize, len: usize) -> &[u8] {
        self.check(at, len);
        // SAFETY: the range lies within the mapping (checked above), so the pointer stays in it.
        let start = unsafe { self.base().add(at) };
        // SAFETY: the range is initialised memory of one mapping; the only writer is the holder
        // of `&mut self`, which the returned borrow of `&self` excludes.
        unsafe { std::slice::from_raw_parts(start, len) }
    }

    /// The bytes `at..at + len`, to write.
    ///
    /// # Panics
    /// If the range leaves the memory.
    #[inline]
    pub fn bytes_mut(&mut self, at: usize, len: usize) -> &mut [u8] {
        self.check(at, len);
        // SAFETY: the range lies within the mapping (checked above), so the pointer stays in it.
        let start = unsafe { self.base().add(at) };
        // SAFETY: as in `bytes`; `&mut self` makes this the only reference in the process, and
        // other processes map the file read-only and use atomic loads.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }

    /// Loads the word at `at` (Acquire).
    ///
    /// # Panics
    /// If the word leaves the memory or is not 8-aligned.
    #[must_use]
    #[inline]
    pub fn load(&self, at: usize) -> u64 {
        self.word(at).load(Ordering::Acquire)
    }

    /// Stores the word at `at` (Release): all stores before it are visible to whoever sees it.
    ///
    /// # Panics
    /// If the word leaves the memory or is not 8-aligned.
    #[inline]
    pub fn store(&mut self, at: usize, value: u64) {
        #[cfg(test)]
        self.record_store(at, value);
        self.word(at).store(value, Ordering::Release);
    }

    fn new(memory: Memory) -> Self {
        Self {
            memory,
            #[cfg(test)]
            journal: None,
        }
    }

    #[inline]
    fn word(&self, at: usize) -> &AtomicU64 {
        self.check(at, 8);
        assert!(at.is_multiple_of(8), "a word is 8-aligned");
        // SAFETY: the word lies within the mapping (checked above).
        let word = unsafe { self.base().add(at) };
        // SAFETY: the mapping is page- or line-aligned and `at` a multiple of 8, so the word is
        // aligned; it lives as long as `self`; within this process every access that could
        // race with it needs `&mut self`.
        unsafe { AtomicU64::from_ptr(word.cast()) }
    }

    #[inline]
    fn base(&self) -> *mut u8 {
        match &self.memory {
            Memory::File { map, .. } => map.as_mut_ptr(),
            // The lines are made of atomics, so writing through a shared pointer is allowed.
            Memory::Heap(lines) => lines.as_ptr().cast_mut().cast(),
        }
    }

    #[inline]
    fn check(&self, at: usize, len: usize) {
        let end = at.checked_add(len);
        assert!(
            end.is_some_and(|end| end <= self.len()),
            "the range lies within the ring's memory"
        );
    }
}

/// Bytes that are free in the file system which `at` lies in; all there can be if it has no limit.
///
/// # Errors
/// If the system refuses to tell.
pub fn room(at: &Path) -> io::Result<u64> {
    room_of(&File::open(at)?)
}

/// Bytes that opening a ring's file would take from its file system. One that is there keeps its
/// length, and has as a rule taken all of it.
#[must_use]
pub fn bytes_to_take(path: &Path, len: u64) -> u64 {
    match fs::metadata(path) {
        Ok(there) if there.len() > 0 => lacks(&there),
        _ => len,
    }
}

/// Maps the file and takes its room from its file system, all of it. Else a store to a page that
/// cannot be had would end the process by SIGBUS, much later.
fn map_reserved(file: &File, pages: Pages) -> Result<MmapRaw, OpenError> {
    let map = MmapOptions::new().map_raw(file)?;
    let no_room = OpenError::NoRoom {
        bytes: map.len() as u64,
    };
    if pages.huge {
        // To reserve makes small pages, so huge ones are touched before. What is too much must be
        // known before that: it would take all the memory there is.
        if lacks(&file.metadata()?) > room_of(file)? {
            return Err(no_room);
        }
        // A kernel or a file system without huge pages uses small ones; what cannot be touched, or
        // by an old kernel not at once, is reserved next or refused.
        let _ = map.advise(Advice::HugePage);
        let _ = map.advise(Advice::PopulateWrite);
    }
    if !reserve(file)? {
        return Err(no_room);
    }
    if pages.prefault && !pages.huge {
        // An old kernel cannot; then the pages come as they are touched.
        let _ = map.advise(Advice::PopulateWrite);
    }
    Ok(map)
}

/// False if there is not enough room.
fn reserve(file: &File) -> Result<bool, OpenError> {
    let metadata = file.metadata()?;
    let bytes = metadata.len();
    if lacks(&metadata) == 0 {
        return Ok(true); // as a rule: to ask for what it has takes a look at every page of it
    }
    let len = libc::off_t::try_from(bytes).map_err(|_| OpenError::NotARing)?;
    loop {
        // SAFETY: the descriptor is open while `file` is borrowed, and no memory is handed over.
        match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, len) } {
            0 => return Ok(true),
            libc::EINTR => {}
            libc::EOPNOTSUPP | libc::EINVAL => return write_all_blocks(file, bytes),
            libc::ENOSPC => return Ok(false),
            error => return Err(io::Error::from_raw_os_error(error).into()),
        }
    }
}

/// As `reserve`, where the file system cannot: writes a byte of each block as it is.
fn write_all_blocks(file: &File, bytes: u64) -> Result<bool, OpenError> {
    for at in (0..bytes).step_by(BLOCK) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        match file.write_all_at(&byte, at) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

/// Bytes of a file that its file system has not given yet.
fn lacks(file: &fs::Metadata) -> u64 {
    file.len().saturating_sub(file.blocks() * 512)
}

fn room_of(file: &File) -> io::Result<u64> {
    let mut found = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the descriptor is open while `file` is borrowed, and `found` has room for the answer.
    if unsafe { libc::fstatvfs(file.as_raw_fd(), found.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it has written all of the answer.
    let found = unsafe { found.assume_init() };
    // A tmpfs without a limit says that it has no blocks at all.
    Ok(match found.f_blocks {
        0 => u64::MAX,
        _ => found.f_bavail.saturating_mul(found.f_frsize),
    })
}

/// Blocks of a file system are no smaller.
const BLOCK: usize = 512;

/// Memory of one ring as another process sees it: read-only and changing underfoot.
#[derive(Debug)]
pub struct Window {
    memory: MmapRaw,
}

impl Window {
    /// Maps an existing file to read.
    ///
    /// # Errors
    /// `Io` if the system refuses, `NotARing` if the file is shorter than a cache line.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let file = File::open(path)?;
        let memory = MmapOptions::new().map_raw_read_only(&file)?;
        if memory.len() < HEADER {
            return Err(OpenError::NotARing);
        }
        Ok(Self { memory })
    }

    /// Bytes of memory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.memory.len()
    }

    /// Whether there is no memory at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.memory.len() == 0
    }

    /// Loads the word at `at` (Acquire), or nothing if it leaves the memory or is not aligned.
    #[must_use]
    pub fn load(&self, at: usize) -> Option<u64> {
        let end = at.checked_add(8)?;
        if end > self.memory.len() || !at.is_multiple_of(8) {
            return None;
        }
        // SAFETY: the word lies within the mapping (checked above).
        let word = unsafe { self.memory.as_mut_ptr().add(at) };
        // SAFETY: the mapping is page-aligned and `at` a multiple of 8; the mapping lives as long
        // as `self`; an atomic load may race with the writer's stores in the other process.
        let word = unsafe { AtomicU64::from_ptr(word.cast()) };
        Some(word.load(Ordering::Acquire))
    }

    /// Copies `len` bytes from `at` into `into`; false if they leave the memory.
    /// The copy may be torn: only a checksum over it tells.
    #[must_use]
    pub fn copy(&self, at: usize, len: usize, into: &mut Vec<u8>) -> bool {
        into.clear();
        for offset in (0..len).step_by(8) {
            let Some(word) = self.load(at + offset) else {
                return false;
            };
            into.extend_from_slice(&word.to_le_bytes());
        }
        into.truncate(len);
        true
    }
}

#[derive(Debug)]
enum Memory {
    File { map: MmapRaw, _lock: File },
    Heap(Box<[Line]>),
}

/// A cache line of heap, so that records are aligned as in a file.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "reached through a pointer")] [AtomicU64; 8]);

const _: () = assert!(size_of::<Line>() == HEADER && align_of::<Line>() == HEADER);
const _: () = assert!(
    cfg!(target_endian = "little"),
    "words are stored as they are in memory"
);

/// Remembers the order in which stores became visible, so that tests can stop between any two.
#[cfg(test)]
pub(crate) mod journal {
    use std::cell::Cell;

    use super::Map;

    thread_local! {
        /// One order for the stores to both files of a pair.
        static CLOCK: Cell<u64> = const { Cell::new(0) };
    }

    /// One atomic store, and the plain stores to the same memory since the one before it.
    #[derive(Clone, Debug)]
    pub(crate) struct Step {
        pub(crate) order: u64,
        pub(crate) plain: Vec<(usize, Vec<u8>)>,
        pub(crate) at: usize,
        pub(crate) value: u64,
    }

    #[derive(Debug)]
    pub(crate) struct Journal {
        shadow: Vec<u8>,
        steps: Vec<Step>,
    }

    impl Map {
        /// Starts to remember.
        pub(crate) fn journal_start(&mut self) {
            let shadow = self.bytes(0, self.len()).to_vec();
            self.journal = Some(Journal {
                shadow,
                steps: Vec::new(),
            });
        }

        /// Hands out what was remembered and goes on.
        pub(crate) fn journal_take(&mut self) -> Vec<Step> {
            self.journal
                .as_mut()
                .map(|journal| std::mem::take(&mut journal.steps))
                .unwrap_or_default()
        }

        pub(super) fn record_store(&mut self, at: usize, value: u64) {
            let Some(mut journal) = self.journal.take() else {
                return;
            };
            let now = self.bytes(0, self.len());
            let mut plain = Vec::new();
            for (line, bytes) in now.chunks(64).enumerate() {
                let range = line * 64..line * 64 + bytes.len();
                if journal.shadow[range.clone()] != *bytes {
                    plain.push((range.start, bytes.to_vec()));
                    journal.shadow[range].copy_from_slice(bytes);
                }
            }
            journal.shadow[at..at + 8].copy_from_slice(&value.to_le_bytes());
            let order = CLOCK.replace(CLOCK.get() + 1);
            journal.steps.push(Step {
                order,
                plain,
                at,
                value,
            });
            self.journal = Some(journal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heap_memory_is_zeroed_line_aligned_and_rounded_up() {
        let map = Map::heap(100);
        assert_eq!(map.len(), 128);
        assert!(map.bytes(0, 128).iter().all(|&byte| byte == 0));
        assert!(map.bytes(0, 1).as_ptr().cast::<Line>().is_aligned());
    }

    #[test]
    fn words_and_bytes_show_the_same_memory() {
        let mut map = Map::heap(64);
        map.store(8, 0x0102_0304_0506_0708);
        assert_eq!(map.bytes(8, 8), [8, 7, 6, 5, 4, 3, 2, 1]);
        map.bytes_mut(16, 8).copy_from_slice(&7_u64.to_le_bytes());
        assert_eq!(map.load(16), 7);
    }

    #[test]
    #[should_panic(expected = "within the ring's memory")]
    fn a_range_beyond_the_memory_panics() {
        let _ = Map::heap(64).bytes(60, 5);
    }

    #[test]
    #[should_panic(expected = "within the ring's memory")]
    fn a_range_that_overflows_panics() {
        let _ = Map::heap(64).bytes(usize::MAX, 2);
    }

    #[test]
    #[should_panic(expected = "8-aligned")]
    fn an_unaligned_word_panics() {
        let _ = Map::heap(64).load(4);
    }

    #[test]
    #[cfg_attr(miri, ignore = "maps a file")]
    fn a_second_writer_is_refused_and_a_reader_is_not() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("deep/ring");
        let mut map = Map::file(&path, 4096, Pages::default()).expect("a new file");
        map.store(0, 42);
        assert_eq!(
            Map::file(&path, 4096, Pages::default()).map(|_| ()),
            Err(OpenError::Locked)
        );
        let window = Window::open(&path).expect("the file exists");
        assert_eq!(window.load(0), Some(42));
        assert_eq!(window.load(4092), None);
        assert_eq!(window.load(4096), None);
        drop(map);
        let map = Map::file(&path, 64, Pages::default()).expect("the lock is gone");
        assert_eq!((map.len(), map.load(0)), (4096, 42));
    }

    #[test]
    #[cfg_attr(miri, ignore = "maps a file")]
    fn a_file_system_that_is_too_small_says_so_at_once() {
        let dir = tempfile::tempdir_in("/dev/shm").expect("a tmpfs");
        let (path, bytes) = (dir.path().join("ring"), 8_usize << 40);
        for huge in [false, true] {
            let prefault = huge;
            let refused = Map::file(&path, bytes, Pages { prefault, huge }).map(|_| ());
            let bytes = bytes as u64;
            assert_eq!(refused, Err(OpenError::NoRoom { bytes }));
            assert_eq!(
                bytes_to_take(&path, bytes),
                bytes,
                "it is as if it were not there"
            );
        }
        assert!(Map::file(&path, 4096, Pages::default()).is_ok());
    }

    #[test]
    #[cfg_attr(miri, ignore = "maps a file")]
    fn all_of_a_file_is_taken_at_once_with_and_without_huge_pages() {
        let dir = tempfile::tempdir_in("/dev/shm").expect("a tmpfs");
        for huge in [false, true] {
            let (path, bytes) = (dir.path().join(format!("{huge}")), 3 << 20);
            assert_eq!(bytes_to_take(&path, bytes), bytes);
            let prefault = false;
            let map = Map::file(&path, bytes as usize, Pages { prefault, huge });
            assert_eq!(map.expect("room").bytes(0, 9), [0; 9]);
            assert_eq!(bytes_to_take(&path, bytes), 0);
        }
        let free = room(dir.path()).expect("it tells");
        assert!((1 << 20..8 << 40).contains(&free), "{free}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "writes a file")]
    fn a_file_system_that_cannot_reserve_is_written_to() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("ring");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        let file = options.open(&path).expect("a new file");
        file.write_all_at(b"kept", 5000).expect("room");
        file.set_len(100_000).expect("room");
        assert_eq!(write_all_blocks(&file, 100_000), Ok(true));
        let bytes = fs::read(&path).expect("readable");
        assert_eq!((bytes.len(), &bytes[5000..5004]), (100_000, &b"kept"[..]));
        assert_eq!(bytes.iter().filter(|&&byte| byte != 0).count(), 4);
    }

    #[test]
    #[cfg_attr(miri, ignore = "maps a file")]
    fn a_missing_file_is_an_error_for_a_reader() {
        let error = Window::open(Path::new("/nonexistent/ring")).map(|_| ());
        assert_eq!(error, Err(OpenError::Io(std::io::ErrorKind::NotFound)));
    }
}
