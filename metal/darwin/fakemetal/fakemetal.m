//go:build cgo && linux && gnustep

// A stand-in for Metal on GNUstep, without ARC as darwinkit is. Sources: Metal's headers of macOS 13 for names, types and codes; "Metal
// Programming Guide" and the API validation layer for what a caller must not do, each of which is a fault that FakeMetal keeps.
#import <Foundation/Foundation.h>
#import <Foundation/NSDebug.h>
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

typedef struct { NSUInteger width, height, depth; } MTLSize;
enum { NotEnqueued, Enqueued, Committed, Scheduled, Completed, Failed }; // MTLCommandBufferStatus
enum { MaxBuffers = 31, MaxRegions = 4, MaxThreads = 1024, MaxThreadgroupBytes = 32 << 10, MaxBytes = 4096, MaxInFlight = 64 };

// msl_call and the functions of a library, as metal/msl/shim/dispatch.h has them.
typedef struct {
	void *kernel, *group, *buf[16];
	uint32_t tgmem[MaxRegions], regions, order, grid[3], threads[3];
	uint64_t first, count;
	char error[256];
} msl_call;

// The state that tests set, and what they ask for.
static atomic_int devices = 1, hidden, fail_after, fail_code, live;
static atomic_ullong working_set = 8ull << 30;
static atomic_int family = 1007;
static _Thread_local int pools; // autorelease pools open on this thread
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char faults[4096];

// fault keeps what Metal's validation layer would have stopped the process for.
static void fault(const char *format, ...) {
	char line[256];
	va_list args;
	va_start(args, format);
	vsnprintf(line, sizeof line, format, args);
	va_end(args);
	pthread_mutex_lock(&lock);
	size_t n = strlen(faults);
	snprintf(faults + n, sizeof faults - n, "%s\n", line);
	pthread_mutex_unlock(&lock);
}

// pooled notes an autoreleased object that no pool will take.
static void pooled(const char *what) {
	if (!pools) fault("%s without an autorelease pool: it leaks", what);
}

// The compiler is a service of its own, as Metal's is: a goroutine of gpu_gnustep.go waits in fakemetal_request for source and answers
// with the path of a library of the CPU device, or with what the compiler said. It never runs on the caller's goroutine, whose stack
// holds what darwinkit told libffi to write to.
static pthread_mutex_t compiling = PTHREAD_MUTEX_INITIALIZER; // one request at a time
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static const char *request;
static char *answer_path, *answer_fault;

const char *fakemetal_request(void) {
	pthread_mutex_lock(&lock);
	while (!request) pthread_cond_wait(&changed, &lock);
	const char *source = request;
	pthread_mutex_unlock(&lock);
	return source;
}

