package stage

import "fmt"

// ConfigError says that the plug-in rejects its configuration. Field is a JSON Pointer, empty for the whole of it.
type ConfigError struct{ Field, Message string }

func (e *ConfigError) Error() string {
	if e.Field == "" {
		return e.Message
	}
	return fmt.Sprintf("at `%s`: %s", e.Field, e.Message)
}

// BatchError says that the plug-in rejects the whole batch.
type BatchError struct{ Message string }

func (e *BatchError) Error() string { return e.Message }

// RowError is the message about one row.
type RowError struct {
	Row     uint32
	Message string
}

// RowErrors says that the plug-in rejects these rows; the others are good.
type RowErrors struct{ Rows []RowError }

func (e *RowErrors) Error() string {
	more := ""
	if len(e.Rows) > 1 {
		more = fmt.Sprintf(" (and %d more rows)", len(e.Rows)-1)
	}
	return fmt.Sprintf("row %d: %s%s", e.Rows[0].Row, e.Rows[0].Message, more)
}

// Trap says that the plug-in has trapped. Its next call runs in a new instance.
type Trap struct{ Message string }

func (e *Trap) Error() string { return e.Message }

// DeadlineError says that a call has run past its deadline and was stopped. The next one runs in a new instance.
type DeadlineError struct{ Call string }

func (e *DeadlineError) Error() string { return e.Call + " has run past its deadline and was stopped" }

// ContractError says that the file is not a plug-in for this use, or that a response breaks the contract.
type ContractError struct{ Message string }

func (e *ContractError) Error() string { return e.Message }

func broken(format string, arguments ...any) error {
	return &ContractError{fmt.Sprintf(format, arguments...)}
}
