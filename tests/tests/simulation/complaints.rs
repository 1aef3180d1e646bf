//! What users of such systems complain of in public, and the tests that say it does not happen
//! here. The words are ours; only what concerns SIP and offline charging is listed.

/// The complaint, and the tests that answer it.
const COMPLAINTS: &[(&str, &[&str])] = &[
    (
        "the closing record is never sent when hang-up races with something else",
        &[
            "every_start_has_one_stop_and_nothing_follows_it",
            "a_bye_that_crosses_a_bye_makes_one_stop",
            "a_cancel_that_crosses_the_2xx_after_the_node_ends_an_answered_call",
            "a_stop_waits_for_the_answer_to_the_start",
        ],
    ),
    (
        "charging is lost when a node fails or restarts",
        &[
            "calls_go_on_after_the_node_was_killed_and_are_billed_once",
            "no_record_is_lost_when_the_cdf_is_away_and_the_node_is_killed",
            "a_call_survives_the_restart_of_the_node_and_is_billed_once",
        ],
    ),
    (
        "the billed duration is wrong: ring time, or a nonsensical number of seconds",
        &[
            "a_call_is_billed_from_its_answer_to_its_bye",
            "a_plain_call_makes_a_start_and_a_stop",
        ],
    ),
    (
        "time stamps in a record are those of another message",
        &[
            "a_plain_call_makes_a_start_and_a_stop",
            "time_stamps_split_seconds_and_milliseconds",
            "python_diameter_reads_in_the_records_what_stood_in_the_messages",
        ],
    ),
    (
        "a re-INVITE, a diversion or a second fork makes a second START",
        &[
            "retransmitted_answers_and_second_branches_make_no_record",
            "a_media_change_makes_an_interim",
            "the_2xx_of_a_second_fork_is_acknowledged_and_ended_and_not_billed",
            "the_repeated_2xx_of_a_losing_fork_gets_acks_and_one_bye",
        ],
    ),
    (
        "later records lack what the first one said",
        &[
            "a_call_makes_start_interims_and_stop_with_numbers_in_a_row",
            "start_alone_tells_of_access_transfer_and_terminating_access",
        ],
    ),
    (
        "a charging node that is gone takes the calls with it",
        &[
            "a_black_hole_sends_the_records_to_the_second_cdf",
            "a_busy_primary_costs_no_time",
            "the_stop_does_not_wait_for_ever_for_the_answer_to_the_start",
            "a_black_holed_cdf_costs_the_phones_no_time",
        ],
    ),
    (
        "timers are lost, fire twice, or fire after their session",
        &[
            "an_overdue_interim_leaves_soon_after_a_takeover",
            "nothing_follows_the_stop",
            "a_refused_start_leaves_no_interim_timer",
        ],
    ),
    (
        "the interval that an answer changed is not used",
        &[
            "the_latest_interval_counts_and_zero_stops_interims",
            "no_interval_in_the_answer_to_start_means_no_interims",
        ],
    ),
    (
        "hostile AVPs, lost Diameter sessions or load end the process",
        &[
            "any_octets_are_read_without_panic",
            "a_thousand_nested_groups_stop_at_the_depth_limit",
            "mutated_streams_never_panic",
            "a_cdf_that_forgot_the_session_does_not_end_the_call",
            "hostile_datagrams_neither_end_the_node_nor_fill_it",
        ],
    ),
    (
        "the interims of all sessions come at the same moment",
        &["interims_are_never_later_than_the_interval_and_spread"],
    ),
    (
        "after a START that failed nothing is recorded",
        &[
            "a_stop_follows_a_start_that_was_stored",
            "realtime_policies_decide_what_an_undelivered_start_means",
        ],
    ),
    (
        "calls that fail make no record",
        &[
            "a_busy_callee_makes_one_event",
            "a_cancelled_call_makes_one_event",
            "nobody_answering_makes_one_event_with_408",
        ],
    ),
    (
        "AVP codes are wrong, and the product's own decoder agrees with them",
        &[
            "codes_vendors_and_flags_are_the_published_ones",
            "freediameter_accepts_every_record",
            "wireshark_finds_no_fault_and_agrees_with_the_sip_of_the_capture",
        ],
    ),
    (
        "one record has two Service-Informations",
        &["two_service_informations_in_one_record_are_refused"],
    ),
    (
        "strict peers refuse the capabilities exchange",
        &["a_cer_says_what_strict_peers_ask_for"],
    ),
    (
        "one peer that does not read stalls all output",
        &[
            "a_peer_that_does_not_read_does_not_stall_the_others",
            "output_is_bounded_when_the_peer_does_not_read",
        ],
    ),
    (
        "short calls lose their STOP when the CDF is slow or gone",
        &[
            "twenty_short_calls_with_a_slow_cdf_make_twenty_stops",
            "a_slow_cdf_loses_no_stop_of_short_calls",
            "the_records_of_a_time_without_cdf_arrive_after_it",
        ],
    ),
    (
        "a 2xx after CANCEL stays half open, a late 2xx is not acknowledged",
        &[
            "a_callee_that_answers_in_spite_of_the_cancel_is_acknowledged_and_ended",
            "the_2xx_of_a_fork_after_the_call_is_acknowledged_and_ended",
            "a_bye_before_the_ack_is_an_unsuccessful_set_up_and_the_callee_gets_its_ack",
        ],
    ),
    (
        "a call whose BYE was lost is billed for ever",
        &[
            "a_session_that_nobody_refreshes_ends_with_408",
            "the_longest_duration_ends_a_call",
            "a_leg_that_is_gone_ends_the_call",
            "a_leg_that_does_not_know_the_call_any_more_ends_it",
            "whoever_takes_the_call_up_goes_on_asking",
        ],
    ),
    (
        "the CDF wants numbers with or without the plus sign, a destination host or none",
        &[
            "a_class_says_whether_numbers_keep_their_plus",
            "a_route_and_a_peer_choose_what_makes_records",
            "the_latest_interval_counts_and_zero_stops_interims",
        ],
    ),
    (
        "two sessions get the same Session-Id",
        &["session_ids_are_unique_over_shards_and_restarts"],
    ),
    (
        "final answers that the node makes have no To tag",
        &["every_final_answer_of_the_node_has_a_to_tag"],
    ),
    (
        "the 2xx has no Contact",
        &["the_2xx_names_the_node_as_contact_whatever_the_callee_does"],
    ),
    (
        "the ACK goes past the proxies that stay in the path",
        &[
            "requests_in_both_directions_take_the_route_set_of_their_leg",
            "a_strict_router_gets_itself_as_the_request_uri",
        ],
    ),
    (
        "a CANCEL goes to a leg that another one has replaced, or to none",
        &[
            "a_hop_that_answers_after_it_was_left_is_cancelled_or_ended",
            "a_hop_that_was_left_is_cleaned_up_when_its_call_is_over_too",
        ],
    ),
    (
        "every call waits for a next hop that is dead",
        &[
            "a_silent_hop_is_left_after_seconds_and_tried_last_for_a_while",
            "a_hop_whose_options_are_not_answered_is_avoided_until_they_are",
        ],
    ),
    (
        "a failed NOTIFY takes the call with it",
        &["a_481_to_a_request_of_a_subscription_leaves_the_call_alone"],
    ),
];

