package cpu

/*
#include "kernels.h"
*/
import "C"

import (
	"fmt"
	"math"

	"surprisal/internal/model"
)

// source reads a checkpoint's tensors by name.
type source interface {
	// read gives the tensor's n elements, valid until the next read.
	read(name string, n int) ([]float32, error)
}

// fromCheckpoint reads a checkpoint on disk. It copies through scratch, of the
// largest tensor's size, instead of looking at the mapped file: a file cut short
// meanwhile is then an error.
type fromCheckpoint struct {
	ckpt    *model.Checkpoint
	scratch []float32
}

func (s *fromCheckpoint) read(name string, n int) ([]float32, error) {
	t, err := s.ckpt.Tensor(name)
	if err != nil {
		return nil, err
	}
	if t.Len() != n || n > len(s.scratch) {
		return nil, fmt.Errorf("tensor %s has %d elements, the config asks for %d", name, t.Len(), n)
	}
	if err := t.Float32(s.scratch[:n]); err != nil {
		return nil, err
	}
	return s.scratch[:n], nil
}

// layer is one block's weights.
type layer struct {
	norm1, norm2 []float32 // [D]
	proj         matrix    // [D, columns.total], all that reads the mixer's input
	decay        matrix    // f_proj.1 [V, H K]
	gate         matrix    // g_proj.1 [V, HV V]
	out          matrix    // o_proj [HV V, D]
	up           matrix    // w1 | w2 [D, 2 I]
	down         matrix    // w3 [I, D]
	upBias       []float32 // [2 I], or nil
	downBias     []float32 // [D], or nil
	convWeight   []float32 // [taps, 2 H K + HV V]
	convBias     []float32 // [2 H K + HV V]
	decayRate    []float32 // exp(A_log) [H]
	dtBias       []float32 // [H K]
	stepBias     []float32 // eta_proj.bias [H], or nil
	gateBias     []float32 // [HV V]
	outNorm      []float32 // [V]
}

// columns says where each projection stands in the fused one.
type columns struct{ q, k, v, b, w, f, g, eta, total int }

func columnsOf(c model.Config) columns {
	kd, vd := c.Heads*c.K, c.VHeads*c.V
	f := 3*kd + 2*vd
	o := columns{k: kd, v: 2 * kd, b: 2*kd + vd, w: 3*kd + vd, f: f, g: f + c.V, eta: f + 2*c.V}
	o.total = o.eta
	if c.Kaczmarz {
		o.total += c.Heads
	}
	return o
}

// taps is the short convolution's width, 0 without one.
func taps(c model.Config) int {
	if !c.ShortConv {
		return 0
	}
	return c.ConvSize
}

// loader fills weights tensor by tensor; its first error stops it.
type loader struct {
	src source
	mem *memory
	set *C.sp_set
	err error
}

func (l *loader) read(name string, n int) []float32 {
	if l.err == nil {
		l.err = l.mem.err
	}
	if l.err != nil {
		return nil
	}
	v, err := l.src.read(name, n)
	if err != nil {
		l.err = err
		return nil
	}
	return v
}

// vector gives a copy of a whole tensor.
func (l *loader) vector(name string, n int) []float32 {
	v := l.mem.floats(n)
	copy(v, l.read(name, n))
	return v
}

// columns writes the linear of that name [out, m.in] to m's columns from col.
func (l *loader) columns(m matrix, col int, name string, out int) {
	if v := l.read(name, out*m.in); v != nil {
		m.setColumns(col, v, out)
	}
}

func (l *loader) linear(name string, in, out int) matrix {
	m := l.mem.matrix(l.set, in, out)
	l.columns(m, 0, name, out)
	return m
}

