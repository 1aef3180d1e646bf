//! URIs, name-addr and Via values (RFC 3261 sections 19, 20 and 25).
//!
//! Each type borrows from the message. Parsing checks the grammar of what it takes apart;
//! parameters are looked up when asked for, with [`param`].

use std::net::{IpAddr, SocketAddr};

use super::error::ParseError;
use super::scan;

/// The port of UDP and TCP when none is written (RFC 3261 s19.1.2).
pub const PORT_DEFAULT: u16 = 5060;
/// The port of TLS when none is written.
pub const PORT_DEFAULT_TLS: u16 = 5061;

/// Which kind of URI it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `sip:` (RFC 3261).
    Sip,
    /// `sips:` (RFC 3261).
    Sips,
    /// `tel:` (RFC 3966).
    Tel,
    /// `urn:` (RFC 5031: `urn:service:sos`).
    Urn,
    /// Any other.
    Other,
}

/// A URI in its parts.
///
/// For `tel:` and `urn:` the number or name is in `user`, and `host` is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uri<'a> {
    /// The scheme.
    pub scheme: Scheme,
    /// What stands before the last `@`, the password included, never unescaped.
    pub user: Option<&'a [u8]>,
    /// As written: an IPv6 address keeps its brackets.
    pub host: &'a [u8],
    /// The port, if written.
    pub port: Option<u16>,
    /// The parameters, each with its leading semicolon.
    pub params: &'a [u8],
    /// The header part, with its leading question mark.
    pub headers: &'a [u8],
}

impl<'a> Uri<'a> {
    /// Reads a whole URI.
    pub fn parse(text: &'a [u8]) -> Result<Uri<'a>, ParseError> {
        // Nearly every URI is a lower-case sip URI.
        let (scheme, rest) = match text.strip_prefix(b"sip:") {
            Some(rest) => (Scheme::Sip, rest),
            None => {
                let colon = scan::find(b':', text).ok_or(ParseError::Syntax)?;
                (scheme(&text[..colon])?, &text[colon + 1..])
            }
        };
        if rest.is_empty() || !scan::is_uri_text(rest) {
            return Err(ParseError::Syntax);
        }
        if !matches!(scheme, Scheme::Sip | Scheme::Sips) {
            let end = scan::find(b';', rest).unwrap_or(rest.len());
            return Ok(Uri {
                scheme,
                user: Some(&rest[..end]),
                host: &[],
                port: None,
                params: &rest[end..],
                headers: &[],
            });
        }
        // The user part may hold ';', '?' and escaped '@': only the last '@' ends it.
        let (user, after) = match scan::find_last(b'@', rest) {
            Some(0) => return Err(ParseError::Syntax),
            Some(at) => (Some(&rest[..at]), &rest[at + 1..]),
            None => (None, rest),
        };
        let (host, port, end) = host_port(after, false)?;
        let tail = &after[end..];
        if !matches!(tail.first(), None | Some(b';' | b'?')) {
            return Err(ParseError::Syntax);
        }
        let (params, headers) = tail.split_at(scan::find(b'?', tail).unwrap_or(tail.len()));
        Ok(Uri {
            scheme,
            user,
            host,
            port,
            params,
            headers,
        })
    }

    /// A parameter: `None` when absent, `Some(None)` when it has no value.
    pub fn param(&self, name: &[u8]) -> Option<Option<&'a [u8]>> {
        param(self.params, name)
    }

    /// The host as an address, when it is written as one.
    pub fn ip(&self) -> Option<IpAddr> {
        ip(self.host)
    }

    /// Address and port, when the host is written as an address.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        let default = if self.scheme == Scheme::Sips {
            PORT_DEFAULT_TLS
        } else {
            PORT_DEFAULT
        };
        Some(SocketAddr::new(self.ip()?, self.port.unwrap_or(default)))
    }
}

fn scheme(name: &[u8]) -> Result<Scheme, ParseError> {
    let legal = |&byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    Ok(match name {
        _ if name.eq_ignore_ascii_case(b"sip") => Scheme::Sip,
        _ if name.eq_ignore_ascii_case(b"sips") => Scheme::Sips,
        _ if name.eq_ignore_ascii_case(b"tel") => Scheme::Tel,
        _ if name.eq_ignore_ascii_case(b"urn") => Scheme::Urn,
        [first, rest @ ..] if first.is_ascii_alphabetic() && rest.iter().all(legal) => {
            Scheme::Other
        }
        _ => return Err(ParseError::Syntax),
    })
}

