// The engine's eight-bit products on Hopper (eight_bit_product.cuh); sm_90a.
//
//   int8_plain     y [M, N] fp16 = x w^T rs cs                                   the fused projections
//   int8_swiglu    y [M, I] s8, ys [I / 128, M] = silu(h1) h2, h1|h2 = x w^T rs cs   w1 and w2
//   int8_residual  r [M, N] fp32 += sum over blocks of 128 of K, times xs and cs      o_proj and w3
//
// maps: CUtensorMaps in device memory of x (boxes of 128 rows of 128) and w (128 rows). pairs: M / 256. stride: the
// rows of ys and xs. Launch: as product.cuh says, with shared memory of 208,128 bytes.
#include "eight_bit_endings.cuh"

namespace {
using Whole = eight::Tiling<256, 256, 4, 2>;
using Halves = eight::Tiling<256, 128, 4, 2>;
static_assert(Whole::kShared == 208128 && Halves::kShared == 208128, "the launch says so");
constexpr int kHeight = 16;  // pairs of row tiles that are computed for the same columns one after another
}  // namespace

#define INT8_KERNEL extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(384, 1)

INT8_KERNEL int8_plain(const CUtensorMap *maps, __half *y, const float *rs, const float *cs, int pairs, int N, int K) {
  eight::run<eight::Type::s8, Whole, eight::Loop::whole, false>(
      eight::Operands{maps, pairs, N, K, nullptr, nullptr, 0, 0, 8}, eight::Plain<Whole>{y, rs, cs, N});
}
INT8_KERNEL int8_swiglu(const CUtensorMap *maps, int8_t *y, float *ys, const float *rs, const float *cs, int pairs,
                        int I, int K, int stride) {
  eight::run<eight::Type::s8, Whole, eight::Loop::whole, false>(
      eight::Operands{maps, pairs, 2 * I, K, nullptr, nullptr, stride, 0, kHeight},
      eight::SwiGlu<Whole>{y, ys, rs, cs, I, stride});
}
INT8_KERNEL int8_residual(const CUtensorMap *maps, float *r, const float *xs, const float *cs, int pairs, int N, int K,
                          int stride) {
  eight::run<eight::Type::s8, Halves, eight::Loop::in_turns, false>(
      eight::Operands{maps, pairs, N, K, xs, nullptr, stride, 0, 8}, eight::Residual<Halves, false>{r, cs, N});
}
