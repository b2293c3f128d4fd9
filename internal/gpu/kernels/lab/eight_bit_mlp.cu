// Lab for a layer's MLP in eight bits: RMSNorm to s8, w1|w2 with SwiGLU to s8, w3 added to the residual stream. The
// quantizers are checked to the bit and the output against float64, with rows of zeros, NaN and infinity among them.
// Then norm and MLP are timed. Usage: eight_bit_mlp
#include <atomic>
#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "../eight_bit_endings.cuh"
#include "../int8.cu"
#include "measure.cuh"

using namespace eight;

constexpr int kWidth = 2304, kInner = 6208;  // the 1.3B model
constexpr int kUp = 12544, kDown = 2304;     // rows of w1|w2 and w3, padded to tiles
constexpr float kEps = 1e-5f;
using Up = Tiling<256, 256, 4, 2>;
using Down = Tiling<256, 128, 4, 2>;
static int failures = 0;

static void say(bool ok, const char *format, double a, double b) {
  failures += !ok;
  printf(ok ? "ok   " : "FAIL ");
  printf(format, a, b);
  printf("\n"), fflush(stdout);
}

static std::vector<float> normals(size_t n, float scale, unsigned seed) {
  std::vector<float> v(n);
  std::vector<std::thread> ts;
  for (int part = 0; part < 16; part++)
    ts.emplace_back([&, part] {
      std::mt19937 r(seed * 16 + part);
      std::normal_distribution<float> normal(0, scale);
      for (size_t i = n * part / 16; i < n * (part + 1) / 16; i++) v[i] = normal(r);
    });
  for (auto &t : ts) t.join();
  return v;
}

// Quantizes v [n] as the kernels do; returns the scale.
static float quantized(const float *v, int n, std::vector<int8_t> &q) {
  float max = 0;
  for (int i = 0; i < n; i++) max = std::max(max, std::fabs(v[i]));
  const float inverse = max > 1e-30f ? 127.f / max : 0.f;
  q.resize(n);
  for (int i = 0; i < n; i++) q[i] = int8_t(std::fmaf(v[i], inverse, 12582912.f) - 12582912.f);
  return max / 127.f;
}

struct Model {
  std::vector<float> norm, up, down;  // up: w1's rows, then w2's
  Buffer<float> norm_d, up_scales, down_scales;
  Buffer<int8_t> up8, down8;

  Model() : norm(normals(kWidth, 0.2f, 1)), up(normals(2ll * kInner * kWidth, 0.02f, 2)) {
    for (auto &w : norm) w += 1;
    down = normals(int64_t(kWidth) * kInner, 0.02f, 3);
    norm_d = Buffer<float>(norm);
    up8 = Buffer<int8_t>(int64_t(kUp) * kWidth), up_scales = Buffer<float>(kUp);
    down8 = Buffer<int8_t>(int64_t(kDown) * kInner), down_scales = Buffer<float>(kDown);
    load(up, kWidth, swiglu_order, up8, up_scales, "w1|w2");
    load(down, kInner, residual_order, down8, down_scales, "w3");
  }
  static void load(std::vector<float> &w, int k, Order order, Buffer<int8_t> &to, Buffer<float> &scales,
                   const char *name) {
    const int n = w.size() / k;
    std::vector<__half> half(w.size());
    for (size_t i = 0; i < w.size(); i++) half[i] = __float2half_rn(w[i]), w[i] = __half2float(half[i]);
    Buffer<__half> raw(half);
    CHECK(cudaMemset(to.p, 0, to.n));
    CHECK(cudaMemset(scales.p, 0, scales.n * 4));
    quantize_rows<<<(n + 7) / 8, 256>>>(to.p, scales.p, reinterpret_cast<act *>(raw.p), n, k, order);
    CHECK(cudaDeviceSynchronize());
    const auto q = to.host();
    const auto s = scales.host();
    int64_t wrong = 0;
    std::vector<int8_t> want;
    for (int c = 0; c < n; c += 7) {
      const int at = order == swiglu_order ? position_swiglu(c % (n / 2), c / (n / 2)) : position_residual(c);
      wrong += quantized(&w[int64_t(c) * k], k, want) != s[at];
      for (int i = 0; i < k; i++) wrong += q[int64_t(at) * k + i] != want[i];
    }
    printf("%s: ", name);
    say(wrong == 0, "%.0f of %.0f quantized weights wrong", wrong, double(n / 7) * k);
  }
};

