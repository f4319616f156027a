// Command bench measures a filter: go run ./bench CONTAINS.core.wasm. It prints the median ns a row of making a
// batch in memory of the plug-in and filtering it.
package main

import (
	"fmt"
	"os"
	"slices"
	"time"

	"millstream/stage"
)

const rows = 1000

// values returns 104 bytes a row; every tenth holds the text.
func values() [][]byte {
	var all [][]byte
	for row := range rows {
		key := fmt.Sprintf("%016x", uint64(row)*0x9e37_79b9_7f4a_7c15)
		value := fmt.Appendf(nil, `{"id":%d,"name":"`, row)
		for i := 0; len(value) < 102; i++ {
			value = append(value, key[i%16])
		}
		if row%10 == 3 {
			copy(value[50:], "error")
		}
		all = append(all, append(value, '"', '}'))
	}
	return all
}

// median returns the median time of a call.
func median(length time.Duration, work func()) time.Duration {
	var times []time.Duration
	for begun := time.Now(); time.Since(begun) < length; {
		start := time.Now()
		work()
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	return times[len(times)/2]
}

func main() {
	batch := &stage.Batch{Values: values()}
	one := &stage.Batch{Values: batch.Values[:1]}
	for _, deadline := range []time.Duration{0, time.Second} {
		what := ""
		if deadline > 0 {
			what = " with a deadline"
		}
		filter, err := stage.NewFilter(os.Args[1], map[string]string{"text": "error"}, stage.Options{Deadline: deadline})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		call := func(batch *stage.Batch) func() {
			return func() {
				if _, err := filter.Filter("bench", batch); err != nil {
					panic(err)
				}
			}
		}
		kept, _ := stage.Kept(filter, "bench", batch, batch.Values)
		if len(kept) != rows/10 {
			panic("the filter keeps other rows")
		}
		median(300*time.Millisecond, call(batch))
		fmt.Printf("batch and call%s: %.1f ns a row\n", what, float64(median(time.Second, call(batch)).Nanoseconds())/rows)
		fmt.Printf("one record a call%s: %d ns a call\n", what, median(time.Second, call(one)).Nanoseconds())
	}
}
