// Definitions shared by the GDN-2 recurrence's kernels: sizes, record layouts, element types.
//
// One head, one document, state S [K, V], fp32, zero at the document's start:
//   S <- diag(exp g_t) S;  S <- S - k_t (bk_t^T S) + k_t wv_t^T
//   o_t = scale q_t^T S;  y_t = rmsnorm(o_t) o_norm silu(gate_t)
//
// In chunks of C = 64 tokens from the document's start, with G the running sum of g inside the chunk
// (docs/kernels/recurrence.md):
//   A[t,s] = sum_i bk_t k_s exp(G_t - G_s), s < t;   P[t,s] = scale sum_i q_t k_s exp(G_t - G_s), s <= t
//   X = (I+A)^-1 (bk exp G), Z = (I+A)^-1 wv
//   U = Z - X S;  O = scale (q exp G) S + P U;  S <- diag(exp G_C) S + (k exp(G_C - G))^T U
// prepare computes X, Z, P and the decayed q and k of all chunks in parallel; walk visits a document's chunks in order.
#pragma once
#include "act.cuh"
#include <stdint.h>

namespace gdn2 {

constexpr int C = 64;  // tokens in a chunk
// Parts of a chunk's second number: its tokens; whether it begins its document in the batch.
constexpr int chunk_tokens = 127, chunk_starts = 128;

// A key record, one per (chunk, key head), which prepare writes and walk copies to shared memory: three operand tiles
// of K x 64 elements, P of 64 x 64, and the decay over the whole chunk, fp32 [K]. Tiles consist of rows of 128 bytes
// whose 16-byte pieces are at (piece ^ (row & 7)), the 128-byte swizzle of wgmma descriptors. X, negated: row =
// channel, column = token. Q, K: per half of 64 channels, row = token, column = channel. P: row = t, column = s.
template <int K>
struct KeyRecord {
  static constexpr int tile = K * C * 2;
  static constexpr int x = 0, q = tile, k = 2 * tile, p = 3 * tile, decay = p + C * C * 2;
  static constexpr int bytes = decay + K * 4;
};
// A value record, one a (chunk, value head): Z in the order of the accumulator registers that start from it. For every
// 16 values: 4 pieces of 16 tokens, each 32 lanes of 16 bytes; lane l has values l/4 and l/4+8 at tokens (l%4)*2+{0,1}
// and 8 on.
__host__ __device__ constexpr int64_t value_record_bytes(int V) { return int64_t(V) * C * 2; }

// Element types: pairs in one register and their conversions.
template <typename E>
struct Pair;
template <>
struct Pair<__nv_bfloat16> {
  static __device__ __forceinline__ uint32_t pack(float lo, float hi) {
    __nv_bfloat162 h = __floats2bfloat162_rn(lo, hi);
    return *reinterpret_cast<uint32_t *>(&h);
  }
  static __device__ __forceinline__ uint32_t pack_factors(float lo, float hi) { return pack(lo, hi); }
  static __device__ __forceinline__ uint32_t mul(uint32_t x, uint32_t y) {
    __nv_bfloat162 z = __hmul2(*reinterpret_cast<__nv_bfloat162 *>(&x), *reinterpret_cast<__nv_bfloat162 *>(&y));
    return *reinterpret_cast<uint32_t *>(&z);
  }
  static __device__ __forceinline__ float lo(uint32_t x) { return __uint_as_float(x << 16); }
  static __device__ __forceinline__ float hi(uint32_t x) { return __uint_as_float(x & 0xffff0000u); }
};
template <>
struct Pair<__half> {
  // Saturates; NaN stays NaN.
  static __device__ __forceinline__ uint32_t pack(float lo, float hi) { return pack_half(lo, hi); }
  // Numbers in [0, 1]: nothing to saturate.
  static __device__ __forceinline__ uint32_t pack_factors(float lo, float hi) {
    __half2 h = __floats2half2_rn(lo, hi);
    return *reinterpret_cast<uint32_t *>(&h);
  }
  static __device__ __forceinline__ uint32_t mul(uint32_t x, uint32_t y) {
    __half2 z = __hmul2(*reinterpret_cast<__half2 *>(&x), *reinterpret_cast<__half2 *>(&y));
    return *reinterpret_cast<uint32_t *>(&z);
  }
  static __device__ __forceinline__ float lo(uint32_t x) { return __low2float(*reinterpret_cast<__half2 *>(&x)); }
  static __device__ __forceinline__ float hi(uint32_t x) { return __high2float(*reinterpret_cast<__half2 *>(&x)); }
};
template <typename E>
__device__ __forceinline__ float to_float(E x) {
  return static_cast<float>(x);
}

__device__ __forceinline__ float silu(float x) { return __fdividef(x, 1.f + __expf(-x)); }

__device__ __forceinline__ const float *state_at(const float *const *table, int doc, int64_t offset) {
  if (table == nullptr || table[doc] == nullptr) return nullptr;
  return table[doc] + offset;
}
__device__ __forceinline__ float *state_at(float *const *table, int doc, int64_t offset) {
  if (table == nullptr || table[doc] == nullptr) return nullptr;
  return table[doc] + offset;
}

}  // namespace gdn2
