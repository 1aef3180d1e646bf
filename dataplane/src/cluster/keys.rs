//! The key file of a cluster, the same on every node.
//!
//! ```text
//! token 00112233445566778899aabbccddeeff      call tokens; stays while calls live
//! key   <64 hex digits>                       what is sent between nodes is sealed under this one
//! key   <64 hex digits>                       further keys that are accepted (rotation)
//! ```
//!
//! Rotation without interruption: add the new key second on every node and have the file read
//! again (SIGHUP), then put it first everywhere, then drop the old one. A file with nothing but
//! 64 hex digits is one key; its token is then derived from it, and rotating it ends calls.

use ring::digest::{SHA256, digest};

use replication::ClusterKeys;

/// What the file says.
#[derive(Clone, Copy)]
pub struct KeyFile {
    /// Keys of the seals.
    pub keys: ClusterKeys,
    /// Key of the call tokens.
    pub token: [u8; 16],
    /// Number of the cluster: datagrams of another one are not even opened.
    pub cluster: u32,
}

impl KeyFile {
    /// Reads the text of the file.
    ///
    /// # Errors
    /// Says which line is wrong and what belongs there. No key is shown.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut keys: Vec<[u8; 32]> = Vec::new();
        let mut token = None;
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let mut words = line.split_whitespace();
            let bad = || format!("line {}: write `key` and 64 hex digits", number + 1);
            match (words.next(), words.next(), words.next()) {
                (None, ..) => {}
                (Some("token"), Some(digits), None) => {
                    token = Some(hex::<16>(digits).ok_or_else(|| {
                        format!("line {}: write `token` and 32 hex digits", number + 1)
                    })?);
                }
                (Some("key"), Some(digits), None) | (Some(digits), None, None) => {
                    keys.push(hex(digits).ok_or_else(bad)?);
                }
                _ => return Err(bad()),
            }
        }
        let named = |key: [u8; 32]| (label(b"number", &key)[0], key);
        let (current, other) = match keys[..] {
            [current] => (named(current), None),
            [current, other] => (named(current), Some(named(other))),
            _ => return Err(format!("{} keys: write one, or two to rotate", keys.len())),
        };
        if other.is_some_and(|other| other.0 == current.0) {
            return Err("the two keys have the same number: make another one".to_owned());
        }
        let token = token.unwrap_or_else(|| first(&label(b"token", &current.1)));
        let cluster = first(&label(b"cluster", &token));
        Ok(Self {
            keys: ClusterKeys { current, other },
            token,
            cluster: u32::from_le_bytes(cluster),
        })
    }

    /// The text of a new file, from 48 random octets.
    #[must_use]
    pub fn fresh(random: &[u8; 48]) -> String {
        let digits = |bytes: &[u8]| {
            let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
            digits.collect::<String>()
        };
        format!(
            "# Keys of a ringtoll cluster: the same on every node, readable by ringtoll alone.\n\
             token {}\nkey {}\n",
            digits(&random[..16]),
            digits(&random[16..])
        )
    }
}

fn label(label: &[u8], key: &[u8]) -> [u8; 32] {
    let bytes = [b"ringtoll ", label, key].concat();
    first(digest(&SHA256, &bytes).as_ref())
}

fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    *bytes.first_chunk().expect("a digest is long enough")
}

fn hex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    if digits.len() != 2 * N || !digits.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_file_is_read_and_a_rotation_keeps_token_and_cluster() {
        let text = KeyFile::fresh(&std::array::from_fn(|n| n as u8));
        let one = KeyFile::parse(&text).expect("what was written");
        assert_eq!(one.token[15], 15);
        assert!(one.keys.other.is_none());
        let rotated = format!("{text}key {}", "ab".repeat(32));
        let two = KeyFile::parse(&rotated).expect("two keys");
        assert_eq!(two.keys.current, one.keys.current);
        assert_eq!(two.keys.other.map(|key| key.1), Some([0xab; 32]));
        assert_eq!((two.token, two.cluster), (one.token, one.cluster));
    }

    #[test]
    fn a_key_alone_will_do_and_anything_else_is_refused() {
        assert!(KeyFile::parse(&"0f".repeat(32)).is_ok());
        for bad in ["", "key 12", "token 12", "lock 12 13", &"0g".repeat(32)] {
            let error = KeyFile::parse(bad).err().expect("no key");
            assert!(!error.contains("0g"), "{error}");
        }
        let key = format!("key {}\n", "ab".repeat(32));
        assert!(KeyFile::parse(&key.repeat(2)).is_err());
        assert!(KeyFile::parse(&key.repeat(3)).is_err());
    }
}
