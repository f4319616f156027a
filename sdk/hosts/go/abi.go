package stage

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"
)

// The canonical ABI of the contract, by hand. docs/by-hand.md describes the layout. Nothing that the module returns is
// trusted: each address is checked.

const hostModule = "millstream:stage/host@1.0.0"

const (
	timestamps byte = 1 << iota
	keys
	values
	headers
)

var kinds = []string{"partitioner", "serializer", "compressor", "filter"}

// instance is one instance of a core module. After a trap it must not be used again.
type instance struct {
	ctx       context.Context
	module    api.Module
	memory    api.Memory
	functions map[string]api.Function
	// stack holds the arguments and the result of a call.
	stack [4]uint64
	// said is the first line that the plug-in logged as an error in the call.
	said string
	// fault is what a call to the host did wrong.
	fault error
}

func newInstance(module api.Module, call string) (*instance, error) {
	i := &instance{module: module, memory: module.Memory(), functions: map[string]api.Function{}}
	if i.memory == nil {
		return nil, broken("it exports no memory: it is not the core module of a plug-in")
	}
	shapes := map[string][2]int{"cabi_realloc": {4, 1}, "describe": {0, 1}, "configure": {2, 1}, call: {1, 1}}
	for _, name := range []string{"describe", "configure", call} {
		shapes["cabi_post_"+name] = [2]int{1, 0}
	}
	for name, shape := range shapes {
		function := module.ExportedFunction(name)
		if function == nil {
			if strings.HasPrefix(name, "cabi_post_") {
				continue
			}
			return nil, broken("it exports no %s: it is not a plug-in for this use", name)
		}
		types := function.Definition()
		if !slices.Equal(types.ParamTypes(), numbers(shape[0])) || !slices.Equal(types.ResultTypes(), numbers(shape[1])) {
			return nil, broken("its function %s has another type than in the contract", name)
		}
		i.functions[name] = function
	}
	return i, nil
}

func numbers(count int) []api.ValueType {
	return slices.Repeat([]api.ValueType{api.ValueTypeI32}, count)
}

type description struct {
	name, version, kind string
	columns             byte
}

func (i *instance) describe() (d description, err error) {
	at, err := i.call("describe")
	if err != nil {
		return d, err
	}
	area, err := i.read(at, 18)
	if err != nil {
		return d, err
	}
	name, version, kind := word(area, 0, 1), word(area, 2, 3), area[16]
	if int(kind) >= len(kinds) {
		return d, broken("describe returned the kind %d", kind)
	}
	d.kind, d.columns = kinds[kind], area[17]
	if d.name, err = i.text(name); err != nil {
		return d, err
	}
	if d.version, err = i.text(version); err != nil {
		return d, err
	}
	return d, i.post("describe", at)
}

func (i *instance) configure(json string) error {
	p, err := i.put([]byte(json), 1)
	if err != nil {
		return err
	}
	at, err := i.call("configure", p.at, p.size)
	if err != nil {
		return err
	}
	area, err := i.read(at, 20)
	if err != nil {
		return err
	}
	if area[0] == 0 {
		return i.post("configure", at)
	}
	found := &ConfigError{}
	first, second := word(area, 1, 2), word(area, 3, 4)
	if found.Field, err = i.text(first); err != nil {
		return err
	}
	if found.Message, err = i.text(second); err != nil {
		return err
	}
	return found
}

// filter returns a copy of the bitmap.
func (i *instance) filter(topic string, b *Batch, columns byte) ([]byte, error) {
	block := make([]byte, 0, 136)
	block, err := i.appendText(block, topic)
	if err != nil {
		return nil, err
	}
	at, list, err := i.ask("filter", block, b, columns)
	if err != nil {
		return nil, err
	}
	if want := (b.Rows() + 7) / 8; int(list.size) != want {
		return nil, broken("filter returned a bitmap of %d bytes for %d rows", list.size, b.Rows())
	}
	bitmap, err := i.read(list.at, list.size)
	if err != nil {
		return nil, err
	}
	return slices.Clone(bitmap), i.post("filter", at)
}

