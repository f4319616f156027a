"""A filter in Python: keeps the records whose value contains a text."""

import json

from componentize_py_types import Err
from wit_world import WitWorld as Base
from wit_world.imports import types

text = b""


class WitWorld(Base):
    def describe(self):
        return types.Description("contains-py", "0.1.0", types.Kind.FILTER, types.Columns.VALUES, None)

    def configure(self, config):
        global text
        wanted = json.loads(config).get("text")
        if not isinstance(wanted, str):
            raise Err(types.ConfigError("/text", "a text is needed"))
        text = wanted.encode()

    def filter(self, topic, records):
        column = records.values
        kept = bytearray((records.rows + 7) // 8)
        start = 0
        for row, end in enumerate(column.ends):
            if column.data.find(text, start, end) >= 0:
                kept[row // 8] |= 1 << row % 8
            start = end
        return bytes(kept)
