"""The canonical ABI of the contract, by hand: one instance of a core module, and the calls that it takes.

docs/by-hand.md describes the layout. Nothing that the module returns is trusted: each address is checked.
"""

import struct
import time

from wasmtime import FuncType, Linker, Trap as WasmTrap, TrapCode, ValType, WasmtimeError

from .batch import column, headers, longs
from .errors import BatchError, ContractError, DeadlineError, RowErrors, Trap
from .wasm import Bytes, Function

HOST = "millstream:stage/host@1.0.0"
KINDS = ("partitioner", "serializer", "compressor", "filter")
TIMESTAMPS, KEYS, VALUES, HEADERS = 1, 2, 4, 8


class Instance:
    """One instance of a core module. After a trap it must not be used again."""

    def __init__(self, engine, module, store, call, on_log, on_count):
        self._error = self._fault = None
        self._on_log, self._on_count = on_log, on_count
        linker = Linker(engine)
        i32, i64 = ValType.i32(), ValType.i64()
        linker.define_func(HOST, "log", FuncType([i32, i32, i32], []), self._log)
        linker.define_func(HOST, "count", FuncType([i32, i32, i64], []), self._count)
        try:
            exports = linker.instantiate(store, module).exports(store)
        except (WasmTrap, WasmtimeError) as error:
            raise ContractError(f"it cannot be started: {error}") from None
        functions = {"cabi_realloc": (4, 1), "describe": (0, 1), "configure": (2, 1), call: (1, 1)}
        try:
            self._memory = Bytes(store, exports["memory"])
            self._functions = {name: Function(store, exports[name], *shape) for name, shape in functions.items()}
            for name in ("describe", "configure", call):
                if f"cabi_post_{name}" in exports:
                    self._functions[f"cabi_post_{name}"] = Function(store, exports[f"cabi_post_{name}"], 1, 0)
            start = Function(store, exports["_initialize"], 0, 0) if "_initialize" in exports else None
        except KeyError as error:
            raise ContractError(f"it exports no {error.args[0]}: it is not a plug-in for this use") from None
        except TypeError as error:
            raise ContractError(f"an export has another type than in the contract: {error}") from None
        if start:
            self._functions["_initialize"] = start
            self._call("_initialize")

    def describe(self):
        """Returns the name, the version, the kind and the columns of the plug-in."""
        at = self._call("describe")
        name, name_len, version, version_len, kind, columns = struct.unpack("<IIIIBB", self._read(at, 18))
        described = self._text(name, name_len), self._text(version, version_len), KINDS[kind % 4], columns
        self._post("describe", at)
        return described

    def configure(self, json):
        """Returns `None`, or the field and the message of the plug-in's error."""
        at = self._call("configure", *self._put(json.encode()))
        failed, field, field_len, message, message_len = struct.unpack("<B3xIIII", self._read(at, 20))
        error = (self._text(field, field_len), self._text(message, message_len)) if failed else None
        self._post("configure", at)
        return error

    def filter(self, topic, batch, columns):
        """Returns the bitmap of the rows to keep."""
        block = struct.pack("<II", *self._put(topic)) + self._records(batch, columns)
        at, keep, size = self._ask("filter", block, batch.rows)
        if size != (batch.rows + 7) // 8:
            raise ContractError(f"filter returned a bitmap of {size} bytes for {batch.rows} rows")
        bitmap = self._read(keep, size)
        self._post("filter", at)
        return bitmap

    def partition(self, topic, partitions, load, batch, columns):
        """Returns one partition for each row."""
        load_at, _ = self._put(struct.pack(f"<{len(load)}Q", *load), 8)
        block = struct.pack("<IIIII", *self._put(topic), partitions, load_at, len(load))
        at, chosen, count = self._ask("partition", block + self._records(batch, columns), batch.rows)
        if count != batch.rows:
            raise ContractError(f"partition returned {count} partitions for {batch.rows} rows")
        answer = struct.unpack(f"<{count}I", self._read(chosen, 4 * count))
        self._post("partition", at)
        if answer and max(answer) >= partitions:
            raise ContractError(f"partition returned {max(answer)} of {partitions}")
        return answer

    def _ask(self, name, block, rows):
        """Makes a call, and returns the address of its result with the list in it."""
        at = self._call(name, self._put(block, 8)[0])
        failed, kind, start, size = struct.unpack("<B3xIII", self._read(at, 16))
        if not failed:
            # The list comes one word earlier than the list of an error.
            return at, kind, start
        if kind & 0xFF:
            error = BatchError(self._text(start, size))
        else:
            error = self._row_errors(name, start, size, rows)
        self._post(name, at)
        raise error

    def _row_errors(self, name, start, count, rows):
        if not 0 < count <= rows:
            return ContractError(f"{name} returned errors for {count} of {rows} rows")
        found = struct.iter_unpack("<III", self._read(start, 12 * count))
        bad = sorted((row, self._text(message, size)) for row, message, size in found)
        if bad[-1][0] >= rows:
            return ContractError(f"{name} returned an error for row {bad[-1][0]} of {rows}")
        return RowErrors(bad)

    def _records(self, batch, columns):
        """Copies the columns that the plug-in reads, and returns the record that points at them."""
        parts = [batch.rows]
        if columns & TIMESTAMPS:
            stamps = batch.timestamps or [int(time.time() * 1000)] * batch.rows
            parts += (self._put(longs(stamps), 8)[0], len(stamps))
        else:
            parts += (8, 0)
        for flag, name in ((KEYS, "keys"), (VALUES, "values")):
            if columns & flag:
                parts += (1, *self._column(column(_needed(batch, name)), batch.rows))
            else:
                parts += (0, 1, 0, 4, 0, 1, 0)
        if columns & HEADERS:
            ends, names, values = headers(_needed(batch, "headers"))
            count = int.from_bytes(ends[-4:], "little")
            parts += (1, self._put(ends, 4)[0], batch.rows)
            parts += (*self._column(names, count), *self._column(values, count))
        else:
            parts += (0, 4, 0, 1, 0, 4, 0, 1, 0, 1, 0, 4, 0, 1, 0)
        return struct.pack("<32I", *parts)

    def _column(self, parts, rows):
        data, ends, nulls = parts
        return *self._put(data), self._put(ends, 4)[0], rows, *self._put(nulls)

    def _put(self, data, align=1):
        """Copies bytes into memory of the plug-in, which owns it then. Returns the address and the size."""
        if not data:
            return align, 0
        at = self._call("cabi_realloc", 0, 0, align, len(data))
        try:
            self._memory.write(at, data)
        except IndexError as error:
            raise ContractError(f"cabi_realloc returned {error}") from None
        return at, len(data)

    def _read(self, at, size):
        try:
            return self._memory.read(at, size)
        except IndexError as error:
            raise ContractError(f"the plug-in names {error}") from None

    def _text(self, at, size):
        return self._read(at, size).decode(errors="replace")

    def _call(self, name, *arguments):
        try:
            result = self._functions[name](*arguments)
        except WasmTrap as trap:
            if trap.trap_code == TrapCode.INTERRUPT:
                raise DeadlineError(f"{name} has run past its deadline and was stopped") from None
            said = f"; it said: {self._error}" if self._error else ""
            raise Trap(f"trapped in {name}: {trap.message.splitlines()[-1].strip()}{said}") from None
        except WasmtimeError as error:
            raise Trap(f"failed in {name}: {error}") from None
        if self._fault is not None:
            raise self._fault
        return result

    def _post(self, name, at):
        """Lets the plug-in free what its response points at."""
        if f"cabi_post_{name}" in self._functions:
            self._call(f"cabi_post_{name}", at)
        self._error = None

    def _log(self, level, at, size):
        line = self._heard(at, min(size & 0xFFFFFFFF, 1024))
        # A trap is explained by the first line that the plug-in logged as an error in the call.
        if level == 0 and self._error is None:
            self._error = line
        self._on_log(level, line)

    def _count(self, at, size, delta):
        if 0 < size <= 64:
            self._on_count(self._heard(at, size), delta & 0xFFFFFFFFFFFFFFFF)

    def _heard(self, at, size):
        """Returns a text of a call to the host. An error waits for the end of the plug-in's call."""
        try:
            return self._text(at & 0xFFFFFFFF, size)
        except ContractError as error:
            self._fault = error
            return ""


def _needed(batch, name):
    found = getattr(batch, name)
    if found is None:
        if batch.rows:
            raise ContractError(f"the plug-in reads {name}, which this batch does not have")
        return ()
    return found
