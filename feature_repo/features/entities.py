"""What a feature row can be about."""

from feast import Entity, ValueType


def _entity(name: str, doc: str) -> Entity:
    return Entity(name=name, join_keys=[f"{name}_id"], value_type=ValueType.STRING, description=doc)


USER = _entity("user", "a known shopper")
SESSION = _entity("session", "one visit, often anonymous")
ITEM = _entity("item", "one row of the catalogue")
BY_KEY = {entity.join_key: entity for entity in (USER, SESSION, ITEM)}
