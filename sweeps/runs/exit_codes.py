"""Exit codes of the `moe` command, which agents read, and the error behind the unusual one."""

FAILURE = 1
USER_MISTAKE = 2
INTERRUPTED = 75  # told to stop; the last checkpoint resumes it (EX_TEMPFAIL of sysexits.h)


class InterruptedRunError(Exception):
    """The run was told to stop; its last checkpoint resumes it. Ends with INTERRUPTED."""
