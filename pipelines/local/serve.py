"""`endcap serve`: the recommendation service, in the foreground."""

import os
from typing import Annotated

import typer

from feature_repo.online.connection import answers
from feature_repo.params import load, root, shop
from feature_repo.ports import HOST, redis_url, stack_params
from pipelines.local.process import Program, require_free
from serving.access.credentials import Keys
from serving.access.policy import Access
from serving.params import Serving

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main(
    port: Annotated[int | None, typer.Option(help="Default: stack.service_port of params.yaml.")] = None,
    host: Annotated[str, typer.Option(help="Loopback unless a proxy in front needs another.")] = HOST,
    replay: Annotated[bool, typer.Option(help="The clock is the data's; `as_of` is honoured.")] = False,
) -> None:
    """Serve recommendations over HTTP until interrupted."""
    home = shop().run_dir() / "bentoml"
    for name in ONE_THREAD:
        os.environ.setdefault(name, "1")  # a second thread makes the tail longer, not shorter
    os.environ |= {
        "ENDCAP_HOME": str(root()),
        "REDIS_URL": redis_url(),
        "BENTOML_HOME": str(home),  # also holds the workers' metric files: two services must not share it
    }
    if replay:
        os.environ["ENDCAP_REPLAY"] = "1"
    home.mkdir(parents=True, exist_ok=True)
    port, setting = port or stack_params().service_port, "--port or ENDCAP_SERVICE_PORT"
    Keys.read(load("access", Access).keys)  # what is wrong with a key is told here, not by each worker
    answers(redis_url())  # and so is a Redis that no waiting helps
    require_free(Program("service", (), lambda: True, port, setting))
    from pipelines.local import supervisor  # BentoML reads the environment when it is imported

    supervisor.serve(host, port, load("serving", Serving))
