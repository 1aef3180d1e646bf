//! How view messages look in a datagram: a type byte, then the fields in order.

use super::{Heartbeat, NodeState, VOTERS_MAX, Versions, View, ViewMessage};
use crate::frame::{Bytes, FrameError};
use crate::register::{Ballot, RegisterMessage};
use crate::replicator::Standing;

impl ViewMessage {
    /// Writes the message at the start of `bytes`; nothing if it does not fit.
    #[must_use]
    pub fn encode(&self, bytes: &mut [u8]) -> Option<usize> {
        let mut writer = Writer::new(bytes);
        match self {
            Self::Heartbeat(heartbeat) => {
                let (kept, drain) = (heartbeat.kept, heartbeat.drain);
                writer.put(&[1, u8::from(kept) | u8::from(drain) << 1])?;
                writer.put(&heartbeat.sent.to_le_bytes())?;
                for number in [
                    heartbeat.incarnation,
                    heartbeat.view,
                    heartbeat.mask,
                    heartbeat.synced,
                    heartbeat.settled,
                    heartbeat.drained,
                ] {
                    writer.put(&number.to_le_bytes())?;
                }
                for age in heartbeat.ages_ms {
                    writer.put(&age.to_le_bytes())?;
                }
                let Versions {
                    protocol,
                    schema,
                    schema_held,
                    shards,
                } = heartbeat.versions;
                writer.put(&[protocol.0, protocol.1])?;
                for number in [schema.0, schema.1, schema_held, shards] {
                    writer.put(&number.to_le_bytes())?;
                }
            }
            Self::Ack { sent, accepted } => {
                writer.put(&[2])?;
                writer.put(&sent.to_le_bytes())?;
                writer.put(&accepted.to_le_bytes())?;
            }
            Self::Register(message) => match message {
                RegisterMessage::Prepare(ballot) => writer.ballot(3, *ballot)?,
                RegisterMessage::Promise {
                    ballot,
                    accepted,
                    value,
                } => {
                    writer.ballot(4, *ballot)?;
                    writer.put(&accepted.as_u64().to_le_bytes())?;
                    writer.view(value)?;
                }
                RegisterMessage::Accept(ballot, value) => {
                    writer.ballot(5, *ballot)?;
                    writer.view(value)?;
                }
                RegisterMessage::Accepted(ballot) => writer.ballot(6, *ballot)?,
                RegisterMessage::Nack(ballot) => writer.ballot(7, *ballot)?,
                RegisterMessage::Decided(value) => {
                    writer.put(&[8])?;
                    writer.view(value)?;
                }
            },
        }
        Some(writer.at)
    }

    /// Reads a message.
    ///
    /// # Errors
    /// `Short`, `Kind` or `Number`.
    pub fn parse(bytes: &[u8]) -> Result<Self, FrameError> {
        let mut bytes = Bytes::new(bytes);
        Ok(match bytes.u8()? {
            1 => {
                let flags = bytes.u8()?;
                let (kept, drain) = (flags & 1 == 1, flags & 2 == 2);
                let (sent, incarnation, view) = (bytes.u64()?, bytes.count()?, bytes.count()?);
                let (mask, synced, settled) = (bytes.u32()?, bytes.u32()?, bytes.u32()?);
                let drained = bytes.u32()?;
                let mut ages_ms = [0; VOTERS_MAX];
                for age in &mut ages_ms {
                    *age = bytes.u16()?;
                }
                // What a later version adds stands behind this, and is not read.
                let versions = Versions {
                    protocol: (bytes.u8()?, bytes.u8()?),
                    schema: (bytes.u16()?, bytes.u16()?),
                    schema_held: bytes.u16()?,
                    // The former version does not say.
                    shards: if bytes.rest().is_empty() {
                        0
                    } else {
                        bytes.u16()?
                    },
                };
                Self::Heartbeat(Heartbeat {
                    sent,
                    incarnation,
                    view,
                    mask,
                    synced,
                    settled,
                    kept,
                    drain,
                    drained,
                    versions,
                    ages_ms,
                })
            }
            2 => Self::Ack {
                sent: bytes.u64()?,
                accepted: bytes.u32()?,
            },
            3 => Self::Register(RegisterMessage::Prepare(ballot(&mut bytes)?)),
            4 => Self::Register(RegisterMessage::Promise {
                ballot: ballot(&mut bytes)?,
                accepted: ballot(&mut bytes)?,
                value: view(&mut bytes)?,
            }),
            5 => {
                let ballot = ballot(&mut bytes)?;
                Self::Register(RegisterMessage::Accept(ballot, view(&mut bytes)?))
            }
            6 => Self::Register(RegisterMessage::Accepted(ballot(&mut bytes)?)),
            7 => Self::Register(RegisterMessage::Nack(ballot(&mut bytes)?)),
            8 => Self::Register(RegisterMessage::Decided(view(&mut bytes)?)),
            _ => return Err(FrameError::Kind),
        })
    }
}

