// From a layer's projections to the recurrence's operands, and from its output
// to o_proj's input. Formulas: the model card of the KLA update; the short
// convolution, the gates and the Kaczmarz step are one pass over a token's row.

// conv is silu of the causal depthwise convolution (or of the projection alone
// when there are no taps), for n channels from col.
SP_INLINE vf conv(const sp_mixer *m, const float *const *rows, int64_t taps, int64_t channels, int64_t col, int64_t n) {
  if (!taps) return vsilu(vloadn(rows[0] + col, n));
  vf y = vloadn(m->conv_bias + col, n);
  for (int64_t j = 0; j < taps; j++)
    y = vfma(vloadn(m->conv_weight + j * channels + col, n), vloadn(rows[j] + col, n), y);
  return vsilu(y);
}

// squares writes the convolution of K channels from col to y and gives its sum of squares.
SP_INLINE float squares(const sp_mixer *m, const float *const *rows, int64_t taps, int64_t channels, int64_t col,
                        float *y) {
  SP_EACH(m->k, vstoren(y + i, conv(m, rows, taps, channels, col + i, lanes), lanes););
  return sum_squares(y, m->k);
}

// softplus_bias is x = softplus(x + bias), [n].
static __attribute__((noinline)) void softplus_bias(float *x, const float *bias, int64_t n) {
  SP_EACH(n, vstoren(x + i, vsoftplus(vloadn(x + i, lanes) + vloadn(bias + i, lanes)), lanes););
}

// sigmoid_steps is x = min(sigmoid(x) step, 1), [n]. With a step of 1 the bound changes nothing.
static __attribute__((noinline)) void sigmoid_steps(float *x, float step, int64_t n) {
  SP_EACH(n, vstoren(x + i, vatleast(vatmost(vsigmoid(vloadn(x + i, lanes)) * vset(step), 1), 0), lanes););
}

// operands is e = exp(-decay e); k = scale k; b = b twice k e; q = qscale q, [n].
static __attribute__((noinline)) void operands(float *e, float decay, float *k, float kscale, float *b, float twice,
                                               float *q, float qscale, int64_t n) {
  SP_EACH(n, {
    vf ev = vexp(vset(-decay) * vloadn(e + i, lanes));
    vf kv = vloadn(k + i, lanes) * vset(kscale);
    vstoren(e + i, ev, lanes);
    vstoren(k + i, kv, lanes);
    vstoren(b + i, vloadn(b + i, lanes) * vset(twice) * kv * ev, lanes);
    vstoren(q + i, vloadn(q + i, lanes) * vset(qscale), lanes);
  });
}

SP_INLINE void prepare_token(const sp_mixer *m, const float *const *rows, int64_t taps, float *p, float *q, float *k,
                             float *e) {
  const int64_t H = m->h, K = m->k, V = m->v, HK = H * K, channels = 2 * HK + m->hv * V, group = m->hv / H * V;
  for (int64_t h = 0; h < H; h++) {
    const int64_t at = h * K;
    const float q2 = squares(m, rows, taps, channels, at, q + at),
                k2 = squares(m, rows, taps, channels, HK + at, k + at);
    float step = 1, qscale = m->query_scale, kscale = 1;
    if (m->kaczmarz)
      step = first(vsigmoid(vset(p[m->eta_col + h] + m->step_bias[h]))) / (k2 > m->kaczmarz_eps ? k2 : m->kaczmarz_eps);
    if (m->l2norm) {
      qscale *= 1.0f / sqrtf(q2 + 1e-6f);
      kscale = 1.0f / sqrtf(k2 + 1e-6f);
    }
    float *b = p + m->b_col + at, *w = p + m->w_col + h * group;
    softplus_bias(e + at, m->dt_bias + at, K);
    sigmoid_steps(b, step, K);
    operands(e + at, m->decay[h], k + at, kscale, b, m->neg_eigval ? 2 : 1, q + at, qscale, K);
    sigmoid_steps(w, step, group);
    SP_EACH(group, {
      const int64_t col = h * group + i;
      vstoren(w + i, vloadn(w + i, lanes) * conv(m, rows, taps, channels, 2 * HK + col, lanes), lanes);
    });
  }
}

static void prepare(const sp_mixer *m, int64_t t0, int64_t t1, int64_t seq0, const float *hist) {
  const int64_t channels = 2 * m->h * m->k + m->hv * m->v;
  const float *rows[SP_MAX_TAPS];
  for (int64_t t = t0; t < t1; t++) {
    float *p = m->p + t * m->ldp, *q = m->q + t * m->ldk, *k = m->kk + t * m->ldk, *e = m->e + t * m->ldk;
    rows[0] = p;
    for (int64_t j = 0; j < m->taps; j++) {
      int64_t s = t - (m->taps - 1) + j;
      if (s >= seq0) rows[j] = m->p + s * m->ldp;
      else rows[j] = hist ? hist + (s - seq0 + m->taps - 1) * channels : m->zeros;
    }
    if (m->taps == 4) prepare_token(m, rows, 4, p, q, k, e);
    else prepare_token(m, rows, m->taps, p, q, k, e);
  }
}

static void gate(const sp_mixer *m, int64_t t0, int64_t t1, float *g, int64_t ldg) {
  const int64_t V = m->v;
  for (int64_t t = t0; t < t1; t++, g += ldg)
    for (int64_t hv = 0; hv < m->hv; hv++) {
      const float *o = m->p + t * m->ldp + m->w_col + hv * V, *bias = m->gate_bias + hv * V;
      float *y = g + hv * V;
      const vf r = vset(1.0f / sqrtf(sum_squares(o, V) / (float)V + m->norm_eps));
      SP_EACH(V, {
        vf gated = vsilu(vloadn(y + i, lanes) + vloadn(bias + i, lanes));
        vstoren(y + i, vloadn(o + i, lanes) * r * vloadn(m->o_norm + i, lanes) * gated, lanes);
      });
    }
}
