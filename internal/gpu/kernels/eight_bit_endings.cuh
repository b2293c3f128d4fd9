// Epilogues of the eight-bit product: they work on a tile's sums in registers; sm_90a.
//
//   Plain     y = x w^T rs cs                         fp16. rs [M], cs [N]: scales of the rows of x and of w
//   SwiGlu    y = silu(h1) h2, h1|h2 = x w^T rs cs    s8, with a scale for each 128 columns of a row, ys [I / 128, M]
//   Residual  r += sum over blocks, times cs          fp32. Without cs if w has block scales
//
// The rows of w are stored in an order that makes each thread's columns adjacent in the output (position_* below), so
// that it stores 16 bytes at a time from registers. Positions without a column have zeros in w and cs.
//
// y is quantized as round-to-nearest-even(y 127 / max |y|), with the scale max |y| / 127. A row of x whose scale is not
// finite gives scales that are not finite.
#pragma once
#include "eight_bit_product.cuh"
#include "eight_bit_quantize.cuh"

namespace eight {

// A tile's column scales. Each thread loads two before the main loop and writes them to shared memory after it. There
// are two buffers, so one barrier for each tile is enough.
template <typename S>
struct ColumnScales {
  float mine[2];
  __device__ __forceinline__ void load(const float *cs, const Place &at, Tile t) {
    const int i = at.warp * 32 + at.lane;
    mine[0] = cs[t.columns + i], mine[1] = 128 + i < S::kN ? cs[t.columns + 128 + i] : 0;
  }
  // Returns the address of the thread's first scale.
  __device__ __forceinline__ uint32_t share(const Place &at, int n) {
    const uint32_t to = at.extra + (2 * at.group + n % 2) * (S::kN * 4);
    const int i = at.warp * 32 + at.lane;
    store_shared(to + i * 4, mine[0]);
    if (128 + i < S::kN) store_shared(to + 512 + i * 4, mine[1]);
    group_sync(at.group);
    return to + at.quad * 8;
  }
};

template <typename S>
struct Plain {
  __half *y;
  const float *rs, *cs;
  int columns;  // of y, a multiple of 8
  ColumnScales<S> scales;
  float r[2];
  uint32_t c;

  __device__ __forceinline__ void begin(const Place &at, Tile t) {
    scales.load(cs, at, t);
    r[0] = rs[t.rows + at.row()], r[1] = rs[t.rows + at.row() + 8];
  }
  __device__ __forceinline__ void start(const Place &at, int n) { c = scales.share(at, n); }
  template <int Part, typename V>
  __device__ __forceinline__ void half(V (&d)[S::kN / 4], const Place &at, Tile t) {
#pragma unroll
    for (int g = 0; g < S::kN / 64; g++) {
      uint4 out[2];
      uint32_t *words[2] = {&out[0].x, &out[1].x};
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const float2 s = load_shared2(c + Part * (S::kN * 2) + (4 * g + j) * 32);
        const V *v = d + 4 * (4 * g + j);
#pragma unroll
        for (int h = 0; h < 2; h++) {
          const __half2 a = __floats2half2_rn(float(v[2 * h]) * r[h] * s.x, float(v[2 * h + 1]) * r[h] * s.y);
          words[h][j] = *reinterpret_cast<const uint32_t *>(&a);
        }
      }
      const int column = t.columns + Part * (S::kN / 2) + 32 * g + 8 * at.quad;
      if (column < columns) {
        __half *to = y + int64_t(t.rows + at.row()) * columns + column;
        *reinterpret_cast<uint4 *>(to) = out[0];
        *reinterpret_cast<uint4 *>(to + 8ll * columns) = out[1];
      }
    }
  }
  __device__ __forceinline__ void end(const Place &, Tile) {}
};

// x's row scale is a factor of both h1 and h2, so it goes into y's scale. Only the exponent needs it for each element.
template <typename S>
struct SwiGlu {
  int8_t *y;
  float *ys;
  const float *rs, *cs;
  int inner;  // a multiple of 16
  int64_t M;
  ColumnScales<S> scales;
  float r[2], v[2][32], max[2];
  uint32_t c;

