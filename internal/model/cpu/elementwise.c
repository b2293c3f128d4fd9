// Root-mean-square norm, SwiGLU's activation and biases, row by row.
#include "kernels.h"
#include "simd.h"

SP_CLONES
void sp_rmsnorm(const float *x, int64_t ldx, const int32_t *index, const float *w, float *out, int64_t ldo, int64_t rows, int64_t d, float eps) {
  for (int64_t r = 0; r < rows; r++, out += ldo) {
    const float *in = x + (index ? index[r] : r) * ldx;
    vf sum = {0};
    for (int64_t i = 0; i < d; i += SP_LANES) {
      vf a = vloadn(in + i, d - i);
      sum += a * a;
    }
    const float scale = 1.0f / __builtin_sqrtf(vsum(sum) / (float)d + eps);
    for (int64_t i = 0; i < d; i += SP_LANES) vstoren(out + i, vloadn(in + i, d - i) * scale * vloadn(w + i, d - i), d - i);
  }
}

SP_CLONES
void sp_swiglu(float *ab, int64_t ld, const float *bias, int64_t rows, int64_t inner) {
  for (int64_t r = 0; r < rows; r++, ab += ld)
    for (int64_t i = 0; i < inner; i += SP_LANES) {
      const int64_t n = inner - i;
      vf a = vloadn(ab + i, n), b = vloadn(ab + inner + i, n);
      if (bias) {
        a += vloadn(bias + i, n);
        b += vloadn(bias + inner + i, n);
      }
      vstoren(ab + i, vsilu(a) * b, n);
    }
}

SP_CLONES
void sp_add_bias(float *x, int64_t ldx, const float *bias, int64_t rows, int64_t d) {
  for (int64_t r = 0; r < rows; r++, x += ldx)
    for (int64_t i = 0; i < d; i += SP_LANES) vstoren(x + i, vloadn(x + i, d - i) + vloadn(bias + i, d - i), d - i);
}

SP_CLONES
void sp_map(int32_t f, float *x, int64_t n) {
  for (int64_t i = 0; i < n; i += SP_LANES) {
    vf v = vloadn(x + i, n - i);
    v = f == 0 ? vexp(v) : f == 1 ? vsigmoid(v) : f == 2 ? vsilu(v) : vsoftplus(v);
    vstoren(x + i, v, n - i);
  }
}
