//go:build cuda

package gpu

import (
	"archive/zip"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gorgonia.org/cu"

	"surprisal/internal/model"
	"surprisal/internal/testkit/ckptgen"
	"surprisal/internal/testkit/modeltest"
)

// checkpoint writes one of every kind of matrix, with rows of the vocabulary that are
// padding.
func checkpoint(t *testing.T, d model.DType) (dir string, c model.Config) {
	t.Helper()
	c, err := model.LoadConfig(filepath.Join(goldens, "kla_128"))
	if err != nil {
		t.Fatal(err)
	}
	c.Name, c.Layers = "loaded", 2
	shapes["odd widths"](&c)
	dir = t.TempDir()
	if err := ckptgen.Write(dir, c, ckptgen.Options{Seed: 3, DType: d}); err != nil {
		t.Fatal(err)
	}
	return dir, c
}

// TestWeights: of whatever type a checkpoint is, matrices are its numbers as fp32,
// rounded; in stages smaller than a matrix, and where w1 and w2 stand in turns.
func TestWeights(t *testing.T) {
	needGPU(t)
	for _, d := range []model.DType{model.Float32, model.BFloat16, model.Float16, model.Float64} {
		for _, stage := range []int{0, 3000} {
			dir, c := checkpoint(t, d)
			b := bench{open(t, dir, Config{MaxTokens: 64}, options{noTable: true, stage: stage}), t}
			ckpt, _ := modeltest.Open(t, dir)
			defer ckpt.Close()
			read := func(name string) []uint16 {
				t.Helper()
				w, err := ckpt.Tensor(name)
				if err != nil {
					t.Fatal(err)
				}
				v := make([]float32, w.Len())
				if err := w.Float32(v); err != nil {
					t.Fatal(err)
				}
				wide := make([]float64, len(v))
				for i := range v {
					wide[i] = float64(v[i])
				}
				return activations().encode(wide)
			}
			equal := func(name string, p cu.DevicePtr, want []uint16) {
				t.Helper()
				if got := get[uint16](b, p, len(want)); !slices.Equal(got, want) {
					t.Errorf("%s in stages of %d: %s is not as it was", d, stage, name)
				}
			}
			used := c.VocabSize * c.Width
			equal("wte", b.w.embedding, read("transformer.wte.weight")[:used])
			equal("head", b.w.head, append(read("lm_head.weight")[:used:used],
				make([]uint16, (headColumns(c)-c.VocabSize)*c.Width)...))
			for i, y := range b.w.layers {
				p := fmt.Sprintf("transformer.h.%d.", i)
				equal("q_proj", y.in, read(p+"attn.q_proj.weight"))
				equal("eta_proj", y.in+cu.DevicePtr(2*b.cols.eta*c.Width), read(p+"attn.eta_proj.weight"))
				equal("f_proj.1", y.decay, read(p+"attn.f_proj.1.weight"))
				equal("o_proj", y.out, read(p+"attn.o_proj.weight"))
				equal("w3", y.down, read(p+"mlp.swiglu.w3.weight"))
				w1, w2 := read(p+"mlp.swiglu.w1.weight"), read(p+"mlp.swiglu.w2.weight")
				var turns []uint16
				for run := 8 * c.Width; len(w1) > 0; w1, w2 = w1[run:], w2[run:] {
					turns = append(append(turns, w1[:run]...), w2[:run]...)
				}
				equal("w1 and w2", y.up, turns)
			}
		}
	}
}

