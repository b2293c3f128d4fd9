package model

import "fmt"

// TensorShape is a tensor's canonical name and shape.
type TensorShape struct {
	Name  string
	Shape []int
}

// Len is the number of elements.
func (s TensorShape) Len() int { return product(s.Shape) }

// Shapes lists every tensor of the checkpoint, always in the same order.
func (c Config) Shapes() []TensorShape {
	var out []TensorShape
	add := func(name string, shape ...int) { out = append(out, TensorShape{name, shape}) }
	kd, vd := c.Heads*c.K, c.VHeads*c.V
	add("lm_head.weight", c.PaddedVocabSize, c.Width)
	add("transformer.wte.weight", c.PaddedVocabSize, c.Width)
	for i := range c.Layers {
		p := fmt.Sprintf("transformer.h.%d.", i)
		add(p+"norm_1.weight", c.Width)
		add(p+"norm_2.weight", c.Width)
		c.mixerShapes(p+"attn.", kd, vd, add)
		for _, l := range []TensorShape{{"w1", []int{c.Inner, c.Width}}, {"w2", []int{c.Inner, c.Width}},
			{"w3", []int{c.Width, c.Inner}}} {
			add(p+"mlp.swiglu."+l.Name+".weight", l.Shape...)
			if c.Bias {
				add(p+"mlp.swiglu."+l.Name+".bias", l.Shape[0])
			}
		}
	}
	add("transformer.ln_f.weight", c.Width)
	return out
}

// mixerShapes adds one layer's mixer; kd is H*K and vd is HV*V.
func (c Config) mixerShapes(a string, kd, vd int, add func(string, ...int)) {
	add(a+"q_proj.weight", kd, c.Width)
	add(a+"k_proj.weight", kd, c.Width)
	add(a+"v_proj.weight", vd, c.Width)
	if c.ShortConv {
		for _, s := range []TensorShape{{"q", []int{kd}}, {"k", []int{kd}}, {"v", []int{vd}}} {
			add(a+s.Name+"_conv1d.weight", s.Shape[0], 1, c.ConvSize)
			if c.ConvBias {
				add(a+s.Name+"_conv1d.bias", s.Shape[0])
			}
		}
	}
	add(a+"f_proj.0.weight", c.V, c.Width)
	add(a+"f_proj.1.weight", kd, c.V)
	add(a+"b_proj.weight", kd, c.Width)
	add(a+"w_proj.weight", vd, c.Width)
	if c.Kaczmarz {
		add(a+"eta_proj.weight", c.Heads, c.Width)
		add(a+"eta_proj.bias", c.Heads)
	}
	add(a+"A_log", c.Heads)
	add(a+"dt_bias", kd)
	add(a+"g_proj.0.weight", c.V, c.Width)
	add(a+"g_proj.1.weight", vd, c.V)
	add(a+"g_proj.1.bias", vd)
	add(a+"o_norm.weight", c.V)
	add(a+"o_proj.weight", c.Width, vd)
}

// Params is the number of parameters, embeddings included.
func (c Config) Params() int64 {
	var n int64
	for _, s := range c.Shapes() {
		n += int64(s.Len())
	}
	return n
}

// Flops is the floating-point operations of a forward pass's matrix products, for
// one token with a target; the recurrence's own are not among them.
func (c Config) Flops() float64 {
	// the embedding multiplies nothing, the head without padding
	weights := int64(c.Width) * int64(c.VocabSize-2*c.PaddedVocabSize)
	for _, s := range c.Shapes() {
		if len(s.Shape) == 2 {
			weights += int64(s.Len())
		}
	}
	return 2 * float64(weights)
}

func product(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}
