// A stand-in for libcuda.so.1 that runs this project's kernels on the CPU, for
// tests on machines without a GPU. It checks what the kernels compute, their
// arguments, and every access past the end of an allocation. Launches are
// synchronous, so it shows nothing about ordering, races or speed. gdn2_prepare and
// gdn2_walk, which consist of tensor-core instructions, are replaced by a plain
// recurrence that reads the same tables (recurrence.cc).
//
//   SURPRISAL_EMULATOR_CC      compute capability, default 90
//   SURPRISAL_EMULATOR_MEMORY  bytes, default 12 GiB
//   SURPRISAL_EMULATOR_FAIL    the launch of this number fails with a device fault, or,
//                              with "next", the next one
#define __CUDA_API_VERSION_INTERNAL 1
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>

#include "cuda_words.h"
#include "fibers.h"
#include "registry.h"
#include <cuda.h>

namespace emulator {
std::map<std::string, Kernel> &registry() {
  static std::map<std::string, Kernel> r;
  return r;
}
}  // namespace emulator

namespace {

std::mutex lock;
struct Block {
  void *base;
  size_t mapped, bytes;
};
std::map<CUdeviceptr, Block> blocks;
size_t used;
long launches;
CUresult broken = CUDA_SUCCESS;

long env(const char *name, long fallback) {
  const char *v = getenv(name);
  return v ? atol(v) : fallback;
}
size_t capacity() { return size_t(env("SURPRISAL_EMULATOR_MEMORY", 12L << 30)); }

}  // namespace

#define API extern "C" __attribute__((visibility("default"))) CUresult

API cuInit(unsigned) { return CUDA_SUCCESS; }
API cuDriverGetVersion(int *v) {
  *v = 13000;
  return CUDA_SUCCESS;
}
API cuDeviceGetCount(int *n) {
  *n = 1;
  return CUDA_SUCCESS;
}
API cuDeviceGet(CUdevice *d, int i) {
  *d = i;
  return i ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}
API cuDeviceGetName(char *name, int len, CUdevice) {
  snprintf(name, len, "emulated GPU");
  return CUDA_SUCCESS;
}
API cuDeviceGetUuid_v2(CUuuid *id, CUdevice) {
  for (int i = 0; i < 16; i++) id->bytes[i] = char(0x10 + i);
  return CUDA_SUCCESS;
}
API cuDeviceTotalMem_v2(size_t *n, CUdevice) {
  *n = capacity();
  return CUDA_SUCCESS;
}
API cuDeviceGetAttribute(int *v, CUdevice_attribute a, CUdevice) {
  const int cc = int(env("SURPRISAL_EMULATOR_CC", 90));
  switch (a) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
      *v = cc / 10;
      break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
      *v = cc % 10;
      break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
      *v = 2;
      break;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
  return CUDA_SUCCESS;
}
API cuDevicePrimaryCtxSetFlags_v2(CUdevice, unsigned) { return CUDA_SUCCESS; }
API cuDevicePrimaryCtxRetain(CUcontext *c, CUdevice) {
  *c = reinterpret_cast<CUcontext>(16);
  return CUDA_SUCCESS;
}
API cuDevicePrimaryCtxRelease_v2(CUdevice) { return CUDA_SUCCESS; }
API cuCtxSetCurrent(CUcontext) { return CUDA_SUCCESS; }
API cuCtxSynchronize() { return broken; }
API cuStreamCreate(CUstream *s, unsigned) {
  *s = reinterpret_cast<CUstream>(32);
  return CUDA_SUCCESS;
}
API cuStreamDestroy_v2(CUstream) { return CUDA_SUCCESS; }
API cuStreamSynchronize(CUstream) { return broken; }
API cuEventCreate(CUevent *e, unsigned) {
  *e = reinterpret_cast<CUevent>(48);
  return CUDA_SUCCESS;
}
API cuEventDestroy_v2(CUevent) { return CUDA_SUCCESS; }
API cuEventRecord(CUevent, CUstream) { return broken; }
API cuEventSynchronize(CUevent) { return broken; }
API cuEventElapsedTime(float *ms, CUevent, CUevent) {
  *ms = 1;
  return broken;
}
API cuEventElapsedTime_v2(float *ms, CUevent, CUevent) {
  *ms = 1;
  return broken;
}

