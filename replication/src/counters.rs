//! What a ring has done, as plain numbers with one writer.

/// Counters of one ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounters {
    /// Whole versions written.
    pub puts: u64,
    /// Versions written by altering the newest in place.
    pub updates: u64,
    /// Calls ended.
    pub retires: u64,
    /// Writes refused for want of room.
    pub put_refused: u64,
    /// Other nodes' records stored.
    pub apply_stored: u64,
    /// Other nodes' records older than what is held.
    pub apply_stale: u64,
    /// Other nodes' records held already.
    pub apply_duplicate: u64,
    /// Other nodes' records with a held version but other content.
    pub apply_conflict: u64,
    /// Tombstones that reached the young tail and were dropped.
    pub tombstones_dropped: u64,
    /// Of these, before the cluster was settled, for there were too many.
    pub tombstones_dropped_early: u64,
    /// Tombstones that reached it and went round once more.
    pub tombstones_kept: u64,
    /// Bytes of records written.
    pub bytes_appended: u64,
    /// Bytes copied from the young to the old ring.
    pub bytes_promoted: u64,
    /// Bytes copied within the old ring.
    pub bytes_relocated: u64,
    /// Most records one append had to reclaim in the young ring.
    pub reclaim_burst_max: u32,
    /// Most records one promotion had to reclaim in the old ring.
    pub reclaim_old_burst_max: u32,
    /// Times reclaim found no room; always 0 unless admission is broken.
    pub reclaim_stuck: u64,
}

impl RingCounters {
    /// Bytes written to memory per byte of record appended.
    #[must_use]
    pub fn write_amplification(&self) -> f64 {
        let copied = self.bytes_promoted + self.bytes_relocated;
        (self.bytes_appended + copied) as f64 / self.bytes_appended.max(1) as f64
    }
}
