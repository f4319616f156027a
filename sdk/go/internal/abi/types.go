package abi

import "unsafe"

// Column is a column of a batch.
type Column struct {
	Data, Ends, Nulls List
}

// Headers are the headers of a batch.
type Headers struct {
	Ends          List
	Names, Values Column
}

// Batch is a batch of records. The fields named Has are options of the contract.
type Batch struct {
	Rows       uint32
	Timestamps List
	HasKeys    uint32
	Keys       Column
	HasValues  uint32
	Values     Column
	HasHeaders uint32
	Headers    Headers
}

// BatchCall has the parameters of filter, serialize and deserialize.
type BatchCall struct {
	Topic List
	Batch Batch
}

// PartitionCall has the parameters of partition.
type PartitionCall struct {
	Topic      List
	Partitions uint32
	Load       List
	Batch      Batch
}

// The layout of the contract.
var (
	_ [128]byte = [unsafe.Sizeof(Batch{})]byte{}
	_ [136]byte = [unsafe.Sizeof(BatchCall{})]byte{}
	_ [148]byte = [unsafe.Sizeof(PartitionCall{})]byte{}
)

// RowError is the rejection of a record.
type RowError struct {
	Row     uint32
	Message List
}

// Result is a result with a list, or with an error. The first field is 0 or 1.
type Result struct {
	IsError uint32
	// The list; for an error its kind, then its list.
	Fields [3]uint32
}

// Ok returns a result with a list.
func Ok(list List) unsafe.Pointer {
	return put(Result{0, [3]uint32{list.Data, list.Length}})
}

// BadRows returns a result of rejected records.
func BadRows(rows []RowError) unsafe.Pointer {
	kept := unsafe.Slice((*RowError)(Allocate(len(rows)*int(unsafe.Sizeof(RowError{})))), len(rows))
	copy(kept, rows)
	return put(Result{1, [3]uint32{0, Address(unsafe.Pointer(unsafe.SliceData(kept))), uint32(len(kept))}})
}

// BadBatch returns a result of a batch that failed as a whole.
func BadBatch(message string) unsafe.Pointer {
	text := TextOf(message)
	return put(Result{1, [3]uint32{1, text.Data, text.Length}})
}

// BadBytes returns the failure of compress or decompress.
func BadBytes(message string) unsafe.Pointer {
	text := TextOf(message)
	return put(Result{1, [3]uint32{text.Data, text.Length}})
}

// Changes is the result of serialize and deserialize.
type Changes struct {
	IsError   uint32
	HasKeys   uint32
	Keys      Column
	HasValues uint32
	Values    Column
}

// Put returns the address of a result.
func (changes Changes) Put() unsafe.Pointer {
	return put(changes)
}

type description struct {
	name, version List
	kind, columns byte
	_             [2]byte
	hasFormat     uint32
	format        uint32
	private       List
}

// The kinds, as the contract numbers them.
const (
	Partitioner = iota
	Serializer
	Compressor
	Filter
)

// Describe returns the description of a plug-in. A format below 0 is none, and 4 is a private one with the given name.
func Describe(name, version string, kind, columns byte, format int, private string) unsafe.Pointer {
	description := description{name: TextOf(name), version: TextOf(version), kind: kind, columns: columns}
	if format >= 0 {
		description.hasFormat = 1
		description.format = uint32(format)
	}
	if format == 4 {
		description.private = TextOf(private)
	}
	return put(description)
}

type configResult struct {
	isError        uint32
	field, message List
}

// Configured returns the result of configure; without a message it is good.
func Configured(field, message string) unsafe.Pointer {
	if message == "" {
		return put(configResult{})
	}
	return put(configResult{1, TextOf(field), TextOf(message)})
}

func put[T any](value T) unsafe.Pointer {
	start := Allocate(int(unsafe.Sizeof(value)))
	*(*T)(start) = value
	return start
}

//go:wasmimport millstream:stage/host@1.0.0 log
func hostLog(level uint32, message unsafe.Pointer, length uint32)

//go:wasmimport millstream:stage/host@1.0.0 count
func hostCount(name unsafe.Pointer, length uint32, delta uint64)

// Log writes a line to the host's log.
func Log(level uint32, message string) {
	hostLog(level, unsafe.Pointer(unsafe.StringData(message)), uint32(len(message)))
}

// Count adds to a counter.
func Count(name string, delta uint64) {
	hostCount(unsafe.Pointer(unsafe.StringData(name)), uint32(len(name)), delta)
}
