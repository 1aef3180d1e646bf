//! Phones: user agents as RFC 3261 wants them, each with a plan of what its user does.
//!
//! A phone takes part in one call, or sends one request outside dialogs. It repeats requests
//! until they are answered, its 2xx until the ACK, its ACK for each repeated 2xx, and keeps a
//! ledger of what it saw, which is the truth the bill is checked against.

mod client;
mod message;
mod server;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use dataplane::sip::{Index, Message, parse};

use client::Client;
use server::Server;

/// What the user of a phone does. Times are milliseconds.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Caller: when the first request is sent; `None` for phones that wait.
    pub calls_at: Option<u64>,
    /// Method of the first request, INVITE unless it says something else.
    pub method: &'static str,
    /// Request-URI of the first request.
    pub target: String,
    /// The INVITE carries no offer, so the ACK brings the answer.
    pub late_offer: bool,
    /// Supports (caller) or uses (callee) reliable provisional responses.
    pub reliable: bool,
    /// Session-Expires of the INVITE; 0 = timers are not supported.
    pub session_s: u32,
    /// Callee: the node shall refresh.
    pub node_refreshes: bool,
    /// Does not refresh what it has to.
    pub lazy: bool,
    /// Callee: smallest interval taken.
    pub min_se_s: u32,
    /// Does not know UPDATE.
    pub no_update: bool,
    /// Caller: CANCEL after that time.
    pub cancel_after: Option<u64>,
    /// Caller: CANCEL at once, whatever came (the standard wants a provisional answer first).
    pub hasty_cancel: bool,
    /// Delay of the ACK.
    pub ack_after: u64,
    /// Never sends an ACK to a 2xx.
    pub no_ack: bool,
    /// Callee: answers nothing at all.
    pub dead: bool,
    /// Callee: provisional responses.
    pub rings: Vec<(u64, u16)>,
    /// Callee: the final answer to the INVITE or the request outside dialogs; `None` = none.
    pub answer: Option<(u64, u16)>,
    /// Callee: answers 200 although the INVITE was cancelled.
    pub ignores_cancel: bool,
    /// Callee: another 2xx under another tag, as a fork downstream would send.
    pub fork_after: Option<u64>,
    /// Callee: that many ACKs of the fork's 2xx are lost, so that it is repeated.
    pub fork_acks_lost: u32,
    /// Callee: the status of its challenges, 401 or 407; 0 = it challenges nobody.
    pub challenges: u16,
    /// Callee: so many challenges of each request are not enough, the nonce being stale.
    pub stale_nonces: u32,
    /// Callee: no credentials are ever right.
    pub never_satisfied: bool,
    /// Caller: more header lines of the first request.
    pub extra: String,
    /// BYE that long after the answer.
    pub bye_after: Option<u64>,
    /// Requests inside the dialog, that long after the answer.
    pub inside: Vec<(u64, &'static str)>,
    /// Status of answers to re-INVITE, 200 if 0.
    pub reinvite_status: u16,
    /// Takes PRACKs without answering them.
    pub ignores_prack: bool,
    /// That many re-INVITEs get 491 before.
    pub reinvites_refused: u32,
    /// Delay of answers to re-INVITE.
    pub reinvite_after: u64,
    /// Does not answer re-INVITEs.
    pub reinvite_ignored: bool,
    /// Seconds after which the phone vanishes: no power.
    pub dies_at: Option<u64>,
    /// The test plays it itself: see [`crate::hand`].
    pub by_hand: bool,
}

