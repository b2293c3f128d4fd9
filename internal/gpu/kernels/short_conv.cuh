// The short convolution of a run of tokens and the gates' arithmetic, shared by gates.cu and gdn2_prepare so that both
// compute the same bits.
#pragma once
#include "common.cuh"
#include <type_traits>

namespace {

// pack rounds two numbers to E. fp16 saturates; NaN stays NaN.
template <typename E>
__device__ __forceinline__ unsigned pack(float a, float b);
template <>
__device__ __forceinline__ unsigned pack<bf16>(float a, float b) {
  __nv_bfloat162 h = __floats2bfloat162_rn(a, b);
  return *reinterpret_cast<unsigned *>(&h);
}
template <>
__device__ __forceinline__ unsigned pack<__half>(float a, float b) {
  return pack_half(a, b);
}

// W channels of a row.
template <int W>
struct alignas(2 * W) Row {
  act2 v[W / 2];

  static __device__ __forceinline__ Row load(const act *p) {
    using Word = std::conditional_t<W == 2, unsigned, std::conditional_t<W == 4, uint2, uint4>>;
    const Word u = *reinterpret_cast<const Word *>(p);
    return *reinterpret_cast<const Row *>(&u);
  }

  __device__ __forceinline__ float operator[](int i) const {
    const float2 f = to_floats(v[i / 2]);
    return i % 2 ? f.y : f.x;
  }
};

template <typename E>
__device__ __forceinline__ void store(E *p, const float (&f)[4]) {
  *reinterpret_cast<uint2 *>(p) = make_uint2(pack<E>(f[0], f[1]), pack<E>(f[2], f[3]));
}

template <typename E>
__device__ __forceinline__ void store(E *p, const float (&f)[8]) {
  *reinterpret_cast<uint4 *>(p) =
      make_uint4(pack<E>(f[0], f[1]), pack<E>(f[2], f[3]), pack<E>(f[4], f[5]), pack<E>(f[6], f[7]));
}

// The convolution of W channels, times -log2(e): weights, and the next three outputs'
// partial sums. An output's terms are added oldest first.
template <int W>
struct Conv {
  float w[4][W], bias[W], part[3][W];

  __device__ __forceinline__ void load(const float *weight, const float *b, int channel, int C) {
#pragma unroll
    for (int j = 0; j < 4; j++) scaled(w[j], weight + int64_t(j) * C + channel);
#pragma unroll
    for (int i = 0; i < W; i++) bias[i] = 0.0f;
    if (b) scaled(bias, b + channel);
  }

  static __device__ __forceinline__ void scaled(float (&to)[W], const float *from) {
    constexpr int step = W < 4 ? W : 4;
    using Word = std::conditional_t<W == 2, float2, float4>;
#pragma unroll
    for (int i = 0; i < W; i += step) {
      const Word f = *reinterpret_cast<const Word *>(from + i);
#pragma unroll
      for (int j = 0; j < step; j++)
        to[i + j] = fmaf(-kLog2e, reinterpret_cast<const float *>(&f)[j], 0.0f);  // never -0
    }
  }

  __device__ __forceinline__ float push(int i, float x) {
    const float a = fmaf(w[3][i], x, part[0][i]);
    part[0][i] = fmaf(w[2][i], x, part[1][i]);
    part[1][i] = fmaf(w[1][i], x, part[2][i]);
    part[2][i] = fmaf(w[0][i], x, bias[i]);
    return a;
  }

  // start processes the three inputs before token t of a sequence that begins at first,
  __device__ __forceinline__ void start(const act *p, int64_t ldp, const act *hist, int C, int channel, int t,
                                        int first) {
    Row<W> x[3];
#pragma unroll
    for (int j = 0; j < 3; j++) {
      const int s = t - 3 + j;
      x[j] = Row<W>{};
      if (s >= 0) x[j] = Row<W>::load(p + s * ldp + channel);  // before it is known whether it belongs to the sequence
      if (s < first) x[j] = hist ? Row<W>::load(hist + int64_t(s - first + 3) * C + channel) : Row<W>{};
    }
    start(x);
  }

  // or three given inputs.
  __device__ __forceinline__ void start(const Row<W> *x) {
#pragma unroll
    for (int i = 0; i < W; i++) part[0][i] = part[1][i] = part[2][i] = bias[i];
#pragma unroll
    for (int j = 0; j < 3; j++) {
#pragma unroll
      for (int i = 0; i < W; i++) push(i, x[j][i]);
    }
  }
};

// silu_denominator is d in silu(a) = a' / d, a' = -log2(e) a.
__device__ __forceinline__ float silu_denominator(float a) { return fmaf(exp2_approx(a), -kLog2e, -kLog2e); }

// silu_of is silu(a), of a' = -log2(e) a.
__device__ __forceinline__ float silu_of(float a) { return a * rcp_approx(silu_denominator(a)); }

// Options of a model's gates, as in forward.go.
enum Gates : int { kKaczmarz = 1, kL2Norm = 2, kNegative = 4 };

// inverse_sigmoid is 1 / sigmoid(x).
__device__ __forceinline__ float inverse_sigmoid(float x) { return 1.0f + exp2_approx(-kLog2e * x); }

// inverse_step is 1 / the Kaczmarz step of a token with |k|^2 = kk, with open = 1 / sigmoid(eta). It is kept finite:
// infinity times 2^-infinity would be NaN.
__device__ __forceinline__ float inverse_step(float open, float kk, float eps) {
  return min_nan(open * max_nan(kk, eps), 0x1p126f);
}

// least_gate is the smallest inverse of an erase gate. For erased, inverse steps are multiplied by it.
__device__ __forceinline__ float least_gate(int flags) { return flags & kNegative ? 0.5f : 1.0f; }

// erased is b k, with the erase gate b from xb.
__device__ __forceinline__ float erased(float k, float xb, float inv_step, float least) {
  return k * rcp_approx(max_nan(fmaf(exp2_approx(-kLog2e * xb), inv_step, inv_step), least));
}

// written is w v of W channels of the next token, with v from the convolution and the write gate w = sigmoid(xw) step,
// at most 1; inv_step = 1 / step. Both share one reciprocal.
template <int W>
__device__ __forceinline__ void written(float (&y)[W], Conv<W> &conv, const Row<W> &xv, const Row<W> &xw,
                                        float inv_step) {
#pragma unroll
  for (int i = 0; i < W; i++) {
    const float av = conv.push(i, xv[i]), w = max_nan(fmaf(exp2_approx(-kLog2e * xw[i]), inv_step, inv_step), 1.0f);
    y[i] = av * rcp_approx(silu_denominator(av) * w);
  }
}

}  // namespace
