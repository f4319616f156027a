// Package compressor makes a compressor of a type: it compresses the records of a batch, and decompresses them.
package compressor

import (
	"unsafe"

	"millstream"
	"millstream/internal/abi"
)

// Compressor is what the type does.
type Compressor interface {
	Compress(data []byte) ([]byte, error)
	// Decompress returns at most max bytes.
	Decompress(data []byte, max int) ([]byte, error)
}

// Format is the format that a compressor writes.
type Format int

// Kafka's codecs, and a format that only the plug-in reads.
const (
	Gzip Format = iota
	Snappy
	Lz4
	Zstd
	Private
)

var (
	registered    Compressor
	name, version string
	format        Format
)

// Register makes T the compressor of this plug-in; call it in init. The exported fields of T are the configuration. A
// private format has the name of the plug-in.
func Register[T any, P interface {
	*T
	Compressor
}](itsName, itsVersion string, itsFormat Format) {
	registered = P(new(T))
	name, version, format = itsName, itsVersion, itsFormat
}

// kept is the result: the collector must not free it before the call ends.
var kept []byte

func result(output []byte, err error) unsafe.Pointer {
	if err != nil {
		return abi.BadBytes(err.Error())
	}
	kept = output
	return abi.Ok(abi.ListOf(output))
}

//go:wasmexport describe
func describe() unsafe.Pointer {
	return abi.Describe(name, version, abi.Compressor, 0, int(format), name)
}

//go:wasmexport configure
func configure(text, length uint32) unsafe.Pointer {
	field, message := millstream.Configure(abi.Slice[byte](abi.List{Data: text, Length: length}), registered)
	return abi.Configured(field, message)
}

//go:wasmexport compress
func compress(data, length uint32) unsafe.Pointer {
	return result(registered.Compress(abi.Slice[byte](abi.List{Data: data, Length: length})))
}

//go:wasmexport decompress
func decompress(data, length, max uint32) unsafe.Pointer {
	return result(registered.Decompress(abi.Slice[byte](abi.List{Data: data, Length: length}), int(max)))
}

//go:wasmexport cabi_post_describe
func endDescribe(unsafe.Pointer) { abi.EndCall() }

//go:wasmexport cabi_post_configure
func endConfigure(unsafe.Pointer) { abi.EndCall() }

//go:wasmexport cabi_post_compress
func endCompress(unsafe.Pointer) { end() }

//go:wasmexport cabi_post_decompress
func endDecompress(unsafe.Pointer) { end() }

func end() {
	kept = nil
	abi.EndCall()
}