/// What a phone saw.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// When the first request left.
    pub asked: Option<u64>,
    /// Its final answers, in order of arrival, once per To tag.
    pub finals: Vec<(u16, String)>,
    /// When the first of them arrived.
    pub final_at: Option<u64>,
    /// When its first 2xx arrived (caller) or was sent (callee).
    pub answered: Option<u64>,
    /// When the ACK was first sent (caller) or came (callee).
    pub acknowledged: Option<u64>,
    /// Our BYE left.
    pub bye_sent: Option<u64>,
    /// A BYE came.
    pub bye_received: Option<u64>,
    /// Reason header of the BYE that came.
    pub bye_reason: String,
    /// A CANCEL came.
    pub cancel_received: bool,
    /// BYEs that came for the second fork.
    pub fork_ended: bool,
    /// ACKs that came for the second fork.
    pub fork_acknowledged: bool,
    /// The 2xx was never acknowledged.
    pub ack_missing: bool,
    /// Provisional responses seen.
    pub provisionals: Vec<u16>,
    /// Final answers to requests inside the dialog.
    pub inside: Vec<(String, u16)>,
    /// Requests inside the dialog that came.
    pub received: Vec<String>,
    /// Requests without a final answer: their branches.
    pub unanswered: Vec<String>,
    /// Requests that came with credentials.
    pub credentials: Vec<String>,
    /// Replaces of an INVITE that named this phone's dialog.
    pub replaced_by: String,
    /// What should not have come.
    pub wrong: Vec<String>,
    /// What came to a phone that the test plays itself, and when.
    pub heard: Vec<(u64, String)>,
}

/// A datagram a phone sends.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Destination.
    pub to: SocketAddr,
    /// Payload.
    pub bytes: Vec<u8>,
}

/// One phone.
pub struct Phone {
    /// Its address.
    pub address: SocketAddr,
    /// What it does.
    pub plan: Plan,
    /// What it saw.
    pub ledger: Ledger,
    /// Call-ID of its call.
    pub call_id: String,
    number: usize,
    node: SocketAddr,
    dialogs: Vec<Dialog>,
    clients: Vec<Client>,
    servers: Vec<Server>,
    agenda: BTreeMap<(u64, u64), Do>,
    order: u64,
    branches: u64,
    version: u64,
    fork_answer: Vec<u8>,
    fork_since: u64,
    out: Vec<Sent>,
}

/// One dialog of a phone.
#[derive(Clone, Debug)]
struct Dialog {
    local_tag: String,
    remote_tag: String,
    local: String,
    remote: String,
    target: String,
    cseq: u32,
    remote_cseq: u32,
    state: DialogState,
    fork: bool,
    session_s: u32,
    refreshes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DialogState {
    Early,
    Confirmed,
    Ended,
}

/// Something to be done at a time.
#[derive(Clone, Debug)]
enum Do {
    Call,
    Cancel,
    Ack(usize, String),
    Bye(usize),
    Inside(&'static str),
    Refresh(usize),
    Provisional(u16),
    Final(u16),
    Fork,
    AnswerReinvite(usize),
}

impl Phone {
    /// A phone at `address` that sends to `node`.
    #[must_use]
    pub fn new(number: usize, address: SocketAddr, node: SocketAddr, plan: Plan) -> Self {
        let mut phone = Self {
            address,
            ledger: Ledger::default(),
            call_id: String::new(),
            number,
            node,
            dialogs: Vec::new(),
            clients: Vec::new(),
            servers: Vec::new(),
            agenda: BTreeMap::new(),
            order: 0,
            branches: 0,
            version: 0,
            fork_answer: Vec::new(),
            fork_since: 0,
            out: Vec::new(),
            plan,
        };
        if let Some(at) = phone.plan.calls_at {
            phone.plan_at(at, Do::Call);
        }
        phone
    }

