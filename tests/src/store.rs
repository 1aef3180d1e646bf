//! What survives the process of a shard: the states of its calls and its undelivered records.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use charging::rf::backlog::{BacklogStore, StoreError};
use dataplane::b2bua::{CallState, SCHEMA};
use dataplane::store::{Blob, BlobStore, Stored};

/// The committed states of a shard's calls; clones share them.
#[derive(Clone, Default)]
pub struct Blobs {
    kept: Rc<RefCell<BTreeMap<u128, Vec<u8>>>>,
    /// A planted fault: commits are confirmed and forgotten.
    pub forgets: Rc<RefCell<bool>>,
    /// There is no room for anything.
    pub full: Rc<RefCell<bool>>,
}

impl Blobs {
    /// The newest committed state of a call.
    ///
    /// # Panics
    /// When the blob cannot be read back, or reads as something else than was written.
    #[must_use]
    pub fn state(&self, call: u128) -> Option<CallState> {
        let kept = self.kept.borrow();
        kept.get(&call).map(|blob| restore(blob))
    }

    /// All states, as a restart finds them.
    #[must_use]
    pub fn states(&self) -> Vec<CallState> {
        self.kept
            .borrow()
            .values()
            .map(|blob| restore(blob))
            .collect()
    }

    /// The bytes of a call's newest committed state.
    #[must_use]
    pub fn bytes(&self, call: u128) -> Option<Vec<u8>> {
        self.kept.borrow().get(&call).cloned()
    }

    /// Number of calls kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept.borrow().len()
    }

    /// Whether no call is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The archived form of a state.
///
/// # Panics
/// When it cannot be archived.
#[must_use]
pub fn archive(state: &CallState) -> Vec<u8> {
    rkyv::to_bytes::<rkyv::rancor::Error>(state)
        .expect("a state can be archived")
        .to_vec()
}

fn restore(blob: &[u8]) -> CallState {
    let mut aligned = rkyv::util::AlignedVec::<16>::new();
    aligned.extend_from_slice(blob);
    rkyv::from_bytes::<CallState, rkyv::rancor::Error>(&aligned).expect("a blob reads as it was")
}

impl BlobStore for Blobs {
    fn commit(&mut self, call: u128, blob: Blob<'_>) -> Stored {
        assert_eq!(blob.schema, SCHEMA);
        if *self.full.borrow() {
            return Stored::Full;
        }
        let blob = blob.bytes;
        let read = restore(blob);
        assert_eq!(read.id, call, "the blob of another call");
        assert_eq!(
            archive(&read),
            blob,
            "the blob does not come back as it went"
        );
        if !*self.forgets.borrow() {
            self.kept.borrow_mut().insert(call, blob.to_vec());
        }
        Stored::Safe
    }

    fn retire(&mut self, call: u128) {
        self.kept.borrow_mut().remove(&call);
    }

    fn is_open(&self) -> bool {
        true
    }

    fn has_room(&self) -> bool {
        !*self.full.borrow()
    }

    fn fill_percent(&self) -> u32 {
        0
    }

    fn set_now(&mut self, _now: charging::time::Now) {}

    fn reclaim(&mut self) -> bool {
        false
    }
}

/// The undelivered records of a shard; clones share them.
#[derive(Clone, Default)]
pub struct Records(Rc<RefCell<BTreeMap<u64, Vec<u8>>>>);

impl Records {
    /// The records in their order.
    #[must_use]
    pub fn all(&self) -> Vec<(u64, Vec<u8>)> {
        self.0
            .borrow()
            .iter()
            .map(|(sequence, acr)| (*sequence, acr.clone()))
            .collect()
    }
}

impl BacklogStore for Records {
    fn append(&mut self, sequence: u64, acr: &[u8]) -> Result<(), StoreError> {
        self.0.borrow_mut().insert(sequence, acr.to_vec());
        Ok(())
    }

    fn read(&mut self, sequence: u64, out: &mut Vec<u8>) -> Result<(), StoreError> {
        let records = self.0.borrow();
        let record = records.get(&sequence).ok_or(StoreError::Failed)?;
        out.clear();
        out.extend_from_slice(record);
        Ok(())
    }

    fn remove(&mut self, sequence: u64) -> Result<(), StoreError> {
        self.0
            .borrow_mut()
            .remove(&sequence)
            .map(|_| ())
            .ok_or(StoreError::Failed)
    }
}
