// Lab for the GDN-2 recurrence kernels: checked against float64, then timed. Versions: docs/kernels/recurrence.md.
// `make gpu-lab` builds it:
//
//   .build/cuda/lab/gdn2_recurrence [check|small|time|all]
//
// check: lengths at every boundary, all shapes and element types, mild to violent decays, carried states, poisoned
// buffers, bits packed = alone = split. small: the same kernels on little, for compute-sanitizer (racecheck: build with
// -DHOPPER_RACECHECK). time: 8 x 4096 tokens and length mixes at 32,768. all: check, then time unless a check failed.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#define HOPPER_SPIN_LIMIT (1 << 22)
#include "../gdn2_prepare.cu"
#include "../gdn2_simple.cu"
#include "../gdn2_walk.cu"

#define CHECK(x)                                                                         \
  do {                                                                                   \
    cudaError_t e = (x);                                                                 \
    if (e != cudaSuccess) {                                                              \
      fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #x, cudaGetErrorString(e)); \
      exit(1);                                                                           \
    }                                                                                    \
  } while (0)

using bf16 = __nv_bfloat16;
static int failures = 0;

template <typename T>
struct Buffer {
  T *p = nullptr;
  size_t n = 0;
  Buffer() = default;
  explicit Buffer(size_t n) : n(n) {
    CHECK(cudaMalloc(&p, std::max<size_t>(n, 1) * sizeof(T)));
    poison();
  }
  explicit Buffer(const std::vector<T> &v) : Buffer(v.size()) {
    CHECK(cudaMemcpy(p, v.data(), n * sizeof(T), cudaMemcpyHostToDevice));
  }
  Buffer(const Buffer &) = delete;
  Buffer(Buffer &&o) : p(o.p), n(o.n) { o.p = nullptr; }
  Buffer &operator=(Buffer &&o) {
    std::swap(p, o.p), std::swap(n, o.n);
    return *this;
  }
  ~Buffer() {
    if (p) cudaFree(p);
  }
  void poison() { CHECK(cudaMemset(p, 0xff, n * sizeof(T))); }
  std::vector<T> host() const {
    std::vector<T> v(n);
    CHECK(cudaMemcpy(v.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost));
    return v;
  }
};

struct Shape {
  int H, HV, K, V;
};

static void parallel(int n, const std::function<void(int)> &f) {
  int workers = std::max(1u, std::thread::hardware_concurrency());
  std::vector<std::thread> ts;
  for (int w = 0; w < workers; w++)
    ts.emplace_back([=, &f] {
      for (int i = w; i < n; i += workers) f(i);
    });
  for (auto &t : ts) t.join();
}

template <typename E>
struct Inputs {
  Shape s;
  std::vector<int> lens;
  int T = 0;
  std::vector<E> q, k, bk, wv;
  std::vector<__half> g;
  std::vector<act> gate;
  std::vector<float> norm;
};

enum Kind { kla, l2, l2_negative };
static const char *kind_names[] = {"kla", "l2", "l2 x2"};

