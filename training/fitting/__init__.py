"""One process's part of a training: steps, checkpoints, curves. Starting it: `training.launch`."""
