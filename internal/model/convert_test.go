package model

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// hostTensor holds vals in a storage of d, in order.
func hostTensor(d DType, shape []int, vals []float64) *Tensor {
	var b []byte
	for _, v := range vals {
		u := math.Float32bits(float32(v))
		switch d {
		case Float32:
			b = binary.LittleEndian.AppendUint32(b, u)
		case BFloat16:
			b = binary.LittleEndian.AppendUint16(b, uint16(u>>16))
		case Float16: // normal halves and zero only
			h := uint16(0)
			if v != 0 {
				h = uint16(u>>31<<15 | (u>>23&255-112)<<10 | u>>13&1023)
			}
			b = binary.LittleEndian.AppendUint16(b, h)
		case Float64:
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
		}
	}
	steps, n := make([]int, len(shape)), 1
	for i := len(shape) - 1; i >= 0; i-- {
		steps[i] = n
		n *= shape[i]
	}
	return &Tensor{Name: "t", Shape: shape, DType: d, c: &Checkpoint{path: "memory"}, data: b, steps: steps,
		contiguous: true}
}

// The generic path and the fast ones agree to the bit, around chunk boundaries too.
func TestFastPathsAgree(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 2, 15, 1023, 1024, 1025, chunkLen - 1, chunkLen, 2*chunkLen + 7} {
		vals := make([]float64, n)
		for i := range vals {
			vals[i] = rng.NormFloat64()
		}
		for _, d := range []DType{Float32, BFloat16, Float16, Float64} {
			if n > 2000 && d > BFloat16 {
				continue
			}
			fast := hostTensor(d, []int{n}, vals)
			plain := *fast
			plain.contiguous = false
			a, b := make([]float32, n), make([]float32, n)
			if err := errors.Join(fast.Float32(a), plain.Float32(b)); err != nil || !slices.Equal(a, b) {
				t.Errorf("%s of %d: float32 differs, %v", d, n, err)
			}
			x, y := make([]uint16, n), make([]uint16, n)
			if err := errors.Join(fast.BFloat16(x), plain.BFloat16(y)); err != nil || !slices.Equal(x, y) {
				t.Errorf("%s of %d: bfloat16 differs, %v", d, n, err)
			}
			if d == BFloat16 && math.Float32frombits(uint32(x[n-1])<<16) != a[n-1] {
				t.Error("bfloat16 is not exact")
			}
		}
	}
}

// TestCopy: a part is what lies in the file, and is refused where Float32 refuses it:
// each pattern of 16 bits at each place of what is looked at together.
func TestCopy(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 3))
	vals := make([]float64, 2*copyLen+7)
	for i := range vals {
		vals[i] = 1 + rng.Float64()
	}
	for _, d := range []DType{Float32, BFloat16, Float16} {
		w := hostTensor(d, []int{len(vals)}, vals)
		for _, part := range [][2]int{{0, len(vals)}, {0, 1}, {3, copyLen}, {copyLen - 1, len(vals)},
			{len(vals), len(vals)}} {
			got := make([]byte, (part[1]-part[0])*d.Size())
			if err := w.Copy(got, part[0]); err != nil || !bytes.Equal(got, w.span(part[0], part[1])) {
				t.Errorf("%s: elements %d to %d differ, %v", d, part[0], part[1], err)
			}
		}
		for _, wrong := range []struct{ bytes, first int }{{d.Size() * len(vals), 1}, {1, 0}, {d.Size(), -1},
			{d.Size(), len(vals)}} {
			if w.Copy(make([]byte, wrong.bytes), wrong.first) == nil {
				t.Errorf("%s: %d bytes from %d on", d, wrong.bytes, wrong.first)
			}
		}
		n := 9
		w = hostTensor(d, []int{n}, make([]float64, n))
		for u := range 1 << 16 {
			at := w.span(u%n, u%n+1)
			binary.LittleEndian.PutUint16(at[len(at)-2:], uint16(u))
			want := w.Float32(make([]float32, n))
			if err := w.Copy(make([]byte, n*d.Size()), 0); (err == nil) != (want == nil) {
				t.Fatalf("%s %04x: %v, but %v as float32", d, u, err, want)
			}
			clear(at)
		}
	}
	for _, w := range []*Tensor{hostTensor(Float64, []int{2}, []float64{1, 2}), {Name: "t", Shape: []int{2},
		DType: Float32, c: &Checkpoint{}}} {
		if w.Stored() || w.Copy(make([]byte, w.DType.Size()), 0) == nil {
			t.Errorf("%s, contiguous %v, is copied", w.DType, w.contiguous)
		}
	}
}

