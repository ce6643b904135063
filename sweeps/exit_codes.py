"""Exit codes of the `moe` command, which agents read."""

FAILURE = 1
USER_MISTAKE = 2
INTERRUPTED = 75  # told to stop; the last checkpoint resumes it (EX_TEMPFAIL of sysexits.h)
