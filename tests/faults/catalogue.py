"""Catalogue: which test shows what happens under which fault; `python -m tests.faults.catalogue` prints the table."""

import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """A fault, what must happen, and its tests, each as `<module within tests>::<test>`."""

    fault: str
    outcome: str
    tests: tuple[str, ...]


_POINTS = "faults.test_crash_points::test_a_crash_at_any_point_loses_nothing_and_repeats_only_what_it_must"
_TORTURE = "torture.test_random_kills::test_thirty_kills_at_random_under_load_lose_nothing"
_RECORDED = "delivery.transport.test_hostile_recorded::test_each_fault_is_recorded_as_its_own_class"
_NEIGHBOUR = "delivery.test_neighbours::test_a_consumer_notices_little_of_its_neighbour"
_UNREACHED = "delivery.transport.test_hostile_recorded::test_what_is_never_reached_is_recorded_as_its_own_class"

CATALOGUE: dict[int, Row] = {
    1: Row(
        "kill before the commit",
        "the emitter sees an error, nothing is delivered",
        ("faults.test_crashes::test_an_event_whose_commit_never_came_is_an_error_and_nothing_is_delivered", _POINTS, _TORTURE),
    ),
    2: Row(
        "kill after the commit, before the acknowledgement",
        "the emitter's retry is deduplicated",
        ("faults.test_crashes::test_an_event_that_was_kept_and_not_acknowledged_is_kept_once_when_it_is_emitted_again", _POINTS),
    ),
    3: Row(
        "kill after the acknowledgement, before routing",
        "delivered after the next start",
        ("faults.test_crashes::test_an_event_that_was_acknowledged_and_not_routed_is_delivered_after_the_next_start", _POINTS),
    ),
    4: Row(
        "kill after a send, before the ledger's flush",
        "delivered again with the same id",
        (
            "faults.test_crashes::test_a_delivery_that_was_answered_and_not_recorded_is_made_again_with_the_same_id_and_bytes",
            "faults.test_crashes::test_a_delivery_is_not_sent_again_and_again_by_a_service_that_cannot_stay_up",
            _POINTS,
        ),
    ),
    5: Row("kill during recovery", "still converges", (_POINTS, _TORTURE)),
    6: Row(
        "power loss",
        "no acknowledged event is lost",
        (
            "faults.test_power_loss::test_no_acknowledged_event_is_lost_with_the_power",
            "faults.test_shim::test_what_was_not_synced_is_lost",
        ),
    ),
    7: Row(
        "torn end of a write-ahead log, damaged database",
        "recovers the prefix; damage is named at the start",
        (
            "faults.test_damage::test_a_torn_end_of_the_write_ahead_log_costs_no_commit_before_it",
            "faults.test_damage::test_a_damaged_database_is_named_at_the_start_and_left_as_it_is",
            "faults.test_damage::test_no_damage_of_a_databases_structure_is_taken_for_sound",
        ),
    ),
    8: Row(
        "disk full",
        "events are refused, nothing is sent that cannot be recorded, heals by itself",
        (
            "faults.test_disk::test_with_its_disk_full_ingest_refuses_events_and_heals",
            "faults.test_disk::test_with_its_disk_full_delivery_sends_nothing_until_it_can_record_again",
            "faults.test_disk::test_with_its_disk_full_the_registry_refuses_changes_and_heals",
            "eventlog.sqlite.test_log::test_a_full_disk_refuses_and_heals",
        ),
    ),
    9: Row(
        "disk read-only or failing, also at a sync",
        "the process ends, nothing is acknowledged that is not kept",
        (
            "faults.test_disk::test_a_disk_that_fails_ends_ingest_before_anything_is_acknowledged",
            "faults.test_disk::test_a_disk_that_fails_ends_delivery_and_nothing_more_is_sent",
            "faults.test_disk::test_a_disk_that_fails_ends_the_registry_and_no_subscription_is_promised",
            "faults.test_damage::test_a_directory_that_may_not_be_written_is_named_at_the_start",
        ),
    ),
    10: Row(
        "a store put back to an older copy",
        "an alarm; no storm, and nothing is skipped in silence",
        (
            "faults.test_restored::test_a_log_that_is_older_than_the_ledger_stops_routing_with_an_alarm",
            "faults.test_restored::test_a_log_that_is_put_back_under_a_running_delivery_stops_routing_with_an_alarm",
            "faults.test_restored::test_a_ledger_that_is_older_than_the_log_stops_routing_with_an_alarm",
            "faults.test_restored::test_a_registry_that_is_put_back_is_taken_as_it_is_now",
        ),
    ),
    16: Row(
        "registry away",
        "what is routed goes on, new events wait in the log",
        ("faults.test_dependencies::test_without_the_registry_what_is_routed_goes_on_and_new_events_wait_in_the_log",),
    ),
    17: Row(
        "ingest away",
        "delivery goes on from its position",
        ("faults.test_dependencies::test_without_ingest_delivery_waits_and_goes_on_from_its_position",),
    ),
    19: Row(
        "DNS server down",
        "the attempt has failed by its name, and is tried again",
        (
            "delivery.transport.test_resolver::test_a_name_that_does_not_exist_is_a_failure_of_dns",
            "delivery.transport.test_resolver::test_a_lookup_that_hangs_keeps_nobody_waiting_and_is_not_begun_again",
            "delivery.transport.test_resolver::test_names_that_hang_do_not_hold_up_those_that_were_found_before",
            _UNREACHED,
        ),
    ),
    20: Row(
        "clock an hour forward or back",
        "nothing waits for it, hurries or comes twice",
        (
            "faults.test_clock::test_a_clock_that_jumps_moves_no_retry",
            "faults.test_clock::test_ids_and_positions_grow_and_nothing_is_refused_while_the_clock_goes_back_and_forth",
            "faults.test_clock::test_after_a_start_by_another_clock_everything_that_waited_goes_on",
        ),
    ),
    21: Row("same id, same body", "the first position", ("faults.test_events::test_the_same_event_again_is_the_first_one",)),
    22: Row(
        "same id, other body",
        "ALREADY_EXISTS",
        ("faults.test_events::test_another_event_of_the_same_id_is_a_conflict_and_the_first_stays",),
    ),
    23: Row(
        "a payload that cannot be delivered, or whose routing ends the service",
        "set aside with its reason, its neighbours flow",
        (
            "faults.test_events::test_an_event_that_cannot_be_encoded_is_set_aside_with_its_reason_and_its_neighbours_flow",
            "faults.test_events::test_an_event_whose_routing_kills_the_service_is_set_aside_and_those_around_it_arrive",
            "delivery.worker.test_poison::test_an_event_that_ends_the_worker_again_and_again_is_set_aside_and_those_around_it_arrive",
        ),
    ),
    24: Row(
        "one byte over the limit",
        "rejected before buffering",
        (
            "faults.test_events::test_one_byte_over_the_limit_is_too_large_and_its_neighbours_flow",
            "ingest.test_publish::test_a_message_beyond_what_the_transport_takes_is_too_large",
            "gateway.test_request_body::test_a_length_over_the_limit_is_refused_before_any_of_it_is_sent",
        ),
    ),
    25: Row(
        "nesting of 10 000, duplicate keys, NaN, lone surrogates",
        "INVALID_ARGUMENT",
        (
            "faults.test_events::test_what_is_no_json_is_refused_by_its_field",
            "faults.test_events::test_events_of_one_message_have_their_own_results",
            "ingest.test_check_json::test_any_bytes_are_judged_as_the_exact_model_does",
        ),
    ),
    26: Row(
        "a stream of events without end",
        "flow control",
        (
            "faults.test_events::test_a_stream_that_never_ends_and_never_listens_holds_up_nobody_and_takes_no_memory",
            "ingest.test_publish_stream::test_a_client_that_does_not_read_is_held_back",
        ),
    ),
    27: Row(
        "no subscription matches",
        "recorded without a row; the log keeps it for its readers",
        ("delivery.worker.test_log_follower::test_an_event_that_no_subscription_wants_is_recorded_without_a_row",),
    ),
    28: Row(
        "fan-out of a million",
        "in chunks, memory within bounds, goes on after a crash",
        (
            "delivery.worker.test_log_follower::test_a_fan_out_to_a_thousand_holds_a_part_of_it_in_memory_at_a_time",
            "delivery.worker.test_recorder::test_a_large_fan_out_goes_on_where_the_crash_has_cut_it",
        ),
    ),
    29: Row(
        "hot partition",
        "the other partitions' p99 stays within 1.2 times",
        (_NEIGHBOUR, "delivery.dispatch.test_lane_table::test_a_lane_of_many_keeps_no_other_waiting"),
    ),
    30: Row(
        "connect black hole",
        "ends at the connect timeout",
        ("delivery.transport.test_hostile::test_a_connection_that_is_never_made_ends_at_the_connect_timeout", _UNREACHED),
    ),
    31: Row(
        "one byte at a time",
        "ends at the total timeout",
        ("delivery.transport.test_hostile::test_an_answer_of_one_byte_at_a_time_ends_at_the_total_timeout", _RECORDED),
    ),
    32: Row(
        "endless body",
        "cut at 64 KiB, the status counts, memory stays flat",
        (
            "delivery.transport.test_hostile::test_an_endless_body_is_cut_and_its_status_counts",
            "delivery.transport.test_hostile::test_memory_stays_flat_under_a_thousand_endless_answers_at_once",
            _RECORDED,
        ),
    ),
    33: Row(
        "compression bomb",
        "never unpacked",
        (
            "delivery.transport.test_hostile::test_a_packed_body_stays_packed",
            "delivery.transport.test_hostile::test_a_body_packed_for_the_transfer_is_not_unpacked_beyond_the_limit",
            _RECORDED,
        ),
    ),
    34: Row(
        "huge header, or headers without end",
        "an error within bounds",
        ("delivery.transport.test_hostile::test_a_huge_head_is_an_error_within_bounds", _RECORDED),
    ),
    35: Row(
        "malformed answer, 1xx, 101",
        "a failure",
        (
            "delivery.transport.test_hostile::test_a_malformed_answer_is_no_http",
            "delivery.transport.test_hostile::test_an_interim_answer_alone_is_none",
            "delivery.transport.test_hostile::test_a_switch_of_protocols_is_a_failure",
            _RECORDED,
        ),
    ),
    36: Row(
        "reset after the request",
        "the outcome is unknown, tried again",
        ("delivery.transport.test_hostile::test_a_connection_that_breaks_after_the_request_leaves_the_outcome_unknown", _RECORDED),
    ),
    37: Row(
        "redirect",
        "a failure, not followed",
        (
            "delivery.transport.test_hostile::test_a_redirect_is_a_failure_and_is_not_followed",
            "delivery.transport.test_ssrf::test_no_vector_is_reached_by_a_redirect",
            _RECORDED,
        ),
    ),
    38: Row(
        "certificate expired, self-signed or of another host; TLS before 1.2",
        "a failure with its reason",
        (
            "delivery.transport.test_tls::test_a_certificate_that_does_not_fit_is_refused_with_its_reason",
            "delivery.transport.test_hostile_recorded::test_a_certificate_that_does_not_fit_is_recorded_with_its_reason",
        ),
    ),
    39: Row(
        "a name that is not there",
        "tried again",
        ("delivery.transport.test_ssrf::test_a_name_that_is_not_found_is_a_failure_of_its_own", _UNREACHED),
    ),
    40: Row(
        "a name that leads to a forbidden address, or comes to",
        "blocked",
        (
            "delivery.transport.test_ssrf::test_a_name_of_a_special_address_is_blocked",
            "delivery.transport.test_ssrf::test_a_name_that_flips_between_check_and_dial_is_dialled_as_it_was_checked",
            "delivery.transport.test_ssrf::test_the_socket_itself_is_refused_whatever_was_judged_before",
            _UNREACHED,
        ),
    ),
    41: Row(
        "Retry-After in seconds, as a date, negative, 1e99",
        "clamped",
        (
            "delivery.transport.test_hostile::test_retry_after_is_handed_on_as_it_came",
            "delivery.dispatch.test_retry_policy::test_retry_after_is_clamped_or_passed_over",
            "delivery.transport.test_hostile_recorded::test_a_pause_that_is_asked_for_is_kept_within_six_hours",
        ),
    ),
    42: Row(
        "410",
        "disabled, what waits is cancelled, its owner is told, nothing more is sent",
        (
            "delivery.test_notices::test_a_sink_that_answers_410_is_disabled_its_queue_is_cancelled_and_its_owner_is_told_once",
            "delivery.request.test_subscription_settings::test_a_sink_that_is_gone_is_disabled_and_another_one_switches_it_on",
            "delivery.subscriptions.test_gone_sinks::test_a_change_of_anything_but_the_sink_sends_nothing_to_it",
            "delivery.subscriptions.test_gone_sinks::test_the_registry_is_told_until_it_hears",
        ),
    ),
    43: Row(
        "flapping",
        "at most one change of the breaker in 30 s",
        ("delivery.dispatch.test_circuit_breaker::test_however_an_endpoint_flaps_it_changes_at_most_once_in_thirty_seconds",),
    ),
    44: Row(
        "a kept connection that has gone stale",
        "costs no attempt",
        (
            "delivery.transport.test_http::test_a_connection_that_was_closed_while_idle_costs_nothing",
            "delivery.transport.test_http::test_a_kept_connection_that_breaks_under_a_request_costs_no_attempt",
        ),
    ),
    45: Row(
        "the sink is our own gateway",
        "the loop is stopped",
        (
            "e2e.test_loops::test_a_webhook_to_our_own_gateway_does_nothing_and_is_not_tried_again",
            "gateway.test_webhook_loops::test_a_webhook_is_refused_wherever_it_arrives",
        ),
    ),
    46: Row(
        "an outage of all sinks ends",
        "a ramp from one attempt at a time, and at most twice the rate of before",
        (
            "delivery.worker.test_end_of_outage::test_many_lanes_catch_up_at_no_more_than_twice_the_rate_of_before",
            "delivery.dispatch.test_concurrency_limit::test_after_an_outage_it_doubles_from_one_to_half_of_what_it_was",
            "delivery.dispatch.test_lane_table::test_an_open_breaker_lets_one_probe_through_at_a_time",
            "delivery.dispatch.test_lane_table::test_after_an_outage_events_arrive_in_the_order_of_their_positions",
        ),
    ),
    47: Row("one consumer sends 100 times as much", "the others' p99 stays within 1.2 times", (_NEIGHBOUR,)),
    48: Row(
        "thousands of dead sinks",
        "healthy sinks get theirs",
        (_NEIGHBOUR, "delivery.dispatch.test_lane_table::test_a_dead_endpoint_costs_neither_memory_nor_the_others_time"),
    ),
    49: Row(
        "more than memory holds",
        "slowed or refused, and never killed",
        (
            "bounds.test_slow_disk::test_emitters_faster_than_the_disk_are_slowed_not_buffered",
            "bounds.test_hostile_callers::test_hostile_callers_take_little_and_refuse_nobody_an_answer",
            "bounds.test_pending::test_what_waits_for_an_endpoint_drains_in_order_and_takes_little_memory",
            "delivery.dispatch.test_lane_table::test_a_dead_endpoint_costs_neither_memory_nor_the_others_time",
        ),
    ),
    50: Row(
        "a million subscriptions",
        "99 of 100 events are routed within 5 ms",
        ("delivery.subscriptions.test_router::test_an_event_is_routed_in_milliseconds_among_a_million_subscriptions",),
    ),
    51: Row(
        "SIGTERM",
        "drains within 25 s, exit code 0",
        (
            "faults.test_stop::test_delivery_ends_its_attempts_and_records_them_before_it_stops",
            "faults.test_stop::test_delivery_does_not_wait_for_an_endpoint_that_never_answers",
            "faults.test_stop::test_a_service_that_stops_under_load_loses_nothing",
        ),
    ),
    56: Row(
        "a secret is rotated while deliveries are in flight",
        "each request carries the signatures of both",
        (
            "e2e.test_delivery_guarantees::test_during_a_rotation_each_webhook_verifies_with_the_new_and_the_old_secret",
            "delivery.test_app::test_during_a_rotation_both_secrets_verify",
            "delivery.request.test_subscription_settings::test_both_schemes_verify_before_and_after_a_rotation",
        ),
    ),
    57: Row(
        "a subscription is deleted while its deliveries are in flight",
        "its queue is cancelled; no attempt starts more than 2 s later",
        (
            "delivery.test_changes::test_what_waits_is_cancelled",
            "delivery.transport.test_withdrawn::test_what_waits_for_its_turn_is_cancelled_without_an_attempt",
            "delivery.transport.test_withdrawn::test_after_a_deletion_no_request_leaves_that_waits",
            "delivery.test_simulation::test_whatever_happens_every_event_reaches_its_end",
        ),
    ),
    58: Row(
        "a lane catches up with a large part of the log",
        "fresh events keep their latency",
        ("delivery.test_neighbours::test_fresh_events_do_not_wait_for_a_lane_that_catches_up",),
    ),
    59: Row(
        "a registry put back to an older copy, and changed as often since as it had been before",
        "a new snapshot is taken; nothing is routed by the lost history",
        (
            "faults.test_restored::test_a_registry_that_is_put_back_and_changed_as_often_is_taken_as_it_is_now",
            "subscription.store.test_watch::test_a_registry_that_was_restored_and_changed_as_often_knows_its_own_changes_only",
            "delivery.test_simulation::test_whatever_happens_every_event_reaches_its_end",
        ),
    ),
    60: Row(
        "a subscription is deleted while routing waits for room",
        "nothing of it stays pending",
        (
            "delivery.test_changes::test_what_waits_to_be_routed_when_its_subscription_goes_is_not_left_pending",
            "delivery.test_simulation::test_whatever_happens_every_event_reaches_its_end",
        ),
    ),
    61: Row(
        "a wall clock that is far ahead for some seconds, also at the start",
        "nothing is given up, dropped or stamped by it",
        (
            "faults.test_clock::test_a_clock_far_ahead_for_a_while_ends_and_drops_nothing",
            "delivery.worker.test_retention_loop::test_a_wall_clock_that_is_far_ahead_for_a_while_gives_up_nothing",
            "delivery.test_simulation::test_whatever_happens_every_event_reaches_its_end",
            "runtime.test_steady_clock::test_a_step_that_is_taken_back_is_never_seen",
        ),
    ),
    62: Row(
        "two delivery services on one ledger",
        "the second one is refused at its start; where locks do not hold, the one whose lease was taken writes nothing more and stops",
        (
            "faults.test_stores::test_a_second_delivery_service_on_one_ledger_is_refused",
            "delivery.test_app::test_a_second_service_on_the_ledger_is_refused_and_the_first_goes_on",
            "delivery.test_app::test_a_service_whose_lease_was_taken_stops",
            "conformance.ledger.test_lease::test_a_worker_whose_lease_was_taken_writes_nothing",
        ),
    ),
    63: Row(
        "delivery is frozen for more than a second, and goes on",
        "nothing is routed and nothing leaves before the registry has answered a call that began afterwards",
        (
            "faults.test_frozen::test_after_a_freeze_nothing_is_sent_to_a_subscription_that_was_deleted_meanwhile",
            "delivery.subscriptions.test_freshness::test_after_a_freeze_nothing_is_routed_or_sent_until_the_registry_answers",
            "delivery.subscriptions.test_freshness::test_what_waits_for_room_to_be_routed_is_not_routed_after_a_freeze",
            "delivery.subscriptions.test_freshness::test_what_is_being_connected_does_not_leave_either",
            "delivery.test_simulation::test_whatever_happens_every_event_reaches_its_end",
        ),
    ),
    64: Row(
        "a store's file is removed, replaced or moved while a service has it open",
        "the service stops and acknowledges nothing; it does not begin anew by itself",
        (
            "runtime.test_database_files::test_files_that_are_gone_are_noticed",
            "runtime.test_database_files::test_a_database_that_was_removed_is_not_made_anew_by_itself",
            "ingest.test_start_and_stop::test_nothing_is_acknowledged_into_a_file_that_is_gone",
            "subscription.store.test_storage_faults::test_no_change_is_acknowledged_into_a_file_that_is_gone",
            "faults.test_stores::test_a_delivery_service_whose_ledger_is_removed_stops",
        ),
    ),
    65: Row(
        "the log is deleted or restored beside an existing ledger, or the ledger beside the log",
        "delivery stops with one line and is not ready, the lag tells, and hooktide repair goes on",
        (
            "faults.test_stores::test_a_log_that_was_deleted_is_told_of_wherever_a_person_looks",
            "faults.test_stores::test_what_is_not_routed_is_known_while_delivery_is_away",
            "delivery.worker.test_log_follower::test_a_restored_log_is_noticed_in_the_middle_of_a_fan_out",
            "delivery.worker.test_repair::test_after_a_log_was_made_anew_its_events_are_routed_and_none_twice",
            "delivery.worker.test_repair::test_after_a_log_was_restored_what_is_newer_than_the_ledger_is_routed_and_nothing_else",
            "delivery.worker.test_repair::test_after_a_ledger_was_restored_what_it_does_not_know_is_routed_again_and_said_before",
            "delivery.worker.test_repair::test_a_new_ledger_begins_anew_however_often_it_is_interrupted",
            "cli.supervise.test_supervisor::test_a_service_that_runs_and_does_not_do_its_work_is_told_of",
        ),
    ),
    73: Row(
        "the secret key is replaced and the old one taken away",
        "all secrets are readable, all API keys work",
        (
            "subscription.store.test_resealing::test_all_is_readable_after_the_old_secret_key_was_taken_away",
            "subscription.store.test_resealing::test_a_running_registry_takes_a_new_secret_key_and_reseals",
        ),
    ),
}


def lines() -> list[str]:
    """Return the catalogue as text."""
    found = []
    for number, row in CATALOGUE.items():
        found += [f"{number:3}  {row.fault} → {row.outcome}", *(f"       {test}" for test in row.tests)]
    return found


if __name__ == "__main__":
    sys.stdout.write("\n".join(lines()) + "\n")
