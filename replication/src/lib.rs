//! Shared-memory rings of call state and their replication to peer nodes, sans-IO.
