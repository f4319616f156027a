package franz_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"millstream/stage"
	"millstream/stage/franz"
)

const (
	partitions = 6
	records    = 1000
)

func plugin(name string) string {
	return filepath.Join(os.Getenv("MILLSTREAM_PLUGINS"), name+".core.wasm")
}

// MILLSTREAM_BOOTSTRAP names a broker with the topic franz, of six partitions, and a view of it that shows what contains
// error.
func client(t *testing.T, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(append(options, kgo.SeedBrokers(os.Getenv("MILLSTREAM_BOOTSTRAP")))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestProduceWithThePartitionerAndConsumeWithTheFilter(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p, err := stage.NewPartitioner(plugin("murmur2"), nil, stage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var sent []*kgo.Record
	for row := range records {
		word := "fine"
		if row%10 == 3 {
			word = "error"
		}
		sent = append(sent, &kgo.Record{
			Topic: "franz", Key: fmt.Appendf(nil, "key-%d", row), Value: fmt.Appendf(nil, "%d %s", row, word),
		})
	}
	producer := client(t, kgo.RecordPartitioner(franz.Partitioner(p, nil)))
	if err := producer.ProduceSync(ctx, sent...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	f, err := stage.NewFilter(plugin("contains"), map[string]string{"text": "error"}, stage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	kept := read(ctx, t, "franz", func(fetches kgo.Fetches) error { return franz.Keep(f, fetches) })
	view := read(ctx, t, "franz-view", func(kgo.Fetches) error { return nil })
	if len(kept) != records/10 || !reflect.DeepEqual(kept, view) {
		t.Fatalf("the filter keeps\n%v\nand the view shows\n%v", kept, view)
	}
	chooser := kgo.StickyKeyPartitioner(nil).ForTopic("franz")
	for _, line := range kept {
		parts := strings.Fields(line)
		want := chooser.Partition(&kgo.Record{Key: []byte(parts[1])}, partitions)
		if parts[0] != fmt.Sprint(want) {
			t.Fatalf("%s should be in partition %d", line, want)
		}
	}
}

// read returns a tenth of all records, in order.
func read(ctx context.Context, t *testing.T, topic string, keep func(kgo.Fetches) error) (found []string) {
	t.Helper()
	consumer := client(t, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	for len(found) < records/10 {
		fetches := consumer.PollFetches(ctx)
		if err := errors.Join(fetches.Err(), keep(fetches)); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(one *kgo.Record) {
			found = append(found, fmt.Sprintf("%d %s %s", one.Partition, one.Key, one.Value))
		})
	}
	slices.Sort(found)
	return found
}

func TestAnErrorOfThePluginReachesTheApplication(t *testing.T) {
	p, err := stage.NewPartitioner(plugin("no-such-partition"), nil, stage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var said error
	producer := client(t, kgo.RecordPartitioner(franz.Partitioner(p, func(_ *kgo.Record, err error) { said = err })))
	record := &kgo.Record{Topic: "franz", Key: []byte("k")}
	if err := producer.ProduceSync(context.Background(), record).FirstErr(); err == nil {
		t.Fatal("the record has a partition")
	}
	if said == nil || !strings.Contains(said.Error(), "99 of 6") {
		t.Fatal(said)
	}
}
