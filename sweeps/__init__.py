"""Many runs: the sweep file and its expansion, the backends and agents that run it, the run store, comparison."""
