package arrow

import (
	"encoding/base64"
	"encoding/binary"
	"slices"
)

// SchemaKey is the key of the metadata that holds the schema.
const SchemaKey = "ARROW:schema"

// Join gives a schema, base64 as Arrow stores it: the fields of the kept
// columns as in has them, whose top-level columns are names, and behind them those
// of own that are named in added. It is empty when in is, or does not fit its columns.
func Join(in string, names []string, kept []string, own []byte, added []string) string {
	if in == "" || len(kept) == 0 {
		return ""
	}
	b, err := base64.StdEncoding.DecodeString(in)
	if err != nil {
		return ""
	}
	theirs, ok := parseArrowSchema(b)
	if !ok || len(theirs.fields) != len(names) {
		return ""
	}
	ours, ok := parseArrowSchema(own)
	if !ok {
		return ""
	}
	var first, second []uint32
	for _, name := range kept {
		i := slices.Index(names, name)
		if i < 0 || theirs.name(i) != name {
			return ""
		}
		first = append(first, theirs.fields[i])
	}
	for _, name := range added {
		i := slices.IndexFunc(ours.fields, func(f uint32) bool {
			return arrowFields{ours.buf,
				[]uint32{f}}.name(0) == name
		})
		if i < 0 {
			return ""
		}
		second = append(second, ours.fields[i])
	}
	return base64.StdEncoding.EncodeToString(joinArrow(theirs.buf, first, ours.buf, second))
}

// arrowFields is a schema message and where its top-level fields are.
type arrowFields struct {
	buf    flat
	fields []uint32
}

func (a arrowFields) name(i int) string {
	p, ok := a.buf.field(a.fields[i], 0)
	if !ok {
		return ""
	}
	if p, ok = a.buf.follow(p); !ok {
		return ""
	}
	n, ok := a.buf.u32(p)
	if !ok || uint64(p)+4+uint64(n) > uint64(len(a.buf)) {
		return ""
	}
	return string(a.buf[p+4 : p+4+n])
}

func parseArrowSchema(b []byte) (a arrowFields, ok bool) {
	const continuation, maxBytes, schemaHeader = 0xffffffff, 64 << 20, 1
	if len(b) > maxBytes {
		return a, false
	}
	f := flat(b)
	n, ok := f.u32(0)
	if ok && n == continuation { // without it before Arrow 0.15
		f = f[4:]
		n, ok = f.u32(0)
	}
	if !ok || uint64(n) > uint64(len(f)-4) {
		return a, false
	}
	f = f[4 : 4+n]
	msg, ok := f.follow(0)
	if !ok {
		return a, false
	}
	typ, ok := f.field(msg, 1)
	if !ok || uint64(typ) >= uint64(len(f)) || f[typ] != schemaHeader {
		return a, false
	}
	p, ok := f.field(msg, 2)
	if !ok {
		return a, false
	}
	schema, ok := f.follow(p)
	if !ok {
		return a, false
	}
	if p, there := f.field(schema, 0); there { // endianness: little is the default
		if v, ok := f.u32(p); !ok || v&0xffff != 0 {
			return a, false
		}
	}
	if p, ok = f.field(schema, 1); !ok {
		return a, false
	}
	vec, ok := f.follow(p)
	if !ok {
		return a, false
	}
	count, ok := f.u32(vec)
	if !ok || uint64(count) > uint64(len(f))/4 {
		return a, false
	}
	a.buf = f
	for i := range count {
		t, ok := f.follow(vec + 4 + 4*i)
		if !ok {
			return a, false
		}
		a.fields = append(a.fields, t)
	}
	return a, true
}

// flat is a FlatBuffer; every access is checked.
type flat []byte

func (f flat) u32(p uint32) (uint32, bool) {
	if uint64(p)+4 > uint64(len(f)) {
		return 0, false
	}
	return binary.LittleEndian.Uint32(f[p:]), true
}

// follow gives where the offset at p leads.
func (f flat) follow(p uint32) (uint32, bool) {
	d, ok := f.u32(p)
	to := uint64(p) + uint64(d)
	if !ok || d == 0 || to+4 > uint64(len(f)) {
		return 0, false
	}
	return uint32(to), true
}

// field gives where field n of the table at p is, if it is there.
func (f flat) field(p uint32, n int) (uint32, bool) {
	d, ok := f.u32(p)
	v := int64(p) - int64(int32(d))
	if !ok || v < 0 || v+4 > int64(len(f)) {
		return 0, false
	}
	size := int64(binary.LittleEndian.Uint16(f[v:]))
	at := v + 4 + 2*int64(n)
	if at+2 > v+size || at+2 > int64(len(f)) {
		return 0, false
	}
	off := uint32(binary.LittleEndian.Uint16(f[at:]))
	return p + off, off != 0
}

// joinArrow makes a schema message of fields of two others.
func joinArrow(a flat, fa []uint32, b flat, fb []uint32) []byte {
	const (
		msg, schema, vector = 24, 52, 60 // where the tables are; every vtable is right before its table
		version5            = 4
	)
	le := binary.LittleEndian
	count := len(fa) + len(fb)
	head := make([]byte, pad8(vector+4+4*count))
	le.PutUint32(head, msg)
	// Message: version, header_type, header, bodyLength.
	for i, v := range []uint16{12, 20, 4, 6, 16, 8} {
		le.PutUint16(head[8+2*i:], v)
	}
	le.PutUint32(head[msg:], msg-8)
	le.PutUint16(head[msg+4:], version5)
	head[msg+6] = 1
	le.PutUint32(head[msg+16:], schema-(msg+16))
	// Schema: endianness (default), fields.
	for i, v := range []uint16{8, 8, 0, 4} {
		le.PutUint16(head[44+2*i:], v)
	}
	le.PutUint32(head[schema:], schema-44)
	le.PutUint32(head[schema+4:], vector-(schema+4))
	le.PutUint32(head[vector:], uint32(count))
	atA := len(head)
	atB := atA + pad8(len(a))
	for i := range count {
		p := vector + 4 + 4*i
		to := 0
		if i < len(fa) {
			to = atA + int(fa[i])
		} else {
			to = atB + int(fb[i-len(fa)])
		}
		le.PutUint32(head[p:], uint32(to-p))
	}
	size := atB + pad8(len(b))
	out := make([]byte, 8+size)
	le.PutUint32(out, 0xffffffff)
	le.PutUint32(out[4:], uint32(size))
	copy(out[8:], head)
	copy(out[8+atA:], a)
	copy(out[8+atB:], b)
	return out
}

func pad8(n int) int { return (n + 7) &^ 7 }
