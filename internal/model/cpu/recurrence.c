// The recurrence, token by token (the GDN-2 paper; its state is held in fp32):
//   S = diag(e) S;  S = S - k ((b*k)' S) + k (w*v)';  o = scale q' S,  e = exp(g)
// With c = b*k*e and u = w*v - S'c that is
//   S = diag(e) S + k u';  o = (scale q)' S,
// and the next token's S'c is summed in the same pass, so that S is read and
// written once a token. Columns of S don't meet: a slice of SP_SLICE of them
// stays in the first-level cache for the whole sequence.
#include "kernels.h"
#include "simd.h"

SP_CLONES
void sp_walk(const sp_mixer *m, int64_t hv, int64_t v0, int64_t vn, int64_t t0, int64_t t1, float *s, float *scratch) {
  const int64_t K = m->k, V = m->v, h = hv / (m->hv / m->h), n1 = vn > SP_LANES ? vn - SP_LANES : 0;
  vf *S = (vf *)scratch; // [K, 2]
  for (int64_t i = 0; i < K; i++) {
    S[2 * i] = s ? vloadn(s + i * V + v0, vn) : (vf){0};
    S[2 * i + 1] = s && n1 ? vloadn(s + i * V + v0 + SP_LANES, n1) : (vf){0};
  }
  const float *c = m->p + t0 * m->ldp + m->b_col + h * K;
  vf r0 = {0}, r1 = {0}; // S'c of the token at hand
  for (int64_t i = 0; i < K; i++) {
    r0 += c[i] * S[2 * i];
    r1 += c[i] * S[2 * i + 1];
  }
  for (int64_t t = t0; t < t1; t++) {
    const float *q = m->q + t * m->ldk + h * K, *k = m->kk + t * m->ldk + h * K, *e = m->e + t * m->ldk + h * K;
    if (t + 1 < t1) c += m->ldp; // after the last token the sum goes unused
    float *io = m->p + t * m->ldp + m->w_col + hv * V + v0;
    vf u0 = vloadn(io, vn) - r0, u1 = (n1 ? vloadn(io + SP_LANES, n1) : (vf){0}) - r1;
    vf o0 = {0}, o1 = {0};
    r0 = r1 = (vf){0};
    for (int64_t i = 0; i < K; i++) {
      vf s0 = k[i] * u0, s1 = k[i] * u1;
      s0 += e[i] * S[2 * i];
      s1 += e[i] * S[2 * i + 1];
      S[2 * i] = s0;
      S[2 * i + 1] = s1;
      o0 += q[i] * s0;
      o1 += q[i] * s1;
      r0 += c[i] * s0;
      r1 += c[i] * s1;
    }
    vstoren(io, o0, vn);
    if (n1) vstoren(io + SP_LANES, o1, n1);
  }
  if (!s) return;
  for (int64_t i = 0; i < K; i++) {
    vstoren(s + i * V + v0, S[2 * i], vn);
    if (n1) vstoren(s + i * V + v0 + SP_LANES, S[2 * i + 1], n1);
  }
}
