"""The lists of one page: no product stands in two of them, and none takes what a rule pins in a later one."""

from collections.abc import Sequence
from dataclasses import replace

from serving.stages.steering import Steering
from serving.types import Answer, Request


def apart(
    requests: Sequence[Request],
    steered: Sequence[Steering],
    at: int,
    before: Sequence[Answer],
    ids: Sequence[str],
) -> Request:
    """Request `at` of a page, which bars what the lists `before` it hold and what the others name.

    And what the rules pin in those behind it, unless they pin it here, too: else a pin would hold for those
    shoppers alone who would not have been shown the product anyway. `ids`: of the rows that pins name.
    """
    request = requests[at]
    if len(requests) == 1:
        return request
    taken = {item: None for one in requests if one is not request for item in one.items}
    taken |= {slot.item_id: None for answer in before for slot in answer.items}
    behind = zip(requests[at + 1 :], steered[at + 1 :], strict=True)
    pinned = {pin.row for one, rules in behind for pin in rules.pins if pin.slot < one.limit}
    own = {pin.row for pin in steered[at].pins if pin.slot < request.limit}
    taken |= {ids[row]: None for row in sorted(pinned - own)}
    return replace(request, exclude=(*request.exclude, *taken))
