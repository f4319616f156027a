// Command {{name}} is a compressor: it compresses the records of a batch, and decompresses them.
package main

import (
	"bytes"
	"errors"
	"fmt"

	"millstream/compressor"
)

// The configuration has no fields, so a user writes just {{name}}.
type {{go}} struct{}

// Compress writes each run of equal bytes as the byte and the length of the run.
func (it *{{go}}) Compress(data []byte) ([]byte, error) {
	output := []byte{}
	for len(data) > 0 {
		length := 1
		for length < min(len(data), 255) && data[length] == data[0] {
			length++
		}
		output = append(output, data[0], byte(length))
		data = data[length:]
	}
	return output, nil
}

// Decompress returns at most max bytes, whatever size the data claims.
func (it *{{go}}) Decompress(data []byte, max int) ([]byte, error) {
	output := []byte{}
	for ; len(data) > 0; data = data[2:] {
		if len(data) == 1 {
			return nil, errors.New("half a run")
		}
		if len(output)+int(data[1]) > max {
			return nil, fmt.Errorf("the output is over %d bytes", max)
		}
		output = append(output, bytes.Repeat(data[:1], int(data[1]))...)
	}
	return output, nil
}

func init() {
	// A private format, which only this plug-in reads. Kafka's codecs are compressor.Gzip and so on.
	compressor.Register[{{go}}]("{{name}}", "0.1.0", compressor.Private)
}

func main() {}
