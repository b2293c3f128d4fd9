// Package cpu scores batches on the CPU, in fp32.
//
// An Engine holds the weights, every linear transposed to [in, out], and work
// buffers for MaxTokens tokens, all of it outside Go's heap. Forward walks the
// layers in stages, each spread over the cores and waited for:
//
//	project   tiles of tokens   rmsnorm, the fused projections q|k|v|b|w|f|g|eta, f_proj.1
//	prepare   tiles of tokens   short convolutions, gates, Kaczmarz step
//	walk      (sequence, value head, 16 columns of V)   the recurrence, token by token
//	finish    tiles of tokens   gate, o_proj, SwiGLU; then the next layer's project
//	loss      tiles of targets  final norm, lm_head in blocks of the vocabulary, log-sum-exp
//
// Matrix products go to a maintained library (gemm), everything else to
// the package's C files.
//
// A token's values depend on its document's tokens alone, to the bit: the sums
// of a row have a fixed order whatever the number of rows, and the recurrence
// goes token by token from the carried state. Batches, their order, splits and
// the number of threads don't show. Another kind of CPU may round otherwise.
//
// Letters in shapes: T tokens, N sequences, H key heads, HV value heads, K and V
// their widths, D model width, I inner width.
package cpu
