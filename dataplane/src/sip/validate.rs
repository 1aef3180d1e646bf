//! The full check of the values a request that creates state stands on.

use super::error::ParseError;
use super::header::HeaderId;
use super::message::Message;
use super::scan;
use super::uri::{NameAddr, Params, Scheme, Uri, Via};

impl Message<'_> {
    /// Checks the grammar of everything that routing, dialogs and charging read.
    ///
    /// [`parse`](super::parse()) sees that the message can be taken apart; this looks into the
    /// values, so that nothing a call keeps turns out unreadable later. Fields that merely pass
    /// through are left alone.
    pub fn validate(&self) -> Result<(), ParseError> {
        if self.is_request() {
            self.validate_request_uri()?;
        }
        if !scan::has_no_lws(self.call_id()) || self.call_id().is_empty() {
            return Err(ParseError::Value(HeaderId::CallId));
        }
        for value in self.values(HeaderId::Via) {
            Via::parse(value).map_err(|_| ParseError::Value(HeaderId::Via))?;
        }
        for id in [HeaderId::From, HeaderId::To] {
            let value = self.header(id).ok_or(ParseError::Missing(id))?;
            address(value).ok_or(ParseError::Value(id))?;
        }
        let lists = [
            HeaderId::Contact,
            HeaderId::Route,
            HeaderId::RecordRoute,
            HeaderId::PAssertedIdentity,
            HeaderId::ReferTo,
        ];
        for id in lists {
            for value in self.values(id) {
                // RFC 3261 s10.2.2: `Contact: *` in a REGISTER that removes all bindings.
                if value != b"*" || id != HeaderId::Contact {
                    address(value).ok_or(ParseError::Value(id))?;
                }
            }
        }
        self.validate_numbers()
    }

    fn validate_request_uri(&self) -> Result<(), ParseError> {
        let uri = Uri::parse(self.request_uri()).map_err(|_| ParseError::RequestUri)?;
        if uri.scheme == Scheme::Other {
            return Err(ParseError::UriScheme);
        }
        // RFC 3261 s19.1.1: headers have no place in a Request-URI.
        let well_formed = uri.headers.is_empty() && Params::new(uri.params).all(|p| p.is_ok());
        well_formed.then_some(()).ok_or(ParseError::RequestUri)
    }

    fn validate_numbers(&self) -> Result<(), ParseError> {
        for id in [
            HeaderId::Expires,
            HeaderId::SessionExpires,
            HeaderId::MinSe,
            HeaderId::RSeq,
        ] {
            for value in self.headers(id) {
                number_with_params(value).ok_or(ParseError::Value(id))?;
            }
        }
        if let Some(value) = self.header(HeaderId::RAck) {
            let mut words = value
                .split(|byte| byte.is_ascii_whitespace())
                .filter(|word| !word.is_empty());
            let mut number = || {
                words
                    .next()
                    .and_then(|word| scan::decimal(word, NUMBER_MAX))
            };
            let numbers = number().and(number());
            let method = words.next().filter(|word| scan::is_token(word));
            if numbers.is_none() || method.is_none() || words.next().is_some() {
                return Err(ParseError::Value(HeaderId::RAck));
            }
        }
        Ok(())
    }
}

/// RFC 3261 s20.19: a delta-seconds is below 2^32.
const NUMBER_MAX: u64 = u32::MAX as u64;

fn number_with_params(value: &[u8]) -> Option<u32> {
    let end = scan::digits_end(value, 0);
    let number = scan::decimal(&value[..end], NUMBER_MAX)?;
    let params = &value[scan::skip_lws(value, end)..];
    Params::new(params)
        .all(|param| param.is_ok())
        .then_some(number as u32)
}

/// A whole name-addr: its URI and its parameters too.
fn address(value: &[u8]) -> Option<()> {
    let address = NameAddr::parse(value).ok()?;
    let uri = address.uri().ok()?;
    let ok = Params::new(address.params).all(|param| param.is_ok())
        && (uri.scheme == Scheme::Other || Params::new(uri.params).all(|param| param.is_ok()));
    ok.then_some(())
}
