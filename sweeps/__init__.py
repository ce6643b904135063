"""Many runs: the sweep file and its cells, the queue that holds them, agents that run them, their folders, views."""
