package stage

// Header is one header of a record.
type Header struct {
	Name  string
	Value []byte
}

// Batch holds records as columns. A nil column is absent, and a nil key or value is null. A plug-in gets only the columns
// that it asks for. Without Timestamps, in milliseconds, records have that of the call.
type Batch struct {
	Keys       [][]byte
	Values     [][]byte
	Timestamps []int64
	Headers    [][]Header
}

// Rows returns the number of records.
func (b *Batch) Rows() int {
	return max(len(b.Keys), len(b.Values), len(b.Timestamps), len(b.Headers))
}

// check returns an error unless the columns that the plug-in reads are there, in one length.
func (b *Batch) check(columns byte) error {
	rows := b.Rows()
	for _, column := range []struct {
		flag   byte
		name   string
		length int
	}{{keys, "keys", len(b.Keys)}, {values, "values", len(b.Values)}, {headers, "headers", len(b.Headers)}} {
		if columns&column.flag != 0 && column.length != rows {
			return broken("the plug-in reads %s, of which this batch has %d for %d rows", column.name, column.length, rows)
		}
	}
	if columns&timestamps != 0 && b.Timestamps != nil && len(b.Timestamps) != rows {
		return broken("the batch has %d timestamps for %d rows", len(b.Timestamps), rows)
	}
	return nil
}
