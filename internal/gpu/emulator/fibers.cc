// The CUDA threads of a block as fibers of one host thread, run in turns. A thread
// yields where the hardware would make it wait for its warp or block. A deadlock is
// reported.
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "cuda_words.h"
#include "fibers.h"

namespace emulator {

Thread *current;
uint3 block_index;
dim3 block_size, grid_size;

namespace {

constexpr size_t kStack = 256 << 10;

struct Fiber {
  Thread thread;
  void *sp = nullptr;
  char *stack = nullptr;
  bool alive = false;
  const int *awaited = nullptr;  // waits until *awaited differs from seen
  int seen = 0;
};

struct Gate {
  int members = 0, arrived = 0, epoch = 0;
  bool any = false, result = false;
  void check() {
    if (members && arrived == members) {
      arrived = 0;
      epoch++;
      result = any;
      any = false;
    }
  }
};

std::vector<Fiber> fibers;
Gate block_gate;
Gate warp_gates[64];
uint64_t slots[64][2][32];
int turns[2048];
void *scheduler_sp;
const std::function<void()> *body;

extern "C" void emulator_switch(void **save, void *load);
asm(R"(
.text
.globl emulator_switch
emulator_switch:
  push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp
  ret
)");

Fiber &self() { return fibers[current->rank]; }

void give_way() {
  Fiber &f = self();
  emulator_switch(&f.sp, scheduler_sp);
}

void await(Gate &g) {
  Fiber &f = self();
  f.awaited = &g.epoch;
  f.seen = g.epoch;
  g.arrived++;
  g.check();
  while (g.epoch == f.seen) give_way();
  f.awaited = nullptr;
}

void entry() {
  (*body)();
  Fiber &f = self();
  f.alive = false;
  // Waiting threads no longer wait for this one.
  Gate &w = warp_gates[f.thread.rank / 32];
  block_gate.members--, w.members--;
  block_gate.check(), w.check();
  give_way();
  abort();
}

}  // namespace

void block_barrier() { await(block_gate); }

bool block_or(bool x) {
  block_gate.any |= x;
  await(block_gate);
  return block_gate.result;
}

const uint64_t *exchange(uint64_t mine) {
  const int r = current->rank, w = r / 32, turn = turns[r]++ & 1;
  slots[w][turn][r % 32] = mine;
  await(warp_gates[w]);
  return slots[w][turn];
}

bool run_block(int threads, const std::function<void()> &fn) {
  body = &fn;
  if (int(fibers.size()) < threads) fibers.resize(threads);
  block_gate = Gate{};
  block_gate.members = threads;
  for (int i = 0; i < 64; i++) warp_gates[i] = Gate{};
  for (int i = 0; i < threads; i++) {
    Fiber &f = fibers[i];
    if (!f.stack)
      f.stack = static_cast<char *>(mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    f.thread = Thread{{unsigned(i), 0, 0}, i};
    f.alive = true;
    f.awaited = nullptr;
    turns[i] = 0;
    warp_gates[i / 32].members++;
    // entry needs the stack as after a call.
    void **top = reinterpret_cast<void **>(f.stack + kStack - 64);
    *--top = nullptr;
    *--top = reinterpret_cast<void *>(entry);
    for (int k = 0; k < 6; k++) *--top = nullptr;
    f.sp = top;
  }
  for (int left = threads; left;) {
    bool moved = false;
    left = 0;
    for (int i = 0; i < threads; i++) {
      Fiber &f = fibers[i];
      if (!f.alive) continue;
      left++;
      if (f.awaited && *f.awaited == f.seen) continue;
      moved = true;
      current = &f.thread;
      emulator_switch(&scheduler_sp, f.sp);
      if (!f.alive) left--;
    }
    if (left && !moved) {
      fprintf(stderr, "emulator: %d threads of a block wait for others that never come\n", left);
      return false;
    }
  }
  return true;
}

}  // namespace emulator
