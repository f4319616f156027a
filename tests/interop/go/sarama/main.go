// sarama, which speaks the older protocol of transactions.
package main

import (
	"fmt"
	"log"
	"os"
	"slices"
	"time"

	"github.com/IBM/sarama"
)

const (
	topic    = "sarama-transactions"
	group    = "sarama-copiers"
	patience = 60 * time.Second
)

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func config() *sarama.Config {
	config := sarama.NewConfig()
	config.Version = sarama.V2_8_0_0
	config.Consumer.IsolationLevel = sarama.ReadCommitted
	config.Producer.Return.Successes = true
	return config
}

func begun(bootstrap string) sarama.SyncProducer {
	config := config()
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Idempotent = true
	config.Producer.Transaction.ID = "sarama"
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Net.MaxOpenRequests = 1
	producer, err := sarama.NewSyncProducer([]string{bootstrap}, config)
	check(err)
	check(producer.BeginTxn())
	return producer
}

func send(producer sarama.SyncProducer, value string) {
	_, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder(value)})
	check(err)
}

// Commits and aborts a transaction, one with offsets, and fences a producer by its successor.
func main() {
	bootstrap := os.Args[1]
	admin, err := sarama.NewClusterAdmin([]string{bootstrap}, config())
	check(err)
	check(admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}, false))

	first := begun(bootstrap)
	send(first, "committed")
	check(first.CommitTxn())
	check(first.BeginTxn())
	send(first, "aborted")
	check(first.AbortTxn())
	check(first.BeginTxn())
	send(first, "with offsets")
	offsets := map[string][]*sarama.PartitionOffsetMetadata{topic: {{Partition: 0, Offset: 1, LeaderEpoch: -1}}}
	check(first.AddOffsetsToTxn(offsets, group))
	check(first.CommitTxn())
	// This client's OffsetFetch does not wait for the markers of the transaction.
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		committed, err := admin.ListConsumerGroupOffsets(group, map[string][]int32{topic: {0}})
		check(err)
		block := committed.GetBlock(topic, 0)
		if block != nil && block.Offset == 1 {
			break
		}
		if time.Now().After(end) {
			log.Fatalf("the offset is not committed: %+v", block)
		}
	}
	check(first.BeginTxn())
	send(first, "of the zombie")
	second := begun(bootstrap)
	err = first.CommitTxn()
	if err == nil {
		log.Fatal("the zombie has committed")
	}
	fmt.Println("the zombie:", err)
	send(second, "of its successor")
	check(second.CommitTxn())

	consumer, err := sarama.NewConsumer([]string{bootstrap}, config())
	check(err)
	partition, err := consumer.ConsumePartition(topic, 0, sarama.OffsetOldest)
	check(err)
	var values []string
	for !slices.Contains(values, "of its successor") {
		select {
		case message := <-partition.Messages():
			values = append(values, string(message.Value))
		case <-time.After(patience):
			log.Fatalf("no record after %q", values)
		}
	}
	if wanted := []string{"committed", "with offsets", "of its successor"}; !slices.Equal(values, wanted) {
		log.Fatalf("%q is not %q", values, wanted)
	}
	fmt.Println("transactions: ok")
}
