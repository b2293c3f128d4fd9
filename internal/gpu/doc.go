// Package gpu scores batches on an NVIDIA GPU.
//
// With the build tag cuda, an Engine holds a model's weights in fp16 and work
// buffers for MaxTokens tokens on one device, all allocated by New. One OS thread per
// device makes the driver calls. Without the tag, New and Devices return
// ErrUnavailable.
//
// A forward pass, all on one stream (x is the residual stream, fp32):
//
//	embed       x = wte[ids]
//	a layer:
//	  norm      y = rmsnorm(x)                                    fp16
//	  product   p = y [q|k|v|b|w|f0|g0|eta]                       fp16
//	  product   f = p.f0 f_proj.1, z = p.g0 g_proj.1
//	  gates     short convolution, SiLU, gates, Kaczmarz step, l2 norm; on Hopper part of gdn2
//	  gdn2      the recurrence with its gated output norm
//	  product   x += o o_proj
//	  norm      y = rmsnorm(x)
//	  product   h = y [w1|w2];  swiglu;  product  x += a w3
//	loss        rows with a target: rmsnorm, the head in slices of rows, log-sum-exp
//
// A document's scores are the same to the last bit in any batch. No kernel's sum over
// a row depends on the row's position or on the number of rows, the recurrence's chunks
// start at multiples of score.SplitMultiple from the document's start, and each kind of
// product always runs one algorithm, which does not split K. New chooses the fastest
// algorithm among those that agree to the bit with a fixed one.
//
// Letters in shapes: T tokens, N sequences, H key heads, HV value heads, K and V
// their widths, D model width, I inner width.
package gpu
