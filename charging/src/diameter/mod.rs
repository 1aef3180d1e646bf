//! Diameter: codec, peers, routing.
