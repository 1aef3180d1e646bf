//! Real processes on real sockets. One program for all of it: the tests that have to wait, for an
//! interval that RFC 4028 lets nobody shorten, wait beside those that work.

mod borders;
mod events;
mod expiry;
mod freediameter;
mod limits;
mod policies;
mod python_diameter;
mod routes;
mod sipp;
mod torture_udp;
mod trunk;
mod tshark;
