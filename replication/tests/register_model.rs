//! Every interleaving of the view register, on the product's own step function.
//!
//! Three voters, two of which propose once, over a network that loses and reorders; without a
//! crash, and with one crash after which the voter comes back with its disk, or without. A value is the chain
//! of attempts it descends from, so one property says both that a number has one content and that
//! each decided view descends from the decided one before it: of two chains, one begins the other.

use std::borrow::Cow;

use replication::register::{Ballot, Outcome, Register, RegisterMessage, Vote};
use stateright::actor::{
    Actor, ActorModel, ActorModelState, Id, LossyNetwork, Network, Out, model_timeout,
};
use stateright::{Checker, Expectation, Model};

/// Who made the view, and all views it descends from: two bits and a marker each.
type Chain = u16;
type Message = RegisterMessage<Chain>;

#[derive(Clone)]
struct Voter {
    after_crash: AfterCrash,
}

/// What a voter makes of its disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AfterCrash {
    Reads,
    /// It is gone, and nobody notices.
    Forgets,
    /// It is gone, and the vote is read back from the others.
    Replaces,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    register: Register<Chain>,
    decided: Vec<Chain>,
    attempts: u8,
}

/// The vote, and, for the property only, what the voter has seen decided.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Disk {
    vote: Vote<Chain>,
    decided: Vec<Chain>,
    attempts: u8,
}

const VOTERS: u8 = 3;
const PROPOSERS: u8 = 2;
const REPLACED_STATES: usize = 1_500_000;
const ROUND_ABOVE_ALL: u64 = 100;
const NEW: Vote<Chain> = Vote {
    promised: Ballot::from_u64(0),
    accepted: (Ballot::from_u64(0), 0),
};

fn node(id: Id) -> u8 {
    usize::from(id) as u8
}

fn next(node: u8, chain: Chain) -> Chain {
    chain << 3 | 4 | Chain::from(node)
}

fn act(
    id: Id,
    asker: Option<Id>,
    state: &mut State,
    outcome: Outcome<Chain>,
    out: &mut Out<Voter>,
) {
    if let Some(chain) = outcome.decided
        && !state.decided.contains(&chain)
    {
        state.decided.push(chain);
        state.decided.sort_unstable();
    }
    // Before the answer.
    if outcome.must_save || outcome.decided.is_some() {
        out.save(Disk {
            vote: *state.register.vote(),
            decided: state.decided.clone(),
            attempts: state.attempts,
        });
    }
    if let (Some(answer), Some(asker)) = (outcome.answer, asker) {
        out.send(asker, answer);
    }
    // DECIDED is left out: it changes no vote, and every decision is seen by its proposer.
    if let Some(message) = outcome.broadcast
        && !matches!(message, RegisterMessage::Decided(_))
    {
        for peer in (0..usize::from(VOTERS))
            .map(Id::from)
            .filter(|&peer| peer != id)
        {
            out.send(peer, message);
        }
    }
}

impl Actor for Voter {
    type Msg = Message;
    type State = State;
    type Timer = ();
    type Random = ();
    type Storage = Disk;

    fn on_start(&self, id: Id, disk: &Option<Disk>, out: &mut Out<Self>) -> State {
        let is_first = disk.is_none();
        let disk = disk.clone().unwrap_or(Disk {
            vote: NEW,
            decided: Vec::new(),
            attempts: 0,
        });
        let is_replaced = !is_first && self.after_crash == AfterCrash::Replaces;
        if is_replaced || (node(id) < PROPOSERS && disk.attempts == 0) {
            out.set_timer((), model_timeout());
        }
        let register = match self.after_crash {
            AfterCrash::Reads => Register::new(node(id), VOTERS, disk.vote),
            AfterCrash::Replaces if is_replaced => {
                Register::lost(node(id), VOTERS, NEW, ROUND_ABOVE_ALL)
            }
            AfterCrash::Forgets | AfterCrash::Replaces => Register::new(node(id), VOTERS, NEW),
        };
        State {
            register,
            decided: disk.decided,
            attempts: disk.attempts,
        }
    }

    fn on_timeout(&self, id: Id, state: &mut Cow<'_, State>, (): &(), out: &mut Out<Self>) {
        let state = state.to_mut();
        state.attempts += 1;
        let outcome = state.register.propose();
        act(id, None, state, outcome, out);
    }

    fn on_msg(
        &self,
        id: Id,
        state: &mut Cow<'_, State>,
        from: Id,
        message: Message,
        out: &mut Out<Self>,
    ) {
        let mut after = State::clone(state);
        let outcome = after
            .register
            .handle(node(from), message, |chain| next(node(id), *chain));
        let silent = outcome.answer.is_none() && outcome.broadcast.is_none();
        if after == **state && silent && outcome.decided.is_none() {
            return;
        }
        act(id, Some(from), &mut after, outcome, out);
        *state.to_mut() = after;
    }
}

fn decided(state: &ActorModelState<Voter>) -> impl Iterator<Item = Chain> + '_ {
    state
        .actor_states
        .iter()
        .flat_map(|state| state.decided.iter().copied())
}

fn begins(mut long: Chain, short: Chain) -> bool {
    while long > short {
        long >>= 3;
    }
    long == short
}

fn model(crashes: usize, after_crash: AfterCrash) -> ActorModel<Voter> {
    ActorModel::new((), ())
        .actors((0..VOTERS).map(|_| Voter { after_crash }))
        .init_network(Network::new_unordered_nonduplicating([]))
        .lossy_network(LossyNetwork::Yes)
        .max_crashes(crashes)
        .property(
            Expectation::Always,
            "decided views are one line of descent",
            |_, state| decided(state).all(|a| decided(state).all(|b| begins(a.max(b), a.min(b)))),
        )
        .property(
            Expectation::Sometimes,
            "two views get decided",
            |_, state| decided(state).any(|chain| chain > 0o7),
        )
}

fn check(crashes: usize, after_crash: AfterCrash) {
    let checker = model(crashes, after_crash)
        .checker()
        .threads(1)
        .spawn_bfs()
        .join();
    println!("{crashes} crashes: {} states", checker.unique_state_count());
    assert!(checker.is_done());
    checker.assert_properties();
}

#[test]
fn without_a_crash_decided_views_are_one_line_of_descent() {
    check(0, AfterCrash::Reads);
}

#[test]
fn with_one_crash_and_its_disk_kept_they_still_are() {
    check(1, AfterCrash::Reads);
}

#[test]
fn with_one_crash_and_its_vote_read_back_from_the_others_they_still_are() {
    // Reading back adds messages to every state: all that lies within so many is looked at, the
    // shortest histories first. A forgotten vote shows within a hundredth of it.
    let model = model(1, AfterCrash::Replaces);
    let checker = model
        .checker()
        .threads(1)
        .target_state_count(REPLACED_STATES);
    let checker = checker.spawn_bfs().join();
    println!("{} states", checker.unique_state_count());
    checker.assert_no_discovery("decided views are one line of descent");
}

#[test]
fn a_voter_that_forgets_its_vote_splits_the_cluster_and_the_model_finds_how() {
    let checker = model(1, AfterCrash::Forgets)
        .checker()
        .threads(1)
        .spawn_bfs()
        .join();
    let path = checker.assert_any_discovery("decided views are one line of descent");
    println!("{} steps", path.into_actions().len());
}
