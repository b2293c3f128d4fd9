// Package cpu scores batches on the CPU, in fp32.
//
// An Engine holds the weights, every linear packed for its products, and work
// buffers for MaxTokens tokens, all of it outside Go's heap. Forward walks the
// layers in stages, each spread over the cores and waited for:
//
//	project   tiles of tokens   rmsnorm, the fused projections q|k|v|b|w|f|g|eta, f_proj.1
//	prepare   tiles of tokens   short convolutions, gates, Kaczmarz step
//	walk      (sequence, value head, slice of V)   the recurrence, token by token
//	finish    tiles of tokens   gate, o_proj, SwiGLU; then the next layer's project
//	loss      tiles of targets  final norm, lm_head in blocks of the vocabulary, log-sum-exp
//
// The kernels are C, compiled once for each instruction set (AVX-512, AVX2 with
// FMA, SSE2, NEON): set_*.c include the same sources with the set's registers. New
// takes the fastest set that the machine has, or the one that SURPRISAL_CPU_SET names.
//
// A token's values depend on its document's tokens alone, to the bit: the sums
// of a row have a fixed order whatever the number of rows, and the recurrence
// goes token by token from the carried state. Batches, their order, splits and
// the number of threads don't show. AVX-512, AVX2 and NEON give the same bits; SSE2,
// without a fused multiply-add, rounds otherwise.
//
// Letters in shapes: T tokens, N sequences, H key heads, HV value heads, K and V
// their widths, D model width, I inner width.
package cpu
