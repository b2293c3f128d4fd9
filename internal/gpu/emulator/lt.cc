// A stand-in for libcublasLt.so.13 with the functions that the engine calls, on the
// CPU: bf16 or fp16 operands, fp32 sums, one rounding. It offers algorithms with the same
// sums and one that adds in another order, which the engine must not choose.
#include <cublasLt.h>
#include <cuda_fp16.h>

#include <cstdlib>
#include <cstring>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

namespace {
struct Desc {
  uint64_t bias = 0;
  int epilogue = CUBLASLT_EPILOGUE_DEFAULT, bias_type = -1, transa = CUBLAS_OP_N;
};
struct Layout {
  cudaDataType type;
  uint64_t rows, cols;
  int64_t ld;
};
float widen(uint16_t b) {
  uint32_t u = uint32_t(b) << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}
float widen_half(uint16_t b) { return __half2float(__half(__half_raw{b})); }
uint16_t narrow_half(float f) { return __half_raw(__float2half_rn(f)).x; }
uint16_t narrow(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  if (f != f) return 0x7fff;
  return uint16_t((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
// Eight running sums, added up in one of two orders.
float dot(const float *a, const float *b, int64_t n, bool other) {
  float s[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int j = 0; j < 8; j++) s[j] += a[i + j] * b[i + j];
  for (; i < n; i++) s[i % 8] += a[i] * b[i];
  if (other) return ((((((s[0] + s[1]) + s[2]) + s[3]) + s[4]) + s[5]) + s[6]) + s[7];
  return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
}
}  // namespace

API cublasStatus_t cublasLtCreate(cublasLtHandle_t *h) {
  *h = reinterpret_cast<cublasLtHandle_t>(16);
  return CUBLAS_STATUS_SUCCESS;
}
API cublasStatus_t cublasLtDestroy(cublasLtHandle_t) { return CUBLAS_STATUS_SUCCESS; }
API size_t cublasLtGetVersion() { return 130000; }
API const char *cublasLtGetStatusString(cublasStatus_t s) {
  return s == CUBLAS_STATUS_INVALID_VALUE ? "invalid value" : "not supported";
}

API cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *d, cublasComputeType_t c, cudaDataType_t t) {
  *d = reinterpret_cast<cublasLtMatmulDesc_t>(new Desc);
  return c == CUBLAS_COMPUTE_32F && t == CUDA_R_32F ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}
API cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) {
  delete reinterpret_cast<Desc *>(d);
  return CUBLAS_STATUS_SUCCESS;
}
API cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t a,
                                                  const void *v, size_t) {
  Desc *o = reinterpret_cast<Desc *>(d);
  switch (a) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      o->transa = *static_cast<const int *>(v);
      break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      o->epilogue = *static_cast<const int *>(v);
      break;
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
      o->bias_type = *static_cast<const int *>(v);
      break;
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      o->bias = *static_cast<const uint64_t *>(v);
      break;
    default:
      return CUBLAS_STATUS_INVALID_VALUE;
  }
  return CUBLAS_STATUS_SUCCESS;
}
API cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *l, cudaDataType t, uint64_t rows, uint64_t cols,
                                              int64_t ld) {
  *l = reinterpret_cast<cublasLtMatrixLayout_t>(new Layout{t, rows, cols, ld});
  return ld < int64_t(rows) || ld % 8 ? CUBLAS_STATUS_INVALID_VALUE : CUBLAS_STATUS_SUCCESS;
}
API cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) {
  delete reinterpret_cast<Layout *>(l);
  return CUBLAS_STATUS_SUCCESS;
}
API cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *p) {
  *p = reinterpret_cast<cublasLtMatmulPreference_t>(16);
  return CUBLAS_STATUS_SUCCESS;
}
API cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t) { return CUBLAS_STATUS_SUCCESS; }
API cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t,
                                                        cublasLtMatmulPreferenceAttributes_t, const void *, size_t) {
  return CUBLAS_STATUS_SUCCESS;
}
API cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t,
                                                  cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                                  cublasLtMatrixLayout_t, cublasLtMatmulPreference_t, int want,
                                                  cublasLtMatmulHeuristicResult_t *r, int *found) {
  memset(r, 0, sizeof *r * size_t(want));
  *found = want < 3 ? want : 3;
  for (int i = 0; i < *found; i++) r[i].algo.data[0] = uint64_t(i) + 1;
  return CUBLAS_STATUS_SUCCESS;
}
API cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *,
                                                        cublasLtMatmulAlgoConfigAttributes_t, void *, size_t,
                                                        size_t *) {
  return CUBLAS_STATUS_SUCCESS;
}

API cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t op, const void *alpha, const void *A,
                                  cublasLtMatrixLayout_t la, const void *B, cublasLtMatrixLayout_t lb, const void *beta,
                                  const void *C, cublasLtMatrixLayout_t, void *D, cublasLtMatrixLayout_t ld,
                                  const cublasLtMatmulAlgo_t *algo, void *, size_t, cudaStream_t) {
  const Desc *d = reinterpret_cast<Desc *>(op);
  const Layout *a = reinterpret_cast<Layout *>(la), *b = reinterpret_cast<Layout *>(lb),
               *c = reinterpret_cast<Layout *>(ld);
  const bool add = *static_cast<const float *>(beta) != 0, biased = d->epilogue == CUBLASLT_EPILOGUE_BIAS;
  if (d->transa != CUBLAS_OP_T || *static_cast<const float *>(alpha) != 1 || a->rows != b->rows || a->cols != c->rows ||
      b->cols != c->cols || (add && C != D) || (biased && (d->bias_type != c->type || !d->bias)) || !algo ||
      !algo->data[0])
    return CUBLAS_STATUS_INVALID_VALUE;
  const bool half = a->type == CUDA_R_16F;
  if (a->type != b->type || (c->type != CUDA_R_32F && c->type != a->type)) return CUBLAS_STATUS_INVALID_VALUE;
  const int64_t n = int64_t(c->rows), m = int64_t(c->cols), k = int64_t(a->rows);
  const auto *w = static_cast<const uint16_t *>(A), *x = static_cast<const uint16_t *>(B);
  std::vector<float> wide(size_t(n * k)), row(k);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < k; j++)
      wide[size_t(i * k + j)] = half ? widen_half(w[i * a->ld + j]) : widen(w[i * a->ld + j]);
  for (int64_t t = 0; t < m; t++) {
    for (int64_t j = 0; j < k; j++) row[size_t(j)] = half ? widen_half(x[t * b->ld + j]) : widen(x[t * b->ld + j]);
    for (int64_t i = 0; i < n; i++) {
      float s = dot(&wide[size_t(i * k)], row.data(), k, algo->data[0] == 2);
      if (biased)
        s += half ? widen_half(reinterpret_cast<const uint16_t *>(d->bias)[i])
                  : widen(reinterpret_cast<const uint16_t *>(d->bias)[i]);
      if (c->type == CUDA_R_32F) {
        float *y = static_cast<float *>(D) + t * c->ld + i;
        *y = add ? *y + s : s;
      } else {
        static_cast<uint16_t *>(D)[t * c->ld + i] = half ? narrow_half(s) : narrow(s);
      }
    }
  }
  return CUBLAS_STATUS_SUCCESS;
}