// An allocation ends before an unmapped page, as closely as a 16-byte alignment allows.
API cuMemAlloc_v2(CUdeviceptr *p, size_t n) {
  std::lock_guard<std::mutex> l(lock);
  if (!n) return CUDA_ERROR_INVALID_VALUE;
  if (used + n > capacity()) return CUDA_ERROR_OUT_OF_MEMORY;
  const size_t want = (n + 15) / 16 * 16, mapped = (want + 4095) / 4096 * 4096 + 4096;
  char *base = static_cast<char *>(
      mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (base == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
  mprotect(base + mapped - 4096, 4096, PROT_NONE);
  *p = reinterpret_cast<CUdeviceptr>(base + mapped - 4096 - want);
  blocks[*p] = Block{base, mapped, n};
  used += n;
  return CUDA_SUCCESS;
}
API cuMemFree_v2(CUdeviceptr p) {
  std::lock_guard<std::mutex> l(lock);
  auto it = blocks.find(p);
  if (it == blocks.end()) return CUDA_ERROR_INVALID_VALUE;
  munmap(it->second.base, it->second.mapped);
  used -= it->second.bytes;
  blocks.erase(it);
  return CUDA_SUCCESS;
}
API cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
  *total = capacity(), *free_bytes = capacity() - used;
  return CUDA_SUCCESS;
}
API cuMemHostAlloc(void **p, size_t n, unsigned) {
  *p = calloc(1, n);
  return *p ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}
API cuMemFreeHost(void *p) {
  free(p);
  return CUDA_SUCCESS;
}
API cuMemsetD8_v2(CUdeviceptr p, unsigned char c, size_t n) {
  memset(reinterpret_cast<void *>(p), c, n);
  return broken;
}
API cuMemsetD8Async(CUdeviceptr p, unsigned char c, size_t n, CUstream) { return cuMemsetD8_v2(p, c, n); }
static CUresult copy(void *d, const void *s, size_t n) {
  memcpy(d, s, n);
  return broken;
}
API cuMemcpyHtoD_v2(CUdeviceptr d, const void *s, size_t n) { return copy(reinterpret_cast<void *>(d), s, n); }
API cuMemcpyDtoH_v2(void *d, CUdeviceptr s, size_t n) { return copy(d, reinterpret_cast<void *>(s), n); }
API cuMemcpyHtoDAsync_v2(CUdeviceptr d, const void *s, size_t n, CUstream) {
  return copy(reinterpret_cast<void *>(d), s, n);
}
API cuMemcpyDtoHAsync_v2(void *d, CUdeviceptr s, size_t n, CUstream) { return copy(d, reinterpret_cast<void *>(s), n); }
API cuMemcpyDtoDAsync_v2(CUdeviceptr d, CUdeviceptr s, size_t n, CUstream) {
  return copy(reinterpret_cast<void *>(d), reinterpret_cast<void *>(s), n);
}

API cuModuleLoadData(CUmodule *m, const void *) {
  *m = reinterpret_cast<CUmodule>(64);
  return CUDA_SUCCESS;
}
API cuModuleUnload(CUmodule) { return CUDA_SUCCESS; }
API cuModuleGetFunction(CUfunction *f, CUmodule, const char *name) {
  auto it = emulator::registry().find(name);
  if (it == emulator::registry().end()) return CUDA_ERROR_NOT_FOUND;
  *f = reinterpret_cast<CUfunction>(&it->second);
  return CUDA_SUCCESS;
}
API cuFuncSetAttribute(CUfunction f, CUfunction_attribute a, int v) {
  if (a == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) reinterpret_cast<emulator::Kernel *>(f)->shared = v;
  return v > 227 << 10 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}
API cuLaunchKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, CUstream, void **params, void **) {
  if (broken) return broken;
  const char *fail = getenv("SURPRISAL_EMULATOR_FAIL");
  if (++launches == env("SURPRISAL_EMULATOR_FAIL", -1) || (fail && !strcmp(fail, "next")))
    return broken = CUDA_ERROR_LAUNCH_FAILED;
  auto *k = reinterpret_cast<emulator::Kernel *>(f);
  if (!gx || !gy || !gz || gy > 65535 || gz > 65535 || bx * by * bz > 1024 || by != 1 || bz != 1 ||
      shared > unsigned(k->shared))
    return CUDA_ERROR_INVALID_VALUE;
  emulator::grid_size = dim3(gx, gy, gz);
  emulator::block_size = dim3(bx, 1, 1);
  if (k->grid) return k->grid(gx, gy, bx, shared, params) ? CUDA_SUCCESS : (broken = CUDA_ERROR_LAUNCH_FAILED);
  const std::function<void()> call = [&] { k->thread(params); };
  for (unsigned z = 0; z < gz; z++)
    for (unsigned y = 0; y < gy; y++)
      for (unsigned x = 0; x < gx; x++) {
        emulator::block_index = uint3{x, y, z};
        if (!emulator::run_block(int(bx), call)) return broken = CUDA_ERROR_LAUNCH_FAILED;
      }
  return CUDA_SUCCESS;
}
