// Command {{name}} is a serializer: it changes keys and values on the way to a topic, and back on the way from it.
package main

import (
	"bytes"
	"errors"

	"millstream"
	"millstream/serializer"
)

// The configuration: what a user writes as {{name}}{"prefix":"v1:"}.
type {{go}} struct {
	Prefix string `json:"prefix"`
}

// Serialize adds the prefix. A key or value that is not set stays the same.
func (it *{{go}}) Serialize(record millstream.Record, change *serializer.Change) error {
	if value := record.Value(); value != nil {
		change.SetValue(append([]byte(it.Prefix), value...))
	}
	return nil
}

// Deserialize removes the prefix. An error rejects only this record, and names its row.
func (it *{{go}}) Deserialize(record millstream.Record, change *serializer.Change) error {
	if value := record.Value(); value != nil {
		rest, found := bytes.CutPrefix(value, []byte(it.Prefix))
		if !found {
			return errors.New("the prefix is not there")
		}
		change.SetValue(rest)
	}
	return nil
}

func init() {
	serializer.Register[{{go}}]("{{name}}", "0.1.0", millstream.Values)
}

func main() {}
