// Shared by the lab's programs: buffers, tensor maps, and sustained TFLOP/s with power and clocks.
#pragma once
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <cublasLt.h>
#include <cuda.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <dlfcn.h>
#include <time.h>

#define CHECK(x)                                                                              \
  do {                                                                                        \
    cudaError_t status = (x);                                                                 \
    if (status != cudaSuccess) {                                                              \
      fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #x, cudaGetErrorString(status)); \
      exit(1);                                                                                \
    }                                                                                         \
  } while (0)

using namespace eight;

static int sms;

template <typename T>
struct Buffer {
  T *p = nullptr;
  size_t n = 0;
  Buffer() = default;
  explicit Buffer(size_t n) : n(n) {
    CHECK(cudaMalloc(&p, std::max<size_t>(n, 64) * sizeof(T)));
    CHECK(cudaMemset(p, 0xff, n * sizeof(T)));
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
  ~Buffer() { cudaFree(p); }
  std::vector<T> host() const {
    std::vector<T> v(n);
    CHECK(cudaMemcpy(v.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost));
    return v;
  }
};

static CUtensorMap tensor_map(const void *p, CUtensorMapDataType type, int bytes, uint64_t rows, uint64_t columns,
                              uint32_t box_columns, uint32_t box_rows) {
  static void *fn = nullptr;
  cudaDriverEntryPointQueryResult q;
  if (!fn) CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &fn, 12000, cudaEnableDefault, &q));
  CUtensorMap m;
  cuuint64_t dims[2] = {columns, rows}, strides[1] = {columns * bytes};
  cuuint32_t box[2] = {box_columns, box_rows}, elements[2] = {1, 1};
  CUresult r = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(fn)(
      &m, type, 2, const_cast<void *>(p), dims, strides, box, elements, CU_TENSOR_MAP_INTERLEAVE_NONE,
      CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (r) fprintf(stderr, "cuTensorMapEncodeTiled: %d\n", r), exit(1);
  return m;
}
// Energy, clock and temperature from NVML; NaN if it is not available.
struct Meter {
  void *lib = nullptr, *device = nullptr;
  int (*energy)(void *, unsigned long long *) = nullptr;
  int (*clock)(void *, int, unsigned *) = nullptr;
  int (*temperature)(void *, int, unsigned *) = nullptr;
  Meter() {
    const char *name = getenv("SURPRISAL_NVML");
    lib = dlopen(name ? name : "libnvidia-ml.so.1", RTLD_NOW);
    if (!lib) return;
    auto init = reinterpret_cast<int (*)()>(dlsym(lib, "nvmlInit_v2"));
    auto handle = reinterpret_cast<int (*)(unsigned, void **)>(dlsym(lib, "nvmlDeviceGetHandleByIndex_v2"));
    if (!init || !handle || init() || handle(0, &device)) {
      device = nullptr;
      return;
    }
    energy = reinterpret_cast<decltype(energy)>(dlsym(lib, "nvmlDeviceGetTotalEnergyConsumption"));
    clock = reinterpret_cast<decltype(clock)>(dlsym(lib, "nvmlDeviceGetClockInfo"));
    temperature = reinterpret_cast<decltype(temperature)>(dlsym(lib, "nvmlDeviceGetTemperature"));
  }
  double joules() const {
    unsigned long long mj = 0;
    return device && energy && energy(device, &mj) == 0 ? mj / 1e3 : NAN;
  }
  double mhz() const {
    unsigned v = 0;
    return device && clock && clock(device, 1, &v) == 0 ? v : NAN;  // of the SMs
  }
  double celsius() const {
    unsigned v = 0;
    return device && temperature && temperature(device, 0, &v) == 0 ? v : NAN;
  }
};

static double now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}
static double seconds(const char *name, double otherwise) { return getenv(name) ? atof(getenv(name)) : otherwise; }

static void measure(const std::string &name, double flop, const std::function<void()> &launch) {
  static Meter meter;
  static cudaEvent_t ev[2];
  if (!ev[0])
    for (auto &e : ev) CHECK(cudaEventCreate(&e));
  auto ms = [&](int times) {
    CHECK(cudaEventRecord(ev[0]));
    for (int i = 0; i < times; i++) launch();
    CHECK(cudaEventRecord(ev[1]));
    CHECK(cudaEventSynchronize(ev[1]));
    float t;
    CHECK(cudaEventElapsedTime(&t, ev[0], ev[1]));
    return double(t) / times;
  };
  launch();
  CHECK(cudaDeviceSynchronize());
  std::this_thread::sleep_for(std::chrono::milliseconds(400));
  const double cool = ms(3);
  const double warm = seconds("WARM", 1.2), hot_for = seconds("HOT", 1.6);
  const int times = std::max(1, int(0.05 / (cool / 1e3)));  // launches in 50 ms
  for (double end = now() + warm; now() < end;) ms(times);
  std::vector<double> took, clocks;
  const double j0 = meter.joules(), t0 = now();
  while (now() < t0 + hot_for) took.push_back(ms(times)), clocks.push_back(meter.mhz());
  const double watts = (meter.joules() - j0) / (now() - t0);
  std::sort(took.begin(), took.end()), std::sort(clocks.begin(), clocks.end());
  const double hot = took[took.size() / 2], mhz = clocks[clocks.size() / 2];
  printf(
      "%-64s %7.3f ms %6.0f cool %7.3f ms %6.0f TFLOP/s hot %5.0f W %5.0f MHz %3.0f C, %.2f of eight bits' rate at "
      "that clock\n",
      name.c_str(), cool, flop / cool / 1e9, hot, flop / hot / 1e9, watts, mhz, meter.celsius(),
      flop / (hot / 1e3) / (mhz * 1e6 * sms * 8192));
  fflush(stdout);
}

