//! The view register: Paxos over one value, without log, leader or ordered network.
//!
//! ```text
//!  proposer                              voters (itself included)
//!    PREPARE b ─────────────────────────▶  promised := b          (durable)
//!    PROMISE b, accepted ballot, value ◀─
//!  majority: next := f(value of the highest accepted ballot)
//!    ACCEPT b, next ────────────────────▶  accepted := (b, next)  (durable)
//!    ACCEPTED b ◀────────────────────────
//!  majority: decided
//!    DECIDED next ──────────────────────▶  everybody
//! ```
//!
//! Every message may be lost, doubled or reordered. A voter's state must be on disk before its
//! answer leaves: a voter that forgets makes two values under one number possible, and the test
//! of this module finds the sequence. The register is generic in its value so that the model
//! checker runs this very code on a small one.

/// Number of an attempt: round in the high bits, node in the low eight. Never the same twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot(u64);

impl Ballot {
    /// Ballot of `node` in `round`.
    #[must_use]
    pub const fn new(round: u64, node: u8) -> Self {
        Self(round << 8 | node as u64)
    }

    /// Takes the ballot as a number.
    #[must_use]
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// The ballot as a number.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The round.
    #[must_use]
    pub const fn round(self) -> u64 {
        self.0 >> 8
    }
}

/// What a voter must not forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Vote<V> {
    /// Highest ballot it promised to.
    pub promised: Ballot,
    /// Highest ballot it accepted, and the value; the first value under ballot 0.
    pub accepted: (Ballot, V),
}

/// What voters and proposers say to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RegisterMessage<V> {
    /// Asks for a promise.
    Prepare(Ballot),
    /// Promises to accept nothing below the ballot.
    Promise {
        /// The ballot promised to.
        ballot: Ballot,
        /// Highest ballot accepted before.
        accepted: Ballot,
        /// Its value.
        value: V,
    },
    /// Asks to accept.
    Accept(Ballot, V),
    /// Has accepted.
    Accepted(Ballot),
    /// Has promised more to somebody else.
    Nack(Ballot),
    /// A majority has accepted the value.
    Decided(V),
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome<V> {
    /// The vote changed: store it before anything below leaves.
    pub must_save: bool,
    /// Answer to the one who asked.
    pub answer: Option<RegisterMessage<V>>,
    /// Message to all other voters.
    pub broadcast: Option<RegisterMessage<V>>,
    /// A value now known to be decided.
    pub decided: Option<V>,
}

impl<V> Outcome<V> {
    const NOTHING: Self = Self {
        must_save: false,
        answer: None,
        broadcast: None,
        decided: None,
    };
}

/// One node's part in the register: voter, and proposer when asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Register<V> {
    node: u8,
    voters: u8,
    vote: Vote<V>,
    /// Highest round seen, so that the next ballot is higher.
    round: u64,
    proposal: Option<Proposal<V>>,
    /// It does not know what it promised and accepted.
    is_lost: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Proposal<V> {
    ballot: Ballot,
    /// Bit per voter that promised.
    promised: u32,
    /// Highest accepted ballot among the promises.
    base: (Ballot, V),
    value: Option<V>,
    /// Bit per voter that accepted.
    accepted: u32,
}

impl<V: Clone> Register<V> {
    /// Node `node` of `voters`, with the vote its disk remembers.
    #[must_use]
    pub fn new(node: u8, voters: u8, vote: Vote<V>) -> Self {
        assert!(
            node < voters && u32::from(voters) <= u32::BITS,
            "a voter is one of the voters"
        );
        let round = vote.promised.round();
        Self {
            node,
            voters,
            vote,
            round,
            proposal: None,
            is_lost: false,
        }
    }

    /// A voter whose disk is lost (V10). It neither promises nor accepts until `propose` has read
    /// its vote back: as many others as any majority it may have been part of must share with
    /// have promised a ballot to it, under which it then votes again. `round` must lie above all
    /// it may have promised to before, and `vote` is of no meaning.
    #[must_use]
    pub fn lost(node: u8, voters: u8, vote: Vote<V>, round: u64) -> Self {
        Self {
            round,
            is_lost: true,
            ..Self::new(node, voters, vote)
        }
    }

    /// Whether the vote is not read back yet.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Begins an attempt, giving up any former one.
    pub fn propose(&mut self) -> Outcome<V> {
        self.round += 1;
        let ballot = Ballot::new(self.round, self.node);
        let base = self.vote.accepted.clone();
        let promised = if self.is_lost { 0 } else { 1 << self.node };
        if !self.is_lost {
            self.vote.promised = ballot;
        }
        self.proposal = Some(Proposal {
            ballot,
            promised,
            base,
            value: None,
            accepted: 0,
        });
        let broadcast = Some(RegisterMessage::Prepare(ballot));
        Outcome {
            must_save: !self.is_lost,
            broadcast,
            ..Outcome::NOTHING
        }
    }

