// SwiGLU's product and activation in one kernel; sm_90a.
//
//   y [M, I] = silu(h1 + b1) * (h2 + b2),  h = x [M, K] w [2 I, K]^T, 8 rows of w1 and 8 of w2 alternating in w
//
// The product is product.cuh's. A tile's 256 columns of h become 128 of y, stored through shared memory and TMA.
//
// y act, dense, I a multiple of 8; past I nothing is written. maps: product.cuh's two, then y (box 64 x 64, 128-byte
// swizzle). bias: b1|b2 fp32 [2 I]. Launch: as product.cuh says, 231,424 bytes. columns: 2 I.
//
// Roofline at 32,768 tokens of the 1.3B model: 1.87 TFLOP, 2.4 ms at the 790 TFLOP/s that cuBLAS reaches on large
// products of an H200 before its power limit, 2.65 ms at the 710 TFLOP/s under it. The kernel avoids writing and
// reading 813 MB between product and activation, 0.39 ms at 4.2 TB/s.
#include "product.cuh"

namespace swiglu {

constexpr int kOut = 64 * 128 * 2;  // a warpgroup's: 64 rows of 128 columns of y
static_assert(product::shared_bytes(2 * kOut) == 231424, "the launch says so");

__device__ __forceinline__ void put(const CUtensorMap *map, int column, int row, uint32_t from) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%1, %2}], [%3];"
               :
               : "l"(map), "r"(column), "r"(row), "r"(from)
               : "memory");
}
__device__ __forceinline__ void put_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
__device__ __forceinline__ void put_wait_read() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }
__device__ __forceinline__ void put_wait() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }
__device__ __forceinline__ void warpgroup_sync(int id) { asm volatile("bar.sync %0, 128;" ::"r"(id) : "memory"); }
__device__ __forceinline__ void store_matrices(uint32_t to, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};"
               :
               : "r"(to), "r"(a), "r"(b), "r"(c), "r"(d)
               : "memory");
}

__device__ __forceinline__ uint32_t pack(float a, float b) {
  act2 v = to_act2(a, b);
  return *reinterpret_cast<uint32_t *>(&v);
}

// silu(a0) b0, silu(a1) b1, with one reciprocal for both sigmoids. Below -40 silu is 0 in any 16-bit type; NaN stays
// NaN.
__device__ __forceinline__ uint32_t activate(float a0, float a1, float b0, float b1) {
  float e0, e1, r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e0) : "f"(fmaxf(a0, -40.f) * -1.4426950408889634f));
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e1) : "f"(fmaxf(a1, -40.f) * -1.4426950408889634f));
  e0 += 1.f, e1 += 1.f;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(e0 * e1));
  return pack(a0 * b0 * (r * e1), a1 * b1 * (r * e0));
}

template <bool Bias>
struct Activation {
  const CUtensorMap *y;
  const float *bias;
  int inner;

  __device__ __forceinline__ void begin(const product::Place &, product::Tile) {}

  __device__ __forceinline__ void finish(float (&d)[128], const product::Place &at, product::Tile t) {
    const uint32_t out = at.extra + at.group * kOut;
    const bool leader = at.warp == 0 && at.lane == 0;
    // stmatrix: this lane provides the address of row `row` of matrix lane / 8.
    const int row = at.warp * 16 + (at.lane / 8 % 2) * 8 + at.lane % 8, first = t.columns / 2;
    if (leader) put_wait_read();  // the last tile's
    warpgroup_sync(1 + at.group);
#pragma unroll
    for (int p = 0; p < 16; p += 2) {  // eights of y's columns, in twos
      uint32_t v[4];
#pragma unroll
      for (int q = 0; q < 2; q++) {
        float *a = &d[8 * (p + q)], *b = a + 4;
        if constexpr (Bias) {
          const int column = first + 8 * (p + q) + 2 * at.quad;
          if (column < inner) {
            const float2 b1 = *reinterpret_cast<const float2 *>(bias + column),
                         b2 = *reinterpret_cast<const float2 *>(bias + inner + column);
            a[0] += b1.x, a[1] += b1.y, a[2] += b1.x, a[3] += b1.y;
            b[0] += b2.x, b[1] += b2.y, b[2] += b2.x, b[3] += b2.y;
          }
        }
        v[2 * q] = activate(a[0], a[1], b[0], b[1]), v[2 * q + 1] = activate(a[2], a[3], b[2], b[3]);
      }
      const int piece = p + at.lane / 16;
      store_matrices(out + piece / 8 * 8192 + row * 128 + ((piece % 8) ^ (row & 7)) * 16, v[0], v[1], v[2], v[3]);
    }
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    warpgroup_sync(1 + at.group);
    if (leader) {
      put(y, first, t.rows + at.group * 64, out);
      put(y, first + 64, t.rows + at.group * 64, out + 8192);
      put_commit();
    }
  }

  __device__ __forceinline__ void end(const product::Place &at) {
    if (at.warp == 0 && at.lane == 0) put_wait();
  }
};

}  // namespace swiglu

#define SWIGLU_PRODUCT(NAME, BIAS)                                                                \
  extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(384, 1)                  \
      NAME(const CUtensorMap *maps, const float *bias, int pairs, int columns, int K) {           \
    product::run(maps, pairs, columns, K, swiglu::Activation<BIAS>{maps + 2, bias, columns / 2}); \
  }
SWIGLU_PRODUCT(swiglu_product, false)
SWIGLU_PRODUCT(swiglu_product_bias, true)
