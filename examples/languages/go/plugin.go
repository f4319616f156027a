// Command contains-go is a filter, contains-go{"text":"error"}: it keeps the records whose value contains a text, byte for
// byte.
package main

import (
	"bytes"

	"millstream"
	"millstream/filter"
)

type contains struct {
	Text string `json:"text"`
	text []byte
}

func (it *contains) Prepare() error {
	if it.Text == "" {
		return &millstream.ConfigError{Field: "/text", Message: "the text is empty: every record would be kept"}
	}
	it.text = []byte(it.Text)
	return nil
}

func (it *contains) Keep(record millstream.Record) (bool, error) {
	return bytes.Contains(record.Value(), it.text), nil
}

func init() {
	filter.Register[contains]("contains-go", "0.1.0", millstream.Values)
}

func main() {}
