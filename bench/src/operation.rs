//! The operations whose cost is held to a bar, each as a loop to be counted or timed.

use std::hint::black_box;

use charging::rf::acr::encode_pending;
use dataplane::sip::{self, HeaderId, Index, Message, Token, TokenKey, Uri};
use dataplane::timer::Wheel;

use crate::{message, record, replicate, state};

/// One operation and what it may cost.
pub struct Operation {
    /// What it is called on the command line.
    pub name: &'static str,
    /// The most instructions one round may take.
    pub instructions_max: u64,
    /// The most allocations one round may make.
    pub allocations_max: u64,
    /// Sets up, then does it that many times.
    pub run: fn(rounds: u64),
}

/// All of them; a new one is one line here.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        name: "parse_invite",
        instructions_max: 4_500,
        allocations_max: 0,
        run: parse_invite,
    },
    Operation {
        name: "parse_invite_and_values",
        instructions_max: 9_000,
        allocations_max: 0,
        run: parse_invite_and_values,
    },
    Operation {
        name: "parse_invite_and_validate",
        instructions_max: 15_000,
        allocations_max: 0,
        run: parse_invite_and_validate,
    },
    Operation {
        name: "parse_bye",
        instructions_max: 3_000,
        allocations_max: 0,
        run: parse_bye,
    },
    Operation {
        name: "token_mint_and_open",
        instructions_max: 1_200,
        allocations_max: 0,
        run: token_mint_and_open,
    },
    Operation {
        name: "acr_start_by_template",
        instructions_max: 1_500,
        allocations_max: 0,
        run: acr_start_by_template,
    },
    Operation {
        name: "wheel_insert_and_cancel",
        instructions_max: 120,
        allocations_max: 0,
        run: wheel_insert_and_cancel,
    },
    Operation {
        name: "wheel_insert_and_fire",
        instructions_max: 300,
        allocations_max: 0,
        run: wheel_insert_and_fire,
    },
    Operation {
        name: "ring_put",
        instructions_max: 2_050,
        allocations_max: 0,
        run: replicate::put,
    },
    Operation {
        name: "ring_update",
        instructions_max: 1_950,
        allocations_max: 0,
        run: replicate::update,
    },
    Operation {
        name: "state_write",
        instructions_max: 1_400,
        allocations_max: 0,
        run: state::write,
    },
    Operation {
        name: "version_owner_and_replica",
        instructions_max: 29_500,
        allocations_max: 0,
        run: replicate::owner_and_replica,
    },
    Operation {
        name: "version_owner_two_replicas",
        instructions_max: 44_500,
        allocations_max: 0,
        run: replicate::owner_and_two_replicas,
    },
];

fn parse_invite(rounds: u64) {
    parse_rounds(&message::invite(), rounds, |_| {});
}

fn parse_invite_and_values(rounds: u64) {
    parse_rounds(&message::invite(), rounds, needed_values);
}

fn parse_invite_and_validate(rounds: u64) {
    parse_rounds(&message::invite(), rounds, |message| {
        message.validate().expect("the message is valid");
    });
}

fn parse_bye(rounds: u64) {
    parse_rounds(&message::bye(), rounds, |_| {});
}

fn parse_rounds(raw: &[u8], rounds: u64, then: fn(&Message<'_>)) {
    let mut index = Index::new();
    for _ in 0..rounds {
        let message = sip::parse(black_box(raw), &mut index).expect("the message is well formed");
        then(black_box(&message));
    }
}

/// Everything a new call needs to know.
pub fn needed_values(message: &Message<'_>) {
    black_box((
        message.method(),
        message.cseq(),
        message.max_forwards(),
        message.call_id(),
    ));
    black_box(message.top_via());
    black_box(message.from().map(|from| (from, from.param(b"tag"))));
    black_box(message.to().map(|to| (to, to.param(b"tag"))));
    black_box(message.contact().map(|contact| contact.uri()));
    black_box(Uri::parse(message.request_uri()).ok());
    black_box(message.header(HeaderId::SessionExpires));
    black_box(message.has_token(HeaderId::Supported, b"100rel"));
    let vector = message
        .header(HeaderId::PChargingVector)
        .unwrap_or_default();
    black_box(sip::param_of_list(vector, b"icid-value"));
    black_box(message.body());
}

fn token_mint_and_open(rounds: u64) {
    let key = TokenKey::new(b"a key for tokens");
    for counter in 0..rounds {
        let token = Token {
            node: 1,
            shard: 2,
            incarnation: 3,
            counter,
        };
        let mut text = [0; sip::TOKEN_BYTES];
        key.mint(black_box(&token), 1, &mut text);
        black_box(key.open(black_box(&text)));
    }
}

/// Writes so many STARTs of a call whose template is made.
pub fn acr_start_by_template(rounds: u64) {
    let state = record::started();
    let mut out = Vec::with_capacity(4_096);
    for _ in 0..rounds {
        out.clear();
        assert!(
            encode_pending(black_box(&state), &mut out),
            "a START is pending"
        );
        black_box(&out);
    }
}

/// Timers already armed, so that the wheel is as full as that of a busy shard.
const ARMED: u64 = 10_000;

fn busy_wheel() -> Wheel {
    let mut wheel = Wheel::with_capacity(0, 2 * ARMED as u32);
    for key in 0..ARMED {
        wheel.insert(32_000 + key * 180, key);
    }
    wheel
}

fn wheel_insert_and_cancel(rounds: u64) {
    let mut wheel = busy_wheel();
    for key in 0..rounds {
        let handle = wheel.insert(black_box(500 + (key & 0x7fff)), key);
        black_box(wheel.cancel(black_box(handle)));
    }
}

fn wheel_insert_and_fire(rounds: u64) {
    let mut wheel = Wheel::with_capacity(0, ARMED as u32);
    for now in 0..rounds {
        wheel.insert(black_box(now + 500), now);
        wheel.advance(now);
        while let Some(key) = wheel.poll_expired() {
            black_box(key);
        }
    }
}
