"""Calls and memory of wasmtime without the conversions of its Python package, which cost 30 us a call.

This uses wasmtime's own ctypes bindings, hence the pinned version. Types of functions are checked once, when they are
found, and addresses each time.
"""

import ctypes
from ctypes import POINTER, byref, c_int, c_size_t, c_void_p, cast

from wasmtime import Func, FuncType, Memory, Trap, ValType, WasmtimeError, _ffi as ffi


def _function(name, result, *arguments):
    # A function object of our own: the types of the package's one stay as they are.
    function = ffi.dll[name]
    function.restype, function.argtypes = result, arguments
    return function


_call = _function("wasmtime_func_call_unchecked", c_void_p, c_void_p, c_void_p, c_void_p, c_size_t, c_void_p)
_data = _function("wasmtime_memory_data", c_void_p, c_void_p, c_void_p)
_size = _function("wasmtime_memory_data_size", c_size_t, c_void_p, c_void_p)


class Function:
    """A function of numbers of 32 bits, with at most one result."""

    def __init__(self, store, function, arguments, results):
        if not isinstance(function, Func):
            raise TypeError("not a function")
        found = function.type(store)
        wanted = FuncType([ValType.i32()] * arguments, [ValType.i32()] * results)
        if (found.params, found.results) != (wanted.params, wanted.results):
            raise TypeError(f"a function of {found.params} to {found.results}")
        self._store = store
        self._context = cast(store._context(), c_void_p)
        self._function = function._func
        self._at = ctypes.addressof(self._function)
        self._values = (ffi.wasmtime_val_raw * max(arguments, results, 1))()
        self._count = len(self._values)
        self._trap = c_void_p()
        self._trap_at = ctypes.addressof(self._trap)

    def __call__(self, *arguments):
        values = self._values
        for index, argument in enumerate(arguments):
            values[index].i32 = argument
        error = _call(self._context, self._at, values, self._count, self._trap_at)
        if error:
            raise WasmtimeError._from_ptr(cast(error, POINTER(ffi.wasmtime_error_t)))
        if self._trap:
            trap = cast(self._trap.value, POINTER(ffi.wasm_trap_t))
            self._trap.value = None
            raise Trap._from_ptr(trap)
        return values[0].i32 & 0xFFFFFFFF


class Bytes:
    """The memory of an instance. Each access is checked."""

    def __init__(self, store, memory):
        if not isinstance(memory, Memory):
            raise TypeError("not a memory")
        self._store = store
        self._context = cast(store._context(), c_void_p)
        self._memory = memory._memory
        self._at = ctypes.addressof(self._memory)

    def write(self, at, data):
        """Copies bytes in."""
        self._check(at, len(data))
        ctypes.memmove(_data(self._context, self._at) + at, data, len(data))

    def read(self, at, size):
        """Returns a copy of bytes."""
        self._check(at, size)
        return ctypes.string_at(_data(self._context, self._at) + at, size)

    def _check(self, at, size):
        if at + size > _size(self._context, self._at):
            raise IndexError(f"{size} bytes at {at}, beyond the end of memory")
