// The registers of one instruction set, and the few functions that the model
// needs on them. A translation unit for each set (set_avx512.c, set_avx2.c,
// set_sse2.c, set_neon.c) names the set and includes the kernels, all of which are
// written on vf, one register of SP_W floats.
//
// Bits: every operation is named here, and none is fused or split by the compiler
// (C11 without GNU extensions has no contraction). Sums over a row go to 16 lanes
// whatever the register's width. AVX-512, AVX2 and NEON therefore give the same
// bits; SSE2 has no fused multiply-add and rounds twice.
#ifndef SP_SIMD_H
#define SP_SIMD_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__) && !defined(__clang__) && !defined(__STRICT_ANSI__)
#error "compile with -std=c11: gnu11 lets the compiler fuse multiplications with additions"
#endif
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

#define SP_INLINE static inline __attribute__((always_inline))

// SP_UNROLL: the loop that follows, of few steps known at compile time, becomes
// straight code, so that its vectors are registers.
#ifdef __clang__
#define SP_UNROLL _Pragma("clang loop unroll(full)")
#else
#define SP_UNROLL _Pragma("GCC unroll 16")
#endif

// SP_SUM lanes hold a row's sum.
#define SP_SUM 16

#if defined(SP_AVX512)

#define SP_W 16
typedef __m512 vf;
SP_INLINE vf vset(float x) { return _mm512_set1_ps(x); }
SP_INLINE vf vload(const float *p) { return _mm512_loadu_ps(p); }
SP_INLINE void vstore(float *p, vf v) { _mm512_storeu_ps(p, v); }
SP_INLINE vf vfma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
SP_INLINE vf vmin(vf a, vf b) { return _mm512_min_ps(a, b); }
SP_INLINE vf vmax(vf a, vf b) { return _mm512_max_ps(a, b); }

#elif defined(SP_AVX2)

#define SP_W 8
typedef __m256 vf;
SP_INLINE vf vset(float x) { return _mm256_set1_ps(x); }
SP_INLINE vf vload(const float *p) { return _mm256_loadu_ps(p); }
SP_INLINE void vstore(float *p, vf v) { _mm256_storeu_ps(p, v); }
SP_INLINE vf vfma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
SP_INLINE vf vmin(vf a, vf b) { return _mm256_min_ps(a, b); }
SP_INLINE vf vmax(vf a, vf b) { return _mm256_max_ps(a, b); }

#elif defined(SP_SSE2)

#define SP_W 4
typedef __m128 vf;
SP_INLINE vf vset(float x) { return _mm_set1_ps(x); }
SP_INLINE vf vload(const float *p) { return _mm_loadu_ps(p); }
SP_INLINE void vstore(float *p, vf v) { _mm_storeu_ps(p, v); }
SP_INLINE vf vfma(vf a, vf b, vf c) { return a * b + c; }
SP_INLINE vf vmin(vf a, vf b) { return _mm_min_ps(a, b); }
SP_INLINE vf vmax(vf a, vf b) { return _mm_max_ps(a, b); }

#elif defined(SP_NEON)

