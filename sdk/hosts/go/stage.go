// Package stage runs Millstream's plug-ins in an application: partitioners and filters, as core modules in wazero.
package stage

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

const (
	pageBytes    = 64 << 10
	linesASecond = 50
	lineBytes    = 1024
	countersMax  = 64
)

// Options are the limits of a plug-in. The zero value is good.
type Options struct {
	// Deadline is the time of a call. Without one a call may run forever, and is many times faster.
	Deadline time.Duration
	// MemoryBytes is the most memory of the plug-in; without it 16 MiB.
	MemoryBytes int
	// Logger gets what the plug-in logs, at most 50 lines a second; without one slog's default.
	Logger *slog.Logger
}

// Stage is a plug-in with its configuration. Goroutines may share one: their calls take turns.
type Stage struct {
	// Name and Version are what the plug-in says of itself.
	Name, Version string

	columns  byte
	call     string
	kind     string
	config   string
	options  Options
	lock     sync.Mutex
	runtime  wazero.Runtime
	code     wazero.CompiledModule
	instance *instance
	counters map[string]uint64
	second   int64
	lines    int
}

// open loads a core module, as `millstream plugin unbundle` writes it. config is nil, a text of JSON, or what becomes one.
func open(path, kind, call string, config any, options Options) (*Stage, error) {
	wasm, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	text, isText := config.(string)
	if config == nil {
		text = "{}"
	} else if !isText {
		bytes, err := json.Marshal(config)
		if err != nil {
			return nil, err
		}
		text = string(bytes)
	}
	if options.MemoryBytes == 0 {
		options.MemoryBytes = 16 << 20
	}
	if options.Logger == nil {
		options.Logger = slog.Default()
	}
	s := &Stage{kind: kind, call: call, config: text, options: options, counters: map[string]uint64{}}
	limits := wazero.NewRuntimeConfig().WithMemoryLimitPages(uint32(options.MemoryBytes / pageBytes))
	ctx := context.Background()
	s.runtime = wazero.NewRuntimeWithConfig(ctx, limits.WithCloseOnContextDone(options.Deadline > 0))
	if err := s.compile(ctx, path, wasm); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Stage) compile(ctx context.Context, path string, wasm []byte) (err error) {
	host := s.runtime.NewHostModuleBuilder(hostModule)
	host.NewFunctionBuilder().WithFunc(s.onLog).Export("log")
	host.NewFunctionBuilder().WithFunc(s.onCount).Export("count")
	if _, err := host.Instantiate(ctx); err != nil {
		return err
	}
	if s.code, err = s.runtime.CompileModule(ctx, wasm); err != nil {
		return broken("%s is not a core module (`millstream plugin unbundle` writes one): %v", path, err)
	}
	return s.start()
}

// Close frees the plug-in.
func (s *Stage) Close() error { return s.runtime.Close(context.Background()) }

// Counters returns what the plug-in has counted, by name.
func (s *Stage) Counters() map[string]uint64 {
	s.lock.Lock()
	defer s.lock.Unlock()
	copied := make(map[string]uint64, len(s.counters))
	for name, count := range s.counters {
		copied[name] = count
	}
	return copied
}

// start makes an instance, which happens again after a trap.
func (s *Stage) start() error {
	ctx, cancel := s.context()
	defer cancel()
	config := wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize")
	module, err := s.runtime.InstantiateModule(ctx, s.code, config)
	if err != nil {
		return broken("it cannot be started: %v", err)
	}
	made, err := newInstance(module, s.call)
	if err == nil {
		// Calls to the host find it, so that the first line of a trap is known.
		s.instance, made.ctx = made, ctx
		err = s.introduce(made)
	}
	if err != nil {
		s.drop(module)
	}
	return err
}

func (s *Stage) introduce(made *instance) error {
	described, err := made.describe()
	if err != nil {
		return err
	}
	s.Name, s.Version, s.columns = described.name, described.version, described.columns
	if described.kind != s.kind {
		return broken("%s is a %s, not a %s", s.Name, described.kind, s.kind)
	}
	return made.configure(s.config)
}

func (s *Stage) drop(module api.Module) {
	s.instance = nil
	module.Close(context.Background())
}

func (s *Stage) context() (context.Context, context.CancelFunc) {
	if s.options.Deadline > 0 {
		return context.WithTimeout(context.Background(), s.options.Deadline)
	}
	return context.Background(), func() {}
}