// TestNarrow: each number of 16 bits has the bits that it has by way of fp32, and what
// leaves the range is counted.
func TestNarrow(t *testing.T) {
	needGPU(t)
	b := newBench(t, "kla_128", 64)
	const n, run = 1 << 16, 48
	m := memory{stream: b.dev.stream}
	var raw, y, bad cu.DevicePtr
	b.run(func() error {
		raw, y, bad = m.alloc("numbers", 4*n), m.alloc("activations", 2*2*n), m.alloc("a counter", 8)
		return m.err
	})
	narrow := func(kind model.DType) ([]uint16, uint64) {
		b.run(func() error {
			fn, err := b.mod.fn("narrow_" + kind.String())
			return errors.Join(err, cu.MemsetD8Async(y, 0, 4*n, b.dev.stream),
				cu.MemsetD8Async(bad, 0, 8, b.dev.stream),
				b.dev.launch(fn, [3]int{8, 1, 1}, 256, 0, uint64(y), uint64(raw), 0, n, run, uint64(bad)))
		})
		return get[uint16](b, y, 2*n), get[uint64](b, bad, 1)[0]
	}
	for kind, f := range map[model.DType]*format{model.Float16: fp16(), model.BFloat16: bf16()} {
		var bits [n]uint16
		var wide [n]float32
		beyond := uint64(0)
		for i := range bits {
			bits[i] = uint16(i)
			if v := f.values[i]; math.IsNaN(v) || math.IsInf(v, 0) {
				bits[i] = 0 // never loaded
			}
			wide[i] = float32(f.values[bits[i]])
			if math.IsInf(activations().decode(activations().encode([]float64{float64(wide[i])}))[0], 0) {
				beyond++
			}
		}
		put(b, raw, wide[:])
		want, count := narrow(model.Float32)
		put(b, raw, bits[:])
		if got, c := narrow(kind); !slices.Equal(got, want) || c != count || c != beyond {
			t.Errorf("%s: other bits than by way of fp32, or %d and %d beyond the range of %d", kind, c, count, beyond)
		}
	}
	b.run(m.free)
}

// TestWeightsRefused: NaN and infinity, in rows that are padding too, by the tensor's
// name; and what fp16 can't hold.
func TestWeightsRefused(t *testing.T) {
	needGPU(t)
	for _, tt := range []struct {
		kind   model.DType
		tensor string
		at     int
		bits   uint32
		want   error
		says   string
	}{
		{model.BFloat16, "transformer.h.1.attn.o_proj.weight", 77, 0x7f80, model.ErrCheckpoint, "o_proj.weight"},
		{model.Float16, "lm_head.weight", 575 * 200, 0xfe00, model.ErrCheckpoint, "lm_head.weight"},
		{model.Float32, "transformer.h.0.mlp.swiglu.w2.weight", 0, 0xff800000, model.ErrCheckpoint, "w2.weight"},
		{model.BFloat16, "transformer.h.0.attn.q_proj.weight", 5, 0x4974, ErrUnsupported, "(1 of them)"}, // 1e6
		{model.Float32, "transformer.h.0.attn.q_proj.weight", 5, 0x49742400, ErrUnsupported, "(1 of them)"},
	} {
		if tt.want == ErrUnsupported && precision() == "bf16" {
			continue
		}
		dir, c := checkpoint(t, tt.kind)
		patch(t, dir, c, tt.tensor, tt.at, tt.kind, tt.bits)
		ckpt, mc := modeltest.Open(t, dir)
		e, err := newEngine(ckpt, mc, Config{MaxTokens: 64}, options{stage: 3000})
		if err == nil {
			_ = e.Close()
		}
		if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s of %s: %v", tt.tensor, tt.kind, err)
		}
		_ = ckpt.Close()
	}
}

// patch writes an element of a tensor in a checkpoint's file.
func patch(t *testing.T, dir string, c model.Config, tensor string, at int, d model.DType, bits uint32) {
	t.Helper()
	path := filepath.Join(dir, model.CheckpointName)
	z, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	i := slices.IndexFunc(c.Shapes(), func(s model.TensorShape) bool { return s.Name == tensor })
	for _, f := range z.File {
		if !strings.HasSuffix(f.Name, fmt.Sprintf("/data/%d", i)) {
			continue
		}
		off, err := f.DataOffset()
		if err != nil {
			t.Fatal(err)
		}
		w, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		b := binary.LittleEndian.AppendUint32(nil, bits)[:d.Size()]
		if _, err := w.WriteAt(b, off+int64(at*d.Size())); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("there is no %s", tensor)
}
