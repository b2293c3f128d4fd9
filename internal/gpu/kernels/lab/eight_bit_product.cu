// Lab for the eight-bit product (eight_bit_product.cuh): checks all versions against exact sums on the CPU, then times
// them, cool and at sustained load, next to cuBLASLt and swiglu_product.
//
//   eight_bit_product check                 small shapes entirely, the 1.3B model's by samples; poisoned outputs; the
//                                           same bits for any number of rows
//   eight_bit_product small                 the small shapes alone, for compute-sanitizer
//   eight_bit_product time [PART_OF_NAME]   32,768 rows
//
// SURPRISAL_CUBLASLT and SURPRISAL_NVML name libraries that the linker doesn't find. docs/kernels/int8.md has the
// results.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <cuda_fp8.h>

#include "../swiglu_product.cu"
#include "../eight_bit_endings.cuh"
#include "measure.cuh"

using namespace eight;

static int failures = 0;

// A random number for each index.
__host__ __device__ static uint32_t mix(uint64_t x) {
  x = (x ^ x >> 31) * 0x7fb5d329728ea185ull, x = (x ^ x >> 27) * 0x81dadef4bc2dd44dull;
  return uint32_t(x >> 32 ^ x >> 7);
}
__device__ static float normal(uint64_t i, int seed) {
  const uint32_t a = mix(i * 2 + 1 + (uint64_t(seed) << 40)), b = mix(i * 2 + 2 + (uint64_t(seed) << 40));
  return sqrtf(-2 * logf((a + 1.f) / 4294967808.f)) * cosf(6.2831853f * (b / 4294967296.f));
}
// Normal numbers, quantized: the largest value of the type is 3.6 standard deviations, as in a row of 2,304.
__global__ static void fill8(unsigned char *p, int64_t n, int seed, bool e4m3) {
  for (int64_t i = blockIdx.x * 256ll + threadIdx.x; i < n; i += gridDim.x * 256ll) {
    const float v = normal(i, seed);
    p[i] = e4m3 ? __nv_cvt_float_to_fp8(v * (448 / 3.6f), __NV_SATFINITE, __NV_E4M3)
                : (unsigned char)(signed char)rintf(fminf(fmaxf(v * (127 / 3.6f), -127.f), 127.f));
  }
}
__global__ static void fill16(act *p, int64_t n, int seed, float scale) {
  for (int64_t i = blockIdx.x * 256ll + threadIdx.x; i < n; i += gridDim.x * 256ll)
    p[i] = to_act(scale * __bfloat162float(__float2bfloat16(normal(i, seed))));
}
__global__ static void fill_scales(float *p, int64_t n, int seed, float scale) {  // within a factor of two
  for (int64_t i = blockIdx.x * 256ll + threadIdx.x; i < n; i += gridDim.x * 256ll)
    p[i] = scale * exp2f(mix(i + (uint64_t(seed) << 40)) / 4294967296.f);
}
__global__ static void fill32(float *p, int64_t n, int seed) {
  for (int64_t i = blockIdx.x * 256ll + threadIdx.x; i < n; i += gridDim.x * 256ll) p[i] = normal(i, seed);
}
// to[position(c)] = from[c], rows of `bytes`.
__global__ static void place_rows(unsigned char *to, const unsigned char *from, const int *position, int rows,
                                  int bytes) {
  for (int c = blockIdx.x; c < rows; c += gridDim.x)
    for (int i = threadIdx.x; i < bytes; i += blockDim.x)
      to[int64_t(position[c]) * bytes + i] = from[int64_t(c) * bytes + i];
}

enum class Ending { plain, swiglu, residual };

// The operands of a product. Columns are counted in natural order; for SwiGlu w1's come before w2's.
struct Problem {
  Ending ending;
  Type type;
  int rows, n, k, positions;
  Buffer<unsigned char> x, w_natural, w;
  Buffer<float> rs, cs_natural, cs, xs, ws_natural, ws, r;
  Buffer<__half> y16;
  Buffer<int8_t> y8;
  Buffer<float> ys;
  Buffer<CUtensorMap> maps;
  std::vector<int> position;

  int blocks() const { return (k + 127) / 128; }

