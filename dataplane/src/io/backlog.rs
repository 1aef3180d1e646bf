//! The backlog's log in files: segments that are only appended to, and removed from the front.
//!
//! A record is in the kernel's hands when `append` returns: it survives the process. Segments
//! are synchronised to the device when they are full and when the node stops; what the power
//! takes is bounded by one segment.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use charging::rf::backlog::{Backlog, BacklogConfig, BacklogStore, StoreError};
use charging::rf::log::{self, Location, Recovery};

use crate::shard::AnyStore;

/// The log of one shard.
pub(super) struct FileStore {
    dir: PathBuf,
    segments: VecDeque<Segment>,
    places: HashMap<u64, Location>,
    frame: Vec<u8>,
}

struct Segment {
    number: u64,
    file: File,
    len: u64,
    live: u64,
}

/// Opens the backlog of a shard with what an earlier run left in it.
pub(super) fn open(dir: &Path, config: BacklogConfig) -> io::Result<Backlog<AnyStore>> {
    let (mut store, live, next) = FileStore::open(dir)?;
    let mut records = Vec::with_capacity(live.len());
    for sequence in live {
        let mut acr = Vec::new();
        if store.read(sequence, &mut acr).is_ok() {
            records.push((sequence, acr));
        }
    }
    let mut backlog = Backlog::new(config, AnyStore(Box::new(store)), next);
    for (sequence, acr) in records {
        backlog.recover(sequence, &acr);
    }
    Ok(backlog)
}

impl FileStore {
    fn open(dir: &Path) -> io::Result<(Self, Vec<u64>, u64)> {
        fs::create_dir_all(dir)?;
        let mut numbers: Vec<u64> = fs::read_dir(dir)?
            .filter_map(|entry| {
                let name = entry.ok()?.file_name();
                name.to_str()?.strip_suffix(SUFFIX)?.parse().ok()
            })
            .collect();
        numbers.sort_unstable();
        let mut recovery = Recovery::default();
        let mut segments = VecDeque::new();
        for number in numbers {
            let path = dir.join(format!("{number:012}{SUFFIX}"));
            let bytes = fs::read(&path)?;
            let len = recovery.scan(number, &bytes) as u64;
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            // A torn tail is cut off, so that what is appended can be found again.
            file.set_len(len)?;
            segments.push_back(Segment {
                number,
                file,
                len,
                live: 0,
            });
        }
        let places: BTreeMap<u64, Location> = recovery.live().collect();
        for location in places.values() {
            if let Some(segment) = segments
                .iter_mut()
                .find(|segment| segment.number == location.segment)
            {
                segment.live += 1;
            }
        }
        let live: Vec<u64> = places.keys().copied().collect();
        let next = recovery.next_sequence();
        let store = Self {
            dir: dir.to_owned(),
            segments,
            places: places.into_iter().collect(),
            frame: Vec::new(),
        };
        Ok((store, live, next))
    }

    fn write_frame(&mut self) -> Result<(u64, u64), StoreError> {
        let full = self
            .segments
            .back()
            .is_none_or(|last| last.len >= SEGMENT_LEN);
        if full {
            self.begin_segment().map_err(store_error)?;
        }
        let frame = &self.frame;
        let segment = self.segments.back_mut().ok_or(StoreError::Failed)?;
        let start = segment.len;
        segment
            .file
            .write_all_at(frame, start)
            .map_err(store_error)?;
        segment.len += frame.len() as u64;
        Ok((segment.number, start))
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        if let Some(last) = self.segments.back_mut() {
            last.file.flush()?;
            last.file.sync_data()?;
        }
        let number = self.segments.back().map_or(1, |last| last.number + 1);
        let path = self.dir.join(format!("{number:012}{SUFFIX}"));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)?;
        self.segments.push_back(Segment {
            number,
            file,
            len: 0,
            live: 0,
        });
        Ok(())
    }

    // Segments leave from the front only: a delete may name a put of any earlier one.
    fn drop_spent(&mut self) {
        while self.segments.len() > 1 && self.segments[0].live == 0 {
            if let Some(spent) = self.segments.pop_front() {
                let _ = fs::remove_file(self.dir.join(format!("{:012}{SUFFIX}", spent.number)));
            }
        }
    }
}