void fakemetal_answer(const char *path, const char *said) {
	pthread_mutex_lock(&lock);
	answer_path = path ? strdup(path) : NULL;
	answer_fault = said ? strdup(said) : NULL;
	request = NULL;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

// compile gives a path or sets *said; both are the caller's to free.
static char *compile(const char *source, char **said) {
	pthread_mutex_lock(&compiling);
	pthread_mutex_lock(&lock);
	request = source;
	pthread_cond_broadcast(&changed);
	while (request) pthread_cond_wait(&changed, &lock);
	char *path = answer_path;
	*said = answer_fault;
	pthread_mutex_unlock(&lock);
	pthread_mutex_unlock(&compiling);
	return path;
}

static NSError *failure(NSString *domain, NSInteger code, NSString *text) {
	return [NSError errorWithDomain:domain code:code userInfo:[NSDictionary dictionaryWithObject:text forKey:NSLocalizedDescriptionKey]];
}

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

// FkObject counts what lives.
@interface FkObject : NSObject
@end
@implementation FkObject
+ (id)allocWithZone:(NSZone *)zone { live++; return [super allocWithZone:zone]; }
- (void)dealloc { live--; [super dealloc]; }
@end

static id checked(id object, Class class, const char *what) {
	if ([object isKindOfClass:class]) return object;
	fault("%s: an object of class %s", what, object ? [NSStringFromClass([object class]) UTF8String] : "nil");
	return nil;
}

@interface MTLCompileOptions : FkObject { @public BOOL fast; NSUInteger version; }
@end
@implementation MTLCompileOptions
- (id)init { if ((self = [super init])) fast = YES; return self; } // as Metal's default is
- (void)setFastMathEnabled:(BOOL)b { fast = b; }
- (BOOL)fastMathEnabled { return fast; }
- (void)setLanguageVersion:(NSUInteger)v { version = v; }
- (NSUInteger)languageVersion { return version; }
@end

// FkLibrary is a shared object of the CPU device. It stays loaded: other libraries may be the same file.
@interface FkLibrary : FkObject { @public void *(*find)(const char *), *(*group)(void); int (*run)(msl_call *); }
@end
@interface FkFunction : FkObject { @public FkLibrary *library; void *kernel; }
@end
@implementation FkFunction
- (void)dealloc { [library release]; [super dealloc]; }
@end
@implementation FkLibrary
- (id)newFunctionWithName:(NSString *)name {
	void *kernel = find([name UTF8String]);
	if (!kernel) return nil;
	FkFunction *f = [FkFunction new];
	f->library = [self retain];
	f->kernel = kernel;
	return f;
}
@end

@interface FkPipeline : FkObject { @public FkFunction *function; }
@end
@implementation FkPipeline
- (void)dealloc { [function release]; [super dealloc]; }
- (NSUInteger)maxTotalThreadsPerThreadgroup { return MaxThreads; }
- (NSUInteger)threadExecutionWidth { return 32; }
@end

@interface FkBuffer : FkObject { @public char *bytes; NSUInteger length; size_t mapped; }
@end
@implementation FkBuffer
- (void)dealloc { if (mapped) munmap(bytes, mapped); [super dealloc]; }
- (void *)contents { return bytes; }
- (NSUInteger)length { return length; }
@end

// groups are what the threads of a library run on; one that is idle is used again.
typedef struct idle { void *(*of)(void), *group; struct idle *next; } idle;
static idle *groups;

static idle *take_group(FkLibrary *l) {
	idle *g = NULL;
	pthread_mutex_lock(&lock);
	for (idle **p = &groups; *p; p = &(*p)->next)
		if ((*p)->of == l->group) {
			g = *p;
			*p = g->next;
			break;
		}
	pthread_mutex_unlock(&lock);
	if (g) return g;
	g = calloc(1, sizeof *g);
	g->of = l->group;
	g->group = l->group();
	return g;
}

static void give_group(idle *g) {
	pthread_mutex_lock(&lock);
	g->next = groups;
	groups = g;
	pthread_mutex_unlock(&lock);
}

// command is one dispatch as it was encoded. Its buffers and pipeline are kept by the command buffer.
typedef struct { FkPipeline *pipeline; msl_call call; char *bytes[MaxBuffers]; } command;

@interface FkQueue : FkObject { @public atomic_int in_flight; }
@end
@interface FkCommandBuffer : FkObject {
	@public FkQueue *queue;
	NSMutableArray *keep;
	command *list;
	size_t count, room;
	id encoder; // the one that is open, not retained
	int status, code, limit;
	double start, end;
	char message[400];
	pthread_t thread;
	BOOL joined;
}
@end

@interface FkEncoder : FkObject { @public FkCommandBuffer *buffer; FkPipeline *pipeline; char *bound[MaxBuffers], *owned[MaxBuffers]; uint32_t tgmem[MaxRegions], regions; BOOL ended; }
@end
@implementation FkEncoder
- (void)dealloc {
	if (!ended) fault("a command encoder was released before endEncoding");
	for (int i = 0; i < MaxBuffers; i++) free(owned[i]);
	[buffer release];
	[super dealloc];
}
- (BOOL)open:(const char *)what {
	if (ended) fault("%s after endEncoding", what);
	return !ended;
}
- (void)setComputePipelineState:(FkPipeline *)p {
	if (![self open:"setComputePipelineState"] || !(p = checked(p, [FkPipeline class], "setComputePipelineState"))) return;
	pipeline = p;
	[buffer->keep addObject:p];
}
- (BOOL)index:(NSUInteger)i of:(const char *)what {
	if (i >= 16) fault("%s: index %lu", what, (unsigned long)i); // Metal takes 31; a library of the CPU device 16
	return i < 16;
}
- (void)setBuffer:(FkBuffer *)b offset:(NSUInteger)offset atIndex:(NSUInteger)i {
	if (![self open:"setBuffer"] || ![self index:i of:"setBuffer"] || !(b = checked(b, [FkBuffer class], "setBuffer"))) return;
	if (offset >= b->length) { fault("setBuffer: offset %lu of a buffer of %lu bytes", (unsigned long)offset, (unsigned long)b->length); return; }
	bound[i] = b->bytes + offset;
	[buffer->keep addObject:b];
}
- (void)setBytes:(const void *)p length:(NSUInteger)n atIndex:(NSUInteger)i {
	if (![self open:"setBytes"] || ![self index:i of:"setBytes"]) return;
	if (n == 0 || n > MaxBytes) { fault("setBytes: %lu bytes, of 1 to %d", (unsigned long)n, MaxBytes); return; }
	free(owned[i]);
	bound[i] = owned[i] = aligned_alloc(16, (n + 15) & ~15ul); // copied here and now, as Metal does
	memcpy(owned[i], p, n);
}
- (void)setThreadgroupMemoryLength:(NSUInteger)n atIndex:(NSUInteger)i {
	if (![self open:"setThreadgroupMemoryLength"]) return;
	if (n % 16 || i >= MaxRegions) { fault("setThreadgroupMemoryLength: %lu bytes at %lu", (unsigned long)n, (unsigned long)i); return; }
	tgmem[i] = n;
	if (regions <= i) regions = i + 1;
}
- (void)dispatchThreadgroups:(MTLSize)g threadsPerThreadgroup:(MTLSize)t {
	if (![self open:"dispatchThreadgroups"]) return;
	if (!pipeline) { fault("dispatchThreadgroups without a pipeline"); return; }
	unsigned long threads = t.width * t.height * t.depth, memory = 0;
	for (uint32_t i = 0; i < regions; i++) memory += tgmem[i];
	if (threads < 1 || threads > MaxThreads || !g.width || !g.height || !g.depth) { fault("dispatchThreadgroups: %lu threads of %lu x %lu x %lu groups", threads, (unsigned long)g.width, (unsigned long)g.height, (unsigned long)g.depth); return; }
	if (memory > MaxThreadgroupBytes) { fault("dispatchThreadgroups: %lu bytes of threadgroup memory", memory); return; }
	FkCommandBuffer *b = buffer;
	if (b->count == b->room) b->list = realloc(b->list, (b->room = b->room ? 2 * b->room : 8) * sizeof(command));
	command *c = &b->list[b->count++];
	memset(c, 0, sizeof *c);
	c->pipeline = pipeline;
	c->call.kernel = pipeline->function->kernel;
	for (int i = 0; i < 16; i++) {
		c->call.buf[i] = bound[i];
		if (owned[i] && bound[i] == owned[i]) { c->bytes[i] = owned[i]; owned[i] = NULL; } // the command's from now on
	}
	memcpy(c->call.tgmem, tgmem, sizeof tgmem);
	c->call.regions = regions;
	c->call.grid[0] = g.width; c->call.grid[1] = g.height; c->call.grid[2] = g.depth;
	c->call.threads[0] = t.width; c->call.threads[1] = t.height; c->call.threads[2] = t.depth;
	c->call.count = (uint64_t)g.width * g.height * g.depth;
}
- (void)endEncoding {
	if (![self open:"endEncoding"]) return;
	ended = YES;
	buffer->encoder = nil;
}
@end

// execute runs on the GPU's thread, which is C alone.
static void *execute(void *p) {
	FkCommandBuffer *b = p;
	b->start = now();
	if (b->code) goto done; // a failure that a test asked for
	for (size_t i = 0; i < b->count && !b->code; i++) {
		command *c = &b->list[i];
		FkLibrary *l = c->pipeline->function->library;
		idle *g = take_group(l);
		c->call.group = g->group;
		if (!g->group || l->run(&c->call)) {
			b->code = 3; // MTLCommandBufferErrorPageFault, what a GPU most often says of a wrong kernel
			snprintf(b->message, sizeof b->message, "Caused GPU Address Fault Error (0000000b:kIOGPUCommandBufferCallbackErrorPageFault): %s", c->call.error);
		}
		give_group(g);
	}
done:
	b->end = now();
	return NULL;
}

@implementation FkCommandBuffer
- (id)init { if ((self = [super init])) keep = [NSMutableArray new]; return self; }
- (void)dealloc {
	if (status == Committed) pthread_join(thread, NULL);
	for (size_t i = 0; i < count; i++)
		for (int j = 0; j < MaxBuffers; j++) free(list[i].bytes[j]);
	free(list);
	[keep release];
	queue->in_flight--;
	[queue release];
	[super dealloc];
}
- (id)computeCommandEncoder {
	pooled("computeCommandEncoder");
	if (encoder) fault("a second encoder while one is open");
	if (status != NotEnqueued) fault("computeCommandEncoder after commit");
	FkEncoder *e = [[FkEncoder new] autorelease];
	e->buffer = [self retain];
	encoder = e;
	return e;
}
- (void)commit {
	if (status != NotEnqueued) { fault("commit of a command buffer that was committed"); return; }
	if (encoder) fault("commit with an encoder open");
	status = Committed;
	int left = fail_after;
	if (left > 0 && --fail_after == 0) {
		code = fail_code;
		snprintf(message, sizeof message, code == 2 ? "Caused GPU Timeout Error (00000002:kIOGPUCommandBufferCallbackErrorTimeout)" : "Caused GPU Hang Error (00000003:kIOGPUCommandBufferCallbackErrorHang)");
	}
	// A signal of the process that met this thread would run Go's handler on a kernel's stack: only faults of its own may.
	sigset_t all, before;
	sigfillset(&all);
	sigdelset(&all, SIGSEGV), sigdelset(&all, SIGBUS), sigdelset(&all, SIGFPE), sigdelset(&all, SIGILL), sigdelset(&all, SIGTRAP);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int failed = pthread_create(&thread, NULL, execute, self);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (failed) { // no thread to be had: the kernels run here, late but all the same
		execute(self);
		status = code ? Failed : Completed;
	}
}
- (void)waitUntilCompleted {
	if (status == NotEnqueued) { fault("waitUntilCompleted before commit would wait for ever"); return; }
	if (status != Committed) return;
	pthread_join(thread, NULL);
	status = code ? Failed : Completed;
}
- (NSUInteger)status { return status; }
- (id)error {
	if (status != Failed) return nil;
	pooled("error");
	return failure(@"MTLCommandBufferErrorDomain", code, [NSString stringWithUTF8String:message]);
}
- (double)GPUStartTime { return status >= Completed ? start : 0; }
- (double)GPUEndTime { return status >= Completed ? end : 0; }
@end

@implementation FkQueue
- (id)commandBuffer {
	pooled("commandBuffer");
	if (++in_flight > MaxInFlight) fault("%d command buffers of a queue are alive: Metal would wait for ever", MaxInFlight + 1);
	FkCommandBuffer *b = [[FkCommandBuffer new] autorelease];
	b->queue = [self retain];
	return b;
}
@end

@interface FkDevice : FkObject
@end
@implementation FkDevice
- (NSString *)name { return @"Fake GPU"; }
- (BOOL)supportsFamily:(NSInteger)f { return f == family; }
- (NSUInteger)maxThreadgroupMemoryLength { return MaxThreadgroupBytes; }
- (uint64_t)recommendedMaxWorkingSetSize { return working_set; }
- (id)newCommandQueue { return [FkQueue new]; }
- (id)newLibraryWithSource:(NSString *)source options:(MTLCompileOptions *)o error:(NSError **)e {
	if (!(o = checked(o, [MTLCompileOptions class], "newLibraryWithSource"))) return nil;
	if (o->fast) fault("newLibraryWithSource: fast math is on, which may drop what the kernels say of NaN and order");
	char *text = NULL, *path = compile([source UTF8String], &text);
	if (path) {
		void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
		if (!handle) text = strdup(dlerror());
		free(path);
		if (handle) {
			FkLibrary *l = [FkLibrary new];
			l->find = (void *(*)(const char *))dlsym(handle, "msl_find");
			l->group = (void *(*)(void))dlsym(handle, "msl_group");
			l->run = (int (*)(msl_call *))dlsym(handle, "msl_run");
			return l;
		}
	}
	pooled("an NSError");
	if (e) *e = failure(@"MTLLibraryErrorDomain", 3, [NSString stringWithUTF8String:text]);
	free(text);
	return nil;
}
- (id)newComputePipelineStateWithFunction:(FkFunction *)f error:(NSError **)e {
	if (!(f = checked(f, [FkFunction class], "newComputePipelineState"))) return nil;
	FkPipeline *p = [FkPipeline new];
	p->function = [f retain];
	return p;
}
- (id)newBufferWithLength:(NSUInteger)n options:(NSUInteger)o {
	size_t page = getpagesize(), room = (n + page - 1) / page * page;
	if (n == 0 || n > working_set) return nil; // as a device does beyond its maxBufferLength
	char *p = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED) return nil;
	FkBuffer *b = [FkBuffer new];
	b->bytes = p;
	b->length = n;
	b->mapped = room;
	return b;
}
- (id)newBufferWithBytesNoCopy:(void *)p length:(NSUInteger)n options:(NSUInteger)o deallocator:(void *)d {
	size_t page = getpagesize();
	if ((uintptr_t)p % page || n % page || n == 0) { fault("newBufferWithBytesNoCopy: %p and %lu bytes are not whole pages", p, (unsigned long)n); return nil; }
	if (d) { fault("newBufferWithBytesNoCopy: a deallocator"); return nil; }
	FkBuffer *b = [FkBuffer new];
	b->bytes = p;
	b->length = n;
	return b;
}
@end