template <typename E>
static Inputs<E> make(Shape s, const std::vector<int> &lens, float decay, Kind kind, unsigned seed) {
  Inputs<E> in;
  in.s = s, in.lens = lens;
  for (int n : lens) in.T += n;
  const int64_t T = in.T;
  in.q.resize(T * s.H * s.K), in.k.resize(T * s.H * s.K), in.bk.resize(T * s.H * s.K), in.g.resize(T * s.H * s.K);
  in.wv.resize(T * s.HV * s.V), in.gate.resize(T * s.HV * s.V), in.norm.resize(s.V);
  parallel(64, [&](int part) {
    std::mt19937 r(seed * 64 + part);
    std::normal_distribution<float> normal;
    std::uniform_real_distribution<float> uniform;
    auto silu_of = [](float x) { return x / (1 + std::exp(-x)); };
    auto sigmoid = [](float x) { return 1 / (1 + std::exp(-x)); };
    std::vector<float> q(s.K), k(s.K), b(s.K);
    for (int64_t t = T * part / 64; t < T * (part + 1) / 64; t++)
      for (int h = 0; h < s.H; h++) {
        float nq = 0, nk = 0;
        for (int i = 0; i < s.K; i++)
          q[i] = silu_of(1.4f * normal(r)), k[i] = silu_of(1.4f * normal(r)), b[i] = sigmoid(1.4f * normal(r)),
          nq += q[i] * q[i], nk += k[i] * k[i];
        float step = kind == kla ? sigmoid(normal(r)) / std::max(nk, 1e-6f) : 1;
        for (int i = 0; i < s.K; i++) {
          int64_t at = (t * s.H + h) * s.K + i;
          if (kind != kla) q[i] /= std::sqrt(nq + 1e-6f), k[i] /= std::sqrt(nk + 1e-6f);
          b[i] = std::min(1.f, b[i] * step) * (kind == l2_negative ? 2 : 1);
          float gx = decay * std::pow(uniform(r), 4.f);
          if (decay > 100 && i % 3 == 0) gx = 0;
          in.q[at] = E(q[i]), in.k[at] = E(k[i]), in.bk[at] = E(b[i] * k[i]), in.g[at] = __half(-gx);
        }
        for (int hv = h * (s.HV / s.H); hv < (h + 1) * (s.HV / s.H); hv++)
          for (int i = 0; i < s.V; i++) {
            int64_t at = (t * s.HV + hv) * s.V + i;
            in.wv[at] = E(std::min(1.f, sigmoid(1.4f * normal(r)) * step) * silu_of(1.4f * normal(r))),
            in.gate[at] = act(1.4f * normal(r));
          }
      }
  });
  std::mt19937 r(seed);
  std::normal_distribution<float> normal;
  for (auto &x : in.norm) x = 1 + 0.2f * normal(r);
  return in;
}

struct Result {
  std::vector<float> o, y;   // [T, HV, V]
  std::vector<float> state;  // [N, HV, K, V]
};

// The recurrence, token by token, in float64.
template <typename E>
static void reference(const Inputs<E> &in, const std::vector<float> &state0, float scale, float eps,
                      std::vector<double> &o, std::vector<double> &y, std::vector<double> &state) {
  const Shape s = in.s;
  o.assign(size_t(in.T) * s.HV * s.V, 0), y = o, state.assign(in.lens.size() * s.HV * s.K * s.V, 0);
  std::vector<int> begin;
  int at = 0;
  for (int n : in.lens) begin.push_back(at), at += n;
  parallel(in.lens.size() * s.HV, [&](int job) {
    const int doc = job / s.HV, hv = job % s.HV, h = hv / (s.HV / s.H);
    double *S = &state[size_t(job) * s.K * s.V];
    if (!state0.empty())
      for (int i = 0; i < s.K * s.V; i++) S[i] = state0[size_t(job) * s.K * s.V + i];
    std::vector<double> u(s.V);
    for (int t = begin[doc]; t < begin[doc] + in.lens[doc]; t++) {
      const size_t kx = (size_t(t) * s.H + h) * s.K, vx = (size_t(t) * s.HV + hv) * s.V;
      for (int v = 0; v < s.V; v++) u[v] = double(float(in.wv[vx + v]));
      for (int i = 0; i < s.K; i++) {
        const double e = std::exp(double(float(in.g[kx + i]))), b = double(float(in.bk[kx + i]));
        double *row = S + size_t(i) * s.V;
        for (int v = 0; v < s.V; v++) row[v] *= e, u[v] -= b * row[v];
      }
      double *ot = &o[vx];
      for (int i = 0; i < s.K; i++) {
        const double kk = double(float(in.k[kx + i])), qq = scale * double(float(in.q[kx + i]));
        double *row = S + size_t(i) * s.V;
        for (int v = 0; v < s.V; v++) row[v] += kk * u[v], ot[v] += qq * row[v];
      }
      double sum = 0;
      for (int v = 0; v < s.V; v++) sum += ot[v] * ot[v];
      for (int v = 0; v < s.V; v++) {
        const double z = double(float(in.gate[vx + v]));
        y[vx + v] = ot[v] / std::sqrt(sum / s.V + eps) * in.norm[v] * z / (1 + std::exp(-z));
      }
    }
  });
}

