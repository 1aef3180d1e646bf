//! Diameter and carrier charging as sans-IO state machines.
//!
//! A charging trigger function (CTF, TS 32.240) turns what happens to calls into accounting
//! records and brings them to a charging data function (CDF) over Diameter (Rf, TS 32.299).
//! Nothing in here opens a socket, reads a clock or draws a random number: every machine is given
//! octets and a [`Now`], and gives back octets, events and a deadline.
//!
//! ```text
//!  call ──Trigger──▶ Ctf ──▶ ChargingState ──encode_pending──▶ Router ──octets──▶ CDF
//!                     ▲      (in the call's replicated blob)     │
//!                     ├───────────── Answer ─────────────────────┤
//!                     └───────────── Failed ──▶ Backlog ─────────┘ drains when a CDF is back
//! ```
//!
//! The run loop has one rule: **commit, then send**. After anything that touched a call's
//! [`ChargingState`] (a trigger, an answer, a failure, a deadline):
//!
//! 1. commit and replicate the state;
//! 2. if [`ChargingState::request_to_send`] names a record, render it with
//!    [`rf::acr::encode_pending`], give it to [`Router::send`], and report
//!    [`ChargingState::on_sent`]; if the router does not take it, [`Ctf::on_send_failure`] says
//!    whether it goes to the [`rf::backlog::Backlog`], and the loop starts again;
//! 3. arm [`ChargingState::next_deadline`]; drop the call once [`ChargingState::is_finished`].
//!
//! Whoever adopts a call calls [`Ctf::adopt`] and goes on at step 2: the same record leaves, the
//! same octet for octet, with the T flag.
//!
//! ```
//! use charging::config::{ChargingClass, CtfConfig};
//! use charging::{CalledSide, ChargingState, Ctf, Now, SessionFacts, Trigger, UnixMillis};
//!
//! let wall = UnixMillis(1_700_000_000_000);
//! let now = Now { instant: quanta::Instant::recent(), wall, steady: wall };
//! let mut ctf = Ctf::new(
//!     CtfConfig {
//!         origin_host: "shard0.node1.example".to_owned(),
//!         origin_realm: "example".to_owned(),
//!         origin_state_id: None,
//!         boot_epoch_s: 1_700_000_000,
//!         shard: 0,
//!         seed: 1,
//!         classes: ChargingClass::default().into(),
//!     },
//!     now,
//! );
//! let mut state = ChargingState::default();
//! let facts = SessionFacts { method: b"INVITE", ..SessionFacts::default() };
//! ctf.on_trigger(now, &mut state, &Trigger::SetUp { facts: &facts, request_time: now.wall });
//! assert_eq!(state.request_to_send(), None);
//! ctf.on_trigger(now, &mut state, &Trigger::Answered {
//!     response_time: now.wall,
//!     answer_known: true,
//!     sdp: &[],
//!     called: CalledSide::default(),
//!     terminating_access: None,
//!     message_bodies: &[],
//! });
//! // Commit `state`, then:
//! let mut acr = Vec::new();
//! assert!(charging::rf::acr::encode_pending(&state, &mut acr));
//! ```
#![forbid(unsafe_code)]

pub mod config;
pub mod ctf;
pub mod diameter;
mod ims;
mod omit;
pub mod random;
pub mod rf;
pub mod server;
pub mod state;
pub mod time;
pub mod trigger;

pub use ctf::{Ctf, CtfCounters, FailureAction, Storage};
pub use diameter::routing::{AnswerSummary, Router, Tag};
pub use state::ChargingState;
pub use time::{Now, Steady, UnixMillis};
pub use trigger::{CalledSide, CauseCode, SessionFacts, Trigger, Verdict};