/// Reads `host [":" port]`; gives where it ends. White space round the colon is legal in a Via
/// only.
fn host_port(text: &[u8], lws: bool) -> Result<(&[u8], Option<u16>, usize), ParseError> {
    let end = if text.first() == Some(&b'[') {
        let close = scan::ipv6_end(text, 1);
        // "::" is the shortest address.
        if close < 3 || text.get(close) != Some(&b']') {
            return Err(ParseError::Syntax);
        }
        close + 1
    } else {
        scan::host_end(text, 0)
    };
    if end == 0 {
        return Err(ParseError::Syntax);
    }
    let host = &text[..end];
    let space = |at| if lws { scan::skip_lws(text, at) } else { at };
    let colon = space(end);
    if text.get(colon) != Some(&b':') {
        return Ok((host, None, end));
    }
    let start = space(colon + 1);
    let stop = scan::digits_end(text, start);
    let port = scan::decimal(&text[start..stop], u64::from(u16::MAX)).ok_or(ParseError::Syntax)?;
    Ok((host, Some(port as u16), stop))
}

/// A host that is written as an address, brackets or not.
pub(super) fn ip(host: &[u8]) -> Option<IpAddr> {
    let bare = match host {
        [b'[', inside @ .., b']'] => inside,
        _ => host,
    };
    // Names seldom start with a digit: spare them the attempt.
    if !bare.first()?.is_ascii_hexdigit() && bare[0] != b':' {
        return None;
    }
    std::str::from_utf8(bare).ok()?.parse().ok()
}

/// A name-addr or addr-spec with its parameters, as in From, To, Contact and Route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameAddr<'a> {
    /// The display name as written, quotation marks included; often empty.
    pub display: &'a [u8],
    /// The URI, without angle brackets.
    pub uri: &'a [u8],
    /// The parameters of the header field, each with its leading semicolon.
    pub params: &'a [u8],
}

impl<'a> NameAddr<'a> {
    /// Reads one whole value.
    pub fn parse(text: &'a [u8]) -> Result<NameAddr<'a>, ParseError> {
        let text = scan::trim(text);
        let open = match text.first() {
            Some(b'<') => Some(0),
            Some(b'"') => {
                let end = scan::quoted_end(text, 0).ok_or(ParseError::Syntax)?;
                let open = scan::skip_lws(text, end);
                if text.get(open) != Some(&b'<') {
                    return Err(ParseError::Syntax);
                }
                Some(open)
            }
            _ => unquoted_display_end(text),
        };
        let (display, uri, rest) = match open {
            Some(open) => {
                let inside = &text[open + 1..];
                let close = scan::find(b'>', inside).ok_or(ParseError::Syntax)?;
                (
                    scan::trim(&text[..open]),
                    &inside[..close],
                    &inside[close + 1..],
                )
            }
            None => {
                let end = addr_spec_end(text)?;
                (&text[..0], &text[..end], &text[end..])
            }
        };
        if !looks_like_uri(uri) {
            return Err(ParseError::Syntax);
        }
        let params = scan::trim(rest);
        if !matches!(params.first(), None | Some(b';')) {
            return Err(ParseError::Syntax);
        }
        Ok(NameAddr {
            display,
            uri,
            params,
        })
    }

    /// A parameter of the header field, not of the URI.
    #[inline]
    pub fn param(&self, name: &[u8]) -> Option<Option<&'a [u8]>> {
        param(self.params, name)
    }

    /// The URI in its parts.
    #[inline]
    pub fn uri(&self) -> Result<Uri<'a>, ParseError> {
        Uri::parse(self.uri)
    }
}

/// Whether `text` begins with a scheme and ends with no white space: enough to take a name-addr
/// apart. [`Uri::parse`] looks at the rest, when somebody wants to know.
#[inline]
fn looks_like_uri(text: &[u8]) -> bool {
    let scheme = text
        .iter()
        .take(SCHEME_BYTES_MAX)
        .position(|&byte| byte == b':');
    scheme.is_some_and(|end| scan::is_uri_text(&text[..end])) && text.last() > Some(&b' ')
}

/// The longest scheme looked for; the registry's longest has about 30 letters.
const SCHEME_BYTES_MAX: usize = 64;

