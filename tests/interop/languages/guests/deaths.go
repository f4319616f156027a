// Command deaths is a filter that does what its configuration says: each way in which a plug-in in Go misbehaves.
package main

import (
	"errors"
	"fmt"
	"math"
	"math/rand"
	"os"
	"strings"
	"time"

	"millstream"
	"millstream/filter"
)

type deaths struct {
	How string `json:"how"`
}

var (
	calls  int
	leaked [][]byte
	zero   float64
)

func recurse(depth int) int {
	return depth + recurse(depth+1)%7
}

// Prepare is called with the configuration.
func (it *deaths) Prepare() error {
	switch it.How {
	case "configure-die":
		panic("two rows are too few")
	case "configure-loop":
		for {
		}
	}
	return nil
}

func (it *deaths) Keep(record millstream.Record) (bool, error) {
	calls++
	switch it.How {
	case "die":
		panic("two rows are too few")
	case "assert":
		os.Exit(3)
	case "loop":
		for {
		}
	case "fill":
		for {
			clear(make([]byte, 1<<20))
		}
	case "recurse":
		return recurse(0) > 0, nil
	case "leak":
		for {
			leaked = append(leaked, make([]byte, 65536))
		}
	case "hoard":
		leaked = append(leaked, make([]byte, 9<<20))
	case "flood":
		for i := range 1000 {
			fmt.Fprintf(os.Stderr, "line %d\n", i)
		}
	case "print":
		fmt.Print("a line\nnot UTF-8: \xff \xc3( \xe2\x82 \xed\xa0\x80 \xf4\x90\x80\x80, and UTF-8: é€𝄞\n")
	case "terminal":
		fmt.Fprint(os.Stderr, "\x1b[31mred\x07\n")
	case "third":
		if calls == 3 {
			panic("two rows are too few")
		}
	case "nan":
		return false, fmt.Errorf("%016x", math.Float64bits(zero/zero))
	case "long":
		return false, errors.New(strings.Repeat("x", 1<<20))
	case "wait":
		begun := time.Now()
		time.Sleep(time.Hour)
		if waited := time.Since(begun); waited < time.Hour || waited > 2*time.Hour {
			panic(waited.String())
		}
		first, second := rand.Int(), rand.Int()
		if _, err := os.Open("/etc/passwd"); err == nil || first == second || len(os.Args)+len(os.Environ()) > 0 {
			panic("there is a system")
		}
	}
	return true, nil
}

func init() {
	start()
	filter.Register[deaths]("go-filter", "0.1.0", millstream.Values)
}

func start() {}

func main() {}
