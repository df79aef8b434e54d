"""Who may open the console, and as what: five roles, each with a token of its own.

A program sends a token as `Authorization: Bearer`. A person enters it once and has a session: a cookie that
is random and signed with a key made of the token, so that it holds its role and time, ends by itself and with
another token, outlives a restart of the console, and does not tell the token.
"""

import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping

from itsdangerous import BadSignature, TimestampSigner

from feature_repo.errors import ParamsError
from feature_repo.files import secrets_in
from feature_repo.ports import tokens_file, tokens_of
from monitoring.pages.desk import ADMIN, ROLES, Person

TOKEN = "ENDCAP_CONSOLE_TOKEN"
EARLIER = "console.token"  # of versions with one token: it is the admin's now
NAME_LENGTH = 40


def make_tokens() -> None:
    """Let tokens.json have a token for each role. A console.token becomes the admin's, and goes."""
    file = tokens_file()
    earlier = file.with_name(EARLIER)
    given = {f"console.{ADMIN}": earlier.read_text().strip()} if earlier.exists() else {}
    secrets_in(file, *(f"console.{role}" for role in ROLES), given=given)
    earlier.unlink(missing_ok=True)


def read_tokens() -> dict[str, str]:
    """Role -> token, as tokens.json has them; the admin's is $ENDCAP_CONSOLE_TOKEN where that is set.

    Raises ParamsError where a role has none, or two have the same.
    """
    found = tokens_of("console")
    if given := os.environ.get(TOKEN):
        found[ADMIN] = given
    if unknown := sorted(set(found) - set(ROLES)):
        raise ParamsError(
            f"{tokens_file()}: console.{unknown[0]} is no role; allowed: {', '.join(ROLES)}. Next: remove it"
        )
    if len(set(found.values())) < len(found) or not found:
        wrong = "two roles have one token" if found else "no role has a token"
        raise ParamsError(
            f"{tokens_file()}: console: {wrong}. Next: remove `console`, `endcap up` makes it anew"
        )
    return found


class Keys:
    """Opens what a role may: tokens, the sessions that they began, the forms of these."""

    def __init__(self, tokens: Mapping[str, str], session_s: int) -> None:
        self._tokens, self._session_s = dict(tokens), session_s
        self._forms = hashlib.sha256(f"forms {sorted(tokens.items())}".encode()).digest()

    def role_of(self, token: str) -> str | None:
        """Whose token it is; how long it takes tells nothing of any."""
        given = token.strip().encode()
        found = [role for role, own in self._tokens.items() if hmac.compare_digest(given, own.encode())]
        return found[0] if found else None

    def begin(self, role: str, name: str) -> str:
        """The cookie of a new session."""
        plain = "".join(c for c in name if c.isprintable()).strip()[:NAME_LENGTH]
        told = f"{role}.{plain.encode().hex()}.{secrets.token_urlsafe(12)}"
        return self._signer(role).sign(told).decode()

    def person(self, cookie: str) -> Person | None:
        """Whose session it is; None for one that has ended, or that never began."""
        role, _, rest = cookie.partition(".")
        if role not in self._tokens:
            return None
        try:
            self._signer(role).unsign(cookie, max_age=self._session_s)
            return Person(role, bytes.fromhex(rest.partition(".")[0]).decode())
        except (BadSignature, ValueError):
            return None

    def begin_door(self) -> str:
        """The cookie of somebody who has not signed in."""
        return secrets.token_urlsafe(12)

    def form_of(self, cookie: str) -> str:
        """What a form of this session must send back: another site's page cannot know it."""
        return hmac.new(self._forms, cookie.encode(), hashlib.sha256).hexdigest()

    def _signer(self, role: str) -> TimestampSigner:
        return TimestampSigner(
            self._tokens[role], salt=f"endcap console {role}", digest_method=hashlib.sha256
        )
