// Package sarama has the partitioner and the filter for sarama.
package sarama

import (
	"time"

	"github.com/IBM/sarama"

	"millstream/stage"
)

// Partitioner lets a plug-in choose partitions: config.Producer.Partitioner = Partitioner(p). sarama shows one record a
// call.
func Partitioner(p *stage.Partitioner) sarama.PartitionerConstructor {
	return func(topic string) sarama.Partitioner { return &partitioner{p, topic} }
}

type partitioner struct {
	stage *stage.Partitioner
	topic string
}

// RequiresConsistency lets sarama count all partitions, also those without a leader.
func (p *partitioner) RequiresConsistency() bool { return true }

// Partition returns the partition of a record.
func (p *partitioner) Partition(message *sarama.ProducerMessage, partitions int32) (int32, error) {
	key, err := encoded(message.Key)
	if err != nil {
		return -1, err
	}
	value, err := encoded(message.Value)
	if err != nil {
		return -1, err
	}
	stamp := message.Timestamp
	if stamp.IsZero() {
		stamp = time.Now()
	}
	var headers []stage.Header
	for _, header := range message.Headers {
		headers = append(headers, stage.Header{Name: string(header.Key), Value: header.Value})
	}
	batch := &stage.Batch{
		Keys: [][]byte{key}, Values: [][]byte{value}, Timestamps: []int64{stamp.UnixMilli()}, Headers: [][]stage.Header{headers},
	}
	chosen, err := p.stage.Partition(p.topic, int(partitions), batch)
	if err != nil {
		return -1, err
	}
	return chosen[0], nil
}

func encoded(text sarama.Encoder) ([]byte, error) {
	if text == nil {
		return nil, nil
	}
	return text.Encode()
}

// Kept returns the messages of one topic that the filter keeps.
func Kept(f *stage.Filter, topic string, messages []*sarama.ConsumerMessage) ([]*sarama.ConsumerMessage, error) {
	b := &stage.Batch{
		Keys:       make([][]byte, len(messages)),
		Values:     make([][]byte, len(messages)),
		Timestamps: make([]int64, len(messages)),
		Headers:    make([][]stage.Header, len(messages)),
	}
	for row, message := range messages {
		b.Keys[row], b.Values[row], b.Timestamps[row] = message.Key, message.Value, message.Timestamp.UnixMilli()
		for _, header := range message.Headers {
			b.Headers[row] = append(b.Headers[row], stage.Header{Name: string(header.Key), Value: header.Value})
		}
	}
	return stage.Kept(f, topic, b, messages)
}