  Problem(Ending ending, Type type, int rows, int n, int k)
      : ending(ending), type(type), rows(rows), n(n), k(k), positions((n + 767) / 768 * 768) {
    const bool f = type == Type::e4m3;
    x = Buffer<unsigned char>(int64_t(rows) * k), w_natural = Buffer<unsigned char>(int64_t(n) * k),
    w = Buffer<unsigned char>(int64_t(positions) * k);
    rs = Buffer<float>(rows), cs_natural = Buffer<float>(n), cs = Buffer<float>(positions);
    xs = Buffer<float>(int64_t(blocks()) * rows), ws_natural = Buffer<float>(int64_t(blocks()) * n),
    ws = Buffer<float>(int64_t(blocks()) * positions);
    fill8<<<1024, 256>>>(x.p, x.n, 1, f);
    fill8<<<1024, 256>>>(w_natural.p, w_natural.n, 2, f);
    const float top = f ? 448 : 127, to = std::sqrt(float(k));
    fill_scales<<<64, 256>>>(rs.p, rs.n, 3, 3.6f / top);
    fill_scales<<<64, 256>>>(cs_natural.p, cs_natural.n, 4, 3.6f / top / to);
    fill_scales<<<64, 256>>>(xs.p, xs.n, 5, 3.6f / top);
    fill_scales<<<64, 256>>>(ws_natural.p, ws_natural.n, 6, 3.6f / top / to);
    for (int c = 0; c < n; c++)
      position.push_back(ending == Ending::plain      ? position_plain(c)
                         : ending == Ending::residual ? position_residual(c)
                                                      : position_swiglu(c % (n / 2), c / (n / 2)));
    Buffer<int> at(position);
    CHECK(cudaMemset(w.p, 0, w.n));
    CHECK(cudaMemset(cs.p, 0, 4 * cs.n));
    CHECK(cudaMemset(ws.p, 0, 4 * ws.n));
    place_rows<<<2048, 256>>>(w.p, w_natural.p, at.p, n, k);
    place_rows<<<2048, 32>>>(reinterpret_cast<unsigned char *>(cs.p), reinterpret_cast<unsigned char *>(cs_natural.p),
                             at.p, n, 4);
    for (int b = 0; b < blocks(); b++)
      place_rows<<<2048, 32>>>(reinterpret_cast<unsigned char *>(ws.p + int64_t(b) * positions),
                               reinterpret_cast<unsigned char *>(ws_natural.p + int64_t(b) * n), at.p, n, 4);
    if (ending == Ending::plain) y16 = Buffer<__half>(int64_t(rows) * n);
    if (ending == Ending::swiglu)
      y8 = Buffer<int8_t>(int64_t(rows) * n / 2), ys = Buffer<float>(int64_t((n / 2 + 127) / 128) * rows);
    if (ending == Ending::residual) r = Buffer<float>(int64_t(rows) * n), fill32<<<1024, 256>>>(r.p, r.n, 7);
    CHECK(cudaDeviceSynchronize());
  }
  template <typename S>
  Operands operands(int rows, int height) {
    std::vector<CUtensorMap> m{
        tensor_map(x.p, CU_TENSOR_MAP_DATA_TYPE_UINT8, 1, rows, k, 128, 128),
        tensor_map(w.p, CU_TENSOR_MAP_DATA_TYPE_UINT8, 1, positions, k, 128, S::kN / S::kCluster)};
    maps = Buffer<CUtensorMap>(m);
    return {maps.p, rows / (128 * S::kCluster), (n + 15) / 16 * 16, k, xs.p, ws.p, this->rows, positions, height};
  }
};

template <typename S, typename... Parameters, typename... Arguments>
static std::function<void()> launcher(void (*kernel)(Parameters...), const Operands &o, Arguments... arguments) {
  CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kShared));
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension, cluster.val.clusterDim = {S::kCluster, 1, 1};
  cudaLaunchConfig_t c{};
  c.gridDim = S::kCluster, c.blockDim = 384, c.dynamicSmemBytes = S::kShared, c.attrs = &cluster, c.numAttrs = 1;
  int clusters = 0;
  CHECK(cudaOccupancyMaxActiveClusters(&clusters, kernel, &c));
  c.gridDim = S::kCluster * std::min(clusters, o.groups * ((o.N + S::kN - 1) / S::kN));
  return [=]() mutable {
    c.attrs = &cluster;
    CHECK(cudaLaunchKernelEx(&c, kernel, o, arguments...));
  };
}

// A version of the kernel; bind returns a function that launches it on the first `rows` rows of a problem.
struct Version {
  const char *name;
  Ending ending;
  Type type;
  bool wscales;
  std::function<std::function<void()>(Problem &, int rows)> bind;
};