/// Where the `<` after an unquoted display name stands: `*(token LWS) "<"`. Bytes above ASCII are
/// let through, since phones write them there unquoted.
fn unquoted_display_end(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let end = scan::skip_lws(text, scan::token_end(text, at));
        match text.get(end) {
            Some(b'<') => return Some(end),
            Some(byte) if !byte.is_ascii() => at = end + 1,
            _ if end == at => return None,
            _ => at = end,
        }
    }
}

/// Where a URI without angle brackets ends. RFC 3261 s20: it must not hold a comma, a question
/// mark or a semicolon; what follows a semicolon belongs to the header field.
fn addr_spec_end(text: &[u8]) -> Result<usize, ParseError> {
    let ends = |&byte: &u8| {
        matches!(
            byte,
            b' ' | b'\t' | b'\r' | b'\n' | b';' | b',' | b'?' | b'<' | b'>' | b'"'
        )
    };
    let end = text.iter().position(ends).unwrap_or(text.len());
    match text.get(scan::skip_lws(text, end)) {
        None | Some(b';') => Ok(end),
        Some(_) => Err(ParseError::Syntax),
    }
}

/// A Via value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via<'a> {
    /// `UDP`, `TCP`, `TLS` ... as written; compared without case.
    pub transport: &'a [u8],
    /// The sent-by host as written.
    pub host: &'a [u8],
    /// The sent-by port, if written.
    pub port: Option<u16>,
    /// The branch.
    pub branch: Option<&'a [u8]>,
    /// Where the request really came from (RFC 3261 s18.2.1).
    pub received: Option<&'a [u8]>,
    /// RFC 3581: present without a value in a request, with one in a response.
    pub rport: Option<Option<&'a [u8]>>,
    /// All parameters, each with its leading semicolon.
    pub params: &'a [u8],
    /// The value as a whole.
    pub raw: &'a [u8],
}

impl<'a> Via<'a> {
    /// Reads one whole value.
    pub fn parse(text: &'a [u8]) -> Result<Via<'a>, ParseError> {
        let raw = scan::trim(text);
        let (transport, at) = sent_protocol(raw).ok_or(ParseError::Syntax)?;
        let (host, port, end) = host_port(&raw[at..], true)?;
        let params = scan::trim(&raw[at + end..]);
        let mut via = Via {
            transport,
            host,
            port,
            branch: None,
            received: None,
            rport: None,
            params,
            raw,
        };
        for item in Params::new(params) {
            let (name, value) = item?;
            match name.len() {
                6 if name.eq_ignore_ascii_case(b"branch") => via.branch = value,
                8 if name.eq_ignore_ascii_case(b"received") => via.received = value,
                5 if name.eq_ignore_ascii_case(b"rport") => via.rport = Some(value),
                _ => {}
            }
        }
        Ok(via)
    }

    /// A parameter.
    pub fn param(&self, name: &[u8]) -> Option<Option<&'a [u8]>> {
        param(self.params, name)
    }

    /// Where a response goes (RFC 3261 s18.2.2, RFC 3581 s4): `received` and `rport` before
    /// sent-by; `None` when only a name is there.
    pub fn response_addr(&self) -> Option<SocketAddr> {
        let address = match self.received {
            Some(received) => ip(received)?,
            None => ip(self.host)?,
        };
        let rport = self.rport.flatten();
        let rport = rport.and_then(|text| scan::decimal(text, u64::from(u16::MAX)));
        let tls = self.transport.eq_ignore_ascii_case(b"TLS");
        let default = if tls { PORT_DEFAULT_TLS } else { PORT_DEFAULT };
        let port = rport
            .map(|port| port as u16)
            .or(self.port)
            .unwrap_or(default);
        Some(SocketAddr::new(address, port))
    }

    /// Whether the branch is unique by RFC 3261 s8.1.1.7: the magic cookie and something behind
    /// it. Otherwise requests are matched by RFC 2543's rules (s17.2.3).
    pub fn has_magic_cookie(&self) -> bool {
        self.branch.is_some_and(|branch| {
            branch.len() > MAGIC_COOKIE.len()
                && branch[..MAGIC_COOKIE.len()].eq_ignore_ascii_case(MAGIC_COOKIE)
        })
    }
}

/// What every branch of RFC 3261 starts with.
pub const MAGIC_COOKIE: &[u8] = b"z9hG4bK";

