"""`endcap console`: the admin pages, in the foreground, and beside them the lookout that raises alarms."""

import logging
import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from feature_repo.online.connection import ONCE, client
from feature_repo.params import load, root, shop
from feature_repo.places import DATA, DRIFT, UNSEEN, at
from feature_repo.ports import HOST, service_url, stack_params, tokens_file
from monitoring.experiment.attribution import FeedbackParams
from monitoring.experiment.guard import RolloutParams
from serving.release import state
from serving.release.router import CHAMPION, HOLDOUT

if TYPE_CHECKING:
    from monitoring.alerting.troubles import AlarmParams, Look, Trouble
    from monitoring.pages.desk import Desk


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
    desk = Desk(redis, at(DATA), load("console", ConsoleParams), feedback, margin)
    app = build_app(desk, tokens)
    look_out(desk)
    told = tokens_file().relative_to(root())
    install(load("serving", Serving))  # the limits of connections are those of the service
    print(f"console: http://{host}:{port}/  tokens: {told}, `console`; an admin's also ${TOKEN}", flush=True)
    uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False, server_header=False)


def look_out(desk: "Desk") -> None:
    """Start the thread that looks for trouble; it ends with the process."""
    from monitoring.alerting import lookout, webhook
    from monitoring.alerting.troubles import AlarmParams

    logging.basicConfig(format="%(asctime)s %(message)s")
    params, hook = load("alarms", AlarmParams), webhook.configured()
    told = hook.post if hook else None
    out = lookout.Lookout(desk.redis, looks(desk, params), params, shop().name, told)
    print(f"alarms: {'told to the webhook' if hook else 'on the Overview alone, no alarms.url'}", flush=True)
    threading.Thread(target=out.run, args=(threading.Event(), time.time), name="lookout", daemon=True).start()


def looks(desk: "Desk", params: "AlarmParams") -> Mapping[str, "Look"]:
    """Kind of trouble -> how it is looked for."""
    from monitoring.alerting import troubles
    from monitoring.pages.figures import Course

    def holdout() -> "list[Trouble]":
        if (rollout := state.read(desk.redis)) is None:
            return []
        step = desk.once(Course, lambda: Course(desk.redis, desk.feedback)).look(rollout).step
        return troubles.no_lift(step[CHAMPION], step[HOLDOUT], params, load("rollout", RolloutParams))

    return {
        "rollback": partial(troubles.rolled_back, desk.redis, params.rollback_s),
        "retrain": partial(troubles.not_retrained, shop().run_dir()),
        "consumers": partial(troubles.behind, f"{service_url()}/metrics", params.behind_s),
        "unseen": troubles.of_file(at(UNSEEN), partial(troubles.unseen, limit=params.unseen_share)),
        "drift": troubles.of_file(at(DRIFT), partial(troubles.drifted, limit=params.drifted_share)),
        "holdout": holdout,
        "disk": partial(troubles.disk_full, root(), params.min_free_mib),
    }
