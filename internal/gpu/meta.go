//go:build cuda

package gpu

import (
	"unsafe"

	"gorgonia.org/cu"
)

// The most that a batch's ids, bounds and tables need: ids, targets, rows and bounds 16
// bytes a token, a group's tables 40.3, and padding.
const (
	metaBytesPerToken = 64
	metaFixedBytes    = 64 << 10
)

// metaWriter lays out a batch's small inputs in pinned memory, at the offsets that they
// have on the device.
type metaWriter struct {
	host unsafe.Pointer
	dev  cu.DevicePtr
	room int
	used int
}

func (m *metaWriter) take(bytes int) (unsafe.Pointer, cu.DevicePtr) {
	at := m.used
	m.used = roundUp(at+bytes, 16)
	if m.used > m.room {
		panic("gpu: a batch's tables outgrew their memory")
	}
	return unsafe.Add(m.host, at), m.dev + cu.DevicePtr(at)
}

func (m *metaWriter) ints(n int) ([]int32, cu.DevicePtr) {
	p, d := m.take(4 * n)
	return unsafe.Slice((*int32)(p), n), d
}

func (m *metaWriter) words(n int) ([]uint64, cu.DevicePtr) {
	p, d := m.take(8 * n)
	return unsafe.Slice((*uint64)(p), n), d
}