  __device__ __forceinline__ void begin(const Place &at, Tile t) {
    scales.load(cs, at, t);
    r[0] = rs[t.rows + at.row()], r[1] = rs[t.rows + at.row() + 8];
  }
  // Replaces a by silu(a) b, up to the row scale; both sigmoids use one reciprocal. exp(-h1) is 2^(a x).
  static __device__ __forceinline__ void activate(float (&a)[2], float b0, float b1, float x) {
    float e0, e1, q;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e0) : "f"(fminf(a[0] * x, 57.f)));
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e1) : "f"(fminf(a[1] * x, 57.f)));
    e0 += 1.f, e1 += 1.f;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(q) : "f"(e0 * e1));
    a[0] = a[0] * b0 * (q * e1), a[1] = a[1] * b1 * (q * e0);
  }
  __device__ __forceinline__ void start(const Place &at, int n) {
    static_assert(S::kN == 256, "a scale for 128 columns of y");
    c = scales.share(at, n);
    max[0] = max[1] = 0;
  }
  template <int Part>
  __device__ __forceinline__ void half(int (&d)[S::kN / 4], const Place &at, Tile) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const uint32_t from = c + Part * 512 + i * 64;
      const float2 c1 = load_shared2(from), c2 = load_shared2(from + 32);
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const int *a = d + 8 * i + 2 * h;
        float two[2] = {float(a[0]) * c1.x, float(a[1]) * c1.y};
        activate(two, float(a[4]) * c2.x, float(a[5]) * c2.y, r[h] * -1.4426950408889634f);
        v[h][16 * Part + 2 * i] = two[0], v[h][16 * Part + 2 * i + 1] = two[1];
        max[h] = fmaxf(max[h], fmaxf(fabsf(two[0]), fabsf(two[1])));
      }
    }
  }
  __device__ __forceinline__ void end(const Place &at, Tile t) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float m = max[h];
      m = fmaxf(m, __shfl_xor_sync(~0u, m, 1));
      m = fmaxf(m, __shfl_xor_sync(~0u, m, 2));
      const float inverse = m > 1e-30f ? 127.f / m : 0.f;
      const int row = t.rows + at.row() + 8 * h;
      if (at.quad == 0) ys[t.columns / 256 * M + row] = m * (r[h] * r[h] / 127.f);  // NaN if the row scale is
#pragma unroll
      for (int chunk = 0; chunk < 2; chunk++) {
        uint32_t words[4];
#pragma unroll
        for (int w = 0; w < 4; w++) {
          uint32_t b[4];
#pragma unroll
          for (int e = 0; e < 4; e++)
            b[e] = __float_as_uint(
                fmaf(v[h][16 * chunk + 4 * w + e], inverse, 12582912.f));  // the low byte, rounded to nearest even
          words[w] = __byte_perm(__byte_perm(b[0], b[1], 0x0040), __byte_perm(b[2], b[3], 0x0040), 0x5410);
        }
        const int column = t.columns / 2 + 64 * chunk + 16 * at.quad;
        if (column < inner)
          *reinterpret_cast<uint4 *>(y + int64_t(row) * inner + column) =
              make_uint4(words[0], words[1], words[2], words[3]);
      }
    }
  }
};

// The L2 cache adds; each element is added to once, so the result doesn't depend on order.
template <typename S, bool WScales>
struct Residual {
  float *x;
  const float *cs;
  int columns;  // a multiple of 4
  ColumnScales<S> scales;

  __device__ __forceinline__ void begin(const Place &at, Tile t) {
    if constexpr (!WScales) scales.load(cs, at, t);
  }
  __device__ __forceinline__ void finish(float (&d)[S::kN / 2], const Place &at, Tile t, int n) {
    uint32_t c = 0;
    if constexpr (!WScales) c = scales.share(at, n);
#pragma unroll
    for (int g = 0; g < S::kN / 16; g++) {
      float2 s[2];
      if constexpr (!WScales) s[0] = load_shared2(c + 2 * g * 32), s[1] = load_shared2(c + (2 * g + 1) * 32);
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const float *v = d + 8 * g + 2 * h;
        float4 a = make_float4(v[0], v[1], v[4], v[5]);
        if constexpr (!WScales)
          a = make_float4(__fmul_rn(a.x, s[0].x), __fmul_rn(a.y, s[0].y), __fmul_rn(a.z, s[1].x),
                          __fmul_rn(a.w, s[1].y));
        const int column = t.columns + 16 * g + 4 * at.quad;
        float *to = x + int64_t(t.rows + at.row() + 8 * h) * columns + column;
        if (column >= columns) continue;
        asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(a.x), "f"(a.y),
                     "f"(a.z), "f"(a.w)
                     : "memory");
      }
    }
  }
};

template <Type T, typename S, Loop L>
__global__ void __launch_bounds__(384, 1) plain(Operands o, __half *y, const float *rs, const float *cs, int columns) {
  run<T, S, L, false>(o, Plain<S>{y, rs, cs, columns});
}
template <typename S, Loop L>
__global__ void __launch_bounds__(384, 1)
    swiglu(Operands o, int8_t *y, float *ys, const float *rs, const float *cs, int inner) {
  run<Type::s8, S, L, false>(o, SwiGlu<S>{y, ys, rs, cs, inner, o.M});
}
template <Type T, typename S, Loop L, bool WScales>
__global__ void __launch_bounds__(384, 1) residual(Operands o, float *x, const float *cs, int columns) {
  run<T, S, L, WScales>(o, Residual<S, WScales>{x, cs, columns});
}

}  // namespace eight
