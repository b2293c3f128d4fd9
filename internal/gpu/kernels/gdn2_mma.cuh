// The tensor-core instructions of one warp, and the small products that gdn2_prepare makes of them: operands in
// shared memory as rows, read by ldmatrix; sums in fp32. A sum of m16n8k16 lies in d[4]: rows lane / 4 and, in d[2..3],
// 8 further; columns 2 (lane % 4) + {0, 1}.
#pragma once
#include "gdn2_source.cuh"

namespace gdn2 {

template <typename E>
__device__ __forceinline__ void mma16816(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                                         uint32_t b1);
template <>
__device__ __forceinline__ void mma16816<__nv_bfloat16>(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                                        uint32_t a3, uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void mma16816<__half>(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                                                 uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
template <typename E>
__device__ __forceinline__ void mma(float (&d)[4], const uint4 &a, uint32_t b0, uint32_t b1) {
  mma16816<E>(d, a.x, a.y, a.z, a.w, b0, b1);
}

__device__ __forceinline__ uint4 ldmatrix4(const void *p) {
  uint4 r;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
               : "r"(smem_address(p))
               : "memory");
  return r;
}
__device__ __forceinline__ uint4 ldmatrix4_trans(const void *p) {
  uint4 r;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
               : "r"(smem_address(p))
               : "memory");
  return r;
}
__device__ __forceinline__ void stmatrix4(void *p, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};"
               :
               : "r"(smem_address(p)), "r"(a), "r"(b), "r"(c), "r"(d)
               : "memory");
}
__device__ __forceinline__ void stmatrix4_trans(void *p, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1,%2,%3,%4};"
               :
               : "r"(smem_address(p)), "r"(a), "r"(b), "r"(c), "r"(d)
               : "memory");
}

// Splits x, y into the sum of two elements each.
template <typename E>
__device__ __forceinline__ void split(float x, float y, uint32_t &hi, uint32_t &lo) {
  hi = Pair<E>::pack(x, y);
  lo = Pair<E>::pack(x - Pair<E>::lo(hi), y - Pair<E>::hi(hi));
}
// Splits two sums of 16 x 8, which are then an A operand of 16 x 16.
template <typename E>
__device__ __forceinline__ void split(const float (&d)[2][4], uint32_t (&hi)[4], uint32_t (&lo)[4]) {
#pragma unroll
  for (int i = 0; i < 4; i++) split<E>(d[i / 2][i % 2 * 2], d[i / 2][i % 2 * 2 + 1], hi[i], lo[i]);
}

// 16 rows times 8 columns over K channels. a, b: this lane's row of the first 16 x 16 and 8 x 32.
template <typename E, int K>
__device__ __forceinline__ void multiply(float (&d)[4], const E *a, const E *b) {
  float odd[4] = {};
#pragma unroll
  for (int i = 0; i < 4; i++) d[i] = 0.f;
#pragma unroll 4
  for (int ks = 0; ks < K / 16; ks += 2) {
    const uint4 y = ldmatrix4(b + 16 * ks);
    mma<E>(d, ldmatrix4(a + 16 * ks), y.x, y.y);
    mma<E>(odd, ldmatrix4(a + 16 * ks + 16), y.z, y.w);
  }
#pragma unroll
  for (int i = 0; i < 4; i++) d[i] += odd[i];
}

// d += x (hi + lo)^T of one 16 x 16 block without the product of the two low parts. x is an A operand, split as well.
template <typename E>
__device__ __forceinline__ void multiply_split(float (&d)[2][4], float (&small)[2][4], const uint32_t (&xh)[4],
                                               const uint32_t (&xl)[4], const uint4 &h, const uint4 &l) {
  mma16816<E>(d[0], xh[0], xh[1], xh[2], xh[3], h.x, h.y);
  mma16816<E>(d[1], xh[0], xh[1], xh[2], xh[3], h.z, h.w);
  mma16816<E>(small[0], xl[0], xl[1], xl[2], xl[3], h.x, h.y);
  mma16816<E>(small[1], xl[0], xl[1], xl[2], xl[3], h.z, h.w);
  mma16816<E>(small[0], xh[0], xh[1], xh[2], xh[3], l.x, l.y);
  mma16816<E>(small[1], xh[0], xh[1], xh[2], xh[3], l.z, l.w);
}

// (I+A)^-1 Y for N groups of 16 columns. y: this lane's row of a group, stride: between its rows; hi, lo: this lane's
// row of the inverse's first block. out(r, x): X^T of tokens 16 r.., a group's sums of 16 columns by 2 x 8 tokens.
template <typename E, int N, typename Out>
__device__ __forceinline__ void solve(const E *const (&y)[N], const int (&stride)[N], const E *hi, const E *lo,
                                      Out out) {
  uint4 a[N][4];
#pragma unroll
  for (int n = 0; n < N; n++)
#pragma unroll
    for (int r = 0; r < 4; r++) a[n][r] = ldmatrix4_trans(y[n] + 16 * r * stride[n]);
#pragma unroll
  for (int r = 0; r < 4; r++) {
    float x[N][2][4] = {};
#pragma unroll
    for (int c = 0; c <= r; c++) {
      const uint4 h = ldmatrix4(hi + 16 * r * (C + 8) + 16 * c), l = ldmatrix4(lo + 16 * r * (C + 8) + 16 * c);
#pragma unroll
      for (int n = 0; n < N; n++) mma<E>(x[n][0], a[n][c], h.x, h.y), mma<E>(x[n][1], a[n][c], h.z, h.w);
#pragma unroll
      for (int n = 0; n < N; n++) mma<E>(x[n][0], a[n][c], l.x, l.y), mma<E>(x[n][1], a[n][c], l.z, l.w);
    }
    out(r, x);
  }
}

}  // namespace gdn2
