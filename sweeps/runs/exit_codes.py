"""Exit codes of the `moe` command, which agents read, and the error behind the unusual one."""

FAILURE = 1
USER_MISTAKE = 2
OUT_OF_MEMORY = 71  # of a worker alone, for its agent; people are told by FAILURE (EX_OSERR of sysexits.h)
INTERRUPTED = 75  # told to stop; the last checkpoint resumes it (EX_TEMPFAIL of sysexits.h)


class InterruptedRunError(Exception):
    """The run was told to stop; its last checkpoint resumes it. Ends with INTERRUPTED."""
