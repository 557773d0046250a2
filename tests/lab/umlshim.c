/* LD_PRELOAD for Debian's user-mode-linux 6.1 on processors whose XSAVE area is larger than the 2696 bytes that it
 * knows (arch/x86/um/os-Linux/registers.c), such as those with AMX. The host's kernel then refuses
 * PTRACE_SETREGSET of NT_X86_XSTATE, and UML panics: "ptrace set fp regs failed, errno = 14". Here the whole area is
 * read, what UML has is laid over it, and the whole is written.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define NT_X86_XSTATE 0x202

static char area[65536] __attribute__((aligned(64)));

static long set_xstate(int pid, const struct iovec *wanted)
{
	struct iovec whole = { area, sizeof area };
	long result = syscall(SYS_ptrace, PTRACE_GETREGSET, pid, NT_X86_XSTATE, &whole);

	if (result)
		return result;
	memcpy(area, wanted->iov_base, wanted->iov_len < whole.iov_len ? wanted->iov_len : whole.iov_len);
	return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, NT_X86_XSTATE, &whole);
}

long ptrace(enum __ptrace_request request, ...)
{
	va_list arguments;
	va_start(arguments, request);
	int pid = va_arg(arguments, long);
	void *address = va_arg(arguments, void *), *data = va_arg(arguments, void *);
	va_end(arguments);

	if (request == PTRACE_SETREGSET && (long)address == NT_X86_XSTATE)
		return set_xstate(pid, data);
	if (request >= PTRACE_PEEKTEXT && request <= PTRACE_PEEKUSER) { /* libc returns the word, the kernel stores it */
		long word, result = syscall(SYS_ptrace, request, pid, address, &word);
		if (result < 0)
			return result;
		errno = 0;
		return word;
	}
	return syscall(SYS_ptrace, request, pid, address, data);
}