template <typename E>
constexpr bool is_bf16 = std::is_same<E, bf16>::value;
template <typename E>
static auto prepare_kernel(int K) {
  if constexpr (is_bf16<E>) return K == 64 ? gdn2_prepare_k64_bf16 : gdn2_prepare_k128_bf16;
  else return K == 64 ? gdn2_prepare_k64_f16 : gdn2_prepare_k128_f16;
}
template <typename E>
static auto simple_kernel(int K) {
  if constexpr (is_bf16<E>) return K == 64 ? gdn2_simple_k64_bf16 : gdn2_simple_k128_bf16;
  else return K == 64 ? gdn2_simple_k64_f16 : gdn2_simple_k128_f16;
}
template <typename E>
static auto walk_kernel(int K, int VS) {
  if constexpr (is_bf16<E>)
    return K == 64 ? (VS == 64 ? gdn2_walk_k64_v64_bf16 : gdn2_walk_k64_v128_bf16)
                   : (VS == 64 ? gdn2_walk_k128_v64_bf16 : gdn2_walk_k128_v128_bf16);
  else
    return K == 64 ? (VS == 64 ? gdn2_walk_k64_v64_f16 : gdn2_walk_k64_v128_f16)
                   : (VS == 64 ? gdn2_walk_k128_v64_f16 : gdn2_walk_k128_v128_f16);
}
static int key_bytes(int K) { return K == 64 ? gdn2::KeyRecord<64>::bytes : gdn2::KeyRecord<128>::bytes; }
static int prepare_smem(int K) { return K == 64 ? 81920 : 98304; }
static int walk_smem(int K, int VS) {
  using namespace gdn2;
  return K == 64 ? (VS == 64 ? WalkShared<64, 64>::bytes : WalkShared<64, 128>::bytes)
                 : (VS == 64 ? WalkShared<128, 64>::bytes : WalkShared<128, 128>::bytes);
}

// One batch on the device: everything a launch needs.
template <typename E>
struct Batch {
  Shape s;
  int N, NC, T;
  float scale, eps = 1e-5f;
  Buffer<E> q, k, bk, wv;
  Buffer<__half> g;
  Buffer<act> gate, y;
  Buffer<float> norm, o_raw, states;
  Buffer<int> cu, doc_chunks, order;
  Buffer<int2> chunks;
  Buffer<unsigned char> key_records, value_records;
  Buffer<float *> in_table, out_table;
  bool carried = false;

  Batch(const Inputs<E> &in, const std::vector<float> &state0 = {}, bool keep_state = false)
      : s(in.s),
        N(in.lens.size()),
        T(in.T),
        scale(1 / std::sqrt(float(in.s.K))),
        q(in.q),
        k(in.k),
        bk(in.bk),
        wv(in.wv),
        g(in.g),
        gate(in.gate),
        y(in.gate.size()),
        norm(in.norm) {
    std::vector<int> c{0}, d{0}, o;
    std::vector<int2> ch;
    for (int n : in.lens) {
      for (int at = 0; at < n; at += 64) ch.push_back(make_int2(c.back() + at, std::min(64, n - at)));
      o.push_back(o.size()), c.push_back(c.back() + n), d.push_back(ch.size());
    }
    std::stable_sort(o.begin(), o.end(), [&](int a, int b) { return in.lens[a] > in.lens[b]; });
    NC = ch.size();
    cu = Buffer<int>(c), doc_chunks = Buffer<int>(d), order = Buffer<int>(o), chunks = Buffer<int2>(ch);
    key_records = Buffer<unsigned char>(size_t(NC) * s.H * key_bytes(s.K)),
    value_records = Buffer<unsigned char>(size_t(NC) * s.HV * s.V * 128);
    if (s.V > 128) o_raw = Buffer<float>(y.n);
    carried = keep_state;
    if (carried) {
      const size_t one = size_t(s.HV) * s.K * s.V;
      states = Buffer<float>(N * one);
      if (!state0.empty()) CHECK(cudaMemcpy(states.p, state0.data(), state0.size() * 4, cudaMemcpyHostToDevice));
      std::vector<float *> a, b;
      for (int i = 0; i < N; i++)
        a.push_back(state0.empty() ? nullptr : states.p + i * one - 4), b.push_back(states.p + i * one - 4);
      in_table = Buffer<float *>(a), out_table = Buffer<float *>(b);
    }
  }
  void simple() {
    simple_kernel<E>(s.K)<<<dim3(s.HV, N), s.V>>>(q.p, k.p, bk.p, wv.p, g.p, gate.p, norm.p, y.p, cu.p, in_table.p,
                                                  out_table.p, 4, s.H, s.HV, scale, eps);
    CHECK(cudaGetLastError());
  }
  void prepare(cudaStream_t st = 0) {
    auto f = prepare_kernel<E>(s.K);
    CHECK(cudaFuncSetAttribute(f, cudaFuncAttributeMaxDynamicSharedMemorySize, prepare_smem(s.K)));
    f<<<dim3(s.H, NC), 256, prepare_smem(s.K), st>>>(q.p, k.p, bk.p, wv.p, g.p, chunks.p, key_records.p,
                                                     value_records.p, s.H, s.HV, s.V, scale);
    CHECK(cudaGetLastError());
  }
  void walk(float *raw, cudaStream_t st = 0) {
    const int VS = s.V == 64 ? 64 : 128;
    auto f = walk_kernel<E>(s.K, VS);
    CHECK(cudaFuncSetAttribute(f, cudaFuncAttributeMaxDynamicSharedMemorySize, walk_smem(s.K, VS)));
    f<<<dim3(s.HV * (s.V / VS), N), VS * 2 + 256, walk_smem(s.K, VS), st>>>(
        key_records.p, value_records.p, gate.p, norm.p, y.p, raw, cu.p, doc_chunks.p, order.p, in_table.p, out_table.p,
        4, s.H, s.HV, s.V, eps);
    CHECK(cudaGetLastError());
  }
  void fast(cudaStream_t st = 0) {
    prepare(st);
    walk(o_raw.p, st);
    if (s.V > 128) {
      const int64_t rows = int64_t(T) * s.HV;
      gdn2_norm_gate<<<(rows + 7) / 8, 256, 0, st>>>(o_raw.p, gate.p, norm.p, y.p, rows, s.V, eps);
      CHECK(cudaGetLastError());
    }
  }
};

