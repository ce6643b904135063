"""Lightning callbacks that watch routing form, epoch by epoch. The numbers are pure functions in `metrics`."""
