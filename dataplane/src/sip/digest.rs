//! Digest authentication towards trunks: the answer to a WWW-Authenticate or Proxy-Authenticate
//! challenge (RFC 3261 section 22, RFC 7616, RFC 8760). A cold path: it allocates.
//!
//! The hashing is rsip's. The challenge is read here and the URI goes into the hash as it was
//! sent, since rsip would lose the user part of `sip:john.doe@host`.

use rsip::headers::auth::{Algorithm, AuthQop};
use rsip::services::DigestGenerator;

use super::header::Method;
use super::scan;

/// Who we are to a trunk.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// The user name.
    pub username: &'a str,
    /// The password.
    pub password: &'a str,
}

/// Why a challenge cannot be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DigestError {
    /// The challenge breaks its grammar, or realm or nonce is missing.
    Malformed,
    /// Another scheme than Digest, or another algorithm than MD5 and SHA-256, or no `auth` among
    /// its qualities of protection: try the next challenge of the response.
    Unsupported,
}

/// A challenge in its parts, quotation marks taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge<'a> {
    /// Whose user name and password are asked for.
    pub realm: &'a str,
    /// What the server wants hashed.
    pub nonce: &'a str,
    /// To be returned as it is.
    pub opaque: Option<&'a str>,
    /// Whether the credentials were right and the nonce was old: answering again makes sense.
    pub stale: bool,
    algorithm: Algorithm,
    algorithm_text: Option<&'a str>,
    has_qop: bool,
}

