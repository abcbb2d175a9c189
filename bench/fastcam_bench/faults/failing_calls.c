/* Makes the n-th system call on the files of one folder fail.
 *
 * The process asks the kernel (seccomp) to hand it every call that opens, reads, writes, renames or closes a file, as a
 * signal, before it is done. The handler does the call itself, unless it is the n-th one on a file under the folder:
 * then it answers with an error, or does half of it. So calls from inside libc, ONNX Runtime and OpenCV's FFmpeg are
 * met like Python's own, which a library in front of libc would not meet.
 *
 * fail_calls() holds for the process that calls it and for threads that it starts later, until it ends. Linux, x86-64
 * and AArch64.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

enum { OPENS = 1, CREATES = 2, READS = 4, WRITES = 8, SYNCS = 16, RENAMES = 32, CLOSES = 64, MAPS = 128, FOLDERS = 256 };

struct plan {
    char folder[4096];
    size_t length;
    int groups;   /* which calls count */
    long nth;     /* the first that fails, from 1; 0: none */
    int lasting;  /* whether all later ones fail too */
    int error;    /* what is answered; 0: half of a read or write is done; below 0: the process is ended */
    long* counted; /* how many calls of these groups there were, then of each group alone; other processes see it */
};
static struct plan plan;

typedef long word;

/* The one place from which calls pass the filter. */
__attribute__((visibility("hidden"))) word pass(word number, const word* a);
__attribute__((visibility("hidden"))) extern const char pass_end[];
#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
__asm__(
    ".text\n.globl pass\n.type pass,@function\npass:\n"
    "mov %rdi, %rax\nmov %rsi, %r11\nmov (%r11), %rdi\nmov 8(%r11), %rsi\nmov 16(%r11), %rdx\n"
    "mov 24(%r11), %r10\nmov 32(%r11), %r8\nmov 40(%r11), %r9\nsyscall\n"
    ".globl pass_end\npass_end:\nret\n");
static void answer(ucontext_t* c, word value) { c->uc_mcontext.gregs[REG_RAX] = value; }
static void arguments(const ucontext_t* c, word* a) {
    const greg_t* r = c->uc_mcontext.gregs;
    a[0] = r[REG_RDI], a[1] = r[REG_RSI], a[2] = r[REG_RDX], a[3] = r[REG_R10], a[4] = r[REG_R8], a[5] = r[REG_R9];
}
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
__asm__(
    ".text\n.globl pass\n.type pass,%function\npass:\n"
    "mov x8, x0\nmov x9, x1\nldp x0, x1, [x9]\nldp x2, x3, [x9, #16]\nldp x4, x5, [x9, #32]\nsvc #0\n"
    ".globl pass_end\npass_end:\nret\n");
static void answer(ucontext_t* c, word value) { c->uc_mcontext.regs[0] = value; }
static void arguments(const ucontext_t* c, word* a) {
    for (int i = 0; i < 6; ++i) a[i] = c->uc_mcontext.regs[i];
}
#else
#error "only x86-64 and AArch64"
#endif

static word call(word number, word a, word b, word c, word d) {
    const word all[6] = {a, b, c, d, 0, 0};
    return pass(number, all);
}

/* Whether an open file, or a path (from: of an open folder), lies in the folder. */
static int below(const char* path) {
    return !strncmp(path, plan.folder, plan.length) && (path[plan.length] == '/' || !path[plan.length]);
}

static int below_fd(word fd) {
    char link[32] = "/proc/self/fd/", digits[12], path[4097];
    int n = 0, at = 14;
    if ((int)fd < 0) return 0;
    for (unsigned f = (unsigned)fd; n == 0 || f; f /= 10) digits[n++] = (char)('0' + f % 10);
    while (n) link[at++] = digits[--n];
    const word length = call(SYS_readlinkat, AT_FDCWD, (word)link, (word)path, 4096);
    if (length <= 0) return 0;
    path[length] = 0;
    return below(path);
}

static int below_path(word from, word text) {
    const char* name = (const char*)text;
    if (!name) return 0;
    if (name[0] == '/') return below(name);
    if ((int)from != AT_FDCWD) return below_fd(from);
    char path[4097];
    const word length = call(SYS_readlinkat, AT_FDCWD, (word) "/proc/self/cwd", (word)path, 4096);
    if (length <= 0) return 0;
    path[length] = 0;
    return below(path);
}

static int opening(word flags) { return (flags & O_ACCMODE) == O_RDONLY && !(flags & O_CREAT) ? OPENS : CREATES; }

