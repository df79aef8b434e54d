"""`endcap storefront`: a small shop on a port of its own, whose shelves the service fills."""

from typing import Annotated

import pyarrow.compute as pc
import pyarrow.parquet as pq
import typer

from feature_repo.events import ITEM_SCHEMA
from feature_repo.params import load
from feature_repo.places import EVENTS, ITEMS, existing
from feature_repo.ports import HOST, service_url, stack_params

KNOWN = 5  # shoppers that a visitor may be, the last that were seen


def main(
    port: Annotated[int | None, typer.Option(help="Default: stack.storefront_port of params.yaml.")] = None,
    host: Annotated[str, typer.Option(help="Loopback: this shop is there to be tried.")] = HOST,
) -> None:
    """Serve the demo shop over HTTP until interrupted: look at products, and see the shelves change."""
    import uvicorn

    from pipelines.demo.aisles import build_app
    from serving.http.connections import install
    from serving.params import Serving

    items = pq.read_table(existing(ITEMS, "ingest", *ITEM_SCHEMA.names))
    app = build_app(items, service_url(), last_seen())
    port = port or stack_params().storefront_port
    install(load("serving", Serving))  # the limits of connections are those of the service
    print(f"storefront: http://{host}:{port}/", flush=True)
    uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False, server_header=False)


def last_seen() -> list[str]:
    """The shoppers of the newest events."""
    path = existing(EVENTS, "ingest", "user_id", "event_ts")
    users = pq.read_table(path, columns=["user_id", "event_ts"]).sort_by("event_ts")["user_id"]
    newest = pc.drop_null(users).slice(max(len(users) - users.null_count - 1000, 0))
    return list(dict.fromkeys(reversed(newest.to_pylist())))[:KNOWN]
