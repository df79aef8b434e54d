"""Section `access` of params.yaml, whole."""

from dataclasses import dataclass

from serving.access.counting import Counting
from serving.access.credentials import KeyRules
from serving.access.signatures import Signing
from serving.access.tolls import Rates


@dataclass(frozen=True)
class Access:
    """Who may ask, how often, how long a list may be clicked on, what counts."""

    keys: KeyRules
    rates: Rates
    signing: Signing
    counting: Counting