// partition returns one partition a row.
func (i *instance) partition(topic string, load []uint64, b *Batch, columns byte) ([]int32, error) {
	block := make([]byte, 0, 152)
	block, err := i.appendText(block, topic)
	if err != nil {
		return nil, err
	}
	bytes := make([]byte, 0, 8*len(load))
	for _, one := range load {
		bytes = binary.LittleEndian.AppendUint64(bytes, one)
	}
	loads, err := i.put(bytes, 8)
	if err != nil {
		return nil, err
	}
	block = words(block, uint32(len(load)), loads.at, uint32(len(load)))
	at, list, err := i.ask("partition", block, b, columns)
	if err != nil {
		return nil, err
	}
	if int(list.size) != b.Rows() {
		return nil, broken("partition returned %d partitions for %d rows", list.size, b.Rows())
	}
	area, err := i.read(list.at, 4*list.size)
	if err != nil {
		return nil, err
	}
	chosen := make([]int32, list.size)
	for row := range chosen {
		one := binary.LittleEndian.Uint32(area[4*row:])
		if one >= uint32(len(load)) {
			return nil, broken("partition returned %d of %d", one, len(load))
		}
		chosen[row] = int32(one)
	}
	return chosen, i.post("partition", at)
}

// span is an address and a size, in bytes or in elements.
type span struct{ at, size uint32 }

// ask makes a call with the records after what block holds already. It returns the address of the result, and its list.
func (i *instance) ask(name string, block []byte, b *Batch, columns byte) (uint32, span, error) {
	block, err := i.records(block, b, columns)
	if err != nil {
		return 0, span{}, err
	}
	parameters, err := i.put(block, 8)
	if err != nil {
		return 0, span{}, err
	}
	at, err := i.call(name, parameters.at)
	if err != nil {
		return 0, span{}, err
	}
	area, err := i.read(at, 16)
	if err != nil {
		return 0, span{}, err
	}
	if area[0] == 0 {
		return at, word(area, 1, 2), nil
	}
	if found := word(area, 2, 3); area[4] == 0 {
		err = i.rowErrors(name, found, b.Rows())
	} else if text, failed := i.text(found); failed != nil {
		err = failed
	} else {
		err = &BatchError{text}
	}
	if failed := i.post(name, at); failed != nil {
		err = failed
	}
	return 0, span{}, err
}

func (i *instance) rowErrors(name string, list span, rows int) error {
	if list.size == 0 || int(list.size) > rows {
		return broken("%s returned errors for %d of %d rows", name, list.size, rows)
	}
	area, err := i.read(list.at, 12*list.size)
	if err != nil {
		return err
	}
	found := &RowErrors{}
	for ; len(area) > 0; area = area[12:] {
		message, err := i.text(word(area, 1, 2))
		if err != nil {
			return err
		}
		found.Rows = append(found.Rows, RowError{binary.LittleEndian.Uint32(area), message})
	}
	slices.SortFunc(found.Rows, func(one, other RowError) int { return cmp.Compare(one.Row, other.Row) })
	if last := found.Rows[len(found.Rows)-1].Row; int(last) >= rows {
		return broken("%s returned an error for row %d of %d", name, last, rows)
	}
	return found
}

// records copies the columns that the plug-in reads, and appends the record that points at them.
func (i *instance) records(block []byte, b *Batch, columns byte) ([]byte, error) {
	rows := b.Rows()
	block = words(block, uint32(rows))
	stamps := span{8, 0}
	var err error
	if columns&timestamps != 0 {
		if stamps, err = i.stamps(b.Timestamps, rows); err != nil {
			return nil, err
		}
	}
	block = words(block, stamps.at, stamps.size)
	for _, column := range []struct {
		flag byte
		rows [][]byte
	}{{keys, b.Keys}, {values, b.Values}} {
		if columns&column.flag == 0 {
			block = words(block, 0, 1, 0, 4, 0, 1, 0)
			continue
		}
		if block, err = i.column(words(block, 1), column.rows); err != nil {
			return nil, err
		}
	}
	if columns&headers == 0 {
		return words(block, 0, 4, 0, 1, 0, 4, 0, 1, 0, 1, 0, 4, 0, 1, 0), nil
	}
	var names, contents [][]byte
	ends := make([]byte, 0, 4*rows)
	for _, row := range b.Headers {
		for _, header := range row {
			names, contents = append(names, []byte(header.Name)), append(contents, header.Value)
		}
		ends = binary.LittleEndian.AppendUint32(ends, uint32(len(names)))
	}
	at, err := i.put(ends, 4)
	if err != nil {
		return nil, err
	}
	if block, err = i.column(words(block, 1, at.at, uint32(rows)), names); err != nil {
		return nil, err
	}
	return i.column(block, contents)
}

