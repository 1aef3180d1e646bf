//! Session timers (RFC 4028), negotiated on each leg by itself.

use charging::time::UnixMillis;

use crate::sip::{HeaderId, Message, param};

/// Who sends the refreshes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum Refresher {
    /// We do.
    Us,
    /// The peer does.
    Peer,
}

/// The session timer of one dialog; off when `expires_s` is 0.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
pub struct SessionTimer {
    /// Session interval in force, seconds; 0 = none.
    pub expires_s: u32,
    /// Who refreshes.
    pub refresher: Option<Refresher>,
    /// Last refresh (or the 2xx that opened the session), steady time.
    pub refreshed: UnixMillis,
}

/// What the operator wants (RFC 4028 4 and 5).
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Session interval we propose, seconds; 0 = we propose none.
    pub expires_s: u32,
    /// Smallest interval we accept, seconds (at least 90 by the RFC).
    pub min_se_s: u32,
}

/// A Session-Expires header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionExpires {
    /// delta-seconds.
    pub seconds: u32,
    /// The refresher parameter: true for `uac`, false for `uas`.
    pub uac: Option<bool>,
}

impl SessionExpires {
    /// Reads the header of a message, if it is there and sane.
    #[must_use]
    pub fn of(message: &Message<'_>) -> Option<Self> {
        let value = message.header(HeaderId::SessionExpires)?;
        let (number, params) = match value.iter().position(|&byte| byte == b';') {
            Some(at) => (&value[..at], &value[at..]),
            None => (value, &[][..]),
        };
        let seconds = std::str::from_utf8(number.trim_ascii())
            .ok()?
            .parse()
            .ok()?;
        let uac = param(params, b"refresher")
            .flatten()
            .and_then(|who| match who {
                who if who.eq_ignore_ascii_case(b"uac") => Some(true),
                who if who.eq_ignore_ascii_case(b"uas") => Some(false),
                _ => None,
            });
        Some(Self { seconds, uac })
    }
}

/// What a request that opens or refreshes a session asks of us as UAS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Go on with this timer, which our 2xx states.
    Agreed(SessionTimer),
    /// Answer 422 with our Min-SE.
    TooSmall,
}

/// Judges a received INVITE or UPDATE (RFC 4028 9).
#[must_use]
pub fn judge_request(wanted: Wanted, request: &Message<'_>, now: UnixMillis) -> Asked {
    let supported = request.has_token(HeaderId::Supported, b"timer");
    let Some(asked) = SessionExpires::of(request) else {
        // No interval asked for: we may state one, and refresh it ourselves if the peer does not
        // know timers (RFC 4028 9, table 2).
        let refresher = match supported {
            true => Refresher::Peer,
            false => Refresher::Us,
        };
        return Asked::Agreed(SessionTimer {
            expires_s: wanted.expires_s,
            refresher: (wanted.expires_s > 0).then_some(refresher),
            refreshed: now,
        });
    };
    if asked.seconds < wanted.min_se_s && supported {
        return Asked::TooSmall;
    }
    let mut expires_s = asked.seconds.max(wanted.min_se_s);
    let floor = min_se_of(request).max(wanted.min_se_s);
    if wanted.expires_s > 0 {
        expires_s = expires_s.min(wanted.expires_s.max(floor));
    }
    // RFC 4028 table 2: a peer without the extension cannot refresh.
    let refresher = match asked.uac {
        _ if !supported => Refresher::Us,
        Some(false) => Refresher::Us,
        Some(true) | None => Refresher::Peer,
    };
    Asked::Agreed(SessionTimer {
        expires_s,
        refresher: Some(refresher),
        refreshed: now,
    })
}

/// The timer that a 2xx to our INVITE or UPDATE states (RFC 4028 7.2).
#[must_use]
pub fn from_response(response: &Message<'_>, now: UnixMillis) -> SessionTimer {
    match SessionExpires::of(response) {
        Some(stated) if stated.seconds > 0 => SessionTimer {
            expires_s: stated.seconds,
            refresher: Some(if stated.uac == Some(false) {
                Refresher::Peer
            } else {
                Refresher::Us
            }),
            refreshed: now,
        },
        _ => SessionTimer {
            expires_s: 0,
            refresher: None,
            refreshed: now,
        },
    }
}

/// The timer after a 2xx to a request inside the dialog. A peer that knows no timers states none,
/// which does not keep us from refreshing on as before.
#[must_use]
pub fn from_answer(before: SessionTimer, response: &Message<'_>, now: UnixMillis) -> SessionTimer {
    let stated = from_response(response, now);
    if stated.expires_s == 0 && before.refresher == Some(Refresher::Us) {
        return SessionTimer {
            refreshed: now,
            ..before
        };
    }
    stated
}

/// The Min-SE of a message, 0 if it has none.
#[must_use]
pub fn min_se_of(message: &Message<'_>) -> u32 {
    message
        .header(HeaderId::MinSe)
        .and_then(|value| {
            let number = value.split(|&byte| byte == b';').next().unwrap_or_default();
            std::str::from_utf8(number.trim_ascii()).ok()?.parse().ok()
        })
        .unwrap_or(0)
}

impl SessionTimer {
    /// When to act next: refresh at half the interval if we refresh, give up at
    /// `expires - min(32, expires/3)` seconds if the peer does (RFC 4028 10).
    #[must_use]
    pub fn due(&self) -> Option<UnixMillis> {
        let interval_ms = u64::from(self.expires_s) * 1_000;
        match self.refresher? {
            _ if self.expires_s == 0 => None,
            Refresher::Us => Some(self.refreshed.plus_ms(interval_ms / 2)),
            Refresher::Peer => Some(
                self.refreshed
                    .plus_ms(interval_ms - (interval_ms / 3).min(32_000)),
            ),
        }
    }

    /// When the session is over whoever should have refreshed it.
    #[must_use]
    pub fn expiry(&self) -> Option<UnixMillis> {
        let interval_ms = u64::from(self.expires_s) * 1_000;
        (self.expires_s > 0).then(|| {
            self.refreshed
                .plus_ms(interval_ms - (interval_ms / 3).min(32_000))
        })
    }
}
