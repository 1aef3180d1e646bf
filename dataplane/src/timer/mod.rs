//! The hierarchical timer wheel of a shard.
