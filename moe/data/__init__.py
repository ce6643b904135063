"""Images: stores on disk, datasets, augmentation on the device, and the loaders that feed training."""
