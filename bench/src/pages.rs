//! The admin pages of a node, as a program reads them.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// The pages at one admin address.
#[derive(Clone, Copy, Debug)]
pub struct Pages {
    admin: SocketAddr,
}

impl Pages {
    /// Those of the node with this admin address.
    #[must_use]
    pub const fn new(admin: SocketAddr) -> Self {
        Self { admin }
    }

    /// Whether the node takes calls.
    ///
    /// # Errors
    /// The admin page does not answer.
    pub fn is_ready(&self) -> io::Result<bool> {
        Ok(self.page("/readyz")?.starts_with("HTTP/1.1 200"))
    }

    /// CPU time of all shards so far, seconds.
    ///
    /// # Errors
    /// The admin page does not answer or lacks the figure.
    pub fn shard_cpu_s(&self) -> io::Result<f64> {
        self.metric("ringtoll_shard_cpu_seconds")
    }

    /// A metric, summed over the shards.
    ///
    /// # Errors
    /// The admin page does not answer or lacks the figure.
    pub fn metric(&self, name: &str) -> io::Result<f64> {
        let page = self.page("/metrics")?;
        let values: Vec<f64> = page
            .lines()
            .filter(|line| line.split(['{', ' ']).next() == Some(name))
            .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
            .collect();
        if values.is_empty() {
            return Err(io::Error::other(format!("/metrics has no {name}")));
        }
        Ok(values.iter().sum())
    }

    /// How long datagrams waited between two shards: adds to each bound in microseconds how many
    /// waited no longer.
    ///
    /// # Errors
    /// The admin page does not answer.
    pub fn add_hand_over_waits(&self, waits: &mut Vec<(f64, u64)>) -> io::Result<()> {
        for line in self.page("/metrics")?.lines() {
            let Some(rest) = line.strip_prefix("ringtoll_hand_over_wait_seconds_bucket{") else {
                continue;
            };
            let bound: Option<f64> = rest
                .split_once("le=\"")
                .and_then(|(_, rest)| rest.split('"').next()?.replace('+', "").parse().ok());
            let count = rest.rsplit(' ').next().and_then(|count| count.parse().ok());
            if let (Some(bound), Some(count)) = (bound, count) {
                let bound = bound * 1e6;
                match waits.iter_mut().find(|(known, _)| *known == bound) {
                    Some((_, sum)) => *sum += count,
                    None => waits.push((bound, count)),
                }
            }
        }
        Ok(())
    }

    /// Calls that the node has adopted since it started.
    ///
    /// # Errors
    /// The admin page does not answer, or the node is in no cluster.
    pub fn calls_adopted(&self) -> io::Result<u64> {
        self.of_shards("calls_adopted")
    }

    /// A number of the page `/cluster`, of all shards.
    ///
    /// # Errors
    /// The admin page does not answer, or the node is in no cluster.
    pub fn of_shards(&self, name: &str) -> io::Result<u64> {
        let shards = self.cluster()?;
        let shards = shards["shards"].as_array().cloned().unwrap_or_default();
        Ok(shards.iter().filter_map(|shard| shard[name].as_u64()).sum())
    }

    /// Whether the node stands in a view with `members` members that all serve.
    ///
    /// # Errors
    /// The admin page does not answer, or the node is in no cluster.
    pub fn is_whole(&self) -> io::Result<bool> {
        let page = self.cluster()?;
        let members = page["members"].as_array().cloned().unwrap_or_default();
        let all = members.iter().all(|member| member["standing"] == "alive");
        Ok(!members.is_empty() && all)
    }

    /// The page `/cluster`.
    ///
    /// # Errors
    /// The admin page does not answer, or the node is in no cluster.
    pub fn cluster(&self) -> io::Result<Value> {
        let page = self.page("/cluster")?;
        let (_, body) = page.split_once("\r\n\r\n").unwrap_or_default();
        serde_json::from_str(body).map_err(io::Error::other)
    }

    fn page(&self, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.admin, PAGE_TIMEOUT)?;
        stream.set_read_timeout(Some(PAGE_TIMEOUT))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n"
        )?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    }
}

const PAGE_TIMEOUT: Duration = Duration::from_secs(5);
