"""What goes wrong with a plug-in, in its own words."""


class StageError(Exception):
    """Any error of a plug-in, or about one."""


class ConfigError(StageError):
    """The plug-in rejects its configuration. `field` is a JSON Pointer, empty for the whole configuration."""

    def __init__(self, field, message):
        super().__init__(f"at `{field}`: {message}" if field else message)
        self.field = field
        self.message = message


class BatchError(StageError):
    """The plug-in rejects the whole batch."""


class RowErrors(StageError):
    """The plug-in rejects these rows; the others are good. `rows` has pairs of a row and its message."""

    def __init__(self, rows):
        row, message = rows[0]
        more = f" (and {len(rows) - 1} more rows)" if len(rows) > 1 else ""
        super().__init__(f"row {row}: {message}{more}")
        self.rows = rows


class Trap(StageError):
    """The plug-in has trapped. Its next call runs in a new instance."""


class DeadlineError(Trap):
    """A call has run past its deadline and was stopped."""


class ContractError(StageError):
    """The file is not a plug-in for this use, or a response breaks the contract."""
