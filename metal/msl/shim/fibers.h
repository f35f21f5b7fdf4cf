// Threads of a Metal threadgroup on one thread of a CPU: each is a fiber, scheduled in one of three orders, with the
// semantics of simdgroups of 32 lanes and of threadgroup barriers. What the language leaves undefined is reported: a barrier
// or collective that some threads do not reach, or reach at another line.
#pragma once
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#include <sanitizer/common_interface_defs.h>
#define MSL_ASAN 1
#endif
#endif
#if !defined(__x86_64__)
#error "msl_switch is written for x86-64"
#endif

// msl_switch saves this fiber at *save and goes on with the one saved as to.
extern "C" void msl_switch(void **save, void *to);
__asm__(R"(
.text
.type msl_switch,@function
msl_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
.size msl_switch,.-msl_switch
)");

namespace msl {
// Stacks are nine cache lines further apart than a power of two: at 64 KB the hot ends of all would share one set of the caches.
enum { MaxThreads = 1024, StackBytes = (64 << 10) + 9 * 64, ThreadgroupBytes = 32 << 10, MaxRegions = 4, Guard = 64, Poison = 0xff };
enum Order { Ascending, Descending, Shuffled };

struct U3 { uint32_t x, y, z; };
struct Launch { void *const *buf; U3 grid, group; };
// Lane is what the attributes of a kernel's parameters give to one thread.
struct Lane { U3 in_grid, in_group, group; uint32_t index, lane, simdgroup; };
typedef void (*Kernel)(const Launch *, void *const *tgmem, const Lane *);
struct Entry { const char *name; Kernel kernel; };

// Simdgroup: sets of lanes as bits. A lane is fresh until it starts, ready until it waits or ends.
struct Simdgroup {
  uint32_t all, ready, fresh, waiting;
  int op, line; // of the collective that is waited for
  alignas(16) unsigned char in[32 * 32], out[32 * 32];
};

struct Group {
  Kernel kernel;
  const Launch *launch;
  U3 at;
  int n, simdgroups, current, done;
  int arrived, barrier_line;
  Order order;
  uint64_t rng;
  Simdgroup sg[MaxThreads / 32];
  void *saved[MaxThreads], *host, *dead;
  int stack_of[MaxThreads], stacks_used, free_stacks[MaxThreads], nfree;
  char *stacks, *memory;
  void *tgmem[MaxRegions];
  bool failed;
  char message[200];
#ifdef MSL_ASAN
  void *fake[MaxThreads], *host_fake;
  const void *host_stack;
  size_t host_size;
#endif
};
inline thread_local Group *G __attribute__((tls_model("initial-exec")));
inline int lane() { return G->current & 31; }

inline uint64_t draw(Group &g) {
  g.rng ^= g.rng << 13, g.rng ^= g.rng >> 7, g.rng ^= g.rng << 17;
  return g.rng;
}

// one picks a lane out of a set that is not empty.
inline int one(Group &g, uint32_t set) {
  if (g.order == Ascending) return __builtin_ctz(set);
  if (g.order == Descending) return 31 - __builtin_clz(set);
  for (int k = (int)(draw(g) % (uint64_t)__builtin_popcount(set)); k > 0; k--) set &= set - 1;
  return __builtin_ctz(set);
}

// choose gives the thread to go on with, -1 if none can.
inline int choose(Group &g) {
  int mine = g.current >> 5, first = mine;
  if (g.order != Shuffled && g.sg[mine].ready) return mine * 32 + one(g, g.sg[mine].ready);
  if (g.order == Shuffled) first = (int)(draw(g) % (uint64_t)g.simdgroups);
  for (int i = 0; i < g.simdgroups; i++) {
    int s = g.order == Descending ? (first - i + g.simdgroups) % g.simdgroups : (first + i) % g.simdgroups;
    if (g.sg[s].ready) return s * 32 + one(g, g.sg[s].ready);
  }
  return -1;
}

[[noreturn]] void fiber_main();

// fresh_stack prepares a stack whose first switch enters fiber_main.
inline void *fresh_stack(Group &g, int thread) {
  int k = g.nfree ? g.free_stacks[--g.nfree] : g.stacks_used++;
  g.stack_of[thread] = k;
  void **p = (void **)(g.stacks + (size_t)(k + 1) * StackBytes - 72);
  p[0] = nullptr;
  *--p = (void *)&fiber_main;
  for (int i = 0; i < 6; i++) *--p = nullptr;
  return p;
}

// resume switches from the thread saved at save to thread next, which may be fresh.
inline void resume(Group &g, void **save, int next, bool leaving) {
  int from = g.current;
  g.current = next;
  bool fresh = g.sg[next >> 5].fresh >> (next & 31) & 1;
  void *to = fresh ? fresh_stack(g, next) : g.saved[next];
#ifdef MSL_ASAN
  __sanitizer_start_switch_fiber(leaving ? nullptr : &g.fake[from], g.stacks + (size_t)g.stack_of[next] * StackBytes, StackBytes);
  msl_switch(save, to);
  __sanitizer_finish_switch_fiber(g.fake[from], nullptr, nullptr);
#else
  (void)from, (void)leaving;
  msl_switch(save, to);
#endif
}

[[noreturn]] inline void to_host(Group &g) {
#ifdef MSL_ASAN
  __sanitizer_start_switch_fiber(nullptr, g.host_stack, g.host_size);
#endif
  msl_switch(&g.dead, g.host);
  __builtin_unreachable();
}

[[noreturn]] inline void fail(const char *format, ...) {
  va_list a;
  va_start(a, format);
  vsnprintf(G->message, sizeof G->message, format, a);
  va_end(a);
  G->failed = true;
  to_host(*G);
}

[[noreturn]] inline void stuck(Group &g) {
  for (int s = 0; s < g.simdgroups; s++)
    if (g.sg[s].waiting)
      fail("line %d: a simdgroup function was reached by lanes %08x of %08x", g.sg[s].line, g.sg[s].waiting, g.sg[s].all);
  fail("line %d: threadgroup_barrier was reached by %d of %d threads", g.barrier_line, g.arrived, g.n);
}

inline void block(Group &g) {
  int me = g.current, next = choose(g);
  if (next < 0) stuck(g);
  resume(g, &g.saved[me], next, false);
}

inline void yield(Group &g) { // after a wait ended, another lane may go first
  if (g.order == Ascending) return;
  int me = g.current, next = choose(g);
  if (next != me) resume(g, &g.saved[me], next, false);
}

inline void barrier(int line) {
  Group &g = *G;
  if (g.arrived == 0) g.barrier_line = line;
  else if (g.barrier_line != line) fail("threadgroup_barrier at line %d while others wait at line %d", line, g.barrier_line);
  if (++g.arrived == g.n) {
    g.arrived = 0;
    for (int s = 0; s < g.simdgroups; s++) g.sg[s].ready = g.sg[s].all;
    yield(g);
    return;
  }
  g.sg[g.current >> 5].ready &= ~(1u << (g.current & 31));
  block(g);
}

// collective hands every lane's x to f once all lanes of the simdgroup are there, and gives each lane its out.
template <class V, class F> inline V collective(V x, int op, int line, F f) {
  static_assert(sizeof(V) <= 32, "a value of at most 32 bytes");
  Group &g = *G;
  int l = g.current & 31;
  Simdgroup &s = g.sg[g.current >> 5];
  memcpy(s.in + l * sizeof(V), &x, sizeof(V));
  if (!s.waiting) s.op = op, s.line = line;
  else if (s.op != op || s.line != line) fail("line %d: a simdgroup function while other lanes are at line %d", line, s.line);
  s.waiting |= 1u << l;
  if (s.waiting == s.all) {
    f((V *)s.in, (V *)s.out, (uint32_t)__builtin_popcount(s.all));
    s.waiting = 0;
    s.ready = s.all;
    yield(g);
  } else {
    s.ready &= ~(1u << l);
    block(g);
  }
  V r;
  memcpy(&r, s.out + l * sizeof(V), sizeof(V));
  return r;
}
}