struct Error {
  double rms = 0, worst = 0;
  bool finite = true;
};
template <typename T>
static Error compare(const std::vector<T> &a, const std::vector<double> &b) {
  Error e;
  double d2 = 0, b2 = 0, w = 0;
  for (size_t i = 0; i < a.size(); i++) {
    const double x = float(a[i]), d = x - b[i];
    if (!std::isfinite(x)) e.finite = false;
    d2 += d * d, b2 += b[i] * b[i], w = std::max(w, std::fabs(d));
  }
  e.rms = std::sqrt(d2 / std::max(b2, 1e-300)),
  e.worst = w / std::max(std::sqrt(b2 / std::max<size_t>(a.size(), 1)), 1e-300);
  return e;
}

// Relative root-mean-square errors allowed: (o, state), and y, whose type is act.cuh's.
template <typename E>
constexpr double tolerance = is_bf16<E> ? 8e-3 : 1.5e-3;

template <typename E>
static void check(Shape s, const std::vector<int> &lens, float decay, Kind kind, bool carried, unsigned seed) {
  auto in = make<E>(s, lens, decay, kind, seed);
  std::vector<float> state0;
  if (carried) {
    std::mt19937 r(seed + 1);
    std::normal_distribution<float> normal;
    state0.resize(lens.size() * s.HV * s.K * s.V);
    for (auto &x : state0) x = 0.05f * normal(r);
  }
  std::vector<double> o, y, state;
  reference(in, state0, 1 / std::sqrt(float(s.K)), 1e-5f, o, y, state);
  Error es, ef, eo, et;
  {
    Batch<E> b(in, state0, true);
    b.simple();
    CHECK(cudaDeviceSynchronize());
    es = compare(b.y.host(), y);
  }
  Batch<E> b(in, state0, true);
  b.fast();
  CHECK(cudaDeviceSynchronize());
  ef = compare(b.y.host(), y), et = compare(b.states.host(), state);
  {
    Batch<E> c(in, state0, true);
    Buffer<float> raw(c.y.n);
    c.prepare(), c.walk(raw.p);
    CHECK(cudaDeviceSynchronize());
    eo = compare(raw.host(), o);
  }
  const bool ok = es.finite && ef.finite && eo.finite && et.finite && es.rms < 4e-3 && ef.rms < 4e-3 + tolerance<E> &&
                  eo.rms < tolerance<E> && et.rms < tolerance<E>;
  failures += !ok;
  printf("%s %-4s H%d HV%d K%d V%d %-5s decay %-5g %s T=%-5d o %.2e (worst %.2e) state %.2e y %.2e simple y %.2e\n",
         ok ? "ok  " : "FAIL", is_bf16<E> ? "bf16" : "f16", s.H, s.HV, s.K, s.V, kind_names[kind], decay,
         carried ? "carried" : "zero   ", in.T, eo.rms, eo.worst, et.rms, ef.rms, es.rms);
}

