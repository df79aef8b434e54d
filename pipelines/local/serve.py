"""`endcap serve`: the recommendation service, in the foreground."""

import os
import sys
from typing import Annotated

import typer

from feature_repo.params import root, shop
from feature_repo.ports import HOST, redis_url, stack_params

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main(
    port: Annotated[int | None, typer.Option(help="Default: stack.service_port of params.yaml.")] = None,
    host: Annotated[str, typer.Option(help="Loopback unless a proxy in front needs another.")] = HOST,
    replay: Annotated[bool, typer.Option(help="The clock is the data's; `as_of` is honoured.")] = False,
) -> None:
    """Serve recommendations over HTTP until interrupted."""
    home = shop().run_dir() / "bentoml"
    env = {
        **dict.fromkeys(ONE_THREAD, "1"),  # a second thread makes the tail longer, not shorter
        **os.environ,
        "ENDCAP_HOME": str(root()),
        "REDIS_URL": redis_url(),
        "BENTOML_HOME": str(home),  # also holds the workers' metric files: two services must not share it
    }
    if replay:
        env["ENDCAP_REPLAY"] = "1"
    home.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "bentoml", "serve", "serving.service:Endcap"]
    command += ["--host", host, "--port", str(port or stack_params().service_port)]
    sys.stdout.flush()
    os.execve(sys.executable, command, env)