template <Type T, typename S, Loop L>
static Version plain_version(const char *name, int height = 8) {
  return {name, Ending::plain, T, false, [=](Problem &p, int rows) {
            return launcher<S>(eight::plain<T, S, L>, p.operands<S>(rows, height), p.y16.p, p.rs.p, p.cs.p, p.n);
          }};
}
template <typename S, Loop L>
static Version swiglu_version(const char *name, int height = 8) {
  return {name, Ending::swiglu, Type::s8, false, [=](Problem &p, int rows) {
            return launcher<S>(eight::swiglu<S, L>, p.operands<S>(rows, height), p.y8.p, p.ys.p, p.rs.p, p.cs.p,
                               p.n / 2);
          }};
}
template <Type T, typename S, Loop L, bool WScales>
static Version residual_version(const char *name, int height = 8) {
  return {name, Ending::residual, T, WScales, [=](Problem &p, int rows) {
            return launcher<S>(eight::residual<T, S, L, WScales>, p.operands<S>(rows, height), p.r.p, p.cs.p, p.n);
          }};
}

using Wide = Tiling<256, 256, 4, 2>;
using Halves = Tiling<256, 128, 4, 2>;
using Narrow = Tiling<192, 192, 5, 2>;

static std::vector<Version> versions() {
  return {
      plain_version<Type::s8, Wide, Loop::whole>("plain s8"),
      plain_version<Type::s8, Wide, Loop::overlapped>("plain s8, overlapped"),
      plain_version<Type::s8, Wide, Loop::whole>("plain s8, 32 high", 32),
      plain_version<Type::e4m3, Wide, Loop::whole>("plain e4m3"),
      plain_version<Type::e4m3, Wide, Loop::overlapped>("plain e4m3, overlapped"),
      swiglu_version<Wide, Loop::whole>("swiglu s8"),
      swiglu_version<Wide, Loop::whole>("swiglu s8, 32 high", 32),
      swiglu_version<Wide, Loop::overlapped>("swiglu s8, overlapped, 16 high", 16),
      swiglu_version<Wide, Loop::overlapped>("swiglu s8, overlapped, 32 high", 32),
      residual_version<Type::s8, Halves, Loop::blocks, false>("residual s8, 256 in halves"),
      residual_version<Type::s8, Halves, Loop::in_turns, false>("residual s8, 256 in halves, in turns"),
      residual_version<Type::s8, Narrow, Loop::in_turns, false>("residual s8, 192, in turns"),
      residual_version<Type::s8, Narrow, Loop::in_turns, true>("residual s8, 192, in turns, w's block scales"),
      residual_version<Type::e4m3, Narrow, Loop::in_turns, false>("residual e4m3, 192, in turns"),
  };
}

static float e4m3(unsigned char v) { return __half2float(__half(__nv_cvt_fp8_to_halfraw(v, __NV_E4M3))); }

static void parallel(int n, const std::function<void(int)> &f) {
  const int workers = std::max(1u, std::thread::hardware_concurrency());
  std::atomic<int> next{0};
  std::vector<std::thread> ts;
  for (int w = 0; w < workers; w++)
    ts.emplace_back([&] {
      for (int i; (i = next++) < n;) f(i);
    });
  for (auto &t : ts) t.join();
}

// A row of a matrix on the device.
template <typename T>
static std::vector<T> row_of(const T *p, int64_t row, int64_t n) {
  std::vector<T> v(n);
  CHECK(cudaMemcpy(v.data(), p + row * n, n * sizeof(T), cudaMemcpyDeviceToHost));
  return v;
}

