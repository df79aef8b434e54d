"""Where Redis and the local processes listen: the environment, else section `stack` of params.yaml.

And what opens them: run/<shop>/redis.password, and the keys of callers in run/<shop>/tokens.json.
"""

import hmac
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from feature_repo.errors import ParamsError
from feature_repo.files import read_json
from feature_repo.params import load, shop

HOST = "127.0.0.1"  # whoever wants other machines to reach a port puts a proxy in front of it
SECRET = "secret"  # in tokens.json: who sends it is one of the shop's own servers
PORTS = ("redis_port", "service_port", "console_port", "storefront_port")


@dataclass(frozen=True)
class StackParams:
    """`stack:`, the processes of `endcap up`."""

    redis_port: int
    service_port: int
    console_port: int
    storefront_port: int
    ready_timeout_s: float
    stop_timeout_s: float
    log_bytes: int


def stack_params() -> StackParams:
    """Section `stack`, with ENDCAP_REDIS_PORT and its like for the other ports applied."""
    params = load("stack", StackParams)
    for field in PORTS:
        name = variable(field)
        if name in os.environ:
            params = replace(params, **{field: _port(name, os.environ[name])})
    return params


def variable(field: str) -> str:
    """The environment variable that overrides a port.

    >>> variable("redis_port")
    'ENDCAP_REDIS_PORT'
    """
    return f"ENDCAP_{field.upper()}"


def _port(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise ParamsError(f"{name}: {text!r} is not allowed; allowed: a port from 1 to 65535")
    return int(text)


def password_file() -> Path:
    """Holds the password of the active shop's embedded Redis, once `endcap up` has started one."""
    return shop().run_dir() / "redis.password"


def embedded_redis_url() -> str:
    """Where `endcap up` puts its own Redis; any other $REDIS_URL is somebody else's server."""
    file = password_file()
    who = f":{file.read_text().strip()}@" if file.exists() else ""
    return f"redis://{who}{HOST}:{stack_params().redis_port}/0"


def redis_url() -> str:
    """$REDIS_URL, else the embedded Redis: one answer for every job and for the service.

    A $REDIS_URL that means the embedded Redis needs no password: it is the one in password_file().
    """
    given = os.environ.get("REDIS_URL")
    return given if given and given != without_password(embedded_redis_url()) else embedded_redis_url()


def without_password(url: str) -> str:
    """What may be shown of a Redis URL.

    >>> without_password("redis://:secret@127.0.0.1:6380/0")
    'redis://127.0.0.1:6380/0'
    """
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def tokens_file() -> Path:
    """JSON, name -> token, or -> an object of them: the keys of the active shop's callers, mode 0600.

    `endcap up` makes it, and adds what is missing.
    """
    return shop().run_dir() / "tokens.json"


def token(name: str) -> str | None:
    """$ENDCAP_<NAME>_TOKEN, else what tokens_file() has under `name`; None where neither says one.

    Raises ParamsError for a file that others may read, or that is none of ours.
    """
    if given := os.environ.get(f"ENDCAP_{name.upper()}_TOKEN"):
        return given
    found = _tokens().get(name)
    return found if isinstance(found, str) and found else None


def tokens_of(name: str) -> dict[str, str]:
    """The tokens that tokens_file() has within the object `name`; errors as of `token`."""
    found = _tokens().get(name)
    held = found if isinstance(found, dict) else {}
    return {one: text for one, text in held.items() if isinstance(text, str) and text}


def _tokens() -> dict[str, Any]:
    file = tokens_file()
    if not file.exists():
        return {}
    if mode := file.stat().st_mode & 0o077:
        raise ParamsError(f"{file}: mode {mode:03o} lets others in; allowed: 600. Next: chmod 600 {file}")
    return read_json(file, "remove it, `endcap up` makes another")


def opens(authorization: str, wanted: str) -> bool:
    """Whether `authorization` is Bearer and the token; how long it takes tells nothing of the token."""
    scheme, _, given = authorization.partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), wanted.encode())


def service_url() -> str:
    """The storefront plane of the local service."""
    return f"http://{HOST}:{stack_params().service_port}"


def console_url() -> str:
    """The admin plane."""
    return f"http://{HOST}:{stack_params().console_port}"


def storefront_url() -> str:
    """The demo shop, whose pages ask the service."""
    return f"http://{HOST}:{stack_params().storefront_port}"
