//! A node as a member of a cluster: who may act, whose calls are whose, and where a message goes.
//!
//! ```text
//!   membership (one thread)                shards (one thread each)
//!   ┌──────────────────────────┐   Board   ┌───────────────────────────────┐
//!   │ Views: heartbeats, votes │──────────▶│ ClusterStore: Ring, Replicator│
//!   │ lease, adoption          │◀──────────│ synced, settled, resumed      │
//!   └──────────────────────────┘           └───────────────────────────────┘
//!        │ base port                              │ base port + 1 + shard
//!        └── other nodes' membership              └── the same shard of other nodes
//! ```
//!
//! The membership decides with the other nodes who is a member, and lends the shards the right to
//! act for a fraction of a second at a time ([`Board`]). A shard that has it takes calls and
//! charges them; what it promises to the world waits until enough members hold the state behind
//! it. Everything here is sans-IO.

mod board;
mod forward;
mod keys;
mod membership;
mod store;

pub use board::{Board, ns_of};
pub use forward::{Claims, Forward, HOPS, claimed_keys};
pub use keys::KeyFile;
pub use membership::{Membership, MembershipConfig, MembershipReport};
pub use store::{ClusterStore, ClusterStoreParts, add_ring};
