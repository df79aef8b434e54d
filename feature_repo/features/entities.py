"""What a feature row can be about."""

from __future__ import annotations

from feast import Entity, ValueType

USER = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING, description="a known shopper")
SESSION = Entity(
    name="session",
    join_keys=["session_id"],
    value_type=ValueType.STRING,
    description="one visit, often anonymous",
)
ITEM = Entity(
    name="item", join_keys=["item_id"], value_type=ValueType.STRING, description="one row of the catalogue"
)
BY_KEY = {entity.join_key: entity for entity in (USER, SESSION, ITEM)}
