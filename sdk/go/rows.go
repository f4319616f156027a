package millstream

import (
	"errors"
	"unsafe"

	"millstream/internal/abi"
)

// Rejections collects what a plug-in rejects of a batch.
type Rejections struct {
	rows  []abi.RowError
	batch *BatchError
}

// Add adds the error of a record.
func (rejections *Rejections) Add(row int, err error) {
	if !errors.As(err, &rejections.batch) {
		rejections.rows = append(rejections.rows, abi.RowError{Row: uint32(row), Message: abi.TextOf(err.Error())})
	}
}

// Result returns the result of a batch of which something was rejected, or nil.
func (rejections *Rejections) Result() unsafe.Pointer {
	switch {
	case rejections.batch != nil:
		return abi.BadBatch(rejections.batch.Message)
	case len(rejections.rows) > 0:
		return abi.BadRows(rejections.rows)
	default:
		return nil
	}
}