    /// Takes a datagram.
    pub fn handle_datagram(&mut self, now: u64, from: SocketAddr, bytes: &[u8]) {
        if self.plan.dead || self.plan.dies_at.is_some_and(|at| at <= now) {
            return;
        }
        if self.plan.by_hand {
            let text = String::from_utf8_lossy(bytes).into_owned();
            return self.ledger.heard.push((now, text));
        }
        let mut index = Index::new();
        let message = match parse(bytes, &mut index) {
            Ok(message) => message,
            Err(error) => {
                self.ledger.wrong.push(format!("unreadable: {error:?}"));
                return;
            }
        };
        if message.is_request() {
            if let Err(error) = message.validate() {
                self.ledger.wrong.push(format!("invalid: {error:?}"));
            }
            self.on_request(now, from, &message);
        } else {
            self.on_response(now, &message);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: u64) {
        if self.plan.dies_at.is_some_and(|at| at <= now) {
            self.agenda.clear();
            self.clients.clear();
            self.servers.clear();
            return;
        }
        while let Some(entry) = self
            .agenda
            .first_entry()
            .filter(|entry| entry.key().0 <= now)
        {
            let what = entry.remove();
            self.act(now, what);
        }
        self.run_clients(now);
        self.run_servers(now);
    }

    /// When [`Phone::handle_timeout`] is wanted next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let agenda = self.agenda.keys().next().map(|key| key.0);
        let clients = self.clients.iter().filter_map(Client::due);
        let servers = self.servers.iter().filter_map(Server::due);
        clients.chain(servers).chain(agenda).min()
    }

    /// The datagrams to send.
    pub fn take_sent(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.out)
    }

    /// Its confirmed dialog as the peer of the call would be told to replace it.
    ///
    /// # Panics
    /// If the call is not up.
    #[must_use]
    pub fn replaces(&self) -> String {
        let up = self.confirmed().expect("the call is up");
        let dialog = &self.dialogs[up];
        let (call_id, ours, theirs) = (&self.call_id, &dialog.local_tag, &dialog.remote_tag);
        format!("{call_id};to-tag={theirs};from-tag={ours}")
    }

    /// Whether its call is up.
    #[must_use]
    pub fn is_in_call(&self) -> bool {
        self.dialogs
            .iter()
            .any(|dialog| dialog.state == DialogState::Confirmed)
    }

    fn plan_at(&mut self, at: u64, what: Do) {
        self.order += 1;
        self.agenda.insert((at, self.order), what);
    }

    fn act(&mut self, now: u64, what: Do) {
        match what {
            Do::Call => self.call(now),
            Do::Cancel => self.cancel(now),
            Do::Ack(client, tag) => self.acknowledge(now, client, &tag),
            Do::Bye(dialog) => self.hang_up(now, dialog),
            Do::Inside(method) => self.ask_inside(now, method),
            Do::Refresh(dialog) => self.refresh(now, dialog),
            Do::Provisional(code) => self.ring(now, code),
            Do::Final(code) => self.answer(now, code, false),
            Do::Fork => self.answer(now, 200, true),
            Do::AnswerReinvite(server) => self.answer_reinvite(now, server),
        }
    }

    // The call is answered: what the user planned follows.
    fn on_answered(&mut self, now: u64, dialog: usize) {
        for (after, method) in self.plan.inside.clone() {
            self.plan_at(now + after, Do::Inside(method));
        }
        if let Some(after) = self.plan.bye_after {
            self.plan_at(now + after, Do::Bye(dialog));
        }
    }

    fn arm_refresh(&mut self, now: u64, dialog: usize) {
        let entry = &self.dialogs[dialog];
        if entry.refreshes && entry.session_s > 0 && !self.plan.lazy {
            let half = u64::from(entry.session_s) * 500;
            self.agenda
                .retain(|_, what| !matches!(what, Do::Refresh(_)));
            self.plan_at(now + half, Do::Refresh(dialog));
        }
    }

    fn end(&mut self, dialog: usize) {
        self.dialogs[dialog].state = DialogState::Ended;
        if !self.dialogs[dialog].fork {
            self.agenda
                .retain(|_, what| !matches!(what, Do::Inside(_) | Do::Refresh(_) | Do::Bye(_)));
        }
    }

    fn wrong(&mut self, now: u64, what: &str, message: &Message<'_>) {
        let text = String::from_utf8_lossy(message.raw());
        self.ledger.wrong.push(format!("{now}: {what}: {text}"));
    }
}

/// T1, milliseconds.
const T1: u64 = 500;
/// T2, milliseconds.
const T2: u64 = 4_000;
/// How long a transaction waits.
const LIFE: u64 = 64 * T1;
/// How long an INVITE that only got a provisional answer is waited for after its CANCEL.
const CANCEL_LIFE: u64 = 64 * T1;
