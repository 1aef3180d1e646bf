//! The strings of a call, kept in one buffer so that a call is one allocation and one copy.

/// One string in a [`Texts`] buffer.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
pub struct Text {
    at: u32,
    len: u32,
}

impl Text {
    /// No string.
    pub const EMPTY: Self = Self { at: 0, len: 0 };

    /// Whether the string is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Its first `len` bytes, which it must have.
    #[must_use]
    pub fn first(self, len: usize) -> Self {
        debug_assert!(len <= self.len as usize, "it is shorter");
        Self {
            at: self.at,
            len: self.len.min(len as u32),
        }
    }
}

/// The buffer that [`Text`]s point into.
#[derive(Clone, Debug, Default, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Texts {
    bytes: Vec<u8>,
}

impl Texts {
    /// A buffer that goes on using the memory of `bytes`.
    #[must_use]
    pub fn reusing(mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        Self { bytes }
    }

    /// Gives the memory back.
    #[must_use]
    pub fn into_memory(self) -> Vec<u8> {
        self.bytes
    }

    /// Keeps a copy of `text`.
    pub fn add(&mut self, text: &[u8]) -> Text {
        self.add_parts(&[text])
    }

    /// Keeps the parts as one string.
    pub fn add_parts(&mut self, parts: &[&[u8]]) -> Text {
        let at = self.bytes.len();
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        Text {
            at: at as u32,
            len: (self.bytes.len() - at) as u32,
        }
    }

    /// Everything added since the buffer had `start` bytes, as one string.
    #[must_use]
    pub fn since(&self, start: usize) -> Text {
        Text {
            at: start as u32,
            len: (self.bytes.len() - start) as u32,
        }
    }

    /// The string.
    #[must_use]
    pub fn get(&self, text: Text) -> &[u8] {
        self.bytes
            .get(text.at as usize..(text.at + text.len) as usize)
            .unwrap_or_default()
    }

    /// Puts `new` in the place of `text`, in the same memory when it fits.
    pub fn replace(&mut self, text: &mut Text, new: &[u8]) {
        if self.get(*text) == new {
            return;
        }
        if new.len() <= text.len as usize {
            let at = text.at as usize;
            self.bytes[at..at + new.len()].copy_from_slice(new);
            text.len = new.len() as u32;
        } else {
            *text = self.add(new);
        }
    }

    /// Forgets what was added since the buffer had `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len);
    }

    /// Bytes in use, those of replaced strings included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Most bytes of strings that one call may keep. A request that would pass it is answered 513.
pub const TEXTS_MAX: usize = 32 * 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_string_keeps_its_neighbours() {
        let mut texts = Texts::default();
        let mut first = texts.add(b"alice");
        let second = texts.add(b"bob");
        texts.replace(&mut first, b"al");
        assert_eq!(
            (texts.get(first), texts.get(second)),
            (&b"al"[..], &b"bob"[..])
        );
        texts.replace(&mut first, b"alexander");
        assert_eq!(
            (texts.get(first), texts.get(second)),
            (&b"alexander"[..], &b"bob"[..])
        );
    }
}