// Compares sampled rows with a reference: exact sums for s8, float64 for e4m3.
static void check(const Version &v, int rows, int n, int k, int sampled) {
  Problem p(v.ending, v.type, rows, n, k);
  const int inner = n / 2, blocks = p.blocks();
  const auto w = p.w_natural.host();
  const auto rs = p.rs.host(), cs = p.cs_natural.host(), xs = p.xs.host(), ws = p.ws_natural.host();
  struct Row {
    int at;
    std::vector<unsigned char> x;
    std::vector<float> before, after;
    std::vector<__half> y16;
    std::vector<int8_t> y8;
  };
  std::vector<Row> all(sampled);
  for (int i = 0; i < sampled; i++) {
    all[i].at = sampled == rows ? i : int(int64_t(i) * 7919 % rows);
    all[i].x = row_of(p.x.p, all[i].at, k);
    if (p.r.n) all[i].before = row_of(p.r.p, all[i].at, n);
  }
  const auto first = [&] {  // the first 512 rows of the output
    std::vector<unsigned char> b;
    auto add = [&](const auto &buffer, size_t count) {
      if (!buffer.n) return;
      const size_t at = b.size(), bytes = count * sizeof(*buffer.p);
      b.resize(at + bytes);
      CHECK(cudaMemcpy(b.data() + at, buffer.p, bytes, cudaMemcpyDeviceToHost));
    };
    add(p.y16, size_t(512) * n), add(p.y8, size_t(512) * inner), add(p.ys, 512), add(p.r, size_t(512) * n);
    return b;
  };
  v.bind(p, rows)();
  CHECK(cudaDeviceSynchronize());
  for (auto &r : all) {
    if (p.y16.n) r.y16 = row_of(p.y16.p, r.at, n);
    if (p.y8.n) r.y8 = row_of(p.y8.p, r.at, inner);
    if (p.r.n) r.after = row_of(p.r.p, r.at, n);
  }
  const auto ys = p.ys.host();
  std::atomic<int64_t> wrong{0}, near{0};
  std::vector<double> worst(sampled);
  parallel(sampled, [&](int i) {
    const Row &r = all[i];
    std::vector<float> value(n), xf(k);
    for (int j = 0; j < k; j++) xf[j] = v.type == Type::s8 ? float((signed char)r.x[j]) : e4m3(r.x[j]);
    for (int c = 0; c < n; c++) {
      const unsigned char *wc = &w[int64_t(c) * k];
      double sum = 0;
      int64_t exact = 0;
      float f = 0;
      for (int b = 0; b < blocks; b++) {
        const int end = std::min(k, b * 128 + 128);
        float s;
        if (v.type == Type::s8) {
          int t = 0;
          for (int j = b * 128; j < end; j++) t += int((signed char)r.x[j]) * int((signed char)wc[j]);
          exact += t, s = float(t);
        } else {
          double t = 0;
          for (int j = b * 128; j < end; j++) t += double(xf[j]) * e4m3(wc[j]);
          sum += t, s = float(t);
        }
        f = std::fmaf(v.wscales ? s * ws[int64_t(b) * n + c] : s, xs[int64_t(b) * rows + r.at], f);
      }
      value[c] = v.ending == Ending::residual ? f : v.type == Type::s8 ? float(exact) : float(sum);
    }
    auto miss = [&](double got, double want, double allowed) {
      const double e = std::fabs(got - want);
      worst[i] = std::max(worst[i], e == e ? e : 1e30);
      if (!(e <= allowed)) wrong++;
    };
    const bool s8 = v.type == Type::s8;
    for (int c = 0; c < n && v.ending == Ending::plain; c++) {
      const float want = __half2float(__float2half_rn(value[c] * rs[r.at] * cs[c]));
      miss(__half2float(r.y16[c]), want, s8 ? 0 : 1e-2 + 1e-2 * std::fabs(want));
    }
    for (int c = 0; c < n && v.ending == Ending::residual; c++) {
      const float a = v.wscales ? value[c] : value[c] * cs[c];
      miss(r.after[c], r.before[c] + a, s8 ? 0 : 1e-2);
    }
    for (int b = 0; b < (inner + 127) / 128 && v.ending == Ending::swiglu; b++) {
      std::vector<double> y;
      double max = 0;
      for (int c = b * 128; c < std::min(inner, b * 128 + 128); c++) {
        const double h1 = double(value[c]) * rs[r.at] * cs[c], h2 = double(value[inner + c]) * rs[r.at] * cs[inner + c];
        y.push_back(h1 / (1 + std::exp(-h1)) * h2), max = std::max(max, std::fabs(y.back()));
      }
      miss(double(ys[int64_t(b) * rows + r.at]) / (max / 127), 1, 1e-5);
      for (size_t j = 0; j < y.size(); j++) {  // half a unit, and the exponential's error
        const double got = r.y8[b * 128 + j], want = y[j] / (max / 127);
        miss(got, want, 0.5 + 1e-3);
        if (got != std::nearbyint(want)) near++;
      }
    }
  });
  bool same = true;  // whether fewer rows give the same bits
  if (rows > 512) {
    const auto before = first();
    if (p.y16.n) CHECK(cudaMemset(p.y16.p, 0xff, p.y16.n * 2));
    if (p.y8.n) CHECK(cudaMemset(p.y8.p, 0xff, p.y8.n));
    if (p.r.n) fill32<<<1024, 256>>>(p.r.p, p.r.n, 7);
    v.bind(p, 512)();
    CHECK(cudaDeviceSynchronize());
    same = before == first();
  }
  const bool ok = wrong == 0 && same;
  failures += !ok;
  printf("%s %-48s %6d x %5d x %4d: %lld of %lld wrong, worst %.2e%s", ok ? "ok  " : "FAIL", v.name, rows, n, k,
         (long long)wrong, (long long)sampled * n, *std::max_element(worst.begin(), worst.end()),
         same ? "" : ", other bits from 512 rows");
  if (v.ending == Ending::swiglu) printf(", %lld on the other side of a half", (long long)near);
  printf("\n"), fflush(stdout);
}

