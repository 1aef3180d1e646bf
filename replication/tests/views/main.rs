//! Views among real nodes in virtual time: rules V1 to V13, and random faults.
//!
//! Each rule was taken out of the code, one at a time, to see which test misses it:
//!
//! | rule | test, here unless said otherwise |
//! |---|---|
//! | V1 suspicion by missing acks | none alone: mutual masks (V2) and the lease (V3) do the same |
//! | V2 everybody hears everybody; the dead do not propose | `a_partial_partition_...` |
//! | V2 a majority | `a_lone_minority_...`, held by the register too |
//! | V2 150 ms for an ambiguous choice | `a_healthy_node_that_suspects_first_...` |
//! | V3 acks, not hearing | `hearing_others_...` |
//! | V3 180 ms | `an_isolated_node_stops_acting_...` |
//! | V3 acks of what was sent | `an_ack_of_what_was_never_sent_...` |
//! | V3 no newer view accepted, here or there | `an_accepted_view_stops_acting_...` |
//! | V3 a member | `a_node_that_drains_acts_until_...` |
//! | V4 the fence | peers: `a_restarted_owner_...`, `a_fenced_sender_...` |
//! | V4 acks of this incarnation | peers: `an_ack_of_a_former_life_...` |
//! | V4 enough acks; next members | peers: `a_semi_sync_output_waits_...`, `more_copies_...` |
//! | V4 no ack for one that was succeeded | peers: `a_sender_that_was_succeeded_...` |
//! | V5 a newer epoch | model: the ring against its model; cluster: the ledger |
//! | V6a the lease of the adopter | `who_has_lost_the_lease_...` |
//! | V6b filled under the very view | `adoption_waits_for_the_sync_...` |
//! | V6c the lease of the dead | `a_partial_partition_...` |
//! | V6d fewer gone than copies; 5 s | `adoption_waits_when_as_many_...` |
//! | V7 gone; settled by all; all are filled | `while_a_member_is_missing_...` |
//! | V7 gone until settled | `a_node_that_lost_its_memory_...` |
//! | V7 kmin at a return, and when settled | `a_member_back_...`, `a_view_that_settled_...` |
//! | V8 joins, is filled, then alive | `a_joining_node_...` |
//! | V8 rises when told dead, once the disk takes it | `an_isolated_node_...`, `a_disk_that_...` |
//! | V8 resumes first | `a_node_that_became_alive_...` |
//! | V8 who may yet learn of its calls makes nobody forget | peers: `a_joiner_that_is_asked_...` |
//! | V8 what it lost comes back first | `..._waits_for_who_may_have_its_calls_...` |
//! | V9 all joining, or 6 s | `when_not_all_come_back_...`, `all_nodes_restarted_...` |
//! | V10 lost memory; half-filled memory | `a_node_that_lost_...`, `half_filled_memory_...` |
//! | V10 the vote before the answer | `a_vote_that_is_not_stored_...`; register_model |
//! | V10 a lost vote is read back first | `a_voter_that_lost_its_disk_...`; register_model |
//! | V10 a first boot, and one that is none | those of `first_boot` |
//! | V11 the witness | `two_nodes_and_a_witness_...`, `a_witness_votes_...` |
//! | V12 two voters | `two_voters_...` |
//! | what a dead node reads counts for a while | `the_last_node_of_a_former_version_...` |
//! | V13 leaving | those with *drain* and *given*; cluster: `nodes_leave_in_turn_...` |

mod acting;
mod adopting;
mod faults;
mod first_boot;
mod joining;
mod kinds;
mod leaving;
mod world;