#define SP_W 4
typedef float32x4_t vf;
SP_INLINE vf vset(float x) { return vdupq_n_f32(x); }
SP_INLINE vf vload(const float *p) { return vld1q_f32(p); }
SP_INLINE void vstore(float *p, vf v) { vst1q_f32(p, v); }
SP_INLINE vf vfma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
// As x86: the second operand where either is NaN.
SP_INLINE vf vmin(vf a, vf b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
SP_INLINE vf vmax(vf a, vf b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }

#else
#error "name an instruction set"
#endif

typedef int32_t vi __attribute__((vector_size(4 * SP_W)));

// vmin and vmax give their second operand where either is NaN.
// vatmost and vatleast keep a NaN in x.
SP_INLINE vf vatmost(vf x, float hi) { return vmin(vset(hi), x); }
SP_INLINE vf vatleast(vf x, float lo) { return vmax(vset(lo), x); }

// vloadn reads the first n lanes and gives 0 in the others; n may pass SP_W.
// Callers pass the constant SP_W in loops, which leaves a plain load.
SP_INLINE vf vloadn(const float *p, int64_t n) {
  if (n >= SP_W) return vload(p);
  float a[SP_W] = {0};
  for (int64_t i = 0; i < n; i++) a[i] = p[i];
  return vload(a);
}

// vstoren writes the first n lanes; n may pass SP_W.
SP_INLINE void vstoren(float *p, vf v, int64_t n) {
  if (n >= SP_W) {
    vstore(p, v);
    return;
  }
  float a[SP_W];
  vstore(a, v);
  for (int64_t i = 0; i < n; i++) p[i] = a[i];
}

// sum16 is a sum over a row in SP_SUM lanes: element i goes to lane i % SP_SUM.
typedef struct {
  vf lane[SP_SUM / SP_W];
} sum16;

// total adds the lanes as a tree.
SP_INLINE float total(const sum16 *s) {
  float a[SP_SUM];
  SP_UNROLL
  for (int j = 0; j < SP_SUM / SP_W; j++) vstore(a + j * SP_W, s->lane[j]);
  SP_UNROLL
  for (int i = 0; i < 8; i++) a[i] += a[i + 8];
  SP_UNROLL
  for (int i = 0; i < 4; i++) a[i] += a[i + 4];
  return (a[0] + a[2]) + (a[1] + a[3]);
}

SP_INLINE float first(vf v) {
  float a[SP_W];
  vstore(a, v);
  return a[0];
}

// vexp is e^x to about an ulp: below -87 it stays at e^-87 (1.6e-38), above it is
// +inf, NaN is kept. x = n ln 2 + r, |r| <= ln 2 / 2. t holds n + 126 in its low
// bits, so that a shift makes 2^(n-1) of it; the polynomial, Cephes' expf, is doubled.
SP_INLINE vf vexp(vf x) {
  const float magic = 12582912.0f + 126;  // 1.5 * 2^23: adding it rounds to an integer
  x = vatleast(vatmost(x, 89.0f), -86.99f);
  vf t = vfma(x, vset(1.44269504088896341f), vset(magic));
  vf k = t - vset(magic);
  vf r = vfma(k, vset(-0.693359375f), x);
  r = vfma(k, vset(2.12194440e-4f), r);
  vf p = vset(2 * 1.9875691500e-4f);
  p = vfma(p, r, vset(2 * 1.3981999507e-3f));
  p = vfma(p, r, vset(2 * 8.3334519073e-3f));
  p = vfma(p, r, vset(2 * 4.1665795894e-2f));
  p = vfma(p, r, vset(2 * 1.6666665459e-1f));
  p = vfma(p, r, vset(2 * 5.0000001201e-1f));
  p = vfma(p, r, vset(2));
  p = vfma(p, r, vset(2));
  return p * (vf)((vi)t << 23);
}

SP_INLINE vf vneg(vf x) { return (vf)((vi)x ^ (vi)vset(-0.0f)); }

SP_INLINE vf vsigmoid(vf x) { return vset(1) / (vset(1) + vexp(vneg(x))); }

// vsilu is x sigmoid(x).
SP_INLINE vf vsilu(vf x) { return x / (vset(1) + vexp(vneg(x))); }

// vsoftplus is ln(1 + e^x) = max(x, 0) + ln(1 + u), u = e^-|x| in (0, 1], with
// ln(1 + u) = 2 atanh(s), s = u / (2 + u) <= 1/3: small values keep all their bits.
SP_INLINE vf vsoftplus(vf x) {
  vf u = vexp((vf)((vi)x | (vi)vset(-0.0f)));
  vf s = u / (vset(2) + u), z = s * s;
  vf p = vset(1.0f / 17);
  p = vfma(p, z, vset(1.0f / 15));
  p = vfma(p, z, vset(1.0f / 13));
  p = vfma(p, z, vset(1.0f / 11));
  p = vfma(p, z, vset(1.0f / 9));
  p = vfma(p, z, vset(1.0f / 7));
  p = vfma(p, z, vset(1.0f / 5));
  p = vfma(p, z, vset(1.0f / 3));
  p = vfma(p, z, vset(1));
  return vfma(s + s, p, vatleast(x, 0));
}

#endif