struct Shape {
  const char *name;
  Ending ending;
  int n, k;
};
static const int kRows = 32768;

// Measures the versions whose names contain one of the given parts.
static void measure_all(const std::vector<std::string> &only) {
  auto wanted = [&](const std::string &name) {
    return only.empty() || std::any_of(only.begin(), only.end(),
                                       [&](const std::string &part) { return name.find(part) != std::string::npos; });
  };
  const Shape shapes[] = {{"w1|w2", Ending::swiglu, 12416, 2304},
                          {"w3", Ending::residual, 2304, 6208},
                          {"in", Ending::plain, 10512, 2304},
                          {"out", Ending::residual, 2304, 2048}};
  for (const Shape &s : shapes) {
    const double flop = 2.0 * kRows * s.n * s.k;
    printf("%s: %d x %d x %d\n", s.name, kRows, s.n, s.k);
    for (Type type : {Type::s8, Type::e4m3}) {
      if (type == Type::e4m3) {
        const std::string fast = std::string(s.name) + ": cuBLASLt e4m3, fast sums, fp16 out",
                          exact = std::string(s.name) + ": cuBLASLt e4m3, promoted sums, fp16 out";
        if (wanted(fast) || wanted(exact)) {
          Problem p(Ending::plain, type, kRows, s.n, s.k);
          if (wanted(fast))
            measure_blas(fast.c_str(), CUDA_R_8F_E4M3, p.x.p, p.w_natural.p, p.rs.p, p.cs_natural.p, p.y16.p, kRows,
                         s.n, s.k, true);
          if (wanted(exact))
            measure_blas(exact.c_str(), CUDA_R_8F_E4M3, p.x.p, p.w_natural.p, p.rs.p, p.cs_natural.p, p.y16.p, kRows,
                         s.n, s.k, false);
        }
      }
      for (const Version &v : versions()) {
        const std::string name = std::string(s.name) + ": " + v.name;
        if (v.type != type || (v.ending != s.ending && v.ending != Ending::plain) || !wanted(name)) continue;
        Problem p(v.ending, type, kRows, s.n, s.k);
        measure(name, flop, v.bind(p, kRows));
      }
    }
    const std::string own = std::string(s.name) + ": swiglu_product fp16",
                      blas = std::string(s.name) + ": cuBLASLt fp16";
    Buffer<act> x(int64_t(kRows) * s.k), w(int64_t(s.n) * s.k), y(int64_t(kRows) * s.n);
    fill16<<<1024, 256>>>(x.p, x.n, 1, 1.f);
    fill16<<<1024, 256>>>(w.p, w.n, 2, 0.02f);
    if (wanted(blas)) measure_blas(blas.c_str(), CUDA_R_16F, x.p, w.p, nullptr, nullptr, y.p, kRows, s.n, s.k, false);
    if (s.ending == Ending::swiglu && wanted(own)) {
      std::vector<CUtensorMap> m{tensor_map(x.p, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2, kRows, s.k, 64, 128),
                                 tensor_map(w.p, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2, s.n, s.k, 64, 128),
                                 tensor_map(y.p, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2, kRows, s.n / 2, 64, 64)};
      Buffer<CUtensorMap> maps(m);
      const int shared = product::shared_bytes(2 * ::swiglu::kOut);
      CHECK(cudaFuncSetAttribute(swiglu_product, cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
      measure(own, flop, [&] {
        swiglu_product<<<2 * (sms / 2), 384, shared>>>(maps.p, nullptr, kRows / 256, s.n, s.k);
        CHECK(cudaGetLastError());
      });
    }
  }
}

int main(int argc, char **argv) {
  const std::string what = argc > 1 ? argv[1] : "check";
  const char *only = argc > 2 ? argv[2] : nullptr;
  CHECK(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, 0));
  if (what == "check" || what == "small") {
    for (const Version &v : versions()) {
      if (only && !strstr(v.name, only)) continue;
      check(v, 512, 256, 512, 512);
      check(v, 1024, 272 / 16 * 32, 400, 256);
      if (what == "small") continue;
      check(v, 2560, 2304, 2064, 48);
      if (v.ending == Ending::plain) check(v, 32768, 10512, 2304, 32);
      if (v.ending == Ending::swiglu) check(v, 32768, 12416, 2304, 32);
      if (v.ending == Ending::residual) check(v, 32768, 2304, 6208, 32);
    }
    printf(failures ? "%d FAILED\n" : "all agree\n", failures);
    return failures != 0;
  }
  measure_all({argv + std::min(argc, 2), argv + argc});
}
