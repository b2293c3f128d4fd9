package pq

import (
	"surprisal/internal/shard/pq/compact"
)

// lookup finds, by the chunk's offset index, the last page that starts at or
// before row (of the row group). ok is false when there is no index or it makes
// no sense; the pages are then walked one by one.
func (c *Column) lookup(row int64) (off, first int64, ok bool) {
	const maxIndexBytes = 64 << 20
	ch := c.chunk
	if ch.indexOffset <= 0 || ch.indexLength <= 0 || ch.indexLength > maxIndexBytes {
		return 0, 0, false
	}
	b := make([]byte, ch.indexLength)
	if ReadFull(c.file, b, ch.indexOffset) != nil {
		return 0, 0, false
	}
	r := &compact.Reader{B: b}
	last, found := int64(-1), false
	valid := true
	r.Struct(func(id int16, typ byte) bool {
		if id != 1 || typ != compact.List {
			return false
		}
		n, et := r.List()
		if n > 0 {
			r.Want(et, compact.Struct)
		}
		for k := 0; k < n && r.Err == nil; k++ {
			var pageOff, pageFirst int64
			r.Struct(func(id int16, typ byte) bool {
				switch {
				case id == 1 && typ == compact.I64:
					pageOff = r.Int64()
				case id == 3 && typ == compact.I64:
					pageFirst = r.Int64()
				default:
					return false
				}
				return true
			})
			if (k == 0 && pageFirst != 0) || pageFirst < last || pageOff < ch.start || pageOff >= ch.end {
				valid = false
			}
			last = pageFirst
			if pageFirst <= row {
				off, first, found = pageOff, pageFirst, true
			}
		}
		return true
	})
	return off, first, found && valid && r.Err == nil && first > 0
}
