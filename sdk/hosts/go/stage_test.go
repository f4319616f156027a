package stage_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"millstream/stage"
)

// plugin returns a plug-in of the tests. MILLSTREAM_PLUGINS names the folder that the tests of Millstream write.
func plugin(name string) string {
	return filepath.Join(os.Getenv("MILLSTREAM_PLUGINS"), name+".core.wasm")
}

var quiet = slog.New(slog.DiscardHandler)

func filter(t *testing.T, name string, config any, options stage.Options) *stage.Filter {
	t.Helper()
	options.Logger = quiet
	f, err := stage.NewFilter(plugin(name), config, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func murmur2(t *testing.T) *stage.Partitioner {
	t.Helper()
	p, err := stage.NewPartitioner(plugin("murmur2"), nil, stage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func partition(t *testing.T, p *stage.Partitioner, partitions int, keys [][]byte, unavailable ...int) []int32 {
	t.Helper()
	chosen, err := p.Partition("t", partitions, &stage.Batch{Keys: keys}, unavailable...)
	if err != nil {
		t.Fatal(err)
	}
	return chosen
}

// byFranz returns the partition that franz-go chooses for a key.
func byFranz(key []byte, partitions int) int32 {
	chooser := kgo.StickyKeyPartitioner(nil).ForTopic("t")
	return int32(chooser.Partition(&kgo.Record{Key: key}, partitions))
}

func values(texts ...string) *stage.Batch {
	b := &stage.Batch{}
	for _, text := range texts {
		b.Values = append(b.Values, []byte(text))
	}
	return b
}

func TestTenThousandKeysAgreeWithFranz(t *testing.T) {
	var keys [][]byte
	var want []int32
	for row := range 10_000 {
		key := make([]byte, row%41)
		for at := range key {
			key[at] = byte((row*31 + at*7) * (row + 1) >> 3)
		}
		keys, want = append(keys, key), append(want, byFranz(key, 12))
	}
	if chosen := partition(t, murmur2(t), 12, keys); !reflect.DeepEqual(chosen, want) {
		t.Fatal("the partitions differ")
	}
}

func TestAKeyOfAMebibyte(t *testing.T) {
	key := make([]byte, 1<<20)
	for at := range key {
		key[at] = byte(at)
	}
	if chosen := partition(t, murmur2(t), 12, [][]byte{key}); chosen[0] != byFranz(key, 12) {
		t.Fatal(chosen)
	}
}

func TestNullAndEmptyKeys(t *testing.T) {
	chosen := partition(t, murmur2(t), 12, [][]byte{nil, {}, nil, []byte("k")})
	if chosen[1] != byFranz([]byte{}, 12) || chosen[3] != byFranz([]byte("k"), 12) {
		t.Fatal(chosen)
	}
}

func TestRecordsWithoutKeysAvoidPartitionsWithoutALeader(t *testing.T) {
	p := murmur2(t)
	for range 20 {
		if chosen := partition(t, p, 3, [][]byte{nil}, 0, 2); chosen[0] != 1 {
			t.Fatal(chosen)
		}
	}
}

func TestNoRows(t *testing.T) {
	if chosen := partition(t, murmur2(t), 12, [][]byte{}); len(chosen) != 0 {
		t.Fatal(chosen)
	}
	bitmap, err := filter(t, "contains", map[string]string{"text": "error"}, stage.Options{}).Filter("t", values())
	if len(bitmap) != 0 || err != nil {
		t.Fatal(bitmap, err)
	}
}

func TestTenThousandRows(t *testing.T) {
	batch, numbers, want := &stage.Batch{}, []int(nil), []int(nil)
	for row := range 10_000 {
		value := []byte("fine")
		switch row % 10 {
		case 3:
			value, want = []byte("an error"), append(want, row)
		case 4:
			value = nil
		}
		batch.Values, numbers = append(batch.Values, value), append(numbers, row)
	}
	kept, err := stage.Kept(filter(t, "contains", `{"text":"error"}`, stage.Options{}), "t", batch, numbers)
	if err != nil || !reflect.DeepEqual(kept, want) {
		t.Fatal(len(kept), err)
	}
}

func TestPluginsInCAndGo(t *testing.T) {
	batch := values()
	for row := range 1_000 {
		batch.Values = append(batch.Values, []byte(map[bool]string{true: "an error", false: "fine"}[row%10 == 3]))
	}
	want, err := filter(t, "contains", map[string]string{"text": "error"}, stage.Options{}).Filter("t", batch)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"contains-c", "contains-go"} {
		t.Run(name, func(t *testing.T) {
			if _, err := os.Stat(plugin(name)); err != nil {
				t.Skip("its compiler is not there")
			}
			f := filter(t, name, map[string]string{"text": "error"}, stage.Options{})
			// The collector of Go runs several times.
			for range 300 {
				if bitmap, err := f.Filter("t", batch); err != nil || !bytes.Equal(bitmap, want) {
					t.Fatal(bitmap, err)
				}
			}
			var refused *stage.ConfigError
			if _, err := stage.NewFilter(plugin(name), map[string]int{"text": 7}, stage.Options{}); !errors.As(err, &refused) {
				t.Fatal(err)
			}
		})
	}
}

func TestAllColumnsArrive(t *testing.T) {
	batch := &stage.Batch{
		Keys:       [][]byte{nil, []byte("k")},
		Values:     [][]byte{[]byte("v"), nil},
		Timestamps: []int64{1_700_000_000_123, -1},
		Headers:    [][]stage.Header{{{Name: "n", Value: []byte("1")}, {Name: "m"}}, nil},
	}
	bitmap, err := filter(t, "columns", nil, stage.Options{}).Filter("t", batch)
	if err != nil || !bytes.Equal(bitmap, []byte{3}) {
		t.Fatal(bitmap, err)
	}
}

func TestErrorsHaveTheWordsOfThePlugin(t *testing.T) {
	_, err := filter(t, "bad-rows", nil, stage.Options{}).Filter("t", values("a", "p", "b", "poison"))
	var rows *stage.RowErrors
	want := []stage.RowError{{Row: 1, Message: "this row is poison"}, {Row: 3, Message: "this row is poison"}}
	if !errors.As(err, &rows) || !reflect.DeepEqual(rows.Rows, want) {
		t.Fatal(err)
	}
	_, err = filter(t, "bad-batch", nil, stage.Options{}).Filter("t", values("a"))
	var batch *stage.BatchError
	if !errors.As(err, &batch) || batch.Message != "this batch is poison" {
		t.Fatal(err)
	}
}

func TestAConfigurationThatIsRefused(t *testing.T) {
	_, err := stage.NewFilter(plugin("contains"), map[string]string{"text": ""}, stage.Options{})
	var config *stage.ConfigError
	if !errors.As(err, &config) || config.Field != "/text" || !strings.Contains(config.Message, "the text is empty") {
		t.Fatal(err)
	}
}

func TestWhatBreaksTheContract(t *testing.T) {
	for name, want := range map[string]string{"murmur2": "exports no filter", "contains": "plugin unbundle"} {
		path := plugin(name)
		if name == "contains" {
			path = strings.Replace(path, ".core", "", 1)
		}
		_, err := stage.NewFilter(path, nil, stage.Options{})
		contract(t, err, want)
	}
	_, err := filter(t, "contains", `{"text":"a"}`, stage.Options{}).Filter("t", &stage.Batch{Keys: [][]byte{{1}}})
	contract(t, err, "reads values")
	for name, want := range map[string]string{
		"no-such-row": "row 7 of 1",
		"wrong-size":  "99 bytes for 1 rows", "beyond": "beyond the end of memory", "wrong-realloc": "beyond the end of memory",
	} {
		_, err := filter(t, name, nil, stage.Options{}).Filter("t", values("a"))
		contract(t, err, want)
	}
	p, err := stage.NewPartitioner(plugin("no-such-partition"), nil, stage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Partition("t", 12, &stage.Batch{Keys: [][]byte{{1}}})
	contract(t, err, "99 of 12")
}

func contract(t *testing.T, err error, want string) {
	t.Helper()
	var found *stage.ContractError
	if !errors.As(err, &found) || !strings.Contains(found.Message, want) {
		t.Errorf("%q is not in: %v", want, err)
	}
}

func TestATrapHasTheWordsOfThePluginAndTheNextCallANewInstance(t *testing.T) {
	traps := filter(t, "traps", nil, stage.Options{})
	for range 3 {
		_, err := traps.Filter("t", values("x"))
		var trap *stage.Trap
		if !errors.As(err, &trap) || trap.Message != "trapped in filter: wasm error: unreachable; it said: my last words" {
			t.Fatal(err)
		}
		// The plug-in remembers in its memory that it has trapped, and would say so.
		bitmap, err := traps.Filter("t", values("a"))
		if err != nil || !bytes.Equal(bitmap, []byte{1}) {
			t.Fatal(bitmap, err)
		}
	}
}

func TestMemoryHasALimit(t *testing.T) {
	_, err := filter(t, "grows", nil, stage.Options{}).Filter("t", values("a"))
	var trap *stage.Trap
	if !errors.As(err, &trap) {
		t.Fatal(err)
	}
	if _, err := filter(t, "grows", nil, stage.Options{MemoryBytes: 64 << 20}).Filter("t", values("a")); err != nil {
		t.Fatal(err)
	}
}

func TestAnEndlessCallIsStopped(t *testing.T) {
	loops := filter(t, "loops", nil, stage.Options{Deadline: time.Second})
	for range 2 {
		_, err := loops.Filter("t", values("x"))
		var deadline *stage.DeadlineError
		if !errors.As(err, &deadline) {
			t.Fatal(err)
		}
	}
	if _, err := loops.Filter("t", values("a")); err != nil {
		t.Fatal(err)
	}
}

func ExampleKept() {
	f, err := stage.NewFilter(plugin("contains"), map[string]string{"text": "error"}, stage.Options{})
	if err != nil {
		panic(err)
	}
	defer f.Close()
	lines := []string{"all is well", "an error"}
	kept, err := stage.Kept(f, "lines", values(lines...), lines)
	fmt.Println(kept, err)
	// Output: [an error] <nil>
}
