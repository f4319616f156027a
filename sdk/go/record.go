// Package millstream is what a plug-in in Go uses. A plug-in registers a type with one of the packages filter,
// partitioner, serializer and compressor, which say what the type must do.
//
// Bytes of a record belong to the host: they are valid until the call ends, and must not be changed.
package millstream

import "millstream/internal/abi"

// Columns are the columns that a plug-in reads. The host copies no others.
type Columns byte

// The columns of a batch.
const (
	Timestamps Columns = 1 << iota
	Keys
	Values
	Headers
)

// Batch is a batch of records.
type Batch struct {
	topic      string
	rows       int
	timestamps []int64
	keys       column
	values     column
	headerEnds []uint32
	names      column
	contents   column
}

type column struct {
	data  []byte
	ends  []uint32
	nulls []byte
}

func columnOf(from abi.Column) column {
	return column{abi.Slice[byte](from.Data), abi.Slice[uint32](from.Ends), abi.Slice[byte](from.Nulls)}
}

// BatchOf reads a batch of the contract.
func BatchOf(topic abi.List, from *abi.Batch) Batch {
	batch := Batch{topic: string(abi.Slice[byte](topic)), rows: int(from.Rows)}
	batch.timestamps = abi.Slice[int64](from.Timestamps)
	if from.HasKeys&1 != 0 {
		batch.keys = columnOf(from.Keys)
	}
	if from.HasValues&1 != 0 {
		batch.values = columnOf(from.Values)
	}
	if from.HasHeaders&1 != 0 {
		batch.headerEnds = abi.Slice[uint32](from.Headers.Ends)
		batch.names = columnOf(from.Headers.Names)
		batch.contents = columnOf(from.Headers.Values)
	}
	return batch
}

// Rows returns the number of records.
func (batch *Batch) Rows() int {
	return batch.rows
}

// Record returns one of the records.
func (batch *Batch) Record(row int) Record {
	return Record{batch, row}
}

// row returns the bytes of a row, or nil for a null and for a column that is not read.
func (column *column) row(row int) []byte {
	if row >= len(column.ends) || len(column.nulls) > 0 && column.nulls[row/8]>>(row%8)&1 != 0 {
		return nil
	}
	start := uint32(0)
	if row > 0 {
		start = column.ends[row-1]
	}
	return column.data[start:column.ends[row]:column.ends[row]]
}

// Record is one record of a batch.
type Record struct {
	batch *Batch
	row   int
}

// Topic returns the topic.
func (record Record) Topic() string {
	return record.batch.topic
}

// Timestamp returns milliseconds since the epoch, or 0 if the plug-in does not read timestamps.
func (record Record) Timestamp() int64 {
	if record.row >= len(record.batch.timestamps) {
		return 0
	}
	return record.batch.timestamps[record.row]
}

// Key returns the key, or nil if the record has none.
func (record Record) Key() []byte {
	return record.batch.keys.row(record.row)
}

// Value returns the value, or nil if the record has none.
func (record Record) Value() []byte {
	return record.batch.values.row(record.row)
}

// Header is a header of a record. A nil value is a null.
type Header struct {
	Name  string
	Value []byte
}

// Headers returns the headers, in the order of the record.
func (record Record) Headers() []Header {
	ends := record.batch.headerEnds
	if record.row >= len(ends) {
		return nil
	}
	start := 0
	if record.row > 0 {
		start = int(ends[record.row-1])
	}
	headers := make([]Header, 0, int(ends[record.row])-start)
	for at := start; at < int(ends[record.row]); at++ {
		headers = append(headers, Header{string(record.batch.names.row(at)), record.batch.contents.row(at)})
	}
	return headers
}

// Level is the level of a line in the host's log.
type Level uint32

// The levels of the contract.
const (
	Error Level = iota
	Warn
	Info
	Debug
)

// Log writes a line to the host's log. What is printed to os.Stderr gets there too.
func Log(level Level, message string) {
	abi.Log(uint32(level), message)
}

// Count adds to a counter of the stage.
func Count(name string, delta uint64) {
	abi.Count(name, delta)
}
