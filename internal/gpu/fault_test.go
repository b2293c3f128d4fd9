//go:build cuda

package gpu

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"surprisal/internal/score"
	"surprisal/internal/testkit/modeltest"
)

// TestFault: a fault of the device names GPU and batch, and every later call says
// that the device is broken. A real GPU is not broken for it; the stand-in is, in a
// process of its own.
func TestFault(t *testing.T) {
	needGPU(t)
	if !emulated(t) {
		return
	}
	if os.Getenv("SURPRISAL_FAULT_CHILD") == "" {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestFault$", "-test.v")
		cmd.Env = append(os.Environ(), "SURPRISAL_FAULT_CHILD=1")
		if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "SKIP") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	e := open(t, filepath.Join(goldens, "kla_128"), Config{MaxTokens: 128}, options{})
	b := &score.Batch{}
	b.Append([]int32{1, 2}, []int32{2, 3}, nil)
	b.Alloc()
	modeltest.Forward(t, e, b)
	t.Setenv("SURPRISAL_EMULATOR_FAIL", "next")
	err := e.Forward(context.Background(), b)
	if err == nil || !strings.Contains(err.Error(), "GPU 0") ||
		!strings.Contains(err.Error(), "batch 2 (2 tokens, 1 sequences)") {
		t.Fatalf("fault: %v", err)
	}
	t.Setenv("SURPRISAL_EMULATOR_FAIL", "")
	if err := e.Forward(context.Background(), b); err == nil || !strings.Contains(err.Error(), "failed before") {
		t.Fatalf("after a fault: %v", err)
	}
}

// TestTableRoom: the first layer's table is taken where all of it fits beside the
// rest, and never at the budget's cost.
func TestTableRoom(t *testing.T) {
	needGPU(t)
	if !emulated(t) {
		return
	}
	dir := filepath.Join(goldens, "kla_128")
	e := open(t, dir, Config{MaxTokens: 128}, options{})
	need, table := e.need(128), e.tableBytes()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	for _, more := range []int64{0, table - 1, table} {
		t.Setenv("SURPRISAL_EMULATOR_MEMORY", strconv.FormatInt(need+more, 10))
		e := open(t, dir, Config{MaxTokens: 128}, options{})
		if (e.table != 0) != (more == table) || e.Info().MaxTokens != 128 {
			t.Errorf("%d bytes beside the rest for a table of %d: the table is %#x, the budget %d", more, table,
				e.table, e.Info().MaxTokens)
		}
		if more == table { // the memory is gone by the time that the table is taken
			bytes := e.Bytes()
			t.Setenv("SURPRISAL_EMULATOR_MEMORY", "1")
			e.table = 0
			if err := e.dev.do(e.buildTable); err != nil || e.table != 0 || e.Bytes() != bytes {
				t.Errorf("without memory: %v, the table is %#x, %d bytes", err, e.table, e.Bytes())
			}
		}
		b := &score.Batch{}
		b.Append([]int32{1, 2}, []int32{2, 3}, nil)
		modeltest.Forward(t, e, b)
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBudget: a budget that does not fit is refused at once, with figures; the
// default is what fits.
func TestBudget(t *testing.T) {
	needGPU(t)
	dir := filepath.Join(goldens, "kla_128")
	ckpt, mc := modeltest.Open(t, dir)
	defer ckpt.Close()
	for _, n := range []int{100, 63, -64, 1 << 30} {
		if e, err := New(ckpt, mc, Config{MaxTokens: n}); err == nil {
			_ = e.Close()
			t.Errorf("a budget of %d was taken", n)
		}
	}
	if _, err := New(ckpt, mc, Config{Device: 99}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("GPU 99: %v", err)
	}
	small := mc
	small.K = 32
	if err := supported(small); !errors.Is(err, ErrUnsupported) {
		t.Errorf("heads of 32: %v", err)
	}
	wide := mc
	wide.Heads, wide.VHeads = 128, 128
	if err := supported(wide); !errors.Is(err, ErrUnsupported) {
		t.Errorf("heads too wide to index: %v", err)
	}
	if !emulated(t) {
		return
	}
	t.Setenv("SURPRISAL_EMULATOR_MEMORY", "600000000")
	_, err := New(ckpt, mc, Config{MaxTokens: 1 << 17})
	if !errors.Is(err, errBudget) || !strings.Contains(err.Error(), "MiB") {
		t.Errorf("a budget over the memory: %v", err)
	}
	if testing.Short() {
		return
	}
	e, err := New(ckpt, mc, Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("with 600 MB, the default is %d tokens", e.Info().MaxTokens)
	if n := e.Info().MaxTokens; n >= defaultMaxTokens || n < minMaxTokens {
		t.Errorf("with 600 MB, the default is %d tokens", n)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}
