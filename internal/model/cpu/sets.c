// The choice of an instruction set, the calls through it, and what needs none.
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "kernels.h"

extern const sp_set sp_avx512, sp_avx2, sp_sse2, sp_neon;

const sp_set *sp_set_at(int32_t i) {
#if defined(__x86_64__)
  static const sp_set *const sets[] = {&sp_avx512, &sp_avx2, &sp_sse2};
#elif defined(__aarch64__)
  static const sp_set *const sets[] = {&sp_neon};
#else
#error "the CPU engine has kernels for x86-64 and 64-bit Arm"
#endif
  return i < (int32_t)(sizeof sets / sizeof *sets) ? sets[i] : NULL;
}

int32_t sp_set_runs(const sp_set *set) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (set == &sp_avx2) return avx2;
  if (set == &sp_avx512)
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
#endif
  return 1;
}

void sp_product(const sp_set *set, const float *a, int64_t lda, int64_t rows, const float *w, int64_t k, int64_t n,
                float *c, int64_t ldc, int32_t add) {
  set->product(a, lda, rows, w, k, n, c, ldc, add);
}

void sp_prepare(const sp_set *set, const sp_mixer *m, int64_t t0, int64_t t1, int64_t seq0, const float *hist) {
  set->prepare(m, t0, t1, seq0, hist);
}

void sp_walk(const sp_set *set, const sp_mixer *m, int64_t hv, int64_t v0, int64_t vn, int64_t t0, int64_t t1, float *s,
             float *scratch) {
  set->walk(m, hv, v0, vn, t0, t1, s, scratch);
}

void sp_gate(const sp_set *set, const sp_mixer *m, int64_t t0, int64_t t1, float *g, int64_t ldg) {
  set->gate(m, t0, t1, g, ldg);
}

void sp_rmsnorm(const sp_set *set, const float *x, int64_t ldx, const int32_t *index, const float *w, float *out,
                int64_t ldo, int64_t rows, int64_t d, float eps) {
  set->rmsnorm(x, ldx, index, w, out, ldo, rows, d, eps);
}

void sp_swiglu(const sp_set *set, float *ab, int64_t ld, const float *bias, int64_t rows, int64_t inner) {
  set->swiglu(ab, ld, bias, rows, inner);
}

void sp_add_bias(const sp_set *set, float *x, int64_t ldx, const float *bias, int64_t rows, int64_t d) {
  set->add_bias(x, ldx, bias, rows, d);
}

void sp_loss_start(sp_loss *l, int64_t rows) {
  for (int64_t r = 0; r < rows; r++) l[r] = (sp_loss){-INFINITY, 0, -INFINITY, -1};
}

void sp_loss_block(const sp_set *set, sp_loss *l, const float *logits, int64_t ld, const int32_t *target, int64_t v0,
                   int64_t rows, int64_t cols) {
  set->loss_block(l, logits, ld, target, v0, rows, cols);
}

// ln is the natural logarithm of a positive normal x: x = 2^n f, f in [sqrt(1/2), sqrt(2)),
// ln f = 2 atanh((f - 1) / (f + 1)). No library's log, which differs between machines.
static double ln(double x) {
  if (!(x > 0 && x <= 1.7976931348623157e308)) return x == 0 ? -INFINITY : x > 0 ? x : NAN;
  int64_t bits;
  memcpy(&bits, &x, sizeof bits);
  int64_t n = (bits - 0x3fe6a09e667f3bcd) >> 52;
  bits -= n << 52;
  double f;
  memcpy(&f, &bits, sizeof f);
  const double s = (f - 1) / (f + 1), z = s * s;
  double p = 0;
  for (int i = 23; i > 0; i -= 2) p = p * z + 1.0 / i;
  return (double)n * 0.693147180559945309417 + 2 * s * p;
}

void sp_loss_end(const sp_loss *l, const int32_t *target, float *nll, uint8_t *top1, int64_t rows) {
  for (int64_t r = 0; r < rows; r++) {
    nll[r] = (float)(ln((double)l[r].sum) + ((double)l[r].max - (double)l[r].target));
    top1[r] = l[r].arg == target[r] && isfinite(nll[r]);
  }
}

void sp_map(const sp_set *set, int32_t f, float *x, int64_t n) { set->map(f, x, n); }
