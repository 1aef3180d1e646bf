//! Charging data functions and the virtual TCP connections to them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use charging::diameter::base::Identity;
use charging::diameter::peer::PeerConfig;
use charging::server::{Cdf, CdfConfig, ConnectionId, MemoryCdfStore};

/// One CDF and the connections of the shards to it.
pub struct Far {
    /// The CDF itself.
    pub cdf: Cdf<MemoryCdfStore>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Connections are refused and the open ones cut.
    pub is_down: bool,
    /// Octets of open connections do not arrive, and nobody is told.
    pub is_black: bool,
    /// Connections by shard.
    pub links: BTreeMap<usize, Link>,
    /// Delay of octets each way, milliseconds.
    pub delay: u64,
}

/// One connection.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Number of the connection at the CDF.
    pub id: ConnectionId,
    /// Octets got lost: it can only be closed.
    pub broken: bool,
    /// When the last octets towards the CDF arrive, and those from it: a stream keeps its order.
    pub last: [u64; 2],
}

impl Link {
    /// When octets that leave now arrive; `way` is 0 towards the CDF, 1 from it.
    pub fn arrival(&mut self, way: usize, at: u64) -> u64 {
        self.last[way] = self.last[way].max(at);
        self.last[way]
    }
}

impl Far {
    /// A CDF that listens on `address` and tells clients that interim interval.
    #[must_use]
    pub fn new(number: usize, address: SocketAddr, interim_interval_s: Option<u32>) -> Self {
        let config = CdfConfig {
            identity: identity(&format!("cdf{number}.example"), 1),
            peer: PeerConfig::default(),
            connections_max: 64,
            interim_interval_s,
        };
        Self {
            cdf: Cdf::new(config, MemoryCdfStore::default(), number as u64),
            address,
            is_down: false,
            is_black: false,
            links: BTreeMap::new(),
            delay: 2,
        }
    }
}

/// A Diameter identity.
#[must_use]
pub fn identity(host: &str, state: u32) -> Identity {
    Identity {
        origin_host: host.to_owned(),
        origin_realm: "example".to_owned(),
        host_addresses: vec![[192, 0, 2, 7].into()],
        vendor_id: 0,
        product_name: "ringtoll".to_owned(),
        firmware_revision: None,
        origin_state_id: Some(state),
    }
}
