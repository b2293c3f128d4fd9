//go:build cuda

package telemetry

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// query asks nvidia-smi for values of the first GPU.
func query(t *testing.T, fields ...string) []string {
	t.Helper()
	out, err := exec.Command("nvidia-smi", "-i", "0", "--format=csv,noheader,nounits",
		"--query-gpu="+strings.Join(fields, ",")).Output()
	if err != nil {
		t.Fatalf("nvidia-smi: %v", err)
	}
	values := strings.Split(strings.TrimSpace(string(out)), ", ")
	if len(values) != len(fields) {
		t.Fatalf("nvidia-smi says %q", out)
	}
	return values
}

func firstGPU(t *testing.T) string {
	t.Helper()
	return strings.TrimPrefix(query(t, "uuid")[0], "GPU-")
}

// load runs $SURPRISAL_LOAD, a shell command that keeps the GPU busy, meanwhile.
func load(t *testing.T) {
	t.Helper()
	command := os.Getenv("SURPRISAL_LOAD")
	if command == "" {
		t.Log("the GPU is as it is: SURPRISAL_LOAD, a command that keeps it busy, is not set")
		return
	}
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, "bash", "-c", command)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = cmd.Wait() }) // it is killed
	deadline := time.Now().Add(2 * time.Minute)
	for ; query(t, "utilization.gpu")[0] == "0"; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the load does not reach the GPU")
		}
	}
}

// TestAgreesWithNvidiaSMI: each value lies between what nvidia-smi says before and
// after, give or take its resolution.
func TestAgreesWithNvidiaSMI(t *testing.T) {
	load(t)
	b, err := open(nvml.New(), firstGPU(t))
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	names := query(t, "uuid", "index", "name", "pci.bus_id")
	d := b.device
	if got := []string{d.UUID, strconv.Itoa(d.Index), d.Name, d.PCI}; fmt.Sprint(got) != fmt.Sprint(names) {
		t.Errorf("the device is %q, nvidia-smi says %q", got, names)
	}
	checks := []struct {
		field, metric, label string
		unit, slack          float64 // of nvidia-smi's number; what may change within its time
	}{
		{"utilization.gpu", Utilization, "", .01, 10},
		{"utilization.memory", "surprisal_gpu_memory_utilization_ratio", "", .01, 10},
		{"memory.used", MemoryUsed, "", 1 << 20, 1},
		{"memory.total", MemoryTotal, "", 1 << 20, 1},
		{"memory.reserved", "surprisal_gpu_memory_reserved_bytes", "", 1 << 20, 1},
		{"power.draw", Power, "", 1, 0},
		{"enforced.power.limit", PowerLimit, "", 1, .01},
		{"temperature.gpu", Temperature, "", 1, 1},
		{"temperature.memory", "surprisal_gpu_memory_temperature_celsius", "", 1, 1},
		{"clocks.sm", "surprisal_gpu_sm_clock_hertz", "", 1e6, 15},
		{"clocks.mem", "surprisal_gpu_memory_clock_hertz", "", 1e6, 1},
		{"ecc.errors.corrected.volatile.total", "surprisal_gpu_ecc_errors", "corrected", 1, 0},
		{"ecc.errors.uncorrected.volatile.total", "surprisal_gpu_ecc_errors", "uncorrected", 1, 0},
	}
	fields := make([]string, len(checks))
	for i, c := range checks {
		fields[i] = c.field
	}
	before := query(t, fields...)
	var slow []point
	s, err := b.sample(true, &slow)
	if err != nil {
		t.Fatal(err)
	}
	after := query(t, fields...)
	for i, c := range checks {
		got, told := math.NaN(), false
		for _, p := range s.points {
			if p.name == c.metric && p.label == c.label {
				got, told = p.value/c.unit, true
			}
		}
		x, err1 := strconv.ParseFloat(before[i], 64)
		y, err2 := strconv.ParseFloat(after[i], 64)
		if err1 != nil || err2 != nil { // [N/A]
			if told {
				t.Errorf("%s is %g, nvidia-smi says %q", c.metric, got, before[i])
			}
			continue
		}
		if c.field == "power.draw" { // which is an average over its own time
			c.slack = max(5, .1*max(x, y))
		}
		if !told || got < min(x, y)-c.slack || got > max(x, y)+c.slack {
			t.Errorf("%s is %g (told: %v), nvidia-smi says %g and %g", c.metric, got, told, x, y)
		}
		t.Logf("%-45s %12g   nvidia-smi %s, %s", c.metric, got, before[i], after[i])
	}
}

// TestSamplerCost: sampling once a second takes less than 0.1 % of a core.
func TestSamplerCost(t *testing.T) {
	load(t)
	b, err := open(nvml.New(), firstGPU(t))
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	cpu := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	var slow []point
	if _, err := b.sample(true, &slow); err != nil { // what it does not tell is asked once
		t.Fatal(err)
	}
	const n = 200
	used, start := cpu(), time.Now()
	for i := range n {
		if _, err := b.sample(i%slowEvery == 0, &slow); err != nil {
			t.Fatal(err)
		}
	}
	used, wall := cpu()-used, time.Since(start)
	share := (used / n).Seconds() / every.Seconds()
	t.Logf("a sample takes %s of CPU and %s: %.4f %% of a core at one a %s", used/n, wall/n, 100*share, every)
	for i, g := range groups { // which one, if it is too much
		if b.off[i] {
			t.Logf("  %-45s not told here", g.symbol)
			continue
		}
		at := time.Now()
		for range 20 {
			g.read(b, func(string, float64, ...string) {})
		}
		t.Logf("  %-45s %s", g.symbol, time.Since(at)/20)
	}
	if share > .001 {
		t.Errorf("%.3f %% of a core", 100*share)
	}
}

// TestEnergyAgreesWithPower: over 20 s, the board's energy counter and its power
// integrated from readings every 20 ms agree within 3 %.
func TestEnergyAgreesWithPower(t *testing.T) {
	load(t)
	m := Start(Config{UUID: firstGPU(t)})
	defer m.Close()
	for m.Now() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	b, err := open(nvml.New(), firstGPU(t))
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	watts := func() float64 {
		mw, ret := b.whole.GetPowerUsage()
		if ret != nvml.SUCCESS {
			t.Fatal(text(ret))
		}
		return float64(mw) / 1e3
	}
	if !b.has("nvmlDeviceGetTotalEnergyConsumption") {
		t.Skip("this board has no energy counter")
	}
	time.Sleep(2 * time.Second) // power is averaged over a second
	from, ok := m.Energy()
	start := time.Now()
	last, at, integral := watts(), start, 0.0
	for time.Since(start) < 20*time.Second {
		time.Sleep(20 * time.Millisecond)
		w, now := watts(), time.Now()
		integral += (w + last) / 2 * now.Sub(at).Seconds()
		last, at = w, now
	}
	to, ok2 := m.Energy()
	t.Logf("energy %.1f J, power integrated %.1f J, over %s", to-from, integral, at.Sub(start).Round(time.Millisecond))
	if !ok || !ok2 || math.Abs(to-from-integral) > .03*integral {
		t.Errorf("energy %.1f J (known: %v), power integrated %.1f J", to-from, ok && ok2, integral)
	}
}