    /// Takes a message. `next` makes the value that should follow; it may return its argument.
    pub fn handle(
        &mut self,
        from: u8,
        message: RegisterMessage<V>,
        next: impl FnOnce(&V) -> V,
    ) -> Outcome<V> {
        if from >= self.voters || from == self.node {
            return Outcome::NOTHING;
        }
        match message {
            RegisterMessage::Prepare(_) | RegisterMessage::Accept(..) if self.is_lost => {
                Outcome::NOTHING
            }
            RegisterMessage::Promise {
                ballot,
                accepted,
                value,
            } if self.is_lost => self.on_promise_to_lost(from, ballot, (accepted, value)),
            RegisterMessage::Prepare(ballot) => self.on_prepare(ballot),
            RegisterMessage::Promise {
                ballot,
                accepted,
                value,
            } => self.on_promise(from, ballot, (accepted, value), next),
            RegisterMessage::Accept(ballot, value) => self.on_accept(ballot, value),
            RegisterMessage::Accepted(ballot) => self.on_accepted(from, ballot),
            RegisterMessage::Nack(promised) => {
                self.round = self.round.max(promised.round());
                if self
                    .proposal
                    .as_ref()
                    .is_some_and(|proposal| proposal.ballot < promised)
                {
                    self.proposal = None;
                }
                Outcome::NOTHING
            }
            RegisterMessage::Decided(value) => Outcome {
                decided: Some(value),
                ..Outcome::NOTHING
            },
        }
    }

    /// What this voter must not forget.
    #[must_use]
    pub fn vote(&self) -> &Vote<V> {
        &self.vote
    }

    /// Whether an attempt of this node is under way.
    #[must_use]
    pub fn is_proposing(&self) -> bool {
        self.proposal.is_some()
    }

    /// Voters that make a majority.
    #[must_use]
    pub fn majority(&self) -> u32 {
        u32::from(self.voters) / 2 + 1
    }

    fn on_prepare(&mut self, ballot: Ballot) -> Outcome<V> {
        self.round = self.round.max(ballot.round());
        if ballot < self.vote.promised {
            return self.nack();
        }
        let must_save = ballot > self.vote.promised;
        self.vote.promised = ballot;
        let (accepted, value) = self.vote.accepted.clone();
        let answer = Some(RegisterMessage::Promise {
            ballot,
            accepted,
            value,
        });
        Outcome {
            must_save,
            answer,
            ..Outcome::NOTHING
        }
    }

    fn on_promise(
        &mut self,
        from: u8,
        ballot: Ballot,
        accepted: (Ballot, V),
        next: impl FnOnce(&V) -> V,
    ) -> Outcome<V> {
        let majority = self.majority();
        let Some(proposal) = &mut self.proposal else {
            return Outcome::NOTHING;
        };
        if proposal.ballot != ballot || proposal.value.is_some() {
            return Outcome::NOTHING;
        }
        proposal.promised |= 1 << from;
        if accepted.0 > proposal.base.0 {
            proposal.base = accepted;
        }
        if proposal.promised.count_ones() < majority {
            return Outcome::NOTHING;
        }
        if self.vote.promised > ballot {
            self.proposal = None;
            return Outcome::NOTHING;
        }
        let value = next(&proposal.base.1);
        proposal.value = Some(value.clone());
        proposal.accepted = 1 << self.node;
        self.vote.accepted = (ballot, value.clone());
        let broadcast = Some(RegisterMessage::Accept(ballot, value));
        Outcome {
            must_save: true,
            broadcast,
            ..Outcome::NOTHING
        }
    }

    // Whatever was or can still be decided below the ballot has been accepted by one of so many
    // others, for each majority lacks fewer of them, and these accept nothing below it any more.
    fn on_promise_to_lost(
        &mut self,
        from: u8,
        ballot: Ballot,
        accepted: (Ballot, V),
    ) -> Outcome<V> {
        let enough = u32::from(self.voters) - self.majority() + 1;
        let Some(proposal) = &mut self.proposal else {
            return Outcome::NOTHING;
        };
        if proposal.ballot != ballot {
            return Outcome::NOTHING;
        }
        // The first one replaces what has no meaning, under whatever ballot.
        if proposal.promised == 0 || accepted.0 > proposal.base.0 {
            proposal.base = accepted;
        }
        proposal.promised |= 1 << from;
        if proposal.promised.count_ones() < enough {
            return Outcome::NOTHING;
        }
        self.vote = Vote {
            promised: ballot,
            accepted: proposal.base.clone(),
        };
        (self.is_lost, self.proposal) = (false, None);
        Outcome {
            must_save: true,
            ..Outcome::NOTHING
        }
    }

    fn on_accept(&mut self, ballot: Ballot, value: V) -> Outcome<V> {
        self.round = self.round.max(ballot.round());
        if ballot < self.vote.promised {
            return self.nack();
        }
        // Doubled: one ballot has one value, so there is nothing new to store.
        let must_save = self.vote.accepted.0 != ballot;
        if must_save {
            self.vote = Vote {
                promised: ballot,
                accepted: (ballot, value),
            };
        }
        let answer = Some(RegisterMessage::Accepted(ballot));
        Outcome {
            must_save,
            answer,
            ..Outcome::NOTHING
        }
    }

    fn on_accepted(&mut self, from: u8, ballot: Ballot) -> Outcome<V> {
        let majority = self.majority();
        let Some(proposal) = &mut self.proposal else {
            return Outcome::NOTHING;
        };
        let Some(value) = proposal.value.clone().filter(|_| proposal.ballot == ballot) else {
            return Outcome::NOTHING;
        };
        proposal.accepted |= 1 << from;
        if proposal.accepted.count_ones() < majority {
            return Outcome::NOTHING;
        }
        self.proposal = None;
        let broadcast = Some(RegisterMessage::Decided(value.clone()));
        Outcome {
            broadcast,
            decided: Some(value),
            ..Outcome::NOTHING
        }
    }

    fn nack(&self) -> Outcome<V> {
        let answer = Some(RegisterMessage::Nack(self.vote.promised));
        Outcome {
            answer,
            ..Outcome::NOTHING
        }
    }
}
