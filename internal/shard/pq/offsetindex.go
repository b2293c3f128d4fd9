package pq

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
	r := &thriftReader{b: b}
	last, found := int64(-1), false
	valid := true
	r.structs(func(id int16, typ byte) bool {
		if id != 1 || typ != tList {
			return false
		}
		n, et := r.list()
		if n > 0 {
			r.want(et, tStruct)
		}
		for k := 0; k < n && r.err == nil; k++ {
			var pageOff, pageFirst int64
			r.structs(func(id int16, typ byte) bool {
				switch {
				case id == 1 && typ == tI64:
					pageOff = r.int64()
				case id == 3 && typ == tI64:
					pageFirst = r.int64()
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
	return off, first, found && valid && r.err == nil && first > 0
}
