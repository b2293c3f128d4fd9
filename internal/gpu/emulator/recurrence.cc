// Replaces gdn2_prepare and gdn2_walk: the same arguments and tables, a plain
// recurrence token by token in fp32. prepare only stores its operands and marks the
// records that it would write; walk checks that every document's chunks were
// prepared, in order and aligned, before it uses them.
#include <cstdio>
#include <vector>

#include "cuda_words.h"
#include "registry.h"
#include "../kernels/short_conv.cuh"

namespace {

using namespace emulator;

template <typename T>
T arg(void **p, int i) {
  return *static_cast<T *>(p[i]);
}

struct Prepared {
  const void *q, *k, *bk, *wv;
  const __half *g;
  const int *chunks;
  int count, H, HV, V;
  float scale;
  // Where prepare computes its operands from the projections:
  const act *f = nullptr;
  const float *rate = nullptr, *dt_bias = nullptr;
  float decay(int64_t at, int h, int i, int K) const {
    if (!f) return expf(__half2float(g[at + i]));
    return exp2_approx(-rate[h] * softplus2_short(fmaf(kLog2e, to_float32(f[at + i]), kLog2e * dt_bias[h * K + i])));
  }
} prepared;
std::vector<uint16_t> made[4];  // q, k, bk, wv, where prepare computes them

bool wrong(const char *what) {
  fprintf(stderr, "emulator: %s\n", what);
  return false;
}

// q, k, bk, wv, g, chunks, key_records, value_records, H, HV, V, scale
template <int K>
bool prepare(unsigned gx, unsigned gy, unsigned block, unsigned shared, void **p) {
  prepared = Prepared{arg<void *>(p, 0),   arg<void *>(p, 1), arg<void *>(p, 2), arg<void *>(p, 3),
                      arg<__half *>(p, 4), arg<int *>(p, 5),  int(gy),           arg<int>(p, 8),
                      arg<int>(p, 9),      arg<int>(p, 10),   arg<float>(p, 11)};
  if (int(gx) != prepared.H || block != 256 || shared != (K == 128 ? 98304 : 81920))
    return wrong("prepare's launch is off");
  const size_t key = K == 128 ? 57856 : 33024;
  memset(arg<void *>(p, 6), 1, key * gy * prepared.H);
  memset(arg<void *>(p, 7), 1, size_t(128) * prepared.V * gy * prepared.HV);
  return true;
}

// The sum of W lanes' parts, in group_sum's order.
float sum_of(std::vector<float> x) {
  for (size_t d = x.size() / 2; d > 0; d /= 2)
    for (size_t i = 0; i < d; i++) x[i] += x[i + d];
  return x[0];
}

// p, f, rate, dt_bias, chunks, key_records, value_records, H, HV, V, scale, ldp, b_col, v_col, w_col, eta_col, conv_w,
// conv_b, eta_bias, seq_of, hist, hist_offset, channels, flags, kaczmarz_eps: the operands are made by the arithmetic
// of the kernel, chunk by chunk.
template <typename E, int K>
bool prepare_projected(unsigned gx, unsigned gy, unsigned block, unsigned shared, void **a) {
  const void *none = nullptr;
  void *same[12] = {&none, &none, &none, &none, &none};
  std::copy(a + 4, a + 11, same + 5);
  if (!prepare<K>(gx, gy, block, shared, same)) return false;
  const auto *p = arg<const act *>(a, 0);
  prepared.f = arg<const act *>(a, 1), prepared.rate = arg<const float *>(a, 2),
  prepared.dt_bias = arg<const float *>(a, 3);
  const int64_t ldp = arg<int64_t>(a, 11), offset = arg<int64_t>(a, 21);
  const int b_col = arg<int>(a, 12), v_col = arg<int>(a, 13), w_col = arg<int>(a, 14), eta_col = arg<int>(a, 15),
            channels = arg<int>(a, 22), flags = arg<int>(a, 23);
  const auto *conv_w = arg<const float *>(a, 16), *conv_b = arg<const float *>(a, 17),
             *eta_bias = arg<const float *>(a, 18);
  const auto *seq_of = arg<const int *>(a, 19);
  const auto *hist = arg<const act *const *>(a, 20);
  const float eps = arg<float>(a, 24), least = least_gate(flags);
  const int H = prepared.H, HK = H * K, columns = prepared.HV * prepared.V;
  int64_t T = 0;
  for (int i = 0; i < prepared.count; i++) T = std::max<int64_t>(T, prepared.chunks[2 * i] + 64);
  for (int i = 0; i < 4; i++) made[i].resize(T * (i < 3 ? HK : columns));
  auto element = [&](int i, int64_t at) { return reinterpret_cast<E *>(&made[i][at]); };
  for (int i = 0; i < prepared.count; i++) {
    const int first = prepared.chunks[2 * i], count = prepared.chunks[2 * i + 1] & 127, n = seq_of[first];
    const int begin = prepared.chunks[2 * i + 1] & 128 ? first : 0;
    const act *past = hist && hist[n] ? hist[n] + offset : nullptr;
    auto start = [&](Conv<4> &conv, int column) {
      conv.load(conv_w, conv_b, column, channels);
      conv.start(p, ldp, past, channels, column, first, begin);
    };
    std::vector<float> inv_step(count * H, 1.0f);
    for (int h = 0; h < H; h++) {
      std::vector<Conv<4>> cq(K / 4), ck(K / 4);
      for (int j = 0; j < K / 4; j++) start(cq[j], h * K + 4 * j), start(ck[j], HK + h * K + 4 * j);
      for (int t = first; t < first + count; t++) {
        float q[K / 4][4], k[K / 4][4];
        std::vector<float> qq(K / 4), kk(K / 4);
        for (int j = 0; j < K / 4; j++) {
          const Row<4> xq = Row<4>::load(p + t * ldp + h * K + 4 * j),
                       xk = Row<4>::load(p + t * ldp + HK + h * K + 4 * j);
          for (int e = 0; e < 4; e++) {
            const float aq = cq[j].push(e, xq[e]), ak = ck[j].push(e, xk[e]);
            q[j][e] = silu_of(aq), k[j][e] = silu_of(ak);
          }
          auto square = [](const float *x) { return fmaf(x[0], x[0], x[1] * x[1]) + fmaf(x[2], x[2], x[3] * x[3]); };
          qq[j] = square(q[j]), kk[j] = square(k[j]);
        }
        const float ks = sum_of(kk);
        float inv = 1.0f, scale_q = 1.0f, scale_k = 1.0f;
        if (flags & kKaczmarz) {
          const float open = inverse_sigmoid(to_float32(p[t * ldp + eta_col + h]) + eta_bias[h]);
          inv_step[(t - first) * H + h] = inv = inverse_step(open, ks, eps);
        }
        if (flags & kL2Norm) scale_q = rsqrtf(sum_of(qq) + 1e-6f), scale_k = rsqrtf(ks + 1e-6f);
        inv *= least;
        for (int j = 0; j < K / 4; j++) {
          const Row<4> xb = Row<4>::load(p + t * ldp + b_col + h * K + 4 * j);
          float y[4];
          for (int e = 0; e < 4; e++) {
            q[j][e] *= scale_q, k[j][e] *= scale_k;
            y[e] = erased(k[j][e], xb[e], inv, least);
          }
          const int64_t at = int64_t(t) * HK + h * K + 4 * j;
          store(element(0, at), q[j]), store(element(1, at), k[j]), store(element(2, at), y);
        }
      }
    }
    for (int c = 0; c < columns; c += 4) {
      Conv<4> conv;
      start(conv, v_col + c);
      for (int t = first; t < first + count; t++) {
        float y[4];
        written(y, conv, Row<4>::load(p + t * ldp + v_col + c), Row<4>::load(p + t * ldp + w_col + c),
                inv_step[(t - first) * H + c / (columns / H)]);
        store(element(3, int64_t(t) * columns + c), y);
      }
    }
  }
  prepared.q = made[0].data(), prepared.k = made[1].data(), prepared.bk = made[2].data(), prepared.wv = made[3].data();
  return true;
}

// key_records, value_records, gate, o_norm, y, o_raw, cu_seqlens, doc_chunks, order, state_in, state_out, state_offset,
// H, HV, V, eps
template <typename E, int K, int VS>
bool walk(unsigned gx, unsigned gy, unsigned block, unsigned shared, void **p) {
  const auto *gate = arg<const act *>(p, 2);
  const auto *o_norm = arg<const float *>(p, 3);
  auto *y = arg<act *>(p, 4);
  auto *raw = arg<float *>(p, 5);
  const auto *cu = arg<const int *>(p, 6), *first_chunk = arg<const int *>(p, 7), *order = arg<const int *>(p, 8);
  float *const *in = arg<float *const *>(p, 9), *const *out = arg<float *const *>(p, 10);
  const int64_t offset = arg<int64_t>(p, 11);
  const int H = arg<int>(p, 12), HV = arg<int>(p, 13), V = arg<int>(p, 14), N = int(gy);
  const float eps = arg<float>(p, 15);
  if (gx != unsigned(HV * V / VS) || block != VS * 2 + 256 || shared < 100000) return wrong("walk's launch is off");
  if (H != prepared.H || HV != prepared.HV || V != prepared.V || first_chunk[N] != prepared.count)
    return wrong("walk and prepare differ");
  std::vector<bool> seen(N);
  for (int n = 0; n < N; n++) {
    if (order[n] < 0 || order[n] >= N || seen[order[n]]) return wrong("order is no permutation");
    seen[order[n]] = true;
    if (n && cu[order[n]] - cu[order[n] + 1] < cu[order[n - 1]] - cu[order[n - 1] + 1])
      return wrong("order is not by falling length");
    int t = cu[n];
    for (int c = first_chunk[n]; c < first_chunk[n + 1]; c++) {
      const int *chunk = prepared.chunks + 2 * c, want = std::min(64, cu[n + 1] - t);
      if (chunk[0] != t || chunk[1] != (want | (t == cu[n]) * 128) || want < 1) return wrong("a chunk is off");
      t += want;
    }
    if (t != cu[n + 1]) return wrong("chunks do not cover their document");
  }
  const auto *q = static_cast<const E *>(prepared.q), *k = static_cast<const E *>(prepared.k),
             *bk = static_cast<const E *>(prepared.bk), *wv = static_cast<const E *>(prepared.wv);
  std::vector<float> s(V * K), u(V), o(V);
  for (int i = 0; i < N; i++) {
    const int n = order[i];
    for (int hv = 0; hv < HV; hv++) {
      const int h = hv / (HV / H);
      const float *from = in && in[n] ? in[n] + offset + int64_t(hv) * K * V : nullptr;
      for (int j = 0; j < K * V; j++) s[j] = from ? from[j] : 0.0f;
      for (int t = cu[n]; t < cu[n + 1]; t++) {
        const int64_t at = (int64_t(t) * H + h) * K, vt = (int64_t(t) * HV + hv) * V;
        for (int v = 0; v < V; v++) u[v] = float(wv[vt + v]), o[v] = 0;
        for (int j = 0; j < K; j++) {
          const float e = prepared.decay(at, h, j, K), b = float(bk[at + j]);
          for (int v = 0; v < V; v++) s[j * V + v] *= e, u[v] -= b * s[j * V + v];
        }
        float sum = 0;
        for (int j = 0; j < K; j++) {
          const float kj = float(k[at + j]), qj = float(q[at + j]);
          for (int v = 0; v < V; v++) s[j * V + v] += kj * u[v], o[v] += qj * s[j * V + v];
        }
        for (int v = 0; v < V; v++) o[v] *= prepared.scale, sum += o[v] * o[v];
        const float r = rsqrtf(sum / V + eps);
        for (int v = 0; v < V; v++) {
          const float z = to_float32(gate[vt + v]);
          if (VS < V) raw[vt + v] = o[v];
          else y[vt + v] = to_act(o[v] * r * o_norm[v] * z / (1.0f + expf(-z)));
        }
      }
      if (out && out[n]) std::copy(s.begin(), s.end(), out[n] + offset + int64_t(hv) * K * V);
    }
  }
  return true;
}

bool add_all() {
  auto &r = registry();
  for (const char *type : {"bf16", "f16"}) {
    r[std::string("gdn2_prepare_k64_") + type].grid = prepare<64>;
    r[std::string("gdn2_prepare_k128_") + type].grid = prepare<128>;
  }
  r["gdn2_prepare_projected_k64_bf16"].grid = prepare_projected<__nv_bfloat16, 64>;
  r["gdn2_prepare_projected_k128_bf16"].grid = prepare_projected<__nv_bfloat16, 128>;
  r["gdn2_prepare_projected_k64_f16"].grid = prepare_projected<__half, 64>;
  r["gdn2_prepare_projected_k128_f16"].grid = prepare_projected<__half, 128>;
  r["gdn2_walk_k64_v64_bf16"].grid = walk<__nv_bfloat16, 64, 64>;
  r["gdn2_walk_k64_v128_bf16"].grid = walk<__nv_bfloat16, 64, 128>;
  r["gdn2_walk_k128_v64_bf16"].grid = walk<__nv_bfloat16, 128, 64>;
  r["gdn2_walk_k128_v128_bf16"].grid = walk<__nv_bfloat16, 128, 128>;
  r["gdn2_walk_k64_v64_f16"].grid = walk<__half, 64, 64>;
  r["gdn2_walk_k64_v128_f16"].grid = walk<__half, 64, 128>;
  r["gdn2_walk_k128_v64_f16"].grid = walk<__half, 128, 64>;
  r["gdn2_walk_k128_v128_f16"].grid = walk<__half, 128, 128>;
  return true;
}
const bool added = add_all();

}  // namespace
