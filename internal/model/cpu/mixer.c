// From a layer's projections to the recurrence's operands, and from its output
// to o_proj's input. Formulas: the model card of the KLA update; the short
// convolution, the gates and the Kaczmarz step are one pass over a token's row.
#include "kernels.h"
#include "simd.h"

// max_taps bounds the short convolution's width; New refuses more.
enum { max_taps = 64 };

// conv16 is silu of the causal depthwise convolution (or of the projection alone
// when there are no taps), for 16 channels from col.
SP_INLINE vf conv16(const sp_mixer *m, const float *const *rows, int64_t col, int64_t n) {
  if (!m->taps) return vsilu(vloadn(rows[0] + col, n));
  const int64_t C = 2 * m->h * m->k + m->hv * m->v;
  vf y = vloadn(m->conv_bias + col, n);
  for (int64_t j = 0; j < m->taps; j++) y += vloadn(m->conv_weight + j * C + col, n) * vloadn(rows[j] + col, n);
  return vsilu(y);
}

SP_CLONES
void sp_prepare(const sp_mixer *m, int64_t t0, int64_t t1, int64_t seq0, const float *hist) {
  const int64_t H = m->h, K = m->k, V = m->v, HK = H * K, C = 2 * HK + m->hv * V, group = m->hv / H;
  const float *rows[max_taps];
  for (int64_t t = t0; t < t1; t++) {
    float *p = m->p + t * m->ldp, *q = m->q + t * m->ldk, *k = m->kk + t * m->ldk, *e = m->e + t * m->ldk;
    rows[0] = p;
    for (int64_t j = 0; j < m->taps; j++) {
      int64_t s = t - (m->taps - 1) + j;
      if (s >= seq0) rows[j] = m->p + s * m->ldp;
      else rows[j] = hist ? hist + (s - seq0 + m->taps - 1) * C : m->zeros;
    }
    for (int64_t h = 0; h < H; h++) {
      const int64_t at = h * K;
      vf qq = {0}, kk = {0};
      for (int64_t i = 0; i < K; i += SP_LANES) {
        const int64_t n = K - i;
        vf a = conv16(m, rows, at + i, n), b = conv16(m, rows, HK + at + i, n);
        vstoren(q + at + i, a, n);
        vstoren(k + at + i, b, n);
        qq += a * a;
        kk += b * b;
      }
      const float k2 = vsum(kk);
      float step = 1, qs = m->query_scale, ks = 1;
      if (m->kaczmarz) step = vsigmoid(vset(p[m->eta_col + h] + m->step_bias[h]))[0] / (k2 > m->kaczmarz_eps ? k2 : m->kaczmarz_eps);
      if (m->l2norm) {
        qs *= 1.0f / __builtin_sqrtf(vsum(qq) + 1e-6f);
        ks = 1.0f / __builtin_sqrtf(k2 + 1e-6f);
      }
      const float decay = -m->decay[h], twice = m->neg_eigval ? 2 : 1;
      for (int64_t i = 0; i < K; i += SP_LANES) {
        const int64_t n = K - i;
        vf kv = vloadn(k + at + i, n) * ks;
        vf ev = vexp(decay * vsoftplus(vloadn(e + at + i, n) + vloadn(m->dt_bias + at + i, n)));
        vf bv = vsigmoid(vloadn(p + m->b_col + at + i, n));
        if (m->kaczmarz) bv = vatleast(vatmost(bv * step, 1), 0);
        vstoren(q + at + i, vloadn(q + at + i, n) * qs, n);
        vstoren(k + at + i, kv, n);
        vstoren(e + at + i, ev, n);
        vstoren(p + m->b_col + at + i, bv * twice * kv * ev, n);
      }
      for (int64_t i = h * group * V; i < (h + 1) * group * V; i += SP_LANES) {
        const int64_t n = (h + 1) * group * V - i;
        vf wv = vsigmoid(vloadn(p + m->w_col + i, n));
        if (m->kaczmarz) wv = vatleast(vatmost(wv * step, 1), 0);
        vstoren(p + m->w_col + i, wv * conv16(m, rows, 2 * HK + i, n), n);
      }
    }
  }
}

SP_CLONES
void sp_gate(const sp_mixer *m, int64_t t0, int64_t t1, float *g, int64_t ldg) {
  const int64_t V = m->v;
  for (int64_t t = t0; t < t1; t++, g += ldg)
    for (int64_t hv = 0; hv < m->hv; hv++) {
      const float *o = m->p + t * m->ldp + m->w_col + hv * V, *bias = m->gate_bias + hv * V;
      float *y = g + hv * V;
      vf oo = {0};
      for (int64_t i = 0; i < V; i += SP_LANES) {
        vf a = vloadn(o + i, V - i);
        oo += a * a;
      }
      const float r = 1.0f / __builtin_sqrtf(vsum(oo) / (float)V + m->norm_eps);
      for (int64_t i = 0; i < V; i += SP_LANES) {
        const int64_t n = V - i;
        vstoren(y + i, vloadn(o + i, n) * r * vloadn(m->o_norm + i, n) * vsilu(vloadn(y + i, n) + vloadn(bias + i, n)), n);
      }
    }
}
