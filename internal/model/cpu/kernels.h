// What the CPU engine computes in C. Matrices are row-major float32; ld* are row
// strides in floats. T tokens, H key heads, HV value heads, K and V head widths, D
// width, I inner width.
//
// Each kernel is compiled once for each instruction set, as a set of function
// pointers; sp_* call one of a set's.
#ifndef SP_KERNELS_H
#define SP_KERNELS_H

#include <stdint.h>

// SP_MAX_TAPS bounds the short convolution's width; the engine refuses more.
#define SP_MAX_TAPS 64
// SP_DEPTH is the product's block of the inner sum: its bits depend on it.
#define SP_DEPTH 256

// sp_mixer is one layer's mixer between its two matrix products: shapes, small
// weights, and the batch's buffers. None of its pointers is to Go's heap.
typedef struct {
  int64_t h, hv, k, v, taps;
  // Columns in a row of p: q [H K], k [H K], v [HV V] from 0, then these.
  int64_t b_col, w_col, eta_col;
  int64_t ldp, ldk;
  int32_t l2norm, kaczmarz, neg_eigval;
  float query_scale, kaczmarz_eps, norm_eps;
  const float *conv_weight;  // [taps, 2 H K + HV V]
  const float *conv_bias;    // [2 H K + HV V]
  const float *decay;        // [H], exp(A_log)
  const float *dt_bias;      // [H K]
  const float *step_bias;    // [H], of eta_proj
  const float *gate_bias;    // [HV V]
  const float *o_norm;       // [V]
  const float *zeros;        // [2 H K + HV V]
  // p [T, ldp] are the fused projections. prepare puts b*k*exp(g) where b was and
  // w*v where w was; walk puts o where w was.
  float *p;
  float *q;   // [T, ldk], written by prepare: query_scale * q
  float *kk;  // [T, ldk], written by prepare
  float *e;   // [T, ldk], in: f_proj's output; out: exp(g)
} sp_mixer;

// sp_loss is a row's running log-sum-exp over blocks of the vocabulary.
typedef struct {
  float max, sum, target;  // sum is of exp(logit - max)
  int32_t arg;             // the lowest index of max
} sp_loss;

// sp_set is the kernels of one instruction set.
typedef struct {
  const char *name;
  int32_t panel;  // columns of a panel of packed weights
  int32_t slice;  // columns of V that a walk takes
  void (*product)(const float *, int64_t, int64_t, const float *, int64_t, int64_t, float *, int64_t, int32_t);
  void (*prepare)(const sp_mixer *, int64_t, int64_t, int64_t, const float *);
  void (*walk)(const sp_mixer *, int64_t, int64_t, int64_t, int64_t, int64_t, float *, float *);
  void (*gate)(const sp_mixer *, int64_t, int64_t, float *, int64_t);
  void (*rmsnorm)(const float *, int64_t, const int32_t *, const float *, float *, int64_t, int64_t, int64_t, float);
  void (*swiglu)(float *, int64_t, const float *, int64_t, int64_t);
  void (*add_bias)(float *, int64_t, const float *, int64_t, int64_t);
  void (*loss_block)(sp_loss *, const float *, int64_t, const int32_t *, int64_t, int64_t, int64_t);
  void (*map)(int32_t, float *, int64_t);
} sp_set;

// sp_set_at is the i-th set that was compiled, fastest first; NULL past the last.
const sp_set *sp_set_at(int32_t i);

// sp_set_runs says whether this machine has the set's instructions.
int32_t sp_set_runs(const sp_set *set);

// sp_product is c [rows, n] = a [rows, k] w, or c += a w with add. w is packed (product.h).
// c is written up to the end of the last panel: n rounded up to set->panel.
void sp_product(const sp_set *set, const float *a, int64_t lda, int64_t rows, const float *w, int64_t k, int64_t n,
                float *c, int64_t ldc, int32_t add);

// sp_prepare takes tokens t0..t1-1 of the sequence that starts at row seq0 from
// projections to what the recurrence reads. hist [taps-1, 2 H K + HV V] are the
// projections before seq0, or NULL at a document's start. It writes no row but its own and
// reads q, k, v columns of up to taps-1 rows before t0.
void sp_prepare(const sp_set *set, const sp_mixer *m, int64_t t0, int64_t t1, int64_t seq0, const float *hist);

// sp_walk runs the recurrence of value head hv over tokens t0..t1-1 (t1 > t0), for value
// columns v0..v0+vn-1, vn <= set->slice. s [K, V] is that head's state, read and
// replaced; NULL is zero before and dropped after. scratch [K + 3, set->slice].
void sp_walk(const sp_set *set, const sp_mixer *m, int64_t hv, int64_t v0, int64_t vn, int64_t t0, int64_t t1, float *s,
             float *scratch);

// sp_gate is y = rmsnorm(o, o_norm) * silu(g + gate_bias) over each value head of tokens
// t0..t1-1; o is where walk left it, g and y are [t1-t0, ldg], y in place of g.
void sp_gate(const sp_set *set, const sp_mixer *m, int64_t t0, int64_t t1, float *g, int64_t ldg);

// sp_rmsnorm is out[i] = x[r] / sqrt(mean(x[r]^2) + eps) * w, with r = index[i], or i
// without index. x [., ldx], out [rows, ldo].
void sp_rmsnorm(const sp_set *set, const float *x, int64_t ldx, const int32_t *index, const float *w, float *out,
                int64_t ldo, int64_t rows, int64_t d, float eps);

// sp_swiglu is ab[:, :I] = silu(ab[:, :I] + bias[:I]) * (ab[:, I:] + bias[I:]); bias may be NULL.
void sp_swiglu(const sp_set *set, float *ab, int64_t ld, const float *bias, int64_t rows, int64_t inner);

// sp_add_bias is x[r] += bias.
void sp_add_bias(const sp_set *set, float *x, int64_t ldx, const float *bias, int64_t rows, int64_t d);

void sp_loss_start(sp_loss *l, int64_t rows);

// sp_loss_block takes in logits [rows, cols] of vocabulary entries v0..v0+cols-1.
void sp_loss_block(const sp_set *set, sp_loss *l, const float *logits, int64_t ld, const int32_t *target, int64_t v0,
                   int64_t rows, int64_t cols);

// sp_loss_end gives nll [rows] in nats and whether the target is the arg-max.
void sp_loss_end(const sp_loss *l, const int32_t *target, float *nll, uint8_t *top1, int64_t rows);

// sp_map applies a function of simd.h to x [n] in place, for tests:
// 0 exp, 1 sigmoid, 2 silu, 3 softplus.
void sp_map(const sp_set *set, int32_t f, float *x, int64_t n);

#endif
