/* The first process of every pod: it holds the pod's namespaces, buries what the pod's other processes leave behind,
 * and ends when it is told to. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(int signal)
{
	(void)signal;
	_exit(0);
}

static void bury(int signal)
{
	(void)signal;
	while (waitpid(-1, 0, WNOHANG) > 0)
		;
}

int main(void)
{
	struct sigaction ending = { .sa_handler = end };
	struct sigaction burying = { .sa_handler = bury, .sa_flags = SA_NOCLDSTOP };

	if (sigaction(SIGTERM, &ending, 0) || sigaction(SIGINT, &ending, 0) || sigaction(SIGCHLD, &burying, 0))
		return 1;
	for (;;)
		pause();
}
