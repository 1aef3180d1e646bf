//! A CDF on a socket that keeps what a node sends, for tests that look into the records.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use charging::diameter::avp::{Avps, Message};
use charging::diameter::dictionary::{self as d, Attribute};
use charging::diameter::peer::PeerConfig;
use charging::server::{Cdf, CdfConfig, ConnectionId, MemoryCdfStore};
use charging::state::RecordType;

use crate::cdf::identity;

/// The CDF, and the ACRs that came.
pub struct Bill {
    /// Where it listens.
    pub address: SocketAddr,
    came: Receiver<Vec<u8>>,
}

/// One ACR.
pub struct Record(Vec<u8>);

impl Bill {
    /// A CDF that takes one connection after the other and asks for no interim records.
    ///
    /// # Panics
    /// When the loopback interface has no port left.
    #[must_use]
    pub fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let address = listener.local_addr();
        let (to, came) = channel();
        std::thread::spawn(move || {
            let config = CdfConfig {
                identity: identity("bill.example", 1),
                peer: PeerConfig::default(),
                connections_max: 1,
                interim_interval_s: None,
            };
            let mut cdf = Cdf::new(config, MemoryCdfStore::default(), 1);
            for stream in listener.incoming().flatten() {
                let now = quanta::Instant::now();
                if let Some(id) = cdf.accept(now) {
                    let _ = serve(&mut cdf, id, stream, &to);
                    cdf.on_closed(id);
                }
            }
        });
        Self {
            address: address.expect("a bound socket has an address"),
            came,
        }
    }

    /// The keys of `[charging.rf]` that make a node use it, at the end of a configuration.
    #[must_use]
    pub fn keys(&self) -> String {
        format!("[charging.rf]\ncdf = [\"{}\"]\n", self.address)
    }

    /// The records that came since the last time, in their order.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.came.try_iter().map(Record).collect()
    }
}

impl Record {
    /// Accounting-Record-Type.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn kind(&self) -> RecordType {
        let message = Message::parse(&self.0).expect("an ACR that the CDF took");
        let kind = message.find(d::ACCOUNTING_RECORD_TYPE);
        let kind = kind.and_then(|avp| RecordType::from_value(avp.u32().ok()?));
        kind.expect("an ACR has its type")
    }

    /// The texts of an AVP, wherever it stands.
    #[must_use]
    pub fn texts(&self, attribute: Attribute) -> Vec<String> {
        let text = |data: &[u8]| String::from_utf8_lossy(data).into_owned();
        self.all(attribute).iter().map(|data| text(data)).collect()
    }

    /// The numbers of an AVP, wherever it stands.
    #[must_use]
    pub fn numbers(&self, attribute: Attribute) -> Vec<i32> {
        let number = |data: &Vec<u8>| data[..].try_into().ok().map(i32::from_be_bytes);
        self.all(attribute).iter().filter_map(number).collect()
    }

    /// Whether these octets stand anywhere in the record.
    #[must_use]
    pub fn mentions(&self, text: &str) -> bool {
        self.0
            .windows(text.len())
            .any(|part| part.eq_ignore_ascii_case(text.as_bytes()))
    }

    fn all(&self, attribute: Attribute) -> Vec<Vec<u8>> {
        let message = Message::parse(&self.0).expect("an ACR that the CDF took");
        let mut found = Vec::new();
        collect(message.avps(), attribute, &mut found);
        found
    }
}

fn serve(
    cdf: &mut Cdf<MemoryCdfStore>,
    id: ConnectionId,
    mut stream: TcpStream,
    to: &Sender<Vec<u8>>,
) -> std::io::Result<()> {
    loop {
        let mut message = vec![0; 4];
        stream.read_exact(&mut message)?;
        let length = u32::from_be_bytes([0, message[1], message[2], message[3]]);
        message.resize((length as usize).max(20), 0);
        stream.read_exact(&mut message[4..])?;
        let is_acr = Message::parse(&message).is_ok_and(|message| {
            message.header.is_request() && message.header.command == d::ACCOUNTING
        });
        cdf.handle_bytes(quanta::Instant::now(), id, &message);
        if is_acr {
            let _ = to.send(message);
        }
        let answer = cdf.transmit(id).map(std::mem::take).unwrap_or_default();
        stream.write_all(&answer)?;
    }
}

fn collect(avps: Avps<'_>, attribute: Attribute, found: &mut Vec<Vec<u8>>) {
    for avp in avps.map_while(Result::ok) {
        if avp.is(attribute) {
            found.push(avp.data.to_vec());
        }
        if let Ok(inside) = avp.grouped()
            && GROUPS.iter().any(|group| avp.is(*group))
        {
            collect(inside, attribute, found);
        }
    }
}

/// Groups that are looked into.
const GROUPS: [Attribute; 10] = [
    d::SERVICE_INFORMATION,
    d::IMS_INFORMATION,
    d::MMTEL_INFORMATION,
    d::SUPPLEMENTARY_SERVICE,
    d::SUBSCRIPTION_ID,
    d::EVENT_TYPE,
    d::INTER_OPERATOR_IDENTIFIER,
    d::EARLY_MEDIA_DESCRIPTION,
    d::SDP_MEDIA_COMPONENT,
    d::NNI_INFORMATION,
];