// The buffers of a batch and the three launches.
struct Batch {
  const Model &m;
  int rows, sms;
  Buffer<float> x, rs, ys;
  Buffer<int8_t> x8, y8;
  Buffer<CUtensorMap> up_maps, down_maps;

  Batch(const Model &m, const std::vector<float> &x0, int sms) : m(m), rows(x0.size() / kWidth), sms(sms), x(x0) {
    rs = Buffer<float>(rows), ys = Buffer<float>(int64_t((kInner + 127) / 128) * rows);
    x8 = Buffer<int8_t>(int64_t(rows) * kWidth), y8 = Buffer<int8_t>(int64_t(rows) * kInner);
    const auto map = [](const void *p, int rows, int columns, int box) {
      return tensor_map(p, CU_TENSOR_MAP_DATA_TYPE_UINT8, 1, rows, columns, 128, box);
    };
    up_maps = Buffer<CUtensorMap>({map(x8.p, rows, kWidth, 128), map(m.up8.p, kUp, kWidth, Up::kN / 2)});
    down_maps = Buffer<CUtensorMap>({map(y8.p, rows, kInner, 128), map(m.down8.p, kDown, kInner, Down::kN / 2)});
    auto up = eight::swiglu<Up, Loop::whole>;
    auto down = eight::residual<Type::s8, Down, Loop::in_turns, false>;
    CHECK(cudaFuncSetAttribute(up, cudaFuncAttributeMaxDynamicSharedMemorySize, Up::kShared));
    CHECK(cudaFuncSetAttribute(down, cudaFuncAttributeMaxDynamicSharedMemorySize, Down::kShared));
  }
  template <typename... P, typename... A>
  void launch(void (*kernel)(P...), int shared, int tiles, const Operands &o, A... rest) {
    cudaLaunchAttribute cluster{};
    cluster.id = cudaLaunchAttributeClusterDimension, cluster.val.clusterDim = {2, 1, 1};
    cudaLaunchConfig_t c{};
    c.gridDim = 2 * std::min(sms / 2, o.groups * tiles), c.blockDim = 384, c.dynamicSmemBytes = shared;
    c.attrs = &cluster, c.numAttrs = 1;
    CHECK(cudaLaunchKernelEx(&c, kernel, o, rest...));
  }
  void norm() {
    rms_norm_s8_18<<<(rows + 7) / 8, 256>>>(x8.p, rs.p, x.p, m.norm_d.p, rows, kWidth, kEps);
    CHECK(cudaGetLastError());
  }
  void up() {
    launch(eight::swiglu<Up, Loop::whole>, Up::kShared, kUp / 256,
           {up_maps.p, rows / 256, 2 * kInner, kWidth, nullptr, nullptr, rows, kUp, 8}, y8.p, ys.p, rs.p, m.up_scales.p,
           kInner);
  }
  void down() {
    launch(eight::residual<Type::s8, Down, Loop::in_turns, false>, Down::kShared, kDown / Down::kN,
           {down_maps.p, rows / 256, kDown, kInner, ys.p, nullptr, rows, kDown, 8}, x.p, m.down_scales.p, kWidth);
  }
};

