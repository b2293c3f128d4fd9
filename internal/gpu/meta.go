//go:build cuda

package gpu

import (
	"unsafe"

	"gorgonia.org/cu"
)

// A batch's ids, bounds and tables take so much at most: ids, targets, rows and
// bounds 16 bytes a token, a group's tables 40.3, padding.
const (
	metaBytesPerToken = 64
	metaFixedBytes    = 64 << 10
)

// metaWriter lays out a batch's small inputs in pinned memory, where each will
// stand on the device.
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
