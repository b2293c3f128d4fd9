package pq

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"testing"

	"surprisal/internal/shard/pq/compact"
)

// TestHostileFooters shows footers of a few bytes that claim very much.
func TestHostileFooters(t *testing.T) {
	huge := binary.AppendUvarint([]byte{0xf0 | compact.Struct}, 1<<31-1) // a list's header
	structs := func(n int) []byte {
		return append(binary.AppendUvarint([]byte{0xf0 | compact.Struct}, uint64(n)), make([]byte, n+1)...)
	}
	field := func(id byte, typ byte, body []byte) []byte { return append([]byte{id<<4 | typ}, body...) }
	for name, footer := range map[string][]byte{
		"2^31 schema elements": field(2, compact.List, huge),
		"2^31 row groups":      field(4, compact.List, huge),
		"2^31 of the unknown":  field(14, compact.List, huge),
		"2^31 in a map": field(14, compact.Map, append(binary.AppendUvarint(nil, 1<<31-1),
			compact.Struct<<4|compact.Struct)),
		"2^31 bytes":             field(14, compact.Binary, binary.AppendUvarint(nil, 1<<31-1)),
		"nested a million deep":  field(14, compact.Struct, bytes.Repeat([]byte{0x1c}, 1<<20)),
		"lists a million deep":   field(14, compact.List, bytes.Repeat([]byte{0x19}, 1<<20)),
		"a million empty groups": field(4, compact.List, structs(1<<20)),
		"a million empty keys":   field(5, compact.List, structs(1<<20)),
		"a million elements":     field(2, compact.List, structs(1<<20)),
		"nothing":                {0},
	} {
		t.Run(name, func(t *testing.T) {
			file := append([]byte("PAR1"), footer...)
			file = binary.LittleEndian.AppendUint32(file, uint32(len(footer)))
			file = append(file, "PAR1"...)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := ReadFooter(bytes.NewReader(file), int64(len(file)))
			runtime.ReadMemStats(&after)
			if !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			if mb := (after.TotalAlloc - before.TotalAlloc) >> 20; mb > 200 {
				t.Fatalf("allocated %d MB for %v", mb, err)
			}
			t.Log(err)
		})
	}
}