pub(super) struct Writer<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.at + bytes.len();
        self.bytes.get_mut(self.at..end)?.copy_from_slice(bytes);
        self.at = end;
        Some(())
    }

    fn ballot(&mut self, kind: u8, ballot: Ballot) -> Option<()> {
        self.put(&[kind])?;
        self.put(&ballot.as_u64().to_le_bytes())
    }

    pub(super) fn view(&mut self, view: &View) -> Option<()> {
        self.put(&view.number.to_le_bytes())?;
        self.put(&view.gone.to_le_bytes())?;
        self.put(&[view.kmin])?;
        self.put(&view.changed.to_le_bytes())?;
        self.put(&view.settled.to_le_bytes())?;
        for node in view.nodes {
            self.put(&node.incarnation.to_le_bytes())?;
            self.put(&[node.standing as u8])?;
            self.put(&node.settled_without.to_le_bytes())?;
        }
        Some(())
    }
}

fn ballot(bytes: &mut Bytes<'_>) -> Result<Ballot, FrameError> {
    let ballot = Ballot::from_u64(bytes.number()?);
    // The round after it must still be a round.
    (ballot.round() < ROUND_MAX)
        .then_some(ballot)
        .ok_or(FrameError::Number)
}

pub(super) fn view(bytes: &mut Bytes<'_>) -> Result<View, FrameError> {
    let (number, gone, kmin) = (bytes.count()?, bytes.u32()?, bytes.u8()?);
    let (changed, settled) = (bytes.count()?, bytes.count()?);
    let mut view = View {
        number,
        gone,
        kmin,
        changed,
        settled,
        ..View::genesis()
    };
    for node in &mut view.nodes {
        let incarnation = bytes.count()?;
        let standing = match bytes.u8()? {
            0 => Standing::Joining,
            1 => Standing::Alive,
            2 => Standing::Draining,
            3 => Standing::Dead,
            _ => return Err(FrameError::Kind),
        };
        *node = NodeState {
            incarnation,
            standing,
            settled_without: bytes.count()?,
        };
    }
    Ok(view)
}

const ROUND_MAX: u64 = 1 << 48;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn a_view(number: u32) -> View {
        let mut view = View {
            number,
            gone: 5,
            kmin: 2,
            changed: 6,
            settled: 4,
            ..View::genesis()
        };
        view.nodes[3] = NodeState {
            incarnation: 9,
            standing: Standing::Joining,
            settled_without: 3,
        };
        view.nodes[4] = NodeState {
            incarnation: 8,
            standing: Standing::Dead,
            settled_without: 0,
        };
        view
    }

    proptest! {
        #[test]
        fn every_message_reads_back(
            numbers in (0..1_u64 << 56, 0..1_u64 << 56, 0..1_u32 << 31, 0..1_u32 << 31),
            kind in 0..8_u8,
            kept: bool,
        ) {
            let (a, b) = (Ballot::from_u64(numbers.0), Ballot::from_u64(numbers.1));
            let value = a_view(numbers.2);
            let register = ViewMessage::Register;
            let message = match kind {
                0 => ViewMessage::Heartbeat(Heartbeat {
                    sent: numbers.0,
                    incarnation: numbers.2,
                    view: numbers.3,
                    mask: 7,
                    synced: 8,
                    settled: 9,
                    kept,
                    drain: !kept,
                    drained: numbers.3,
                    versions: Versions {
                        schema_held: numbers.3 as u16,
                        shards: numbers.2 as u16,
                        ..Versions::default()
                    },
                    ages_ms: [numbers.0 as u16; VOTERS_MAX],
                }),
                1 => ViewMessage::Ack { sent: numbers.0, accepted: numbers.2 },
                2 => register(RegisterMessage::Prepare(a)),
                3 => register(RegisterMessage::Promise { ballot: a, accepted: b, value }),
                4 => register(RegisterMessage::Accept(a, value)),
                5 => register(RegisterMessage::Accepted(a)),
                6 => register(RegisterMessage::Nack(a)),
                _ => register(RegisterMessage::Decided(value)),
            };
            let mut bytes = [0; 300];
            let len = message.encode(&mut bytes).expect("300 bytes are enough");
            prop_assert_eq!(ViewMessage::parse(&bytes[..len]), Ok(message));
            prop_assert!(ViewMessage::parse(&bytes[..len - 1]).is_err());
            prop_assert_eq!(message.encode(&mut bytes[..len - 1]), None);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ViewMessage::parse(&bytes);
        }
    }
}
