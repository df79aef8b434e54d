"""`endcap console`: the admin pages, in the foreground."""

from typing import Annotated

import typer

from feature_repo.online.connection import ONCE, client
from feature_repo.params import load, root
from feature_repo.places import DATA, at
from feature_repo.ports import HOST, stack_params, tokens_file
from monitoring.experiment.attribution import FeedbackParams
from monitoring.experiment.guard import RolloutParams


def main(
    port: Annotated[int | None, typer.Option(help="Default: stack.console_port of params.yaml.")] = None,
    host: Annotated[str, typer.Option(help="Loopback unless a proxy in front needs another.")] = HOST,
) -> None:
    """Serve the console over HTTP until interrupted; it prints where its tokens are."""
    import uvicorn

    from monitoring.console.access import TOKEN, make_tokens, read_tokens
    from monitoring.console.app import build_app
    from monitoring.pages.desk import ConsoleParams, Desk
    from serving.http.connections import install
    from serving.params import Serving

    make_tokens()
    tokens = read_tokens()
    port = port or stack_params().console_port
    # Without Redis the console still comes up and says so; its pages do not wait for retries.
    redis = client(retry=ONCE, socket_timeout=5)
    feedback, margin = load("feedback", FeedbackParams), load("rollout", RolloutParams).margin
    app = build_app(Desk(redis, at(DATA), load("console", ConsoleParams), feedback, margin), tokens)
    told = tokens_file().relative_to(root())
    install(load("serving", Serving))  # the limits of connections are those of the service
    print(f"console: http://{host}:{port}/  tokens: {told}, `console`; an admin's also ${TOKEN}", flush=True)
    uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False, server_header=False)
