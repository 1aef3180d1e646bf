//! Names of header fields and methods.
//!
//! A header name is recognised by a perfect hash over its length and its first, middle and
//! last byte, all with the case folded, and one comparison with the only name that can match.

use super::scan;

/// Writes the enum, the table of names and the conversions from one list.
macro_rules! header_fields {
    ($($(#[$doc:meta])* $id:ident = $name:literal $(| $compact:literal)?;)*) => {
        /// Which header field a line is; the long name and the compact one are the same field.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum HeaderId {
            /// A field this node has no use for by name: it passes through.
            Other = 0,
            $($(#[$doc])* #[doc = concat!("`", $name, "`.")] $id,)*
        }

        /// Every name, compact ones included, with the field it stands for.
        const NAMES: &[(&str, HeaderId)] = &[
            $(($name, HeaderId::$id), $(($compact, HeaderId::$id),)?)*
        ];

        impl HeaderId {
            /// How many values the enum has.
            pub const COUNT: usize = [HeaderId::Other, $(HeaderId::$id),*].len();

            /// The name as the standard writes it; empty for [`HeaderId::Other`].
            pub const fn name(self) -> &'static str {
                match self {
                    HeaderId::Other => "",
                    $(HeaderId::$id => $name,)*
                }
            }
        }
    };
}

header_fields! {
    Via = "Via" | "v";
    From = "From" | "f";
    To = "To" | "t";
    CallId = "Call-ID" | "i";
    CSeq = "CSeq";
    MaxForwards = "Max-Forwards";
    Contact = "Contact" | "m";
    Route = "Route";
    RecordRoute = "Record-Route";
    ContentLength = "Content-Length" | "l";
    ContentType = "Content-Type" | "c";
    SessionExpires = "Session-Expires" | "x";
    MinSe = "Min-SE";
    Supported = "Supported" | "k";
    Require = "Require";
    ProxyRequire = "Proxy-Require";
    Allow = "Allow";
    Expires = "Expires";
    PChargingVector = "P-Charging-Vector";
    PChargingFunctionAddresses = "P-Charging-Function-Addresses";
    PAssertedIdentity = "P-Asserted-Identity";
    PAccessNetworkInfo = "P-Access-Network-Info";
    Privacy = "Privacy";
    RSeq = "RSeq";
    RAck = "RAck";
    Event = "Event" | "o";
    ReferTo = "Refer-To" | "r";
    ReferredBy = "Referred-By" | "b";
    Replaces = "Replaces";
    Authorization = "Authorization";
    ProxyAuthorization = "Proxy-Authorization";
    WwwAuthenticate = "WWW-Authenticate";
    ProxyAuthenticate = "Proxy-Authenticate";
    Reason = "Reason";
    RetryAfter = "Retry-After";
    SubscriptionState = "Subscription-State";
    Unsupported = "Unsupported";
    PServedUser = "P-Served-User";
    PCalledPartyId = "P-Called-Party-ID";
    PVisitedNetworkId = "P-Visited-Network-ID";
    PAssertedService = "P-Asserted-Service";
    PAssociatedUri = "P-Associated-URI";
    ResourcePriority = "Resource-Priority";
    Priority = "Priority";
    HistoryInfo = "History-Info";
    Diversion = "Diversion";
    Join = "Join";
    ContentDisposition = "Content-Disposition";
    CellularNetworkInfo = "Cellular-Network-Info";
    Accept = "Accept";
    AcceptContact = "Accept-Contact" | "a";
    AcceptEncoding = "Accept-Encoding";
    AcceptLanguage = "Accept-Language";
    AlertInfo = "Alert-Info";
    AllowEvents = "Allow-Events" | "u";
    AuthenticationInfo = "Authentication-Info";
    CallInfo = "Call-Info";
    ContentEncoding = "Content-Encoding" | "e";
    ContentLanguage = "Content-Language";
    Date = "Date";
    ErrorInfo = "Error-Info";
    FeatureCaps = "Feature-Caps";
    FlowTimer = "Flow-Timer";
    Geolocation = "Geolocation";
    Identity = "Identity" | "y";
    InfoPackage = "Info-Package";
    InReplyTo = "In-Reply-To";
    MinExpires = "Min-Expires";
    MimeVersion = "MIME-Version";
    Organization = "Organization";
    Path = "Path";
    PEarlyMedia = "P-Early-Media";
    PPreferredIdentity = "P-Preferred-Identity";
    PPreferredService = "P-Preferred-Service";
    PUserDatabase = "P-User-Database";
    RecvInfo = "Recv-Info";
    RejectContact = "Reject-Contact" | "j";
    ReplyTo = "Reply-To";
    RequestDisposition = "Request-Disposition" | "d";
    SecurityClient = "Security-Client";
    SecurityServer = "Security-Server";
    SecurityVerify = "Security-Verify";
    Server = "Server";
    ServiceRoute = "Service-Route";
    SessionId = "Session-ID";
    SipEtag = "SIP-ETag";
    SipIfMatch = "SIP-If-Match";
    Subject = "Subject" | "s";
    TargetDialog = "Target-Dialog";
    Timestamp = "Timestamp";
    UserAgent = "User-Agent";
    UserToUser = "User-to-User";
    Warning = "Warning";
}

impl HeaderId {
    /// The field that `name` (long or compact, any case) stands for.
    pub fn from_name(name: &[u8]) -> HeaderId {
        if name.is_empty() || name.len() >= NAME_WINDOW {
            return HeaderId::Other;
        }
        let mut window = [0u8; NAME_WINDOW];
        window[..name.len()].copy_from_slice(name);
        window[name.len()] = b':';
        recognise(&window, name.len())
    }

    /// Whether two lines of this field make the message ambiguous beyond repair.
    ///
    /// Only these: real traffic repeats other single-value fields, harmlessly.
    pub(super) const fn is_fatal_when_repeated(self) -> bool {
        matches!(
            self,
            HeaderId::From
                | HeaderId::To
                | HeaderId::CallId
                | HeaderId::CSeq
                | HeaderId::MaxForwards
                | HeaderId::ContentLength
        )
    }
}

/// How many bytes are looked at for a name and its colon; no known name is longer.
pub(super) const NAME_WINDOW: usize = 32;

/// A known name in the form it is compared in, eight bytes a word.
struct KnownName {
    /// The name in lower case and the colon behind it; zero from there on.
    text: [u64; 4],
    /// 0x20 where `text` holds a letter: or-ing it folds the case of letters and nothing else.
    fold: [u64; 4],
    /// 0xff where `text` holds a byte of the name or its colon.
    mask: [u64; 4],
    id: HeaderId,
}

const TABLE_BITS: u32 = 10;
const ABSENT: u8 = 0xff;
/// Found by search; `TABLE` does not compile when two names collide under it, and the test
/// `a_multiplier_without_collisions_exists` prints one that serves after names were added.
const MULTIPLIER: u32 = 0xAF05_2BA1;
const TABLE: [u8; 1 << TABLE_BITS] = table();
const KNOWN: [KnownName; NAMES.len()] = known();

const fn hash(length: usize, first: u8, middle: u8, last: u8, multiplier: u32) -> usize {
    let key = u32::from_le_bytes([length as u8, first | 0x20, middle | 0x20, last | 0x20]);
    (key.wrapping_mul(multiplier) >> (32 - TABLE_BITS)) as usize
}

const fn hash_name(name: &[u8], multiplier: u32) -> usize {
    let length = name.len();
    hash(
        length,
        name[0],
        name[length / 2],
        name[length - 1],
        multiplier,
    )
}

const fn table() -> [u8; 1 << TABLE_BITS] {
    let mut table = [ABSENT; 1 << TABLE_BITS];
    let mut i = 0;
    while i < NAMES.len() {
        let slot = hash_name(NAMES[i].0.as_bytes(), MULTIPLIER);
        assert!(
            table[slot] == ABSENT,
            "two header names collide: choose another MULTIPLIER"
        );
        table[slot] = i as u8;
        i += 1;
    }
    table
}

const fn known() -> [KnownName; NAMES.len()] {
    const BLANK: KnownName = KnownName {
        text: [0; 4],
        fold: [0; 4],
        mask: [0; 4],
        id: HeaderId::Other,
    };
    let mut known = [BLANK; NAMES.len()];
    let mut i = 0;
    while i < NAMES.len() {
        let name = NAMES[i].0.as_bytes();
        assert!(
            name.len() < NAME_WINDOW,
            "a known name and its colon fit the window"
        );
        let mut at = 0;
        while at <= name.len() {
            let shift = 8 * (at % 8) as u32;
            let byte = if at < name.len() {
                name[at].to_ascii_lowercase()
            } else {
                b':'
            };
            known[i].text[at / 8] |= (byte as u64) << shift;
            known[i].mask[at / 8] |= 0xff << shift;
            if byte.is_ascii_alphabetic() {
                known[i].fold[at / 8] |= 0x20 << shift;
            }
            at += 1;
        }
        known[i].id = NAMES[i].1;
        i += 1;
    }
    known
}

#[inline]
fn words(window: &[u8; NAME_WINDOW]) -> [u64; 4] {
    let word = |i: usize| {
        let bytes = window[i * 8..i * 8 + 8]
            .try_into()
            .expect("a slice of eight bytes");
        u64::from_le_bytes(bytes)
    };
    [word(0), word(1), word(2), word(3)]
}

/// Where the first colon of `window` is.
#[inline]
pub(super) fn colon(window: &[u8; NAME_WINDOW]) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGHS: u64 = u64::from_le_bytes([0x80; 8]);
    const COLONS: u64 = u64::from_le_bytes([b':'; 8]);
    for (i, word) in words(window).into_iter().enumerate() {
        // The lowest bit this leaves is that of the first zero byte, never a false one.
        let word = word ^ COLONS;
        let zeros = word.wrapping_sub(ONES) & !word & HIGHS;
        if zeros != 0 {
            return Some(i * 8 + zeros.trailing_zeros() as usize / 8);
        }
    }
    None
}

/// The field whose name is the first `length` bytes of `window`; a colon stands behind them.
#[inline]
pub(super) fn recognise(window: &[u8; NAME_WINDOW], length: usize) -> HeaderId {
    if length == 0 || length >= NAME_WINDOW {
        return HeaderId::Other;
    }
    let (first, middle, last) = (window[0], window[length / 2], window[length - 1]);
    let found = TABLE[hash(length, first, middle, last, MULTIPLIER)];
    let Some(known) = KNOWN.get(usize::from(found)) else {
        return HeaderId::Other;
    };
    let words = words(window);
    let differs = |i: usize| ((words[i] | known.fold[i]) & known.mask[i]) ^ known.text[i];
    // The colon is compared too, and with it the length; most names end in the first half.
    let same = differs(0) | differs(1) == 0 && (length < 16 || differs(2) | differs(3) == 0);
    if same { known.id } else { HeaderId::Other }
}

/// A request method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Method {
    /// RFC 3261.
    Invite,
    /// RFC 3261.
    Ack,
    /// RFC 3261.
    Bye,
    /// RFC 3261.
    Cancel,
    /// RFC 3261.
    Options,
    /// RFC 3261.
    Register,
    /// RFC 3262.
    Prack,
    /// RFC 3311.
    Update,
    /// RFC 6086.
    Info,
    /// RFC 3428.
    Message,
    /// RFC 6665.
    Subscribe,
    /// RFC 6665.
    Notify,
    /// RFC 3515.
    Refer,
    /// RFC 3903.
    Publish,
    /// Any other token: the message is well formed, the answer is 501 or 405.
    Other,
}

