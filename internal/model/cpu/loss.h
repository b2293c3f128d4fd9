// The loss: nll = ln sum_j exp(x_j) - x_target over the vocabulary, which comes
// in blocks, so that logits never exceed a block. The running maximum and sum
// are those of the online softmax; blocks have fixed bounds, so a row's sum has a
// fixed order. Whatever is not finite ends as a NaN or infinity in that row alone.

// highest is the largest of x [n]; a NaN is passed over.
static __attribute__((noinline)) float highest(const float *x, int64_t n) {
  sum16 top;
  for (int j = 0; j < SP_SUM / SP_W; j++) top.lane[j] = vset(-INFINITY);
  int64_t i = 0;
  for (; i + SP_SUM <= n; i += SP_SUM) {
    SP_UNROLL
    for (int j = 0; j < SP_SUM / SP_W; j++) top.lane[j] = vmax(vload(x + i + j * SP_W), top.lane[j]);
  }
  float a[SP_SUM], max = -INFINITY;
  for (int j = 0; j < SP_SUM / SP_W; j++) vstore(a + j * SP_W, top.lane[j]);
  for (int j = 0; j < SP_SUM; j++) max = a[j] > max ? a[j] : max;
  for (; i < n; i++) max = x[i] > max ? x[i] : max;
  return max;
}

// sum_exp is sum_j exp(x_j - max) over x [n]. It goes by one register of lanes after
// another, which leaves room for the exponential's constants.
static __attribute__((noinline)) float sum_exp(const float *x, int64_t n, float max) {
  const int64_t whole = n & -SP_SUM;
  float rest[SP_SUM];
  for (int64_t j = 0; j < SP_SUM; j++) rest[j] = whole + j < n ? x[whole + j] : -INFINITY;
  sum16 sum;
  SP_UNROLL
  for (int j = 0; j < SP_SUM / SP_W; j++) {
    vf lane = vset(0);
    for (int64_t i = j * SP_W; i < whole; i += SP_SUM) lane = lane + vexp(vload(x + i) - vset(max));
    if (whole < n) lane = lane + vexp(vload(rest + j * SP_W) - vset(max));
    sum.lane[j] = lane;
  }
  return total(&sum);
}

static void loss_block(sp_loss *l, const float *logits, int64_t ld, const int32_t *target, int64_t v0, int64_t rows,
                       int64_t cols) {
  for (int64_t r = 0; r < rows; r++, l++, logits += ld) {
    const float max = highest(logits, cols);
    if (max > l->max) {
      int64_t i = 0;
      while (logits[i] != max) i++;
      l->arg = (int32_t)(v0 + i);
      l->sum *= first(vexp(vset(l->max - max)));
      l->max = max;
    }
    l->sum += sum_exp(logits, cols, l->max);
    if (target[r] >= v0 && target[r] < v0 + cols) l->target = logits[target[r] - v0];
  }
}
