// Small device helpers that every kernel file shares.
#pragma once
#include "act.cuh"
#include <cstdint>

using bf16 = __nv_bfloat16;

constexpr unsigned kFullWarp = 0xffffffffu;

// Eight activations as they lie in 16 bytes.
struct alignas(16) Act8 {
  act2 v[4];
};

__device__ __forceinline__ void unpack8(const Act8 &p, float *f) {
#pragma unroll
  for (int i = 0; i < 4; i++) {
    float2 a = to_floats(p.v[i]);
    f[2 * i] = a.x;
    f[2 * i + 1] = a.y;
  }
}

__device__ __forceinline__ Act8 pack8(const float *f) {
  Act8 p;
#pragma unroll
  for (int i = 0; i < 4; i++) p.v[i] = to_act2(f[2 * i], f[2 * i + 1]);
  return p;
}

// A 16-byte load of data that is read once and need not stay in L1.
__device__ __forceinline__ Act8 load8(const act *p) {
  uint4 u = __ldcs(reinterpret_cast<const uint4 *>(p));
  return *reinterpret_cast<Act8 *>(&u);
}

__device__ __forceinline__ void store8(act *p, const Act8 &v) { *reinterpret_cast<Act8 *>(p) = v; }

__device__ __forceinline__ float rcp_approx(float x) {
#ifdef SURPRISAL_EMULATE
  return 1.0f / x;
#else
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

__device__ __forceinline__ float exp2_approx(float x) {
#ifdef SURPRISAL_EMULATE
  return exp2f(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

// The larger and the smaller of two numbers; NaN if either is NaN.
__device__ __forceinline__ float max_nan(float a, float b) {
#ifdef SURPRISAL_EMULATE
  return a != a || b != b ? a + b : fmaxf(a, b);
#else
  float y;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
  return y;
#endif
}

__device__ __forceinline__ float min_nan(float a, float b) {
#ifdef SURPRISAL_EMULATE
  return a != a || b != b ? a + b : fminf(a, b);
#else
  float y;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
  return y;
#endif
}

constexpr float kLog2e = 1.44269504f, kLn2 = 0.69314718f;

// sigmoid through one exp2 and one reciprocal, relative error below 1e-6; exp2
// overflows to infinity, whose reciprocal is 0, the limit. NaN stays NaN.
__device__ __forceinline__ float sigmoidf(float x) { return rcp_approx(1.0f + exp2_approx(-kLog2e * x)); }

__device__ __forceinline__ float siluf(float x) { return x * sigmoidf(x); }

// log2(1 + 2^t) for every t: max(t, 0) + log2(1 + e), e = 2^-|t|. The second term is e
// times a minimax polynomial on (0, 1] with these coefficients, highest first.
template <int N>
__device__ __forceinline__ float softplus2(float t, const float (&coefficients)[N]) {
  const float e = exp2_approx(-fabsf(t));
  float p = coefficients[0];
#pragma unroll
  for (int i = 1; i < N; i++) p = fmaf(p, e, coefficients[i]);
  return fmaf(e, p, fmaxf(t, 0.0f));
}

// Relative errors: below 2^-19, and with one term less below 2^-16.
__device__ __forceinline__ float softplus2f(float t) {
  return softplus2(
      t, {0.020401184f, -0.095797554f, 0.215284571f, -0.339089066f, 0.477668405f, -0.721159458f, 1.442693233f});
}
__device__ __forceinline__ float softplus2_short(float t) {
  return softplus2(t, {-0.034435907f, 0.146032888f, -0.303036203f, 0.469174065f, -0.720426164f, 1.442682920f});
}

// Sum over a group of W lanes (a power of two), the same in every lane. The order
// is fixed.
template <int W>
__device__ __forceinline__ float group_sum(float x) {
#pragma unroll
  for (int d = W / 2; d > 0; d /= 2) x += __shfl_xor_sync(kFullWarp, x, d);
  return x;
}
