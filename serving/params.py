"""Section `serving` of params.yaml."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Serving:
    """Limits, deadlines and rhythms of the HTTP service. Every duration names its unit."""

    workers: int  # processes; each holds its own copy of the release
    traffic_timeout_s: float  # Bento keeps one timer per request alive for this long: 60 s costs the tail
    feature_deadline_ms: int  # then the answer is made without stored rows
    breaker_misses: int  # failed feature reads in a row, after which none is tried for
    breaker_ms: int
    max_in_flight: int  # requests of a worker at once; one more gets bestsellers, not a place in a queue
    write_deadline_ms: int  # then POST /v1/events answers 503; below traffic_timeout_s
    max_body_bytes: int
    max_header_bytes: int  # of a request, with its address
    max_headers: int
    max_connections: int  # of a worker, less where it may open fewer files
    backlog: int  # connections that wait to be accepted
    idle_timeout_s: float  # a connection without a request is closed after this
    request_timeout_s: float  # from the first byte of a request to its last
    drain_timeout_s: float  # for requests in flight when the service is stopped
    max_items: int  # ids in each of items, cart, exclude
    max_events: int  # per POST /v1/events
    max_changes: int  # per POST /v1/items
    max_surfaces: int  # per POST /v1/page
    wait_limit_s: float  # ?wait=1 gives up after this
    max_waiters: int  # of a worker at once; one more is answered at once, applied: false
    clock_skew_s: int  # how far ahead of our clock an event may be stamped
    late_days: int  # how far behind it
    replay_ahead_s: int  # in a replay: how far one event may move the shop's clock on
    min_free_mib: int  # left where the embedded Redis writes, below which no event is accepted
    seen_ttl_s: int  # how long an event_id is remembered
    poll_s: float  # how often a worker looks for another release
    start_patience_s: (
        float  # so long a worker that starts waits for Redis; then it comes up, and is not ready
    )
    worker_silent_s: float  # after which a worker that does not report what it serves counts as dead
    refresh_s: float  # how often changed items are read
    exposures_kept: int  # entries of endcap:exposures, approximately
    exposures_queued: int  # entries waiting to be logged; beyond that they are dropped and counted
    served_share: float  # of the live answers, whose candidates and their 28 values go to endcap:served
    served_kept: int  # entries of endcap:served, approximately
    rules_poll_s: float  # how often a worker looks for other rules and experiments
    rules_shadow_share: float  # of the live answers, beside which rules that are tried out make theirs
    rules_shadow_kept: int  # entries of endcap:rules:shadow, approximately
    shadow_kept: int  # entries of endcap:shadow:pairs, approximately
    explain_timeout_s: float  # for an explanation, the wait for its turn included
    explain_waiting: int  # of a worker at once; one more is answered 503
    edge_ttl_s: int  # how long a cache in front may keep a GET answer that names nobody


def replaying() -> bool:
    """True where ENDCAP_REPLAY=1: the clock is the data's, `as_of` is honoured."""
    return os.environ.get("ENDCAP_REPLAY") == "1"