impl Method {
    /// The method that `text` names. RFC 3261 s7.1: methods are compared with their case.
    #[inline]
    pub fn from_bytes(text: &[u8]) -> Method {
        match text {
            b"INVITE" => Method::Invite,
            b"ACK" => Method::Ack,
            b"BYE" => Method::Bye,
            b"CANCEL" => Method::Cancel,
            b"OPTIONS" => Method::Options,
            b"REGISTER" => Method::Register,
            b"PRACK" => Method::Prack,
            b"UPDATE" => Method::Update,
            b"INFO" => Method::Info,
            b"MESSAGE" => Method::Message,
            b"SUBSCRIBE" => Method::Subscribe,
            b"NOTIFY" => Method::Notify,
            b"REFER" => Method::Refer,
            b"PUBLISH" => Method::Publish,
            _ => Method::Other,
        }
    }

    /// The method's name; `OTHER` has none and gives an empty text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Method::Invite => "INVITE",
            Method::Ack => "ACK",
            Method::Bye => "BYE",
            Method::Cancel => "CANCEL",
            Method::Options => "OPTIONS",
            Method::Register => "REGISTER",
            Method::Prack => "PRACK",
            Method::Update => "UPDATE",
            Method::Info => "INFO",
            Method::Message => "MESSAGE",
            Method::Subscribe => "SUBSCRIBE",
            Method::Notify => "NOTIFY",
            Method::Refer => "REFER",
            Method::Publish => "PUBLISH",
            Method::Other => "",
        }
    }
}

