//! Messages that the benchmarks share: a call as carriers make them.

/// Fills in Content-Length and turns line ends into CRLF.
fn message(header: &str, body: &str) -> Vec<u8> {
    let body = body.replace('\n', "\r\n");
    let header = header.replace('\n', "\r\n");
    format!("{header}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// An INVITE of 1 kB with 17 header lines and an SDP offer, as an IMS core sends it.
pub fn invite() -> Vec<u8> {
    message(
        "INVITE sip:+49301234567@198.51.100.20:5060;user=phone SIP/2.0\n\
         Via: SIP/2.0/UDP 192.0.2.11:5060;branch=z9hG4bK5c81e0d2b7;rport\n\
         Record-Route: <sip:192.0.2.10:5060;lr>\n\
         Max-Forwards: 68\n\
         From: \"Ada Byron\" <sip:+49307654321@ims.example.net;user=phone>;tag=4711081512\n\
         To: <sip:+49301234567@ims.example.net;user=phone>\n\
         Call-ID: 5d0c77a1b2e94@192.0.2.11\n\
         CSeq: 271828 INVITE\n\
         Contact: <sip:+49307654321@192.0.2.11:5060;transport=udp>\n\
         Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, PRACK, INFO\n\
         Supported: timer, 100rel\n\
         Session-Expires: 1800;refresher=uac\n\
         Min-SE: 90\n\
         P-Asserted-Identity: <sip:+49307654321@ims.example.net>\n\
         P-Charging-Vector: icid-value=9f3Kq0Zt2mRr481;icid-generated-at=192.0.2.10;orig-ioi=a.de\n\
         Content-Type: application/sdp\n",
        "v=0\n\
         o=ada 3141592653 3141592653 IN IP4 192.0.2.11\n\
         s=-\n\
         c=IN IP4 192.0.2.11\n\
         t=0 0\n\
         m=audio 49170 RTP/AVP 8 0 101\n\
         a=rtpmap:8 PCMA/8000\n\
         a=rtpmap:0 PCMU/8000\n\
         a=rtpmap:101 telephone-event/8000\n\
         a=fmtp:101 0-15\n\
         a=ptime:20\n\
         a=sendrecv\n",
    )
}

/// A BYE without a body: the end of the header is the end of the datagram.
pub fn bye() -> Vec<u8> {
    message(
        "BYE sip:+49307654321@192.0.2.11:5060;transport=udp SIP/2.0\n\
         Via: SIP/2.0/UDP 198.51.100.20:5060;branch=z9hG4bK77b0e1;rport\n\
         Max-Forwards: 70\n\
         From: <sip:+49301234567@ims.example.net;user=phone>;tag=a6c85cf\n\
         To: \"Ada Byron\" <sip:+49307654321@ims.example.net;user=phone>;tag=4711081512\n\
         Call-ID: 5d0c77a1b2e94@192.0.2.11\n\
         CSeq: 231 BYE\n\
         Reason: Q.850;cause=16;text=normal\n",
        "",
    )
}