static void check(const Model &m, int sms) {
  const int rows = 1024, sampled = 16;
  auto x0 = normals(int64_t(rows) * kWidth, 1, 4);
  for (size_t i = 0; i < x0.size(); i++) x0[i] *= std::pow(10.f, float(int(i / kWidth) % 5 - 2));
  const int zeros = 5, nan = 6, infinite = 7;
  for (int i = 0; i < kWidth; i++) x0[zeros * kWidth + i] = 0;
  x0[nan * kWidth + 100] = NAN, x0[infinite * kWidth + 2303] = INFINITY;
  Batch b(m, x0, sms);
  b.norm(), b.up(), b.down();
  CHECK(cudaDeviceSynchronize());
  const auto x8 = b.x8.host(), y8 = b.y8.host();
  const auto rs = b.rs.host(), ys = b.ys.host(), x1 = b.x.host();
  int64_t wrong = 0, finite = 0;
  double scale_error = 0;
  std::vector<float> v(kWidth);
  std::vector<int8_t> want;
  for (int r = 0; r < rows; r++) {
    if (r == nan || r == infinite) {
      wrong += std::isfinite(rs[r]);
      for (int i = 0; i < kWidth; i++) finite += std::isfinite(x1[int64_t(r) * kWidth + i]);
      continue;
    }
    double square = 0;
    for (int i = 0; i < kWidth; i++) {
      const float t = x0[int64_t(r) * kWidth + i];
      v[i] = t * m.norm[i], square += double(t) * t;
    }
    const double s = quantized(v.data(), kWidth, want) / std::sqrt(square / kWidth + kEps);
    for (int i = 0; i < kWidth; i++) wrong += x8[int64_t(r) * kWidth + i] != want[i];
    if (r == zeros) wrong += rs[r] != 0;
    else scale_error = std::max(scale_error, std::fabs(rs[r] / s - 1));
  }
  say(wrong == 0 && scale_error < 1e-6, "norm: %.0f wrong, scales off by %.1e", wrong, scale_error);
  say(finite == 0, "rows with NaN and infinity: %.0f finite numbers in %.0f", finite, 2.0 * kWidth);
  std::vector<double> top(sampled), bottom(sampled), quantization(sampled);
  std::vector<std::thread> ts;
  for (int i = 0; i < sampled; i++)
    ts.emplace_back([&, i] {
      const int r = 8 + i * 61;
      double square = 0;
      for (int j = 0; j < kWidth; j++) square += double(x0[int64_t(r) * kWidth + j]) * x0[int64_t(r) * kWidth + j];
      std::vector<double> h(kWidth), y(kInner);
      for (int j = 0; j < kWidth; j++)
        h[j] = x0[int64_t(r) * kWidth + j] / std::sqrt(square / kWidth + kEps) * m.norm[j];
      for (int c = 0; c < kInner; c++) {
        double a = 0, g = 0;
        for (int j = 0; j < kWidth; j++)
          a += h[j] * m.up[int64_t(c) * kWidth + j], g += h[j] * m.up[int64_t(kInner + c) * kWidth + j];
        y[c] = a / (1 + std::exp(-a)) * g;
      }
      for (int c = 0; c < kWidth; c++) {
        double want = 0;
        for (int j = 0; j < kInner; j++) want += y[j] * m.down[int64_t(c) * kInner + j];
        const double got = double(x1[int64_t(r) * kWidth + c]) - x0[int64_t(r) * kWidth + c];
        top[i] += (got - want) * (got - want), bottom[i] += want * want;
      }
    });
  for (auto &t : ts) t.join();
  double a = 0, c = 0;
  for (int i = 0; i < sampled; i++) a += top[i] / bottom[i], c = std::max(c, top[i] / bottom[i]);
  say(std::sqrt(c) < 0.04, "the MLP's output: relative error %.4f, worst row %.4f", std::sqrt(a / sampled),
      std::sqrt(c));
}

// fp16 to blocks of 128, as for o_proj.
static void check_blocks() {
  const int rows = 512, columns = 2048;
  auto v = normals(int64_t(rows) * columns, 1, 5);
  std::vector<__half> h(v.size());
  for (size_t i = 0; i < v.size(); i++) {
    if (int(i / columns) == 3) v[i] = 0;
    h[i] = __float2half_rn(v[i]), v[i] = __half2float(h[i]);
  }
  Buffer<__half> x(h);
  Buffer<int8_t> y(h.size());
  Buffer<float> ys(int64_t(columns / 128) * rows);
  const int64_t blocks = int64_t(rows) * columns / 128;
  quantize_blocks<<<(blocks + 15) / 16, 256>>>(y.p, ys.p, reinterpret_cast<act *>(x.p), rows, columns, rows);
  CHECK(cudaDeviceSynchronize());
  const auto q = y.host();
  const auto s = ys.host();
  int64_t wrong = 0;
  std::vector<int8_t> want;
  for (int64_t b = 0; b < blocks; b++) {
    wrong += quantized(&v[b * 128], 128, want) != s[b % (columns / 128) * rows + b / (columns / 128)];
    for (int i = 0; i < 128; i++) wrong += q[b * 128 + i] != want[i];
  }
  say(wrong == 0, "blocks of 128: %.0f of %.0f wrong", wrong, double(h.size()));
}

int main() {
  CHECK(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, 0));
  Model m;
  check(m, sms);
  check_blocks();
  if (failures) return printf("%d FAILED\n", failures), 1;
  const int rows = 32768;
  Batch b(m, normals(int64_t(rows) * kWidth, 1, 6), sms);
  const double up = 2.0 * rows * 2 * kInner * kWidth, down = 2.0 * rows * kInner * kWidth;
  measure("norm to s8 (its 5 bytes an element as operations: TB/s, not TFLOP/s, by 1000)", 5.0 * rows * kWidth * 1000,
          [&] { b.norm(); });
  measure("norm, w1|w2, w3", up + down, [&] { b.norm(), b.up(), b.down(); });
}
