"""A batch of records as columns, as the contract has them."""

from array import array
from itertools import accumulate


class Batch:
    """Records to show to a plug-in. Each column is a sequence with an entry for each record, or `None` if it is absent.

    Entries of `keys` and `values` are bytes or `None`, those of `timestamps` milliseconds, and those of `headers`
    sequences of pairs of a name and a value. A plug-in gets only the columns that it asks for. Without timestamps
    records have that of the call.
    """

    __slots__ = ("rows", "timestamps", "keys", "values", "headers")

    def __init__(self, *, keys=None, values=None, timestamps=None, headers=None):
        columns = {"keys": keys, "values": values, "timestamps": timestamps, "headers": headers}
        lengths = {name: len(column) for name, column in columns.items() if column is not None}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns differ in length: {lengths}")
        self.rows = next(iter(lengths.values()), 0)
        self.keys = keys
        self.values = values
        self.timestamps = timestamps
        self.headers = headers


def column(rows):
    """Returns the data, the ends and the bitmap of nulls of a column of bytes."""
    try:
        return b"".join(rows), _words(accumulate(map(len, rows))), b""
    except TypeError:
        # Some rows are null.
        nulls = bytearray((len(rows) + 7) // 8)
        for row, value in enumerate(rows):
            if value is None:
                nulls[row // 8] |= 1 << row % 8
        data, ends, _ = column([b"" if value is None else value for value in rows])
        return data, ends, bytes(nulls)


def headers(rows):
    """Returns the ends of the rows, and the columns of names and values."""
    names = [name.encode() if isinstance(name, str) else name for row in rows for name, _ in row or ()]
    values = [value for row in rows for _, value in row or ()]
    return _words(accumulate(len(row or ()) for row in rows)), column(names), column(values)


def longs(values):
    """Returns numbers of 64 bits in the byte order of Wasm."""
    return _bytes(array("q", values))


def _words(values):
    return _bytes(array("I", values))


def _bytes(numbers):
    if BIG_ENDIAN:
        numbers.byteswap()
    return numbers.tobytes()


BIG_ENDIAN = array("H", [1]).tobytes() == b"\0\1"
