package jsonl

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/parquet-go/parquet-go"

	"surprisal/internal/shard/pq"
)

// What of a file's beginning decides which columns it has and of what type.
const (
	SampleRows      = 1000
	lineSampleBytes = 4 << 20
	maxFields       = 1 << 16
)

// Object is the fields of a line.
type Object map[string]json.RawMessage

// parseObject reads a line; problem says why it is not an object.
func parseObject(line []byte, size int64) (o Object, problem string) {
	switch {
	case size > MaxLine:
		return nil, fmt.Sprintf("a line of %d bytes, more than %d", size, MaxLine)
	case !utf8.Valid(line):
		return nil, "not UTF-8"
	}
	line = bytes.TrimRight(bytes.TrimPrefix(line, []byte("\xef\xbb\xbf")), "\r\n")
	if err := json.Unmarshal(line, &o); err != nil {
		if t, ok := err.(*json.UnmarshalTypeError); ok {
			return nil, "bad JSON: a line is an object, this is " + withArticle(t.Value)
		}
		return nil, "bad JSON: " + err.Error()
	}
	if o == nil {
		return nil, "bad JSON: a line is an object, this is null"
	}
	return o, ""
}

func withArticle(kind string) string {
	kind, _, _ = strings.Cut(kind, " ")
	if kind == "array" || kind == "object" {
		return "an " + kind
	}
	return "a " + kind
}

// field finds a field: a top-level one of that name, else one inside objects.
// It is nil when it is missing or null.
func (o Object) field(name string) json.RawMessage {
	v, _ := o.find(name)
	return v
}

// find is field, and reports whether the field is there.
func (o Object) find(name string) (v json.RawMessage, ok bool) {
	if v, ok = o[name]; !ok {
		for i := range len(name) {
			if name[i] != '.' {
				continue
			}
			if inner, in := o[name[:i]]; in && len(inner) > 0 && inner[0] == '{' {
				var m Object
				if json.Unmarshal(inner, &m) == nil {
					found, there := m.find(name[i+1:])
					if ok = ok || there; found != nil {
						return found, true
					}
				}
			}
		}
	}
	if string(v) == "null" {
		v = nil
	}
	return v, ok
}

func jsonKind(v json.RawMessage) string {
	switch v[0] {
	case '"':
		return "string"
	case '{':
		return "object"
	case '[':
		return "array"
	case 't', 'f':
		return "boolean"
	}
	return "number"
}

// Text gives a field's text.
func (o Object) Text(name string) (text string, null bool, problem string) {
	v := o.field(name)
	if v == nil {
		return "", true, ""
	}
	if v[0] != '"' {
		return "", false, fmt.Sprintf("%s is %s, not a string", name, withArticle(jsonKind(v)))
	}
	if err := json.Unmarshal(v, &text); err != nil {
		return "", false, "bad JSON: " + err.Error()
	}
	return text, false, ""
}

// IDs gives a field's token ids.
func (o Object) IDs(name string) (ids []int32, null bool, problem string) {
	v := o.field(name)
	if v == nil {
		return nil, true, ""
	}
	var list []json.RawMessage
	if v[0] != '[' || json.Unmarshal(v, &list) != nil {
		return nil, false, fmt.Sprintf("%s is %s, not an array of token ids", name, withArticle(jsonKind(v)))
	}
	ids = make([]int32, len(list))
	for i, x := range list {
		if string(x) == "null" {
			return nil, false, "a token id is null"
		}
		n, err := strconv.ParseInt(string(x), 10, 64)
		if err != nil && jsonKind(x) != "number" {
			return nil, false, fmt.Sprintf("a token id is %s", withArticle(jsonKind(x)))
		}
		if err != nil || n < math.MinInt32 || n > math.MaxInt32 {
			return nil, false, fmt.Sprintf("token id %.40s does not fit 32 bits", x)
		}
		ids[i] = int32(n)
	}
	return ids, false, ""
}

// Fields stands for a file of lines where parquet has a footer: its columns
// are the fields of its first rows. A field whose values there are all booleans,
// all integers of 64 bits or all numbers gets that type, any other is text.
func Fields(l *Scanner) (*pq.Footer, error) {
	var names []string
	kinds := map[string]*fieldKinds{}
	rows := int64(0)
	err := sampleLines(l, func(line []byte, o Object) error {
		rows++
		if o == nil {
			return nil
		}
		for _, name := range keysInOrder(line) {
			k := kinds[name]
			if k == nil {
				if len(names) == maxFields {
					return fmt.Errorf("%w: more than %d fields", pq.ErrColumn, maxFields)
				}
				k = &fieldKinds{}
				kinds[name] = k
				names = append(names, name)
			}
			k.add(o[name])
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var columns []*pq.Element
	for _, name := range names {
		kind := parquet.ByteArray
		switch kinds[name].kind() {
		case pq.Bool:
			kind = parquet.Boolean
		case pq.Float:
			kind = parquet.Double
		case pq.Int:
			kind = parquet.Int64
		}
		columns = append(columns, pq.NewElement(name, kind))
	}
	return pq.NewFooter(columns, rows), nil
}

// sampleLines shows the rows that decide on columns; o is nil for one that is no
// object.
func sampleLines(l *Scanner, do func(line []byte, o Object) error) error {
	for rows, size := 0, int64(0); rows < SampleRows && size < lineSampleBytes; rows++ {
		if err := l.Next(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		size += l.size
		o, problem := l.Object()
		if problem != "" {
			o = nil
		}
		if err := do(l.line, o); err != nil {
			return err
		}
	}
	return nil
}

// keysInOrder are an object's keys as they come, each once.
func keysInOrder(line []byte) []string {
	d := json.NewDecoder(bytes.NewReader(bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))))
	if _, err := d.Token(); err != nil {
		return nil
	}
	var keys []string
	have := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		key, ok := t.(string)
		var skip json.RawMessage
		if err != nil || !ok || d.Decode(&skip) != nil {
			return keys
		}
		if !have[key] {
			have[key] = true
			keys = append(keys, key)
		}
	}
	return keys
}

// Value is the value for column i of the field that a leaf stands for: null where it is of another type, and
// JSON text in a text column where it is no string.
func (o Object) Value(l *pq.Leaf, i int) (v parquet.Value, size int) {
	return keptValue(l, o[l.Path], i)
}

func keptValue(l *pq.Leaf, v json.RawMessage, i int) (parquet.Value, int) {
	null := parquet.NullValue().Level(0, 0, i)
	if len(v) == 0 || string(v) == "null" {
		return null, 0
	}
	var out parquet.Value
	switch l.Kind {
	case parquet.ByteArray:
		text := []byte(v)
		if v[0] == '"' {
			var s string
			if json.Unmarshal(v, &s) != nil {
				return null, 0
			}
			text = []byte(s)
		}
		return parquet.ByteArrayValue(bytes.Clone(text)).Level(0, 1, i), len(text)
	case parquet.Boolean:
		if v[0] != 't' && v[0] != 'f' {
			return null, 0
		}
		out = parquet.BooleanValue(v[0] == 't')
	case parquet.Int64:
		n, err := strconv.ParseInt(string(v), 10, 64)
		if err != nil {
			return null, 0
		}
		out = parquet.Int64Value(n)
	default:
		x, err := strconv.ParseFloat(string(v), 64)
		if err != nil || jsonKind(v) != "number" {
			return null, 0
		}
		out = parquet.DoubleValue(x)
	}
	return out.Level(0, 1, i), 0
}