// The same bits packed in any order, alone, and split at multiples of 64 tokens.
template <typename E>
static void bits(Shape s, const std::vector<int> &lens, unsigned seed) {
  auto in = make<E>(s, lens, 1.6f, kla, seed);
  Batch<E> all(in, {}, true);
  all.fast();
  const auto y = all.y.host();
  const auto st = all.states.host();
  const size_t row_k = size_t(s.H) * s.K, row_v = size_t(s.HV) * s.V, one = size_t(s.HV) * s.K * s.V;
  bool ok = true;
  int begin = 0;
  for (size_t d = 0; d < lens.size(); d++) {
    for (int pieces = 1; pieces <= (lens[d] > 64 ? 2 : 1); pieces++) {
      std::vector<float> state;
      int at = 0;
      for (int p = 0; p < pieces; p++) {
        const int n = p + 1 < pieces ? std::max(1, lens[d] / 128) * 64 : lens[d] - at, from = begin + at;
        Inputs<E> part;
        part.s = s, part.lens = {n}, part.T = n, part.norm = in.norm;
        auto cut = [&](auto &to, const auto &v, size_t row) {
          to.assign(v.begin() + from * row, v.begin() + (from + n) * row);
        };
        cut(part.q, in.q, row_k), cut(part.k, in.k, row_k), cut(part.bk, in.bk, row_k), cut(part.g, in.g, row_k),
            cut(part.wv, in.wv, row_v), cut(part.gate, in.gate, row_v);
        Batch<E> b(part, state, true);
        b.fast();
        const auto py = b.y.host();
        state = b.states.host();
        ok = ok && !memcmp(py.data(), y.data() + from * row_v, n * row_v * 2);
        at += n;
      }
      ok = ok && !memcmp(state.data(), st.data() + d * one, one * 4);
    }
    begin += lens[d];
  }
  failures += !ok;
  printf("%s bits %s K%d V%d HV%d: packed = alone = split\n", ok ? "ok  " : "FAIL", is_bf16<E> ? "bf16" : "f16", s.K,
         s.V, s.HV);
}

template <typename E>
static void check_all(bool small) {
  const std::vector<int> lengths = {1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 97, 127, 129, 1023, 1025, 4097};
  const Kind kinds[] = {kla, l2, l2_negative};
  if (small) {
    check<E>({1, 1, 128, 128}, {1, 63, 65, 130}, 1.6f, kla, true, 1);
    check<E>({1, 2, 64, 64}, {17, 129}, 800, l2, true, 2);
    check<E>({1, 1, 64, 256}, {70}, 1.6f, kla, true, 3);
    return;
  }
  unsigned seed = 10;
  check<E>({2, 2, 128, 128}, lengths, 1.6f, kla, false, seed++);
  for (Kind kind : kinds)
    for (float decay : {0.05f, 1.6f, 50.f, 800.f})
      check<E>({2, 2, 128, 128}, {1025, 65, 16, 700}, decay, kind, seed % 2, seed), seed++;
  for (Shape s : {Shape{2, 2, 64, 64}, Shape{1, 3, 64, 128}, Shape{1, 2, 128, 64}, Shape{2, 2, 128, 256},
                  Shape{1, 2, 64, 256}, Shape{2, 4, 128, 128}})
    for (float decay : {0.05f, 800.f}) check<E>(s, {129, 1, 64, 333}, decay, kinds[seed % 3], true, seed), seed++;
  bits<E>({2, 2, 128, 128}, {1, 64, 129, 1025, 65, 400, 2}, seed++);
  bits<E>({1, 2, 64, 256}, {130, 64, 200}, seed++);
}