func TestStrides(t *testing.T) {
	vals := make([]float64, 24)
	for i := range vals {
		vals[i] = float64(i)
	}
	tests := []struct {
		name         string
		shape, steps []int
		offset       int
		want         []float32
	}{
		{"transposed", []int{3, 2}, []int{1, 3}, 0, []float32{0, 3, 1, 4, 2, 5}},
		{"offset", []int{2, 2}, []int{2, 1}, 20, []float32{20, 21, 22, 23}},
		{"step 0", []int{2, 3}, []int{0, 2}, 1, []float32{1, 3, 5, 1, 3, 5}},
		{"all the same", []int{4}, []int{0}, 23, []float32{23, 23, 23, 23}},
		{"three dimensions", []int{2, 1, 3}, []int{12, 99, 4}, 0, []float32{0, 4, 8, 12, 16, 20}},
		{"gaps", []int{3}, []int{11}, 1, []float32{1, 12, 23}},
	}
	for _, tt := range tests {
		src := hostTensor(Float32, []int{24}, vals)
		ref := &tensorRef{&storageRef{dtype: Float32, numel: 24}, tt.offset, tt.shape, tt.steps}
		w, err := src.c.newTensor(TensorShape{"t", tt.shape}, ref, func(string) ([]byte, error) {
			return src.data,
				nil
		})
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		got := make([]float32, len(tt.want))
		if err := w.Float32(got); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, %v", tt.name, got, err)
		}
		if _, ok := w.Float32View(); ok != (tt.name == "offset") {
			t.Errorf("%s: view is %v", tt.name, ok)
		}
	}
	big := math.MaxInt
	for _, ref := range []*tensorRef{
		{&storageRef{dtype: Float32, numel: 24}, 24, []int{1}, []int{1}},
		{&storageRef{dtype: Float32, numel: 24}, 21, []int{2, 2}, []int{2, 1}},
		{&storageRef{dtype: Float32, numel: 24}, 0, []int{3}, []int{12}},
		{&storageRef{dtype: Float32, numel: 24}, 0, []int{3, 2}, []int{big, 1}},
		{&storageRef{dtype: Float32, numel: 24}, big, []int{2}, []int{big}},
		{&storageRef{dtype: Float32, numel: 25}, 0, []int{2}, []int{1}},
		{&storageRef{dtype: Float32, numel: big}, 0, []int{2}, []int{1}},
		{&storageRef{dtype: Float32, numel: 20, base: 5}, 0, []int{2}, []int{1}},
		{&storageRef{dtype: Float32, numel: 2, base: big}, 0, []int{2}, []int{1}},
		{&storageRef{dtype: Float32}, 0, []int{1}, []int{1}},
		{&storageRef{dtype: Int64, numel: 2}, 0, []int{2}, []int{1}},
	} {
		src := hostTensor(Float32, []int{24}, vals)
		if _, err := src.c.newTensor(TensorShape{"t", ref.size}, ref, func(string) ([]byte, error) {
			return src.data,
				nil
		}); err == nil {
			t.Errorf("accepted %+v in %+v", ref, ref.storage)
		}
	}
}

func TestNotFiniteIsRefused(t *testing.T) {
	for _, d := range []DType{Float32, BFloat16, Float64} {
		for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
			for _, contiguous := range []bool{true, false} {
				w := hostTensor(d, []int{3}, []float64{1, v, 2})
				w.contiguous = contiguous
				if err := w.Float32(make([]float32, 3)); !errors.Is(err, ErrCheckpoint) {
					t.Errorf("%s %v: %v", d, v, err)
				}
				if err := w.BFloat16(make([]uint16, 3)); !errors.Is(err, ErrCheckpoint) {
					t.Errorf("%s %v as bfloat16: %v", d, v, err)
				}
				if _, ok := w.Float32View(); ok {
					t.Errorf("%s %v: view", d, v)
				}
			}
		}
	}
	w := hostTensor(Float64, []int{1}, []float64{1e39})
	if err := w.Float32(make([]float32, 1)); err == nil {
		t.Error("1e39 as float32")
	}
	w = hostTensor(Float32, []int{1}, []float64{math.MaxFloat32})
	if err := w.BFloat16(make([]uint16, 1)); !errors.Is(err, errTooLarge) {
		t.Errorf("MaxFloat32 as bfloat16: %v", err)
	}
}

func TestRounding(t *testing.T) {
	for u, want := range map[uint32]uint16{
		0x3f800000: 0x3f80, 0x3f807fff: 0x3f80, 0x3f808000: 0x3f80, 0x3f808001: 0x3f81, 0x3f818000: 0x3f82,
		0xbf818000: 0xbf82,
		0x00000001: 0, 0x00008001: 1, 0x80000000: 0x8000, 0x7f7f7fff: 0x7f7f, 0x3fffffff: 0x4000,
	} {
		if got := roundBFloat16(u); got != want {
			t.Errorf("bfloat16 of %08x is %04x, want %04x", u, got, want)
		}
	}
	for h, want := range map[uint16]float32{
		0: 0, 1: 0x1p-24, 0x03ff: 1023 * 0x1p-24, 0x0400: 0x1p-14, 0x3c00: 1, 0xc000: -2, 0x7bff: 65504,
		0x8001: -0x1p-24, 0x3555: 0.333251953125,
	} {
		if got := halfToFloat(h); got != want {
			t.Errorf("half %04x is %v, want %v", h, got, want)
		}
	}
	if !math.IsInf(float64(halfToFloat(0x7c00)), 1) || !math.IsNaN(float64(halfToFloat(0x7e00))) {
		t.Error("half infinity or NaN is lost")
	}
}