impl<'a> Challenge<'a> {
    /// Reads the value of one WWW-Authenticate or Proxy-Authenticate line.
    pub fn parse(value: &'a [u8]) -> Result<Challenge<'a>, DigestError> {
        let scheme = scan::token_end(value, 0);
        if !value[..scheme].eq_ignore_ascii_case(b"Digest") {
            return Err(DigestError::Unsupported);
        }
        let (mut realm, mut nonce, mut opaque) = (None, None, None);
        let (mut algorithm, mut qop, mut stale) = (None, None, false);
        let mut at = scheme;
        while let Some((name, text, next)) = parameter(value, at)? {
            match name.to_ascii_lowercase().as_slice() {
                b"realm" => realm = Some(text),
                b"nonce" => nonce = Some(text),
                b"opaque" => opaque = Some(text),
                b"algorithm" => algorithm = Some(text),
                b"qop" => qop = Some(text),
                b"stale" => stale = text.eq_ignore_ascii_case("true"),
                _ => {}
            }
            at = next;
        }
        let offers_auth = |qop: &str| qop.split(',').any(|word| word.trim() == "auth");
        if qop.is_some_and(|qop| !offers_auth(qop)) {
            return Err(DigestError::Unsupported);
        }
        let kind = match algorithm {
            None => Algorithm::Md5,
            Some(text) if text.eq_ignore_ascii_case("MD5") => Algorithm::Md5,
            Some(text) if text.eq_ignore_ascii_case("SHA-256") => Algorithm::Sha256,
            Some(_) => return Err(DigestError::Unsupported),
        };
        Ok(Challenge {
            realm: realm.ok_or(DigestError::Malformed)?,
            nonce: nonce.ok_or(DigestError::Malformed)?,
            opaque,
            stale,
            algorithm: kind,
            algorithm_text: algorithm,
            has_qop: qop.is_some(),
        })
    }

    /// The value of the Authorization or Proxy-Authorization that answers the challenge.
    ///
    /// `uri` is the Request-URI as sent and `cnonce` a fresh random token. Each challenge is
    /// answered once, so the nonce count is always 1.
    pub fn answer(
        &self,
        method: Method,
        uri: &str,
        credentials: Credentials<'_>,
        cnonce: &str,
    ) -> Result<String, DigestError> {
        let Credentials { username, password } = credentials;
        let qop = AuthQop::Auth {
            cnonce: cnonce.to_owned(),
            nc: 1,
        };
        let generator = DigestGenerator {
            username,
            password,
            nonce: self.nonce,
            uri: &verbatim(uri),
            realm: self.realm,
            method: &known_method(method).ok_or(DigestError::Unsupported)?,
            qop: self.has_qop.then_some(&qop),
            algorithm: self.algorithm,
        };
        let response = generator.compute();
        let mut value = format!(
            "Digest username=\"{username}\", realm=\"{}\", nonce=\"{}\", uri=\"{uri}\", \
             response=\"{response}\"",
            self.realm, self.nonce,
        );
        if let Some(algorithm) = self.algorithm_text {
            value += &format!(", algorithm={algorithm}");
        }
        if let Some(opaque) = self.opaque {
            value += &format!(", opaque=\"{opaque}\"");
        }
        if self.has_qop {
            value += &format!(", qop=auth, nc=00000001, cnonce=\"{cnonce}\"");
        }
        Ok(value)
    }
}

/// The parameter that starts at or after `at`: name, value and the position behind it.
#[allow(clippy::type_complexity)]
fn parameter(value: &[u8], at: usize) -> Result<Option<(&[u8], &str, usize)>, DigestError> {
    let mut start = scan::skip_lws(value, at);
    while value.get(start) == Some(&b',') {
        start = scan::skip_lws(value, start + 1);
    }
    if start == value.len() {
        return Ok(None);
    }
    let end = scan::token_end(value, start);
    let equals = scan::skip_lws(value, end);
    if end == start || value.get(equals) != Some(&b'=') {
        return Err(DigestError::Malformed);
    }
    let from = scan::skip_lws(value, equals + 1);
    let (text, next) = if value.get(from) == Some(&b'"') {
        let next = scan::quoted_end(value, from).ok_or(DigestError::Malformed)?;
        (&value[from + 1..next - 1], next)
    } else {
        let next = scan::value_end(value, from);
        (&value[from..next], next)
    };
    // A folded line inside quotation marks would be sent back as a line of our own.
    let is_line = text.iter().any(|byte| matches!(byte, b'\r' | b'\n'));
    let text = std::str::from_utf8(text).ok().filter(|_| !is_line);
    let behind = value.get(scan::skip_lws(value, next));
    if !matches!(behind, None | Some(b',')) {
        return Err(DigestError::Malformed);
    }
    Ok(Some((
        &value[start..end],
        text.ok_or(DigestError::Malformed)?,
        next,
    )))
}

/// A URI that rsip writes exactly as `text`: it prints a host name as it is.
fn verbatim(text: &str) -> rsip::Uri {
    let host = rsip::host_with_port::Host::Domain(rsip::Domain::from(text));
    let host_with_port = rsip::HostWithPort { host, port: None };
    rsip::Uri {
        host_with_port,
        ..rsip::Uri::default()
    }
}

fn known_method(method: Method) -> Option<rsip::Method> {
    Some(match method {
        Method::Invite => rsip::Method::Invite,
        Method::Bye => rsip::Method::Bye,
        Method::Options => rsip::Method::Options,
        Method::Register => rsip::Method::Register,
        Method::Prack => rsip::Method::PRack,
        Method::Update => rsip::Method::Update,
        Method::Info => rsip::Method::Info,
        Method::Message => rsip::Method::Message,
        Method::Subscribe => rsip::Method::Subscribe,
        Method::Notify => rsip::Method::Notify,
        Method::Refer => rsip::Method::Refer,
        Method::Publish => rsip::Method::Publish,
        // RFC 3261 s22.1: neither can be challenged.
        Method::Ack | Method::Cancel | Method::Other => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const URI: &str = "sip:john.doe@carrier.example;user=phone";
    const ADA: Credentials<'_> = Credentials {
        username: "ada",
        password: "secret",
    };

    fn answer(challenge: &str) -> Result<String, DigestError> {
        Challenge::parse(challenge.as_bytes())?.answer(Method::Invite, URI, ADA, "c0nce")
    }

    #[test]
    fn a_challenge_is_answered_with_its_algorithm_and_quality() {
        let md5 = answer(
            "Digest realm=\"carrier.example\", nonce=\"n0nce==\", qop=\"auth,auth-int\", \
             opaque=\"o\", stale=FALSE",
        );
        assert_eq!(
            md5.as_deref(),
            Ok(
                "Digest username=\"ada\", realm=\"carrier.example\", nonce=\"n0nce==\", \
                uri=\"sip:john.doe@carrier.example;user=phone\", \
                response=\"1de4e4796bdb78efc212cefe409c0bd6\", \
                opaque=\"o\", qop=auth, nc=00000001, cnonce=\"c0nce\""
            )
        );
        let sha = answer(
            "digest algorithm = SHA-256 ,, nonce=\"n0nce==\",qop=auth,realm=\"carrier.example\"",
        );
        let response = "ec41ab9e575d6f4ee34c971fe3f4576e61f1d05a2febb2ed831c2a86b104f9dc";
        assert!(sha.expect("supported").contains(response));
    }

    #[test]
    fn a_challenge_of_the_old_kind_has_no_quality() {
        let old = answer("Digest realm=\"carrier.example\",nonce=\"n0nce==\"").expect("supported");
        assert!(
            old.ends_with("response=\"ad75b404b8151fef0282f56db3f06480\""),
            "{old}"
        );
    }

    #[test]
    fn other_challenges_are_left_to_the_next() {
        let unsupported = Err(DigestError::Unsupported);
        assert_eq!(answer("Basic realm=\"x\""), unsupported);
        assert_eq!(
            answer("Digest realm=\"x\",nonce=\"y\",algorithm=MD5-sess"),
            unsupported
        );
        assert_eq!(
            answer("Digest realm=\"x\",nonce=\"y\",qop=\"auth-int\""),
            unsupported
        );
        let malformed = Err(DigestError::Malformed);
        for bad in [
            "",
            "\"x",
            "realm",
            "realm=\"x\"",
            "nonce=\"y\"",
            "realm=\"x\" nonce=\"y\"",
        ] {
            assert_eq!(answer(&format!("Digest {bad}")), malformed, "{bad}");
        }
        assert_eq!(answer("Digest realm=\"x\r\n y\",nonce=\"y\""), malformed);
        let challenge = Challenge::parse(b"Digest realm=\"x\",nonce=\"y\",stale=true");
        let challenge = challenge.expect("well formed");
        assert!(challenge.stale);
        assert_eq!(challenge.answer(Method::Ack, URI, ADA, "c"), unsupported);
    }
}