template <typename E>
static void time_one(const char *name, const std::vector<int> &lens) {
  const Shape s{16, 16, 128, 128};
  const auto in = make<E>(s, lens, 0.1f, kla, 7);
  std::vector<Batch<E>> bs;
  for (int i = 0; i < 2; i++)
    bs.emplace_back(in);  // two sets in turn: inputs of one are out of the L2 cache when its turn comes
  cudaEvent_t a, b, c;
  for (auto *event : {&a, &b, &c}) CHECK(cudaEventCreate(event));
  std::vector<float> tp, tw;
  for (int i = 0; i < 24; i++) {
    auto &x = bs[i % 2];
    CHECK(cudaEventRecord(a));
    x.prepare();
    CHECK(cudaEventRecord(b));
    x.walk(nullptr);
    CHECK(cudaEventRecord(c));
    CHECK(cudaEventSynchronize(c));
    float p, w;
    CHECK(cudaEventElapsedTime(&p, a, b));
    CHECK(cudaEventElapsedTime(&w, b, c));
    if (i >= 4) tp.push_back(p), tw.push_back(w);
  }
  std::vector<float> tt;
  for (int i = 0; i < 24; i++) {
    CHECK(cudaEventRecord(a));
    for (int j = 0; j < 4; j++) bs[j % 2].fast();
    CHECK(cudaEventRecord(c));
    CHECK(cudaEventSynchronize(c));
    float t;
    CHECK(cudaEventElapsedTime(&t, a, c));
    if (i >= 4) tt.push_back(t / 4);
  }
  auto median = [](std::vector<float> v) {
    std::sort(v.begin(), v.end());
    return v[v.size() / 2];
  };
  const double p = median(tp), w = median(tw), t = median(tt), tok = in.T, chunks = bs[0].NC * 16.;
  const double rows = tok * 16 * 128 * 2, records = chunks * (57856. + 16384), read_p = 5 * rows,
               bytes_p = read_p + records, bytes_w = records + 2 * rows;
  const double flops_p = chunks * 2 * (2 * 64 * 64 * 128 / 2 + 2 * 64 * 64 * 128 / 2),
               flops_w = chunks * 2 * (3 * 64. * 128 * 128 + 64 * 64 * 128);
  int longest = *std::max_element(lens.begin(), lens.end());
  printf(
      "%-4s %-34s N=%-3zu longest %-5d prepare %.3f ms (%.2f TB/s) walk %.3f ms (%.2f TB/s, %.0f TFLOP/s) together "
      "%.3f ms; %.2fx the memory floor of 4.3 TB/s\n",
      is_bf16<E> ? "bf16" : "f16", name, lens.size(), longest, p, bytes_p / p / 1e9, w, bytes_w / w / 1e9,
      flops_w / w / 1e9, t, t / ((bytes_p + bytes_w) / 4.3e9));
  (void)flops_p;
}

// FineWeb-Edu-like: log-normal lengths, median 600, mean about 1,050, up to 32,768 tokens in all.
static std::vector<int> mix(unsigned seed, std::vector<int> lens = {}) {
  std::mt19937 r(seed);
  std::normal_distribution<double> normal;
  int total = 0;
  for (int n : lens) total += n;
  while (total < 32768) {
    int n = std::max(16, std::min(30000, int(600 * std::exp(1.058 * normal(r)))));
    n = std::min(n, 32768 - total);
    lens.push_back(n), total += n;
  }
  std::shuffle(lens.begin(), lens.end(), r);
  return lens;
}

int main(int argc, char **argv) {
  const std::string mode = argc > 1 ? argv[1] : "all";
  if (mode == "small") {
    check_all<bf16>(true), check_all<__half>(true);
  } else if (mode != "time") {
    check_all<bf16>(false), check_all<__half>(false);
  }
  if (failures) return printf("%d checks failed\n", failures), 1;
  if (mode == "time" || mode == "all") {
    const std::vector<int> peer_starts = {0,     300,   700,   1800,  2000,  2400,  4100,  4900,  6000,  7300,  8100,
                                          9000,  9700,  11500, 12000, 13800, 15000, 16384, 17000, 18000, 20000, 20500,
                                          22000, 24000, 26000, 27000, 27500, 29000, 30500, 31000, 32000, 32768};
    std::vector<int> peer;
    for (size_t i = 1; i < peer_starts.size(); i++) peer.push_back(peer_starts[i] - peer_starts[i - 1]);
    time_one<bf16>("8 x 4096", std::vector<int>(8, 4096));
    time_one<__half>("8 x 4096", std::vector<int>(8, 4096));
    time_one<bf16>("31 documents of the packed peer", peer);
    time_one<bf16>("log-normal mix", mix(1));
    time_one<bf16>("log-normal mix", mix(2));
    time_one<bf16>("one of 30,000 and a mix", mix(3, {30000}));
    time_one<__half>("one of 30,000 and a mix", mix(3, {30000}));
  }
  return 0;
}
