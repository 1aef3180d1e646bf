//! AVPs that an operator leaves out, for CDFs whose dictionaries lack them and that refuse whole
//! records for it.

use crate::trigger::SessionFacts;

/// Optional AVPs that no record carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Omitted(u32);

impl Omitted {
    /// Leaves out an AVP by its name in TS 32.299. False if it is none that may be left out:
    /// what a bill needs always stands in a record.
    pub fn insert(&mut self, name: &str) -> bool {
        let found = OPTIONAL.iter().position(|(known, _)| *known == name);
        self.0 |= found.map_or(0, |place| 1 << place);
        found.is_some()
    }

    /// What may be left out.
    pub fn names() -> impl Iterator<Item = &'static str> {
        OPTIONAL.iter().map(|(name, _)| *name)
    }

    /// The facts less those that only such AVPs tell.
    pub(crate) fn without(self, mut facts: SessionFacts<'_>) -> SessionFacts<'_> {
        if self.0 != 0 {
            for (place, (_, blank)) in OPTIONAL.iter().enumerate() {
                if self.0 & (1 << place) != 0 {
                    blank(&mut facts);
                }
            }
        }
        facts
    }
}

type Blank = fn(&mut SessionFacts<'_>);

/// Names, and how the facts look without them.
const OPTIONAL: [(&str, Blank); 14] = [
    ("Access-Transfer-Information", |facts| {
        facts.access_transfer = None;
    }),
    ("Carrier-Select-Routing-Information", |facts| {
        facts.carrier_select = b"";
    }),
    ("Cellular-Network-Information", |facts| {
        facts.cellular_network_info = b"";
    }),
    ("FE-Identifier-List", |facts| facts.fe_identifiers = b""),
    ("From-Address", |facts| facts.from_address = b""),
    ("IMS-Visited-Network-Identifier", |facts| {
        facts.visited_network = b"";
    }),
    ("Initial-IMS-Charging-Identifier", |facts| {
        facts.initial_icid = b"";
    }),
    // The group that moved with the session has one of its own.
    ("Instance-Id", |facts| {
        facts.instance_id = b"";
        if let Some(transfer) = &mut facts.access_transfer {
            transfer.instance_id = b"";
        }
    }),
    ("MMTel-Information", |facts| facts.services = &[]),
    ("Number-Portability-Routing-Information", |facts| {
        facts.number_portability = b"";
    }),
    ("Online-Charging-Flag", |facts| facts.online_charging = None),
    ("Related-IMS-Charging-Identifier", |facts| {
        facts.related_icid = b"";
        facts.related_icid_node = None;
    }),
    ("Session-Priority", |facts| facts.session_priority = None),
    ("User-Equipment-Info", |facts| facts.imei = b""),
];

const _: () = assert!(OPTIONAL.len() <= u32::BITS as usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_facts_are_left_out() {
        let facts = SessionFacts {
            instance_id: b"<urn:uuid:1>",
            from_address: b"<sip:a@a.example>",
            ..SessionFacts::default()
        };
        let mut omitted = Omitted::default();
        assert_eq!(omitted.without(facts).instance_id, b"<urn:uuid:1>");
        assert!(omitted.insert("Instance-Id") && !omitted.insert("Event-Type"));
        let left = omitted.without(facts);
        assert_eq!(
            (left.instance_id, left.from_address),
            (&b""[..], facts.from_address)
        );
    }

    #[test]
    fn every_name_is_an_avp_and_stands_once() {
        let source = include_str!("diameter/dictionary.rs");
        let mut names: Vec<_> = Omitted::names().collect();
        assert!(
            names
                .iter()
                .all(|name| source.contains(&format!("\"{name}\""))),
            "{names:?}"
        );
        names.dedup();
        assert!(names.is_sorted() && names.len() == OPTIONAL.len());
    }
}