/// `SIP / 2.0 / transport LWS`: the transport, and where sent-by starts.
fn sent_protocol(text: &[u8]) -> Option<(&[u8], usize)> {
    // Nearly everybody writes it without the white space that is legal round the slashes.
    let at = if text.starts_with(b"SIP/2.0/") {
        8
    } else {
        // The version is a token of any kind here: a request of another version is to be
        // answered with 505, along its Via.
        let name_end = scan::token_end(text, 0);
        let version = slash(text, name_end)?;
        let version_end = scan::token_end(text, version);
        if !text[..name_end].eq_ignore_ascii_case(b"SIP") || version_end == version {
            return None;
        }
        slash(text, version_end)?
    };
    let at = scan::skip_lws(text, at);
    let end = scan::token_end(text, at);
    let host = scan::skip_lws(text, end);
    (end > at && host > end).then_some((&text[at..end], host))
}

fn slash(text: &[u8], at: usize) -> Option<usize> {
    let at = scan::skip_lws(text, at);
    (text.get(at) == Some(&b'/')).then(|| scan::skip_lws(text, at + 1))
}

/// The parameters `;name[=value]` of a text, one after the other, white space allowed round each
/// separator. The first fault ends it.
#[derive(Clone, Debug)]
pub struct Params<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Params<'a> {
    /// The parameters of `text`, which starts with a semicolon or is empty.
    #[inline]
    pub fn new(text: &'a [u8]) -> Params<'a> {
        Params { text, at: 0 }
    }

    fn read(&mut self) -> Option<(&'a [u8], Option<&'a [u8]>)> {
        let text = self.text;
        if text[self.at] != b';' {
            return None;
        }
        let start = scan::skip_lws(text, self.at + 1);
        let end = scan::token_end(text, start);
        if start == end {
            return None;
        }
        let name = &text[start..end];
        let equals = scan::skip_lws(text, end);
        if text.get(equals) != Some(&b'=') {
            self.at = equals;
            return Some((name, None));
        }
        let start = scan::skip_lws(text, equals + 1);
        let end = match text.get(start) {
            Some(b'"') => scan::quoted_end(text, start)?,
            _ => scan::value_end(text, start),
        };
        self.at = scan::skip_lws(text, end);
        (end > start).then_some((name, Some(&text[start..end])))
    }
}

impl<'a> Iterator for Params<'a> {
    type Item = Result<(&'a [u8], Option<&'a [u8]>), ParseError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.text.len() {
            return None;
        }
        let item = self.read().ok_or(ParseError::Syntax);
        if item.is_err() {
            self.at = self.text.len();
        }
        Some(item)
    }
}

/// Looks up a parameter, compared without case, in `;name=value;name...`: `None` when it is not
/// there, `Some(None)` when it has no value. A quoted value keeps its marks.
#[inline]
pub fn param<'a>(params: &'a [u8], name: &[u8]) -> Option<Option<&'a [u8]>> {
    for item in Params::new(params) {
        let (found, value) = item.ok()?;
        if found.len() == name.len() && found.eq_ignore_ascii_case(name) {
            return Some(value);
        }
    }
    None
}

/// As [`param`], for a header value whose first parameter has no semicolon before it, such as
/// P-Charging-Vector (`icid-value=x;orig-ioi=y`), or that starts with a word (`active;expires=9`).
pub fn param_of_list<'a>(value: &'a [u8], name: &[u8]) -> Option<Option<&'a [u8]>> {
    let end = scan::find(b';', value).unwrap_or(value.len());
    let (first, rest) = value.split_at(end);
    let equals = scan::find(b'=', first);
    let first_name = scan::trim(&first[..equals.unwrap_or(end)]);
    if !first_name.eq_ignore_ascii_case(name) {
        let quoted = scan::find(b'"', first).is_some();
        // A quoted first value may hold the semicolon that was taken for its end.
        let rest = match equals {
            Some(equals) if quoted => {
                let start = scan::skip_lws(value, equals + 1);
                let is_open = value.get(start) == Some(&b'"');
                let end = if is_open {
                    scan::quoted_end(value, start)?
                } else {
                    end
                };
                scan::trim(&value[end..])
            }
            _ => rest,
        };
        return param(rest, name);
    }
    let Some(equals) = equals else {
        return Some(None);
    };
    let start = scan::skip_lws(value, equals + 1);
    let end = match value.get(start) {
        Some(b'"') => scan::quoted_end(value, start)?,
        _ => scan::value_end(value, start),
    };
    Some(Some(&value[start..end]))
}
