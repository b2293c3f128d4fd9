# The CUDA engine: bin/worker with it, and its tests. Nothing here needs a GPU but
# gpu-test. Without $CUDA_HOME, a CUDA 13.0 toolkit comes from PyPI into .build.

CUDA_BUILD := .build/cuda
ifeq ($(CUDA_HOME),)
CUDA := $(CURDIR)/$(CUDA_BUILD)/toolkit/cu13
else
CUDA := $(CUDA_HOME)
endif
NVCC := $(CUDA)/bin/nvcc
PYTHON ?= python3
CUDA_WHEELS := nvidia-cuda-nvcc nvidia-cuda-crt nvidia-nvvm nvidia-cuda-runtime nvidia-cuda-cccl nvidia-cublas

# Machine code for Ampere and Hopper, and PTX for what comes after.
# ACT=bf16 is for measurements: see internal/gpu/kernels/act.cuh.
ACT_FLAGS := $(if $(filter bf16,$(ACT)),-DSURPRISAL_BF16)
NVCC_FLAGS := -std=c++17 -O3 -lineinfo $(ACT_FLAGS)
NVCC_ARCHS := -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90a,code=sm_90a -gencode arch=compute_80,code=compute_80
# Written for Hopper's instructions; elsewhere the engine takes gdn2_simple, swiglu and nll_rows.
HOPPER := gdn2_prepare gdn2_walk swiglu_product head_nll int8_product
$(HOPPER:%=internal/gpu/fatbin/%.fatbin): NVCC_ARCHS := -gencode arch=compute_90a,code=sm_90a
# RACECHECK=1 is for compute-sanitizer's racecheck: see internal/gpu/kernels/hopper.cuh.
internal/gpu/fatbin/gdn2_prepare.fatbin internal/gpu/fatbin/gdn2_walk.fatbin: NVCC_FLAGS += $(if $(RACECHECK),-DHOPPER_RACECHECK)

# Newer than what was compiled only when it was compiled otherwise.
FLAVOR := $(CUDA_BUILD)/flavor

