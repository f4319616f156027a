// Package abi has what the kinds of plug-ins share: the memory of a call, and the types of the contract as they lie in
// it.
package abi

import "unsafe"

// The memory of a call is cut from chunks. They are reused, so that the collector has nothing to do for a call.
const (
	chunkWords = 8 << 10
	keptWords  = 128 << 10
)

var (
	chunk []uint64
	used  int
	// Chunks that are full, which must stay until the call ends.
	full [][]uint64
)

// Allocate returns memory that stays until the call ends, aligned to 8 bytes. Its contents are arbitrary. Memory of no
// bytes has an address too: the contract of components demands one inside of memory.
func Allocate(bytes int) unsafe.Pointer {
	words := (bytes + 7) / 8
	if words == 0 {
		words = 1
	}
	if len(chunk)-used < words {
		if chunk != nil {
			full = append(full, chunk)
		}
		chunk = make([]uint64, max(words, chunkWords, min(2*len(chunk), keptWords)))
		used = 0
	}
	start := unsafe.Pointer(&chunk[used])
	used += words
	return start
}

// Bytes returns memory of the call as a slice.
func Bytes(length int) []byte {
	return unsafe.Slice((*byte)(Allocate(length)), length)
}

// EndCall frees the memory of the call.
func EndCall() {
	full = nil
	used = 0
	if len(chunk) > keptWords {
		chunk = nil
	}
}

// The host allocates with this what it passes.
//
//go:wasmexport cabi_realloc
func realloc(old unsafe.Pointer, oldSize, align, size uint32) unsafe.Pointer {
	start := Allocate(int(size))
	if oldSize > 0 {
		copy(unsafe.Slice((*byte)(start), size), unsafe.Slice((*byte)(old), min(oldSize, size)))
	}
	return start
}

// Address returns a pointer as the contract has it, of 32 bits. In Go for WebAssembly a pointer has 64.
func Address(pointer unsafe.Pointer) uint32 {
	return uint32(uintptr(pointer))
}

// At returns the memory at an address.
func At(address uint32) unsafe.Pointer {
	return unsafe.Pointer(uintptr(address))
}

// List is a list of the contract: an address and a number of elements.
type List struct {
	Data, Length uint32
}

// Slice returns the elements of a list.
func Slice[T any](list List) []T {
	return unsafe.Slice((*T)(At(list.Data)), list.Length)
}

// ListOf returns a slice of the memory of the call as a list.
func ListOf[T any](slice []T) List {
	if len(slice) == 0 {
		return List{Data: Address(Allocate(0))}
	}
	return List{Address(unsafe.Pointer(unsafe.SliceData(slice))), uint32(len(slice))}
}

// TextOf copies a text into the memory of the call.
func TextOf(text string) List {
	bytes := Bytes(len(text))
	copy(bytes, text)
	return ListOf(bytes)
}
