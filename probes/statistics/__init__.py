"""Statistics of activations: pure functions on arrays that know no run, no path and no figure."""