void *MTLCreateSystemDefaultDevice(void) { return devices && !hidden ? [FkDevice new] : nil; }

// Metal's gives all devices, whatever the session; the caller releases the array.
void *MTLCopyAllDevices(void) {
	NSMutableArray *all = [NSMutableArray new];
	for (int i = 0; i < devices; i++) {
		FkDevice *d = [FkDevice new];
		[all addObject:d];
		[d release];
	}
	return all;
}

void *objc_autoreleasePoolPush(void) { pools++; return [NSAutoreleasePool new]; }
void objc_autoreleasePoolPop(void *p) { pools--; [(NSAutoreleasePool *)p drain]; }
void *objc_retain(void *p) { return [(id)p retain]; }

// fakemetal_start must run before a second thread sends messages. gcc's runtime lets other threads in while a class is still in its
// +initialize: two that made their first pool together called through the pool class's cached methods before they were there.
void fakemetal_start(void) {
	NSAutoreleasePool *pool = [NSAutoreleasePool new];
	NSMutableArray *all = [NSMutableArray array];
	[all addObject:[NSThread currentThread]];
	[all addObject:failure(@"FakeMetal", 1, [NSString stringWithUTF8String:"a reason"])];
	(void)[[[all lastObject] localizedDescription] UTF8String];
	[pool drain];
}

