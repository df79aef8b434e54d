"""What a list leaves to chance: the same draw for the same question, whoever asks."""

from hashlib import blake2b

from feature_repo.assemble.visitor import Visitor
from serving.types import Request


def draw(request: Request, visitor: Visitor, purpose: bytes = b"endcap-tail") -> float | None:
    """Where this answer stands in [0, 1): below `tail_share` its last slot is the long tail's.

    A hash of whom is asked for, where, and of what their rows had counted by then, so that offline, online
    and in both arms of a canary the same answers are drawn; a page that is asked for again gives the same
    list. None without any id: a list for anybody has no draw of its own. Draws of
    two purposes, at most 16 bytes each, owe nothing to each other.
    """
    unit = request.session_id or request.user_id
    if not unit:
        return None
    session = visitor.session
    known = (unit, visitor.surface, *visitor.anchors, session["pages"], session["at"], visitor.user["at"])
    text = "\n".join(map(str, known))  # no id holds a line break
    digest = blake2b(text.encode(), digest_size=8, person=purpose).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2.0**53  # all the bits that a float holds
