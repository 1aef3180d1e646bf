//! A light reader of session descriptions (RFC 8866): lines, media sections, and whether two of
//! them mean the same media.
//!
//! A description is relayed as it came; what is read here is for charging and for hold. Lines end
//! with CRLF or, as many phones write them, LF alone.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::scan;

/// A session description in its raw bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sdp<'a> {
    session: &'a [u8],
    media: &'a [u8],
}

/// Which way media flows, as seen by who wrote it (RFC 8866 s6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Both ways; the default.
    SendRecv,
    /// The writer sends only: it holds the other side.
    SendOnly,
    /// The writer listens only.
    RecvOnly,
    /// Neither.
    Inactive,
}

impl<'a> Sdp<'a> {
    /// Takes a body for a session description; `None` if it does not begin as one (`v=0`).
    pub fn parse(body: &'a [u8]) -> Option<Sdp<'a>> {
        let first = Lines { rest: body }.next()?;
        if first != b"v=0" {
            return None;
        }
        let media = media_at(body, 0);
        let (session, media) = body.split_at(media);
        Some(Sdp { session, media })
    }

    /// The lines before the first media section, `v=` included, without their line ends.
    pub fn session(&self) -> Lines<'a> {
        Lines { rest: self.session }
    }

    /// The media sections in their order.
    pub fn media(&self) -> MediaSections<'a> {
        // Read once, not for each section: there may be as many lines as sections.
        let direction = self.session().find_map(direction_of);
        let connection = self.session().find_map(|line| line.strip_prefix(b"c="));
        let direction = direction.unwrap_or(Direction::SendRecv);
        MediaSections {
            direction,
            connection,
            rest: self.media,
        }
    }

    /// How many media sections there are, the refused ones (port 0) not counted.
    pub fn streams(&self) -> usize {
        self.media().filter(|media| !media.is_refused()).count()
    }

    /// Whether the writer puts the other side on hold: there are streams and it wants to hear
    /// none of them (RFC 3264 s8.4), or it writes the address 0.0.0.0 as RFC 2543 did.
    pub fn is_hold(&self) -> bool {
        let holds = |media: Media<'a>| {
            matches!(media.direction(), Direction::SendOnly | Direction::Inactive)
                || media.connection_address() == Some(b"0.0.0.0")
        };
        self.streams() > 0 && self.media().filter(|media| !media.is_refused()).all(holds)
    }

    /// Whether no media flows: each stream is inactive, refused, or has no bandwidth.
    pub fn is_inactive(&self) -> bool {
        let is_dead = |media: Media<'a>| {
            media.is_refused()
                || media.direction() == Direction::Inactive
                || media
                    .lines()
                    .any(|line| matches!(line, b"b=AS:0" | b"b=TIAS:0"))
        };
        self.media().all(is_dead)
    }

    /// Whether the other description means the same media: session lines and sections are equal
    /// line by line, but for what changes without the media changing (see [`Sdp::digest`]).
    pub fn is_same_media(&self, other: &Sdp<'_>) -> bool {
        self.material().eq(other.material())
    }

    /// A number that is equal for descriptions of the same media, to be kept in place of one.
    ///
    /// Left out are the origin and its version, the session's name and times, ICE, keys and
    /// fingerprints, and RTCP: a refresh may change them, and no price depends on them.
    pub fn digest(&self) -> u64 {
        let mut hasher = SipHasher13::new();
        for line in self.material() {
            hasher.write(line);
            hasher.write_u8(b'\n');
        }
        hasher.finish()
    }

    fn material(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (session, media) = (Lines { rest: self.session }, Lines { rest: self.media });
        session.chain(media).filter(|line| is_material(line))
    }
}

/// Attributes that change without the media changing; a name ends at `:`, the line's end, or,
/// for a family of names, at the dash.
const IMMATERIAL_ATTRIBUTES: &[&[u8]] = &[
    b"candidate",
    b"remote-candidates",
    b"end-of-candidates",
    b"ice",
    b"crypto",
    b"fingerprint",
    b"setup",
    b"tls-id",
    b"key-mgmt",
    b"connection",
    b"rtcp",
    b"ssrc",
    b"msid",
    b"cname",
];

fn is_material(line: &[u8]) -> bool {
    match line {
        [b'o' | b's' | b't' | b'v' | b'k', b'=', ..] | [] => false,
        [b'a', b'=', attribute @ ..] => {
            let is_end = |byte: &u8| matches!(byte, b':' | b'-');
            let named = |name: &&[u8]| {
                let rest = attribute.strip_prefix(*name);
                rest.is_some_and(|rest| rest.first().is_none_or(is_end))
            };
            !IMMATERIAL_ATTRIBUTES.iter().any(named)
        }
        _ => true,
    }
}

/// Where the first `m=` line that starts at or after `from` begins.
fn media_at(text: &[u8], from: usize) -> usize {
    let mut at = from;
    while at < text.len() {
        if text[at..].starts_with(b"m=") {
            return at;
        }
        match scan::find(b'\n', &text[at..]) {
            Some(end) => at += end + 1,
            None => break,
        }
    }
    text.len()
}

