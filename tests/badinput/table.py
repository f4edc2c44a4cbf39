"""Table: every kind of bad input and bad circumstance, with the tests that show its effect.

Tests have the names that pytest gives them, without parameters.
"""

ROWS: dict[str, tuple[str, ...]] = {
    "malformed JSON": (
        "tests/gateway/test_strict_json.py::test_any_bytes_are_an_object_or_a_malformed_body",
        "tests/gateway/test_request_body.py::test_what_is_no_json_object_is_a_malformed_body",
        "tests/badinput/test_rest.py::test_any_bytes_are_an_object_or_a_malformed_body",
        "tests/ingest/test_check_json.py::test_what_is_no_json_is_refused",
        "tests/badinput/test_events.py::test_whatever_is_accepted_arrives_as_valid_json_with_all_its_parts",
        "tests/badinput/test_cli.py::test_a_mistake_is_told_before_anybody_is_called",
    ),
    "malformed protobuf": (
        "tests/ingest/test_publish_stream.py::test_a_message_that_is_no_message_ends_the_stream",
        "tests/badinput/test_events.py::test_any_bytes_are_no_event_or_refused_or_accepted",
        "tests/badinput/test_events.py::test_an_event_with_a_byte_gone_wrong_is_no_event_or_judged_as_any_other",
    ),
    "wrong types": (
        "tests/gateway/test_translate_subscriptions.py::test_a_wrong_member_is_refused_at_its_pointer_on_every_way_in",
        "tests/badinput/test_rest.py::test_any_object_is_taken_or_its_mistakes_are_named",
        "tests/badinput/test_rest.py::test_a_wrong_member_is_told_with_what_to_change",
        "tests/badinput/test_rest.py::test_any_query_is_answered_or_its_mistakes_are_named",
        "tests/ingest/test_event_validation.py::test_what_routing_reads_must_be_a_string",
        "tests/badinput/test_settings.py::test_any_text_is_a_value_or_one_short_line_by_its_variable",
    ),
    "unknown fields": (
        "tests/gateway/test_translate_subscriptions.py::test_all_that_is_wrong_is_named_at_once",
        "tests/badinput/test_rest.py::test_a_wrong_member_is_told_with_what_to_change",
        "tests/repository/test_contract.py::test_a_field_of_a_later_version_is_no_error",
        "tests/runtime/configuration/test_settings_reader.py::test_a_misspelt_name_is_told_what_it_is_nearest_to",
    ),
    "changes of what is fixed at creation": (
        "tests/subscription/rules/test_settings_validation.py::test_a_start_is_kept_for_good",
        "tests/gateway/test_subscription_settings.py::test_a_start_cannot_be_changed",
    ),
    "calls that the present state does not permit": (
        "tests/subscription/rules/test_pause.py::test_a_disabled_subscription_is_not_paused_and_a_resume_enables_it",
        "tests/subscription/rules/test_pause.py::test_a_subscription_without_consent_is_neither_paused_nor_resumed",
        "tests/gateway/test_pauses.py::test_a_disabled_subscription_cannot_be_paused_and_is_enabled_by_a_resume",
    ),
    "sinks that are no URL": (
        "tests/egress/test_urls.py::test_a_url_of_an_odd_form_is_refused_and_says_why",
        "tests/subscription/api/test_subscription_server.py::test_a_sink_that_may_not_be_called_has_a_reason_of_its_own",
        "tests/badinput/test_cli.py::test_what_the_api_refuses_is_told_with_its_place",
    ),
    "oversize events, batches and bodies": (
        "tests/ingest/test_publish.py::test_an_event_may_have_exactly_its_limit",
        "tests/ingest/test_publish.py::test_a_batch_has_1_to_1000_events",
        "tests/ingest/test_publish.py::test_the_events_of_a_batch_have_at_most_4_mib_together",
        "tests/ingest/test_publish.py::test_a_message_beyond_what_the_transport_takes_is_too_large",
        "tests/gateway/test_request_body.py::test_a_body_may_have_as_many_bytes_as_the_limit_and_not_one_more",
        "tests/badinput/test_cli.py::test_what_the_service_refuses_is_told_in_its_words",
    ),
    "nesting depth 10 000": (
        "tests/gateway/test_strict_json.py::test_a_hundred_thousand_levels_neither_overflow_nor_take_long",
        "tests/ingest/test_check_json.py::test_nesting_is_bounded_at_one_depth",
        "tests/badinput/test_cli.py::test_a_mistake_is_told_before_anybody_is_called",
    ),
    "duplicate keys, lone surrogates, NaN": (
        "tests/gateway/test_strict_json.py::test_what_is_no_json_object_is_refused_saying_where",
        "tests/ingest/test_check_json.py::test_any_text_is_judged_as_the_exact_model_does",
        "tests/badinput/test_cli.py::test_a_mistake_is_told_before_anybody_is_called",
        "tests/badinput/test_cli.py::test_what_the_service_refuses_is_told_in_its_words",
    ),
    "bad page tokens and cursors": (
        "tests/runtime/test_paging.py::test_any_other_text_is_refused_as_a_token",
        "tests/badinput/test_lists.py::test_a_token_of_anybodys_making_is_a_place_or_refused",
        "tests/badinput/test_lists.py::test_a_token_of_another_list_or_none_at_all_is_refused",
        "tests/badinput/test_lists.py::test_a_wrong_cursor_is_named_and_says_how_to_begin",
    ),
    "wrong etag": (
        "tests/subscription/api/test_subscription_server.py::test_an_etag_that_is_no_longer_current_stops_update_and_delete",
        "tests/gateway/test_preconditions.py::test_a_change_may_depend_on_the_etag_that_was_read",
        "tests/subscription/api/test_catalogue_server.py::test_an_etag_guards_against_a_change_in_between",
    ),
    "missing, foreign, revoked and malformed keys": (
        "tests/gateway/test_keys.py::test_without_a_key_one_is_required_and_a_wrong_one_is_said_to_be_invalid",
        "tests/gateway/test_tenancy.py::test_another_consumer_s_id_answers_as_a_missing_one",
        "tests/badinput/test_rest.py::test_a_key_that_is_revoked_or_was_never_one_is_nobodys",
        "tests/ingest/test_keys.py::test_a_key_that_is_none_is_refused",
        "tests/ingest/test_keys.py::test_a_call_without_a_key_is_refused",
        "tests/ingest/test_keys.py::test_a_revoked_key_stops_within_2_seconds",
        "tests/runtime/test_api_key.py::test_any_other_text_is_no_key_and_no_fault",
        "tests/badinput/test_cli.py::test_a_key_of_another_role_and_an_id_in_use_are_told",
    ),
    "unknown ids": (
        "tests/gateway/test_hostile_requests.py::test_ids_of_any_characters_are_not_found",
        "tests/subscription/api/test_access_server.py::test_a_missing_consumer_is_not_found",
        "tests/badinput/test_cli.py::test_what_the_api_refuses_is_told_with_its_place",
    ),
    "wrong content types": (
        "tests/gateway/test_request_body.py::test_another_content_type_is_refused_before_the_body_is_read",
        "tests/gateway/test_request_body.py::test_a_compressed_body_is_not_unfolded",
    ),
    "corrupt or foreign database file, database from a newer version": (
        "tests/badinput/test_circumstances.py::test_a_file_that_cannot_serve_is_told_and_left_as_it_is",
        "tests/badinput/test_circumstances.py::test_the_databases_of_two_services_are_not_mixed_up",
    ),
    "occupied port": (
        "tests/badinput/test_circumstances.py::test_an_address_that_cannot_be_had_is_named",
        "tests/badinput/test_circumstances.py::test_a_unix_socket_that_cannot_be_made_is_named",
        "tests/cli/supervise/test_supervisor.py::test_an_occupied_port_ends_everything_with_a_clear_message",
    ),
    "unwritable directory": (
        "tests/badinput/test_circumstances.py::test_a_place_where_nothing_can_be_written_is_named",
        "tests/badinput/test_circumstances.py::test_a_data_directory_that_is_not_as_it_was_left_is_told",
        "tests/cli/supervise/test_data_directory.py::test_a_directory_that_cannot_be_made_is_told_of",
    ),
    "wrong secret key": (
        "tests/subscription/test_start_and_stop.py::test_a_wrong_secret_key_is_found_at_the_start",
        "tests/badinput/test_settings.py::test_a_secret_in_the_wrong_place_is_not_shown",
        "tests/badinput/test_circumstances.py::test_a_second_supervisor_leaves_the_first_ones_directory_alone",
    ),
    "two supervisors on one data directory": (
        "tests/badinput/test_circumstances.py::test_a_second_supervisor_leaves_the_first_ones_directory_alone",
        "tests/cli/supervise/test_supervisor.py::test_keys_are_made_on_the_first_start_only",
    ),
    "settings that are none": (
        "tests/badinput/test_settings.py::test_any_text_is_a_value_or_one_short_line_by_its_variable",
        "tests/badinput/test_settings.py::test_a_time_that_is_none_or_never_ends_is_refused",
        "tests/runtime/configuration/test_settings_reader.py::test_each_mistake_is_one_line_that_names_its_variable",
        "tests/badinput/test_circumstances.py::test_standard_input_that_cannot_close_is_told",
    ),
}
