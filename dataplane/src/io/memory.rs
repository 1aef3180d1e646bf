//! What lies in `state_dir` before a node starts: rings of shards that it does not have any more.

use std::fs;
use std::path::{Path, PathBuf};

use replication::Reader;

use super::NodeError;
use super::node::boot_id;
use crate::config::Config;

/// Refuses a configuration that would lose calls: with fewer cores than before nobody would look
/// into the rings of the shards that are gone.
pub fn check_rings(config: &Config) -> Result<(), NodeError> {
    rings_without_shard(config).map(drop)
}

/// As [`check_rings`]; removes such rings if they hold no call.
pub(super) fn remove_rings_without_shard(config: &Config) -> Result<(), NodeError> {
    for file in rings_without_shard(config)? {
        tracing::info!(file = %file.display(), "a ring without calls and without a shard goes");
        for ring in [file.with_extension("old"), file] {
            fs::remove_file(&ring).map_err(|error| NodeError::File(ring, error))?;
        }
    }
    Ok(())
}

// The young files of rings that no shard opens, none of which holds a call.
fn rings_without_shard(config: &Config) -> Result<Vec<PathBuf>, NodeError> {
    let node = config.node_number();
    let state_dir = &config.node.state_dir;
    let Ok(files) = fs::read_dir(state_dir.join(node.to_string())) else {
        return Ok(Vec::new()); // there is none yet
    };
    let shards = config.node.cores.len().max(1);
    let mut unused = Vec::new();
    for path in files.flatten().map(|file| file.path()) {
        let is_young = path.extension().is_some_and(|end| end == "young");
        let Some(shard) = shard_of(&path).filter(|&shard| is_young && usize::from(shard) >= shards)
        else {
            continue;
        };
        // What cannot be read, or is of another boot, holds nothing to go on with.
        let held = Reader::open(state_dir, node, shard)
            .ok()
            .filter(|reader| reader.info().boot_id == boot_id())
            .map_or(0, |reader| reader.snapshot().len());
        if held > 0 {
            return Err(NodeError::RingWithoutShard {
                file: path,
                calls: held,
                shards,
                wanted: usize::from(shard) + 1,
            });
        }
        unused.push(path);
    }
    Ok(unused)
}

fn shard_of(path: &Path) -> Option<u16> {
    path.file_stem()?.to_str()?.parse().ok()
}
