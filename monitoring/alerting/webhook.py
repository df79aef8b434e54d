"""A message to whoever is called: signed as Standard Webhooks has it, one POST, one answer.

webhook-id          of the message, the same whenever it is sent again
webhook-timestamp   seconds since 1970 of this sending; a receiver refuses old ones
webhook-signature   v1,<base64 of HMAC-SHA256 over "id.timestamp.body">
"""

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

from feature_repo.errors import ParamsError
from feature_repo.files import secrets_in
from feature_repo.ports import tokens_file, tokens_of

URL, SECRET = "ENDCAP_ALARMS_URL", "ENDCAP_ALARMS_SECRET"
PREFIX = "whsec_"  # of a secret: base64 follows
SECRET_BYTES = 24  # at least, as the standard has it


@dataclass(frozen=True)
class Webhook:
    """Where alarms go; `key` are the secret's bytes."""

    url: str = field(repr=False)  # of some receivers it is the password
    key: bytes = field(repr=False)
    timeout_s: float = 5.0

    def post(self, message_id: str, body: bytes, now_s: float) -> str:
        """Why it was not taken; empty where the receiver answered 2xx. No redirect is followed."""
        headers = {"content-type": "application/json", **signed(self.key, message_id, body, now_s)}
        try:
            # The body is not read: a receiver may send one without end.
            with (
                httpx.Client(timeout=self.timeout_s, follow_redirects=False) as client,
                client.stream("POST", self.url, content=body, headers=headers) as answer,
            ):
                return "" if answer.is_success else f"it answered {answer.status_code}"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return type(error).__name__


def signed(key: bytes, message_id: str, body: bytes, now_s: float) -> dict[str, str]:
    """The three headers.

    >>> signed(b"0123456789abcdef01234567", "msg_1", b"{}", 1_700_000_000.9)["webhook-timestamp"]
    '1700000000'
    """
    at = str(int(now_s))
    mac = hmac.new(key, f"{message_id}.{at}.".encode() + body, hashlib.sha256).digest()
    signature = f"v1,{base64.b64encode(mac).decode()}"
    return {"webhook-id": message_id, "webhook-timestamp": at, "webhook-signature": signature}


def configured() -> Webhook | None:
    """The webhook of $ENDCAP_ALARMS_URL, else of `alarms.url` in tokens.json; None where there is none.

    Its secret is $ENDCAP_ALARMS_SECRET, else `alarms.secret`, which is made at the first call. Raises
    ParamsError for an address that is no http(s) one and for a secret that is none of the standard's.
    """
    made = PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
    secrets_in(tokens_file(), "alarms.secret", given={"alarms.secret": made})
    held = tokens_of("alarms")
    if not (url := os.environ.get(URL) or held.get("url", "")):
        return None
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ParamsError(
            f"{URL} or alarms.url in {tokens_file()}: not an address; allowed: https://host/path. Next: "
            "mend it, `endcap down console`, `endcap up console`"
        )
    return Webhook(url, key_of(os.environ.get(SECRET) or held["secret"]))


def key_of(secret: str) -> bytes:
    """The bytes of "whsec_<base64>". Raises ParamsError for another text, which it does not repeat."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not secret.startswith(PREFIX) or len(key) < SECRET_BYTES:
        raise ParamsError(
            f"{SECRET} or alarms.secret in {tokens_file()}: not a secret; allowed: {PREFIX} and base64 of "
            f"{SECRET_BYTES} or more bytes. Next: remove it, `endcap up` makes another"
        )
    return key