/// Lines without their ends.
#[derive(Clone, Debug)]
pub struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let end = scan::find(b'\n', self.rest);
        let line = &self.rest[..end.unwrap_or(self.rest.len())];
        self.rest = end.map_or(&[], |end| &self.rest[end + 1..]);
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }
}

/// The media sections; see [`Sdp::media`].
#[derive(Clone, Debug)]
pub struct MediaSections<'a> {
    direction: Direction,
    connection: Option<&'a [u8]>,
    rest: &'a [u8],
}

impl<'a> Iterator for MediaSections<'a> {
    type Item = Media<'a>;

    fn next(&mut self) -> Option<Media<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let (section, rest) = self
            .rest
            .split_at(media_at(self.rest, 2.min(self.rest.len())));
        self.rest = rest;
        let name = Lines { rest: section }.next().unwrap_or_default();
        let name = name.strip_prefix(b"m=").unwrap_or(name);
        let (direction, connection) = (self.direction, self.connection);
        Some(Media {
            direction,
            connection,
            section,
            name,
        })
    }
}

/// One media section: `m=audio 49170 RTP/AVP 8 0` and the lines that follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Media<'a> {
    /// The session's, for a section that has none of its own.
    direction: Direction,
    connection: Option<&'a [u8]>,
    section: &'a [u8],
    /// What stands behind `m=`: the SDP-Media-Name of charging.
    pub name: &'a [u8],
}

impl<'a> Media<'a> {
    /// `audio`, `video`, `message` ...
    pub fn kind(&self) -> &'a [u8] {
        self.field(0)
    }

    /// The port; `None` if it cannot be read.
    pub fn port(&self) -> Option<u16> {
        let port = self.field(1).split(|&byte| byte == b'/').next()?;
        scan::decimal(port, u64::from(u16::MAX)).map(|port| port as u16)
    }

    /// Whether the stream is refused or removed (RFC 3264 s6, s8.2): its port is 0.
    pub fn is_refused(&self) -> bool {
        self.port() == Some(0)
    }

    /// `RTP/AVP` and its like.
    pub fn proto(&self) -> &'a [u8] {
        self.field(2)
    }

    /// The formats, in the order of preference.
    pub fn formats(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        fields(self.name).skip(3)
    }

    /// The lines after the `m=` line, without their line ends.
    pub fn lines(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        Lines { rest: self.section }.skip(1)
    }

    /// The value of an attribute of this section, `rtpmap` say, each time it stands there.
    pub fn attributes(&self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.lines().filter_map(move |line| {
            let rest = line.strip_prefix(b"a=")?.strip_prefix(name)?;
            if rest.is_empty() {
                Some(rest)
            } else {
                rest.strip_prefix(b":")
            }
        })
    }

    /// The codec of a format as `rtpmap` names it (`PCMA/8000`), if it does.
    pub fn codec(&self, format: &[u8]) -> Option<&'a [u8]> {
        self.attributes(b"rtpmap").find_map(|value| {
            let mut words = fields(value);
            (words.next() == Some(format)).then(|| words.next())?
        })
    }

    /// Which way the stream flows: the section's word, else the session's, else both ways.
    pub fn direction(&self) -> Direction {
        self.lines()
            .find_map(direction_of)
            .unwrap_or(self.direction)
    }

    /// The connection (`IN IP4 192.0.2.1`) of the section, else of the session.
    pub fn connection(&self) -> Option<&'a [u8]> {
        self.lines()
            .find_map(|line| line.strip_prefix(b"c="))
            .or(self.connection)
    }

    /// The address of the connection.
    pub fn connection_address(&self) -> Option<&'a [u8]> {
        fields(self.connection()?).nth(2)
    }

    fn field(&self, number: usize) -> &'a [u8] {
        fields(self.name).nth(number).unwrap_or_default()
    }
}

fn direction_of(line: &[u8]) -> Option<Direction> {
    match line {
        b"a=sendrecv" => Some(Direction::SendRecv),
        b"a=sendonly" => Some(Direction::SendOnly),
        b"a=recvonly" => Some(Direction::RecvOnly),
        b"a=inactive" => Some(Direction::Inactive),
        _ => None,
    }
}

