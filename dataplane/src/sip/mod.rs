//! SIP messages: reading without copying, writing, tokens (RFC 3261 section 7 and 25).
