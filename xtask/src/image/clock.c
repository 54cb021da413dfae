/* The wall clock of the product in an unoptimised image: the machine's, moved by as many seconds as the file /tmp/clock
 * says while it is there. Tests write that file from outside. Linked in by --wrap=clock_gettime; no release has it. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int __real_clock_gettime(clockid_t clock, struct timespec *now);

int __wrap_clock_gettime(clockid_t clock, struct timespec *now) {
	int result = __real_clock_gettime(clock, now);
	if (result != 0 || clock != CLOCK_REALTIME)
		return result;
	int before = errno;
	int file = open("/tmp/clock", O_RDONLY | O_CLOEXEC);
	if (file >= 0) {
		char seconds[24] = "";
		if (read(file, seconds, sizeof seconds - 1) > 0)
			now->tv_sec += atoll(seconds);
		close(file);
	}
	errno = before;
	return 0;
}