/// The name of the line at the start of `line` when it takes more than a look at the window:
/// an unknown or long name, or white space before the colon (RFC 3261 s25.1 `HCOLON`).
///
/// Gives the length of the name and the position after the colon.
pub(super) fn long_way_round(line: &[u8]) -> Option<(usize, usize)> {
    let length = scan::token_end(line, 0);
    let mut at = length;
    while matches!(line.get(at), Some(b' ' | b'\t')) {
        at += 1;
    }
    (length > 0 && line.get(at) == Some(&b':')).then_some((length, at + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_recognised_in_any_case() {
        for (name, id) in NAMES {
            for form in [name.to_string(), name.to_uppercase(), name.to_lowercase()] {
                assert_eq!(HeaderId::from_name(form.as_bytes()), *id, "{form}");
            }
        }
    }

    #[test]
    fn a_near_miss_is_another_field() {
        for name in [
            "",
            "q",
            "Vib",
            "Fron",
            "Call_ID",
            "Call\rID",
            "Max-Forwardz",
            "To ",
        ] {
            assert_eq!(
                HeaderId::from_name(name.as_bytes()),
                HeaderId::Other,
                "{name:?}"
            );
        }
        let long = [b'a'; 300];
        assert_eq!(HeaderId::from_name(&long), HeaderId::Other);
    }

    #[test]
    fn a_multiplier_without_collisions_exists() {
        let mut multiplier = 0x9E37_79B1u32;
        loop {
            let mut used = [false; 1 << TABLE_BITS];
            let free = NAMES.iter().all(|(name, _)| {
                !std::mem::replace(&mut used[hash_name(name.as_bytes(), multiplier)], true)
            });
            if free {
                break;
            }
            multiplier = multiplier
                .wrapping_mul(0x0019_660D)
                .wrapping_add(0x3C6E_F35F)
                | 1;
        }
        println!("{multiplier:#010X}");
    }

    #[test]
    fn a_colon_is_found_anywhere_in_the_window() {
        for at in 0..NAME_WINDOW {
            let mut window = [0xffu8; NAME_WINDOW];
            window[at] = b':';
            assert_eq!(colon(&window), Some(at));
            window[NAME_WINDOW - 1] = b':';
            assert_eq!(colon(&window), Some(at));
        }
        assert_eq!(colon(&[b';'; NAME_WINDOW]), None);
    }

    #[test]
    fn methods_compare_with_their_case() {
        for method in ["INVITE", "ACK", "BYE", "PRACK", "PUBLISH", "SUBSCRIBE"] {
            assert_eq!(Method::from_bytes(method.as_bytes()).as_str(), method);
        }
        assert_eq!(Method::from_bytes(b"invite"), Method::Other);
    }
}
