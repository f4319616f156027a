package millstream

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// ConfigError says which field of a configuration is wrong. Field is a JSON Pointer, such as "/text".
type ConfigError struct {
	Field, Message string
}

func (wrong *ConfigError) Error() string {
	return wrong.Field + ": " + wrong.Message
}

// BatchError rejects a whole batch. Any other error rejects one record.
type BatchError struct {
	Message string
}

func (wrong *BatchError) Error() string {
	return wrong.Message
}

// Preparer is a plug-in that checks its configuration, or computes something from it. The error may be a *ConfigError.
type Preparer interface {
	Prepare() error
}

// Configure fills the exported fields of a plug-in from a JSON object. A field whose tag says omitempty may be missing.
func Configure(text []byte, into any) (field, message string) {
	err := configure(text, reflect.ValueOf(into).Elem())
	if preparer, ok := into.(Preparer); ok && err == nil {
		err = preparer.Prepare()
	}
	var config *ConfigError
	switch {
	case err == nil:
		return "", ""
	case errors.As(err, &config):
		return config.Field, config.Message
	default:
		return "", err.Error()
	}
}

func configure(text []byte, into reflect.Value) error {
	fields := map[string]json.RawMessage{}
	if len(bytes.TrimSpace(text)) > 0 && json.Unmarshal(text, &fields) != nil {
		return &ConfigError{"", `the configuration must be a JSON object, such as {"field": 1}`}
	}
	for index := range into.NumField() {
		of := into.Type().Field(index)
		if !of.IsExported() {
			continue
		}
		name, options, _ := strings.Cut(of.Tag.Get("json"), ",")
		if name == "-" {
			continue
		}
		if name == "" {
			name = of.Name
		}
		value, found := fields[name]
		delete(fields, name)
		if !found {
			if strings.Contains(options, "omitempty") {
				continue
			}
			return &ConfigError{pointer(name), fmt.Sprintf("missing field `%s`", name)}
		}
		if err := json.Unmarshal(value, into.Field(index).Addr().Interface()); err != nil {
			return &ConfigError{pointer(name), strings.TrimPrefix(err.Error(), "json: ")}
		}
	}
	unknown := []string{}
	for name := range fields {
		unknown = append(unknown, name)
	}
	if len(unknown) > 0 {
		return &ConfigError{pointer(slices.Min(unknown)), "unknown field"}
	}
	return nil
}

func pointer(name string) string {
	return "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}
