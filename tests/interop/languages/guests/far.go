// Command far is a partitioner that chooses a partition that is not there.
package main

import (
	"math"

	"millstream"
	"millstream/partitioner"
)

type far struct {
	Beyond uint32 `json:"beyond"`
}

func (it *far) Partition(record millstream.Record, partitions partitioner.Partitions) (uint32, error) {
	if it.Beyond == math.MaxUint32 {
		return math.MaxUint32, nil
	}
	return partitions.Count + it.Beyond, nil
}

func init() { partitioner.Register[far]("go-partitioner", "0.1.0", 0) }

func main() {}
