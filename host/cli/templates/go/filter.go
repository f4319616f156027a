// Command {{name}} is a filter: it decides which records a consumer sees.
package main

import (
	"bytes"
	"errors"
	"unicode/utf8"

	"millstream"
	"millstream/filter"
)

// The configuration: what a user writes as {{name}}{"text":"error"}.
type {{go}} struct {
	Text string `json:"text"`
}

// Keep returns whether to keep a record. An error rejects only this record, and names its row.
func (it *{{go}}) Keep(record millstream.Record) (bool, error) {
	if !utf8.Valid(record.Value()) {
		return false, errors.New("invalid utf-8")
	}
	return bytes.Contains(record.Value(), []byte(it.Text)), nil
}

func init() {
	filter.Register[{{go}}]("{{name}}", "0.1.0", millstream.Values)
}

func main() {}