impl BacklogStore for FileStore {
    fn append(&mut self, sequence: u64, acr: &[u8]) -> Result<(), StoreError> {
        self.frame.clear();
        log::encode_put(&mut self.frame, sequence, acr);
        let (segment, start) = self.write_frame()?;
        let offset = start as usize + log::FRAME_HEADER_LENGTH;
        self.places.insert(
            sequence,
            Location {
                segment,
                offset,
                length: acr.len(),
            },
        );
        if let Some(last) = self.segments.back_mut() {
            last.live += 1;
        }
        Ok(())
    }

    fn read(&mut self, sequence: u64, out: &mut Vec<u8>) -> Result<(), StoreError> {
        let place = self.places.get(&sequence).ok_or(StoreError::Failed)?;
        let segment = self
            .segments
            .iter()
            .find(|segment| segment.number == place.segment)
            .ok_or(StoreError::Failed)?;
        out.clear();
        out.resize(place.length, 0);
        segment
            .file
            .read_exact_at(out, place.offset as u64)
            .map_err(store_error)
    }

    fn remove(&mut self, sequence: u64) -> Result<(), StoreError> {
        let place = self.places.remove(&sequence).ok_or(StoreError::Failed)?;
        if let Some(segment) = self
            .segments
            .iter_mut()
            .find(|segment| segment.number == place.segment)
        {
            segment.live -= 1;
        }
        self.frame.clear();
        log::encode_delete(&mut self.frame, sequence);
        self.write_frame()?;
        self.drop_spent();
        Ok(())
    }
}

impl Drop for FileStore {
    fn drop(&mut self) {
        if let Some(last) = self.segments.back_mut() {
            let _ = last.file.sync_data();
        }
    }
}

fn store_error(error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full,
        _ => StoreError::Failed,
    }
}

/// Bytes after which a new segment begins.
const SEGMENT_LEN: u64 = 16 << 20;
const SUFFIX: &str = ".acr";

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(dir: &Path) -> Vec<(u64, Vec<u8>)> {
        let (mut store, live, _) = FileStore::open(dir).expect("the log opens");
        live.into_iter()
            .map(|sequence| {
                let mut out = Vec::new();
                store
                    .read(sequence, &mut out)
                    .expect("a live record is readable");
                (sequence, out)
            })
            .collect()
    }

    #[test]
    fn what_was_kept_is_there_after_a_restart_and_what_was_removed_is_not() {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let (mut store, live, next) = FileStore::open(dir.path()).expect("an empty log opens");
        assert!(live.is_empty());
        for sequence in next..next + 3 {
            store
                .append(sequence, &[sequence as u8; 100])
                .expect("there is room");
        }
        store.remove(next + 1).expect("it is there");
        std::mem::forget(store); // as after kill -9: nothing is closed or synchronised
        let left = contents(dir.path());
        assert_eq!(
            left,
            vec![
                (next, vec![next as u8; 100]),
                (next + 2, vec![next as u8 + 2; 100])
            ]
        );
    }

    #[test]
    fn a_torn_tail_costs_only_itself() {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let (mut store, _, next) = FileStore::open(dir.path()).expect("an empty log opens");
        store.append(next, b"first").expect("there is room");
        store.append(next + 1, b"second").expect("there is room");
        let segment = &store.segments[0];
        segment
            .file
            .set_len(segment.len - 5)
            .expect("the file can be cut");
        drop(store);
        let (mut store, live, again) = FileStore::open(dir.path()).expect("a torn log opens");
        assert_eq!(live, vec![next]);
        store.append(again, b"third").expect("there is room");
        drop(store);
        assert_eq!(
            contents(dir.path()).last(),
            Some(&(again, b"third".to_vec()))
        );
    }
}
