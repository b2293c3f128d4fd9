package model

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapping is a file's bytes, read-only. Without a file (tests hand in plain
// memory) the advice below does nothing.
type mapping struct {
	data []byte
	f    *os.File
}

// mapFile maps a regular file.
func mapFile(path string) (_ mapping, err error) {
	st, err := os.Stat(path)
	if err != nil {
		return mapping{}, err
	}
	if !st.Mode().IsRegular() {
		return mapping{}, errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return mapping{}, err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	if st, err = f.Stat(); err != nil {
		return mapping{}, err
	}
	if st.Size() == 0 {
		return mapping{}, errors.New("the file is empty")
	}
	if int64(int(st.Size())) != st.Size() {
		return mapping{}, fmt.Errorf("cannot map %d bytes on this machine", st.Size())
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return mapping{}, fmt.Errorf("map: %w", err)
	}
	return mapping{b, f}, nil
}

func (m *mapping) unmap() error {
	b, f := m.data, m.f
	m.data, m.f = nil, nil
	if f == nil {
		return nil
	}
	return errors.Join(unix.Munmap(b), f.Close())
}

// read fills dst with b, a part of the mapping. It asks the file, which is faster
// than touching pages once each.
func (m *mapping) read(dst, b []byte) error {
	if m.f == nil || len(b) == 0 {
		copy(dst, b)
		return nil
	}
	at := uintptr(unsafe.Pointer(unsafe.SliceData(b))) - uintptr(unsafe.Pointer(unsafe.SliceData(m.data)))
	if _, err := m.f.ReadAt(dst, int64(at)); err != nil {
		return fmt.Errorf("the file can no longer be read: %w", unwrapPath(err))
	}
	return nil
}

// populate brings the pages of b in at once, which is several times faster than
// a fault at a time. It is advice: kernels before 5.14 don't know it.
func (m *mapping) populate(b []byte) {
	if m.f == nil {
		return
	}
	if p := pagesOf(b, false); p != nil {
		_ = unix.Madvise(p, unix.MADV_POPULATE_READ)
	}
}

// release gives the pages that lie wholly within b back to the kernel. The bytes
// stay readable: they come from the file again.
func (m *mapping) release(b []byte) {
	if m.f == nil {
		return
	}
	if p := pagesOf(b, true); p != nil {
		_ = unix.Madvise(p, unix.MADV_DONTNEED)
	}
}

// pagesOf cuts b, a part of a mapping, to page boundaries: inward, or only its
// start outward.
func pagesOf(b []byte, inward bool) []byte {
	if len(b) == 0 {
		return nil
	}
	page := uintptr(os.Getpagesize())
	start := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	lead := start % page
	if !inward {
		// The mapping starts on a page, so that what precedes b on its page is ours.
		return unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(b)), -int(lead))), len(b)+int(lead))
	}
	skip := (page - lead) % page
	if uintptr(len(b)) < skip+page {
		return nil
	}
	b = b[skip:]
	return b[:uintptr(len(b))/page*page]
}
