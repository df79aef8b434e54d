"""Which arm a shopper is in: a pure function of the shopper's id, the experiment's salt and two shares.

Nothing is stored per shopper, so every worker, every region and every replay gives the same answer.
"""

from dataclasses import dataclass
from hashlib import blake2b

HOLDOUT, CHAMPION, CHALLENGER = "holdout", "champion", "challenger"
ARMS = (HOLDOUT, CHAMPION, CHALLENGER)
INTERLEAVED = "interleaved"  # of a list that two releases made together: no arm's, so that it counts for none
SHOWN = (*ARMS, INTERLEAVED)  # what an answer may say; new ones at the end, for signed ids hold the place


@dataclass(frozen=True)
class RouterParams:
    """Section `router` of params.yaml."""

    holdout_share: float  # of all shoppers; they get bestsellers, for ever, so that lift can be measured


def assign(unit_id: str, salt: str, holdout_share: float, canary_percent: int) -> str:
    """The arm of a shopper: HOLDOUT, CHALLENGER or CHAMPION.

    `unit_id` is the user id, or the session id of an anonymous shopper; `holdout_share` is 0..1 of everybody,
    `canary_percent` 0..100 of the rest.

    Sticky: the same arguments give the same arm. Monotone: the challenger's shoppers at 10 % are among those
    at 50 %. The holdout does not depend on `salt`, so it is the same people in every experiment; the
    challenger does, so that it is not the same people who try out every release.

    >>> assign("U123", "release-7", 0.02, 0), assign("U123", "release-7", 0.02, 100)
    ('champion', 'challenger')
    """
    if position(unit_id, "", b"endcap-holdout") < holdout_share:
        return HOLDOUT
    return CHALLENGER if position(unit_id, salt) < canary_percent / 100 else CHAMPION


def position(unit_id: str, salt: str, purpose: bytes = b"endcap-arm") -> float:
    """Where a shopper stands in [0, 1): uniform, and independent between salts and between purposes.

    BLAKE2b keyed with the salt rather than a hash of the two texts joined: ("ab", "c") and ("a", "bc")
    must not be the same draw. `purpose` is at most 16 bytes.
    """
    key = salt.encode()
    if len(key) > 64:  # the longest key of BLAKE2b
        key = blake2b(key).digest()
    digest = blake2b(unit_id.encode(), digest_size=8, key=key, person=purpose).digest()
    # 53 bits are all that a float holds: rounding 64 of them could reach 1.0.
    return (int.from_bytes(digest, "big") >> 11) / 2.0**53
