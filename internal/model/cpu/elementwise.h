// Root-mean-square norm, SwiGLU's activation and biases, row by row.

// sum_squares is the sum of x_i^2 over x [n].
SP_INLINE float sum_squares(const float *x, int64_t n) {
  sum16 sum = {0};
  int64_t i = 0;
  for (; i + SP_SUM <= n; i += SP_SUM) {
    SP_UNROLL
    for (int j = 0; j < SP_SUM / SP_W; j++) {
      vf a = vload(x + i + j * SP_W);
      sum.lane[j] = vfma(a, a, sum.lane[j]);
    }
  }
  if (i < n)
    for (int j = 0; j < SP_SUM / SP_W; j++) {
      vf a = vloadn(x + i + j * SP_W, n - i - j * SP_W);
      sum.lane[j] = vfma(a, a, sum.lane[j]);
    }
  return total(&sum);
}

// SP_EACH runs body for i = 0, SP_W, … below n, with lanes, how many floats from
// i on count: the constant SP_W but for the last time.
#define SP_EACH(n, ...)                  \
  do {                                   \
    int64_t i = 0;                       \
    for (; i + SP_W <= (n); i += SP_W) { \
      enum { lanes = SP_W };             \
      __VA_ARGS__                        \
    }                                    \
    if (i < (n)) {                       \
      const int64_t lanes = (n) - i;     \
      __VA_ARGS__                        \
    }                                    \
  } while (0)

static void rmsnorm(const float *x, int64_t ldx, const int32_t *index, const float *w, float *out, int64_t ldo,
                    int64_t rows, int64_t d, float eps) {
  for (int64_t r = 0; r < rows; r++, out += ldo) {
    const float *in = x + (index ? index[r] : r) * ldx;
    const vf scale = vset(1.0f / sqrtf(sum_squares(in, d) / (float)d + eps));
    SP_EACH(d, vstoren(out + i, vloadn(in + i, lanes) * scale * vloadn(w + i, lanes), lanes););
  }
}

static void add_bias(float *x, int64_t ldx, const float *bias, int64_t rows, int64_t d) {
  for (int64_t r = 0; r < rows; r++, x += ldx)
    SP_EACH(d, vstoren(x + i, vloadn(x + i, lanes) + vloadn(bias + i, lanes), lanes););
}

static void swiglu(float *ab, int64_t ld, const float *bias, int64_t rows, int64_t inner) {
  if (bias) add_bias(ab, ld, bias, rows, 2 * inner);
  for (int64_t r = 0; r < rows; r++, ab += ld)
    SP_EACH(inner, vstoren(ab + i, vsilu(vloadn(ab + i, lanes)) * vloadn(ab + inner + i, lanes), lanes););
}

static void map(int32_t f, float *x, int64_t n) {
  SP_EACH(n, {
    vf v = vloadn(x + i, lanes);
    v = f == 0 ? vexp(v) : f == 1 ? vsigmoid(v) : f == 2 ? vsilu(v) : vsoftplus(v);
    vstoren(x + i, v, lanes);
  });
}
