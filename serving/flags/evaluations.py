"""A flag asked for by name, without a list: what a storefront's own code goes by.

The same draw as of the lists, so that a value told here is that of the exposures which lists log.
"""

from feature_repo.persons.pseudonyms import Persons
from serving.flags.assignment import Evaluation
from serving.flags.flagbook import Flagbook
from serving.release.router import HOLDOUT, assign
from serving.types import Request


class Evaluations:
    """Of one worker; whoever is in the holdout gets the control for DEFAULT."""

    def __init__(self, flags: Flagbook, persons: Persons, holdout_share: float) -> None:
        self._flags, self._persons, self._holdout_share = flags, persons, holdout_share

    @property
    def keys(self) -> list[str]:
        """Of the flags that there are."""
        return self._flags.keys

    @property
    def version(self) -> int:
        return self._flags.version

    def of(self, key: str, request: Request) -> Evaluation | None:
        """None where there is no such flag."""
        user, session = self._persons.asking(request.user_id, request.session_id)
        unit = user or session
        held_out = unit is not None and assign(unit, "", self._holdout_share, 0) == HOLDOUT
        return self._flags.evaluate(key, request, unit, held_out)
