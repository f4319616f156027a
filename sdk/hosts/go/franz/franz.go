// Package franz has the partitioner and the filter for franz-go.
package franz

import (
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"millstream/stage"
)

// Partitioner lets a plug-in choose partitions: kgo.RecordPartitioner(franz.Partitioner(p, nil)). franz-go shows one
// record a call. It has no way to take an error from a partitioner: the record then fails as one without a valid
// partition, and onError gets what the plug-in said; without it, slog does.
func Partitioner(p *stage.Partitioner, onError func(*kgo.Record, error)) kgo.Partitioner {
	if onError == nil {
		onError = func(record *kgo.Record, err error) {
			slog.Error("a plug-in cannot choose a partition", "topic", record.Topic, "error", err)
		}
	}
	return &partitioner{p, onError}
}

type partitioner struct {
	stage   *stage.Partitioner
	onError func(*kgo.Record, error)
}

func (p *partitioner) ForTopic(topic string) kgo.TopicPartitioner { return &ofTopic{p, topic} }

type ofTopic struct {
	*partitioner
	topic string
}

// RequiresConsistency lets franz-go count all partitions, also those without a leader.
func (p *ofTopic) RequiresConsistency(*kgo.Record) bool { return true }

// Partition returns the partition of a record, or -1.
func (p *ofTopic) Partition(record *kgo.Record, partitions int) int {
	chosen, err := p.stage.Partition(p.topic, partitions, batch([]*kgo.Record{record}))
	if err != nil {
		p.onError(record, err)
		return -1
	}
	return int(chosen[0])
}

// Keep removes the records from fetches that the filter drops.
func Keep(f *stage.Filter, fetches kgo.Fetches) error {
	for _, fetch := range fetches {
		for _, topic := range fetch.Topics {
			for at := range topic.Partitions {
				records := &topic.Partitions[at].Records
				kept, err := stage.Kept(f, topic.Topic, batch(*records), *records)
				if err != nil {
					return err
				}
				*records = kept
			}
		}
	}
	return nil
}

func batch(records []*kgo.Record) *stage.Batch {
	b := &stage.Batch{
		Keys:       make([][]byte, len(records)),
		Values:     make([][]byte, len(records)),
		Timestamps: make([]int64, len(records)),
		Headers:    make([][]stage.Header, len(records)),
	}
	now := time.Now()
	for row, record := range records {
		stamp := record.Timestamp
		if stamp.IsZero() {
			stamp = now
		}
		b.Keys[row], b.Values[row], b.Timestamps[row] = record.Key, record.Value, stamp.UnixMilli()
		for _, header := range record.Headers {
			b.Headers[row] = append(b.Headers[row], stage.Header{Name: header.Key, Value: header.Value})
		}
	}
	return b
}
