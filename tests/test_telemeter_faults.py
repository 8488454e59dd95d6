"""Faults of telemeter's programs that are not to be had here, and the tests that hold each.

Those of its former cluster of servers, which lost pushes on the way to their owner, shunned a node for ever, asked who
had gone, and left copies behind, are none of one server's; `cluster/placement.py` is what there is of such a cluster.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
UPLOADS, RECEIVES = "ingest/federation/test_uploads.py", "ingest/federation/test_receives.py"
LIVENESS, WORKER = "ingest/federation/test_liveness.py", "federate/test_worker.py"
UPLOAD_API, PUSHES = "serve/test_upload_api.py", "server/test_pushes.py"

FAULTS: dict[str, list[tuple[str, str]]] = {
    "a connection that ends without an answer": [
        (UPLOADS, "test_what_is_not_spoken_here_is_415"),
        (UPLOADS, "test_labels_are_set_and_taken_off_what_the_whitelist_lets_through"),
        (UPLOADS, "test_one_broken_rule_refuses_everything_and_says_where"),
        ("auth/test_push_authorizer.py", "test_nobody_is_let_in_where_nothing_says_who_may"),
    ],
    "a whitelist that sees half of the labels of a remote write": [
        (RECEIVES, "test_the_whitelist_sees_all_labels_and_the_other_rules_apply"),
    ],
    "a remote write under the id of another": [
        (RECEIVES, "test_no_series_of_another_cluster_gets_in_and_nothing_beside_it"),
        (RECEIVES, "test_spellings_of_one_cluster_do_not_resolve_for_another"),
    ],
    "a client's fault answered with 500": [
        (UPLOADS, "test_an_undecodable_body_is_the_clients_fault"),
        (UPLOADS, "test_one_broken_rule_refuses_everything_and_says_where"),
        (RECEIVES, "test_an_undecodable_body_is_the_clients_fault"),
    ],
    "a histogram that refuses everything beside it": [(UPLOADS, "test_histograms_and_summaries_are_expanded")],
    "an outage of the authority that looks like a bad token": [
        (UPLOAD_API, "test_an_authority_that_is_away_is_no_fault_of_the_client"),
        ("auth/test_upstream.py", "test_whatever_is_no_answer_is_an_outage"),
    ],
    "a cache whose outage lets nobody push": [
        ("auth/test_answer_cache.py", "test_a_cache_that_is_away_is_left_alone_for_a_while"),
    ],
    "an interval that a refused push costs, no word of when to come again, limits that take memory without bound": [
        (UPLOADS, "test_what_is_refused_costs_no_interval_and_has_a_limit_of_its_own"),
        (UPLOADS, "test_a_push_that_could_not_be_stored_costs_nothing"),
        (RECEIVES, "test_a_turn_that_comes_to_nothing_is_another_remote_writes"),
        (LIVENESS, "test_buckets_are_bounded"),
        (LIVENESS, "test_a_hundred_thousand_clusters_fit"),
    ],
    "a push that is lost where the next server is away, a client that keeps nothing": [
        (PUSHES, "test_a_push_is_seen_by_the_next_query_and_what_ended_is_not_even_after_a_restart"),
        (
            "forward/remote_write/test_destination.py",
            "test_an_outage_costs_neither_a_sample_nor_memory_nor_anybody_time",
        ),
        ("federate/test_own_server.py", "test_an_outage_leaves_no_gap"),
        ("federate/test_command.py", "test_a_kill_in_an_outage_loses_no_scrape"),
    ],
    "timestamps that are overwritten": [(UPLOADS, "test_timestamps_are_kept_or_overwritten")],
    "an empty whitelist that means nothing here and everything there": [
        (UPLOADS, "test_an_empty_whitelist_denies_all"),
        (RECEIVES, "test_an_empty_whitelist_denies_all"),
        ("test_federation.py", "test_the_log_says_what_is_too_open_or_too_closed"),
    ],
    "decompression without bound": [
        (UPLOADS, "test_a_bomb_is_refused"),
        (RECEIVES, "test_sizes_are_limited_before_and_after_decompression"),
    ],
    "requests sent on without their headers": [
        ("forward/remote_write/test_sender.py", "test_a_request_says_what_it_is_and_whose"),
    ],
    "a size limit that depends on how a body comes": [
        (UPLOADS, "test_the_size_limit_is_the_same_however_a_body_comes"),
    ],
    "rules that remote writes are not held against, flags that do nothing": [
        (RECEIVES, "test_the_whitelist_sees_all_labels_and_the_other_rules_apply"),
        (RECEIVES, "test_a_remote_write_that_comes_too_soon_waits_and_is_refused_where_too_many_do"),
        ("test_federation_config.py", "test_what_changes_nothing_is_warned_of"),
    ],
    "certificates that refuse the cluster's label, or let everybody in": [
        ("auth/test_cluster_access.py", "test_the_common_name_of_a_certificate_is_the_cluster_until_it_expires"),
        (RECEIVES, "test_series_may_get_the_label_of_a_cluster_that_somebody_else_tells"),
        (UPLOAD_API, "test_a_proxy_may_say_whose_a_remote_write_is"),
    ],
    "a second name of a metric": [
        (UPLOADS, "test_a_second_name_in_text_is_refused_like_one_in_protobuf"),
        (RECEIVES, "test_no_series_of_another_cluster_gets_in_and_nothing_beside_it"),
    ],
    "a client that comes when all others do, gives up at 401, and ends at a bad file": [
        (WORKER, "test_the_first_scrape_waits_a_random_time_and_no_interval_is_shorter"),
        (WORKER, "test_pauses_double_and_are_random"),
        (WORKER, "test_401_gets_a_new_token_and_labels_and_is_sent_again_at_once"),
        (WORKER, "test_tokens_are_renewed_before_they_expire"),
        ("federate/test_target.py", "test_how_long_a_token_is_used"),
        ("federate/test_config.py", "test_where_is_pushed"),
        ("federate/test_config.py", "test_a_client_certificate_needs_no_ca_file"),
        ("federate/test_command.py", "test_sighup_reads_the_file_and_keeps_going_with_a_bad_one"),
    ],
    "a stop that breaks off, a readiness that is always well, an internal port that is open to others": [
        ("serve/test_server.py", "test_stopping_lets_a_running_request_finish_and_closes_idle_connections"),
        (UPLOAD_API, "test_pushes_wait_for_the_replay"),
        ("federate/test_listener.py", "test_health_is_honest"),
        ("server/test_security.py", "test_the_internal_listener_has_its_paths_and_the_other_has_them_no_more"),
    ],
    "a reader that takes what it reads, or changes it for the next one": [
        (PUSHES, "test_a_push_is_seen_by_the_next_query_and_what_ended_is_not_even_after_a_restart"),
    ],
    "a file that is torn, one that spoils all others, a key that is a path": [
        ("federate/test_buffer.py", "test_damaged_files_are_set_aside_and_the_others_used"),
        ("federate/test_buffer.py", "test_a_kill_at_any_step_loses_no_batch"),
        (PUSHES, "test_an_id_is_no_path_and_no_line_but_a_value"),
    ],
    "/federate that gives what nobody asked for, and says the type of a metric again and again": [
        ("query/test_dispatch.py", "test_federation_shows_the_latest_samples_by_name"),
        ("query/test_dispatch.py", "test_federation_of_much_writes_each_type_once"),
    ],
    "a secret of the cluster that cannot be changed": [
        ("test_federation.py", "test_keys_of_the_file_are_used_and_rotated")
    ],
    "checks and sweepers that are never run": [
        (PUSHES, "test_a_cluster_that_is_silent_is_gone"),
        (UPLOADS, "test_times_at_the_bounds_pass"),
    ],
}


@cache
def names_in(name: str) -> frozenset[str]:
    tree = ast.parse((TESTS / name).read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("fault", FAULTS)
def test_each_has_tests(fault: str) -> None:
    for file, name in FAULTS[fault]:
        assert name in names_in(file), f"{file} has no {name}, which holds: no {fault}"
