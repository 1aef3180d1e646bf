//! Load generator, demonstration and benchmarks of ringtoll.
//!
//! ```text
//!   plan     what each call is meant to do, from a seed
//!   phone    caller and callee, sans-IO      template  their first requests
//!   drive    sockets, clock, schedule        ledger    what the phones saw
//!   reconcile  ledger against the CDF's store   latency, table, report  figures, how shown
//!   testbed  a node of our own       cluster  several, as processes   pages  what they tell
//!   netns    networks for them       hub      what their wires do to frames
//!   message, operation, record  what is counted
//!   fault    what is done to them    trial    one fault under load
//!   cpu      run time of somebody else's
//! ```

pub mod cluster;
pub mod cpu;
pub mod drive;
pub mod fault;
pub mod hub;
pub mod latency;
pub mod ledger;
pub mod message;
pub mod netns;
pub mod operation;
pub mod pages;
pub mod phone;
pub mod plan;
pub mod reconcile;
pub mod record;
pub mod replicate;
pub mod report;
pub mod roll;
pub mod state;
pub mod table;
pub mod template;
pub mod testbed;
pub mod trial;
