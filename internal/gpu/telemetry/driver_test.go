package telemetry

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestOldDriver samples through cgo and dlopen a library that has few functions:
// those that it lacks are absent, where a call of one would end the process.
func TestOldDriver(t *testing.T) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("SKIPPED: needs a C compiler, cc")
	}
	lib := filepath.Join(t.TempDir(), "libnvidia-ml.so.1")
	if out, err := exec.Command(cc, "-shared", "-fPIC", "-o", lib, "testdata/nvml.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m := Start(Config{UUID: "0a1b2c3d-0000-1111-2222-333344445555", Library: lib, every: 500 * time.Millisecond})
	defer m.Close()
	for deadline := time.Now().Add(time.Minute); m.Now() == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no sample")
		}
	}
	for range 2 { // some more of them
		for last := m.Now(); m.Now() == last; time.Sleep(time.Millisecond) {
		}
	}
	const uuid = "GPU-0a1b2c3d-0000-1111-2222-333344445555"
	if d := fmt.Sprint(m.Now().Device); d != "{"+uuid+" "+uuid+" NVIDIA Test 5 00000000:1B:00.0}" {
		t.Errorf("the device is %s", d)
	}
	have := names(t, m)
	for _, name := range []string{up, info, Utilization, "surprisal_gpu_memory_utilization_ratio", Power, Temperature,
		energyTotal} {
		if !have[name] {
			t.Errorf("%s is not told", name)
		}
		delete(have, name)
	}
	for name := range have {
		t.Errorf("%s is told", name)
	}
	if v, _ := m.Now().Value(Power); v != 250.5 {
		t.Errorf("%g W", v)
	}
	if _, ok := m.Energy(); !ok {
		t.Error("power is not integrated")
	}
}