KERNELS := $(wildcard internal/gpu/kernels/*.cu)
KERNEL_HEADERS := $(wildcard internal/gpu/kernels/*.cuh)
FATBINS := $(patsubst internal/gpu/kernels/%.cu,internal/gpu/fatbin/%.fatbin,$(KERNELS))
# The same with and without the CUDA engine. NVML's binding calls what NVIDIA deprecates.
export CGO_CFLAGS := -O2 -Wno-deprecated-declarations $(ACT_FLAGS) -I$(CURDIR)/internal/gpu/shim -I$(CUDA)/include
export CGO_LDFLAGS := -L$(CURDIR)/$(CUDA_BUILD)/lib
CUDA_TAGS := -tags $(TAGS),cuda
GPU_PARTS := $(FATBINS) $(CUDA_BUILD)/lib/libcuda.a

.PHONY: gpu
gpu: native gpu-parts ## build bin/dispatcher and bin/worker with the CUDA engine
	CGO_ENABLED=0 go build -ldflags '$(LDFLAGS)' -o bin/dispatcher ./cmd/dispatcher
	go build $(CUDA_TAGS) -ldflags '$(LDFLAGS)' -o bin/worker ./cmd/worker

.PHONY: env
env: ## print the flags that Go is given here, for a shell to eval
	@printf "export %s='%s'\n" CGO_ENABLED '$(CGO_ENABLED)' GOFLAGS '$(GOFLAGS)' CGO_CFLAGS '$(CGO_CFLAGS)' CGO_LDFLAGS '$(CGO_LDFLAGS)'

.PHONY: gpu-toolkit
gpu-toolkit: | $(NVCC) # install the CUDA toolkit (once)

.PHONY: gpu-parts
gpu-parts: $(GPU_PARTS)

.PHONY: gpu-vet
gpu-vet: native gpu-parts gpu-lab-check ## vet the CUDA engine and compile its lab (no GPU needed)
	go vet $(CUDA_TAGS) ./internal/gpu/... ./internal/worker/... ./cmd/... ./bench/...

.PHONY: gpu-test
gpu-test: native gpu-parts ## run the CUDA engine's tests (needs a GPU)
	go test $(GO_TEST_FLAGS) $(CUDA_TAGS) ./internal/gpu/...

.PHONY: bench-gpu
bench-gpu: gpu-binaries ## check the CUDA engine, then measure it against its limit and PyTorch (needs a GPU)
	bench/run

.PHONY: gpu-binaries
gpu-binaries: native gpu-parts ## build the CUDA tests and benchmark as programs for a machine without Go
	mkdir -p $(CUDA_BUILD)/bin
	go test -c $(CUDA_TAGS) -ldflags '-s -w $(LAZY)' -o $(CUDA_BUILD)/bin/gpu.test ./internal/gpu
	go test -c $(CUDA_TAGS) -ldflags '-s -w $(LAZY)' -o $(CUDA_BUILD)/bin/telemetry.test ./internal/gpu/telemetry
	go build $(CUDA_TAGS) -ldflags '-s -w $(LAZY)' -o $(CUDA_BUILD)/bin/gpubench ./bench/gpu
	go build $(CUDA_TAGS) -ldflags '-s -w $(LAZY)' -o $(CUDA_BUILD)/bin/ ./cmd/worker
	CGO_ENABLED=0 go build -ldflags '-s -w $(LAZY)' -o $(CUDA_BUILD)/bin/ ./cmd/dispatcher ./internal/tools/genckpt ./internal/tools/gencorpus

# The engine's tests on a machine without a GPU: stand-ins for the driver and
# cuBLASLt run the kernels on the CPU. What they can't show: the tensor-core
# kernels, races, speed.
EMULATOR := $(CUDA_BUILD)/emulator
EMULATOR_SOURCES := $(wildcard internal/gpu/emulator/*.cc internal/gpu/emulator/*.h)
EMULATOR_FLAGS := -std=c++17 -O3 -w -fno-strict-aliasing -fPIC -shared -march=x86-64-v3 -ffp-contract=off $(ACT_FLAGS) -I$(CUDA)/include

.PHONY: gpu-emulate
gpu-emulate: native gpu-parts $(EMULATOR)/libcuda.so.1 $(EMULATOR)/libcublasLt.so.13 ## run the CUDA engine's tests on the CPU
	LD_LIBRARY_PATH=$(CURDIR)/$(EMULATOR) SURPRISAL_CUBLASLT=$(CURDIR)/$(EMULATOR)/libcublasLt.so.13 \
		go test $(GO_TEST_FLAGS) $(CUDA_TAGS) ./internal/gpu

$(EMULATOR)/libcuda.so.1: $(EMULATOR_SOURCES) $(KERNELS) $(KERNEL_HEADERS) $(FLAVOR) | $(NVCC)
	mkdir -p $(@D)
	$(CXX) $(EMULATOR_FLAGS) -o $@.tmp $(addprefix internal/gpu/emulator/,kernels.cc fibers.cc driver.cc recurrence.cc)
	mv $@.tmp $@

$(EMULATOR)/libcublasLt.so.13: internal/gpu/emulator/lt.cc $(FLAVOR) | $(NVCC)
	mkdir -p $(@D)
	$(CXX) $(EMULATOR_FLAGS) -o $@.tmp $<
	mv $@.tmp $@

$(FLAVOR): FORCE
	@mkdir -p $(@D)
	@echo 'ACT=$(ACT) RACECHECK=$(RACECHECK)' | cmp -s - $@ || echo 'ACT=$(ACT) RACECHECK=$(RACECHECK)' >$@

.PHONY: FORCE
FORCE:

internal/gpu/fatbin/%.fatbin: internal/gpu/kernels/%.cu $(KERNEL_HEADERS) $(FLAVOR) | $(NVCC)
	mkdir -p $(@D)
	$(NVCC) $(NVCC_FLAGS) $(NVCC_ARCHS) -fatbin -o $@.tmp $<
	mv $@.tmp $@

$(CUDA_BUILD)/lib/libcuda.a: internal/tools/cudastub/main.go internal/gpu/shim/cuda.h | $(NVCC)
	mkdir -p $(@D)
	echo '#include <cuda.h>' | $(CC) -E -Iinternal/gpu/shim -I$(CUDA)/include -x c - | go run ./internal/tools/cudastub >$(CUDA_BUILD)/stub.c
	$(CC) -O2 -fPIC -c -o $(CUDA_BUILD)/stub.o $(CUDA_BUILD)/stub.c
	rm -f $@
	ar rcs $@ $(CUDA_BUILD)/stub.o

# The kernels' lab: programs that check and time versions of a kernel, for a machine with a GPU.
LAB := $(notdir $(basename $(wildcard internal/gpu/kernels/lab/*.cu)))
LAB_HEADERS := $(wildcard internal/gpu/kernels/lab/*.cuh)
LAB_FLAGS := -std=c++17 -O3 $(ACT_FLAGS) $(if $(RACECHECK),-DHOPPER_RACECHECK)

.PHONY: gpu-lab
gpu-lab: $(LAB:%=$(CUDA_BUILD)/lab/%) ## build the kernels' lab programs, to run on a GPU

$(CUDA_BUILD)/lab/%: internal/gpu/kernels/lab/%.cu $(KERNELS) $(KERNEL_HEADERS) $(LAB_HEADERS) $(FLAVOR) | $(NVCC)
	mkdir -p $(@D)
	$(NVCC) $(LAB_FLAGS) -gencode arch=compute_90a,code=sm_90a -L$(CUDA)/lib -o $@ $<

# That the lab still compiles, without the minutes that its machine code takes.
.PHONY: gpu-lab-check
gpu-lab-check: $(LAB:%=$(CUDA_BUILD)/lab/%.checked)

$(CUDA_BUILD)/lab/%.checked: internal/gpu/kernels/lab/%.cu $(KERNELS) $(KERNEL_HEADERS) $(LAB_HEADERS) | $(NVCC)
	mkdir -p $(@D)
	$(NVCC) -std=c++17 -arch=compute_90a -Xcicc -O0 -ptx -o $@ $<

# The layout of C, C++ and CUDA. It depends on clang-format's version, so that is pinned.
CLANG_FORMAT_VERSION := 19.1.7
CLANG_FORMAT := .build/clang-format-$(CLANG_FORMAT_VERSION)/bin/clang-format
C_SOURCES := $(shell find internal/gpu internal/model/cpu -name '*.c' -o -name '*.h' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh')

.PHONY: format-c
format-c: $(CLANG_FORMAT) ## format the C, C++ and CUDA sources with .clang-format
	$(CLANG_FORMAT) -i $(C_SOURCES)

lint: lint-c
.PHONY: lint-c
lint-c: # SKIPPED where clang-format can't be installed
	@if $(MAKE) -s $(CLANG_FORMAT); then $(CLANG_FORMAT) --dry-run -Werror $(C_SOURCES); \
	else echo 'SKIPPED: no clang-format $(CLANG_FORMAT_VERSION) from PyPI: the layout of C and CUDA is not checked'; fi

$(CLANG_FORMAT):
	$(PYTHON) -m venv $(@D:/bin=)
	$(@D)/python -m pip install -q --disable-pip-version-check clang-format==$(CLANG_FORMAT_VERSION)

ifeq ($(CUDA_HOME),)
$(NVCC):
	mkdir -p $(CUDA_BUILD)
	$(PYTHON) -m venv $(CUDA_BUILD)/venv
	$(CUDA_BUILD)/venv/bin/python -m pip install -q --disable-pip-version-check $(CUDA_WHEELS:%='%==13.0.*')
	mkdir -p $(@D:/cu13/bin=)
	ln -sfn "$$($(CUDA_BUILD)/venv/bin/python -c 'import nvidia; print(nvidia.__path__[0])')/cu13" $(CUDA)
	test -x $@
else
$(NVCC):
	@echo "CUDA_HOME is $(CUDA_HOME), which has no bin/nvcc: unset it to take a toolkit from PyPI" >&2; exit 1
endif