func (i *instance) stamps(stamps []int64, rows int) (span, error) {
	bytes := make([]byte, 0, 8*rows)
	now := time.Now().UnixMilli()
	for row := range rows {
		if stamps != nil {
			now = stamps[row]
		}
		bytes = binary.LittleEndian.AppendUint64(bytes, uint64(now))
	}
	at, err := i.put(bytes, 8)
	return span{at.at, uint32(rows)}, err
}

// column copies a column straight into memory of the plug-in, and appends the record that points at it.
func (i *instance) column(block []byte, rows [][]byte) ([]byte, error) {
	size, nulls := 0, []byte(nil)
	for row, value := range rows {
		size += len(value)
		if value == nil {
			if nulls == nil {
				nulls = make([]byte, (len(rows)+7)/8)
			}
			nulls[row/8] |= 1 << (row % 8)
		}
	}
	data, view, err := i.reserve(size, 1)
	if err != nil {
		return nil, err
	}
	at := 0
	for _, value := range rows {
		at += copy(view[at:], value)
	}
	ends, view, err := i.reserve(4*len(rows), 4)
	if err != nil {
		return nil, err
	}
	end := uint32(0)
	for row, value := range rows {
		end += uint32(len(value))
		binary.LittleEndian.PutUint32(view[4*row:], end)
	}
	bits, err := i.put(nulls, 1)
	return words(block, data.at, data.size, ends.at, uint32(len(rows)), bits.at, bits.size), err
}

func (i *instance) appendText(block []byte, text string) ([]byte, error) {
	at, err := i.put([]byte(text), 1)
	return words(block, at.at, at.size), err
}

// put copies bytes into memory of the plug-in, which owns it then.
func (i *instance) put(bytes []byte, align uint32) (span, error) {
	at, view, err := i.reserve(len(bytes), align)
	copy(view, bytes)
	return at, err
}

// reserve lets the plug-in allocate memory, which it owns then. The view is valid until the next call.
func (i *instance) reserve(size int, align uint32) (span, []byte, error) {
	if size == 0 {
		return span{align, 0}, nil, nil
	}
	if size > math.MaxInt32 {
		return span{}, nil, broken("a column of %d bytes is too large for a plug-in", size)
	}
	at, err := i.call("cabi_realloc", 0, 0, align, uint32(size))
	if err != nil {
		return span{}, nil, err
	}
	view, err := i.read(at, uint32(size))
	return span{at, uint32(size)}, view, err
}

// read returns a view of memory, which is valid until the next call.
func (i *instance) read(at, size uint32) ([]byte, error) {
	view, ok := i.memory.Read(at, size)
	if !ok {
		return nil, broken("the plug-in names %d bytes at %d, beyond the end of memory", size, at)
	}
	return view, nil
}

func (i *instance) text(found span) (string, error) {
	view, err := i.read(found.at, found.size)
	return strings.ToValidUTF8(string(view), "\uFFFD"), err
}

// post lets the plug-in free what its response points at.
func (i *instance) post(name string, at uint32) error {
	if i.functions["cabi_post_"+name] == nil {
		return nil
	}
	_, err := i.call("cabi_post_"+name, at)
	return err
}

func (i *instance) call(name string, arguments ...uint32) (uint32, error) {
	for index, argument := range arguments {
		i.stack[index] = uint64(argument)
	}
	if err := i.functions[name].CallWithStack(i.ctx, i.stack[:]); err != nil {
		var exit *sys.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == sys.ExitCodeDeadlineExceeded {
			return 0, &DeadlineError{name}
		}
		// The rest of the text is a stack trace.
		reason, _, _ := strings.Cut(err.Error(), "\n")
		said := ""
		if i.said != "" {
			said = "; it said: " + i.said
		}
		return 0, &Trap{"trapped in " + name + ": " + strings.TrimSuffix(reason, " (recovered by wazero)") + said}
	}
	if i.fault != nil {
		return 0, i.fault
	}
	return uint32(i.stack[0]), nil
}

func words(block []byte, words ...uint32) []byte {
	for _, one := range words {
		block = binary.LittleEndian.AppendUint32(block, one)
	}
	return block
}

// word returns two words of an area as an address and a size.
func word(area []byte, at, size int) span {
	return span{binary.LittleEndian.Uint32(area[4*at:]), binary.LittleEndian.Uint32(area[4*size:])}
}
