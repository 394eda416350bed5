/*
 * Faults at a chosen moment of a command. What happened goes to /tmp/step.
 *
 * step fail N COMMAND...: the Nth allocation that the kernel makes for the first
 *     kexec_load or kexec_file_load fails. "injected", or "left" when the call made
 *     fewer, then what the call returned.
 * step kill N COMMAND...: the command is killed when it makes its Nth system call
 *     after it took its lock (flock), before the kernel carries it out. "killed" or
 *     "ended", then the number of kexec calls that succeeded before, and which system
 *     call the first of them was.
 * step do SCRIPT COMMAND...: a shell runs SCRIPT when the command makes the first of
 *     its kexec calls. "done" or "ended".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(const char *what)
{
	perror(what);
	exit(125);
}

static FILE *result;
static const char *mode;
static long number;
/* The kexec call that is under way, and the calls so far. */
static int inside, calls, loaded;
/* System calls since the lock was taken; -1 before. */
static long steps = -1, first_call;

/* Which allocation of the thread is to fail; 0: none. */
static int fail_nth(pid_t thread, int flags)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/fail-nth", thread, thread);
	fd = open(path, flags);
	if (fd < 0)
		die(path);
	return fd;
}

static void set_fail_nth(pid_t thread, long value)
{
	int fd = fail_nth(thread, O_WRONLY);

	if (dprintf(fd, "%ld", value) < 1)
		die("fail-nth");
	close(fd);
}

/* What is left of it: 0 when the allocation has failed. */
static long get_fail_nth(pid_t thread)
{
	char text[32] = "";
	int fd = fail_nth(thread, O_RDONLY);

	if (read(fd, text, sizeof(text) - 1) < 1)
		die("fail-nth");
	close(fd);
	return atol(text);
}

static int is_kexec(unsigned long long nr)
{
	return nr == SYS_kexec_load || nr == SYS_kexec_file_load;
}

/* Whether the command is to be killed. */
static int entered(pid_t thread, unsigned long long nr)
{
	if (steps >= 0)
		steps++;
	if (nr == SYS_flock && steps < 0)
		steps = 0;
	if (!strcmp(mode, "kill") && steps == number && number > 0)
		return 1;
	if (!is_kexec(nr))
		return 0;
	inside = 1;
	if (++calls > 1)
		return 0;
	first_call = steps;
	if (!strcmp(mode, "fail"))
		set_fail_nth(thread, number);
	if (!strcmp(mode, "do") && system(getenv("STEP_SCRIPT")))
		die("the script");
	return 0;
}

static void left(pid_t thread, long long value)
{
	const char *what;

	if (!inside)
		return;
	inside = 0;
	if (value == 0)
		loaded++;
	if (calls > 1 || strcmp(mode, "fail"))
		return;
	what = get_fail_nth(thread) ? "left" : "injected";
	set_fail_nth(thread, 0);
	fprintf(result, "%s %lld\n", what, value);
}

int main(int argc, char **argv)
{
	struct __ptrace_syscall_info info;
	/* A stop must send no signal: that would allocate. */
	struct sigaction quiet = { .sa_handler = SIG_DFL, .sa_flags = SA_NOCLDSTOP };
	int status, code = 125, killed = 0;
	pid_t child, thread;

	if (argc < 4)
		return 125;
	mode = argv[1];
	number = atol(argv[2]);
	setenv("STEP_SCRIPT", argv[2], 1);
	result = fopen("/tmp/step", "w");
	if (!result)
		die("/tmp/step");
	sigaction(SIGCHLD, &quiet, NULL);
	child = fork();
	if (!child) {
		fclose(result);
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		execvp(argv[3], argv + 3);
		die(argv[3]);
	}
	waitpid(child, &status, 0);
	if (ptrace(PTRACE_SETOPTIONS, child, 0,
		   PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL))
		die("ptrace");
	ptrace(PTRACE_SYSCALL, child, 0, 0);
	while ((thread = waitpid(-1, &status, __WALL)) > 0) {
		long signal = 0;

		if (WIFEXITED(status) || WIFSIGNALED(status)) {
			if (thread == child) {
				code = WIFEXITED(status) ? WEXITSTATUS(status)
							 : 128 + WTERMSIG(status);
				break;
			}
			continue;
		}
		if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
			if (ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof(info), &info) <= 0)
				die("PTRACE_GET_SYSCALL_INFO");
			if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
				if (entered(thread, info.entry.nr)) {
					killed = 1;
					kill(child, SIGKILL);
					continue;
				}
			} else if (info.op == PTRACE_SYSCALL_INFO_EXIT) {
				left(thread, info.exit.rval);
			}
		} else if (WSTOPSIG(status) != SIGTRAP && WSTOPSIG(status) != SIGSTOP) {
			signal = WSTOPSIG(status);
		}
		ptrace(PTRACE_SYSCALL, thread, 0, signal);
	}
	if (!strcmp(mode, "kill"))
		fprintf(result, "%s %d %ld\n", killed ? "killed" : "ended", loaded, first_call);
	if (!strcmp(mode, "do"))
		fprintf(result, "%s\n", calls ? "done" : "ended");
	if (!strcmp(mode, "fail") && !calls)
		fprintf(result, "no-call 0\n");
	fclose(result);
	return code;
}
