"""One sparse Mixture-of-Experts vision model: configuration, data, network, losses and training."""
