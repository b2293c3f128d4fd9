// SwiGLU's activation: y = silu(h1 + b1) * (h2 + b2).
//
//   h [T, 2 I] act, 8 columns of h1 and 8 of h2 alternating; b1|b2 [2 I] fp32 or
//   null; y [T, I] act; I a multiple of 8
//
// For GPUs without swiglu_product.
//
// Roofline: reads 4 I, writes 2 I bytes a token: 0.29 ms for 32,768 x 6208 at
// 4.2 TB/s.
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256)
    swiglu(act *__restrict__ y, const act *__restrict__ h, const float *__restrict__ bias, int T, int I) {
  const unsigned I8 = unsigned(I) / 8;
  const unsigned n = unsigned(T) * I8;  // the engine refuses batches for which this overflows
  // Two independent pieces per thread, a block's width apart.
  const unsigned i0 = blockIdx.x * (2 * blockDim.x) + threadIdx.x;
  Act8 a[2], b[2];
  unsigned c[2];
  int64_t t[2];
#pragma unroll
  for (int j = 0; j < 2; j++) {
    const unsigned i = i0 + j * blockDim.x;
    if (i >= n) break;
    const unsigned row = i / I8;
    t[j] = row;
    c[j] = (i - row * I8) * 8;
    const act *p = h + t[j] * (2 * int64_t(I)) + 2 * c[j];
    a[j] = load8(p);
    b[j] = load8(p + 8);
  }
#pragma unroll
  for (int j = 0; j < 2; j++) {
    if (i0 + j * blockDim.x >= n) return;
    float u[8], v[8];
    unpack8(a[j], u);
    unpack8(b[j], v);
    if (bias) {
#pragma unroll
      for (int k = 0; k < 8; k++) {
        u[k] += bias[c[j] + k];
        v[k] += bias[I + c[j] + k];
      }
    }
#pragma unroll
    for (int k = 0; k < 8; k++) u[k] = siluf(u[k]) * v[k];
    store8(y + t[j] * I + c[j], pack8(u));
  }
}
