// Package partitioner makes a partitioner of a type: it chooses the partition of each record.
package partitioner

import (
	"unsafe"

	"millstream"
	"millstream/internal/abi"
)

// Partitions are the partitions of a topic. Load has the bytes that wait in the queue of each; the greatest number
// marks one without a leader.
type Partitions struct {
	Count uint32
	Load  []uint64
}

// Partitioner is what the type does.
type Partitioner interface {
	// Partition returns 0 to partitions.Count - 1. An error rejects only this record.
	Partition(record millstream.Record, partitions Partitions) (uint32, error)
}

var (
	registered    Partitioner
	name, version string
	reads         millstream.Columns
)

// Register makes T the partitioner of this plug-in; call it in init. The exported fields of T are the configuration.
func Register[T any, P interface {
	*T
	Partitioner
}](itsName, itsVersion string, columns millstream.Columns) {
	registered = P(new(T))
	name, version, reads = itsName, itsVersion, columns
}

//go:wasmexport describe
func describe() unsafe.Pointer {
	return abi.Describe(name, version, abi.Partitioner, byte(reads), -1, "")
}

//go:wasmexport configure
func configure(text, length uint32) unsafe.Pointer {
	field, message := millstream.Configure(abi.Slice[byte](abi.List{Data: text, Length: length}), registered)
	return abi.Configured(field, message)
}

//go:wasmexport partition
func partition(parameters unsafe.Pointer) unsafe.Pointer {
	call := (*abi.PartitionCall)(parameters)
	batch := millstream.BatchOf(call.Topic, &call.Batch)
	partitions := Partitions{call.Partitions, abi.Slice[uint64](call.Load)}
	chosen := unsafe.Slice((*uint32)(abi.Allocate(4*batch.Rows())), batch.Rows())
	var rejections millstream.Rejections
	for row := range batch.Rows() {
		partition, err := registered.Partition(batch.Record(row), partitions)
		if err != nil {
			rejections.Add(row, err)
		}
		chosen[row] = partition
	}
	if bad := rejections.Result(); bad != nil {
		return bad
	}
	return abi.Ok(abi.ListOf(chosen))
}

//go:wasmexport cabi_post_describe
func endDescribe(unsafe.Pointer) { abi.EndCall() }

//go:wasmexport cabi_post_configure
func endConfigure(unsafe.Pointer) { abi.EndCall() }

//go:wasmexport cabi_post_partition
func endPartition(unsafe.Pointer) { abi.EndCall() }
