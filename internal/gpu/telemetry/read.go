package telemetry

import (
	"encoding/binary"
	"math"
	"os"
	"strconv"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// Device is the GPU that is sampled.
type Device struct {
	UUID  string // GPU-…, or MIG-…
	Board string // the board's UUID: that of a MIG device's board, else UUID
	Name  string
	Index int // of the board
	PCI   string
}

// point is one value of a metric. label is the metric's label after the device's, if it
// has one.
type point struct {
	name, label string
	value       float64
}

// board reads one GPU.
type board struct {
	nvml   nvml.Interface
	device Device
	own    nvml.Device // the MIG device, or the board
	whole  nvml.Device // the board
	shared bool        // others may work on the board: its energy is not ours
	events nvml.EventSet
	off    []bool // groups that it does not report

	throttled map[string]float64 // seconds by reason
	reasons   uint64             // at the last sample
	xids      map[uint64]int
	last      time.Time
	joules    float64 // at the last sample
	counter   float64 // the energy counter when last read
	fresh     bool    // counter was read in this sample
	since     float64 // power integrated since counter was read
	watts     float64 // at the last sample
	counted   bool    // the board has an energy counter
}

// group is the values of one NVML call. symbol is the function that the driver must
// have.
type group struct {
	symbol string
	slow   bool // in every slowEvery-th sample only
	read   func(b *board, put putter) nvml.Return
}

// slowEvery is the interval, in samples, of values that change slowly or are expensive.
const slowEvery = 10

var groups = []group{
	{"nvmlDeviceGetUtilizationRates", false, func(b *board, put putter) nvml.Return {
		u, ret := b.own.GetUtilizationRates()
		put(Utilization, float64(u.Gpu)/100)
		put("surprisal_gpu_memory_utilization_ratio", float64(u.Memory)/100)
		return ret
	}},
	{"nvmlDeviceGetMemoryInfo_v2", false, func(b *board, put putter) nvml.Return {
		m, ret := b.own.GetMemoryInfo_v2()
		put(MemoryUsed, float64(m.Used))
		put(MemoryTotal, float64(m.Total))
		put("surprisal_gpu_memory_reserved_bytes", float64(m.Reserved))
		return ret
	}},
	{"nvmlDeviceGetPowerUsage", false, func(b *board, put putter) nvml.Return {
		mw, ret := b.whole.GetPowerUsage()
		put(Power, float64(mw)/1e3)
		return ret
	}},
	// 4 ms of the processor on an H200.
	{"nvmlDeviceGetTotalEnergyConsumption", true, func(b *board, _ putter) nvml.Return {
		mj, ret := b.whole.GetTotalEnergyConsumption()
		b.counted = ret == nvml.SUCCESS
		b.counter, b.fresh = float64(mj)/1e3, b.counted
		return ret
	}},
	{"nvmlDeviceGetTemperature", false, func(b *board, put putter) nvml.Return {
		c, ret := b.whole.GetTemperature(nvml.TEMPERATURE_GPU)
		put(Temperature, float64(c))
		return ret
	}},
	{"nvmlDeviceGetClockInfo", false, func(b *board, put putter) nvml.Return {
		mhz, ret := b.whole.GetClockInfo(nvml.CLOCK_SM)
		put("surprisal_gpu_sm_clock_hertz", float64(mhz)*1e6)
		return ret
	}},
	{"nvmlDeviceGetCurrentClocksThrottleReasons", false, func(b *board, put putter) nvml.Return {
		mask, ret := b.whole.GetCurrentClocksThrottleReasons() // every driver has this name of the function
		if ret == nvml.SUCCESS {
			b.throttle(mask, put)
		}
		return ret
	}},
	{"nvmlEventSetCreate", false, (*board).xid},
	{"nvmlDeviceGetEnforcedPowerLimit", true, func(b *board, put putter) nvml.Return {
		mw, ret := b.whole.GetEnforcedPowerLimit()
		put(PowerLimit, float64(mw)/1e3)
		return ret
	}},
	{"nvmlDeviceGetClockInfo", true, func(b *board, put putter) nvml.Return {
		mhz, ret := b.whole.GetClockInfo(nvml.CLOCK_MEM)
		put("surprisal_gpu_memory_clock_hertz", float64(mhz)*1e6)
		return ret
	}},
	{"nvmlDeviceGetTotalEccErrors", true, func(b *board, put putter) nvml.Return {
		n, ret := b.whole.GetTotalEccErrors(nvml.MEMORY_ERROR_TYPE_CORRECTED, nvml.VOLATILE_ECC)
		put("surprisal_gpu_ecc_errors", float64(n), "corrected")
		if ret != nvml.SUCCESS {
			return ret
		}
		n, ret = b.whole.GetTotalEccErrors(nvml.MEMORY_ERROR_TYPE_UNCORRECTED, nvml.VOLATILE_ECC)
		put("surprisal_gpu_ecc_errors", float64(n), "uncorrected")
		return ret
	}},
	{"nvmlDeviceGetRemappedRows", true, func(b *board, put putter) nvml.Return {
		corrected, uncorrected, pending, failed, ret := b.whole.GetRemappedRows()
		put("surprisal_gpu_remapped_rows", float64(corrected), "corrected")
		put("surprisal_gpu_remapped_rows", float64(uncorrected), "uncorrected")
		put("surprisal_gpu_row_remap_pending", truth(pending))
		put("surprisal_gpu_row_remap_failed", truth(failed))
		return ret
	}},
	{"nvmlDeviceGetComputeRunningProcesses", true, (*board).processes},
	{"nvmlDeviceGetFieldValues", true, (*board).fields},
}

type putter = func(name string, value float64, label ...string)

// reasons are the metric's labels of the reasons for reduced clocks. An idle GPU and
// clocks set by the administrator are not among them.
var reasons = []struct {
	bit  uint64
	name string
}{
	{nvml.ClocksThrottleReasonSwPowerCap, "sw_power_cap"}, {nvml.ClocksThrottleReasonHwSlowdown, "hw_slowdown"},
	{nvml.ClocksThrottleReasonSyncBoost, "sync_boost"}, {nvml.ClocksThrottleReasonSwThermalSlowdown, "sw_thermal"},
	{nvml.ClocksThrottleReasonHwThermalSlowdown, "hw_thermal"},
	{nvml.ClocksThrottleReasonHwPowerBrakeSlowdown, "hw_power_brake"},
}

// throttle adds the time since the last sample to the reasons that were active then.
func (b *board) throttle(mask uint64, put putter) {
	for _, r := range reasons {
		if b.reasons&r.bit != 0 && !b.last.IsZero() {
			b.throttled[r.name] += time.Since(b.last).Seconds()
		}
		put("surprisal_gpu_throttle_seconds_total", b.throttled[r.name], r.name)
	}
	b.reasons = mask
}

// xid counts the critical errors that have been reported since the last sample.
func (b *board) xid(put putter) nvml.Return {
	if b.events == nil {
		set, ret := b.nvml.EventSetCreate()
		if ret != nvml.SUCCESS {
			return ret
		}
		if ret := b.whole.RegisterEvents(nvml.EventTypeXidCriticalError, set); ret != nvml.SUCCESS {
			_ = set.Free()
			return ret
		}
		b.events = set
	}
	for range 64 { // the next sample continues
		e, ret := b.events.Wait(0)
		if ret != nvml.SUCCESS {
			break // none is waiting
		}
		if e.EventType == nvml.EventTypeXidCriticalError {
			b.xids[e.EventData]++
		}
	}
	for x, n := range b.xids {
		put("surprisal_gpu_xid_errors_total", float64(n), strconv.FormatUint(x, 10))
	}
	return nvml.SUCCESS
}

// processes finds this process by its ID. In a container, where the driver's IDs differ,
// it counts among the others.
func (b *board) processes(put putter) nvml.Return {
	list, ret := b.own.GetComputeRunningProcesses()
	if ret != nvml.SUCCESS {
		return ret
	}
	count, bytes := map[bool]float64{}, map[bool]float64{}
	for _, p := range list {
		ours := int(p.Pid) == os.Getpid()
		count[ours]++
		if p.UsedGpuMemory != math.MaxUint64 { // not known
			bytes[ours] += float64(p.UsedGpuMemory)
		}
	}
	for _, owner := range []struct {
		ours bool
		name string
	}{{true, "worker"}, {false, "other"}} {
		put("surprisal_gpu_processes", count[owner.ours], owner.name)
		put("surprisal_gpu_process_memory_bytes", bytes[owner.ours], owner.name)
	}
	return ret
}

// allLinks selects the sum over all NVLinks.
const allLinks = math.MaxUint32

// fields reads values that one NVML request returns together, each with its own status.
func (b *board) fields(put putter) nvml.Return {
	kinds := []struct {
		id, scope uint32
		name      string
		unit      float64
	}{
		{nvml.FI_DEV_MEMORY_TEMP, 0, "surprisal_gpu_memory_temperature_celsius", 1},
		{nvml.FI_DEV_PCIE_COUNT_TX_BYTES, 0, "surprisal_gpu_pcie_sent_bytes_total", 1},
		{nvml.FI_DEV_PCIE_COUNT_RX_BYTES, 0, "surprisal_gpu_pcie_received_bytes_total", 1},
		{nvml.FI_DEV_NVLINK_THROUGHPUT_DATA_TX, allLinks, "surprisal_gpu_nvlink_sent_bytes_total", 1024},
		{nvml.FI_DEV_NVLINK_THROUGHPUT_DATA_RX, allLinks, "surprisal_gpu_nvlink_received_bytes_total", 1024},
	}
	values := make([]nvml.FieldValue, len(kinds))
	for i, k := range kinds {
		values[i].FieldId, values[i].ScopeId = k.id, k.scope
	}
	ret := b.whole.GetFieldValues(values)
	if ret != nvml.SUCCESS {
		return ret
	}
	for i, k := range kinds {
		if nvml.Return(values[i].NvmlReturn) != nvml.SUCCESS {
			continue
		}
		if v, ok := number(values[i]); ok {
			put(k.name, v*k.unit)
		}
	}
	return ret
}

func number(v nvml.FieldValue) (float64, bool) {
	bits := binary.NativeEndian.Uint64(v.Value[:])
	switch nvml.ValueType(v.ValueType) {
	case nvml.VALUE_TYPE_DOUBLE:
		return math.Float64frombits(bits), true
	case nvml.VALUE_TYPE_UNSIGNED_INT:
		return float64(binary.NativeEndian.Uint32(v.Value[:])), true
	case nvml.VALUE_TYPE_UNSIGNED_LONG, nvml.VALUE_TYPE_UNSIGNED_LONG_LONG:
		return float64(bits), true
	case nvml.VALUE_TYPE_SIGNED_LONG_LONG:
		return float64(int64(bits)), true
	case nvml.VALUE_TYPE_SIGNED_INT:
		return float64(int32(binary.NativeEndian.Uint32(v.Value[:]))), true
	}
	return 0, false
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
