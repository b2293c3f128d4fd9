// Package gpu scores batches on an NVIDIA GPU.
//
// With the build tag cuda, an Engine holds a model's weights in fp16 and work
// buffers for MaxTokens tokens, all of it taken in New, on one device. What talks
// to the driver runs on one OS thread a device. Without the tag, New and Devices
// say that this program lacks CUDA.
//
// A forward pass, all on one stream (x is the residual stream, fp32):
//
//	embed       x = wte[ids]
//	a layer:
//	  norm      y = rmsnorm(x)                                    fp16
//	  product   p = y [q|k|v|b|w|f0|g0|eta]                       fp16
//	  product   f = p.f0 f_proj.1, z = p.g0 g_proj.1
//	  gates     short convolution, SiLU, gates, Kaczmarz step, l2 norm; on Hopper within gdn2
//	  gdn2      the recurrence, its gated output norm
//	  product   x += o o_proj
//	  norm      y = rmsnorm(x)
//	  product   h = y [w1|w2];  swiglu;  product  x += a w3
//	loss        rows with a target: rmsnorm, the head in slices of rows, log-sum-exp
//
// A document's scores are the same to the last bit in any batch: no kernel's sum
// over a row depends on where the row stands or how many there are, chunks of the
// recurrence lie on score.SplitMultiple from the document's start, and a product
// of one kind always runs one algorithm, which does not split K. Algorithms are
// chosen by time, among those that agree to the bit with a fixed one.
//
// Letters in shapes: T tokens, N sequences, H key heads, HV value heads, K and V
// their widths, D model width, I inner width.
package gpu
