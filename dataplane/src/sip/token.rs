//! The call token: what we put into tags, branches and Contact users, and know again.
//!
//! It names the node, the shard and the call, so that a datagram finds its owner without a
//! look-up, and it carries a keyed code, so that nobody can forge or guess one.
//!
//! ```text
//!   160 bits, most significant first                         as 32 characters of base32
//!   +---------+----------+-----------+-----------------+-------------+-----------+
//!   | node 16 | shard 12 | purpose 4 | incarnation 32  | counter 48  | code 48   |
//!   +---------+----------+-----------+-----------------+-------------+-----------+
//!   \_____________________ 14 bytes under the code ________________/
//! ```
//!
//! The code is SipHash-2-4 under a 128-bit key that all nodes of a cluster share, cut to 48 bits.
//! Guessing one takes 2^47 datagrams on average, and wins no more than one look-up that fails.

use siphasher::sip::SipHasher24;

/// The length of a token's text.
pub const TOKEN_BYTES: usize = 32;
/// The highest shard a token can name.
pub const SHARD_MAX: u16 = (1 << 12) - 1;
/// The highest purpose a token can have.
pub const PURPOSE_MAX: u8 = (1 << 4) - 1;
/// The highest counter: 100,000 tokens a second for 89 years.
pub const COUNTER_MAX: u64 = (1 << 48) - 1;

/// RFC 4648 base32, in lower case: token characters all, and unharmed by a change of case.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const NOT_BASE32: u8 = 0xff;
const VALUES: [u8; 256] = values();

const fn values() -> [u8; 256] {
    let mut values = [NOT_BASE32; 256];
    let mut i = 0;
    while i < ALPHABET.len() {
        values[ALPHABET[i] as usize] = i as u8;
        values[ALPHABET[i].to_ascii_uppercase() as usize] = i as u8;
        i += 1;
    }
    values
}

/// What a token names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// The node that minted it.
    pub node: u16,
    /// The shard of that node; at most [`SHARD_MAX`].
    pub shard: u16,
    /// Which start of that node it was.
    pub incarnation: u32,
    /// Counts what the shard minted since; at most [`COUNTER_MAX`].
    pub counter: u64,
}

/// The key that tokens are minted and opened with.
#[derive(Clone, Copy)]
pub struct TokenKey {
    hasher: SipHasher24,
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("TokenKey(..)")
    }
}

impl TokenKey {
    /// The key of a cluster: the same on every node, secret outside.
    pub fn new(key: &[u8; 16]) -> TokenKey {
        TokenKey {
            hasher: SipHasher24::new_with_key(key),
        }
    }

    /// Writes the text of `token`. `purpose` keeps tokens of one kind from passing for another:
    /// a tag presented as a branch does not open as one.
    pub fn mint(&self, token: &Token, purpose: u8, out: &mut [u8; TOKEN_BYTES]) {
        assert!(
            token.shard <= SHARD_MAX,
            "a node has at most {SHARD_MAX} shards"
        );
        assert!(purpose <= PURPOSE_MAX, "a purpose has four bits");
        assert!(
            token.counter <= COUNTER_MAX,
            "a shard does not live for 89 years"
        );
        let head = u128::from(token.node) << 96
            | u128::from(token.shard) << 84
            | u128::from(purpose) << 80
            | u128::from(token.incarnation) << 48
            | u128::from(token.counter);
        encode(head, self.code(head), out);
    }

    /// Reads a token's text: the token and its purpose, or `None` if we never minted it.
    pub fn open(&self, text: &[u8]) -> Option<(Token, u8)> {
        let (head, code) = decode(text.try_into().ok()?)?;
        // One comparison of whole words: its time tells nothing about where they differ.
        if code ^ self.code(head) != 0 {
            return None;
        }
        let token = Token {
            node: (head >> 96) as u16,
            shard: (head >> 84) as u16 & SHARD_MAX,
            incarnation: (head >> 48) as u32,
            counter: head as u64 & COUNTER_MAX,
        };
        Some((token, (head >> 80) as u8 & PURPOSE_MAX))
    }

