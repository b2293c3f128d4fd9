// The recurrence, token by token (the GDN-2 paper; its state is held in fp32):
//   S = diag(e) S;  S = S - k ((b*k)' S) + k (w*v)';  o = scale q' S,  e = exp(g)
// With c = b*k*e and u = w*v - S'c that is
//   S = diag(e) S + k u';  o = (scale q)' S,
// and the next token's S'c is summed in the same pass, so that S is read and
// written once a token. Columns of S don't meet: a slice of SP_SLICE of them
// stays in the first-level cache for the whole sequence.

// SP_COLS registers are a slice's columns: o, S'c and u take as many each. With 16
// registers there is no room for u, which is then read from memory.
#ifdef SP_AVX512
#define SP_COLS 2
#else
#define SP_COLS 4
#endif
#if defined(SP_AVX2) || defined(SP_SSE2)
#define SP_U_IN_MEMORY
#endif
#define SP_SLICE (SP_COLS * SP_W)

// start is r = S'c, by rows in order: what the first token reads.
static __attribute__((noinline)) void start(int64_t K, const float *S, const float *c, float *r) {
  vf sum[SP_COLS];
  SP_UNROLL
  for (int j = 0; j < SP_COLS; j++) sum[j] = vset(0);
  for (int64_t i = 0; i < K; i++, S += SP_SLICE) {
    vf ci = vset(c[i]);
    SP_UNROLL
    for (int j = 0; j < SP_COLS; j++) sum[j] = vfma(ci, vload(S + j * SP_W), sum[j]);
  }
  SP_UNROLL
  for (int j = 0; j < SP_COLS; j++) vstore(r + j * SP_W, sum[j]);
}

// residual is u = w*v - r.
SP_INLINE void residual(const float *wv, const float *r, float *u) {
  SP_UNROLL
  for (int j = 0; j < SP_COLS; j++) vstore(u + j * SP_W, vload(wv + j * SP_W) - vload(r + j * SP_W));
}

// token takes S [K, SP_SLICE] one token on: o = q'S and r = S'c, by rows in order.
static __attribute__((noinline)) void token(int64_t K, float *S, const float *restrict e, const float *restrict k,
                                            const float *restrict q, const float *restrict c, const float *u,
                                            float *restrict o, float *restrict r) {
  vf oo[SP_COLS], rr[SP_COLS];
#ifndef SP_U_IN_MEMORY
  vf uu[SP_COLS];
#endif
  SP_UNROLL
  for (int j = 0; j < SP_COLS; j++) {
    oo[j] = rr[j] = vset(0);
#ifndef SP_U_IN_MEMORY
    uu[j] = vload(u + j * SP_W);
#endif
  }
  for (int64_t i = 0; i < K; i++, S += SP_SLICE) {
    vf ei = vset(e[i]), ki = vset(k[i]), qi = vset(q[i]), ci = vset(c[i]);
    SP_UNROLL
    for (int j = 0; j < SP_COLS; j++) {
#ifdef SP_U_IN_MEMORY
      vf uj = vload(u + j * SP_W);
#else
      vf uj = uu[j];
#endif
      vf s = vfma(ki, uj, ei * vload(S + j * SP_W));
      vstore(S + j * SP_W, s);
      oo[j] = vfma(qi, s, oo[j]);
      rr[j] = vfma(ci, s, rr[j]);
    }
  }
  SP_UNROLL
  for (int j = 0; j < SP_COLS; j++) {
    vstore(o + j * SP_W, oo[j]);
    vstore(r + j * SP_W, rr[j]);
  }
}

static void walk(const sp_mixer *m, int64_t hv, int64_t v0, int64_t vn, int64_t t0, int64_t t1, float *s,
                 float *scratch) {
  const int64_t K = m->k, V = m->v, h = hv / (m->hv / m->h);
  float *S = scratch, *u = S + K * SP_SLICE, *o = u + SP_SLICE, *r = o + SP_SLICE;
  memset(S, 0, (K + 3) * SP_SLICE * sizeof *S);
  const float *c = m->p + t0 * m->ldp + m->b_col + h * K;
  if (s) {
    for (int64_t i = 0; i < K; i++) memcpy(S + i * SP_SLICE, s + i * V + v0, vn * sizeof *s);
    start(K, S, c, r);
  }
  for (int64_t t = t0; t < t1; t++) {
    const int64_t at = t * m->ldk + h * K;
    if (t + 1 < t1) c += m->ldp;  // after the last token the sum goes unused
    float *io = m->p + t * m->ldp + m->w_col + hv * V + v0;
    for (int64_t i = 0; t + 1 < t1 && i < K; i += 16) {  // the next token's rows, a cache line at a time
      __builtin_prefetch(m->e + at + m->ldk + i);
      __builtin_prefetch(m->kk + at + m->ldk + i);
      __builtin_prefetch(m->q + at + m->ldk + i);
      __builtin_prefetch(c + m->ldp + i);
    }
    if (vn == SP_SLICE) {
      residual(io, r, u);
      token(K, S, m->e + at, m->kk + at, m->q + at, c, u, io, r);
    } else {
      memcpy(o, io, vn * sizeof *io);
      residual(o, r, u);
      token(K, S, m->e + at, m->kk + at, m->q + at, c, u, o, r);
      memcpy(io, o, vn * sizeof *io);
    }
  }
  if (!s) return;
  for (int64_t i = 0; i < K; i++) memcpy(s + i * V + v0, S + i * SP_SLICE, vn * sizeof *s);
}
