// Package filter makes a filter of a type: it decides which records to keep.
package filter

import (
	"unsafe"

	"millstream"
	"millstream/internal/abi"
)

// Filter is what the type does.
type Filter interface {
	// Keep returns whether to keep a record. An error rejects only this record.
	Keep(record millstream.Record) (bool, error)
}

var (
	registered    Filter
	name, version string
	reads         millstream.Columns
)

// Register makes T the filter of this plug-in; call it in init. The exported fields of T are the configuration.
func Register[T any, P interface {
	*T
	Filter
}](itsName, itsVersion string, columns millstream.Columns) {
	registered = P(new(T))
	name, version, reads = itsName, itsVersion, columns
}

//go:wasmexport describe
func describe() unsafe.Pointer {
	return abi.Describe(name, version, abi.Filter, byte(reads), -1, "")
}

//go:wasmexport configure
func configure(text, length uint32) unsafe.Pointer {
	field, message := millstream.Configure(abi.Slice[byte](abi.List{Data: text, Length: length}), registered)
	return abi.Configured(field, message)
}

//go:wasmexport filter
func filter(parameters unsafe.Pointer) unsafe.Pointer {
	call := (*abi.BatchCall)(parameters)
	batch := millstream.BatchOf(call.Topic, &call.Batch)
	kept := abi.Bytes((batch.Rows() + 7) / 8)
	clear(kept)
	var rejections millstream.Rejections
	for row := range batch.Rows() {
		keep, err := registered.Keep(batch.Record(row))
		if err != nil {
			rejections.Add(row, err)
		} else if keep {
			kept[row/8] |= 1 << (row % 8)
		}
	}
	if bad := rejections.Result(); bad != nil {
		return bad
	}
	return abi.Ok(abi.ListOf(kept))
}

//go:wasmexport cabi_post_describe
func endDescribe(unsafe.Pointer) { abi.EndCall() }

//go:wasmexport cabi_post_configure
func endConfigure(unsafe.Pointer) { abi.EndCall() }

//go:wasmexport cabi_post_filter
func endFilter(unsafe.Pointer) { abi.EndCall() }
