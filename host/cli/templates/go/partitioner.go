// Command {{name}} is a partitioner: it chooses the partition of each record.
package main

import (
	"errors"

	"millstream"
	"millstream/partitioner"
)

// The configuration: what a user writes as {{name}}{"prefix":2}.
type {{go}} struct {
	Prefix uint32 `json:"prefix"`
}

// Partition returns a partition, from 0 to partitions.Count - 1. Keys with the same prefix go to the same one.
func (it *{{go}}) Partition(record millstream.Record, partitions partitioner.Partitions) (uint32, error) {
	key := record.Key()
	if key == nil {
		return 0, errors.New("a record needs a key")
	}
	hash := uint32(0)
	for _, letter := range key[:min(int(it.Prefix), len(key))] {
		hash = hash*31 + uint32(letter)
	}
	return hash % partitions.Count, nil
}

func init() {
	partitioner.Register[{{go}}]("{{name}}", "0.1.0", millstream.Keys)
}

func main() {}
