package pq

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"testing"
)

// TestHostileFooters shows footers of a few bytes that claim very much.
func TestHostileFooters(t *testing.T) {
	huge := binary.AppendUvarint([]byte{0xf0 | tStruct}, 1<<31-1) // a list's header
	structs := func(n int) []byte {
		return append(binary.AppendUvarint([]byte{0xf0 | tStruct}, uint64(n)), make([]byte, n+1)...)
	}
	field := func(id byte, typ byte, body []byte) []byte { return append([]byte{id<<4 | typ}, body...) }
	for name, footer := range map[string][]byte{
		"2^31 schema elements":   field(2, tList, huge),
		"2^31 row groups":        field(4, tList, huge),
		"2^31 of the unknown":    field(14, tList, huge),
		"2^31 in a map":          field(14, tMap, append(binary.AppendUvarint(nil, 1<<31-1), tStruct<<4|tStruct)),
		"2^31 bytes":             field(14, tBinary, binary.AppendUvarint(nil, 1<<31-1)),
		"nested a million deep":  field(14, tStruct, bytes.Repeat([]byte{0x1c}, 1<<20)),
		"lists a million deep":   field(14, tList, bytes.Repeat([]byte{0x19}, 1<<20)),
		"a million empty groups": field(4, tList, structs(1<<20)),
		"a million empty keys":   field(5, tList, structs(1<<20)),
		"a million elements":     field(2, tList, structs(1<<20)),
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