// Measures y [M, N] = x w^T by cuBLASLt, fp16 out, for e4m3 (row scales) or fp16: the fastest of its first 8
// algorithms.
static void measure_blas(const char *name, cudaDataType type, const void *x, const void *w, const float *rs,
                         const float *cs, __half *y, int M, int N, int K, bool fast) {
  static void *lib = nullptr;
  const char *path = getenv("SURPRISAL_CUBLASLT");
  if (!lib) lib = dlopen(path ? path : "libcublasLt.so.13", RTLD_NOW);
  if (!lib) {
    printf("%s: no cuBLASLt: %s\n", name, dlerror());
    return;
  }
#define LT(f) auto f##_ = reinterpret_cast<decltype(&f)>(dlsym(lib, #f))
  LT(cublasLtCreate);
  LT(cublasLtMatmulDescCreate);
  LT(cublasLtMatmulDescSetAttribute);
  LT(cublasLtMatrixLayoutCreate);
  LT(cublasLtMatmulPreferenceCreate);
  LT(cublasLtMatmulPreferenceSetAttribute);
  LT(cublasLtMatmulAlgoGetHeuristic);
  LT(cublasLtMatmul);
  static cublasLtHandle_t handle = nullptr;
  static void *work = nullptr;
  const size_t room = 64 << 20;
  if (!handle) {
    cublasLtCreate_(&handle);
    CHECK(cudaMalloc(&work, room));
  }
  cublasLtMatmulDesc_t op;
  cublasLtMatrixLayout_t a, b, c;
  cublasLtMatmulPreference_t preference = nullptr;
  int status = cublasLtMatmulDescCreate_(&op, CUBLAS_COMPUTE_32F, CUDA_R_32F);
  const cublasOperation_t transposed = CUBLAS_OP_T;
  status |= cublasLtMatmulDescSetAttribute_(op, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed);
  if (type != CUDA_R_16F) {
    const int8_t fast_sums = fast;
    const cublasLtMatmulMatrixScale_t mode = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    status |= cublasLtMatmulDescSetAttribute_(op, CUBLASLT_MATMUL_DESC_FAST_ACCUM, &fast_sums, sizeof fast_sums);
    status |= cublasLtMatmulDescSetAttribute_(op, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &mode, sizeof mode);
    status |= cublasLtMatmulDescSetAttribute_(op, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &mode, sizeof mode);
    status |= cublasLtMatmulDescSetAttribute_(op, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &cs, sizeof cs);
    status |= cublasLtMatmulDescSetAttribute_(op, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &rs, sizeof rs);
  }
  status |= cublasLtMatrixLayoutCreate_(&a, type, K, N, K) | cublasLtMatrixLayoutCreate_(&b, type, K, M, K) |
            cublasLtMatrixLayoutCreate_(&c, CUDA_R_16F, N, M, N);
  status |=
      cublasLtMatmulPreferenceCreate_(&preference) |
      cublasLtMatmulPreferenceSetAttribute_(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room, sizeof room);
  cublasLtMatmulHeuristicResult_t all[8];
  int found = 0;
  status |= cublasLtMatmulAlgoGetHeuristic_(handle, op, a, b, c, c, preference, 8, all, &found);
  if (status || !found) {
    printf("%s: cuBLASLt: status %d, %d choices\n", name, status, found);
    return;
  }
  const float one = 1, zero = 0;
  auto launch = [&](int i) {
    return cublasLtMatmul_(handle, op, &one, w, a, x, b, &zero, y, c, y, c, &all[i].algo, work, room, 0);
  };
  cudaEvent_t ev[2];
  for (auto &e : ev) CHECK(cudaEventCreate(&e));
  int best = -1;
  float least = 1e30f;
  for (int i = 0; i < found; i++) {
    if (launch(i)) continue;
    CHECK(cudaEventRecord(ev[0]));
    launch(i), launch(i), launch(i);
    CHECK(cudaEventRecord(ev[1]));
    CHECK(cudaEventSynchronize(ev[1]));
    float t;
    CHECK(cudaEventElapsedTime(&t, ev[0], ev[1]));
    if (t < least) least = t, best = i;
  }
  if (best < 0) {
    printf("%s: cuBLASLt: none of %d choices runs\n", name, found);
    return;
  }
  measure(std::string(name) + ", choice " + std::to_string(best) + " of " + std::to_string(found), 2.0 * M * N * K,
          [&] { launch(best); });
}