// Vectors of 8 floats for every instruction set, and the few functions that
// the model needs on them. The compiler's own vector types are lowered to
// whatever the target has (one AVX2 register, two NEON).
//
// Every sum has a fixed order that depends on the width alone, so that a
// token's values never depend on its position or on its neighbours. The clones
// of a function for different instruction sets may differ in the last bit (FMA
// or not): scores are the same to the bit on one kind of CPU.
#ifndef SP_SIMD_H
#define SP_SIMD_H

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__) && !defined(__clang__) && __GNUC__ >= 12 && !defined(SP_ONE_VERSION)
#define SP_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define SP_CLONES // one version, for the instruction set that the build asks for (CGO_CFLAGS)
#endif
#define SP_INLINE static inline __attribute__((always_inline))

#define SP_LANES 8

typedef float vf __attribute__((vector_size(32)));
typedef int32_t vi __attribute__((vector_size(32)));
typedef float vfu __attribute__((vector_size(32), aligned(4), may_alias)); // in memory, anywhere

SP_INLINE vf vset(float x) { return x - (vf){0}; }
SP_INLINE vf vload(const float *p) { return *(const vfu *)p; }
SP_INLINE void vstore(float *p, vf v) { *(vfu *)p = v; }

// vloadn reads the first n of 8 lanes, the others are 0; n may pass 8.
SP_INLINE vf vloadn(const float *p, int64_t n) {
  if (n >= SP_LANES) return vload(p);
  vf v = {0};
  for (int64_t i = 0; i < n; i++) v[i] = p[i];
  return v;
}

// vstoren writes the first n of 8 lanes; n may pass 8.
SP_INLINE void vstoren(float *p, vf v, int64_t n) {
  if (n >= SP_LANES) {
    vstore(p, v);
    return;
  }
  for (int64_t i = 0; i < n; i++) p[i] = v[i];
}

// vpick is a where the mask is set and b elsewhere.
SP_INLINE vf vpick(vi mask, vf a, vf b) { return (vf)(((vi)a & mask) | ((vi)b & ~mask)); }

// vatmost and vatleast keep a NaN.
SP_INLINE vf vatmost(vf x, float hi) { return vpick(x > vset(hi), vset(hi), x); }
SP_INLINE vf vatleast(vf x, float lo) { return vpick(x < vset(lo), vset(lo), x); }

// vsum adds the lanes as a tree.
SP_INLINE float vsum(vf v) {
  float a[SP_LANES];
  memcpy(a, &v, sizeof a);
  for (int w = SP_LANES / 2; w > 0; w /= 2)
    for (int i = 0; i < w; i++) a[i] += a[i + w];
  return a[0];
}

// vexp is e^x to about an ulp over all of float: 0 below, +inf above, NaN kept.
// x = n ln 2 + r, |r| <= ln 2 / 2; the polynomial is Cephes' expf. 2^n is applied
// in two factors, since n reaches -150 and 128.
SP_INLINE vf vexp(vf x) {
  const float magic = 12582912.0f; // 1.5 * 2^23: adding it rounds to an integer
  x = vatleast(vatmost(x, 89.0f), -104.0f);
  vf t = x * 1.44269504088896341f + magic;
  vi n = (vi)t - (vi)vset(magic);
  vf k = t - magic;
  vf r = x - k * 0.693359375f;
  r = r + k * 2.12194440e-4f;
  vf p = vset(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r;
  p = p + 1.0f;
  vi half = n >> 1;
  return p * (vf)((half + 127) << 23) * (vf)((n - half + 127) << 23);
}

SP_INLINE vf vsigmoid(vf x) { return 1.0f / (1.0f + vexp(-x)); }

// vsilu is x sigmoid(x).
SP_INLINE vf vsilu(vf x) { return x / (1.0f + vexp(-x)); }

// vsoftplus is ln(1 + e^x) = max(x, 0) + ln(1 + u), u = e^-|x| in (0, 1], with
// ln(1 + u) = 2 atanh(s), s = u / (2 + u) <= 1/3: small values keep all their bits.
SP_INLINE vf vsoftplus(vf x) {
  vf u = vexp((vf)((vi)x | (vi)vset(-0.0f)));
  vf s = u / (2.0f + u), z = s * s;
  vf p = vset(1.0f / 17);
  p = p * z + 1.0f / 15;
  p = p * z + 1.0f / 13;
  p = p * z + 1.0f / 11;
  p = p * z + 1.0f / 9;
  p = p * z + 1.0f / 7;
  p = p * z + 1.0f / 5;
  p = p * z + 1.0f / 3;
  p = p * z + 1.0f;
  return vpick(x > vset(0.0f), x, vset(0.0f)) + 2.0f * s * p;
}

#endif