#[test]
fn every_complaint_is_answered_by_tests_that_exist() {
    let sources = sources();
    for (complaint, tests) in COMPLAINTS {
        assert!(!tests.is_empty(), "{complaint}");
        for test in *tests {
            let definition = format!("fn {test}(");
            assert!(sources.contains(&definition), "{complaint}: no {test}");
        }
    }
}

#[test]
fn every_rule_of_offline_charging_is_kept_by_tests_that_exist() {
    let sources = sources();
    let rules = include_str!("../../../charging/RULES.md");
    let mut tests = 0;
    for name in rules.split('`').skip(1).step_by(2) {
        let is_test = name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if is_test && name.matches('_').count() > 2 {
            tests += 1;
            assert!(sources.contains(&format!("fn {name}(")), "no {name}");
        }
    }
    assert!(tests > 60, "{tests}");
}

fn sources() -> String {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut sources = String::new();
    for folder in ["charging/src", "charging/tests", "tests/tests"] {
        read_below(&root.join(folder), &mut sources);
    }
    sources
}

fn read_below(folder: &std::path::Path, into: &mut String) {
    for entry in std::fs::read_dir(folder).expect("the sources are readable") {
        let path = entry.expect("the sources are readable").path();
        if path.is_dir() {
            read_below(&path, into);
        } else if path.extension().is_some_and(|end| end == "rs") {
            into.push_str(&std::fs::read_to_string(path).expect("sources are UTF-8"));
        }
    }
}
