package telemetry

import (
	"fmt"
	"math"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"
)

// TestValues: NVML's units become base units, and every metric is told.
func TestValues(t *testing.T) {
	s, d := fake()
	m := sampling(t, s, d, time.Minute) // one sample: the next adds to the energy
	var want strings.Builder
	kinds := map[string]string{}
	for _, def := range allDefinitions() {
		kinds[def.Name] = fmt.Sprintf("# HELP %s %s\n# TYPE %s %s\n", def.Name, def.Help, def.Name, def.Kind)
	}
	for _, line := range []string{
		`surprisal_nvml_up 1`,
		`surprisal_gpu_info{UUID="U",gpu="3",mig_of="",name="NVIDIA H200 141GB HBM3e",pci_bus_id="00000000:5D:00.0"} 1`,
		`surprisal_gpu_utilization_ratio{UUID="U",gpu="3"} 0.97`,
		`surprisal_gpu_memory_utilization_ratio{UUID="U",gpu="3"} 0.41`,
		fmt.Sprintf(`surprisal_gpu_memory_used_bytes{UUID="U",gpu="3"} %d`, 49<<30),
		fmt.Sprintf(`surprisal_gpu_memory_total_bytes{UUID="U",gpu="3"} %d`, 150<<30),
		fmt.Sprintf(`surprisal_gpu_memory_reserved_bytes{UUID="U",gpu="3"} %d`, 1<<30),
		`surprisal_gpu_power_watts{UUID="U",gpu="3"} 612.345`,
		`surprisal_gpu_power_limit_watts{UUID="U",gpu="3"} 700`,
		`surprisal_gpu_energy_joules_total{UUID="U",gpu="3"} 123456.789`,
		`surprisal_gpu_temperature_celsius{UUID="U",gpu="3"} 61`,
		`surprisal_gpu_memory_temperature_celsius{UUID="U",gpu="3"} 72`,
		`surprisal_gpu_sm_clock_hertz{UUID="U",gpu="3"} 1.98e+09`,
		`surprisal_gpu_memory_clock_hertz{UUID="U",gpu="3"} 3.201e+09`,
		`surprisal_gpu_throttle_seconds_total{UUID="U",gpu="3",reason="hw_power_brake"} 0`,
		`surprisal_gpu_throttle_seconds_total{UUID="U",gpu="3",reason="hw_slowdown"} 0`,
		`surprisal_gpu_throttle_seconds_total{UUID="U",gpu="3",reason="hw_thermal"} 0`,
		`surprisal_gpu_throttle_seconds_total{UUID="U",gpu="3",reason="sw_power_cap"} 0`,
		`surprisal_gpu_throttle_seconds_total{UUID="U",gpu="3",reason="sw_thermal"} 0`,
		`surprisal_gpu_throttle_seconds_total{UUID="U",gpu="3",reason="sync_boost"} 0`,
		`surprisal_gpu_ecc_errors{UUID="U",gpu="3",type="corrected"} 5`,
		`surprisal_gpu_ecc_errors{UUID="U",gpu="3",type="uncorrected"} 2`,
		`surprisal_gpu_remapped_rows{UUID="U",gpu="3",type="corrected"} 3`,
		`surprisal_gpu_remapped_rows{UUID="U",gpu="3",type="uncorrected"} 1`,
		`surprisal_gpu_row_remap_pending{UUID="U",gpu="3"} 1`,
		`surprisal_gpu_row_remap_failed{UUID="U",gpu="3"} 0`,
		`surprisal_gpu_xid_errors_total{UUID="U",gpu="3",xid="79"} 1`,
		`surprisal_gpu_pcie_sent_bytes_total{UUID="U",gpu="3"} 9000`,
		`surprisal_gpu_nvlink_sent_bytes_total{UUID="U",gpu="3"} 7168`,
		`surprisal_gpu_nvlink_received_bytes_total{UUID="U",gpu="3"} 7168`,
		`surprisal_gpu_processes{UUID="U",gpu="3",owner="worker"} 1`,
		`surprisal_gpu_processes{UUID="U",gpu="3",owner="other"} 2`,
		fmt.Sprintf(`surprisal_gpu_process_memory_bytes{UUID="U",gpu="3",owner="worker"} %d`, 40<<30),
		fmt.Sprintf(`surprisal_gpu_process_memory_bytes{UUID="U",gpu="3",owner="other"} %d`, 9<<30),
	} {
		name := line[:strings.IndexAny(line, "{ ")]
		want.WriteString(kinds[name] + strings.ReplaceAll(line, `"U"`, `"`+d.UUID+`"`) + "\n")
		kinds[name] = ""
	}
	told(t, m, want.String())
	delete(kinds, "surprisal_gpu_pcie_received_bytes_total") // which this board does not tell
	for name, head := range kinds {
		if head != "" {
			t.Errorf("%s is told of no board", name)
		}
	}
	if v, ok := m.Now().Value(Power); !ok || v != 612.345 {
		t.Errorf("power: %g, %v", v, ok)
	}
}