fn fields(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b' ')
        .filter(|field| !field.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
        m=audio 49170 RTP/AVP 8 0\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\n\
        a=ice-ufrag:x\r\na=crypto:1 A\r\na=rtcp:49171\r\n\
        m=video 0 RTP/AVP 31\r\nc=IN IP6 2001:db8::1\r\na=inactive\r\n";

    fn sdp(text: &str) -> Sdp<'_> {
        Sdp::parse(text.as_bytes()).expect("begins with v=0")
    }

    #[test]
    fn media_that_cannot_flow_is_inactive() {
        let is_inactive = |lines: &str| {
            let text = format!("v=0\r\nc=IN IP4 192.0.2.1\r\n{lines}");
            Sdp::parse(text.as_bytes()).expect("an SDP").is_inactive()
        };
        assert!(is_inactive("m=audio 4000 RTP/AVP 8\r\na=inactive\r\n"));
        assert!(is_inactive(
            "m=audio 4000 RTP/AVP 8\r\nb=AS:0\r\nm=video 0 RTP/AVP 99\r\n"
        ));
        assert!(!is_inactive("m=audio 4000 RTP/AVP 8\r\na=sendonly\r\n"));
        assert!(!is_inactive(
            "m=audio 4000 RTP/AVP 8\r\na=inactive\r\nm=video 2 RTP/AVP 99\r\n"
        ));
    }

    #[test]
    fn sections_and_their_fields_are_taken_apart() {
        let offer = sdp(OFFER);
        assert_eq!(offer.session().count(), 5);
        let sections: Vec<_> = offer.media().collect();
        assert_eq!(sections.len(), 2);
        let audio = sections[0];
        assert_eq!((audio.kind(), audio.port()), (&b"audio"[..], Some(49170)));
        assert_eq!(audio.proto(), b"RTP/AVP");
        assert!(audio.formats().eq([&b"8"[..], b"0"]));
        assert_eq!(audio.codec(b"8"), Some(&b"PCMA/8000"[..]));
        assert_eq!(audio.codec(b"18"), None);
        assert_eq!(audio.connection_address(), Some(&b"192.0.2.1"[..]));
        assert_eq!(audio.direction(), Direction::SendRecv);
        let video = sections[1];
        assert!(video.is_refused());
        assert_eq!(video.name, b"video 0 RTP/AVP 31");
        assert_eq!(video.connection_address(), Some(&b"2001:db8::1"[..]));
        assert_eq!(video.direction(), Direction::Inactive);
        assert_eq!(offer.streams(), 1);
    }

    #[test]
    fn what_a_refresh_changes_is_not_material() {
        let offer = sdp(OFFER);
        for (from, to) in [
            ("o=- 1 1", "o=- 1 2"),
            ("ice-ufrag:x", "ice-ufrag:y"),
            ("a=crypto:1 A", "a=crypto:1 B"),
            ("a=rtcp:49171", "a=rtcp-mux"),
            ("s=-", "s=call"),
        ] {
            let changed = OFFER.replace(from, to);
            assert!(offer.is_same_media(&sdp(&changed)), "{to}");
            assert_eq!(offer.digest(), sdp(&changed).digest(), "{to}");
        }
        let lf = OFFER.replace('\r', "");
        assert_eq!(offer.digest(), sdp(&lf).digest(), "line ends");
        for (from, to) in [
            ("49170 RTP/AVP 8 0", "49170 RTP/AVP 0 8"),
            ("video 0", "video 5000"),
            ("a=inactive", "a=sendonly"),
            ("c=IN IP4 192.0.2.1", "c=IN IP4 192.0.2.2"),
            ("rtpmap:8 PCMA", "rtpmap:8 G729"),
        ] {
            let changed = OFFER.replace(from, to);
            assert!(!offer.is_same_media(&sdp(&changed)), "{to}");
            assert_ne!(offer.digest(), sdp(&changed).digest(), "{to}");
        }
    }

    #[test]
    fn hold_is_told_by_direction_or_by_the_old_address() {
        let base = "v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 1 RTP/AVP 0\r\nm=video 0 RTP/AVP 31\r\n";
        assert!(!sdp(base).is_hold());
        let replaced = |from: &str, to: &str| base.replace(from, to);
        assert!(sdp(&replaced("AVP 0\r\n", "AVP 0\r\na=sendonly\r\n")).is_hold());
        assert!(sdp(&replaced("AVP 0\r\n", "AVP 0\r\na=inactive\r\n")).is_hold());
        assert!(!sdp(&replaced("AVP 0\r\n", "AVP 0\r\na=recvonly\r\n")).is_hold());
        assert!(sdp(&replaced("192.0.2.1", "0.0.0.0")).is_hold());
        assert!(
            sdp(&replaced("v=0\r\n", "v=0\r\na=sendonly\r\n")).is_hold(),
            "for the session"
        );
        assert!(
            !sdp("v=0\r\nm=audio 0 RTP/AVP 0\r\na=inactive\r\n").is_hold(),
            "no stream left"
        );
    }

    #[test]
    fn other_bodies_are_no_descriptions() {
        for body in ["", "v=1\r\n", "hello", "\r\nv=0", "m=audio 1 RTP/AVP 0"] {
            assert_eq!(Sdp::parse(body.as_bytes()), None, "{body:?}");
        }
        let odd = sdp("v=0\nm=\nm=audio\nm=audio x RTP/AVP\nm");
        assert_eq!(odd.media().count(), 3);
        assert!(odd.media().all(|media| media.port().is_none()));
    }
}
