"""Partitioners and filters: a core module with its configuration, made anew after a trap."""

import json
import logging
import math
import threading
import time
import weakref

from wasmtime import Config, Engine, Module, Store, WasmtimeError

from .abi import HEADERS, KEYS, TIMESTAMPS, VALUES, Instance
from .batch import Batch
from .errors import ConfigError, ContractError, StageError, Trap

MEMORY_BYTES = 16 << 20
TICK_SECONDS = 0.005
LINES_A_SECOND = 50

LEVELS = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)
COLUMNS = {"timestamps": TIMESTAMPS, "keys": KEYS, "values": VALUES, "headers": HEADERS}


class Stage:
    """A plug-in with its configuration. Threads may share one: their calls take turns.

    `path` names a core module, as `millstream plugin unbundle` writes it. `config` is a JSON object, or its text.
    `deadline` is the time of a call in seconds; without one a call may run forever, and is faster. `memory` is the most
    memory of the plug-in in bytes. Lines that the plug-in logs go to `logger`, at most 50 a second.
    """

    kind = call = None

    def __init__(self, path, config=None, *, deadline=None, memory=MEMORY_BYTES, logger=None):
        self._config = config if isinstance(config, str) else json.dumps(config or {})
        self._deadline, self._memory_bytes = deadline, memory
        self._logger = logger or logging.getLogger("millstream.stage")
        self._lines = (0.0, 0)
        self._lock = threading.Lock()
        self.counters = {}
        settings = Config()
        # As in Millstream: a computed NaN has the same bits in every process.
        settings.cranelift_nan_canonicalization = True
        settings.epoch_interruption = deadline is not None
        self._engine = Engine(settings)
        if deadline is not None:
            _tick(self._engine)
        try:
            self._module = Module.from_file(self._engine, str(path))
        except WasmtimeError as error:
            reason = f"{path} is not a core module (`millstream plugin unbundle` writes one): {error}"
            raise ContractError(reason) from None
        self._instance = None
        with self._lock:
            self._start()

    @property
    def columns(self):
        """The names of the columns that the plug-in reads."""
        return [name for name, flag in COLUMNS.items() if self._columns & flag]

    def _start(self):
        store = Store(self._engine)
        store.set_limits(memory_size=self._memory_bytes)
        self._store = store
        self._arm()
        instance = Instance(self._engine, self._module, store, self.call, self._on_log, self._on_count)
        self.name, self.version, kind, self._columns = instance.describe()
        if kind != self.kind:
            raise ContractError(f"{self.name} is a {kind}, not a {self.kind}")
        self._arm()
        if (error := instance.configure(self._config)) is not None:
            raise ConfigError(*error)
        self._instance = instance

    def _arm(self):
        if self._deadline is not None:
            self._store.set_epoch_deadline(math.ceil(self._deadline / TICK_SECONDS) + 1)

    def _call(self, *arguments):
        with self._lock:
            if self._instance is None:
                self._start()
            self._arm()
            try:
                return getattr(self._instance, self.call)(*arguments, self._columns)
            except (Trap, ContractError):
                # Its memory may hold anything now: the next call has a new instance.
                self._instance = None
                raise

    def _on_log(self, level, line):
        second, count = self._lines
        now = time.monotonic()
        if now - second >= 1:
            second, count = now, 0
        self._lines = (second, count + 1)
        if count < LINES_A_SECOND:
            name, plain = getattr(self, "name", "a plug-in"), line.encode("unicode_escape").decode()
            self._logger.log(LEVELS[level % 4], "%s: %s", name, plain)

    def _on_count(self, name, delta):
        if name in self.counters or len(self.counters) < 64:
            self.counters[name] = self.counters.get(name, 0) + delta


class Filter(Stage):
    """Decides which records to keep."""

    kind, call = "filter", "filter"

    def filter(self, topic, batch):
        """Returns a bitmap with a set bit for each row to keep: row `i` is bit `i % 8` of byte `i // 8`."""
        return self._call(topic.encode(), batch)

    def keep(self, topic, batch):
        """Returns a list with a `bool` for each row."""
        bitmap = self.filter(topic, batch)
        return [bool(bitmap[row >> 3] >> (row & 7) & 1) for row in range(batch.rows)]


class Partitioner(Stage):
    """Chooses a partition for each record."""

    kind, call = "partitioner", "partition"

    def partition(self, topic, partitions, batch, unavailable=()):
        """Returns a partition from 0 to `partitions` - 1 for each row. Those without a leader are in `unavailable`."""
        load = [0] * partitions
        for one in unavailable:
            load[one] = 0xFFFFFFFFFFFFFFFF
        return self._call(topic.encode(), partitions, load, batch)

    def only_reads(self, columns, client):
        """Raises an error if the plug-in reads a column that a client does not show to partitioners."""
        if missing := [name for name in self.columns if name not in columns]:
            raise StageError(f"{self.name} reads {', '.join(missing)}, which {client} does not show to a partitioner")


def _tick(engine):
    """Advances the clock of an engine for as long as it lives."""
    held = weakref.ref(engine)

    def run():
        while (engine := held()) is not None:
            engine.increment_epoch()
            del engine
            time.sleep(TICK_SECONDS)

    threading.Thread(target=run, name="millstream-stage-deadlines", daemon=True).start()
