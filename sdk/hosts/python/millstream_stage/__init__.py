"""Runs Millstream's plug-ins in an application: partitioners and filters, as core modules."""

from .batch import Batch
from .errors import BatchError, ConfigError, ContractError, DeadlineError, RowErrors, StageError, Trap
from .stage import Filter, Partitioner

__all__ = [
    "Batch",
    "BatchError",
    "ConfigError",
    "ContractError",
    "DeadlineError",
    "Filter",
    "Partitioner",
    "RowErrors",
    "StageError",
    "Trap",
]
