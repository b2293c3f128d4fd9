package telemetry

import (
	"encoding/binary"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh200"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// fake is go-nvml's stand-in for an H200 server, and GPU 3 of it with values; the
// real board is asked by the tests of build tag cuda.
func fake() (*server.Server, *server.Device) {
	s := dgxh200.New()
	d := s.Devices[3].(*server.Device)
	d.GetPciInfoFunc = func() (p nvml.PciInfo, ret nvml.Return) {
		for i, c := range "00000000:5D:00.0" {
			p.BusId[i] = int8(c)
		}
		return p, nvml.SUCCESS
	}
	d.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) {
		return nvml.Utilization{Gpu: 97, Memory: 41}, nvml.SUCCESS
	}
	d.GetMemoryInfo_v2Func = func() (nvml.Memory_v2, nvml.Return) {
		return nvml.Memory_v2{Total: 150 << 30, Reserved: 1 << 30, Free: 100 << 30, Used: 49 << 30}, nvml.SUCCESS
	}
	d.GetPowerUsageFunc = func() (uint32, nvml.Return) { return 612_345, nvml.SUCCESS }
	d.GetEnforcedPowerLimitFunc = func() (uint32, nvml.Return) { return 700_000, nvml.SUCCESS }
	d.GetTotalEnergyConsumptionFunc = func() (uint64, nvml.Return) { return 123_456_789, nvml.SUCCESS }
	d.GetTemperatureFunc = func(nvml.TemperatureSensors) (uint32, nvml.Return) { return 61, nvml.SUCCESS }
	d.GetClockInfoFunc = func(c nvml.ClockType) (uint32, nvml.Return) {
		return map[nvml.ClockType]uint32{nvml.CLOCK_SM: 1980, nvml.CLOCK_MEM: 3201}[c], nvml.SUCCESS
	}
	d.GetCurrentClocksThrottleReasonsFunc = func() (uint64, nvml.Return) {
		return 1, nvml.SUCCESS // idle: not throttled
	}
	d.GetTotalEccErrorsFunc = func(t nvml.MemoryErrorType, c nvml.EccCounterType) (uint64, nvml.Return) {
		counts := map[nvml.MemoryErrorType]uint64{
			nvml.MEMORY_ERROR_TYPE_CORRECTED: 5, nvml.MEMORY_ERROR_TYPE_UNCORRECTED: 2,
		}
		return counts[t], nvml.SUCCESS
	}
	d.GetRemappedRowsFunc = func() (int, int, bool, bool, nvml.Return) { return 3, 1, true, false, nvml.SUCCESS }
	d.GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) {
		return []nvml.ProcessInfo{{Pid: uint32(os.Getpid()), UsedGpuMemory: 40 << 30}, {Pid: 1, UsedGpuMemory: 9 << 30},
			{Pid: 2, UsedGpuMemory: ^uint64(0)}}, nvml.SUCCESS
	}
	d.GetFieldValuesFunc = func(values []nvml.FieldValue) nvml.Return {
		for i := range values {
			v := &values[i]
			v.ValueType = uint32(nvml.VALUE_TYPE_UNSIGNED_LONG_LONG)
			switch v.FieldId {
			case nvml.FI_DEV_MEMORY_TEMP:
				v.ValueType = uint32(nvml.VALUE_TYPE_UNSIGNED_INT)
				binary.NativeEndian.PutUint32(v.Value[:], 72)
			case nvml.FI_DEV_NVLINK_THROUGHPUT_DATA_TX, nvml.FI_DEV_NVLINK_THROUGHPUT_DATA_RX:
				if v.ScopeId != allLinks {
					v.NvmlReturn = uint32(nvml.ERROR_INVALID_ARGUMENT)
				}
				binary.NativeEndian.PutUint64(v.Value[:], 7)
			case nvml.FI_DEV_PCIE_COUNT_RX_BYTES:
				v.NvmlReturn = uint32(nvml.ERROR_NOT_SUPPORTED)
			default:
				binary.NativeEndian.PutUint64(v.Value[:], 9000)
			}
		}
		return nvml.SUCCESS
	}
	d.RegisterEventsFunc = func(uint64, nvml.EventSet) nvml.Return { return nvml.SUCCESS }
	var once sync.Once
	s.EventSetCreateFunc = func() (nvml.EventSet, nvml.Return) {
		return &mock.EventSet{
			WaitFunc: func(uint32) (nvml.EventData, nvml.Return) {
				e, ret := nvml.EventData{}, nvml.ERROR_TIMEOUT
				once.Do(func() { e.EventType, e.EventData, ret = nvml.EventTypeXidCriticalError, 79, nvml.SUCCESS })
				return e, ret
			},
			FreeFunc: func() nvml.Return { return nvml.SUCCESS },
		}, nvml.SUCCESS
	}
	return s, d
}

// sampling starts a sampler of the fake GPU and waits for its first sample, which is
// told of for ten times every.
func sampling(t *testing.T, s *server.Server, d *server.Device, every time.Duration) *Sampler {
	t.Helper()
	m := Start(Config{UUID: strings.TrimPrefix(d.UUID, "GPU-"), lib: s, every: every})
	t.Cleanup(m.Close)
	for deadline := time.Now().Add(time.Minute); m.Now() == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no sample")
		}
	}
	return m
}

func told(t *testing.T, s *Sampler, want string, names ...string) {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(newCollector(s))
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
}

func names(t *testing.T, s *Sampler) map[string]bool {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(newCollector(s))
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, f := range families {
		have[f.GetName()] = true
	}
	return have
}
