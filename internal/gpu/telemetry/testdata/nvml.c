// An NVML of an old driver, for tests: it lacks most functions, and one GPU.
#include <string.h>
typedef int ret;
enum { ok = 0, invalid = 2, not_supported = 3 };
static int gpu;
ret nvmlInit_v2(void) { return ok; }
ret nvmlShutdown(void) { return ok; }
const char *nvmlErrorString(ret r) { return r ? "error" : "ok"; }
ret nvmlDeviceGetHandleByUUID(const char *uuid, int **device) {
  *device = &gpu;
  return strcmp(uuid, "GPU-0a1b2c3d-0000-1111-2222-333344445555") ? invalid : ok;
}
ret nvmlDeviceGetUUID(int *d, char *s, unsigned n) {
  strncpy(s, "GPU-0a1b2c3d-0000-1111-2222-333344445555", n);
  return ok;
}
ret nvmlDeviceGetName(int *d, char *s, unsigned n) {
  strncpy(s, "NVIDIA Test", n);
  return ok;
}
ret nvmlDeviceGetIndex(int *d, unsigned *i) {
  *i = 5;
  return ok;
}
struct pci {
  char legacy[16];
  unsigned domain, bus, device, id, sub;
  char bus_id[32];
};
ret nvmlDeviceGetPciInfo_v3(int *d, struct pci *p) {
  strcpy(p->bus_id, "00000000:1B:00.0");
  return ok;
}
struct utilization {
  unsigned gpu, memory;
};
ret nvmlDeviceGetUtilizationRates(int *d, struct utilization *u) {
  u->gpu = 42;
  u->memory = 7;
  return ok;
}
ret nvmlDeviceGetPowerUsage(int *d, unsigned *mw) {
  *mw = 250500;
  return ok;
}
ret nvmlDeviceGetTotalEnergyConsumption(int *d, unsigned long long *mj) { return not_supported; }
ret nvmlDeviceGetTemperature(int *d, int sensor, unsigned *c) {
  *c = 44;
  return ok;
}