// TestUnsupported: what the board does not tell is absent, alone, and not asked
// again.
func TestUnsupported(t *testing.T) {
	s, d := fake()
	asked := atomic.Int64{}
	d.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) {
		asked.Add(1)
		return nvml.Utilization{}, nvml.ERROR_NOT_SUPPORTED
	}
	d.GetMemoryInfo_v2Func = nil // called, it would panic
	s.LookupSymbolFunc = func(symbol string) error {
		if symbol == "nvmlDeviceGetMemoryInfo_v2" {
			return fmt.Errorf("undefined symbol: %s", symbol)
		}
		return nil
	}
	flaky := atomic.Bool{}
	d.GetTemperatureFunc = func(nvml.TemperatureSensors) (uint32, nvml.Return) {
		if flaky.CompareAndSwap(false, true) {
			return 0, nvml.ERROR_UNKNOWN
		}
		return 60, nvml.SUCCESS
	}
	m := sampling(t, s, d, time.Second)
	for first := m.Now(); m.Now() == first; time.Sleep(time.Millisecond) {
	}
	have := names(t, m)
	for name, want := range map[string]bool{
		Utilization: false, "surprisal_gpu_memory_utilization_ratio": false, MemoryUsed: false,
		Power: true, Temperature: true, up: true,
	} {
		if have[name] != want {
			t.Errorf("%s is told: %v", name, have[name])
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times for what it does not tell", n)
	}
}

// TestNoDriver: without NVML all is absent but the gauge that says so.
func TestNoDriver(t *testing.T) {
	s, _ := fake()
	s.InitFunc = func() nvml.Return { return nvml.ERROR_LIBRARY_NOT_FOUND }
	for name, m := range map[string]*Sampler{
		"faked":      Start(Config{UUID: "x", lib: s}),
		"really":     Start(Config{UUID: "00000000-0000-0000-0000-000000000000"}),
		"cpu worker": Start(Config{lib: s}),
	} {
		time.Sleep(50 * time.Millisecond)
		if _, ok := m.Energy(); ok || m.Now() != nil || m.Up() {
			t.Errorf("%s: something is known", name)
		}
		told(t, m, "# HELP surprisal_nvml_up 1 while NVML answers for this worker's GPU\n"+
			"# TYPE surprisal_nvml_up gauge\nsurprisal_nvml_up 0\n")
		m.Close()
	}
}

// TestLost: a GPU that is lost takes its values with it, and comes back with them.
func TestLost(t *testing.T) {
	s, d := fake()
	lost := atomic.Bool{}
	d.GetPowerUsageFunc = func() (uint32, nvml.Return) {
		if lost.Load() {
			return 0, nvml.ERROR_GPU_IS_LOST
		}
		return 100_000, nvml.SUCCESS
	}
	m := sampling(t, s, d, 20*time.Millisecond)
	lost.Store(true)
	for deadline := time.Now().Add(time.Minute); m.Up() || m.Now() != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a lost GPU is up")
		}
	}
	if have := names(t, m); len(have) != 1 || !have[up] {
		t.Errorf("told of a lost GPU: %v", have)
	}
	lost.Store(false)
	for deadline := time.Now().Add(time.Minute); !m.Up(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the GPU is back, and NVML is down")
		}
	}
}

// TestHang: a call that never returns delays neither a scrape nor the end, and old
// values are not told.
func TestHang(t *testing.T) {
	s, d := fake()
	hang, hangs, free := atomic.Bool{}, make(chan struct{}), make(chan struct{})
	d.GetTemperatureFunc = func(nvml.TemperatureSensors) (uint32, nvml.Return) {
		if hang.CompareAndSwap(true, false) {
			close(hangs)
			<-free
		}
		return 60, nvml.SUCCESS
	}
	m := Start(Config{UUID: strings.TrimPrefix(d.UUID, "GPU-"), lib: s, every: 10 * time.Millisecond})
	for m.Now() == nil {
		time.Sleep(time.Millisecond)
	}
	hang.Store(true)
	<-hangs // no sample comes any more
	time.Sleep(2 * stale * 10 * time.Millisecond)
	start := time.Now()
	if have := names(t, m); len(have) != 1 || m.Up() {
		t.Errorf("told while NVML hangs: %v", have)
	}
	if took := time.Since(start); took > 5*time.Second { // it does not wait for NVML, which hangs for good
		t.Errorf("a scrape took %s", took)
	}
	m.Close()
	if took := time.Since(start); took > closing+10*time.Second {
		t.Errorf("ended after %s", took)
	}
	close(free)
	<-m.ended
}