    /// Reads the token of one of our branches, `z9hG4bK` and the text.
    pub fn open_branch(&self, branch: &[u8]) -> Option<(Token, u8)> {
        self.open(branch.strip_prefix(super::MAGIC_COOKIE)?)
    }

    /// A secret that all who share the key share, for hashes that must not be foreseen.
    #[must_use]
    pub fn secret(&self) -> u64 {
        self.code(u128::MAX)
    }

    fn code(&self, head: u128) -> u64 {
        self.hasher.hash(&head.to_be_bytes()[2..]) & CODE_MASK
    }
}

const CODE_MASK: u64 = (1 << 48) - 1;
/// Five bits a character: 16 characters hold 80 bits, half a token.
const HALF_BITS: u32 = 80;
const HALF_MASK: u128 = (1 << HALF_BITS) - 1;

/// Writes the 112 bits of `head` and the 48 of `code`.
fn encode(head: u128, code: u64, out: &mut [u8; TOKEN_BYTES]) {
    let high = head >> (112 - HALF_BITS);
    let low = (head << 48 | u128::from(code)) & HALF_MASK;
    let (first, second) = out.split_at_mut(TOKEN_BYTES / 2);
    for (half, text) in [(high, first), (low, second)] {
        let mut left = half;
        for character in text.iter_mut().rev() {
            *character = ALPHABET[(left & 31) as usize];
            left >>= 5;
        }
    }
}

fn decode(text: &[u8; TOKEN_BYTES]) -> Option<(u128, u64)> {
    let mut bad = 0u8;
    let mut halves = [0u128; 2];
    for (half, characters) in halves.iter_mut().zip(text.chunks_exact(TOKEN_BYTES / 2)) {
        for &character in characters {
            let value = VALUES[usize::from(character)];
            bad |= value;
            *half = *half << 5 | u128::from(value & 31);
        }
    }
    if bad > 31 {
        return None;
    }
    let [high, low] = halves;
    Some((
        high << (112 - HALF_BITS) | low >> 48,
        low as u64 & CODE_MASK,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: Token = Token {
        node: 513,
        shard: 7,
        incarnation: 0xDEAD_BEEF,
        counter: 1 << 40,
    };

    fn key() -> TokenKey {
        TokenKey::new(b"0123456789abcdef")
    }

    #[test]
    fn a_token_opens_to_what_was_minted() {
        let limits = Token {
            node: u16::MAX,
            shard: SHARD_MAX,
            incarnation: u32::MAX,
            counter: COUNTER_MAX,
        };
        let zero = Token {
            node: 0,
            shard: 0,
            incarnation: 0,
            counter: 0,
        };
        for token in [TOKEN, limits, zero] {
            for purpose in [0, 1, PURPOSE_MAX] {
                let mut text = [0; TOKEN_BYTES];
                key().mint(&token, purpose, &mut text);
                assert_eq!(key().open(&text), Some((token, purpose)));
                let legal = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
                assert!(text.iter().all(legal));
                text.make_ascii_uppercase();
                assert_eq!(
                    key().open(&text),
                    Some((token, purpose)),
                    "case may be lost"
                );
            }
        }
    }

    #[test]
    fn no_changed_character_opens() {
        let mut text = [0; TOKEN_BYTES];
        key().mint(&TOKEN, 2, &mut text);
        for at in 0..TOKEN_BYTES {
            for &character in ALPHABET.iter().chain(b"018=-\xff") {
                let mut forged = text;
                forged[at] = character;
                assert_eq!(key().open(&forged).is_some(), forged == text);
            }
        }
        assert_eq!(key().open(&text[1..]), None);
        assert_eq!(key().open(b""), None);
        assert_eq!(TokenKey::new(b"another key.....").open(&text), None);
    }

    #[test]
    fn a_branch_is_the_cookie_and_the_token() {
        let mut branch = b"z9hG4bK".to_vec();
        let mut text = [0; TOKEN_BYTES];
        key().mint(&TOKEN, 1, &mut text);
        branch.extend_from_slice(&text);
        assert_eq!(key().open_branch(&branch), Some((TOKEN, 1)));
        assert_eq!(key().open_branch(&text), None);
    }
}
