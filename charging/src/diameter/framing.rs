//! Cutting a byte stream into Diameter messages.

use super::header::{HEADER_LENGTH, Header, HeaderError};

/// Holds the incomplete end of a stream between two reads.
#[derive(Debug)]
pub struct Framer {
    partial: Vec<u8>,
    message_length_max: usize,
}

/// The stream cannot be understood any more: the connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramingError {
    /// Where a header must stand, there is none.
    Garbage,
    /// A message is longer than this node accepts.
    TooLong,
}

impl Framer {
    /// A framer that accepts messages of at most `message_length_max` octets.
    #[must_use]
    pub const fn new(message_length_max: usize) -> Self {
        Self {
            partial: Vec::new(),
            message_length_max,
        }
    }

    /// Forgets a partial message: the connection is gone.
    pub fn clear(&mut self) {
        self.partial.clear();
    }

    /// Takes received octets and hands each complete message to `deliver`, which returns whether
    /// to go on. Complete messages inside `bytes` are not copied.
    ///
    /// # Errors
    /// See [`FramingError`]; messages before the fault have been delivered.
    pub fn push(
        &mut self,
        mut bytes: &[u8],
        mut deliver: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), FramingError> {
        while !self.partial.is_empty() && !bytes.is_empty() {
            let want = self.missing()?;
            let (taken, rest) = bytes.split_at(want.min(bytes.len()));
            self.partial.extend_from_slice(taken);
            bytes = rest;
            if self.missing()? == 0 {
                let go_on = deliver(&self.partial);
                self.partial.clear();
                if !go_on {
                    return Ok(());
                }
            }
        }
        while !bytes.is_empty() {
            let length = match self.length_of(bytes)? {
                Some(length) if length <= bytes.len() => length,
                _ => {
                    self.partial.extend_from_slice(bytes);
                    return Ok(());
                }
            };
            let (message, rest) = bytes.split_at(length);
            bytes = rest;
            if !deliver(message) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Octets the partial message still needs: first a header, then the rest.
    fn missing(&self) -> Result<usize, FramingError> {
        let have = self.partial.len();
        Ok(match self.length_of(&self.partial)? {
            Some(length) => length - have,
            None => HEADER_LENGTH - have,
        })
    }

    fn length_of(&self, bytes: &[u8]) -> Result<Option<usize>, FramingError> {
        match Header::parse(bytes) {
            Ok(header) if header.length as usize > self.message_length_max => {
                Err(FramingError::TooLong)
            }
            Ok(header) => Ok(Some(header.length as usize)),
            // The first octet alone tells garbage apart: no need to wait for twenty of them.
            Err(HeaderError::Short) if bytes.first().is_none_or(|&version| version == 1) => {
                Ok(None)
            }
            Err(_) => Err(FramingError::Garbage),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(fill: u8, length: usize) -> Vec<u8> {
        let mut header = Header::new(0x80, 271, 3);
        header.length = length as u32;
        let mut bytes = header.to_bytes().to_vec();
        bytes.resize(length, fill);
        bytes
    }

    #[test]
    fn messages_arrive_whole_however_the_stream_is_cut() {
        let all: Vec<Vec<u8>> = vec![message(1, 20), message(2, 64), message(3, 28)];
        let stream = all.concat();
        for step in 1..=stream.len() {
            let mut framer = Framer::new(64);
            let mut got = Vec::new();
            for chunk in stream.chunks(step) {
                framer
                    .push(chunk, |m| {
                        got.push(m.to_vec());
                        true
                    })
                    .unwrap();
            }
            assert_eq!(got, all, "cut every {step} octets");
        }
    }

    #[test]
    fn garbage_and_oversize_are_told_apart() {
        let mut framer = Framer::new(64);
        assert_eq!(
            framer.push(b"GET / HTTP", |_| true),
            Err(FramingError::Garbage)
        );
        framer.clear();
        assert_eq!(
            framer.push(&message(0, 68), |_| true),
            Err(FramingError::TooLong)
        );
    }

    #[test]
    fn a_partial_message_holds_no_more_than_the_limit() {
        let mut framer = Framer::new(64);
        framer.push(&message(0, 64)[..63], |_| true).unwrap();
        assert_eq!(framer.partial.len(), 63);
    }
}
