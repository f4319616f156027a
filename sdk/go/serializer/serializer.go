// Package serializer makes a serializer of a type: it changes keys and values on the way to a topic, and back on the
// way from it.
package serializer

import (
	"unsafe"

	"millstream"
	"millstream/internal/abi"
)

// Serializer is what the type does. An error rejects only the record.
type Serializer interface {
	Serialize(record millstream.Record, change *Change) error
	Deserialize(record millstream.Record, change *Change) error
}

// Change takes the new key and value of a record. What is not set stays the same, and nil is a null.
type Change struct {
	key, value       []byte
	hasKey, hasValue bool
}

// SetKey sets the new key.
func (change *Change) SetKey(key []byte) {
	change.key, change.hasKey = key, true
}

// SetValue sets the new value.
func (change *Change) SetValue(value []byte) {
	change.value, change.hasValue = value, true
}

var (
	registered    Serializer
	name, version string
	reads         millstream.Columns
)

// Register makes T the serializer of this plug-in; call it in init. The exported fields of T are the configuration.
func Register[T any, P interface {
	*T
	Serializer
}](itsName, itsVersion string, columns millstream.Columns) {
	registered = P(new(T))
	name, version, reads = itsName, itsVersion, columns
}

// A new column, which begins with the first row that is set.
type column struct {
	data  []byte
	ends  []uint32
	nulls []byte
}

func (column *column) put(bytes []byte) {
	row := len(column.ends)
	if row%8 == 0 {
		column.nulls = append(column.nulls, 0)
	}
	if bytes == nil {
		column.nulls[row/8] |= 1 << (row % 8)
	}
	column.data = append(column.data, bytes...)
	column.ends = append(column.ends, uint32(len(column.data)))
}

// take puts the bytes of a row, which are new or the old ones. Until a row is new there is no column.
func take(column **column, fresh bool, bytes []byte, row int, old func(row int) []byte) {
	if fresh && *column == nil {
		*column = newColumn(row, old)
	}
	if *column != nil {
		if !fresh {
			bytes = old(row)
		}
		(*column).put(bytes)
	}
}

func newColumn(rows int, old func(row int) []byte) *column {
	column := &column{}
	for row := range rows {
		column.put(old(row))
	}
	return column
}

// kept is the column of the result: the collector must not free it before the call ends.
var kept [2]*column

func of(column *column) (uint32, abi.Column) {
	if column == nil {
		return 0, abi.Column{}
	}
	return 1, abi.Column{Data: abi.ListOf(column.data), Ends: abi.ListOf(column.ends), Nulls: abi.ListOf(column.nulls)}
}

func call(parameters unsafe.Pointer, each func(millstream.Record, *Change) error) unsafe.Pointer {
	call := (*abi.BatchCall)(parameters)
	batch := millstream.BatchOf(call.Topic, &call.Batch)
	var keys, values *column
	var rejections millstream.Rejections
	for row := range batch.Rows() {
		record, change := batch.Record(row), Change{}
		if err := each(record, &change); err != nil {
			rejections.Add(row, err)
		}
		take(&keys, change.hasKey, change.key, row, func(row int) []byte { return batch.Record(row).Key() })
		take(&values, change.hasValue, change.value, row, func(row int) []byte { return batch.Record(row).Value() })
	}
	if bad := rejections.Result(); bad != nil {
		return bad
	}
	kept = [2]*column{keys, values}
	var changes abi.Changes
	changes.HasKeys, changes.Keys = of(keys)
	changes.HasValues, changes.Values = of(values)
	return changes.Put()
}

//go:wasmexport describe
func describe() unsafe.Pointer {
	return abi.Describe(name, version, abi.Serializer, byte(reads), -1, "")
}

//go:wasmexport configure
func configure(text, length uint32) unsafe.Pointer {
	field, message := millstream.Configure(abi.Slice[byte](abi.List{Data: text, Length: length}), registered)
	return abi.Configured(field, message)
}

//go:wasmexport serialize
func serialize(parameters unsafe.Pointer) unsafe.Pointer {
	return call(parameters, registered.Serialize)
}

//go:wasmexport deserialize
func deserialize(parameters unsafe.Pointer) unsafe.Pointer {
	return call(parameters, registered.Deserialize)
}

//go:wasmexport cabi_post_describe
func endDescribe(unsafe.Pointer) { abi.EndCall() }

//go:wasmexport cabi_post_configure
func endConfigure(unsafe.Pointer) { abi.EndCall() }

//go:wasmexport cabi_post_serialize
func endSerialize(unsafe.Pointer) { end() }

//go:wasmexport cabi_post_deserialize
func endDeserialize(unsafe.Pointer) { end() }

func end() {
	kept = [2]*column{}
	abi.EndCall()
}