// run makes a call, in a new instance if the one before has trapped.
func run[T any](s *Stage, batch *Batch, call func(*instance) (T, error)) (answer T, err error) {
	s.lock.Lock()
	defer s.lock.Unlock()
	if err = batch.check(s.columns); err != nil {
		return answer, err
	}
	if s.instance == nil {
		if err = s.start(); err != nil {
			return answer, err
		}
	}
	ctx, cancel := s.context()
	defer cancel()
	s.instance.ctx, s.instance.said = ctx, ""
	answer, err = call(s.instance)
	switch err.(type) {
	case nil, *RowErrors, *BatchError:
	default:
		// Its memory may hold anything now.
		s.drop(s.instance.module)
	}
	return answer, err
}

func (s *Stage) onLog(ctx context.Context, module api.Module, level, at, size uint32) {
	line := s.heard(module, at, min(size, lineBytes))
	if s.instance != nil && level == 0 && s.instance.said == "" {
		s.instance.said = line
	}
	if second := time.Now().Unix(); second != s.second {
		s.second, s.lines = second, 0
	}
	if s.lines++; s.lines > linesASecond {
		return
	}
	levels := []slog.Level{slog.LevelError, slog.LevelWarn, slog.LevelInfo, slog.LevelDebug}
	quoted := strconv.Quote(line)
	s.options.Logger.Log(ctx, levels[level%4], quoted[1:len(quoted)-1], "plugin", s.Name)
}

func (s *Stage) onCount(_ context.Context, module api.Module, at, size uint32, delta uint64) {
	if size == 0 || size > countersMax {
		return
	}
	name := s.heard(module, at, size)
	if _, known := s.counters[name]; known || len(s.counters) < countersMax {
		s.counters[name] += delta
	}
}

// heard returns a text of a call to the host. An error waits for the end of the plug-in's call.
func (s *Stage) heard(module api.Module, at, size uint32) string {
	view, ok := module.Memory().Read(at, size)
	if !ok && s.instance != nil {
		s.instance.fault = broken("the plug-in names %d bytes at %d, beyond the end of memory", size, at)
	}
	return string(view)
}

// Filter decides which records to keep.
type Filter struct{ *Stage }

// NewFilter loads the core module of a filter. config is nil, a text of JSON, or a value that becomes one.
func NewFilter(path string, config any, options Options) (*Filter, error) {
	s, err := open(path, "filter", "filter", config, options)
	if err != nil {
		return nil, fmt.Errorf("filter %s: %w", path, err)
	}
	return &Filter{s}, nil
}

// Filter returns a bitmap with a set bit for each row to keep: row i is bit i%8 of byte i/8.
func (f *Filter) Filter(topic string, batch *Batch) ([]byte, error) {
	return run(f.Stage, batch, func(i *instance) ([]byte, error) { return i.filter(topic, batch, f.columns) })
}

// Kept returns those of items, one for each row of the batch, that the filter keeps.
func Kept[T any](f *Filter, topic string, batch *Batch, items []T) ([]T, error) {
	bitmap, err := f.Filter(topic, batch)
	if err != nil {
		return nil, err
	}
	var kept []T
	for row, item := range items {
		if bitmap[row/8]>>(row%8)&1 == 1 {
			kept = append(kept, item)
		}
	}
	return kept, nil
}

// Partitioner chooses a partition for each record.
type Partitioner struct{ *Stage }

// NewPartitioner loads the core module of a partitioner. config is as for NewFilter.
func NewPartitioner(path string, config any, options Options) (*Partitioner, error) {
	s, err := open(path, "partitioner", "partition", config, options)
	if err != nil {
		return nil, fmt.Errorf("partitioner %s: %w", path, err)
	}
	return &Partitioner{s}, nil
}

// Partition returns a partition below partitions for each row. Those without a leader are in unavailable.
func (p *Partitioner) Partition(topic string, partitions int, batch *Batch, unavailable ...int) ([]int32, error) {
	load := make([]uint64, partitions)
	for _, one := range unavailable {
		load[one] = math.MaxUint64
	}
	return run(p.Stage, batch, func(i *instance) ([]int32, error) { return i.partition(topic, load, batch, p.columns) })
}
