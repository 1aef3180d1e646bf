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
        match self.refresher? {
            _ if self.expires_s == 0 => None,
            Refresher::Us => Some(self.refreshed.plus_ms(self.half_ms())),
            Refresher::Peer => Some(self.refreshed.plus_ms(self.life_ms())),
        }
    }

    /// When the session is over whoever should have refreshed it.
    #[must_use]
    pub fn expiry(&self) -> Option<UnixMillis> {
        (self.expires_s > 0).then(|| self.refreshed.plus_ms(self.life_ms()))
    }

    /// Takes over what another process or node kept, and says how many milliseconds from now to act
    /// for it. The clock that it was kept by may have been any, and nobody may have acted for a
    /// while. So it ends nothing here and now: what we refresh is refreshed before the peer gives it
    /// up, and a peer has until after it had to refresh, if it did so last when it had to.
    ///
    /// What is overdue is spread over `spread_ms`; `below` draws a number below its argument.
    pub fn take_up(
        &mut self,
        now: UnixMillis,
        spread_ms: u64,
        mut below: impl FnMut(u64) -> u64,
    ) -> Option<u64> {
        let (half, life) = (self.half_ms(), self.life_ms());
        let slack = life - half;
        let age = now.ms_since(self.refreshed);
        let refresher = self.refresher.filter(|_| self.expires_s > 0)?;
        if refresher == Refresher::Peer {
            let fair = half + (slack / 2).min(ANSWER_MS);
            let left = match life.saturating_sub(age) {
                left if left >= fair => left,
                _ => (fair + below(spread_ms + 1)).min(life),
            };
            self.refreshed = now.minus_ms(life - left);
            return Some(left);
        }
        self.refreshed = self.refreshed.clamp(now.minus_ms(half), now);
        Some(match half.saturating_sub(age) {
            0 => below(spread_ms + 1).min(slack / 2),
            left if left <= slack => left,
            // It may have been refreshed as long ago as half the interval. But many a phone has not
            // asked for refreshes and knows none, and is not troubled before it has to be.
            _ => slack / 4 * 3 + below(slack / 8 + 1),
        })
    }

    /// Half the interval: whoever refreshes does so then.
    fn half_ms(&self) -> u64 {
        u64::from(self.expires_s) * 1_000 / 2
    }

    /// When the other one gives up (RFC 4028 10).
    fn life_ms(&self) -> u64 {
        let interval_ms = u64::from(self.expires_s) * 1_000;
        interval_ms - (interval_ms / 3).min(ANSWER_MS)
    }
}

/// How long a request waits for its answer: 64*T1.
const ANSWER_MS: u64 = 32_000;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
    const SPREAD_MS: u64 = 1_500;
    const DAY_MS: i64 = 86_400_000;

    // A session that was refreshed so long ago by the clock of who had it.
    fn taken_up(expires_s: u32, refresher: Refresher, age: i64, drawn: u64) -> (SessionTimer, u64) {
        let mut session = SessionTimer {
            expires_s,
            refresher: Some(refresher),
            refreshed: UnixMillis(NOW.0.saturating_add_signed(-age)),
        };
        let most = |bound: u64| drawn.min(bound - 1);
        let delay = session.take_up(NOW, SPREAD_MS, most);
        (session, delay.expect("it is due some time"))
    }

    #[test]
    fn by_clocks_that_agree_a_deadline_stays_what_it_was() {
        // 50 s before the refresh, and 600 s before the peer has to be given up.
        let (session, delay) = taken_up(1_800, Refresher::Us, 850_000, 0);
        assert_eq!((session.refreshed, delay), (NOW.minus_ms(850_000), 50_000));
        let (session, delay) = taken_up(1_800, Refresher::Peer, 768_000, 0);
        assert_eq!(
            (session.refreshed, delay),
            (NOW.minus_ms(768_000), 1_000_000)
        );
    }

    // Its true age is at most half the interval, so the peer gives up `life - half` from now.
    #[test]
    fn what_we_refresh_is_refreshed_in_time_whatever_the_clock_was() {
        for expires_s in [0_u32, 1, 2, 90, 600, 1_800, 86_400, u32::MAX] {
            let (half, interval) = (i64::from(expires_s) * 500, i64::from(expires_s) * 1_000);
            let ages = [
                -DAY_MS,
                -1,
                0,
                1,
                half - 1,
                half,
                interval,
                DAY_MS,
                i64::MIN + 1,
            ];
            for (age, drawn) in ages.into_iter().flat_map(|age| [(age, 0), (age, u64::MAX)]) {
                if expires_s == 0 {
                    continue;
                }
                let (session, delay) = taken_up(expires_s, Refresher::Us, age, drawn);
                let slack = session.life_ms() - session.half_ms();
                assert!(delay <= slack, "{expires_s} {age}: {delay}");
                let expiry = session.expiry().expect("it has one");
                assert!(expiry.ms_since(NOW) >= slack, "{expires_s} {age}");
                assert!(session.refreshed <= NOW, "{expires_s} {age}");
            }
        }
    }

    #[test]
    fn a_peer_has_until_after_it_had_to_refresh() {
        for expires_s in [1_u32, 2, 90, 600, 1_800, 86_400, u32::MAX] {
            let interval = i64::from(expires_s) * 1_000;
            let ages = [
                -DAY_MS,
                -1,
                0,
                1,
                interval / 2,
                interval,
                DAY_MS,
                i64::MIN + 1,
            ];
            for (age, drawn) in ages.into_iter().flat_map(|age| [(age, 0), (age, u64::MAX)]) {
                let (session, left) = taken_up(expires_s, Refresher::Peer, age, drawn);
                assert!(left >= session.half_ms(), "{expires_s} {age}: {left}");
                assert!(left <= session.life_ms(), "{expires_s} {age}: {left}");
                let expiry = session.expiry().expect("it has one");
                assert_eq!(expiry.ms_since(NOW), left, "{expires_s} {age}");
            }
        }
    }

    #[test]
    fn what_is_overdue_is_spread() {
        for refresher in [Refresher::Us, Refresher::Peer] {
            let (_, first) = taken_up(1_800, refresher, DAY_MS, 0);
            let (_, last) = taken_up(1_800, refresher, DAY_MS, u64::MAX);
            assert_eq!(last - first, SPREAD_MS);
        }
    }
}
