"""`endcap console`: the admin pages, in the foreground."""

from typing import Annotated

import typer

from feature_repo.online.connection import ONCE, client
from feature_repo.params import load, root, shop
from feature_repo.places import DATA, at
from feature_repo.ports import HOST, stack_params
from monitoring.experiment.attribution import FeedbackParams
from monitoring.experiment.guard import RolloutParams


def main(
    port: Annotated[int | None, typer.Option(help="Default: stack.console_port of params.yaml.")] = None,
    host: Annotated[str, typer.Option(help="Loopback unless a proxy in front needs another.")] = HOST,
) -> None:
    """Serve the console over HTTP until interrupted; it prints where its token is."""
    import uvicorn

    from monitoring.console.access import TOKEN, console_token
    from monitoring.console.app import ConsoleParams, build_app
    from serving.http.connections import install
    from serving.params import Serving

    folder = shop().run_dir()
    token = console_token(folder)
    port = port or stack_params().console_port
    # Without Redis the console still comes up and says so; its pages do not wait for retries.
    redis = client(retry=ONCE, socket_timeout=5)
    app = build_app(
        redis,
        at(DATA),
        token,
        load("console", ConsoleParams),
        load("feedback", FeedbackParams),
        load("rollout", RolloutParams).margin,
    )
    told = folder.relative_to(root()) / "console.token"
    install(load("serving", Serving))  # the limits of connections are those of the service
    print(f"console: http://{host}:{port}/  token: ${TOKEN}, else {told}", flush=True)
    uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False, server_header=False)
