// The loss: nll = ln sum_j exp(x_j) - x_target over the vocabulary, which comes
// in blocks, so that logits never exceed a block. The running maximum and sum
// are those of the online softmax; blocks have fixed bounds, so a row's sum has a
// fixed order. Whatever is not finite ends as a NaN or infinity in that row alone.
#include <math.h>

#include "kernels.h"
#include "simd.h"

void sp_loss_start(sp_loss *l, int64_t rows) {
  for (int64_t r = 0; r < rows; r++) l[r] = (sp_loss){-INFINITY, 0, -INFINITY, -1};
}

SP_CLONES
void sp_loss_block(sp_loss *l, const float *logits, int64_t ld, const int32_t *target, int64_t v0, int64_t rows, int64_t cols) {
  for (int64_t r = 0; r < rows; r++, l++, logits += ld) {
    const int64_t whole = cols & -SP_LANES;
    vf top = vset(-INFINITY);
    for (int64_t i = 0; i < whole; i += SP_LANES) {
      vf x = vload(logits + i);
      top = vpick(x > top, x, top);
    }
    float max = -INFINITY;
    for (int i = 0; i < SP_LANES; i++) max = top[i] > max ? top[i] : max;
    for (int64_t i = whole; i < cols; i++) max = logits[i] > max ? logits[i] : max;
    if (max > l->max) {
      int64_t i = 0;
      while (logits[i] != max) i++;
      l->arg = (int32_t)(v0 + i);
      l->sum *= vexp(vset(l->max - max))[0];
      l->max = max;
    }
    vf sum = {0};
    for (int64_t i = 0; i < whole; i += SP_LANES) sum += vexp(vload(logits + i) - l->max);
    if (whole < cols) {
      vf x = vloadn(logits + whole, cols - whole) - l->max;
      for (int64_t i = cols - whole; i < SP_LANES; i++) x[i] = -INFINITY;
      sum += vexp(x);
    }
    l->sum += vsum(sum);
    if (target[r] >= v0 && target[r] < v0 + cols) l->target = logits[target[r] - v0];
  }
}

void sp_loss_end(const sp_loss *l, const int32_t *target, float *nll, uint8_t *top1, int64_t rows) {
  for (int64_t r = 0; r < rows; r++) {
    nll[r] = (float)(log((double)l[r].sum) + ((double)l[r].max - (double)l[r].target));
    top1[r] = l[r].arg == target[r] && isfinite(nll[r]);
  }
}