// FakeMetal is what tests steer by.
@interface FakeMetal : NSObject
@end
@implementation FakeMetal
+ (void)reset { devices = 1, hidden = fail_after = 0, working_set = 8ull << 30, family = 1007, faults[0] = 0; }
+ (void)setDevices:(NSInteger)n { devices = n; }
+ (void)hideDefault { hidden = 1; } // as in a session over ssh
+ (void)setFamily:(NSInteger)f { family = f; }
+ (void)setWorkingSet:(uint64_t)n { working_set = n; }
// The nth commit from now fails with a code of MTLCommandBufferError, and runs nothing.
+ (void)failCommit:(NSInteger)n code:(NSInteger)c { fail_code = c, fail_after = n; }
// Metal's objects alive.
+ (NSInteger)live { return live; }
// Objects of all classes alive since the first call.
+ (NSInteger)allocated {
	static BOOL counting;
	if (!counting) { counting = YES; GSDebugAllocationActive(YES); }
	NSInteger n = 0;
	Class *classes = GSDebugAllocationClassList();
	for (Class *c = classes; c && *c; c++) n += GSDebugAllocationCount(*c);
	NSZoneFree(NSDefaultMallocZone(), classes);
	return n;
}
// Bytes that malloc has given out.
+ (NSInteger)heap { return mallinfo2().uordblks; }
// What Metal's validation layer would have stopped the process for.
+ (NSString *)faults { return [NSString stringWithUTF8String:faults]; }
@end
