"""Where Feast keeps a row in Redis and how it writes a value, said once more without Feast.

Whoever imports any module of Feast imports all of it, and PyTorch with it: 7 s of a processor and 300 MB in
every worker of the service, for three short functions. A test compares each with Feast's own, and the stock
`get_online_features` reads what is written by these.
"""

import struct
from typing import Any

import mmh3
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PROJECT = b"endcap"  # of feature_store.yaml; ends every key
STRING = 2  # of Feast's ValueType
FIELDS = {  # dtype -> field of Feast's Value, its number, its type, whether it is a list
    "string": ("string_val", 2, descriptor_pb2.FieldDescriptorProto.TYPE_STRING, False),
    "int64": ("int64_val", 4, descriptor_pb2.FieldDescriptorProto.TYPE_INT64, False),
    "float64": ("double_val", 5, descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE, False),
    "list<string>": ("string_list_val", 12, descriptor_pb2.FieldDescriptorProto.TYPE_STRING, True),
    "list<int64>": ("int64_list_val", 14, descriptor_pb2.FieldDescriptorProto.TYPE_INT64, True),
}


def key_prefix(join_key: str) -> bytes:
    """What the keys of all entities of one kind begin with.

    >>> key_prefix("item_id")
    b'\\x01\\x00\\x00\\x00\\x02\\x00\\x00\\x00\\x07\\x00\\x00\\x00item_id'
    """
    name = join_key.encode()
    return struct.pack("<III", 1, STRING, len(name)) + name


def entity_key(join_key: str, entity: str) -> bytes:
    """Feast's serialised entity key, version 3: how many names, each name, each value; types, lengths."""
    value = entity.encode()
    return key_prefix(join_key) + struct.pack("<II", STRING, len(value)) + value


def entity_of(join_key: str, key: bytes) -> str:
    """The entity whose serialised key it is."""
    return key[len(key_prefix(join_key)) + 8 :].decode()


def field_of(view: str, column: str) -> bytes:
    """Field of the hash that holds a column: MurmurHash3 of its full name, 32 bits, little-endian."""
    return struct.pack("<I", mmh3.hash(f"{view}:{column}", signed=False))


def _messages() -> dict[str, Any]:
    """Feast's Value with the types that columns have, in a pool of its own beside Feast's."""
    kind = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="encoding.proto", package="endcap", syntax="proto3")
    value = file.message_type.add(name="Value")
    value.oneof_decl.add(name="val")
    for name, number, scalar, many in FIELDS.values():
        if many:
            listed = file.message_type.add(name=f"List{number}")
            listed.field.add(name="val", number=1, label=kind.LABEL_REPEATED, type=scalar)
            typed: dict[str, Any] = {"type": kind.TYPE_MESSAGE, "type_name": f".endcap.{listed.name}"}
        else:
            typed = {"type": scalar}
        value.field.add(name=name, number=number, label=kind.LABEL_OPTIONAL, oneof_index=0, **typed)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = {"Value": pool.FindMessageTypeByName("endcap.Value")}
    found |= {d: pool.FindMessageTypeByName(f"endcap.List{f[1]}") for d, f in FIELDS.items() if f[3]}
    return {name: message_factory.GetMessageClass(found[name]) for name in found}


MESSAGES = _messages()
Value = MESSAGES["Value"]
LISTS = {dtype: MESSAGES[dtype] for dtype, (*_, many) in FIELDS.items() if many}
