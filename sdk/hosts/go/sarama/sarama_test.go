package sarama_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"millstream/stage"
	stages "millstream/stage/sarama"
)

const records = 1000

func plugin(name string) string {
	return filepath.Join(os.Getenv("MILLSTREAM_PLUGINS"), name+".core.wasm")
}

// MILLSTREAM_BOOTSTRAP names a broker with the topic sarama, of six partitions.
func TestProduceWithThePartitionerAndConsumeWithTheFilter(t *testing.T) {
	p, err := stage.NewPartitioner(plugin("murmur2"), nil, stage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	config := sarama.NewConfig()
	config.Producer.Return.Successes = true
	config.Producer.Partitioner = stages.Partitioner(p)
	brokers := []string{os.Getenv("MILLSTREAM_BOOTSTRAP")}
	producer, err := sarama.NewSyncProducer(brokers, config)
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	var sent []*sarama.ProducerMessage
	for row := range records {
		word := "fine"
		if row%10 == 3 {
			word = "error"
		}
		sent = append(sent, &sarama.ProducerMessage{
			Topic: "sarama", Key: sarama.StringEncoder(fmt.Sprint("key-", row)), Value: sarama.StringEncoder(fmt.Sprint(row, " ", word)),
		})
	}
	if err := producer.SendMessages(sent); err != nil {
		t.Fatal(err)
	}
	f, err := stage.NewFilter(plugin("contains"), map[string]string{"text": "error"}, stage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// As all messages have keys, each partition has those whose hash it is.
	count := 0
	for number := range int32(6) {
		kept, err := stages.Kept(f, "sarama", read(t, brokers, number, sent))
		if err != nil {
			t.Fatal(err)
		}
		for _, message := range kept {
			chosen, err := p.Partition("sarama", 6, &stage.Batch{Keys: [][]byte{message.Key}})
			if err != nil || chosen[0] != number {
				t.Fatal(chosen, number, err)
			}
		}
		count += len(kept)
	}
	if count != records/10 {
		t.Fatal(count)
	}
}

// read returns all messages of a partition.
func read(t *testing.T, brokers []string, number int32, sent []*sarama.ProducerMessage) (found []*sarama.ConsumerMessage) {
	t.Helper()
	consumer, err := sarama.NewConsumer(brokers, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Close()
	partition, err := consumer.ConsumePartition("sarama", number, sarama.OffsetOldest)
	if err != nil {
		t.Fatal(err)
	}
	defer partition.Close()
	want := 0
	for _, message := range sent {
		if message.Partition == number {
			want++
		}
	}
	for len(found) < want {
		select {
		case message := <-partition.Messages():
			found = append(found, message)
		case <-time.After(30 * time.Second):
			t.Fatal("the partition has fewer messages than were sent")
		}
	}
	return found
}