// TestMIG: memory is the MIG device's, the rest its board's, energy nobody's.
func TestMIG(t *testing.T) {
	s, d := fake()
	board := d.UUID
	mig := s.Devices[4].(*server.Device)
	mig.UUID = "MIG-" + strings.TrimPrefix(mig.UUID, "GPU-")
	mig.GetDeviceHandleFromMigDeviceHandleFunc = func() (nvml.Device, nvml.Return) { return d, nvml.SUCCESS }
	mig.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) {
		return nvml.Utilization{}, nvml.ERROR_NOT_SUPPORTED
	}
	mig.GetMemoryInfo_v2Func = func() (nvml.Memory_v2, nvml.Return) {
		return nvml.Memory_v2{Total: 18 << 30, Used: 4 << 30}, nvml.SUCCESS
	}
	mig.GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) {
		return nil, nvml.ERROR_NO_PERMISSION
	}
	m := Start(Config{UUID: strings.TrimPrefix(mig.UUID, "MIG-"), lib: s, every: time.Minute})
	defer m.Close()
	for m.Now() == nil {
		time.Sleep(time.Millisecond)
	}
	told(t, m, fmt.Sprintf(`# HELP surprisal_gpu_memory_used_bytes device memory that processes have taken
# TYPE surprisal_gpu_memory_used_bytes gauge
surprisal_gpu_memory_used_bytes{UUID="%s",gpu="3"} %d
# HELP surprisal_gpu_power_watts power draw of the board
# TYPE surprisal_gpu_power_watts gauge
surprisal_gpu_power_watts{UUID="%s",gpu="3"} 612.345
`, mig.UUID, 4<<30, board), MemoryUsed, Power)
	if have := names(t, m); have[Utilization] || have["surprisal_gpu_processes"] {
		t.Errorf("told: %v", have)
	}
	if _, ok := m.Energy(); ok {
		t.Error("a MIG device's energy is known")
	}
}

// TestEnergy: of the board's counter, and of power where there is none.
func TestEnergy(t *testing.T) {
	for _, counter := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s, d := fake()
			began := time.Now()
			watts := func() float64 { return 100 + 10*time.Since(began).Seconds() } // a ramp, which trapezoids follow
			d.GetPowerUsageFunc = func() (uint32, nvml.Return) { return uint32(1e3 * watts()), nvml.SUCCESS }
			d.GetCurrentClocksThrottleReasonsFunc = func() (uint64, nvml.Return) {
				return nvml.ClocksThrottleReasonSwPowerCap | nvml.ClocksThrottleReasonHwSlowdown, nvml.SUCCESS
			}
			d.GetTotalEnergyConsumptionFunc = func() (uint64, nvml.Return) {
				if !counter {
					return 0, nvml.ERROR_NOT_SUPPORTED
				}
				x := time.Since(began).Seconds()
				return uint64(1e3 * (5000 + 100*x + 5*x*x)), nvml.SUCCESS
			}
			m := Start(Config{UUID: strings.TrimPrefix(d.UUID, "GPU-"), lib: s})
			time.Sleep(500 * time.Millisecond)
			from, ok := m.Energy()
			time.Sleep(20 * time.Second)
			to, ok2 := m.Energy()
			x := 20.5
			if want := 100*x + 5*x*x - (100*.5 + 5*.5*.5); !ok || !ok2 || math.Abs(to-from-want) > 5 {
				t.Errorf("counter %v: %g joules, want %g", counter, to-from, want)
			}
			for _, p := range m.Now().points {
				if p.name == "surprisal_gpu_throttle_seconds_total" {
					want := map[string]float64{"sw_power_cap": 20, "hw_slowdown": 20}[p.label]
					if math.Abs(p.value-want) > 1e-6 {
						t.Errorf("throttled by %s for %g s, want %g", p.label, p.value, want)
					}
				}
			}
			m.Close()
		})
	}
}

// TestDocs holds docs/metrics.md to the definitions, in both directions.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]string{}
	pattern := "(?m)^\\| `(surprisal_(?:gpu|nvml)_[a-z_]+)` \\| ([a-z]+) \\| ([a-zA-Z_, ]*)\\| .+ \\|$"
	for _, row := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1) {
		told[row[1]] = row[2] + " " + strings.TrimSpace(row[3])
	}
	for _, d := range allDefinitions() {
		if want := d.Kind + " " + strings.Join(d.Labels, ", "); told[d.Name] != want {
			t.Errorf("%s is a %s; docs/metrics.md says %q", d.Name, want, told[d.Name])
		}
		delete(told, d.Name)
	}
	for name := range told {
		t.Errorf("docs/metrics.md tells of %s, which there is not", name)
	}
}
