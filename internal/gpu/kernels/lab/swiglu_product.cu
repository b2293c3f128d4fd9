// Lab for swiglu_product: checked against float64 sums, then timed hot. `make gpu-lab` builds it:
//
//   .build/cuda/lab/swiglu_product [rows]
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "../swiglu_product.cu"
#include "../tune.cu"

#define CHECK(x)                                                                              \
  do {                                                                                        \
    cudaError_t status = (x);                                                                 \
    if (status != cudaSuccess) {                                                              \
      fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #x, cudaGetErrorString(status)); \
      exit(1);                                                                                \
    }                                                                                         \
  } while (0)

static CUtensorMap tensor_map(const void *p, uint64_t rows, uint64_t columns, uint64_t ld, uint32_t box_rows) {
  static void *fn = nullptr;
  cudaDriverEntryPointQueryResult q;
  if (!fn) CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &fn, 12000, cudaEnableDefault, &q));
  CUtensorMap m;
  cuuint64_t dims[2] = {columns, rows}, strides[1] = {ld * 2};
  cuuint32_t box[2] = {64, box_rows}, elements[2] = {1, 1};
  CUresult r = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(fn)(
      &m, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2, const_cast<void *>(p), dims, strides, box, elements,
      CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (r) fprintf(stderr, "cuTensorMapEncodeTiled: %d\n", r), exit(1);
  return m;
}

__global__ void to_bf16_values(act *p, int64_t n) {
  for (int64_t i = blockIdx.x * 256ll + threadIdx.x; i < n; i += gridDim.x * 256ll)
    p[i] = to_act(__bfloat162float(__float2bfloat16(to_float32(p[i]))));
}

struct Product {
  int n, k;  // n: of h
  act *x, *w, *y;
  float *bias;
  CUtensorMap *maps;
};

static Product make(int rows, int n, int k, bool bias) {
  Product p{n, k};
  CHECK(cudaMalloc(&p.x, 2ll * rows * k));
  CHECK(cudaMalloc(&p.w, 2ll * n * k));
  CHECK(cudaMalloc(&p.y, 1ll * rows * n));
  CHECK(cudaMalloc(&p.maps, 3 * sizeof(CUtensorMap)));
  p.bias = nullptr;
  if (bias) {
    std::vector<float> b(n);
    for (int i = 0; i < n; i++) b[i] = 0.01f * (i % 37);
    CHECK(cudaMalloc(&p.bias, 4ll * n));
    CHECK(cudaMemcpy(p.bias, b.data(), 4 * n, cudaMemcpyHostToDevice));
  }
  fill_random<<<1024, 256>>>(p.x, int64_t(rows) * k, 1, 2.f);
  fill_random<<<1024, 256>>>(p.w, int64_t(n) * k, 2, 0.05f);
  to_bf16_values<<<1024, 256>>>(p.w, int64_t(n) * k);
  CHECK(cudaMemset(p.y, 0xff, 1ll * rows * n));
  CUtensorMap maps[3] = {tensor_map(p.x, rows, k, k, 128), tensor_map(p.w, n, k, k, 128),
                         tensor_map(p.y, rows, n / 2, n / 2, 64)};
  CHECK(cudaMemcpy(p.maps, maps, sizeof maps, cudaMemcpyHostToDevice));
  return p;
}

static void drop(const Product &p) {
  for (void *q : {(void *)p.x, (void *)p.w, (void *)p.y, (void *)p.bias, (void *)p.maps}) CHECK(cudaFree(q));
}

static void launch(const Product &p, int rows) {
  auto fn = p.bias ? swiglu_product_bias : swiglu_product;
  CHECK(cudaFuncSetAttribute(fn, cudaFuncAttributeMaxDynamicSharedMemorySize, product::shared_bytes(2 * swiglu::kOut)));
  int sms;
  CHECK(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, 0));
  const int clusters = std::min(sms / 2, rows / 256 * ((p.n + 255) / 256));
  fn<<<2 * clusters, 384, product::shared_bytes(2 * swiglu::kOut)>>>(p.maps, p.bias, rows / 256, p.n, p.k);
  CHECK(cudaGetLastError());
}

__global__ void check_rows(Product p, int rows, int sampled, unsigned *bad, float *worst) {
  const int64_t out = p.n / 2, i = blockIdx.x * 256ll + threadIdx.x;
  if (i >= out * sampled) return;
  const int row = int((i / out) * 7919 % rows), c = int(i % out);
  auto dot = [&](int column) {
    double s = 0;
    for (int k = 0; k < p.k; k++)
      s += double(to_float32(p.x[int64_t(row) * p.k + k])) * double(to_float32(p.w[int64_t(column) * p.k + k]));
    return s;
  };
  const double a = dot(c / 8 * 16 + c % 8) + (p.bias ? p.bias[c] : 0),
               b = dot(c / 8 * 16 + 8 + c % 8) + (p.bias ? p.bias[p.n / 2 + c] : 0);
  const double want = a / (1 + exp(-a)) * b, got = to_float32(p.y[int64_t(row) * out + c]);
  const float e = float(fabs(got - want) / (fabs(want) + 0.05));
  if (!(e < 1e-3f)) atomicAdd(bad, 1);
  atomicMax(reinterpret_cast<int *>(worst), __float_as_int(e));
}

int main(int argc, char **argv) {
  unsigned *bad, n;
  float *worst, e;
  CHECK(cudaMalloc(&bad, 4));
  CHECK(cudaMalloc(&worst, 4));
  int failures = 0;
  struct {
    int rows, n, k;
    bool bias;
  } cases[] = {{256, 256, 64, false},
               {256, 272, 72, true},
               {512, 12416, 2304, true},
               {2560, 624, 256, false},
               {32768, 12416, 2304, false}};
  for (auto &c : cases) {
    Product p = make(c.rows, c.n, c.k, c.bias);
    CHECK(cudaMemset(bad, 0, 4));
    CHECK(cudaMemset(worst, 0, 4));
    launch(p, c.rows);
    check_rows<<<(c.n / 2 * 64 + 255) / 256, 256>>>(p, c.rows, 64, bad, worst);
    CHECK(cudaMemcpy(&n, bad, 4, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(&e, worst, 4, cudaMemcpyDeviceToHost));
    printf("rows %d n %d k %d: %u bad, worst %.2e\n", c.rows, c.n, c.k, n, e);
    failures += n > 0;
    drop(p);
  }
  if (failures) return 1;
  const int rows = argc > 1 ? atoi(argv[1]) : 32768, rounds = 500, warm = 250;
  Product p = make(rows, 12416, 2304, false);
  cudaEvent_t ev[2];
  for (auto &x : ev) CHECK(cudaEventCreate(&x));
  for (int r = 0; r < rounds; r++) {
    if (r == warm) CHECK(cudaEventRecord(ev[0]));
    launch(p, rows);
  }
  CHECK(cudaEventRecord(ev[1]));
  CHECK(cudaDeviceSynchronize());
  float ms;
  CHECK(cudaEventElapsedTime(&ms, ev[0], ev[1]));
  ms /= rounds - warm;
  printf("%d x %d x %d: %.3f ms, %.0f TFLOP/s\n", rows, p.n, p.k, ms, 2.0 * rows * p.n * p.k / ms / 1e9);
}
