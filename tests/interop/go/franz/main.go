// franz-go, which speaks the newer protocol of transactions.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	source   = "franz-transactions"
	sink     = "franz-copies"
	patience = 60 * time.Second
)

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func begun(bootstrap string) *kgo.Client {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap),
		kgo.TransactionalID("franz"),
		kgo.AllowAutoTopicCreation(),
		kgo.DefaultProduceTopic(source),
	)
	check(err)
	check(client.BeginTransaction())
	return client
}

func send(ctx context.Context, client *kgo.Client, value string) {
	check(client.ProduceSync(ctx, kgo.StringRecord(value)).FirstErr())
}

// read polls until it gets the last value.
func read(ctx context.Context, poll func(context.Context) kgo.Fetches, last string) []string {
	var values []string
	for !slices.Contains(values, last) {
		fetches := poll(ctx)
		check(fetches.Err())
		fetches.EachRecord(func(record *kgo.Record) { values = append(values, string(record.Value)) })
	}
	return values
}

func equal(seen, wanted []string) {
	slices.Sort(seen)
	slices.Sort(wanted)
	if !slices.Equal(seen, wanted) {
		log.Fatalf("%q is not %q", seen, wanted)
	}
}

// Commits and aborts a transaction, fences a producer by its successor, and copies with offsets in a transaction.
func main() {
	bootstrap := os.Args[1]
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()

	first := begun(bootstrap)
	send(ctx, first, "committed")
	check(first.EndTransaction(ctx, kgo.TryCommit))
	check(first.BeginTransaction())
	send(ctx, first, "aborted")
	check(first.EndTransaction(ctx, kgo.TryAbort))
	check(first.BeginTransaction())
	send(ctx, first, "of the zombie")
	second := begun(bootstrap)
	send(ctx, second, "of its successor")
	err := first.EndTransaction(ctx, kgo.TryCommit)
	if err == nil {
		log.Fatal("the zombie has committed")
	}
	fmt.Println("the zombie:", err)
	check(second.EndTransaction(ctx, kgo.TryCommit))

	committed := []string{"committed", "of its successor"}
	session, err := kgo.NewGroupTransactSession(
		kgo.SeedBrokers(bootstrap),
		kgo.TransactionalID("franz-copier"),
		kgo.ConsumerGroup("franz-copiers"),
		kgo.ConsumeTopics(source),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.RequireStableFetchOffsets(),
		kgo.AllowAutoTopicCreation(),
		kgo.DefaultProduceTopic(sink),
	)
	check(err)
	values := read(ctx, session.PollFetches, "of its successor")
	equal(values, slices.Clone(committed))
	check(session.Begin())
	for _, value := range values {
		check(session.ProduceSync(ctx, kgo.StringRecord(value)).FirstErr())
	}
	done, err := session.End(ctx, kgo.TryCommit)
	check(err)
	if !done {
		log.Fatal("the copies were not committed")
	}
	session.Close()

	check(second.BeginTransaction())
	send(ctx, second, "after the copies")
	check(second.EndTransaction(ctx, kgo.TryCommit))
	for _, reader := range []struct {
		group, topic string
		wanted       []string
	}{
		{"franz-copiers", source, []string{"after the copies"}},
		{"franz-readers", sink, committed},
	} {
		client, err := kgo.NewClient(
			kgo.SeedBrokers(bootstrap),
			kgo.ConsumerGroup(reader.group),
			kgo.ConsumeTopics(reader.topic),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
			kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		)
		check(err)
		equal(read(ctx, client.PollFetches, reader.wanted[len(reader.wanted)-1]), slices.Clone(reader.wanted))
		client.Close()
	}
	fmt.Println("transactions: ok")
}