func (l *loader) layer(c model.Config, i int) layer {
	p := fmt.Sprintf("transformer.h.%d.", i)
	a, m := p+"attn.", p+"mlp.swiglu."
	col, kd, vd := columnsOf(c), c.Heads*c.K, c.VHeads*c.V
	y := layer{norm1: l.vector(p+"norm_1.weight", c.Width), norm2: l.vector(p+"norm_2.weight", c.Width)}
	y.proj = l.mem.matrix(l.set, c.Width, col.total)
	for _, part := range []struct {
		name     string
		col, out int
	}{
		{"q_proj", col.q, kd}, {"k_proj", col.k, kd}, {"v_proj", col.v, vd}, {"b_proj", col.b, kd},
		{"w_proj", col.w, vd},
		{"f_proj.0", col.f, c.V}, {"g_proj.0", col.g, c.V}, {"eta_proj", col.eta, col.total - col.eta},
	} {
		if part.out > 0 {
			l.columns(y.proj, part.col, a+part.name+".weight", part.out)
		}
	}
	y.decay, y.gate = l.linear(a+"f_proj.1.weight", c.V, kd), l.linear(a+"g_proj.1.weight", c.V, vd)
	y.out = l.linear(a+"o_proj.weight", vd, c.Width)
	y.up = l.mem.matrix(l.set, c.Width, 2*c.Inner)
	l.columns(y.up, 0, m+"w1.weight", c.Inner)
	l.columns(y.up, c.Inner, m+"w2.weight", c.Inner)
	y.down = l.linear(m+"w3.weight", c.Inner, c.Width)
	if c.Bias {
		y.upBias = l.mem.floats(2 * c.Inner)
		if l.mem.err == nil {
			copy(y.upBias, l.read(m+"w1.bias", c.Inner))
			copy(y.upBias[c.Inner:], l.read(m+"w2.bias", c.Inner))
		}
		y.downBias = l.vector(m+"w3.bias", c.Width)
	}
	l.conv(c, a, &y)
	y.decayRate, y.dtBias = l.vector(a+"A_log", c.Heads), l.vector(a+"dt_bias", kd)
	for h, v := range y.decayRate {
		y.decayRate[h] = float32(math.Exp(float64(v)))
	}
	if c.Kaczmarz {
		y.stepBias = l.vector(a+"eta_proj.bias", c.Heads)
	}
	y.gateBias, y.outNorm = l.vector(a+"g_proj.1.bias", vd), l.vector(a+"o_norm.weight", c.V)
	return y
}

// conv reads the three short convolutions as one over the columns q|k|v.
func (l *loader) conv(c model.Config, a string, y *layer) {
	kd, vd := c.Heads*c.K, c.VHeads*c.V
	channels, n := 2*kd+vd, taps(c)
	y.convWeight, y.convBias = l.mem.floats(n*channels), l.mem.floats(channels)
	if n == 0 {
		return
	}
	for _, part := range []struct {
		name     string
		col, out int
	}{{"q", 0, kd}, {"k", kd, kd}, {"v", 2 * kd, vd}} {
		for i, v := range l.read(a+part.name+"_conv1d.weight", part.out*n) {
			y.convWeight[i%n*channels+part.col+i/n] = v
		}
		if c.ConvBias {
			copy(y.convBias[part.col:], l.read(a+part.name+"_conv1d.bias", part.out))
		}
	}
}

// head reads lm_head's first VocabSize rows as blocks of the vocabulary.
func (l *loader) head(c model.Config) []matrix {
	rows := l.read("lm_head.weight", c.PaddedVocabSize*c.Width)
	var blocks []matrix
	for v := 0; v < c.VocabSize && rows != nil; v += vocabBlock {
		m := l.mem.matrix(l.set, c.Width, min(vocabBlock, c.VocabSize-v))
		if m.data == nil {
			break
		}
		m.setColumns(0, rows[v*c.Width:], m.out)
		blocks = append(blocks, m)
	}
	return blocks
}

// embedding reads wte's first VocabSize rows.
func (l *loader) embedding(c model.Config) []float32 {
	e := l.mem.floats(c.VocabSize * c.Width)
	copy(e, l.read("transformer.wte.weight", c.PaddedVocabSize*c.Width))
	return e
}
