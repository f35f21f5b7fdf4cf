// The C interface of a compiled library. Included after the table of kernels, where MSL's words are plain C++ again.
#pragma once
#ifdef MSL_ASAN
#include <sanitizer/asan_interface.h>
#endif
namespace msl {
// fiber_main runs threads one after the other on its stack until one must wait for a thread that has a stack of its own.
[[noreturn]] void fiber_main() {
  Group &g = *G;
#ifdef MSL_ASAN
  __sanitizer_finish_switch_fiber(nullptr, g.host_stack ? nullptr : &g.host_stack, g.host_stack ? nullptr : &g.host_size);
#endif
  int stack = g.stack_of[g.current];
  for (;;) {
    int me = g.current;
    Simdgroup &s = g.sg[me >> 5];
    s.fresh &= ~(1u << (me & 31));
    U3 d = g.launch->group, i = {(uint32_t)me % d.x, (uint32_t)me / d.x % d.y, (uint32_t)me / d.x / d.y};
    Lane lane = {{g.at.x * d.x + i.x, g.at.y * d.y + i.y, g.at.z * d.z + i.z}, i, g.at, (uint32_t)me, (uint32_t)me & 31, (uint32_t)me >> 5};
    g.kernel(g.launch, g.tgmem, &lane);
    s.ready &= ~(1u << (me & 31));
    if (++g.done == g.n) to_host(g);
    int next = choose(g);
    if (next < 0) stuck(g);
    if (g.sg[next >> 5].fresh >> (next & 31) & 1) {
      g.stack_of[next] = stack;
      g.current = next;
      continue;
    }
    g.free_stacks[g.nfree++] = stack;
    resume(g, &g.dead, next, true);
  }
}

static void run_group(Group &g, U3 at) {
  U3 d = g.launch->group;
  g.at = at;
  g.n = (int)(d.x * d.y * d.z);
  g.simdgroups = (g.n + 31) / 32;
  g.arrived = g.done = g.stacks_used = g.nfree = g.current = 0;
  for (int s = 0; s < g.simdgroups; s++) {
    int k = g.n - s * 32;
    g.sg[s].all = k >= 32 ? ~0u : (1u << k) - 1;
    g.sg[s].ready = g.sg[s].fresh = g.sg[s].all;
    g.sg[s].waiting = 0;
  }
  g.current = choose(g);
  void *to = fresh_stack(g, g.current);
#ifdef MSL_ASAN
  g.host_stack = nullptr;
  __sanitizer_start_switch_fiber(&g.host_fake, g.stacks + (size_t)g.stack_of[g.current] * StackBytes, StackBytes);
#endif
  msl_switch(&g.host, to);
#ifdef MSL_ASAN
  __sanitizer_finish_switch_fiber(g.host_fake, nullptr, nullptr);
#endif
}
}

// msl_call is one thread's share of a dispatch: threadgroups first .. first+count-1 of the grid, x fastest.
struct msl_call {
  msl::Kernel kernel;
  msl::Group *group;
  void *buf[16];
  uint32_t tgmem[msl::MaxRegions], regions, order;
  uint32_t grid[3], threads[3];
  uint64_t first, count;
  char error[256];
};

extern "C" __attribute__((visibility("default"))) msl::Kernel msl_find(const char *name) {
  for (const msl::Entry *e = msl_table; e->name; e++)
    if (!strcmp(e->name, name)) return e->kernel;
  return nullptr;
}

// msl_group makes what one thread of the CPU needs to run threadgroups; it is never freed, but used again.
extern "C" __attribute__((visibility("default"))) msl::Group *msl_group() {
  using namespace msl;
  Group *g = (Group *)calloc(1, sizeof(Group));
  if (!g) return nullptr;
  void *stacks = mmap(nullptr, (size_t)MaxThreads * StackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  g->memory = (char *)aligned_alloc(64, ThreadgroupBytes + MaxRegions * Guard);
  if (stacks == MAP_FAILED || !g->memory) return nullptr;
  g->stacks = (char *)stacks;
  return g;
}

// msl_run gives 0, or 1 and a message.
extern "C" __attribute__((visibility("default"))) int msl_run(msl_call *c) {
  using namespace msl;
  Group *before = G, &g = *c->group;
  G = &g;
  Launch launch = {c->buf, {c->grid[0], c->grid[1], c->grid[2]}, {c->threads[0], c->threads[1], c->threads[2]}};
  g.kernel = c->kernel, g.launch = &launch, g.order = (Order)c->order, g.failed = false;
  uint64_t last = c->first + c->count;
  for (uint64_t k = c->first; k < last && !g.failed; k++) {
    uint64_t i = c->order == Descending ? last - 1 - (k - c->first) : k;
    g.rng = 0x9E3779B97F4A7C15ull * (i + 1);
    char *p = g.memory;
    for (uint32_t r = 0; r < c->regions; r++) {
      size_t n = (c->tgmem[r] + 15) & ~15u;
      g.tgmem[r] = p;
      memset(p, Poison, n + Guard); // threadgroup memory starts as NaN, not as zero
#ifdef MSL_ASAN
      __asan_poison_memory_region(p + c->tgmem[r], n - c->tgmem[r] + Guard);
#endif
      p += n + Guard;
    }
    run_group(g, {(uint32_t)(i % c->grid[0]), (uint32_t)(i / c->grid[0] % c->grid[1]), (uint32_t)(i / c->grid[0] / c->grid[1])});
#ifdef MSL_ASAN
    __asan_unpoison_memory_region(g.memory, ThreadgroupBytes + MaxRegions * Guard);
#endif
    p = g.memory;
    for (uint32_t r = 0; r < c->regions && !g.failed; r++) {
      p += (c->tgmem[r] + 15) & ~15u;
      for (int j = 0; j < Guard; j++)
        if ((unsigned char)p[j] != Poison) {
          snprintf(g.message, sizeof g.message, "threadgroup memory %u was written beyond its %u bytes", r, c->tgmem[r]);
          g.failed = true;
          break;
        }
      p += Guard;
    }
    if (g.failed) snprintf(c->error, sizeof c->error, "threadgroup %llu: %s", (unsigned long long)i, g.message);
  }
  G = before;
  return g.failed;
}