/* The group of a call on a file of the folder; 0 of all others. */
static int group(word number, const word* a) {
    switch (number) {
        case SYS_openat: return below_path(a[0], a[1]) ? opening(a[2]) : 0;
        case SYS_read: case SYS_pread64: case SYS_readv: return below_fd(a[0]) ? READS : 0;
        case SYS_write: case SYS_pwrite64: case SYS_writev: case SYS_ftruncate: case SYS_fallocate:
            return below_fd(a[0]) ? WRITES : 0;
        case SYS_sendfile: case SYS_fchmod: return below_fd(a[0]) ? WRITES : 0;
        case SYS_copy_file_range: return below_fd(a[2]) ? WRITES : 0;
        case SYS_fsync: case SYS_fdatasync: return below_fd(a[0]) ? SYNCS : 0;
        case SYS_close: return below_fd(a[0]) ? CLOSES : 0;
        case SYS_mmap: return !(a[3] & MAP_ANONYMOUS) && below_fd(a[4]) ? MAPS : 0;
        case SYS_renameat: case SYS_renameat2: return below_path(a[2], a[3]) ? RENAMES : 0;
        case SYS_linkat: return below_path(a[2], a[3]) ? RENAMES : 0;
        case SYS_fchmodat: return below_path(a[0], a[1]) ? RENAMES : 0;
        case SYS_mkdirat: return below_path(a[0], a[1]) ? FOLDERS : 0;
#ifdef __x86_64__
        case SYS_open: return below_path(AT_FDCWD, a[0]) ? opening(a[1]) : 0;
        case SYS_creat: return below_path(AT_FDCWD, a[0]) ? CREATES : 0;
        case SYS_rename: case SYS_link: return below_path(AT_FDCWD, a[1]) ? RENAMES : 0;
        case SYS_chmod: return below_path(AT_FDCWD, a[0]) ? RENAMES : 0;
        case SYS_mkdir: return below_path(AT_FDCWD, a[0]) ? FOLDERS : 0;
#endif
        default: return 0;
    }
}

static word half(word number, const word* a) {
    word less[6];
    memcpy(less, a, sizeof less);
    if (number == SYS_read || number == SYS_write || number == SYS_pread64 || number == SYS_pwrite64) {
        if (a[2] > 1) less[2] = a[2] / 2;
    } else if (number == SYS_writev || number == SYS_readv) {
        if (a[2] > 1) less[2] = 1;
    }
    return pass(number, less);
}

static void handler(int signal, siginfo_t* info, void* context) {
    (void)signal;
    ucontext_t* at = context;
    const word number = info->si_syscall;
    word a[6];
    arguments(at, a);
    const int kept = errno, of = group(number, a), met = of & plan.groups;
    word result;
    long n = 0;
    if (of) __atomic_add_fetch(plan.counted + 1 + __builtin_ctz((unsigned)of), 1, __ATOMIC_SEQ_CST);
    if (met) n = __atomic_add_fetch(plan.counted, 1, __ATOMIC_SEQ_CST);
    if (n && plan.nth && (n == plan.nth || (plan.lasting && n > plan.nth))) {
        if (!plan.error) {
            result = half(number, a);
        } else {
            if (met == CLOSES) pass(number, a); /* a close that fails has closed */
            if (plan.error < 0) call(SYS_kill, call(SYS_getpid, 0, 0, 0, 0), SIGKILL, 0, 0);
            result = -plan.error;
        }
    } else {
        result = pass(number, a);
    }
    errno = kept;
    answer(at, result);
}

/* From here on the nth call of the groups on a file of the folder fails with an error, and, where it is lasting, all
 * later ones. counted: 16 numbers that are raised with each such call, see plan. 0, or the error that the system has with this. */
int fail_calls(const char* folder, int groups, long nth, int lasting, int error, long* counted) {
    static const int calls[] = {
        SYS_openat, SYS_read, SYS_pread64, SYS_readv, SYS_write, SYS_pwrite64, SYS_writev, SYS_ftruncate, SYS_fallocate,
        SYS_sendfile, SYS_fchmod, SYS_copy_file_range, SYS_fsync, SYS_fdatasync, SYS_close, SYS_mmap, SYS_renameat,
        SYS_renameat2, SYS_linkat, SYS_fchmodat, SYS_mkdirat,
#ifdef __x86_64__
        SYS_open, SYS_creat, SYS_rename, SYS_link, SYS_chmod, SYS_mkdir,
#endif
    };
    enum { COUNT = sizeof calls / sizeof *calls };
    struct sock_filter filter[COUNT + 9];
    const uint64_t from = (uint64_t)(uintptr_t)pass_end;
    int n = 0;
#define LOAD(member) \
    (struct sock_filter) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, member))
#define JUMP(value, yes, no) (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, yes, no)
    filter[n++] = LOAD(arch);
    filter[n++] = JUMP(ARCHITECTURE, 0, COUNT + 5);
    filter[n++] = (struct sock_filter)BPF_STMT(
        BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer));
    filter[n++] = JUMP((uint32_t)from, 0, 2);
    filter[n++] = (struct sock_filter)BPF_STMT(
        BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4);
    filter[n++] = JUMP((uint32_t)(from >> 32), COUNT + 1, 0);
    filter[n++] = LOAD(nr);
    for (int i = 0; i < COUNT; ++i) filter[n++] = JUMP((uint32_t)calls[i], COUNT - i, 0);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
    const struct sock_fprog program = {(unsigned short)n, filter};
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART;
    plan.length = strlen(folder);
    if (plan.length >= sizeof plan.folder) return ENAMETOOLONG;
    memcpy(plan.folder, folder, plan.length + 1);
    plan.groups = groups, plan.nth = nth, plan.lasting = lasting, plan.error = error, plan.counted = counted;
    if (sigaction(SIGSYS, &action, NULL)) return errno;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return errno;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) ? errno : 0;
}
