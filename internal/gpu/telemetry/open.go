package telemetry

import (
	"errors"
	"fmt"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// errNoLibrary means that no driver is installed: retrying is useless.
var errNoLibrary = errors.New("libnvidia-ml.so.1 not found")

// open starts NVML and finds a GPU by its UUID, given without prefix.
func open(lib nvml.Interface, uuid string) (*board, error) {
	if ret := lib.Init(); ret == nvml.ERROR_LIBRARY_NOT_FOUND {
		return nil, errNoLibrary
	} else if ret != nvml.SUCCESS {
		return nil, fmt.Errorf("start NVML: %s", text(ret))
	}
	b, err := find(lib, uuid)
	if err != nil {
		_ = lib.Shutdown()
		return nil, err
	}
	return b, nil
}

func find(lib nvml.Interface, uuid string) (*board, error) {
	b := &board{nvml: lib, off: make([]bool, len(groups)), throttled: map[string]float64{}, xids: map[uint64]int{}}
	var ret nvml.Return
	if b.own, ret = lib.DeviceGetHandleByUUID("GPU-" + uuid); ret == nvml.SUCCESS {
		b.device.UUID, b.whole = "GPU-"+uuid, b.own
		if b.has("nvmlDeviceGetMigMode") {
			mode, _, ret := b.own.GetMigMode()
			b.shared = ret == nvml.SUCCESS && mode == nvml.DEVICE_MIG_ENABLE
		}
	} else {
		if !b.has("nvmlDeviceGetDeviceHandleFromMigDeviceHandle") {
			return nil, fmt.Errorf("NVML knows no GPU-%s: %s", uuid, text(ret))
		}
		if b.own, ret = lib.DeviceGetHandleByUUID("MIG-" + uuid); ret != nvml.SUCCESS {
			return nil, fmt.Errorf("NVML knows no GPU-%s and no MIG-%s: %s", uuid, uuid, text(ret))
		}
		b.device.UUID, b.shared = "MIG-"+uuid, true
		if b.whole, ret = b.own.GetDeviceHandleFromMigDeviceHandle(); ret != nvml.SUCCESS {
			return nil, fmt.Errorf("find the board of MIG-%s: %s", uuid, text(ret))
		}
	}
	for i, g := range groups {
		b.off[i] = !b.has(g.symbol)
	}
	// Values that are not reported stay empty.
	b.device.Board, _ = b.whole.GetUUID()
	b.device.Name, _ = b.own.GetName()
	b.device.Index, _ = b.whole.GetIndex()
	if pci, ret := b.whole.GetPciInfo(); ret == nvml.SUCCESS {
		b.device.PCI = cString(pci.BusId[:])
	}
	return b, nil
}

// has reports whether the driver has a function. Calling a missing one would end the
// process.
func (b *board) has(symbol string) bool { return b.nvml.Extensions().LookupSymbol(symbol) == nil }

func (b *board) close() {
	if b.events != nil {
		_ = b.events.Free()
	}
	_ = b.nvml.Shutdown()
}

// lost reports the errors after which this handle is useless.
func lost(ret nvml.Return) bool {
	switch ret {
	case nvml.ERROR_GPU_IS_LOST, nvml.ERROR_UNINITIALIZED, nvml.ERROR_DRIVER_NOT_LOADED, nvml.ERROR_RESET_REQUIRED,
		nvml.ERROR_GPU_NOT_FOUND:
		return true
	}
	return false
}

// untold reports the errors that do not go away: the call is not repeated.
func untold(ret nvml.Return) bool {
	switch ret {
	case nvml.ERROR_NOT_SUPPORTED, nvml.ERROR_FUNCTION_NOT_FOUND, nvml.ERROR_NO_PERMISSION, nvml.ERROR_INVALID_ARGUMENT,
		nvml.ERROR_ARGUMENT_VERSION_MISMATCH, nvml.ERROR_DEPRECATED:
		return true
	}
	return false
}

// text describes an error without NVML's own function, which may be unloaded.
func text(ret nvml.Return) string {
	switch ret {
	case nvml.ERROR_GPU_IS_LOST:
		return "the GPU is lost"
	case nvml.ERROR_DRIVER_NOT_LOADED:
		return "the driver is not loaded"
	case nvml.ERROR_NOT_FOUND:
		return "not found"
	case nvml.ERROR_NO_PERMISSION:
		return "no permission"
	case nvml.ERROR_LIB_RM_VERSION_MISMATCH:
		return "the library's and the driver's versions differ"
	}
	return fmt.Sprintf("NVML error %d", int32(ret))
}

func cString(b []int8) string {
	var s strings.Builder
	for _, c := range b {
		if c == 0 {
			break
		}
		s.WriteByte(byte(c))
	}
	return s.String()
}
